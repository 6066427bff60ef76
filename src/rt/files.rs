//! Small file operations that must not leave halves behind.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::rt::ids::new_id;

/// A new hidden name beside `path`.
fn beside(path: &Path) -> PathBuf {
    path.with_file_name(format!(".{}", new_id("tmp")))
}

/// Writes a file so that readers see the old content or the new, never a part; `mode` holds whatever the umask.
pub fn write_atomically(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let temporary = beside(path);
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().inspect_err(|_| drop(std::fs::remove_file(&temporary)))
}

/// Makes `path` a symbolic link to `target`, replacing what was there in one step.
pub fn link_atomically(path: &Path, target: &Path) -> io::Result<()> {
    let temporary = beside(path);
    std::os::unix::fs::symlink(target, &temporary)?;
    std::fs::rename(&temporary, path).inspect_err(|_| drop(std::fs::remove_file(&temporary)))
}

/// The content of a regular file of at most `max_bytes`.
pub fn read_bounded(path: &Path, max_bytes: u64) -> io::Result<String> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")); // a FIFO would block
    }
    let mut text = String::new();
    File::open(path)?.take(max_bytes + 1).read_to_string(&mut text)?;
    if text.len() as u64 > max_bytes {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {max_bytes} bytes")));
    }
    Ok(text)
}

/// True for a regular file that this process may execute.
pub fn is_executable(path: &Path) -> bool {
    path.is_file() && nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok()
}

/// The first executable called `name` in `dirs`; an absolute `name` is taken as it is.
pub fn find_executable(name: &str, dirs: &[PathBuf]) -> Option<PathBuf> {
    if name.starts_with('/') {
        return Some(PathBuf::from(name)).filter(|path| is_executable(path));
    }
    dirs.iter().map(|dir| dir.join(name)).find(|path| is_executable(path))
}
