//! Paths as `file:` URIs (RFC 8089), in one spelling: servers write them in many.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};

/// RFC 3986: what a path may have as it is, and what most servers don't encode either.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// The URI of an absolute path.
#[must_use]
pub fn uri_of(path: &Path) -> String {
    format!("file://{}", percent_encode(path.as_os_str().as_bytes(), ENCODED))
}

/// The path of a `file:` URI of this machine.
#[must_use]
pub fn path_of(uri: &str) -> Option<PathBuf> {
    let rest = uri.strip_prefix("file://")?;
    let path = rest.strip_prefix("localhost").unwrap_or(rest);
    let bytes: Vec<u8> = percent_decode(path.as_bytes()).collect();
    (bytes.first() == Some(&b'/') && !bytes.contains(&0)).then(|| OsString::from_vec(bytes).into())
}

/// The same URI as [`uri_of`] writes it; what isn't of a file stays as it is.
pub(crate) fn canonical(uri: String) -> String {
    path_of(&uri).map_or(uri, |path| uri_of(&path))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn servers_spell_the_same_file_in_many_ways() {
        for uri in ["file:///a/@x/b%20c%C3%A4.ts", "file:///a/%40x/b%20c%c3%a4.ts", "file://localhost/a/@x/b%20cä.ts"] {
            assert_eq!(canonical(uri.to_owned()), "file:///a/%40x/b%20c%C3%A4.ts");
        }
        for uri in ["untitled:x", "file://host/x", "file:x", "jdt://contents/x"] {
            assert_eq!(path_of(uri), None);
        }
    }

    proptest! {
        #[test]
        fn there_and_back(bytes in proptest::collection::vec(1_u8..=255, 0..20)) {
            let path = PathBuf::from(OsString::from_vec([b"/".to_vec(), bytes].concat()));
            prop_assert_eq!(path_of(&uri_of(&path)), Some(path));
        }
    }
}
