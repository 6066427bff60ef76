//! Selections: what was cut and copied (ICCCM 2.0 §2; XFIXES 5 tells of new owners).
//!
//! A selection's content stays with the program that owns it, which hands it out piece by piece and when it likes. So this has
//! a connection and a thread of its own, and whoever waits for a slow owner holds up nobody else.
//!
//! ```text
//! nobody's ──▶ ours (set) ◀──▶ theirs (they take it; we fetch what we can keep)
//!                   ▲              │
//!                   └── owner dies ┘   with what was fetched
//! ```

mod fetch;
mod keep;
mod offer;
mod owners;
mod route;
mod serve;
mod task;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use crate::text::{Decoded, Encoding, decode};
use crate::{Error, Result};

use task::{Command, Task};

/// Of the content of another program's selection, what is kept for when it ends.
pub const KEPT_BYTES: usize = 16 << 20;
/// Targets that one selection can be given.
pub const MAX_TARGETS: usize = 64;
/// Length of a target's name.
pub const MAX_TARGET_BYTES: usize = 256;
/// Calls that wait for the thread.
const MAX_COMMANDS: usize = 64;

/// A place that holds content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Selection {
    /// What was copied.
    Clipboard,
    /// What is marked.
    Primary,
}

/// In which form content is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Text, in the encoding that loses least.
    Text,
    /// A target by its name: `image/png`, `text/html`, `text/uri-list`, `UTF8_STRING`.
    Named(String),
}

/// What a selection has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The target that gave it.
    pub target: String,
    /// As its owner gave it.
    pub bytes: Arc<[u8]>,
    /// Of the text; `None` when it is none.
    pub encoding: Option<Encoding>,
}

/// What the clipboard may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of one content that is set or got.
    pub content_bytes: usize,
    /// In each direction at once; more are refused.
    pub transfers: usize,
    /// For one transfer, from its start to its end.
    pub transfer_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { content_bytes: 64 << 20, transfers: 32, transfer_time: Duration::from_secs(60) }
    }
}

/// Takes an answer, on the clipboard's thread: it must not block. Dropped without being called when that thread ends before.
pub type Reply<T> = Box<dyn FnOnce(Result<T>) + Send>;

/// Is told on the clipboard's thread that a selection has other content, and how often it had; it must not block.
pub type OnChange = Box<dyn Fn(Selection, u64) + Send>;

/// Our part in the selections of a display. Dropping it closes its connection, and what it owned is gone; it waits for the
/// thread, which waits for nobody but the X server.
pub struct Clipboard {
    commands: SyncSender<Command>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    changes: Changes,
}

/// One for each [`Selection`].
pub(crate) type Changes = Arc<[AtomicU64; 2]>;

impl Content {
    /// The text; `None` when it is something else.
    pub fn text(&self) -> Option<Decoded> {
        self.encoding.map(|encoding| decode(&self.bytes, encoding))
    }
}

impl Clipboard {
    /// Connects to `:N` or `host:N`; `None` takes `DISPLAY`.
    ///
    /// # Errors
    /// Nobody answers there, or XFIXES is missing.
    pub fn open(display: Option<&str>, limits: Limits, on_change: OnChange) -> Result<Self> {
        let (commands, inbox) = sync_channel(MAX_COMMANDS);
        let refused = |errno: rustix::io::Errno| Error::Refused(format!("eventfd: {errno}"));
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(refused)?);
        let changes = Changes::default();
        let task = Task::open(display, limits, inbox, Arc::clone(&wake), Arc::clone(&changes), on_change)?;
        let thread = std::thread::Builder::new().name("clipboard".into()).spawn(move || task.run());
        let thread = Some(thread.map_err(|error| Error::Refused(error.to_string()))?);
        Ok(Self { commands, wake, thread, changes })
    }

    /// Gives `selections` this content, by target; nothing empties them. Text that is given as `UTF8_STRING` or `text/plain` is
    /// also there under text's other names.
    ///
    /// # Errors
    /// [`Error::TooLarge`]; [`Error::Invalid`] for too many targets or a name that can't be one; [`Error::Gone`].
    pub fn set(&self, selections: &[Selection], content: Vec<(String, Vec<u8>)>) -> Result<()> {
        self.wait(|reply| self.begin_set(selections, content, reply))
    }

    /// What `selection` has for `target`; `None` when nobody owns it or its owner hasn't that. Blocks up to `timeout`.
    ///
    /// # Errors
    /// [`Error::TimedOut`] when the owner is too slow; [`Error::TooLarge`]; [`Error::Refused`] when too much is under way;
    /// [`Error::Gone`].
    pub fn get(&self, selection: Selection, target: Target, timeout: Duration) -> Result<Option<Content>> {
        self.wait(|reply| self.begin_get(selection, target, timeout, reply))
    }

    /// What `selection` can be got as; nothing when nobody owns it, or its owner doesn't say. Blocks up to `timeout`.
    ///
    /// # Errors
    /// As [`Clipboard::get`].
    pub fn targets(&self, selection: Selection, timeout: Duration) -> Result<Vec<String>> {
        self.wait(|reply| self.begin_targets(selection, timeout, reply))
    }

    /// How often a selection had other content since this was opened.
    pub fn changes(&self, selection: Selection) -> u64 {
        self.changes[selection.index()].load(Ordering::Acquire)
    }

    /// As [`Clipboard::set`], without waiting.
    ///
    /// # Errors
    /// As [`Clipboard::set`], when it is known at once; then `reply` isn't called.
    pub fn begin_set(&self, selections: &[Selection], content: Vec<(String, Vec<u8>)>, reply: Reply<()>) -> Result<()> {
        if content.len() > MAX_TARGETS {
            return Err(Error::Invalid(format!("{} targets are more than {MAX_TARGETS}", content.len())));
        }
        content.iter().try_for_each(|(name, _)| check_name(name))?;
        self.send(Command::Set { selections: selections.to_vec(), content, reply })
    }

    /// As [`Clipboard::get`], without waiting.
    ///
    /// # Errors
    /// As [`Clipboard::begin_set`].
    pub fn begin_get(
        &self,
        selection: Selection,
        target: Target,
        timeout: Duration,
        reply: Reply<Option<Content>>,
    ) -> Result<()> {
        if let Target::Named(name) = &target {
            check_name(name)?;
        }
        self.send(Command::Get { selection, target, deadline: Deadline::after(timeout), reply })
    }

    /// As [`Clipboard::targets`], without waiting.
    ///
    /// # Errors
    /// As [`Clipboard::begin_set`].
    pub fn begin_targets(&self, selection: Selection, timeout: Duration, reply: Reply<Vec<String>>) -> Result<()> {
        self.send(Command::Targets { selection, deadline: Deadline::after(timeout), reply })
    }

    fn wait<T: Send + 'static>(&self, begin: impl FnOnce(Reply<T>) -> Result<()>) -> Result<T> {
        let (answer, inbox) = sync_channel(1);
        begin(Box::new(move |result| drop(answer.try_send(result))))?;
        inbox.recv().unwrap_or_else(|_| Err(gone()))
    }

    fn send(&self, command: Command) -> Result<()> {
        self.commands.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => Error::Refused("the clipboard has too much to do".into()),
            TrySendError::Disconnected(_) => gone(),
        })?;
        self.wake();
        Ok(())
    }

    fn wake(&self) {
        // Full is as good: it wakes.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }
}

impl Drop for Clipboard {
    fn drop(&mut self) {
        // The thread ends when nobody can send to it any more.
        self.commands = sync_channel(1).0;
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Until when somebody waits, and what they asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    at: Instant,
    timeout: Duration,
}

impl Deadline {
    fn after(timeout: Duration) -> Self {
        Self { at: Instant::now() + timeout, timeout }
    }

    fn missed(self) -> Error {
        let timeout_ms = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
        Error::TimedOut { what: "the program that owns the selection", timeout_ms }
    }
}

impl Selection {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::Clipboard, Self::Primary];

    fn index(self) -> usize {
        self as usize
    }
}

fn check_name(name: &str) -> Result<()> {
    let is_right =
        !name.is_empty() && name.len() <= MAX_TARGET_BYTES && name.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if is_right { Ok(()) } else { Err(Error::Invalid(format!("{name:?} can't be the name of a target"))) }
}

fn gone() -> Error {
    Error::Gone("the clipboard's connection ended".into())
}
