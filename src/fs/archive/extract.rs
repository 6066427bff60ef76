//! Unpacking: files as they come; links, and what directories are like, at the end.
//!
//! ```text
//!  in place:  entries ──▶ links ──▶ modes and times of directories       a bad entry ends it: what came before stays
//!  atomic:    the same in a directory of ours beside the destination ──▶ rename     or nothing at all
//! ```

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashSet};
use std::hash::BuildHasher as _;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, Mode, Timespec, Timestamps, fchmod, futimens, linkat, openat, renameat, symlinkat, utimensat};
use rustix::io::Errno;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use super::super::draft::PREFIX;
use super::super::ledger::Known;
use super::super::{Error, Fs, Located, Reach, blocking};
use super::Pieces;
use super::content::{self, OPEN_DIRECTORY};
use super::entry::{Head, What, may_say};
use super::limits::{self, Gauge};
use super::staged;
use super::tree::Tree;
use crate::config::Bounds;
use crate::rt::ids::new_id;
use crate::rt::spawn_owned;

/// As many paths as the contract shows.
const SHOWN_MAX: usize = 1024;

/// How an archive is unpacked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Extraction {
    /// All or nothing: the destination must be new or empty.
    pub atomic: bool,
    /// With `atomic`: what is there is replaced by what the archive holds, and by nothing else.
    pub overwrite: bool,
    /// Goes on behind an entry that is refused.
    pub skips: bool,
}

/// What was unpacked.
#[derive(Debug, Default)]
pub struct Extracted {
    /// The first entries.
    pub paths: Vec<PathBuf>,
    /// All entries that were made.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// The first entries that were left out.
    pub skipped: Vec<Skipped>,
    /// All of them.
    pub skipped_count: u64,
    /// What ended it early.
    pub failed: Option<Failed>,
}

/// An entry that was left out.
#[derive(Debug)]
pub struct Skipped {
    /// Its name as the archive has it.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// What ended the unpacking early.
#[derive(Debug)]
pub struct Failed {
    /// The entry's name as the archive has it; `None` when it wasn't an entry.
    pub name: Option<String>,
    /// Why.
    pub error: Error,
}

impl Fs {
    /// Unpacks a tar archive, which may be compressed by gzip or zstd, into a directory, which is made. No file is ever
    /// there by halves, no link is followed, and nothing is written elsewhere. What was unpacked is in the history. Dropping
    /// the future doesn't stop it; it ends where `pieces` do.
    ///
    /// # Errors
    /// [`Error::NotADirectory`], [`Error::DestinationExists`] when it must be empty and isn't, [`Error::Outside`],
    /// [`Error::Denied`], [`Error::Busy`], [`Error::Stale`] when a directory is replaced; what is wrong with the archive is in [`Extracted::failed`].
    pub async fn extract(&self, reach: &Reach, at: Located, how: Extraction, pieces: Pieces) -> Result<Extracted, Error> {
        let (fs, reach, permit) = (self.clone(), reach.clone(), self.transfer()?);
        let extracted = spawn_owned("fs-extract", async move {
            let extracted = fs.unpacked(&reach, &at, how, pieces, permit).await?;
            if extracted.entries > 0 {
                let summary = json!({"entries": extracted.entries, "bytes": extracted.bytes});
                fs.record_summary(&reach, "extract", &at, summary).await;
            }
            Ok(extracted)
        });
        extracted.await.map_err(|_| Error::Stopping)?
    }

    async fn unpacked(
        &self,
        reach: &Reach,
        at: &Located,
        how: Extraction,
        pieces: Pieces,
        permit: OwnedSemaphorePermit,
    ) -> Result<Extracted, Error> {
        let _alone = if how.atomic { Some(self.alone(at).await) } else { None };
        let (fs, reach, at, bounds) = (self.clone(), reach.clone(), at.clone(), self.inner.bounds.clone());
        blocking(move || {
            let _permit = permit;
            if how.atomic {
                return staged::beside(&fs, &reach, &at, how, bounds, pieces);
            }
            let root = reach.make(&at)?;
            Ok(unpack(root, at.path(), how, bounds, pieces, fs.known_below(&reach, &at)))
        })
        .await
    }
}

/// Unpacks into a directory that is held; `at` is its path for people, and `known` what its author saw there.
pub(super) fn unpack(
    root: OwnedFd,
    at: &Path,
    how: Extraction,
    bounds: Bounds,
    pieces: Pieces,
    known: Option<Known>,
) -> Extracted {
    let gauge = Gauge::new(bounds);
    let mut unpacking = Unpacking {
        tree: Tree::new(root, at.to_path_buf()),
        gauge: Rc::clone(&gauge),
        report: Extracted::default(),
        links: BTreeMap::new(),
        directories: BTreeMap::new(),
        files: HashSet::new(),
        hasher: RandomState::new(),
        skips: how.skips,
        known,
    };
    let mut failed = unpacking.entries(pieces).err();
    if let Err(error) = unpacking.finish() {
        failed.get_or_insert(Failed { name: None, error });
    }
    Extracted { failed, ..unpacking.report }
}

/// A link that is made at the end, so that nothing can lead through it.
struct Link {
    target: PathBuf,
    modified: Timespec,
}

struct Unpacking {
    tree: Tree,
    gauge: Rc<Gauge>,
    report: Extracted,
    links: BTreeMap<PathBuf, Link>,
    /// Modes and times, for the end: a mode may forbid to write.
    directories: BTreeMap<PathBuf, (u32, Timespec)>,
    /// What hard links may lead to, as keyed hashes of paths: names of a million files would be too much.
    files: HashSet<u64>,
    hasher: RandomState,
    skips: bool,
    known: Option<Known>,
}

impl Unpacking {
    fn entries(&mut self, pieces: Pieces) -> Result<(), Failed> {
        let gauge = Rc::clone(&self.gauge);
        let damaged = |error: io::Error| Failed {
            name: None,
            error: gauge.refusal().unwrap_or_else(|| Error::Invalid(format!("no tar archive, or a damaged one: {error}"))),
        };
        let mut archive = tar::Archive::new(limits::open(pieces, &gauge).map_err(damaged)?);
        let mut entries = archive.entries().map_err(damaged)?;
        let mut unread = 0;
        loop {
            gauge.begin_header(std::mem::take(&mut unread));
            let Some(entry) = entries.next() else { return Ok(()) };
            let mut entry = entry.map_err(damaged)?;
            let kind = entry.header().entry_type();
            if !kind.is_pax_global_extensions() && !kind.is_pax_local_extensions() {
                gauge.end_header(); // the content of those two is a header
            }
            let made = Head::of(&mut entry).and_then(|head| self.one(&head, &mut entry));
            let name = || String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            match made {
                Ok(()) => {}
                Err(error @ Error::Invalid(_)) if self.skips && gauge.is_sound() => {
                    self.skip(name(), &error);
                    if kind.is_gnu_sparse() {
                        // Its holes may be of any length: it isn't read, only what the archive has of it.
                        unread = entry.header().entry_size().unwrap_or_default();
                        continue;
                    }
                }
                Err(error) => return Err(Failed { name: Some(name()), error: gauge.refusal().unwrap_or(error) }),
            }
            gauge.end_header();
            io::copy(&mut entry, &mut io::sink()).map_err(damaged)?; // what is left of it counted as a header otherwise
        }
    }

    fn skip(&mut self, name: String, error: &Error) {
        self.report.skipped_count += 1;
        if self.report.skipped.len() < SHOWN_MAX {
            self.report.skipped.push(Skipped { name, reason: error.to_string() });
        }
    }

    fn one(&mut self, head: &Head, entry: &mut impl Content) -> Result<(), Error> {
        let path = &head.path;
        if head.what == What::Nothing || path.as_os_str().is_empty() {
            return Ok(());
        }
        let is_file = matches!(head.what, What::File { .. });
        self.gauge.take(if is_file { entry.length() } else { 0 }, path.iter().count() as u64)?;
        self.stay_off_links(path)?;
        if let Some(known) = self.known.as_ref().filter(|known| known.has(path) && head.what != What::Directory) {
            known.may_replace(self.tree.place(path)?.0, path)?;
        }
        if !matches!(head.what, What::Link(_)) {
            self.links.remove(path); // the last one with a name wins
        }
        match &head.what {
            What::File { is_sparse } => {
                self.file(head, entry, *is_sparse)?;
                self.report.bytes += entry.length();
            }
            What::Directory => {
                self.tree.directory(path)?;
                if self.directories.insert(path.clone(), (head.mode, head.modified)).is_none() {
                    self.gauge.keep(path.as_os_str().len())?;
                }
            }
            What::Symlink(target) => self.symlink(path, target.clone(), head.modified)?,
            What::Link(target) => self.link(path, target)?,
            What::Nothing => {}
        }
        self.report.entries += 1;
        if self.report.paths.len() < SHOWN_MAX {
            self.report.paths.push(self.tree.shown(path));
        }
        Ok(())
    }

    /// Refuses what would lie beneath a link of the archive.
    fn stay_off_links(&self, path: &Path) -> Result<(), Error> {
        let is_beneath = !self.links.is_empty() && path.ancestors().skip(1).any(|above| self.links.contains_key(above));
        if is_beneath {
            return Err(Error::Invalid(format!("{}: nothing is unpacked through links", self.tree.shown(path).display())));
        }
        Ok(())
    }

    fn file(&mut self, head: &Head, entry: &mut impl Content, is_sparse: bool) -> Result<(), Error> {
        let shown = self.tree.shown(&head.path);
        let (directory, name) = self.tree.place(&head.path)?;
        let file = content::New { directory, name, shown: &shown, mode: head.mode, modified: head.modified };
        file.write(entry, entry.length(), is_sparse).map_err(|error| self.gauge.refusal().unwrap_or(error))?;
        self.files.insert(self.hasher.hash_one(&head.path));
        if let Some(known) = &self.known {
            known.put(directory, &head.path);
        }
        Ok(())
    }

    fn symlink(&mut self, path: &Path, target: PathBuf, modified: Timespec) -> Result<(), Error> {
        self.gauge.keep(path.as_os_str().len() + target.as_os_str().len())?;
        self.tree.place(path)?; // its directories
        self.links.insert(path.to_path_buf(), Link { target, modified });
        Ok(())
    }

    fn link(&mut self, path: &Path, target: &Path) -> Result<(), Error> {
        let refused = |why: &str| Error::Invalid(format!("{}: a hard link to {}, {why}", path.display(), target.display()));
        if let Some(link) = self.links.get(target) {
            if !may_say(path, &link.target) {
                return Err(refused("a link that leads out of the archive from there"));
            }
            let (target, modified) = (link.target.clone(), link.modified);
            return self.symlink(path, target, modified);
        }
        if !self.files.contains(&self.hasher.hash_one(target)) {
            return Err(refused("which isn't a file of the archive"));
        }
        self.links.remove(path);
        if path == target {
            return Ok(());
        }
        let shown = self.tree.shown(path);
        let failed = |errno| Error::of("unpack", &shown, errno);
        let (from, from_name) = (self.tree.parent_of(target)?, target.file_name().unwrap_or_default());
        let (to, name) = self.tree.place(path)?;
        match linkat(&from, from_name, to, name, AtFlags::empty()) {
            Err(Errno::EXIST) => {
                let draft = format!("{PREFIX}{}", new_id("x"));
                linkat(&from, from_name, to, &draft, AtFlags::empty()).map_err(failed)?;
                let renamed = renameat(to, &draft, to, name);
                content::discard(to, draft.as_ref()); // rename(2) leaves it where both were one file
                renamed.map_err(failed)?;
            }
            linked => linked.map_err(failed)?,
        }
        self.files.insert(self.hasher.hash_one(path));
        Ok(())
    }

    /// Links, and then what directories are like, the innermost first: a mode may forbid to go there.
    fn finish(&mut self) -> Result<(), Error> {
        for (path, link) in std::mem::take(&mut self.links) {
            let shown = self.tree.shown(&path);
            let failed = |errno| Error::of("unpack", &shown, errno);
            let (directory, name) = self.tree.place(&path)?;
            if let Err(errno) = symlinkat(&link.target, directory, name) {
                let draft = format!("{PREFIX}{}", new_id("x"));
                if errno != Errno::EXIST {
                    return Err(failed(errno));
                }
                symlinkat(&link.target, directory, &draft).map_err(failed)?;
                let renamed = renameat(directory, &draft, directory, name);
                renamed.map_err(failed).inspect_err(|_| content::discard(directory, draft.as_ref()))?;
            }
            let times = Timestamps { last_access: link.modified, last_modification: link.modified };
            let _ = utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW); // of no importance
        }
        for (path, (mode, modified)) in std::mem::take(&mut self.directories).into_iter().rev() {
            let shown = self.tree.shown(&path);
            let (parent, name) = self.tree.place(&path)?;
            let opened = openat(parent, name, OPEN_DIRECTORY, Mode::empty());
            let changed = opened.and_then(|directory| {
                fchmod(&directory, Mode::from_bits_retain(mode))?;
                let _ = futimens(&directory, &Timestamps { last_access: modified, last_modification: modified }); // the same
                Ok(())
            });
            changed.map_err(|errno| Error::of("change", &shown, errno))?;
        }
        Ok(())
    }
}

/// What an entry holds.
trait Content: Read {
    fn length(&self) -> u64;
}

impl<R: Read> Content for tar::Entry<'_, R> {
    fn length(&self) -> u64 {
        self.size()
    }
}
