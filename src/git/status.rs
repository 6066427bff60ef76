//! What has changed in a working tree. Source: git-status(1), "Porcelain Format Version 2".

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::command::Command;
use super::repository::Repository;
use super::text::{fields, shown, shown_path};
use super::{Error, Git, Place};
use crate::config::as_usize;

/// How files that git doesn't know are told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Untracked {
    /// Each by itself.
    #[default]
    All,
    /// Directories with nothing else as one.
    Normal,
    /// Not at all.
    No,
}

/// What is asked.
#[derive(Debug, Clone, Copy, Default)]
pub struct StatusSpec {
    /// Files that git doesn't know.
    pub untracked: Untracked,
    /// Whether ignored files are told, too.
    pub ignored: bool,
}

/// What has changed in a working tree.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Where the working tree begins; paths start here.
    root: String,
    /// Its bytes in base64 when they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    root_base64: Option<String>,
    /// What is checked out.
    branch: Branch,
    /// What differs, as git orders it.
    entries: Vec<StatusEntry>,
    /// True when there were more entries than are told.
    truncated: bool,
}

/// What is checked out.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Branch {
    /// Its name; `null` when a commit is checked out without a branch.
    name: Option<String>,
    /// The hash of its commit; `null` when it has none yet.
    head: Option<String>,
    /// The branch that it follows.
    upstream: Option<String>,
    /// Commits that the upstream doesn't have; `null` when there is none to compare with.
    ahead: Option<u64>,
    /// Commits that only the upstream has.
    behind: Option<u64>,
}

/// A path that differs.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatusEntry {
    /// The path below `root`.
    path: String,
    /// Its bytes in base64 when they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    /// `ordinary`, `renamed`, `copied`, `unmerged`, `untracked` or `ignored`.
    kind: &'static str,
    /// How the index differs from the commit: `modified`, `typeChanged`, `added`, `deleted`, `renamed`, `copied`,
    /// `unmerged`; `null` when it doesn't.
    index: Option<&'static str>,
    /// How the file differs from the index: the same words.
    worktree: Option<&'static str>,
    /// What it was renamed or copied from.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    /// Its bytes in base64 when they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    from_base64: Option<String>,
}

impl Git {
    /// What has changed in the working tree that a directory belongs to. Cancel safe.
    ///
    /// # Errors
    /// [`Error::NotARepository`], [`Error::NoWorkTree`], [`Error::Outside`], and those of running git.
    pub async fn status(&self, place: &Place, spec: StatusSpec) -> Result<Status, Error> {
        let repository = Repository::find(&self.commands, place).await?;
        let (root, root_base64) = shown_path(repository.work_tree()?);
        let untracked = match spec.untracked {
            Untracked::All => "--untracked-files=all",
            Untracked::Normal => "--untracked-files=normal",
            Untracked::No => "--untracked-files=no",
        };
        let ignored = if spec.ignored { "--ignored=traditional" } else { "--ignored=no" };
        let shape = ["status", "--porcelain=v2", "-z", "--branch", "--ahead-behind", "--ignore-submodules=all"];
        let args = shape.into_iter().chain([untracked, ignored]);
        let bounds = &self.commands.bounds;
        let told = repository.run(&self.commands, Command::new(args, bounds.git_output_max_bytes)).await?.ok()?;
        let mut status = parse(&told.stdout, as_usize(bounds.git_entries_max));
        status.truncated |= told.truncated;
        Ok(Status { root, root_base64, ..status })
    }
}

fn parse(output: &[u8], entries_max: usize) -> Status {
    let mut status = Status::default();
    let mut fields = fields(output);
    while let Some(field) = fields.next() {
        if let Some(header) = field.strip_prefix(b"# branch.") {
            status.branch.tell(&String::from_utf8_lossy(header));
            continue;
        }
        let is_pair = field.starts_with(b"2 ");
        let from = if is_pair { fields.next() } else { None };
        if is_pair && from.is_none() {
            break; // cut off in the middle
        }
        let Some(entry) = entry(field, from) else { continue }; // a header that is of no interest
        if status.entries.len() == entries_max {
            status.truncated = true;
            break;
        }
        status.entries.push(entry);
    }
    status
}

impl Branch {
    fn tell(&mut self, header: &str) {
        let (key, value) = header.split_once(' ').unwrap_or((header, ""));
        let known = |none: &str| (value != none).then(|| value.to_owned());
        match key {
            "oid" => self.head = known("(initial)"),
            "head" => self.name = known("(detached)"),
            "upstream" => self.upstream = Some(value.to_owned()),
            "ab" => {
                let mut counts = value.split(' ').map(|count| count.get(1..).and_then(|count| count.parse().ok()));
                (self.ahead, self.behind) = (counts.next().flatten(), counts.next().flatten());
            }
            _ => {}
        }
    }
}

fn entry(field: &[u8], from: Option<&[u8]>) -> Option<StatusEntry> {
    let (letter, rest) = (field.first()?, field.get(2..)?);
    // Fields in front of the path, after the letter.
    let count = match letter {
        b'1' => 7,
        b'2' => 8,
        b'u' => 9,
        b'?' | b'!' => 0,
        _ => return None,
    };
    let mut parts = rest.splitn(count + 1, |byte| *byte == b' ');
    let heads: Vec<&[u8]> = parts.by_ref().take(count).collect();
    let (path, path_base64) = shown(parts.next()?);
    let kind = match letter {
        b'1' => "ordinary",
        b'2' if heads.last()?.starts_with(b"C") => "copied",
        b'2' => "renamed",
        b'u' => "unmerged",
        b'?' => "untracked",
        _ => "ignored",
    };
    let change = |at: usize| heads.first().and_then(|letters| word(*letters.get(at)?));
    let (from, from_base64) = from.map(shown).unzip();
    let (index, worktree) = (change(0), change(1));
    Some(StatusEntry { path, path_base64, kind, index, worktree, from, from_base64: from_base64.flatten() })
}

/// What a letter of git's says of a change.
pub(super) fn word(letter: u8) -> Option<&'static str> {
    match letter {
        b'M' => Some("modified"),
        b'T' => Some("typeChanged"),
        b'A' => Some("added"),
        b'D' => Some("deleted"),
        b'R' => Some("renamed"),
        b'C' => Some("copied"),
        b'U' => Some("unmerged"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OUTPUT: &[u8] = b"# branch.oid 1f\0# branch.head main\0# branch.upstream origin/main\0# branch.ab +2 -1\0# stash 3\0\
        1 .M N... 100644 100644 100644 aa bb a b\0\
        2 R. N... 100644 100644 100644 aa aa R100 new\0old\0\
        u UU N... 100644 100644 100644 100644 aa bb cc both\0\
        ? \xff\0! target/\0";

    #[test]
    fn each_kind_of_entry_is_understood() {
        let status = parse(OUTPUT, 10);
        let told: Vec<_> =
            status.entries.iter().map(|entry| (entry.kind, entry.path.as_str(), entry.index, entry.worktree)).collect();
        let expected = [
            ("ordinary", "a b", None, Some("modified")),
            ("renamed", "new", Some("renamed"), None),
            ("unmerged", "both", Some("unmerged"), Some("unmerged")),
            ("untracked", "\u{fffd}", None, None),
            ("ignored", "target/", None, None),
        ];
        assert_eq!(told, expected);
        assert_eq!(status.entries[1].from.as_deref(), Some("old"));
        assert_eq!(status.entries[3].path_base64.as_deref(), Some("/w=="));
        let branch = status.branch;
        assert_eq!(
            (branch.name.as_deref(), branch.head.as_deref(), branch.ahead, branch.behind),
            (Some("main"), Some("1f"), Some(2), Some(1))
        );
        assert!(!status.truncated);
    }

    #[test]
    fn a_branch_may_lack_everything() {
        let branch = parse(b"# branch.oid (initial)\0# branch.head (detached)\0", 10).branch;
        assert!(branch.name.is_none() && branch.head.is_none() && branch.upstream.is_none() && branch.ahead.is_none());
    }

    #[test]
    fn too_many_entries_are_left_out() {
        let status = parse(OUTPUT, 2);
        assert!(status.truncated && status.entries.len() == 2);
        assert!(!parse(OUTPUT, 5).truncated);
    }

    proptest! {
        #[test]
        fn an_output_that_is_cut_anywhere_gives_the_beginning(cut in 0..OUTPUT.len()) {
            let (whole, part) = (parse(OUTPUT, 10), parse(&OUTPUT[..cut], 10));
            prop_assert!(whole.entries.starts_with(&part.entries));
        }
    }
}
