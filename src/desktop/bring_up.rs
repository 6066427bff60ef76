//! What a desktop is made of is started, in its order, and connected to.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;
use x_desktop::windows::ManagerQuestion;
use x_desktop::{Display, Size};

use super::home::{Home, Remembered, is_free};
use super::session::{DPI, READY_PATIENCE, Session, variables};
use super::tree::launcher;
use super::types::StartSpec;
use super::{Error, Parts};
use super::{backdrop, displays, needs};
use crate::config::Bounds;
use crate::processes::types::{CommandSpec, ProcessSpec};
use crate::processes::{Owner, ProcessId};

/// Display numbers that are tried, from the one that was asked for.
const CANDIDATES: u32 = 10;

/// How often it is looked whether Xvfb and openbox answer.
const POLL: Duration = Duration::from_millis(3);

/// A question to the window manager that is older is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(30);

/// How long the window manager is waited for. Without it, windows have no frames, and that is all.
const MANAGER_PATIENCE: Duration = Duration::from_secs(2);

/// A desktop that is up.
pub(super) struct Up {
    pub(super) session: Session,
    pub(super) own: Vec<(&'static str, ProcessId)>,
}

impl Up {
    /// Starts all of it: on `display`, or on the first that is free.
    ///
    /// # Errors
    /// What is missing, or why it doesn't come up; then nothing of it is left.
    pub(super) async fn begin(parts: &Parts, home: &Home, spec: &StartSpec, display: Option<u32>) -> Result<Self, Error> {
        let missing = needs::missing(&parts.env);
        if !missing.is_empty() {
            return Err(Error::DependenciesMissing { missing, install: needs::INSTALL_COMMAND.to_owned() });
        }
        let mut own = Vec::new();
        let begun = Self::begin_all(parts, home, spec, display, &mut own).await;
        if begun.is_err() {
            for (_, id) in own.iter().rev() {
                let _ = parts.processes.kill(&id.to_string(), Some(READY_PATIENCE)).await; // it is gone already
            }
        }
        begun.map(|session| Self { session, own })
    }

    async fn begin_all(
        parts: &Parts,
        home: &Home,
        spec: &StartSpec,
        display: Option<u32>,
        own: &mut Vec<(&'static str, ProcessId)>,
    ) -> Result<Session, Error> {
        let first = spec.first_display();
        let candidates = display.map_or(first..first + CANDIDATES, |display| display..display + 1);
        let (mut tried, mut last) = (0, None);
        for number in candidates.clone() {
            if !tokio::task::spawn_blocking(move || is_free(number)).await.unwrap_or(false) {
                continue;
            }
            tried += 1;
            match Self::on(parts, home, spec, number, own).await {
                Err(Lost::Race(why)) => last = Some(why),
                Err(Lost::For(error)) => return Err(error),
                Ok(session) => return Ok(session),
            }
        }
        let range = format!(":{} to :{}", candidates.start, candidates.end - 1);
        let why = match last {
            Some(why) => format!("Xvfb ended at once on each of {tried} displays ({range}): {why}"),
            None => format!("no display is free from {range}: another X server has each"),
        };
        Err(Error::failed(why))
    }

    async fn on(
        parts: &Parts,
        home: &Home,
        spec: &StartSpec,
        number: u32,
        own: &mut Vec<(&'static str, ProcessId)>,
    ) -> Result<Session, Lost> {
        let bus = needs::find(&parts.env, "dbus-daemon").map(|_| format!("unix:path={}", home.bus(number).display()));
        let env = variables(&parts.env, home, number, bus.as_deref());
        let xvfb = own_process(parts, "Xvfb", home, spec, number, &env).await?;
        own.push(("Xvfb", xvfb));
        let mut display = match answers(parts, number, xvfb).await {
            Err(lost @ Lost::Race(_)) => {
                own.pop();
                return Err(lost);
            }
            answered => answered?,
        };
        if bus.is_some() {
            own.push(("dbus", own_process(parts, "dbus", home, spec, number, &env).await?));
        }
        let (spec_again, home_again, bounds, env_again) = (spec.clone(), home.clone(), parts.bounds.clone(), env.clone());
        let opened = tokio::task::spawn_blocking(move || {
            dress(&mut display, &spec_again, &home_again, &bounds).map_err(|error| Error::of_x(error, Error::failed))?;
            Session::open(display, number, &spec_again, env_again, &bounds)
        });
        let session = opened.await.map_err(|_| Lost::For(Error::Stopping))??;
        own.push(("openbox", own_process(parts, "openbox", home, spec, number, &env).await?));
        match launcher::start(parts, home, number, &env).await {
            Ok(id) => own.extend(id.map(|id| (launcher::NAME, id))),
            Err(error) => tracing::warn!(%error, "there is no accessibility tree: its launcher could not be started"),
        }
        wait_for_manager(&session).await;
        if let Some(script) = home.autostart() {
            let args = vec![script.to_string_lossy().into_owned()];
            let started = parts.start("sh", args, &env, None).await; // as its user wrote it
            if let Err(error) = started {
                tracing::warn!(%error, "the desktop's autostart could not be started");
            }
        }
        Ok(session)
    }

    /// Connects to what outlived the last server; `None` when not all of it did.
    pub(super) async fn again(parts: &Parts, home: &Home, remembered: &Remembered) -> Option<Self> {
        let mut own = Vec::new();
        for (name, id) in &remembered.processes {
            let name = OWN.into_iter().find(|known| *known == name)?;
            let info = parts.processes.get(id).ok()?;
            // Xvfb has to run; the others are started again when they don't.
            if name == "Xvfb" && !info.is_alive() {
                return None;
            }
            own.push((name, info.id));
        }
        let number = remembered.display;
        let env = variables(&parts.env, home, number, remembered.bus.as_deref());
        let (spec, bounds) = (remembered.spec.clone(), parts.bounds.clone());
        let opened = tokio::task::spawn_blocking(move || {
            let display = Display::open(Some(&format!(":{number}"))).ok()?;
            Session::open(display, number, &spec, env, &bounds).ok()
        });
        Some(Self { session: opened.await.ok()??, own })
    }
}

/// All that a desktop is made of.
const OWN: [&str; 4] = ["Xvfb", "dbus", "openbox", launcher::NAME];

/// Why a display isn't it.
enum Lost {
    /// Somebody else was first, or Xvfb doesn't want this one: the next may do.
    Race(String),
    For(Error),
}

impl From<Error> for Lost {
    fn from(error: Error) -> Self {
        Self::For(error)
    }
}

/// Starts one of the desktop's own processes.
///
/// # Errors
/// It can't be started.
pub(super) async fn own_process(
    parts: &Parts,
    name: &'static str,
    home: &Home,
    spec: &StartSpec,
    display: u32,
    env: &BTreeMap<String, String>,
) -> Result<ProcessId, Error> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let (program, args) = match name {
        "Xvfb" => {
            let (width, height) = spec.max_size();
            let (screen, dpi) = (format!("{width}x{height}x24"), spec.dpi.unwrap_or(DPI).to_string());
            let display = format!(":{display}");
            ("Xvfb", words(&[&display, "-screen", "0", &screen, "-dpi", &dpi, "-nolisten", "tcp", "-noreset"]))
        }
        "dbus" => {
            let socket: PathBuf = home.bus(display);
            let _ = std::fs::remove_file(&socket); // of one that was killed
            (
                "dbus-daemon",
                words(&["--session", "--nofork", "--nopidfile", &format!("--address=unix:path={}", socket.display())]),
            )
        }
        _ => ("openbox", words(&["--sm-disable"])),
    };
    parts.start(program, args, env, None).await
}

impl Parts {
    /// Starts a program in the desktop.
    ///
    /// # Errors
    /// As [`Processes::create`](crate::processes::Processes::create).
    pub(super) async fn start(
        &self,
        program: &str,
        args: Vec<String>,
        env: &BTreeMap<String, String>,
        cwd: Option<String>,
    ) -> Result<ProcessId, Error> {
        let run = CommandSpec { command: program.to_owned(), args, env: env.clone(), cwd, ..CommandSpec::default() };
        let spec = ProcessSpec { run, close_stdin: true, ..ProcessSpec::default() };
        Ok(self.processes.create(spec, Owner::Desktop).await?.id)
    }
}

/// Until the X server answers.
async fn answers(parts: &Parts, number: u32, xvfb: ProcessId) -> Result<Display, Lost> {
    let until = Instant::now() + READY_PATIENCE;
    let name = format!(":{number}");
    loop {
        let display = name.clone();
        let opened = tokio::task::spawn_blocking(move || Display::open(Some(&display))).await;
        match opened {
            Ok(Ok(display)) => return Ok(display),
            Ok(Err(error @ x_desktop::Error::Missing(_))) => {
                return Err(Lost::For(Error::failed(error.to_string())));
            }
            _ => {}
        }
        let info = parts.processes.get(&xvfb.to_string()).map_err(Error::from)?;
        if !info.is_alive() {
            return Err(Lost::Race(format!("{:?}; its log is that of {xvfb}", info.exit)));
        }
        if Instant::now() >= until {
            let why = format!("Xvfb doesn't answer on {name} within {} s", READY_PATIENCE.as_secs());
            return Err(Lost::For(Error::failed(why)));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The size or the displays that were asked for, and something to look at.
fn dress(display: &mut Display, spec: &StartSpec, home: &Home, bounds: &Bounds) -> x_desktop::Result<()> {
    let (width, height) = spec.size();
    let side =
        |pixels: u32| u16::try_from(pixels).map_err(|_| x_desktop::Error::Invalid(format!("{pixels} pixels are too many")));
    let size = Size { width: side(width)?, height: side(height)? };
    let dpi = f64::from(spec.dpi.unwrap_or(DPI));
    if display.size() != size {
        display.resize(size, dpi)?;
    }
    let displays = displays::remembered(home);
    if let Some(error) = display.set_monitors(&displays, dpi).err().filter(|_| !displays.is_empty()) {
        tracing::warn!(%error, "the desktop has one display again");
    }
    // It was in the middle of the largest size.
    display.move_pointer(i32::from(size.width / 2), i32::from(size.height / 2))?;
    display.set_backdrop(&backdrop::chosen(home, bounds))
}

/// Until openbox does its work: before, windows stay without a frame, and keys go to nobody.
pub(super) async fn wait_for_manager(session: &Session) {
    if tokio::time::timeout(MANAGER_PATIENCE, answer_of_manager(session)).await.is_err() {
        tracing::warn!("openbox manages no windows yet");
    }
}

/// Ends, too, when the X server is gone: whoever asks for more will hear it. openbox forgets what it was asked while it starts, so
/// it is asked again and again.
async fn answer_of_manager(session: &Session) {
    let mut asked: Option<(ManagerQuestion, Instant)> = None;
    loop {
        let open = asked.filter(|(_, at)| at.elapsed() < ASK_AGAIN).map(|(question, _)| question);
        let step = session.link.call("the window manager", Error::Input, move |display| match open {
            None => Ok((display.question_manager()?, false)),
            Some(question) => Ok((Some(question), display.has_answered(question)?)),
        });
        match step.await {
            Ok((_, true)) | Err(_) => return,
            Ok((question, false)) if open.is_none() => asked = question.map(|question| (question, Instant::now())),
            Ok(_) => {}
        }
        tokio::time::sleep(POLL).await;
    }
}
