//! What of a tree is looked at: the rules of git's ignore files (gitignore(5)), those of a watcher, and ours.
//!
//! Each directory has its own rules, so that a changed file of them is read alone; and they are asked of a name before it is
//! looked at, so that nothing ignored is ever watched. The rules nearest to a name decide; what lies in an ignored
//! directory is never asked for, as with git. Beyond a directory that has `.git`, the rules above it don't reach.

use std::ffi::OsStr;
use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, statat};

use super::WatchSpec;
use super::dirs::{DirId, Dirs, ROOT};
use crate::fs::draft::PREFIX;
use crate::fs::{Error, Located, Reach};

/// The file that has a directory's rules.
pub(super) const IGNORE_FILE: &str = ".gitignore";
const EXCLUDE_FILE: &str = ".git/info/exclude";
/// Of a longer file the beginning counts.
const FILE_MAX_BYTES: u64 = 256 * 1024;
/// So many directories above a root are looked at for rules.
const ABOVE_MAX: usize = 64;

/// The rules of one directory.
#[derive(Default)]
pub(super) struct OwnRules {
    gitignore: Option<Box<Gitignore>>,
    exclude: Option<Box<Gitignore>>,
    /// A repository begins here.
    has_git: bool,
    /// Of the texts, to know whether they changed.
    stamp: u64,
}

/// The rules of a watch.
pub(super) struct Rules {
    globs: Gitignore,
    gitignore: bool,
    hidden: bool,
    git: bool,
    /// Those above the root, the nearest first, each with the root's path from there.
    above: Vec<(PathBuf, OwnRules)>,
}

impl Rules {
    /// Reads the rules above the root as far as `reach` lets.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a pattern that is none.
    pub(super) fn new(spec: &WatchSpec, root: &Path, reach: &Reach) -> Result<Self, Error> {
        let mut builder = GitignoreBuilder::new("");
        for glob in &spec.ignore {
            builder.add_line(None, glob).map_err(|error| Error::Invalid(format!("ignore: {error}")))?;
        }
        let globs = builder.build().map_err(|error| Error::Invalid(format!("ignore: {error}")))?;
        let mut rules = Self { globs, gitignore: spec.gitignore, hidden: spec.hidden, git: spec.git, above: Vec::new() };
        if rules.gitignore {
            rules.read_above(root, reach);
        }
        Ok(rules)
    }

    /// Only within a repository: rules that lie about in directories above are nobody's.
    fn read_above(&mut self, root: &Path, reach: &Reach) {
        let mut found = Vec::new();
        for above in root.ancestors().take(ABOVE_MAX) {
            let at = Located::from(above.to_path_buf());
            let Ok(directory) = reach.directory(&at) else { return };
            let rules = OwnRules::read(&directory);
            let (is_top, below) = (rules.has_git, root.strip_prefix(above).unwrap_or(Path::new("")).to_path_buf());
            if above != root {
                found.push((below, rules));
            }
            if is_top {
                self.above = found;
                return;
            }
        }
    }

    /// Whether a directory's rules are asked for at all.
    pub(super) fn reads_files(&self) -> bool {
        self.gitignore
    }

    /// Whether a name isn't looked at.
    pub(super) fn ignores(&self, dirs: &Dirs, dir: DirId, name: &OsStr, is_dir: bool) -> bool {
        let bytes = name.as_bytes();
        if bytes.starts_with(PREFIX.as_bytes()) || (!self.git && bytes == b".git") || (!self.hidden && bytes.starts_with(b".")) {
            return true;
        }
        let has_rules = self.gitignore || !self.globs.is_empty();
        has_rules && self.by_patterns(dirs, dir, name, is_dir)
    }

    fn by_patterns(&self, dirs: &Dirs, dir: DirId, name: &OsStr, is_dir: bool) -> bool {
        let path = dirs.path(dir).join(name);
        if let Some(decided) = decision(&self.globs, &path, is_dir) {
            return decided;
        }
        if !self.gitignore {
            return false;
        }
        let bytes = path.as_os_str().as_bytes();
        let (mut at, mut start) = (dir, bytes.len() - name.len());
        loop {
            let Some(known) = dirs.get(at) else { return false };
            let below = Path::new(OsStr::from_bytes(&bytes[start..]));
            if let Some(decided) = known.rules.decide(below, is_dir) {
                return decided;
            }
            if known.rules.has_git {
                return false;
            }
            if at == ROOT {
                break;
            }
            start -= known.name.len() + 1;
            at = known.parent;
        }
        let above = self.above.iter().find_map(|(below, rules)| rules.decide(&below.join(&path), is_dir));
        above.unwrap_or_default()
    }
}

fn decision(rules: &Gitignore, path: &Path, is_dir: bool) -> Option<bool> {
    match rules.matched(path, is_dir) {
        Match::None => None,
        Match::Ignore(_) => Some(true),
        Match::Whitelist(_) => Some(false),
    }
}

impl OwnRules {
    /// Those of an open directory.
    pub(super) fn read(directory: &OwnedFd) -> Self {
        let has_git = statat(directory, ".git", AtFlags::SYMLINK_NOFOLLOW).is_ok();
        let own = text(directory, IGNORE_FILE);
        let exclude = if has_git { text(directory, EXCLUDE_FILE) } else { None };
        let mut hasher = DefaultHasher::new();
        (&own, &exclude, has_git).hash(&mut hasher);
        Self { gitignore: compiled(own), exclude: compiled(exclude), has_git, stamp: hasher.finish() }
    }

    /// Whether they say something else than those.
    pub(super) fn differ(&self, other: &Self) -> bool {
        self.stamp != other.stamp
    }

    /// `None` when they say nothing about it.
    fn decide(&self, below: &Path, is_dir: bool) -> Option<bool> {
        let both = [&self.gitignore, &self.exclude];
        both.into_iter().flatten().find_map(|rules| decision(rules, below, is_dir))
    }
}

/// A file of rules. Nothing but a regular file is read: a FIFO would never end.
fn text(directory: impl AsFd, name: &str) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(directory, name, flags, Mode::empty()).ok()?);
    let stat = rustix::fs::fstat(&file).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut text = Vec::new();
    file.take(FILE_MAX_BYTES).read_to_end(&mut text).ok()?;
    Some(text)
}

/// Lines that are no patterns say nothing, as with git.
fn compiled(text: Option<Vec<u8>>) -> Option<Box<Gitignore>> {
    let text = text?;
    let mut builder = GitignoreBuilder::new("");
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
    for line in text.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let _ = builder.add_line(None, &std::ffi::OsString::from_vec(line.to_vec()).to_string_lossy());
    }
    builder.build().ok().filter(|rules| !rules.is_empty()).map(Box::new)
}
