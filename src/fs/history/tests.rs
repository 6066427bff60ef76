use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::config::Bounds;
use crate::fs::edit::{EditOptions, EditSpec};
use crate::fs::ledger::{Conflict, LeaseSpec, NoNotices, Notices, Severity};
use crate::fs::{Expected, FsConfig, Fsync};
use crate::store::Store;

struct Room {
    fs: Fs,
    home: PathBuf,
    _dir: tempfile::TempDir,
}

impl Room {
    async fn new() -> Self {
        Self::with(&Bounds::default(), Arc::new(NoNotices)).await
    }

    async fn with(bounds: &Bounds, notices: Arc<dyn Notices>) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let home = dir.path().join("home");
        std::fs::create_dir(&home).expect("a folder");
        let home = home.canonicalize().expect("a folder");
        let data = dir.path().join("data");
        std::fs::create_dir(&data).expect("a folder");
        let path = data.join("data.db");
        let store = Store::open(&path, &path, bounds).expect("a store");
        let fs =
            Fs::new(FsConfig { home: home.clone(), roots: Vec::new(), data, store, bounds: bounds.clone() }).expect("a room");
        fs.connect(notices).await.expect("a journal");
        Self { fs, home, _dir: dir }
    }

    fn reach(&self, session: Option<&str>) -> Reach {
        let author = Author { session_id: session.map(str::to_owned), ..Author::default() };
        self.fs.reach().in_name_of(author)
    }

    fn at(&self, name: &str) -> Located {
        Located::from(self.home.join(name))
    }

    async fn write(&self, session: Option<&str>, name: &str, content: &str) -> Result<Option<String>, Error> {
        let content = Bytes::copy_from_slice(content.as_bytes());
        let written = self.fs.write(&self.reach(session), self.at(name), content, Expected::Anything, Fsync::No).await;
        written.map(|written| written.edit_id)
    }

    async fn rollback(&self, to: RollbackTo) -> Result<Vec<RolledBack>, Error> {
        self.fs.rollback(&self.reach(None), None, to).await
    }

    async fn edits(&self, limit: usize) -> Vec<EditInfo> {
        self.fs.edits(&self.reach(None), EditQuery::default(), limit).await.expect("edits").edits
    }

    /// Names with what they stand for.
    fn tree(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        look(&self.home, &mut found);
        found
    }
}

fn look(directory: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for entry in std::fs::read_dir(directory).expect("a folder") {
        let path = entry.expect("an entry").path();
        let meta = path.symlink_metadata().expect("what it is");
        let mode = meta.permissions().mode() & 0o7777;
        if meta.is_dir() {
            found.insert(path.clone(), format!("directory {mode:o}"));
            look(&path, found);
        } else if meta.is_symlink() {
            found.insert(path.clone(), format!("link {}", std::fs::read_link(&path).expect("a link").display()));
        } else {
            let content = std::fs::read(&path).expect("a file");
            found.insert(path, format!("file {mode:o} {:?}", String::from_utf8_lossy(&content)));
        }
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime").block_on(future)
}

#[derive(Debug, Clone)]
enum Step {
    Write(String, String),
    Edit(String, String),
    Delete(String),
    Move(String, String),
    Copy(String, String),
    Mkdir(String),
    Rollback(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    let path = || prop::collection::vec("[abc]", 1..4).prop_map(|names| names.join("/"));
    prop_oneof![
        4 => (path(), "[a-z\n]{0,12}").prop_map(|(path, content)| Step::Write(path, content)),
        2 => (path(), "[a-z]{1,3}").prop_map(|(path, new)| Step::Edit(path, new)),
        2 => path().prop_map(Step::Delete),
        3 => (path(), path()).prop_map(|(from, to)| Step::Move(from, to)),
        1 => (path(), path()).prop_map(|(from, to)| Step::Copy(from, to)),
        2 => path().prop_map(Step::Mkdir),
        2 => any::<prop::sample::Index>().prop_map(Step::Rollback),
    ]
}

impl Room {
    /// Does it if it can be done.
    async fn go(&self, step: &Step) {
        let reach = self.reach(None);
        let options = EditOptions::default;
        let _ = match step {
            Step::Write(path, content) => self.write(None, path, content).await.map(drop),
            Step::Edit(path, new) => {
                let spec = EditSpec::Lines { start_line: 1, end_line: 0, new: new.clone() };
                self.fs.edit(&reach, self.at(path), spec, options()).await.map(drop)
            }
            Step::Delete(path) => self.fs.remove(&reach, self.at(path), true).await,
            Step::Move(from, to) => self.fs.relocate(&reach, self.at(from), self.at(to), true).await,
            Step::Copy(from, to) => self.fs.copy(&reach, self.at(from), self.at(to), true).await,
            Step::Mkdir(path) => self.fs.make_directory(&reach, self.at(path)).await,
            Step::Rollback(_) => Ok(()),
        }; // many of them can't: names that aren't there, files where directories should be
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_history_can_be_taken_back_to_any_point(steps in prop::collection::vec(step(), 1..24), last in any::<prop::sample::Index>()) {
        block_on(async {
            let room = Room::new().await;
            let first = room.write(None, "first", "1").await.expect("written").expect("an edit");
            let mut points = vec![(first, room.tree())];
            let mut steps = steps;
            steps.push(Step::Rollback(last));
            for step in &steps {
                if let Step::Rollback(index) = step {
                    let (id, tree) = index.get(&points).clone();
                    room.rollback(RollbackTo::After(id)).await.unwrap_or_else(|error| panic!("{error}: {error:?} {steps:?}"));
                    assert_eq!(room.tree(), tree, "{steps:?}");
                } else {
                    room.go(step).await;
                }
                let latest = room.edits(1).await[0].id.clone();
                if points.iter().all(|(id, _)| *id != latest) {
                    points.push((latest, room.tree()));
                }
            }
        });
    }
}

#[test]
fn a_rollback_restores_bytes_mode_and_links_and_can_be_taken_back() {
    block_on(async {
        let room = Room::new().await;
        room.write(None, "d/f", "one\u{0}\n").await.expect("written");
        std::fs::set_permissions(room.home.join("d/f"), std::fs::Permissions::from_mode(0o640)).expect("a mode");
        std::os::unix::fs::symlink("../far/away", room.home.join("d/l")).expect("a link");
        std::fs::set_permissions(room.home.join("d"), std::fs::Permissions::from_mode(0o750)).expect("a mode");
        let before = room.tree();
        room.fs.remove(&room.reach(None), room.at("d"), true).await.expect("removed");
        let after = room.tree();
        let removal = room.edits(1).await.remove(0);
        assert!(removal.restorable && removal.op == "delete");
        let done = room.rollback(RollbackTo::Before(removal.id.clone())).await.expect("taken back");
        assert_eq!(room.tree(), before);
        assert!(matches!(room.rollback(RollbackTo::Before(removal.id)).await, Err(Error::Settled { .. })));
        room.rollback(RollbackTo::Before(done[0].by_edit_id.clone())).await.expect("that is an edit, too");
        assert_eq!(room.tree(), after);
    });
}

#[test]
fn what_moved_on_is_named_and_nothing_is_done() {
    block_on(async {
        let room = Room::new().await;
        let first = room.write(None, "a", "1").await.expect("written").expect("an edit");
        for (name, content) in [("a", "2"), ("b", "2"), ("c", "2")] {
            room.write(None, name, content).await.expect("written");
        }
        std::fs::write(room.home.join("a"), "3").expect("somebody else writes");
        std::fs::remove_file(room.home.join("c")).expect("somebody else removes");
        let before = room.tree();
        match room.rollback(RollbackTo::After(first)).await {
            Err(Error::MovedOn(edits)) => {
                let names: Vec<_> = edits.iter().map(|edit| (edit.path.clone(), edit.why)).collect();
                assert_eq!(names, [(room.home.join("c"), "changed"), (room.home.join("a"), "changed")]);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(room.tree(), before);
    });
}

#[test]
fn what_is_too_large_is_said_not_to_be_kept() {
    block_on(async {
        let bounds = Bounds { fs_preimage_max_bytes: 4, ..Bounds::default() };
        let room = Room::with(&bounds, Arc::new(NoNotices)).await;
        room.write(None, "f", "12345").await.expect("written");
        let second = room.write(None, "f", "x").await.expect("written").expect("an edit");
        let edits = room.edits(2).await;
        assert!(!edits[0].restorable && edits[1].restorable, "what was not there needs nothing");
        assert!(
            matches!(room.rollback(RollbackTo::Before(second)).await, Err(Error::MovedOn(edits)) if edits[0].why == "not_kept")
        );
    });
}

#[test]
fn a_session_doesnt_write_over_what_it_hasnt_seen() {
    block_on(async {
        let room = Room::new().await;
        room.write(Some("a"), "f", "1\n2\n3\n4\n5\n6\n7\n8\n9\n").await.expect("it may make a file");
        room.fs.open(&room.reach(Some("b")), room.at("f")).await.expect("read");
        room.write(Some("a"), "f", "1\n2\n3\n4\n5\n6\n7\n8\nnine\n").await.expect("its own write is what it saw");
        room.write(Some("c"), "f", "1\n2\n3\n4\n5\n6\n7\n8\nNINE\n").await.expect("who never read it may replace it");
        match room.write(Some("b"), "f", "one\n2\n3\n4\n5\n6\n7\n8\n9\n").await {
            Err(Error::Stale(stale)) => {
                let merged = stale.merged.expect("all three are known");
                assert!(merged.is_clean && merged.merged.as_deref() == Some("one\n2\n3\n4\n5\n6\n7\n8\nNINE\n"));
                assert!(merged.theirs.is_some_and(|diff| diff.contains("-9\n+NINE\n")));
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(room.fs.remove(&room.reach(Some("b")), room.at("f"), false).await, Err(Error::Stale(_))));
        let author = Author { session_id: Some("b".to_owned()), forces: true, ..Author::default() };
        let forced = room.fs.reach().in_name_of(author);
        let written = room.fs.write(&forced, room.at("f"), Bytes::from_static(b"x"), Expected::Anything, Fsync::No).await;
        written.expect("it said so");
        let state = room.fs.file_state(&room.reach(None), room.at("f"), None, 10).await.expect("a state");
        let current = state.current.expect("a hash");
        let seen: Vec<_> = state.seen.iter().map(|seen| (seen.session_id.as_str(), seen.sha256 == current)).collect();
        assert_eq!(seen, [("b", true), ("c", false), ("a", false)]);
    });
}

/// Keeps what it is told.
#[derive(Default)]
struct Told(Mutex<Vec<(Severity, String, String)>>);

impl Notices for Told {
    fn conflict(&self, conflict: &Conflict) {
        let told = (conflict.severity, conflict.session_id.clone(), conflict.other_session_id.clone());
        self.0.lock().expect("no panic").push(told);
    }
}

#[test]
fn sessions_are_told_once_that_they_meet() {
    block_on(async {
        let told = Arc::new(Told::default());
        let room = Room::with(&Bounds::default(), Arc::clone(&told) as _).await;
        let text = |third: &str, fourth: &str| format!("1\n2\n{third}\n{fourth}\n5\n");
        room.write(None, "f", &text("3", "4")).await.expect("written");
        room.write(Some("a"), "f", &text("three", "4")).await.expect("written");
        for fourth in ["four", "vier"] {
            room.write(Some("b"), "f", &text("three", fourth)).await.expect("written");
        }
        room.write(Some("b"), "f", &text("drei", "vier")).await.expect("written");
        let spec = LeaseSpec { path: PathBuf::new(), session_id: "c".into(), duration_ms: 60_000, note: None };
        room.fs.lease(&room.reach(None), &room.at("g"), spec).await.expect("a lease");
        room.write(Some("b"), "g", "").await.expect("written");
        room.fs.settle().await;
        let of = |severity, one: &str, other: &str| (severity, one.to_owned(), other.to_owned());
        let expected = [of(Severity::AdjacentLine, "b", "a"), of(Severity::SameLine, "b", "a"), of(Severity::Leased, "b", "c")];
        assert_eq!(*told.0.lock().expect("no panic"), expected);
        let found = room.fs.conflicts(Some(&room.home.join("f")), Some("a")).await.expect("conflicts");
        assert_eq!((found.len(), found[0].severity), (1, Severity::SameLine));
        let options = EditOptions { fails_on_conflict: true, ..EditOptions::default() };
        let spec = EditSpec::Text { old: "vier".into(), new: "4".into(), occurrence: None };
        let author = Author { session_id: Some("a".to_owned()), forces: true, ..Author::default() };
        let refused = room.fs.edit(&room.fs.reach().in_name_of(author), room.at("f"), spec, options).await;
        assert!(matches!(refused, Err(Error::Conflicts(conflicts)) if conflicts[0].other_session_id == "b"));
    });
}

#[test]
fn what_others_did_is_noted_and_can_be_taken_back() {
    block_on(async {
        let room = Room::new().await;
        std::fs::write(room.home.join("f"), "new").expect("an agent writes");
        std::fs::set_permissions(room.home.join("f"), std::fs::Permissions::from_mode(0o750)).expect("a mode");
        let author =
            Author { session_id: Some("a".into()), turn_id: Some("t".into()), tool_call_id: Some("c".into()), forces: false };
        let present = room.fs.present(room.fs.reach(), room.at("f")).await.expect("looked at");
        let after = present.thing.expect("a file");
        let before = Some(after.with(Bytes::from_static(b"old")));
        let external = External { author, path: room.home.join("f"), before, after, made: Vec::new() };
        room.fs.record_external(external.clone()).await.expect("an edit");
        let edit = room.edits(1).await.remove(0);
        assert_eq!((edit.op.as_str(), edit.turn_id.as_deref(), edit.tool_call_id.as_deref()), ("external", Some("t"), Some("c")));
        assert!(edit.restorable);
        room.rollback(RollbackTo::Turn("t".into())).await.expect("taken back");
        assert_eq!(std::fs::read(room.home.join("f")).expect("a file"), b"old");
        let mode = std::fs::metadata(room.home.join("f")).expect("a file").permissions().mode();
        assert_eq!(mode & 0o7777, 0o750, "a program that could be run still can");
        let unknown = External { before: None, after: Thing::Nothing.with(Bytes::from_static(b"old")), ..external };
        room.fs.record_external(unknown).await.expect("an edit");
        assert!(!room.edits(1).await[0].restorable, "nobody knows what was there");
    });
}

#[test]
fn what_cant_be_reached_isnt_known() {
    block_on(async {
        let room = Room::new().await;
        std::fs::create_dir(room.home.join("real")).expect("a folder");
        std::os::unix::fs::symlink("real", room.home.join("link")).expect("a link");
        let outside = room.write(None, "f", "1").await.expect("written").expect("an edit");
        let inside = room.write(None, "link/f", "1").await.expect("written").expect("an edit");
        let fence = room.fs.reach().fence(room.home.join("link").as_os_str()).expect("a directory");
        let within = room.fs.reach().beneath(&[fence]).expect("a root");
        let seen = room.fs.edits(&within, EditQuery::default(), 10).await.expect("edits").edits;
        let seen: Vec<_> = seen.iter().map(|edit| (edit.id.clone(), edit.path.clone())).collect();
        assert_eq!(seen, [(inside.clone(), room.home.join("real/f"))]);
        assert!(matches!(room.fs.edit_info(&within, &outside).await, Err(Error::UnknownEdit { .. })));
        let refused = room.fs.rollback(&within, None, RollbackTo::Before(outside)).await;
        assert!(matches!(refused, Err(Error::UnknownEdit { .. })));
        room.fs.rollback(&within, None, RollbackTo::Before(inside)).await.expect("taken back by its real path");
        assert!(!room.home.join("real/f").exists() && room.home.join("f").exists());
    });
}

#[test]
fn a_proposal_is_made_when_it_is_applied() {
    block_on(async {
        let room = Room::new().await;
        room.write(None, "f", "a\nb\n").await.expect("written");
        let spec = EditSpec::Text { old: "b".into(), new: "c".into(), occurrence: None };
        let proposed =
            room.fs.propose(&room.reach(None), room.at("f"), spec.clone(), EditOptions::default()).await.expect("kept");
        let id = proposed.id.expect("an id");
        assert_eq!(std::fs::read(room.home.join("f")).expect("a file"), b"a\nb\n");
        room.write(None, "f", "0\na\nb\n").await.expect("written");
        room.fs.apply(&room.reach(None), &id).await.expect("what it says is still there");
        assert_eq!(std::fs::read(room.home.join("f")).expect("a file"), b"0\na\nc\n");
        assert!(matches!(room.fs.apply(&room.reach(None), &id).await, Err(Error::Settled { .. })));
        assert!(matches!(room.fs.reject(&room.reach(None), &id).await, Err(Error::Settled { .. })));
    });
}

/// Whoever asks for it may leave at any moment: what is taken back is noted all the same.
#[test]
fn a_rollback_that_nobody_waits_for_is_in_the_history() {
    block_on(async {
        let room = Room::new().await;
        for polls in 0..12 {
            room.write(None, "f", "old").await.expect("written");
            let edit = room.write(None, "f", "new").await.expect("written").expect("an edit");
            {
                let mut going = Box::pin(room.rollback(RollbackTo::Before(edit.clone())));
                for _ in 0..polls {
                    if futures_util::poll!(&mut going).is_ready() {
                        break;
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
            }
            let mut looks = 0;
            loop {
                let content = std::fs::read_to_string(room.home.join("f")).expect("a file");
                let status = room.fs.edit_info(&room.reach(None), &edit).await.expect("the edit").status;
                if (content == "old") == (status == "reverted") {
                    break;
                }
                looks += 1;
                assert!(looks < 500, "it has {content:?}, and its edit is {status}");
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        }
    });
}

/// What can't be made whole isn't made at all, and what is in its place stays.
#[test]
fn a_rollback_that_breaks_off_leaves_what_there_was() {
    block_on(async {
        let room = Room::new().await;
        for name in ["d/a", "d/b"] {
            room.write(None, name, name).await.expect("written");
        }
        room.fs.remove(&room.reach(None), room.at("d"), true).await.expect("removed");
        let removed = room.edits(1).await.remove(0);
        room.write(None, "d", "a file by now").await.expect("written");
        let moved = room.rollback(RollbackTo::Before(removed.id.clone())).await;
        assert!(matches!(moved, Err(Error::MovedOn(_))), "{moved:?}");
        let written = room.edits(1).await.remove(0);
        room.rollback(RollbackTo::Before(written.id)).await.expect("taken back");
        room.rollback(RollbackTo::Before(removed.id)).await.expect("taken back");
        let names: Vec<_> = room.tree().into_keys().collect();
        assert_eq!(names, ["d", "d/a", "d/b"].map(|name| room.home.join(name)), "nothing else is there");
    });
}
