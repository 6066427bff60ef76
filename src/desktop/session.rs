//! A desktop that runs.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use accessibility::Accessibility;
use tokio::sync::{OnceCell, watch};
use x_desktop::clipboard::{Clipboard, Limits};
use x_desktop::picture::Seen as Pictures;
use x_desktop::{Display, Selection, Size};

use super::Error;
use super::home::Home;
use super::link::Link;
use super::types::{Resolution, StartSpec};
use crate::config::{Bounds, Env, as_duration, as_usize};

/// What is open towards one X server.
pub(super) struct Session {
    /// N of `:N`.
    pub(super) display: u32,
    pub(super) dpi: u32,
    pub(super) link: Link,
    pub(super) clipboard: Arc<Clipboard>,
    /// How often the clipboard had other content.
    pub(super) copied: watch::Sender<u64>,
    /// Held while something is typed, clicked or dragged: two at once would make one muddle.
    pub(super) input: Arc<tokio::sync::Mutex<()>>,
    /// Variables of everything that runs in it, on top of the server's.
    pub(super) env: BTreeMap<String, String>,
    pub(super) bus: Option<String>,
    /// Held while the screen gets another size, another backdrop or another theme.
    pub(super) looks: tokio::sync::Mutex<()>,
    /// The accessibility bus, once somebody asked for it.
    pub(super) tree: OnceCell<Accessibility>,
    pictures: Mutex<Pictures>,
}

impl Session {
    /// Opens the connections to a display that answers. Blocks.
    ///
    /// # Errors
    /// The X server lacks an extension, or is gone.
    pub(super) fn open(
        display: Display,
        number: u32,
        spec: &StartSpec,
        env: BTreeMap<String, String>,
        bounds: &Bounds,
    ) -> Result<Self, Error> {
        let limits = Limits { content_bytes: as_usize(bounds.desktop_clipboard_max_bytes), ..Limits::default() };
        let copied = watch::channel(0).0;
        let tell = copied.clone();
        let on_change = move |selection: Selection, changes: u64| {
            if selection == Selection::Clipboard {
                tell.send_replace(changes);
            }
        };
        let clipboard = Clipboard::open(Some(&format!(":{number}")), limits, Box::new(on_change));
        let clipboard = clipboard.map_err(|error| Error::of_x(error, Error::failed))?;
        let (timeout, queue_max) = (as_duration(bounds.desktop_call_timeout_ms), as_usize(bounds.desktop_queue_max));
        let link = Link::start(display, timeout, queue_max).map_err(|error| Error::failed(error.to_string()))?;
        let bus = env.get(BUS_VARIABLE).cloned();
        Ok(Self {
            display: number,
            dpi: spec.dpi.unwrap_or(DPI),
            link,
            clipboard: Arc::new(clipboard),
            copied,
            input: Arc::default(),
            env,
            bus,
            looks: tokio::sync::Mutex::default(),
            tree: OnceCell::new(),
            pictures: Mutex::default(),
        })
    }

    /// `:N`.
    pub(super) fn name(&self) -> String {
        format!(":{}", self.display)
    }

    /// The tiles of the last pictures.
    pub(super) fn pictures(&self) -> MutexGuard<'_, Pictures> {
        self.pictures.lock().unwrap_or_else(PoisonError::into_inner) // a ring: each note leaves it whole
    }

    /// How large the screen is now.
    ///
    /// # Errors
    /// As [`Link::call`].
    pub(super) async fn resolution(&self) -> Result<Resolution, Error> {
        let Size { width, height } = self.link.call("the screen's size", Error::Screenshot, |display| Ok(display.size())).await?;
        Ok(Resolution { width: width.into(), height: height.into(), dpi: Some(self.dpi) })
    }
}

pub(super) const WIDTH: u32 = 1440;
pub(super) const HEIGHT: u32 = 900;
pub(super) const DPI: u32 = 96;
/// How large the screen can be made while it runs, unless the start says otherwise.
const MAX_WIDTH: u32 = 2560;
const MAX_HEIGHT: u32 = 1440;
/// More than an X server takes.
pub(super) const SIDE_MAX: u32 = 16_384;
const DPI_MAX: u32 = 1_000;
const DISPLAY: u32 = 99;
const DISPLAY_MAX: u32 = 59_000;
const FPS_MAX: u32 = 60;

/// Where the D-Bus session is.
pub(super) const BUS_VARIABLE: &str = "DBUS_SESSION_BUS_ADDRESS";

impl StartSpec {
    /// # Errors
    /// [`Error::Invalid`]: what is out of range.
    pub(super) fn check(&self) -> Result<(), Error> {
        let within = |name: &str, value: Option<u32>, max: u32| match value {
            Some(value) if value == 0 || value > max => Err(Error::Invalid(format!("{name} is 1 to {max}, not {value}"))),
            _ => Ok(()),
        };
        within("width", self.width, SIDE_MAX)?;
        within("height", self.height, SIDE_MAX)?;
        within("maxWidth", self.max_width, SIDE_MAX)?;
        within("maxHeight", self.max_height, SIDE_MAX)?;
        within("dpi", self.dpi, DPI_MAX)?;
        within("streamFrameRate", self.stream_frame_rate, FPS_MAX)?;
        within("recordingFps", self.recording_fps, FPS_MAX)?;
        let number = self.display_num.map(|number| u32::try_from(number).unwrap_or(0));
        within("displayNum", number, DISPLAY_MAX)?;
        if self.state_dir.as_deref().is_some_and(|dir| !Path::new(dir).is_absolute()) {
            return Err(Error::Invalid("stateDir is an absolute path".to_owned()));
        }
        Ok(())
    }

    /// The size it begins with.
    pub(super) fn size(&self) -> (u32, u32) {
        (self.width.unwrap_or(WIDTH), self.height.unwrap_or(HEIGHT))
    }

    /// The largest size it can have.
    pub(super) fn max_size(&self) -> (u32, u32) {
        let (width, height) = self.size();
        (self.max_width.unwrap_or(MAX_WIDTH).max(width), self.max_height.unwrap_or(MAX_HEIGHT).max(height))
    }

    /// The first display number that is tried.
    pub(super) fn first_display(&self) -> u32 {
        self.display_num.and_then(|number| u32::try_from(number).ok()).unwrap_or(DISPLAY)
    }
}

/// Where they are without the variable: XDG Base Directory Specification 0.8.
const XDG_DIRECTORIES: [(&str, &str); 4] = [
    ("XDG_CONFIG_HOME", ".config"),
    ("XDG_DATA_HOME", ".local/share"),
    ("XDG_CACHE_HOME", ".cache"),
    ("XDG_STATE_HOME", ".local/state"),
];

/// What everything in the desktop gets on top of the server's environment.
pub(super) fn variables(env: &Env, home: &Home, display: u32, bus: Option<&str>) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    let mut set = |name: &str, value: &str| _ = variables.insert(name.to_owned(), value.to_owned());
    set("DISPLAY", &format!(":{display}"));
    set("HOME", &home.home().to_string_lossy());
    // Those of the server's would lead programs past this home, with its settings of openbox, GTK and the terminal.
    for (name, dir) in XDG_DIRECTORIES.into_iter().filter(|(name, _)| env.get(name).is_some()) {
        set(name, &home.home().join(dir).to_string_lossy());
    }
    if env.get("USER").is_none() {
        set("USER", "sandbox-agent");
    }
    // Without one, programs take what is typed for ASCII.
    if ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().all(|name| env.get(name).is_none()) {
        set("LANG", "C.UTF-8");
    }
    if let Some(bus) = bus {
        set(BUS_VARIABLE, bus);
        for (name, value) in accessibility::ENVIRONMENT {
            set(name, value);
        }
        for (name, value) in accessibility::ENVIRONMENT_NEUTRAL.iter().filter(|(name, _)| env.get(name).is_some()) {
            set(name, value);
        }
    }
    variables
}

/// How long Xvfb, and what else a desktop is made of, has until it answers.
pub(super) const READY_PATIENCE: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_is_out_of_range_is_named() {
        let wrong = [
            StartSpec { width: Some(0), ..StartSpec::default() },
            StartSpec { height: Some(100_000), ..StartSpec::default() },
            StartSpec { dpi: Some(0), ..StartSpec::default() },
            StartSpec { display_num: Some(0), ..StartSpec::default() },
            StartSpec { display_num: Some(-3), ..StartSpec::default() },
            StartSpec { recording_fps: Some(61), ..StartSpec::default() },
            StartSpec { state_dir: Some("here".into()), ..StartSpec::default() },
        ];
        for spec in wrong {
            assert!(matches!(spec.check(), Err(Error::Invalid(_))), "{spec:?}");
        }
        assert!(StartSpec::default().check().is_ok());
        assert_eq!(StartSpec::default().max_size(), (2560, 1440));
        assert_eq!(StartSpec { width: Some(3000), ..StartSpec::default() }.max_size(), (3000, 1440));
    }

    #[test]
    fn programs_get_a_locale_and_a_user_where_there_is_none() {
        let home = Home::at("/d".into());
        let bare = variables(&Env::default(), &home, 7, None);
        assert_eq!(bare.get("LANG").map(String::as_str), Some("C.UTF-8"));
        assert_eq!(bare.get("DISPLAY").map(String::as_str), Some(":7"));
        let env = Env::from_pairs([("LC_CTYPE", "de_DE.UTF-8"), ("USER", "me"), ("NO_AT_BRIDGE", "1")]);
        let full = variables(&env, &home, 7, Some("unix:path=/b"));
        assert!(!full.contains_key("LANG") && !full.contains_key("USER"));
        assert_eq!(full.get("NO_AT_BRIDGE").map(String::as_str), Some("0"));
        assert!(!bare.contains_key("XDG_CONFIG_HOME"));
        let elsewhere = variables(&Env::from_pairs([("XDG_CONFIG_HOME", "/c")]), &home, 7, None);
        assert_eq!(elsewhere.get("XDG_CONFIG_HOME").map(Path::new), Some(home.home().join(".config").as_path()));
        assert!(!full.contains_key("GTK_A11Y") && !bare.contains_key("QT_ACCESSIBILITY"));
        assert_eq!(full.get(BUS_VARIABLE).map(String::as_str), Some("unix:path=/b"));
    }
}
