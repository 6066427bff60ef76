//! Moves and removals that break off, and clients that leave meanwhile: nothing is lost, and the history says what was done.

use std::path::{Path, PathBuf};
use std::process::Command;

use reqwest::Method;
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use serde_json::json as object;

use crate::fs_support::{Files, json, told};
use crate::support::{Options, kill};

/// A file system, or a file, over another one until the test ends.
struct Mount(PathBuf);

impl Mount {
    fn tmpfs(at: &Path) -> Self {
        Self::with(&["-t", "tmpfs", "tmpfs"], at)
    }

    fn with(words: &[&str], at: &Path) -> Self {
        let mounted = Command::new("mount").args(words).arg(at).status().expect("mount runs");
        assert!(mounted.success(), "this test needs to mount a file system");
        Self(at.to_path_buf())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status(); // somebody may still look at it
    }
}

fn names(directory: &Path) -> Vec<String> {
    let names = std::fs::read_dir(directory).expect("a folder").flatten().map(|entry| entry.file_name());
    names.map(|name| name.to_string_lossy().into_owned()).collect()
}

#[tokio::test]
async fn what_moves_to_another_file_system_goes_only_when_its_copy_has_the_place() {
    let files = Files::new();
    for folder in ["other", "d"] {
        std::fs::create_dir(files.path(folder)).expect("a folder");
    }
    files.put("f", "precious").await;
    files.put("d/inner", "precious").await;
    let _other = Mount::tmpfs(&files.path("other"));
    std::fs::write(files.path("other/f"), "old").expect("a file");
    std::fs::create_dir(files.path("other/d")).expect("a folder");
    // Nothing can take the place of what something is mounted on.
    let (_file, _folder) = (
        Mount::with(&["--bind", &files.path("f").display().to_string()], &files.path("other/f")),
        Mount::tmpfs(&files.path("other/d")),
    );
    for (from, to) in [("d", "other/d"), ("f", "other/f")] {
        files.put("f", "precious").await;
        let (status, problem) = files.rename(&object!({"from": files.path(from), "to": files.path(to), "overwrite": true})).await;
        assert_eq!((status, &problem["errno"]), (502, &16.into()), "{problem}");
    }
    assert_eq!((files.text("f").await, files.text("d/inner").await), ("precious".to_owned(), "precious".to_owned()));
    let mut left = names(&files.path("other"));
    left.sort();
    assert_eq!(left, ["d", "f"], "nothing of the copy is left");
}

#[tokio::test]
async fn a_move_to_another_file_system_replaces_what_is_there() {
    let files = Files::new();
    std::fs::create_dir(files.path("other")).expect("a folder");
    let _other = Mount::tmpfs(&files.path("other"));
    files.put("d/inner", "new").await;
    files.put("other/d/old", "old").await;
    let moved = files.rename(&object!({"from": files.path("d"), "to": files.path("other/d"), "overwrite": true})).await;
    assert_eq!(moved.0, 200, "{}", moved.1);
    assert_eq!((names(&files.path("other/d")), files.path("d").exists()), (vec!["inner".to_owned()], false));
    assert_eq!(names(&files.path("other")), ["d"]);
}

#[tokio::test]
async fn a_removal_that_breaks_off_is_in_the_history() {
    let files = Files::new();
    files.put("d/a", "precious").await;
    files.put("d/b", "precious").await;
    std::fs::create_dir_all(files.path("d/sub/mounted")).expect("folders");
    let mount = Mount::tmpfs(&files.path("d/sub/mounted"));
    let (status, problem) = told(files.ask_with(Method::DELETE, "entry", "d", &[("recursive", "true")])).await;
    assert_eq!((status, &problem["errno"]), (502, &16.into()), "{problem}");
    let gone = ["a", "b"].iter().filter(|name| !files.path(&format!("d/{name}")).exists()).count();
    let edits = json(files.ask(Method::GET, "edits", "d")).await;
    let removed = edits["edits"].as_array().expect("edits").iter().filter(|edit| edit["op"] == "delete").count();
    assert_eq!(removed, usize::from(gone > 0), "{edits}");
    drop(mount);
}

#[tokio::test]
async fn what_was_removed_in_part_comes_back() {
    let files = Files::new();
    // As many files that one of them goes before the mounted one is met, whatever order the file system has.
    for at in 0..50 {
        files.put(&format!("d/f{at}"), "precious").await;
    }
    for at in 0..3 {
        std::fs::create_dir(files.path(&format!("d/m{at}"))).expect("a folder");
    }
    let mounts: Vec<_> = (0..3).map(|at| Mount::tmpfs(&files.path(&format!("d/m{at}")))).collect();
    assert_eq!(told(files.ask_with(Method::DELETE, "entry", "d", &[("recursive", "true")])).await.0, 502);
    drop(mounts);
    let edit = json(files.ask_with(Method::GET, "edits", "d", &[("limit", "1")])).await["edits"][0].clone();
    assert_eq!((&edit["op"], &edit["restorable"]), (&"delete".into(), &true.into()), "{edit}");
    let id = edit["id"].as_str().expect("an id");
    json(files.request(Method::POST, &format!("edits/{id}/rollback"), &[])).await;
    assert_eq!(names(&files.path("d")).len(), 53);
    assert_eq!(files.text("d/f7").await, "precious");
}

/// Many levels more than the server may have descriptors.
const DEPTH: usize = 1000;

#[tokio::test]
async fn a_tree_may_be_deeper_than_descriptors_last() {
    let files = Files::with(&Options::default().under(&["prlimit", "--nofile=256"]));
    std::fs::create_dir(files.path("deep")).expect("a folder");
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let mut here = openat(CWD, files.path("deep"), flags, Mode::empty()).expect("a folder");
    for _ in 0..DEPTH {
        mkdirat(&here, "d", Mode::RWXU).expect("a folder");
        here = openat(&here, "d", flags, Mode::empty()).expect("a folder");
    }
    let flags = OFlags::CREATE | OFlags::WRONLY;
    openat(&here, "f", flags, Mode::RUSR | Mode::WUSR).expect("a file");
    let copy = object!({"from": files.path("deep"), "to": files.path("copy")});
    json(files.server.http.post(files.server.url("/v1/fs/copy")).json(&copy)).await;
    let end = files.path("copy").join("d/".repeat(DEPTH)).join("f");
    assert!(end.is_file());
    for name in ["deep", "copy"] {
        json(files.ask_with(Method::DELETE, "entry", name, &[("recursive", "true")])).await;
        assert!(!files.path(name).exists());
    }
}

/// A tar archive of so many files.
fn archive(files: usize) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for at in 0..files {
        let mut header = tar::Header::new_gnu();
        header.set_size(4);
        header.set_mode(0o644);
        builder.append_data(&mut header, format!("f{at}"), &b"text"[..]).expect("an entry");
    }
    builder.into_inner().expect("an archive")
}

/// Files that came of an archive whose client left are in the history as one edit.
#[tokio::test]
async fn what_was_unpacked_before_the_client_left_is_in_the_history() {
    use tokio::io::AsyncWriteExt as _;
    let files = Files::new();
    let whole = archive(20);
    let address = files.server.url("").trim_start_matches("http://").trim_end_matches('/').to_owned();
    let mut connection = tokio::net::TcpStream::connect(&address).await.expect("a connection");
    let head = format!(
        "POST /v1/fs/upload-batch?path=work/in HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/x-tar\r\ncontent-length: {}\r\n\r\n",
        whole.len()
    );
    connection.write_all(head.as_bytes()).await.expect("a head");
    connection.write_all(&whole[..whole.len() / 2]).await.expect("half of the body");
    while !files.path("in/f3").exists() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    drop(connection);
    let extracted = loop {
        let edits = json(files.ask(Method::GET, "edits", "in")).await;
        match edits["edits"].as_array().expect("edits").iter().find(|edit| edit["op"] == "extract") {
            Some(edit) => break edit.clone(),
            None => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    };
    assert_eq!(extracted["summary"]["entries"], names(&files.path("in")).len(), "{extracted}");
}

/// So many clients at once that every thread the server may have for files waits for the history.
#[tokio::test]
async fn very_many_writers_dont_stop_the_server() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let files = Files::new();
    let address = files.server.url("").trim_start_matches("http://").trim_end_matches('/').to_owned();
    let write = async |client: usize| {
        let mut connection = tokio::net::TcpStream::connect(&address).await.expect("a connection");
        let mut answer = Vec::new();
        let request = format!(
            "PUT /v1/fs/file?path=work/f{client} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: 4\r\n\r\ntext"
        );
        connection.write_all(request.as_bytes()).await.expect("a request");
        connection.read_to_end(&mut answer).await.expect("an answer");
        answer.starts_with(b"HTTP/1.1 200")
    };
    let written = futures_util::future::join_all((0..1000).map(write)).await;
    assert!(written.into_iter().all(|written| written));
    assert_eq!(names(&files.path("")).len(), 1000);
}

#[tokio::test]
async fn a_file_that_cannot_be_replaced_keeps_its_content_when_there_is_no_room() {
    let files = Files::new();
    std::fs::create_dir(files.path("small")).expect("a folder");
    let _small = Mount::with(&["-t", "tmpfs", "-o", "size=1m", "tmpfs"], &files.path("small"));
    std::fs::write(files.path("small/real"), "old").expect("a file");
    std::fs::write(files.path("f"), "").expect("a file");
    let _file = Mount::with(&["--bind", &files.path("small/real").display().to_string()], &files.path("f"));
    let (status, problem) = told(files.ask(Method::PUT, "file", "f").body(vec![b'x'; 4 << 20])).await;
    assert_eq!((status, files.text("f").await.as_str()), (507, "old"), "{problem}");
    files.put("f", "something longer").await;
    files.put("f", "new").await;
    assert_eq!(std::fs::read_to_string(files.path("small/real")).expect("a file"), "new", "it is written in place");
    let left: Vec<_> = names(&files.path("")).into_iter().filter(|name| name.starts_with(".sandboxd-tmp")).collect();
    assert_eq!(left, Vec::<String>::new());
}

#[tokio::test]
async fn what_is_under_way_has_no_name_and_a_kill_leaves_nothing() {
    let files = Files::new();
    std::fs::create_dir(files.path("d")).expect("a folder");
    let _d = Mount::tmpfs(&files.path("d"));
    let (sender, pieces) = tokio::sync::mpsc::channel::<Result<Vec<u8>, std::io::Error>>(1);
    let body = futures_util::stream::unfold(pieces, |mut pieces| async { Some((pieces.recv().await?, pieces)) });
    let put = files.ask(Method::PUT, "file", "d/f").body(reqwest::Body::wrap_stream(body)).send();
    let put = tokio::spawn(put);
    let used = || rustix::fs::statvfs(files.path("d")).map(|fs| fs.f_blocks - fs.f_bfree).expect("a file system");
    let before = used();
    for _ in 0..8 {
        sender.send(Ok(vec![b'x'; 1 << 20])).await.expect("it is read");
    }
    while used() < before + 512 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await; // nothing of it is on the disk yet
    }
    assert_eq!(names(&files.path("d")), Vec::<String>::new(), "it is being written");
    kill(files.server.pid(), "KILL");
    assert!(put.await.expect("no panic").is_err());
    assert_eq!(names(&files.path("d")), Vec::<String>::new());
}
