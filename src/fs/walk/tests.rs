use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::symlink;
use std::process::Command;

use proptest::prelude::*;

use super::*;

fn bounds() -> Bounds {
    Bounds::default()
}

fn reach() -> Reach {
    Reach::new("/".into(), &[]).expect("anywhere")
}

fn never() -> IsOver {
    Arc::new(|| false)
}

fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let home = tempfile::tempdir().expect("a folder");
    for (path, content) in files {
        let path = home.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        std::fs::write(path, content).expect("a file");
    }
    home
}

fn paths_from(reach: &Reach, at: &Path, wanted: &Wanted, after: Option<&[u8]>) -> Vec<String> {
    let selection = wanted.compile(64).expect("patterns");
    let mut walk = Walk::new(reach, &Located::from(at.to_path_buf()), selection, after, &bounds(), never()).expect("a walk");
    let found = std::iter::from_fn(|| walk.next());
    found.map(|found| String::from_utf8([&found.directory.relative[..], &found.name].concat()).expect("UTF-8")).collect()
}

fn paths(at: &Path, wanted: &Wanted) -> Vec<String> {
    paths_from(&reach(), at, wanted, None)
}

fn everything() -> Wanted {
    Wanted { hidden: true, ignored: true, ..Wanted::default() }
}

#[test]
fn the_order_is_that_of_names_and_links_are_not_followed() {
    let home = tree(&[("a-b", ""), ("a/c", ""), ("a/b/d", ""), (".x", ""), ("Z", "")]);
    symlink("..", home.path().join("a/up")).expect("a link");
    assert_eq!(paths(home.path(), &everything()), [".x", "Z", "a", "a/b", "a/b/d", "a/c", "a/up", "a-b"]);
    assert_eq!(paths(home.path(), &Wanted { depth: Some(1), ..Wanted::default() }), ["Z", "a", "a-b"]);
    let globs = Wanted { globs: vec!["c".into(), "Z".into()], ..Wanted::default() };
    assert_eq!(paths(home.path(), &globs), ["Z", "a/c"]);
}

#[test]
fn a_walk_goes_on_behind_a_path_that_is_gone() {
    let home = tree(&[("a/b", ""), ("a/d", ""), ("c", ""), ("e/f", "")]);
    let rest = |after: &str| paths_from(&reach(), home.path(), &everything(), Some(after.as_bytes()));
    assert_eq!(rest("a"), ["a/b", "a/d", "c", "e", "e/f"]);
    assert_eq!(rest("a/b"), ["a/d", "c", "e", "e/f"]);
    assert_eq!(rest("a/c/x"), ["a/d", "c", "e", "e/f"]);
    assert_eq!(rest("b/x"), ["c", "e", "e/f"]);
    assert_eq!(rest("c/x"), ["e", "e/f"]);
    assert_eq!(rest("e/f"), [""; 0]);
    assert_eq!(rest(""), ["a", "a/b", "a/d", "c", "e", "e/f"]);
}

#[test]
fn rules_above_the_start_hold_within_a_repository() {
    let home = tree(&[(".gitignore", "/sub/a\n*.log\n"), ("sub/a", ""), ("sub/b", ""), ("sub/x.log", "")]);
    let sub = home.path().join("sub");
    assert_eq!(paths(&sub, &Wanted::default()), ["a", "b", "x.log"], "no repository: nothing says that it belongs together");
    std::fs::create_dir(home.path().join(".git")).expect("a folder");
    assert_eq!(paths(&sub, &Wanted::default()), ["b"]);
    let within = Reach::new("/".into(), std::slice::from_ref(&sub)).expect("a root");
    assert_eq!(paths_from(&within, &sub, &Wanted::default(), None), ["a", "b", "x.log"], "outside of the root nothing is read");
}

#[test]
fn roots_hold() {
    let home = tree(&[("root/in", ""), ("out/secret", "")]);
    symlink("../out", home.path().join("root/link")).expect("a link");
    let root = home.path().join("root");
    let within = Reach::new("/".into(), std::slice::from_ref(&root)).expect("a root");
    assert_eq!(paths_from(&within, &root, &everything(), None), ["in", "link"]);
    let start = |path: &Path| {
        let selection = everything().compile(64).expect("patterns");
        Walk::new(&within, &Located::from(path.to_path_buf()), selection, None, &bounds(), never()).map(drop)
    };
    for outside in [home.path().join("out"), root.join("link"), root.join("..")] {
        assert!(matches!(start(&outside), Err(Error::Outside(_))), "{}", outside.display());
    }
    assert!(matches!(start(&root.join("in")), Err(Error::NotADirectory(_))));
    assert!(matches!(start(&root.join("none")), Err(Error::NotFound(_))));
}

#[test]
fn links_that_are_swapped_meanwhile_lead_nowhere_else() {
    use std::sync::atomic::{AtomicBool, Ordering};

    let home = tree(&[("root/swap/file", "inside"), ("out/file", "outside"), ("out/secret", "outside")]);
    let (root, place, other) = (home.path().join("root"), home.path().join("root/swap"), home.path().join("root/other"));
    symlink("../out", &other).expect("a link");
    let within = Reach::new("/".into(), std::slice::from_ref(&root)).expect("a root");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = rustix::fs::renameat_with(
                    rustix::fs::CWD,
                    &place,
                    rustix::fs::CWD,
                    &other,
                    rustix::fs::RenameFlags::EXCHANGE,
                );
            }
        });
        let mut inside = 0;
        for _ in 0..2_000 {
            let selection = everything().compile(64).expect("patterns");
            let at = Located::from(root.clone());
            let mut walk = Walk::new(&within, &at, selection, None, &bounds(), never()).expect("a walk");
            while let Some(found) = walk.next() {
                assert_ne!(found.name, b"secret");
                if let Ok(file) = found.open() {
                    assert_eq!(io::read_to_string(file).expect("a file that can be read"), "inside");
                    inside += 1;
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(inside > 0, "the file was there all the time, under one name or the other");
    });
}

#[test]
fn a_walk_that_nobody_waits_for_ends() {
    let home = tempfile::tempdir().expect("a folder");
    for at in 0..1000 {
        std::fs::write(home.path().join(at.to_string()), "").expect("a file");
    }
    let selection = everything().compile(64).expect("patterns");
    let at = Located::from(home.path().to_path_buf());
    let mut walk = Walk::new(&reach(), &at, selection, None, &bounds(), Arc::new(|| true)).expect("a walk");
    let count = std::iter::from_fn(|| walk.next()).count();
    assert!(count < 1000 && walk.is_stopped(), "{count}");
    let rest = paths_from(&reach(), home.path(), &everything(), Some(walk.position()));
    assert_eq!(count + rest.len(), 1000, "and tells where to go on");
}

#[test]
fn what_is_too_deep_is_told() {
    let home = tree(&[("a/b/c", "")]);
    let at = Located::from(home.path().to_path_buf());
    let deepest = |wanted: &Wanted| {
        let selection = wanted.compile(2).expect("patterns");
        let mut walk = Walk::new(&reach(), &at, selection, None, &bounds(), never()).expect("a walk");
        (std::iter::from_fn(|| walk.next()).count(), walk.skipped.count)
    };
    assert_eq!(deepest(&Wanted::default()), (2, 1));
    assert_eq!(deepest(&Wanted { depth: Some(2), ..Wanted::default() }), (2, 0), "that was asked for");
}

#[test]
fn names_that_are_no_text_come_through() {
    let home = tempfile::tempdir().expect("a folder");
    let odd = OsString::from_vec(b"a\xff".to_vec());
    std::fs::create_dir(home.path().join(&odd)).expect("a folder");
    std::fs::write(home.path().join(&odd).join("x"), "").expect("a file");
    let selection = everything().compile(64).expect("patterns");
    let at = Located::from(home.path().to_path_buf());
    let mut walk = Walk::new(&reach(), &at, selection, None, &bounds(), never()).expect("a walk");
    let found: Vec<Vec<u8>> = std::iter::from_fn(|| walk.next()).map(|found| found.path()).collect();
    assert!(found.last().expect("a file").ends_with(b"/a\xff/x"), "{found:?}");
}

/// What git would add, and what it knows: all files that it doesn't ignore.
#[allow(clippy::disallowed_methods)] // a test asks git itself
fn by_git(home: &Path) -> BTreeSet<String> {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).current_dir(home).env("GIT_CONFIG_GLOBAL", "/dev/null").output();
        let output = output.expect("git: scripts/install-tools.sh test");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    git(&["init", "-q"]);
    git(&["ls-files", "-z", "--others", "--cached", "--exclude-standard"])
        .split('\0')
        .filter(|path| !path.is_empty())
        .map(str::to_owned)
        .collect()
}

fn by_us(home: &Path) -> BTreeSet<String> {
    let found = paths(home, &Wanted { hidden: true, ..Wanted::default() });
    found.into_iter().filter(|path| !home.join(path).is_dir()).collect()
}

#[test]
fn ignore_rules_are_those_of_git() {
    let home = tree(&[
        (
            ".gitignore",
            "# no\n*.log\n!keep.log\n/only-top\nbuild/\ndocs/**/*.tmp\n**/deep\n\\#hash\nspace\\ \nback[0-9]\na/*\n!a/stay\n",
        ),
        ("sub/.gitignore", "!a.log\n*.md\r\n/x/**\n!x/y/\n"),
        ("a/stay/f", ""),
        ("a/go", ""),
        ("x.log", ""),
        ("keep.log", ""),
        ("sub/a.log", ""),
        ("sub/b.log", ""),
        ("sub/r.md", ""),
        ("sub/x/y/z", ""),
        ("only-top", ""),
        ("sub/only-top", ""),
        ("build/o", ""),
        ("sub/build", ""),
        ("docs/a/b/c.tmp", ""),
        ("docs/c.tmp", ""),
        ("x/deep/y", ""),
        ("#hash", ""),
        ("space ", ""),
        ("back7", ""),
        ("backx", ""),
        (".hidden/f", ""),
    ]);
    assert_eq!(by_us(home.path()), by_git(home.path()));
    std::fs::write(home.path().join(".git/info/exclude"), "backx\n").expect("a file");
    assert_eq!(by_us(home.path()), by_git(home.path()));
    assert!(!by_us(home.path()).contains("backx"));
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "ab", "a.log", "b.log", ".c", "build", "x y"]).prop_map(str::to_owned)
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(name(), 1..4).prop_map(|names| names.join("/"))
}

fn rule() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec!["a", "b", "*", "*.log", "a*", "?", "**", ".c", "build", "[ab]"]);
    let body = prop::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"));
    (prop::sample::select(vec!["", "!", "/", "!/"]), body, prop::sample::select(vec!["", "/"]))
        .prop_map(|(before, body, after)| format!("{before}{body}{after}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn random_rules_are_read_as_git_reads_them(
        files in prop::collection::vec(path(), 1..24),
        top in prop::collection::vec(rule(), 0..6),
        nested in prop::collection::vec(rule(), 0..4),
    ) {
        let home = tempfile::tempdir().expect("a folder");
        for file in files {
            let file = home.path().join(file);
            // A name may be taken by a file or a directory already.
            let _ = std::fs::create_dir_all(file.parent().expect("a parent"));
            let _ = std::fs::write(file, "");
        }
        std::fs::write(home.path().join(".gitignore"), top.join("\n")).expect("a file");
        if home.path().join("a").is_dir() {
            std::fs::write(home.path().join("a/.gitignore"), nested.join("\n")).expect("a file");
        }
        prop_assert_eq!(by_us(home.path()), by_git(home.path()));
    }

    #[test]
    fn pages_lose_and_double_nothing_while_other_files_come_and_go(
        staying in prop::collection::btree_set(path(), 1..40),
        passing in prop::collection::vec((path(), any::<bool>()), 0..30),
        step in 1usize..5,
    ) {
        let home = tempfile::tempdir().expect("a folder");
        let mut made = BTreeSet::new();
        for file in staying {
            // Names of its own, so that what comes and goes is never in the way.
            let file = format!("{}.stays", file.replace('/', ".d/"));
            std::fs::create_dir_all(home.path().join(&file).parent().expect("a parent")).expect("folders");
            std::fs::write(home.path().join(&file), "").expect("a file");
            made.insert(file);
        }
        let (mut after, mut seen, mut passing) = (None::<Vec<u8>>, Vec::new(), passing.into_iter());
        loop {
            let selection = everything().compile(64).expect("patterns");
            let at = Located::from(home.path().to_path_buf());
            let mut walk = Walk::new(&reach(), &at, selection, after.as_deref(), &bounds(), never()).expect("a walk");
            for _ in 0..step {
                let Some(found) = walk.next() else { break };
                seen.push(String::from_utf8([&found.directory.relative[..], &found.name].concat()).expect("UTF-8"));
            }
            if !walk.is_stopped() {
                break;
            }
            after = Some(walk.position().to_vec());
            for (path, comes) in passing.by_ref().take(2) {
                let path = home.path().join(path);
                if comes {
                    let _ = std::fs::create_dir_all(path.parent().expect("a parent")); // a file may have the name
                    let _ = std::fs::write(path, "");
                } else {
                    let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path));
                }
            }
        }
        let stayed: Vec<&String> = seen.iter().filter(|path| made.contains(*path)).collect();
        let in_order: Vec<String> = {
            let mut all: Vec<String> = made.into_iter().collect();
            all.sort_by(|one, other| one.split('/').cmp(other.split('/')));
            all
        };
        prop_assert_eq!(stayed, in_order.iter().collect::<Vec<_>>());
    }
}
