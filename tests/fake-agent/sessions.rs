//! Sessions of the fake agent (`--sessions`). A prompt's first text block that the client itself wrote is an order:
//!
//! | text | what happens |
//! |---|---|
//! | `stall` | no answer until `session/cancel` |
//! | `deaf` | no answer, and `session/cancel` is ignored |
//! | `late` | on `session/cancel` the turn ends as if nothing had happened |
//! | `die CODE` | the process exits in mid-turn |
//! | `ask` | asks permission and answers once that is decided; the permission's answer is said |
//! | `asks later` | answers, then asks permission between turns |
//! | `flood N BYTES` | N chunks of so many bytes |
//! | `sh SCRIPT` | a shell runs it where the session works; each line that it prints is a `session/update` |
//! | anything else | said, and the turn ends |
//!
//! Capabilities come from arguments: `--no-load`, `--resume`, `--close`, `--delete`, `--steer`; `--forgets` refuses to load
//! and resume; `--keeps PATH` does so for sessions that aren't in the file, into which new ones go; `--strict` ids that it didn't make;
//! `--new-ms N` makes a session late.
//! `--record PATH` appends every message about sessions to a file, one JSON object per line.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::{answer, notify, raw};

static OPEN: Mutex<Vec<Open>> = Mutex::new(Vec::new());
static CWDS: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());
static MADE: AtomicU64 = AtomicU64::new(0);

/// A prompt that isn't answered yet.
struct Open {
    session: String,
    id: Value,
    order: String,
    asked: String,
}

fn has(flag: &str) -> bool {
    std::env::args().any(|arg| arg == flag)
}

/// True when the message was about sessions.
pub fn handle(message: &Value) -> bool {
    if !has("--sessions") {
        return false;
    }
    let (id, params) = (&message["id"], &message["params"]);
    let method = message["method"].as_str().unwrap_or_default();
    if method.contains("session/") {
        record(message);
    }
    match method {
        "initialize" => answer(id, capabilities()),
        "session/new" => {
            if let Some(ms) = std::env::args().skip_while(|arg| arg != "--new-ms").nth(1) {
                std::thread::sleep(std::time::Duration::from_millis(ms.parse().expect("a number")));
            }
            let number = MADE.fetch_add(1, Ordering::Relaxed);
            let session = format!("fake-{}-{number}", std::process::id());
            append_to("--keeps", &session);
            let cwd = params["cwd"].as_str().unwrap_or_default().to_owned();
            CWDS.lock().expect("free").insert(session.clone(), cwd);
            answer(id, json!({"sessionId": session}));
        }
        "session/load" | "session/resume"
            if has("--forgets") || is_lost(&params["sessionId"]) || has("--strict") && !is_ours(params) =>
        {
            refuse(id, "no such session")
        }
        "session/load" => {
            let replayed = json!({"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": "replayed"}});
            notify("session/update", json!({"sessionId": params["sessionId"], "update": replayed}));
            answer(id, json!({}));
        }
        "session/resume" | "session/close" | "session/delete" => answer(id, json!({})),
        "session/prompt" => prompt(id, params),
        "session/cancel" => cancelled(params["sessionId"].as_str().unwrap_or_default()),
        "fake/tell" => {
            say(params["sessionId"].as_str().unwrap_or_default(), params["text"].as_str().unwrap_or_default());
            answer(id, json!({}));
        }
        "_session/steering" => {
            let session = params["sessionId"].as_str().unwrap_or_default();
            let is_open = OPEN.lock().expect("free").iter().any(|open| open.session == session);
            answer(id, json!({"outcome": if is_open { "injected" } else { "promptRequired" }}));
        }
        "" => decided(id, &message["result"]),
        _ => return false,
    }
    true
}

/// A session that an agent of this kind made.
fn is_ours(params: &Value) -> bool {
    params["sessionId"].as_str().is_some_and(|session| session.starts_with("fake-"))
}

fn capabilities() -> Value {
    let mut session = json!({});
    for capability in ["resume", "close", "delete"] {
        if has(&format!("--{capability}")) {
            session[capability] = json!({});
        }
    }
    let mut agent = json!({"loadSession": !has("--no-load"), "sessionCapabilities": session});
    if has("--steer") {
        agent["_meta"] = json!({"steering": {"supported": true}});
    }
    json!({"protocolVersion": 1, "agentCapabilities": agent})
}

fn prompt(id: &Value, params: &Value) {
    let blocks = params["prompt"].as_array().cloned().unwrap_or_default();
    let mut texts = blocks.iter().filter_map(|block| block["text"].as_str());
    let text = texts.find(|text| !text.contains("<transcript>")).unwrap_or_default().to_owned();
    let session = params["sessionId"].as_str().unwrap_or_default().to_owned();
    let words: Vec<_> = text.split(' ').collect();
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<usize>().ok()).unwrap_or(1);
    match words[0] {
        "stall" | "deaf" | "late" | "ask" => {
            let asked = format!("ask-{}", MADE.fetch_add(1, Ordering::Relaxed));
            if words[0] == "ask" {
                say(&session, "may I?");
                ask(&asked, &session);
            }
            OPEN.lock().expect("free").push(Open { session, id: id.clone(), order: words[0].to_owned(), asked });
        }
        "die" => {
            say(&session, "dying");
            eprintln!("fake agent: dying in mid-turn");
            std::process::exit(i32::try_from(number(1)).unwrap_or(1));
        }
        "asks" => {
            answer(id, json!({"stopReason": "end_turn"}));
            ask(&format!("ask-{}", MADE.fetch_add(1, Ordering::Relaxed)), &session);
        }
        "sh" => {
            let (id, script) = (id.clone(), text["sh".len()..].to_owned());
            std::thread::spawn(move || {
                run(&session, &script);
                answer(&id, json!({"stopReason": "end_turn"}));
            });
        }
        "flood" => {
            let chunk = "x".repeat(number(2));
            (0..number(1)).for_each(|_| say(&session, &chunk));
            answer(id, json!({"stopReason": "end_turn"}));
        }
        _ => {
            say(&session, &text);
            answer(id, json!({"stopReason": "end_turn"}));
        }
    }
}

fn run(session: &str, script: &str) {
    let cwd = CWDS.lock().expect("free").get(session).cloned().unwrap_or_default();
    let mut command = Command::new("sh");
    let mut shell =
        command.args(["-ec", script]).current_dir(cwd).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("sh");
    for line in BufReader::new(shell.stdout.take().expect("piped")).lines() {
        let update: Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
        notify("session/update", json!({"sessionId": session, "update": update}));
    }
    assert!(shell.wait().expect("an end").success(), "{script}");
}

fn ask(id: &str, session: &str) {
    let option = |kind: &str| json!({"optionId": kind, "kind": kind, "name": kind});
    let options = json!([option("allow_once"), option("reject_once")]);
    let call = json!({"toolCallId": id, "title": "something", "kind": "execute"});
    let params = json!({"sessionId": session, "toolCall": call, "options": options});
    let question = json!({"jsonrpc": "2.0", "id": id, "method": "session/request_permission", "params": params});
    raw(format!("{question}\n").as_bytes());
}

fn decided(id: &Value, result: &Value) {
    let mut all = OPEN.lock().expect("free");
    let Some(at) = all.iter().position(|open| *id == open.asked.as_str()) else { return };
    let open = all.remove(at);
    drop(all);
    say(&open.session, &result["outcome"].to_string());
    let is_cancelled = result["outcome"]["outcome"] == "cancelled";
    answer(&open.id, json!({"stopReason": if is_cancelled { "cancelled" } else { "end_turn" }}));
}

/// As ACP has it, a turn that waits for a permission ends once that is answered.
fn cancelled(session: &str) {
    let mut all = OPEN.lock().expect("free");
    let is_ended = |open: &mut Open| open.session == session && matches!(open.order.as_str(), "stall" | "late");
    for open in all.extract_if(.., is_ended) {
        answer(&open.id, json!({"stopReason": if open.order == "late" { "end_turn" } else { "cancelled" }}));
    }
}

fn say(session: &str, text: &str) {
    let update = json!({"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": text}});
    notify("session/update", json!({"sessionId": session, "update": update}));
}

fn refuse(id: &Value, why: &str) {
    raw(format!("{}\n", json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32002, "message": why}})).as_bytes());
}

fn record(message: &Value) {
    append_to("--record", &message.to_string());
}

fn path_of(flag: &str) -> Option<String> {
    let args: Vec<String> = std::env::args().collect();
    args.iter().position(|arg| arg == flag).map(|at| args[at + 1].clone())
}

/// Adds a line to the file that an argument names.
fn append_to(flag: &str, line: &str) {
    let Some(path) = path_of(flag) else { return };
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).expect("a file");
    file.write_all(format!("{line}\n").as_bytes()).expect("written");
}

fn is_lost(session: &Value) -> bool {
    let kept = path_of("--keeps").map(|path| std::fs::read_to_string(path).unwrap_or_default());
    kept.is_some_and(|kept| !kept.lines().any(|line| *session == line))
}
