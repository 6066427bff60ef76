//! Tar as GNU and POSIX tools read it: names of any length and bytes (GNU long names), sizes beyond 8 GiB (base 256), times
//! to the nanosecond (PAX records).

use std::io::{self, Read};

use tar::{EntryType, Header};

use super::super::entry::Meta;
use super::super::outgoing::Finish;
use super::pack::Packer;

const BLOCK: usize = 512;
const NAME_MAX: usize = 100;
const COPY_BYTES: usize = 128 * 1024;

pub(super) struct TarPacker<W> {
    out: W,
    buffer: Vec<u8>,
}

impl<W: Finish> TarPacker<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, buffer: vec![0; COPY_BYTES] }
    }

    /// The headers of one entry.
    fn head(&mut self, kind: EntryType, path: &[u8], meta: &Meta, size: u64, target: &[u8]) -> io::Result<()> {
        let (seconds, nanoseconds) = meta.modified;
        if nanoseconds > 0 || seconds < 0 {
            // Seconds count downwards before 1970, their fractions upwards (pax(1)).
            let (seconds, nanoseconds) =
                if seconds < 0 && nanoseconds > 0 { (seconds + 1, 1_000_000_000 - nanoseconds) } else { (seconds, nanoseconds) };
            let sign = if meta.modified.0 < 0 { "-" } else { "" };
            let record = record("mtime", &format!("{sign}{}.{nanoseconds:09}", seconds.unsigned_abs()));
            self.extension(EntryType::XHeader, b"./PaxHeaders/x", record.as_bytes())?;
        }
        for (kind, name) in [(EntryType::GNULongName, path), (EntryType::GNULongLink, target)] {
            if name.len() > NAME_MAX {
                self.extension(kind, b"././@LongLink", &[name, b"\0"].concat())?;
            }
        }
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(meta.mode);
        header.set_uid(meta.uid.into());
        header.set_gid(meta.gid.into());
        header.set_mtime(u64::try_from(seconds).unwrap_or_default());
        header.set_size(size);
        let old = header.as_old_mut();
        fill(&mut old.name, path);
        fill(&mut old.linkname, target);
        header.set_cksum();
        self.out.write_all(header.as_bytes())
    }

    fn extension(&mut self, kind: EntryType, name: &[u8], content: &[u8]) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        fill(&mut header.as_old_mut().name, name);
        header.set_cksum();
        self.out.write_all(header.as_bytes())?;
        self.out.write_all(content)?;
        self.pad(content.len() as u64)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let rest = usize::try_from(size % BLOCK as u64).unwrap_or_default();
        self.out.write_all(&[0; BLOCK][..(BLOCK - rest) % BLOCK])
    }
}

/// As much as fits: a longer one comes before the header.
fn fill(field: &mut [u8; NAME_MAX], value: &[u8]) {
    let bytes = value.len().min(NAME_MAX);
    field[..bytes].copy_from_slice(&value[..bytes]);
}

/// A PAX record, which begins with its own length.
fn record(key: &str, value: &str) -> String {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length += 1;
    }
    format!("{length} {key}={value}\n")
}

impl<W: Finish> Packer for TarPacker<W> {
    fn directory(&mut self, path: &[u8], meta: &Meta) -> io::Result<()> {
        self.head(EntryType::Directory, path, meta, 0, b"")
    }

    fn link(&mut self, path: &[u8], meta: &Meta, target: &[u8]) -> io::Result<()> {
        self.head(EntryType::Symlink, path, meta, 0, target)
    }

    fn file(&mut self, path: &[u8], meta: &Meta, content: &mut dyn Read) -> io::Result<()> {
        self.head(EntryType::Regular, path, meta, meta.size, b"")?;
        super::pack::copy(content, &mut self.out, &mut self.buffer)?;
        self.pad(meta.size)
    }

    fn end(mut self: Box<Self>) -> io::Result<()> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        for length in 1..300 {
            let record = record("mtime", &"1".repeat(length));
            let (said, _) = record.split_once(' ').expect("a length");
            assert_eq!(said.parse(), Ok(record.len()));
        }
    }
}
