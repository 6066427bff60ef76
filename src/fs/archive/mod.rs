//! Archives, both ways: nothing of them is ever whole in memory, and nothing is written outside the destination.
//!
//! ```text
//!  pieces ──▶ Incoming ──▶ gzip, zstd ──▶ Metered ──▶ crate `tar` ──▶ rules (entry) ──▶ Tree: openat, step by step
//!             a client's     by magic      bounds      parses only     what is made      beneath the destination
//! ```

mod content;
mod entry;
mod extract;
mod limits;
mod pack;
mod pack_tar;
mod pack_zip;
mod staged;
#[cfg(test)]
mod tests;
mod tree;

use bytes::Bytes;
use tokio::sync::mpsc;

pub use extract::{Extracted, Extraction, Failed, Skipped};
pub use pack::Format;

/// A body as it comes: pieces, and `None` behind the last one. Closed without that, it broke off.
pub type Pieces = mpsc::Receiver<Option<Bytes>>;
