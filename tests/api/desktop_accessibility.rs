//! The accessibility tree over HTTP, with real programs: mousepad, its menus and dialogs.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::desktop_support::{Desktop, screen, until};
use crate::support::{Home, Options, Server, kill};

async fn start(home: &Home, options: &Options, display: u32) -> Desktop {
    Desktop::start_with(home, options, screen(display, 1024, 768)).await
}

impl Desktop {
    /// Starts mousepad; its pid, once its text is in the tree.
    async fn mousepad(&self, file: Option<&Path>) -> u32 {
        let args: Vec<&str> = ["--disable-server"].into_iter().chain(file.and_then(Path::to_str)).collect();
        let launched = self.post("launch", &json!({"app": "mousepad", "args": args})).await;
        let pid = launched["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a pid");
        self.one(area(pid)).await;
        pid
    }

    async fn find(&self, body: Value) -> Value {
        self.post("accessibility/find", &body).await
    }

    async fn act(&self, body: Value) -> Value {
        self.post("accessibility/act", &body).await
    }

    /// The first node that fits, waited for.
    async fn one(&self, mut body: Value) -> Value {
        body["timeoutMs"] = json!(60_000);
        let found = self.find(body.clone()).await;
        assert!(found["nodes"].as_array().is_some_and(|nodes| !nodes.is_empty()), "{body}: {found}");
        found["nodes"][0].clone()
    }

    async fn node(&self, id: &Value) -> (u16, Value) {
        let id = id.as_str().expect("an id");
        self.server.get(&format!("/v1/desktop/accessibility/node?id={id}")).await
    }
}

/// The text of mousepad.
fn area(pid: u32) -> Value {
    json!({"pid": pid, "role": "text", "states": ["editable", "showing"], "limit": 1})
}

fn nodes(tree: &Value) -> &Vec<Value> {
    tree["nodes"].as_array().expect("a list")
}

fn has(node: &Value, list: &str, word: &str) -> bool {
    node[list].as_array().is_some_and(|words| words.contains(&json!(word)))
}

#[tokio::test]
async fn the_tree_tells_windows_menus_and_texts_and_what_was_left_out() {
    let home = Home::new();
    let file = home.path().join("note.txt");
    std::fs::write(&file, "first line\nПривет, 世界\n").expect("written");
    // what keeps programs away from the tree doesn't get to them
    let desk = start(&home, &Options::default().env("NO_AT_BRIDGE", "1").env("AT_SPI_BUS_ADDRESS", "unix:path=/x"), 510).await;
    let pid = desk.mousepad(Some(&file)).await;
    let tree = desk.get(&format!("accessibility/tree?pid={pid}")).await;
    assert_eq!((&tree["truncated"], &tree["cuts"], &tree["silent"]), (&json!(false), &Value::Null, &Value::Null), "{tree}");
    assert_eq!((&tree["applications"][0]["name"], &tree["applications"][0]["pid"]), (&json!("mousepad"), &json!(pid)));
    let area = nodes(&tree).iter().find(|node| node["role"] == "text" && has(node, "states", "editable")).expect("a text");
    assert_eq!((&area["text"], &area["textLength"]), (&json!("first line\nПривет, 世界\n"), &json!(22)));
    for (place, node) in nodes(&tree).iter().enumerate().skip(1) {
        let above = nodes(&tree)[..place].iter().find(|other| other["id"] == node["parent"]).expect("a parent before it");
        assert_eq!(node["depth"].as_u64(), above["depth"].as_u64().map(|depth| depth + 1));
    }
    let about = nodes(&tree).iter().find(|node| node["role"] == "menu item" && node["name"] == "About").expect("an item");
    assert!(has(about, "actions", "click"), "{about}");
    assert_eq!(desk.node(&area["id"]).await.1["text"], area["text"]);

    let visible = desk.get(&format!("accessibility/tree?pid={pid}&visibleOnly=true")).await;
    assert!(nodes(&visible).len() < nodes(&tree).len() && nodes(&visible).iter().any(|node| node["id"] == area["id"]));
    let buttons = desk.get("accessibility/tree?application=MOUSE&window=note&role=menu%20item,Menu").await;
    assert!(
        nodes(&buttons).len() > 20
            && nodes(&buttons).iter().all(|node| node["role"].as_str().expect("a role").starts_with("menu"))
    );
    let root = format!("accessibility/tree?root={}&maxDepth=0", area["id"].as_str().expect("an id"));
    assert_eq!(nodes(&desk.get(&root).await).iter().map(|node| &node["id"]).collect::<Vec<_>>(), [&area["id"]]);

    let few = desk.get("accessibility/tree?maxNodes=7").await;
    assert_eq!((nodes(&few).len(), &few["truncated"], &few["cuts"][0]["reason"]), (7, &json!(true), &json!("maxNodes")), "{few}");
    let flat = desk.get(&format!("accessibility/tree?pid={pid}&maxDepth=1")).await;
    assert_eq!((nodes(&flat).len(), &flat["cuts"]), (2, &json!([{"reason": "maxDepth", "atLeast": 1}])));
    let short = desk.get(&format!("accessibility/tree?pid={pid}&role=text&textChars=5")).await;
    assert!(nodes(&short).iter().any(|node| node["text"] == "first" && node["textLength"] == 22), "{short}");
    let found = desk.find(json!({"pid": pid, "role": "menu item", "limit": 3})).await;
    assert_eq!((nodes(&found).len(), &found["cuts"][0]["reason"]), (3, &json!("limit")), "{found}");
    for wrong in ["maxNodes=0", "maxNodes=20001", "textChars=20001", "role=buton", "root=x", "pid=x"] {
        assert_eq!(desk.server.get(&format!("/v1/desktop/accessibility/tree?{wrong}")).await.0, 400, "{wrong}");
    }
    // xterm has no tree, and is no hindrance
    desk.post("launch", &json!({"app": "xterm", "wait": true})).await;
    let all = desk.get("accessibility/tree?maxDepth=0").await;
    assert_eq!((nodes(&all).len(), &all["silent"]), (1, &Value::Null), "{all}");
}

#[tokio::test]
async fn a_text_is_edited_and_saved_without_pointer_and_keys() {
    let home = Home::new();
    let file = home.path().join("note.txt");
    std::fs::write(&file, "old").expect("written");
    let desk = start(&home, &Options::default(), 520).await;
    let pid = desk.mousepad(Some(&file)).await;
    let text = desk.one(area(pid)).await["id"].clone();
    let set = desk.act(json!({"node": text, "action": "setText", "text": "Grüße\n"})).await;
    assert_eq!((&set["id"], &set["action"], &set["node"]["text"]), (&text, &json!("setText"), &json!("Grüße\n")), "{set}");
    let put = desk.act(json!({"node": text, "action": "insertText", "position": 5, "text": " 日本 😀"})).await;
    assert_eq!((&put["node"]["text"], &put["node"]["textLength"]), (&json!("Grüße 日本 😀\n"), &json!(11)));
    let save = json!({"find": {"pid": pid, "role": "menu item", "name": "save"}, "action": "click"});
    assert_eq!(desk.act(save).await["action"], "click");
    let saved = async || std::fs::read_to_string(&file).ok().filter(|text| text == "Grüße 日本 😀\n");
    until("the file", saved).await;
    desk.act(json!({"node": text, "action": "focus"})).await;
    desk.post("keyboard/type", &json!({"text": "typed"})).await;
    assert_eq!(desk.one(json!({"pid": pid, "textContains": "typed"})).await["id"], text);
    let caret = desk.act(json!({"node": text, "action": "insertText", "text": "!"})).await;
    assert!(caret["node"]["text"].as_str().is_some_and(|text| text.matches('!').count() == 1), "{caret}");
    let found = desk.find(json!({"pid": pid, "textContains": "日本 😀"})).await;
    assert_eq!((nodes(&found).len(), &found["nodes"][0]["id"]), (1, &text));
}

#[tokio::test]
async fn nodes_are_among_the_actions_of_a_list() {
    let home = Home::new();
    let file = home.path().join("list.txt");
    std::fs::write(&file, "old").expect("written");
    let desk = start(&home, &Options::default(), 580).await;
    let pid = desk.mousepad(Some(&file)).await;
    let text = desk.one(area(pid)).await["id"].clone();
    let save = json!({"type": "node", "find": {"pid": pid, "role": "menu item", "name": "save"}, "action": "click"});
    let list = json!([
        {"type": "node", "node": text, "action": "setText", "text": "by node, "},
        {"type": "node", "node": text, "action": "focus"},
        {"type": "key", "key": "ctrl+End"},
        {"type": "type", "text": "by key"},
        save,
        {"type": "node", "find": {"pid": pid, "role": "menu item", "name": "No Such Item"}, "action": "click"},
        {"type": "type", "text": "never"},
    ]);
    let done = desk.post("actions", &json!({"actions": list})).await;
    assert_eq!(
        (&done["ok"], &done["completed"], &done["error"]["code"]),
        (&json!(false), &json!(5), &json!("node_not_found")),
        "{done}"
    );
    until("the file", async || std::fs::read_to_string(&file).ok().filter(|text| text.trim() == "by node, by key")).await;
    for wrong in [
        json!({"type": "node", "action": "click"}),
        json!({"type": "node", "find": {}, "action": "click"}),
        json!({"type": "node", "node": text, "action": "setText"}),
    ] {
        let (status, problem) = desk.refused("actions", &json!({"actions": [{"type": "type", "text": "never"}, wrong]})).await;
        assert_eq!((status, &problem["code"]), (400, &json!("desktop_invalid_action")), "{problem}");
    }
}

#[tokio::test]
async fn bounds_are_where_the_pointer_clicks() {
    let home = Home::new();
    let desk = start(&home, &Options::default(), 530).await;
    let pid = desk.mousepad(None).await;
    let about = json!({"find": {"pid": pid, "role": "menu item", "name": "About"}, "action": "click"});
    desk.act(about).await;
    let dialog = desk.one(json!({"pid": pid, "role": "dialog", "states": ["showing"]})).await;
    desk.post("wait", &json!({"for": "still", "quietMs": 300})).await;
    let close = json!({"root": dialog["id"], "role": "push button", "name": "Close", "states": ["showing"]});
    let at = desk.one(close).await["bounds"].clone();
    let number = |field: &str| at[field].as_i64().expect("a number");
    let (x, y) = (number("x") + number("width") / 2, number("y") + number("height") / 2);
    // the window that is there is the dialog's
    let windows = desk.get("windows").await;
    let window =
        windows["windows"].as_array().expect("a list").iter().find(|window| window["type"] == "dialog").expect("a dialog");
    let side = |field: &str| window[field].as_i64().expect("a number");
    assert!((side("x")..side("x") + side("width")).contains(&x) && (side("y")..side("y") + side("height")).contains(&y));
    desk.post("mouse/click", &json!({"x": x, "y": y})).await;
    let closed =
        async || Some(desk.node(&dialog["id"]).await).filter(|(status, node)| *status == 404 || node["bounds"].is_null());
    until("the end of the dialog", closed).await;
    let gone = desk.post("wait", &json!({"for": "window", "title": "About", "gone": true})).await;
    assert_eq!(gone["met"], true);
}

#[tokio::test]
async fn what_cannot_be_done_says_why() {
    let home = Home::new();
    let desk = start(&home, &Options::default(), 540).await;
    let pid = desk.mousepad(None).await;
    let text = desk.one(area(pid)).await["id"].clone();
    let refused = async |body: Value| {
        let (status, problem) = desk.refused("accessibility/act", &body).await;
        (status, problem["code"].as_str().unwrap_or_default().to_owned(), problem)
    };
    let file = json!({"pid": pid, "role": "menu", "name": "File"});
    let (status, word, problem) = refused(json!({"find": file, "action": "fold"})).await;
    assert_eq!((status, word.as_str(), &problem["actions"]), (409, "node_refused", &json!(["click"])), "{problem}");
    let (status, word, problem) = refused(json!({"find": file, "action": "setText", "text": "x"})).await;
    assert_eq!((status, word.as_str()), (409, "node_refused"), "{problem}");
    let (status, word, problem) = refused(json!({"find": {"pid": pid, "role": "menu"}, "action": "click"})).await;
    assert_eq!((status, word.as_str()), (409, "node_ambiguous"));
    assert!(problem["nodes"].as_array().is_some_and(|nodes| nodes.len() > 1 && nodes[0]["id"].is_string()), "{problem}");
    let (status, word, problem) = refused(json!({"find": {"name": "no such"}, "action": "click"})).await;
    assert_eq!((status, word.as_str()), (404, "node_not_found"));
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("no such")), "{problem}");
    let (name, tag) = text.as_str().and_then(|id| Some((id.split('/').next()?, id.split('@').nth(1)?))).expect("an id");
    for nobody in [format!("{name}/999999@{tag}"), format!("99.9/1@{tag}"), format!("{name}/1@00000000")] {
        assert_eq!(desk.node(&json!(nobody)).await.0, 404, "{nobody}");
    }
    for wrong in [
        json!({"action": "click"}),
        json!({"node": text, "find": {"name": "x"}, "action": "click"}),
        json!({"find": {"pid": pid}, "action": "click"}),
        json!({"node": text, "action": "setText"}),
        json!({"node": "nonsense", "action": "click"}),
        json!({"find": {"name": "x", "timeoutMs": 60_001}, "action": "click"}),
    ] {
        let (status, word, problem) = refused(wrong.clone()).await;
        assert_eq!((status, word.as_str()), (400, "desktop_invalid_action"), "{wrong}: {problem}");
    }
    assert_eq!(refused(json!({"node": text})).await.0, 422);
    assert_eq!(desk.refused("accessibility/find", &json!({"states": ["shown"]})).await.0, 400);
    let found = desk.find(json!({"pid": pid, "name": "no such", "timeoutMs": 300})).await;
    assert!(nodes(&found).is_empty() && found["waitedMs"].as_u64() >= Some(300), "{found}");
}

#[tokio::test]
async fn a_silent_program_is_named_and_holds_up_nobody() {
    let home = Home::new();
    let desk = start(&home, &Options::default().env("SANDBOXD_DESKTOP_ACCESSIBILITY_SILENCE_MS", "700"), 550).await;
    let (silent, lively) = (desk.mousepad(None).await, desk.mousepad(None).await);
    let text = desk.one(area(silent)).await["id"].clone();
    kill(silent, "STOP");
    let tree = desk.get("accessibility/tree").await;
    assert_eq!((&tree["silent"][0]["pid"], tree["silent"].as_array().map(Vec::len)), (&json!(silent), Some(1)), "{tree}");
    assert!(tree["silent"][0]["message"].as_str().is_some_and(|why| why.contains("700 ms")), "{tree}");
    assert_eq!(
        tree["applications"].as_array().map(|all| all.iter().map(|one| &one["pid"]).collect()),
        Some(vec![&json!(lively)])
    );
    assert!(nodes(&tree).iter().any(|node| node["role"] == "text" && has(node, "states", "editable")));
    let (status, problem) = desk.node(&text).await;
    assert_eq!((status, &problem["code"]), (504, &json!("application_silent")), "{problem}");
    let focus = json!({"find": {"pid": silent, "role": "text"}, "action": "focus"});
    let (status, problem) = desk.refused("accessibility/act", &focus).await;
    assert_eq!(status, 404, "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(&silent.to_string())), "{problem}");
    kill(silent, "CONT");
    desk.one(area(silent)).await;
}

#[tokio::test]
async fn the_tree_is_there_after_a_kill_of_the_server_of_the_launcher_and_of_dbus() {
    let home = Home::new();
    let desk = start(&home, &Options::kept(), 560).await;
    let pid = desk.mousepad(None).await;
    let text = desk.one(area(pid)).await["id"].clone();
    let launcher = desk.pid_of("at-spi").await;
    assert!(launcher.is_some());
    desk.crash().await;
    assert_eq!(desk.pid_of("at-spi").await, launcher);
    assert_eq!(desk.one(area(pid)).await["id"], text, "the same program, the same node");
    let set = desk.act(json!({"node": text, "action": "setText", "text": "still here"})).await;
    assert_eq!(set["node"]["text"], "still here");

    // Programs that were on the old bus are windows as before; new ones are in the tree.
    desk.replace("at-spi").await;
    let next = desk.mousepad(None).await;
    assert_ne!(desk.one(area(next)).await["id"], text);
    assert_eq!(desk.node(&text).await.0, 404, "its bus ended");
    assert_eq!(desk.get("status").await["windows"].as_array().map(Vec::len), Some(2));
    let old = until("no bus of the old launcher", async || {
        let buses = home.processes().into_iter().filter(|(_, line)| line.contains("accessibility.conf")).count();
        Some(buses).filter(|buses| *buses == 1)
    });
    old.await;

    desk.replace("dbus").await;
    let next = desk.mousepad(None).await;
    desk.one(area(next)).await;
    assert!(desk.pid_of("at-spi").await.is_some());

    // A launcher that can't stay up doesn't take the desktop with it; D-Bus starts one when somebody asks.
    let given_up = async || match desk.pid_of("at-spi").await {
        Some(pid) => {
            kill(pid, "KILL");
            None
        }
        None => {
            let status = desk.get("status").await;
            let is_gone = status["processes"].as_array().is_some_and(|all| all.iter().all(|one| one["name"] != "at-spi"));
            is_gone.then_some(status)
        }
    };
    assert_eq!(until("the end of patience", given_up).await["state"], "active");
    desk.get("accessibility/tree").await; // once it is there
    let next = desk.mousepad(None).await;
    desk.one(area(next)).await;
    let stopped = desk.post("stop", &json!({})).await;
    assert_eq!(stopped["processes"], json!([]));
}

/// A directory for PATH with nothing but these programs.
fn path_of(home: &Home, programs: &[&str]) -> String {
    let dir = home.path().join("bin");
    std::fs::create_dir_all(&dir).expect("a directory");
    for program in programs {
        std::os::unix::fs::symlink(format!("/usr/bin/{program}"), dir.join(program)).expect("linked");
    }
    dir.to_string_lossy().into_owned()
}

#[tokio::test]
async fn what_is_not_installed_is_named_with_the_command_that_installs_it() {
    let home = Home::new();
    let path = path_of(&home, &["Xvfb", "openbox", "sh"]);
    let server = Server::start_with(&home, &Options::default().env("PATH", &path));
    let (status, problem) = server.get("/v1/desktop/accessibility/tree").await;
    assert_eq!((status, &problem["code"]), (409, &json!("desktop_runtime_inactive")), "{problem}");
    server.stop();

    let desk = start(&home, &Options::default().env("PATH", &path), 570).await;
    let missing = async |program: &str| {
        let (status, problem) = desk.server.get("/v1/desktop/accessibility/tree").await;
        assert_eq!((status, &problem["code"]), (503, &json!("desktop_dependencies_missing")), "{problem}");
        assert_eq!(problem["missingDependencies"], json!([program]));
        assert_eq!(problem["installCommand"], "sandboxd install desktop --yes");
    };
    missing("dbus-daemon").await;
    // D-Bus, but nothing that it could start: as without the package
    let config = home.path().join("bus.conf");
    let text = "<busconfig><listen>unix:tmpdir=/tmp</listen><policy context=\"default\"><allow send_destination=\"*\"/>\
                <allow eavesdrop=\"true\"/><allow own=\"*\"/></policy></busconfig>";
    std::fs::write(&config, text).expect("written");
    let script =
        format!("#!/bin/sh\nexec /usr/bin/dbus-daemon --config-file='{}' --nofork --nopidfile \"$4\"\n", config.display());
    let daemon = Path::new(&path).join("dbus-daemon");
    std::fs::write(&daemon, script).expect("written");
    std::fs::set_permissions(&daemon, std::fs::Permissions::from_mode(0o755)).expect("executable");
    let (status, problem) = desk.server.get("/v1/desktop/accessibility/tree").await;
    assert_eq!((status, &problem["code"]), (503, &json!("accessibility_unavailable")), "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("stop and start it")), "{problem}");
    desk.post("stop", &json!({})).await;
    let status = desk.post("start", &json!({"displayNum": 570})).await;
    let optional = status["optionalDependencies"].as_array().expect("a list");
    assert!(optional.iter().any(|one| one["name"] == "at-spi-bus-launcher"), "{status}");
    assert_eq!(desk.pid_of("at-spi").await, None);
    missing("at-spi-bus-launcher").await;
    let (status, problem) = desk.refused("accessibility/act", &json!({"node": "1.1/1@1", "action": "click"})).await;
    assert_eq!((status, &problem["missingDependencies"]), (503, &json!(["at-spi-bus-launcher"])), "{problem}");
}
