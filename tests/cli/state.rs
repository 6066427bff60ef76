use std::os::unix::fs::{FileExt as _, PermissionsExt as _};

use serde_json::json;

use super::support::{Home, Server};

const HELLO: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":1}}"#;

/// A server on which an ACP server `a` has spoken.
fn spoken(home: &Home) -> Server {
    let server = Server::start(home, &["--no-token"]);
    home.run(&["api", "acp", "post", "--server-id", "a", "--agent", "mock", "--json", HELLO, "-e", &server.url]).ok();
    server
}

#[test]
fn a_backup_is_whole_and_private_and_replaces_nothing_unasked() {
    let home = Home::new();
    home.run(&["state", "backup"]).fails(1, "there is no database at");
    let server = spoken(&home);
    let made = home.run(&["state", "backup", "--output", "b.db"]).ok();
    assert!(made.out.contains("b.db") && made.out.contains("events") && made.err.contains("not in it: "), "{made:?}");
    let mode = std::fs::metadata(home.path().join("b.db")).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    home.run(&["state", "backup", "--output", "b.db"]).fails(1, "--force");
    let told = home.run(&["state", "backup", "--output", "b.db", "--force", "--json"]).json();
    assert!(told["rows"]["events"].as_u64().is_some_and(|events| events > 0), "{told}");
    assert_eq!(told["rows"]["acp_servers"], 1);
    let own = home.data().join("sandboxd.db");
    home.run(&["state", "backup", "--force", "--output", own.to_str().expect("UTF-8")]).fails(1, "is the database itself");
    home.run(&["state", "backup", "--output", "nowhere/b.db"]).fails(1, "can't write");
    home.run(&["state", "backup"]).ok();
    let names: Vec<_> = std::fs::read_dir(home.path()).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
    assert!(names.iter().any(|name| name.to_string_lossy().starts_with("sandboxd-20")), "{names:?}");
    assert!(!names.iter().any(|name| name.to_string_lossy().contains("tmp")), "{names:?}");
    drop(server);
}

#[test]
fn a_backup_is_put_back_when_no_server_runs() {
    let home = Home::new();
    let server = spoken(&home);
    home.run(&["state", "backup", "--output", "b.db"]).ok();
    home.run(&["api", "acp", "close", "--server-id", "a", "-e", &server.url]).ok();
    home.run(&["state", "restore", "b.db"]).fails(1, "stop it first");
    drop(server);
    let restored = home.run(&["state", "restore", "b.db", "--json"]).json();
    let before = restored["setAside"].as_str().expect("a path").to_owned();
    assert!(before.contains("sandboxd.db.before-restore-20"), "{before}");
    home.run(&["state", "check", &before]).ok();
    let server = Server::start(&home, &["--no-token"]);
    assert_eq!(home.run(&["api", "acp", "list", "-e", &server.url]).json()["servers"][0]["serverId"], "a");
    drop(server);
    home.run(&["state", "restore", "b.db", "--data-dir", "elsewhere"]).ok();
    assert!(home.path().join("elsewhere/sandboxd.db").exists(), "also where nothing was");
}

#[test]
fn only_sound_databases_of_ours_are_put_back() {
    let home = Home::new();
    drop(spoken(&home));
    home.run(&["state", "backup", "--output", "b.db"]).ok();
    let file = std::fs::OpenOptions::new().write(true).open(home.path().join("b.db")).expect("open");
    let own = std::fs::read(home.data().join("sandboxd.db")).expect("read");

    file.write_all_at(&99_u32.to_be_bytes(), 60).expect("written"); // user_version
    home.run(&["state", "restore", "b.db"]).fails(1, "newer sandboxd");
    home.run(&["state", "restore", "nothing.db"]).fails(1, "there is no database");
    home.write("text.db", &"this is no database, but long enough to be looked at ".repeat(100));
    home.run(&["state", "restore", "text.db"]).fails(1, "is damaged");
    assert!(own == std::fs::read(home.data().join("sandboxd.db")).expect("read"), "nothing was touched");
    let names: Vec<_> = std::fs::read_dir(home.data()).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().contains("sandboxd.db.")), "{names:?}");

    home.run(&["state", "restore", "text.db", "--force"]).ok();
    let server = Server::start(&home, &["--no-token"]);
    assert_eq!(home.run(&["api", "acp", "list", "-e", &server.url]).json(), json!({"servers": []}), "it came up");
}

#[test]
fn a_check_finds_damage() {
    let home = Home::new();
    let server = spoken(&home);
    let sound = home.run(&["state", "check", "--json"]).json();
    assert_eq!((&sound["sound"], &sound["findings"]), (&json!(true), &json!([])));
    drop(server);
    let path = home.data().join("sandboxd.db");
    let length = std::fs::metadata(&path).expect("a file").len();
    let file = std::fs::OpenOptions::new().write(true).open(&path).expect("open");
    file.write_all_at(&[0x55; 4096], length / 4096 / 2 * 4096).expect("written");
    let found = home.run(&["state", "check"]).fails(1, "is damaged");
    assert!(!found.out.is_empty(), "{found:?}");
    let found = home.run(&["state", "check", "--json"]);
    assert!(found.code == Some(1) && found.out.contains("\"sound\":false"), "{found:?}");
    home.run(&["state", "backup", "--output", "b.db"]).fails(1, "is damaged");
    assert!(!home.path().join("b.db").exists());
    home.run(&["state", "check", "nothing.db"]).fails(1, "there is no database at nothing.db");
}
