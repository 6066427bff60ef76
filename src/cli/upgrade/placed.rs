//! The new program at the server's path, with the old one beside it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::is_same;
use crate::rt::ids::new_id;

/// It lies there.
pub(super) struct Placed {
    target: PathBuf,
    previous: PathBuf,
}

impl Placed {
    /// Puts `binary` at `target` in one step; what lay there is `<target>.previous` from then on. When it lies there
    /// already, that is a copy of what runs.
    ///
    /// # Errors
    /// The folder can't be written; nothing has changed then.
    pub(super) fn put(binary: &Path, target: &Path, running: &Path) -> io::Result<Self> {
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(".previous");
        let placed = Self { target: target.to_owned(), previous: target.with_file_name(name) };
        let is_there = is_same(binary, target);
        let copy = copy_beside(if is_there { running } else { binary }, target)?;
        let put = if is_there { Ok(()) } else { exchange(&copy, target) };
        // `copy` is the old one by now.
        put.and_then(|()| std::fs::rename(&copy, &placed.previous)).inspect_err(|_| _ = std::fs::remove_file(&copy))?;
        sync_folder(target);
        Ok(placed)
    }

    /// Where the old one is.
    pub(super) fn previous(&self) -> &Path {
        &self.previous
    }

    /// Puts the old one back in one step; the new one goes.
    ///
    /// # Errors
    /// The folder can't be written.
    pub(super) fn take_back(&self) -> io::Result<()> {
        exchange(&self.previous, &self.target)?;
        let _ = std::fs::remove_file(&self.previous); // it is only in the way
        sync_folder(&self.target);
        Ok(())
    }
}

/// A whole copy in the same folder, on the disk.
fn copy_beside(from: &Path, target: &Path) -> io::Result<PathBuf> {
    let path = target.with_file_name(format!(".{}", new_id("tmp")));
    let copy = || {
        let mut source = File::open(from)?;
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        io::copy(&mut source, &mut file)?;
        file.set_permissions(std::fs::Permissions::from_mode(source.metadata()?.permissions().mode() & 0o777))?;
        file.sync_all()
    };
    copy().inspect_err(|_| _ = std::fs::remove_file(&path))?;
    Ok(path)
}

/// Each takes the other's place: whoever started the old one finds it under its new name. Where a file system can't do
/// that, nothing lies at `b` for a moment.
fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    match renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            let aside = b.with_file_name(format!(".{}", new_id("tmp")));
            std::fs::rename(b, &aside)?;
            std::fs::rename(a, b)?;
            std::fs::rename(&aside, a)
        }
        exchanged => exchanged.map_err(io::Error::from),
    }
}

/// Names that a crash of the machine doesn't take back.
fn sync_folder(path: &Path) {
    let folder = path.parent().map(File::open);
    if let Some(Ok(folder)) = folder {
        let _ = folder.sync_all(); // they are right for everybody but a crash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_one_lies_beside_and_comes_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let read = |name: &str| std::fs::read_to_string(path(name)).expect("a file");
        std::fs::write(path("program"), "old").expect("written");
        std::fs::write(path("new"), "new").expect("written");
        std::fs::set_permissions(path("new"), std::fs::Permissions::from_mode(0o755)).expect("executable");
        let placed = Placed::put(&path("new"), &path("program"), &path("none")).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((read("program"), read("program.previous"), read("new")), ("new".into(), "old".into(), "new".into()));
        assert_eq!(path("program").metadata().expect("it is there").permissions().mode() & 0o777, 0o755);
        placed.take_back().expect("it comes back");
        assert_eq!(read("program"), "old");
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 2, "nothing else is left");
    }

    #[test]
    fn what_was_replaced_already_is_copied_from_what_runs() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("program"), "new").expect("written");
        std::fs::write(path("running"), "old").expect("written");
        let placed = Placed::put(&path("program"), &path("program"), &path("running")).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(std::fs::read_to_string(placed.previous()).expect("a file"), "old");
        placed.take_back().expect("it comes back");
        assert_eq!(std::fs::read_to_string(path("program")).expect("a file"), "old");
    }
}
