//! A file, a link, or nothing: what is at a path, with all that it takes to make it again.

use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use bytes::Bytes;
use rustix::fs::readlinkat;

use super::super::draft::present;
use super::super::entry::{Kind, Meta};
use super::super::{Error, Fs, Located, Reach, blocking};
use super::image::{READ_ONLY, read};

/// What is, or was, at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Thing {
    /// Nothing.
    Nothing,
    /// A regular file.
    File {
        /// All of it.
        content: Bytes,
        /// Whose it is.
        rights: Rights,
    },
    /// A symbolic link.
    Link {
        /// What it says.
        target: PathBuf,
        /// Whose it is.
        rights: Rights,
    },
}

/// Permission bits, with setuid, setgid and sticky, and owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub struct Rights {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

impl Rights {
    pub(in crate::fs) fn of(meta: &Meta) -> Self {
        Self { mode: meta.mode, uid: meta.uid, gid: meta.gid }
    }
}

impl Thing {
    /// A file's content.
    pub fn content(&self) -> Option<&Bytes> {
        match self {
            Self::File { content, .. } => Some(content),
            Self::Nothing | Self::Link { .. } => None,
        }
    }

    /// The same with another content; what wasn't a file becomes a usual one.
    #[must_use]
    pub fn with(&self, content: Bytes) -> Self {
        let rights = match self {
            Self::File { rights, .. } => *rights,
            Self::Nothing | Self::Link { .. } => Rights { mode: 0o644, uid: 0, gid: 0 },
        };
        Self::File { content, rights }
    }
}

/// What was found at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// `None` for what can't be made again: a directory, a device, a file that is too large or can't be read.
    pub thing: Option<Thing>,
    /// What it is; `None` when nothing is there.
    pub meta: Option<Meta>,
}

impl Fs {
    /// What is at a path now; a link is itself. Cancel safe.
    ///
    /// # Errors
    /// [`Error::Outside`], [`Error::Denied`], and the system's; that nothing is there is none.
    pub async fn present(&self, reach: &Reach, at: Located) -> Result<Present, Error> {
        let (reach, max) = (reach.clone(), self.inner.bounds.fs_preimage_max_bytes);
        blocking(move || look(&reach, &at, max)).await
    }
}

fn look(reach: &Reach, at: &Located, max_bytes: u64) -> Result<Present, Error> {
    let nothing = Present { thing: Some(Thing::Nothing), meta: None };
    let place = match reach.place(at, false) {
        Err(Error::NotFound(_) | Error::NotADirectory(_)) => return Ok(nothing),
        place => place?,
    };
    let Some(meta) = present(&place)? else { return Ok(nothing) };
    let rights = Rights::of(&meta);
    let thing = match meta.kind {
        Kind::File => {
            let opened = rustix::fs::openat(&place.directory, &place.name, READ_ONLY, rustix::fs::Mode::empty()).ok();
            let file = opened.map(std::fs::File::from);
            file.and_then(|file| read(&file, meta.size, max_bytes)).map(|content| Thing::File { content, rights })
        }
        Kind::Symlink => {
            let target = readlinkat(&place.directory, &place.name, Vec::new()).ok();
            target.map(|target| Thing::Link { target: std::ffi::OsStr::from_bytes(target.as_bytes()).into(), rights })
        }
        _ => None,
    };
    Ok(Present { thing, meta: Some(meta) })
}
