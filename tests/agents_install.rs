//! Installing agents for real: npm and its registry where the test is about them, a scripted npm where it is about us.
#![allow(missing_docs, clippy::unwrap_used)]

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use sandboxd::agents::{
    Agents, AgentsConfig, ArtifactKind, ArtifactSource, Error, InstallEvent, InstallFailure, InstallOptions, InstallPhase,
    ListOptions,
};
use sandboxd::config::{Bounds, Dirs, Env};
use sandboxd::processes::{ChildSpec, Children, Owner};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::runtime::Runtime;

/// One runtime and one processes room for all tests: a process has one subreaper.
static ROOM: LazyLock<(Runtime, Children)> = LazyLock::new(|| {
    let runtime = Runtime::new().unwrap();
    let children = runtime.block_on(Children::start("agents-install-test", Env::read(), 1024));
    (runtime, children)
});

/// A home of its own, with `tools/` as the whole `PATH` of the agents room.
struct House {
    dir: tempfile::TempDir,
    events: Arc<Mutex<Vec<InstallEvent>>>,
    agents: Agents,
}

const PINNED: &str = "sha512-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==";

impl House {
    /// `npm` is a script's body, or "real".
    fn new(npm: &str) -> Self {
        Self::with_bounds(npm, Bounds::default())
    }

    fn with_bounds(npm: &str, bounds: Bounds) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tools = dir.path().join("tools");
        std::fs::create_dir(&tools).unwrap();
        symlink(which("node"), tools.join("node")).unwrap();
        match npm {
            "none" => {}
            "real" => symlink(which("npm"), tools.join("npm")).unwrap(),
            script => executable(&tools.join("npm"), &format!("#!/bin/sh\n{script}")),
        }
        let env = Env::from_pairs([("HOME", dir.path().to_owned()), ("PATH", tools)]);
        let events = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&events);
        let agents = Agents::new(AgentsConfig {
            dirs: Dirs::resolve(&env, None).unwrap(),
            env,
            self_exe: "/opt/sandboxd".into(),
            bounds,
            require_preinstall: false,
            children: ROOM.1.clone(),
            progress: Arc::new(move |event| sink.lock().unwrap().push(event)),
        });
        Self { dir, events, agents }
    }

    fn below_bin(&self, path: &str) -> PathBuf {
        self.dir.path().join(".local/share/sandboxd/bin").join(path)
    }

    /// Adds an agent `toy` whose package the scripted npm "installs".
    fn add_toy(&self) {
        let npm = format!("package = 'toy'\nversion = '1.2.3'\nintegrity = '{PINNED}'\nbin = 'toy'");
        let text = format!("schema = 1\nid = 'toy'\nname = 'Toy'\n[launch]\nargs = ['--acp']\n[install.npm]\n{npm}\n");
        self.agents.add(&text).unwrap();
    }

    fn phases(&self) -> Vec<InstallPhase> {
        let mut phases: Vec<_> = self.events.lock().unwrap().iter().map(|event| event.phase).collect();
        phases.dedup();
        phases
    }

    fn install(&self, id: &str) -> Result<sandboxd::agents::InstallReport, Error> {
        ROOM.0.block_on(self.agents.install(id, InstallOptions::default()))
    }

    fn staging_dirs(&self, id: &str) -> usize {
        let entries = std::fs::read_dir(self.below_bin(&format!("agent_processes/{id}"))).into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(".staging-")).count()
    }
}

fn which(name: &str) -> PathBuf {
    Env::read()
        .search_path()
        .into_iter()
        .map(|dir| dir.join(name))
        .find(|path| path.exists())
        .expect("Node.js and npm are needed")
}

fn executable(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// An npm that "installs" the package `toy` with the given integrity after some time.
fn toy_npm(integrity: &str, engines: &str, seconds: &str) -> String {
    format!(
        r#"cd "$3" || exit 1
echo "npm http fetch GET 200 https://me:pw@registry.example/toy 5ms"
sleep {seconds}
mkdir -p node_modules/toy node_modules/.bin
echo '{{"name":"toy","version":"1.2.3","engines":{{"node":"{engines}"}}}}' > node_modules/toy/package.json
printf '#!/bin/sh\necho "toy runs $*"\n' > node_modules/.bin/toy; chmod +x node_modules/.bin/toy
echo '{{"packages":{{"node_modules/toy":{{"version":"1.2.3","integrity":"{integrity}"}}}}}}' > package-lock.json
"#
    )
}

#[test]
fn two_callers_share_one_install_from_the_real_registry() {
    let house = House::new("real");
    let (first, second) = ROOM.0.block_on(async {
        let install = || house.agents.install("cursor", InstallOptions::default());
        tokio::join!(install(), install())
    });
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first, second);
    assert!(!first.already_installed);
    let artifact = &first.artifacts[0];
    assert_eq!((artifact.kind, artifact.source), (ArtifactKind::AgentProcess, ArtifactSource::Fallback));
    assert_eq!(
        (artifact.version.as_deref(), Path::new(&artifact.path)),
        (Some("0.7.1"), &*house.below_bin("agent_processes/cursor-acp"))
    );
    use InstallPhase::{Done, Downloading, Linking, Queued, Verifying};
    assert_eq!(house.phases(), [Queued, Downloading, Verifying, Linking, Done], "one install, not two");
    assert!(house.events.lock().unwrap().iter().all(|event| !event.detail.contains("://")));
    assert!(house.install("cursor").unwrap().already_installed);
    let list = ROOM.0.block_on(house.agents.get("cursor", ListOptions { config: true, no_cache: false })).unwrap();
    assert!(list.installed && list.version.as_deref() == Some("0.7.1"));
    let launch = ROOM.0.block_on(house.agents.launch("cursor")).unwrap();
    assert_eq!((launch.program, launch.args.len()), (house.below_bin("agent_processes/cursor-acp"), 0));
}

#[test]
fn an_unknown_version_says_so_and_leaves_nothing() {
    let house = House::new("real");
    let options = InstallOptions { agent_process_version: Some("99.99.99".into()), ..InstallOptions::default() };
    let error = ROOM.0.block_on(house.agents.install("cursor", options)).unwrap_err();
    let Error::InstallFailed { reason, output_tail, .. } = &error else { panic!("{error}") };
    assert_eq!(*reason, InstallFailure::NoSuchPackage { package: "@blowmage/cursor-agent-acp@99.99.99".into() });
    assert!(output_tail.contains("code ETARGET") && !output_tail.contains("://"), "{output_tail}");
    assert_eq!((house.staging_dirs("cursor"), house.phases().last()), (0, Some(&InstallPhase::Failed)));
    assert!(!house.below_bin("agent_processes/cursor-acp").exists());
}

#[test]
fn a_real_package_that_differs_from_its_pin_is_refused() {
    let house = House::new("real");
    let npm = format!("package = 'pi-acp'\nversion = '0.0.34'\nintegrity = '{PINNED}'\nbin = 'pi-acp'");
    house
        .agents
        .add(&format!("schema = 1\nid = 'pi'\nname = 'Pi'\n[launch]\nlauncher = 'pi-acp'\n[install.npm]\n{npm}\n"))
        .unwrap();
    let error = house.install("pi").unwrap_err();
    let Error::InstallFailed { reason: InstallFailure::IntegrityMismatch { expected, found, .. }, .. } = &error else {
        panic!("{error}")
    };
    assert!(expected == PINNED && found.starts_with("sha512-MrCp37"));
    assert!(error.to_string().contains("nothing was installed"));
    assert!(!house.below_bin("agent_processes/pi-acp").exists() && house.staging_dirs("pi") == 0);
}

#[test]
fn an_unreachable_registry_says_what_to_check() {
    let npm = which("npm");
    let house = House::new(&format!("exec env npm_config_registry=http://127.0.0.1:9/ {} \"$@\"\n", npm.display()));
    let npm = "package = 'a-package-no-cache-has'\nversion = '1.0.0'\nbin = 'x'";
    house.agents.add(&format!("schema = 1\nid = 'x'\nname = 'X'\n[launch]\n[install.npm]\n{npm}\n")).unwrap();
    let error = house.install("x").unwrap_err();
    let Error::InstallFailed { reason, output_tail, .. } = &error else { panic!("{error}") };
    assert_eq!(*reason, InstallFailure::RegistryUnreachable, "{output_tail}");
}

#[test]
fn without_npm_or_node_the_answer_says_what_to_install() {
    let house = House::new("none");
    let error = house.install("claude").unwrap_err().to_string();
    assert!(error.contains("npm is required to install claude") && error.contains("sandboxd install-agent claude"), "{error}");
    std::fs::remove_file(house.dir.path().join("tools/node")).unwrap();
    let error = house.install("claude").unwrap_err().to_string();
    assert!(error.contains("node is not on PATH"), "{error}");
    let error = ROOM.0.block_on(house.agents.launch("claude")).unwrap_err();
    assert!(matches!(error, Error::InstallFailed { .. }), "lazy install was tried: {error}");
}

#[test]
fn what_a_killed_install_left_is_removed_and_the_launcher_works() {
    let house = House::new(&toy_npm(PINNED, ">=4", "0"));
    house.add_toy();
    let left = house.below_bin("agent_processes/toy/.staging-left");
    std::fs::create_dir_all(left.join("node_modules")).unwrap();
    house.install("toy").unwrap();
    assert!(!left.exists() && house.staging_dirs("toy") == 0);
    let launch = ROOM.0.block_on(house.agents.launch("toy")).unwrap();
    let spec = ChildSpec { program: launch.program, args: vec!["it's".into()], cwd: None, env: launch.env, owner: Owner::Agent };
    let (_, output) = ROOM.0.block_on(ROOM.1.errand(&spec, Duration::from_secs(10), 4096, |_| {})).unwrap();
    assert_eq!(output, "toy runs --acp it's");
}

#[test]
fn reinstalling_keeps_the_version_before_and_no_more() {
    let house = House::new(&toy_npm(PINNED, "*", "0"));
    house.add_toy();
    for _ in 0..4 {
        let options = InstallOptions { reinstall: true, ..InstallOptions::default() };
        assert!(!ROOM.0.block_on(house.agents.install("toy", options)).unwrap().already_installed);
    }
    let versions = std::fs::read_dir(house.below_bin("agent_processes/toy")).unwrap().count();
    assert_eq!(versions, 3, "current, its version, and the one before");
}

#[test]
fn a_node_that_is_too_old_and_a_wrong_integrity_stop_before_anything_is_in_place() {
    for (integrity, engines, expected) in
        [(PINNED, ">=999", "needs Node.js >=999"), ("sha512-other", "*", "its integrity should be")]
    {
        let house = House::new(&toy_npm(integrity, engines, "0"));
        house.add_toy();
        let error = house.install("toy").unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        let Error::InstallFailed { output_tail, .. } = error else { panic!() };
        assert!(output_tail.contains("…/toy") && !output_tail.contains("pw@"), "{output_tail}");
        assert!(!house.below_bin("agent_processes/toy-acp").exists() && house.staging_dirs("toy") == 0);
    }
}

#[test]
fn a_caller_that_goes_away_stops_nothing() {
    let house = House::new(&toy_npm(PINNED, "*", "1"));
    house.add_toy();
    ROOM.0.block_on(async {
        let install = house.agents.install("toy", InstallOptions::default());
        assert!(tokio::time::timeout(Duration::from_millis(300), install).await.is_err());
        let launch = house.agents.launch("toy").await.unwrap(); // joins the running one
        assert_eq!(launch.program, house.below_bin("agent_processes/toy-acp"));
    });
    let queued = house.events.lock().unwrap().iter().filter(|event| event.phase == InstallPhase::Queued).count();
    assert_eq!(queued, 1);
}

#[test]
fn another_process_s_install_is_waited_for() {
    let house = House::new(&toy_npm(PINNED, "*", "0"));
    house.add_toy();
    std::fs::create_dir_all(house.below_bin("")).unwrap();
    let file = std::fs::File::create(house.below_bin(".install-toy.lock")).unwrap();
    let lock = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive).map_err(|(_, errno)| errno).unwrap();
    ROOM.0.block_on(async {
        let install = house.agents.install("toy", InstallOptions::default());
        tokio::pin!(install);
        assert!(tokio::time::timeout(Duration::from_millis(500), &mut install).await.is_err());
        drop(lock);
        install.await.unwrap();
    });
}

#[test]
fn a_stuck_npm_is_stopped_and_its_tree_with_it() {
    let bounds = Bounds { agent_install_timeout_ms: 700, ..Bounds::default() };
    let house = House::with_bounds("sleep 4321 & sleep 4321", bounds);
    house.add_toy();
    let error = house.install("toy").unwrap_err().to_string();
    assert!(error.contains("took longer than 700 ms"), "{error}");
    assert_eq!(house.staging_dirs("toy"), 0);
}

#[test]
fn a_full_disk_and_other_failures_bring_npm_s_own_words() {
    for (output, code, expected) in
        [("npm error code ENOSPC", 1, "the disk is full"), ("npm error boom", 7, "npm install ended with exit code 7")]
    {
        let house = House::new(&format!("echo '{output}' >&2; exit {code}"));
        house.add_toy();
        let error = house.install("toy").unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(matches!(error, Error::InstallFailed { output_tail, .. } if output_tail == output));
    }
}

#[test]
fn the_mock_works_without_and_with_its_launcher() {
    let house = House::new("none");
    let launch = ROOM.0.block_on(house.agents.launch("mock")).unwrap();
    assert_eq!((launch.program.as_path(), &launch.args[..]), (Path::new("/opt/sandboxd"), &["mock-agent-process".into()][..]));
    let report = house.install("mock").unwrap();
    let path = house.below_bin("agent_processes/mock-acp");
    let expected = format!(
        r#"{{"already_installed":false,"artifacts":[{{"kind":"agent_process","path":"{}","source":"builtin","version":"builtin"}}]}}"#,
        path.display()
    );
    assert_eq!(serde_json::to_string(&report).unwrap(), expected);
    let cli = report.to_cli_json();
    assert_eq!((&cli["alreadyInstalled"], &cli["artifacts"][0]["kind"]), (&false.into(), &"AgentProcess".into()));
    assert!(house.install("mock").unwrap().already_installed);
    assert_eq!(ROOM.0.block_on(house.agents.launch("mock")).unwrap().program, path);
}

#[test]
fn a_dropped_manifest_is_listed_and_an_agent_without_installer_says_how() {
    let house = House::new("none");
    let dir = house.dir.path().join(".config/sandboxd/agents");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("own.toml"), "schema = 1\nid = 'own'\nname = 'Own'\nlaunch = { path_names = ['own-acp'] }\n")
        .unwrap();
    let list = || ROOM.0.block_on(house.agents.list(ListOptions { config: true, no_cache: false }));
    let own = list().pop().unwrap();
    assert_eq!((own.id.as_str(), own.installed, own.credentials_available), ("own", false, true));
    let error = ROOM.0.block_on(house.agents.launch("own")).unwrap_err().to_string();
    assert!(error.contains("put own-acp on PATH"), "{error}");
    let error = ROOM.0.block_on(house.agents.launch("amp")).unwrap_err();
    assert!(
        matches!(&error, Error::NotInstalled { help, .. } if help.contains("amp --agent-process-version VERSION")),
        "{error}"
    );
    executable(&house.dir.path().join("tools/own-acp"), "#!/bin/sh\necho warning >&2; echo own 1.0\n");
    let own = list().pop().unwrap();
    assert_eq!((own.installed, own.version.as_deref()), (true, Some("own 1.0")));
    std::fs::write(dir.join("bad.toml"), "schema = 9").unwrap();
    assert_eq!((list().len(), house.agents.problems().len()), (9, 1));
}

#[test]
fn version_probes_are_bounded_concurrent_and_follow_the_file() {
    let house = House::with_bounds("none", Bounds { agent_version_timeout_ms: 800, ..Bounds::default() });
    for name in ["claude", "codex", "opencode"] {
        executable(&house.below_bin(name), "#!/bin/sh\nsleep 4322\n");
    }
    let get = |no_cache| ROOM.0.block_on(house.agents.list(ListOptions { config: true, no_cache }));
    let started = std::time::Instant::now();
    let list = get(true);
    assert!(started.elapsed() < Duration::from_millis(2200), "{:?}", started.elapsed());
    assert!(list[0].version.is_none() && list[0].config_error.as_ref().unwrap().contains("longer than 800 ms"));
    executable(&house.below_bin("claude"), "#!/bin/sh\necho 'claude 0.0.7'\n");
    assert_eq!(get(false)[0].version.as_deref(), Some("claude 0.0.7"), "a changed file is asked again");
    assert!(!list[0].installed, "a native binary is no adapter");
    executable(&house.below_bin("agent_processes/claude-acp"), "#!/bin/sh\n");
    assert!(get(false)[0].installed);
    std::fs::set_permissions(house.below_bin("agent_processes/claude-acp"), std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(!get(false)[0].installed);
    assert!(matches!(ROOM.0.block_on(house.agents.launch("claude")), Err(Error::NotExecutable { .. })));
}

/// Installs every agent that can be and asks it to initialize. About 1.2 GB of disk and a few minutes.
#[test]
#[ignore = "downloads every agent: run with --ignored"]
fn every_installable_agent_answers_initialize() {
    let house = House::new("real");
    let wanted = Env::read().get("AGENTS").map_or_else(|| "claude codex opencode pi cursor gemini".to_owned(), str::to_owned);
    let mut failed = Vec::new();
    for id in wanted.split_whitespace() {
        let started = std::time::Instant::now();
        let answer = ROOM.0.block_on(initialize(&house, id));
        println!("{id}: {:?}: {}", started.elapsed(), answer.as_deref().unwrap_or_else(|error| error.as_str()));
        failed.extend(answer.err().map(|error| format!("{id}: {error}")));
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

async fn initialize(house: &House, id: &str) -> Result<String, String> {
    let launch = house.agents.launch(id).await.map_err(|error| format!("{error:?}"))?;
    let mut env = launch.env;
    env.push(("HOME".into(), house.dir.path().into()));
    let spec =
        ChildSpec { program: launch.program, args: launch.args, cwd: Some(house.dir.path().into()), env, owner: Owner::Agent };
    let mut started = ROOM.1.spawn(&spec).map_err(|error| error.to_string())?;
    let request = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":1,"clientCapabilities":{}}}"#;
    started.stdin.write_all(format!("{request}\n").as_bytes()).await.map_err(|error| error.to_string())?;
    let mut lines = BufReader::new(started.stdout).lines();
    let answer = async {
        while let Ok(Some(line)) = lines.next_line().await {
            if line.contains("\"protocolVersion\"") {
                return Ok(line.chars().take(160).collect());
            }
        }
        Err("no answer to initialize".to_owned())
    };
    let answer =
        tokio::time::timeout(Duration::from_secs(60), answer).await.unwrap_or_else(|_| Err("initialize timed out".into()));
    started.process.stop(Duration::from_secs(1)).await;
    answer
}

#[test]
fn an_agent_is_told_as_the_contract_has_it() {
    let house = House::new("none");
    let get = |config| {
        let info = ROOM.0.block_on(house.agents.get("codex", ListOptions { config, no_cache: false })).unwrap();
        serde_json::to_value(info).unwrap()
    };
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let mut short = keys(&get(false));
    short.sort();
    assert_eq!(short, ["capabilities", "credentialsAvailable", "id", "installed"]);
    let full = get(true);
    assert_eq!(full["capabilities"].as_object().unwrap().len(), 18);
    assert_eq!((&full["capabilities"]["planMode"], &full["capabilities"]["questions"]), (&true.into(), &false.into()));
    let mode = &full["configOptions"][1];
    let value = serde_json::json!({"category": "mode", "currentValue": "read-only", "id": "mode", "name": "Mode", "type": "select",
        "options": [{"name": "Read Only", "value": "read-only"}, {"name": "Default", "value": "auto"}, {"name": "Full Access", "value": "full-access"}]});
    assert_eq!(*mode, value);
    let unknown = ROOM.0.block_on(house.agents.get("Codex", ListOptions::default()));
    assert!(matches!(unknown, Err(Error::UnsupportedAgent { agent }) if agent == "Codex"));
}
