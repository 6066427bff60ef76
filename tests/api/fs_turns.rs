//! What a shell does to files in an agent's turn, which only a watch sees: noted when the turn ends, and taken back.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::sessions_support::{create, fake, outcome, say, until};
use crate::support::{Home, Options, Server};

/// A server with an agent, and a directory where it works.
struct Place {
    home: Home,
    server: Server,
    root: PathBuf,
    /// Turns so far.
    turns: usize,
}

impl Place {
    fn new(options: &Options, prepare: impl FnOnce(&Path)) -> Self {
        let home = Home::new();
        fake(&home, "");
        let root = home.path().join("w");
        std::fs::create_dir(&root).expect("made");
        prepare(&root);
        let logs = "info,sandboxd::app::files=debug,sandboxd::fs::baseline=debug";
        let server = Server::start_with(&home, &options.clone().env("RUST_LOG", logs));
        Self { home, server, root, turns: 0 }
    }

    async fn session(&self) -> String {
        create(&self.server, json!({"agent": "amp", "cwd": self.root})).await
    }

    /// A turn whose shell waits until the directory is watched and copied, as an agent does that thinks first.
    async fn begin(&mut self, session: &str, script: &str) -> String {
        self.turns += 1;
        let turn = say(&self.server, session, &format!("sh {}\n{script}", wait_for(&self.gate("go")))).await;
        let home = &self.home;
        until("a copy and a watch", async || {
            let log = Server::log(home);
            let count = |words: &str| log.matches(words).count();
            let ready = count("the directory of a turn is watched").min(count("the directory of a turn is copied"));
            (ready >= self.turns).then_some(())
        })
        .await;
        turn
    }

    fn gate(&self, name: &str) -> PathBuf {
        self.home.path().join(format!("{name}{}", self.turns))
    }

    fn open(&self, gate: &Path) {
        std::fs::write(gate, "").expect("written");
    }

    /// Such a turn until it is over.
    async fn run(&mut self, session: &str, script: &str) -> String {
        let turn = self.begin(session, script).await;
        self.open(&self.gate("go"));
        assert_eq!(outcome(&self.server, session, &turn).await.0, "finished");
        turn
    }

    /// So many edits, the latest first.
    async fn edits(&self, query: &str, count: usize) -> Vec<Value> {
        let path = format!("/v1/fs/edits?{query}");
        let found = until("edits", async || {
            let (_, page) = self.server.get(&path).await;
            page["edits"].as_array().filter(|edits| edits.len() >= count).cloned()
        });
        let found = found.await;
        assert_eq!(found.len(), count, "{found:?}");
        found
    }

    async fn roll_back(&self, turn: &str) -> (u16, Value) {
        self.server.send("/v1/fs/rollback", &json!({"turnId": turn})).await
    }

    /// Names below the root, with what they stand for.
    fn tree(&self) -> BTreeMap<String, String> {
        let (mut tree, mut left) = (BTreeMap::new(), vec![self.root.clone()]);
        while let Some(directory) = left.pop() {
            for entry in std::fs::read_dir(directory).expect("a directory") {
                let path = entry.expect("an entry").path();
                let meta = path.symlink_metadata().expect("what it is");
                let mode = meta.permissions().mode() & 0o7777;
                let is = if meta.is_dir() {
                    left.push(path.clone());
                    format!("directory {mode:o}")
                } else if meta.is_symlink() {
                    format!("link {}", std::fs::read_link(&path).expect("a link").display())
                } else {
                    format!("file {mode:o} {:?}", std::fs::read(&path).expect("a file"))
                };
                tree.insert(path.strip_prefix(&self.root).expect("below").display().to_string(), is);
            }
        }
        tree
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.root.join(name), text).expect("written");
    }
}

fn wait_for(gate: &Path) -> String {
    format!("while [ ! -e '{}' ]; do sleep 0.01; done", gate.display())
}

fn names(edits: &[Value]) -> Vec<String> {
    let mut names: Vec<_> = edits.iter().map(|edit| edit["path"].as_str().expect("a path").to_owned()).collect();
    names.sort();
    names
}

fn some_files(root: &Path) {
    let mode = |name: &str, mode| {
        std::fs::set_permissions(root.join(name), std::fs::Permissions::from_mode(mode)).expect("a mode");
    };
    std::fs::create_dir_all(root.join("d/e")).expect("directories");
    for (name, content) in
        [("script", &b"one\n"[..]), ("gone", b"\0\xff"), ("name", b"x"), ("d/e/f", b"1"), ("d/g", b"2"), ("keep", b"k")]
    {
        std::fs::write(root.join(name), content).expect("written");
    }
    mode("script", 0o755);
    mode("gone", 0o600);
    symlink("keep", root.join("link")).expect("a link");
    std::fs::write(root.join(".gitignore"), "ignored\n").expect("written");
    std::fs::write(root.join("ignored"), "mine").expect("written");
}

const MUCH: &str = "echo two >> script; chmod 644 script; rm gone; mv name other; mv d moved; echo x > created; \
    mkdir -p n/m; echo y > n/m/z; ln -sf nowhere link; chmod 600 keep; echo i > ignored; rm other; mkdir other; echo o > other/o";

#[tokio::test]
async fn what_a_shell_did_in_a_turn_is_taken_back() {
    let mut place = Place::new(&Options::default(), some_files);
    let session = place.session().await;
    let before = place.tree();
    let turn = place.run(&session, MUCH).await;
    let edits = place.edits(&format!("turnId={turn}"), 12).await;
    let after = place.tree();
    assert!(edits.iter().all(|edit| edit["restorable"] == true && edit["op"] == "external"), "{edits:?}");
    let (status, done) = place.roll_back(&turn).await;
    assert_eq!(status, 200, "{done}");
    let ignored = ("ignored".to_owned(), after["ignored"].clone());
    let mut expected = before.clone();
    expected.extend([ignored]); // of which nobody knows
    assert_eq!(place.tree(), expected);
    assert_ne!(before, after);
}

#[tokio::test]
async fn what_a_person_changed_since_is_not_taken_back() {
    let mut place = Place::new(&Options::default(), some_files);
    let session = place.session().await;
    let turn = place.run(&session, "echo 2 > d/g; rm gone").await;
    place.edits(&format!("turnId={turn}"), 2).await;
    place.write("d/g", "3");
    let before = place.tree();
    let (status, problem) = place.roll_back(&turn).await;
    assert_eq!((status, &problem["movedOn"][0]["why"]), (409, &json!("changed")), "{problem}");
    assert_eq!(problem["movedOn"].as_array().map(Vec::len), Some(1));
    assert_eq!(place.tree(), before);
}

#[tokio::test]
async fn each_turn_is_taken_back_to_where_it_began() {
    let mut place = Place::new(&Options::default(), some_files);
    let session = place.session().await;
    let start = place.tree();
    let first = place.run(&session, "echo 2 > d/g; echo new > new").await;
    place.edits(&format!("turnId={first}"), 2).await;
    let between = place.tree();
    let second = place.run(&session, "echo 3 > d/g; rm new; chmod 640 d/g").await;
    place.edits(&format!("turnId={second}"), 2).await;
    assert_eq!(place.roll_back(&second).await.0, 200);
    assert_eq!(place.tree(), between);
    assert_eq!(place.roll_back(&first).await.0, 200);
    assert_eq!(place.tree(), start);
}

#[tokio::test]
async fn what_a_tool_did_and_what_a_shell_did_go_together() {
    let mut place = Place::new(&Options::default(), some_files);
    let session = place.session().await;
    let before = place.tree();
    let file = place.root.join("script");
    // The shell changes it, a tool does, and the shell again.
    let told = json!({
        "sessionUpdate": "tool_call", "toolCallId": "c1", "title": "edit", "kind": "edit", "status": "completed",
        "locations": [{"path": file}],
        "content": [{"type": "diff", "path": file, "oldText": "two\n", "newText": "three\n"}],
    });
    let later = place.home.path().join("later");
    let script =
        format!("echo two > script; echo three > script; printf '%s\\n' '{told}'\n{}\necho four > script", wait_for(&later));
    let turn = place.begin(&session, &script).await;
    place.open(&place.gate("go"));
    place.edits(&format!("turnId={turn}"), 2).await;
    place.open(&later);
    assert_eq!(outcome(&place.server, &session, &turn).await.0, "finished");
    let edits = place.edits(&format!("turnId={turn}"), 3).await;
    let calls: Vec<_> = edits.iter().map(|edit| edit["toolCallId"].as_str()).collect();
    assert_eq!(calls, [None, Some("c1"), None], "{edits:?}");
    assert_eq!(place.roll_back(&turn).await.0, 200);
    assert_eq!(place.tree(), before);
}

#[tokio::test]
async fn too_large_a_directory_is_said_not_to_be_restorable() {
    let options = Options::default().env("SANDBOXD_FS_BASELINE_MAX_FILES", "2");
    let mut place = Place::new(&options, some_files);
    let session = place.session().await;
    let turn =
        place.run(&session, "for name in script gone name d/e/f d/g keep; do echo changed > $name; done; echo n > new").await;
    let edits = place.edits(&format!("turnId={turn}"), 7).await;
    let (known, unknown): (Vec<_>, Vec<_>) = edits.into_iter().partition(|edit| edit["restorable"] == true);
    assert!(unknown.len() >= 4 && unknown.iter().all(|edit| edit["before"].is_null()), "{known:?} {unknown:?}");
    assert!(names(&known).contains(&place.root.join("new").display().to_string()), "that it is new the watch has told");
    let (status, problem) = place.roll_back(&turn).await;
    assert_eq!((status, &problem["movedOn"][0]["why"]), (409, &json!("not_kept")), "{problem}");
    assert!(Server::log(&place.home).contains("can't all be taken back"));
}

#[tokio::test]
async fn two_turns_in_one_place_are_in_nobodys_name_and_can_be_taken_back() {
    let mut place = Place::new(&Options::default(), some_files);
    let sessions = [place.session().await, place.session().await];
    let before = place.tree();
    let first = place.begin(&sessions[0], "echo 2 > d/g").await;
    let gate = place.gate("go");
    let second = place.begin(&sessions[1], "rm gone; echo 3 > d/g").await;
    place.open(&gate);
    assert_eq!(outcome(&place.server, &sessions[0], &first).await.0, "finished");
    place.edits("", 1).await;
    place.open(&place.gate("go"));
    assert_eq!(outcome(&place.server, &sessions[1], &second).await.0, "finished");
    for edit in place.edits("", 3).await {
        assert_eq!((&edit["restorable"], edit.get("sessionId"), edit.get("turnId")), (&json!(true), None, None), "{edit}");
        let path = format!("/v1/fs/edits/{}/rollback", edit["id"].as_str().expect("an id"));
        assert_eq!(place.server.send(&path, &json!({})).await.0, 200);
    }
    assert_eq!(place.tree(), before);
}

#[tokio::test]
async fn nothing_that_was_ignored_is_taken_for_new() {
    let mut place = Place::new(&Options::default(), some_files);
    let session = place.session().await;
    let turn = place.run(&session, "echo > .gitignore; echo new > new; echo i >> ignored").await;
    let edits = place.edits(&format!("turnId={turn}"), 3).await;
    let ignored = edits.iter().find(|edit| edit["path"] == json!(place.root.join("ignored"))).expect("it is seen now");
    assert_eq!(ignored["restorable"], false, "{ignored}");
    assert_eq!(place.roll_back(&turn).await.0, 409);
    assert!(place.root.join("ignored").exists());
}

#[tokio::test]
async fn copies_have_no_name_and_a_directory_that_holds_our_own_files_is_watched_too() {
    let home = Home::new();
    fake(&home, "");
    let root = home.path().join("w");
    std::fs::create_dir(&root).expect("made");
    some_files(&root);
    let data = root.join("data");
    std::fs::create_dir_all(data.join("bin")).expect("made");
    std::fs::rename(home.data().join("bin/agent_processes"), data.join("bin/agent_processes")).expect("moved");
    let options =
        Options { args: vec!["--no-token".into(), "--data-dir".into(), data.display().to_string()], ..Options::default() }
            .env("RUST_LOG", "info,sandboxd::app::files=debug,sandboxd::fs::baseline=debug");
    let server = Server::start_with(&home, &options);
    let mut place = Place { home, server, root, turns: 0 };
    let session = place.session().await;
    let turn = place.run(&session, "echo 2 > d/g").await;
    let edits = place.edits("", 1).await;
    assert_eq!((&edits[0]["turnId"], &edits[0]["restorable"]), (&json!(turn), &json!(true)));
    let left: Vec<_> = std::fs::read_dir(&data).expect("a directory").flatten().map(|entry| entry.file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("baseline")), "{left:?}");
    let held = std::fs::read_dir(format!("/proc/{}/fd", place.server.pid())).expect("descriptors").flatten();
    let held: Vec<_> = held.filter_map(|entry| std::fs::read_link(entry.path()).ok()).collect();
    assert!(held.iter().any(|path| path.to_string_lossy().ends_with("data/baselines.tmp (deleted)")), "{held:?}");
}
