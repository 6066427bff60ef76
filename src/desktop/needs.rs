//! What has to be installed for a desktop, and how.

use std::path::{Path, PathBuf};

use super::types::OptionalDependency;
use crate::config::Env;

/// Without these there is no desktop.
const REQUIRED: &[&str] = &["Xvfb", "openbox"];

/// Without these something of it doesn't work.
const OPTIONAL: &[(&str, &str)] = &[
    ("dbus-daemon", "a D-Bus session, and with it the accessibility tree"),
    ("xdg-open", "POST /v1/desktop/open"),
    ("xterm", "the terminal in the desktop's menu"),
];

/// What brings the accessibility bus; distributions keep it out of the PATH.
pub(super) const LAUNCHER: &str = "at-spi-bus-launcher";

/// Where it is beside a directory of the PATH: Debian 12, Fedora and Alpine; openSUSE; Debian 11; Arch.
const LAUNCHER_DIRS: &[&str] = &["libexec", "libexec/at-spi2", "lib/at-spi2-core", "lib", "lib64/at-spi2"];

/// What a distribution installs packages with, and what they are called there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum PackageManager {
    Apt,
    Dnf,
    Apk,
}

impl PackageManager {
    /// All, in the order in which they are looked for.
    pub const ALL: [Self; 3] = [Self::Apt, Self::Dnf, Self::Apk];

    /// The one with this name: `apt`, `dnf` or `apk`.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|manager| manager.name() == name)
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Apt => "apt",
            Self::Dnf => "dnf",
            Self::Apk => "apk",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::Apt => "apt-get",
            Self::Dnf => "dnf",
            Self::Apk => "apk",
        }
    }

    /// The first that is in this PATH.
    pub fn of_system(env: &Env) -> Option<Self> {
        Self::ALL.into_iter().find(|manager| is_there(env, manager.program()))
    }

    /// The packages of a desktop; fonts last, and only `with_fonts`.
    pub fn packages(self, with_fonts: bool) -> Vec<&'static str> {
        let (programs, fonts): (&[&str], &[&str]) = match self {
            Self::Apt => {
                (&["xvfb", "openbox", "xterm", "dbus", "at-spi2-core", "xdg-utils", "adwaita-icon-theme"], &["fonts-dejavu-core"])
            }
            Self::Dnf => (
                &["xorg-x11-server-Xvfb", "openbox", "xterm", "dbus-daemon", "at-spi2-core", "xdg-utils", "adwaita-cursor-theme"],
                &["dejavu-sans-fonts", "dejavu-sans-mono-fonts"],
            ),
            Self::Apk => (
                &["xvfb", "openbox", "xterm", "dbus", "at-spi2-core", "xdg-utils", "adwaita-icon-theme", "xkbcomp"],
                &["ttf-dejavu"],
            ),
        };
        programs.iter().chain(fonts.iter().filter(|_| with_fonts)).copied().collect()
    }

    /// The commands that install them, each a program with its arguments.
    pub fn commands(self, with_fonts: bool) -> Vec<Vec<String>> {
        let with = |words: &[&str]| -> Vec<String> {
            words.iter().copied().chain(self.packages(with_fonts)).map(str::to_owned).collect()
        };
        match self {
            Self::Apt => vec![
                vec!["apt-get".to_owned(), "update".to_owned()],
                with(&["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "--no-install-recommends"]),
            ],
            Self::Dnf => vec![with(&["dnf", "install", "-y", "--setopt=install_weak_deps=False"])],
            Self::Apk => vec![with(&["apk", "add", "--no-cache"])],
        }
    }
}

/// Programs that a desktop can't do without, and that aren't in this PATH.
pub(super) fn missing(env: &Env) -> Vec<String> {
    REQUIRED.iter().filter(|program| !is_there(env, program)).map(|program| (*program).to_owned()).collect()
}

/// Programs whose lack is told.
pub(super) fn optional(env: &Env) -> Vec<OptionalDependency> {
    let lacking = OPTIONAL.iter().filter(|(program, _)| !is_there(env, program));
    let tree = (LAUNCHER, "the accessibility tree");
    lacking
        .chain(launcher(env).is_none().then_some(&tree))
        .map(|(name, needed_for)| OptionalDependency { name: (*name).to_owned(), needed_for: (*needed_for).to_owned() })
        .collect()
}

/// What a user types to install what is missing.
pub(super) const INSTALL_COMMAND: &str = "sandboxd install desktop --yes";

/// The path of a program in this PATH.
pub(super) fn find(env: &Env, program: &str) -> Option<PathBuf> {
    env.search_path().into_iter().map(|dir| dir.join(program)).find(|path| is_executable(path))
}

/// The program that brings the accessibility bus.
pub(super) fn launcher(env: &Env) -> Option<PathBuf> {
    let beside = |dir: PathBuf| {
        let prefix = dir.parent().map(Path::to_path_buf).unwrap_or_default();
        LAUNCHER_DIRS.iter().map(move |place| prefix.join(place).join(LAUNCHER))
    };
    find(env, LAUNCHER).or_else(|| env.search_path().into_iter().flat_map(beside).find(|path| is_executable(path)))
}

fn is_there(env: &Env, program: &str) -> bool {
    find(env, program).is_some()
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_in_order() {
        let nothing = Env::from_pairs([("PATH", "/nowhere")]);
        assert_eq!(missing(&nothing), ["Xvfb", "openbox"]);
        assert_eq!(optional(&nothing).len(), OPTIONAL.len() + 1);
        assert_eq!(PackageManager::of_system(&nothing), None);
    }

    #[test]
    fn the_launcher_is_found_beside_the_path() {
        let dir = tempfile::tempdir().expect("a directory");
        let bin = dir.path().join("bin").to_string_lossy().into_owned();
        let env = Env::from_pairs([("PATH", bin.as_str())]);
        assert_eq!(launcher(&env), None);
        for place in ["lib/at-spi2-core", "libexec"] {
            let path = dir.path().join(place).join(LAUNCHER);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::os::unix::fs::symlink("/bin/sh", &path).expect("linked");
            assert_eq!(launcher(&env), Some(path));
        }
    }

    #[test]
    fn each_manager_installs_what_is_required() {
        for manager in PackageManager::ALL {
            let commands = manager.commands(true);
            let last = commands.last().expect("a command");
            assert!(last.iter().any(|word| word.to_lowercase().contains("xvfb")), "{last:?}");
            assert!(last.contains(&"openbox".to_owned()), "{last:?}");
            assert_eq!(PackageManager::named(manager.name()), Some(manager));
            assert!(manager.packages(true).len() > manager.packages(false).len());
        }
    }
}
