//! What lies beside the database: files that were set aside, and a whole one that is about to take its place.
//!
//! A swap is a chain of renames, and a kill may cut it anywhere: `<db>.next-<kind>-<time>` is whole → what is there goes to
//! `<db>.<kind>-<time>`, its WAL first, for it must never meet another database → the new file becomes `<db>`. As long
//! as the first name exists, [`finish`] goes on where it was cut. Whoever swaps holds the lock.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use time::OffsetDateTime;

/// Why a file was set aside, as its name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It was damaged.
    Damaged,
    /// Another one was put in its place.
    BeforeRestore,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::BeforeRestore => "before-restore",
        }
    }
}

/// SQLite's files beside a database, in the order in which they go: without its WAL a database is old, a WAL with
/// another database destroys that.
const BESIDE: [&str; 2] = ["-wal", "-shm"];

/// `path` with more at its end.
pub(super) fn with(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    PathBuf::from(name)
}

/// Unix milliseconds as names have them: `20261121T200454Z`.
pub fn time_in_names(at_ms: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(at_ms / 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (year, month, day) = (time.year(), u8::from(time.month()), time.day());
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", time.hour(), time.minute(), time.second())
}

/// A name beside `path` that nothing has yet.
pub(super) fn free_name(path: &Path, kind: Kind, at_ms: i64) -> PathBuf {
    let name = format!(".{}-{}", kind.word(), time_in_names(at_ms));
    let tries = (1..).map(|try_number| if try_number == 1 { name.clone() } else { format!("{name}.{try_number}") });
    let mut free = tries
        .map(|end| with(path, &end))
        .filter(|candidate| ["", "-wal", "-shm"].iter().all(|end| std::fs::symlink_metadata(with(candidate, end)).is_err()));
    free.next().unwrap_or_else(|| with(path, &name)) // there are more numbers than files
}

/// Puts `new`, a whole database that is on the disk, in the place of `path`. What is there now goes to `aside`, a
/// [`free_name`].
pub(super) fn swap(path: &Path, new: &Path, aside: &Path) -> io::Result<()> {
    let suffix = aside.as_os_str().as_encoded_bytes().strip_prefix(path.as_os_str().as_encoded_bytes());
    let suffix = suffix.and_then(|suffix| std::str::from_utf8(suffix).ok()).and_then(|suffix| suffix.strip_prefix('.'));
    let suffix = suffix.ok_or_else(|| io::Error::other("it isn't beside the database"))?;
    std::fs::rename(new, with(path, &format!(".next-{suffix}")))?;
    sync_folder(path)?;
    finish(path)
}

/// Goes on with a swap that was cut.
pub(super) fn finish(path: &Path) -> io::Result<()> {
    for (next, suffix) in named(path, ".next-")? {
        let aside = with(path, &format!(".{suffix}"));
        for end in BESIDE.into_iter().chain([""]) {
            rename_if_there(&with(path, end), &with(&aside, end))?;
        }
        sync_folder(path)?;
        std::fs::rename(next, path)?;
        sync_folder(path)?;
    }
    Ok(())
}

/// Sets aside a write-ahead log that SQLite would silently take for an empty one, and gives its new name. A torn end is
/// no damage: that commit was never finished.
pub(super) fn take_garbled_wal(path: &Path, at_ms: i64) -> io::Result<Option<PathBuf>> {
    let wal = with(path, "-wal");
    let mut header = [0; 32];
    match File::open(&wal).and_then(|mut file| file.read_exact(&mut header)) {
        Ok(()) if !is_wal_header(&header) => {}
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => return Err(error),
        _ => return Ok(None), // there is none, it is empty, or it is whole
    }
    let aside = with(&free_name(path, Kind::Damaged, at_ms), "-wal");
    std::fs::rename(&wal, &aside)?;
    match std::fs::remove_file(with(path, "-shm")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => sync_folder(path)?,
    }
    Ok(Some(aside))
}

/// The first 32 bytes of a write-ahead log (SQLite's file format, 4.1): a magic number whose last bit says in which order
/// bytes are summed up, and the sum of the first 24.
fn is_wal_header(header: &[u8; 32]) -> bool {
    let bytes = |at: usize| [header[at], header[at + 1], header[at + 2], header[at + 3]];
    let magic = u32::from_be_bytes(bytes(0));
    let word = |at| if magic & 1 == 1 { u32::from_be_bytes(bytes(at)) } else { u32::from_le_bytes(bytes(at)) };
    let (mut first, mut second) = (0_u32, 0_u32);
    for at in (0..24).step_by(8) {
        first = first.wrapping_add(word(at)).wrapping_add(second);
        second = second.wrapping_add(word(at + 4)).wrapping_add(first);
    }
    magic & !1 == 0x377f_0682 && [first, second] == [u32::from_be_bytes(bytes(24)), u32::from_be_bytes(bytes(28))]
}

/// Removes what was set aside beyond `keep`: the first stays, for it may hold the most, and the newest; those between go.
pub(super) fn prune(path: &Path, kind: Kind, keep: usize) -> io::Result<()> {
    let mut sets: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for (file, end) in named(path, &format!(".{}-", kind.word()))? {
        let set = BESIDE.iter().find_map(|beside| end.strip_suffix(beside)).unwrap_or(&end);
        sets.entry(set.to_owned()).or_default().push(file);
    }
    let too_many = sets.len().saturating_sub(keep.max(1));
    let skip = usize::from(keep > 1);
    for file in sets.into_values().skip(skip).take(too_many).flatten() {
        tracing::warn!(path = %file.display(), "removed: too many files were set aside (store_aside_max)");
        std::fs::remove_file(file)?;
    }
    Ok(())
}

/// Files beside `path` whose name is that of the database and `middle`, with the rest of the name.
fn named(path: &Path, middle: &str) -> io::Result<Vec<(PathBuf, String)>> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(Vec::new());
    };
    let start = format!("{name}{middle}");
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if let Some(end) = entry.file_name().to_str().and_then(|name| name.strip_prefix(&start)) {
            found.push((entry.path(), end.to_owned()));
        }
    }
    Ok(found)
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Renames are kept by the folder.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).expect("a folder").flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        names
    }

    fn put(folder: &Path, names: &[&str]) {
        names.iter().for_each(|name| std::fs::write(folder.join(name), name).expect("written"));
    }

    #[test]
    fn a_swap_that_was_cut_anywhere_goes_on() {
        let steps = ["db-wal", "db-shm", "db"];
        for done in 0..=steps.len() {
            let folder = tempfile::tempdir().expect("a folder");
            put(folder.path(), &["db.next-damaged-1"]);
            put(folder.path(), &steps[done..]);
            for step in &steps[..done] {
                let aside = step.replace("db", "db.damaged-1");
                std::fs::write(folder.path().join(aside), step).expect("written");
            }
            finish(&folder.path().join("db")).expect("finished");
            finish(&folder.path().join("db")).expect("nothing more to do");
            let wanted = ["db", "db.damaged-1", "db.damaged-1-shm", "db.damaged-1-wal"];
            assert_eq!(names(folder.path()), wanted, "after {done} steps");
            assert_eq!(std::fs::read(folder.path().join("db")).expect("read"), b"db.next-damaged-1");
            assert_eq!(std::fs::read(folder.path().join("db.damaged-1-wal")).expect("read"), b"db-wal");
        }
    }

    #[test]
    fn no_earlier_file_is_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("db");
        let first = free_name(&path, Kind::Damaged, 1_795_291_494_000);
        assert_eq!(first, folder.path().join("db.damaged-20261121T200454Z"));
        put(folder.path(), &["db.damaged-20261121T200454Z-wal"]);
        assert_eq!(free_name(&path, Kind::Damaged, 1_795_291_494_000), with(&first, ".2"));
    }

    #[test]
    fn the_first_and_the_newest_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        put(folder.path(), &["db", "db.damaged-1", "db.damaged-1-wal", "db.damaged-2", "db.damaged-2-shm", "db.damaged-3"]);
        put(folder.path(), &["db.damaged-4-wal", "db.before-restore-1"]);
        prune(&folder.path().join("db"), Kind::Damaged, 2).expect("pruned");
        let wanted = ["db", "db.before-restore-1", "db.damaged-1", "db.damaged-1-wal", "db.damaged-4-wal"];
        assert_eq!(names(folder.path()), wanted);
        prune(&folder.path().join("db"), Kind::Damaged, 1).expect("pruned");
        assert_eq!(names(folder.path()), ["db", "db.before-restore-1", "db.damaged-4-wal"]);
    }

    #[test]
    fn only_a_garbled_wal_is_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("db");
        let connection = rusqlite::Connection::open(&path).expect("a database");
        connection.pragma_update(None, "journal_mode", "wal").expect("set");
        connection.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").expect("written");
        assert_eq!(take_garbled_wal(&path, 0).expect("looked at"), None, "a real one");
        let mut bytes = std::fs::read(with(&path, "-wal")).expect("read");
        bytes[17] ^= 1;
        std::fs::write(with(&path, "-wal"), bytes).expect("written");
        let aside = take_garbled_wal(&path, 0).expect("looked at").expect("taken");
        assert!(aside.exists() && !with(&path, "-wal").exists() && !with(&path, "-shm").exists());
        std::fs::write(with(&path, "-wal"), b"").expect("written");
        assert_eq!(take_garbled_wal(&path, 0).expect("looked at"), None, "an empty one");
    }
}
