//! A home of its own for each test, and the binary run in it.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

pub const BIN: &str = env!("CARGO_BIN_EXE_sandboxd");

/// A home; whatever still runs with it at the end is killed.
pub struct Home {
    dir: tempfile::TempDir,
    env: Vec<(OsString, OsString)>,
}

/// What a verb printed.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Home {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary directory"), env: Vec::new() }
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn data(&self) -> PathBuf {
        self.path().join(".local/share/sandboxd")
    }

    pub fn write(&self, path: &str, content: &str) {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(path, content).expect("a file");
    }

    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).env_clear().env("HOME", self.path()).env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(self.env.iter().map(|(name, value)| (name, value))).current_dir(self.path()).stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        ran(self.command(BIN, args).output().expect("it runs"))
    }

    /// Runs a verb with something on its stdin.
    pub fn run_with_stdin(&self, args: &[&str], input: &str) -> Ran {
        let mut command = self.command(BIN, args);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("written");
        ran(child.wait_with_output().expect("it ends"))
    }

    /// Processes that carry this home in their environment.
    pub fn processes(&self) -> Vec<u32> {
        let needle = format!("HOME={}", self.path().display()).into_bytes();
        let pids =
            std::fs::read_dir("/proc").expect("/proc").flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let ours = |pid: &u32| {
            let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            lives(*pid) && environ.split(|byte| *byte == 0).any(|variable| variable == needle)
        };
        pids.filter(ours).collect()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        for pid in self.processes() {
            kill(pid, "KILL");
        }
    }
}

pub fn ran(output: Output) -> Ran {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

impl Ran {
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    #[track_caller]
    pub fn json(self) -> Value {
        let ran = self.ok();
        serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("no JSON: {ran:?}"))
    }

    /// It failed with this code, and its last line says so.
    #[track_caller]
    pub fn fails(self, code: i32, why: &str) -> Self {
        let last = self.err.lines().last().unwrap_or_default();
        assert!(self.code == Some(code) && last.contains(why), "wanted {code} and {why:?}: {self:?}");
        self
    }
}

/// True for a process that isn't a zombie.
pub fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

pub fn kill(pid: u32, signal: &str) {
    let status = Command::new("sh").args(["-c", &format!("kill -{signal} {pid}")]).stderr(Stdio::null()).status();
    assert!(status.is_ok(), "sh runs");
}

/// A port that nobody listens on just now.
pub fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port().to_string()
}

/// A server in the foreground, ended with the test.
pub struct Server {
    child: Child,
    pub url: String,
}

impl Server {
    pub fn start(home: &Home, args: &[&str]) -> Self {
        let mut command = home.command(BIN, &["server", "--port", "0"]);
        let mut child = command.args(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("the ready line");
        let ready: Value = serde_json::from_str(&line).expect("the ready line");
        Self { url: ready["url"].as_str().expect("a url").to_owned(), child }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        kill(self.child.id(), "TERM");
        let _ = self.child.wait();
    }
}
