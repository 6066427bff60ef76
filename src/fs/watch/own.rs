//! Our own files are not watched: what a watch tells is written into them, which would be a change again, without end.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::fs::entry::Meta;

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The directory that has them, by what it is: whatever path leads there. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub(in crate::fs) struct Own(Option<Held>);

#[derive(Debug, Clone)]
struct Held {
    id: (u64, u64),
    /// Nothing else gets its inode while it is open.
    _directory: Arc<OwnedFd>,
}

impl Own {
    /// Nothing is left out when there is no such directory.
    pub(in crate::fs) fn at(path: &Path) -> Self {
        let held = openat(CWD, path, DIRECTORY, Mode::empty()).and_then(|directory| {
            let id = Meta::of_open(&directory)?.id;
            Ok(Held { id, _directory: Arc::new(directory) })
        });
        Self(held.ok())
    }

    /// Whether it is this directory.
    pub(super) fn is(&self, meta: &Meta) -> bool {
        self.0.as_ref().is_some_and(|held| held.id == meta.id)
    }

    /// Whether a directory is this one or lies in it.
    pub(super) fn holds(&self, directory: impl AsFd) -> bool {
        if self.0.is_none() {
            return false;
        }
        let Ok(mut at) = openat(&directory, ".", DIRECTORY, Mode::empty()) else { return false };
        let mut below = None;
        loop {
            let Ok(meta) = Meta::of_open(&at) else { return false };
            if self.is(&meta) {
                return true;
            }
            if below == Some(meta.id) {
                return false; // the root directory is its own parent
            }
            below = Some(meta.id);
            let Ok(above) = openat(&at, "..", DIRECTORY, Mode::empty()) else { return false };
            at = above;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_known_by_whatever_path() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("data/spool")).expect("directories");
        std::os::unix::fs::symlink("data", at("link")).expect("a link");
        let own = Own::at(&at("link"));
        let holds = |path: &Path| own.holds(openat(CWD, path, DIRECTORY, Mode::empty()).expect("a directory"));
        assert!(holds(&at("data")) && holds(&at("link/spool")));
        assert!(!holds(dir.path()) && !holds(Path::new("/")));
        assert!(!Own::at(&at("none")).holds(openat(CWD, "/", DIRECTORY, Mode::empty()).expect("the root")));
    }
}
