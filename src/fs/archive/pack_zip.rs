//! Zip, as far as it goes: no owners, times to the second. What comes after an entry says how long it was, so nothing is
//! read twice; sizes beyond 4 GiB and more than 65 535 entries are written as zip64.

use std::io::{self, Read};

use flate2::Compression;
use flate2::write::DeflateEncoder;
use rawzip::path::EntryPath;
use rawzip::time::UtcDateTime;
use rawzip::{CompressionMethod, ZipArchiveWriter};

use super::super::entry::Meta;
use super::super::outgoing::{Finish as _, Outgoing};
use super::pack::Packer;

const COPY_BYTES: usize = 128 * 1024;
/// Types of files beside their permissions (inode(7)).
const FILE: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const SYMLINK: u32 = 0o120_000;

pub(super) struct ZipPacker {
    archive: ZipArchiveWriter<Outgoing>,
    buffer: Vec<u8>,
    entries_left: u64,
}

impl ZipPacker {
    pub(super) fn new(out: Outgoing, entries_max: u64) -> Self {
        Self { archive: ZipArchiveWriter::new(out), buffer: vec![0; COPY_BYTES], entries_left: entries_max }
    }

    /// What is said of each entry at the end waits in memory.
    fn count(&mut self) -> io::Result<()> {
        let too_many = || io::Error::other("more entries than a zip may have here (fs_archive_zip_entries_max): ask for a tar");
        self.entries_left = self.entries_left.checked_sub(1).ok_or_else(too_many)?;
        Ok(())
    }

    fn content(&mut self, path: &[u8], meta: &Meta, kind: u32, content: &mut dyn Read) -> io::Result<()> {
        self.count()?;
        let new = self.archive.new_file(name(path)).compression_method(CompressionMethod::DEFLATE);
        let new = new.last_modified(UtcDateTime::from_unix(meta.modified.0)).unix_permissions(kind | meta.mode);
        let (mut entry, config) = new.start().map_err(io::Error::other)?;
        let mut writer = config.wrap(DeflateEncoder::new(&mut entry, Compression::new(4)));
        super::pack::copy(content, &mut writer, &mut self.buffer)?;
        let (encoder, descriptor) = writer.finish().map_err(io::Error::other)?;
        encoder.finish()?;
        entry.finish(descriptor).map_err(io::Error::other).map(drop)
    }
}

/// A name that isn't UTF-8, or that would be read as a Windows path, goes as it is.
fn name(path: &[u8]) -> EntryPath<'_> {
    match std::str::from_utf8(path) {
        Ok(text) if !text.contains('\\') => EntryPath::conformant(text),
        _ => EntryPath::verbatim(path),
    }
}

impl Packer for ZipPacker {
    fn directory(&mut self, path: &[u8], meta: &Meta) -> io::Result<()> {
        self.count()?;
        let new = self.archive.new_dir(name(path)).unix_permissions(DIRECTORY | meta.mode);
        new.last_modified(UtcDateTime::from_unix(meta.modified.0)).create().map_err(io::Error::other).map(drop)
    }

    fn link(&mut self, path: &[u8], meta: &Meta, target: &[u8]) -> io::Result<()> {
        self.content(path, meta, SYMLINK, &mut &*target)
    }

    fn file(&mut self, path: &[u8], meta: &Meta, content: &mut dyn Read) -> io::Result<()> {
        self.content(path, meta, FILE, content)
    }

    fn end(self: Box<Self>) -> io::Result<()> {
        self.archive.finish().map_err(io::Error::other)?.finish()
    }
}
