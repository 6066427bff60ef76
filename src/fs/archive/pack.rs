//! Packing: a tree as a stream, one entry after another, whatever happens to it meanwhile.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use bytes::Bytes;
use rustix::fs::{Dir, Mode, OFlags, openat, readlinkat};
use serde_json::json;
use tokio::sync::mpsc;

use super::super::draft::PREFIX;
use super::super::entry::{Kind, Meta};
use super::super::outgoing::{Gzip, Outgoing, Zstd};
use super::super::{Error, Fs, Located, Reach, blocking};
use super::content::OPEN_DIRECTORY;
use super::pack_tar::TarPacker;
use super::pack_zip::ZipPacker;
use crate::config::{Bounds, as_usize};
use crate::rt::clock::now_ms;
use crate::rt::spawn_owned;

const OPEN_FILE: OFlags =
    OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// What was left out is told in a last entry of this name, when there is anything.
const REPORT: &[u8] = b".sandboxd-left-out.json";
/// As many of them are told; more are counted.
const REPORT_MAX: usize = 1024;

/// The format of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum Format {
    Tar,
    TarGz,
    TarZst,
    Zip,
}

/// Writes the entries of one format.
pub(super) trait Packer {
    fn directory(&mut self, path: &[u8], meta: &Meta) -> io::Result<()>;
    fn link(&mut self, path: &[u8], meta: &Meta, target: &[u8]) -> io::Result<()>;
    /// `content` has exactly as many bytes as `meta` says.
    fn file(&mut self, path: &[u8], meta: &Meta, content: &mut dyn Read) -> io::Result<()>;
    fn end(self: Box<Self>) -> io::Result<()>;
}

impl Fs {
    /// A directory with all that it holds, or a file, as an archive, a piece at a time; names in it are relative to the
    /// directory. What can't be read, what is neither file, directory nor link, and what is on other file systems is
    /// left out, which a last entry tells. Dropping what it gives ends it.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Outside`], [`Error::Denied`], [`Error::Invalid`] for what can't be packed,
    /// [`Error::Busy`].
    pub async fn pack(&self, reach: &Reach, at: Located, format: Format) -> Result<mpsc::Receiver<Result<Bytes, Error>>, Error> {
        let (reach, bounds) = (reach.clone(), self.inner.bounds.clone());
        let top = blocking(move || Top::open(&reach, &at)).await?;
        let permit = self.transfer()?;
        let (pieces, received) = mpsc::channel(1);
        spawn_owned("fs-pack", async move {
            let _permit = permit;
            // A reader that leaves closes the channel, which ends the thread.
            let work = blocking(move || {
                let outgoing = Outgoing::new(pieces.clone());
                if let Err(error) = top.pack(format, outgoing, &bounds) {
                    let _ = pieces.blocking_send(Err(Error::BrokeOff(error.to_string()))); // a reader that left
                }
                Ok(())
            });
            let _ = work.await;
        });
        Ok(received)
    }
}

/// What is packed.
enum Top {
    Directory(OwnedFd, Meta),
    File(File, Meta, Vec<u8>),
}

impl Top {
    fn open(reach: &Reach, at: &Located) -> Result<Self, Error> {
        let opened = reach.open(at, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty())?;
        let meta = Meta::of_open(&opened).map_err(|errno| Error::of("look at", at.path(), errno))?;
        match meta.kind {
            Kind::Directory => Ok(Self::Directory(opened, meta)),
            Kind::File => {
                let name = at.path().file_name().unwrap_or(OsStr::new("file")).as_bytes().to_vec();
                Ok(Self::File(opened.into(), meta, name))
            }
            kind => {
                let why = format!("{} is a {}: only files and directories are packed", at.path().display(), kind.as_str());
                Err(Error::Invalid(why))
            }
        }
    }

    fn pack(self, format: Format, outgoing: Outgoing, bounds: &Bounds) -> io::Result<()> {
        let packer: Box<dyn Packer> = match format {
            Format::Tar => Box::new(TarPacker::new(outgoing)),
            Format::TarGz => Box::new(TarPacker::new(Gzip::new(outgoing))),
            Format::TarZst => Box::new(TarPacker::new(Zstd::new(outgoing)?)),
            Format::Zip => Box::new(ZipPacker::new(outgoing, bounds.fs_archive_zip_entries_max)),
        };
        let mut packing = Packing { packer, left_out: Vec::new(), left_out_count: 0 };
        match self {
            Self::File(file, meta, name) => packing.file(file, &meta, &name)?,
            Self::Directory(directory, meta) => packing.tree(directory, &meta, as_usize(bounds.fs_archive_depth_max))?,
        }
        packing.end()
    }
}

/// A directory on the way down.
struct Level {
    directory: Dir,
    /// Its name in the archive, with a slash behind it.
    path: Vec<u8>,
}

struct Packing {
    packer: Box<dyn Packer>,
    left_out: Vec<(Vec<u8>, String)>,
    left_out_count: u64,
}

impl Packing {
    fn leave_out(&mut self, path: &[u8], why: impl Into<String>) {
        self.left_out_count += 1;
        if self.left_out.len() < REPORT_MAX {
            self.left_out.push((path.to_vec(), why.into()));
        }
    }

    /// Uses no stack for depth.
    fn tree(&mut self, top: OwnedFd, meta: &Meta, depth_max: usize) -> io::Result<()> {
        let mut levels = vec![Level { directory: Dir::new(top)?, path: Vec::new() }];
        while let Some(level) = levels.last_mut() {
            let entry = match level.directory.read() {
                None => {
                    levels.pop();
                    continue;
                }
                Some(Err(errno)) => {
                    let path = level.path.clone();
                    self.leave_out(&path, format!("can't be listed to its end: {}", io::Error::from(errno)));
                    levels.pop();
                    continue;
                }
                Some(Ok(entry)) => entry,
            };
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") || name.starts_with(PREFIX.as_bytes()) {
                continue;
            }
            let path = [&level.path[..], name].concat();
            let is_deep = levels.len() >= depth_max;
            let Some(level) = levels.last_mut() else { break };
            if let Some(below) = self.entry(&level.directory, name, path, meta.id.0, is_deep)? {
                levels.push(below);
            }
        }
        Ok(())
    }

    /// Packs what has a name; gives a directory to go down to.
    fn entry(&mut self, here: &Dir, name: &[u8], path: Vec<u8>, device: u64, is_deep: bool) -> io::Result<Option<Level>> {
        let (here, name) = (here.fd()?, OsStr::from_bytes(name));
        let unreadable = |errno: rustix::io::Errno| format!("can't be read: {}", io::Error::from(errno));
        let Ok(meta) = Meta::of(here, Path::new(name)) else { return Ok(None) }; // gone
        match meta.kind {
            Kind::Directory => {
                let path = [&path[..], b"/"].concat();
                self.packer.directory(&path, &meta)?;
                if meta.id.0 != device {
                    self.leave_out(&path, "what it holds is on another file system");
                } else if is_deep {
                    self.leave_out(&path, "what it holds lies too deep (fs_archive_depth_max)");
                } else {
                    match openat(here, name, OPEN_DIRECTORY, Mode::empty()).and_then(Dir::new) {
                        Ok(directory) => return Ok(Some(Level { directory, path })),
                        Err(errno) => self.leave_out(&path, unreadable(errno)),
                    }
                }
            }
            Kind::Symlink => match readlinkat(here, name, Vec::new()) {
                Ok(target) => self.packer.link(&path, &meta, target.to_bytes())?,
                Err(errno) => self.leave_out(&path, unreadable(errno)),
            },
            Kind::File => match open_file(here, name) {
                Ok((file, meta)) => self.file(file, &meta, &path)?,
                Err(errno) => self.leave_out(&path, unreadable(errno)),
            },
            kind => self.leave_out(&path, format!("is a {}", kind.as_str())),
        }
        Ok(None)
    }

    fn file(&mut self, file: File, meta: &Meta, path: &[u8]) -> io::Result<()> {
        let mut content = Exactly { file, left: meta.size, torn: None };
        self.packer.file(path, meta, &mut content)?;
        let after = Meta::of_open(&content.file);
        if let Some(why) = content.torn {
            self.leave_out(path, why);
        } else if after.is_ok_and(|after| (after.size, after.modified) != (meta.size, meta.modified)) {
            self.leave_out(path, "is here, but changed while it was read");
        }
        Ok(())
    }

    fn end(mut self) -> io::Result<()> {
        if self.left_out_count > 0 {
            let told: Vec<_> =
                self.left_out.iter().map(|(path, why)| json!({"path": String::from_utf8_lossy(path), "reason": why})).collect();
            let report = json!({"count": self.left_out_count, "leftOut": told}).to_string();
            let now = (now_ms() / 1000, 0);
            let (kind, size) = (Kind::File, report.len() as u64);
            let meta = Meta { kind, size, mode: 0o644, uid: 0, gid: 0, links: 1, id: (0, 0), modified: now, changed: now };
            self.packer.file(REPORT, &meta, &mut report.as_bytes())?;
        }
        self.packer.end()
    }
}

fn open_file(here: impl AsFd, name: &OsStr) -> Result<(File, Meta), rustix::io::Errno> {
    let file = openat(here, name, OPEN_FILE, Mode::empty())?;
    let meta = Meta::of_open(&file)?;
    // Something else may have the name by now.
    if meta.kind == Kind::File { Ok((file.into(), meta)) } else { Err(rustix::io::Errno::STALE) }
}

/// So many bytes of a file, as its header said: zeros for those that are gone.
struct Exactly {
    file: File,
    left: u64,
    /// Why there are zeros.
    torn: Option<String>,
}

impl Read for Exactly {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(into.len());
        if most == 0 {
            return Ok(0);
        }
        let read = match &self.torn {
            None => self.file.read(&mut into[..most]),
            Some(_) => Ok(0),
        };
        let bytes = match read {
            Ok(bytes @ 1..) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            ended => {
                let why = ended.err().map_or("it became shorter while it was read".to_owned(), |error| error.to_string());
                self.torn.get_or_insert(format!("is here, but ends in zeros: {why}"));
                into[..most].fill(0);
                most
            }
        };
        self.left -= bytes as u64;
        Ok(bytes)
    }
}

/// Copies to the end through a buffer that is there already.
pub(super) fn copy(from: &mut dyn Read, to: &mut dyn Write, buffer: &mut [u8]) -> io::Result<()> {
    loop {
        match from.read(buffer) {
            Ok(0) => return Ok(()),
            Ok(bytes) => to.write_all(&buffer[..bytes])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
