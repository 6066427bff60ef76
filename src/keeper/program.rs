//! The program that is started as the server.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// Open, so that it can be started again when its file was replaced.
pub(super) struct Program {
    pub(super) path: PathBuf,
    file: File,
}

impl Program {
    /// Opens it.
    ///
    /// # Errors
    /// It isn't there, or can't be read.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        Ok(Self { file: File::open(&path)?, path })
    }

    /// What to execute: the path, unless something else lies there now.
    pub(super) fn executable(&self) -> PathBuf {
        let same = match (self.file.metadata(), std::fs::metadata(&self.path)) {
            (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
            _ => false,
        };
        if same { self.path.clone() } else { PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd())) }
    }
}
