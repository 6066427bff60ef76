#![allow(clippy::disallowed_methods)] // starts processes to put into cgroups

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::root::{Write, is_dead, own_folder, pid_namespace};
use super::*;

const BOTH: Limits = Limits { memory_bytes: Some(64 << 20), pids: Some(9) };

/// A folder with the kernel's files for a leaf, in their first state.
fn leaf(folder: &Path, files: &[(&str, &str)]) -> PathBuf {
    let path = folder.join("leaf");
    std::fs::create_dir_all(&path).unwrap();
    for (file, text) in files {
        std::fs::write(path.join(file), text).unwrap();
    }
    path
}

fn content(path: &Path, file: &str) -> String {
    std::fs::read_to_string(path.join(file)).unwrap()
}

#[test]
fn limits_are_written_where_the_controllers_are() {
    let folder = tempfile::tempdir().unwrap();
    let files = ["memory.max", "memory.swap.max", "memory.oom.group", "pids.max"].map(|file| (file, ""));
    let path = leaf(folder.path(), &files);
    let cgroup = Cgroup::bounded(path.clone(), &BOTH);
    assert_eq!(cgroup.enforcement(), Enforcement { memory: true, pids: true });
    assert_eq!(files.map(|(file, _)| content(&path, file)), ["67108864", "0", "1", "9"]);
}

#[test]
fn what_is_not_asked_for_or_not_there_is_not_enforced() {
    let folder = tempfile::tempdir().unwrap();
    let path = leaf(folder.path(), &[("pids.max", "max"), ("pids.events", "max 3\n"), ("memory.events", "oom 1\noom_kill 1\n")]);
    let cgroup = Cgroup::bounded(path.clone(), &BOTH);
    assert_eq!(cgroup.enforcement(), Enforcement { memory: false, pids: true });
    assert_eq!(cgroup.breach(), Some(Breach::Pids { limit: 9, count: 9 }), "memory isn't ours to judge");
    assert!(!path.join("memory.max").exists(), "a kernel's file is never made");
    let unbounded = Cgroup::bounded(path.clone(), &Limits::default());
    assert_eq!((unbounded.enforcement(), unbounded.breach()), (Enforcement::default(), None));
}

#[test]
fn only_kills_at_our_own_limit_are_breaches() {
    let folder = tempfile::tempdir().unwrap();
    let path = leaf(folder.path(), &[("memory.max", ""), ("pids.max", ""), ("pids.events", "max 0\n")]);
    let cgroup = Cgroup::bounded(path.clone(), &BOTH);
    assert_eq!(cgroup.breach(), None, "no memory.events yet");
    let set = |file: &str, text: &str| std::fs::write(path.join(file), text).unwrap();
    set("memory.events", "low 0\nhigh 0\nmax 41\noom 0\noom_kill 2\noom_group_kill 0\n");
    assert_eq!(cgroup.breach(), None, "an outer limit killed");
    set("memory.events", "low 0\nhigh 0\nmax 41\noom 1\noom_kill 0\n");
    assert_eq!(cgroup.breach(), None, "nobody was killed");
    set("memory.events", "low 0\nhigh 0\nmax 41\noom 1\noom_kill 2\n");
    assert_eq!(cgroup.breach(), Some(Breach::Memory { limit_bytes: 64 << 20, used_bytes: 64 << 20 }));
    set("memory.peak", "67112960\n");
    assert_eq!(cgroup.breach(), Some(Breach::Memory { limit_bytes: 64 << 20, used_bytes: 67_112_960 }));
    set("memory.events", "oom 0\noom_kill 0\n");
    set("pids.events", "max 5\n");
    set("pids.peak", "7\n");
    assert_eq!(cgroup.breach(), None, "an outer limit refused");
    set("pids.peak", "9\n");
    assert_eq!(cgroup.breach(), Some(Breach::Pids { limit: 9, count: 9 }));
}

#[test]
fn a_process_of_another_namespace_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = leaf(folder.path(), &[("cgroup.procs", "0\n12\n"), ("cgroup.events", "populated 1\nfrozen 0\n")]);
    leaf(&path, &[("cgroup.procs", "34\n")]);
    let cgroup = Cgroup::bounded(path, &BOTH);
    assert_eq!(cgroup.pids().unwrap(), [12, 34]);
    assert!(cgroup.is_populated().unwrap());
}

#[test]
fn our_own_folder_is_found_whatever_is_mounted_where() {
    let hybrid = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
                  36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices\n\
                  41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
    let own = |mounts: &str, own: &str| own_folder(mounts, own).map(|path| path.to_string_lossy().into_owned());
    assert_eq!(own(hybrid, "4:memory:/a\n0::/\n").as_deref(), Some("/sys/fs/cgroup/unified"));
    assert_eq!(own(hybrid, "0::/user.slice/x.scope\n").as_deref(), Some("/sys/fs/cgroup/unified/user.slice/x.scope"));
    assert_eq!(own(hybrid, "0::/../other\n"), None, "outside our cgroup namespace");
    assert_eq!(own(hybrid, "4:memory:/a\n"), None);
    let part = "50 31 0:38 /docker/c1 /my\\040cgroups rw shared:7 master:1 - cgroup2 none rw,nsdelegate\n";
    assert_eq!(own(part, "0::/docker/c1/x\n").as_deref(), Some("/my cgroups/x"));
    assert_eq!(own(part, "0::/docker/c10\n"), None, "another part of the hierarchy");
    let v1 = "36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices\n";
    assert_eq!(own(v1, "0::/\n"), None);
}

#[test]
fn only_folders_of_dead_servers_are_swept() {
    let started_at = |pid| (pid == 10).then_some(500);
    assert!(is_dead("sandboxd-7-11-500", 7, started_at));
    assert!(is_dead("sandboxd-7-10-499", 7, started_at), "the number belongs to another process now");
    for name in ["sandboxd-7-10-500", "sandboxd-8-11-500", "sandboxd-7-11", "sandboxd-", "sandboxd-a-b-c", "other", "7-11-500"] {
        assert!(!is_dead(name, 7, started_at), "{name}");
    }
}

/// A folder whose kernel keeps the rule against inner processes: controllers are handed down once nobody is left in it.
struct Kernel {
    own: tempfile::TempDir,
    /// Others beside us, who don't go away.
    others: bool,
    log: Vec<String>,
}

impl Kernel {
    fn new(controllers: &str, others: bool) -> Self {
        let own = tempfile::tempdir().unwrap();
        let files = [("cgroup.controllers", controllers), ("cgroup.subtree_control", ""), ("cgroup.procs", "")];
        for (file, text) in files.into_iter().chain([("cgroup.type", "domain\n")]) {
            std::fs::write(own.path().join(file), text).unwrap();
        }
        Self { own, others, log: Vec::new() }
    }

    fn root(&mut self) -> Result<CgroupRoot> {
        let own = self.own.path().to_owned();
        let (others, log) = (self.others, &mut self.log);
        let mut inside = true;
        let write: &mut Write<'_> = &mut |path, text| {
            let file = path.strip_prefix(&own).unwrap().to_string_lossy().into_owned();
            log.push(format!("{file} {}", text.replace(&std::process::id().to_string(), "me")));
            inside = if file.ends_with("cgroup.procs") { file == "cgroup.procs" } else { inside };
            let busy = file == "cgroup.subtree_control" && text.starts_with('+') && (inside || others);
            if busy && text.contains("memory") {
                return Err(ErrorKind::ResourceBusy.into());
            } else if busy {
                std::fs::write(own.join("ours/cgroup.type"), "domain invalid\n")?; // our folder can't be used now
            }
            Ok(())
        };
        CgroupRoot::below(&own, "ours", None, write)
    }
}

#[test]
fn the_server_makes_room_before_controllers_are_handed_down() {
    let mut kernel = Kernel::new("cpu memory pids\n", false);
    let root = kernel.root().unwrap();
    assert_eq!(root.offers(), Enforcement { memory: true, pids: true });
    let expected = ["ours/server/cgroup.procs me", "cgroup.subtree_control +memory +pids"];
    assert_eq!(kernel.log, [expected[0], expected[1], "ours/cgroup.subtree_control +memory +pids"]);
}

#[test]
fn pids_alone_would_be_handed_down_beside_others_but_spoil_our_folder() {
    let mut kernel = Kernel::new("pids\n", true);
    let root = kernel.root().unwrap();
    assert_eq!(root.offers(), Enforcement::default());
    assert_eq!(kernel.log[1..], ["cgroup.subtree_control +pids", "cgroup.subtree_control -pids", "cgroup.procs me"]);
}

#[test]
fn with_others_in_its_cgroup_the_server_goes_back() {
    let mut kernel = Kernel::new("memory pids\n", true);
    let root = kernel.root().unwrap();
    assert_eq!(root.offers(), Enforcement::default());
    assert_eq!(kernel.log[2..], ["cgroup.subtree_control -memory -pids", "cgroup.procs me"]);
    assert!(root.path().is_dir() && !root.path().join("server").exists());
    drop(root);
    assert!(!kernel.own.path().join("ours").exists());
}

#[test]
fn the_server_stays_where_it_is_if_that_is_no_use_or_not_needed() {
    let mut hybrid = Kernel::new("hugetlb\n", false);
    assert_eq!(hybrid.root().unwrap().offers(), Enforcement::default());
    assert_eq!(hybrid.log, [""; 0]);

    let mut ready = Kernel::new("pids\n", false);
    std::fs::write(ready.own.path().join("cgroup.subtree_control"), "cpu pids\n").unwrap();
    assert_eq!(ready.root().unwrap().offers(), Enforcement { memory: false, pids: true });
    assert_eq!(ready.log, ["ours/cgroup.subtree_control +pids"]);

    let mut closed = Kernel::new("memory pids\n", false);
    std::fs::remove_file(closed.own.path().join("cgroup.procs")).unwrap();
    assert!(closed.root().is_err());
    assert!(!closed.own.path().join("ours").exists());
}

/// Tests of one process share its folder, and take turns.
type Turn = tokio::sync::MutexGuard<'static, ()>;

/// A place for real cgroups; says loudly when this machine has none.
fn real(test: &str) -> Option<(Turn, CgroupRoot)> {
    let turn = crate::processes::TEST_CHILDREN.blocking_lock();
    let root = CgroupRoot::discover("store_test", None);
    if root.is_none() {
        eprintln!("NOT TESTED: {test}: NO WRITABLE CGROUP2 HIERARCHY ON THIS MACHINE");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let own = own_folder(&mounts, &std::fs::read_to_string("/proc/self/cgroup").unwrap());
        let writable = own.is_some_and(|own| OpenOptions::new().write(true).open(own.join("cgroup.procs")).is_ok());
        assert!(!writable, "discover() found none, but there is one");
    }
    Some((turn, root?)) // dropped in turn: the folder goes before the next test comes
}

/// Four processes once it has read a line: the shell, one in a session of its own, and a shell with its child.
const TREE: &str = "read go; setsid sleep 100 & sh -c 'sleep 100 & echo ready; wait'; :";

fn shell(script: &str) -> (Child, BufReader<ChildStdout>) {
    let mut command = Command::new("sh");
    let mut child = command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    (child, stdout)
}

#[test]
fn a_real_tree_is_killed_and_its_cgroup_removed() {
    let Some((_turn, root)) = real("killing a tree") else { return };
    for (name, kill) in [("kill_all", Cgroup::kill_all as fn(&Cgroup) -> Result<()>), ("kill_each", Cgroup::kill_each)] {
        let cgroup = Cgroup::create(&root, &format!("test_{name}"), &BOTH).unwrap();
        assert!(!cgroup.is_populated().unwrap());
        let (mut child, mut stdout) = shell(TREE);
        cgroup.add(child.id()).unwrap();
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let pids = cgroup.pids().unwrap();
        assert!(pids.len() == 4 && pids.contains(&child.id()), "{pids:?}");
        assert!(cgroup.is_populated().unwrap());
        kill(&cgroup).unwrap();
        assert!(!child.wait().unwrap().success());
        cgroup.remove().unwrap();
        assert!(!cgroup.path.exists() && !cgroup.is_populated().unwrap() && cgroup.pids().unwrap().is_empty());
        assert!(pids.iter().all(|pid| crate::processes::started_at_ticks(*pid).is_none()), "{name} left one of {pids:?}");
        cgroup.remove().unwrap();
        cgroup.kill_all().unwrap();
        assert_eq!(cgroup.breach(), None);
    }
}

#[test]
fn a_process_enters_through_the_file_and_keeps_the_cgroup_busy() {
    let Some((_turn, root)) = real("entering through cgroup.procs") else { return };
    let cgroup = Cgroup::create(&root, "test_enter", &Limits::default()).unwrap();
    let procs = cgroup.procs_file().unwrap();
    // The shell writes `0` for itself into the file it was given as its standard error.
    let mut command = Command::new("sh");
    command.args(["-c", "echo 0 >&2; echo ready; read go"]).stderr(procs).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(cgroup.pids().unwrap(), [child.id()]);
    std::fs::create_dir(cgroup.path.join("inner")).unwrap();
    assert_eq!(cgroup.remove().unwrap_err().kind(), ErrorKind::ResourceBusy);
    assert_eq!(cgroup.enforcement(), Enforcement::default());
    drop(child.stdin.take());
    child.wait().unwrap();
    let path = cgroup.path.clone();
    drop(cgroup);
    assert!(!path.exists(), "with the one that was made in it");
}

#[test]
fn names_are_plain_and_unique() {
    let Some((_turn, root)) = real("names") else { return };
    for name in ["", ".", "..", "a/b", "memory.max", "a b"] {
        assert_eq!(Cgroup::create(&root, name, &BOTH).unwrap_err().kind(), ErrorKind::InvalidInput, "{name}");
    }
    let cgroup = Cgroup::create(&root, "test_names", &BOTH).unwrap();
    assert_eq!(Cgroup::create(&root, "test_names", &BOTH).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert!(cgroup.path.is_dir());
}

#[test]
fn what_a_dead_server_left_is_removed_when_the_next_one_comes() {
    let Some((_turn, root)) = real("sweeping") else { return };
    let dead = root.path().with_file_name(format!("sandboxd-{}-{}-1", pid_namespace(), i32::MAX)); // above any pid
    let strange = root.path().with_file_name(format!("sandboxd-{}-{}-1", pid_namespace() + 1, i32::MAX));
    std::fs::create_dir_all(dead.join("proc_1/inner")).unwrap();
    std::fs::create_dir(&strange).unwrap();
    let again = CgroupRoot::discover("store_test", None).unwrap();
    let found = (dead.exists(), strange.exists(), root.path().exists());
    std::fs::remove_dir(&strange).unwrap();
    assert_eq!(found, (false, true, true));
    assert_eq!(again.path(), root.path());
}
