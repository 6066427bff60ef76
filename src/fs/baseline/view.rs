//! What is known of a directory as it was when one turn began.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::scratch::{Extent, Scratch};
use crate::fs::entry::Meta;
use crate::fs::{Rights, Sha256Hex, Thing};

/// The kernel's clock for files may be so late: it ticks a hundred times a second or more.
const CLOCK_SLACK_NS: i128 = 20_000_000;
/// The same for one on another machine.
const REMOTE_SLACK_NS: i128 = 60_000_000_000;

/// A turn's view.
pub(super) struct View {
    /// As the turn's session names it.
    root: PathBuf,
    /// When the turn began: nanoseconds since 1970, and by a clock that nobody sets.
    began_ns: i128,
    began: Instant,
    remembered: Arc<Remembered>,
    known: Mutex<Known>,
}

/// Contents that turns made themselves, for what they change later.
pub(super) struct Remembered {
    scratch: Arc<Scratch>,
    max_bytes: u64,
    /// By hash, with the bytes that they take.
    contents: Mutex<(HashMap<String, Extent>, u64)>,
}

impl Remembered {
    pub(super) fn new(scratch: Arc<Scratch>, max_bytes: u64) -> Self {
        Self { scratch, max_bytes, contents: Mutex::default() }
    }

    fn contents(&self) -> MutexGuard<'_, (HashMap<String, Extent>, u64)> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner) // each change leaves it whole
    }

    /// Unless there is no room. Blocks.
    fn put(&self, content: &[u8]) {
        let hash = Sha256Hex::of(content).as_str().to_owned();
        if self.contents().0.contains_key(&hash) {
            return;
        }
        if let Ok(Some(extent)) = self.scratch.put(content) {
            let mut contents = self.contents();
            let bytes = contents.1 + extent.stored_bytes();
            if bytes <= self.max_bytes && !contents.0.contains_key(&hash) {
                contents.0.insert(hash, extent);
                contents.1 = bytes;
            }
        }
    }

    /// Blocks.
    fn get(&self, sha256: &str) -> Option<Bytes> {
        self.contents().0.get(sha256)?.read().ok()
    }
}

/// By paths from the root.
#[derive(Default)]
pub(super) struct Known {
    /// The root without links in it.
    pub(super) real_root: PathBuf,
    pub(super) is_remote: bool,
    pub(super) files: HashMap<Arc<Path>, Arc<File>>,
    /// Directories, and whether what they hold is what they held at the beginning.
    pub(super) directories: HashMap<PathBuf, bool>,
    /// The clock was set back: nothing tells what is older than the turn.
    clock_went_back: bool,
    /// There is more than is known.
    pub(super) is_cut: bool,
}

/// A file, or whatever is no directory.
#[derive(Debug)]
pub(super) struct File {
    pub(super) stamp: Stamp,
    pub(super) rights: Rights,
    pub(super) what: What,
    /// It was at rest when it was looked at: whatever changes it gives it another stamp.
    pub(super) is_settled: bool,
}

#[derive(Debug)]
pub(super) enum What {
    Content(Extent),
    Link(PathBuf),
    /// Not copied.
    Unknown,
}

/// What tells a file from what it becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    id: (u64, u64),
    size: u64,
    modified: (i64, u32),
    changed: (i64, u32),
}

impl Stamp {
    pub(super) fn of(meta: &Meta) -> Self {
        Self { id: meta.id, size: meta.size, modified: meta.modified, changed: meta.changed }
    }
}

impl View {
    /// Of a turn that begins now; nothing is known yet.
    pub(super) fn new(root: PathBuf, remembered: Arc<Remembered>) -> Self {
        Self { root, began_ns: now_ns(), began: Instant::now(), remembered, known: Mutex::default() }
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner) // each change leaves it whole
    }

    /// Whether what changed last at this time is as it was at the beginning.
    fn is_older(&self, changed: (i64, u32), is_remote: bool) -> bool {
        is_before(changed, self.began_ns, is_remote)
    }

    /// Whether what changed last at this time is at rest.
    pub(super) fn is_settled(&self, changed: (i64, u32)) -> bool {
        is_before(changed, now_ns(), self.known().is_remote)
    }

    /// Whether a directory still holds what it held at the beginning.
    pub(super) fn is_as_before(&self, directory: &Meta) -> bool {
        self.is_older(directory.changed, self.known().is_remote)
    }

    /// Looks at the clock; to be called before what was copied meanwhile is told.
    pub(super) fn check_clock(&self) {
        let passed_ns = i128::try_from(self.began.elapsed().as_nanos()).unwrap_or(i128::MAX);
        if now_ns() - self.began_ns + CLOCK_SLACK_NS / 2 < passed_ns {
            self.known().clock_went_back = true;
        }
    }

    /// What was at a path; `None` when that isn't known. Blocks.
    pub(super) fn before(&self, path: &Path) -> Option<Thing> {
        let file = {
            let known = self.known();
            let below = known.below(&self.root, path).filter(|_| !known.clock_went_back)?;
            let Some(file) = known.files.get(below) else {
                return known.was_nothing(below).then_some(Thing::Nothing);
            };
            if !self.is_older(file.stamp.changed, known.is_remote) {
                return None;
            }
            Arc::clone(file)
        };
        let rights = file.rights;
        match &file.what {
            What::Content(extent) => extent.read().ok().map(|content| Thing::File { content, rights }),
            What::Link(target) => Some(Thing::Link { target: target.clone(), rights }),
            What::Unknown => None,
        }
    }

    /// All files, as the session names them.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.known().files.keys().map(|below| self.root.join(below)).collect()
    }

    pub(super) fn had_directory(&self, path: &Path) -> bool {
        let known = self.known();
        known.below(&self.root, path).is_some_and(|below| known.directories.contains_key(below))
    }

    pub(super) fn remember(&self, content: &[u8]) {
        self.remembered.put(content);
    }

    /// To be shared with another turn.
    pub(super) fn remembered(&self) -> Arc<Remembered> {
        Arc::clone(&self.remembered)
    }

    /// What was at this path, or is remembered, and has this hash. Blocks.
    pub(super) fn content(&self, path: &Path, sha256: &str) -> Option<Bytes> {
        if let Some(content) = self.remembered.get(sha256) {
            return Some(content);
        }
        let before = self.before(path)?;
        before.content().filter(|content| Sha256Hex::of(content).as_str() == sha256).cloned()
    }
}

/// Nanoseconds since 1970.
fn now_ns() -> i128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i128::try_from(since.as_nanos()).unwrap_or(i128::MAX)
}

/// Clearly, whatever the clocks.
fn is_before((seconds, nanoseconds): (i64, u32), when_ns: i128, is_remote: bool) -> bool {
    let at = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    at + if is_remote { REMOTE_SLACK_NS } else { CLOCK_SLACK_NS } < when_ns
}

impl Known {
    fn below<'a>(&self, root: &Path, path: &'a Path) -> Option<&'a Path> {
        let real = Some(&*self.real_root).filter(|real| !real.as_os_str().is_empty());
        let below = path.strip_prefix(root).ok().or_else(|| path.strip_prefix(real?).ok())?;
        below.components().all(|component| matches!(component, Component::Normal(_))).then_some(below)
    }

    /// The nearest directory above that was there holds what it held, and that isn't among it.
    fn was_nothing(&self, below: &Path) -> bool {
        let above = below.ancestors().skip(1).find_map(|above| self.directories.get(above));
        !self.directories.contains_key(below) && above.copied().unwrap_or(false)
    }
}
