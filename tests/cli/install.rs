use serde_json::json;

use super::support::{BIN, Home, Server};

#[test]
fn the_mock_is_installed_without_a_server() {
    let home = Home::new();
    let ran = home.run(&["install-agent", "mock", "--reinstall"]);
    assert!(ran.err.contains("mock done: "), "progress is told: {ran:?}");
    let report = ran.json();
    assert_eq!((&report["alreadyInstalled"], &report["artifacts"][0]["kind"]), (&json!(false), &json!("AgentProcess")));
    assert_eq!(report["artifacts"][0]["source"], "Builtin");
    let again = home.run(&["install-agent", "mock"]).json();
    assert_eq!(again, json!({"alreadyInstalled": true, "artifacts": []}));
}

#[test]
fn all_goes_on_after_a_failure_and_reports_each() {
    let home = Home::new().env("PATH", "/nonexistent"); // neither node nor npm
    let ran = home.run(&["install-agent", "--all"]).fails(1, "not installed: ");
    let report: serde_json::Value = serde_json::from_str(&ran.out).expect("a report");
    let of = |id: &str| {
        report["agents"].as_array().expect("a list").iter().find(|agent| agent["agent"] == id).expect("each is there").clone()
    };
    assert!(of("claude")["error"].as_str().is_some_and(|error| error.contains("not on PATH")), "{report:#}");
    assert!(of("gemini")["error"].is_string(), "it went on");
    assert!(of("mock")["alreadyInstalled"].is_boolean(), "{report:#}");
}

#[test]
fn mistakes_are_refused() {
    let home = Home::new();
    home.run(&["install-agent", "nope"]).fails(1, "unsupported agent: nope");
    assert_eq!(home.run(&["install-agent", "mock", "--all"]).code, Some(2));
    home.run(&["install-agent", "--all", "--agent-version", "1"]).fails(1, "without --all");
}

#[test]
fn an_added_agent_is_listed_and_runs() {
    let home = Home::new();
    let server = Server::start(&home, &["--no-token"]);
    let ran = home.run(&["add-agent", "mine", "--name", "My own", "--", BIN, "mock-agent-process"]).ok();
    let path = home.path().join(".config/sandboxd/agents/mine.toml");
    assert!(ran.out.starts_with(&path.display().to_string()) && ran.out.contains("--agent mine"), "{ran:?}");
    assert!(path.exists());
    let list = home.run(&["api", "agents", "list", "-e", &server.url]).json();
    let mine =
        list["agents"].as_array().expect("a list").iter().find(|agent| agent["id"] == "mine").expect("it is listed").clone();
    assert_eq!(mine["installed"], true);
    let hello = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":1}}"#;
    let answer = home.run(&["api", "acp", "post", "--server-id", "s", "--agent", "mine", "--json", hello, "-e", &server.url]);
    assert_eq!(answer.json()["id"], 1);
}

#[test]
fn a_manifest_is_checked_before_it_is_added() {
    let home = Home::new();
    let manifest = "schema = 1\nid = 'filed'\nname = 'Filed'\nlaunch = { path_names = ['filed-acp'] }\n";
    home.write("good.toml", manifest);
    home.run(&["add-agent", "--file", "good.toml"]).ok();
    assert!(home.path().join(".config/sandboxd/agents/filed.toml").exists());
    home.run_with_stdin(&["add-agent", "--file", "-"], &manifest.replace("schema", "scheme")).fails(1, "scheme");
    home.run(&["add-agent", "Bad Id", "--", "x"]).fails(1, "id");
    home.run(&["add-agent", "mine", "--", "./missing"]).fails(1, "there is no file ./missing");
    assert_eq!(home.run(&["add-agent", "mine"]).code, Some(2));
    assert_eq!(home.run(&["add-agent", "mine", "--file", "good.toml"]).code, Some(2));
}

/// A package manager that notes what it is told.
fn with_manager(name: &str, script: &str) -> Home {
    let home = Home::new();
    home.write(&format!("bin/{name}"), script);
    let path = home.path().join("bin").join(name);
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("executable");
    let bin = home.path().join("bin").display().to_string();
    home.env("PATH", &format!("{bin}:/usr/bin:/bin"))
}

#[test]
fn a_desktop_is_installed_by_the_package_manager() {
    let home = with_manager("apt-get", "#!/bin/sh\necho \"$DEBIAN_FRONTEND $*\" >> \"$HOME/told\"\n");
    home.run(&["install", "desktop", "--yes"]).ok();
    let told = std::fs::read_to_string(home.path().join("told")).expect("it was told");
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[0].trim(), "update");
    assert!(lines[1].starts_with("noninteractive install -y") && lines[1].contains("xvfb openbox"), "{told}");
    assert!(lines[1].ends_with("fonts-dejavu-core"), "{told}");
}

#[test]
fn what_would_be_installed_is_printed() {
    let home = Home::new();
    let ran = home.run(&["install", "desktop", "--print-only", "--package-manager", "apk", "--no-fonts"]).ok();
    assert!(ran.out.contains("apk add --no-cache xvfb openbox") && !ran.out.contains("ttf"), "{ran:?}");
    let ran = home.run(&["install", "desktop", "--print-only", "--package-manager", "dnf"]).ok();
    assert!(ran.out.contains("dnf install -y") && ran.out.contains("xorg-x11-server-Xvfb"), "{ran:?}");
}

#[test]
fn an_installation_that_fails_or_is_not_wanted_says_so() {
    let home = with_manager("apt-get", "#!/bin/sh\nexit 7\n");
    home.run(&["install", "desktop", "--yes"]).fails(1, "apt-get update: exit status: 7");
    home.run(&["install", "desktop"]).fails(1, "nobody to ask: run it with --yes");
    home.run(&["install", "desktop", "--package-manager", "brew"]).fails(2, "brew is not one of apt, dnf, apk");
}
