//! What sessions know of files, beyond edits: every route that takes something away asks, and what belongs to a session
//! ends or goes along with it.

use serde_json::{Value, json};

use crate::sessions_support::{create, request};
use crate::support::{Home, Server};

/// A server with two sessions at work in the home.
struct Two {
    home: Home,
    server: Server,
    a: String,
    b: String,
}

impl Two {
    async fn new() -> Self {
        let home = Home::new();
        let server = Server::start(&home);
        let spec = json!({"agent": "mock", "cwd": home.path()});
        let (a, b) = (create(&server, spec.clone()).await, create(&server, spec).await);
        Self { home, server, a, b }
    }

    async fn put(&self, session: &str, path: &str, content: &'static str) -> (u16, Value) {
        let url = self.server.url(&format!("/v1/fs/file?path={path}&sessionId={session}"));
        let answer = self.server.http.put(url).body(content).send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    async fn call(&self, method: &str, route: &str, body: Option<Value>) -> (u16, Value) {
        request(&self.server, method, &format!("/v1/{route}"), body.as_ref(), None).await
    }

    fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.home.path().join(path)).expect("a file")
    }
}

#[tokio::test]
async fn nothing_newer_is_taken_away() {
    let two = Two::new().await;
    let paths = ["moved", "copied", "entry", "file", "tree/deep/f", "batch", "dir/f", "replaced"];
    for path in paths {
        assert_eq!(two.put(&two.a, path, "old").await.0, 200);
        assert_eq!(two.put(&two.b, path, "new").await.0, 200);
    }
    std::fs::write(two.home.path().join("mine"), "mine").expect("a file");
    std::fs::create_dir(two.home.path().join("empty")).expect("a folder");
    let (a, over) = (&two.a, |to: &str| Some(json!({"from": "mine", "to": to, "overwrite": true})));
    let calls = |more: &str| {
        [
            ("POST", format!("fs/copy?sessionId={a}{more}"), over("copied"), "copied"),
            ("DELETE", format!("fs/entry?path=entry&sessionId={a}{more}"), None, "entry"),
            ("DELETE", format!("fs/entry?path=tree&recursive=true&sessionId={a}{more}"), None, "tree/deep/f"),
            ("DELETE", format!("fs/file?path=file&sessionId={a}{more}"), None, "file"),
            (
                "POST",
                format!("fs/move?sessionId={a}{more}"),
                Some(json!({"from": "empty", "to": "dir", "overwrite": true})),
                "dir/f",
            ),
            ("POST", format!("fs/move?sessionId={a}{more}"), over("moved"), "moved"),
        ]
    };
    for (method, route, body, path) in calls("") {
        let (status, problem) = two.call(method, &route, body).await;
        assert_eq!((status, &problem["code"]), (409, &json!("stale")), "{route}: {problem}");
        assert_eq!(problem["path"], json!(two.home.path().join(path)), "{problem}");
        assert!(problem["currentSha256"].is_string() && problem["baseSha256"].is_string(), "{problem}");
        assert_eq!(two.text(path), "new", "{route}");
    }
    let operations = json!([
        {"op": "delete", "path": "batch"},
        {"op": "write", "path": "batch", "content": "x"},
        {"op": "copy", "from": "mine", "to": "batch", "overwrite": true},
        {"op": "move", "from": "mine", "to": "batch", "overwrite": true},
    ]);
    let (_, batch) = two.call("POST", &format!("fs/batch?sessionId={a}"), Some(json!({"operations": operations}))).await;
    let results = batch["results"].as_array().expect("results");
    assert!(results.iter().all(|result| result["problem"]["code"] == "stale"), "{batch}");
    let body = json!({"pattern": "new", "replacement": "other", "paths": ["replaced"], "dryRun": false});
    let (_, answer) = two.call("POST", &format!("fs/replace?sessionId={a}"), Some(body.clone())).await;
    assert_eq!((&answer["files"][0]["status"], &answer["files"][0]["code"]), (&json!("conflict"), &json!("stale")), "{answer}");
    let (_, forced) = two.call("POST", &format!("fs/replace?sessionId={a}&force=true&toolCallId=c1"), Some(body)).await;
    assert_eq!((&forced["written"], two.text("replaced")), (&json!(1), "other".to_owned()), "{forced}");
    for (method, route, body, _) in calls("&force=true&toolCallId=c1") {
        let (status, answer) = two.call(method, &route, body).await;
        assert_eq!(status, 200, "{route}: {answer}");
    }
    let (_, edits) = two.call("GET", &format!("fs/edits?sessionId={a}&limit=7"), None).await;
    let edits = edits["edits"].as_array().expect("edits").clone();
    assert!(edits.iter().all(|edit| edit["toolCallId"] == "c1"), "{edits:?}");
}

#[tokio::test]
async fn an_upload_is_completed_in_the_name_of_who_began_it() {
    let two = Two::new().await;
    two.put(&two.a, "f", "old").await;
    let (_, upload) = two.call("POST", &format!("fs/uploads?path=f&sessionId={}&toolCallId=c2", two.a), None).await;
    let upload = format!("fs/uploads/{}", upload["id"].as_str().expect("an id"));
    two.put(&two.b, "f", "new").await;
    let (status, problem) = two.call("POST", &format!("{upload}/complete"), None).await;
    assert_eq!((status, &problem["code"]), (409, &json!("stale")), "{problem}");
    assert_eq!(two.call("GET", &upload, None).await.0, 200, "the part stays");
    assert_eq!(two.call("POST", &format!("{upload}/complete?force=true"), None).await.0, 200);
    let (_, edits) = two.call("GET", "fs/edits?limit=1", None).await;
    let edit = &edits["edits"][0];
    assert_eq!((&edit["sessionId"], &edit["toolCallId"]), (&json!(two.a), &json!("c2")), "{edit}");
}

#[tokio::test]
async fn an_archive_replaces_nothing_newer() {
    let two = Two::new().await;
    let mut archive = tar::Builder::new(Vec::new());
    for name in ["first", "sub/f", "last"] {
        let mut header = tar::Header::new_gnu();
        header.set_size(4);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, &b"tar\n"[..]).expect("an entry");
    }
    let archive = archive.into_inner().expect("an archive");
    let unpack = async |more: &str| {
        let url = two.server.url(&format!("/v1/fs/upload-batch?path=d&sessionId={}{more}", two.a));
        let request = two.server.http.post(url).header("content-type", "application/x-tar").body(archive.clone());
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.json::<Value>().await.expect("JSON"))
    };
    for path in ["d/sub/f", "d/other"] {
        two.put(&two.a, path, "old").await;
        two.put(&two.b, path, "new").await;
    }
    let (status, problem) = unpack("").await;
    assert_eq!((status, &problem["code"], &problem["entry"]), (409, &json!("stale"), &json!("sub/f")), "{problem}");
    assert_eq!((two.text("d/first").as_str(), two.text("d/sub/f").as_str()), ("tar\n", "new"), "what came before it stays");
    let (status, problem) = unpack("&atomic=true&overwrite=true").await;
    assert_eq!((status, &problem["code"]), (409, &json!("stale")), "{problem}");
    assert_eq!(two.text("d/other"), "new");
    assert_eq!(unpack("&force=true").await.0, 200);
    assert_eq!(two.put(&two.a, "d/sub/f", "mine").await.0, 200, "it knows what it has put there itself");
    assert_eq!(unpack("&atomic=true&overwrite=true&force=true").await.0, 200);
    assert!(!two.home.path().join("d/other").exists());
    assert_eq!(two.put(&two.a, "d/sub/f", "mine").await.0, 200);
}

/// What a session has put somewhere itself it knows; and what it only carried along it knows no better than before.
#[tokio::test]
async fn who_moves_a_file_knows_it_where_it_is() {
    let two = Two::new().await;
    for path in ["known", "target", "tree/f", "other"] {
        two.put(&two.a, path, "old").await;
    }
    std::fs::write(two.home.path().join("unknown"), "unknown").expect("a file");
    let put = |from: &str, to: &str| Some(json!({"from": from, "to": to, "overwrite": true}));
    let session = format!("?sessionId={}", two.a);
    for (route, body, path) in [
        ("copy", put("unknown", "target"), "target"),
        ("move", put("known", "target"), "target"),
        ("move", put("tree", "wood"), "wood/f"),
    ] {
        assert_eq!(two.call("POST", &format!("fs/{route}{session}"), body).await.0, 200);
        assert_eq!(two.put(&two.a, path, "mine").await.0, 200, "{route} {path}");
    }
    two.put(&two.b, "other", "new").await;
    assert_eq!(two.call("POST", &format!("fs/move{session}"), put("other", "elsewhere")).await.0, 200, "nothing is lost");
    assert_eq!(two.put(&two.a, "elsewhere", "mine").await.1["code"], "stale");
}

#[tokio::test]
async fn leases_end_with_their_session() {
    let two = Two::new().await;
    for (method, end) in [("POST", format!("sessions/{}/close", two.a)), ("DELETE", format!("sessions/{}", two.b))] {
        let session = if method == "POST" { &two.a } else { &two.b };
        let (status, lease) = two.call("POST", "fs/leases", Some(json!({"path": "d", "sessionId": session}))).await;
        assert_eq!(status, 200, "{lease}");
        two.call(method, &end, None).await;
        assert_eq!(two.call("GET", "fs/leases", None).await.1, json!({"leases": []}), "{method}");
    }
}

#[tokio::test]
async fn a_copy_has_seen_what_its_original_saw() {
    let two = Two::new().await;
    two.put(&two.a, "f", "old").await;
    let export = two.server.http.get(two.server.url(&format!("/v1/sessions/{}/export", two.a))).send().await.expect("an answer");
    let export = export.text().await.expect("a body");
    let copy = two.server.http.post(two.server.url("/v1/sessions/import")).body(export).send().await.expect("an answer");
    let copy: Value = copy.json().await.expect("JSON");
    let copy = copy["id"].as_str().expect("an id").to_owned();
    two.put(&two.b, "f", "new").await;
    assert_eq!(two.put(&copy, "f", "mine").await.1["code"], "stale");
    let Two { home, server, .. } = two;
    assert_eq!(server.stop(), Some(0));
    let server = Server::start(&home);
    let (_, state) = server.get(&format!("/v1/fs/state?path=f&sessionId={copy}")).await;
    assert_eq!((&state["seen"][0]["sessionId"], &state["seen"][0]["changed"]), (&json!(copy), &json!(true)), "{state}");
}
