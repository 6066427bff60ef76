//! Why a call on a repository can't be done.

use std::path::PathBuf;

/// Why a call on a repository can't be done.
#[derive(Debug, Clone, thiserror::Error)]
#[allow(missing_docs)] // the texts say what each is
pub enum Error {
    #[error("git is not in the server's PATH: install it (apt-get install git, apk add git) and try again")]
    Missing,
    #[error("not in a git repository: {}", .0.display())]
    NotARepository(PathBuf),
    #[error("{} has no working tree: it is a bare repository, or inside of .git", .0.display())]
    NoWorkTree(PathBuf),
    #[error("{} is not a linked worktree of this repository", .0.display())]
    NotAWorktree(PathBuf),
    #[error("the repository reaches out of the directories that this client may use: {}", .0.display())]
    Outside(PathBuf),
    #[error("{0}")]
    Invalid(String),
    #[error("no such commit, branch or tag: {0}")]
    UnknownRevision(String),
    #[error("the repository's configuration can't be made safe: {0}")]
    Refused(String),
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    #[error("{0}")]
    InUse(String),
    #[error("{} has work that would be lost ({why}): commit it, or remove with force", .path.display())]
    Dirty { path: PathBuf, why: &'static str },
    #[error("{} is locked{}", .path.display(), if .why.is_empty() { String::new() } else { format!(": {}", .why) })]
    Locked { path: PathBuf, why: String },
    #[error("git {what} took more than {timeout_ms} ms ({bound})")]
    TimedOut { what: String, timeout_ms: u64, bound: &'static str },
    #[error("git {what} failed: {said}")]
    Failed { what: String, said: String },
    #[error("{max} calls on repositories run at once (git_calls_max): try again when one is through")]
    Busy { max: u64 },
    #[error(transparent)]
    Process(#[from] crate::processes::Error),
    #[error("the server is stopping")]
    Stopping,
}

impl Error {
    /// Which it is, as a word that programs look for.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing => "git_unavailable",
            Self::NotARepository(_) => "not_a_repository",
            Self::NoWorkTree(_) => "no_work_tree",
            Self::NotAWorktree(_) => "not_a_worktree",
            Self::Outside(_) => "outside",
            Self::Invalid(_) => "invalid",
            Self::UnknownRevision(_) => "unknown_revision",
            Self::Refused(_) => "unsafe_configuration",
            Self::Exists(_) => "destination_exists",
            Self::InUse(_) => "in_use",
            Self::Dirty { .. } => "worktree_dirty",
            Self::Locked { .. } => "worktree_locked",
            Self::TimedOut { .. } => "timed_out",
            Self::Failed { .. } => "git_failed",
            Self::Busy { .. } => "busy",
            Self::Process(_) => "process",
            Self::Stopping => "stopping",
        }
    }
}
