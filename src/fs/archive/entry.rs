//! What an entry of an archive asks for, and whether it may: pure rules.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::Timespec;
use tar::EntryType;

use super::super::Error;

/// One part of a name (limits.h).
const NAME_MAX: usize = 255;
/// A path as system calls take it, without its NUL.
const PATH_MAX: usize = 4095;
/// Setuid, setgid and the sticky bit are left out.
const MODE_MASK: u32 = 0o777;

/// An entry.
#[derive(Debug)]
pub(super) struct Head {
    /// Beneath the destination, without `.`; empty for the destination itself.
    pub(super) path: PathBuf,
    pub(super) what: What,
    pub(super) mode: u32,
    pub(super) modified: Timespec,
}

/// What is to be made.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum What {
    /// With holes, perhaps.
    File {
        is_sparse: bool,
    },
    Directory,
    Symlink(PathBuf),
    /// Another name of an entry.
    Link(PathBuf),
    /// Nothing: it says something about the archive.
    Nothing,
}

impl Head {
    /// Reads what an entry says of itself.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what isn't made here.
    pub(super) fn of<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<Self, Error> {
        let name = entry.path_bytes().into_owned();
        let refused = |why: &str| Error::Invalid(format!("{}: {why}", String::from_utf8_lossy(&name)));
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            read_records(entry, &refused, true)?;
            return Ok(Self { path: PathBuf::new(), what: What::Nothing, mode: 0, modified: at(0, 0) });
        }
        let modified = read_records(entry, &refused, false)?;
        let path = clean(&name)?;
        let link = || entry.link_name_bytes().filter(|link| !link.is_empty()).ok_or_else(|| refused("a link to nothing"));
        let what = match kind {
            EntryType::Regular | EntryType::Continuous if name.ends_with(b"/") => What::Directory, // tar before 1988
            EntryType::Regular | EntryType::Continuous => What::File { is_sparse: false },
            EntryType::GNUSparse => What::File { is_sparse: true },
            EntryType::Directory => What::Directory,
            EntryType::Symlink => What::Symlink(inner_target(&path, &link()?).map_err(|why| refused(&why))?),
            EntryType::Link => What::Link(clean(&link()?).map_err(|_| refused("a hard link that leads out of the archive"))?),
            EntryType::Char | EntryType::Block => return Err(refused("devices aren't made")),
            EntryType::Fifo => return Err(refused("FIFOs aren't made")),
            kind if kind.as_byte() == b'V' => What::Nothing, // GNU: the archive's label
            kind => return Err(refused(&format!("entries of type {:?} aren't known", char::from(kind.as_byte())))),
        };
        let mode = entry.header().mode().map_err(|error| refused(&error.to_string()))? & MODE_MASK;
        let seconds = || entry.header().mtime().ok().and_then(|seconds| i64::try_from(seconds).ok()).unwrap_or_default();
        Ok(Self { path, what, mode, modified: modified.unwrap_or_else(|| at(seconds(), 0)) })
    }
}

/// PAX records before an entry: gives the time among them. Those that programs read differently are refused: what is named
/// twice, what says how long it is and isn't, names and sizes for all entries at once, sparse maps in the content.
fn read_records<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    refused: &impl Fn(&str) -> Error,
    is_global: bool,
) -> Result<Option<Timespec>, Error> {
    let records = entry.pax_extensions().map_err(|error| refused(&format!("its PAX header can't be read: {error}")))?;
    let (mut seen, mut modified) = (HashSet::new(), None);
    for record in records.into_iter().flatten() {
        let record = record.map_err(|_| refused("a malformed PAX record"))?;
        let (key, value) = (record.key_bytes(), record.value_bytes());
        let names = matches!(key, b"path" | b"linkpath" | b"size");
        if names && (is_global || !seen.insert(key.to_vec())) {
            return Err(refused(&format!("a PAX header with a second {:?}", String::from_utf8_lossy(key))));
        }
        if key.starts_with(b"GNU.sparse.") {
            return Err(refused("sparse files in PAX format aren't known: use GNU format"));
        }
        if key == b"mtime" {
            modified = std::str::from_utf8(value).ok().and_then(pax_time);
        }
    }
    Ok(modified)
}

fn at(seconds: i64, nanoseconds: i64) -> Timespec {
    Timespec { tv_sec: seconds, tv_nsec: nanoseconds }
}

/// Seconds with a fraction (pax(1), "mtime").
fn pax_time(text: &str) -> Option<Timespec> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: i64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    match (whole.starts_with('-'), nanoseconds) {
        (true, 1..) => Some(at(seconds - 1, 1_000_000_000 - nanoseconds)),
        _ => Some(at(seconds, nanoseconds)),
    }
}

/// A name as a path beneath the destination.
///
/// # Errors
/// [`Error::Invalid`] with the contract's words for what leads anywhere else.
pub(super) fn clean(name: &[u8]) -> Result<PathBuf, Error> {
    let invalid = |why: &str| Error::Invalid(format!("invalid relative path: {}{why}", String::from_utf8_lossy(name)));
    if name.contains(&0) {
        return Err(invalid(" (it has a NUL)"));
    }
    let mut path = PathBuf::new();
    for component in Path::new(OsStr::from_bytes(name)).components() {
        match component {
            Component::Normal(part) if part.len() > NAME_MAX => return Err(invalid(" (a name is too long)")),
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            _ => return Err(invalid("")),
        }
    }
    if path.as_os_str().len() > PATH_MAX { Err(invalid(" (it is too long)")) } else { Ok(path) }
}

/// What a symbolic link may say: where it leads stays beneath the destination, whatever other links do that keep this rule.
/// So `..` may only come first: behind a name that is itself a link it would go up from where that one leads.
fn inner_target(path: &Path, target: &[u8]) -> Result<PathBuf, String> {
    let leads_out = || format!("a link that leads out of the archive: {}", String::from_utf8_lossy(target));
    if target.contains(&0) || target.len() > PATH_MAX {
        return Err("a link to what can't be a path".to_owned());
    }
    let mut up_left = path.parent().map_or(0, |parent| parent.iter().count());
    let mut is_down = false;
    let path = Path::new(OsStr::from_bytes(target));
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(_) => is_down = true,
            Component::ParentDir if is_down => {
                return Err(format!("a link with `..` behind a name: {}", String::from_utf8_lossy(target)));
            }
            Component::ParentDir => up_left = up_left.checked_sub(1).ok_or_else(leads_out)?,
            Component::RootDir | Component::Prefix(_) => return Err(leads_out()),
        }
    }
    Ok(path.to_path_buf())
}

/// The same for another name of a link.
pub(super) fn may_say(path: &Path, target: &Path) -> bool {
    inner_target(path, target.as_os_str().as_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_beneath_the_destination() {
        let cleaned = |name: &[u8]| clean(name).map(|path| path.display().to_string()).map_err(|error| error.to_string());
        for (name, path) in [("./a/b", "a/b"), ("a//b/", "a/b"), (".", ""), ("", ""), ("./", "")] {
            assert_eq!(cleaned(name.as_bytes()).as_deref(), Ok(path));
        }
        for name in ["../evil", "a/../b", "/abs", ".."] {
            assert_eq!(cleaned(name.as_bytes()), Err(format!("invalid relative path: {name}")));
        }
        assert!(cleaned(b"a\0b").is_err() && cleaned(&[b'x'; 256]).is_err());
        assert_eq!(clean(b"\xff/x").expect("a path").as_os_str().as_bytes(), b"\xff/x");
    }

    #[test]
    fn links_stay_beneath_the_destination() {
        let may = |path: &str, target: &str| may_say(Path::new(path), Path::new(target));
        for (path, target) in [("l", "a"), ("l", "."), ("l", "a/b"), ("d/l", "../a"), ("d/e/l", "../../x/y"), ("d/l", "..")] {
            assert!(may(path, target), "{path} -> {target}");
        }
        let outwards =
            [("l", ".."), ("l", "/etc"), ("d/l", "../../x"), ("l", "a/../b"), ("d/e/l", "../../../x"), ("x", "d/up/../etc")];
        for (path, target) in outwards {
            assert!(!may(path, target), "{path} -> {target}");
        }
    }

    #[test]
    fn times_of_pax_records() {
        let of = |text| pax_time(text).map(|time| (time.tv_sec, time.tv_nsec));
        assert_eq!(of("1350244992.023960108"), Some((1_350_244_992, 23_960_108)));
        assert_eq!(of("12"), Some((12, 0)));
        assert_eq!(of("12.5"), Some((12, 500_000_000)));
        assert_eq!(of("-1.25"), Some((-2, 750_000_000)));
        assert_eq!((of("x"), of("1.x"), of("")), (None, None, None));
    }
}
