//! Where an agent's executable lies, and how it is started.
//!
//! The adapter is looked for in this order: the launcher `<data>/bin/agent_processes/<launcher>`, our own npm install
//! `<data>/bin/agent_processes/<id>/current`, `<data>/bin`, `PATH`. Everything is looked up anew on each call: nothing
//! says "installed" that can't be executed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::files::{find_executable, is_executable};
use super::manifest::{Manifest, Quirks};
use crate::config::{Dirs, Env};

/// Tells a launcher of the mock agent where our executable is, as the contract has it.
pub(super) const SELF_VARIABLE: &str = "SANDBOX_AGENT_BIN";

/// How an agent process is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The executable, absolute.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Variables on top of the server's environment.
    pub env: Vec<(OsString, OsString)>,
    /// Where the agent departs from the protocol.
    pub quirks: Quirks,
}

/// What was found of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Adapter {
    /// A launcher file: it brings its own arguments.
    Launcher(PathBuf),
    /// Our own npm install, without its launcher.
    Npm(PathBuf),
    /// In `<data>/bin` or on `PATH`.
    Path(PathBuf),
    /// Our own executable.
    BuiltIn(PathBuf),
}

impl Adapter {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Launcher(path) | Self::Npm(path) | Self::Path(path) | Self::BuiltIn(path) => path,
        }
    }
}

/// What resolving looks at.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub(super) dirs: Dirs,
    pub(super) env: Env,
    pub(super) self_exe: PathBuf,
}

impl Places {
    /// Where launchers and installs lie.
    pub(super) fn agent_processes(&self) -> PathBuf {
        self.dirs.bin().join("agent_processes")
    }

    pub(super) fn launcher(&self, manifest: &Manifest) -> PathBuf {
        self.agent_processes().join(manifest.launcher())
    }

    /// The link to the version of the agent that we installed.
    pub(super) fn current(&self, manifest: &Manifest) -> PathBuf {
        self.agent_processes().join(&manifest.id).join("current")
    }

    fn search(&self) -> Vec<PathBuf> {
        std::iter::once(self.dirs.bin()).chain(self.env.search_path()).collect()
    }

    /// The executable `name` on `PATH`.
    pub(super) fn on_path(&self, name: &str) -> Option<PathBuf> {
        find_executable(name, &self.env.search_path())
    }

    /// The agent's own binary, when its manifest names one and it is there.
    pub(super) fn native(&self, manifest: &Manifest) -> Option<PathBuf> {
        let dirs = self.search();
        manifest.native.names.iter().find_map(|name| find_executable(name, &dirs))
    }

    /// The adapter, when there is one that can be executed.
    pub(super) fn adapter(&self, manifest: &Manifest) -> Option<Adapter> {
        let launcher = self.launcher(manifest);
        if is_executable(&launcher) {
            return Some(Adapter::Launcher(launcher));
        }
        if manifest.launch.builtin.is_some() {
            return Some(Adapter::BuiltIn(self.self_exe.clone()));
        }
        let npm = manifest.install.npm.as_ref();
        let bin = npm.map(|npm| self.current(manifest).join("node_modules/.bin").join(&npm.bin));
        if let Some(bin) = bin.filter(|bin| is_executable(bin)) {
            return Some(Adapter::Npm(bin));
        }
        let dirs = self.search();
        manifest.launch.path_names.iter().find_map(|name| find_executable(name, &dirs)).map(Adapter::Path)
    }

    /// True when the agent could be started now.
    pub(super) fn is_installed(&self, manifest: &Manifest) -> bool {
        let native = !manifest.native.required || self.native(manifest).is_some();
        native && self.adapter(manifest).is_some()
    }

    /// How to start what was found.
    pub(super) fn launch(&self, manifest: &Manifest, adapter: &Adapter) -> Launch {
        let mut env = self.variables(manifest);
        let own_args = || manifest.launch.args.iter().map(OsString::from).collect();
        let args = match adapter {
            Adapter::Launcher(_) => Vec::new(),
            Adapter::BuiltIn(_) => manifest.launch.builtin.iter().map(OsString::from).collect(),
            Adapter::Path(_) => own_args(),
            Adapter::Npm(bin) => {
                let companions = manifest.install.npm.as_ref().is_some_and(|npm| !npm.companions.is_empty());
                env.extend(bin.parent().filter(|_| companions).map(|dir| ("PATH".into(), self.path_with(dir))));
                own_args()
            }
        };
        if manifest.launch.builtin.is_some() {
            env.push((SELF_VARIABLE.into(), self.self_exe.clone().into_os_string()));
        }
        Launch { program: adapter.path().to_owned(), args, env, quirks: manifest.quirks }
    }

    /// The manifest's variables, without those that the server's environment has: a user's own setting wins.
    fn variables(&self, manifest: &Manifest) -> Vec<(OsString, OsString)> {
        let root = nix::unistd::geteuid().is_root();
        let if_root = manifest.launch.env_if_root.iter().filter(|_| root);
        let ours = manifest.launch.env.iter().chain(if_root).filter(|(name, _)| self.env.get(name).is_none());
        ours.map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn path_with(&self, dir: &Path) -> OsString {
        let dirs = std::iter::once(dir.to_owned()).chain(self.env.search_path());
        std::env::join_paths(dirs).unwrap_or_else(|_| dir.into()) // a directory with a colon can't stand in PATH
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::registry::BUILT_IN;
    use std::os::unix::fs::PermissionsExt as _;

    fn manifest(id: &str) -> Manifest {
        Manifest::parse(BUILT_IN.iter().find(|(name, _)| *name == id).expect("built in").1, id).expect("valid")
    }

    fn places(home: &Path, more: &[(&str, &str)]) -> Places {
        let own = [("HOME", home.display().to_string()), ("PATH", home.join("path").display().to_string())];
        let more = more.iter().map(|(name, value)| (*name, (*value).to_owned()));
        let env = Env::from_pairs(own.into_iter().chain(more));
        Places { dirs: Dirs::resolve(&env, None).expect("home"), env, self_exe: "/self".into() }
    }

    fn put(path: &Path) {
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("created");
        std::fs::write(path, "#!/bin/sh\n").expect("written");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("executable");
    }

    #[test]
    fn the_launcher_comes_first_and_path_last() {
        let home = tempfile::tempdir().expect("temporary directory");
        let places = places(home.path(), &[]);
        let opencode = manifest("opencode");
        assert_eq!(places.adapter(&opencode), None);
        let path = home.path().join("path/opencode");
        put(&path);
        assert_eq!(places.adapter(&opencode), Some(Adapter::Path(path.clone())));
        assert_eq!(places.launch(&opencode, &Adapter::Path(path)).args, ["acp"]);
        let bin = places.dirs.bin().join("opencode");
        put(&bin);
        assert_eq!(places.adapter(&opencode), Some(Adapter::Path(bin)));
        let npm = places.current(&opencode).join("node_modules/.bin/opencode");
        put(&npm);
        assert_eq!(places.adapter(&opencode), Some(Adapter::Npm(npm)));
        let launcher = places.launcher(&opencode);
        put(&launcher);
        assert_eq!(places.adapter(&opencode), Some(Adapter::Launcher(launcher.clone())));
        assert!(places.launch(&opencode, &Adapter::Launcher(launcher)).args.is_empty(), "a launcher brings its own");
    }

    #[test]
    fn what_can_not_be_executed_is_not_there() {
        let home = tempfile::tempdir().expect("temporary directory");
        let places = places(home.path(), &[]);
        let launcher = places.launcher(&manifest("claude"));
        std::fs::create_dir_all(&launcher).expect("a directory in its place");
        assert!(!places.is_installed(&manifest("claude")));
    }

    #[test]
    fn a_user_s_own_variable_wins() {
        let mut manifest = manifest("claude");
        manifest.launch.env = [("MODE".to_owned(), "ours".to_owned())].into();
        let adapter = Adapter::Launcher("/x".into());
        let has = |more: &[(&str, &str)], name: &str| {
            let launch = places(Path::new("/h"), more).launch(&manifest, &adapter);
            launch.env.iter().any(|(variable, _)| variable == name)
        };
        assert!(has(&[], "MODE") && !has(&[("MODE", "theirs")], "MODE"));
        assert_eq!(has(&[], "IS_SANDBOX"), nix::unistd::geteuid().is_root());
        assert!(!has(&[("IS_SANDBOX", "0")], "IS_SANDBOX"));
    }

    #[test]
    fn a_native_binary_counts_only_where_it_is_required() {
        let home = tempfile::tempdir().expect("temporary directory");
        let places = places(home.path(), &[]);
        let mut manifest = manifest("claude");
        put(&places.launcher(&manifest));
        assert!(places.is_installed(&manifest));
        manifest.native.required = true;
        assert!(!places.is_installed(&manifest));
        put(&places.dirs.bin().join("claude"));
        assert!(places.is_installed(&manifest));
    }

    #[test]
    fn companions_are_first_on_the_agent_s_path() {
        let places = places(Path::new("/h"), &[]);
        let adapter = Adapter::Npm("/n/node_modules/.bin/pi-acp".into());
        let env = places.launch(&manifest("pi"), &adapter).env;
        assert_eq!(env, [("PATH".into(), "/n/node_modules/.bin:/h/path".into())]);
    }
}
