//! What is, or was, at a path: one file, a link, or a directory with all that it holds, as far as it is kept.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use rustix::fs::{Dir, Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;

use super::super::draft::present;
use super::super::entry::{Kind, Meta};
use super::super::reach::Place;
use super::super::{Error, Sha256Hex};
use super::thing::{Rights, Thing};
use crate::store::FsBlob;

/// Bytes in JSON: text, or base64 when they are none.
#[derive(Debug, Clone, PartialEq, Eq, Default, PartialOrd, Ord)]
pub(in crate::fs) struct Raw(pub(in crate::fs) Vec<u8>);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum RawText {
    Text(String),
    Bytes { base64: String },
}

impl Serialize for Raw {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => RawText::Bytes { base64: BASE64_STANDARD.encode(&self.0) }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match RawText::deserialize(deserializer)? {
            RawText::Text(text) => Ok(Self(text.into_bytes())),
            RawText::Bytes { base64 } => BASE64_STANDARD.decode(base64).map(Self).map_err(serde::de::Error::custom),
        }
    }
}

impl Raw {
    pub(in crate::fs) fn of(path: &Path) -> Self {
        Self(path.as_os_str().as_bytes().to_vec())
    }

    pub(in crate::fs) fn path(&self) -> PathBuf {
        PathBuf::from(OsString::from_vec(self.0.clone()))
    }
}

/// What is at a path. Without nodes: nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::fs) struct Image {
    /// The first is the path itself, then what it holds: parents before children.
    pub(in crate::fs) nodes: Vec<Node>,
    /// False when there is more.
    pub(in crate::fs) is_whole: bool,
}

/// One name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::fs) struct Node {
    /// Relative to the image's path; empty for that itself.
    pub(in crate::fs) below: Raw,
    #[serde(flatten)]
    pub(in crate::fs) what: What,
    pub(in crate::fs) mode: u32,
    pub(in crate::fs) uid: u32,
    pub(in crate::fs) gid: u32,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub(in crate::fs) enum What {
    File {
        /// `None` when it was too large to be looked at.
        sha256: Option<String>,
        size: u64,
    },
    Directory,
    Symlink {
        target: Raw,
    },
    /// A device or the like: it can't be made again.
    Other,
}

impl Default for Image {
    fn default() -> Self {
        Self { nodes: Vec::new(), is_whole: true }
    }
}

impl Image {
    /// One file.
    pub(in crate::fs) fn file(hash: &Sha256Hex, size: u64, mode: u32, owner: (u32, u32)) -> Self {
        let what = What::File { sha256: Some(hash.as_str().to_owned()), size };
        let node = Node { below: Raw::default(), what, mode, uid: owner.0, gid: owner.1 };
        Self { nodes: vec![node], is_whole: true }
    }

    /// The content's hash, when it is one file.
    pub(in crate::fs) fn hash(&self) -> Option<&str> {
        match self.nodes.as_slice() {
            [Node { what: What::File { sha256, .. }, .. }] => sha256.as_deref(),
            _ => None,
        }
    }

    pub(in crate::fs) fn is_directory(&self) -> bool {
        matches!(self.nodes.first(), Some(Node { what: What::Directory, .. }))
    }

    /// The hashes of all files; `None` when some of it can't be told from something else.
    pub(in crate::fs) fn hashes(&self) -> Option<Vec<String>> {
        if !self.is_whole {
            return None;
        }
        let mut hashes = Vec::new();
        for node in &self.nodes {
            match &node.what {
                What::File { sha256, .. } => hashes.push(sha256.clone()?),
                What::Other => return None,
                What::Directory | What::Symlink { .. } => {}
            }
        }
        Some(hashes)
    }

    /// True when names, contents and link targets are the same.
    pub(in crate::fs) fn is_like(&self, other: &Self) -> bool {
        let sorted = |image: &Self| {
            let mut nodes: Vec<_> = image.nodes.iter().map(|node| (node.below.clone(), node.what.clone())).collect();
            nodes.sort_by(|one, other| one.0.cmp(&other.0));
            nodes
        };
        self.hashes().is_some() && other.is_whole && sorted(self) == sorted(other)
    }
}

/// How much is kept of what goes.
#[derive(Debug, Clone, Copy)]
pub(in crate::fs) struct KeepLimits {
    /// Of one file.
    pub(in crate::fs) file_max_bytes: u64,
    /// Of a directory in all.
    pub(in crate::fs) tree_max_bytes: u64,
    /// Names in a directory.
    pub(in crate::fs) tree_max_names: usize,
}

/// What was at a path just before it was changed. Contents are read when there is time: what is open stays what it was
/// though its name goes.
#[derive(Debug, Default)]
pub(in crate::fs) struct Captured {
    nodes: Vec<(Node, Option<Held>)>,
    is_cut: bool,
    /// Contents of trees are in memory until they are noted: only so many at once.
    _room: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
enum Held {
    Open(File),
    Bytes(Bytes),
}

pub(in crate::fs) const READ_ONLY: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

impl Captured {
    /// What is at a place now, which is about to change or go.
    pub(in crate::fs) fn of(place: &Place, limits: KeepLimits) -> Result<Self, Error> {
        match present(place)? {
            None => Ok(Self::default()),
            Some(meta) => Self::known(place, &meta, limits),
        }
    }

    /// The same when it was looked at already.
    pub(in crate::fs) fn known(place: &Place, meta: &Meta, limits: KeepLimits) -> Result<Self, Error> {
        let failed = |errno| Error::of("keep what is in", &place.path, errno);
        if meta.kind == Kind::Directory {
            return tree(place, meta, limits).map_err(failed);
        }
        let directory = &place.directory;
        let (what, held) = leaf(directory, &place.name, meta).map_err(failed)?;
        Ok(Self { nodes: vec![(node(Raw::default(), what, meta), held.map(Held::Open))], ..Self::default() })
    }

    /// A usual file with this content, or nothing.
    pub(in crate::fs) fn content(content: Option<Bytes>) -> Self {
        Self::thing(content.map_or(Thing::Nothing, |content| Thing::Nothing.with(content)))
    }

    /// What somebody else knows.
    pub(in crate::fs) fn thing(thing: Thing) -> Self {
        let (what, held, rights) = match thing {
            Thing::Nothing => return Self::default(),
            Thing::File { content, rights } => {
                let what = What::File { sha256: None, size: content.len() as u64 };
                (what, Some(Held::Bytes(content)), rights)
            }
            Thing::Link { target, rights } => (What::Symlink { target: Raw::of(&target) }, None, rights),
        };
        let Rights { mode, uid, gid } = rights;
        Self { nodes: vec![(Node { below: Raw::default(), what, mode, uid, gid }, held)], ..Self::default() }
    }

    /// Nobody knows what was there.
    pub(in crate::fs) fn unknown() -> Self {
        Self { is_cut: true, ..Self::default() }
    }

    /// The same, as one of those that may be in memory at once.
    pub(in crate::fs) fn in_room(self, room: Option<OwnedSemaphorePermit>) -> Self {
        Self { _room: room, ..self }
    }

    /// What is moved: a directory is known by being one.
    pub(in crate::fs) fn moved(place: &Place, meta: &Meta, limits: KeepLimits) -> Self {
        if meta.kind == Kind::Directory {
            return Self { nodes: vec![(node(Raw::default(), What::Directory, meta), None)], ..Self::default() };
        }
        Self::known(place, meta, limits).unwrap_or_else(|_| Self::unknown())
    }

    /// True when a part of what is there in the other one isn't in this one any more.
    pub(in crate::fs) fn is_less_than(&self, other: &Self) -> bool {
        self.nodes.len() < other.nodes.len() || other.is_cut
    }

    /// Reads what is only open: it is about to be changed in its place.
    pub(in crate::fs) fn read_now(&mut self, limits: KeepLimits) {
        for (node, held) in &mut self.nodes {
            if let (Some(Held::Open(file)), What::File { size, .. }) = (&*held, &node.what) {
                *held = read(file, *size, limits.file_max_bytes).map(Held::Bytes);
            }
        }
    }

    /// The content of one file that is in memory.
    pub(in crate::fs) fn bytes_of_file(&self) -> Option<&Bytes> {
        match &self.nodes[..] {
            [(_, Some(Held::Bytes(content)))] => Some(content),
            _ => None,
        }
    }

    /// The image, with the contents that are kept, and the content when it is one file. Blocks.
    pub(in crate::fs) fn settle(self, limits: KeepLimits, blobs: &mut Vec<FsBlob>) -> (Image, Option<Bytes>) {
        let is_whole = !self.is_cut;
        let (mut nodes, mut only) = (Vec::with_capacity(self.nodes.len()), None);
        for (mut node, held) in self.nodes {
            if let What::File { sha256, size } = &mut node.what {
                let content = match held {
                    Some(Held::Open(file)) => read(&file, *size, limits.file_max_bytes),
                    Some(Held::Bytes(content)) => Some(content).filter(|content| content.len() as u64 <= limits.file_max_bytes),
                    None => None,
                };
                if let Some(content) = content {
                    let hash = Sha256Hex::of(&content).as_str().to_owned();
                    (*sha256, *size) = (Some(hash.clone()), content.len() as u64);
                    blobs.push(FsBlob { sha256: hash, content: content.clone() });
                    only = Some(content);
                }
            }
            nodes.push(node);
        }
        let only = only.filter(|_| nodes.len() == 1);
        (Image { nodes, is_whole }, only)
    }
}

/// All of a file, when it isn't more than `max` bytes. Not by its own position, which others may use.
pub(in crate::fs) fn read(file: &File, size: u64, max: u64) -> Option<Bytes> {
    if size > max {
        return None;
    }
    let mut content = vec![0; usize::try_from(size).ok()?];
    file.read_exact_at(&mut content, 0).ok()?;
    Some(content.into())
}

fn node(below: Raw, what: What, meta: &Meta) -> Node {
    Node { below, what, mode: meta.mode, uid: meta.uid, gid: meta.gid }
}

fn leaf(directory: &impl std::os::fd::AsFd, name: &OsStr, meta: &Meta) -> Result<(What, Option<File>), Errno> {
    match meta.kind {
        Kind::File => {
            // What we may not read isn't kept; that is said where it is shown.
            let file = openat(directory, name, READ_ONLY, Mode::empty()).ok().map(File::from);
            Ok((What::File { sha256: None, size: meta.size }, file))
        }
        Kind::Symlink => {
            let target = readlinkat(directory, name, Vec::new())?;
            Ok((What::Symlink { target: Raw(target.into_bytes()) }, None))
        }
        _ => Ok((What::Other, None)),
    }
}

/// Levels of a tree that is kept, each a directory held open; one that goes deeper isn't kept.
const DEPTH_MAX: usize = 128;

/// A directory that is being looked through.
struct Level {
    directory: rustix::fd::OwnedFd,
    below: PathBuf,
    left: Vec<OsString>,
}

fn tree(place: &Place, meta: &Meta, limits: KeepLimits) -> Result<Captured, Errno> {
    let mut captured = Captured { nodes: vec![(node(Raw::default(), What::Directory, meta), None)], ..Captured::default() };
    let mut bytes = 0;
    let mut levels = vec![open_level(&place.directory, &place.name, PathBuf::new(), limits)?];
    loop {
        let depth = levels.len();
        let Some(level) = levels.last_mut() else { break };
        let Some(name) = level.left.pop() else {
            levels.pop();
            continue;
        };
        if captured.nodes.len() >= limits.tree_max_names || depth > DEPTH_MAX {
            captured.is_cut = true;
            break;
        }
        let below = level.below.join(&name);
        let meta = match Meta::of(&level.directory, Path::new(&name)) {
            Err(Errno::NOENT) => continue, // it has gone meanwhile
            meta => meta?,
        };
        if meta.kind == Kind::Directory {
            captured.nodes.push((node(Raw::of(&below), What::Directory, &meta), None));
            let below = open_level(&level.directory, &name, below, limits)?;
            levels.push(below);
            continue;
        }
        let (what, file) = leaf(&level.directory, &name, &meta)?;
        let left = limits.tree_max_bytes.saturating_sub(bytes).min(limits.file_max_bytes);
        let held = file.and_then(|file| read(&file, meta.size, left));
        bytes += held.as_ref().map_or(0, |held| held.len() as u64);
        captured.nodes.push((node(Raw::of(&below), what, &meta), held.map(Held::Bytes)));
    }
    Ok(captured)
}

fn open_level(parent: &impl std::os::fd::AsFd, name: &OsStr, below: PathBuf, limits: KeepLimits) -> Result<Level, Errno> {
    let directory = openat(parent, name, READ_ONLY | OFlags::DIRECTORY, Mode::empty())?;
    let mut left = Vec::new();
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            left.push(OsStr::from_bytes(name).to_owned());
        }
        if left.len() > limits.tree_max_names {
            break; // more than is kept in any case
        }
    }
    left.sort_unstable_by(|one, other| other.cmp(one));
    Ok(Level { directory, below, left })
}

/// A content that is read whole, for what must be compared. `None` when it is more than `max` bytes.
pub(in crate::fs) fn read_whole(file: &mut File, max: u64) -> std::io::Result<Option<Vec<u8>>> {
    let mut content = Vec::new();
    file.take(max + 1).read_to_end(&mut content)?;
    Ok((content.len() as u64 <= max).then_some(content))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::{Located, Reach};

    const LIMITS: KeepLimits = KeepLimits { file_max_bytes: 10, tree_max_bytes: 15, tree_max_names: 5 };

    fn image(home: &Path, name: &str) -> (Image, Vec<FsBlob>) {
        let reach = Reach::new(home.to_path_buf(), &[]).expect("a reach");
        let place = reach.place(&Located::from(home.join(name)), false).expect("a place");
        let captured = Captured::of(&place, LIMITS).expect("something to be kept");
        let mut blobs = Vec::new();
        let image = captured.settle(LIMITS, &mut blobs).0;
        (image, blobs)
    }

    #[test]
    fn what_is_kept_has_bounds_and_says_so() {
        let home = tempfile::tempdir().expect("a folder");
        let at = |name: &str| home.path().join(name);
        std::fs::create_dir_all(at("d/e")).expect("folders");
        std::fs::write(at("d/e/f"), "1234567890").expect("a file");
        std::os::unix::fs::symlink("e/f", at("d/l")).expect("a link");
        let (whole, blobs) = image(home.path(), "d");
        let names: Vec<_> = whole.nodes.iter().map(|node| String::from_utf8_lossy(&node.below.0).into_owned()).collect();
        assert_eq!(names, ["", "e", "e/f", "l"]);
        assert!(whole.hashes().is_some_and(|hashes| hashes.len() == 1) && blobs.len() == 1);
        let json = serde_json::to_string(&whole).expect("JSON");
        assert_eq!(serde_json::from_str::<Image>(&json).expect("an image"), whole);
        std::fs::write(at("d/g"), "123456").expect("a file");
        assert!(image(home.path(), "d").0.hashes().is_none(), "too many bytes in all");
        std::fs::write(at("d/g"), "").expect("a file");
        std::fs::write(at("d/h"), "").expect("a file");
        assert!(!image(home.path(), "d").0.is_whole, "too many names");
        std::fs::write(at("big"), "12345678901").expect("a file");
        assert!(image(home.path(), "big").0.hashes().is_none(), "too large");
        assert_eq!(image(home.path(), "none").0, Image::default());
    }

    #[test]
    fn names_that_are_no_text_come_through() {
        let raw = Raw(b"a\xff".to_vec());
        let json = serde_json::to_string(&raw).expect("JSON");
        assert_eq!(serde_json::from_str::<Raw>(&json).expect("bytes"), raw);
    }
}
