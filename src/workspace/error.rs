//! What can go wrong with a directory's configuration, without HTTP.

use std::path::PathBuf;

/// Why a directory's configuration can't be read or changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The file is there, but it, or the entry that was asked for, can't be used.
    #[error("invalid config file {}: {reason}", path.display())]
    InvalidFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// No entry has this name.
    #[error("session not found: {kind}:{name}")]
    NotFound {
        /// `mcp` or `skills`.
        kind: &'static str,
        /// The name as asked for.
        name: String,
    },
    /// The name is longer than `directory_config_name_max_bytes`.
    #[error("the name of an entry has at most {max} bytes")]
    NameTooLong {
        /// The bound.
        max: u64,
    },
    /// The file has `directory_config_entries_max` entries.
    #[error("{} has {max} entries already: delete one", path.display())]
    TooManyEntries {
        /// The file.
        path: PathBuf,
        /// The bound.
        max: u64,
    },
    /// With the entry the file would be longer than `directory_config_max_bytes`.
    #[error("{} would be longer than {max} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound.
        max: u64,
    },
    /// The file can't be written.
    #[error("can't write {}: {cause}", path.display())]
    NotWritten {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
}
