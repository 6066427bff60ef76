//! Views of a real directory. Clocks of files are moved by waiting until they tick: a file counts as old once the clock has
//! clearly left its time.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::*;
use crate::fs::Rights;
use crate::fs::entry::Meta;

struct World {
    dir: tempfile::TempDir,
    shared: Shared,
    previous: Option<Arc<View>>,
}

impl World {
    fn new(prepare: impl FnOnce(&Path)) -> Self {
        Self::with(Bounds::default(), prepare)
    }

    fn with(bounds: Bounds, prepare: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir_all(dir.path().join("w/data")).expect("directories");
        prepare(&dir.path().join("w"));
        let data = dir.path().join("w/data");
        let scratch = Scratch::new(data.clone(), bounds.fs_baselines_max_bytes);
        let shared = Shared { scratch, own: Own::at(&data), bounds, kept: Mutex::default() };
        let world = Self { dir, shared, previous: None };
        world.rest();
        world
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join("w").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.at(name), text).expect("written");
    }

    /// Until what was changed so far is clearly older than what happens next.
    fn rest(&self) {
        let until = SystemTime::now() + Duration::from_millis(40);
        while SystemTime::now() < until {
            std::thread::yield_now();
        }
    }

    fn view(&self) -> Arc<View> {
        Arc::new(View::new(self.at(""), self.shared.remembered()))
    }

    fn fill(&mut self, view: &Arc<View>) -> fill::Cut {
        let previous = self.previous.replace(Arc::clone(view));
        let (at, reach) = (Located::from(self.at("")), Reach::new("/".into(), &[]).expect("no roots"));
        let job = Job { at, reach, view: Arc::clone(view), previous, due: Instant::now() };
        let filler = Filler { scratch: &self.shared.scratch, own: &self.shared.own, bounds: &self.shared.bounds };
        filler.fill(&job).expect("filled")
    }

    fn begin(&mut self) -> Arc<View> {
        let view = self.view();
        self.fill(&view);
        view
    }

    fn file(&self, view: &View, name: &str) -> Option<String> {
        let before = view.before(&self.at(name))?;
        Some(match before {
            Thing::Nothing => "nothing".to_owned(),
            Thing::File { content, rights } => format!("{:o} {}", rights.mode, String::from_utf8_lossy(&content)),
            Thing::Link { target, .. } => format!("-> {}", target.display()),
        })
    }
}

#[test]
fn what_was_there_is_known() {
    let mut w = World::new(|root| {
        std::fs::create_dir_all(root.join("d/e")).expect("directories");
        std::fs::write(root.join("d/e/f"), "1").expect("written");
        std::fs::set_permissions(root.join("d/e/f"), std::fs::Permissions::from_mode(0o751)).expect("a mode");
        std::fs::write(root.join(".gitignore"), "ignored\n").expect("written");
        std::fs::write(root.join("ignored"), "1").expect("written");
        symlink("d/e", root.join("l")).expect("a link");
    });
    let view = w.begin();
    w.write("d/e/f", "2");
    std::fs::remove_file(w.at("l")).expect("removed");
    assert_eq!(w.file(&view, "d/e/f").as_deref(), Some("751 1"));
    assert_eq!(w.file(&view, "l").as_deref(), Some("-> d/e"));
    assert_eq!(w.file(&view, "d/new").as_deref(), Some("nothing"));
    assert_eq!(w.file(&view, "new/e/f").as_deref(), Some("nothing"), "nor was its directory");
    assert_eq!(w.file(&view, "data/x"), None, "our own files aren't looked into");
    assert_eq!(w.file(&view, "../x"), None, "nor is what lies elsewhere");
    assert!(view.had_directory(&w.at("d/e")) && !view.had_directory(&w.at("d/new")));
    let mut files = view.files();
    files.sort();
    assert_eq!(files, [".gitignore", "d/e/f", "l"].map(|name| w.at(name)));
}

#[test]
fn what_may_be_the_agents_already_is_not_known_but_is_next_time() {
    let mut w = World::new(|root| {
        std::fs::create_dir(root.join("d")).expect("a directory");
        std::fs::write(root.join("d/f"), "1").expect("written");
        std::fs::write(root.join("d/g"), "1").expect("written");
        std::fs::write(root.join("gone"), "1").expect("written");
    });
    let view = w.view();
    w.write("d/f", "2");
    w.write("d/new", "1");
    std::fs::remove_file(w.at("gone")).expect("removed");
    w.fill(&view);
    assert_eq!((w.file(&view, "d/f"), w.file(&view, "d/new")), (None, None));
    assert_eq!((w.file(&view, "gone"), w.file(&view, "d/other")), (None, None), "the directories have changed");
    assert_eq!(w.file(&view, "d/g").as_deref(), Some("644 1"), "this one hasn't");
    w.rest();
    let next = w.begin();
    w.write("d/f", "3");
    assert_eq!(w.file(&next, "d/f").as_deref(), Some("644 2"));
    assert_eq!(w.file(&next, "gone").as_deref(), Some("nothing"));
}

#[test]
fn nothing_is_known_before_it_was_looked_at() {
    let w = World::new(|root| std::fs::write(root.join("f"), "1").expect("written"));
    let view = w.view();
    assert_eq!((w.file(&view, "f"), w.file(&view, "g")), (None, None));
}

#[test]
fn only_what_differs_is_read_again_and_turns_keep_what_they_have() {
    let mut w = World::new(|root| {
        std::fs::write(root.join("same"), "1").expect("written");
        std::fs::write(root.join("other"), "1").expect("written");
    });
    let first = w.begin();
    w.write("other", "2");
    w.rest();
    let second = w.begin();
    let file = |view: &View, name: &str| Arc::clone(&view.known().files[Path::new(name)]);
    assert!(Arc::ptr_eq(&file(&first, "same"), &file(&second, "same")));
    assert!(!Arc::ptr_eq(&file(&first, "other"), &file(&second, "other")));
    w.write("other", "3");
    assert_eq!(w.file(&first, "other").as_deref(), Some("644 1"), "of the turn that began first");
    assert_eq!(w.file(&second, "other").as_deref(), Some("644 2"));
}

#[test]
fn a_copy_that_was_made_in_the_middle_of_a_change_is_made_again() {
    let mut w = World::new(|_| {});
    w.write("f", "1");
    let view = w.begin();
    let file = Arc::clone(&view.known().files[Path::new("f")]);
    assert!(!file.is_settled, "what it has may change without its times doing so");
    w.rest();
    let next = w.begin();
    assert!(!Arc::ptr_eq(&file, &next.known().files[Path::new("f")]));
}

#[test]
fn bounds_are_kept_and_said() {
    let some = |root: &Path| {
        for name in ["a", "b", "c", "d"] {
            let noise: Vec<u8> = (0..1000).map(|_| rand::random()).collect();
            std::fs::write(root.join(name), noise).expect("written");
        }
    };
    let known = |w: &World, view: &View| ["a", "b", "c", "d"].iter().filter(|name| w.file(view, name).is_some()).count();
    for (bounds, files, expected) in [
        (Bounds { fs_preimage_max_bytes: 999, ..Bounds::default() }, 4, 0),
        (Bounds { fs_baseline_max_bytes: 2500, ..Bounds::default() }, 2, 2),
        (Bounds { fs_baselines_max_bytes: 2500, ..Bounds::default() }, 2, 2),
    ] {
        let mut w = World::with(bounds, some);
        let view = w.view();
        let cut = w.fill(&view);
        assert_eq!((cut.files, cut.is_whole, known(&w, &view)), (files, true, expected));
        assert_eq!(w.file(&view, "new").as_deref(), Some("nothing"), "it is listed, all the same");
    }
    let mut w = World::with(Bounds { fs_baseline_max_files: 3, ..Bounds::default() }, some);
    let view = w.view();
    assert!(!w.fill(&view).is_whole);
    assert_eq!(w.file(&view, "new"), None, "not all was listed");
    assert!(known(&w, &view) >= 2, "what was, is known");
}

#[test]
fn what_a_turn_made_is_remembered_by_its_hash() {
    let mut w = World::with(Bounds { fs_baseline_max_bytes: 100, ..Bounds::default() }, |root| {
        std::fs::write(root.join("f"), "1").expect("written");
    });
    let view = w.begin();
    let hash = |text: &[u8]| crate::fs::Sha256Hex::of(text).as_str().to_owned();
    view.remember(b"2");
    for _ in 0..100 {
        view.remember(b"2");
    }
    let content = |text: &str| view.content(&w.at("f"), &hash(text.as_bytes()));
    assert_eq!((content("1"), content("2"), content("3")), (Some(Bytes::from("1")), Some(Bytes::from("2")), None));
    for number in 0..50_u8 {
        view.remember(&[number; 3]);
    }
    assert!(content("\u{31}\u{31}\u{31}").is_none(), "within its bound");
}

#[test]
fn room_is_made_by_those_who_left_longest_ago() {
    let bounds = Bounds { fs_baselines_max: 2, ..Bounds::default() };
    let dir = tempfile::tempdir().expect("a directory");
    let baselines = Baselines::new(dir.path().to_path_buf(), Own::default(), bounds);
    let begin = |name: &str| {
        let at = dir.path().join(name);
        std::fs::create_dir_all(&at).expect("a directory");
        baselines.begin(Reach::new("/".into(), &[]).expect("no roots"), Located::from(at))
    };
    let first = begin("a").expect("the first");
    let second = begin("b").expect("the second");
    assert!(begin("c").is_none(), "agents work in both");
    assert!(begin("a").is_some(), "which they may do twice");
    drop(first);
    let third = begin("c").expect("in the place of the first");
    let mut paths: Vec<_> = baselines.shared.kept().keys().cloned().collect();
    paths.sort();
    assert_eq!(paths, ["b", "c"].map(|name| dir.path().join(name)));
    drop((second, third));
}

#[test]
fn rights_are_those_of_the_file() {
    let mut w = World::new(|root| {
        std::fs::write(root.join("f"), "1").expect("written");
        std::fs::set_permissions(root.join("f"), std::fs::Permissions::from_mode(0o4750)).expect("a mode");
    });
    let view = w.begin();
    let meta = Meta::of(rustix::fs::CWD, &w.at("f")).expect("a file");
    let before = view.before(&w.at("f")).expect("known");
    assert_eq!(before, Thing::File { content: Bytes::from("1"), rights: Rights::of(&meta) });
}
