//! An ACP agent that misbehaves on request. Each request names what it should do; anything else is answered with
//! `{"echo": params}`. Started with `--exit CODE` it dies at once, with `--silent` it never answers.

#![allow(clippy::disallowed_methods, clippy::zombie_processes)] // it leaves processes behind on purpose

mod sessions;

use std::io::{BufRead as _, Write as _};
use std::time::Duration;

use serde_json::{Value, json};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == "--exit") {
        eprintln!("fake agent: last words");
        std::process::exit(args[at + 1].parse().expect("a code"));
    }
    let number_of = |name: &str| args.iter().position(|arg| arg == name).map(|at| args[at + 1].parse().expect("a number"));
    let initialize_ms = number_of("--initialize-ms").unwrap_or(0);
    let silent = args.iter().any(|arg| arg == "--silent");
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let Ok(message) = serde_json::from_str::<Value>(&line) else {
            raw(format!("{{\"jsonrpc\":\"2.0\",\"method\":\"fake/bad_line\",\"params\":{{\"bytes\":{}}}}}\n", line.len())
                .as_bytes());
            continue;
        };
        if !silent {
            if message["method"] == "initialize" {
                std::thread::sleep(Duration::from_millis(initialize_ms));
            }
            if let Some(method) = message["method"].as_str().filter(|_| args.iter().any(|arg| arg == "--tell")) {
                notify("fake/heard", json!({"method": method}));
            }
            if !sessions::handle(&message) {
                handle(&message);
            }
        }
    }
    if args.iter().any(|arg| arg == "--ignore-eof") {
        loop {
            std::thread::sleep(Duration::from_secs(3600));
        }
    }
}

fn handle(message: &Value) {
    let (id, params) = (&message["id"], &message["params"]);
    let number = |key: &str| params[key].as_u64().unwrap_or_default();
    match message["method"].as_str().unwrap_or_default() {
        "initialize" => answer(id, json!({"protocolVersion": 1, "agentCapabilities": {"loadSession": true}})),
        "session/new" => answer(id, json!({"sessionId": format!("fake-{}", std::process::id())})),
        "session/load" => {
            for part in 0..3 {
                notify("session/update", json!({"sessionId": params["sessionId"], "update": {"replayed": part}}));
            }
            answer(id, Value::Null);
        }
        "fake/stall" => {}
        "fake/die" => {
            eprintln!("fake agent: dying in mid-turn");
            std::process::exit(i32::try_from(number("code")).unwrap_or(1));
        }
        "fake/abort" => std::process::abort(),
        "fake/flood" => {
            let text = "x".repeat(usize::try_from(number("bytes")).unwrap_or(0));
            for at in 0..number("count") {
                notify("fake/flooded", json!({"n": at, "text": text}));
            }
            answer(id, json!({"flooded": number("count")}));
        }
        "fake/rubbish" => {
            raw(b"this is not JSON\n\n  \n[1,2]\n");
            answer(id, json!({}));
        }
        "fake/blank" => {
            answer(id, json!({}));
            raw(b"\n");
        }
        "fake/half_character" => {
            raw(b"{\"method\":\"x\",\"params\":\"\xc3\"}\n");
            answer(id, json!({}));
        }
        "fake/half_line" => {
            raw(b"{\"jsonrpc\":\"2.0\",\"id\":");
            std::process::exit(0);
        }
        "fake/long_answer" => answer(id, json!({"text": "y".repeat(usize::try_from(number("bytes")).unwrap_or(0))})),
        "fake/unreadable_answer" => raw(format!("{{\"id\":{id},\"result\":\"")
            .as_bytes()
            .iter()
            .chain(b"\xc3\"}\n")
            .copied()
            .collect::<Vec<_>>()
            .as_slice()),
        "fake/long_ask" => {
            let text = "y".repeat(usize::try_from(number("bytes")).unwrap_or(0));
            raw(format!("{}\n", json!({"jsonrpc": "2.0", "id": id, "method": "fs/write_text_file", "params": {"text": text}}))
                .as_bytes());
        }
        "fake/twice" => {
            answer(id, json!({"answer": 1}));
            answer(id, json!({"answer": 2}));
        }
        "fake/ask" => {
            raw(format!(
                "{}\n",
                json!({"jsonrpc": "2.0", "id": params["id"], "method": "session/request_permission", "params": {}})
            )
            .as_bytes());
        }
        "fake/ask_about" => {
            let asked = json!({"jsonrpc": "2.0", "id": params["id"], "method": params["method"], "params": {"sessionId": params["sessionId"]}});
            raw(format!("{asked}\n").as_bytes());
            answer(id, json!({}));
        }
        "fake/say" => {
            notify(params["method"].as_str().unwrap_or_default(), json!({"sessionId": params["sessionId"]}));
            answer(id, json!({}));
        }
        "fake/close_stdout" => {
            // Without unsafe there is no close(1): the shell that started us gave a way out.
            answer(id, json!({}));
        }
        "fake/stop_reading" => {
            answer(id, json!({}));
            std::thread::sleep(Duration::from_secs(3600));
        }
        "fake/slow" => {
            let (id, wait) = (id.clone(), number("ms"));
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(wait));
                answer(&id, json!({"slept": wait}));
            });
        }
        "fake/family" => answer(id, json!({"pids": family()})),
        _ if message.get("method").is_none() => notify("fake/client_answered", json!({"id": id, "result": message["result"]})),
        method if message.get("id").is_none() => notify("fake/notified", json!({"method": method, "params": params})),
        _ => answer(id, json!({"echo": params})),
    }
}

/// A child, one in its own session, and one that daemonised itself: all sleep for an hour.
fn family() -> Vec<u32> {
    let start = |script: &str| {
        std::process::Command::new("sh")
            .args(["-c", script])
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .spawn()
    };
    let child = start("trap '' TERM; sleep 3600").expect("sh");
    let session = start("exec setsid sleep 3601").expect("setsid");
    let mut daemon = start("(setsid sh -c 'trap \"\" TERM HUP; sleep 3602; sleep 3603' >/dev/null 2>&1 &)").expect("sh");
    let _ = daemon.wait();
    vec![child.id(), session.id()]
}

fn answer(id: &Value, result: Value) {
    raw(format!("{}\n", json!({"jsonrpc": "2.0", "id": id, "result": result})).as_bytes());
}

fn notify(method: &str, params: Value) {
    raw(format!("{}\n", json!({"jsonrpc": "2.0", "method": method, "params": params})).as_bytes());
}

fn raw(bytes: &[u8]) {
    let mut stdout = std::io::stdout().lock();
    if stdout.write_all(bytes).and_then(|()| stdout.flush()).is_err() {
        std::process::exit(1);
    }
}
