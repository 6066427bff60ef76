//! The desktop's directory: the home of all that runs in it, its log, its recordings.
//!
//! ```text
//! desktop-runtime.log   what happened, one line an event
//! session.json          which processes it is made of, for a server that takes it up
//! lease.json            who has it
//! backdrop.json, backdrop.picture, displays.json   what its screen is like
//! bus-N, run-N/         sockets of D-Bus, of the accessibility bus
//! home/                 HOME of everything in the desktop
//! recordings/rec_N.mp4
//! ```

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::types::StartSpec;
use crate::config::Env;
use crate::rt::clock::{now_ms, rfc3339};

/// Files that are put into the home unless there are such.
const DEFAULTS: &[(&str, &str)] = &[
    (".config/openbox/rc.xml", include_str!("../../desktop/rc.xml")),
    (".config/openbox/menu.xml", include_str!("../../desktop/menu.xml")),
    (".Xdefaults", include_str!("../../desktop/Xdefaults")),
    (".config/gtk-3.0/settings.ini", include_str!("../../desktop/gtk-settings.ini")),
];

/// Where the session is remembered.
const SESSION: &str = "session.json";

/// The log is begun anew when it is longer.
const LOG_MAX_BYTES: u64 = 1024 * 1024;

/// Where a D-Bus daemon can listen: a path is at most 107 bytes (unix(7)).
const SOCKET_PATH_MAX_BYTES: usize = 107;

/// The directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Home {
    dir: PathBuf,
}

/// What a server has to know to go on with the desktop of the one before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Remembered {
    pub(super) display: u32,
    pub(super) spec: StartSpec,
    pub(super) started_at_ms: i64,
    pub(super) restarts: u64,
    /// Ids in `/v1/processes`, by what they are.
    pub(super) processes: Vec<(String, String)>,
    pub(super) bus: Option<String>,
}

impl Home {
    /// The usual place: `$XDG_STATE_HOME/sandbox-agent/desktop`, where users have their settings.
    pub(super) fn usual(env: &Env) -> Option<Self> {
        let state = env.path("XDG_STATE_HOME").filter(|path| path.is_absolute());
        let below_home = || Some(env.path("HOME").filter(|path| path.is_absolute())?.join(".local/state"));
        Some(Self { dir: state.or_else(below_home)?.join("sandbox-agent/desktop") })
    }

    pub(super) fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub(super) fn home(&self) -> PathBuf {
        self.dir.join("home")
    }

    pub(super) fn recordings(&self) -> PathBuf {
        self.dir.join("recordings")
    }

    pub(super) fn log_path(&self) -> PathBuf {
        self.dir.join("desktop-runtime.log")
    }

    /// A file of the directory.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The socket of the D-Bus session of this display.
    pub(super) fn bus(&self, display: u32) -> PathBuf {
        let usual = self.dir.join(format!("bus-{display}"));
        if usual.as_os_str().len() <= SOCKET_PATH_MAX_BYTES {
            usual
        } else {
            PathBuf::from(format!("/tmp/.sandboxd-bus-{display}"))
        }
    }

    /// A directory for sockets of the session on this display, made if it isn't there. Blocks.
    ///
    /// # Errors
    /// It can't be made.
    pub(super) fn runtime(&self, display: u32) -> io::Result<PathBuf> {
        const LONGEST: &str = "at-spi/bus_99999_0";
        let usual = self.dir.join(format!("run-{display}"));
        let fits = usual.join(LONGEST).as_os_str().len() <= SOCKET_PATH_MAX_BYTES;
        let dir = if fits { usual } else { PathBuf::from(format!("/tmp/.sandboxd-run-{display}")) };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        Ok(dir)
    }

    /// Makes what isn't there. Blocks.
    ///
    /// # Errors
    /// A directory can't be made. A default file that can't be written is only missed.
    pub(super) fn prepare(&self) -> io::Result<()> {
        fs::create_dir_all(self.recordings())?;
        for (name, text) in DEFAULTS {
            let path = self.home().join(name);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            let new = fs::OpenOptions::new().write(true).create_new(true).open(&path);
            match new.and_then(|mut file| file.write_all(text.as_bytes())) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    tracing::warn!(path = %path.display(), %error, "a default of the desktop could not be written");
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What is started with the desktop, where its user has put something there.
    pub(super) fn autostart(&self) -> Option<PathBuf> {
        Some(self.home().join(".config/openbox/autostart")).filter(|path| path.is_file())
    }

    /// Writes a line into the log. Blocks; a disk that refuses is no matter.
    pub(super) fn log(&self, what: &str) {
        let path = self.log_path();
        if fs::metadata(&path).is_ok_and(|file| file.len() > LOG_MAX_BYTES) {
            let _ = fs::rename(&path, path.with_extension("log.old"));
        }
        let line = format!("{} {what}\n", rfc3339(now_ms()));
        let file = fs::OpenOptions::new().append(true).create(true).open(&path);
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }

    /// What the last server left. Blocks.
    pub(super) fn remembered(&self) -> Option<Remembered> {
        self.kept(SESSION)
    }

    /// Blocks.
    pub(super) fn remember(&self, session: Option<&Remembered>) {
        self.keep(SESSION, session);
    }

    /// What was kept in this file, as far as it can be read. Blocks.
    pub(super) fn kept<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_slice(&fs::read(self.dir.join(name)).ok()?).ok()
    }

    /// Keeps it in a file of the directory, or removes that. Blocks.
    pub(super) fn keep<T: Serialize>(&self, name: &str, what: Option<&T>) {
        let path = self.dir.join(name);
        let written = match what {
            None => fs::remove_file(&path),
            Some(what) => self.place(name, &serde_json::to_vec(what).unwrap_or_default()),
        };
        if let Err(error) = written.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }) {
            tracing::warn!(path = %path.display(), %error, "not kept: the desktop will not have it after a restart");
        }
    }

    /// The same for what nobody else may read. Blocks.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn place_secret(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let (path, new) = (self.dir.join(name), self.dir.join(format!("{name}.new")));
        let _ = fs::remove_file(&new); // of a server that was killed
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(bytes).and_then(|()| fs::rename(&new, &path))
    }

    /// Puts a file into the directory, all or nothing. Blocks.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn place(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let (path, new) = (self.dir.join(name), self.dir.join(format!("{name}.new")));
        fs::write(&new, bytes).and_then(|()| fs::rename(&new, &path))
    }
}

/// Whether nobody has this display, as far as files and a connect tell. Blocks.
pub(super) fn is_free(display: u32) -> bool {
    let socket = PathBuf::from(format!("/tmp/.X11-unix/X{display}"));
    if std::os::unix::net::UnixStream::connect(&socket).is_ok() {
        return false;
    }
    let lock = PathBuf::from(format!("/tmp/.X{display}-lock"));
    let owner = fs::read_to_string(&lock).ok().and_then(|text| text.trim().parse::<u32>().ok());
    let is_held = owner.is_some_and(|pid| Path::new(&format!("/proc/{pid}")).exists());
    // A socket that nobody listens on was left by a server that was killed: Xvfb takes it over itself.
    !is_held
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_written_once_and_never_over_a_users() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = Home::at(dir.path().to_path_buf());
        fs::create_dir_all(home.home().join(".config/openbox")).expect("made");
        fs::write(home.home().join(".config/openbox/rc.xml"), "mine").expect("written");
        home.prepare().expect("prepared");
        home.prepare().expect("again");
        assert_eq!(fs::read_to_string(home.home().join(".config/openbox/rc.xml")).expect("read"), "mine");
        assert!(home.home().join(".Xdefaults").is_file());
        assert_eq!(home.autostart(), None);
    }

    #[test]
    fn what_is_remembered_comes_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = Home::at(dir.path().to_path_buf());
        home.prepare().expect("prepared");
        assert_eq!(home.remembered(), None);
        let session = Remembered {
            display: 99,
            spec: StartSpec { width: Some(800), ..StartSpec::default() },
            started_at_ms: 5,
            restarts: 1,
            processes: vec![("Xvfb".into(), "proc_1".into())],
            bus: None,
        };
        home.remember(Some(&session));
        assert_eq!(home.remembered(), Some(session));
        home.remember(None);
        home.remember(None);
        assert_eq!(home.remembered(), None);
    }

    #[test]
    fn usual_places() {
        let at = |pairs: &[(&str, &str)]| Home::usual(&Env::from_pairs(pairs.iter().copied())).map(|home| home.dir);
        assert_eq!(at(&[("HOME", "/h")]), Some("/h/.local/state/sandbox-agent/desktop".into()));
        assert_eq!(at(&[("HOME", "/h"), ("XDG_STATE_HOME", "/s")]), Some("/s/sandbox-agent/desktop".into()));
        assert_eq!(at(&[("HOME", "relative")]), None);
        let dir = tempfile::tempdir().expect("a directory");
        let runtime = Home::at(dir.path().into()).runtime(7).expect("made");
        assert!(runtime.starts_with(dir.path()) && runtime.is_dir());
        assert!(Home::at("/x".repeat(80).into()).bus(7).starts_with("/tmp"));
    }
}
