//! Trees against the real file system and the real inotify, driven by hand: nothing sleeps, for the kernel has said what
//! happened when a call returns.

mod random;

use std::collections::BTreeMap;
use std::fs;
use std::mem::MaybeUninit;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::inotify::ReadFlags;

use super::dirs::ROOT;
use super::kernel::{Holder, Kernel, READ_BYTES, read};
use super::rules::Rules;
use super::tell::{Change, What};
use super::tree::{Tree, Way};
use super::{Own, WatchSpec, open};
use crate::config::Bounds;
use crate::fs::entry::Kind;
use crate::fs::{Located, Reach};

const ALL: WatchSpec = WatchSpec { recursive: true, ignore: Vec::new(), gitignore: true, hidden: true, git: false };

/// A tree in a directory of its own.
struct World {
    dir: tempfile::TempDir,
    kernel: Kernel,
    tree: Tree,
    /// What a client knows that follows the changes.
    mirror: BTreeMap<PathBuf, Kind>,
}

impl World {
    fn new(prepare: impl FnOnce(&Path)) -> Self {
        Self::with(&ALL, 10_000, 1_000, prepare)
    }

    fn with(spec: &WatchSpec, watches_max: usize, entries_max: usize, prepare: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        prepare(dir.path());
        let (at, reach) = (Located::from(dir.path().to_path_buf()), Reach::new("/".into(), &[]).expect("no roots"));
        let root = open(&reach, &at, &Own::default()).expect("the root");
        let rules = Rules::new(spec, dir.path(), &reach).expect("rules");
        let mut kernel = Kernel::new(watches_max);
        let mut tree = Tree::new(1, root, rules, spec.recursive, Way::Inotify, entries_max);
        tree.build(&mut kernel);
        let mut world = Self { dir, kernel, tree, mirror: BTreeMap::new() };
        world.mirror = world.known();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Hands on what the kernel said so far.
    fn note(&mut self) -> usize {
        let mut buffer = vec![MaybeUninit::uninit(); READ_BYTES];
        let mut count = 0;
        loop {
            let events = read(&self.kernel.instance().expect("inotify"), &mut buffer);
            if events.is_empty() {
                return count;
            }
            for raw in events {
                count += 1;
                assert!(!raw.what.contains(ReadFlags::QUEUE_OVERFLOW));
                let is_over = raw.what.contains(ReadFlags::IGNORED);
                let holders = if is_over { self.kernel.forget(raw.wd) } else { self.kernel.holders(raw.wd).to_vec() };
                for holder in holders {
                    let Holder::Dir(_, dir) = holder else { continue };
                    self.tree.note(dir, &raw, Instant::now());
                }
            }
        }
    }

    fn flush(&mut self) -> Vec<Change> {
        self.note();
        let changes = self.tree.flush(&mut self.kernel);
        changes.iter().for_each(|change| follow(&mut self.mirror, change));
        changes
    }

    /// The same as words.
    fn told(&mut self) -> Vec<String> {
        let changes = self.flush();
        let told = changes.iter().map(|change| match &change.from {
            Some(from) => format!("{} {} {}", change.what.as_str(), from.display(), change.path.display()),
            None => format!("{} {}", change.what.as_str(), change.path.display()),
        });
        told.collect()
    }

    /// What the tree knows.
    fn known(&self) -> BTreeMap<PathBuf, Kind> {
        let mut known = BTreeMap::new();
        for id in self.tree.dirs.ids() {
            let path = self.tree.dirs.path(id);
            assert_eq!(self.tree.dirs.told_path(id).as_ref(), Some(&path), "clients know it where it is");
            let dir = self.tree.dirs.get(id).expect("it is there");
            known.extend(dir.entries.iter().map(|(name, entry)| (path.join(&**name), entry.seen.kind)));
        }
        assert_eq!(known.len(), self.tree.dirs.count());
        known
    }

    /// What is there.
    fn there(&self) -> BTreeMap<PathBuf, Kind> {
        let (mut there, mut left) = (BTreeMap::new(), vec![PathBuf::new()]);
        while let Some(below) = left.pop() {
            for entry in fs::read_dir(self.dir.path().join(&below)).expect("a directory").flatten() {
                let (path, kind) = (below.join(entry.file_name()), entry.file_type().expect("a type"));
                if kind.is_dir() {
                    left.push(path.clone());
                }
                let kind = match (kind.is_dir(), kind.is_symlink()) {
                    (true, _) => Kind::Directory,
                    (_, true) => Kind::Symlink,
                    _ => Kind::File,
                };
                there.insert(path, kind);
            }
        }
        there
    }

    fn assert_true(&self) {
        assert_eq!(self.known(), self.there(), "the tree knows what is there");
        assert_eq!(self.mirror, self.there(), "who follows the changes has what is there");
        let watched = self.tree.dirs.ids().into_iter().filter(|id| self.tree.dirs.get(*id).is_some_and(|dir| dir.wd.is_some()));
        assert_eq!(watched.count(), self.tree.dirs.directories(), "every directory is watched");
    }
}

/// What a client does with a change. Each must fit to what the client knows.
fn follow(mirror: &mut BTreeMap<PathBuf, Kind>, change: &Change) {
    let is_below = |path: &Path, above: &Path| path.starts_with(above);
    let parent_is_there = |mirror: &BTreeMap<PathBuf, Kind>, path: &Path| {
        let parent = path.parent().expect("not the root");
        parent.as_os_str().is_empty() || mirror.get(parent) == Some(&Kind::Directory)
    };
    assert!(parent_is_there(mirror, &change.path), "{change:?} in what is known: {mirror:?}");
    match what_of(change) {
        (What::Create, _) => assert_eq!(mirror.insert(change.path.clone(), change.kind), None, "{change:?}"),
        (What::Change, _) => assert!(mirror.insert(change.path.clone(), change.kind).is_some(), "{change:?}"),
        (What::Delete, _) => {
            assert!(mirror.contains_key(&change.path), "{change:?}");
            mirror.retain(|path, _| !is_below(path, &change.path));
        }
        (What::Rename, from) => {
            let from = from.expect("a rename has it");
            assert_eq!(mirror.get(from), Some(&change.kind), "{change:?}");
            let moved: Vec<_> =
                mirror.iter().filter(|(path, _)| is_below(path, from)).map(|(path, kind)| (path.clone(), *kind)).collect();
            mirror.retain(|path, _| !is_below(path, from));
            for (path, kind) in moved {
                let below = path.strip_prefix(from).expect("below");
                let to = if below.as_os_str().is_empty() { change.path.clone() } else { change.path.join(below) };
                mirror.insert(to, kind);
            }
        }
    }
}

fn what_of(change: &Change) -> (What, Option<&PathBuf>) {
    (change.what, change.from.as_ref())
}

fn write(path: impl AsRef<Path>, text: &str) {
    fs::write(path, text).expect("written");
}

fn mkdir(path: impl AsRef<Path>) {
    fs::create_dir_all(path).expect("made");
}

fn mv(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    fs::rename(from, to).expect("renamed");
}

#[test]
fn what_happens_is_told_once_and_in_order() {
    let mut w = World::new(|root| write(root.join("a"), "1"));
    write(w.path("b"), "1");
    write(w.path("a"), "2");
    assert_eq!(w.told(), ["create b", "change a"]);
    fs::remove_file(w.path("a")).expect("removed");
    write(w.path("b"), "2");
    assert_eq!(w.told(), ["change b", "delete a"].map(str::to_owned).into_iter().rev().collect::<Vec<_>>());
    write(w.path("c"), "short-lived");
    fs::remove_file(w.path("c")).expect("removed");
    assert_eq!(w.told(), Vec::<String>::new());
    assert_eq!(w.note(), 0);
    w.assert_true();
}

#[test]
fn directories_that_appear_are_told_with_what_is_in_them() {
    let mut w = World::new(|_| {});
    mkdir(w.path("a/b/c"));
    write(w.path("a/b/c/f"), "1");
    write(w.path("a/g"), "1");
    let told = w.told();
    assert_eq!(told.len(), 5, "{told:?}");
    write(w.path("a/b/c/f"), "22");
    assert_eq!(w.told(), ["change a/b/c/f"], "and they are watched");
    symlink("/", w.path("a/link")).expect("a link");
    assert_eq!(w.told(), ["create a/link"], "links aren't followed");
    w.assert_true();
}

#[test]
fn renames_are_renames() {
    let mut w = World::new(|root| {
        mkdir(root.join("d/e"));
        write(root.join("d/e/f"), "1");
        write(root.join("x"), "1");
    });
    let outside = tempfile::tempdir().expect("a directory");
    mv(w.path("x"), w.path("y"));
    assert_eq!(w.told(), ["rename x y"]);
    mv(w.path("y"), w.path("d/y"));
    mv(w.path("d"), w.path("dd"));
    assert_eq!(w.told(), ["rename y d/y", "rename d dd"]);
    write(w.path("dd/e/f"), "22");
    assert_eq!(w.told(), ["change dd/e/f"], "a directory that was moved reports where it is");
    mv(w.path("dd"), w.path("once"));
    mv(w.path("once"), w.path("twice"));
    assert_eq!(w.told(), ["rename dd twice"]);
    mv(w.path("twice/e"), outside.path().join("e"));
    assert_eq!(w.told(), ["delete twice/e"], "out of the tree");
    write(outside.path().join("e/f"), "333");
    assert_eq!(w.told(), Vec::<String>::new(), "what is outside isn't watched");
    mv(outside.path().join("e"), w.path("in"));
    assert_eq!(w.told(), ["create in", "create in/f"]);
    w.assert_true();
}

#[test]
fn a_directory_can_be_renamed_into_one_that_is_new() {
    let mut w = World::new(|root| mkdir(root.join("a/b")));
    mkdir(w.path("new"));
    mv(w.path("a"), w.path("new/a"));
    write(w.path("new/a/b/f"), "1");
    mv(w.path("new"), w.path("newer"));
    assert_eq!(w.told(), ["create newer", "rename a newer/a", "create newer/a/b/f"]);
    w.assert_true();
}

#[test]
fn saves_are_one_change() {
    let mut w = World::new(|root| write(root.join("f"), "1"));
    let temporary = format!("{}1", crate::fs::draft::PREFIX);
    for temporary in [temporary.as_str(), "f.tmp"] {
        write(w.path(temporary), "2");
        mv(w.path(temporary), w.path("f"));
        assert_eq!(w.told(), ["change f"]);
    }
    // As vim does it: the old one is moved aside, a new one written, the old one removed.
    mv(w.path("f"), w.path("f~"));
    write(w.path("f"), "3");
    fs::remove_file(w.path("f~")).expect("removed");
    assert_eq!(w.told(), ["change f"]);
    mv(w.path("f"), w.path("f~"));
    write(w.path("f"), "4");
    assert_eq!(w.told(), ["rename f f~", "create f"], "with the backup kept");
    write(w.path(".sandboxd-tmp_x"), "ours");
    assert_eq!(w.told(), Vec::<String>::new());
}

#[test]
fn what_changes_places_is_followed() {
    let mut w = World::new(|root| {
        mkdir(root.join("a/x"));
        mkdir(root.join("b/y"));
        write(root.join("f"), "1");
        write(root.join("g"), "22");
    });
    mv(w.path("a"), w.path("t"));
    mv(w.path("b"), w.path("a"));
    mv(w.path("t"), w.path("b"));
    mv(w.path("f"), w.path("t"));
    mv(w.path("g"), w.path("f"));
    mv(w.path("t"), w.path("g"));
    w.flush();
    w.assert_true();
    mv(w.path("a"), w.path("aside"));
    mkdir(w.path("a"));
    mv(w.path("aside"), w.path("a/within"));
    w.flush();
    w.assert_true();
}

#[test]
fn ignored_directories_are_never_watched() {
    let spec = WatchSpec { ignore: vec!["*.log".into(), "!keep.log".into()], ..ALL };
    let mut w = World::with(&spec, 10_000, 1_000, |root| {
        mkdir(root.join("node_modules/a/b"));
        mkdir(root.join(".git/objects"));
        mkdir(root.join("src/out"));
        write(root.join(".gitignore"), "node_modules/\n/build\n");
        write(root.join("src/.gitignore"), "out\n!keep\n");
    });
    assert_eq!(w.tree.dirs.directories(), 2, "the root and src");
    for name in ["node_modules/a/f", "src/out/f", "x.log", "src/x.log", "build", ".git/HEAD"] {
        write(w.path(name), "1");
    }
    write(w.path("keep.log"), "1");
    write(w.path("src/build"), "1");
    assert_eq!(w.told(), ["create keep.log", "create src/build"], "/build is the root's own");
    mv(w.path("keep.log"), w.path("gone.log"));
    assert_eq!(w.told(), ["delete keep.log"], "a name that is ignored is none");
    mv(w.path("gone.log"), w.path("back"));
    assert_eq!(w.told(), ["create back"]);
}

#[test]
fn a_changed_gitignore_counts_at_once() {
    let mut w = World::new(|root| {
        mkdir(root.join("d/e"));
        write(root.join("d/e/f"), "1");
        write(root.join("x.log"), "1");
    });
    write(w.path(".gitignore"), "d/\n*.log\n");
    let mut told = w.told();
    told.sort();
    assert_eq!(told, ["create .gitignore", "delete d", "delete x.log"]);
    assert_eq!(w.tree.dirs.directories(), 1, "its watches have ended");
    write(w.path("d/e/f"), "2");
    assert_eq!(w.told(), Vec::<String>::new());
    fs::remove_file(w.path(".gitignore")).expect("removed");
    let mut told = w.told();
    told.sort();
    assert_eq!(told, ["create d", "create d/e", "create d/e/f", "create x.log", "delete .gitignore"]);
    write(w.path("d/e/f"), "333");
    assert_eq!(w.told(), ["change d/e/f"]);
    w.assert_true();
}

#[test]
fn rules_above_the_root_count_within_a_repository() {
    for (is_repository, expected) in [(true, vec!["create b"]), (false, vec!["create x.log", "create b"])] {
        let outer = tempfile::tempdir().expect("a directory");
        mkdir(outer.path().join("inner"));
        write(outer.path().join(".gitignore"), "/inner/*.log\n");
        if is_repository {
            mkdir(outer.path().join(".git"));
        }
        let root = outer.path().join("inner");
        let (at, reach) = (Located::from(root.clone()), Reach::new("/".into(), &[]).expect("no roots"));
        let rules = Rules::new(&ALL, &root, &reach).expect("rules");
        let mut kernel = Kernel::new(100);
        let mut tree = Tree::new(1, open(&reach, &at, &Own::default()).expect("the root"), rules, true, Way::Inotify, 100);
        tree.build(&mut kernel);
        let mut world = World { dir: outer, kernel, tree, mirror: BTreeMap::new() };
        write(root.join("x.log"), "1");
        write(root.join("b"), "1");
        assert_eq!(world.told(), expected);
    }
}

#[test]
fn a_limit_of_watches_ends_in_polling() {
    let mut w = World::with(&ALL, 3, 1_000, |root| mkdir(root.join("a")));
    assert_eq!(w.tree.way, Way::Inotify);
    mkdir(w.path("b/c/d"));
    write(w.path("b/c/d/f"), "1");
    assert_eq!(w.told(), ["create b", "create b/c", "create b/c/d", "create b/c/d/f"]);
    assert_eq!(w.tree.way, Way::Poll("watch_limit"));
    write(w.path("b/c/g"), "1");
    mv(w.path("b/c/d"), w.path("e"));
    assert_eq!(w.told(), Vec::<String>::new(), "the watches were given back");
    w.tree.rescan(ROOT, &mut w.kernel);
    let mut told = w.told();
    told.sort();
    assert_eq!(told, ["create b/c/g", "rename b/c/d e"], "renames are known by what was renamed");
    assert_eq!((w.known(), w.mirror.clone()), (w.there(), w.there()));
}

#[test]
fn without_an_instance_it_is_polled() {
    let dir = tempfile::tempdir().expect("a directory");
    let (at, reach) = (Located::from(dir.path().to_path_buf()), Reach::new("/".into(), &[]).expect("no roots"));
    let root = super::trees::Root { at, reach, spec: ALL, own: Own::default() };
    let mut kernel = Kernel::without("instance_limit");
    let mut tree = root.tree(1, &Bounds::default(), &kernel).expect("a tree");
    tree.build(&mut kernel);
    assert_eq!(tree.way, Way::Poll("instance_limit"));
    write(dir.path().join("f"), "1");
    tree.rescan(ROOT, &mut kernel);
    let told = tree.flush(&mut kernel);
    assert_eq!(
        told.iter().map(|change| (change.what, change.path.as_path())).collect::<Vec<_>>(),
        [(What::Create, Path::new("f"))]
    );
}

#[test]
fn comparing_finds_whatever_was_missed() {
    let mut w = World::new(|root| {
        mkdir(root.join("a/b"));
        write(root.join("a/b/f"), "1");
        write(root.join("g"), "1");
        fs::hard_link(root.join("g"), root.join("h")).expect("a second name");
    });
    mv(w.path("a/b"), w.path("c"));
    write(w.path("c/f"), "changed");
    fs::remove_file(w.path("g")).expect("removed");
    fs::remove_file(w.path("h")).expect("removed");
    mkdir(w.path("n/m"));
    write(w.path("n/m/o"), "1");
    let mut buffer = vec![MaybeUninit::uninit(); READ_BYTES];
    while !read(&w.kernel.instance().expect("inotify"), &mut buffer).is_empty() {} // lost
    w.tree.rescan(ROOT, &mut w.kernel);
    let mut told = w.told();
    told.sort();
    let expected =
        ["change c/f", "create n", "create n/m", "create n/m/o", "delete g", "delete h", "rename a/b c"].map(str::to_owned);
    assert_eq!(told, expected);
    w.assert_true();
    write(w.path("c/f"), "again");
    assert_eq!(w.told(), ["change c/f"], "and the watches are right");
}

#[test]
fn a_tree_has_a_bound() {
    let mut w = World::with(&ALL, 100, 5, |root| (0..4).for_each(|n| write(root.join(n.to_string()), "1")));
    assert!(!w.tree.is_full);
    (4..9).for_each(|n| write(w.path(&n.to_string()), "1"));
    assert_eq!(w.told(), ["create 4"]);
    assert!(w.tree.is_full);
}

#[test]
fn without_what_is_below_only_the_directory_itself_is_watched() {
    let mut w = World::with(&WatchSpec { recursive: false, hidden: false, ..ALL }, 100, 100, |root| mkdir(root.join("d")));
    write(w.path("d/f"), "1");
    write(w.path(".hidden"), "1");
    mkdir(w.path("e/f"));
    assert_eq!(w.told(), ["create e"]);
    assert_eq!(w.tree.dirs.directories(), 1);
}

#[test]
fn an_inode_that_is_given_again_is_another_directory() {
    let mut w = World::new(|root| mkdir(root.join("a")));
    fs::remove_dir(w.path("a")).expect("removed");
    mkdir(w.path("c"));
    mkdir(w.path("c/a"));
    w.tree.rescan(ROOT, &mut w.kernel);
    w.flush();
    w.assert_true();
}
