//! Where skills lie in a source. A skill is a folder with a `SKILL.md`.

use std::path::{Path, PathBuf};

use super::failure::Failure;
use crate::rt::files;

/// Folders below the one that is looked at, whose folders are looked at.
const PLACES: [&str; 4] = ["", "skills", ".claude/skills", ".agents/skills"];
const MARK: &str = "SKILL.md";
/// Folders that are looked at in one place.
const FOLDERS_MAX: usize = 1000;
const NAME_MAX_CHARS: usize = 64;
const HEAD_MAX_BYTES: u64 = 256 * 1024;

/// A source on this machine.
pub(super) struct Place<'a> {
    /// Its folder, canonical: nothing outside is looked at.
    pub(super) root: &'a Path,
    /// The folder below it that is looked at.
    pub(super) subpath: Option<&'a str>,
    /// What the source is called, for a skill that is the whole source.
    pub(super) name: &'a str,
}

impl Place<'_> {
    /// The skills, by name: their folders, canonical.
    pub(super) fn find(&self) -> Result<Vec<(String, PathBuf)>, Failure> {
        let base = self.root.join(self.subpath.unwrap_or_default());
        let base = self.inside(&base)?;
        if base.join(MARK).is_file() {
            return Ok(vec![(self.name_of(&base), base)]);
        }
        let mut found: Vec<(String, PathBuf)> = Vec::new();
        for place in PLACES {
            let Ok(entries) = std::fs::read_dir(base.join(place)) else { continue };
            let mut folders: Vec<_> = entries.flatten().take(FOLDERS_MAX).map(|entry| entry.path()).collect();
            folders.sort();
            for folder in folders.into_iter().filter(|folder| folder.join(MARK).is_file()) {
                let name = last_name(&folder);
                if !found.iter().any(|(known, _)| *known == name) {
                    found.push((name, self.inside(&folder)?));
                }
            }
        }
        if found.is_empty() { Err(Failure::NoSkills) } else { Ok(found) }
    }

    fn inside(&self, path: &Path) -> Result<PathBuf, Failure> {
        let real = path.canonicalize().map_err(|error| Failure::io(path, &error))?;
        if real.starts_with(self.root) { Ok(real) } else { Err(Failure::Outside(path.to_owned())) }
    }

    /// A folder has a name of its own; a whole source has the one that its `SKILL.md` says, or else its own.
    fn name_of(&self, base: &Path) -> String {
        if base != self.root {
            return last_name(base);
        }
        let head = files::read_bounded(&base.join(MARK), HEAD_MAX_BYTES).unwrap_or_default();
        said_name(&head).filter(|name| is_name(name)).unwrap_or_else(|| self.name.to_owned())
    }
}

fn last_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// `name:` in the front matter.
fn said_name(text: &str) -> Option<String> {
    let head = text.strip_prefix("---\n")?.split("\n---").next()?;
    let name = head.lines().find_map(|line| line.strip_prefix("name:"))?;
    Some(name.trim().trim_matches(['"', '\'']).to_owned())
}

/// What can be the name of a skill, and of its folder.
pub(super) fn is_name(name: &str) -> bool {
    let fits = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    fits && !name.is_empty() && !name.starts_with('.') && name.len() <= NAME_MAX_CHARS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(skills: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        for skill in skills {
            std::fs::create_dir_all(root.path().join(skill)).expect("made");
            std::fs::write(root.path().join(skill).join(MARK), "---\ndescription: x\nname: \"said\"\n---\nname: no\n")
                .expect("written");
        }
        root
    }

    fn find(root: &Path, subpath: Option<&str>) -> Result<Vec<String>, Failure> {
        let root = root.canonicalize().expect("a folder");
        let found = Place { root: &root, subpath, name: "source" }.find()?;
        Ok(found.into_iter().map(|(name, _)| name).collect())
    }

    #[test]
    fn skills_are_found_where_people_put_them() {
        let root = source(&["one", "skills/two", ".claude/skills/three", ".agents/skills/one", "deep/down/four"]);
        assert_eq!(find(root.path(), None), Ok(vec!["one".into(), "two".into(), "three".into()]));
        assert_eq!(find(root.path(), Some("deep/down")), Ok(vec!["four".into()]));
        assert_eq!(find(root.path(), Some("skills/two")), Ok(vec!["two".into()]));
        assert_eq!(find(root.path(), Some("deep")).expect_err("none"), Failure::NoSkills);
        assert_eq!(find(source(&["."]).path(), None), Ok(vec!["said".into()]));
    }

    #[test]
    fn nothing_outside_of_the_source_is_a_skill() {
        let (root, other) = (source(&["one"]), source(&["foreign"]));
        let up = format!("../{}", other.path().file_name().expect("a name").to_string_lossy());
        assert!(matches!(find(root.path(), Some(&up)), Err(Failure::Outside(_))));
        assert!(matches!(find(root.path(), other.path().to_str()), Err(Failure::Outside(_))));
        std::os::unix::fs::symlink(other.path().join("foreign"), root.path().join("link")).expect("linked");
        assert!(matches!(find(root.path(), None), Err(Failure::Outside(_))));
    }

    #[test]
    fn names() {
        for name in ["a", "A-b_c.1"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", ".", "..", ".a", "a b", "a/b", "ü", &"a".repeat(65)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
