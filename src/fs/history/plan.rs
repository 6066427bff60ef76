//! What the file system will be like while edits are taken back one after another, without touching it: names that a plan
//! has changed lie over what is on disk.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Dir, Mode, OFlags};

use super::super::draft::present;
use super::super::entry::Kind;
use super::super::{Error, Fs, Located, Reach};
use super::image::{Captured, Image, Node, Raw, What};
use super::rows::Edit;

/// A name as it will be.
enum Virtual {
    /// As on disk, at this path.
    Disk(PathBuf),
    Nothing,
    Leaf(Node),
    Directory {
        node: Option<Node>,
        /// Names that aren't among the children are as on disk there.
        base: Option<PathBuf>,
        children: BTreeMap<OsString, Virtual>,
    },
}

/// The plan. Blocks: it looks at the disk.
pub(super) struct Plan<'a> {
    fs: &'a Fs,
    reach: &'a Reach,
    root: Virtual,
}

impl<'a> Plan<'a> {
    pub(super) fn new(fs: &'a Fs, reach: &'a Reach) -> Self {
        let root = Virtual::Directory { node: None, base: Some(PathBuf::from("/")), children: BTreeMap::new() };
        Self { fs, reach, root }
    }

    /// Takes an edit back, after those before; says why not as a word.
    ///
    /// # Errors
    /// What can't be looked at.
    pub(super) fn undo(&mut self, edit: &Edit) -> Result<Result<(), &'static str>, Error> {
        let (path, kept) = (edit.path(), &edit.kept);
        if !self.is_there(&path, &kept.after, edit.from().is_some())? {
            return Ok(Err("changed"));
        }
        match edit.from() {
            None => self.put(&path, of_image(&kept.before))?,
            Some(from) => {
                if !self.is_there(&from, &kept.left, false)? {
                    return Ok(Err("occupied"));
                }
                let moved = std::mem::replace(self.slot(&path)?, Virtual::Nothing);
                self.put(&from, moved)?;
                self.put(&path, of_image(&kept.before))?;
            }
        }
        for made in kept.made.iter().rev() {
            let made = made.path();
            if self.image(&made)?.nodes.len() == 1 {
                self.put(&made, Virtual::Nothing)?;
            }
        }
        Ok(Ok(()))
    }

    /// What was moved is known by its content, or by being a directory, or by its size when it is too large to be read.
    fn is_there(&mut self, path: &Path, expected: &Image, is_moved: bool) -> Result<bool, Error> {
        let found = self.image(path)?;
        Ok(is_same(&found, expected, is_moved))
    }

    /// Where a name lies, with directories above it where there are none.
    fn slot(&mut self, path: &Path) -> Result<&mut Virtual, Error> {
        let (fs, reach) = (self.fs, self.reach);
        let mut at = &mut self.root;
        for component in path.components() {
            let Component::Normal(name) = component else { continue };
            open(fs, reach, at)?;
            let Virtual::Directory { base, children, .. } = at else { return Err(Error::NotADirectory(path.to_path_buf())) };
            let below = base.as_ref().map_or(Virtual::Nothing, |base| Virtual::Disk(base.join(name)));
            at = children.entry(name.to_owned()).or_insert(below);
        }
        Ok(at)
    }

    fn put(&mut self, path: &Path, now: Virtual) -> Result<(), Error> {
        *self.slot(path)? = now;
        Ok(())
    }

    fn image(&mut self, path: &Path) -> Result<Image, Error> {
        let (fs, reach) = (self.fs, self.reach);
        let mut image = Image::default();
        let there = self.slot(path)?;
        gather(fs, reach, there, Path::new(""), &mut image)?;
        Ok(image)
    }
}

/// Whether what is found is what an edit left there.
pub(super) fn is_same(found: &Image, expected: &Image, is_moved: bool) -> bool {
    match (found.nodes.first(), expected.nodes.first()) {
        (Some(found), Some(expected)) if is_moved => match (&found.what, &expected.what) {
            (What::Directory, What::Directory) => true,
            (What::File { size, .. }, What::File { sha256: None, size: expected }) => size == expected,
            (found, expected) => found == expected,
        },
        _ => found.is_like(expected),
    }
}

/// Makes something that is to hold names a directory of the plan.
fn open(fs: &Fs, reach: &Reach, at: &mut Virtual) -> Result<(), Error> {
    let opened = match at {
        Virtual::Disk(path) => {
            let image = on_disk(fs, reach, path, true)?;
            match image.nodes.into_iter().next() {
                Some(node @ Node { what: What::Directory, .. }) => {
                    Virtual::Directory { node: Some(node), base: Some(path.clone()), children: BTreeMap::new() }
                }
                Some(node) => Virtual::Leaf(node),
                None => Virtual::Directory { node: None, base: None, children: BTreeMap::new() },
            }
        }
        Virtual::Nothing => Virtual::Directory { node: None, base: None, children: BTreeMap::new() },
        Virtual::Leaf(_) | Virtual::Directory { .. } => return Ok(()),
    };
    *at = opened;
    Ok(())
}

fn of_image(image: &Image) -> Virtual {
    let Some(first) = image.nodes.first() else { return Virtual::Nothing };
    if first.what != What::Directory {
        return Virtual::Leaf(first.clone());
    }
    let mut top = Virtual::Directory { node: Some(first.clone()), base: None, children: BTreeMap::new() };
    for node in &image.nodes[1..] {
        let mut at = &mut top;
        for name in node.below.path().iter() {
            let Virtual::Directory { children, .. } = at else { break }; // an image's parents are directories
            at = children.entry(name.to_owned()).or_insert(Virtual::Nothing);
        }
        *at = match node.what {
            What::Directory => Virtual::Directory { node: Some(node.clone()), base: None, children: BTreeMap::new() },
            _ => Virtual::Leaf(node.clone()),
        };
    }
    top
}

fn gather(fs: &Fs, reach: &Reach, at: &Virtual, below: &Path, image: &mut Image) -> Result<(), Error> {
    if image.nodes.len() > fs.keep_limits().tree_max_names {
        image.is_whole = false;
        return Ok(());
    }
    let placed = |node: &Node| {
        let below = if node.below.0.is_empty() { below.to_path_buf() } else { below.join(node.below.path()) };
        Node { below: Raw::of(&below), ..node.clone() }
    };
    match at {
        Virtual::Nothing => {}
        Virtual::Leaf(node) => image.nodes.push(Node { below: Raw::of(below), ..node.clone() }),
        Virtual::Disk(path) => {
            let found = on_disk(fs, reach, path, false)?;
            image.is_whole &= found.is_whole;
            image.nodes.extend(found.nodes.iter().map(placed));
        }
        Virtual::Directory { node, base, children } => {
            let unknown = Node { below: Raw::default(), what: What::Directory, mode: 0o755, uid: 0, gid: 0 };
            // A directory that only the plan made for what is below it, and that holds nothing, isn't there.
            let start = image.nodes.len();
            image.nodes.push(Node { below: Raw::of(below), ..node.clone().unwrap_or(unknown) });
            for (name, child) in children {
                gather(fs, reach, child, &below.join(name), image)?;
            }
            for name in base.iter().map(|base| names(reach, base)).collect::<Result<Vec<_>, _>>()?.into_iter().flatten() {
                if !children.contains_key(&name)
                    && let Some(base) = base
                {
                    gather(fs, reach, &Virtual::Disk(base.join(&name)), &below.join(&name), image)?;
                }
            }
            if node.is_none() && base.is_none() && image.nodes.len() == start + 1 {
                image.nodes.pop();
            }
        }
    }
    Ok(())
}

fn names(reach: &Reach, directory: &Path) -> Result<Vec<OsString>, Error> {
    let failed = |errno| Error::of("list", directory, errno);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = reach.open(&Located::from(directory.to_path_buf()), flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in Dir::read_from(&opened).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(names)
}

/// What is on disk now; with `only_itself`, not what it holds.
pub(super) fn on_disk(fs: &Fs, reach: &Reach, path: &Path, only_itself: bool) -> Result<Image, Error> {
    let place = match reach.place(&Located::from(path.to_path_buf()), false) {
        Ok(place) => place,
        Err(Error::Invalid(_)) => return Ok(root()), // the root directory has no name
        Err(Error::NotFound(_) | Error::NotADirectory(_)) => return Ok(Image::default()),
        // Above the roots is what holds them, and nothing that a plan may change.
        Err(Error::Outside(_)) if only_itself => return Ok(root()),
        Err(error) => return Err(error),
    };
    let Some(meta) = present(&place)? else { return Ok(Image::default()) };
    let limits = fs.keep_limits();
    match meta.kind {
        Kind::File => {
            let hash = fs.hash_at(&place, &meta)?;
            Ok(Image::file(&hash, meta.size, meta.mode, (meta.uid, meta.gid)))
        }
        Kind::Directory if only_itself => Ok(Captured::moved(&place, &meta, limits).settle(limits, &mut Vec::new()).0),
        _ => Ok(Captured::known(&place, &meta, limits)?.settle(limits, &mut Vec::new()).0),
    }
}

fn root() -> Image {
    let node = Node { below: Raw::default(), what: What::Directory, mode: 0o755, uid: 0, gid: 0 };
    Image { nodes: vec![node], is_whole: true }
}
