//! Files over HTTP: the contract, and what goes beyond it.

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::Method;
use serde_json::{Value, json as object};

use crate::fs_support::{Files, json, told};
use crate::support::Options;

fn mode(path: &std::path::Path) -> u32 {
    std::fs::symlink_metadata(path).expect("a file").permissions().mode() & 0o7777
}

#[tokio::test]
async fn a_file_is_written_read_and_removed() {
    let files = Files::new();
    let written = files.put("a/b/c.txt", "hello").await;
    assert_eq!((&written["path"], &written["bytesWritten"]), (&files.path("a/b/c.txt").display().to_string().into(), &5.into()));
    assert_eq!(mode(&files.path("a/b/c.txt")), 0o644);
    let read = files.get("a/b/c.txt").await;
    assert_eq!(read.headers()["content-type"], "application/octet-stream");
    assert_eq!(read.headers()["etag"], format!("\"{}\"", written["sha256"].as_str().expect("a hash")));
    assert_eq!(read.text().await.expect("a text"), "hello");
    let stat = json(files.ask(Method::GET, "stat", "a/b/c.txt")).await;
    assert_eq!((&stat["entryType"], &stat["size"], &stat["mode"]), (&"file".into(), &5.into(), &"0644".into()));
    json(files.ask(Method::DELETE, "file", "a/b/c.txt")).await;
    let (status, problem) = told(files.ask(Method::GET, "file", "a/b/c.txt")).await;
    assert_eq!((status, &problem["code"]), (400, &"not_found".into()));
    let detail = format!("invalid request: path not found: {}", files.path("a/b/c.txt").display());
    assert_eq!(problem["detail"], detail);
}

#[tokio::test]
async fn paths_start_at_the_home() {
    let files = Files::new();
    files.put("x", "x").await;
    let url = |query: &str| files.server.url(&format!("/v1/fs/{query}"));
    for path in ["work/x", "~/work/x", "./work//x"] {
        let read = files.request(Method::GET, "file", &[("path", path)]).send().await.expect("an answer");
        assert_eq!(read.text().await.expect("a text"), "x", "{path}");
    }
    let (status, problem) = told(files.server.http.get(url("file?path=work/../work/x"))).await;
    assert_eq!((status, &problem["detail"]), (400, &"invalid request: invalid relative path: work/../work/x".into()));
    let (_, problem) = told(files.server.http.get(url("file"))).await;
    assert_eq!(problem["detail"], "invalid request: Failed to deserialize query string: missing field `path`");
    let listed = json(files.server.http.get(url("entries"))).await;
    assert!(listed.as_array().expect("an array").iter().any(|entry| entry["name"] == "work"), "{listed}");
}

#[tokio::test]
async fn relative_paths_of_a_session_start_where_it_works() {
    let files = Files::new();
    let body = object!({"agent": "mock", "cwd": files.path("")});
    let session = told(files.server.http.post(files.server.url("/v1/sessions")).json(&body)).await.1;
    let query = [("path", "in/session.txt"), ("sessionId", session["id"].as_str().expect("an id"))];
    json(files.request(Method::PUT, "file", &query).body("x")).await;
    assert_eq!(std::fs::read_to_string(files.path("in/session.txt")).expect("a file"), "x");
    let (status, _) = told(files.request(Method::GET, "file", &[("path", "x"), ("sessionId", "ses_none")])).await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn names_that_are_not_utf_8_come_through() {
    let files = Files::new();
    let url = files.server.url("/v1/fs/");
    let put = format!("{url}file?path=work/%FF%22x");
    let written = json(files.server.http.put(&put).body("odd")).await;
    let found = std::fs::read_dir(files.path("")).expect("a folder").flatten().next().expect("a file");
    assert_eq!(found.file_name().as_bytes(), b"\xff\"x");
    let listed = json(files.ask(Method::GET, "entries", "")).await;
    assert_eq!(listed[0]["pathBase64"], written["pathBase64"]);
    let body = object!({"from": {"base64": listed[0]["pathBase64"]}, "to": "work/even"});
    assert_eq!(files.rename(&body).await.0, 200);
    assert_eq!(files.text("even").await, "odd");
}

#[tokio::test]
async fn links_are_shown_as_what_they_are_and_written_through() {
    let files = Files::new();
    files.put("target", "old").await;
    symlink("target", files.path("link")).expect("a link");
    symlink("nowhere", files.path("dangling")).expect("a link");
    let listed = json(files.ask(Method::GET, "entries", "")).await;
    let link = listed.as_array().expect("an array").iter().find(|entry| entry["name"] == "link").expect("the link");
    let expected = ("file", "symlink", "target");
    assert_eq!(
        (&link["entryType"], &link["kind"], &link["target"]),
        (&expected.0.into(), &expected.1.into(), &expected.2.into())
    );
    files.put("link", "new").await;
    files.put("dangling", "made").await;
    assert_eq!((files.text("target").await, files.text("nowhere").await), ("new".to_owned(), "made".to_owned()));
    assert!(files.path("link").is_symlink() && files.path("dangling").is_symlink());
    std::fs::remove_file(files.path("nowhere")).expect("a file");
    json(files.ask(Method::DELETE, "entry", "dangling")).await;
    json(files.ask(Method::DELETE, "entry", "link")).await;
    assert_eq!(files.text("target").await, "new");
}

#[tokio::test]
async fn what_is_no_file_never_hangs() {
    let files = Files::new();
    let fifo = rustix::fs::mkfifoat(rustix::fs::CWD, files.path("fifo"), rustix::fs::Mode::RWXU);
    fifo.expect("a FIFO");
    for method in [Method::GET, Method::PUT] {
        let (status, problem) = told(files.ask(method.clone(), "file", "fifo").body("x")).await;
        assert_eq!((status, &problem["code"]), (400, &"not_a_file".into()), "{method}");
    }
    let (status, _) = told(files.ask(Method::GET, "file", "")).await;
    assert_eq!(status, 400, "a directory");
    let version = files.server.http.get(files.server.url("/v1/fs/file?path=/proc/version")).send().await.expect("an answer");
    assert!(version.text().await.expect("a text").starts_with("Linux"), "what has no size is read to its end");
    let empty = files.put("empty", "").await;
    assert_eq!(empty["bytesWritten"], 0);
    assert_eq!(files.text("empty").await, "");
}

#[tokio::test]
async fn a_write_keeps_mode_and_owner_and_leaves_nothing_behind() {
    let files = Files::new();
    files.put("script", "old").await;
    std::fs::set_permissions(files.path("script"), std::fs::Permissions::from_mode(0o750)).expect("a mode");
    std::os::unix::fs::chown(files.path("script"), Some(1234), Some(1234)).expect("an owner");
    files.put("script", &"new".repeat(200_000)).await;
    let meta = std::fs::metadata(files.path("script")).expect("a file");
    assert_eq!((mode(&files.path("script")), meta.uid(), meta.gid()), (0o750, 1234, 1234));
    // A client that breaks off in the middle of a large one.
    let body =
        reqwest::Body::wrap_stream(futures_util::stream::iter([Ok(vec![b'x'; 3_000_000]), Err(std::io::Error::other("gone"))]));
    assert!(files.ask(Method::PUT, "file", "script").body(body).send().await.is_err());
    for _ in 0..200 {
        if std::fs::read_dir(files.path("")).expect("a folder").count() == 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let left: Vec<_> = std::fs::read_dir(files.path("")).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["script"]);
    assert_eq!(files.text("script").await.len(), 600_000);
}

#[tokio::test]
async fn conditions_are_about_contents() {
    let files = Files::new();
    let first = files.put("f", "one").await["sha256"].as_str().expect("a hash").to_owned();
    let put = |condition: (&'static str, String), content: &'static str| {
        told(files.ask(Method::PUT, "file", "f").header(condition.0, condition.1).body(content))
    };
    assert_eq!(put(("if-none-match", "*".to_owned()), "two").await.0, 412);
    assert_eq!(put(("if-match", format!("\"{first}\"")), "two").await.0, 200);
    let (status, problem) = put(("if-match", format!("\"{first}\"")), "three").await;
    let now = files.get("f").await.headers()["etag"].to_str().expect("text").to_owned();
    assert_eq!((status, format!("\"{}\"", problem["sha256"].as_str().expect("a hash"))), (412, now.clone()));
    assert_eq!(put(("if-match", format!("\"{first}\", {now}")), "four").await.0, 200);
    assert_eq!(told(files.ask(Method::PUT, "file", "g").header("if-match", "*").body("x")).await.0, 412);
    let fail = [("ifExists", "fail")];
    assert_eq!(told(files.ask_with(Method::PUT, "file", "f", &fail).body("x")).await.0, 412);
    assert_eq!(told(files.ask_with(Method::PUT, "file", "h", &fail).body("x")).await.0, 200);
    assert_eq!(told(files.ask(Method::PUT, "file", "f").header("content-range", "bytes 0-0/4").body("x")).await.0, 400);
    assert_eq!(told(files.ask(Method::PUT, "file", "f").header("content-encoding", "gzip").body("x")).await.0, 415);
    assert_eq!(files.text("f").await, "four");
    let not_modified =
        files.ask(Method::GET, "file", "f").header("if-none-match", files.get("f").await.headers()["etag"].clone());
    let not_modified = not_modified.send().await.expect("an answer");
    assert_eq!(not_modified.status(), 304);
    assert!(not_modified.headers().contains_key("etag"));
}

#[tokio::test]
async fn parts_of_a_file() {
    let files = Files::new();
    let content: String = (0..100_000).map(|number| format!("{number:09}\n")).collect();
    files.put("big", &content).await;
    let part = |range: &'static str| files.ask(Method::GET, "file", "big").header("range", range).send();
    let answer = part("bytes=10-19").await.expect("an answer");
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-range"]),
        (206, &"bytes 10-19/1000000".parse().expect("a header"))
    );
    assert_eq!(answer.text().await.expect("a text"), "000000001\n");
    let rest = part("bytes=300000-").await.expect("an answer");
    assert_eq!(rest.content_length(), Some(700_000));
    assert_eq!(rest.text().await.expect("a text"), content[300_000..]);
    let beyond = part("bytes=1000000-").await.expect("an answer");
    assert_eq!(
        (beyond.status().as_u16(), &beyond.headers()["content-range"]),
        (416, &"bytes */1000000".parse().expect("a header"))
    );
    assert_eq!(files.text("big").await, content);
}

#[tokio::test]
async fn a_directory_of_many_is_listed_whole() {
    let files = Files::new();
    const COUNT: usize = 20_000;
    for number in 0..COUNT {
        std::fs::File::create(files.path(&format!("f{number}"))).expect("a file");
    }
    let listed = json(files.ask(Method::GET, "entries", "")).await;
    let mut names: Vec<_> = listed.as_array().expect("an array").iter().filter_map(|entry| entry["name"].as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), COUNT);
    let (status, problem) = told(files.ask(Method::GET, "entries", "f1")).await;
    assert_eq!((status, &problem["code"]), (400, &"not_a_directory".into()));
}

#[tokio::test]
async fn directories_are_made_and_removed() {
    let files = Files::new();
    json(files.ask(Method::POST, "mkdir", "a/b/c")).await;
    json(files.ask(Method::POST, "mkdir", "a/b/c")).await;
    files.put("a/file", "x").await;
    let (status, problem) = told(files.ask(Method::POST, "mkdir", "a/file/x")).await;
    assert_eq!(status, 400, "{problem}");
    let (status, problem) = told(files.ask(Method::DELETE, "entry", "a")).await;
    assert_eq!((status, &problem["details"]["message"]), (502, &"Directory not empty (os error 39)".into()));
    symlink(files.home.path(), files.path("a/out")).expect("a link");
    std::fs::set_permissions(files.path("a/b/c"), std::fs::Permissions::from_mode(0o500)).expect("a mode");
    json(files.ask_with(Method::DELETE, "entry", "a", &[("recursive", "true")])).await;
    assert!(!files.path("a").exists() && files.path("").is_dir(), "what the link led to stays");
    let (status, problem) = told(files.server.http.delete(files.server.url("/v1/fs/entry?path=~&recursive=true"))).await;
    assert_eq!(status, 400, "the home stays: {problem}");
}

#[tokio::test]
async fn a_move_loses_nothing() {
    let files = Files::new();
    files.put("a", "A").await;
    files.put("b", "B").await;
    files.put("d/inner", "D").await;
    let [a, b, d] = ["a", "b", "d"].map(|name| files.path(name).display().to_string());
    let of = |from: &str, to: &str, overwrite: bool| object!({"from": from, "to": to, "overwrite": overwrite});
    let (status, problem) = files.rename(&of(&a, &b, false)).await;
    assert_eq!((status, &problem["code"]), (400, &"destination_exists".into()));
    assert_eq!(files.rename(&of(&a, &a, true)).await.0, 200, "onto itself");
    assert_eq!(files.rename(&of(&d, &d, true)).await.0, 200);
    assert_ne!(files.rename(&of(&d, &format!("{d}/inner/x"), true)).await.0, 200, "into itself");
    assert_ne!(files.rename(&of(&format!("{d}/inner"), &d, true)).await.0, 200, "onto what holds it");
    assert_eq!((files.text("a").await, files.text("d/inner").await), ("A".to_owned(), "D".to_owned()));
    assert_eq!(files.rename(&of(&a, &b, true)).await.0, 200);
    assert_eq!(files.text("b").await, "A");
    assert_eq!(files.rename(&of(&b, &d, true)).await.0, 200, "a file over a directory");
    assert_eq!(files.text("d").await, "A");
    assert_eq!(files.rename(&of(&d, &format!("{d}2/x/y"), false)).await.0, 200);
    symlink("nowhere", files.path("dangling")).expect("a link");
    let dangling = files.path("dangling").display().to_string();
    assert_eq!(files.rename(&of(&format!("{d}2/x/y"), &dangling, false)).await.0, 400, "a link is there, too");
    std::fs::hard_link(files.path("d2/x/y"), files.path("twin")).expect("a link");
    let twin = files.path("twin").display().to_string();
    assert_eq!(files.rename(&of(&format!("{d}2/x/y"), &twin, true)).await.0, 200, "two names of one file");
    assert_eq!((files.text("twin").await, files.path("d2/x/y").exists()), ("A".to_owned(), false));
}

#[tokio::test]
async fn a_copy_is_whole_or_not_there() {
    let files = Files::new();
    files.put("d/a", "A").await;
    files.put("d/sub/b", "B").await;
    symlink("a", files.path("d/link")).expect("a link");
    std::fs::set_permissions(files.path("d/sub"), std::fs::Permissions::from_mode(0o500)).expect("a mode");
    let copy = |from: &str, to: &str| {
        let body = object!({"from": files.path(from), "to": files.path(to)});
        told(files.server.http.post(files.server.url("/v1/fs/copy")).json(&body))
    };
    assert_eq!(copy("d", "e").await.0, 200);
    assert_eq!((files.text("e/a").await, files.text("e/sub/b").await), ("A".to_owned(), "B".to_owned()));
    assert_eq!((std::fs::read_link(files.path("e/link")).expect("a link"), mode(&files.path("e/sub"))), ("a".into(), 0o500));
    assert_eq!(copy("d", "d/sub/again").await.0, 200, "into itself: once");
    assert!(!files.path("d/sub/again/sub/again").exists());
    assert_eq!(copy("d/a", "e/a").await.0, 400, "there already");
    rustix::fs::mkfifoat(rustix::fs::CWD, files.path("d/fifo"), rustix::fs::Mode::RWXU).expect("a FIFO");
    let (status, problem) = copy("d", "f").await;
    assert_eq!((status, &problem["code"]), (400, &"invalid".into()));
    let left: Vec<_> = std::fs::read_dir(files.path("")).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[tokio::test]
async fn no_path_leads_out_of_the_roots() {
    let roots = tempfile::tempdir().expect("a folder");
    let root = roots.path().join("root");
    std::fs::create_dir(&root).expect("a folder");
    std::fs::write(roots.path().join("secret"), "outside").expect("a file");
    symlink("..", root.join("up")).expect("a link");
    let files = Files::with(&Options::default().env("SANDBOXD_FS_ROOTS", &root.display().to_string()));
    let url = |route: &str, path: &str| files.server.url(&format!("/v1/fs/{route}?path={}/{path}", root.display()));
    json(files.server.http.put(url("file", "a/b")).body("x")).await;
    for path in ["up/secret", "../secret", "a/../../secret"] {
        for (method, route) in [
            (Method::GET, "file"),
            (Method::PUT, "file"),
            (Method::DELETE, "entry"),
            (Method::GET, "stat"),
            (Method::POST, "mkdir"),
        ] {
            let (status, problem) = told(files.server.http.request(method.clone(), url(route, path)).body("y")).await;
            assert_eq!((status, &problem["code"]), (403, &"outside".into()), "{method} {route} {path}: {problem}");
        }
    }
    let (status, _) = told(files.server.http.get(files.server.url("/v1/fs/entries"))).await;
    assert_eq!(status, 403, "the home is no root");
    let body = object!({"from": root.join("a/b"), "to": root.join("up/stolen")});
    assert_eq!(files.rename(&body).await.0, 403);
    assert_eq!(std::fs::read_to_string(roots.path().join("secret")).expect("a file"), "outside");
}

/// Somebody swaps a directory and a link that leads out, all the while.
#[tokio::test]
async fn roots_hold_while_links_are_swapped() {
    let roots = tempfile::tempdir().expect("a folder");
    let (root, outside) = (roots.path().join("root"), roots.path().join("outside"));
    for folder in [root.join("dir"), outside.clone()] {
        std::fs::create_dir_all(folder).expect("a folder");
    }
    std::fs::write(outside.join("canary"), "outside").expect("a file");
    symlink("../outside", root.join("link")).expect("a link");
    let files = Files::with(&Options::default().env("SANDBOXD_FS_ROOTS", &root.display().to_string()));
    let stop = Arc::new(AtomicBool::new(false));
    let swapper = std::thread::spawn({
        let (stop, root) = (Arc::clone(&stop), root.clone());
        move || {
            while !stop.load(Ordering::Relaxed) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                let swap =
                    rustix::fs::renameat_with(rustix::fs::CWD, root.join("dir"), rustix::fs::CWD, root.join("link"), flags);
                swap.expect("both are there");
            }
        }
    });
    let url = |route: &str, name: &str| files.server.url(&format!("/v1/fs/{route}?path={}/dir/{name}", root.display()));
    let mut written = 0;
    for round in 0..400 {
        let (status, body) = told(files.server.http.put(url("file", &format!("f{round}"))).body("inside")).await;
        assert!(matches!(status, 200 | 403), "{body}");
        written += usize::from(status == 200);
        let (status, body) = told(files.server.http.get(url("file", "canary"))).await;
        assert!(matches!(status, 400 | 403), "{status} {body}");
        let (status, body) = told(files.server.http.delete(url("entry", "canary"))).await;
        assert!(matches!(status, 400 | 403), "{status} {body}");
    }
    stop.store(true, Ordering::Relaxed);
    swapper.join().expect("the swapper ends");
    assert!(written > 0, "the directory was there half of the time");
    let left: Vec<_> = std::fs::read_dir(&outside).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["canary"]);
}

#[tokio::test]
async fn writes_to_one_file_come_one_after_another() {
    let files = Files::new();
    files.put("counter", "0").await;
    let add = async || {
        let mut refused = 0;
        loop {
            let read = files.get("counter").await;
            let tag = read.headers()["etag"].clone();
            let number: u64 = read.text().await.expect("a text").parse().expect("a number");
            let put = files.ask(Method::PUT, "file", "counter").header("if-match", tag).body((number + 1).to_string());
            match told(put).await {
                (200, _) => return refused,
                (412, _) => refused += 1,
                (status, body) => panic!("{status} {body}"),
            }
        }
    };
    let refused: u32 = futures_util::future::join_all((0..50).map(|_| add())).await.into_iter().sum();
    assert_eq!(files.text("counter").await, "50", "{refused} were refused");
}

#[tokio::test]
async fn a_full_disk_says_so_and_what_was_there_stays() {
    let files = Files::new();
    let small = files.path("small");
    std::fs::create_dir(&small).expect("a folder");
    let mount = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&small).status();
    assert!(mount.expect("mount runs").success(), "this test needs to mount a file system");
    files.put("small/f", "old").await;
    let (status, problem) = told(files.ask(Method::PUT, "file", "small/f").body(vec![b'x'; 4 << 20])).await;
    let left: Vec<Value> = serde_json::from_value(json(files.ask(Method::GET, "entries", "small")).await).expect("entries");
    let text = files.text("small/f").await;
    let unmount = std::process::Command::new("umount").arg(&small).status().expect("umount runs");
    assert!(unmount.success());
    assert_eq!((status, problem["type"].as_str()), (507, Some("urn:sandbox-agent:error:storage_unavailable")), "{problem}");
    assert_eq!((left.len(), text.as_str()), (1, "old"));
}
