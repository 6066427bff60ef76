//! Archives up and down, with the tools that people use: tar, unzip, Python's zipfile.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use proptest::prelude::*;
use serde_json::Value;

use crate::support::{Home, Server};

/// Runs a tool and gives what it wrote.
fn run(program: &str, args: &[&str], cwd: &Path, input: &[u8]) -> Vec<u8> {
    let mut command = Command::new(program);
    command.args(args).current_dir(cwd).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    let feed = std::thread::spawn(move || drop(stdin.write_all(&input))); // it may not read to the end
    let output = child.wait_with_output().expect("an end");
    feed.join().expect("fed");
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

async fn up(server: &Server, query: &str, media: &str, archive: Vec<u8>) -> (u16, Value) {
    let request = server.http.post(server.url(&format!("/v1/fs/upload-batch?{query}"))).header("content-type", media);
    let response = request.body(archive).send().await.expect("an answer");
    (response.status().as_u16(), response.json().await.expect("JSON"))
}

async fn down(server: &Server, path: &Path, format: &str) -> Vec<u8> {
    let url = server.url("/v1/fs/archive");
    let query = [("path", path.to_str().expect("text")), ("format", format)];
    let url = reqwest::Url::parse_with_params(&url, query).expect("a URL");
    let response = server.http.get(url).send().await.expect("an answer");
    assert_eq!(response.status(), 200);
    response.bytes().await.expect("whole").to_vec()
}

/// What is beneath a directory: kind, mode, time, content or target.
fn tree(top: &Path) -> BTreeMap<PathBuf, String> {
    let (mut found, mut left) = (BTreeMap::new(), vec![top.to_path_buf()]);
    while let Some(path) = left.pop() {
        let meta = path.symlink_metadata().expect("there");
        let what = if meta.is_symlink() {
            path.read_link().expect("a link").display().to_string()
        } else if meta.is_dir() {
            left.extend(std::fs::read_dir(&path).expect("a folder").flatten().map(|entry| entry.path()));
            "directory".to_owned()
        } else {
            format!("{:?}", std::fs::read(&path).expect("a file"))
        };
        let below = path.strip_prefix(top).expect("beneath").to_path_buf();
        if !below.as_os_str().is_empty() {
            found.insert(below, format!("{:o} {}.{} {what}", meta.mode(), meta.mtime(), meta.mtime_nsec()));
        }
    }
    found
}

/// A tree with what is hard about trees.
fn odd_tree(top: &Path) {
    std::fs::create_dir_all(top.join("d/e")).expect("folders");
    std::fs::write(top.join("d/e/file"), "content").expect("a file");
    std::fs::set_permissions(top.join("d/e/file"), PermissionsExt::from_mode(0o751)).expect("a mode");
    std::fs::write(top.join("empty"), "").expect("a file");
    std::fs::write(top.join("large"), vec![b'x'; 700_001]).expect("a file");
    std::fs::write(top.join("l".repeat(230)), "long").expect("a file");
    std::fs::create_dir_all(top.join("p".repeat(90)).join("q".repeat(90))).expect("folders");
    std::fs::write(top.join("p".repeat(90)).join("q".repeat(90)).join("ä b\n"), "odd").expect("a file");
    std::fs::write(top.join(std::ffi::OsStr::from_bytes(b"raw\xff")), "raw").expect("a file");
    symlink("d/e/file", top.join("link")).expect("a link");
    symlink("t".repeat(150), top.join("dangling")).expect("a link");
    std::fs::set_permissions(top.join("d/e"), PermissionsExt::from_mode(0o500)).expect("a mode");
}

#[tokio::test]
async fn trees_come_through_up_and_down_as_tar_makes_and_reads_them() {
    let home = Home::new();
    let server = Server::start(&home);
    let made = home.path().join("made");
    odd_tree(&made);
    for (at, (flags, media)) in [
        (&["-cf-", "--format=gnu"][..], "application/x-tar"),
        (&["-cf-", "--format=pax"][..], "Application/X-TAR; a=b"),
        (&["-czf-"][..], "application/gzip"),
        (&["-cf-", "--zstd"][..], "application/zstd"),
    ]
    .into_iter()
    .enumerate()
    {
        // A name with a newline in a PAX record isn't read, which is told; GNU format carries it.
        let is_pax = flags.contains(&"--format=pax");
        let excludes: &[&str] = if is_pax { &["--exclude=*odd*", "--exclude=ä b*"] } else { &[] };
        let archive = run("tar", &[flags, excludes, &["."]].concat(), &made, b"");
        let (status, said) = up(&server, &format!("path=up{at}"), media, archive).await;
        assert_eq!(status, 200, "{said}");
        let (mut expected, mut found) = (tree(&made), tree(&home.path().join(format!("up{at}"))));
        if is_pax {
            expected.retain(|path, _| !path.ends_with("ä b\n"));
        } else {
            // GNU format has whole seconds.
            for found in [&mut expected, &mut found] {
                found.values_mut().for_each(|what| *what = without_fraction(what));
            }
        }
        assert_eq!(found, expected, "{flags:?}");
        assert_eq!(said["entries"], expected.len(), "{said}");
    }
    for format in ["tar", "tar.gz", "tar.zst"] {
        let archive = down(&server, &made, format).await;
        let into = home.path().join(format!("down-{format}"));
        std::fs::create_dir(&into).expect("a folder");
        let flag = match format {
            "tar.gz" => "-xzpf-",
            "tar.zst" => "--zstd",
            _ => "-xpf-",
        };
        run("tar", if flag == "--zstd" { &["--zstd", "-xpf-"] } else { std::slice::from_ref(&flag) }, &into, &archive);
        assert_eq!(tree(&into), tree(&made), "{format}");
        let (status, said) = up(&server, &format!("path=again-{format}"), "application/x-tar", archive).await;
        assert_eq!(status, 200, "{said}");
        assert_eq!(tree(&home.path().join(format!("again-{format}"))), tree(&made));
    }
}

fn without_fraction(what: &str) -> String {
    let (head, rest) = what.split_once('.').expect("a time");
    format!("{head} {}", rest.split_once(' ').expect("a content").1)
}

#[tokio::test]
async fn zips_are_read_by_unzip_and_python() {
    let home = Home::new();
    let server = Server::start(&home);
    let made = home.path().join("made");
    odd_tree(&made);
    let archive = home.path().join("a.zip");
    std::fs::write(&archive, down(&server, &made, "zip").await).expect("a file");
    run("unzip", &["-tqq", "a.zip"], home.path(), b"");
    let script = "import zipfile,sys; z=zipfile.ZipFile('a.zip'); assert z.testzip() is None; \
                  i=z.getinfo('d/e/file'); print(oct(i.external_attr>>16), z.read('d/e/file').decode(), len(z.namelist()), \
                  z.read('p'*90+'/'+'q'*90+'/ä b\\n').decode(), z.read('link').decode(), oct(z.getinfo('link').external_attr>>16))";
    let said = String::from_utf8(run("python3", &["-c", script], home.path(), b"")).expect("text");
    let count = tree(&made).len();
    assert_eq!(said.trim(), format!("0o100751 content {count} odd d/e/file 0o120777"));
    std::fs::create_dir(home.path().join("into")).expect("a folder");
    run("unzip", &["-qq", "../a.zip", "-x", "raw*"], &home.path().join("into"), b"");
    assert_eq!(std::fs::read_link(home.path().join("into/link")).expect("a link"), Path::new("d/e/file"));
    assert_eq!(std::fs::metadata(home.path().join("into/d/e/file")).expect("there").mode() & 0o777, 0o751);
}

#[tokio::test]
async fn an_upload_answers_as_the_contract_says() {
    let home = Home::new();
    let server = Server::start(&home);
    let made = home.path().join("made");
    std::fs::create_dir(&made).expect("a folder");
    for at in 0..1500 {
        std::fs::write(made.join(format!("{at:04}")), "x").expect("a file");
    }
    let archive = run("sh", &["-c", "tar -cf- *"], &made, b"");
    let (status, said) = up(&server, "path=into/new", "application/x-tar", archive.clone()).await;
    assert_eq!(status, 200, "{said}");
    assert_eq!(said["paths"].as_array().map(Vec::len), Some(1024));
    assert_eq!(said["paths"][0], home.path().join("into/new/0000").to_str().expect("text"));
    assert_eq!((&said["truncated"], &said["entries"], &said["bytes"]), (&true.into(), &1500.into(), &1500.into()));

    let (status, said) = up(&server, "path=x", "application/octet-stream", archive.clone()).await;
    assert_eq!(status, 400);
    assert!(said["detail"].as_str().expect("text").contains("content-type must be application/x-tar"));
    let (status, said) = up(&server, "", "application/x-tar", Vec::new()).await;
    assert_eq!((status, &said["paths"], &said["truncated"]), (200, &serde_json::json!([]), &false.into()));
    let (status, _) = up(&server, "path=../r", "application/x-tar", archive.clone()).await;
    assert_eq!(status, 400);
    let (status, said) = up(&server, "path=made/0000", "application/x-tar", archive.clone()).await;
    assert_eq!((status, said["code"].as_str()), (400, Some("not_a_directory")), "{said}");

    // A bad entry says its name and what came before it; the body is read to its end.
    let bad = run("tar", &["-cf-", "--transform=s,^0003,../evil,", "-P", "0000", "0001", "0003", "0004"], &made, b"");
    let large = [bad, vec![0; 4 << 20]].concat();
    let (status, said) = up(&server, "path=bad", "application/x-tar", large.clone()).await;
    assert_eq!(status, 400, "{said}");
    assert_eq!(said["detail"], "invalid request: invalid relative path: ../evil");
    assert_eq!((&said["entry"], &said["entries"]), (&"../evil".into(), &2.into()));
    assert_eq!(tree(&home.path().join("bad")).len(), 2);
    let (status, said) = up(&server, "path=skips&ifRefused=skip", "application/x-tar", large.clone()).await;
    assert_eq!(
        (status, &said["entries"], &said["skippedCount"], &said["skipped"][0]["name"]),
        (200, &3.into(), &1.into(), &"../evil".into())
    );
    let (status, _) = up(&server, "path=whole&atomic=true", "application/x-tar", large).await;
    assert_eq!(status, 400);
    assert!(!home.path().join("whole").exists());
    let (status, said) = up(&server, "path=into/new&atomic=true", "application/x-tar", archive.clone()).await;
    assert_eq!((status, said["code"].as_str()), (400, Some("destination_exists")), "{said}");
    let (status, said) = up(&server, "path=into/new&atomic=true&overwrite=true", "application/x-tar", archive).await;
    assert_eq!(status, 200, "{said}");
}

#[tokio::test]
async fn what_is_left_out_of_an_archive_is_told_in_it() {
    let home = Home::new();
    let server = Server::start(&home);
    let made = home.path().join("made");
    std::fs::create_dir(&made).expect("a folder");
    std::fs::write(made.join("file"), "x").expect("a file");
    std::fs::write(made.join(".sandboxd-tmp_w"), "x").expect("a file");
    let _socket = std::os::unix::net::UnixListener::bind(made.join("socket")).expect("a socket");
    run("mkfifo", &["fifo"], &made, b"");
    let archive = down(&server, &made, "tar").await;
    let mut names: Vec<_> =
        String::from_utf8(run("tar", &["-tf-"], &made, &archive)).expect("text").lines().map(String::from).collect();
    names.sort();
    assert_eq!(names, [".sandboxd-left-out.json", "file"]);
    let report: Value =
        serde_json::from_slice(&run("tar", &["-xOf-", ".sandboxd-left-out.json"], &made, &archive)).expect("JSON");
    assert_eq!(report["count"], 2, "{report}");

    let response = server.http.get(server.url("/v1/fs/archive?path=made/file")).send().await.expect("an answer");
    assert_eq!(response.headers()["content-disposition"], "attachment; filename=\"file.tar\"; filename*=UTF-8''file.tar");
    assert_eq!(run("tar", &["-xOf-"], &made, &response.bytes().await.expect("whole")), b"x");
    assert_eq!(server.get("/v1/fs/archive?path=none").await.0, 400);
    assert_eq!(server.get("/v1/fs/archive?path=made/fifo").await.0, 400);
    assert_eq!(server.get("/v1/fs/archive?path=made&format=rar").await.0, 400);
}

#[tokio::test]
async fn files_that_change_meanwhile_dont_break_the_archive() {
    let home = Home::new();
    let server = Server::start(&home);
    let made = home.path().join("made");
    std::fs::create_dir(&made).expect("a folder");
    // More than sockets and channels hold: the server waits within the first file.
    std::fs::write(made.join("shrinks"), vec![b'x'; 64 << 20]).expect("a file");
    let mut response = server.http.get(server.url("/v1/fs/archive?path=made")).send().await.expect("an answer");
    let mut archive = response.chunk().await.expect("a piece").expect("a piece").to_vec();
    std::fs::File::options().write(true).open(made.join("shrinks")).expect("a file").set_len(1).expect("shorter");
    while let Some(piece) = response.chunk().await.expect("a piece") {
        archive.extend_from_slice(&piece);
    }
    assert_eq!(run("tar", &["-xOf-", "shrinks"], &made, &archive).len(), 64 << 20);
    let report = String::from_utf8(run("tar", &["-xOf-", ".sandboxd-left-out.json"], &made, &archive)).expect("text");
    assert!(report.contains("became shorter"), "{report}");
}

/// Files beyond 8 GiB take another form of size; holes make them cheap here.
#[tokio::test]
async fn large_sizes_are_written_so_that_tar_reads_them() {
    let home = Home::new();
    let server = Server::start(&home);
    let made = home.path().join("made");
    std::fs::create_dir(&made).expect("a folder");
    let size = (8_u64 << 30) + 5;
    std::fs::File::create(made.join("huge")).expect("a file").set_len(size).expect("a hole");
    let mut response = server.http.get(server.url("/v1/fs/archive?path=made")).send().await.expect("an answer");
    let first = response.chunk().await.expect("a piece").expect("a piece");
    drop(response); // a reader that leaves ends it
    let script = format!(
        "import tarfile,sys,io; t=tarfile.TarFile(fileobj=io.BytesIO(sys.stdin.buffer.read())); assert t.next().size == {size}"
    );
    run("python3", &["-c", &script], &made, &first);

    // The same upwards, as a sparse file: what isn't there isn't sent.
    let size = 200 << 20;
    std::fs::File::create(made.join("huge")).expect("a file").set_len(size).expect("a hole");
    let archive = run("tar", &["-cf-", "--sparse", "huge"], &made, b"");
    assert!(archive.len() < 1 << 20);
    let (status, said) = up(&server, "path=into", "application/x-tar", archive).await;
    assert_eq!(status, 200, "{said}");
    let meta = std::fs::metadata(home.path().join("into/huge")).expect("there");
    assert_eq!(meta.len(), size);
    assert!(meta.blocks() < 1000, "the hole is still one");
}

#[derive(Debug, Clone)]
enum Node {
    File(Vec<u8>, u32),
    Directory(BTreeMap<String, Node>),
    Link(String),
}

fn node() -> impl Strategy<Value = Node> {
    let leaf = prop_oneof![
        (prop::collection::vec(any::<u8>(), 0..2000), 0o400_u32..0o1000)
            .prop_map(|(content, mode)| Node::File(content, mode | 0o400)),
        "[a-z]{1,120}".prop_map(Node::Link),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop::collection::btree_map("[a-zA-Zäß .%+-]{0,8}[a-z]{1,110}", inner, 0..6).prop_map(Node::Directory)
    })
}

fn make(at: &Path, node: &Node) {
    match node {
        Node::File(content, mode) => {
            std::fs::write(at, content).expect("a file");
            std::fs::set_permissions(at, PermissionsExt::from_mode(*mode)).expect("a mode");
        }
        Node::Directory(nodes) => {
            std::fs::create_dir(at).expect("a folder");
            nodes.iter().for_each(|(name, node)| make(&at.join(name), node));
        }
        Node::Link(target) => symlink(target, at).expect("a link"),
    }
}

#[test]
fn random_trees_come_back_as_they_were() {
    let home = Home::new();
    let server = Server::start(&home);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let numbers = std::cell::Cell::new(0);
    let mut runner =
        proptest::test_runner::TestRunner::new(ProptestConfig { cases: 40, failure_persistence: None, ..Default::default() });
    let tested = runner.run(&prop::collection::btree_map("[a-z]{1,8}", node(), 0..6).prop_map(Node::Directory), |top| {
        let number = numbers.get() + 1;
        numbers.set(number);
        let made = home.path().join(format!("made{number}"));
        make(&made, &top);
        let archive = runtime.block_on(down(&server, &made, "tar.zst"));
        let (status, said) =
            runtime.block_on(up(&server, &format!("path=back{number}&atomic={}", number % 2 == 0), "application/zstd", archive));
        prop_assert_eq!(status, 200, "{}", said);
        prop_assert_eq!(tree(&home.path().join(format!("back{number}"))), tree(&made));
        Ok(())
    });
    tested.expect("all come back");
}
