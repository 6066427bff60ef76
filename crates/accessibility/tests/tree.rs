//! The tree of real programs: mousepad on an X server and buses of the test's own.
#![allow(clippy::disallowed_methods)] // starts programs

mod support;

use std::time::{Duration, Instant};

use accessibility::{Accessibility, Action, CutReason, Error, Match, Node, NodeId, Query, TextMatch};
use rustix::process::Signal;
use support::{Session, until};

fn of(pid: u32) -> Query {
    Query { pid: Some(pid), ..Query::default() }
}

fn named(role: &str, name: &str) -> Match {
    Match { name: Some(TextMatch::Exact(name.into())), roles: vec![role.into()], ..Match::default() }
}

/// Waits for the one node that fits.
async fn find(desktop: &Accessibility, query: &Query, wanted: &Match) -> Node {
    let what = format!("{wanted:?}");
    until(&what, || async {
        let found = desktop.find(query, wanted, 1).await.expect("an answer");
        if found.nodes.is_empty() {
            println!("no {what} yet: {:?} {:?} {:?}", found.applications, found.cuts, found.silent);
        }
        found.nodes.into_iter().next()
    })
    .await
}

/// Waits for the text area of mousepad.
async fn text_area(desktop: &Accessibility, pid: u32) -> Node {
    let wanted = Match { roles: vec!["text".into()], states: vec!["editable".into(), "showing".into()], ..Match::default() };
    find(desktop, &of(pid), &wanted).await
}

#[tokio::test]
async fn the_tree_has_windows_menus_and_texts_with_their_bounds() {
    let mut session = Session::start().await;
    let file = session.path("note.txt");
    std::fs::write(&file, "first line\nПривет, 世界\n").expect("written");
    let pid = session.run("mousepad", &["--disable-server", file.to_str().expect("a path")]);
    let desktop = session.connect().await;
    let area = text_area(&desktop, pid).await;
    assert_eq!(area.text.as_deref(), Some("first line\nПривет, 世界\n"));

    let tree = desktop.tree(&of(pid)).await.expect("a tree");
    assert!(tree.cuts.is_empty() && tree.silent.is_empty(), "{:?} {:?}", tree.cuts, tree.silent);
    assert_eq!((tree.applications.len(), tree.applications[0].pid), (1, Some(pid)));
    assert_eq!((tree.nodes[0].role.as_str(), tree.nodes[0].name.as_str(), tree.nodes[0].depth), ("application", "mousepad", 0));

    let frame = tree.nodes.iter().find(|node| node.role == "frame").expect("a window");
    assert!(frame.name.contains("note.txt"), "{}", frame.name);
    assert_eq!(frame.parent.as_ref(), Some(&tree.nodes[0].id));
    let (outer, inner) = (frame.bounds.expect("on the screen"), area.bounds.expect("on the screen"));
    assert!(inner.x >= outer.x && inner.y >= outer.y && inner.width > 100 && inner.height > 100);
    assert!(inner.x + inner.width <= outer.x + outer.width && inner.y + inner.height <= outer.y + outer.height);

    let position = |id: &NodeId| tree.nodes.iter().position(|node| node.id == *id).expect("in the tree");
    for node in tree.nodes.iter().skip(1) {
        let parent = &tree.nodes[position(node.parent.as_ref().expect("a parent"))];
        assert!(position(&parent.id) < position(&node.id) && parent.depth + 1 == node.depth);
    }
    let menus: Vec<_> = tree.nodes.iter().filter(|node| node.role == "menu" && node.depth == 5).collect();
    assert_eq!(
        menus.iter().map(|menu| menu.name.as_str()).collect::<Vec<_>>(),
        ["File", "Edit", "Search", "View", "Document", "Help"]
    );
    assert!(menus.iter().all(|menu| menu.actions == ["click"] && menu.child_count > 1));

    let without_cache = desktop.tree(&Query { use_cache: false, ..of(pid) }).await.expect("a tree");
    assert_eq!(without_cache.nodes, tree.nodes);
    let visible = desktop.tree(&Query { visible_only: true, ..of(pid) }).await.expect("a tree");
    assert!(visible.nodes.len() < tree.nodes.len() && visible.nodes.iter().any(|node| node.id == area.id));
    assert!(visible.nodes.iter().all(|node| node.role == "application" || node.states.contains(&"showing")));
}

#[tokio::test]
async fn what_the_bounds_cut_is_said() {
    let mut session = Session::start().await;
    let pid = session.run("mousepad", &["--disable-server"]);
    let desktop = session.connect().await;
    text_area(&desktop, pid).await;

    let few = desktop.tree(&Query { max_nodes: 10, ..of(pid) }).await.expect("a tree");
    assert_eq!((few.nodes.len(), few.cuts.len(), few.cuts[0].reason), (10, 1, CutReason::MaxNodes));
    assert!(few.cuts[0].at_least > 0 && few.is_truncated());
    let short = desktop.tree(&Query { max_bytes: 1, ..of(pid) }).await.expect("a tree");
    assert!(short.nodes.len() < 40 && short.cuts.iter().any(|cut| cut.reason == CutReason::MaxBytes), "{:?}", short.cuts);
    let flat = desktop.tree(&Query { max_depth: 1, ..of(pid) }).await.expect("a tree");
    assert_eq!(flat.nodes.iter().map(|node| node.role.as_str()).collect::<Vec<_>>(), ["application", "frame"]);
    assert_eq!((flat.cuts[0].reason, flat.cuts[0].at_least), (CutReason::MaxDepth, 1));
    let menus = Match { roles: vec!["Menu_Item".into()], ..Match::default() };
    let three = desktop.find(&of(pid), &menus, 3).await.expect("nodes");
    assert_eq!(three.nodes.len(), 3);
    assert!(three.cuts.iter().any(|cut| cut.reason == CutReason::Limit));
    for other in [Query { window: Some("no such window".into()), ..of(pid) }, of(1)] {
        let tree = desktop.tree(&other).await.expect("a tree");
        assert!(!tree.nodes.iter().any(|node| node.role == "frame"));
    }
    let bad = desktop.tree(&Query { max_nodes: 20_001, ..Query::default() }).await;
    assert!(matches!(bad, Err(Error::Invalid(_))));
}

#[tokio::test]
async fn acts_have_their_effect() {
    let mut session = Session::start().await;
    let file = session.path("note.txt");
    std::fs::write(&file, "old").expect("written");
    let pid = session.run("mousepad", &["--disable-server", file.to_str().expect("a path")]);
    let desktop = session.connect().await;
    let area = text_area(&desktop, pid).await;

    desktop.set_text(&area.id, "Grüße, κόσμε\n").await.expect("set");
    desktop.insert_text(&area.id, 5, " Привет 😀").await.expect("inserted");
    let all = desktop.text(&area.id, 0, None).await.expect("a text");
    assert_eq!((all.text.as_str(), all.length), ("Grüße Привет 😀, κόσμε\n", 22));
    assert_eq!(desktop.text(&area.id, 6, Some(12)).await.expect("a text").text, "Привет");
    let by_text = Match { text: Some(TextMatch::Contains("привет 😀".into())), ..Match::default() };
    assert_eq!(find(&desktop, &of(pid), &by_text).await.id, area.id);
    desktop.focus(&area.id).await.expect("focused");
    let found = desktop.find(&of(pid), &named("text", "no such name"), 9).await.expect("nodes");
    assert!(found.nodes.is_empty() && found.cuts.is_empty());

    let save = find(&desktop, &of(pid), &named("menu item", "Save")).await;
    assert_eq!(desktop.act(&save.id, &Action::Default).await.expect("saved"), "click");
    until("the file", || async {
        (std::fs::read_to_string(&file).ok()? == "Grüße Привет 😀, κόσμε\n").then_some(())
    })
    .await;

    // a dialog opens, which is a window of its own, and is closed by its button
    let about = find(&desktop, &of(pid), &named("menu item", "About")).await;
    desktop.act(&about.id, &Action::Name("Click".into())).await.expect("opened");
    let dialog = Match { roles: vec!["dialog".into()], states: vec!["showing".into()], ..Match::default() };
    let dialog = find(&desktop, &of(pid), &dialog).await;
    let below = Query { root: Some(dialog.id.clone()), ..Query::default() };
    let close = find(&desktop, &below, &named("push button", "Close")).await;
    desktop.act(&close.id, &Action::Index(0)).await.expect("closed");
    // mousepad keeps the object
    let closed = || async { matches!(desktop.node(&dialog.id).await, Ok(Node { bounds: None, .. })).then_some(()) };
    until("the dialog closed", closed).await;
}

#[tokio::test]
async fn a_scroll_bar_is_set_to_a_number_of_its_range() {
    let mut session = Session::start().await;
    let file = session.path("long.txt");
    std::fs::write(&file, "a line\n".repeat(500)).expect("written");
    let pid = session.run("mousepad", &["--disable-server", file.to_str().expect("a path")]);
    let desktop = session.connect().await;
    let bar = Match { roles: vec!["scroll bar".into()], states: vec!["vertical".into(), "showing".into()], ..Match::default() };
    let bar = find(&desktop, &of(pid), &bar).await;
    // the editor measures its lines when it has time
    let range = || async { desktop.node(&bar.id).await.ok()?.value.filter(|value| value.maximum > 2_000.0) };
    let range = until("a range", range).await;
    assert!(range.minimum == 0.0 && range.current == 0.0, "{range:?}");
    assert_eq!(desktop.set_value(&bar.id, 1_000.0).await.expect("set"), 1_000.0);
    assert_eq!(desktop.node(&bar.id).await.expect("a node").value.map(|value| value.current), Some(1_000.0));
    for outside in [-5.0, range.maximum * 2.0, f64::NAN] {
        assert!(matches!(desktop.set_value(&bar.id, outside).await, Err(Error::Invalid(_))), "{outside}");
    }
}

#[tokio::test]
async fn what_cannot_be_done_is_refused() {
    let mut session = Session::start().await;
    let pid = session.run("mousepad", &["--disable-server"]);
    let desktop = session.connect().await;
    let area = text_area(&desktop, pid).await;
    let file = find(&desktop, &of(pid), &named("menu", "File")).await;

    let none = desktop.act(&file.id, &Action::Name("fold".into())).await;
    assert!(matches!(&none, Err(Error::NoAction { actions, .. }) if actions == &["click"]), "{none:?}");
    let none = desktop.act(&area.id, &Action::Default).await;
    assert!(matches!(&none, Err(Error::NoAction { actions, .. }) if actions.is_empty()), "{none:?}");
    let text = desktop.set_text(&file.id, "x").await;
    assert!(matches!(&text, Err(Error::Refused(why)) if why.contains("focus it and type")), "{text:?}");
    let value = desktop.set_value(&area.id, 1.0).await;
    assert!(matches!(value, Err(Error::Refused(_))), "{value:?}");
    let text = desktop.text(&file.id, 0, None).await;
    assert!(matches!(text, Err(Error::Refused(_))), "{text:?}");
    let value = desktop.set_value(&area.id, f64::NAN).await;
    assert!(matches!(value, Err(Error::Refused(_))), "{value:?}");
    let scroll = desktop.scroll_to(&file.id).await;
    assert!(matches!(scroll, Ok(()) | Err(Error::Refused(_))), "{scroll:?}");
    let nobody: NodeId = format!("{}/9999999", area.id.bus_name()).parse().expect("an id");
    assert!(matches!(desktop.act(&nobody, &Action::Default).await, Err(Error::NoNode(_))));
    assert!(matches!(desktop.node(&nobody).await, Err(Error::NoNode(_))));
}

#[tokio::test]
async fn a_silent_application_does_not_hold_up_the_rest() {
    let mut session = Session::start().await;
    let stopped = session.run("mousepad", &["--disable-server"]);
    let lively = session.run("mousepad", &["--disable-server"]);
    let desktop = session.connect().await;
    let lost = text_area(&desktop, stopped).await;
    text_area(&desktop, lively).await;

    support::signal(stopped, Signal::STOP);
    let tree = desktop.tree(&Query::default()).await.expect("a tree");
    assert_eq!(tree.silent.iter().map(|silent| silent.pid).collect::<Vec<_>>(), [Some(stopped)]);
    assert!(matches!(tree.silent[0].error, Error::TimedOut { .. }));
    assert!(tree.nodes.iter().all(|node| node.id.bus_name() != lost.id.bus_name()));
    assert!(tree.nodes.iter().any(|node| node.role == "text"));
    assert!(matches!(desktop.node(&lost.id).await, Err(Error::TimedOut { .. })));

    support::signal(stopped, Signal::CONT);
    text_area(&desktop, stopped).await;
    session.kill(stopped);
    until("the node gone", || async { matches!(desktop.node(&lost.id).await, Err(Error::NoNode(_))).then_some(()) }).await;
    assert!(matches!(desktop.act(&lost.id, &Action::Default).await, Err(Error::NoNode(_))));
    let root = Query { root: Some(lost.id), ..Query::default() };
    assert!(matches!(desktop.tree(&root).await, Err(Error::NoNode(_))));
}

#[tokio::test]
async fn another_accessibility_bus_is_connected_to() {
    let mut session = Session::start().await;
    let desktop = session.connect().await;
    desktop.enable().await.expect("enabled");
    assert!(desktop.is_enabled().await.expect("an answer"));
    session.restart_accessibility().await;
    let pid = session.run("mousepad", &["--disable-server"]);
    until("a tree", || async { desktop.tree(&of(pid)).await.ok().filter(|tree| !tree.nodes.is_empty()) }).await;
    text_area(&desktop, pid).await;
}

#[tokio::test]
async fn without_a_bus_the_error_says_what_is_missing() {
    let folder = tempfile::tempdir().expect("a folder");
    let nowhere = format!("unix:path={}/none", folder.path().display());
    for address in [nowhere.as_str(), "", "nonsense"] {
        assert!(matches!(Accessibility::connect(address).await, Err(Error::NoBus { .. })), "{address}");
    }
    // a session bus that knows of no services, as without the package
    let configuration = folder.path().join("bus.conf");
    let text = format!(
        "<busconfig><listen>unix:path={}/bus</listen><policy context=\"default\"><allow send_destination=\"*\"/>\
         <allow eavesdrop=\"false\"/><allow own=\"*\"/></policy></busconfig>",
        folder.path().display()
    );
    std::fs::write(&configuration, text).expect("written");
    let option = format!("--config-file={}", configuration.display());
    let (mut bus, address) = support::first_line("dbus-daemon", &[&option, "--print-address", "--nofork"]);
    let error = Accessibility::connect(&address).await.err();
    bus.kill().expect("killed");
    bus.wait().expect("reaped");
    let error = error.expect("an error");
    assert!(matches!(error, Error::NoAccessibility(_)) && error.to_string().contains("at-spi2-core"), "{error}");
}

/// Figures: `cargo test -p accessibility --release -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "measures"]
async fn figures() {
    let mut session = Session::start().await;
    let started = Instant::now();
    let desktop = session.connect().await;
    println!("connect: {:?}", started.elapsed());
    let pid = session.run("mousepad", &["--disable-server"]);
    text_area(&desktop, pid).await;
    let queries = [
        ("all, no cache", Query { use_cache: false, ..of(pid) }),
        ("all", of(pid)),
        ("visible, no cache", Query { use_cache: false, visible_only: true, ..of(pid) }),
        ("visible", Query { visible_only: true, ..of(pid) }),
    ];
    for (what, query) in queries {
        let mut times = Vec::new();
        let mut nodes = 0;
        for _ in 0..20 {
            let started = Instant::now();
            nodes = desktop.tree(&query).await.expect("a tree").nodes.len();
            times.push(started.elapsed());
        }
        times.sort();
        println!("{what}: {nodes} nodes, median {:?}, least {:?}", times[10], times[0]);
    }
    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..20 {
        let started = Instant::now();
        desktop.find(&of(pid), &named("menu item", "Save"), 1).await.expect("nodes");
        times.push(started.elapsed());
    }
    times.sort();
    println!("find Save: median {:?}, least {:?}", times[10], times[0]);
}
