//! A session for one test: X server, session bus, accessibility bus, and the programs in it, all ended at the end.

use std::future::Future;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use accessibility::{Accessibility, ENVIRONMENT, ENVIRONMENT_NEUTRAL};
use rustix::process::{Pid, Signal, kill_process};

/// For whatever is waited for, on a machine that is slow.
const PATIENCE: Duration = Duration::from_secs(90);

pub struct Session {
    pub folder: tempfile::TempDir,
    pub address: String,
    display: String,
    /// In the order of their start.
    children: Vec<Child>,
    launcher: Child,
}

impl Session {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        // without -noreset the server drops who comes while the last client goes
        let options = ["-displayfd", "1", "-screen", "0", "1024x768x24", "-nolisten", "tcp", "-noreset"];
        let (x_server, display) = first_line("Xvfb", &options);
        let (session_bus, address) = first_line("dbus-daemon", &["--session", "--print-address", "--nofork"]);
        let display = format!(":{display}");
        let launcher = launcher(folder.path(), &address, &display).await;
        Self { folder, address, display, children: vec![x_server, session_bus], launcher }
    }

    /// Starts a program with the environment that the crate advises; its pid.
    pub fn run(&mut self, program: &str, arguments: &[&str]) -> u32 {
        let child = environment(program, self.folder.path(), &self.address, &self.display).args(arguments).spawn();
        let child = child.unwrap_or_else(|error| panic!("{program}: {error}"));
        let pid = child.id();
        self.children.push(child);
        pid
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub async fn connect(&self) -> Accessibility {
        Accessibility::connect(&self.address).await.expect("an accessibility bus")
    }

    /// Ends one of the programs as a crash would.
    pub fn kill(&mut self, pid: u32) {
        let child = self.children.iter_mut().find(|child| child.id() == pid).expect("one of ours");
        child.kill().expect("killed");
        child.wait().expect("reaped");
    }

    /// Ends the accessibility bus and starts another.
    pub async fn restart_accessibility(&mut self) {
        end_launcher(&mut self.launcher);
        let _ = std::fs::remove_dir_all(self.path("at-spi"));
        self.launcher = launcher(self.folder.path(), &self.address, &self.display).await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        end_launcher(&mut self.launcher);
        for child in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Sends a signal to a program of ours.
pub fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a pid");
    kill_process(pid, signal).expect("signalled");
}

/// Polls until there is an answer.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A program that says one line when it is ready, and the line.
pub fn first_line(program: &str, arguments: &[&str]) -> (Child, String) {
    let child = Command::new(program).args(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{program}: {error}"));
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
    assert!(!line.is_empty(), "{program} ended without a word");
    (child, line.trim().to_owned())
}

fn environment(program: &str, folder: &Path, address: &str, display: &str) -> Command {
    let mut command = Command::new(program);
    command.env("DISPLAY", display).env("DBUS_SESSION_BUS_ADDRESS", address);
    command.env("HOME", folder).env("XDG_RUNTIME_DIR", folder).env("GSETTINGS_BACKEND", "memory").env("LC_ALL", "C.UTF-8");
    command.envs(ENVIRONMENT.iter().copied());
    command.envs(ENVIRONMENT_NEUTRAL.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Runs the launcher; ready when its bus listens.
async fn launcher(folder: &Path, address: &str, display: &str) -> Child {
    let program = ["/usr/libexec/at-spi-bus-launcher", "/usr/lib/at-spi2-core/at-spi-bus-launcher"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .expect("at-spi2-core is installed");
    let child = environment(program, folder, address, display).arg("--launch-immediately").spawn().expect("the launcher");
    let socket = || async { std::fs::read_dir(folder.join("at-spi")).ok()?.flatten().next() };
    until("the accessibility bus", socket).await;
    child
}

/// Asked to end, it ends its bus, and that the registry.
fn end_launcher(launcher: &mut Child) {
    if launcher.try_wait().is_ok_and(|ended| ended.is_none()) {
        signal(launcher.id(), Signal::TERM);
    }
    let _ = launcher.wait();
}
