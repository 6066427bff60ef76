//! What a watch told of a directory while a turn went on there. Pure.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

/// By absolute paths.
#[derive(Debug, Default)]
pub(super) struct Trace {
    /// Files that are not as they were, perhaps.
    changed: HashSet<PathBuf>,
    /// Those of them that weren't there before.
    created: HashSet<PathBuf>,
    /// Directories that were made, or moved here.
    made: HashSet<PathBuf>,
    /// Directories that went, in order, and where they are.
    went: Vec<(PathBuf, Option<PathBuf>)>,
    /// What is ignored has changed: what appears may have been there all the time.
    rules_changed: bool,
    /// Some are left out.
    pub(super) is_cut: bool,
}

#[derive(Deserialize)]
struct Told {
    root: PathBuf,
    #[serde(default)]
    changes: Vec<Change>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    r#type: String,
    path: PathBuf,
    path_base64: Option<String>,
    from: Option<PathBuf>,
    from_base64: Option<String>,
    kind: String,
}

fn place(root: &Path, text: PathBuf, bytes: Option<String>) -> PathBuf {
    let bytes = bytes.and_then(|bytes| BASE64_STANDARD.decode(bytes).ok());
    root.join(bytes.map_or(text, |bytes| OsString::from_vec(bytes).into()))
}

impl Trace {
    /// Takes in an event of the watch; remembers at most `max` files.
    pub(super) fn note(&mut self, event: &[u8], max: usize) {
        let Ok(Told { root, changes }) = serde_json::from_slice(event) else { return }; // it tells no changes
        for change in changes {
            let path = place(&root, change.path, change.path_base64);
            let from = change.from.map(|from| place(&root, from, change.from_base64));
            self.rules_changed |= path.ends_with(".gitignore") || from.as_ref().is_some_and(|from| from.ends_with(".gitignore"));
            match (change.kind == "directory", change.r#type.as_str(), from) {
                (true, "create", _) => drop(self.made.insert(path)),
                (true, "delete", _) => self.directory_went(path, None, max),
                (true, "rename", Some(from)) => self.directory_went(from, Some(path), max),
                (true, ..) => {}
                (false, "create", _) => {
                    if !self.changed.contains(&path) {
                        self.created.insert(path.clone());
                    }
                    self.changed(path, max);
                }
                (false, _, from) => {
                    from.into_iter().for_each(|from| self.changed(from, max));
                    self.changed(path, max);
                }
            }
        }
    }

    fn changed(&mut self, path: PathBuf, max: usize) {
        if self.changed.len() < max || self.changed.contains(&path) {
            self.changed.insert(path);
        } else {
            self.is_cut = true;
        }
    }

    fn directory_went(&mut self, from: PathBuf, to: Option<PathBuf>, max: usize) {
        self.made.remove(&from);
        if let Some(to) = &to {
            let moved: Vec<_> = self.changed.iter().filter_map(|path| moved(path, &from, to)).collect();
            moved.into_iter().for_each(|path| self.changed(path, max));
            self.made.insert(to.clone());
        }
        self.went.push((from, to));
    }

    /// True when nothing was told.
    pub(super) fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.went.is_empty()
    }

    /// Takes what went, or came, with its directory into what changed. `files` were there before.
    pub(super) fn expand(&mut self, files: impl FnOnce() -> Vec<PathBuf>, max: usize) {
        if self.went.is_empty() {
            return;
        }
        for file in files() {
            let mut at = file;
            for (from, to) in self.went.clone() {
                if !at.starts_with(&from) {
                    continue;
                }
                self.changed(at.clone(), max);
                let Some(next) = to.and_then(|to| moved(&at, &from, &to)) else { break };
                self.changed(next.clone(), max);
                at = next;
            }
        }
    }

    /// What changed, perhaps.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = self.changed.iter().cloned().collect();
        files.sort_unstable();
        files
    }

    /// Whether a file that the baseline doesn't know is new.
    pub(super) fn is_new(&self, path: &Path) -> bool {
        !self.rules_changed && self.created.contains(path)
    }

    /// Whether what isn't in a listing of the beginning wasn't there: what was ignored isn't in it.
    pub(super) fn trusts_absence(&self) -> bool {
        !self.rules_changed
    }

    /// Whether files may be somewhere without having changed.
    pub(super) fn has_moved(&self) -> bool {
        !self.went.is_empty()
    }

    /// Directories above a path that were made or came, topmost first, without those that `were` there.
    pub(super) fn made_above(&self, path: &Path, were: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
        let is_new = |above: &Path| self.made.iter().any(|made| above.starts_with(made)) && !were(above);
        let above = path.ancestors().skip(1).take_while(|above| is_new(above));
        let mut made: Vec<_> = above.map(Path::to_path_buf).collect();
        made.reverse();
        made
    }
}

fn moved(path: &Path, from: &Path, to: &Path) -> Option<PathBuf> {
    path.strip_prefix(from).ok().filter(|below| !below.as_os_str().is_empty()).map(|below| to.join(below))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const MAX: usize = 100;

    fn told(trace: &mut Trace, changes: &[(&str, &str, &str)]) {
        let change = |(what, kind, path): &(&str, &str, &str)| -> Value {
            let (from, path) = path.split_once('>').map_or((None, *path), |(from, to)| (Some(from), to));
            json!({"type": what, "kind": kind, "path": path, "from": from, "absolutePath": format!("/w/{path}")})
        };
        let changes: Vec<_> = changes.iter().map(change).collect();
        trace.note(json!({"root": "/w", "changes": changes}).to_string().as_bytes(), MAX);
    }

    fn files(trace: &Trace) -> Vec<String> {
        trace.files().iter().map(|path| path.strip_prefix("/w").expect("below").display().to_string()).collect()
    }

    #[test]
    fn what_was_told_is_looked_at() {
        let mut trace = Trace::default();
        told(
            &mut trace,
            &[("create", "file", "new"), ("change", "file", "old"), ("rename", "file", "a>b"), ("delete", "symlink", "l")],
        );
        assert_eq!(files(&trace), ["a", "b", "l", "new", "old"]);
        assert!(trace.is_new(Path::new("/w/new")) && !trace.is_new(Path::new("/w/b")));
        told(&mut trace, &[("delete", "file", "old"), ("create", "file", "old")]);
        assert!(!trace.is_new(Path::new("/w/old")), "it was there before it was deleted");
        trace.note(br#"{"type":"fs.resync"}"#, MAX);
        told(&mut trace, &[("change", "file", ".gitignore")]);
        assert!(!trace.is_new(Path::new("/w/new")), "it may have been ignored");
    }

    #[test]
    fn files_follow_their_directories() {
        let mut trace = Trace::default();
        told(&mut trace, &[("create", "file", "d/new"), ("rename", "directory", "d>e"), ("rename", "directory", "e>f/g")]);
        told(&mut trace, &[("delete", "directory", "gone")]);
        trace.expand(|| ["/w/d/old", "/w/gone/x", "/w/dd"].map(PathBuf::from).to_vec(), MAX);
        assert_eq!(files(&trace), ["d/new", "d/old", "e/new", "e/old", "f/g/new", "f/g/old", "gone/x"]);
    }

    #[test]
    fn directories_that_were_made_are_known() {
        let mut trace = Trace::default();
        told(&mut trace, &[("create", "directory", "a"), ("create", "directory", "a/b"), ("create", "file", "a/b/f")]);
        let made = |were: &str| trace.made_above(Path::new("/w/a/b/f"), |path| path == Path::new(were));
        assert_eq!(made(""), ["/w/a", "/w/a/b"].map(PathBuf::from));
        assert_eq!(made("/w/a"), ["/w/a/b"].map(PathBuf::from));
        told(&mut trace, &[("rename", "directory", "old>a/b/new")]);
        let above = trace.made_above(Path::new("/w/a/b/new/c/f"), |_| false);
        assert_eq!(above.last().expect("directories"), Path::new("/w/a/b/new/c"), "with what came in it");
    }

    #[test]
    fn names_that_are_no_text_and_too_many_are_borne() {
        let mut trace = Trace::default();
        let odd = json!({"type": "create", "kind": "file", "path": "\u{fffd}", "pathBase64": BASE64_STANDARD.encode(b"\xff")});
        trace.note(json!({"root": "/w", "changes": [odd]}).to_string().as_bytes(), MAX);
        assert_eq!(trace.files()[0].as_os_str().as_encoded_bytes(), b"/w/\xff");
        for number in 0..MAX {
            told(&mut trace, &[("create", "file", &format!("f{number}"))]);
        }
        assert_eq!((trace.files().len(), trace.is_cut), (MAX, true));
    }
}
