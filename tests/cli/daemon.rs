use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use super::support::{Home, Ran, Server, free_port, kill, lives, ran};

const BIN: &str = super::support::BIN;

/// A daemon's home and port; the home's end is the daemon's.
struct Daemon {
    home: Home,
    port: String,
}

impl Daemon {
    fn new(home: Home) -> Self {
        Self { home, port: free_port() }
    }

    fn run(&self, verb: &str, args: &[&str]) -> Ran {
        self.home.run(&[&["daemon", verb, "--port", &self.port], args].concat())
    }

    fn file(&self, extension: &str) -> PathBuf {
        self.home.data().join(format!("daemon/daemon-127-0-0-1-{}.{extension}", self.port))
    }

    fn pid(&self) -> u32 {
        let text = std::fs::read_to_string(self.file("pid")).expect("a pid file");
        text.lines().next().and_then(|line| line.parse().ok()).expect("a pid")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.file("log")).unwrap_or_default()
    }
}

#[test]
fn it_starts_once_says_so_and_stops() {
    let daemon = Daemon::new(Home::new());
    assert_eq!(daemon.run("status", &[]).ok().err, "Daemon not running\n");
    let started = daemon.run("start", &["--no-token"]).ok();
    let pid = daemon.pid();
    assert_eq!(started.err, format!("daemon started (PID {pid}, logs: {})\n", daemon.file("log").display()), "{}", daemon.log());
    let again = daemon.run("start", &["--no-token"]).ok();
    assert_eq!(again.err, format!("daemon already running at http://127.0.0.1:{}\n", daemon.port));
    let build = std::fs::read_to_string(daemon.file("version")).expect("a version file");
    let status = daemon.run("status", &[]).ok();
    assert_eq!(
        status.err,
        format!("Daemon running (PID {pid}, build {}, logs: {})\n", build.trim(), daemon.file("log").display())
    );
    let mode = |file: &str| std::fs::metadata(daemon.file(file)).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode("log"), mode("pid")), (0o600, 0o600));
    assert_eq!(daemon.run("stop", &[]).ok().err, "daemon stopped\n");
    assert!(!lives(pid) && !daemon.file("pid").exists() && !daemon.file("version").exists());
    assert_eq!(daemon.run("stop", &[]).ok().err, "daemon is not running (no PID file)\n");
    assert_eq!(daemon.home.processes(), Vec::<u32>::new());
}

#[test]
fn the_token_is_in_no_argument_and_must_fit() {
    let daemon = Daemon::new(Home::new());
    daemon.run("start", &["--token", "t0psecret"]).ok();
    for pid in daemon.home.processes() {
        let arguments = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("arguments");
        assert!(!arguments.contains("t0psecret"), "{arguments}");
    }
    let url = format!("http://127.0.0.1:{}", daemon.port);
    daemon.home.run(&["api", "agents", "list", "-e", &url, "-t", "t0psecret"]).ok();
    daemon.home.run(&["api", "agents", "list", "-e", &url]).fails(1, "401");
    daemon.run("start", &["--token", "another"]).fails(1, "does not take this token");
    assert!(daemon.run("start", &["--token", "t0psecret"]).ok().err.starts_with("daemon already running"));
    assert!(daemon.run("status", &[]).ok().err.contains(&format!("(PID {}, ", daemon.pid())), "no token is needed to see it");
    daemon.run("stop", &[]).ok();
}

#[test]
fn protection_must_be_chosen() {
    let daemon = Daemon::new(Home::new());
    daemon.run("start", &[]).fails(2, "--no-token");
    assert_eq!(daemon.home.processes(), Vec::<u32>::new());
    daemon.run("start", &["--no-token"]).ok();
    let again = daemon.run("start", &["--token", "mine"]).ok();
    assert!(again.err.contains("without a token"), "{again:?}");
    daemon.run("stop", &[]).ok();
}

#[test]
fn it_outlives_its_starter_and_holds_nothing_of_it() {
    let daemon = Daemon::new(Home::new());
    let script = format!("exec 9>held; flock 9; {BIN} daemon start --no-token --port {} && kill -9 0", daemon.port);
    // A group of its own, all of which is killed once the daemon runs.
    let output = daemon.home.command("sh", &["-c", &script]).process_group(0).output().expect("it runs");
    assert_eq!(output.status.code(), None, "{:?}", ran(output));
    let pid = daemon.pid();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
    assert_eq!(&fields[2..4], [pid.to_string(), pid.to_string()], "it leads its own group and session");
    assert!(daemon.home.command("flock", &["-n", "held", "true"]).status().expect("it runs").success(), "the lock is free");
    let status = daemon.run("status", &[]).ok();
    assert!(
        status.err.starts_with(&format!("Daemon running (PID {pid}, ")) && !status.err.contains("not answering"),
        "{status:?}"
    );
    daemon.run("stop", &[]).ok();
    assert!(!lives(pid));
}

#[test]
fn a_stranger_is_never_signalled() {
    let daemon = Daemon::new(Home::new());
    daemon.run("start", &["--no-token"]).ok();
    let record = std::fs::read_to_string(daemon.file("pid")).expect("a pid file");
    let own = daemon.pid();
    daemon.run("stop", &[]).ok();
    let mut stranger = Command::new("sleep").arg("600").spawn().expect("it runs");
    for content in [format!("{}\n", stranger.id()), record.replacen(&own.to_string(), &stranger.id().to_string(), 1)] {
        std::fs::write(daemon.file("pid"), content).expect("written");
        assert_eq!(daemon.run("status", &[]).ok().err, "Daemon not running\n");
        assert_eq!(daemon.run("stop", &[]).ok().err, "daemon is not running (stale PID file)\n");
        assert!(!daemon.file("pid").exists());
        assert!(matches!(stranger.try_wait(), Ok(None)), "the stranger lives");
    }
    stranger.kill().expect("killed");
    stranger.wait().expect("waited");
}

#[test]
fn a_server_of_someone_else_is_left_alone() {
    let home = Home::new();
    let server = Server::start(&home, &["--no-token"]);
    let daemon = Daemon { port: server.url.rsplit(':').next().expect("a port").to_owned(), home };
    daemon.run("stop", &[]).fails(1, "was not started by sandboxd daemon start");
    daemon.run("start", &["--no-token", "--upgrade"]).fails(1, "was not started by sandboxd daemon start");
    assert!(daemon.run("start", &["--no-token"]).ok().err.starts_with("daemon already running"));
    assert!(daemon.run("status", &[]).ok().err.starts_with("Daemon running (PID 0, build unknown"));
}

/// KILL, and waits.
fn killed(pid: u32) {
    kill(pid, "KILL");
    while lives(pid) {
        std::thread::yield_now();
    }
}

/// The server below the keeper.
fn server_of(keeper: u32) -> u32 {
    let children = std::fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).expect("a list");
    children.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("a child")
}

#[test]
fn a_daemon_whose_keeper_was_killed_is_known_and_stopped() {
    let daemon = Daemon::new(Home::new());
    daemon.run("start", &["--token", "t0psecret"]).ok();
    let server = server_of(daemon.pid());
    killed(daemon.pid());
    let status = daemon.run("status", &["--token", "t0psecret"]).ok();
    assert!(status.err.starts_with(&format!("Daemon running (PID {server}, ")), "{status:?}");
    assert!(daemon.run("start", &["--token", "t0psecret"]).ok().err.starts_with("daemon already running"));
    assert_eq!(daemon.run("stop", &["--token", "t0psecret"]).ok().err, "daemon stopped\n");
    assert_eq!(daemon.home.processes(), Vec::<u32>::new());
}

#[test]
fn the_last_resort_ends_keeper_and_server() {
    let daemon = Daemon::new(Home::new().env("SANDBOXD_SHUTDOWN_DEADLINE_MS", "100"));
    daemon.run("start", &["--no-token"]).ok();
    let keeper = daemon.pid();
    let server = server_of(keeper);
    kill(keeper, "STOP");
    let stopped = daemon.run("stop", &[]).ok();
    assert!(stopped.err.contains("was killed"), "{stopped:?}");
    assert!(!lives(keeper) && !lives(server));
    assert_eq!(daemon.home.processes(), Vec::<u32>::new());
}

#[test]
fn a_killed_daemon_is_started_again() {
    let daemon = Daemon::new(Home::new());
    daemon.run("start", &["--no-token"]).ok();
    let first = daemon.pid();
    let server = server_of(first);
    killed(first);
    killed(server);
    assert_eq!(daemon.run("status", &[]).ok().err, "Daemon not running\n");
    daemon.run("start", &["--no-token"]).ok();
    assert_ne!(daemon.pid(), first);
    daemon.run("stop", &[]).ok();
}

#[test]
fn another_build_is_replaced_only_on_request() {
    let daemon = Daemon::new(Home::new());
    daemon.run("start", &["--no-token"]).ok();
    let first = daemon.pid();
    assert!(
        daemon.run("start", &["--no-token", "--upgrade"]).ok().err.starts_with("daemon already running"),
        "the same build stays"
    );
    std::fs::write(daemon.file("version"), "0.0.9-1\n").expect("written");
    assert!(daemon.run("status", &[]).ok().err.ends_with("[outdated, restart recommended]\n"));
    assert!(daemon.run("start", &["--no-token"]).ok().err.starts_with("daemon already running"));
    daemon.run("start", &["--upgrade"]).fails(2, "--no-token");
    assert!(lives(first), "nothing was stopped for a start that can't work");
    let server = server_of(first);
    let upgraded = daemon.run("start", &["--no-token", "--upgrade"]).ok();
    assert!(upgraded.err.starts_with("daemon outdated (build 0.0.9-1 -> ") && !lives(server), "{upgraded:?}");
    assert!(lives(first) && daemon.pid() == first, "the keeper stays, with all that runs");
    assert!(!daemon.run("status", &[]).ok().err.contains("outdated"));
    daemon.run("stop", &[]).ok();
}

#[test]
fn an_early_end_is_explained_by_the_log() {
    let daemon = Daemon::new(Home::new());
    let database = daemon.home.data().join("sandboxd.db");
    std::fs::create_dir_all(&database).expect("a folder where a file belongs");
    std::fs::create_dir_all(daemon.home.data().join(format!("sandboxd-{}.db", daemon.port))).expect("the same");
    let failed = daemon.run("start", &["--no-token"]).fails(1, "exited before becoming healthy (exit status: 1): ");
    assert!(failed.err.contains("sandboxd.db") || failed.err.contains("database"), "{failed:?}");
    assert!(!daemon.file("pid").exists());
    assert_eq!(daemon.home.processes(), Vec::<u32>::new());
}

#[test]
fn a_port_that_something_else_has_is_named() {
    let home = Home::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port().to_string();
    let answering = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut connection, _) = listener.accept().expect("a connection");
        let _ = connection.read(&mut [0; 1024]);
        connection.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").expect("answered");
    });
    Daemon { home, port }.run("start", &["--no-token"]).fails(1, "choose another --port");
    answering.join().expect("answered");
}
