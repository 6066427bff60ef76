use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::{Value, json};

use super::support::{BIN, Home, Server, free_port};

const HELLO: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":1}}"#;

#[test]
fn agents_are_listed_and_reported() {
    let home = Home::new();
    let server = Server::start(&home, &["--no-token"]);
    let list = home.run(&["api", "agents", "list", "--endpoint", &server.url]);
    assert!(list.out.starts_with("{\n  \"agents\": [\n"), "{list:?}");
    let list = list.json();
    assert!(list["agents"].as_array().expect("a list").iter().any(|agent| agent["id"] == "mock"));

    let report = home.run(&["api", "agents", "report", "-e", &format!("{}/", server.url)]).json();
    assert_eq!(report["endpoint"], server.url.as_str());
    assert!(report["generatedAtMs"].as_i64().is_some_and(|at| at > 0));
    let mock = report["agents"].as_array().expect("a list").iter().find(|agent| agent["id"] == "mock").expect("the mock");
    assert_eq!(mock["models"]["currentValue"], "mock");
    assert_eq!(mock["models"]["values"], json!([{"value": "mock", "name": "Mock"}, {"value": "mock-fast", "name": "Mock Fast"}]));
    let amp = report["agents"].as_array().expect("a list").iter().find(|agent| agent["id"] == "amp").expect("amp");
    assert_eq!(amp["thoughtLevels"], json!({"values": []}));
}

#[test]
fn an_agent_is_installed_through_the_server() {
    let home = Home::new();
    let server = Server::start(&home, &["--no-token"]);
    let report = home.run(&["api", "agents", "install", "mock", "--reinstall", "-e", &server.url]).json();
    assert_eq!((&report["already_installed"], &report["artifacts"][0]["source"]), (&json!(false), &json!("builtin")));
    let unknown = home.run(&["api", "agents", "install", "nope", "-e", &server.url]);
    unknown.fails(1, "unexpected http status: 400 Bad Request");
}

#[test]
fn a_message_is_posted_streamed_and_the_server_closed() {
    let home = Home::new();
    let server = Server::start(&home, &["--no-token"]);
    fn acp<'a>(url: &'a str, args: &[&'a str]) -> Vec<&'a str> {
        [&["api", "acp"], args, &["-e", url, "--server-id", "a/b ?"]].concat()
    }
    let answer = home.run(&acp(&server.url, &["post", "--agent", "mock", "--json", HELLO])).json();
    assert_eq!((&answer["id"], &answer["result"]["protocolVersion"]), (&json!(1), &json!(1)));
    home.write("m.json", r#"{"jsonrpc":"2.0","method":"note"}"#);
    assert_eq!(home.run(&acp(&server.url, &["post", "--json-file", "m.json"])).ok().out, "");
    let piped = home
        .run_with_stdin(&acp(&server.url, &["post", "--json-file", "-"]), r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#)
        .json();
    assert_eq!(piped["id"], 2);
    assert_eq!(home.run(&["api", "acp", "list", "-e", &server.url]).json()["servers"][0]["serverId"], "a/b ?");

    let mut command = home.command(BIN, &acp(&server.url, &["stream", "--last-event-id", "1"]));
    let mut stream = command.stdout(Stdio::piped()).spawn().expect("it runs");
    let mut lines = BufReader::new(stream.stdout.take().expect("piped")).lines().map(|line| line.expect("a line"));
    assert!(lines.any(|line| line == "id: 2"), "frames come while the stream is open");
    assert_eq!(home.run(&acp(&server.url, &["close"])).ok().out, "");
    assert!(lines.any(|line| line == "event: end"), "closing ends the stream");
    assert!(stream.wait().expect("it ends").success());
    home.run(&acp(&server.url, &["stream"])).fails(1, "unexpected http status: 404 Not Found");
}

#[test]
fn a_reader_that_leaves_ends_the_stream_quietly() {
    let home = Home::new();
    let server = Server::start(&home, &["--no-token"]);
    home.run(&["api", "acp", "post", "--server-id", "s", "--agent", "mock", "--json", HELLO, "-e", &server.url]).ok();
    // The stream can only notice at its next write, so messages go on making some.
    let script = format!(
        "{{ {BIN} api acp stream --server-id s -e {url} | head -n 1; touch left; }} &
         until [ -e left ]; do {BIN} api acp post --server-id s --json '{HELLO}' -e {url} >/dev/null; done; wait",
        url = server.url
    );
    let output = home.command("sh", &["-c", &script]).output().expect("it runs");
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn the_token_comes_from_flag_file_or_environment() {
    let home = Home::new();
    let server = Server::start(&home, &["--token", "s3cret"]);
    let list = ["api", "agents", "list", "-e", &server.url];
    let refused = home.run(&list).fails(1, "unexpected http status: 401 Unauthorized");
    let (problem, _) = refused.err.rsplit_once("sandboxd:").expect("a problem and a line");
    assert_eq!(serde_json::from_str::<Value>(problem).expect("a problem")["status"], 401);
    assert_eq!(refused.out, "");
    home.run(&[&list[..], &["-t", "s3cret"]].concat()).ok();
    home.write("token", "s3cret\n");
    home.run(&[&list[..], &["--token-file", "token"]].concat()).ok();
    let mut command = home.command(BIN, &list);
    assert!(command.env("SANDBOXD_TOKEN", "s3cret").output().expect("it runs").status.success());
}

#[test]
fn a_proxy_is_not_asked_for_loopback() {
    let home = Home::new().env("http_proxy", "http://127.0.0.1:1").env("ALL_PROXY", "http://127.0.0.1:1");
    let server = Server::start(&home, &["--no-token"]);
    home.run(&["api", "agents", "list", "-e", &server.url]).ok();
    home.run(&["api", "agents", "list", "-e", &server.url.replace("127.0.0.1", "localhost")]).ok();
}

#[test]
fn mistakes_say_what_to_do() {
    let home = Home::new();
    let nobody = format!("http://127.0.0.1:{}", free_port());
    home.run(&["api", "agents", "list", "-e", &nobody]).fails(1, "is the server running there?");
    home.run(&["api", "agents", "list", "-e", "127.0.0.1:2468"]).fails(2, "give it like http://127.0.0.1:2468");
    home.run(&["api", "acp", "post", "--server-id", "s", "-e", &nobody]).fails(1, "--json JSON or --json-file FILE");
    let both = ["api", "acp", "post", "--server-id", "s", "--json", "{}", "--json-file", "x", "-e", &nobody];
    home.run(&both).fails(1, "--json JSON or --json-file FILE");
    assert_eq!(home.run(&["api", "acp", "close", "--server-id", ".."]).code, Some(2));
    for group in [&["api"][..], &["api", "acp"], &["api", "agents"], &["credentials"], &["daemon"], &["install-agent"]] {
        assert_eq!(home.run(group).code, Some(2), "{group:?}");
    }
}
