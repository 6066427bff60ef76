//! What a directory configures reaches the agent with session/new, checked before.

use serde_json::{Value, json};

use crate::sessions_support::{create, ended, events, fake, get, heard, request, say};
use crate::support::{Home, Options, Server};

/// An MCP server in a few lines of shell: it has two tools.
const MCP_SERVER: &str = r#"#!/bin/sh
while read -r line; do
  id=$(printf '%s' "$line" | sed -n 's/.*"id":\([0-9]*\).*/\1/p')
  case "$line" in
    *'"initialize"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"s","version":"1"}}}\n' "$id" ;;
    *'"tools/list"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"tools":[{"name":"a","inputSchema":{"type":"object"}},{"name":"b","inputSchema":{"type":"object"}}]}}\n' "$id" ;;
  esac
done
"#;

async fn configure(server: &Server, directory: &str, name: &str, config: &Value) {
    let path = format!("/v1/config/mcp?directory={directory}&mcpName={name}");
    let (status, body) = request(server, "PUT", &path, Some(config), None).await;
    assert_eq!(status, 204, "{body}");
}

#[tokio::test]
async fn mcp_servers_of_the_directory_are_checked_and_given_to_the_agent() {
    let home = Home::new();
    fake(&home, "");
    let script = home.path().join("mcp.sh");
    std::fs::write(&script, MCP_SERVER).expect("a script");
    let server = Server::start(&home);
    let directory = home.path().to_str().expect("UTF-8").to_owned();
    let works = json!({"type": "local", "command": "sh", "args": [script], "env": {"WHO": "${HOME}"}});
    configure(&server, &directory, "works", &works).await;
    configure(&server, &directory, "broken", &json!({"type": "local", "command": "sh", "args": ["-c", "exit 3"]})).await;
    configure(&server, &directory, "unknown", &json!({"type": "local", "command": "sh", "env": {"A": "${NO_SUCH_VARIABLE}"}}))
        .await;

    let spec = json!({"agent": "amp", "cwd": directory, "mcpPolicy": "fail"});
    let (status, problem) = server.send("/v1/sessions", &spec).await;
    assert_eq!(status, 502, "{problem}");
    let detail = problem["detail"].as_str().expect("a detail");
    assert!(detail.contains("broken") && detail.contains("NO_SUCH_VARIABLE"), "{problem}");
    assert!(heard(&home, "session/new").is_empty(), "no session was opened");

    let id = create(&server, json!({"agent": "amp", "cwd": directory})).await;
    let report = get(&server, &id).await["workspace"]["mcp"].clone();
    let status = |name: &str| {
        let of = report.as_array().and_then(|all| all.iter().find(|outcome| outcome["name"] == name)).cloned();
        of.unwrap_or_else(|| panic!("{name} in {report}"))
    };
    assert_eq!((&status("works")["status"], &status("works")["tools"]), (&json!("ready"), &json!(2)));
    assert_eq!(status("broken")["status"], "failed");
    assert_eq!(status("unknown")["status"], "left_out");
    let given = heard(&home, "session/new").pop().expect("a session")["params"]["mcpServers"].clone();
    let names: Vec<_> = given.as_array().into_iter().flatten().filter_map(|server| server["name"].as_str()).collect();
    assert_eq!(names, ["works"], "{given}");
    assert_eq!(given[0]["env"], json!([{"name": "WHO", "value": directory}]), "references are resolved");
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test]
async fn what_variables_hold_reaches_the_agent_and_no_log() {
    let home = Home::new();
    fake(&home, "");
    let value = "value-of-the-setting-77";
    let options = Options::default().env("FOO_SETTING", value);
    let server = Server::start_with(&home, &options);
    let directory = home.path().to_str().expect("UTF-8").to_owned();
    let config = json!({"type": "local", "command": "sh", "args": ["${HOME}/x"], "env": {"FOO": "${FOO_SETTING}"}});
    configure(&server, &directory, "needs", &config).await;
    let id = create(&server, json!({"agent": "amp", "cwd": directory, "mcpPolicy": "skip"})).await;
    let given = |method: &str| heard(&home, method).pop().expect("opened")["params"]["mcpServers"][0].clone();
    assert_eq!(given("session/new")["env"][0]["value"], value);
    let turn = say(&server, &id, &format!("echo {value}")).await;
    ended(&server, &id, &turn).await;
    server.kill();
    // Known again when the session is: what its agent says isn't stored either.
    let server = Server::start_with(&home, &options);
    let turn = say(&server, &id, "hello").await;
    ended(&server, &id, &turn).await;
    assert_eq!(given("session/load")["env"][0]["value"], value, "it is restored with what it had");
    let turn = say(&server, &id, &format!("again {value}")).await;
    ended(&server, &id, &turn).await;
    let told = json!(events(&server, &id, "").await).to_string();
    assert!(told.contains("again [redacted]") && !told.contains(value), "{told}");
    let export = server.http.get(server.url(&format!("/v1/sessions/{id}/export"))).send().await.expect("an answer");
    let export = export.text().await.expect("text");
    assert!(export.contains("[redacted]") && !export.contains(value), "{export}");
    assert_eq!(server.stop(), Some(0));
    let database = rusqlite::Connection::open(home.data().join("sandboxd.db")).expect("a database");
    let mut all = database.prepare("SELECT CAST(payload AS TEXT) FROM events").expect("a query");
    let all = all.query_map([], |row| row.get::<_, String>(0)).expect("rows");
    let log = all.collect::<Result<Vec<_>, _>>().expect("texts").concat();
    assert!(log.contains(r#""method":"session/new""#) && !log.contains(value), "the raw envelopes are clean, too");
    assert!(log.contains(&format!("{directory}/x")), "where things are is no secret");
}
