//! Why a call on files can't be done.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

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
    #[error("{max} files are being transferred (fs_transfers_max): try again when one is through")]
    Busy { max: u64 },
    #[error("the server is stopping")]
    Stopping,
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
            Self::Os { .. } => "os",
            Self::BrokeOff(_) => "broke_off",
            Self::TooMuch { .. } => "too_much",
            Self::TooMany { .. } => "too_many",
            Self::Root { .. } => "root",
            Self::Busy { .. } => "busy",
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
