//! The agents room: loads manifests, finds and installs agents, and says how to start them.
//!
//! It starts no agent itself. [`Agents`] is the handle; it can be cloned freely. What there is, is looked up on each
//! call in the file system (manifests, launchers, executables, credentials), so nothing here can be out of date:
//!
//! ```text
//! manifest ──▶ launcher? ──▶ our npm install? ──▶ <data>/bin, PATH? ──▶ install (one owner task per agent) ──▶ Launch
//! ```

mod catalogue;
pub mod credentials;
mod engines;
mod error;
mod install;
mod launcher;
mod manifest;
mod manifest_check;
mod npm;
mod npm_output;
mod progress;
mod registry;
mod resolve;
mod version;

use std::path::PathBuf;
use std::sync::Arc;

pub use catalogue::{AgentInfo, ListOptions, ServerState, ServerStatus};
pub use error::{Error, InstallFailure};
pub use install::{Artifact, ArtifactKind, ArtifactSource, InstallOptions, InstallReport};
pub use manifest::{Capabilities, ConfigOption, Manifest, OptionType, OptionValue, Provider, Quirks, manifest_from_command};
pub use progress::{InstallEvent, InstallPhase, ProgressSink};
pub use resolve::Launch;

use crate::config::{Bounds, Dirs, Env};
use crate::processes::Children;
use crate::rt::files;
pub use crate::rt::manifests::Problem;

/// What the room needs from outside.
pub struct AgentsConfig {
    /// Where manifests and installs lie.
    pub dirs: Dirs,
    /// The server's environment.
    pub env: Env,
    /// Our own executable, which is the mock agent too.
    pub self_exe: PathBuf,
    /// Every limit.
    pub bounds: Bounds,
    /// Missing agents are an error instead of being installed on first use.
    pub require_preinstall: bool,
    /// Starts npm and version probes.
    pub children: Children,
    /// Is called for each step of an installation, on the task that does it: it must not block.
    pub progress: ProgressSink,
}

/// The handle on the room.
#[derive(Clone)]
pub struct Agents {
    inner: Arc<Inner>,
}

struct Inner {
    registry: registry::Registry,
    places: resolve::Places,
    versions: version::Versions,
    installs: install::Installs,
    bounds: Bounds,
    require_preinstall: bool,
    children: Children,
    progress: ProgressSink,
}

impl Agents {
    /// Opens the room; nothing is read or started yet.
    pub fn new(config: AgentsConfig) -> Self {
        let AgentsConfig { dirs, env, self_exe, bounds, require_preinstall, children, progress } = config;
        let registry = registry::Registry::new(&dirs.config, &bounds);
        let places = resolve::Places { dirs, env, self_exe };
        let (versions, installs) = Default::default();
        let inner = Inner { registry, places, versions, installs, bounds, require_preinstall, children, progress };
        Self { inner: Arc::new(inner) }
    }

    /// The manifest of an agent, as its file says now. Reads the file system.
    ///
    /// # Errors
    /// [`Error::UnsupportedAgent`].
    pub fn manifest(&self, id: &str) -> Result<Arc<Manifest>, Error> {
        self.inner.registry.roster().get(id)
    }

    /// Users' manifests that are not used, and why. Reads the file system.
    pub fn problems(&self) -> Vec<Problem> {
        self.inner.registry.roster().problems.clone()
    }

    /// Checks a manifest and writes it as `<config dir>/agents/<id>.toml`, replacing an earlier one of the same id.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// [`Error::BadManifest`], [`Error::TooManyManifests`], [`Error::ManifestNotWritten`].
    pub fn add(&self, manifest: &str) -> Result<PathBuf, Error> {
        self.inner.registry.add(manifest)
    }

    /// How to start an agent; installs it first when it is missing, unless `require_preinstall`.
    ///
    /// Takes as long as the installation does. Dropping the future doesn't stop the installation.
    ///
    /// # Errors
    /// [`Error::UnsupportedAgent`], [`Error::NotInstalled`], [`Error::NotExecutable`], [`Error::InstallFailed`].
    pub async fn launch(&self, id: &str) -> Result<Launch, Error> {
        let manifest = self.find(id).await?;
        match self.resolve(&manifest).await {
            Some(launch) => return Ok(launch),
            None => self.may_install(&manifest)?,
        }
        self.install(id, InstallOptions::default()).await?;
        let help = self.how_to_install(&manifest); // the adapter is there, so it is the native binary that is missing
        self.resolve(&manifest).await.ok_or(Error::NotInstalled { agent: manifest.id.clone(), help })
    }

    async fn find(&self, id: &str) -> Result<Arc<Manifest>, Error> {
        let id = id.to_owned();
        self.blocking(move |inner| inner.registry.roster().get(&id)).await
    }

    async fn resolve(&self, manifest: &Arc<Manifest>) -> Option<Launch> {
        let manifest = Arc::clone(manifest);
        self.blocking(move |inner| {
            let places = &inner.places;
            let adapter = places.adapter(&manifest).filter(|_| places.is_installed(&manifest))?;
            Some(places.launch(&manifest, &adapter))
        })
        .await
    }

    /// Says why an agent that is missing can't be installed on first use.
    fn may_install(&self, manifest: &Manifest) -> Result<(), Error> {
        let agent = manifest.id.clone();
        let launcher = self.inner.places.launcher(manifest);
        if launcher.is_file() && !files::is_executable(&launcher) {
            return Err(Error::NotExecutable { agent, path: launcher }); // a user's own file isn't replaced unasked
        }
        let pinned = manifest.install.npm.as_ref().is_some_and(|npm| npm.version.is_some());
        if pinned && !self.inner.require_preinstall {
            return Ok(());
        }
        Err(Error::NotInstalled { agent, help: self.how_to_install(manifest) })
    }

    fn how_to_install(&self, manifest: &Manifest) -> String {
        let mut ways = Vec::new();
        match &manifest.install.npm {
            Some(npm) if npm.version.is_some() => ways.push(format!("run sandboxd install-agent {}", manifest.id)),
            Some(_) => ways.push(format!("run sandboxd install-agent {} --agent-process-version VERSION", manifest.id)),
            None => {}
        }
        if !manifest.launch.path_names.is_empty() {
            ways.push(format!("put {} on PATH", manifest.launch.path_names.join(" or ")));
        }
        ways.push(format!("put an executable launcher at {}", self.inner.places.launcher(manifest).display()));
        if manifest.native.required {
            ways.push(format!("besides, put {} on PATH", manifest.native.names.join(" or ")));
        }
        ways.join(", or ")
    }

    /// Runs what reads the file system off the async threads.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> T + Send + 'static) -> T {
        let inner = Arc::clone(&self.inner);
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(value) => value,
            Err(error) => std::panic::resume_unwind(error.into_panic()), // never cancelled, so it panicked: a bug
        }
    }
}
