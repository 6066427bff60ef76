//! How windows, menus and programs look: names in the configuration of openbox and GTK, in the desktop's home.
//!
//! Only what is installed can be chosen. openbox reads its configuration again at once; programs of GTK when they start.

mod files;
mod installed;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;

use self::files::{ini_value, openbox_fonts, openbox_theme, with_ini_value, with_openbox_fonts, with_openbox_theme};
use self::installed::Installed;
use super::backdrop::blocking;
use super::home::Home;
use super::session::Session;
use super::{Desktop, Error};

const OPENBOX: &str = ".config/openbox/rc.xml";
/// The first is what is told.
const GTK: [&str; 2] = [".config/gtk-3.0/settings.ini", ".config/gtk-4.0/settings.ini"];
/// The theme of the pointer for what isn't GTK.
const CURSOR: &str = ".icons/default/index.theme";

const FONT_MAX_BYTES: usize = 128;
const FONT_POINTS_MAX: u32 = 96;

/// How long openbox has to show another theme; the call then answers without it.
const PATIENCE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(10);

/// What is to look otherwise; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(default)]
pub struct ThemeSpec {
    /// Whether programs of GTK take the dark variant of their theme.
    pub dark: Option<bool>,
    /// openbox's theme: frames and menus.
    pub openbox: Option<String>,
    /// GTK's theme.
    pub gtk: Option<String>,
    /// GTK's icons.
    pub icons: Option<String>,
    /// The pointer, in programs.
    pub cursor: Option<String>,
    /// The font of frames, menus and programs of GTK, with its size in points: `DejaVu Sans 11`.
    pub font: Option<String>,
}

/// How it looks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ThemeInfo {
    /// Whether programs of GTK take the dark variant of their theme.
    pub dark: bool,
    /// openbox's theme.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub openbox: Option<String>,
    /// GTK's theme.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gtk: Option<String>,
    /// GTK's icons.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icons: Option<String>,
    /// The pointer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// GTK's font.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub font: Option<String>,
    /// What is installed.
    pub available: Installed,
}

impl Desktop {
    /// How it looks, and what can be chosen.
    ///
    /// # Errors
    /// [`Error::Home`].
    pub async fn theme(&self) -> Result<ThemeInfo, Error> {
        let (home, env) = (self.home()?, self.parts().env.clone());
        blocking(move || Ok(info(&home, Installed::of(&env, &home)))).await
    }

    /// Has it look otherwise, from now on.
    ///
    /// # Errors
    /// [`Error::ThemeNotFound`] with what there is; a font that is none; there is no desktop; the disk refuses.
    pub async fn set_theme(&self, spec: ThemeSpec) -> Result<ThemeInfo, Error> {
        let (session, home, env) = (self.session()?, self.home()?, self.parts().env.clone());
        let _alone = session.looks.lock().await;
        let wanted = spec.openbox.clone();
        let is_framed = spec.openbox.is_some() || spec.font.is_some();
        let written = blocking(move || {
            let installed = Installed::of(&env, &home);
            write(&spec, &installed, &home)?;
            Ok(info(&home, installed))
        });
        let info = written.await?;
        if is_framed {
            session.reload_openbox(wanted.as_deref()).await?;
        }
        Ok(info)
    }
}

impl Session {
    /// Has openbox read its configuration, and waits a moment for the theme.
    async fn reload_openbox(&self, theme: Option<&str>) -> Result<(), Error> {
        self.link.call("openbox", Error::Invalid, |display| display.reconfigure_openbox()).await?;
        let until = Instant::now() + PATIENCE;
        while let Some(theme) = theme.filter(|_| Instant::now() < until) {
            let shown = self.link.call("openbox's theme", Error::Invalid, |display| display.openbox_theme()).await?;
            if shown.as_deref() == Some(theme) {
                break;
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

fn text_of(home: &Home, name: &str) -> String {
    fs::read_to_string(home.home().join(name)).unwrap_or_default() // none yet
}

fn info(home: &Home, available: Installed) -> ThemeInfo {
    let (gtk, frames) = (text_of(home, GTK[0]), text_of(home, OPENBOX));
    let value = |key| ini_value(&gtk, key).map(str::to_owned);
    ThemeInfo {
        dark: ini_value(&gtk, "gtk-application-prefer-dark-theme").is_some_and(|value| matches!(value, "1" | "true")),
        openbox: openbox_theme(&frames),
        gtk: value("gtk-theme-name"),
        icons: value("gtk-icon-theme-name"),
        cursor: value("gtk-cursor-theme-name"),
        font: value("gtk-font-name").or_else(|| openbox_fonts(&frames)),
        available,
    }
}

/// All is checked before anything is written. Blocks.
fn write(spec: &ThemeSpec, installed: &Installed, home: &Home) -> Result<(), Error> {
    installed.check(spec)?;
    let font = spec.font.as_deref().map(font).transpose()?;
    let mut frames = text_of(home, OPENBOX);
    let lacks = || Error::Conflict(format!("{OPENBOX} of the desktop's home names no theme or fonts to be changed"));
    if let Some(name) = &spec.openbox {
        frames = with_openbox_theme(&frames, name).ok_or_else(lacks)?;
    }
    if let Some((family, points)) = &font {
        frames = with_openbox_fonts(&frames, family, *points).ok_or_else(lacks)?;
    }
    let dark = spec.dark.map(|dark| if dark { "1" } else { "0" }.to_owned());
    let values = [
        ("gtk-application-prefer-dark-theme", &dark),
        ("gtk-theme-name", &spec.gtk),
        ("gtk-icon-theme-name", &spec.icons),
        ("gtk-cursor-theme-name", &spec.cursor),
        ("gtk-font-name", &spec.font),
    ];
    let set: Vec<_> = values.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?))).collect();
    let write = || -> io::Result<()> {
        if spec.openbox.is_some() || font.is_some() {
            put(&home.home().join(OPENBOX), &frames)?;
        }
        for name in GTK.iter().filter(|_| !set.is_empty()) {
            let text = set.iter().fold(text_of(home, name), |text, (key, value)| with_ini_value(&text, key, value));
            put(&home.home().join(name), &text)?;
        }
        match &spec.cursor {
            Some(cursor) => put(&home.home().join(CURSOR), &format!("[Icon Theme]\nInherits={cursor}\n")),
            None => Ok(()),
        }
    };
    write().map_err(|error| Error::Home(error.to_string()))
}

/// All or nothing: a program may be reading it.
fn put(path: &Path, text: &str) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    fs::write(&new, text)?;
    fs::rename(&new, path)
}

/// Family and points.
fn font(text: &str) -> Result<(String, u32), Error> {
    let parts = text.rsplit_once(' ').and_then(|(family, points)| Some((family.trim(), points.parse::<u32>().ok()?)));
    let is_font = |(family, points): &(&str, u32)| {
        !family.is_empty() && !family.contains(char::is_control) && (1..=FONT_POINTS_MAX).contains(points)
    };
    let found = parts.filter(is_font).filter(|_| text.len() <= FONT_MAX_BYTES && text.trim() == text);
    let (family, points) = found.ok_or_else(|| {
        Error::Invalid(format!("font is a name and 1 to {FONT_POINTS_MAX} points, such as \"DejaVu Sans 11\", not {text:?}"))
    })?;
    Ok((family.to_owned(), points))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fonts_have_a_size() {
        assert_eq!(font("DejaVu Sans 11").expect("a font"), ("DejaVu Sans".to_owned(), 11));
        for text in ["DejaVu Sans", "11", "Sans 0", "Sans 97", "Sa\nns 9", " Sans 9", ""] {
            assert!(matches!(font(text), Err(Error::Invalid(_))), "{text:?}");
        }
    }

    #[test]
    fn a_wrong_name_changes_nothing_and_a_right_one_only_itself() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = Home::at(dir.path().to_path_buf());
        home.prepare().expect("prepared");
        fs::create_dir_all(home.home().join(".themes/Mine & Yours/openbox-3")).expect("made");
        fs::write(home.home().join(".themes/Mine & Yours/openbox-3/themerc"), "").expect("written");
        let env = crate::config::Env::from_pairs([("XDG_DATA_DIRS", "/nowhere")]);
        let installed = Installed::of(&env, &home);
        assert_eq!(installed.openbox, ["Mine & Yours"]);
        let before = text_of(&home, OPENBOX);
        let both = ThemeSpec { openbox: Some("Mine & Yours".into()), icons: Some("None".into()), ..ThemeSpec::default() };
        assert!(matches!(write(&both, &installed, &home), Err(Error::ThemeNotFound { kind: "icons", .. })));
        assert_eq!(text_of(&home, OPENBOX), before);
        let spec = ThemeSpec { icons: None, dark: Some(true), font: Some("Serif 14".into()), ..both };
        write(&spec, &installed, &home).expect("written");
        let now = info(&home, installed);
        assert_eq!((now.dark, now.openbox.as_deref(), now.font.as_deref()), (true, Some("Mine & Yours"), Some("Serif 14")));
        assert_eq!(now.icons.as_deref(), Some("Adwaita"), "as it was");
        assert!(text_of(&home, GTK[1]).starts_with("[Settings]\n"));
    }
}
