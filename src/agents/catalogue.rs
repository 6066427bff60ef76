//! What is told about agents: `GET /v1/agents` and `GET /v1/agents/{agent}`.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use super::credentials::{self, Credentials};
use super::error::Error;
use super::manifest::{Capabilities, ConfigOption, Manifest, Provider};
use super::resolve::{Adapter, Places};
use super::{Agents, launcher, version};
use crate::config::as_duration;

/// What to tell besides the basics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ListOptions {
    /// Also version, path and config options.
    pub config: bool,
    /// Ask executables for their version anew.
    pub no_cache: bool,
}

/// One agent, as `GET /v1/agents` tells it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentInfo {
    /// Its id.
    pub id: String,
    /// An executable adapter was found just now.
    pub installed: bool,
    /// A credential was found, or none is needed. It is only reported, never handed to the agent.
    pub credentials_available: bool,
    /// What its executable says; only with `config=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Its executable; only with `config=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What it can do.
    pub capabilities: Capabilities,
    /// How its servers fare; the caller fills it in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_status: Option<ServerStatus>,
    /// What can be chosen, without starting the agent; only with `config=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_options: Option<Vec<ConfigOption>>,
    /// Why the version could not be found out; only with `config=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_error: Option<String>,
}

/// How an agent's servers fare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerStatus {
    /// `running` while one of them lives.
    pub status: ServerState,
    /// Age of the oldest living one, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uptime_ms: Option<u64>,
}

/// Whether an agent's server lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ServerState {
    /// At least one lives.
    Running,
    /// All have ended.
    Stopped,
}

/// What the file system says about an agent.
struct Found {
    info: AgentInfo,
    /// The executable to ask for its version, when nothing else tells it.
    ask: Option<std::path::PathBuf>,
}

impl Agents {
    /// All agents: built-in ones in their fixed order, then users' own by id. Cancel safe.
    pub async fn list(&self, options: ListOptions) -> Vec<AgentInfo> {
        let found = self.blocking(move |inner| {
            let roster = inner.registry.roster();
            let credentials = inner.credentials();
            let each = roster.manifests.iter();
            each.map(|manifest| look(&inner.places, manifest, &credentials, options)).collect::<Vec<_>>()
        });
        // Started together, so that the slowest alone decides how long this takes.
        futures_util::future::join_all(found.await.into_iter().map(|found| self.complete(found, options))).await
    }

    /// One agent. Cancel safe.
    ///
    /// # Errors
    /// [`Error::UnsupportedAgent`].
    pub async fn get(&self, id: &str, options: ListOptions) -> Result<AgentInfo, Error> {
        let id = id.to_owned();
        let found = self.blocking(move |inner| {
            let manifest = inner.registry.roster().get(&id)?;
            Ok(look(&inner.places, &manifest, &inner.credentials(), options))
        });
        Ok(self.complete(found.await?, options).await)
    }

    async fn complete(&self, found: Found, options: ListOptions) -> AgentInfo {
        let Found { mut info, ask } = found;
        let Some(program) = ask else { return info };
        let inner = &self.inner;
        let timeout = as_duration(inner.bounds.agent_version_timeout_ms);
        match inner.versions.probe(&inner.children, &program, timeout, options.no_cache).await {
            Ok(version) => info.version = Some(version),
            Err(error) => info.config_error = Some(error),
        }
        info
    }
}

fn look(places: &Places, manifest: &Arc<Manifest>, credentials: &Credentials, options: ListOptions) -> Found {
    let adapter = places.adapter(manifest);
    let native = places.native(manifest);
    let mut info = AgentInfo {
        id: manifest.id.clone(),
        installed: adapter.is_some() && (native.is_some() || !manifest.native.required),
        credentials_available: has_credentials(places, manifest, credentials),
        version: None,
        path: None,
        capabilities: manifest.capabilities,
        server_status: None,
        config_options: None,
        config_error: None,
    };
    if !options.config {
        return Found { info, ask: None };
    }
    info.config_options = Some(manifest.config_options.clone());
    info.version = known_version(places, manifest, adapter.as_ref());
    let on_path = adapter.as_ref().filter(|adapter| matches!(adapter, Adapter::Path(_))).map(Adapter::path);
    // A launcher isn't asked: it may start the agent whatever its arguments.
    let ask = native.as_deref().or(on_path).filter(|_| info.version.is_none()).map(ToOwned::to_owned);
    let shown = native.as_deref().filter(|_| info.version.is_none()).or(adapter.as_ref().map(Adapter::path));
    info.path = shown.map(|path| path.display().to_string());
    Found { info, ask }
}

/// The version, when it is known without starting anything.
fn known_version(places: &Places, manifest: &Manifest, adapter: Option<&Adapter>) -> Option<String> {
    if manifest.launch.builtin.is_some() {
        return Some("builtin".to_owned());
    }
    let ours = match adapter? {
        Adapter::Npm(_) => true,
        Adapter::Launcher(path) => launcher::is_ours(path),
        Adapter::Path(_) | Adapter::BuiltIn(_) => false,
    };
    let npm = manifest.install.npm.as_ref().filter(|_| ours)?;
    let package = npm.companions.first().map_or(&npm.package, |companion| &companion.package);
    version::of_package(&places.current(manifest), package)
}

fn has_credentials(places: &Places, manifest: &Manifest, found: &Credentials) -> bool {
    let needs = &manifest.credentials;
    let nothing_said = needs.any_of.is_empty() && needs.variables.is_empty() && needs.home_files.is_empty();
    let provider = |provider: &Provider| match provider {
        Provider::Anthropic => found.anthropic.is_some(),
        Provider::Openai => found.openai.is_some(),
        Provider::Other => !found.other.is_empty(),
    };
    let file = |file: &String| places.dirs.home.as_ref().is_some_and(|home| home.join(file).is_file());
    needs.none_needed
        || nothing_said
        || needs.any_of.iter().any(provider)
        || needs.variables.iter().any(|name| places.env.get(name).is_some())
        || needs.home_files.iter().any(file)
}

impl super::Inner {
    fn credentials(&self) -> Credentials {
        let home = self.places.dirs.home.clone().unwrap_or_default();
        let options = credentials::DiscoverOptions::new(crate::rt::clock::now_ms(), &self.bounds);
        credentials::discover(&self.places.env, &home, options)
    }
}
