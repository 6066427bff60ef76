//! Working trees that come and go with sessions.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::git::git;
use crate::sessions_support::{get, request, until};
use crate::support::{Home, Options, Server};

/// A home with a repository in `work/repo`.
fn home() -> Home {
    let home = Home::new();
    let repository = home.path().join("work/repo");
    std::fs::create_dir_all(&repository).expect("a folder");
    std::fs::write(repository.join("a"), "one\n").expect("a file");
    for args in [&["init", "-q", "-b", "main"][..], &["add", "-A"], &["commit", "-qm", "First"]] {
        git(&repository, args);
    }
    home
}

/// Trees go after so long.
fn start(home: &Home, grace_ms: u64) -> Server {
    Server::start_with(home, &Options::default().env("SANDBOXD_GIT_WORKTREE_GRACE_MS", &grace_ms.to_string()))
}

/// A session with a tree of its own; gives its id and the tree's path.
async fn make(server: &Server, branch: &str) -> (String, PathBuf) {
    let worktree = json!({"repository": "work/repo", "branch": branch, "base": "main"});
    let (status, session) = server.send("/v1/sessions", &json!({"agent": "mock", "worktree": worktree})).await;
    assert_eq!(status, 201, "{session}");
    let text = |key: &str| session[key].as_str().expect("text").to_owned();
    (text("id"), text("cwd").into())
}

async fn listed(server: &Server, path: &PathBuf) -> Option<Value> {
    let (status, listed) = server.get("/v1/git/worktrees?path=work/repo").await;
    assert_eq!(status, 200, "{listed}");
    listed["worktrees"].as_array().expect("worktrees").iter().find(|tree| tree["path"] == json!(path)).cloned()
}

async fn close(server: &Server, id: &str) {
    assert_eq!(request(server, "POST", &format!("/v1/sessions/{id}/close"), None, None).await.0, 200);
}

async fn until_gone(server: &Server, path: &PathBuf) {
    until("the tree to go", async || listed(server, path).await.is_none().then_some(())).await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_tree_comes_and_goes_with_its_session() {
    let home = home();
    let server = start(&home, 300);
    let (id, path) = make(&server, "side").await;
    assert_eq!(path, home.path().join(format!("work/repo-{id}")));
    let (_, status) = server.get(&format!("/v1/git/status?sessionId={id}")).await;
    assert_eq!(status["branch"]["name"], "side", "{status}");
    let tree = listed(&server, &path).await.expect("it is there");
    assert_eq!((&tree["sessionId"], &tree["locked"]), (&json!(id), &json!(format!("session {id}"))), "{tree}");
    let remove = format!("/v1/git/worktrees?path=work/repo&target={}&force=true", path.display());
    let (status, problem) = request(&server, "DELETE", &remove, None, None).await;
    assert_eq!((status, &problem["code"]), (409, &json!("worktree_locked")), "{problem}");
    server.kill();

    let server = start(&home, 300);
    assert_eq!(listed(&server, &path).await.expect("it is there")["sessionId"], json!(id), "also after a restart");
    close(&server, &id).await;
    until_gone(&server, &path).await;
    let branches = git(&home.path().join("work/repo"), &["branch", "--list", "side"]);
    assert!(branches.contains("side"), "its branch stays: {branches}");
}

#[tokio::test]
async fn work_is_never_lost() {
    let home = home();
    let server = start(&home, 300);
    let [(clean, clean_at), (dirty, dirty_at)] = [make(&server, "clean").await, make(&server, "dirty").await];
    std::fs::write(dirty_at.join("new"), "work").expect("a file");
    for id in [&clean, &dirty] {
        assert_eq!(request(&server, "DELETE", &format!("/v1/sessions/{id}"), None, None).await.0, 204);
    }
    until_gone(&server, &clean_at).await;
    let kept = until("it is said why it stays", async || {
        let tree = listed(&server, &dirty_at).await.expect("it stays");
        tree["kept"].is_string().then_some(tree)
    })
    .await;
    assert!(kept["kept"].as_str().is_some_and(|why| why.contains("untracked")), "{kept}");
    assert!(Server::log(&home).contains("is kept"));
    assert_eq!(std::fs::read_to_string(dirty_at.join("new")).expect("a file"), "work");
    server.kill();

    let server = start(&home, 300);
    assert!(listed(&server, &dirty_at).await.expect("it stays")["kept"].is_string(), "also after a restart");
    git(&dirty_at, &["add", "-A"]);
    git(&dirty_at, &["commit", "-qm", "Work"]);
    until_gone(&server, &dirty_at).await;
}

#[tokio::test]
async fn a_tree_is_locked_as_long_as_its_session_is_open() {
    let home = home();
    let server = start(&home, 3_600_000);
    let (id, path) = make(&server, "side").await;
    let is_locked = async |wanted: bool| {
        until("the lock", async || {
            let tree = listed(&server, &path).await.expect("it is there");
            (tree["locked"].is_string() == wanted).then_some(())
        })
        .await;
    };
    is_locked(true).await;
    close(&server, &id).await;
    is_locked(false).await;
    assert_eq!(request(&server, "POST", &format!("/v1/sessions/{id}/reopen"), None, None).await.0, 200);
    is_locked(true).await;
    close(&server, &id).await;
    is_locked(false).await;
    let remove = format!("/v1/git/worktrees?path=work/repo&target={}", path.display());
    assert_eq!(request(&server, "DELETE", &remove, None, None).await.0, 200, "a client may remove it then");
    assert_eq!(get(&server, &id).await["cwd"], json!(path), "the session stays readable");
}

#[tokio::test]
async fn a_session_that_is_not_made_leaves_no_tree() {
    let home = home();
    let server = start(&home, 3_600_000);
    let make = async |more: Value, worktree: Value| {
        let mut spec = json!({"agent": "mock", "worktree": worktree});
        spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        server.send("/v1/sessions", &spec).await
    };
    let tree = || json!({"repository": "work/repo", "branch": "side"});
    let outside = json!({"roots": ["~/work/repo"]});
    for (more, worktree, status, code) in [
        (json!({"mode": "none"}), tree(), 422, Value::Null),
        (json!({"cwd": "work"}), tree(), 400, Value::Null),
        (outside, tree(), 403, json!("outside")),
        (json!({}), json!({"repository": "work"}), 400, json!("not_a_repository")),
        (json!({}), json!({"repository": "work/none"}), 400, json!("not_found")),
        (json!({}), json!({"repository": "work/repo", "target": "work/repo"}), 409, json!("destination_exists")),
        (json!({}), json!({"repository": "work/repo", "base": "none"}), 400, json!("unknown_revision")),
        (json!({}), json!({"repository": "work/repo", "branch": "main"}), 409, json!("in_use")),
    ] {
        let (found, problem) = make(more, worktree.clone()).await;
        assert_eq!((found, &problem["code"]), (status, &code), "{worktree}: {problem}");
        let (_, all) = server.get("/v1/git/worktrees?path=work/repo").await;
        assert_eq!(all["worktrees"].as_array().map(Vec::len), Some(1), "{worktree}: {all}");
        assert_eq!(git(&home.path().join("work/repo"), &["branch", "--list", "side"]), "", "{worktree}");
    }
    assert_eq!(server.get("/v1/sessions").await.1["sessions"], json!([]));
    let (status, session) = make(json!({}), tree()).await;
    assert_eq!(status, 201, "what failed is in nobody's way: {session}");
    let (status, problem) = make(json!({}), json!({"repository": "work/repo", "target": session["cwd"]})).await;
    assert_eq!((status, &problem["code"]), (409, &json!("destination_exists")), "{problem}");
}
