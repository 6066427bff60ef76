//! The launcher of the accessibility bus, one of the desktop's own processes.
//!
//! D-Bus would start one itself when somebody asks; ours is there before programs ask, is seen in `/v1/processes`, and comes back.
//! A desktop doesn't depend on it: where it can't run, there is no tree.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use accessibility::Accessibility;

use crate::desktop::home::Home;
use crate::desktop::session::BUS_VARIABLE;
use crate::desktop::supervisor::Supervisor;
use crate::desktop::{Error, Parts, needs};
use crate::processes::ProcessId;
use crate::rt::spawn_owned;

/// What it is called among the desktop's processes.
pub(in crate::desktop) const NAME: &str = "at-spi";

/// For a D-Bus daemon that was just started; one that takes longer costs a restart of the launcher.
const BUS_PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(3);
/// For the end of the one before.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// Starts it; `None` where it isn't installed, or there is no D-Bus.
///
/// # Errors
/// It can't be started.
pub(in crate::desktop) async fn start(
    parts: &Parts,
    home: &Home,
    display: u32,
    env: &BTreeMap<String, String>,
) -> Result<Option<ProcessId>, Error> {
    let (Some(program), true) = (needs::launcher(&parts.env), env.contains_key(BUS_VARIABLE)) else { return Ok(None) };
    let _ = tokio::time::timeout(BUS_PATIENCE, until_listening(&home.bus(display))).await; // else it ends, and is started again
    let runtime = home.runtime(display).map_err(|error| Error::Home(error.to_string()))?;
    let mut env = env.clone();
    // its bus listens there; the usual place may have too long a path
    env.insert("XDG_RUNTIME_DIR".to_owned(), runtime.to_string_lossy().into_owned());
    let words = vec!["--launch-immediately".to_owned()];
    parts.start(&program.to_string_lossy(), words, &env, None).await.map(Some)
}

async fn until_listening(socket: &Path) {
    while tokio::net::UnixStream::connect(socket).await.is_err() {
        tokio::time::sleep(POLL).await;
    }
}

async fn until_ready(bus: &str) {
    while !matches!(accessibility::has_launcher(bus).await, Ok(true)) {
        tokio::time::sleep(POLL).await;
    }
}

impl Supervisor {
    /// Starts it again, after its end or that of its D-Bus. When another one has its place, or it can't be started, the desktop
    /// goes on without one of its own.
    pub(in crate::desktop) async fn restart_launcher(&mut self, home: &Home) {
        let Some(session) = self.shown.session.clone() else { return };
        let Some(before) = self.end_launcher().await else { return };
        let bus = session.bus.as_deref().unwrap_or_default();
        // D-Bus was asked for one meanwhile
        let starting = async {
            match accessibility::has_launcher(bus).await {
                Ok(true) => Ok(None),
                _ => start(&self.parts, home, session.display, &session.env).await,
            }
        };
        let started = tokio::select! {
            started = starting => started,
            () = self.ended("dbus") => return self.shown.own.push((NAME, before)), // it is seen again, with its D-Bus
        };
        match started {
            Ok(Some(id)) => {
                self.shown.own.push((NAME, id));
                // until then, the address that programs find on the X server is that of the bus that ended
                tokio::select! {
                    _ = tokio::time::timeout(BUS_PATIENCE, until_ready(bus)) => {}
                    () = self.ended("dbus") => {}
                }
            }
            Ok(None) => home.log(&format!("{NAME} is left to D-Bus")),
            Err(error) => home.log(&format!("{NAME} is not started again: {error}")),
        }
    }

    /// Gives it up: D-Bus is asked for one now, since programs would look for the bus that ended.
    pub(in crate::desktop) async fn leave_launcher(&mut self) {
        self.end_launcher().await;
        let Some(bus) = self.shown.session.as_ref().and_then(|session| session.bus.clone()) else { return };
        spawn_owned("desktop-at-spi", async move {
            if let Err(error) = Accessibility::connect(&bus).await {
                tracing::warn!(%error, "there is no accessibility tree");
            }
        });
    }

    /// Forgets it, with what is left of it; `None` when there is none. Its bus would live on, where no new program comes to.
    async fn end_launcher(&mut self) -> Option<ProcessId> {
        let place = self.shown.own.iter().position(|(name, _)| *name == NAME)?;
        let (_, id) = self.shown.own.remove(place);
        if let Err(error) = self.parts.processes.kill(&id.to_string(), Some(END_PATIENCE)).await {
            tracing::debug!(%error, "the launcher of the accessibility bus");
        }
        Some(id)
    }
}
