//! What a file is, and how that is written in JSON: by hand, for a directory may have a hundred thousand of them.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustix::fs::{AtFlags, FileType, Statx, StatxFlags, statx};
use rustix::io::Errno;
use time::OffsetDateTime;

/// What a name stands for (inode(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum Kind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    BlockDevice,
    CharacterDevice,
    Unknown,
}

impl Kind {
    /// As a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Symlink => "symlink",
            Self::Fifo => "fifo",
            Self::Socket => "socket",
            Self::BlockDevice => "blockDevice",
            Self::CharacterDevice => "characterDevice",
            Self::Unknown => "unknown",
        }
    }
}

impl From<FileType> for Kind {
    fn from(kind: FileType) -> Self {
        match kind {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Symlink,
            FileType::Fifo => Self::Fifo,
            FileType::Socket => Self::Socket,
            FileType::BlockDevice => Self::BlockDevice,
            FileType::CharacterDevice => Self::CharacterDevice,
            FileType::Unknown => Self::Unknown,
        }
    }
}

/// What the file system says of a file (statx(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// What it is.
    pub kind: Kind,
    /// Bytes.
    pub size: u64,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Names it has.
    pub links: u32,
    /// Device and inode: what it is, whatever its name.
    pub id: (u64, u64),
    /// When its content changed: seconds since 1970, and nanoseconds.
    pub modified: (i64, u32),
    /// When anything of it changed, which nobody can set.
    pub changed: (i64, u32),
}

const WANTED: StatxFlags = StatxFlags::BASIC_STATS;

impl Meta {
    /// Of a name in a directory; a link is itself.
    pub(super) fn of(directory: impl AsFd, name: &Path) -> Result<Self, Errno> {
        // DONT_SYNC: what is remembered of files that lie elsewhere is good enough, as with `ls`.
        statx(directory, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC, WANTED).map(Self::from)
    }

    /// Of what is open.
    pub(super) fn of_open(file: impl AsFd) -> Result<Self, Errno> {
        statx(file, "", AtFlags::EMPTY_PATH, WANTED).map(Self::from)
    }

    /// True when nothing was written in between, as far as clocks tell.
    pub(super) fn is_as_it_was(&self, before: &Self) -> bool {
        let what = |meta: &Self| (meta.id, meta.size, meta.modified, meta.changed);
        what(self) == what(before)
    }
}

impl From<Statx> for Meta {
    fn from(stat: Statx) -> Self {
        Self {
            kind: FileType::from_raw_mode(stat.stx_mode.into()).into(),
            size: stat.stx_size,
            mode: u32::from(stat.stx_mode) & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            links: stat.stx_nlink,
            id: (rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor), stat.stx_ino),
            modified: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
            changed: (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
        }
    }
}

/// Writes entries; remembers the second it wrote last, for neighbours often share it.
pub(super) struct Encoder {
    out: Vec<u8>,
    second: Option<(i64, String)>,
}

impl Encoder {
    pub(super) fn new(out: Vec<u8>) -> Self {
        Self { out, second: None }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    /// One entry. `directory` is what its path begins with; without one, `name` is a whole path. `target` is what a link
    /// says.
    pub(super) fn entry(&mut self, directory: Option<&Prefix>, name: &[u8], meta: &Meta, target: Option<&[u8]>) {
        let shown = escaped(name);
        if let Some(directory) = directory {
            self.join(&[br#"{"name":""#, &shown, br#"","path":""#, &directory.escaped, &shown, b"\""]);
            if directory.is_odd || is_odd(name, &shown) {
                self.bytes("nameBase64", name);
                self.bytes("pathBase64", &[&directory.raw, name].concat());
            }
        } else {
            self.join(&[br#"{"path":""#, &shown, b"\""]);
            if is_odd(name, &shown) {
                self.bytes("pathBase64", name);
            }
        }
        // The contract knows two types; what else there is says so beside it.
        let known = if meta.kind == Kind::Directory { "directory" } else { "file" };
        let mut size = itoa::Buffer::new();
        let size = size.format(meta.size).as_bytes();
        self.join(&[br#","entryType":""#, known.as_bytes(), br#"","size":"#, size, br#","modified":""#]);
        self.time(meta.modified);
        self.out.push(b'"');
        if !matches!(meta.kind, Kind::File | Kind::Directory) {
            self.join(&[br#","kind":""#, meta.kind.as_str().as_bytes(), b"\""]);
        }
        if let Some(target) = target {
            let shown = escaped(target);
            self.join(&[br#","target":""#, &shown, b"\""]);
            if is_odd(target, &shown) {
                self.bytes("targetBase64", target);
            }
        }
    }

    /// What is shown of a single file, or on demand.
    pub(super) fn details(&mut self, meta: &Meta) {
        self.push(&format!(
            r#","mode":"{:04o}","uid":{},"gid":{},"links":{},"inode":{},"device":{}"#,
            meta.mode, meta.uid, meta.gid, meta.links, meta.id.1, meta.id.0
        ));
    }

    pub(super) fn push(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn join(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.out.extend_from_slice(part);
        }
    }

    fn bytes(&mut self, key: &str, value: &[u8]) {
        let value = BASE64_STANDARD.encode(value);
        self.push(&format!(r#","{key}":"{value}""#));
    }

    /// RFC 3339 with as many digits as it takes, in threes.
    fn time(&mut self, (seconds, nanoseconds): (i64, u32)) {
        if self.second.as_ref().is_none_or(|(known, _)| *known != seconds) {
            let at = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
            let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
            let (hour, minute, second) = (at.hour(), at.minute(), at.second());
            self.second = Some((seconds, format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")));
        }
        if let Some((_, text)) = &self.second {
            self.out.extend_from_slice(text.as_bytes());
        }
        if nanoseconds > 0 {
            let mut fraction = *b".000000000";
            let mut left = nanoseconds;
            for digit in fraction[1..].iter_mut().rev() {
                *digit = b'0' + u8::try_from(left % 10).unwrap_or_default();
                left /= 10;
            }
            let digits = match nanoseconds {
                n if n % 1_000_000 == 0 => 3,
                n if n % 1_000 == 0 => 6,
                _ => 9,
            };
            self.out.extend_from_slice(&fraction[..=digits]);
        }
        self.push("+00:00");
    }
}

/// A directory's path as the beginning of its entries' paths.
pub(super) struct Prefix {
    raw: Vec<u8>,
    escaped: Vec<u8>,
    is_odd: bool,
}

impl Prefix {
    pub(super) fn new(directory: &Path) -> Self {
        let mut raw = directory.as_os_str().as_bytes().to_vec();
        if raw.last() != Some(&b'/') {
            raw.push(b'/');
        }
        let escaped = escaped(&raw).into_owned();
        let is_odd = std::str::from_utf8(&raw).is_err();
        Self { raw, escaped, is_odd }
    }

    /// That of a directory in it.
    pub(super) fn below(&self, name: &[u8]) -> Self {
        Self::new(Path::new(OsStr::from_bytes(&self.path_of(name))))
    }

    /// The path of something in it.
    pub(super) fn path_of(&self, name: &[u8]) -> Vec<u8> {
        [&self.raw, name].concat()
    }
}

/// The inside of a JSON string. What isn't UTF-8 is replaced, and then shown in base64 beside it.
fn escaped(value: &[u8]) -> Cow<'_, [u8]> {
    // Without an early end, so that many bytes are looked at at once.
    let is_plain = value.iter().fold(true, |plain, byte| plain & matches!(byte, b' ' | b'!' | b'#'..=b'[' | b']'..=b'~'));
    if is_plain {
        return Cow::Borrowed(value);
    }
    let quoted = serde_json::to_string(&String::from_utf8_lossy(value)).unwrap_or_default();
    Cow::Owned(quoted.as_bytes()[1..quoted.len() - 1].to_vec())
}

/// True when what is shown isn't all of it.
fn is_odd(value: &[u8], shown: &[u8]) -> bool {
    value != shown && std::str::from_utf8(value).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    const META: Meta = Meta {
        kind: Kind::File,
        size: 7,
        mode: 0o644,
        uid: 0,
        gid: 0,
        links: 1,
        id: (1, 2),
        modified: (1_700_000_000, 120_000_000),
        changed: (0, 0),
    };

    fn encoded(directory: Option<&str>, name: &[u8], meta: &Meta, target: Option<&[u8]>) -> serde_json::Value {
        let mut encoder = Encoder::new(Vec::new());
        let prefix = directory.map(|directory| Prefix::new(Path::new(directory)));
        encoder.entry(prefix.as_ref(), name, meta, target);
        encoder.push("}");
        serde_json::from_slice(&encoder.into_bytes()).expect("JSON")
    }

    #[test]
    fn an_entry_is_as_the_contract_has_it() {
        let entry = encoded(Some("/a b"), b"c", &META, None);
        let expected = serde_json::json!({
            "name": "c", "path": "/a b/c", "entryType": "file", "size": 7, "modified": "2023-11-14T22:13:20.120+00:00",
        });
        assert_eq!(entry, expected);
        assert_eq!(encoded(None, b"/x", &META, None)["path"], "/x");
        for (nanoseconds, shown) in [(0, ""), (7, ".000000007"), (120_000, ".000120"), (999_999_999, ".999999999")] {
            let entry = encoded(Some("/"), b"c", &Meta { modified: (1_700_000_000, nanoseconds), ..META }, None);
            assert_eq!(entry["modified"], format!("2023-11-14T22:13:20{shown}+00:00"));
        }
    }

    #[test]
    fn odd_names_come_through() {
        let entry = encoded(Some("/d"), b"q\"\\\n\xff", &META, None);
        assert_eq!(entry["name"], "q\"\\\n\u{fffd}");
        assert_eq!(entry["nameBase64"], BASE64_STANDARD.encode(b"q\"\\\n\xff"));
        assert_eq!(entry["pathBase64"], BASE64_STANDARD.encode(b"/d/q\"\\\n\xff"));
    }

    #[test]
    fn links_say_what_they_are() {
        let entry = encoded(Some("/"), b"l", &Meta { kind: Kind::Symlink, ..META }, Some(b"../x"));
        assert_eq!(entry["path"], "/l");
        assert_eq!((&entry["entryType"], &entry["kind"], &entry["target"]), (&"file".into(), &"symlink".into(), &"../x".into()));
    }
}
