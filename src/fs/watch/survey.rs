//! What a watch over a directory would look at, listed once: for those who keep copies of it.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::OFlags;

use super::dirs::{DirId, Name, ROOT};
use super::kernel::Kernel;
use super::look::is_remote;
use super::rules::Rules;
use super::tree::{Tree, Way};
use super::{Own, WatchSpec, open};
use crate::fs::entry::Kind;
use crate::fs::{Error, Located, Reach};

/// A directory as it was listed.
pub(in crate::fs) struct Survey {
    tree: Tree,
}

/// One directory of it that is still there.
pub(in crate::fs) struct Listed {
    pub(in crate::fs) directory: OwnedFd,
    /// Names with what they stood for.
    pub(in crate::fs) names: Vec<(Name, Kind)>,
}

impl Survey {
    /// Lists at most `entries_max` files and directories. Blocks.
    ///
    /// # Errors
    /// As of a watch.
    pub(in crate::fs) fn new(reach: &Reach, at: &Located, own: &Own, entries_max: usize) -> Result<Self, Error> {
        let root = open(reach, at, own)?;
        let spec = WatchSpec { recursive: true, ignore: Vec::new(), gitignore: true, hidden: true, git: false };
        let rules = Rules::new(&spec, at.path(), reach)?;
        let mut tree = Tree::new(0, root, rules, true, Way::Poll("survey"), entries_max).without(own.clone());
        tree.walk(ROOT, false, &mut Kernel::without("survey"));
        Ok(Self { tree })
    }

    /// False when there is more.
    pub(in crate::fs) fn is_whole(&self) -> bool {
        !self.tree.is_full
    }

    /// Whether it lies on another machine, or behind another program.
    pub(in crate::fs) fn is_remote(&self) -> bool {
        is_remote(&self.tree.root)
    }

    /// The directories that were looked into, each relative to the root, which comes first.
    pub(in crate::fs) fn directories(&self) -> Vec<(DirId, PathBuf)> {
        self.tree.dirs.ids().into_iter().map(|id| (id, self.tree.dirs.path(id))).collect()
    }

    /// One of them, opened again; `None` when it is gone or another one by now.
    pub(in crate::fs) fn listed(&self, id: DirId) -> Option<Listed> {
        let directory = self.tree.open(id, OFlags::RDONLY).ok()?;
        let entries = self.tree.dirs.get(id)?.entries.iter();
        let names = entries.map(|(name, entry)| (Name::clone(name), entry.seen.kind)).collect();
        Some(Listed { directory, names })
    }
}
