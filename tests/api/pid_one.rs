//! The server as the init of a container, and what its caller had open, blocked or ignored.

use std::io::Write as _;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::support::{Home, Options, PATIENCE, Server, kill};

/// What a stop may take: `shutdown_deadline_ms`.
const DEADLINE: Duration = Duration::from_secs(4);

fn init(home: &Home) -> Option<(Server, u32)> {
    init_with(home, Options::default())
}

/// PID 1 of a namespace of its own; `None`, said loudly, where that can't be made.
pub fn init_with(home: &Home, options: Options) -> Option<(Server, u32)> {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "tests of PID 1 have to run as root");
        let words = "\n!!! NOT TESTED: the server as PID 1 needs root (unshare --pid)\n\n";
        let _ = std::io::stderr().write_all(words.as_bytes()); // not captured, unlike eprintln!
        return None;
    }
    let server = Server::start_with(home, &options.under(&["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]));
    let children = format!("/proc/{0}/task/{0}/children", server.pid());
    let pid = std::fs::read_to_string(children).expect("a list").trim().parse().expect("one child");
    Some((server, pid))
}

async fn run(server: &Server, script: &str) -> Value {
    let (status, result) = server.send("/v1/processes/run", &json!({"command": "sh", "args": ["-c", script]})).await;
    assert_eq!(status, 200, "{result}");
    result
}

async fn managed(server: &Server, script: &str) -> String {
    let (status, info) = server.send("/v1/processes", &json!({"command": "sh", "args": ["-c", script]})).await;
    assert_eq!(status, 200, "{info}");
    info["id"].as_str().expect("an id").to_owned()
}

/// Waits for words of a process.
async fn says(server: &Server, id: &str, words: &str) {
    let spec = json!({"output": {"pattern": words}, "timeoutMs": 10_000});
    let (_, result) = server.send(&format!("/v1/processes/{id}/wait"), &spec).await;
    assert_eq!(result["met"], "output", "{words}: {result}");
}

/// Children of a process, and which of them are zombies.
fn children(pid: u32) -> (Vec<u32>, Vec<u32>) {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("tasks").flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let all: Vec<u32> = lists.flat_map(|list| list.split_whitespace().flat_map(str::parse).collect::<Vec<_>>()).collect();
    let is_zombie = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "));
    let zombies = all.iter().copied().filter(is_zombie).collect();
    (all, zombies)
}

#[tokio::test]
async fn orphans_are_reaped_and_no_exit_is_lost() {
    let home = Home::new();
    let Some((server, pid)) = init(&home) else { return };
    assert_eq!(run(&server, "echo $PPID").await["stdout"], "1\n", "it is the init");
    // Orphans that end at about the same time as what is waited for, some of them out of everybody's sight.
    let orphans =
        "for i in 1 2 3; do (sleep 0.0$i; exit 9) >/dev/null 2>&1 & done; env -i setsid sh -c 'exit 8' >/dev/null 2>&1 &";
    let rounds = futures_util::stream::iter(0..200).map(|round| {
        let (server, code) = (&server, round % 120);
        async move {
            let script = format!("{orphans} exit {code}");
            if round % 2 == 0 {
                return (code, run(server, &script).await["exitCode"].clone());
            }
            let id = managed(server, &script).await;
            let (_, result) = server.send(&format!("/v1/processes/{id}/wait"), &json!({})).await;
            (code, result["process"]["exitCode"].clone())
        }
    });
    let ended: Vec<(i32, Value)> = rounds.buffer_unordered(8).collect().await;
    for (code, exit) in ended {
        assert_eq!(exit, code);
    }
    let deadline = Instant::now() + PATIENCE;
    while !children(pid).0.is_empty() {
        assert!(Instant::now() < deadline, "left, and zombies among them: {:?}", children(pid));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!Server::log(&home).contains("could not be waited for"), "{}", Server::log(&home));
}

#[tokio::test]
async fn everything_ends_within_the_deadline() {
    let home = Home::new();
    let Some((mut server, pid)) = init(&home) else { return };
    let stubborn = managed(&server, "trap '' TERM HUP INT; echo up; while :; do sleep 1; done").await;
    says(&server, &stubborn, "up").await;
    run(&server, "env -i setsid sh -c \"trap '' TERM; sleep 1000; sleep 1000\" >/dev/null 2>&1 &").await;
    let (_, terminal) = server.send("/v1/processes", &json!({"command": "bash", "tty": true})).await;
    assert_eq!(terminal["status"], "running", "{terminal}");
    let begun = Instant::now();
    kill(pid, "TERM");
    assert_eq!(server.wait(), Some(0));
    assert!(begun.elapsed() < DEADLINE, "{:?}", begun.elapsed());
    home.assert_empty();
}

#[tokio::test]
async fn an_init_is_stopped_in_each_way_that_hosts_know() {
    for signal in ["QUIT", "PWR", "37", "INT", "HUP"] {
        let home = Home::new();
        let Some((mut server, pid)) = init(&home) else { return };
        let id =
            managed(&server, "trap 'echo got one' USR1; trap 'echo got two' USR2; echo up; while :; do sleep 0.05; done").await;
        says(&server, &id, "up").await;
        kill(pid, "USR1");
        says(&server, &id, "got one").await;
        kill(pid, "USR2");
        says(&server, &id, "got two").await;
        kill(pid, signal);
        assert_eq!(server.wait(), Some(0), "{signal}");
        home.assert_empty();
    }
}

#[tokio::test]
async fn the_flag_does_the_same_for_any_pid() {
    let home = Home::new();
    let options = Options { args: vec!["--no-token".into(), "--init".into()], ..Options::default() };
    let mut server = Server::start_with(&home, &options);
    let id = managed(&server, "trap 'echo got it; exit 3' USR1; echo up; while :; do sleep 0.05; done").await;
    says(&server, &id, "up").await;
    kill(server.pid(), "USR1");
    says(&server, &id, "got it").await;
    let (_, result) = server.send(&format!("/v1/processes/{id}/wait"), &json!({})).await;
    assert_eq!(result["process"]["exitCode"], 3);
    kill(server.pid(), "QUIT");
    assert_eq!(server.wait(), Some(0));
}

#[tokio::test]
async fn children_inherit_nothing_of_the_servers_caller() {
    let home = Home::new();
    let before = "exec 7</dev/null 8>&1 9>/dev/null; exec \"$0\" \"$@\"";
    let under = ["env", "--block-signal=TERM,USR1", "--ignore-signal=QUIT,HUP,TSTP,USR2,WINCH,RTMIN+3", "sh", "-c", before];
    let server = Server::start_with(&home, &Options::default().under(&under));
    // 32 and 33 belong to the C library, and glibc's posix_spawn(3) leaves these two ignored.
    let script = "grep SigBlk /proc/self/status; echo $((0x$(sed -n 's/^SigIgn:.//p' /proc/self/status) & ~0x180000000)); ls /proc/self/fd";
    for tty in [false, true] {
        let spec = json!({"command": "sh", "args": ["-c", script], "tty": tty});
        let (_, info) = server.send("/v1/processes", &spec).await;
        let path = format!("/v1/processes/{}", info["id"].as_str().expect("an id"));
        server.send(&format!("{path}/wait"), &json!({})).await;
        let (_, page) = server.get(&format!("{path}/logs?encoding=utf8")).await;
        let entries = page["entries"].as_array().expect("entries").iter();
        let text: String = entries.map(|entry| entry["data"].as_str().expect("text")).collect();
        let words: Vec<&str> = text.split_whitespace().collect();
        // The fourth descriptor is the folder that ls looks into.
        assert_eq!(words, ["SigBlk:", "0000000000000000", "0", "0", "1", "2", "3"], "tty: {tty}");
    }
    // Ignored ones stay ignored here, and blocked ones come through.
    kill(server.pid(), "QUIT");
    kill(server.pid(), "TSTP");
    assert_eq!(run(&server, "echo alive").await["stdout"], "alive\n");
    assert_eq!(server.stop(), Some(0));
}
