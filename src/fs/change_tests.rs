//! Changes that meet each other.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::{Error, Fs, FsConfig, Located, Reach};
use crate::config::Bounds;
use crate::store::Store;

struct Room {
    fs: Fs,
    top: PathBuf,
    _dir: tempfile::TempDir,
}

impl Room {
    /// With the home `top/above/home`.
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let top = dir.path().canonicalize().expect("a folder").join("top");
        std::fs::create_dir_all(top.join("above/home")).expect("folders");
        let path = dir.path().join("data.db");
        let bounds = Bounds::default();
        let store = Store::open(&path, &path, &bounds).expect("a store");
        let config = FsConfig { home: top.join("above/home"), data: top.join("data"), roots: Vec::new(), store, bounds };
        Self { fs: Fs::new(config).expect("a room"), top, _dir: dir }
    }

    fn at(&self, name: impl AsRef<Path>) -> Located {
        Located::from(self.top.join(name))
    }

    async fn relocate(&self, from: &OsStr, to: &OsStr) -> Result<(), Error> {
        self.fs.relocate(self.fs.reach(), self.at(from), self.at(to), true).await
    }
}

#[tokio::test]
async fn who_moves_there_and_who_moves_back_dont_wait_for_each_other() {
    let room = Room::new();
    std::fs::write(room.top.join("a"), "a").expect("a file");
    std::fs::write(room.top.join("b"), "b").expect("a file");
    let held = (room.fs.alone(&room.at("a")).await, room.fs.alone(&room.at("b")).await);
    let (one, other) = (room.relocate("a".as_ref(), "b".as_ref()), room.relocate("b".as_ref(), "a".as_ref()));
    let (mut one, mut other) = (Box::pin(one), Box::pin(other));
    // Both wait in line: whoever took only one path first would keep it from the other.
    assert!(futures_util::poll!(&mut one).is_pending() && futures_util::poll!(&mut other).is_pending());
    drop(held);
    let (one, other) = tokio::join!(one, other);
    assert!(one.is_ok() && other.is_ok(), "{one:?}, {other:?}");
}

#[tokio::test]
async fn names_that_look_the_same_have_one_turn() {
    let room = Room::new();
    let [from, to] = [&b"a\xff"[..], b"a\xfe"].map(OsStr::from_bytes);
    std::fs::write(room.top.join(from), "x").expect("a file");
    room.relocate(from, to).await.expect("a move");
    assert!(!room.top.join(from).exists() && room.top.join(to).exists());
}

#[tokio::test]
async fn what_the_home_and_the_roots_lie_in_stays() {
    let room = Room::new();
    std::fs::create_dir_all(room.top.join("outer/d/inner")).expect("folders");
    let roots = Reach::new(room.top.join("outer"), &[room.top.join("outer"), room.top.join("outer/d/inner")]).expect("roots");
    for (reach, name) in [(room.fs.reach(), "above"), (room.fs.reach(), "."), (&roots, "outer/d"), (&roots, "outer/d/inner")] {
        let removed = room.fs.remove(reach, room.at(name), true).await;
        assert!(matches!(removed, Err(Error::Invalid(_))), "{name}: {removed:?}");
        let moved = room.fs.relocate(reach, room.at(name), room.at("outer/x"), false).await;
        assert!(matches!(moved, Err(Error::Invalid(_))), "{name}: {moved:?}");
    }
    assert!(room.top.join("above/home").is_dir() && room.top.join("outer/d/inner").is_dir());
    std::fs::create_dir(room.top.join("above/beside")).expect("a folder");
    room.fs.remove(room.fs.reach(), room.at("above/beside"), true).await.expect("nobody needs it");
}
