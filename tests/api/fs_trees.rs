//! Trees over HTTP: listed, searched for names and contents, replaced in.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Events, Home, Options, Server};

/// A tree with all that searches may stumble over.
fn tree(home: &Home) {
    let write = |path: &str, content: &[u8]| {
        let path = home.path().join("tree").join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        std::fs::write(path, content).expect("a file");
    };
    write(".gitignore", b"*.log\ntarget/\n");
    write("src/main.rs", b"fn main() {\n    let needle = 1;\n    println!(\"{needle}\");\n}\n");
    write("src/lib.rs", b"// Needle\r\npub fn needles() {}\r\n// the end: needle\r\n");
    write("src/deep/er/x.rs", b"no such thing\n");
    write("docs/a.md", "ein néédle, needle needle\n".as_bytes());
    write("docs/last.md", b"without an end of line: needle");
    write("target/out.rs", b"needle in what is built\n");
    write("app.log", b"needle in a log\n");
    write(".hidden/h.rs", b"hidden needle\n");
    write("data.bin", b"needle\0needle\n");
    write("odd.txt", b"\xff\xfe broken \xc3 needle\n".as_slice().split_at(2).1);
    write("empty", b"");
    for at in 0..200 {
        let line = if at % 7 == 0 { "a needle here" } else { "hay" };
        write(&format!("many/{}/f{at}.txt", at % 5), format!("hay\n{line}\nhay {at}\n").as_bytes());
    }
    std::os::unix::fs::symlink("/etc", home.path().join("tree/etc")).expect("a link");
}

fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

async fn page(server: &Server, query: &str) -> Value {
    let (status, body) = server.get(query).await;
    assert_eq!(status, 200, "{query}: {body}");
    body
}

fn paths(body: &Value, list: &str, home: &Home) -> Vec<String> {
    let root = format!("{}/", home.path().display());
    let paths = body[list].as_array().expect("a list").iter().map(|entry| entry["path"].as_str().expect("a path"));
    paths.map(|path| path.strip_prefix(&root).unwrap_or(path).to_owned()).collect()
}

#[tokio::test]
async fn a_tree_is_listed_page_by_page() {
    let home = Home::new();
    tree(&home);
    let server = Server::start(&home);
    let whole = page(&server, "/v1/fs/entries?path=tree&recursive=true").await;
    let all = paths(&whole, "entries", &home);
    assert_eq!(all[..4], ["tree/.gitignore", "tree/.hidden", "tree/.hidden/h.rs", "tree/data.bin"]);
    assert!(!all.iter().any(|path| path.contains("target") || path.ends_with(".log")), "{all:?}");
    assert!(
        all.contains(&"tree/etc".to_owned()) && !all.iter().any(|path| path.starts_with("tree/etc/")),
        "links are not followed"
    );
    assert_eq!(whole["nextCursor"], Value::Null);
    let entry = &whole["entries"][0];
    assert_eq!((&entry["name"], &entry["entryType"], &entry["size"]), (&json!(".gitignore"), &json!("file"), &json!(14)));

    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let next = page(&server, &format!("/v1/fs/entries?path=tree&recursive=true&limit=37{cursor}")).await;
        let found = paths(&next, "entries", &home);
        assert!(found.len() <= 37);
        seen.extend(found);
        // What comes and goes between pages changes nothing of the rest.
        std::fs::write(home.path().join(format!("tree/many/new{}", seen.len())), "").expect("a file");
        let Some(text) = next["nextCursor"].as_str() else { break };
        cursor = format!("&cursor={text}");
    }
    seen.retain(|path| !path.contains("/new"));
    assert_eq!(seen, all);

    let ignored = page(&server, "/v1/fs/entries?path=tree&recursive=true&ignored=true&hidden=false&depth=1").await;
    let expected = ["app.log", "data.bin", "docs", "empty", "etc", "many", "odd.txt", "src", "target"];
    assert_eq!(paths(&ignored, "entries", &home), expected.map(|name| format!("tree/{name}")));
    let globs = page(&server, "/v1/fs/entries?path=tree&recursive=true&glob=*.md&glob=!last.md&ignore=nothing").await;
    assert_eq!(paths(&globs, "entries", &home), ["tree/docs/a.md"]);
    let ignore =
        page(&server, "/v1/fs/entries?path=tree&recursive=true&hidden=false&ignore=many&ignore=src%2F&ignore=docs").await;
    assert_eq!(paths(&ignore, "entries", &home), ["tree/data.bin", "tree/empty", "tree/etc", "tree/odd.txt"]);
    let (_, flat) = server.get("/v1/fs/entries?path=tree/src").await;
    assert!(flat.is_array(), "without recursive it is the contract's answer: {flat}");
}

#[tokio::test]
async fn what_is_wrong_with_a_listing_is_told() {
    let home = Home::new();
    tree(&home);
    let server = Server::start(&home);
    for (query, text) in [
        ("path=tree&limit=0", "limit must be at least 1"),
        ("path=tree&depth=0", "depth must be at least 1"),
        ("path=tree&cursor=%21", "cursor"),
        ("path=tree&glob=%5Ba", "a pattern for names"),
        ("path=none", "path not found"),
        ("path=tree/empty", "path is not a directory"),
    ] {
        let (status, body) = server.get(&format!("/v1/fs/entries?recursive=true&{query}")).await;
        assert!(status == 400 && body["detail"].as_str().unwrap_or_default().contains(text), "{query}: {status} {body}");
    }
}

#[tokio::test]
async fn many_entries_come_in_pieces() {
    let home = Home::new();
    for at in 0..5000 {
        let folder = home.path().join(format!("many/{:03}", at / 200));
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join(format!("{at}")), "").expect("a file");
    }
    let server = Server::start(&home);
    let whole = page(&server, "/v1/fs/entries?path=many&recursive=true").await;
    assert_eq!(whole["entries"].as_array().map(Vec::len), Some(5025));
    assert_eq!(whole["nextCursor"], Value::Null);
    server.stop();

    // However little time there is for a page, the next one goes on.
    let hurried = Server::start_with(&home, &Options::default().env("SANDBOXD_FS_WALK_TIMEOUT_MS", "1"));
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let next = page(&hurried, &format!("/v1/fs/entries?path=many&recursive=true{cursor}")).await;
        seen.extend(paths(&next, "entries", &home));
        let Some(text) = next["nextCursor"].as_str() else { break };
        cursor = format!("&cursor={text}");
    }
    assert_eq!(seen, paths(&whole, "entries", &home));
}

#[tokio::test]
async fn names_are_found_by_pattern_and_by_letters() {
    let home = Home::new();
    tree(&home);
    let server = Server::start(&home);
    let found = page(&server, "/v1/fs/glob?path=tree&pattern=**/*.rs").await;
    assert_eq!(paths(&found, "files", &home), ["tree/src/deep/er/x.rs", "tree/src/lib.rs", "tree/src/main.rs"]);
    assert_eq!((&found["count"], &found["truncated"]), (&json!(3), &json!(false)));
    let cut = page(&server, "/v1/fs/glob?path=tree&pattern=*.txt&limit=2").await;
    assert_eq!((&cut["count"], &cut["truncated"]), (&json!(2), &json!(true)));
    let all = page(&server, "/v1/fs/glob?path=tree&pattern=*.rs&hidden=true&ignored=true").await;
    assert_eq!(all["count"], 5);
    let folders = page(&server, "/v1/fs/glob?path=tree&pattern=deep&directories=true").await;
    assert_eq!(folders["files"][0]["entryType"], "directory");
    let fuzzy = page(&server, "/v1/fs/glob?path=tree&fuzzy=smain&limit=3").await;
    assert_eq!(paths(&fuzzy, "files", &home)[0], "tree/src/main.rs");
    assert!(fuzzy["files"][0]["score"].as_i64() > Some(0));
    for query in ["", "pattern=", "pattern=%21x", "pattern=%5Ba", "fuzzy=x&limit=0"] {
        assert_eq!(server.get(&format!("/v1/fs/glob?path=tree&{query}")).await.0, 400, "{query}");
    }
}

/// Hits as `rg` prints them.
fn ours(body: &Value, home: &Home) -> BTreeSet<String> {
    let root = format!("{}/tree/", home.path().display());
    let hits = body["hits"].as_array().expect("hits").iter().map(|hit| {
        let path = hit["path"].as_str().expect("a path").trim_start_matches(&root).to_owned();
        let starts = hit["ranges"].as_array().expect("ranges").len();
        format!("{path}:{}:{starts}:{}", hit["line"], hit["text"].as_str().expect("text"))
    });
    hits.collect()
}

/// What `rg` itself finds: scripts/install-tools.sh test.
fn by_rg(home: &Home, args: &[&str]) -> BTreeSet<String> {
    let mut command = Command::new("rg");
    command.args(["--json", "--no-config", "--no-require-git", "--crlf"]).args(args).current_dir(home.path().join("tree"));
    let output = command.output().expect("rg: scripts/install-tools.sh test");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let hits = lines.filter(|line| line["type"] == "match").map(|line| {
        let data = &line["data"];
        let text = match data["lines"]["text"].as_str() {
            Some(text) => text.to_owned(),
            None => {
                use base64::Engine as _;
                let bytes = base64::prelude::BASE64_STANDARD.decode(data["lines"]["bytes"].as_str().expect("bytes"));
                String::from_utf8_lossy(&bytes.expect("base64")).into_owned()
            }
        };
        let starts = data["submatches"].as_array().expect("submatches").len();
        let path = data["path"]["text"].as_str().expect("a path").trim_start_matches("./");
        format!("{path}:{}:{starts}:{}", data["line_number"], text.trim_end_matches('\n').trim_end_matches('\r'))
    });
    hits.collect()
}

#[tokio::test]
async fn the_same_is_found_as_by_ripgrep() {
    let home = Home::new();
    tree(&home);
    let server = Server::start(&home);
    for (pattern, query, args) in [
        ("needle", "", &[][..]),
        ("needle", "&case=insensitive", &["-i"]),
        ("needle", "&case=smart", &["-S"]),
        ("Needle", "&case=smart", &["-S"]),
        ("needle", "&word=true", &["-w"]),
        ("needle", "&hidden=true&glob=!.git", &["--hidden", "-g", "!.git"]),
        ("needle", "&ignored=true", &["--no-ignore"]),
        ("needle", "&glob=*.rs", &["-g", "*.rs"]),
        ("needle", "&glob=*.rs&glob=!src/lib.rs", &["-g", "*.rs", "-g", "!src/lib.rs"]),
        ("needle", "&glob=*.log", &["-g", "*.log"]),
        ("needle", "&depth=2", &["--max-depth", "2"]),
        ("needle(s|\\b)", "", &[]),
        ("n.{2}dle", "", &[]),
        ("needle$", "", &[]),
        ("^hay \\d+", "", &[]),
        ("(", "&literal=true", &["-F"]),
        ("hay\\na needle", "&multiline=true", &["-U"]),
        ("never there", "", &[]),
        ("\\p{L}+", "&glob=docs/**", &["-g", "docs/**"]),
        (".", "&glob=odd.txt", &["-g", "odd.txt"]),
    ] {
        let body = page(&server, &format!("/v1/fs/grep?path=tree&limit=5000&pattern={}{query}", encoded(pattern))).await;
        let theirs = by_rg(&home, &[args, &["-e", pattern, "."]].concat());
        assert_eq!(ours(&body, &home), theirs, "{pattern} {query}");
        assert_eq!(body["matches"].as_u64(), Some(theirs.len() as u64), "{pattern} {query}");
        assert_eq!(body["truncated"], false);
    }
}

#[tokio::test]
async fn a_search_has_bounds_and_shows_what_is_around() {
    let home = Home::new();
    tree(&home);
    let server = Server::start(&home);
    let cut = page(&server, "/v1/fs/grep?path=tree/many&pattern=needle&limit=3").await;
    assert_eq!((&cut["matches"], &cut["truncated"], &cut["reason"]), (&json!(3), &json!(true), &json!("matches")));
    let order = paths(&cut, "hits", &home);
    assert_eq!(order, ["tree/many/0/f0.txt", "tree/many/0/f105.txt", "tree/many/0/f140.txt"], "by path");
    let each = page(&server, "/v1/fs/grep?path=tree/src&pattern=e&limitPerFile=1").await;
    assert_eq!((&each["matches"], &each["reason"]), (&json!(2), &json!("matchesPerFile")));
    let around = page(&server, "/v1/fs/grep?path=tree/src/main.rs&pattern=let&before=1&after=2").await;
    let shown: Vec<(&str, u64)> = around["hits"]
        .as_array()
        .expect("hits")
        .iter()
        .map(|hit| (hit["kind"].as_str().expect("a kind"), hit["line"].as_u64().expect("a line")))
        .collect();
    assert_eq!(shown, [("context", 1), ("match", 2), ("context", 3), ("context", 4)]);
    assert_eq!((&around["hits"][1]["offset"], &around["hits"][1]["ranges"]), (&json!(12), &json!([[4, 7]])));
    let binary = page(&server, "/v1/fs/grep?path=tree/data.bin&pattern=needle").await;
    assert_eq!((&binary["matches"], &binary["binaryFiles"]), (&json!(0), &json!(1)));
    let long = format!("{}needle{}\n", "x".repeat(100_000), "é".repeat(50_000));
    std::fs::write(home.path().join("tree/long.txt"), &long).expect("a file");
    let line = &page(&server, "/v1/fs/grep?path=tree/long.txt&pattern=needle").await["hits"][0];
    let (text, offset) = (line["text"].as_str().expect("text"), line["textOffset"].as_u64().expect("an offset"));
    assert!(text.len() <= 16 * 1024 && text.contains("needle"));
    let from = usize::try_from(offset).expect("small");
    assert_eq!(&long[from..from + text.len()], text, "the offset says where it was taken from");
    for (query, text) in [
        ("pattern=ab%28c", "    ab(c\n      ^"),
        ("pattern=a%5Cnb", "multiline"),
        ("pattern=", "between 1 and"),
        ("pattern=x&glob=%5Ba", "a pattern for names"),
        ("pattern=x&context=101", "at most 100 lines"),
        ("pattern=x&limit=0", "limit must be at least 1"),
        ("pattern=x&path=none", "path not found"),
        ("", "pattern"),
    ] {
        let (status, body) = server.get(&format!("/v1/fs/grep?{query}")).await;
        assert!(status == 400 && body["detail"].as_str().unwrap_or_default().contains(text), "{query}: {status} {body}");
    }
}

#[tokio::test]
async fn hits_are_streamed_as_lines_and_as_events() {
    let home = Home::new();
    tree(&home);
    let server = Server::start(&home);
    let body =
        json!({"pattern": "needle", "paths": ["tree/docs", "tree/src/main.rs", {"base64": "dHJlZS9vZGQudHh0"}], "after": 1});
    let request = |accept: &str| server.http.post(server.url("/v1/fs/search")).json(&body).header("accept", accept).send();
    let lines = request("application/x-ndjson").await.expect("an answer");
    assert_eq!(lines.headers()["content-type"], "application/x-ndjson");
    let text = lines.text().await.expect("a body");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let (end, hits) = lines.split_last().expect("lines");
    assert_eq!((&end["kind"], &end["matches"], &end["filesSearched"]), (&json!("end"), &json!(5), &json!(4)));
    let page = server.send("/v1/fs/search", &body).await.1;
    assert_eq!(page["hits"].as_array().map(Vec::as_slice), Some(hits));
    assert!(hits.iter().any(|hit| hit["textBase64"].is_string()), "bytes that are no text come through");

    let events = request("text/event-stream").await.expect("an answer");
    let events = Events::of(events).all().await;
    let names: Vec<&str> = events.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(names[names.len() - 2..], ["summary", "end"]);
    let shown: Vec<&Value> =
        events.iter().filter(|event| matches!(event.name.as_str(), "match" | "context")).map(|event| &event.data).collect();
    assert_eq!(shown, hits.iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_place() {
    let home = Home::new();
    std::fs::create_dir(home.path().join("big")).expect("a folder");
    let much = "needle in a line of some length, again and again\n".repeat(40_000);
    for at in 0..20 {
        std::fs::write(home.path().join(format!("big/{at}")), &much).expect("a file");
    }
    let server = Server::start_with(&home, &Options::default().env("SANDBOXD_FS_SEARCHES_MAX", "1"));
    for _ in 0..3 {
        // It would go on: nobody reads more than a little.
        let mut answer = server
            .http
            .get(server.url("/v1/fs/grep?path=big&pattern=needle"))
            .header("accept", "application/x-ndjson")
            .send()
            .await
            .expect("an answer");
        assert!(answer.chunk().await.expect("a piece").is_some());
        drop(answer);
    }
    let next = page(&server, "/v1/fs/grep?path=big&pattern=nothing").await;
    assert_eq!(next["filesSearched"], 20);

    let request = server.http.get(server.url("/v1/fs/grep?path=big&pattern=needle&limit=90000"));
    let text = request.header("accept", "application/x-ndjson").send().await.expect("an answer").text().await.expect("a body");
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let end = lines.pop().expect("an end");
    assert_eq!((&end["matches"], &end["reason"]), (&json!(90_000), &json!("matches")));
    let order: Vec<(String, u64)> = lines
        .iter()
        .map(|hit| {
            let name = hit["path"].as_str().expect("a path").rsplit('/').next().expect("a name");
            (name.to_owned(), hit["line"].as_u64().expect("a line"))
        })
        .collect();
    // Names sort as text: 0, 1, 10.
    let expected = ["0", "1", "10"].into_iter().flat_map(|name| (1..=40_000).map(move |line| (name.to_owned(), line)));
    assert!(order.into_iter().eq(expected.take(90_000)), "whole files, one after another, by name");
}

#[tokio::test]
async fn a_replacement_is_planned_and_then_made_where_nothing_moved() {
    let home = Home::new();
    tree(&home);
    let server = Server::start(&home);
    let at = |path: &str| home.path().join("tree").join(path);
    let body =
        json!({"pattern": "(?i)(need)le", "replacement": "${1}ful", "paths": ["tree"], "globs": ["*.rs", "*.md", "odd.txt"]});
    let before = std::fs::read(at("src/lib.rs")).expect("a file");
    let (status, plan) = server.send("/v1/fs/replace", &body).await;
    assert_eq!(status, 200, "{plan}");
    assert_eq!(std::fs::read(at("src/lib.rs")).expect("a file"), before, "a plan changes nothing");
    let planned = paths(&plan, "files", &home);
    assert_eq!(planned, ["tree/docs/a.md", "tree/docs/last.md", "tree/odd.txt", "tree/src/lib.rs", "tree/src/main.rs"]);
    let first = &plan["files"][0]["changes"][0];
    assert_eq!((&first["line"], &first["after"]), (&json!(1), &json!("ein néédle, needful needful")));

    // One moves on, one is gone; of one only the first match is wanted.
    std::fs::write(at("docs/last.md"), "needle, by somebody else").expect("a file");
    std::fs::remove_file(at("src/main.rs")).expect("it was there");
    let files: Vec<Value> = plan["files"]
        .as_array()
        .expect("files")
        .iter()
        .map(|file| {
            let only = if file["path"].as_str().is_some_and(|path| path.ends_with("a.md")) { json!([0]) } else { Value::Null };
            json!({"path": file["path"], "sha256": file["sha256"], "only": only})
        })
        .collect();
    let mut apply = body.clone();
    apply["dryRun"] = false.into();
    apply["files"] = files.into();
    let (status, done) = server.send("/v1/fs/replace", &apply).await;
    assert_eq!(status, 200, "{done}");
    assert_eq!((&done["written"], &done["conflicts"], &done["failed"]), (&json!(3), &json!(2), &json!(0)), "{done}");
    let statuses: Vec<&Value> = done["files"].as_array().expect("files").iter().map(|file| &file["status"]).collect();
    assert_eq!(statuses, ["written", "conflict", "written", "written", "conflict"]);
    assert_eq!(std::fs::read(at("docs/a.md")).expect("a file"), "ein néédle, needful needle\n".as_bytes());
    assert_eq!(std::fs::read(at("docs/last.md")).expect("a file"), b"needle, by somebody else");
    assert_eq!(
        std::fs::read(at("src/lib.rs")).expect("a file"),
        b"// Needful\r\npub fn needfuls() {}\r\n// the end: needful\r\n"
    );
    assert_eq!(std::fs::read(at("odd.txt")).expect("a file"), b" broken \xc3 needful\n", "bytes that are no text stay");
    assert!(!at("src/main.rs").exists());

    let at_once = json!({"pattern": "needful", "literal": true, "replacement": "$1", "paths": ["tree/src/lib.rs", "tree/src"], "dryRun": false});
    let (_, done) = server.send("/v1/fs/replace", &at_once).await;
    assert_eq!((&done["written"], &done["files"][0]["matches"]), (&json!(1), &json!(2)), "{done}");
    assert_eq!(std::fs::read(at("src/lib.rs")).expect("a file"), b"// Needful\r\npub fn $1s() {}\r\n// the end: $1\r\n");
}

#[tokio::test]
async fn what_is_wrong_with_a_replacement_is_told() {
    let home = Home::new();
    tree(&home);
    let server = Server::start_with(&home, &Options::default().env("SANDBOXD_FS_REPLACE_FILES_MAX", "2"));
    for (body, expected) in [
        (json!({"pattern": "(", "replacement": ""}), 400),
        (json!({"pattern": "x"}), 422),
        (json!({"pattern": "x", "replacement": "", "files": []}), 400),
        (json!({"pattern": "x", "replacement": "", "dryRun": false, "files": [{"path": "a", "sha256": "12"}]}), 400),
        (json!({"pattern": "x", "replacement": "", "paths": ["none"]}), 400),
        (
            json!({"pattern": "x", "replacement": "", "dryRun": false, "files": vec![json!({"path": "a", "sha256": "0".repeat(64)}); 3]}),
            413,
        ),
    ] {
        let (status, answer) = server.send("/v1/fs/replace", &body).await;
        assert_eq!(status, expected, "{body}: {answer}");
    }
    let (_, plan) = server.send("/v1/fs/replace", &json!({"pattern": "needle", "replacement": "x", "paths": ["tree"]})).await;
    assert_eq!((plan["files"].as_array().map(Vec::len), &plan["reason"]), (Some(2), &json!("files")));
    assert!(Path::new(&home.path().join("tree/src/main.rs")).exists());
}
