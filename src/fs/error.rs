//! Why a call on files can't be done.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::Sha256Hex;
use super::edit::Mismatch;
use super::ledger::{Conflict, Lease, Stale};

/// Why a call on files can't be done. Texts of the first group are the contract's.
#[derive(Debug, Clone, thiserror::Error)]
#[allow(missing_docs)] // the texts say what each is
pub enum Error {
    #[error("{0}")]
    Invalid(String),
    #[error("path not found: {}", .0.display())]
    NotFound(PathBuf),
    #[error("path is not a file: {}", .0.display())]
    NotAFile(PathBuf),
    #[error("path is not a directory: {}", .0.display())]
    NotADirectory(PathBuf),
    #[error("destination already exists: {}", .0.display())]
    DestinationExists(PathBuf),

    #[error("{} leads out of the directories that this client may use", .0.display())]
    Outside(PathBuf),
    #[error("can't {what} {}: permission denied", .path.display())]
    Denied { what: &'static str, path: PathBuf },
    #[error("can't {what} {}: no space is left on the device", .path.display())]
    NoSpace { what: &'static str, path: PathBuf },
    #[error("{} is not what was expected: it has {}", .path.display(), .found.as_deref().unwrap_or("no content, for it isn't there"))]
    Changed {
        path: PathBuf,
        /// The hash of what is there.
        found: Option<String>,
    },
    #[error("{} can't be edited so: {why}", .path.display())]
    Mismatch {
        path: PathBuf,
        why: Mismatch,
        /// The hash of what is there.
        found: Option<Sha256Hex>,
    },
    #[error("{} has become another file since this session saw it: read it again", .0.path.display())]
    Stale(Box<Stale>),
    #[error("other sessions changed the same or neighbouring lines a moment ago: {} of them", .0.len())]
    Conflicts(Vec<Conflict>),
    #[error("session {} works on {} for some more time", .0.session_id, .0.path.display())]
    Leased(Box<Lease>),
    #[error("no edit {id}")]
    UnknownEdit { id: String },
    #[error("edit {id} is {status} already")]
    Settled { id: String, status: String },
    #[error("{} can't be taken back: nothing was done", count(.0.len()))]
    MovedOn(Vec<MovedOn>),
    #[error(transparent)]
    Store(#[from] crate::store::Error),

    #[error("{why} (os error {errno})")]
    Os { why: String, errno: i32, path: PathBuf },
    #[error("the transfer broke off: {0}")]
    BrokeOff(String),
    #[error("{what} is more than {max} ({bound})")]
    TooMuch { what: String, max: u64, bound: &'static str },
    #[error("as many {what} as {bound} allows ({max})")]
    TooMany { what: &'static str, max: u64, bound: &'static str },
    #[error("{} can't be a root for files: {cause}", .path.display())]
    Root { path: PathBuf, cause: String },
    #[error("{} isn't there any more, or is reached by a link now: make the directory again, or change the session's roots", .0.display())]
    RootGone(PathBuf),
    #[error("{max} files are being transferred (fs_transfers_max): try again when one is through")]
    Busy { max: u64 },
    #[error("there is no upload {0}: it was completed, aborted, or has expired")]
    NoUpload(String),
    #[error("the upload has {offset} bytes: go on from there")]
    BadOffset { offset: u64 },
    #[error("the content is {found}, not {expected}: nothing was put in its place")]
    BadHash { expected: String, found: String },
    #[error("another client writes to {0} now")]
    InUse(String),
    #[error("the server is stopping")]
    Stopping,
}

/// An edit that can't be taken back, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovedOn {
    /// The edit.
    pub edit_id: String,
    /// The file.
    pub path: PathBuf,
    /// Why, as a word: `changed` (something else is there now), `not_kept` (what was there is not kept), or `occupied`
    /// (something has the name that it shall have again).
    pub why: &'static str,
}

fn count(edits: usize) -> String {
    if edits == 1 { "an edit".to_owned() } else { format!("{edits} edits") }
}

impl Error {
    /// Which it is, as a word that programs look for.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::NotFound(_) => "not_found",
            Self::NotAFile(_) => "not_a_file",
            Self::NotADirectory(_) => "not_a_directory",
            Self::DestinationExists(_) => "destination_exists",
            Self::Outside(_) => "outside",
            Self::Denied { .. } => "denied",
            Self::NoSpace { .. } => "no_space",
            Self::Changed { .. } => "changed",
            Self::Mismatch { .. } => "mismatch",
            Self::Stale(_) => "stale",
            Self::Conflicts(_) => "conflicts",
            Self::Leased(_) => "leased",
            Self::UnknownEdit { .. } => "unknown_edit",
            Self::Settled { .. } => "settled",
            Self::MovedOn(_) => "moved_on",
            Self::Store(_) => "store",
            Self::Os { .. } => "os",
            Self::BrokeOff(_) => "broke_off",
            Self::TooMuch { .. } => "too_much",
            Self::TooMany { .. } => "too_many",
            Self::Root { .. } => "root",
            Self::RootGone(_) => "root_gone",
            Self::Busy { .. } => "busy",
            Self::NoUpload(_) => "no_upload",
            Self::BadOffset { .. } => "bad_offset",
            Self::BadHash { .. } => "bad_hash",
            Self::InUse(_) => "in_use",
            Self::Stopping => "stopping",
        }
    }

    /// What the system said to an attempt to `what` a path.
    pub(super) fn of(what: &'static str, path: &Path, errno: Errno) -> Self {
        let path = path.to_path_buf();
        match errno {
            Errno::NOENT => Self::NotFound(path),
            Errno::ACCESS | Errno::PERM => Self::Denied { what, path },
            Errno::NOSPC | Errno::DQUOT => Self::NoSpace { what, path },
            Errno::XDEV if what == super::beneath::REACH => Self::Outside(path),
            errno => Self::Os { why: text(errno), errno: errno.raw_os_error(), path },
        }
    }

    /// The same for what std says.
    pub(super) fn io(what: &'static str, path: &Path, error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(errno) => Self::of(what, path, errno),
            None => Self::BrokeOff(error.to_string()),
        }
    }
}

/// The system's words, without the number that std puts behind them.
fn text(errno: Errno) -> String {
    let text = io::Error::from(errno).to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
