//! The real binary on port 0 in a home of its own, and small clients for it.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// No test waits longer for anything.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A home that outlives the servers started in it.
pub struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary directory") }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn data(&self) -> PathBuf {
        self.path().join(".local/share/sandboxd")
    }

    /// Makes the fake agent answer as `amp`, started by a script: `before` runs first, `args` are passed on.
    pub fn fake_agent(&self, before: &str, args: &str) {
        let folder = self.data().join("bin/agent_processes");
        std::fs::create_dir_all(&folder).expect("a folder");
        let script = format!("#!/bin/sh\n{before}\nexec '{}' {args}\n", fake_agent_path().display());
        let path = folder.join("amp-acp");
        std::fs::write(&path, script).expect("a script");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
    }

    /// Processes that still carry this home in their environment, or one below it, as a desktop's do.
    pub fn processes(&self) -> Vec<(u32, String)> {
        let needle = format!("HOME={}", self.path().display());
        let below = format!("{needle}/");
        let is_here = |variable: &[u8]| variable == needle.as_bytes() || variable.starts_with(below.as_bytes());
        let pids =
            std::fs::read_dir("/proc").expect("/proc").flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let ours = pids.filter(|pid: &u32| {
            let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            !stat.contains(") Z ") && environ.split(|byte| *byte == 0).any(is_here)
        });
        ours.map(|pid| (pid, std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ")))
            .collect()
    }

    /// Fails when anything that was started here is left.
    pub fn assert_empty(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.processes().is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(self.processes(), Vec::new(), "processes were left behind");
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        for (pid, _) in self.processes() {
            kill(pid, "KILL");
        }
    }
}

pub fn fake_agent_path() -> PathBuf {
    let mut path = PathBuf::from(env!("CARGO_BIN_EXE_sandboxd"));
    path.pop();
    let path = path.join("examples/fake-agent");
    assert!(path.exists(), "{} is missing: build it with cargo build --examples", path.display());
    path
}

pub fn kill(pid: u32, signal: &str) {
    let status = Command::new("sh").args(["-c", &format!("kill -{signal} {pid}")]).stderr(Stdio::null()).status();
    assert!(status.is_ok(), "sh runs");
}

/// A client without a proxy.
pub fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default(); // already installed: the same
    reqwest::Client::builder().no_proxy().build().expect("a client")
}

/// One that uses no connection twice: what it asks is not lost with a server that dies before it asks.
pub fn patient_client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default(); // as above
    reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().expect("a client")
}

/// How a server is started.
#[derive(Default, Clone)]
pub struct Options {
    pub args: Vec<String>,
    pub env: HashMap<String, String>,
    pub port: u16,
    /// A command that starts the server: its own words come behind these.
    pub under: Vec<String>,
    /// With a keeper, as users have it. Most tests do without: the process that they start is the server.
    pub is_kept: bool,
}

impl Options {
    /// With a keeper that never ends in safe mode, however often the server is killed.
    pub fn kept() -> Self {
        Self { is_kept: true, ..Self::default() }.env("SANDBOXD_KEEPER_CRASHES_MAX", "1000000")
    }

    pub fn under(mut self, words: &[&str]) -> Self {
        self.under = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.insert(key.into(), value.into());
        self
    }
}

pub struct Server {
    child: Child,
    pub url: String,
    pub http: reqwest::Client,
}

impl Server {
    pub fn start(home: &Home) -> Self {
        Self::start_with(home, &Options::default())
    }

    pub fn start_with(home: &Home, options: &Options) -> Self {
        let mut child = Self::spawn(home, options);
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("the ready line");
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no ready line; log:\n{}", Self::log(home)));
        let url = ready["url"].as_str().expect("a url").to_owned();
        // Whoever is to be killed has no connections that wait for the next request.
        let http = if options.is_kept { patient_client() } else { client() };
        Self { child, url, http }
    }

    /// Starts the process without waiting for anything.
    pub fn spawn(home: &Home, options: &Options) -> Child {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(home.path().join("server.log")).expect("a log file");
        let mut words = options.under.iter().map(String::as_str).chain([env!("CARGO_BIN_EXE_sandboxd")]);
        let mut command = Command::new(words.next().expect("at least the server"));
        command.args(words).args(["server", "--port", &options.port.to_string()]);
        if options.args.is_empty() {
            command.arg("--no-token");
        }
        if !options.is_kept {
            command.arg("--no-keeper");
        }
        command
            .args(&options.args)
            .env_clear()
            .env("HOME", home.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("RUST_LOG", "info").envs(&options.env).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        command.spawn().expect("the server starts")
    }

    pub fn log(home: &Home) -> String {
        std::fs::read_to_string(home.path().join("server.log")).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The server below the keeper, the process that is started.
    pub fn server_pid(&self) -> Option<u32> {
        let keeper = self.pid();
        let children = std::fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).unwrap_or_default();
        children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).find(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|word| word == b"--kept")
        })
    }

    /// KILL to the server below the keeper; gives its pid once it is gone.
    pub fn crash(&self) -> u32 {
        let deadline = Instant::now() + PATIENCE;
        let mut killed = None;
        loop {
            let now = self.server_pid();
            match (killed, now) {
                (None, Some(pid)) => {
                    kill(pid, "KILL");
                    killed = Some(pid);
                }
                (Some(pid), now) if now != Some(pid) => return pid,
                _ => std::thread::sleep(Duration::from_millis(1)),
            }
            assert!(Instant::now() < deadline, "no server below the keeper");
        }
    }

    pub fn port(&self) -> u16 {
        self.url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// TERM, and waits for the exit code.
    pub fn stop(mut self) -> Option<i32> {
        kill(self.pid(), "TERM");
        self.wait()
    }

    /// KILL, and waits.
    pub fn kill(mut self) {
        kill(self.pid(), "KILL");
        self.wait();
    }

    pub fn wait(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("the server does not end");
    }

    pub async fn post(&self, server: &str, agent: Option<&str>, envelope: &Value) -> (u16, Value) {
        let query = agent.map(|agent| format!("?agent={agent}")).unwrap_or_default();
        let request = self.http.post(self.url(&format!("/v1/acp/{server}{query}"))).json(envelope);
        let response = tokio::time::timeout(PATIENCE, request.send()).await.expect("an answer in time").expect("an answer");
        let status = response.status().as_u16();
        let text = tokio::time::timeout(PATIENCE, response.text()).await.expect("a body in time").expect("a body");
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// A request that must be answered 200.
    pub async fn call(&self, server: &str, agent: &str, id: impl Into<Value>, method: &str, params: Value) -> Value {
        let envelope = json!({"jsonrpc": "2.0", "id": id.into(), "method": method, "params": params});
        let (status, body) = self.post(server, Some(agent), &envelope).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    pub async fn delete(&self, server: &str) -> u16 {
        let request = self.http.delete(self.url(&format!("/v1/acp/{server}"))).send();
        tokio::time::timeout(PATIENCE, request).await.expect("an answer in time").expect("an answer").status().as_u16()
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        let response = self.http.get(self.url(path)).send().await.expect("an answer");
        let status = response.status().as_u16();
        let text = response.text().await.expect("a body");
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub async fn events(&self, server: &str, after: Option<u64>) -> Events {
        self.stream(&format!("/v1/acp/{server}"), after).await
    }

    /// An event stream that must open.
    pub async fn stream(&self, path: &str, after: Option<u64>) -> Events {
        let mut request = self.http.get(self.url(path)).header("accept", "text/event-stream");
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), 200);
        Events::of(response)
    }

    /// Posts JSON anywhere; an answer without a body is `null`.
    pub async fn send(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = self.http.post(self.url(path)).json(body).send();
        let response = tokio::time::timeout(PATIENCE, request).await.expect("an answer in time").expect("an answer");
        let status = response.status().as_u16();
        let text = tokio::time::timeout(PATIENCE, response.text()).await.expect("a body in time").expect("a body");
        (status, if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect("JSON") })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            kill(self.pid(), "KILL");
            let _ = self.child.wait();
        }
    }
}

/// One event of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub name: String,
    pub id: Option<u64>,
    pub data: Value,
}

pub struct Events {
    response: reqwest::Response,
    buffer: Vec<u8>,
}

impl Events {
    /// The events of an answer.
    pub fn of(response: reqwest::Response) -> Self {
        Self { response, buffer: Vec::new() }
    }

    /// The next event; `None` at the stream's end.
    pub async fn next(&mut self) -> Option<Event> {
        tokio::time::timeout(PATIENCE, self.read()).await.expect("an event in time")
    }

    async fn read(&mut self) -> Option<Event> {
        loop {
            while let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
                if let Some(event) = parse(std::str::from_utf8(&block).expect("UTF-8")) {
                    return Some(event);
                }
            }
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// Reads until an event fits; gives everything read.
    pub async fn until(&mut self, fits: impl Fn(&Event) -> bool) -> Vec<Event> {
        let mut seen = Vec::new();
        while let Some(event) = self.next().await {
            seen.push(event);
            if fits(seen.last().expect("just pushed")) {
                return seen;
            }
        }
        panic!("the stream ended before the event came; seen: {seen:?}");
    }

    /// Reads to the end of the stream.
    pub async fn all(&mut self) -> Vec<Event> {
        let mut seen = Vec::new();
        while let Some(event) = self.next().await {
            seen.push(event);
        }
        seen
    }

    /// Reads until the answer with this id.
    pub async fn until_answer(&mut self, id: impl Into<Value>) -> Vec<Event> {
        let id = id.into();
        self.until(move |event| event.data.get("method").is_none() && event.data["id"] == id).await
    }
}

fn parse(block: &str) -> Option<Event> {
    let mut event = Event { name: "message".into(), id: None, data: Value::Null };
    let mut any = false;
    for line in block.lines() {
        if let Some(name) = line.strip_prefix("event: ") {
            event.name = name.into();
        } else if let Some(id) = line.strip_prefix("id: ") {
            event.id = id.parse().ok();
        } else if let Some(data) = line.strip_prefix("data: ") {
            event.data = serde_json::from_str(data).expect("JSON");
            any = true;
        }
    }
    any.then_some(event)
}
