//! Which themes there are, by their files (XDG base directories, icon theme specification).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;
use utoipa::ToSchema;

use super::ThemeSpec;
use crate::config::Env;
use crate::desktop::Error;
use crate::desktop::home::Home;

/// GTK 3 has these within itself.
const OF_GTK: [&str; 2] = ["Adwaita", "HighContrast"];

/// Where data is when `XDG_DATA_DIRS` doesn't say.
const DATA_DIRS: &str = "/usr/local/share:/usr/share";

/// Names that can be chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Installed {
    /// openbox's themes.
    pub openbox: Vec<String>,
    /// GTK's.
    pub gtk: Vec<String>,
    /// Icons.
    pub icons: Vec<String>,
    /// Pointers.
    pub cursors: Vec<String>,
}

impl Installed {
    /// What programs of the desktop find. Blocks.
    pub(super) fn of(env: &Env, home: &Home) -> Self {
        let home = home.home();
        let data_home = env.path("XDG_DATA_HOME").filter(|path| path.is_absolute()).unwrap_or_else(|| home.join(".local/share"));
        let data_dirs = env.get("XDG_DATA_DIRS").filter(|dirs| !dirs.is_empty()).unwrap_or(DATA_DIRS);
        let data: Vec<PathBuf> = std::iter::once(data_home).chain(data_dirs.split(':').map(PathBuf::from)).collect();
        let places = |old: &str, name: &str| -> Vec<PathBuf> {
            std::iter::once(home.join(old)).chain(data.iter().map(|dir| dir.join(name))).collect()
        };
        let (themes, icons) = (places(".themes", "themes"), places(".icons", "icons"));
        let mut gtk = named(&themes, |dir| dir.join("gtk-3.0/gtk.css").is_file());
        gtk.extend(OF_GTK.map(str::to_owned));
        let sorted = |names: BTreeSet<String>| names.into_iter().collect();
        Self {
            openbox: sorted(named(&themes, |dir| dir.join("openbox-3/themerc").is_file())),
            gtk: sorted(gtk),
            icons: sorted(named(&icons, has_icons)),
            cursors: sorted(named(&icons, |dir| dir.join("cursors").is_dir())),
        }
    }

    /// # Errors
    /// [`Error::ThemeNotFound`]: the first that isn't there.
    pub(super) fn check(&self, spec: &ThemeSpec) -> Result<(), Error> {
        let all = [
            ("openbox", &spec.openbox, &self.openbox),
            ("gtk", &spec.gtk, &self.gtk),
            ("icons", &spec.icons, &self.icons),
            ("cursor", &spec.cursor, &self.cursors),
        ];
        for (kind, name, there) in all {
            if let Some(name) = name.as_ref().filter(|name| !there.contains(name)) {
                return Err(Error::ThemeNotFound { kind, name: name.clone(), available: there.clone() });
            }
        }
        Ok(())
    }
}

/// A theme of pointers may have such a file, too, without directories.
fn has_icons(dir: &Path) -> bool {
    std::fs::read_to_string(dir.join("index.theme")).is_ok_and(|text| text.lines().any(|line| line.starts_with("Directories=")))
}

/// Directories that are themes. A name with a line break would be more than a name.
fn named(places: &[PathBuf], is_theme: impl Fn(&Path) -> bool) -> BTreeSet<String> {
    let entries = places.iter().filter_map(|place| std::fs::read_dir(place).ok()).flat_map(|entries| entries.flatten());
    let themes = entries.filter(|entry| is_theme(&entry.path())).filter_map(|entry| entry.file_name().into_string().ok());
    themes.filter(|name| !name.contains(char::is_control)).collect()
}
