//! Watching files over HTTP: what another process does is told, whatever becomes of readers, limits and the server.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Event, Events, Home, Options, PATIENCE, Server, kill};

/// A directory to be watched, with what a reader that follows the changes has.
struct World {
    home: Home,
    server: Server,
    root: PathBuf,
}

impl World {
    fn new(options: &Options) -> Self {
        let home = Home::new();
        let root = home.path().join("w");
        std::fs::create_dir(&root).expect("made");
        let server = Server::start_with(&home, options);
        Self { home, server, root }
    }

    async fn watch(&self, query: &str, after: Option<u64>) -> (Events, Event) {
        let mut events = self.server.stream(&format!("/v1/fs/watch?path={}{query}", self.root.display()), after).await;
        let ready = events.next().await.expect("the first event");
        assert_eq!(ready.name, "ready");
        (events, ready)
    }

    /// Waits while something is done, again and again: it may have been done before the wait began.
    async fn waits(&self, path: &str, act: impl Fn()) -> Value {
        let answer = self.server.get(path);
        tokio::pin!(answer);
        loop {
            tokio::select! {
                (status, answer) = &mut answer => {
                    assert_eq!(status, 200, "{answer}");
                    return answer;
                }
                () = tokio::time::sleep(Duration::from_millis(50)) => act(),
            }
        }
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.root.join(name), text).expect("written");
    }

    /// Another process does something there.
    fn sh(&self, script: &str) {
        let status = Command::new("sh").args(["-ec", script]).current_dir(&self.root).status().expect("sh runs");
        assert!(status.success(), "{script}");
    }
}

/// What a client has that follows the changes.
#[derive(Default)]
struct Mirror {
    paths: BTreeSet<String>,
    resyncs: Vec<String>,
    renames: usize,
}

impl Mirror {
    fn follow(&mut self, event: &Event) {
        assert_eq!((event.name.as_str(), event.id), ("message", event.data["sequence"].as_u64()), "{event:?}");
        match event.data["type"].as_str() {
            Some("fs.changed") => {
                event.data["changes"].as_array().expect("changes").iter().for_each(|change| self.change(change));
            }
            Some("fs.resync") => self.resyncs.push(event.data["reason"].as_str().expect("a reason").to_owned()),
            other => panic!("{other:?}: {event:?}"),
        }
    }

    fn change(&mut self, change: &Value) {
        let path = change["path"].as_str().expect("a path").to_owned();
        match change["type"].as_str() {
            Some("create") => assert!(self.paths.insert(path), "told twice: {change}"),
            Some("change") => assert!(self.paths.contains(&path), "{change}"),
            Some("delete") => self.remove(&path).into_iter().for_each(drop),
            Some("rename") => {
                self.renames += 1;
                let from = change["from"].as_str().expect("from");
                for below in self.remove(from) {
                    self.paths.insert(format!("{path}{}", &below[from.len()..]));
                }
            }
            other => panic!("{other:?}: {change}"),
        }
    }

    fn remove(&mut self, path: &str) -> Vec<String> {
        let below = format!("{path}/");
        self.paths.extract_if(.., |one| one == path || one.starts_with(&below)).collect()
    }

    /// Follows until it has this path.
    async fn until(&mut self, events: &mut Events, path: &str) {
        while !self.paths.contains(path) {
            let event = events.next().await.expect("the stream goes on");
            self.follow(&event);
        }
    }

    /// Follows until it has all that is there. Where the kernel dropped events, everything is looked at again and told in
    /// any order: what is made after that has been told comes after all of it.
    async fn catch_up(&mut self, world: &World, events: &mut Events) {
        for name in ["after", "after all"] {
            world.write(name, "1");
            self.until(events, name).await;
        }
    }
}

/// What is there, without `.git`.
fn there(root: &Path) -> BTreeSet<String> {
    let (mut there, mut left) = (BTreeSet::new(), vec![root.to_path_buf()]);
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory).expect("a directory").flatten().filter(|entry| entry.file_name() != ".git") {
            there.insert(entry.path().strip_prefix(root).expect("below").display().to_string());
            if entry.file_type().expect("a type").is_dir() {
                left.push(entry.path());
            }
        }
    }
    there
}

const DIRECTORIES: &str = "i=0; while [ $i -lt 50 ]; do mkdir d$i; i=$((i+1)); done";
const FIFTY_THOUSAND: &str = "i=0; while [ $i -lt 50000 ]; do : > d$((i%50))/f$i; i=$((i+1)); done; : > last";

#[tokio::test]
async fn of_fifty_thousand_files_none_is_lost() {
    let world = World::new(&Options::default());
    world.sh(DIRECTORIES);
    let mut mirror = Mirror { paths: there(&world.root), ..Mirror::default() };
    let (mut events, ready) = world.watch("", None).await;
    assert_eq!((&ready.data["mode"], &ready.data["directories"]), (&json!("inotify"), &json!(51)));
    world.sh(FIFTY_THOUSAND);
    mirror.until(&mut events, "last").await;
    mirror.catch_up(&world, &mut events).await;
    assert_eq!(mirror.paths.len(), 50_053);
    assert_eq!(mirror.paths, there(&world.root), "{:?}", mirror.resyncs);
    assert_eq!(world.server.stop(), Some(0));
}

#[tokio::test]
async fn what_the_kernel_drops_is_told_as_a_resync_and_found() {
    let world = World::new(&Options::default());
    world.sh(DIRECTORIES);
    let mut mirror = Mirror { paths: there(&world.root), ..Mirror::default() };
    let (mut events, _) = world.watch("", None).await;
    kill(world.server.pid(), "STOP");
    world.sh(FIFTY_THOUSAND);
    world.sh("rm -r d7; mv d8 d8.moved");
    kill(world.server.pid(), "CONT");
    mirror.until(&mut events, "last").await;
    mirror.catch_up(&world, &mut events).await;
    assert!(mirror.resyncs.contains(&"overflow".to_owned()), "{:?}", mirror.resyncs);
    assert_eq!(mirror.paths, there(&world.root));
    assert_eq!(mirror.renames, 1, "a rename is found, too");
    world.write("d8.moved/late", "1");
    mirror.until(&mut events, "d8.moved/late").await;
    assert_eq!(world.server.stop(), Some(0));
}

#[tokio::test]
async fn who_follows_a_checkout_has_what_is_there() {
    let world = World::new(&Options::default());
    let git =
        "export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a";
    let files = |from: usize, to: usize| {
        format!(
            "i={from}; while [ $i -lt {to} ]; do mkdir -p p$((i%7))/q$((i%5)); echo $i > p$((i%7))/q$((i%5))/f$i; i=$((i+1)); done"
        )
    };
    world.sh(&format!(
        "{git}; git init -q -b one; echo '*.o' > .gitignore; {}; git add -A; git commit -qm one; git checkout -qb two
         rm -r p0 p3; git mv p1 renamed; echo changed > p2/q2/f2; {}; git add -A; git commit -qm two; : > x.o",
        files(0, 300),
        files(300, 600)
    ));
    let mut mirror = Mirror { paths: there(&world.root), ..Mirror::default() };
    mirror.paths.remove("x.o");
    let (mut events, _) = world.watch("", None).await;
    for (branch, marker) in [("one", "m1"), ("two", "m2"), ("one", "m3")] {
        world.sh(&format!("{git}; git checkout -q {branch}; : > {marker}.o; : > {marker}"));
        mirror.until(&mut events, marker).await;
        // What git wrote just before may be told just after.
        world.sh(&format!(": > {marker}.end"));
        mirror.until(&mut events, &format!("{marker}.end")).await;
        let expected: BTreeSet<_> = there(&world.root).into_iter().filter(|path| !path.ends_with(".o")).collect();
        assert_eq!(mirror.paths, expected, "{branch}");
    }
    world.sh("mkdir -p a/b/c/d/e; : > a/b/c/d/e/f; mv a/b a/bb; : > done");
    mirror.until(&mut events, "done").await;
    mirror.until(&mut events, "a/bb/c/d/e/f").await;
    assert_eq!(world.server.stop(), Some(0));
}

#[tokio::test]
async fn who_comes_back_goes_on_where_they_were() {
    let world = World::new(&Options::default());
    let (mut events, _) = world.watch("", None).await;
    world.write("a", "");
    let first = events.next().await.expect("a change");
    drop(events);
    world.write("b", "");
    let (mut events, ready) = world.watch("", first.id).await;
    assert_eq!(ready.id, None, "the position that was sent stays");
    let next = events.next().await.expect("a change");
    assert_eq!((next.id, &next.data["changes"][0]["path"]), (Some(2), &json!("b")), "nothing between, and no resync");
    let (_, page) = world.server.get("/v1/events?type=fs.*").await;
    let seen: Vec<_> = page["events"].as_array().expect("events").iter().map(|event| event["changes"][0].clone()).collect();
    assert_eq!((seen[0]["path"].as_str(), seen[1]["type"].as_str()), (Some("a"), Some("create")), "{page}");
    assert_eq!(seen[0]["absolutePath"], json!(world.root.join("a").display().to_string()));
    assert_eq!(world.server.stop(), Some(0));
}

#[tokio::test]
async fn a_server_that_was_killed_says_what_it_can_not_know() {
    let World { home, server, root } = World::new(&Options::default());
    let world = World { server, root: root.clone(), home };
    let (mut events, _) = world.watch("", None).await;
    world.write("a", "");
    let first = events.next().await.expect("a change");
    world.write("b", "");
    events.next().await.expect("another");
    let World { home, server, .. } = world;
    server.kill();
    std::fs::write(root.join("while_down"), "1").expect("written");
    let world = World { server: Server::start(&home), root, home };
    let (mut events, _) = world.watch("", first.id).await;
    let told = [events.next().await.expect("b"), events.next().await.expect("resync")];
    assert_eq!((&told[0].data["changes"][0]["path"], told[0].id), (&json!("b"), Some(2)));
    assert_eq!((&told[1].data["type"], &told[1].data["reason"]), (&json!("fs.resync"), &json!("not_watched")));
    world.write("c", "");
    assert_eq!(events.next().await.expect("c").data["changes"][0]["path"], "c");
    let (mut beyond, _) = world.watch("", Some(1000)).await;
    let gap = beyond.next().await.expect("a gap");
    assert_eq!((gap.name.as_str(), &gap.data["to"]), ("gap", &json!(1000)));
    assert_eq!(world.server.stop(), Some(0));
}

#[tokio::test]
async fn a_reader_that_does_not_read_costs_others_nothing() {
    let world = World::new(&Options::default());
    world.sh(DIRECTORIES);
    let before = there(&world.root);
    let (mut slow, _) = world.watch("", None).await;
    let (mut quick, _) = world.watch("", None).await;
    world.sh(&FIFTY_THOUSAND.replace("50000", "20000"));
    let mut mirror = Mirror { paths: before.clone(), ..Mirror::default() };
    mirror.until(&mut quick, "last").await;
    let mut late = Mirror { paths: before, ..Mirror::default() };
    late.until(&mut slow, "last").await;
    assert_eq!(late.paths, mirror.paths);
    assert_eq!(late.paths.len(), 20_051);
    assert_eq!(world.server.stop(), Some(0));
}

#[tokio::test]
async fn a_root_that_goes_is_told_and_found_again() {
    let world = World::new(&Options::default());
    world.sh("mkdir a; : > a/b");
    let (mut events, _) = world.watch("", None).await;
    std::fs::rename(&world.root, world.home.path().join("elsewhere")).expect("renamed");
    let gone = events.until(|event| event.data["reason"] == "root_gone").await;
    assert_eq!(gone.len(), 1, "{gone:?}");
    std::fs::create_dir_all(world.root.join("new")).expect("made");
    world.write("new/f", "1");
    let back = events.until(|event| event.data["reason"] == "root_back").await;
    assert_eq!(back.len(), 1, "{back:?}");
    let mut mirror = Mirror::default();
    mirror.until(&mut events, "new/f").await;
    world.write("new/g", "1");
    mirror.until(&mut events, "new/g").await;
    std::fs::remove_dir_all(&world.root).expect("removed");
    events.until(|event| event.data["reason"] == "root_gone").await;
    assert_eq!(world.server.stop(), Some(0));
}

#[tokio::test]
async fn where_watches_run_out_it_is_polled_and_said() {
    let options = Options::default().env("SANDBOXD_FS_WATCH_DIRECTORIES_MAX", "3").env("SANDBOXD_FS_WATCH_POLL_MIN_MS", "20");
    let options = options.env("SANDBOXD_FS_WATCH_RETRY_MS", "100");
    let world = World::new(&options);
    let (mut events, ready) = world.watch("", None).await;
    assert_eq!(ready.data["mode"], "inotify");
    let mut mirror = Mirror::default();
    world.sh("mkdir -p a/b/c/d; : > a/b/c/d/e");
    mirror.until(&mut events, "a/b/c/d/e").await;
    let told = events.until(|event| event.data["type"] == "fs.resync").await;
    let resync = &told.last().expect("a resync").data;
    assert_eq!((&resync["reason"], &resync["mode"]), (&json!("watch_limit"), &json!("poll")));
    world.sh("mv a/b x; : > y");
    mirror.until(&mut events, "y").await;
    mirror.until(&mut events, "x/c/d/e").await;
    assert_eq!((mirror.paths.clone(), mirror.renames), (there(&world.root), 1));
    let (_, again) = world.watch("&hidden=false", None).await;
    assert_eq!((&again.data["mode"], &again.data["why"]), (&json!("poll"), &json!("watch_limit")));
    world.sh("rm -r x a");
    let told = events.until(|event| event.data["reason"] == "watched_again").await;
    assert_eq!(told.last().expect("a resync").data["mode"], "inotify");
    assert_eq!(world.server.stop(), Some(0));
}

#[tokio::test]
async fn our_own_writes_are_one_change() {
    let world = World::new(&Options::default());
    world.write("f", "1");
    let (mut events, _) = world.watch("&ignore=*.log,!keep.log", None).await;
    let path = world.root.join("f").display().to_string();
    let put = world.server.http.put(world.server.url(&format!("/v1/fs/file?path={path}"))).body("22").send();
    assert_eq!(put.await.expect("an answer").status(), 200);
    let told = events.next().await.expect("a change");
    let expected = json!([{"type": "change", "path": "f", "absolutePath": path, "kind": "file"}]);
    assert_eq!(told.data["changes"], expected);
    world.sh(": > x.log; : > keep.log");
    assert_eq!(events.next().await.expect("a change").data["changes"][0]["path"], "keep.log");
    assert_eq!(world.server.stop(), Some(0));
}

#[tokio::test]
async fn our_own_files_are_not_watched() {
    let world = World::new(&Options::default());
    let data = world.home.data();
    let link = world.root.join("data");
    std::os::unix::fs::symlink(&data, &link).expect("a link");
    for path in [data.clone(), data.join("bin"), link] {
        let (status, problem) = world.server.get(&format!("/v1/fs/watch?path={}", path.display())).await;
        assert_eq!(status, 400, "{}: {problem}", path.display());
    }
    let home = world.home.path().display();
    let mut events = world.server.stream(&format!("/v1/fs/watch?path={home}&hidden=true&ignore=server.log"), None).await;
    assert_eq!(events.next().await.expect("the first event").name, "ready");
    // Each is an edit and an event in the log, which is a commit in the data directory.
    for number in 0..5 {
        let path = world.root.join(format!("f{number}"));
        let url = world.server.url(&format!("/v1/fs/file?path={}", path.display()));
        let written = world.server.http.put(url).body("x").send().await.expect("an answer");
        assert_eq!(written.status(), 200);
        let event = events.next().await.expect("an event");
        assert_eq!(event.data["changes"][0]["path"], format!("w/f{number}"), "{event:?}");
        assert_eq!(event.data["changes"].as_array().map(Vec::len), Some(1), "{event:?}");
    }
    world.sh("mkdir ../.local/share/other; echo x > ../.local/share/other/f");
    let event = events.next().await.expect("an event");
    assert_eq!(event.data["changes"][1]["path"], ".local/share/other/f", "beside it everything is told: {event:?}");
    assert_eq!(world.server.stop(), Some(0));
}

#[tokio::test]
async fn as_many_directories_are_watched_as_the_bound_allows() {
    let world = World::new(&Options::default().env("SANDBOXD_FS_WATCH_TREES_MAX", "1"));
    let (events, _) = world.watch("", None).await;
    let (_, shared) = world.watch("", None).await;
    assert_eq!(shared.data["sequence"], 0);
    let other = format!("/v1/fs/watch?path={}", world.home.path().display());
    let (status, problem) = world.server.get(&other).await;
    assert_eq!((status, problem["detail"].as_str().is_some_and(|detail| detail.contains("fs_watch_trees_max"))), (503, true));
    drop(events);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let response = world.server.http.get(world.server.url(&other)).send().await.expect("an answer");
        if response.status() == 200 {
            break;
        }
        assert!(Instant::now() < deadline, "a tree that nobody reads makes room");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for (query, status) in
        [("path=/nope", 400), ("path=/etc/passwd", 400), ("path=/etc&ignore=a{", 400), ("path=/&hidden=x", 400)]
    {
        assert_eq!(world.server.get(&format!("/v1/fs/watch?{query}")).await.0, status, "{query}");
    }
    assert_eq!(world.server.stop(), Some(0));
}

#[tokio::test]
async fn a_file_is_waited_for() {
    let world = World::new(&Options::default());
    let wait = |query: &str, name: &str| format!("/v1/fs/wait?{query}&path={}", world.root.join(name).display());
    let path = wait("event=exists", "a/b/f");
    let met = world.waits(&path, || world.sh("mkdir -p a; mkdir -p a/b; : > a/b/f")).await;
    assert_eq!((&met["met"], &met["stat"]["entryType"]), (&json!(true), &json!("file")), "{met}");
    assert_eq!(world.server.get(&path).await.1["met"], true, "what is there already is enough");
    let changed = world.waits(&wait("event=changed", "a/b/f"), || world.sh("echo more >> a/b/f")).await;
    assert_eq!(changed["met"], true, "{changed}");
    let stable = world.server.get(&wait("event=stable&stableMs=50", "a/b/f")).await.1;
    assert_eq!(stable["met"], true);
    let gone = world.waits(&wait("event=gone", "a/b/f"), || world.sh("rm -rf a")).await;
    assert_eq!((&gone["met"], &gone["stat"]), (&json!(true), &Value::Null), "{gone}");
    let over = world.server.get(&wait("timeoutMs=50", "never")).await.1;
    assert_eq!((&over["met"], &over["event"]), (&json!(false), &json!("exists")));
    for query in ["event=other", "timeoutMs=3600001", "timeoutMs=-1"] {
        assert_eq!(world.server.get(&wait(query, "f")).await.0, 400, "{query}");
    }
    assert_eq!(world.server.stop(), Some(0));
}
