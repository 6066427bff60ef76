//! Going through a tree: always in the same order, by the bytes of names, a directory before what it holds. Follows no link.
//!
//! Every directory is opened by its name in the one above, which is held: whatever is renamed or linked meanwhile, nothing
//! outside of where the walk started is reached. So roots need no further check. (The walkers of the crate `ignore` open
//! whole paths, which somebody could lead elsewhere; its matchers are what is used of it.)
//!
//! | module | what |
//! |---|---|
//! | `rules` | what ignore rules leave out |
//! | `selection` | what a client asks for |
//! | `names` | what one directory holds, in order |
//! | `page` | a tree as a listing |

mod names;
mod page;
mod rules;
mod selection;

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::{Mode, OFlags, PROC_SUPER_MAGIC, fstatfs, openat};
use rustix::io::Errno;
use serde_json::{Value, json};

pub use page::TreePage;
pub use selection::{Selection, Wanted};

use self::names::Names;
use self::rules::Rules;
use self::selection::Choice;
use super::entry::{Kind, Meta, Prefix};
use super::{Error, Located, Reach};
use crate::config::Bounds;

/// Things that couldn't be looked at are named up to so many; the rest is counted.
const SKIPPED_SHOWN_MAX: usize = 100;
/// statfs(2): files there are made up by the kernel.
const SYSFS_MAGIC: i128 = 0x6265_6572;

/// So many names are looked at before it is asked again whether anybody still waits.
const STEPS_BETWEEN_CHECKS: u32 = 64;

const OPEN_DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// Never waits for the other end of a FIFO.
const OPEN_FILE: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// A directory on the way, held.
pub(super) struct Directory {
    pub(super) fd: OwnedFd,
    /// As entries' paths begin.
    pub(super) prefix: Prefix,
    /// What leads here from where the walk started, with a slash behind it.
    pub(super) relative: Vec<u8>,
}

/// Something that a walk came by.
pub(super) struct Found {
    pub(super) directory: Arc<Directory>,
    pub(super) name: Vec<u8>,
    pub(super) kind: Kind,
}

impl Found {
    /// Its whole path.
    pub(super) fn path(&self) -> Vec<u8> {
        self.directory.prefix.path_of(&self.name)
    }

    /// Opens it by its name in its directory.
    ///
    /// # Errors
    /// `NotFound` also when it is no regular file by now.
    pub(super) fn open(&self) -> io::Result<File> {
        let name = Path::new(OsStr::from_bytes(&self.name));
        let file = openat(self.directory.fd.as_fd(), name, OPEN_FILE, Mode::empty())?;
        match Meta::of_open(&file)?.kind {
            Kind::File => Ok(file.into()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// What couldn't be looked at.
#[derive(Debug, Default)]
pub(super) struct Skipped {
    /// The first ones: path and why.
    pub(super) shown: Vec<(Vec<u8>, String)>,
    pub(super) count: u64,
}

impl Skipped {
    pub(super) fn add(&mut self, path: Vec<u8>, why: impl Into<String>) {
        self.count += 1;
        if self.shown.len() < SKIPPED_SHOWN_MAX {
            self.shown.push((path, why.into()));
        }
    }

    pub(super) fn join(&mut self, other: Self) {
        self.count += other.count;
        let room = SKIPPED_SHOWN_MAX.saturating_sub(self.shown.len());
        self.shown.extend(other.shown.into_iter().take(room));
    }

    /// Says so in an answer; nothing when there is nothing.
    pub(super) fn show(&self, answer: &mut Value) {
        if self.count > 0 {
            let shown = self.shown.iter().map(|(path, why)| json!({"path": String::from_utf8_lossy(path), "reason": why}));
            answer["skipped"] = shown.collect();
            answer["skippedCount"] = self.count.into();
        }
    }
}

/// Tells a walk that nobody waits for it any more.
pub(super) type IsOver = Arc<dyn Fn() -> bool + Send + Sync>;

/// One that also ends at a time.
pub(super) fn until(deadline: Instant, is_left: impl Fn() -> bool + Send + Sync + 'static) -> IsOver {
    Arc::new(move || is_left() || Instant::now() >= deadline)
}

struct Level {
    directory: Arc<Directory>,
    names: Names,
    next: usize,
    rules: Option<Arc<Rules>>,
    device: u64,
    /// The walk goes on behind a path that leads through here.
    is_resumed: bool,
}

/// A walk through a tree.
pub(super) struct Walk {
    levels: Vec<Level>,
    selection: Selection,
    /// Names that lead to where the walk goes on.
    after: Vec<Vec<u8>>,
    position: Vec<u8>,
    steps: u32,
    pub(super) skipped: Skipped,
    rules_file_max_bytes: u64,
    is_over: IsOver,
}

impl Walk {
    /// Begins at a directory, or behind what `after` leads to from there, whether or not that is still there.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotADirectory`], [`Error::Outside`], [`Error::Denied`].
    pub(super) fn new(
        reach: &Reach,
        at: &Located,
        selection: Selection,
        after: Option<&[u8]>,
        bounds: &Bounds,
        is_over: IsOver,
    ) -> Result<Self, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK;
        let fd = match reach.open(at, flags, Mode::empty()) {
            Err(Error::Os { errno, .. }) if errno == Errno::NOTDIR.raw_os_error() => {
                return Err(Error::NotADirectory(at.path().to_path_buf()));
            }
            opened => opened?,
        };
        let max_bytes = bounds.fs_ignore_file_max_bytes;
        let rules = if selection.has_rules { Rules::above(reach, at, &fd, max_bytes) } else { None };
        let device = Meta::of_open(&fd).map(|meta| meta.id.0).map_err(|errno| Error::of("look at", at.path(), errno))?;
        let after: Vec<Vec<u8>> =
            after.map(|after| after.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect()).unwrap_or_default();
        let mut walk = Self {
            levels: Vec::new(),
            selection,
            position: Vec::new(),
            steps: 0,
            skipped: Skipped::default(),
            rules_file_max_bytes: max_bytes,
            is_over,
            after,
        };
        let directory = Arc::new(Directory { fd, prefix: Prefix::new(at.path()), relative: Vec::new() });
        let is_resumed = !walk.after.is_empty();
        walk.enter(directory, rules.as_ref(), device, is_resumed).map_err(|errno| Error::of("list", at.path(), errno))?;
        Ok(walk)
    }

    /// What leads to the last thing that was looked at, from where the walk started.
    pub(super) fn position(&self) -> &[u8] {
        &self.position
    }

    /// True when it ended because nobody waits for it, or its time is over.
    pub(super) fn is_stopped(&self) -> bool {
        !self.levels.is_empty()
    }

    /// The next thing that is asked for. `None` at the end, and when nobody waits any more.
    pub(super) fn next(&mut self) -> Option<Found> {
        loop {
            self.steps = self.steps.wrapping_add(1);
            // Before anything is taken: what was taken counts as looked at.
            if self.steps.is_multiple_of(STEPS_BETWEEN_CHECKS) && (self.is_over)() {
                return None;
            }
            let depth = self.levels.len();
            let level = self.levels.last_mut()?;
            let at = level.next;
            let Some((name, kind)) = level.names.get(at) else {
                self.levels.pop();
                continue;
            };
            self.position.clear();
            self.position.extend_from_slice(&level.directory.relative);
            self.position.extend_from_slice(name);
            level.next += 1;
            let is_directory = kind == Kind::Directory;
            let choice = self.selection.choose(level.rules.as_deref(), &self.position, name, is_directory);
            if choice == Choice::Left {
                continue;
            }
            let is_start = level.is_resumed && at == level.names.first() && self.after[depth - 1] == name;
            let found = Found { directory: Arc::clone(&level.directory), name: name.to_vec(), kind };
            if is_directory && depth < self.selection.depth {
                let (rules, device) = (level.rules.clone(), level.device);
                self.go_into(&found, rules.as_ref(), device, is_start && self.after.len() > depth);
            } else if is_directory && self.selection.is_depth_told {
                self.skipped.add(found.path(), "what it holds is deeper than fs_walk_depth_max");
            }
            if choice == Choice::Given && !is_start {
                return Some(found);
            }
        }
    }

    fn go_into(&mut self, found: &Found, rules: Option<&Arc<Rules>>, device: u64, is_resumed: bool) {
        let above = &found.directory;
        let entered = open_below(above, &found.name, device).and_then(|opened| {
            let Some((fd, device)) = opened else { return Ok(()) };
            let relative = [&above.relative[..], &found.name, b"/"].concat();
            let directory = Directory { fd, prefix: above.prefix.below(&found.name), relative };
            self.enter(Arc::new(directory), rules, device, is_resumed)
        });
        match entered {
            // Gone, or something else by now.
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(errno) => self.skipped.add(found.path(), io::Error::from(errno).to_string()),
        }
    }

    fn enter(
        &mut self,
        directory: Arc<Directory>,
        above: Option<&Arc<Rules>>,
        device: u64,
        is_resumed: bool,
    ) -> Result<(), Errno> {
        let mut names = Names::read(&directory.fd)?;
        let rules = if self.selection.has_rules {
            Rules::below(above, &directory.fd, names.marks, directory.relative.len(), self.rules_file_max_bytes)
        } else {
            None
        };
        if let Some(start) = self.after.get(self.levels.len()).filter(|_| is_resumed) {
            names.start_at(start);
        }
        let next = names.first();
        self.levels.push(Level { directory, names, next, rules, device, is_resumed });
        Ok(())
    }
}

/// A directory by its name in another one, and its device. `None` for where the kernel makes files up.
fn open_below(above: &Directory, name: &[u8], device: u64) -> Result<Option<(OwnedFd, u64)>, Errno> {
    let fd = openat(above.fd.as_fd(), Path::new(OsStr::from_bytes(name)), OPEN_DIRECTORY, Mode::empty())?;
    let here = Meta::of_open(&fd)?.id.0;
    if here != device {
        let kind = i128::from(fstatfs(&fd)?.f_type);
        if kind == i128::from(PROC_SUPER_MAGIC) || kind == SYSFS_MAGIC {
            return Ok(None);
        }
    }
    Ok(Some((fd, here)))
}

#[cfg(test)]
mod tests;
