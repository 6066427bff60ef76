//! Repositories over HTTP, with real ones.

use std::path::{Path, PathBuf};
use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json as object};

use crate::fs_support::{Files, json, told};
use crate::support::Options;

/// A server, and a repository in `work/repo`.
struct Repo {
    files: Files,
}

impl Repo {
    fn new() -> Self {
        Self::with(&Options::default())
    }

    fn with(options: &Options) -> Self {
        let repo = Self { files: Files::with(options) };
        std::fs::create_dir(repo.path("")).expect("a folder");
        repo.git(&["init", "-q", "-b", "main"]);
        repo
    }

    /// With two commits: `a` and `b`, then `a` changed.
    fn with_commits() -> Self {
        let repo = Self::new();
        repo.write("a", "one\n");
        repo.write("b", "bee\n");
        repo.commit("First\n\nWith a body.");
        repo.write("a", "one\ntwo\n");
        repo.commit("Second");
        repo
    }

    fn path(&self, below: &str) -> PathBuf {
        self.files.path("repo").join(below)
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        std::fs::write(path, content).expect("a file");
    }

    fn git(&self, args: &[&str]) -> String {
        git(&self.path(""), args)
    }

    fn commit(&self, message: &str) {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-qm", message]);
    }

    fn ask(&self, route: &str, query: &[(&str, &str)]) -> reqwest::RequestBuilder {
        self.ask_in("", Method::GET, route, query)
    }

    fn ask_in(&self, below: &str, method: Method, route: &str, query: &[(&str, &str)]) -> reqwest::RequestBuilder {
        let path = self.path(below).display().to_string();
        let query = [&[("path", path.as_str())], query].concat();
        let url = self.files.server.url(&format!("/v1/git/{route}"));
        self.files.server.http.request(method, reqwest::Url::parse_with_params(&url, &query).expect("a URL"))
    }

    /// `(path, kind, index, worktree)` of a status.
    async fn entries(&self) -> Vec<(String, String, String, String)> {
        let status = json(self.ask("status", &[])).await;
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let entries = status["entries"].as_array().expect("entries").iter();
        entries.map(|one| (text(&one["path"]), text(&one["kind"]), text(&one["index"]), text(&one["worktree"]))).collect()
    }

    async fn add_worktree(&self, more: Value) -> (u16, Value) {
        let mut body = object!({"path": self.path(""), "target": self.files.path("tree")});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        told(self.files.server.http.post(self.files.server.url("/v1/git/worktrees")).json(&body)).await
    }

    async fn remove_worktree(&self, more: &[(&str, &str)]) -> (u16, Value) {
        let target = self.files.path("tree").display().to_string();
        told(self.ask_in("", Method::DELETE, "worktrees", &[&[("target", target.as_str())], more].concat())).await
    }
}

pub fn git(directory: &Path, args: &[&str]) -> String {
    let mut command = Command::new("git");
    for role in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{role}_NAME"), "Ann").env(format!("GIT_{role}_EMAIL"), "ann@example.com");
        command.env(format!("GIT_{role}_DATE"), "1700000000 +0000");
    }
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    let output = command.current_dir(directory).args(args).output().expect("git runs: scripts/install-tools.sh test");
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn entry(path: &str, kind: &str, index: &str, worktree: &str) -> (String, String, String, String) {
    (path.into(), kind.into(), index.into(), worktree.into())
}

#[tokio::test]
async fn a_status_tells_what_changed() {
    let repo = Repo::with_commits();
    assert_eq!(repo.entries().await, []);
    repo.write("a", "changed\n");
    repo.git(&["mv", "b", "c d"]);
    repo.write("new/x", "x");
    repo.write("ignored", "x");
    repo.write(".git/info/exclude", "ignored\n");
    let expected =
        [entry("a", "ordinary", "-", "modified"), entry("c d", "renamed", "renamed", "-"), entry("new/x", "untracked", "-", "-")];
    assert_eq!(repo.entries().await, expected);
    let index = std::fs::metadata(repo.path(".git/index")).expect("an index").modified().expect("a time");
    let status = json(repo.ask_in("new", Method::GET, "status", &[("untracked", "normal"), ("ignored", "true")])).await;
    assert_eq!(status["root"], repo.path("").canonicalize().expect("a path").display().to_string());
    assert_eq!(status["entries"][1]["from"], "b");
    assert_eq!((&status["entries"][2]["path"], &status["entries"][3]["kind"]), (&"new/".into(), &"ignored".into()));
    assert_eq!(status["branch"]["name"], "main");
    assert_eq!(status["branch"]["head"], repo.git(&["rev-parse", "HEAD"]));
    let after = std::fs::metadata(repo.path(".git/index")).expect("an index").modified().expect("a time");
    assert_eq!(index, after, "a question writes nothing");
}

#[tokio::test]
async fn a_repository_may_have_no_commit_no_branch_or_no_tree() {
    let repo = Repo::new();
    repo.write("a", "one\n");
    let status = json(repo.ask("status", &[])).await;
    assert_eq!((&status["branch"]["name"], &status["branch"]["head"]), (&"main".into(), &Value::Null));
    assert_eq!(json(repo.ask("log", &[])).await, object!({"commits": [], "next": null}));
    repo.git(&["add", "a"]);
    let diff = json(repo.ask("diff", &[("staged", "true")])).await;
    assert_eq!((&diff["files"][0]["kind"], &diff["files"][0]["additions"]), (&"added".into(), &1.into()));
    let (status, problem) = repo.add_worktree(object!({"branch": "x"})).await;
    assert_eq!((status, &problem["code"]), (400, &"unknown_revision".into()));
    repo.commit("First");
    repo.git(&["checkout", "-q", "--detach"]);
    let status = json(repo.ask("status", &[])).await;
    assert_eq!((&status["branch"]["name"], status["branch"]["head"].is_string()), (&Value::Null, true));
    git(&repo.files.path(""), &["clone", "-q", "--bare", "repo", "repo/bare"]);
    let bare = repo.ask_in("bare", Method::GET, "status", &[]);
    let (status, problem) = told(bare).await;
    assert_eq!((status, &problem["code"]), (400, &"no_work_tree".into()));
    let log = json(repo.ask_in("bare", Method::GET, "log", &[])).await;
    assert_eq!(log["commits"][0]["subject"], "First");
    let diff = json(repo.ask_in("bare", Method::GET, "diff", &[("from", "HEAD"), ("to", "HEAD")])).await;
    assert_eq!((&diff["root"], &diff["files"], &diff["patch"]), (&Value::Null, &object!([]), &"".into()));
}

#[tokio::test]
async fn a_diff_is_text_and_counts() {
    let repo = Repo::with_commits();
    repo.write("a", "one\nthree\n");
    repo.git(&["add", "a"]);
    repo.write("a", "one\nfour\n");
    repo.write("b", "bye\n");
    let unstaged = json(repo.ask("diff", &[])).await;
    let patch = unstaged["patch"].as_str().expect("a text");
    assert!(patch.contains("--- a/a\n+++ b/a\n") && patch.contains("-three\n+four\n") && patch.contains("+bye"), "{patch}");
    assert_eq!(unstaged["files"][1], object!({"path": "b", "kind": "modified", "additions": 1, "deletions": 1}));
    let staged = json(repo.ask("diff", &[("staged", "true")])).await;
    assert!(staged["patch"].as_str().expect("a text").contains("-two\n+three\n"));
    let between = json(repo.ask("diff", &[("from", "HEAD~1"), ("to", "main")])).await;
    assert!(between["patch"].as_str().expect("a text").ends_with(" one\n+two\n"), "{between}");
    let only = json(repo.ask("diff", &[("paths", "b"), ("paths", "nothing")])).await;
    assert_eq!((only["files"].as_array().expect("files").len(), &only["files"][0]["path"]), (1, &"b".into()));
    for (query, code) in [
        ([("from", "--output=/tmp/x"), ("staged", "false")], "invalid"),
        ([("from", "nope"), ("to", "HEAD")], "unknown_revision"),
        ([("to", "HEAD"), ("staged", "false")], "invalid"),
        ([("to", "HEAD"), ("staged", "true")], "invalid"),
        ([("paths", "../x"), ("staged", "false")], "invalid"),
    ] {
        let (status, problem) = told(repo.ask("diff", &query)).await;
        assert_eq!((status, &problem["code"]), (400, &code.into()), "{query:?}");
    }
}

#[tokio::test]
async fn what_is_too_much_is_left_out() {
    let bounds = [("ENTRIES_MAX", "2"), ("PATCH_MAX_BYTES", "500")];
    let options =
        bounds.iter().fold(Options::default(), |options, (name, value)| options.env(&format!("SANDBOXD_GIT_{name}"), value));
    let repo = Repo::with(&options);
    for name in ["a", "b", "c"] {
        repo.write(name, &"line\n".repeat(100));
    }
    let status = json(repo.ask("status", &[])).await;
    assert_eq!((status["entries"].as_array().expect("entries").len(), &status["truncated"]), (2, &true.into()));
    repo.git(&["add", "-A"]);
    let diff = json(repo.ask("diff", &[("staged", "true")])).await;
    assert_eq!((diff["files"].as_array().expect("files").len(), &diff["truncated"]), (2, &true.into()));
    let patch = diff["patch"].as_str().expect("a text");
    assert!(patch.len() <= 500 && patch.ends_with("+line\n"), "{patch}");
}

#[tokio::test]
async fn a_log_comes_in_pages() {
    let repo = Repo::with_commits();
    let first = json(repo.ask("log", &[("limit", "1")])).await;
    assert_eq!(first["commits"][0]["subject"], "Second");
    repo.write("c", "later\n");
    repo.commit("Third");
    let second = json(repo.ask("log", &[("limit", "1"), ("cursor", first["next"].as_str().expect("a cursor"))])).await;
    let ann = object!({"name": "Ann", "email": "ann@example.com", "timeMs": 1_700_000_000_000_i64});
    let hash = repo.git(&["rev-parse", "HEAD~2"]);
    let commit =
        object!({"hash": hash, "parents": [], "author": ann, "committer": ann, "subject": "First", "body": "With a body."});
    assert_eq!(second, object!({"commits": [commit], "next": null}));
    let only = json(repo.ask("log", &[("paths", "a")])).await;
    let subjects: Vec<_> = only["commits"].as_array().expect("commits").iter().map(|commit| &commit["subject"]).collect();
    assert_eq!(subjects, ["Second", "First"]);
    assert_eq!(json(repo.ask("log", &[("ref", "main~2")])).await["commits"][0]["subject"], "First");
    for (query, code) in [(("ref", "nope"), "unknown_revision"), (("ref", "-p"), "invalid"), (("cursor", "HEAD:1"), "invalid")] {
        let (status, problem) = told(repo.ask("log", &[query])).await;
        assert_eq!((status, &problem["code"]), (400, &code.into()), "{query:?}");
    }
    assert_eq!(told(repo.ask("log", &[("limit", "0")])).await.0, 400);
}

#[tokio::test]
async fn names_that_are_not_utf_8_have_their_bytes() {
    use std::os::unix::ffi::OsStrExt as _;
    let repo = Repo::with_commits();
    let name = std::ffi::OsStr::from_bytes(b"\xff");
    std::fs::write(repo.path("").join(name), "x\n").expect("a file");
    let status = json(repo.ask("status", &[])).await;
    assert_eq!((&status["entries"][0]["path"], &status["entries"][0]["pathBase64"]), (&"\u{fffd}".into(), &"/w==".into()));
    repo.git(&["add", "-A"]);
    let url = repo.files.server.url("/v1/git/diff?path=work/repo&staged=true&paths=%FF");
    let diff = json(repo.files.server.http.get(url)).await;
    assert_eq!(diff["files"][0]["pathBase64"], "/w==");
}

/// What a hostile repository would run: each makes a file of its own.
fn set_traps(repo: &Repo) {
    let canary = |name: &str| format!("touch {}", repo.files.path(&format!("ran-{name}")).display());
    let settings = [
        ("core.fsmonitor", canary("fsmonitor")),
        ("core.pager", canary("pager")),
        ("core.sshCommand", canary("ssh")),
        ("diff.external", canary("external")),
        ("diff.trap.command", canary("driver")),
        ("diff.trap.textconv", canary("textconv")),
        ("filter.trap.clean", format!("{}; cat", canary("clean"))),
        ("filter.trap.smudge", format!("{}; cat", canary("smudge"))),
        ("filter.other.process", canary("process")),
        ("filter.trap.required", "true".to_owned()),
        ("gpg.program", canary("gpg")),
        ("log.showSignature", "true".to_owned()),
        ("pager.log", "true".to_owned()),
        ("hook.trap.command", canary("config-hook")),
        ("hook.trap.event", "post-checkout".to_owned()),
        ("core.hooksPath", repo.path(".git/hooks").display().to_string()),
        ("core.repositoryFormatVersion", "1".to_owned()),
        ("extensions.partialClone", "origin".to_owned()),
        ("remote.origin.promisor", "true".to_owned()),
        ("remote.origin.url", format!("ext::{}", canary("remote"))),
        ("protocol.ext.allow", "always".to_owned()),
    ];
    for (key, value) in &settings {
        repo.git(&["config", key, value]);
    }
    repo.write(".git/info/attributes", "* diff=trap filter=trap\n*.other filter=other\n");
    for hook in ["post-checkout", "post-index-change", "reference-transaction", "pre-auto-gc"] {
        let path = repo.path(".git/hooks").join(hook);
        std::fs::write(&path, format!("#!/bin/sh\n{}\n", canary("hook"))).expect("a hook");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("a mode");
    }
}

fn canaries(repo: &Repo) -> Vec<String> {
    let names = std::fs::read_dir(repo.files.path("")).expect("a folder").flatten();
    let mut names: Vec<_> = names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name.starts_with("ran-"));
    names.sort_unstable();
    names
}

#[tokio::test]
async fn nothing_that_a_repository_names_is_run() {
    let repo = Repo::with_commits();
    repo.write("x.other", "x\n");
    repo.commit("Third");
    set_traps(&repo);
    repo.write("a", "changed\n");
    repo.write("x.other", "y\n");
    json(repo.ask("status", &[("ignored", "true")])).await;
    for query in [&[][..], &[("staged", "true")], &[("from", "HEAD~1")], &[("from", "HEAD~1"), ("to", "HEAD")]] {
        json(repo.ask("diff", query)).await;
    }
    json(repo.ask("log", &[("paths", "a")])).await;
    let (status, added) = repo.add_worktree(object!({"branch": "side"})).await;
    assert_eq!(status, 201, "{added}");
    json(repo.ask("worktrees", &[])).await;
    assert_eq!(repo.remove_worktree(&[]).await.0, 200);
    assert_eq!(canaries(&repo), Vec::<String>::new());
    // An object that only a remote could have: it is not asked.
    let blob = repo.git(&["rev-parse", "HEAD~2:a"]);
    std::fs::remove_file(repo.path(".git/objects").join(&blob[..2]).join(&blob[2..])).expect("an object");
    let (status, problem) = told(repo.ask("diff", &[("from", "HEAD~2"), ("to", "HEAD")])).await;
    assert_eq!((status, &problem["code"]), (502, &"git_failed".into()), "{problem}");
    assert_eq!(canaries(&repo), Vec::<String>::new());
    // The traps are good: git as it is walks into them.
    for args in [
        &["status"][..],
        &["diff"],
        &["-c", "filter.other.process=", "status"],
        &["-c", "filter.other.process=", "diff", "HEAD~1", "HEAD"],
        &["-c", "filter.other.process=", "diff", "--no-ext-diff", "HEAD~1", "HEAD"],
        &["cat-file", "blob", &blob],
        &["-c", "filter.other.process=", "checkout", "-qf", "HEAD~1"],
    ] {
        Command::new("git").args(args).current_dir(repo.path("")).output().expect("git runs");
    }
    let ran = canaries(&repo);
    for name in ["fsmonitor", "driver", "textconv", "clean", "smudge", "process", "hook", "remote"] {
        assert!(ran.iter().any(|one| one == &format!("ran-{name}")), "{name} is no trap: {ran:?}");
    }
}

#[tokio::test]
async fn the_environment_of_the_server_says_nothing() {
    let home = tempfile::tempdir().expect("a folder");
    let elsewhere = home.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).expect("a folder");
    git(&elsewhere, &["init", "-q", "-b", "other"]);
    let other = elsewhere.join(".git").display().to_string();
    let repo =
        Repo::with(&Options::default().env("GIT_DIR", &other).env("GIT_TRACE", &home.path().join("trace").display().to_string()));
    assert_eq!(json(repo.ask("status", &[])).await["branch"]["name"], "main");
    assert!(!home.path().join("trace").exists());
}

#[tokio::test]
async fn a_configuration_that_cannot_be_made_safe_is_refused() {
    let repo = Repo::with_commits();
    repo.git(&["config", "filter.a=b.clean", "false"]);
    let (status, problem) = told(repo.ask("status", &[])).await;
    assert_eq!((status, &problem["code"]), (400, &"unsafe_configuration".into()));
}

#[tokio::test]
async fn what_is_no_repository_is_told() {
    let repo = Repo::new();
    std::fs::create_dir(repo.files.path("plain")).expect("a folder");
    let (status, problem) = told(repo.ask_in("../plain", Method::GET, "status", &[])).await;
    assert_eq!((status, &problem["code"]), (400, &"not_a_repository".into()), "{problem}");
    let (status, problem) = told(repo.ask_in("nowhere", Method::GET, "status", &[])).await;
    assert_eq!((status, &problem["code"]), (400, &"not_found".into()), "{problem}");
    let (status, problem) = told(repo.ask_in(".git", Method::GET, "status", &[])).await;
    assert_eq!((status, &problem["code"]), (400, &"no_work_tree".into()), "{problem}");
}

#[tokio::test]
async fn without_git_it_is_said_how_to_get_it() {
    let files = Files::with(&Options::default().env("PATH", "/nowhere"));
    let (status, problem) = told(files.server.http.get(files.server.url("/v1/git/status?path=work"))).await;
    assert_eq!((status, &problem["type"]), (501, &"urn:sandbox-agent:error:git_unavailable".into()));
    assert!(problem["detail"].as_str().expect("a text").contains("apt-get install git"));
}

#[tokio::test]
async fn a_repository_that_reaches_out_of_the_roots_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("root");
    std::fs::create_dir_all(root.join("inside")).expect("folders");
    git(folder.path(), &["init", "-q"]);
    git(&root.join("inside"), &["init", "-q", "-b", "main"]);
    let files = Files::with(&Options::default().env("SANDBOXD_FS_ROOTS", &root.display().to_string()));
    let ask = |below: &str| {
        let url = files.server.url(&format!("/v1/git/status?path={}", root.join(below).display()));
        told(files.server.http.get(url))
    };
    assert_eq!(ask("inside").await.0, 200);
    let (status, problem) = ask("").await;
    assert_eq!((status, &problem["code"]), (403, &"outside".into()), "the repository begins above the root");
    std::fs::create_dir(root.join("link")).expect("a folder");
    let git_file = format!("gitdir: {}\n", folder.path().join(".git").display());
    std::fs::write(root.join("link/.git"), git_file).expect("a file");
    assert_eq!(ask("link").await.0, 403, "its .git lies elsewhere");
    let alternates = root.join("inside/.git/objects/info/alternates");
    std::fs::write(&alternates, "../../../../.git/objects\n").expect("a file");
    assert_eq!(ask("inside").await.0, 403, "its objects lie elsewhere");
    std::fs::write(&alternates, "# nothing\n").expect("a file");
    assert_eq!(ask("inside").await.0, 200);
    git(&root.join("inside"), &["config", "core.worktree", &folder.path().display().to_string()]);
    assert_eq!(ask("inside").await.0, 403, "its files lie elsewhere");
}

#[tokio::test]
async fn worktrees_come_and_go() {
    let repo = Repo::with_commits();
    let (status, added) = repo.add_worktree(object!({"branch": "side/one", "base": "HEAD~1"})).await;
    assert_eq!((status, &added["branch"]), (201, &"side/one".into()), "{added}");
    assert_eq!(added["head"], repo.git(&["rev-parse", "HEAD~1"]));
    assert_eq!(std::fs::read_to_string(repo.files.path("tree/a")).expect("a file"), "one\n");
    let listed = json(repo.ask("worktrees", &[])).await;
    assert_eq!((&listed["worktrees"][0]["isMain"], &listed["worktrees"][1]), (&true.into(), &added));
    let there = json(repo.ask_in("../tree", Method::GET, "status", &[])).await;
    assert_eq!(there["branch"]["name"], "side/one");
    let (status, problem) = repo.add_worktree(object!({"branch": "side/two"})).await;
    assert_eq!((status, &problem["code"]), (409, &"destination_exists".into()));
    let elsewhere = repo.files.path("tree2");
    let (status, problem) = repo.add_worktree(object!({"branch": "side/one", "target": elsewhere})).await;
    assert_eq!((status, &problem["code"]), (409, &"in_use".into()), "{problem}");
    for branch in ["-d", "a..b", ""] {
        let (status, _) = repo.add_worktree(object!({"branch": branch, "target": elsewhere})).await;
        assert_eq!((status, elsewhere.exists()), (400, false), "{branch:?}");
    }
    assert_eq!(repo.remove_worktree(&[]).await.0, 200);
    assert!(!repo.files.path("tree").exists());
    let (status, again) = repo.add_worktree(object!({"branch": "side/one"})).await;
    assert_eq!((status, &again["head"]), (201, &added["head"]), "the branch was kept, and is used: {again}");
}

#[tokio::test]
async fn a_worktree_is_not_removed_with_work_in_it() {
    let repo = Repo::with_commits();
    let tree = repo.files.path("tree");
    let dirty = |answer: (u16, Value)| assert_eq!((answer.0, &answer.1["code"]), (409, &"worktree_dirty".into()), "{}", answer.1);
    assert_eq!(repo.add_worktree(object!({})).await.0, 201);
    std::fs::write(tree.join("new"), "x").expect("a file");
    dirty(repo.remove_worktree(&[]).await);
    git(&tree, &["add", "new"]);
    dirty(repo.remove_worktree(&[]).await);
    git(&tree, &["commit", "-qm", "On no branch"]);
    dirty(repo.remove_worktree(&[]).await);
    git(&tree, &["branch", "kept"]);
    repo.git(&["worktree", "lock", "--reason", "in use", &tree.display().to_string()]);
    let (status, problem) = repo.remove_worktree(&[("force", "true")]).await;
    assert_eq!((status, &problem["code"]), (409, &"worktree_locked".into()));
    repo.git(&["worktree", "unlock", &tree.display().to_string()]);
    assert!(tree.join("new").exists());
    assert_eq!(repo.remove_worktree(&[]).await.0, 200);
    assert_eq!(repo.add_worktree(object!({})).await.0, 201);
    std::fs::write(tree.join("new"), "x").expect("a file");
    assert_eq!(repo.remove_worktree(&[("force", "true")]).await.0, 200);
    assert!(!tree.exists());
    let (status, problem) = repo.remove_worktree(&[]).await;
    assert_eq!((status, &problem["code"]), (400, &"not_a_worktree".into()));
}

#[tokio::test]
async fn a_worktree_whose_directory_is_gone_can_be_removed() {
    let repo = Repo::with_commits();
    assert_eq!(repo.add_worktree(object!({"branch": "side"})).await.0, 201);
    std::fs::remove_dir_all(repo.files.path("tree")).expect("a folder");
    let listed = json(repo.ask("worktrees", &[])).await;
    assert!(listed["worktrees"][1]["prunable"].is_string(), "{listed}");
    assert_eq!(repo.remove_worktree(&[]).await.0, 200);
    assert_eq!(json(repo.ask("worktrees", &[])).await["worktrees"].as_array().expect("worktrees").len(), 1);
}

#[tokio::test]
async fn a_session_works_in_a_worktree() {
    let repo = Repo::with_commits();
    assert_eq!(repo.add_worktree(object!({"branch": "side"})).await.0, 201);
    let body = object!({"agent": "mock", "cwd": repo.files.path("tree")});
    let session = told(repo.files.server.http.post(repo.files.server.url("/v1/sessions")).json(&body)).await.1;
    let id = session["id"].as_str().expect("an id");
    let status = json(repo.files.server.http.get(repo.files.server.url(&format!("/v1/git/status?sessionId={id}")))).await;
    assert_eq!(status["branch"]["name"], "side");
}
