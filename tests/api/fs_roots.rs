//! Roots of a session: calls on files in its name lead nowhere else.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::sessions_support::{create, get, request};
use crate::support::{Home, Options, Server};

/// A home with `in/f`, `out/secret`, and a link `in/up` to `out`.
fn home() -> Home {
    let home = Home::new();
    for (name, content) in [("in/f", "inside"), ("out/secret", "outside")] {
        let path = home.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        std::fs::write(path, content).expect("a file");
    }
    symlink("../out", home.path().join("in/up")).expect("a link");
    home
}

async fn fenced(server: &Server, home: &Home) -> String {
    create(server, json!({"agent": "mock", "cwd": home.path().join("in"), "roots": ["~/in"]})).await
}

/// Any call; gives its status and its answer.
async fn call(server: &Server, method: &str, route: &str, body: Option<&Value>) -> (u16, Value) {
    request(server, method, &format!("/v1/{route}"), body, None).await
}

#[tokio::test]
async fn what_is_done_in_its_name_stays_beneath_them() {
    let home = home();
    let server = Server::start(&home);
    let id = fenced(&server, &home).await;
    assert_eq!(get(&server, &id).await["roots"], json!([home.path().join("in")]));
    server.kill();
    let server = Server::start(&home);
    assert_eq!(get(&server, &id).await["roots"], json!([home.path().join("in")]), "also after a restart");

    let (status, file) = call(&server, "GET", &format!("fs/file?path=f&sessionId={id}"), None).await;
    assert_eq!((status, &file), (200, &json!("inside")));
    let out = home.path().join("out").display().to_string();
    for path in [format!("{out}/secret"), "up/secret".into(), format!("{}/in/../out/secret", home.path().display())] {
        let at = format!("path={path}&sessionId={id}");
        for (method, route) in [
            ("GET", "file"),
            ("PUT", "file"),
            ("DELETE", "file"),
            ("DELETE", "entry"),
            ("GET", "entries"),
            ("GET", "stat"),
            ("POST", "mkdir"),
            ("GET", "archive"),
            ("POST", "uploads"),
            ("GET", "wait"),
            ("GET", "state"),
        ] {
            let body = (method == "PUT").then(|| json!("x"));
            let (status, problem) = call(&server, method, &format!("fs/{route}?{at}"), body.as_ref()).await;
            assert_eq!((status, &problem["code"]), (403, &json!("outside")), "{method} {route} {path}: {problem}");
        }
    }
    for route in
        ["fs/glob?pattern=*&", "fs/grep?pattern=x&", "fs/entries?recursive=true&", "fs/edits?", "fs/conflicts?", "git/status?"]
    {
        let (status, problem) = call(&server, "GET", &format!("{route}path={out}&sessionId={id}"), None).await;
        assert_eq!((status, &problem["code"]), (403, &json!("outside")), "{route}: {problem}");
    }
    let watch =
        server.http.get(server.url(&format!("/v1/fs/watch?path={out}&sessionId={id}"))).header("accept", "text/event-stream");
    assert_eq!(watch.send().await.expect("an answer").status().as_u16(), 403);
    let (secret, stolen) = (format!("{out}/secret"), format!("{out}/new"));
    for (route, body) in [
        ("fs/move", json!({"from": secret, "to": "g"})),
        ("fs/move", json!({"from": "f", "to": stolen})),
        ("fs/copy", json!({"from": secret, "to": "g"})),
        ("fs/copy", json!({"from": "f", "to": "up/g"})),
        ("fs/search", json!({"pattern": "o", "paths": ["f", out]})),
        ("fs/replace", json!({"pattern": "o", "replacement": "0", "paths": [out], "dryRun": false})),
        ("fs/edit", json!({"path": secret, "old": "outside", "new": "x"})),
        ("fs/edit", json!({"path": secret, "old": "outside", "new": "x", "mode": "propose"})),
        ("git/worktrees", json!({"path": ".", "target": format!("{out}/tree")})),
    ] {
        let (status, problem) = call(&server, "POST", &format!("{route}?sessionId={id}"), Some(&body)).await;
        assert_eq!((status, &problem["code"]), (403, &json!("outside")), "{route} {body}: {problem}");
    }
    let (status, problem) = call(&server, "POST", "fs/leases", Some(&json!({"path": secret, "sessionId": id}))).await;
    assert_eq!((status, &problem["code"]), (403, &json!("outside")), "{problem}");
    let operations =
        json!([{"op": "read", "path": secret}, {"op": "write", "path": "up/x", "content": ""}, {"op": "read", "path": "f"}]);
    let (_, batch) = call(&server, "POST", &format!("fs/batch?sessionId={id}"), Some(&json!({"operations": operations}))).await;
    let statuses: Vec<_> = batch["results"].as_array().expect("results").iter().map(|result| result["status"].clone()).collect();
    assert_eq!(statuses, [403, 403, 200], "{batch}");
    let archive = server.http.post(server.url(&format!("/v1/fs/upload-batch?path={out}&sessionId={id}")));
    let archive = archive.header("content-type", "application/x-tar").body(vec![0; 1024]).send().await.expect("an answer");
    assert_eq!(archive.status().as_u16(), 403);
    assert_eq!(std::fs::read_to_string(&secret).expect("a file"), "outside");
    assert_eq!(std::fs::read_dir(&out).expect("a folder").count(), 1);
    assert_eq!(call(&server, "GET", &format!("fs/file?path={secret}"), None).await.0, 200, "others go where they went");
}

#[tokio::test]
async fn an_edit_elsewhere_is_none_of_its_business() {
    let home = home();
    let server = Server::start(&home);
    let id = fenced(&server, &home).await;
    let edit = |path: &str, old: &str| json!({"path": home.path().join(path), "old": old, "new": "new", "mode": "propose"});
    let (_, there) = call(&server, "POST", "fs/edit", Some(&edit("out/secret", "outside"))).await;
    let (_, here) = call(&server, "POST", "fs/edit", Some(&edit("in/f", "inside"))).await;
    let of = |edit: &Value, what: &str| format!("fs/edits/{}{what}?sessionId={id}", edit["editId"].as_str().expect("an id"));
    assert_eq!(call(&server, "GET", &of(&there, ""), None).await.0, 404);
    for (verb, status) in [("/reject", 404), ("/rollback", 404), ("/apply", 403)] {
        assert_eq!(call(&server, "POST", &of(&there, verb), Some(&json!({}))).await.0, status, "{verb}");
    }
    let (_, listed) = call(&server, "GET", &format!("fs/edits?sessionId={id}"), None).await;
    assert_eq!(listed["edits"], json!([]), "none is of this session");
    assert_eq!(call(&server, "POST", &of(&here, "/apply"), Some(&json!({}))).await.0, 200);
    assert_eq!(std::fs::read_to_string(home.path().join("out/secret")).expect("a file"), "outside");
}

#[tokio::test]
async fn roots_that_can_not_be_are_refused() {
    let home = home();
    let root = home.path().join("in");
    symlink(home.path().join("in"), home.path().join("alias")).expect("a link");
    let server = Server::start_with(&home, &Options::default().env("SANDBOXD_FS_ROOTS", &root.display().to_string()));
    let make = async |roots: Value| server.send("/v1/sessions", &json!({"agent": "mock", "cwd": root, "roots": roots})).await;
    for bad in ["~/none", "~/in/f", "~/out", "~/in/up", "~", "/", "~/alias"] {
        let (status, problem) = make(json!([bad])).await;
        assert_eq!((status, &problem["code"], &problem["path"]), (400, &json!("bad_root"), &json!(bad)), "{problem}");
    }
    assert_eq!(make(json!([])).await.0, 400, "none at all");
    assert_eq!(make(json!(vec!["~/in"; 17])).await.0, 400, "session_roots_max");
    let (_, sessions) = server.get("/v1/sessions").await;
    assert_eq!(sessions["sessions"], json!([]), "no session is left");

    std::fs::create_dir(root.join("deep")).expect("a folder");
    let id = create(&server, json!({"agent": "mock", "cwd": root, "roots": ["~/in/deep"]})).await;
    let read = async || call(&server, "GET", &format!("fs/file?path=f&sessionId={id}"), None).await;
    assert_eq!(read().await.1["code"], "outside", "narrower than the server's");
    let change = async |roots: Value| call(&server, "PATCH", &format!("sessions/{id}"), Some(&json!({"roots": roots}))).await;
    assert_eq!(change(json!(["~/out"])).await.1["code"], "bad_root");
    assert_eq!(change(json!([])).await.0, 400, "they don't go");
    assert_eq!(change(json!(["~/in"])).await.1["roots"], json!([root]));
    assert_eq!(read().await, (200, json!("inside")));
}

/// A root that went is no reason to go anywhere, nor is a link that took its place.
#[tokio::test]
async fn a_root_that_is_gone_is_told() {
    let home = home();
    let server = Server::start(&home);
    let id = fenced(&server, &home).await;
    let root = home.path().join("in");
    let read = async || call(&server, "GET", &format!("fs/file?path=f&sessionId={id}"), None).await;
    std::fs::rename(&root, home.path().join("away")).expect("renamed");
    std::fs::write(home.path().join("out/f"), "outside").expect("a file");
    let (status, problem) = read().await;
    assert_eq!((status, &problem["code"], &problem["path"]), (409, &json!("root_gone"), &json!(root)), "{problem}");
    symlink("out", &root).expect("a link");
    assert_eq!(read().await.1["code"], "root_gone");
    assert_eq!(call(&server, "GET", &format!("fs/edits?sessionId={id}"), None).await.0, 409);
    assert_eq!(call(&server, "GET", "fs/file?path=in/f", None).await.1, "outside", "others aren't kept");
    std::fs::remove_file(&root).expect("removed");
    std::fs::rename(home.path().join("away"), &root).expect("renamed");
    assert_eq!(read().await, (200, json!("inside")));
}

/// A root that is named by way of a link is the directory that the link led to.
#[tokio::test]
async fn a_root_stays_where_its_link_led() {
    let home = home();
    symlink("in", home.path().join("alias")).expect("a link");
    let server = Server::start(&home);
    let id = create(&server, json!({"agent": "mock", "cwd": home.path().join("alias"), "roots": ["~/alias"]})).await;
    let read = async |path: &str| call(&server, "GET", &format!("fs/file?path={path}&sessionId={id}"), None).await;
    let (alias, real) = (home.path().join("alias/f"), home.path().join("in/f"));
    for path in ["f", &alias.display().to_string(), &real.display().to_string()] {
        assert_eq!(read(path).await, (200, json!("inside")), "{path}");
    }
    std::fs::remove_file(home.path().join("alias")).expect("removed");
    symlink("out", home.path().join("alias")).expect("a link");
    std::fs::write(home.path().join("out/f"), "outside").expect("a file");
    assert_eq!(read("f").await, (200, json!("inside")));
}

#[tokio::test]
async fn an_upload_keeps_the_roots_that_it_was_begun_with() {
    let home = home();
    let server = Server::start(&home);
    let id = fenced(&server, &home).await;
    let (status, upload) = call(&server, "POST", &format!("fs/uploads?path=d/g&sessionId={id}"), None).await;
    assert_eq!(status, 201, "{upload}");
    let upload = format!("fs/uploads/{}", upload["id"].as_str().expect("an id"));
    let append = async |server: &Server, offset: u64, piece: &'static str| {
        let request = server.http.patch(server.url(&format!("/v1/{upload}"))).header("upload-offset", offset).body(piece);
        let response = request.send().await.expect("an answer");
        (response.status().as_u16(), response.json::<Value>().await.expect("JSON"))
    };
    assert_eq!(append(&server, 0, "01").await.0, 200);
    server.kill();
    let server = Server::start(&home);
    assert_eq!(call(&server, "DELETE", &format!("sessions/{id}"), None).await.0, 204, "also when the session is gone");
    // Its directory goes elsewhere, and a link leads there.
    std::fs::rename(home.path().join("in/d"), home.path().join("out/d")).expect("renamed");
    symlink("../out/d", home.path().join("in/d")).expect("a link");
    assert_eq!(append(&server, 2, "23").await.1["code"], "outside");
    for (method, what) in [("POST", "/complete"), ("GET", ""), ("DELETE", "")] {
        let (status, problem) = call(&server, method, &format!("{upload}{what}"), None).await;
        assert_eq!((status, &problem["code"]), (403, &json!("outside")), "{method}: {problem}");
    }
    std::fs::remove_file(home.path().join("in/d")).expect("removed");
    std::fs::rename(home.path().join("out/d"), home.path().join("in/d")).expect("renamed");
    assert_eq!(append(&server, 2, "23").await.0, 200);
    assert_eq!(call(&server, "POST", &format!("{upload}/complete"), None).await.0, 200);
    assert_eq!(std::fs::read_to_string(home.path().join("in/d/g")).expect("a file"), "0123");
}

#[tokio::test]
async fn a_copy_of_a_session_has_its_roots() {
    let home = home();
    let server = Server::start(&home);
    let id = fenced(&server, &home).await;
    let export = server.http.get(server.url(&format!("/v1/sessions/{id}/export"))).send().await.expect("an answer");
    let export = export.text().await.expect("a body");
    let copy = server.http.post(server.url("/v1/sessions/import")).body(export).send().await.expect("an answer");
    let copy: Value = copy.json().await.expect("JSON");
    assert_eq!(copy["roots"], json!([home.path().join("in")]));
    let of_copy = format!("fs/file?path=up/secret&sessionId={}", copy["id"].as_str().expect("an id"));
    assert_eq!(call(&server, "GET", &of_copy, None).await.1["code"], "outside");
}

/// Swaps two names until it is told to stop.
fn swap(one: PathBuf, other: PathBuf, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            let (flags, here) = (rustix::fs::RenameFlags::EXCHANGE, rustix::fs::CWD);
            rustix::fs::renameat_with(here, &one, here, &other, flags).expect("both are there");
        }
    })
}

/// The same race as for the server's roots: within a root, and about the root itself.
#[tokio::test]
async fn they_hold_while_links_are_swapped() {
    let home = home();
    let server = Server::start(&home);
    let at = |name: &str| home.path().join(name);
    for (folder, link, outside) in [("in/dir", "in/link", "../out"), ("root", "other", "out")] {
        std::fs::create_dir(at(folder)).expect("a folder");
        symlink(outside, at(link)).expect("a link");
    }
    let within = fenced(&server, &home).await;
    let whole = create(&server, json!({"agent": "mock", "roots": ["~/root"]})).await;
    let stop = Arc::new(AtomicBool::new(false));
    let swappers = [swap(at("in/dir"), at("in/link"), &stop), swap(at("root"), at("other"), &stop)];
    let mut written = [0, 0];
    for round in 0..300 {
        for (number, (id, folder)) in [(&within, "in/dir"), (&whole, "root")].into_iter().enumerate() {
            let url = |route: &str, name: &str| {
                server.url(&format!("/v1/fs/{route}?path={}/{name}&sessionId={id}", at(folder).display()))
            };
            let answers = [
                server.http.put(url("file", &format!("f{round}"))).body("inside"),
                server.http.get(url("file", "secret")),
                server.http.delete(url("entry", "secret")),
            ];
            for (asked, answer) in answers.into_iter().enumerate() {
                let status = answer.send().await.expect("an answer").status().as_u16();
                assert!(matches!((asked, status), (0, 200) | (_, 403 | 409) | (1 | 2, 400)), "{folder}: {asked} {status}");
                written[number] += usize::from(status == 200);
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    swappers.into_iter().for_each(|swapper| swapper.join().expect("the swapper ends"));
    assert!(written.iter().all(|written| *written > 0), "{written:?}: now and then the directory is there");
    assert_eq!(std::fs::read_to_string(at("out/secret")).expect("a file"), "outside");
    assert_eq!(names(&at("out")), ["secret"]);
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("a folder").flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
