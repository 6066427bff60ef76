//! The few calls with which a spool changes the disk, so that tests can let them fail.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

pub(super) trait Disk: Send {
    /// Makes a file that was not there, readable by us only.
    fn create(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>>;

    fn remove(&self, path: &Path) -> io::Result<()>;
}

pub(super) trait SegmentFile: Send {
    /// As pwrite(2): may write less.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize>;

    fn set_len(&self, len: u64) -> io::Result<()>;
}

/// The real one.
pub(super) struct Files;

impl Disk for Files {
    fn create(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        // create_new: neither a link nor what another spool left is ever written through
        let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Box::new(file))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }
}

impl SegmentFile for File {
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::write_at(self, bytes, at)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }
}
