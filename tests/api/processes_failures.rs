//! What is refused, and what children must not get.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::processes_support::{create, ended, output, page, post, run, sh, until};
use crate::support::{Home, Options, Server};

#[tokio::test]
async fn what_cannot_be_started_is_named() {
    let home = Home::new();
    let server = Server::start(&home);
    let file = |name: &str, text: &str, mode: u32| {
        let path = home.path().join(name);
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("a mode");
        path.display().to_string()
    };
    let plain = file("plain", "#!/bin/sh\n", 0o644);
    let lost = file("lost", "#!/nowhere/interpreter\n", 0o755);
    let folder = home.path().display().to_string();
    let cases = [
        (json!({"command": "no-such-program"}), 422, "executable_not_found"),
        (json!({"command": "/nowhere/program"}), 422, "executable_not_found"),
        (json!({"command": format!("{plain}/below")}), 422, "executable_not_found"),
        (json!({"command": plain}), 403, "permission_denied"),
        (json!({"command": folder}), 403, "permission_denied"),
        (json!({"command": "true", "cwd": "/nowhere"}), 422, "cwd_not_found"),
        (json!({"command": "true", "cwd": plain}), 422, "cwd_not_found"),
        (json!({"command": ""}), 400, "invalid_request"),
        (json!({"command": " \t\n"}), 400, "invalid_request"),
        (json!({"command": "true", "args": ["a\u{0}b"]}), 400, "invalid_request"),
        (json!({"command": "tr\u{0}ue"}), 400, "invalid_request"),
        (json!({"command": "true", "env": {"A": "a\u{0}b"}}), 400, "invalid_request"),
        (json!({"command": "true", "env": {"A=B": "c"}}), 400, "invalid_request"),
        (json!({"command": "true", "env": {"": "c"}}), 400, "invalid_request"),
        (json!({"command": "true", "cwd": "/tmp\u{0}"}), 400, "invalid_request"),
        (json!({"command": "true", "stdin": "!", "stdinEncoding": "base64"}), 400, "invalid_request"),
        (json!({"command": "true", "idempotencyKey": ""}), 400, "invalid_request"),
        (json!({"command": "true", "args": ["x".repeat(200_000)]}), 400, "invalid_request"),
        (json!({"command": lost}), 502, "stream_error"),
    ];
    for (spec, status, slug) in &cases {
        for path in ["/v1/processes", "/v1/processes/run"] {
            let (got, problem) = server.send(path, spec).await;
            assert_eq!(got, *status, "{path} {}: {problem}", spec["command"]);
            assert_eq!(problem["type"], format!("urn:sandbox-agent:error:{slug}"), "{path}: {problem}");
        }
    }
    let (_, list) = server.get("/v1/processes?owner=all").await;
    assert_eq!(list["processes"], json!([]), "nothing was started");
    let mut ids = Vec::new();
    for _ in 0..64 {
        ids.push(create(&server, json!({"command": "cat"})).await); // and no place was lost
    }
    home_empties(server, &home);
}

fn home_empties(server: Server, home: &Home) {
    assert_eq!(server.stop(), Some(0));
    home.assert_empty();
}

#[tokio::test]
async fn what_comes_too_late_or_too_early_is_refused() {
    let home = Home::new();
    let server = Server::start(&home);
    let exited = create(&server, sh("exit 0", json!({}))).await;
    ended(&server, &exited).await;
    let hi = json!({"data": "aGkK"});
    let closed = create(&server, sh("cat; exec sleep 1000", json!({}))).await;
    post(&server, &format!("/v1/processes/{closed}/input"), json!({"eof": true})).await;
    let never_open = create(&server, sh("exec sleep 1000", json!({"closeStdin": true}))).await;
    for (path, body, words) in [
        (format!("/v1/processes/{exited}/input"), hi.clone(), "process is not running"),
        (format!("/v1/processes/{exited}/input"), json!({"eof": true}), "process is not running"),
        (format!("/v1/processes/{exited}/signal"), json!({"signal": "INT"}), "process is not running"),
        (format!("/v1/processes/{closed}/input"), hi.clone(), "stdin"),
        (format!("/v1/processes/{never_open}/input"), hi, "stdin"),
    ] {
        let (status, problem) = server.send(&path, &body).await;
        assert_eq!(status, 409, "{path}: {problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(words)), "{path}: {problem}");
    }
    assert_eq!(crate::processes_support::delete(&server, &closed).await, 409);
    assert_eq!(crate::processes_support::delete(&server, &exited).await, 204);
    let verbs = ["stop", "kill", "wait", "input", "signal"];
    for verb in verbs {
        let body = match verb {
            "input" => json!({"eof": true}),
            "signal" => json!({"signal": "INT"}),
            _ => json!({}),
        };
        assert_eq!(server.send(&format!("/v1/processes/{exited}/{verb}"), &body).await.0, 404, "{verb}");
    }
    for path in ["", "/logs", "/logs?follow=true", "/search?pattern=x", "/screen"] {
        assert_eq!(server.get(&format!("/v1/processes/{exited}{path}")).await.0, 404, "{path}");
    }
}

fn descriptors(server: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("its descriptors").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn children_get_no_descriptor_and_no_secret_and_leave_none_open() {
    let home = Home::new();
    let inherited = nix::unistd::pipe().expect("a pipe"); // not closed on exec: the server gets it
    let options = Options::default().env("SANDBOXD_TOKEN", "s3cret-token").env("PLAIN", "handed-on");
    let mut server = Server::start_with(&home, &Options { args: vec!["--host".into(), "127.0.0.1".into()], ..options });
    let mut headers = reqwest::header::HeaderMap::new();
    headers.insert("authorization", "Bearer s3cret-token".parse().expect("a header"));
    server.http = reqwest::Client::builder().no_proxy().default_headers(headers).build().expect("a client");
    // Without the descriptor by which the shell reads the list.
    let script = "for fd in /proc/$$/fd/*; do test -e $fd && echo fd ${fd##*/}; done; env";
    let check = |text: &str| {
        let open: Vec<_> = text.lines().filter_map(|line| line.trim_end().strip_prefix("fd ")).collect();
        assert_eq!(open, ["0", "1", "2"]);
        assert!(text.contains("PLAIN=handed-on") && !text.contains("s3cret") && !text.contains("SANDBOXD_TOKEN"), "{text}");
    };
    // While others run, whose pipes could be handed on.
    for _ in 0..5 {
        create(&server, json!({"command": "cat"})).await;
        create(&server, json!({"command": "cat", "tty": true})).await;
    }
    let result = run(&server, sh(script, json!({"limits": {"pids": 50}}))).await;
    check(result["stdout"].as_str().expect("text"));
    check(run(&server, sh(script, json!({"stdin": "x"}))).await["stdout"].as_str().expect("text"));
    for tty in [false, true] {
        let id = create(&server, sh(script, json!({"tty": tty}))).await;
        ended(&server, &id).await;
        check(&String::from_utf8(output(&page(&server, &id, "").await)).expect("text"));
    }
    let one_more = async |number: usize| {
        let spec = sh("echo x; sleep 1000 & exit 0", json!({"tty": number.is_multiple_of(3)}));
        match number % 4 {
            0 => _ = run(&server, sh("echo x", json!({}))).await,
            1 => {
                let id = create(&server, spec).await;
                ended(&server, &id).await;
                post(&server, &format!("/v1/processes/{id}/kill"), json!({})).await;
            }
            _ => {
                let id = create(&server, sh("echo x", json!({"tty": number.is_multiple_of(3)}))).await;
                ended(&server, &id).await;
            }
        }
    };
    let all = |count: usize| futures_util::StreamExt::buffer_unordered(futures_util::stream::iter((0..count).map(one_more)), 8);
    futures_util::StreamExt::for_each(all(16), |()| async {}).await; // what stays open for good is open now
    let before = descriptors(&server);
    futures_util::StreamExt::for_each(all(300), |()| async {}).await;
    until("its descriptors' end", || descriptors(&server) <= before + 2).await; // connections come and go
    let left: Vec<Value> =
        server.get("/v1/processes?owner=all&status=running").await.1["processes"].as_array().expect("a list").clone();
    assert_eq!(left.len(), 10, "{left:?}");
    drop(inherited);
}
