//! Folders of manifests that users add files to: looked at on each use, by names, sizes and times only, and read again when something
//! there changed, so that a dropped file needs no restart.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::files;

/// Where manifests lie, and how much is read of them.
#[derive(Debug)]
pub struct Folder {
    /// The directory; it need not be there.
    pub dir: PathBuf,
    /// Files that are read.
    pub max_files: usize,
    /// Of one of them.
    pub max_bytes: u64,
    /// The variables that set these two bounds, for messages.
    pub variables: [&'static str; 2],
}

/// A manifest that is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// Why, and what would be right.
    pub reason: String,
}

/// A file of the folder, as it lies there: path, inode, size, and modification time in seconds and nanoseconds.
pub type Entry = (PathBuf, u64, u64, i64, i64);

/// What was made of a folder, until something in it changes.
#[derive(Debug)]
pub struct Kept<T>(Mutex<Option<(Vec<Entry>, Arc<T>)>>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T> Kept<T> {
    /// What is kept, or made anew of the files that are there now. Blocks on the file system.
    pub fn get(&self, folder: &Folder, make: impl FnOnce(&[Entry]) -> T) -> Arc<T> {
        let entries = folder.entries();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner); // replaced as a whole
        if let Some((_, made)) = kept.as_ref().filter(|(known, _)| *known == entries) {
            return Arc::clone(made);
        }
        let made = Arc::new(make(&entries));
        *kept = Some((entries, Arc::clone(&made)));
        made
    }
}

impl Folder {
    /// The `.toml` files that are there, by name. Blocks on the file system.
    pub fn entries(&self) -> Vec<Entry> {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return Vec::new() };
        let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
        let mut found: Vec<Entry> = paths
            .filter(|path| path.extension().is_some_and(|end| end == "toml"))
            .filter_map(|path| std::fs::metadata(&path).ok().map(|meta| (path, meta)))
            .filter(|(_, meta)| meta.is_file()) // a FIFO would block the reader
            .map(|(path, meta)| (path, meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
            .collect();
        found.sort();
        found
    }

    /// The text of the file at this place of [`Folder::entries`]. Blocks on the file system.
    ///
    /// # Errors
    /// Why it isn't read, for people.
    pub fn read(&self, index: usize, (path, _, size, ..): &Entry) -> Result<String, String> {
        if index >= self.max_files {
            return Err(format!("more than {} manifests: this one is not read ({})", self.max_files, self.variables[0]));
        }
        self.check_size(*size)?;
        files::read_bounded(path, self.max_bytes).map_err(|error| format!("can't be read: {error}"))
    }

    /// # Errors
    /// It is too large, for people.
    pub fn check_size(&self, size_bytes: u64) -> Result<(), String> {
        if size_bytes <= self.max_bytes {
            return Ok(());
        }
        Err(format!("{size_bytes} bytes are more than the {} that are read ({})", self.max_bytes, self.variables[1]))
    }

    /// Writes a file, replacing an earlier one in one step. Blocks on the file system.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, path: &Path, text: &str) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.dir)?;
        files::write_atomically(path, text.as_bytes(), 0o644)
    }
}
