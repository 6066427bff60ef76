//! Where a client's paths may lead: anywhere the server may go, or nowhere but beneath some directories.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat, readlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::beneath::{self, REACH};
use super::entry::Meta;
use super::{Author, Error, Located};

/// Directories are made with this, as far as the umask lets.
const DIRECTORY_MODE: Mode = Mode::from_bits_retain(0o777);
/// As many links one path may have (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// Where paths may lead. Cloning shares it.
#[derive(Clone)]
pub struct Reach {
    /// Relative paths start here.
    base: Arc<Path>,
    home: Arc<Path>,
    /// `None`: anywhere.
    roots: Option<Arc<[Root]>>,
    /// What narrowed it.
    fences: Option<Arc<[Fence]>>,
    /// In whose name.
    author: Arc<Author>,
}

/// A directory that is held, so that it stays the same whatever its path becomes.
struct Root {
    path: PathBuf,
    directory: Arc<OwnedFd>,
}

/// A directory that paths shall stay beneath: it is found again by where it really is, and by no link, so that nobody
/// puts a link in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// As a client named it: an absolute path. Paths may begin so.
    pub path: PathBuf,
    /// Where it really is. Paths may begin so, too.
    pub real: PathBuf,
}

/// A name in a directory that is held.
pub(super) struct Place {
    pub(super) directory: OwnedFd,
    pub(super) name: OsString,
    /// The same as a path, for people.
    pub(super) path: PathBuf,
}

impl Place {
    /// Where it really is: its directory without links.
    pub(super) fn real_path(&self) -> PathBuf {
        real_path(&self.directory).map_or_else(|| self.path.clone(), |directory| directory.join(&self.name))
    }
}

/// The path of a directory that is held; `None` when it has none any more, or nobody says.
fn real_path(directory: &OwnedFd) -> Option<PathBuf> {
    let link = readlinkat(CWD, format!("/proc/self/fd/{}", directory.as_raw_fd()), Vec::new()).ok()?;
    let path = PathBuf::from(OsStr::from_bytes(link.to_bytes()));
    (path.is_absolute() && !link.to_bytes().ends_with(b" (deleted)")).then_some(path)
}

impl Reach {
    /// With no roots, anywhere.
    ///
    /// # Errors
    /// [`Error::Root`].
    pub fn new(home: PathBuf, roots: &[PathBuf]) -> Result<Self, Error> {
        let home: Arc<Path> = home.into();
        let roots = if roots.is_empty() { None } else { Some(hold(roots)?) };
        Ok(Self { base: Arc::clone(&home), home, roots, fences: None, author: Arc::default() })
    }

    /// The same in somebody's name: what is read and changed through it is remembered so.
    #[must_use]
    pub fn in_name_of(&self, author: Author) -> Self {
        Self { author: Arc::new(author), ..self.clone() }
    }

    /// In whose name files are read and changed.
    pub(super) fn author(&self) -> &Arc<Author> {
        &self.author
    }

    /// True when a path, with no links in it, may be reached.
    pub fn covers(&self, real: &Path) -> bool {
        self.roots.as_ref().is_none_or(|roots| roots.iter().any(|root| real.starts_with(&root.path)))
    }

    /// The directories above a path that aren't there, topmost first.
    pub(super) fn missing_above(&self, at: &Located) -> Vec<PathBuf> {
        let mut missing = Vec::new();
        let mut above = at.path().parent();
        while let Some(directory) = above
            && matches!(self.directory(&Located::from(directory.to_path_buf())), Err(Error::NotFound(_)))
        {
            missing.push(directory.to_path_buf());
            above = directory.parent();
        }
        missing.reverse();
        missing
    }

    /// Where relative paths start.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// The same, with relative paths that start at `base`.
    #[must_use]
    pub fn from_base(&self, base: &Path) -> Self {
        Self { base: base.into(), ..self.clone() }
    }

    /// What a directory is as a fence. Blocks.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotADirectory`], [`Error::Outside`], [`Error::Denied`]; [`Error::Invalid`] when its
    /// path isn't UTF-8.
    pub fn fence(&self, raw: &OsStr) -> Result<Fence, Error> {
        let at = self.locate(raw)?;
        let directory = self.directory(&at)?;
        let real = real_path(&directory).ok_or_else(|| Error::NotFound(at.path().to_path_buf()))?;
        let is_plain = at.path().components().all(|part| part != Component::ParentDir);
        let path = if is_plain { at.path().components().collect() } else { real.clone() };
        let fence = Fence { path, real };
        if fence.path.to_str().is_none() || fence.real.to_str().is_none() {
            return Err(Error::Invalid(format!("the path of {} isn't UTF-8", fence.real.display())));
        }
        self.beneath(std::slice::from_ref(&fence))?;
        Ok(fence)
    }

    /// Nowhere but beneath these, as far as they can be reached from here; with none, nowhere. Blocks.
    ///
    /// # Errors
    /// [`Error::RootGone`] for one that isn't there any more, or is a link now; [`Error::Outside`], [`Error::Denied`].
    pub fn beneath(&self, fences: &[Fence]) -> Result<Self, Error> {
        let mut roots = Vec::with_capacity(fences.len());
        for Fence { path, real } in fences {
            let directory = Arc::new(self.by_no_link(real).map_err(|errno| match errno {
                Errno::NOENT | Errno::NOTDIR => Error::RootGone(real.clone()),
                errno => Error::of(REACH, real, errno),
            })?);
            if path != real {
                roots.push(Root { path: path.clone(), directory: Arc::clone(&directory) });
            }
            roots.push(Root { path: real.clone(), directory });
        }
        Ok(Self { roots: Some(roots.into()), fences: Some(fences.into()), ..self.clone() })
    }

    /// What narrowed it, when anything did.
    pub(super) fn fences(&self) -> Option<&[Fence]> {
        self.fences.as_deref()
    }

    fn by_no_link(&self, real: &Path) -> Result<OwnedFd, Errno> {
        if self.roots.is_none() {
            let top = openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            return beneath::directory(top.as_fd(), real.strip_prefix("/").map_err(|_| Errno::XDEV)?);
        }
        let (root, below) = self.innermost(real).ok_or(Errno::XDEV)?;
        beneath::directory(root.directory.as_fd(), below)
    }

    /// The root that holds a path, and the path from there. The innermost: a link within it may not lead to what only an
    /// outer one has.
    fn innermost<'a>(&'a self, path: &'a Path) -> Option<(&'a Root, &'a Path)> {
        let roots = self.roots.iter().flat_map(|roots| roots.iter());
        let found = roots.filter_map(|root| Some((root, path.strip_prefix(&root.path).ok()?)));
        found.max_by_key(|(root, _)| root.path.as_os_str().len())
    }

    /// True for directories that everything else needs: `/`, the home, the roots, and what they lie in.
    pub(super) fn needs(&self, directory: &Meta) -> bool {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let again = |root: &Root| openat(&root.directory, ".", flags, Mode::empty());
        let roots = self.roots.iter().flat_map(|roots| roots.iter()).map(again);
        let known = std::iter::once(openat(CWD, &*self.home, flags, Mode::empty())).chain(roots);
        Meta::of(CWD, Path::new("/")).is_ok_and(|top| top.id == directory.id)
            || known.flatten().any(|known| lies_in(known, directory.id))
    }

    /// What a client's path names.
    ///
    /// # Errors
    /// [`Error::Invalid`]; see [`Located::new`].
    pub fn locate(&self, raw: &OsStr) -> Result<Located, Error> {
        Located::new(raw, &self.base, &self.home)
    }

    /// Opens what a path leads to. Never blocks on a FIFO when `flags` have `NONBLOCK`.
    pub(super) fn open(&self, at: &Located, flags: OFlags, mode: Mode) -> Result<OwnedFd, Error> {
        self.try_open(at.path(), flags, mode).map_err(|errno| Error::of(REACH, at.path(), errno))
    }

    fn try_open(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        if self.roots.is_none() {
            return openat(CWD, path, flags | OFlags::CLOEXEC, mode);
        }
        let (root, below) = self.innermost(path).ok_or(Errno::XDEV)?;
        beneath::open(root.directory.as_fd(), below, flags, mode)
    }

    /// A directory, for somebody who works in it by its descriptor. Cancel safe.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotADirectory`], [`Error::Outside`], [`Error::Denied`].
    pub async fn hold(&self, at: Located) -> Result<OwnedFd, Error> {
        let reach = self.clone();
        super::blocking(move || reach.directory(&at)).await
    }

    /// The directory at a path that the system gave, when it may be reached from here. Blocks.
    pub fn hold_real(&self, path: &Path) -> Option<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Some(roots) = &self.roots else { return openat(CWD, path, flags, Mode::empty()).ok() };
        let opened = |root: &Root| {
            let real = readlinkat(CWD, format!("/proc/self/fd/{}", root.directory.as_raw_fd()), Vec::new()).ok()?;
            let below = path.strip_prefix(OsStr::from_bytes(real.as_bytes())).ok()?;
            beneath::open(root.directory.as_fd(), below, flags, Mode::empty()).ok()
        };
        roots.iter().find_map(opened)
    }

    /// A directory, to look things up in.
    pub(super) fn directory(&self, at: &Located) -> Result<OwnedFd, Error> {
        match self.open(at, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()) {
            Err(Error::Os { errno, .. }) if errno == Errno::NOTDIR.raw_os_error() => {
                Err(Error::NotADirectory(at.path().to_path_buf()))
            }
            opened => opened,
        }
    }

    /// The name of a path in its directory, whether or not it is there.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what has no name of its own, like `/`.
    pub(super) fn place(&self, at: &Located, makes_parents: bool) -> Result<Place, Error> {
        let no_name = || Error::Invalid(format!("{} has no name of its own", at.path().display()));
        let (parent, name) = at.split().ok_or_else(no_name)?;
        let parent = Located::from(parent.to_path_buf());
        let directory = match self.directory(&parent) {
            Err(Error::NotFound(_)) if makes_parents => self.make(&parent)?,
            opened => opened?,
        };
        Ok(Place { directory, name: name.to_owned(), path: at.path().to_path_buf() })
    }

    /// Where a write to a path goes: what its links lead to, whether or not that is there.
    pub(super) fn target(&self, at: &Located, makes_parents: bool) -> Result<Place, Error> {
        let mut at = at.clone();
        for _ in 0..LINKS_MAX {
            let place = self.place(&at, makes_parents)?;
            match readlinkat(&place.directory, &place.name, Vec::new()) {
                Ok(link) => {
                    let parent = at.split().map_or(Path::new("/"), |(parent, _)| parent);
                    at = Located::from(parent.join(OsStr::from_bytes(link.to_bytes())));
                }
                Err(Errno::INVAL | Errno::NOENT) => return Ok(place), // no link
                Err(errno) => return Err(Error::of("read the link", at.path(), errno)),
            }
        }
        Err(Error::of("resolve", at.path(), Errno::LOOP))
    }

    /// A directory with all those above it.
    pub(super) fn make(&self, at: &Located) -> Result<OwnedFd, Error> {
        match self.directory(at) {
            Err(Error::NotFound(_)) => {}
            opened => return opened,
        }
        let place = self.place(at, true)?;
        match mkdirat(&place.directory, &place.name, DIRECTORY_MODE) {
            Ok(()) | Err(Errno::EXIST) => self.directory(at), // somebody else may have made it
            Err(errno) => Err(Error::of("make the directory", at.path(), errno)),
        }
    }
}

/// True when a directory is this one, or beneath it.
fn lies_in(directory: OwnedFd, id: (u64, u64)) -> bool {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let (mut here, mut last) = (directory, None);
    loop {
        let Ok(meta) = Meta::of_open(&here) else { return false };
        if meta.id == id || last == Some(meta.id) {
            return meta.id == id; // the top lies in itself
        }
        last = Some(meta.id);
        let Ok(above) = openat(&here, "..", flags, Mode::empty()) else { return false };
        here = above;
    }
}

fn hold(roots: &[PathBuf]) -> Result<Arc<[Root]>, Error> {
    // By its own path and without links: edits are known by the latter.
    let real = |path: &PathBuf| std::fs::canonicalize(path).ok().filter(|real| real != path);
    let hold = |path: &PathBuf| {
        let opened = openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let failed = |errno: Errno| Error::Root { path: path.clone(), cause: std::io::Error::from(errno).to_string() };
        if path.is_relative() {
            return Err(Error::Root { path: path.clone(), cause: "it is not an absolute path".to_owned() });
        }
        Ok(Root { path: path.clone(), directory: Arc::new(opened.map_err(failed)?) })
    };
    roots.iter().cloned().chain(roots.iter().filter_map(real)).map(|root| hold(&root)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fences_narrow_and_none_at_all_is_nowhere() {
        let home = tempfile::tempdir().expect("a folder");
        let top = std::fs::canonicalize(home.path()).expect("a path");
        std::fs::create_dir_all(top.join("a/b")).expect("folders");
        let reach = Reach::new(top.clone(), &[]).expect("no roots");
        let fence = |reach: &Reach, path: &str| reach.fence(OsStr::new(path));
        let dotted = fence(&reach, &format!("{}/a/../a", top.display())).expect("a directory");
        assert_eq!(dotted.path, dotted.real);
        let outer = reach.beneath(&[dotted]).expect("it is there");
        let holds = |reach: &Reach, below: &str| reach.directory(&Located::from(top.join(below))).is_ok();
        assert!(holds(&outer, "a") && holds(&outer, "a/b") && !holds(&outer, "") && !holds(&outer, "a/.."));
        assert!(matches!(fence(&outer, "~"), Err(Error::Outside(_))), "it doesn't get wider");
        let inner = outer.beneath(&[fence(&outer, "~/a/b").expect("a directory")]).expect("it is there");
        assert!(holds(&inner, "a/b") && !holds(&inner, "a"));
        let nowhere = reach.beneath(&[]).expect("nothing has to be there");
        assert!(!holds(&nowhere, "a") && !nowhere.covers(&top));
        let gone = fence(&reach, "~/a/b").expect("a directory");
        std::fs::remove_dir(top.join("a/b")).expect("removed");
        assert!(matches!(reach.beneath(&[gone]), Err(Error::RootGone(path)) if path == top.join("a/b")));
    }
}
