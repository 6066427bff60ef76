//! What git writes, as text for JSON.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::Error;

/// A text, and its bytes in base64 when they aren't UTF-8.
pub(super) fn shown(bytes: &[u8]) -> (String, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), None),
        Err(_) => (String::from_utf8_lossy(bytes).into_owned(), Some(BASE64_STANDARD.encode(bytes))),
    }
}

/// The same of a path.
pub(super) fn shown_path(path: &Path) -> (String, Option<String>) {
    shown(path.as_os_str().as_bytes())
}

/// The fields of an output with a NUL behind each. What has none was cut off, and is left out.
pub(super) fn fields(output: &[u8]) -> impl Iterator<Item = &[u8]> {
    let end = output.iter().rposition(|byte| *byte == 0).unwrap_or(0);
    output[..end].split(|byte| *byte == 0).take(if output.contains(&0) { usize::MAX } else { 0 })
}

/// The arguments that narrow a command to paths below the top.
///
/// # Errors
/// [`Error::Invalid`] for too many, and for those that lead elsewhere.
pub(super) fn behind_dashes(paths: Vec<Vec<u8>>, paths_max: u64) -> Result<Vec<OsString>, Error> {
    if paths.len() as u64 > paths_max {
        return Err(Error::Invalid(format!("more than {paths_max} paths (git_paths_max)")));
    }
    let mut args = vec![OsString::from("--")];
    for path in paths {
        let path = OsString::from_vec(path);
        let stays = Path::new(&path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if path.is_empty() || !stays || path.as_bytes().contains(&0) {
            let path = Path::new(&path).display();
            return Err(Error::Invalid(format!("not a path below the top of the repository: {path:?}")));
        }
        args.push(path);
    }
    Ok(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_was_cut_off_is_left_out() {
        let all = |output: &'static [u8]| fields(output).collect::<Vec<_>>();
        assert_eq!(all(b"a\0b\0c"), [&b"a"[..], b"b"]);
        assert_eq!(all(b"a\0\0"), [&b"a"[..], b""]);
        assert_eq!(all(b"a"), Vec::<&[u8]>::new());
        assert_eq!(all(b""), Vec::<&[u8]>::new());
        assert_eq!(all(b"\0"), [&b""[..]]);
    }

    #[test]
    fn paths_stay_below_the_top() {
        let check = |path: &[u8]| behind_dashes(vec![path.to_vec()], 1).map(|args| args.len());
        assert_eq!(check(b"./a b/\xff").expect("fine"), 2);
        for bad in [&b""[..], b"/etc", b"a/../../b", b"a\0b"] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
        assert!(behind_dashes(vec![b"a".to_vec(), b"b".to_vec()], 1).is_err());
    }
}
