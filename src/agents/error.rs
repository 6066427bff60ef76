//! What can go wrong with agents, without HTTP.

use std::path::PathBuf;

/// Why something about an agent failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No manifest has this id.
    #[error("unsupported agent: {agent}")]
    UnsupportedAgent {
        /// The id as asked for.
        agent: String,
    },
    /// It isn't installed, and may not or can't be installed by itself.
    #[error("agent {agent} is not installed: {help}")]
    NotInstalled {
        /// The agent's id.
        agent: String,
        /// What to do.
        help: String,
    },
    /// Its launcher is there but isn't executable.
    #[error("the launcher of agent {agent} is not executable: run chmod +x {}", path.display())]
    NotExecutable {
        /// The agent's id.
        agent: String,
        /// The launcher.
        path: PathBuf,
    },
    /// Its installation failed; nothing that was there before has changed.
    #[error("installing {agent} failed: {reason}")]
    InstallFailed {
        /// The agent's id.
        agent: String,
        /// Why, and what to do.
        reason: InstallFailure,
        /// The last lines of the installer's output; empty when it never ran.
        output_tail: String,
    },
    /// A manifest can't be used.
    #[error("{origin}: {reason}")]
    BadManifest {
        /// Which: a file name, or words.
        origin: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A manifest can't be written.
    #[error("can't write {}: {cause}", path.display())]
    ManifestNotWritten {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
    /// There are as many manifests as are read.
    #[error("{max} agent manifests are there already, and no more are read")]
    TooManyManifests {
        /// The bound.
        max: u64,
    },
}

/// Why an installation failed, in words that say what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InstallFailure {
    /// `node` isn't on `PATH`.
    #[error("node is not on PATH: install Node.js (with npm), then run: sandboxd install-agent {agent}")]
    NodeMissing {
        /// The agent's id.
        agent: String,
    },
    /// `npm` isn't on `PATH`.
    #[error("npm is required to install {agent} and is not on PATH: install npm, then run: sandboxd install-agent {agent}")]
    NpmMissing {
        /// The agent's id.
        agent: String,
    },
    /// The package asks for another Node.js.
    #[error("{package} needs Node.js {wanted}, and this one is {found}: install a newer Node.js, then install again")]
    NodeTooOld {
        /// Package and version.
        package: String,
        /// Its `engines.node`.
        wanted: String,
        /// What `node --version` says.
        found: Box<str>,
    },
    /// npm can't reach its registry.
    #[error(
        "the npm registry can't be reached: check the network, the proxy variables and npm's registry setting, or put the \
         agent's executable on PATH yourself"
    )]
    RegistryUnreachable,
    /// The registry has no such package or version.
    #[error("the npm registry has no {package}: check the version, or put the agent's executable on PATH yourself")]
    NoSuchPackage {
        /// Package and version.
        package: String,
    },
    /// The registry wants credentials, or doesn't accept those given.
    #[error("the npm registry refused access: check npm's credentials")]
    RegistryRefused,
    /// What was downloaded isn't what was pinned.
    #[error(
        "{package} is not what this server expects: its integrity should be {expected} and is {found}; nothing was installed. \
         Don't use this package before you know why it differs"
    )]
    IntegrityMismatch {
        /// Package and version.
        package: String,
        /// The pinned value.
        expected: String,
        /// What the registry delivered.
        found: Box<str>,
    },
    /// npm itself found that the download doesn't match the registry's checksum.
    #[error("a downloaded package doesn't match its checksum: run npm cache verify, then install again")]
    DownloadDamaged,
    /// No room.
    #[error("the disk is full: make room below {}, then install again", path.display())]
    DiskFull {
        /// Where it was to be installed.
        path: PathBuf,
    },
    /// Not allowed, or another system error.
    #[error("can't write below {}: {cause}", path.display())]
    Io {
        /// Where it was to be installed.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
    /// It took longer than `agent_install_timeout_ms`.
    #[error("it took longer than {timeout_ms} ms and was stopped (SANDBOXD_AGENT_INSTALL_TIMEOUT_MS changes that)")]
    TimedOut {
        /// The bound.
        timeout_ms: u64,
    },
    /// npm failed for a reason that only its output tells.
    #[error("{step} ended with {exit}")]
    Failed {
        /// The command that failed.
        step: String,
        /// How it ended.
        exit: String,
    },
    /// The package came without the executable that the manifest names.
    #[error("{package} has no executable {bin}")]
    NoExecutable {
        /// Package and version.
        package: String,
        /// The name in the manifest.
        bin: String,
    },
    /// A version can't be used.
    #[error("{reason}")]
    BadVersion {
        /// Why.
        reason: String,
    },
    /// No version is pinned, and none was asked for.
    #[error("no version of {package} is pinned here: ask for one (agentProcessVersion, or --agent-process-version VERSION)")]
    NotPinned {
        /// The package.
        package: String,
    },
    /// `agentVersion` was given for an agent that comes with its adapter.
    #[error("{agent} comes with its adapter: choose agentProcessVersion instead of agentVersion")]
    AgentVersionFixed {
        /// The agent's id.
        agent: String,
    },
    /// The manifest has no `[install]`.
    #[error("there is no installer for {agent}: {help}")]
    NoInstaller {
        /// The agent's id.
        agent: String,
        /// What to do.
        help: String,
    },
    /// A child could not be started.
    #[error("{cause}")]
    NotStarted {
        /// What the processes room said.
        cause: String,
    },
    /// The task that installed it is gone: the server is stopping, or there is a bug.
    #[error("the installation was interrupted")]
    Interrupted,
}
