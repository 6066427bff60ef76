//! Skills of a directory: where they come from, and copying them to where agents look.

mod config;

pub use config::{SkillSource, SkillsConfig};
