//! The owner of the desktop's life: starts it, keeps it up, ends it.
//!
//! ```text
//! inactive ──start──▶ starting ──▶ active ──stop──▶ stopping ──▶ inactive
//!                        ▲  │         │ Xvfb ended
//!                        │  ▼         ▼
//!                        │ failed ◀── starting (the same display) ──▶ active
//!                        └────┘ start
//! ```
//! openbox, D-Bus and the accessibility bus are started again without leaving `active`. Commands wait while it brings something up; whoever looks
//! doesn't.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, select_all};
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::bring_up::{Up, own_process, wait_for_manager};
use super::home::{Home, Remembered};
use super::session::Session;
use super::tree::launcher;
use super::types::{DesktopFailure, DesktopState, StartSpec};
use super::{Error, Parts, displays};
use crate::config::as_usize;
use crate::processes::{Owner, ProcessId};
use crate::rt::clock::{now_ms, rfc3339};

/// Restarts of one process within this time are counted.
const RESTARTS_WITHIN: Duration = Duration::from_secs(60);

/// Whoever dies of the end of another may be seen first, by no more than this.
const CAUSE_PATIENCE: Duration = Duration::from_millis(50);

/// What a program of the desktop has between TERM and KILL.
const GRACE: Duration = Duration::from_secs(2);

pub(super) enum Command {
    Start { spec: Box<StartSpec>, reply: oneshot::Sender<Result<(), Error>> },
    Stop { reply: oneshot::Sender<()> },
}

/// What is to be seen of it.
#[derive(Clone, Default)]
pub(super) struct Shown {
    /// It is known whether there is a desktop of the last server's.
    pub(super) is_taken_up: bool,
    pub(super) state: Phase,
    /// While it is active.
    pub(super) session: Option<Arc<Session>>,
    pub(super) spec: StartSpec,
    pub(super) last_error: Option<DesktopFailure>,
    /// What it is made of, by what it is.
    pub(super) own: Vec<(&'static str, ProcessId)>,
    pub(super) home: Option<Home>,
    pub(super) started_at_ms: Option<i64>,
    pub(super) restarts: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Phase {
    #[default]
    Inactive,
    Starting,
    Active,
    Stopping,
    Failed,
}

impl From<Phase> for DesktopState {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Inactive => Self::Inactive,
            Phase::Starting => Self::Starting,
            Phase::Active => Self::Active,
            Phase::Stopping => Self::Stopping,
            Phase::Failed => Self::Failed,
        }
    }
}

pub(super) struct Supervisor {
    pub(super) parts: Arc<Parts>,
    pub(super) mailbox: mpsc::Receiver<Command>,
    pub(super) publish: watch::Sender<Arc<Shown>>,
    pub(super) shown: Shown,
    /// When each process was started again of late.
    pub(super) restarted: VecDeque<(&'static str, Instant)>,
}

/// What ended unasked.
enum Ended {
    Process(&'static str),
    /// The X server doesn't answer, though its process may be there.
    Connection,
}

impl Supervisor {
    pub(super) async fn run(mut self) {
        self.take_up().await;
        self.show();
        loop {
            tokio::select! {
                command = self.mailbox.recv() => match command {
                    Some(Command::Start { spec, reply }) => {
                        let started = self.start(*spec).await;
                        let _ = reply.send(started); // the client may have left
                    }
                    Some(Command::Stop { reply }) => {
                        self.stop().await;
                        let _ = reply.send(());
                    }
                    None => return,
                },
                ended = ended(&self.parts, &self.shown) => self.mend(ended).await,
            }
        }
    }

    pub(super) fn show(&mut self) {
        self.publish.send_replace(Arc::new(Shown { is_taken_up: true, ..self.shown.clone() }));
    }

    /// Goes on with what outlived the last server.
    async fn take_up(&mut self) {
        let Some(home) = self.parts.home.clone() else { return };
        let Some(remembered) = home.remembered() else { return };
        let home = remembered.spec.state_dir.as_ref().map_or(home, |dir| Home::at(dir.into()));
        let up = Up::again(&self.parts, &home, &remembered).await;
        match up {
            Some(up) => {
                home.log(&format!("goes on on :{} with another server", remembered.display));
                self.is_up(up, home, remembered.spec, remembered.started_at_ms, remembered.restarts);
            }
            None => {
                home.log("did not outlive the last server");
                home.remember(None);
            }
        }
    }

    async fn start(&mut self, spec: StartSpec) -> Result<(), Error> {
        if self.shown.state == Phase::Active {
            return Ok(()); // as it is
        }
        let usual = self.parts.home.clone();
        let home = match &spec.state_dir {
            Some(dir) => Home::at(dir.into()),
            None => usual.ok_or_else(|| Error::Home("neither HOME nor XDG_STATE_HOME is set".to_owned()))?,
        };
        self.shown = Shown { state: Phase::Starting, spec: spec.clone(), home: Some(home.clone()), ..Shown::default() };
        self.show();
        let made = home.clone();
        let prepared = tokio::task::spawn_blocking(move || {
            displays::forget(&made); // those of another desktop
            made.prepare()
        });
        let prepared = prepared.await;
        let up = match prepared.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            Ok(()) => {
                home.log("starting");
                Up::begin(&self.parts, &home, &spec, None).await
            }
            Err(error) => Err(Error::Home(error.to_string())),
        };
        match up {
            Ok(up) => {
                self.is_up(up, home, spec, now_ms(), 0);
                self.tell("desktop.started");
                Ok(())
            }
            Err(error) => {
                self.failed(&error);
                Err(error)
            }
        }
    }

    fn is_up(&mut self, up: Up, home: Home, spec: StartSpec, started_at_ms: i64, restarts: u64) {
        let Up { session, own } = up;
        let (width, height) = spec.size();
        home.log(&format!("active on {} ({width}x{height}, dpi {})", session.name(), session.dpi));
        self.shown = Shown {
            is_taken_up: true,
            state: Phase::Active,
            session: Some(Arc::new(session)),
            spec,
            last_error: None,
            own,
            home: Some(home),
            started_at_ms: Some(started_at_ms),
            restarts,
        };
        self.remember();
        self.show();
    }

    /// The next server finds it by this.
    fn remember(&self) {
        let (Some(session), Some(usual)) = (&self.shown.session, &self.parts.home) else { return };
        usual.remember(Some(&Remembered {
            display: session.display,
            spec: self.shown.spec.clone(),
            started_at_ms: self.shown.started_at_ms.unwrap_or_default(),
            restarts: self.shown.restarts,
            processes: self.shown.own.iter().map(|(name, id)| ((*name).to_owned(), id.to_string())).collect(),
            bus: session.bus.clone(),
        }));
    }

    fn failed(&mut self, error: &Error) {
        let failure = DesktopFailure { code: error.code().to_owned(), message: error.to_string() };
        if let Some(home) = self.shown.home.clone() {
            home.log(&format!("error {}: {}", failure.code, failure.message));
        }
        tracing::warn!(code = failure.code, message = failure.message, "the desktop failed");
        if let Some(usual) = &self.parts.home {
            usual.remember(None);
        }
        let (spec, home) = (self.shown.spec.clone(), self.shown.home.clone());
        self.shown = Shown { state: Phase::Failed, spec, home, last_error: Some(failure), ..Shown::default() };
        self.tell("desktop.failed");
        self.show();
    }

    async fn stop(&mut self) {
        if matches!(self.shown.state, Phase::Inactive | Phase::Failed) {
            self.shown = Shown { home: self.shown.home.clone(), ..Shown::default() };
            return self.show();
        }
        self.shown.state = Phase::Stopping;
        self.shown.session = None;
        self.show();
        let home = self.shown.home.clone();
        self.end_all().await;
        if let Some(home) = &home {
            home.log("stopped");
        }
        if let Some(usual) = &self.parts.home {
            usual.remember(None);
        }
        self.shown = Shown { home, ..Shown::default() };
        self.tell("desktop.stopped");
        self.show();
    }

    /// Programs first, then what they need.
    async fn end_all(&mut self) {
        let own: Vec<ProcessId> = self.shown.own.iter().map(|(_, id)| *id).collect();
        let all = self.parts.processes.list(Some(Owner::Desktop), true);
        let programs = all.into_iter().filter(|info| info.is_alive() && !own.contains(&info.id)).map(|info| info.id);
        let processes = &self.parts.processes;
        let end = |id: ProcessId| async move { processes.stop(&id.to_string(), Some(GRACE)).await.map(drop) };
        let ended = join_all(programs.map(end)).await;
        ended.into_iter().filter_map(Result::err).for_each(|error| tracing::debug!(%error, "a program of the desktop"));
        for id in own.into_iter().rev() {
            if let Err(error) = end(id).await {
                tracing::debug!(%error, "a process of the desktop");
            }
        }
    }

    /// Resolves when one of the desktop's own has ended; never while there is none of that name. Cancel safe.
    pub(in crate::desktop) async fn ended(&self, name: &str) {
        let Some((_, id)) = self.shown.own.iter().find(|(known, _)| *known == name) else { return std::future::pending().await };
        let _ = self.parts.processes.ended(&id.to_string()).await; // deleted: it had ended
    }

    /// Something ended that should not.
    async fn mend(&mut self, ended: Ended) {
        if matches!(ended, Ended::Process(name) if name != "Xvfb") {
            let cause = async {
                tokio::select! { () = self.ended("Xvfb") => {}, () = self.ended("dbus") => {} }
            };
            let _ = tokio::time::timeout(CAUSE_PATIENCE, cause).await; // it ended by itself
        }
        let name = match ended {
            // The others go with it.
            Ended::Process(launcher::NAME) if self.has("Xvfb") && !self.has("dbus") => "dbus",
            Ended::Process(name) if self.has("Xvfb") => name,
            Ended::Process(_) | Ended::Connection => "Xvfb",
        };
        let Some(home) = self.shown.home.clone() else { return };
        home.log(&format!("{name} ended; starting it again"));
        tracing::warn!(name, "a process of the desktop ended; it is started again");
        self.restarted.retain(|(_, at)| at.elapsed() < RESTARTS_WITHIN);
        self.restarted.push_back((name, Instant::now()));
        self.shown.restarts += 1;
        let max = as_usize(self.parts.bounds.desktop_restarts_max);
        if self.restarted.iter().filter(|(other, _)| *other == name).count() > max {
            let why = format!("{name} ended {max} times within {} s: see its log", RESTARTS_WITHIN.as_secs());
            if name == launcher::NAME {
                home.log(&format!("{why}; it is left to D-Bus"));
                self.leave_launcher().await;
                self.remember();
                return self.show();
            }
            self.end_all().await;
            return self.failed(&Error::failed(why));
        }
        match name {
            "Xvfb" => self.restart_all(home).await,
            launcher::NAME => {
                self.restart_launcher(&home).await;
                self.is_mended();
            }
            _ => self.restart_one(name, &home).await,
        }
    }

    /// Whether one of the desktop's own runs.
    fn has(&self, name: &str) -> bool {
        let own = self.shown.own.iter().find(|(known, _)| *known == name);
        let info = own.and_then(|(_, id)| self.parts.processes.get(&id.to_string()).ok());
        info.is_some_and(|info| info.is_alive())
    }

    async fn restart_one(&mut self, name: &'static str, home: &Home) {
        let Some(session) = self.shown.session.clone() else { return };
        match own_process(&self.parts, name, home, &self.shown.spec, session.display, &session.env).await {
            Ok(id) => {
                self.shown.own.iter_mut().filter(|(other, _)| *other == name).for_each(|(_, known)| *known = id);
                if name == "openbox" {
                    wait_for_manager(&session).await;
                }
                if name == "dbus" {
                    self.restart_launcher(home).await; // it has lost its D-Bus, and knows or not
                }
                self.is_mended();
            }
            Err(error) => {
                self.end_all().await;
                self.failed(&error);
            }
        }
    }

    fn is_mended(&mut self) {
        self.remember();
        self.tell("desktop.restarted");
        self.show();
    }

    /// All that was on the screen is gone; the display is the same.
    async fn restart_all(&mut self, home: Home) {
        let display = self.shown.session.as_ref().map(|session| session.display);
        let (spec, restarts) = (self.shown.spec.clone(), self.shown.restarts);
        let started_at_ms = self.shown.started_at_ms.unwrap_or_else(now_ms);
        self.shown.state = Phase::Starting;
        self.shown.session = None;
        self.show();
        self.end_all().await;
        match Up::begin(&self.parts, &home, &spec, display).await {
            Ok(up) => {
                self.is_up(up, home, spec, started_at_ms, restarts);
                self.tell("desktop.restarted");
            }
            Err(error) => self.failed(&error),
        }
    }

    /// An event for `/v1/events`.
    fn tell(&self, kind: &'static str) {
        let display = self.shown.session.as_ref().map(|session| session.name());
        let payload = json!({
            "type": kind,
            "time": rfc3339(now_ms()),
            "desktop": {
                "state": DesktopState::from(self.shown.state),
                "display": display,
                "restarts": self.shown.restarts,
                "lastError": self.shown.last_error,
            },
        });
        self.parts.store.append(&self.parts.events, kind, payload.to_string().into(), None);
        self.parts.store.flush();
    }
}

/// Resolves when a part of an active desktop is gone; never while there is none.
async fn ended(parts: &Parts, shown: &Shown) -> Ended {
    let Some(session) = shown.session.as_ref().filter(|_| shown.state == Phase::Active) else {
        return std::future::pending().await;
    };
    let all = shown.own.iter().map(|(name, id)| {
        Box::pin(async move {
            let _ = parts.processes.ended(&id.to_string()).await; // deleted: it had ended
            *name
        })
    });
    tokio::select! {
        (name, ..) = select_all(all) => Ended::Process(name),
        () = session.link.gone() => Ended::Connection,
    }
}
