//! Which files ignore rules leave out: `.ignore`, `.gitignore` and `.git/info/exclude` of each directory on the way, nearer
//! ones first, as gitignore(5) has it. Trees without a repository are obeyed, too; rules of the host (a user's own list)
//! are not.

use std::ffi::OsStr;
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, readlinkat, statat};

use crate::fs::entry::{Kind, Meta};
use crate::fs::{Located, Reach};

/// What the rules say of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Unnamed,
    /// It is left out.
    Ignored,
    /// It stays, even when its name begins with a dot.
    Kept,
}

impl Verdict {
    pub(super) fn of<T>(matched: &Match<T>) -> Self {
        match matched {
            Match::None => Self::Unnamed,
            Match::Ignore(_) => Self::Ignored,
            Match::Whitelist(_) => Self::Kept,
        }
    }
}

/// The rules of a directory that has some, and those above it.
pub(super) struct Rules {
    above: Option<Arc<Rules>>,
    base: Base,
    own: Gitignore,
    git: Gitignore,
    exclude: Gitignore,
    /// What lies above says nothing of what is in a repository.
    is_repository: bool,
}

/// Where the directory is, as seen from where the walk starts.
enum Base {
    /// Below it: so many bytes of a path lead there.
    Below(usize),
    /// Above it: this leads from there to the start.
    Above(PathBuf),
}

/// Names in a directory that have to do with rules.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) own: bool,
    pub(super) git: bool,
    pub(super) repository: bool,
}

impl Marks {
    /// Takes note of a name.
    pub(super) fn see(&mut self, name: &[u8]) {
        match name {
            b".ignore" => self.own = true,
            b".gitignore" => self.git = true,
            b".git" => self.repository = true,
            _ => {}
        }
    }

    fn of(directory: &OwnedFd) -> Self {
        let is_there = |name| statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        Self { own: is_there(".ignore"), git: is_there(".gitignore"), repository: is_there(".git") }
    }
}

impl Rules {
    /// Those of a directory below `above`, to which `base_bytes` of each path lead; the same as above when it has none.
    pub(super) fn below(
        above: Option<&Arc<Self>>,
        directory: &OwnedFd,
        marks: Marks,
        base_bytes: usize,
        file_max_bytes: u64,
    ) -> Option<Arc<Self>> {
        if marks == Marks::default() {
            return above.cloned();
        }
        Some(Arc::new(Self::read(above.cloned(), directory, marks, Base::Below(base_bytes), file_max_bytes)))
    }

    /// Those between a directory and the top of the repository that it is in. None when it is in none, or when that can't
    /// be reached from here.
    pub(super) fn above(reach: &Reach, at: &Located, directory: &OwnedFd, file_max_bytes: u64) -> Option<Arc<Self>> {
        if Marks::of(directory).repository {
            return None;
        }
        // Only as text, to know what names lead down again; each directory is opened by `..`, from which nothing leads out.
        let held = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(directory));
        let real = readlinkat(CWD, held, Vec::new()).ok()?;
        let names: Vec<&OsStr> = Path::new(OsStr::from_bytes(real.to_bytes()))
            .components()
            .filter_map(|component| if let Component::Normal(name) = component { Some(name) } else { None })
            .collect();
        let (mut upwards, mut found) = (at.path().to_path_buf(), Vec::new());
        for depth in (0..names.len()).rev() {
            upwards.push("..");
            let opened = reach.directory(&Located::from(upwards.clone())).ok()?;
            let marks = Marks::of(&opened);
            found.push((opened, marks, names[depth..].iter().collect::<PathBuf>()));
            if marks.repository {
                let rules = found.into_iter().rev().fold(None, |above, (opened, marks, down)| {
                    Some(Arc::new(Self::read(above, &opened, marks, Base::Above(down), file_max_bytes)))
                });
                return rules;
            }
        }
        None
    }

    fn read(above: Option<Arc<Self>>, directory: &OwnedFd, marks: Marks, base: Base, file_max_bytes: u64) -> Self {
        let read = |is_there: bool, name: &str| {
            if is_there { patterns(directory, Path::new(name), file_max_bytes) } else { Gitignore::empty() }
        };
        Self {
            above,
            base,
            own: read(marks.own, ".ignore"),
            git: read(marks.git, ".gitignore"),
            exclude: read(marks.repository, ".git/info/exclude"),
            is_repository: marks.repository,
        }
    }

    /// What they say of a file, by its path from where the walk starts.
    pub(super) fn verdict(&self, relative: &[u8], is_directory: bool) -> Verdict {
        let (mut own, mut git, mut exclude) = (Verdict::Unnamed, Verdict::Unnamed, Verdict::Unnamed);
        let (mut next, mut is_outside) = (Some(self), false);
        while let Some(rules) = next {
            let ask = |patterns: &Gitignore, known: &mut Verdict| {
                if *known == Verdict::Unnamed && !patterns.is_empty() {
                    *known = rules.ask(patterns, relative, is_directory);
                }
            };
            ask(&rules.own, &mut own);
            if !is_outside {
                ask(&rules.git, &mut git);
                ask(&rules.exclude, &mut exclude);
            }
            is_outside |= rules.is_repository;
            next = rules.above.as_deref();
        }
        [own, git, exclude].into_iter().find(|verdict| *verdict != Verdict::Unnamed).unwrap_or(Verdict::Unnamed)
    }

    fn ask(&self, patterns: &Gitignore, relative: &[u8], is_directory: bool) -> Verdict {
        match &self.base {
            Base::Below(bytes) => {
                let path = Path::new(OsStr::from_bytes(&relative[*bytes..]));
                Verdict::of(&patterns.matched(path, is_directory))
            }
            Base::Above(down) => Verdict::of(&patterns.matched(down.join(OsStr::from_bytes(relative)), is_directory)),
        }
    }
}

/// The patterns of a file; what can't be read, or is no pattern, says nothing. A link isn't followed, as git doesn't.
fn patterns(directory: impl AsFd, name: &Path, max_bytes: u64) -> Gitignore {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = openat(directory, name, flags, Mode::empty()) else { return Gitignore::empty() };
    if Meta::of_open(&file).map(|meta| meta.kind) != Ok(Kind::File) {
        return Gitignore::empty();
    }
    let mut content = Vec::new();
    if std::fs::File::from(file).take(max_bytes).read_to_end(&mut content).is_err() {
        return Gitignore::empty();
    }
    compiled(&String::from_utf8_lossy(content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&content)))
}

fn compiled(text: &str) -> Gitignore {
    let mut builder = GitignoreBuilder::new("");
    for line in text.lines() {
        let _ = builder.add_line(None, line); // no pattern: git, too, goes on
    }
    builder.build().unwrap_or_else(|_| Gitignore::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(above: Option<Rules>, base_bytes: usize, git: &str, own: &str, is_repository: bool) -> Rules {
        Rules {
            above: above.map(Arc::new),
            base: Base::Below(base_bytes),
            own: compiled(own),
            git: compiled(git),
            exclude: Gitignore::empty(),
            is_repository,
        }
    }

    #[test]
    fn nearer_rules_win_and_ignore_files_win_over_git() {
        let top = || rules(None, 0, "*.log\n/top\nbuild/\n", "", true);
        assert_eq!(top().verdict(b"a.log", false), Verdict::Ignored);
        assert_eq!(top().verdict(b"sub/a.log", false), Verdict::Ignored);
        assert_eq!(top().verdict(b"sub/top", false), Verdict::Unnamed);
        assert_eq!(top().verdict(b"build", false), Verdict::Unnamed);
        assert_eq!(top().verdict(b"build", true), Verdict::Ignored);
        let below = rules(Some(top()), 4, "!a.log\n/b\n", "", false);
        assert_eq!(below.verdict(b"sub/a.log", false), Verdict::Kept);
        assert_eq!(below.verdict(b"sub/b", false), Verdict::Ignored);
        assert_eq!(below.verdict(b"sub/b.log", false), Verdict::Ignored);
        let own = rules(Some(top()), 4, "", "!*.log\n", false);
        assert_eq!(own.verdict(b"sub/b.log", false), Verdict::Kept);
    }

    #[test]
    fn a_repository_within_has_its_own_rules() {
        let inner = rules(Some(rules(None, 0, "*.log\n", "*.tmp\n", true)), 4, "", "", true);
        assert_eq!(inner.verdict(b"sub/a.log", false), Verdict::Unnamed);
        assert_eq!(inner.verdict(b"sub/a.tmp", false), Verdict::Ignored);
    }
}
