//! Which skills in a directory are ours: `<directory>/.sandbox-agent/applied-skills.json`.
//!
//! A folder is ours when it is recorded for its place and its content is still the recorded one. All others belong to
//! somebody else, and are never touched.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::failure::Failure;
use crate::rt::files;

const MAX_BYTES: u64 = 1024 * 1024;

/// Skill → how it was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Record(pub(super) BTreeMap<String, Made>);

/// How a skill was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Made {
    /// The entry of the configuration.
    pub(super) name: String,
    /// Its source.
    pub(super) source: String,
    /// What was written.
    pub(super) digest: String,
    /// The places it was written to, relative to the directory.
    pub(super) places: BTreeSet<String>,
}

pub(super) fn path(directory: &Path) -> PathBuf {
    directory.join(".sandbox-agent/applied-skills.json")
}

impl Record {
    /// One that is missing or can't be used is empty: then nothing is ours.
    pub(super) fn read(directory: &Path) -> Self {
        let text = files::read_bounded(&path(directory), MAX_BYTES).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    pub(super) fn write(&self, directory: &Path) -> Result<(), Failure> {
        let path = path(directory);
        let written = if self.0.is_empty() {
            std::fs::remove_file(&path)
        } else {
            let text = serde_json::to_vec_pretty(self).expect("maps with text keys");
            path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| files::write_atomically(&path, &text, 0o644))
        };
        written.map_err(|error| Failure::io(&path, &error))
    }
}
