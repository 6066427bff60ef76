//! Why a skill, or a source of skills, can't be had.

use std::path::PathBuf;

/// Why a skill, or a source of skills, can't be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// The entry in the file has another shape.
    #[error("its entry in skills.json can't be used: {0}")]
    Unreadable(String),
    /// No such kind of source.
    #[error("sources of type {0:?} are not known: local, github and git are")]
    UnknownKind(String),
    /// Not `owner/repo`.
    #[error("{0:?} is not of the form owner/repo")]
    NoRepository(String),
    /// There is no git.
    #[error("git is not on PATH: install it, or give a local source")]
    GitMissing,
    /// git failed.
    #[error("git: {0}")]
    Git(String),
    /// git took longer than `skills_git_timeout_ms`.
    #[error("git took longer than {0} ms")]
    GitTimedOut(u64),
    /// Something can't be read or written.
    #[error("{}: {cause}", path.display())]
    Io { path: PathBuf, cause: String },
    /// A path or link leads out of the source.
    #[error("{} leads out of its source", .0.display())]
    Outside(PathBuf),
    /// Neither file nor folder, or a link to a folder.
    #[error("{} is neither a file nor a folder", .0.display())]
    Odd(PathBuf),
    /// The source has no skills.
    #[error("no folder with a SKILL.md is there, nor in skills/, .claude/skills/ or .agents/skills/ below")]
    NoSkills,
    /// The source doesn't have the skill that was asked for.
    #[error("no skill of this name is there")]
    NoSuchSkill,
    /// The folder's name is no name of a skill.
    #[error("its name has other characters than letters, digits, '.', '_' and '-', begins with '.', or is longer than 64")]
    BadName,
    /// An earlier source has a skill of this name.
    #[error("an earlier source has a skill of this name")]
    Twice,
    /// One more than `skills_max`.
    #[error("there are {0} skills already")]
    TooMany(u64),
    /// More than `skill_files_max`.
    #[error("it has more than {0} files and folders")]
    TooManyFiles(u64),
    /// Larger than `skill_file_max_bytes`.
    #[error("{} is larger than {max} bytes", path.display())]
    FileTooLarge { path: PathBuf, max: u64 },
    /// The directory's skills would be larger than `skills_total_max_bytes`.
    #[error("all skills together would be larger than {0} bytes")]
    TooLarge(u64),
    /// The place is taken.
    #[error("{} is there already and was not made from this configuration, or was changed since: it is left as it is", .0.display())]
    Foreign(PathBuf),
}

impl Failure {
    pub(super) fn io(path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), cause: error.to_string() }
    }
}
