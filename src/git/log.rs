//! The commits that led to a state. Source: git-log(1), "Pretty Formats".

use serde::Serialize;
use utoipa::ToSchema;

use super::command::Command;
use super::repository::Repository;
use super::text::{behind_dashes, fields};
use super::{Error, Git, Place};

/// With a NUL behind each: hash, parents, author, committer, subject, body.
const FORMAT: &str = "--format=tformat:%H%x00%P%x00%an%x00%ae%x00%at%x00%cn%x00%ce%x00%ct%x00%s%x00%b";
const FIELDS: usize = 10;

/// Which commits.
#[derive(Debug, Default)]
pub struct LogSpec {
    /// Where to begin; what is checked out when absent.
    pub revision: Option<String>,
    /// At most so many.
    pub limit: usize,
    /// `next` of the page before.
    pub cursor: Option<String>,
    /// Only commits that changed these, below the top. None: all.
    pub paths: Vec<Vec<u8>>,
}

/// Commits, the latest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct Log {
    /// The commits.
    commits: Vec<Commit>,
    /// What `cursor` has to be for those behind; `null` when there are none.
    next: Option<String>,
}

/// A commit.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Commit {
    /// Its hash.
    hash: String,
    /// Those of the commits that it follows.
    parents: Vec<String>,
    /// Who made the change.
    author: Person,
    /// Who made the commit.
    committer: Person,
    /// The first line of its message.
    subject: String,
    /// The rest.
    body: String,
}

/// Who did something, and when.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Person {
    /// As in the commit.
    name: String,
    /// The same.
    email: String,
    /// Unix milliseconds.
    time_ms: i64,
}

impl Git {
    /// The commits that led to a state; none in a repository without commits. Cancel safe.
    ///
    /// # Errors
    /// [`Error::NotARepository`], [`Error::Outside`], [`Error::UnknownRevision`], [`Error::Invalid`], and those of
    /// running git.
    pub async fn log(&self, place: &Place, spec: LogSpec) -> Result<Log, Error> {
        let bounds = &self.commands.bounds;
        let paths = behind_dashes(spec.paths, bounds.git_paths_max)?;
        let (start, skip) = match &spec.cursor {
            Some(cursor) => position(cursor).ok_or_else(|| Error::Invalid(format!("not a cursor of ours: {cursor:?}")))?,
            None => (spec.revision.as_deref().unwrap_or("HEAD"), 0),
        };
        let repository = Repository::find(&self.commands, place).await?;
        let Some(start) = repository.resolve(&self.commands, start, "commit").await? else {
            if spec.cursor.is_none() && spec.revision.is_none() {
                return Ok(Log { commits: Vec::new(), next: None });
            }
            return Err(Error::UnknownRevision(start.to_owned()));
        };
        let shape = ["log", "-z", FORMAT, "--no-color", "--no-show-signature", "--no-notes", "--encoding=UTF-8"];
        let range = [format!("--skip={skip}"), format!("--max-count={}", spec.limit + 1), start.clone()];
        let args = shape.into_iter().map(Into::into).chain(range.into_iter().map(Into::into)).chain(paths);
        let command = Command::new(args.collect::<Vec<std::ffi::OsString>>(), bounds.git_output_max_bytes);
        let told = repository.run(&self.commands, command).await?.ok()?;
        let mut commits = parse(&told.stdout);
        if told.truncated && commits.is_empty() {
            return Err(Error::Invalid("the next commit's message is too long (git_output_max_bytes)".to_owned()));
        }
        let is_all = commits.len() <= spec.limit && !told.truncated;
        commits.truncate(spec.limit);
        let next = (!is_all).then(|| format!("{start}:{}", skip + commits.len() as u64));
        Ok(Log { commits, next })
    }
}

/// Where the first page began, and how many were told since: so pages fit together whatever is committed meanwhile.
fn position(cursor: &str) -> Option<(&str, u64)> {
    let (start, skip) = cursor.split_once(':')?;
    let is_hash = matches!(start.len(), 40 | 64) && start.bytes().all(|byte| byte.is_ascii_hexdigit());
    let skip: u32 = skip.parse().ok().filter(|skip| *skip <= i32::MAX as u32)?; // git's own limit
    is_hash.then_some((start, u64::from(skip)))
}

fn parse(output: &[u8]) -> Vec<Commit> {
    let fields: Vec<String> = fields(output).map(|field| String::from_utf8_lossy(field).into_owned()).collect();
    let person = |of: &[String]| Person {
        name: of[0].clone(),
        email: of[1].clone(),
        time_ms: of[2].parse::<i64>().unwrap_or_default().saturating_mul(1000),
    };
    let commit = |of: &[String]| Commit {
        hash: of[0].clone(),
        parents: of[1].split_whitespace().map(str::to_owned).collect(),
        author: person(&of[2..5]),
        committer: person(&of[5..8]),
        subject: of[8].clone(),
        body: of[9].trim_end().to_owned(),
    };
    fields.chunks_exact(FIELDS).map(commit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_told_whole_or_not_at_all() {
        let one = b"aa\0bb cc\0Ann\0a@x\x001\0Bob\0b@x\x002\0Subject\0Body\n\0";
        let commits = parse(one);
        assert_eq!((commits[0].parents.len(), commits[0].author.time_ms, commits[0].committer.time_ms), (2, 1000, 2000));
        assert_eq!((commits[0].subject.as_str(), commits[0].body.as_str()), ("Subject", "Body"));
        assert_eq!(parse(&[&one[..], &one[..]].concat()).len(), 2);
        for cut in 0..one.len() {
            assert_eq!(parse(&one[..cut]), []);
        }
    }

    #[test]
    fn cursors_are_ours() {
        let hash = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(position(&format!("{hash}:7")), Some((hash, 7)));
        for bad in [hash.to_owned(), format!("{hash}:"), format!("{hash}:-1"), format!("{hash}:4294967295"), "HEAD:1".to_owned()]
        {
            assert_eq!(position(&bad), None, "{bad}");
        }
    }
}
