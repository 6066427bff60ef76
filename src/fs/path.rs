//! What a client's path names, as text: nothing is looked up.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::Error;

/// An absolute path: what a client wrote, not normalised, links not followed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Located(PathBuf);

impl Located {
    /// An absolute path as it is; a relative one, and what follows `~/`, is below `base` and may not lead upwards.
    ///
    /// # Errors
    /// [`Error::Invalid`] for `..` in a relative path, and for a NUL.
    pub fn new(raw: &OsStr, base: &Path, home: &Path) -> Result<Self, Error> {
        if raw.as_bytes().contains(&0) {
            return Err(Error::Invalid("a path can't have a NUL".to_owned()));
        }
        let written = Path::new(raw);
        if written.is_absolute() {
            return Ok(Self(written.to_path_buf()));
        }
        let (base, below) = match written.strip_prefix("~") {
            Ok(below) => (home, below),
            Err(_) => (base, written),
        };
        let mut path = PathBuf::new();
        for component in below.components() {
            match component {
                Component::Normal(name) => path.push(name),
                Component::CurDir => {}
                _ => return Err(Error::Invalid(format!("invalid relative path: {}", written.display()))),
            }
        }
        Ok(Self(base.join(path)))
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The directory that holds it, and its name there; `None` for what has no name of its own.
    pub fn split(&self) -> Option<(&Path, &OsStr)> {
        Some((self.0.parent()?, self.0.file_name()?))
    }
}

impl From<PathBuf> for Located {
    /// Of a path that is absolute already.
    fn from(path: PathBuf) -> Self {
        Self(path)
    }
}

/// A path in an answer: under `key`, and when it isn't UTF-8 its bytes beside it.
pub fn shown(answer: &mut Value, key: &str, path: &Path) {
    answer[key] = path.to_string_lossy().into();
    if path.to_str().is_none() {
        answer[format!("{key}Base64")] = BASE64_STANDARD.encode(path.as_os_str().as_bytes()).into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn located(raw: &str) -> Result<String, String> {
        let located = Located::new(OsStr::new(raw), Path::new("/work"), Path::new("/home/u"));
        located.map(|located| located.path().display().to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn relative_paths_stay_below_their_base() {
        assert_eq!(located("a/./b/").as_deref(), Ok("/work/a/b"));
        assert_eq!(located("").as_deref(), Ok("/work/"));
        assert_eq!(located(".").as_deref(), Ok("/work/"));
        assert_eq!(located("a/../b"), Err("invalid relative path: a/../b".to_owned()));
        assert_eq!(located("~/../b"), Err("invalid relative path: ~/../b".to_owned()));
    }

    #[test]
    fn absolute_paths_stay_as_they_are_and_the_tilde_is_the_home() {
        assert_eq!(located("/a/../b/").as_deref(), Ok("/a/../b/"));
        assert_eq!(located("~").as_deref(), Ok("/home/u/"));
        assert_eq!(located("~/x").as_deref(), Ok("/home/u/x"));
        assert_eq!(located("./~").as_deref(), Ok("/work/~"));
        assert_eq!(located("~other").as_deref(), Ok("/work/~other"));
        assert!(located("a\0b").is_err());
    }
}
