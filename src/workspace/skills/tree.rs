//! A skill's folder in memory: within its bounds it is small.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::failure::Failure;
use crate::config::Bounds;
use crate::rt::ids::new_id;

/// The files of a folder by their paths below it. Empty folders aren't kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tree(BTreeMap<PathBuf, Leaf>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Leaf {
    is_executable: bool,
    content: Vec<u8>,
}

/// What bounds a folder that is read.
pub(super) struct Limits<'a> {
    /// Links may lead anywhere in here; canonical.
    pub(super) root: &'a Path,
    pub(super) bounds: &'a Bounds,
    /// Bytes that it may have.
    pub(super) left_bytes: u64,
}

impl Tree {
    /// Reads a folder, without `.git`. A link to a file is read as that file.
    pub(super) fn read(folder: &Path, limits: &Limits) -> Result<Self, Failure> {
        let (mut tree, mut count, mut left_bytes) = (Self::default(), 0, limits.left_bytes);
        let mut folders = vec![PathBuf::new()];
        while let Some(below) = folders.pop() {
            let here = folder.join(&below);
            for entry in std::fs::read_dir(&here).map_err(|error| Failure::io(&here, &error))? {
                let entry = entry.map_err(|error| Failure::io(&here, &error))?;
                if entry.file_name() == ".git" {
                    continue;
                }
                count += 1;
                if count > limits.bounds.skill_files_max {
                    return Err(Failure::TooManyFiles(limits.bounds.skill_files_max));
                }
                let (path, name) = (entry.path(), below.join(entry.file_name()));
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(name);
                } else {
                    let leaf = Leaf::read(&path, limits, left_bytes)?;
                    left_bytes -= leaf.content.len() as u64;
                    tree.0.insert(name, leaf);
                }
            }
        }
        Ok(tree)
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.0.values().map(|leaf| leaf.content.len() as u64).sum()
    }

    /// Two trees with the same digest are the same.
    pub(super) fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for (path, leaf) in &self.0 {
            let path = path.as_os_str().as_bytes();
            hash.update((path.len() as u64).to_be_bytes());
            hash.update(path);
            hash.update([u8::from(leaf.is_executable)]);
            hash.update((leaf.content.len() as u64).to_be_bytes());
            hash.update(&leaf.content);
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Makes `target` this tree, replacing what was there. Readers see the old one, none for a moment, or the whole new.
    pub(super) fn write(&self, target: &Path) -> io::Result<()> {
        let beside = |what: &str| target.with_file_name(format!(".{}", new_id(what)));
        let (new, old) = (beside("new"), beside("old"));
        let written = self.write_new(&new).and_then(|()| {
            if std::fs::symlink_metadata(target).is_err() {
                return std::fs::rename(&new, target);
            }
            std::fs::rename(target, &old)?;
            std::fs::rename(&new, target).inspect_err(|_| drop(std::fs::rename(&old, target)))?;
            std::fs::remove_dir_all(&old)
        });
        written.inspect_err(|_| drop(std::fs::remove_dir_all(&new)))
    }

    fn write_new(&self, folder: &Path) -> io::Result<()> {
        std::fs::create_dir_all(folder)?;
        for (name, leaf) in &self.0 {
            let path = folder.join(name);
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            std::fs::write(&path, &leaf.content)?;
            let mode = if leaf.is_executable { 0o755 } else { 0o644 };
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
        }
        Ok(())
    }
}

impl Leaf {
    fn read(path: &Path, limits: &Limits, left_bytes: u64) -> Result<Self, Failure> {
        let io = |error: io::Error| Failure::io(path, &error);
        let real = std::fs::canonicalize(path).map_err(io)?;
        if !real.starts_with(limits.root) {
            return Err(Failure::Outside(path.to_owned()));
        }
        let metadata = std::fs::metadata(&real).map_err(io)?;
        if !metadata.is_file() {
            return Err(Failure::Odd(path.to_owned()));
        }
        let max = limits.bounds.skill_file_max_bytes;
        let mut content = Vec::new();
        File::open(&real).and_then(|file| file.take(max.min(left_bytes) + 1).read_to_end(&mut content)).map_err(io)?;
        if content.len() as u64 > max {
            return Err(Failure::FileTooLarge { path: path.to_owned(), max });
        }
        if content.len() as u64 > left_bytes {
            return Err(Failure::TooLarge(limits.bounds.skills_total_max_bytes));
        }
        Ok(Self { is_executable: metadata.permissions().mode() & 0o100 != 0, content })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(folder: &Path, bounds: &Bounds, left_bytes: u64) -> Result<Tree, Failure> {
        let root = folder.canonicalize().expect("a folder");
        Tree::read(&root, &Limits { root: &root, bounds, left_bytes })
    }

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(folder.path().join("a/.git")).expect("made");
        std::fs::write(folder.path().join("SKILL.md"), "text").expect("written");
        std::fs::write(folder.path().join("a/run"), "#!").expect("written");
        std::fs::write(folder.path().join("a/.git/HEAD"), "not read").expect("written");
        std::fs::set_permissions(folder.path().join("a/run"), std::fs::Permissions::from_mode(0o700)).expect("changed");
        folder
    }

    #[test]
    fn a_tree_is_written_as_it_was_read() {
        let (from, to) = (folder(), tempfile::tempdir().expect("a folder"));
        std::os::unix::fs::symlink("a/run", from.path().join("link")).expect("linked");
        let bounds = Bounds::default();
        let tree = read(from.path(), &bounds, 100).expect("within bounds");
        assert_eq!(tree.size_bytes(), 8);
        let target = to.path().join("skill");
        for _ in 0..2 {
            tree.write(&target).expect("written");
            assert_eq!(read(&target, &bounds, 100), Ok(tree.clone()));
        }
        assert_eq!(std::fs::read_dir(to.path()).expect("a folder").count(), 1, "nothing else is left");
        std::fs::set_permissions(target.join("a/run"), std::fs::Permissions::from_mode(0o644)).expect("changed");
        assert_ne!(read(&target, &bounds, 100).expect("read").digest(), tree.digest());
    }

    #[test]
    fn bounds_and_links_out_of_the_source() {
        let from = folder();
        let bounds = Bounds::default();
        assert_eq!(read(from.path(), &bounds, 5), Err(Failure::TooLarge(bounds.skills_total_max_bytes)));
        let small = Bounds { skill_file_max_bytes: 3, ..Bounds::default() };
        assert!(matches!(read(from.path(), &small, 100), Err(Failure::FileTooLarge { max: 3, .. })));
        let few = Bounds { skill_files_max: 2, ..Bounds::default() };
        assert_eq!(read(from.path(), &few, 100), Err(Failure::TooManyFiles(2)));
        let link = from.path().join("link");
        for (target, expected) in [("/etc/passwd", "leads out"), ("a", "neither"), ("nowhere", "No such file")] {
            std::os::unix::fs::symlink(target, &link).expect("linked");
            let failure = read(from.path(), &bounds, 100).expect_err("refused").to_string();
            assert!(failure.contains(expected), "{target}: {failure}");
            std::fs::remove_file(&link).expect("removed");
        }
    }
}
