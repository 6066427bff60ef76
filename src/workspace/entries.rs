//! One file of entries: a JSON object, name → configuration, in `<directory>/.sandbox-agent/config/`.
//!
//! Entries are kept as they are until somebody asks for one: an entry that can't be used harms no other.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Error;
use crate::config::Bounds;
use crate::rt::files;

/// Whoever reads a configuration, the agents too, may be another user: as the contract has it.
const MODE: u32 = 0o644;

/// What a file configures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Mcp,
    Skills,
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Mcp => "mcp",
            Self::Skills => "skills",
        }
    }
}

/// One file, and what bounds it.
pub(super) struct EntryFile<'a> {
    kind: Kind,
    path: PathBuf,
    bounds: &'a Bounds,
}

impl<'a> EntryFile<'a> {
    /// The file of a directory; a relative one is relative to the server's own.
    pub(super) fn new(directory: &Path, kind: Kind, bounds: &'a Bounds) -> Self {
        let path = directory.join(".sandbox-agent/config").join(format!("{}.json", kind.as_str()));
        Self { kind, path, bounds }
    }

    /// All entries, not checked yet. A file that is missing or empty has none. Blocks on the disk.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] when it is no JSON object within the bounds.
    pub(super) fn read(&self) -> Result<BTreeMap<String, Value>, Error> {
        let text = match files::read_bounded(&self.path, self.bounds.directory_config_max_bytes) {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => String::new(),
            Err(error) => return Err(self.invalid(error)),
        };
        if text.trim().is_empty() {
            return Ok(BTreeMap::new());
        }
        serde_json::from_str(&text).map_err(|error| self.invalid(error))
    }

    /// One entry. Blocks on the disk.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::InvalidFile`] also when only this entry has another shape.
    pub(super) fn get<T: DeserializeOwned>(&self, name: &str) -> Result<T, Error> {
        let entry = self.read()?.remove(name);
        let entry = entry.ok_or_else(|| Error::NotFound { kind: self.kind.as_str(), name: name.to_owned() })?;
        serde_json::from_value(entry).map_err(|error| self.invalid(format_args!("entry {name:?}: {error}")))
    }

    /// Adds or replaces an entry. Blocks on the disk; callers at the same time take turns.
    ///
    /// # Errors
    /// As [`EntryFile::read`], each bound its own, and [`Error::NotWritten`].
    pub(super) fn put(&self, name: &str, entry: Value) -> Result<(), Error> {
        let (name_max, max) = (self.bounds.directory_config_name_max_bytes, self.bounds.directory_config_entries_max);
        if name.len() as u64 > name_max {
            return Err(Error::NameTooLong { max: name_max });
        }
        let mut entries = self.read()?;
        let is_new = entries.insert(name.to_owned(), entry).is_none();
        if is_new && entries.len() as u64 > max {
            return Err(Error::TooManyEntries { path: self.path.clone(), max });
        }
        self.write(&entries)
    }

    /// Removes an entry; nothing is written when there is none. Blocks on the disk; callers at the same time take turns.
    ///
    /// # Errors
    /// As [`EntryFile::read`], and [`Error::NotWritten`].
    pub(super) fn delete(&self, name: &str) -> Result<(), Error> {
        let mut entries = self.read()?;
        if entries.remove(name).is_none() {
            return Ok(());
        }
        self.write(&entries)
    }

    fn write(&self, entries: &BTreeMap<String, Value>) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(entries).map_err(|error| self.not_written(&error.into()))?;
        let max = self.bounds.directory_config_max_bytes;
        if text.len() as u64 > max {
            return Err(Error::TooLarge { path: self.path.clone(), max });
        }
        let written = self.path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| {
            // A link is followed and a user's own mode kept: only the content is ours.
            let path = std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
            let mode = std::fs::metadata(&path).map_or(MODE, |metadata| metadata.permissions().mode() & 0o777);
            files::write_atomically(&path, &text, mode)
        });
        written.map_err(|error| self.not_written(&error))
    }

    fn invalid(&self, reason: impl std::fmt::Display) -> Error {
        Error::InvalidFile { path: self.path.clone(), reason: reason.to_string() }
    }

    fn not_written(&self, error: &io::Error) -> Error {
        Error::NotWritten { path: self.path.clone(), cause: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn path(directory: &Path) -> PathBuf {
        directory.join(".sandbox-agent/config/mcp.json")
    }

    #[test]
    fn entries_are_sorted_and_links_and_modes_stay() {
        let directory = tempfile::tempdir().expect("a directory");
        let bounds = Bounds::default();
        let file = EntryFile::new(directory.path(), Kind::Mcp, &bounds);
        file.delete("a").expect("nothing to do");
        assert!(!directory.path().join(".sandbox-agent").exists());
        file.put("b", json!(1)).expect("written");
        file.put("a", json!(2)).expect("written");
        assert_eq!(std::fs::read_to_string(path(directory.path())).expect("a file"), "{\n  \"a\": 2,\n  \"b\": 1\n}");
        let elsewhere = directory.path().join("elsewhere");
        std::fs::rename(path(directory.path()), &elsewhere).expect("renamed");
        std::fs::set_permissions(&elsewhere, std::fs::Permissions::from_mode(0o600)).expect("changed");
        std::os::unix::fs::symlink(&elsewhere, path(directory.path())).expect("linked");
        file.delete("a").expect("written");
        assert_eq!(std::fs::read_to_string(&elsewhere).expect("a file"), "{\n  \"b\": 1\n}");
        assert_eq!(std::fs::metadata(&elsewhere).expect("a file").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn bounds_hold_and_leave_the_file_as_it_was() {
        let directory = tempfile::tempdir().expect("a directory");
        let bounds = Bounds {
            directory_config_entries_max: 2,
            directory_config_name_max_bytes: 3,
            directory_config_max_bytes: 40,
            ..Bounds::default()
        };
        let file = EntryFile::new(directory.path(), Kind::Mcp, &bounds);
        file.put("a", json!(1)).expect("written");
        file.put("b", json!(1)).expect("written");
        assert!(matches!(file.put("c", json!(1)), Err(Error::TooManyEntries { max: 2, .. })));
        file.put("b", json!(2)).expect("no new one");
        assert!(matches!(file.put("long", json!(1)), Err(Error::NameTooLong { max: 3 })));
        assert!(matches!(file.put("b", json!("x".repeat(40))), Err(Error::TooLarge { max: 40, .. })));
        assert_eq!(file.read().expect("valid"), [("a".to_owned(), json!(1)), ("b".to_owned(), json!(2))].into());
        std::fs::write(path(directory.path()), " ".repeat(41)).expect("written");
        assert!(matches!(file.read(), Err(Error::InvalidFile { .. })));
    }
}
