//! How two states differ. Source: git-diff(1), "Raw output format" and `--numstat -z`.

use serde::Serialize;
use utoipa::ToSchema;

use super::command::Command;
use super::repository::Repository;
use super::status::word;
use super::text::{behind_dashes, fields, shown, shown_path};
use super::{Error, Git, Place};
use crate::config::as_usize;

/// Which states, and which files.
#[derive(Debug, Default)]
pub struct DiffSpec {
    /// The index instead of the working tree.
    pub staged: bool,
    /// The state before; the index, or with `staged` the commit, when absent.
    pub from: Option<String>,
    /// The state after, instead of index or working tree.
    pub to: Option<String>,
    /// Nothing but these, below the top. None: all.
    pub paths: Vec<Vec<u8>>,
}

/// How two states differ.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Diff {
    /// Where the working tree begins; paths start here. `null` in a bare repository.
    root: Option<String>,
    /// Its bytes in base64 when they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    root_base64: Option<String>,
    /// The files that differ.
    files: Vec<DiffFile>,
    /// The differences as unified text; what isn't UTF-8 is replaced.
    patch: String,
    /// Its bytes in base64 when they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_base64: Option<String>,
    /// True when files or text were left out.
    truncated: bool,
}

/// A file that differs.
#[derive(Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiffFile {
    /// The path below `root`.
    path: String,
    /// Its bytes in base64 when they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    /// `modified`, `typeChanged`, `added`, `deleted`, `renamed`, `copied` or `unmerged`.
    kind: &'static str,
    /// What it was renamed or copied from.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    /// Its bytes in base64 when they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    from_base64: Option<String>,
    /// Lines that came; `null` when it is no text, or not counted.
    additions: Option<u64>,
    /// Lines that went.
    deletions: Option<u64>,
}

/// The same for every diff.
const SHAPE: &[&str] = &[
    "--no-ext-diff",
    "--no-textconv",
    "--no-color",
    "--no-relative",
    "--find-renames",
    "--ignore-submodules=all",
    "--submodule=short",
    "--src-prefix=a/",
    "--dst-prefix=b/",
];

impl Git {
    /// How two states of a repository differ. Cancel safe.
    ///
    /// # Errors
    /// [`Error::NotARepository`], [`Error::NoWorkTree`], [`Error::Outside`], [`Error::UnknownRevision`],
    /// [`Error::Invalid`], and those of running git.
    pub async fn diff(&self, place: &Place, spec: DiffSpec) -> Result<Diff, Error> {
        let bounds = &self.commands.bounds;
        let paths = behind_dashes(spec.paths, bounds.git_paths_max)?;
        let states = [spec.from.as_deref(), spec.to.as_deref()];
        if states == [None, spec.to.as_deref()] && spec.to.is_some() || spec.staged && spec.to.is_some() {
            return Err(Error::Invalid("`to` needs `from`, and no `staged`".to_owned()));
        }
        let repository = Repository::find(&self.commands, place).await?;
        if spec.to.is_none() {
            repository.work_tree()?;
        }
        let mut args: Vec<String> = SHAPE.iter().map(|&word| word.into()).collect();
        args.extend(spec.staged.then(|| "--cached".to_owned()));
        for state in states.into_iter().flatten() {
            let hash = repository.resolve(&self.commands, state, "tree").await?;
            args.push(hash.ok_or_else(|| Error::UnknownRevision(state.to_owned()))?);
        }
        let command = |forms: &[&str], max| {
            let words = ["diff"].iter().chain(forms).map(Into::into).chain(args.iter().map(Into::into));
            Command::new(words.chain(paths.iter().cloned()).collect::<Vec<std::ffi::OsString>>(), max)
        };
        let stats = command(&["--raw", "--numstat", "-z"], bounds.git_output_max_bytes);
        let stats = repository.run(&self.commands, stats).await?.ok()?;
        let text = repository.run(&self.commands, command(&["--patch"], bounds.git_patch_max_bytes)).await?.ok()?;
        let (files, more) = parse(&stats.stdout, as_usize(bounds.git_entries_max));
        let (patch, patch_base64) = shown(if text.truncated { whole_lines(&text.stdout) } else { &text.stdout });
        let (root, root_base64) = repository.top.as_deref().map(shown_path).unzip();
        let truncated = stats.truncated || text.truncated || more;
        Ok(Diff { root, root_base64: root_base64.flatten(), files, patch, patch_base64, truncated })
    }
}

fn whole_lines(text: &[u8]) -> &[u8] {
    &text[..text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)]
}

/// The files, and whether there were more. First come all raw records, then all counts in the same order.
fn parse(output: &[u8], files_max: usize) -> (Vec<DiffFile>, bool) {
    let mut fields = fields(output).peekable();
    let (mut files, mut total): (Vec<DiffFile>, usize) = (Vec::new(), 0);
    while let Some(raw) = fields.next_if(|field| field.starts_with(b":")) {
        let letter = raw.rsplit(|byte| *byte == b' ').next().and_then(|score| score.first().copied()).unwrap_or_default();
        let from = if matches!(letter, b'R' | b'C') { fields.next() } else { None };
        let Some(path) = fields.next() else { break }; // cut off
        total += 1;
        if files.len() < files_max {
            let (path, path_base64) = shown(path);
            let (from, from_base64) = from.map(shown).unzip();
            let kind = word(letter).unwrap_or("modified");
            files.push(DiffFile { path, path_base64, kind, from, from_base64: from_base64.flatten(), ..DiffFile::default() });
        }
    }
    let mut at = 0;
    while let Some(counts) = fields.next() {
        let mut parts = counts.splitn(3, |byte| *byte == b'\t');
        let mut number = || std::str::from_utf8(parts.next()?).ok()?.parse().ok();
        let (additions, deletions) = (number(), number());
        let path = match parts.next() {
            Some(b"") => fields.nth(1), // renamed: the old path, then the new one
            path => path,
        };
        let Some((path, _)) = path.map(shown) else { break };
        // An unmerged file has two records and one count, so paths are compared.
        if let Some(found) = files.iter().skip(at).position(|file| file.path == path) {
            at += found;
            (files[at].additions, files[at].deletions) = (additions, deletions);
        }
    }
    (files, total > files_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &[u8] = b":100644 100644 aa bb M\0a\tb\0:100644 100644 aa bb R090\0old\0new\0:000000 100644 00 bb A\0bin\0\
        1\t2\ta\tb\x003\t0\t\0old\0new\0-\t-\tbin\0";

    #[test]
    fn files_get_their_counts() {
        let (files, more) = parse(OUTPUT, 10);
        let told: Vec<_> = files.iter().map(|file| (file.path.as_str(), file.kind, file.additions, file.deletions)).collect();
        let expected =
            [("a\tb", "modified", Some(1), Some(2)), ("new", "renamed", Some(3), Some(0)), ("bin", "added", None, None)];
        assert_eq!((told, more), (expected.to_vec(), false));
        assert_eq!(files[1].from.as_deref(), Some("old"));
    }

    #[test]
    fn what_is_too_much_or_cut_off_is_left_out() {
        let (files, more) = parse(OUTPUT, 1);
        assert_eq!((files.len(), files[0].deletions, more), (1, Some(2), true));
        for cut in 0..OUTPUT.len() {
            let paths: Vec<_> = parse(&OUTPUT[..cut], 10).0.into_iter().map(|file| file.path).collect();
            assert!(["a\tb", "new", "bin"].iter().zip(&paths).all(|(one, other)| one == other), "{cut}: {paths:?}");
        }
        assert_eq!(whole_lines(b"a\nb"), b"a\n");
        assert_eq!(whole_lines(b"b"), b"");
    }
}
