//! What is configured per directory: the contract of `/v1/config/mcp` and `/v1/config/skills`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Home, Options, Server};

/// A directory of a server, and its configuration.
struct Place {
    home: Home,
    server: Server,
}

impl Place {
    fn new() -> Self {
        Self::with(&Options::default())
    }

    fn with(options: &Options) -> Self {
        let home = Home::new();
        let server = Server::start_with(&home, options);
        Self { home, server }
    }

    fn directory(&self) -> PathBuf {
        self.home.path().join("work")
    }

    fn file(&self, kind: &str) -> PathBuf {
        self.directory().join(format!(".sandbox-agent/config/{kind}.json"))
    }

    async fn ask(&self, method: Method, kind: &str, query: &[(&str, &str)], body: Option<&Value>) -> (u16, Value) {
        let url = reqwest::Url::parse_with_params(&self.server.url(&format!("/v1/config/{kind}")), query).expect("a URL");
        let mut request = self.server.http.request(method, url);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.expect("an answer");
        let status = response.status().as_u16();
        let text = response.text().await.expect("a body");
        (status, if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect("JSON") })
    }

    async fn entry(&self, method: Method, kind: &str, name: &str, body: Option<&Value>) -> (u16, Value) {
        let directory = self.directory().display().to_string();
        let parameter = if kind == "mcp" { "mcpName" } else { "skillName" };
        self.ask(method, kind, &[("directory", &directory), (parameter, name)], body).await
    }

    async fn put(&self, kind: &str, name: &str, body: Value) {
        assert_eq!(self.entry(Method::PUT, kind, name, Some(&body)).await, (204, Value::Null), "{body}");
    }

    async fn get(&self, kind: &str, name: &str) -> Value {
        let (status, body) = self.entry(Method::GET, kind, name, None).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    fn write(&self, kind: &str, text: &str) {
        std::fs::create_dir_all(self.file(kind).parent().expect("a folder")).expect("made");
        std::fs::write(self.file(kind), text).expect("written");
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("a file")
}

#[tokio::test]
async fn an_mcp_server_is_kept_in_the_directory() {
    let place = Place::new();
    place.put("mcp", "b", json!({"type": "stdio", "command": "x", "foo": 1, "timeout": 3})).await;
    assert_eq!(place.get("mcp", "b").await, json!({"type": "local", "command": "x", "args": [], "timeoutMs": 3}));
    let remote = json!({"type": "remote", "url": "u", "transport": "sse", "oauth": {"clientId": "c"}, "envHeaders": {"A": "B"}});
    place.put("mcp", "a", remote.clone()).await;
    assert_eq!(place.get("mcp", "a").await, remote);
    let text = read(&place.file("mcp"));
    let expected = json!({"a": remote, "b": {"type": "local", "command": "x", "args": [], "timeoutMs": 3, "foo": 1}});
    assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), expected);
    assert!(text.starts_with("{\n  \"a\": {\n"), "pretty, and sorted: {text}");
    assert_eq!(std::fs::metadata(place.file("mcp")).expect("a file").permissions().mode() & 0o777, 0o644);
    for _ in 0..2 {
        assert_eq!(place.entry(Method::DELETE, "mcp", "b", None).await, (204, Value::Null));
    }
    let (status, problem) = place.entry(Method::GET, "mcp", "b", None).await;
    assert_eq!((status, &problem["sessionId"]), (404, &json!("mcp:b")), "{problem}");
    assert_eq!(problem["type"], "urn:sandbox-agent:error:session_not_found");
}

#[tokio::test]
async fn skills_are_kept_in_the_directory() {
    let place = Place::new();
    let source = json!({"type": "github", "source": "o/r", "skills": ["a"], "ref": "main", "subpath": "p"});
    place.put("skills", "s", json!({"sources": [source]})).await;
    place.put("skills", "any name ü/..", json!({"sources": []})).await;
    assert_eq!(place.get("skills", "s").await, json!({"sources": [source]}));
    assert_eq!(place.get("skills", "any name ü/..").await, json!({"sources": []}));
    let (status, problem) = place.entry(Method::GET, "skills", "t", None).await;
    assert_eq!((status, &problem["sessionId"]), (404, &json!("skills:t")), "{problem}");
    let (status, _) = place.entry(Method::PUT, "skills", "s", Some(&json!({"sources": [{"type": "git"}]}))).await;
    assert_eq!(status, 422);
    assert_eq!(place.entry(Method::DELETE, "skills", "s", None).await.0, 204);
    assert_eq!(place.entry(Method::GET, "skills", "s", None).await.0, 404);
}

#[tokio::test]
async fn parameters_are_asked_for() {
    let place = Place::new();
    for (kind, parameter) in [("mcp", "mcpName"), ("skills", "skillName")] {
        for (query, word) in [
            (vec![(parameter, "a")], "missing field `directory`"),
            (vec![("directory", "/d")], &*format!("missing field `{parameter}`")),
            (vec![("directory", " "), (parameter, "a")], "missing required 'directory' query parameter"),
            (vec![("directory", "/d"), (parameter, " ")], &*format!("missing required '{parameter}' query parameter")),
        ] {
            let (status, problem) = place.ask(Method::GET, kind, &query, None).await;
            assert_eq!(status, 400, "{problem}");
            assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(word)), "{problem}");
        }
    }
    let (status, _) = place.entry(Method::PUT, "mcp", "a", Some(&json!({"type": "zzz"}))).await;
    assert_eq!(status, 422);
    assert!(!place.file("mcp").exists());
    assert_eq!(place.entry(Method::DELETE, "mcp", "a", None).await.0, 204, "nothing is there");
    assert!(!place.directory().exists());
}

#[tokio::test]
async fn an_entry_that_is_unreadable_harms_no_other() {
    let place = Place::new();
    place.write("mcp", r#"{"new": {"type": "carrier-pigeon", "loft": 7}, "old": {"type": "local", "command": "x"}}"#);
    assert_eq!(place.get("mcp", "old").await["command"], "x");
    let (status, problem) = place.entry(Method::GET, "mcp", "new", None).await;
    let detail = problem["detail"].as_str().unwrap_or_default();
    assert_eq!(status, 400, "{problem}");
    assert!(detail.starts_with(&format!("invalid request: invalid config file {}: ", place.file("mcp").display())), "{detail}");
    place.put("mcp", "old", json!({"type": "local", "command": "y"})).await;
    let kept: Value = serde_json::from_str(&read(&place.file("mcp"))).expect("JSON");
    assert_eq!(kept["new"], json!({"type": "carrier-pigeon", "loft": 7}));
    place.put("mcp", "new", json!({"type": "local", "command": "z"})).await;
    assert_eq!(place.get("mcp", "new").await["command"], "z");
}

#[tokio::test]
async fn a_file_that_is_no_object_is_left_alone() {
    let place = Place::new();
    place.write("skills", "");
    assert_eq!(place.entry(Method::GET, "skills", "a", None).await.0, 404, "an empty file has no entries");
    place.write("skills", "[1]");
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let (status, problem) = place.entry(method.clone(), "skills", "a", Some(&json!({"sources": []}))).await;
        assert_eq!(status, 400, "{method} {problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("invalid config file")), "{problem}");
    }
    assert_eq!(read(&place.file("skills")), "[1]");
}

#[tokio::test]
async fn changes_at_the_same_time_lose_nothing() {
    let place = Place::new();
    let names: Vec<String> = (0..40).map(|number| format!("server-{number}")).collect();
    let config = json!({"type": "local", "command": "x"});
    let puts = names.iter().map(|name| place.entry(Method::PUT, "mcp", name, Some(&config)));
    assert!(futures_util::future::join_all(puts).await.iter().all(|(status, _)| *status == 204));
    let kept: serde_json::Map<String, Value> = serde_json::from_str(&read(&place.file("mcp"))).expect("JSON");
    assert_eq!(kept.len(), names.len());
    let files = std::fs::read_dir(place.file("mcp").parent().expect("a folder")).expect("a folder").count();
    assert_eq!(files, 1, "no temporary file is left");
}

#[tokio::test]
async fn bounds_and_a_place_that_cannot_be_written_have_problems() {
    let options = Options::default()
        .env("SANDBOXD_DIRECTORY_CONFIG_ENTRIES_MAX", "1")
        .env("SANDBOXD_DIRECTORY_CONFIG_NAME_MAX_BYTES", "4")
        .env("SANDBOXD_DIRECTORY_CONFIG_MAX_BYTES", "100");
    let place = Place::with(&options);
    let config = json!({"type": "local", "command": "x"});
    let long = json!({"type": "local", "command": "x".repeat(100)});
    assert_eq!(place.entry(Method::PUT, "mcp", "longer", Some(&config)).await.0, 400);
    assert_eq!(place.entry(Method::PUT, "mcp", "a", Some(&long)).await.0, 413);
    place.put("mcp", "a", config.clone()).await;
    assert_eq!(place.entry(Method::PUT, "mcp", "b", Some(&config)).await.0, 409);
    let file = place.file("mcp").display().to_string();
    let (status, problem) = place.ask(Method::PUT, "mcp", &[("directory", &file), ("mcpName", "a")], Some(&config)).await;
    assert_eq!((status, &problem["type"]), (507, &json!("urn:sandbox-agent:error:storage_unavailable")), "{problem}");
}
