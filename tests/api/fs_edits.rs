//! Edits of files, their history, taking them back, and sessions that meet.

use serde_json::{Value, json};

use crate::sessions_support::{create, fake, request, until};
use crate::support::{Home, Options, Server};

async fn put(server: &Server, query: &str, content: &str) -> (u16, Value) {
    let response = server.http.put(server.url(&format!("/v1/fs/file?{query}"))).body(content.to_owned()).send().await;
    let response = response.expect("an answer");
    let status = response.status().as_u16();
    (status, response.json().await.expect("JSON"))
}

async fn edit(server: &Server, body: Value) -> (u16, Value) {
    server.send("/v1/fs/edit", &body).await
}

fn read(home: &Home, name: &str) -> String {
    std::fs::read_to_string(home.path().join(name)).expect("a file")
}

#[tokio::test]
async fn an_edit_says_what_it_did() {
    let home = Home::new();
    let server = Server::start(&home);
    put(&server, "path=f", "one\ntwo\nthree\n").await;
    let (status, answer) = edit(&server, json!({"path": "f", "old": "two", "new": "TWO"})).await;
    assert_eq!((status, &answer["status"], &answer["added"], &answer["removed"]), (200, &json!("applied"), &json!(1), &json!(1)));
    let name = home.path().join("f").display().to_string();
    let expected = format!("--- a{name}\n+++ b{name}\n@@ -1,3 +1,3 @@\n one\n-two\n+TWO\n three\n");
    assert_eq!(answer["diff"], expected);
    let (_, state) = server.get("/v1/fs/state?path=f").await;
    assert_eq!(state["sha256"], answer["sha256"]);
    let (status, ranged) = edit(
        &server,
        json!({"path": "f", "range": {"startLine": 3, "endLine": 3}, "new": "drei", "expectSha256": answer["sha256"]}),
    )
    .await;
    assert_eq!((status, read(&home, "f").as_str()), (200, "one\nTWO\ndrei\n"), "{ranged}");
    let patch = "--- a/f\n+++ b/f\n@@ -1,1 +1,2 @@\n TWO\n+more\n";
    let (status, patched) = edit(&server, json!({"path": "f", "patch": patch})).await;
    assert_eq!((status, &patched["offsets"], read(&home, "f").as_str()), (200, &json!([1]), "one\nTWO\nmore\ndrei\n"));
    let (status, same) = edit(&server, json!({"path": "f", "old": "more", "new": "more"})).await;
    assert_eq!((status, &same["status"], same.get("editId")), (200, &json!("unchanged"), None));
    let (status, made) = edit(&server, json!({"path": "new/g", "old": "", "new": "x"})).await;
    assert_eq!((status, &made["sha256Before"], read(&home, "new/g").as_str()), (200, &Value::Null, "x"));
}

#[tokio::test]
async fn an_edit_that_doesnt_fit_changes_nothing() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::default().env("SANDBOXD_FS_EDIT_MAX_BYTES", "20"));
    put(&server, "path=f", "one\ntwo one\n").await;
    put(&server, "path=long", &"x".repeat(21)).await;
    let ambiguous = edit(&server, json!({"path": "f", "old": "one", "new": "x"})).await;
    assert_eq!((ambiguous.0, &ambiguous.1["count"], &ambiguous.1["lines"]), (409, &json!(2), &json!([1, 2])));
    for (body, status, code) in [
        (json!({"path": "f", "old": "three", "new": "x"}), 409, "mismatch"),
        (json!({"path": "f", "old": "one", "new": "x", "occurrence": 3}), 409, "mismatch"),
        (json!({"path": "f", "range": {"startLine": 3, "endLine": 3}, "new": "x"}), 409, "mismatch"),
        (json!({"path": "f", "patch": "--- a/f\n+++ b/f\n@@ -1 +1 @@\n-x\n+y\n"}), 409, "mismatch"),
        (json!({"path": "none/f", "old": "a", "new": "x"}), 409, "mismatch"),
        (json!({"path": "f", "patch": "--- a/g\n+++ b/g\n@@ -1 +1 @@\n-one\n+y\n"}), 400, "invalid"),
    ] {
        let (got, problem) = edit(&server, body.clone()).await;
        assert_eq!((got, problem["code"].as_str()), (status, Some(code)), "{body}: {problem}");
    }
    for (body, status) in [
        (json!({"path": "f", "old": "two", "new": "x", "expectSha256": "0".repeat(64)}), 412),
        (json!({"path": "f", "old": "two", "new": "x", "expectSha256": "0"}), 400),
        (json!({"path": "f", "old": "two", "patch": "x"}), 400),
        (json!({"path": "f", "patch": "x", "fuzz": 4}), 400),
        (json!({"path": "long", "old": "x", "new": "y"}), 413),
        (json!({"path": "f", "old": 1, "new": "y"}), 422),
    ] {
        assert_eq!(edit(&server, body.clone()).await.0, status, "{body}");
    }
    assert_eq!(read(&home, "f"), "one\ntwo one\n");
    assert!(!home.path().join("none").exists(), "nothing is made for what fails");
}

#[tokio::test]
async fn history_lists_what_was_done_and_survives_a_restart() {
    let home = Home::new();
    let server = Server::start(&home);
    put(&server, "path=d/f", "1").await;
    let (_, second) = put(&server, "path=d/f", "2").await;
    request(&server, "POST", "/v1/fs/mkdir?path=e", None, None).await;
    server.send("/v1/fs/move", &json!({"from": "d/f", "to": "e/f"})).await;
    server.send("/v1/fs/copy", &json!({"from": "e/f", "to": "e/g"})).await;
    request(&server, "DELETE", "/v1/fs/entry?path=e&recursive=true", None, None).await;
    let ops = |answer: &Value| -> Vec<String> {
        let edits = answer["edits"].as_array().expect("edits").iter();
        edits.map(|edit| edit["op"].as_str().expect("an op").to_owned()).collect()
    };
    let (_, all) = server.get("/v1/fs/edits").await;
    assert_eq!(ops(&all), ["delete", "copy", "move", "mkdir", "write", "write"]);
    assert_eq!(ops(&server.get("/v1/fs/edits?path=d/f").await.1), ["move", "write", "write"]);
    assert_eq!(ops(&server.get("/v1/fs/edits?path=e").await.1), ["delete", "copy", "move", "mkdir"]);
    let (_, page) = server.get("/v1/fs/edits?limit=4").await;
    let (_, rest) = server.get(&format!("/v1/fs/edits?cursor={}", page["next"].as_str().expect("a cursor"))).await;
    assert_eq!((ops(&rest), rest.get("next")), (vec!["write".to_owned(), "write".to_owned()], None));
    let events = server.get("/v1/events?type=edit.*").await.1;
    let told: Vec<_> = events["events"].as_array().expect("events").iter().map(|event| event["type"].clone()).collect();
    assert_eq!(told, ["edit.applied"; 6]);
    server.stop();

    let server = Server::start(&home);
    let (status, done) = server.send("/v1/fs/rollback", &json!({"toEditId": second["editId"]})).await;
    assert_eq!((status, done["rolledBack"].as_array().map(Vec::len)), (200, Some(4)), "{done}");
    assert_eq!(read(&home, "d/f"), "2");
    assert!(!home.path().join("e").exists());
    let id = second["editId"].as_str().expect("an id");
    let (_, shown) = server.get(&format!("/v1/fs/edits/{id}")).await;
    assert_eq!((&shown["restorable"], &shown["after"]["sha256"]), (&json!(true), &second["sha256"]));
    let (status, _) = server.send(&format!("/v1/fs/edits/{id}/rollback"), &json!({})).await;
    assert_eq!((status, read(&home, "d/f").as_str()), (200, "1"));
    let (status, again) = server.send(&format!("/v1/fs/edits/{id}/rollback"), &json!({})).await;
    assert_eq!((status, again["editStatus"].as_str()), (409, Some("reverted")));
    assert_eq!(server.get("/v1/fs/edits/edit_none").await.0, 404);
    assert_eq!(server.send("/v1/fs/rollback", &json!({"toMs": 0, "turnId": "t"})).await.0, 400);
}

#[tokio::test]
async fn what_moved_on_is_not_taken_back() {
    let home = Home::new();
    let server = Server::start(&home);
    let (_, first) = put(&server, "path=f", "1").await;
    let (_, second) = put(&server, "path=f", "2").await;
    std::fs::write(home.path().join("f"), "3").expect("somebody else writes");
    let path = format!("/v1/fs/edits/{}/rollback", second["editId"].as_str().expect("an id"));
    let (status, problem) = server.send(&path, &json!({})).await;
    assert_eq!((status, &problem["code"], &problem["movedOn"][0]["why"]), (409, &json!("moved_on"), &json!("changed")));
    let (status, problem) = server.send("/v1/fs/rollback", &json!({"toEditId": first["editId"]})).await;
    assert_eq!((status, problem["movedOn"].as_array().map(Vec::len)), (409, Some(1)));
    assert_eq!(read(&home, "f"), "3");
}

#[tokio::test]
async fn proposals_wait_for_a_yes() {
    let home = Home::new();
    let server = Server::start(&home);
    put(&server, "path=f", "one\n").await;
    let propose = || edit(&server, json!({"path": "f", "old": "one", "new": "two", "mode": "propose"}));
    let (status, first) = propose().await;
    assert_eq!((status, &first["status"], read(&home, "f").as_str()), (200, &json!("proposed"), "one\n"));
    let (_, second) = propose().await;
    let of = |answer: &Value, verb: &str| format!("/v1/fs/edits/{}/{verb}", answer["editId"].as_str().expect("an id"));
    let (status, rejected) = server.send(&of(&second, "reject"), &json!({})).await;
    assert_eq!((status, &rejected["status"]), (200, &json!("rejected")));
    let (status, applied) = server.send(&of(&first, "apply"), &json!({})).await;
    assert_eq!((status, &applied["status"], read(&home, "f").as_str()), (200, &json!("applied"), "two\n"));
    assert_eq!(server.send(&of(&second, "apply"), &json!({})).await.0, 409);
    let (_, waiting) = server.get("/v1/fs/edits?status=proposed").await;
    assert_eq!(waiting["edits"], json!([]));
}

#[tokio::test]
async fn sessions_dont_write_over_each_other() {
    let home = Home::new();
    fake(&home, "");
    let server = Server::start(&home);
    let cwd = home.path().display().to_string();
    let [a, b] =
        [create(&server, json!({"agent": "amp", "cwd": cwd})).await, create(&server, json!({"agent": "amp", "cwd": cwd})).await];
    put(&server, "path=f", "1\n2\n3\n4\n5\n6\n7\n8\n").await;
    for session in [&a, &b] {
        assert_eq!(server.get(&format!("/v1/fs/file?path=f&sessionId={session}")).await.0, 200);
    }
    let (status, _) = put(&server, &format!("path=f&sessionId={a}"), "1\n2\n3\n4\n5\n6\n7\neight\n").await;
    assert_eq!(status, 200);
    let (_, read) = server.get(&format!("/v1/fs/edits?sessionId={a}")).await;
    assert_eq!(read["edits"][0]["sessionId"], json!(a));
    server.stop();

    let server = Server::start(&home);
    let (status, problem) = put(&server, &format!("path=f&sessionId={b}"), "one\n2\n3\n4\n5\n6\n7\n8\n").await;
    assert_eq!((status, &problem["code"], &problem["mergesCleanly"]), (409, &json!("stale"), &json!(true)), "{problem}");
    assert_eq!(problem["merged"], "one\n2\n3\n4\n5\n6\n7\neight\n");
    let (_, state) = server.get("/v1/fs/state?path=f").await;
    assert_eq!(problem["currentSha256"], state["sha256"]);
    let changed = |of: &str| {
        let seen = state["seen"].as_array().expect("what was seen").iter();
        seen.clone().find(|seen| seen["sessionId"] == *of).expect("it saw it")["changed"].clone()
    };
    assert_eq!((changed(&a), changed(&b)), (json!(false), json!(true)));
    let (status, problem) =
        server.send(&format!("/v1/fs/edit?sessionId={b}"), &json!({"path": "f", "old": "7", "new": "seven"})).await;
    assert_eq!((status, &problem["code"]), (409, &json!("stale")));
    let forced = format!("/v1/fs/edit?sessionId={b}&force=true");
    let (status, answer) = server.send(&forced, &json!({"path": "f", "old": "7", "new": "seven"})).await;
    assert_eq!((status, &answer["conflicts"][0]["severity"]), (200, &json!("adjacent_line")), "{answer}");
    let (_, found) = server.get(&format!("/v1/fs/conflicts?path=f&sessionId={a}")).await;
    assert_eq!(found["conflicts"][0]["sessionId"], json!(b), "{found}");
    let events = server.get("/v1/events?type=fs.conflict").await.1;
    let of_files = events["events"].as_array().into_iter().flatten().filter(|event| event["conflict"].is_object());
    assert_eq!(of_files.count(), 1, "{events}");
    for session in [&a, &b] {
        until("a word to both sessions", async || {
            let page = server.get(&format!("/v1/sessions/{session}/events")).await.1;
            page["events"].as_array()?.iter().find(|event| event["type"] == "fs.conflict").cloned()
        })
        .await;
    }
    let failing = json!({"path": "f", "old": "eight", "new": "8", "onConflict": "fail"});
    let (status, problem) = server.send(&format!("/v1/fs/edit?sessionId={b}"), &failing).await;
    assert_eq!((status, &problem["code"]), (409, &json!("conflicts")), "{problem}");
}

#[tokio::test]
async fn leases_are_told_and_end() {
    let home = Home::new();
    fake(&home, "");
    let server = Server::start(&home);
    let cwd = home.path().display().to_string();
    let [a, b] =
        [create(&server, json!({"agent": "amp", "cwd": cwd})).await, create(&server, json!({"agent": "amp", "cwd": cwd})).await];
    let (status, lease) = server.send("/v1/fs/leases", &json!({"path": "d", "sessionId": a, "note": "at work"})).await;
    assert_eq!(status, 200, "{lease}");
    let (status, problem) = server.send("/v1/fs/leases", &json!({"path": "d/f", "sessionId": b})).await;
    assert_eq!((status, &problem["code"], &problem["leaseId"]), (409, &json!("leased"), &lease["id"]));
    assert_eq!(put(&server, &format!("path=d/f&sessionId={b}"), "x").await.0, 200, "nobody is kept from writing");
    let (_, found) = server.get("/v1/fs/conflicts?path=d/f").await;
    assert_eq!(found["leases"][0]["id"], lease["id"]);
    let events = server.get("/v1/events?type=fs.conflict").await.1;
    assert_eq!(events["events"][0]["conflict"]["severity"], "leased", "{events}");
    let path = format!("/v1/fs/leases/{}", lease["id"].as_str().expect("an id"));
    assert_eq!(request(&server, "DELETE", &path, None, None).await.0, 204);
    assert_eq!(request(&server, "DELETE", &path, None, None).await.0, 404);
    assert_eq!(server.get("/v1/fs/leases").await.1, json!({"leases": []}));
    assert_eq!(server.send("/v1/fs/leases", &json!({"path": "d", "sessionId": a, "durationMs": 0})).await.0, 400);
}
