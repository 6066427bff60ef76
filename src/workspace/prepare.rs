//! What a session in a directory gets: its MCP servers, checked if that is asked for, and its skills.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::entries::{EntryFile, Kind};
use super::ready::Checked;
use super::resolve::{LeftOut, Origin, Resolved, Server, mcp_servers};
use super::skills::SkillOutcome;
use super::{Inner, Workspace};
use crate::config::{Env, SECRET_VARIABLES, may_be_secret};
use crate::rt::files;

/// What a session gets, and how that came about.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// `mcpServers` for `session/new` (ACP v1): those that are known to fail aren't among them.
    pub mcp_servers: Vec<Value>,
    /// Values of variables that the directory's configuration refers to: whoever logs takes them out.
    pub secrets: Vec<String>,
    /// What became of each server and skill. Whether what failed is fatal is the caller's to say.
    pub report: Report,
}

/// What became of each MCP server and each skill.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The MCP servers: those that the session could get, then those left out.
    pub mcp: Vec<McpOutcome>,
    /// The skills.
    pub skills: Vec<SkillOutcome>,
    /// Configuration files that can't be read, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// What became of an MCP server.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct McpOutcome {
    /// Its name.
    pub name: String,
    /// Where it comes from.
    pub origin: Origin,
    /// What became of it.
    pub status: McpStatus,
    /// How many tools it has, when it is ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<u64>,
    /// Why the session doesn't get it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The last lines of its stderr, when it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr: Option<String>,
    /// How long its check took, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
}

/// What became of an MCP server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum McpStatus {
    /// The session gets it, unchecked.
    Given,
    /// The session gets it; it listed its tools.
    Ready,
    /// It didn't list its tools.
    Failed,
    /// It can't be given to this agent, or not here.
    LeftOut,
}

impl Report {
    /// What doesn't work, one sentence each; empty when all does.
    pub fn failures(&self) -> Vec<String> {
        let mcp = self.mcp.iter().filter_map(|outcome| {
            let error = outcome.error.as_ref()?;
            let stderr = outcome.stderr.iter().map(|stderr| format!("\n{stderr}"));
            Some(format!("MCP server {}: {error}{}", outcome.name, stderr.collect::<String>()))
        });
        let skills = self.skills.iter().filter_map(|outcome| {
            let skill = outcome.skill.iter().map(|skill| format!(" (skill {skill})"));
            Some(format!("skills {}{}: {}", outcome.name, skill.collect::<String>(), outcome.error.as_ref()?))
        });
        self.problems.iter().cloned().chain(mcp).chain(skills).collect()
    }
}

impl McpOutcome {
    fn given(server: &Server, checked: Option<&Checked>) -> Self {
        let mut outcome = Self {
            name: server.name().to_owned(),
            origin: server.origin,
            status: McpStatus::Given,
            tools: None,
            error: None,
            stderr: None,
            duration_ms: checked.map(|checked| checked.duration_ms),
        };
        match checked.map(|checked| &checked.outcome) {
            None => {}
            Some(Ok(tools)) => (outcome.status, outcome.tools) = (McpStatus::Ready, Some(*tools)),
            Some(Err(error)) => (outcome.status, outcome.error) = (McpStatus::Failed, Some(error.clone())),
        }
        outcome.stderr = checked.map(|checked| checked.stderr.clone()).filter(|stderr| !stderr.is_empty());
        outcome
    }

    fn left_out(left_out: &LeftOut) -> Self {
        Self {
            name: left_out.name.clone(),
            origin: left_out.origin,
            status: McpStatus::LeftOut,
            tools: None,
            error: Some(left_out.reason.to_string()),
            stderr: None,
            duration_ms: None,
        }
    }
}

impl Workspace {
    /// Puts a directory's skills in their places, and says which MCP servers a session there gets: `requested_mcp`
    /// (`McpServer`s of ACP, which pass verbatim) and what the directory configures besides. `capabilities` are the
    /// agent's `agentCapabilities`. With `check`, all are started and asked for their tools first, which takes up to
    /// `mcp_check_timeout_max_ms` for each `mcp_checks_max` of them; those that fail aren't given.
    ///
    /// Nothing here is an error: the report names what failed. Dropping the future ends what is being checked; skills that
    /// are being copied go on.
    pub async fn prepare(&self, directory: &Path, requested_mcp: Vec<Value>, capabilities: &Value, check: bool) -> Prepared {
        let (resolved, mut problems) = self.resolve(directory, requested_mcp, capabilities.clone()).await;
        let skills = async {
            match self.entries(directory, Kind::Skills).await {
                Ok(entries) => (self.inner.skills.apply(directory, entries).await, None),
                Err(problem) => (Vec::new(), Some(problem)),
            }
        };
        let checks = async { if check { Some(self.inner.checker.check_all(directory, &resolved.servers).await) } else { None } };
        let ((skills, problem), checks) = tokio::join!(skills, checks);
        problems.extend(problem);
        let (mut mcp, mut mcp_servers) = (Vec::new(), Vec::new());
        for (index, server) in resolved.servers.into_iter().enumerate() {
            let outcome = McpOutcome::given(&server, checks.as_ref().map(|checks| &checks[index]));
            if outcome.status != McpStatus::Failed {
                mcp_servers.push(server.acp);
            }
            mcp.push(outcome);
        }
        mcp.extend(resolved.left_out.iter().map(McpOutcome::left_out));
        let report = Report { mcp, skills, problems };
        Prepared { mcp_servers, secrets: resolved.secrets, report }
    }

    /// Values of variables that the configuration of a directory's MCP servers refers to now.
    pub async fn secrets(&self, directory: &Path) -> Vec<String> {
        self.resolve(directory, Vec::new(), Value::Null).await.0.secrets
    }

    async fn resolve(&self, directory: &Path, requested: Vec<Value>, capabilities: Value) -> (Resolved, Vec<String>) {
        let (configured, problems) = match self.entries(directory, Kind::Mcp).await {
            Ok(entries) => (entries, Vec::new()),
            Err(problem) => (Default::default(), vec![problem]),
        };
        let directory = directory.to_owned();
        let resolve = move |inner: &Inner| {
            let secrets = RefCell::new(BTreeSet::new());
            let env = |name: &str| {
                let value = variable(&inner.env, name)?;
                secrets.borrow_mut().extend(may_be_secret(&value).then(|| value.clone()));
                Some(value)
            };
            let mut resolved = mcp_servers(&directory, &requested, &configured, &capabilities, env);
            resolved.secrets = secrets.into_inner().into_iter().collect();
            let path = inner.env.search_path();
            resolved.servers.iter_mut().for_each(|server| make_absolute(server, &path));
            resolved
        };
        (self.blocking(resolve).await, problems)
    }

    async fn entries(&self, directory: &Path, kind: Kind) -> Result<BTreeMap<String, Value>, String> {
        let directory = directory.to_owned();
        let entries = self.blocking(move |inner| EntryFile::new(&directory, kind, &inner.bounds).read()).await;
        entries.map_err(|error| error.to_string())
    }
}

/// A variable that a configuration refers to. Our own secrets are none: an agent could read them from its servers.
fn variable(env: &Env, name: &str) -> Option<String> {
    if SECRET_VARIABLES.contains(&name) { None } else { env.get(name).map(str::to_owned) }
}

/// ACP asks for an absolute path. A name that isn't found here stays: the agent may have another `PATH`.
fn make_absolute(server: &mut Server, path: &[PathBuf]) {
    let mut variables = server.acp["env"].as_array().into_iter().flatten();
    if server.origin == Origin::Request || server.acp.get("type").is_some() || variables.any(|pair| pair["name"] == "PATH") {
        return;
    }
    let command = server.acp["command"].as_str().filter(|command| !command.contains('/'));
    if let Some(found) = command.and_then(|command| files::find_executable(command, path)) {
        server.acp["command"] = found.to_string_lossy().into_owned().into();
    }
}
