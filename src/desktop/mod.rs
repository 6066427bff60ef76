//! The desktop room: an X session that is started, seen and used.
//!
//! Xvfb, openbox, a D-Bus daemon and its accessibility bus are processes (owner `desktop`), so they outlive the server; whatever is done in the session
//! is done over one X connection, without a program being started. The pieces that know X are in the crate `x-desktop`.
//!
//! | module | what |
//! |---|---|
//! | `supervisor` | **the owner task**: start, restart, stop, taking up; its state machine |
//! | `bring_up` | what the desktop is made of, started in order |
//! | `session` | a desktop that runs: its connections |
//! | `link` | the thread that owns the X connection |
//! | `home`, `needs` | its directory; what has to be installed |
//! | `input`, `action`, `actions`, `space` | pointer and keyboard: one action, or a list of them; what coordinates mean |
//! | `shots`, `waits` | pictures; waiting for the screen |
//! | `windows`, `clipboard`, `launch` | windows, selections, programs |
//! | `displays`, `backdrop`, `theme` | parts of the screen as monitors; how it looks |
//! | `lease` | who has it, where several use it |
//! | `recording` | videos of the screen |
//! | `stream` | the screen live, and viewers who control it |
//! | `tree` | the accessibility tree |

mod action;
mod actions;
mod backdrop;
mod bring_up;
mod clipboard;
mod displays;
mod error;
mod home;
mod input;
mod launch;
mod lease;
mod link;
mod lookout;
mod needs;
mod recording;
mod session;
mod shots;
mod space;
mod stream;
mod supervisor;
mod theme;
mod tree;
pub mod types;
mod waits;
mod windows;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc, oneshot, watch};

pub use action::{Action, ActionButton, Modifiers};
pub use actions::{ActionsResult, ActionsSpec};
pub use backdrop::{BackdropMode, BackdropSpec};
pub use clipboard::{ClipboardText, SelectionName, SetSelection};
pub use displays::{DisplayList, DisplaySpec, DisplaysSpec, ListedDisplay};
pub use error::Error;
pub use lease::{Held, LeaseHandle, LeaseInfo, LeaseSpec};
pub use needs::PackageManager;
pub use recording::{EndReason, Recording, RecordingSpec, RecordingStatus};
pub use shots::{CursorStyle, Picture, PictureFormat, Shot};
pub use space::{Point, Space};
pub use stream::{
    Conversation, MediaAddresses, Said, StreamStatus, Ticket, TicketSpec, ViewerInfo, ViewerList, ViewerMode, Wire,
};
pub use theme::{ThemeInfo, ThemeSpec};
pub use tree::{ActSpec, Acted, FindSpec, FoundNodes, TreeAnswer, TreeNode, TreeScope};
pub use waits::{WaitFor, Waited};
pub use windows::WindowChange;

use crate::config::{Bounds, Config, Env, as_usize};
use crate::processes::Processes;
use crate::rt::clock::rfc3339;
use crate::rt::spawn_owned;
use crate::store::{Store, Stream};
use home::Home;
use recording::Recordings;
use session::Session;
use stream::Streams;
use supervisor::{Command, Phase, Shown, Supervisor};
use types::{DesktopFailure, DesktopState, DesktopStatus, DisplayInfo, ProcessStatus, StartSpec};

/// Commands that wait for the owner.
const MAILBOX_MAX: usize = 64;

/// The room as its callers see it. A cheap handle.
#[derive(Clone)]
pub struct Desktop {
    inner: Arc<Inner>,
}

struct Inner {
    parts: Arc<Parts>,
    mailbox: mpsc::Sender<Command>,
    shown: watch::Receiver<Arc<Shown>>,
    encoding: Semaphore,
    recordings: Recordings,
    lease: LeaseHandle,
    streams: Streams,
}

/// What the room uses.
pub struct Parts {
    /// Starts what the desktop is made of.
    pub processes: Processes,
    /// The server's environment.
    pub env: Env,
    /// Its bounds.
    pub bounds: Bounds,
    /// Where viewers of the stream find it.
    pub media: MediaAddresses,
    /// Where events go.
    pub store: Store,
    /// The stream of the desktop's events.
    pub events: Arc<Stream>,
    home: Option<Home>,
}

impl Parts {
    /// All of them.
    pub fn new(processes: Processes, config: &Config, store: Store, events: Arc<Stream>) -> Self {
        let (env, bounds) = (config.env.clone(), config.bounds.clone());
        let media = MediaAddresses { bind: config.bind.ip(), addresses: config.media_addresses.clone() };
        let home = Home::usual(&env);
        Self { processes, env, bounds, media, store, events, home }
    }
}

impl Desktop {
    /// Opens the room, and goes on with a desktop that outlived the last server.
    pub fn start(parts: Parts) -> Self {
        let parts = Arc::new(parts);
        let (mailbox, commands) = mpsc::channel(MAILBOX_MAX);
        let (publish, shown) = watch::channel(Arc::new(Shown::default()));
        let supervisor = Supervisor {
            parts: Arc::clone(&parts),
            mailbox: commands,
            publish,
            shown: Shown::default(),
            restarted: VecDeque::new(),
        };
        spawn_owned("desktop", supervisor.run());
        let recordings = Recordings::new(Arc::clone(&parts));
        if let Some(home) = &parts.home {
            let (recordings, dir) = (recordings.clone(), home.recordings());
            spawn_owned("desktop-recordings", async move { recordings.look_into(dir).await }); // repairs what was cut off
        }
        let lease = LeaseHandle::start(&parts);
        let encoding = Semaphore::new(as_usize(parts.bounds.desktop_encodings_max));
        let streams = Streams::new();
        let desktop = Self { inner: Arc::new(Inner { parts, mailbox, shown, encoding, recordings, lease, streams }) };
        let resumed = desktop.clone();
        spawn_owned("desktop-stream-resume", async move {
            resumed.taken_up().await;
            resumed.resume_stream().await;
        });
        desktop
    }

    /// Who has it.
    pub fn lease(&self) -> &LeaseHandle {
        &self.inner.lease
    }

    fn shown(&self) -> Arc<Shown> {
        Arc::clone(&self.inner.shown.borrow())
    }

    /// Resolves when it is known whether there is a desktop of the last server's.
    async fn taken_up(&self) {
        let mut shown = self.inner.shown.clone();
        let _ = shown.wait_for(|shown| shown.is_taken_up).await; // the server ends
    }

    /// Resolves when the desktop isn't that of this session any more. Cancel safe.
    async fn left(&self, session: &Arc<Session>) {
        let mut shown = self.inner.shown.clone();
        let is_other = |shown: &Arc<Shown>| shown.session.as_ref().is_none_or(|now| !Arc::ptr_eq(now, session));
        let _ = shown.wait_for(is_other).await; // the server ends
    }

    fn parts(&self) -> &Parts {
        &self.inner.parts
    }

    /// Starts the desktop; one that is active stays as it is. Dropping the future doesn't stop it.
    ///
    /// # Errors
    /// What is out of range or missing, or why it doesn't come up.
    pub async fn begin(&self, spec: StartSpec) -> Result<DesktopStatus, Error> {
        spec.check()?;
        let (reply, answer) = oneshot::channel();
        let command = Command::Start { spec: Box::new(spec), reply };
        self.inner.mailbox.send(command).await.map_err(|_| Error::Stopping)?;
        answer.await.map_err(|_| Error::Stopping)??;
        Ok(self.status().await)
    }

    /// Stops the desktop and everything that runs in it. Dropping the future doesn't keep it up.
    ///
    /// # Errors
    /// [`Error::Stopping`].
    pub async fn stop(&self) -> Result<DesktopStatus, Error> {
        let (reply, answer) = oneshot::channel();
        self.inner.mailbox.send(Command::Stop { reply }).await.map_err(|_| Error::Stopping)?;
        answer.await.map_err(|_| Error::Stopping)?;
        self.inner.recordings.until_over().await;
        let mut status = self.status().await;
        if status.state == DesktopState::InstallRequired {
            (status.state, status.last_error) = (DesktopState::Inactive, None);
        }
        Ok(status)
    }

    /// What it is doing.
    pub async fn status(&self) -> DesktopStatus {
        let shown = self.shown();
        let env = &self.parts().env;
        let missing = needs::missing(env);
        let mut status = DesktopStatus {
            state: shown.state.into(),
            display: shown.session.as_ref().map(|session| session.name()),
            resolution: None,
            started_at: shown.started_at_ms.map(rfc3339),
            last_error: shown.last_error.clone(),
            optional_dependencies: needs::optional(env),
            install_command: (!missing.is_empty()).then(|| needs::INSTALL_COMMAND.to_owned()),
            processes: self.own_processes(&shown),
            runtime_log_path: shown.home.as_ref().map(|home| path_text(&home.log_path())),
            home: shown.home.as_ref().map(|home| path_text(&home.home())),
            restarts: shown.restarts,
            windows: Vec::new(),
            missing_dependencies: missing,
        };
        if let Some(session) = &shown.session {
            status.resolution = session.resolution().await.ok();
            status.windows = self.windows(false).await.unwrap_or_default();
        } else if !status.missing_dependencies.is_empty() && matches!(shown.state, Phase::Inactive | Phase::Failed) {
            let message = format!("desktop dependencies are missing: {}", status.missing_dependencies.join(", "));
            status.last_error = Some(DesktopFailure { code: "desktop_dependencies_missing".to_owned(), message });
            status.state = DesktopState::InstallRequired;
        }
        status
    }

    fn own_processes(&self, shown: &Shown) -> Vec<ProcessStatus> {
        let processes = &self.parts().processes;
        let status = |(name, id): &(&'static str, crate::processes::ProcessId)| {
            let info = processes.get(&id.to_string()).ok();
            let running = info.as_ref().is_some_and(|info| info.is_alive());
            let pid = info.and_then(|info| info.pid).filter(|_| running);
            ProcessStatus { name: (*name).to_owned(), process_id: id.to_string(), pid, running }
        };
        shown.own.iter().map(status).collect()
    }

    /// The desktop that runs.
    ///
    /// # Errors
    /// Why there is none.
    fn session(&self) -> Result<Arc<Session>, Error> {
        let shown = self.shown();
        if let Some(session) = &shown.session {
            return Ok(Arc::clone(session));
        }
        let missing = needs::missing(&self.parts().env);
        if !missing.is_empty() {
            return Err(Error::DependenciesMissing { missing, install: needs::INSTALL_COMMAND.to_owned() });
        }
        Err(match shown.state {
            Phase::Inactive | Phase::Active => Error::Inactive,
            Phase::Starting => Error::Changing("starting"),
            Phase::Stopping => Error::Changing("stopping"),
            Phase::Failed => {
                let why = shown.last_error.as_ref().map_or_else(String::new, |failure| failure.message.clone());
                Error::Failed { why, processes: self.own_processes(&shown) }
            }
        })
    }

    /// The display and its size.
    ///
    /// # Errors
    /// There is no desktop.
    pub async fn display_info(&self) -> Result<DisplayInfo, Error> {
        let session = self.session()?;
        let resolution = session.resolution().await?;
        let screen = session.link.call("the screen's size", Error::Screenshot, |display| display.screen()).await?;
        let (width, height) = (screen.max.width.into(), screen.max.height.into());
        let max_resolution = types::Resolution { width, height, dpi: None };
        Ok(DisplayInfo { display: session.name(), resolution, max_resolution })
    }

    /// Gives the screen another size while it runs; it is one display then.
    ///
    /// # Errors
    /// There is no desktop, or the size is none that it can have.
    pub async fn resize(&self, width: u32, height: u32) -> Result<DisplayInfo, Error> {
        let session = self.session()?;
        let side = |name: &str, pixels: u32| {
            u16::try_from(pixels).ok().filter(|pixels| *pixels > 0).ok_or_else(|| Error::Invalid(format!("{name} is 1 to 65535")))
        };
        let size = x_desktop::Size { width: side("width", width)?, height: side("height", height)? };
        let dpi = f64::from(session.dpi);
        let home = self.home()?;
        let _alone = session.looks.lock().await;
        let resize = move |display: &mut x_desktop::Display| {
            display.set_monitors(&[], dpi)?;
            display.resize(size, dpi)
        };
        session.link.call("the change of the screen's size", Error::Invalid, resize).await?;
        displays::forget(&home);
        self.dress_again(&session).await?;
        self.display_info().await
    }
}

fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
