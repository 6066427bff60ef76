//! Restarts that are asked for, and other programs as the server, while everything goes on.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::processes_support::{create, info, sh, wrote};
use crate::support::{Home, Options, Server, patient_client};

/// Polls while it lives; then gives how often it was answered, and each time that it wasn't.
struct Poller {
    is_over: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<(usize, Vec<String>)>,
}

impl Poller {
    fn start(server: &Server) -> Self {
        let (is_over, url, http) = (Arc::new(AtomicBool::new(false)), server.url("/v1/health"), patient_client());
        let over = Arc::clone(&is_over);
        let task = tokio::spawn(async move {
            let (mut answers, mut failures) = (0, Vec::new());
            while !over.load(Ordering::Relaxed) {
                match http.get(&url).send().await {
                    Ok(response) if response.status() == 200 => answers += 1,
                    other => failures.push(format!("{other:?}")),
                }
            }
            (answers, failures)
        });
        Self { is_over, task }
    }

    async fn assert_served(self) {
        self.is_over.store(true, Ordering::Relaxed);
        let (answers, failures) = self.task.await.expect("no panic");
        assert!(answers > 0 && failures.is_empty(), "{answers} answers, and {failures:?}");
    }
}

/// A process, a terminal and an agent, and their pids.
struct Living {
    ids: [String; 2],
    pids: Vec<Value>,
    agents: Vec<u32>,
}

fn agents(home: &Home) -> Vec<u32> {
    home.processes().into_iter().filter(|(_, line)| line.contains("fake-agent")).map(|(pid, _)| pid).collect()
}

impl Living {
    async fn start(home: &Home, server: &Server) -> Self {
        home.fake_agent("", "");
        server.call("a", "amp", 1, "initialize", json!({"protocolVersion": 1})).await;
        let process = create(server, sh("sleep 1000", json!({}))).await;
        let terminal = create(server, sh("echo up; cat", json!({"tty": true, "interactive": true}))).await;
        wrote(server, &terminal, "up").await;
        let ids = [process, terminal];
        let pids = Self::running(server, &ids).await;
        let agents = agents(home);
        assert_eq!(agents.len(), 1);
        Self { ids, pids, agents }
    }

    async fn running(server: &Server, ids: &[String]) -> Vec<Value> {
        let mut pids = Vec::new();
        for id in ids {
            let process = info(server, id).await;
            assert_eq!(process["status"], "running", "{process}");
            pids.push(process["pid"].clone());
        }
        pids
    }

    async fn assert_lives(&self, home: &Home, server: &Server) {
        assert_eq!(Self::running(server, &self.ids).await, self.pids);
        server.call("a", "amp", 2, "session/new", json!({"cwd": "/", "mcpServers": []})).await;
        assert_eq!(agents(home), self.agents);
    }
}

async fn status(server: &Server) -> Value {
    let (code, status) = server.get("/v1/status").await;
    assert_eq!(code, 200, "{status}");
    status
}

/// Written by another process: a child that a test beside this one starts just now would hold it open for writing, and it
/// could not be executed (ETXTBSY).
fn write_executable(path: &std::path::Path, content: &[u8]) {
    let mut command = Command::new("sh");
    command.args(["-c", "cat > \"$0\" && chmod 755 \"$0\""]).arg(path).stdin(Stdio::piped());
    let mut child = command.spawn().expect("sh runs");
    child.stdin.take().expect("piped").write_all(content).expect("written");
    assert!(child.wait().expect("sh ends").success());
}

/// A server whose program may be replaced: `bin/sandboxd` in its home.
struct Installed {
    home: Home,
    server: Server,
}

impl Installed {
    fn new() -> Self {
        // A failed upgrade is no crash: one more would be safe mode.
        Self::with(Options::kept().env("SANDBOXD_KEEPER_CRASHES_MAX", "1"))
    }

    fn with(options: Options) -> Self {
        let home = Home::new();
        std::fs::create_dir_all(home.path().join("bin")).expect("a folder");
        let bytes = std::fs::read(env!("CARGO_BIN_EXE_sandboxd")).expect("a program");
        write_executable(&home.path().join("bin/sandboxd"), &bytes);
        let options = options.under(&["sh", "-c", "shift; exec \"$HOME/bin/sandboxd\" \"$@\"", "sh"]);
        let server = Server::start_with(&home, &options);
        Self { home, server }
    }

    fn program(&self) -> PathBuf {
        self.home.path().join("bin/sandboxd")
    }

    /// The same program in another file.
    fn newer(&self) -> PathBuf {
        let mut bytes = std::fs::read(self.program()).expect("a program");
        bytes.push(b'\n');
        self.executable("newer", &bytes)
    }

    fn script(&self, name: &str, body: &str) -> PathBuf {
        self.executable(name, format!("#!/bin/sh\n{body}\n").as_bytes())
    }

    fn executable(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.home.path().join(name);
        write_executable(&path, content);
        path
    }

    async fn upgrade(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sandboxd"));
        command.args(["upgrade", "--endpoint", &self.server.url]).args(args);
        command.env_clear().env("HOME", self.home.path());
        tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("it runs")
    }

    async fn fails(&self, args: &[&str], words: &[&str]) {
        let output = self.upgrade(args).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && words.iter().all(|word| said.contains(word)), "{words:?}: {output:?}");
    }

    /// What the server's process runs.
    fn exe(&self) -> PathBuf {
        std::fs::read_link(format!("/proc/{}/exe", self.server.server_pid().expect("a server"))).expect("a link")
    }

    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.home.path().join("bin")).expect("a folder").flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

fn size(path: &std::path::Path) -> u64 {
    path.metadata().expect("a file").len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_that_is_asked_for_refuses_nobody() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::kept());
    let living = Living::start(&home, &server).await;
    let poller = Poller::start(&server);
    for starts in 2..5 {
        assert_eq!(server.send("/v1/server/restart", &json!({})).await, (202, json!({"starts": starts})));
        while status(&server).await["keeper"]["starts"] != starts {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        living.assert_lives(&home, &server).await;
    }
    poller.assert_served().await;
    let status = status(&server).await;
    assert_eq!((&status["restarts"], &status["crashes"]), (&json!(3), &json!([])), "{status}");
    let (_, events) = server.get("/v1/events?type=server.restarted").await;
    let reasons: Vec<_> = events["events"].as_array().expect("events").iter().map(|event| event["reason"].clone()).collect();
    assert_eq!(reasons, ["asked", "asked", "asked"]);
    assert_eq!(server.stop(), Some(0));
    home.assert_empty();
}

#[tokio::test]
async fn without_a_keeper_there_is_no_restart() {
    let home = Home::new();
    let server = Server::start(&home);
    let status = status(&server).await;
    assert_eq!((&status["keeper"], &status["restarts"]), (&Value::Null, &json!(0)));
    for (path, body) in [("restart", json!({})), ("upgrade", json!({"path": "/bin/sh"}))] {
        let (code, problem) = server.send(&format!("/v1/server/{path}"), &body).await;
        assert_eq!((code, &problem["code"]), (409, &json!("no_keeper")), "{problem}");
    }
    let installed = Command::new(env!("CARGO_BIN_EXE_sandboxd")).args(["upgrade", "-e", &server.url]).output().expect("it runs");
    assert!(String::from_utf8_lossy(&installed.stderr).contains("no keeper"), "{installed:?}");
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test]
async fn only_what_can_be_executed_is_taken() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::kept());
    std::fs::write(home.path().join("text"), "no program").expect("written");
    let text = home.path().join("text");
    for path in ["bin/sh", "/nowhere/at/all", "/tmp", text.to_str().expect("UTF-8")] {
        let (code, problem) = server.send("/v1/server/upgrade", &json!({"path": path})).await;
        assert_eq!((code, &problem["code"]), (400, &json!("not_executable")), "{path}: {problem}");
    }
    for timeout in [0, 600_001] {
        let body = json!({"path": "/bin/sh", "timeoutMs": timeout});
        assert_eq!(server.send("/v1/server/upgrade", &body).await.0, 400, "{timeout}");
    }
    assert_eq!(status(&server).await["restarts"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_program_takes_over_and_nothing_ends() {
    let installed = Installed::new();
    let server = &installed.server;
    let living = Living::start(&installed.home, server).await;
    let (old, newer) = (size(&installed.program()), installed.newer());
    let poller = Poller::start(server);
    let output = installed.upgrade(&["--binary", newer.to_str().expect("UTF-8")]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    poller.assert_served().await;
    assert_eq!((installed.exe(), size(&installed.program())), (installed.program(), old + 1));
    assert_eq!(installed.files(), ["sandboxd", "sandboxd.previous"]);
    assert!(installed.home.data().join("sandboxd.before-upgrade.db").is_file());
    assert_eq!(size(&installed.home.path().join("bin/sandboxd.previous")), old);
    living.assert_lives(&installed.home, server).await;
    assert_eq!(status(server).await["keeper"]["starts"], 2);
    server.crash();
    living.assert_lives(&installed.home, server).await;
    assert_eq!(installed.exe(), installed.program(), "after a crash it is the newer one again");
    // A reinstallation: it lies there already.
    std::fs::rename(installed.newer(), installed.program()).expect("renamed");
    let output = installed.upgrade(&[]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    living.assert_lives(&installed.home, server).await;
    assert_eq!((installed.exe(), size(&installed.program())), (installed.program(), old + 2));
    let output = installed.upgrade(&[]).await;
    assert!(output.status.success() && String::from_utf8_lossy(&output.stderr).contains("nothing to do"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_program_is_taken_back_and_nothing_ends() {
    let installed = Installed::new();
    let server = &installed.server;
    let living = Living::start(&installed.home, server).await;
    let (old, poller) = (size(&installed.program()), Poller::start(server));
    let says_version = "[ \"$1\" = --version ] && echo sandboxd 9.9.9 && exit";
    let dies = installed.script("dies", &format!("{says_version}\necho no luck today >&2\nexit 1"));
    let hangs = installed.script("hangs", &format!("{says_version}\nexec sleep 1000"));
    let ends = installed.script("ends", &format!("{says_version}\nexit 0"));
    let text = |path: &PathBuf| path.to_str().expect("UTF-8").to_owned();
    installed.fails(&["--binary", &text(&dies)], &["no luck today", "exit code 1", "the old one runs again"]).await;
    installed.fails(&["--binary", &text(&hangs), "--timeout-ms", "300"], &["SIGKILL", "the old one runs again"]).await;
    installed.fails(&["--binary", &text(&ends)], &["exit code 0", "the old one runs again"]).await;
    assert_eq!((installed.exe(), size(&installed.program())), (installed.program(), old));
    assert_eq!(installed.files(), ["sandboxd"]);
    living.assert_lives(&installed.home, server).await;
    poller.assert_served().await;
    let status = status(server).await;
    assert_eq!((&status["keeper"]["starts"], &status["lastCrash"]["upgrade"]), (&json!(7), &json!(true)), "{status}");
    let (_, events) = server.get("/v1/events?type=server.restarted").await;
    assert_eq!(events["events"][2]["reason"], "upgrade_failed", "{events}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_work_is_refused_before_anything_changes() {
    let installed = Installed::new();
    let mute = installed.script("mute", "exit 0");
    let stranger = installed.script("stranger", "echo another 1.0");
    let plain = installed.executable("plain", b"text");
    std::fs::set_permissions(&plain, std::fs::Permissions::from_mode(0o644)).expect("not executable");
    for (path, words) in
        [(&mute, "no version of sandboxd"), (&stranger, "no version of sandboxd"), (&plain, "may not be executed")]
    {
        installed.fails(&["--binary", path.to_str().expect("UTF-8")], &[words]).await;
    }
    assert_eq!(installed.files(), ["sandboxd"]);
    assert_eq!(status(&installed.server).await["restarts"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_the_new_program_starts_is_a_stop() {
    let installed = Installed::with(Options::kept().env("SANDBOXD_SHUTDOWN_DEADLINE_MS", "300"));
    // It has the keeper's signals blocked, and is killed in the end.
    let hangs = installed.script("hangs", "exec sleep 1000");
    let body = json!({"path": hangs, "timeoutMs": 600_000});
    assert_eq!(installed.server.send("/v1/server/upgrade", &body).await.0, 202);
    let hanging = || installed.home.processes().iter().any(|(_, line)| line.contains("sleep 1000"));
    crate::processes_support::until("the new program", hanging).await;
    let Installed { home, server } = installed;
    assert_eq!(server.stop(), Some(1), "{}", Server::log(&home));
    assert!(!Server::log(&home).contains("going back"), "nothing is started any more");
    home.assert_empty();
}
