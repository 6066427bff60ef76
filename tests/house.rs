//! Rules of the house that a test can hold: which room may use which, and documents that are generated.
#![allow(clippy::disallowed_methods)] // reads files and its own switch

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sandboxd::config::Bounds;

/// Arrows point one way (docs/ARCHITECTURE.md): each room and what it may use besides `config` and `rt`.
const ARROWS: &[(&str, &[&str])] = &[
    ("rt", &[]),
    ("config", &[]),
    ("store", &[]),
    ("keeper", &[]),
    ("crashes", &["keeper"]),
    ("processes", &["keeper", "store"]),
    ("mock", &["acp"]),
    ("agents", &["processes"]),
    ("acp", &["processes", "store"]),
    ("traces", &["store"]),
    ("workspace", &["processes"]),
    ("fs", &["store"]),
    ("git", &["processes"]),
    ("lsp", &["fs", "processes", "store"]),
    ("desktop", &["processes", "store"]),
    ("sessions", &["acp", "processes", "store", "traces", "workspace"]),
    (
        "http",
        &[
            "acp",
            "agents",
            "crashes",
            "desktop",
            "fs",
            "git",
            "keeper",
            "lsp",
            "processes",
            "sessions",
            "store",
            "traces",
            "workspace",
        ],
    ),
    (
        "app",
        &[
            "acp",
            "agents",
            "crashes",
            "desktop",
            "fs",
            "git",
            "lsp",
            "http",
            "keeper",
            "processes",
            "sessions",
            "store",
            "traces",
            "workspace",
        ],
    ),
    ("cli", &["agents", "app", "crashes", "desktop", "keeper", "mock", "processes", "store"]),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The room a file belongs to: its folder or file name below `src`.
fn room(path: &Path) -> String {
    let below = path.strip_prefix(root().join("src")).expect("below src");
    let first = below.components().next().expect("a component").as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// The rooms that a text names as `crate::room` or in `use crate::{room, …}`, outside its tests.
fn uses(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code: String = lines.collect::<Vec<_>>().join("\n");
    let mut rooms = Vec::new();
    for rest in code.split("crate::").skip(1) {
        if let Some(list) = rest.strip_prefix('{') {
            let list = list.split('}').next().unwrap_or_default();
            rooms.extend(list.split(',').map(|item| first_word(item.trim())));
        } else {
            rooms.push(first_word(rest));
        }
    }
    rooms
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn arrows_between_rooms_point_one_way() {
    let allowed: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    let mut wrong = Vec::new();
    for path in sources(&root().join("src")) {
        let from = room(&path);
        if matches!(from.as_str(), "lib" | "main") {
            continue;
        }
        let may = allowed.get(from.as_str()).unwrap_or_else(|| panic!("the room {from} has no row in ARROWS"));
        let text = std::fs::read_to_string(&path).expect("a source file");
        let used = uses(&text).into_iter().filter(|to| *to != from && allowed.contains_key(to.as_str()));
        wrong.extend(
            used.filter(|to| !matches!(to.as_str(), "config" | "rt") && !may.contains(&to.as_str()))
                .map(|to| format!("{}: {from} uses {to}", path.display())),
        );
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn only_the_store_speaks_sql() {
    for path in sources(&root().join("src")).into_iter().filter(|path| room(path) != "store") {
        let text = std::fs::read_to_string(&path).expect("a source file");
        assert!(!text.contains("rusqlite"), "{} uses rusqlite", path.display());
    }
}

#[test]
fn unsafe_code_lives_in_two_files() {
    let sources = sources(&root().join("src")).into_iter().chain(sources(&root().join("crates")));
    let allowed = sources.filter(|path| std::fs::read_to_string(path).expect("a source file").contains("allow(unsafe_code)"));
    let named = ["src/rt/sys.rs", "crates/screen-video/src/raw.rs"].map(|path| root().join(path));
    assert_eq!(allowed.collect::<Vec<_>>(), named);
}

#[test]
fn the_table_of_bounds_is_golden() {
    let rows = Bounds::TABLE.iter().map(|row| {
        let variable = format!("SANDBOXD_{}", row.name.to_ascii_uppercase());
        format!("| `{}` | {} | `{variable}` | {} |\n", row.name, row.default, row.meaning)
    });
    let head = "| bound | default | variable | what it limits, and what happens there |\n|---|--:|---|---|\n";
    let table = format!("<!-- bounds:begin -->\n{head}{}<!-- bounds:end -->", rows.collect::<String>());
    let path = root().join("docs/OPERATIONS.md");
    let text = std::fs::read_to_string(&path).expect("docs/OPERATIONS.md");
    let (before, rest) = text.split_once("<!-- bounds:begin -->").expect("a begin marker");
    let (_, after) = rest.split_once("<!-- bounds:end -->").expect("an end marker");
    let expected = format!("{before}{table}{after}");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &expected).expect("written");
        return;
    }
    assert!(text == expected, "docs/OPERATIONS.md has another table of bounds than config.rs: run make gen");
}
