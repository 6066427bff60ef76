//! The workspace room: what is configured per directory for the agents that work there, namely MCP servers and skills.
//!
//! It lies in `<directory>/.sandbox-agent/config/{mcp,skills}.json`, so it travels with the directory. [`Workspace`] is
//! the handle; nothing is held in memory, each call reads the files.

mod entries;
mod error;
mod mcp;
mod prepare;
mod ready;
mod references;
mod resolve;
mod skills;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use error::Error;
pub use mcp::{CommandLine, LocalServer, McpServerConfig, OAuth, RemoteServer, Transport};
pub use prepare::{McpOutcome, McpStatus, Prepared, Report};
pub use resolve::{LeftOut, Origin, Reason, Resolved, Server, mcp_servers};
pub use skills::{SkillOutcome, SkillSource, SkillStatus, SkillsConfig};

use crate::config::{Bounds, Env};
use crate::processes::Children;
use entries::{EntryFile, Kind};

/// What the room needs from outside.
pub struct WorkspaceConfig {
    /// Starts MCP servers to see whether they are ready, and git.
    pub children: Children,
    /// The server's environment: configurations refer to its variables.
    pub env: Env,
    /// Where copies of repositories with skills are kept. No other server may use it.
    pub copies: PathBuf,
    /// Every limit.
    pub bounds: Bounds,
}

/// The handle on the room.
#[derive(Clone)]
pub struct Workspace {
    inner: Arc<Inner>,
}

struct Inner {
    checker: ready::Checker,
    skills: skills::Skills,
    env: Env,
    bounds: Bounds,
    /// Held from reading a file to writing it: of two changes at the same time none is lost.
    changing: Mutex<()>,
}

impl Workspace {
    /// Opens the room; nothing is read or started yet.
    pub fn new(config: WorkspaceConfig) -> Self {
        let WorkspaceConfig { children, env, copies, bounds } = config;
        let skills = skills::Skills::new(copies, env.clone(), children.clone(), bounds.clone());
        let checker = ready::Checker { children, env: env.clone(), bounds: bounds.clone() };
        Self { inner: Arc::new(Inner { checker, skills, env, bounds, changing: Mutex::default() }) }
    }

    /// The MCP server that a directory has under this name, as clients see it.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::InvalidFile`].
    pub async fn mcp_config(&self, directory: &Path, name: &str) -> Result<McpServerConfig, Error> {
        self.get(directory, Kind::Mcp, name).await.map(McpServerConfig::shown)
    }

    /// Adds or replaces an MCP server of a directory. Dropping the future doesn't undo it.
    ///
    /// # Errors
    /// [`Error::InvalidFile`], [`Error::NotWritten`], and one for each bound.
    pub async fn set_mcp_config(&self, directory: &Path, name: &str, config: &McpServerConfig) -> Result<(), Error> {
        self.put(directory, Kind::Mcp, name, config).await
    }

    /// Removes an MCP server of a directory, if there is one. Dropping the future doesn't undo it.
    ///
    /// # Errors
    /// [`Error::InvalidFile`], [`Error::NotWritten`].
    pub async fn delete_mcp_config(&self, directory: &Path, name: &str) -> Result<(), Error> {
        self.delete(directory, Kind::Mcp, name).await
    }

    /// The skills that a directory has under this name, as clients see them.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::InvalidFile`].
    pub async fn skills_config(&self, directory: &Path, name: &str) -> Result<SkillsConfig, Error> {
        self.get(directory, Kind::Skills, name).await.map(SkillsConfig::shown)
    }

    /// Adds or replaces skills of a directory. Dropping the future doesn't undo it.
    ///
    /// # Errors
    /// [`Error::InvalidFile`], [`Error::NotWritten`], and one for each bound.
    pub async fn set_skills_config(&self, directory: &Path, name: &str, config: &SkillsConfig) -> Result<(), Error> {
        self.put(directory, Kind::Skills, name, config).await
    }

    /// Removes skills of a directory, if there are any. Dropping the future doesn't undo it.
    ///
    /// # Errors
    /// [`Error::InvalidFile`], [`Error::NotWritten`].
    pub async fn delete_skills_config(&self, directory: &Path, name: &str) -> Result<(), Error> {
        self.delete(directory, Kind::Skills, name).await
    }

    async fn get<T: DeserializeOwned + Send + 'static>(&self, directory: &Path, kind: Kind, name: &str) -> Result<T, Error> {
        let (directory, name) = (directory.to_owned(), name.to_owned());
        self.blocking(move |inner| EntryFile::new(&directory, kind, &inner.bounds).get(&name)).await
    }

    async fn put<T: Serialize>(&self, directory: &Path, kind: Kind, name: &str, config: &T) -> Result<(), Error> {
        let entry = serde_json::to_value(config).expect("maps have text keys and numbers are finite");
        let (directory, name) = (directory.to_owned(), name.to_owned());
        self.change(move |inner| EntryFile::new(&directory, kind, &inner.bounds).put(&name, entry)).await
    }

    async fn delete(&self, directory: &Path, kind: Kind, name: &str) -> Result<(), Error> {
        let (directory, name) = (directory.to_owned(), name.to_owned());
        self.change(move |inner| EntryFile::new(&directory, kind, &inner.bounds).delete(&name)).await
    }

    async fn change<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> T + Send + 'static) -> T {
        self.blocking(move |inner| {
            let _turn = inner.changing.lock().unwrap_or_else(PoisonError::into_inner); // files are whole at any time
            work(inner)
        })
        .await
    }

    /// Runs what reads and writes files off the async threads.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> T + Send + 'static) -> T {
        let inner = Arc::clone(&self.inner);
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(value) => value,
            Err(error) => std::panic::resume_unwind(error.into_panic()), // never cancelled, so it panicked: a bug
        }
    }
}
