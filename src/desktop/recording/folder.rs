//! Recordings on the disk: what a server that starts finds, and numbers that are never used twice. Everything here blocks.
//!
//! ```text
//! rec_N.mp4         the video; locked (flock(2)) by the server that writes it
//! rec_N.json        what is told of it
//! rec_N.png         its first frame
//! recordings.json   the highest number that was ever given
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::types::{EndReason, Recording, RecordingStatus};
use crate::rt::clock::rfc3339;
use crate::rt::files::{read_bounded, write_atomically};

/// What is told of one recording is far shorter.
const NOTE_MAX_BYTES: u64 = 64 * 1024;
/// Whoever may look into the directory may read.
const MODE: u32 = 0o644;

/// Where recordings lie.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Folder(pub(super) PathBuf);

/// What lies there.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The highest number that was ever given.
    pub(super) last: u64,
    pub(super) recordings: Vec<(u64, Recording)>,
    /// Those of them whose server was killed.
    pub(super) repaired: Vec<u64>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Numbers {
    last: u64,
}

impl Folder {
    pub(super) fn video(&self, number: u64) -> PathBuf {
        self.0.join(file_name(number))
    }

    pub(super) fn poster(&self, number: u64) -> PathBuf {
        self.0.join(format!("rec_{number}.png"))
    }

    fn note_path(&self, number: u64) -> PathBuf {
        self.0.join(format!("rec_{number}.json"))
    }

    fn numbers_path(&self) -> PathBuf {
        self.0.join("recordings.json")
    }

    /// Makes the next file, which nobody else has, and locks it.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn create(&self, after: u64) -> io::Result<(u64, File)> {
        fs::create_dir_all(&self.0)?;
        let mut number = after.max(self.numbers().last) + 1;
        loop {
            match OpenOptions::new().read(true).write(true).create_new(true).open(self.video(number)) {
                // another server's, that uses the same directory
                Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(error),
                Ok(file) => {
                    file.lock()?;
                    let numbers = serde_json::to_vec(&Numbers { last: number })?;
                    write_atomically(&self.numbers_path(), &numbers, MODE)?;
                    return Ok((number, file));
                }
            }
        }
    }

    fn numbers(&self) -> Numbers {
        let text = read_bounded(&self.numbers_path(), NOTE_MAX_BYTES).ok();
        text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }

    /// Writes down what is told of it.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn note(&self, number: u64, recording: &Recording) -> io::Result<()> {
        write_atomically(&self.note_path(number), &serde_json::to_vec(recording)?, MODE)
    }

    /// Removes all of it; what isn't there is no matter.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn remove(&self, number: u64) -> io::Result<()> {
        // The video first: a note that is left names a file that is gone, and can be deleted again.
        for path in [self.video(number), self.poster(number), self.note_path(number)] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Looks what is there, and makes whole what a killed server left. What another server records just now is left out.
    pub(super) fn read(&self) -> Found {
        let mut found = Found { last: self.numbers().last, ..Found::default() };
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        let mut numbers: Vec<u64> = entries.filter_map(|entry| number_of(Path::new(&entry.file_name()))).collect();
        numbers.sort_unstable();
        numbers.dedup();
        found.last = found.last.max(numbers.last().copied().unwrap_or(0));
        for number in numbers {
            if is_being_written(&self.video(number)) {
                tracing::info!(number, "another server is recording this");
                continue;
            }
            let text = read_bounded(&self.note_path(number), NOTE_MAX_BYTES).ok();
            let noted = text.and_then(|text| serde_json::from_str::<Recording>(&text).ok());
            match noted.unwrap_or_else(|| self.unknown(number)) {
                recording if recording.status == RecordingStatus::Recording => {
                    found.recordings.push((number, self.repaired(number, recording)));
                    found.repaired.push(number);
                }
                recording => found.recordings.push((number, recording)),
            }
        }
        found
    }

    /// A video without a note: of another program, or of a server that was killed before it wrote one.
    fn unknown(&self, number: u64) -> Recording {
        let path = self.video(number);
        let (bytes, changed_at) = fs::metadata(&path).map_or((0, 0), |file| (file.len(), changed_at_ms(&file)));
        let info = screen_video::inspect(&path);
        let is_others = matches!(info, Err(screen_video::Error::Mp4(_) | screen_video::Error::Stream(_))) && bytes > 0;
        let (status, info) = match info {
            Ok(info) => (RecordingStatus::Completed, Some(info)),
            Err(_) if is_others => (RecordingStatus::Completed, None),
            Err(_) => (RecordingStatus::Failed, None),
        };
        let ended_at = rfc3339(changed_at);
        Recording {
            id: id(number),
            status,
            file_name: file_name(number),
            bytes,
            started_at: ended_at.clone(),
            ended_at: Some(ended_at),
            duration_ms: info.map_or(0, |info| millis(info.duration)),
            width: info.map(|info| info.size.0),
            height: info.map(|info| info.size.1),
            fps: None,
            paused: false,
            reason: None,
        }
    }

    /// It ended with its server.
    fn repaired(&self, number: u64, recording: Recording) -> Recording {
        let path = self.video(number);
        let changed_at = fs::metadata(&path).ok().map(|file| rfc3339(changed_at_ms(&file)));
        let repaired = screen_video::repair(&path);
        let (status, bytes, duration_ms) = match &repaired {
            Ok(info) => (RecordingStatus::Completed, info.bytes, millis(info.duration)),
            Err(error) => {
                tracing::warn!(%error, number, "a recording of the last server can't be played");
                (RecordingStatus::Failed, fs::metadata(&path).map_or(0, |file| file.len()), 0)
            }
        };
        let ended_at = changed_at.or_else(|| Some(recording.started_at.clone()));
        let reason = Some(EndReason::ServerRestarted);
        let recording = Recording { status, bytes, duration_ms, ended_at, reason, paused: false, ..recording };
        if let Err(error) = self.note(number, &recording) {
            tracing::warn!(%error, number, "what became of a recording could not be written down");
        }
        recording
    }
}

/// `rec_<n>`.
pub(super) fn id(number: u64) -> String {
    format!("rec_{number}")
}

fn file_name(number: u64) -> String {
    format!("rec_{number}.mp4")
}

/// The number of an id, written as we write it.
pub(super) fn number_of_id(text: &str) -> Option<u64> {
    let number = text.strip_prefix("rec_")?.parse().ok()?;
    (id(number) == text).then_some(number)
}

/// Of a video or a note.
fn number_of(name: &Path) -> Option<u64> {
    let extension = name.extension()?;
    (extension == "mp4" || extension == "json").then(|| number_of_id(name.file_stem()?.to_str()?))?
}

fn is_being_written(path: &Path) -> bool {
    // Opening it for reading doesn't change it; the lock goes with the file.
    File::open(path).is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

fn changed_at_ms(file: &fs::Metadata) -> i64 {
    let since = file.modified().unwrap_or(SystemTime::UNIX_EPOCH).duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().expect("a directory");
        let folder = Folder(dir.path().join("recordings"));
        (dir, folder)
    }

    #[test]
    fn numbers_are_never_given_twice() {
        let (_dir, folder) = folder();
        assert_eq!(folder.read().last, 0);
        let (first, _) = folder.create(0).expect("made");
        let (second, _) = folder.create(0).expect("made");
        assert_eq!((first, second), (1, 2));
        folder.remove(2).expect("removed");
        folder.remove(2).expect("nothing there");
        assert_eq!(folder.read().last, 2);
        assert_eq!(folder.create(0).expect("made").0, 3);
        fs::remove_file(folder.numbers_path()).expect("removed");
        assert_eq!(folder.create(0).expect("made").0, 2, "a lost count goes on with the first free name");
        assert_eq!(folder.create(6).expect("made").0, 7);
    }

    #[test]
    fn what_another_server_records_is_left_alone() {
        let (_dir, folder) = folder();
        let (number, file) = folder.create(0).expect("made");
        let note = Recording { status: RecordingStatus::Recording, ..folder.unknown(number) };
        folder.note(number, &note).expect("noted");
        assert!(folder.read().recordings.is_empty());
        drop(file);
        let found = folder.read();
        assert_eq!(found.repaired, [1]);
        let (_, recording) = found.recordings.first().expect("one");
        assert_eq!((recording.status, recording.reason), (RecordingStatus::Failed, Some(EndReason::ServerRestarted)));
        assert!(folder.read().repaired.is_empty(), "once");
    }

    #[test]
    fn files_of_others_are_listed() {
        let (_dir, folder) = folder();
        fs::create_dir_all(&folder.0).expect("made");
        fs::write(folder.0.join("rec_4.mp4"), b"\0\0\0\x08freemore").expect("written");
        fs::write(folder.0.join("rec_05.mp4"), b"x").expect("written");
        fs::write(folder.0.join("holiday.mp4"), b"x").expect("written");
        let found = folder.read();
        assert_eq!(found.last, 4);
        let all: Vec<_> = found.recordings.iter().map(|(number, recording)| (*number, recording.status)).collect();
        assert_eq!(all, [(4, RecordingStatus::Completed)]);
    }
}
