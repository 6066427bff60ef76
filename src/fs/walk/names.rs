//! What one directory holds, in order.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, RawDir, statat};
use rustix::io::Errno;

use super::rules::Marks;
use crate::fs::entry::Kind;

const READ_BYTES: usize = 32 * 1024;

/// The names of a directory, sorted by their bytes.
pub(super) struct Names {
    /// One behind another.
    text: Vec<u8>,
    entries: Vec<(usize, usize, Kind)>,
    first: usize,
    pub(super) marks: Marks,
}

impl Names {
    /// Reads all of them: what has to be sorted has to be in memory.
    pub(super) fn read(directory: &OwnedFd) -> Result<Self, Errno> {
        let (mut text, mut entries, mut marks) = (Vec::new(), Vec::new(), Marks::default());
        let mut buffer = [MaybeUninit::uninit(); READ_BYTES];
        let mut read = RawDir::new(directory, &mut buffer);
        while let Some(entry) = read.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            marks.see(name);
            let kind = match entry.file_type() {
                FileType::Unknown => kind_of(directory, entry.file_name()), // a file system that doesn't say
                known => known.into(),
            };
            let start = text.len();
            text.extend_from_slice(name);
            entries.push((start, text.len(), kind));
        }
        entries.sort_unstable_by(|one: &(usize, usize, Kind), other| text[one.0..one.1].cmp(&text[other.0..other.1]));
        Ok(Self { text, entries, first: 0, marks })
    }

    /// Leaves out what comes before a name.
    pub(super) fn start_at(&mut self, name: &[u8]) {
        self.first = self.entries.partition_point(|(start, end, _)| &self.text[*start..*end] < name);
    }

    /// Where to begin.
    pub(super) fn first(&self) -> usize {
        self.first
    }

    pub(super) fn get(&self, at: usize) -> Option<(&[u8], Kind)> {
        self.entries.get(at).map(|(start, end, kind)| (&self.text[*start..*end], *kind))
    }
}

fn kind_of(directory: &OwnedFd, name: &std::ffi::CStr) -> Kind {
    let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
    stat.map_or(Kind::Unknown, |stat| FileType::from_raw_mode(stat.st_mode).into())
}
