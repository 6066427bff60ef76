//! Installing agents: one owner task per agent, whoever asks.
//!
//! ```text
//! asked ─▶ queued (file lock against other processes) ─▶ downloading ─▶ verifying ─▶ linking ─▶ done
//!                                                             └────────────┴───────────┴─▶ failed: nothing changed
//! ```
//!
//! A caller that goes away stops nothing. A new version is made in a staging directory, so that one which is cut short
//! leaves only that, and the next installation removes it.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::error::{Error, InstallFailure};
use super::manifest::Manifest;
use super::progress::{InstallPhase, Progress};
use super::{Agents, Inner, files, launcher, npm};
use crate::config::as_duration;
use crate::rt::spawn_owned;

/// How often the lock of another process's installation is tried again.
const LOCK_POLL: Duration = Duration::from_millis(200);

/// What is to be installed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct InstallOptions {
    /// Install although something is there. Without it, versions are only looked at when nothing is there.
    pub reinstall: bool,
    /// The agent's version, where it is a package of its own (opencode, gemini, pi).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
    /// The adapter's version. There is no pinned checksum for another version than the manifest's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_process_version: Option<String>,
}

/// What was installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct InstallReport {
    /// There was nothing to do.
    pub already_installed: bool,
    /// What is new, the adapter first.
    pub artifacts: Vec<Artifact>,
}

/// One thing that was installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Artifact {
    /// What it is.
    pub kind: ArtifactKind,
    /// Its executable.
    pub path: String,
    /// Who chose its version.
    pub source: ArtifactSource,
    /// Its version, when it is known.
    pub version: Option<String>,
}

/// What an artifact is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ArtifactKind {
    /// What speaks ACP.
    AgentProcess,
    /// What the adapter starts.
    NativeAgent,
}

/// Who chose an artifact's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ArtifactSource {
    /// The caller: it comes from the registry and was not compared with anything pinned.
    Registry,
    /// The manifest: it is the pinned one, and its integrity was compared when the manifest gives it.
    Fallback,
    /// A file of this machine.
    LocalPath,
    /// Part of this executable.
    Builtin,
}

impl InstallReport {
    /// The report as `install-agent` prints it: camelCase keys and CamelCase values.
    pub fn to_cli_json(&self) -> Value {
        let artifact = |artifact: &Artifact| {
            json!({
                "kind": format!("{:?}", artifact.kind),
                "path": artifact.path,
                "source": format!("{:?}", artifact.source),
                "version": artifact.version,
            })
        };
        json!({
            "alreadyInstalled": self.already_installed,
            "artifacts": self.artifacts.iter().map(artifact).collect::<Vec<_>>(),
        })
    }
}

/// How an installation ended, for all who wait for it.
type Outcome = Result<InstallReport, Error>;

/// Follows an installation to its end.
type Following = watch::Receiver<Option<Outcome>>;

/// The installations that run, by agent and what was asked for.
#[derive(Default)]
pub(super) struct Installs {
    running: Mutex<HashMap<(String, InstallOptions), Following>>,
}

impl Agents {
    /// Installs an agent and says what is new.
    ///
    /// Callers that ask for the same at the same time share one installation; another process's is waited for.
    /// Dropping the future doesn't stop it. Takes at most `agent_install_timeout_ms`.
    ///
    /// # Errors
    /// [`Error::UnsupportedAgent`], or [`Error::InstallFailed`] with the reason, what to do, and the end of npm's output.
    pub async fn install(&self, id: &str, options: InstallOptions) -> Result<InstallReport, Error> {
        let manifest = self.find(id).await?;
        let mut outcome = self.join(manifest, options);
        let interrupted = || InstallFailure::Interrupted.of(id);
        match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or_else(|| Err(interrupted())),
            Err(_) => Err(interrupted()),
        }
    }

    /// The running installation of the same, or a new one.
    fn join(&self, manifest: Arc<Manifest>, options: InstallOptions) -> Following {
        let key = (manifest.id.clone(), options);
        let mut running = self.inner.installs.running.lock().unwrap_or_else(PoisonError::into_inner);
        // A closed channel is one whose task is gone without an outcome: it panicked, and its entry is replaced.
        if let Some(outcome) = running.get(&key).filter(|outcome| outcome.has_changed().is_ok()) {
            return outcome.clone();
        }
        let (publish, outcome) = watch::channel(None);
        running.insert(key.clone(), outcome.clone());
        let inner = Arc::clone(&self.inner);
        spawn_owned("install", async move {
            let outcome = inner.install(&manifest, &key.1).await;
            inner.installs.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            publish.send_replace(Some(outcome));
        });
        outcome
    }
}

impl Inner {
    async fn install(&self, manifest: &Manifest, options: &InstallOptions) -> Outcome {
        if !options.reinstall && self.has_all(manifest) {
            return Ok(InstallReport { already_installed: true, artifacts: Vec::new() });
        }
        let progress = Progress::new(&manifest.id, &self.progress, self.bounds.agent_install_events_max);
        progress.step(InstallPhase::Queued, format!("installing {}", manifest.name));
        let outcome = self.install_locked(manifest, options, &progress).await;
        match &outcome {
            Ok(_) => progress.step(InstallPhase::Done, format!("{} is installed", manifest.name)),
            Err(error) => progress.step(InstallPhase::Failed, error.to_string()),
        }
        outcome
    }

    async fn install_locked(&self, manifest: &Manifest, options: &InstallOptions, progress: &Progress) -> Outcome {
        let deadline = Instant::now() + as_duration(self.bounds.agent_install_timeout_ms);
        let bin = self.places.dirs.bin();
        let _lock = self.lock(&bin, &manifest.id, deadline).await.map_err(|reason| reason.of(&manifest.id))?;
        if !options.reinstall && self.has_all(manifest) {
            return Ok(InstallReport { already_installed: true, artifacts: Vec::new() }); // another process was faster
        }
        let artifacts = if let Some(builtin) = &manifest.launch.builtin {
            self.install_builtin(manifest, builtin).map_err(|reason| reason.of(&manifest.id))?
        } else if let Some(package) = &manifest.install.npm {
            npm::install(self, manifest, package, options, progress, deadline).await?
        } else {
            let help = format!("put {} on PATH", manifest.launch.path_names.join(" or "));
            return Err(InstallFailure::NoInstaller { agent: manifest.id.clone(), help }.of(&manifest.id));
        };
        Ok(InstallReport { already_installed: false, artifacts })
    }

    /// True when there is nothing to install.
    fn has_all(&self, manifest: &Manifest) -> bool {
        match manifest.launch.builtin {
            Some(_) => files::is_executable(&self.places.launcher(manifest)),
            None => self.places.is_installed(manifest),
        }
    }

    fn install_builtin(&self, manifest: &Manifest, subcommand: &str) -> Result<Vec<Artifact>, InstallFailure> {
        let path = self.places.launcher(manifest);
        let script = launcher::for_builtin(&self.places.self_exe, subcommand);
        launcher::write(&path, &script).map_err(|error| InstallFailure::from_io(&path, &error))?;
        Ok(vec![Artifact {
            kind: ArtifactKind::AgentProcess,
            path: path.display().to_string(),
            source: ArtifactSource::Builtin,
            version: Some("builtin".to_owned()),
        }])
    }

    /// Waits for the agent's lock file. The lock ends with this process, however it ends; no child inherits it.
    async fn lock(&self, bin: &Path, id: &str, deadline: Instant) -> Result<Flock<File>, InstallFailure> {
        let path = bin.join(format!(".install-{id}.lock"));
        let io = |error: std::io::Error| InstallFailure::from_io(&path, &error);
        std::fs::create_dir_all(bin).map_err(io)?;
        let open = File::options().create(true).truncate(false).write(true).open(&path);
        let mut file = open.map_err(io)?;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(lock),
                Err((back, Errno::EWOULDBLOCK | Errno::EINTR)) if Instant::now() < deadline => file = back,
                Err((_, Errno::EWOULDBLOCK)) => {
                    return Err(InstallFailure::TimedOut { timeout_ms: self.bounds.agent_install_timeout_ms });
                }
                Err((_, errno)) => return Err(io(errno.into())),
            }
            tokio::time::sleep(LOCK_POLL).await;
        }
    }
}

impl InstallFailure {
    /// The error of an agent whose installer never ran.
    pub(super) fn of(self, agent: &str) -> Error {
        Error::InstallFailed { agent: agent.to_owned(), reason: self, output_tail: String::new() }
    }

    pub(super) fn from_io(path: &Path, error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::DiskFull { path: path.to_owned() },
            _ => Self::Io { path: path.to_owned(), cause: error.to_string() },
        }
    }
}
