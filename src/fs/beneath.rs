//! Opening what lies beneath a directory, and nothing else, whatever links are made while it is resolved.
//!
//! Source: openat2(2), `RESOLVE_BENEATH`. Where the kernel or a seccomp filter doesn't have that, the path is walked one
//! component at a time, holding each directory: `..` goes back to one that is held, never through the file system.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path};
use std::sync::OnceLock;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, readlinkat};
use rustix::io::Errno;

/// What is being done when resolving fails.
pub(super) const REACH: &str = "reach";

/// As many links one path may have (path_resolution(7)).
const LINKS_MAX: usize = 40;
/// So often a path is tried that others rename meanwhile.
const TRIES_MAX: usize = 128;

const STEP: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens `below`, relative to `root`. `EXDEV` when it leads out.
pub(super) fn open(root: BorrowedFd<'_>, below: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    if has_openat2() { by_kernel(root, below, flags, mode) } else { by_steps(root, below, flags, mode) }
}

/// The directory `below`, on the way to which there may be no link at all. `ENOTDIR` when there is one.
pub(super) fn directory(root: BorrowedFd<'_>, below: &Path) -> Result<OwnedFd, Errno> {
    let mut held = openat(root, ".", STEP | OFlags::DIRECTORY, Mode::empty())?;
    for step in steps(below)? {
        let Step::Name(name) = step else { return Err(Errno::XDEV) };
        held = openat(&held, &name, STEP | OFlags::DIRECTORY, Mode::empty())?;
    }
    Ok(held)
}

fn has_openat2() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        let tried = openat2(CWD, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::BENEATH);
        if let Err(errno) = &tried {
            tracing::info!(%errno, "openat2 can't be used here: paths beneath roots are walked step by step");
        }
        tried.is_ok()
    })
}

fn by_kernel(root: BorrowedFd<'_>, below: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let mut last = Errno::AGAIN;
    for _ in 0..TRIES_MAX {
        match openat2(root, below, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(Errno::AGAIN) => last = Errno::AGAIN, // something was renamed on the way
            opened => return opened,
        }
    }
    Err(last)
}

/// One part of a path that is still to be walked.
enum Step {
    Name(OsString),
    Up,
}

fn steps(path: &Path) -> Result<VecDeque<Step>, Errno> {
    let mut steps = VecDeque::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => steps.push_back(Step::Name(name.to_owned())),
            Component::ParentDir => steps.push_back(Step::Up),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return Err(Errno::XDEV),
        }
    }
    Ok(steps)
}

fn by_steps(root: BorrowedFd<'_>, below: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let mut left = steps(below)?;
    let (mut held, mut links): (Vec<OwnedFd>, usize) = (Vec::new(), 0);
    while let Some(step) = left.pop_front() {
        let here = held.last().map_or(root, OwnedFd::as_fd);
        let name = match step {
            Step::Up => {
                held.pop().ok_or(Errno::XDEV)?;
                continue;
            }
            Step::Name(name) => name,
        };
        let is_last = left.is_empty();
        match openat(here, &name, STEP, Mode::empty()) {
            Ok(found) => match FileType::from_raw_mode(fstat(&found)?.st_mode) {
                FileType::Symlink if is_last && flags.contains(OFlags::NOFOLLOW) => return last(here, &name, flags, mode),
                FileType::Symlink => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(Errno::LOOP);
                    }
                    let target = readlinkat(&found, "", Vec::new())?;
                    let mut target = steps(Path::new(OsStr::from_bytes(target.to_bytes())))?;
                    target.append(&mut left);
                    left = target;
                }
                _ if is_last => match last(here, &name, flags, mode) {
                    Err(Errno::LOOP) => left.push_front(Step::Name(name)), // it has become a link meanwhile
                    opened => return opened,
                },
                FileType::Directory => held.push(found),
                _ => return Err(Errno::NOTDIR),
            },
            Err(Errno::NOENT) if is_last && flags.contains(OFlags::CREATE) => return last(here, &name, flags, mode),
            Err(errno) => return Err(errno),
        }
        if left.len() > TRIES_MAX * LINKS_MAX {
            return Err(Errno::NAMETOOLONG);
        }
    }
    let here = held.last().map_or(root, OwnedFd::as_fd);
    openat(here, ".", flags | OFlags::CLOEXEC, mode)
}

fn last(dir: BorrowedFd<'_>, name: &OsStr, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    openat(dir, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, mode)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    type Open = fn(BorrowedFd<'_>, &Path, OFlags, Mode) -> Result<OwnedFd, Errno>;
    const WAYS: [(&str, Open); 2] = [("kernel", by_kernel), ("steps", by_steps)];

    fn tree() -> (tempfile::TempDir, OwnedFd) {
        let home = tempfile::tempdir().expect("a folder");
        let root = home.path().join("root");
        std::fs::create_dir_all(root.join("a/b")).expect("folders");
        std::fs::write(root.join("a/file"), "inside").expect("a file");
        std::fs::write(home.path().join("secret"), "outside").expect("a file");
        for (link, target) in [("up", ".."), ("a/side", "../a/file"), ("a/b/far", "../../../secret"), ("abs", "/etc/passwd")] {
            symlink(target, root.join(link)).expect("a link");
        }
        symlink("loop", root.join("loop")).expect("a link");
        let fd = openat(CWD, &root, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).expect("the root");
        (home, fd)
    }

    #[test]
    fn both_ways_give_the_same() {
        let (_home, root) = tree();
        for (path, expected) in [
            ("a/file", Ok(())),
            ("a/b/../file", Ok(())),
            ("a/side", Ok(())),
            ("", Ok(())),
            ("a/..", Ok(())),
            ("..", Err(Errno::XDEV)),
            ("a/../..", Err(Errno::XDEV)),
            ("up/secret", Err(Errno::XDEV)),
            ("a/b/far", Err(Errno::XDEV)),
            ("abs", Err(Errno::XDEV)),
            ("/etc/passwd", Err(Errno::XDEV)),
            ("loop", Err(Errno::LOOP)),
            ("none", Err(Errno::NOENT)),
            ("a/file/x", Err(Errno::NOTDIR)),
        ] {
            for (way, open) in WAYS {
                let opened = open(root.as_fd(), Path::new(path), OFlags::RDONLY, Mode::empty());
                assert_eq!(opened.map(drop), expected, "{path} by {way}");
            }
        }
    }

    #[test]
    fn a_directory_by_no_link() {
        let (_home, root) = tree();
        let open = |below: &str| directory(root.as_fd(), Path::new(below)).map(drop);
        symlink("a", root_path(&root).join("to_a")).expect("a link");
        assert_eq!((open(""), open("a/b")), (Ok(()), Ok(())));
        for (below, errno) in [("to_a", Errno::NOTDIR), ("to_a/b", Errno::NOTDIR), ("up", Errno::NOTDIR), ("none", Errno::NOENT)]
        {
            assert_eq!(open(below), Err(errno), "{below}");
        }
        assert_eq!((open("a/.."), open("/a")), (Err(Errno::XDEV), Err(Errno::XDEV)));
    }

    fn root_path(root: &OwnedFd) -> std::path::PathBuf {
        use std::os::fd::AsRawFd as _;
        std::fs::read_link(format!("/proc/self/fd/{}", root.as_raw_fd())).expect("a path")
    }

    #[test]
    fn links_that_are_swapped_meanwhile_lead_nowhere_else() {
        for (way, open) in WAYS {
            let (home, root) = tree();
            let place = home.path().join("root/swap");
            std::fs::create_dir(&place).expect("a folder");
            std::fs::write(place.join("secret"), "inside").expect("a file");
            symlink("..", home.path().join("root/other")).expect("a link");
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let other = home.path().join("root/other");
                    while !stop.load(Ordering::Relaxed) {
                        let swap = rustix::fs::RenameFlags::EXCHANGE;
                        let _ = rustix::fs::renameat_with(CWD, &place, CWD, &other, swap); // EBUSY is possible
                    }
                });
                let mut inside = 0;
                for _ in 0..20_000 {
                    if let Ok(file) = open(root.as_fd(), Path::new("swap/secret"), OFlags::RDONLY, Mode::empty()) {
                        let mut text = [0; 16];
                        let read = rustix::io::read(&file, &mut text).expect("a file that can be read");
                        assert_eq!(&text[..read], b"inside", "by {way}");
                        inside += 1;
                    }
                }
                stop.store(true, Ordering::Relaxed);
                assert!(inside > 0, "by {way}, the file was there half of the time");
            });
        }
    }
}
