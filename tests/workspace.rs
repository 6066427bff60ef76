//! What a session in a directory gets: MCP servers made with the official SDK, such that misbehave, and skills.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods)] // a test reads its environment itself

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use sandboxd::config::{Bounds, Env};
use sandboxd::processes::{ChildSpec, Children, Owner, Started, started_at_ticks};
use sandboxd::workspace::{McpOutcome, McpStatus, Prepared, SkillOutcome, SkillStatus, Workspace, WorkspaceConfig};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::runtime::Runtime;

/// One runtime and one processes room for all tests: a process has one subreaper.
static ROOM: LazyLock<(Runtime, Children)> = LazyLock::new(|| {
    let runtime = Runtime::new().unwrap();
    let children = runtime.block_on(Children::start("workspace-test", Env::read(), 1024));
    (runtime, children)
});

const PATIENCE: Duration = Duration::from_secs(30);

/// A directory to work in, and a room.
struct House {
    dir: tempfile::TempDir,
    workspace: Workspace,
}

impl House {
    fn new() -> Self {
        Self::with(Bounds { mcp_check_timeout_ms: 20_000, skills_git_fresh_ms: 1, ..Bounds::default() })
    }

    fn with(bounds: Bounds) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("work")).unwrap();
        let path = std::env::var_os("PATH").unwrap();
        let env = Env::from_pairs([("PATH", path), ("SECRET", "s3cret".into()), ("SANDBOXD_TOKEN", "t".into())]);
        let copies = dir.path().join("copies");
        let workspace = Workspace::new(WorkspaceConfig { children: ROOM.1.clone(), env, copies, bounds });
        Self { dir, workspace }
    }

    fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    fn configure(&self, kind: &str, config: &Value) {
        let folder = self.work().join(".sandbox-agent/config");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{kind}.json")), config.to_string()).unwrap();
    }

    fn prepare(&self, requested: Vec<Value>, check: bool) -> Prepared {
        let capabilities = json!({"mcpCapabilities": {"http": true, "sse": true}});
        let (workspace, work) = (self.workspace.clone(), self.work());
        let prepared = async move { workspace.prepare(&work, requested, &capabilities, check).await };
        ROOM.0.block_on(ROOM.0.spawn(prepared)).unwrap()
    }

    /// Configures one server and checks it.
    fn check(&self, config: Value) -> McpOutcome {
        self.configure("mcp", &json!({"x": config}));
        let Prepared { mcp_servers, mut report, .. } = self.prepare(Vec::new(), true);
        let outcome = report.mcp.pop().unwrap();
        assert!(report.mcp.is_empty() && report.problems.is_empty());
        assert_eq!(mcp_servers.len(), usize::from(outcome.status == McpStatus::Ready), "{outcome:?}");
        outcome
    }

    fn skills(&self, config: &Value) -> Vec<SkillOutcome> {
        self.configure("skills", config);
        self.prepare(Vec::new(), false).report.skills
    }
}

fn sdk_server() -> PathBuf {
    let npm = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/npm");
    assert!(npm.join("node_modules/@modelcontextprotocol/sdk").exists(), "run scripts/npm-install.sh tests/npm first");
    npm.join("lib/mcp_server.mjs")
}

fn shell(script: &str) -> Value {
    json!({"type": "local", "command": "sh", "args": ["-c", script.replace('$', "$$")]})
}

/// A command looked up on `PATH`. Started by the room: its reaper collects whatever else this process starts.
fn command(cwd: &Path, words: &[&str]) -> ChildSpec {
    let args = words.iter().map(Into::into).collect();
    ChildSpec { program: "/usr/bin/env".into(), args, cwd: Some(cwd.to_owned()), env: Vec::new(), owner: Owner::System }
}

/// A server behind a URL, ended with its value.
struct Remote {
    server: Started,
    url: String,
}

impl Remote {
    fn start(words: &[&str]) -> Self {
        let server = sdk_server();
        let words = [&["node", server.to_str().unwrap()], words].concat();
        ROOM.0.block_on(async {
            let mut server = ROOM.1.spawn(&command(Path::new("/"), &words)).unwrap();
            let mut url = String::new();
            BufReader::new(&mut server.stdout).read_line(&mut url).await.unwrap();
            Self { server, url: url.trim().to_owned() }
        })
    }

    fn sessions(&self) -> String {
        let text = async { reqwest_get(&self.url.replace("/mcp", "/sessions")).await };
        ROOM.0.block_on(text)
    }
}

async fn reqwest_get(url: &str) -> String {
    let _ = rustls::crypto::ring::default_provider().install_default(); // already installed: the same
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    client.get(url).send().await.unwrap().text().await.unwrap()
}

impl Drop for Remote {
    fn drop(&mut self) {
        ROOM.0.block_on(self.server.process.stop(Duration::ZERO));
    }
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_sdk_server_on_stdio_is_ready() {
    let house = House::new();
    let ready = house.check(json!({"type": "local", "command": ["node", sdk_server()], "args": ["stdio"]}));
    assert_eq!((ready.status, ready.tools, &ready.stderr), (McpStatus::Ready, Some(3), &None), "{ready:?}");
    let prepared = house.prepare(Vec::new(), false);
    assert_eq!(prepared.report.mcp[0].status, McpStatus::Given);
    let command = prepared.mcp_servers[0]["command"].as_str().unwrap();
    assert!(command.starts_with('/') && command.ends_with("/node"), "absolute, as ACP asks for: {command}");
}

#[test]
fn what_is_referred_to_is_named_but_for_paths() {
    let house = House::new();
    let remotes = [
        json!({"type": "remote", "url": "http://x", "bearerTokenEnvVar": "SECRET"}),
        json!({"type": "remote", "url": "http://x", "envHeaders": {"x-key": "SECRET"}}),
        json!({"type": "local", "command": "sh", "env": {"A": "b ${SECRET}"}}),
    ];
    for config in remotes {
        house.configure("mcp", &json!({"x": config}));
        assert_eq!(house.prepare(Vec::new(), false).secrets, ["s3cret"], "{config}");
    }
    house.configure("mcp", &json!({"x": {"type": "local", "command": "sh", "env": {"A": "${NO:-SECRET}", "B": "$$SECRET"}}}));
    assert!(house.prepare(Vec::new(), false).secrets.is_empty());
}

#[test]
fn sdk_servers_behind_urls_are_ready() {
    let house = House::new();
    for kind in ["http", "json", "sse"] {
        let remote = Remote::start(&[kind, "s3cret"]);
        let transport = if kind == "sse" { "sse" } else { "http" };
        let config = json!({"type": "remote", "url": remote.url, "transport": transport, "bearerTokenEnvVar": "SECRET"});
        let ready = house.check(config);
        assert_eq!((ready.status, ready.tools), (McpStatus::Ready, Some(3)), "{kind}: {ready:?}");
        eventually("its session ends", || remote.sessions() == "0");
        let failed = house.check(json!({"type": "remote", "url": remote.url, "transport": transport}));
        assert_eq!(failed.error.as_deref(), Some("answered with HTTP status 401 Unauthorized"), "{kind}");
    }
}

#[test]
fn a_redirect_is_followed_on_the_same_server_only() {
    let house = House::new();
    let remote = Remote::start(&["http"]);
    let at = |path: &str| json!({"type": "remote", "url": remote.url.replace("/mcp", path)});
    let ready = house.check(at("/moved"));
    assert_eq!((ready.status, ready.tools), (McpStatus::Ready, Some(3)), "{ready:?}");
    assert_eq!(house.check(at("/away")).error.as_deref(), Some("answered with HTTP status 307 Temporary Redirect"));
    drop(remote);
}

#[test]
fn servers_that_misbehave_are_named_with_their_last_words() {
    let house = House::new();
    let failed = |config: Value| {
        let outcome = house.check(config);
        assert_eq!(outcome.status, McpStatus::Failed, "{outcome:?}");
        (outcome.error.unwrap(), outcome.stderr.unwrap_or_default())
    };
    let (error, stderr) = failed(shell("echo no key >&2; exit 3"));
    assert_eq!((error.as_str(), stderr.as_str()), ("its output ended before it answered (exit code 3)", "no key"));
    let (error, _) = failed(shell("echo Welcome!; echo more"));
    assert_eq!(error, "its output ended before it answered (exit code 0); what it wrote on stdout is no JSON-RPC: Welcome!");
    let (error, _) = failed(shell("exec >&-; sleep 300"));
    assert_eq!(error, "its output ended before it answered");
    let (error, _) = failed(json!({"type": "local", "command": "no-such-program"}));
    assert_eq!(error, "executable not found: no-such-program");
    let error = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"no licence"}}"#;
    let (error, _) = failed(shell(&format!("read line; echo '{error}'; read line")));
    assert_eq!(error, "initialize was answered with the error -32000: no licence");
    let (error, _) = failed(json!({"type": "remote", "url": "http://127.0.0.1:9/"}));
    assert!(error.starts_with("can't be reached: "), "{error}");
    assert!(failed(json!({"type": "remote", "url": "nonsense"})).0.contains("URL"));
    let (error, _) = failed(json!({"type": "remote", "url": "http://h/", "headers": {"a b": "c"}}));
    assert_eq!(error, "its header \"a b\" can't be used");
    let small = House::with(Bounds { mcp_message_max_bytes: 1000, ..Bounds::default() });
    let long = small.check(shell("head -c 5000 /dev/zero; sleep 100"));
    assert_eq!(long.error.as_deref(), Some("a message is longer than 1000 bytes"));
}

#[test]
fn a_server_that_hangs_has_its_time_and_is_ended_with_its_tree() {
    let house = House::new();
    let mut config = shell("echo one >&2; sleep 300 & echo $! > child; echo hello; sleep 300");
    config["timeoutMs"] = json!(1500);
    let outcome = house.check(config);
    assert_eq!(outcome.error.as_deref(), Some("no answer within 1500 ms; what it wrote on stdout is no JSON-RPC: hello"));
    assert_eq!(outcome.stderr.as_deref(), Some("one"));
    let child = std::fs::read_to_string(house.work().join("child")).unwrap().trim().parse().unwrap();
    assert_eq!(started_at_ticks(child), None, "it is gone");
}

#[test]
fn whoever_no_longer_waits_leaves_nothing_behind() {
    let house = House::new();
    house.configure("mcp", &json!({"x": shell("sleep 300 & echo $! > child; sleep 300")}));
    let (work, file) = (house.work(), house.work().join("child"));
    let child = || std::fs::read_to_string(&file).ok().and_then(|text| text.trim().parse::<u32>().ok());
    ROOM.0.block_on(async {
        let started = async {
            while child().is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            prepared = house.workspace.prepare(&work, Vec::new(), &Value::Null, true) => {
                panic!("it hangs: {prepared:?}")
            }
            () = started => {}
        }
    });
    let pid = child().unwrap();
    eventually("its tree is ended", || started_at_ticks(pid).is_none());
}

#[test]
fn a_session_gets_what_works_and_the_rest_is_named() {
    let house = House::new();
    std::fs::create_dir(house.work().join("sub")).unwrap();
    let node = json!(["node", sdk_server()]);
    house.configure(
        "mcp",
        &json!({
            "broken": shell("exit 1"),
            "elsewhere": {"type": "local", "command": node, "args": ["stdio"], "cwd": "sub"},
            "keyless": {"type": "local", "command": "x", "env": {"KEY": "${NOT_SET}"}},
            "nosy": {"type": "local", "command": "x", "args": ["$SANDBOXD_TOKEN"]},
            "off": {"type": "local", "command": "x", "enabled": false},
        }),
    );
    house.configure("skills", &json!([]));
    let asked = json!({"name": "asked", "command": "node", "args": [sdk_server(), "stdio"], "env": []});
    let Prepared { mcp_servers, report, .. } = house.prepare(vec![asked.clone()], true);
    let names: Vec<_> = mcp_servers.iter().map(|server| server["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["asked", "elsewhere"], "{report:?}");
    assert_eq!(mcp_servers[0], asked, "verbatim");
    let shown = serde_json::to_value(&report).unwrap();
    let statuses: Vec<_> = shown["mcp"].as_array().unwrap().iter().map(|outcome| outcome["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["ready", "failed", "ready", "left_out", "left_out"], "{shown}");
    assert_eq!((&shown["mcp"][0]["origin"], &shown["mcp"][2]["tools"]), (&json!("request"), &json!(3)));
    let failures = report.failures();
    assert_eq!(failures.len(), 4, "{failures:?}");
    assert!(failures[0].contains("skills.json") && failures[1].contains("broken"), "{failures:?}");
    assert!(failures[2].contains("NOT_SET") && failures[3].contains("SANDBOXD_TOKEN"), "{failures:?}");
}

/// Skills in a folder: name → text of its SKILL.md.
fn write_skills(folder: &Path, skills: &[(&str, &str)]) {
    for (name, text) in skills {
        std::fs::create_dir_all(folder.join(name)).unwrap();
        std::fs::write(folder.join(name).join("SKILL.md"), text).unwrap();
    }
}

/// The statuses of skills, by name.
fn statuses(outcomes: &[SkillOutcome]) -> Vec<(&str, SkillStatus)> {
    outcomes.iter().map(|outcome| (outcome.skill.as_deref().unwrap_or_default(), outcome.status)).collect()
}

fn text_of(house: &House, place: &str, skill: &str) -> Option<String> {
    std::fs::read_to_string(house.work().join(place).join(skill).join("SKILL.md")).ok()
}

use SkillStatus::{Applied, Failed, Removed, Unchanged};

#[test]
fn local_skills_are_applied_once_replaced_and_removed() {
    let house = House::new();
    let source = house.work().join("shared");
    write_skills(&source, &[("a", "one"), ("b", "two")]);
    let config = json!({"s": {"sources": [{"type": "local", "source": "shared"}]}});
    assert_eq!(statuses(&house.skills(&config)), [("a", Applied), ("b", Applied)]);
    for place in [".claude/skills", ".agents/skills"] {
        assert_eq!(text_of(&house, place, "a").as_deref(), Some("one"));
    }
    assert_eq!(statuses(&house.skills(&config)), [("a", Unchanged), ("b", Unchanged)]);
    write_skills(&source, &[("a", "new")]);
    assert_eq!(statuses(&house.skills(&config)), [("a", Applied), ("b", Unchanged)]);
    assert_eq!(text_of(&house, ".agents/skills", "a").as_deref(), Some("new"));
    let some = json!({"s": {"sources": [{"type": "local", "source": "shared", "skills": ["b", "c"]}]}});
    assert_eq!(statuses(&house.skills(&some)), [("b", Unchanged), ("c", Failed), ("a", Removed)]);
    assert_eq!(text_of(&house, ".claude/skills", "a"), None);
    assert_eq!(statuses(&house.skills(&json!({}))), [("b", Removed)]);
    assert_eq!(house.skills(&json!({})), []);
    assert!(!house.work().join(".sandbox-agent/applied-skills.json").exists());
}

#[test]
fn what_somebody_else_made_is_never_touched() {
    let house = House::new();
    write_skills(&house.work().join("shared"), &[("a", "shared"), ("b", "shared")]);
    write_skills(&house.work().join(".claude/skills"), &[("a", "mine")]);
    write_skills(&house.work().join(".agents/skills"), &[("b", "shared")]);
    let config = json!({"s": {"sources": [{"type": "local", "source": "shared"}]}});
    let outcomes = house.skills(&config);
    assert_eq!(statuses(&outcomes), [("a", Failed), ("b", Applied)]);
    assert!(outcomes[0].error.as_ref().unwrap().contains(".claude/skills/a is there already"), "{outcomes:?}");
    assert_eq!(text_of(&house, ".agents/skills", "a").as_deref(), Some("shared"), "the free place is used");
    write_skills(&house.work().join(".claude/skills"), &[("b", "changed")]);
    assert_eq!(statuses(&house.skills(&json!({}))), [("a", Removed), ("b", Failed)]);
    assert_eq!(text_of(&house, ".claude/skills", "a").as_deref(), Some("mine"));
    assert_eq!(text_of(&house, ".claude/skills", "b").as_deref(), Some("changed"));
    assert_eq!(text_of(&house, ".agents/skills", "b").as_deref(), Some("shared"), "it was there before");
    assert_eq!(text_of(&house, ".agents/skills", "a"), None);
}

#[test]
fn bad_sources_and_skills_are_named_one_by_one() {
    let house = House::with(Bounds { skills_max: 2, skill_file_max_bytes: 10, ..Bounds::default() });
    let skills = [("a", "1"), ("b", "2"), ("big", "more than ten"), ("c", "3"), ("bad name", "4")];
    write_skills(&house.work().join("shared"), &skills);
    let local = |source: &str| json!({"type": "local", "source": source});
    house.configure("mcp", &json!({}));
    let outcomes = house.skills(&json!({
        "1": {"sources": [local("nowhere"), {"type": "zip", "source": "x"}, local("shared"), local("shared")]},
        "2": {"sources": 7},
    }));
    let expected = [
        ("", "No such file"),
        ("", "not known"),
        ("a", ""),
        ("b", ""),
        ("bad name", "its name"),
        ("big", "already"),
        ("c", "already"),
    ];
    for (outcome, (skill, words)) in outcomes.iter().zip(expected) {
        assert_eq!(outcome.skill.as_deref().unwrap_or_default(), skill, "{outcomes:?}");
        assert_eq!(outcome.error.is_none(), words.is_empty(), "{outcome:?}");
        assert!(outcome.error.iter().all(|error| error.contains(words)), "{outcome:?}");
    }
    assert!(outcomes[7..12].iter().all(|outcome| outcome.status == Failed), "twice: {outcomes:?}");
    assert_eq!((outcomes.len(), outcomes[12].name.as_str()), (13, "2"), "{outcomes:?}");
    let few = house.skills(&json!({"1": {"sources": [{"type": "local", "source": "shared", "skills": ["big"]}]}}));
    assert!(few[0].error.as_ref().unwrap().contains("larger than 10 bytes"), "{few:?}");
}

fn git(folder: &Path, args: &[&str]) {
    let who = ["-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "init.defaultBranch=main"];
    let spec = command(folder, &[&["git"][..], &who, args].concat());
    let (exit, output) = ROOM.0.block_on(ROOM.1.errand(&spec, PATIENCE, 4096, |_| {})).unwrap();
    assert_eq!(exit.and_then(|exit| exit.code()), Some(0), "{output}");
}

/// A bare repository, and the working copy that is pushed to it.
fn repository(house: &House) -> (PathBuf, PathBuf) {
    let (bare, copy) = (house.dir.path().join("hub.git"), house.dir.path().join("copy"));
    git(house.dir.path(), &["init", "-q", "--bare", "hub.git"]);
    git(house.dir.path(), &["clone", "-q", "hub.git", "copy"]);
    (bare, copy)
}

fn publish(copy: &Path, branch: &str) {
    git(copy, &["add", "-A"]);
    git(copy, &["commit", "-q", "-m", "x"]);
    git(copy, &["push", "-q", "origin", &format!("HEAD:{branch}")]);
}

#[test]
fn skills_come_out_of_repositories() {
    let house = House::new();
    let (bare, copy) = repository(&house);
    write_skills(&copy.join("skills"), &[("a", "main")]);
    publish(&copy, "main");
    write_skills(&copy.join("skills"), &[("a", "other")]);
    publish(&copy, "other");
    let url = format!("file://{}", bare.display());
    let source = |reference: Option<&str>| json!({"s": {"sources": [{"type": "git", "source": url, "ref": reference}]}});
    assert_eq!(statuses(&house.skills(&source(None))), [("a", Applied)]);
    assert_eq!(text_of(&house, ".claude/skills", "a").as_deref(), Some("main"));
    assert_eq!(statuses(&house.skills(&source(None))), [("a", Unchanged)]);
    assert_eq!(statuses(&house.skills(&source(Some("other")))), [("a", Applied)]);
    assert_eq!(text_of(&house, ".claude/skills", "a").as_deref(), Some("other"));
    write_skills(&copy.join("skills"), &[("b", "new")]);
    publish(&copy, "other");
    assert_eq!(statuses(&house.skills(&source(Some("other")))), [("a", Unchanged), ("b", Applied)]);
    let outcomes = house.skills(&source(Some("no-such-ref")));
    assert_eq!(statuses(&outcomes)[0], ("", Failed));
    assert!(outcomes[0].error.as_ref().unwrap().contains("no-such-ref"), "{outcomes:?}");
    assert_eq!(text_of(&house, ".claude/skills", "a").as_deref(), Some("other"), "kept while its source can't be had");
    std::fs::rename(&bare, house.dir.path().join("gone")).unwrap();
    let outcomes = house.skills(&source(Some("other")));
    assert_eq!(statuses(&outcomes), [("a", Unchanged), ("b", Unchanged)], "{outcomes:?}");
    assert!(outcomes[0].note.as_ref().unwrap().starts_with("an older copy is used: git: "), "{outcomes:?}");
}

#[test]
fn copies_of_repositories_are_bounded() {
    let house = House::with(Bounds { skills_git_copies_max: 2, ..Bounds::default() });
    let (bare, copy) = repository(&house);
    for branch in ["one", "two", "three"] {
        write_skills(&copy, &[("a", branch)]);
        publish(&copy, branch);
        let source = json!({"type": "git", "source": bare, "ref": branch});
        assert_eq!(statuses(&house.skills(&json!({"s": {"sources": [source]}}))), [("a", Applied)]);
    }
    assert_eq!(std::fs::read_dir(house.dir.path().join("copies")).unwrap().count(), 2);
}

#[test]
fn a_repository_may_be_one_skill() {
    let house = House::new();
    let (bare, copy) = repository(&house);
    std::fs::write(copy.join("SKILL.md"), "whole").unwrap();
    publish(&copy, "main");
    assert_eq!(statuses(&house.skills(&json!({"s": {"sources": [{"type": "git", "source": bare}]}}))), [("hub", Applied)]);
    assert_eq!(text_of(&house, ".agents/skills", "hub").as_deref(), Some("whole"));
    assert!(!house.work().join(".agents/skills/hub/.git").exists());
}
