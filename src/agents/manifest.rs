//! What an agent is: one TOML file, the same for built-in agents and for those that users add.
//!
//! The shape is published as `schemas/agent-manifest.schema.json`; a test holds the two together. [`Manifest::parse`]
//! is the only way in, so a manifest in memory is always a valid one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::Error;
use super::manifest_check as check;

/// The manifest format that is understood.
pub(super) const SCHEMA_VERSION: u32 = 1;

/// The value of `launch.builtin` that starts our own executable.
pub(super) const MOCK_SUBCOMMAND: &str = "mock-agent-process";

/// One agent, as its file describes it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// 1: the manifest format that is understood.
    pub schema: u32,
    /// The id that requests use: lower-case letters, digits, `.`, `_`, `-`; at most 64.
    pub id: String,
    /// The name for people.
    pub name: String,
    /// One sentence for people.
    #[serde(default)]
    pub description: String,
    /// How its process is found and started.
    pub launch: LaunchSection,
    /// The agent's own binary, when that is another file than the ACP adapter.
    #[serde(default)]
    pub native: NativeSection,
    /// How it is installed; without it, users install it themselves.
    #[serde(default)]
    pub install: InstallSection,
    /// What it needs to reach its model.
    #[serde(default)]
    pub credentials: CredentialsSection,
    /// What it can do.
    #[serde(default)]
    pub capabilities: Capabilities,
    /// What can be chosen, as far as it is known without starting the agent.
    #[serde(default)]
    pub config_options: Vec<ConfigOption>,
    /// Where it departs from the protocol.
    #[serde(default)]
    pub quirks: Quirks,
}

/// How the agent's process is found and started.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchSection {
    /// File name below `<data>/bin/agent_processes/`, looked for first and started without arguments; `<id>-acp` when
    /// absent.
    pub launcher: Option<String>,
    /// Executables looked up in `<data>/bin` and on `PATH`; an absolute path is taken as it is.
    #[serde(default)]
    pub path_names: Vec<String>,
    /// Arguments for everything but the launcher file, which brings its own.
    #[serde(default)]
    pub args: Vec<String>,
    /// Variables set for the agent unless the server's environment has them.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The same, only when the server runs as root.
    #[serde(default)]
    pub env_if_root: BTreeMap<String, String>,
    /// A subcommand of our own executable that is the agent: `mock-agent-process`.
    pub builtin: Option<String>,
}

/// The agent's own binary.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NativeSection {
    /// Names looked up in `<data>/bin` and on `PATH`.
    #[serde(default)]
    pub names: Vec<String>,
    /// True when the adapter is useless without it.
    #[serde(default)]
    pub required: bool,
}

/// How the agent is installed.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstallSection {
    /// From the npm registry.
    pub npm: Option<NpmPackage>,
}

/// An npm package with an executable.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NpmPackage {
    /// The package's name.
    pub package: String,
    /// The pinned version; without it, installing asks the caller for one.
    pub version: Option<String>,
    /// The pinned version's `dist.integrity`; without it, only npm's own check is made.
    pub integrity: Option<String>,
    /// The executable's name in `node_modules/.bin`.
    pub bin: String,
    /// True when the package is the agent itself rather than an adapter, so that `agentVersion` means its version.
    #[serde(default)]
    pub agent_is_package: bool,
    /// Packages whose install scripts run, after the pinned packages were verified. No other package's do.
    #[serde(default)]
    pub run_scripts: Vec<String>,
    /// Packages installed beside it, whose executables the agent finds first on its `PATH`.
    #[serde(default)]
    pub companions: Vec<Companion>,
}

/// A package installed beside the main one.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Companion {
    /// The package's name.
    pub package: String,
    /// The pinned version.
    pub version: String,
    /// The pinned version's `dist.integrity`.
    pub integrity: Option<String>,
    /// The executable's name in `node_modules/.bin`.
    pub bin: String,
}

/// What makes `credentialsAvailable` true: any of these. A manifest that says nothing needs nothing.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialsSection {
    /// A credential of one of these providers was found.
    #[serde(default)]
    pub any_of: Vec<Provider>,
    /// One of these variables is set and not empty.
    #[serde(default)]
    pub variables: Vec<String>,
    /// One of these files exists, relative to the home directory.
    #[serde(default)]
    pub home_files: Vec<String>,
    /// It brings or asks for its own.
    #[serde(default)]
    pub none_needed: bool,
}

/// Who a credential is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    /// Anthropic.
    Anthropic,
    /// OpenAI.
    Openai,
    /// Any further provider in OpenCode's file.
    Other,
}

/// Where an agent departs from the protocol, so that its requests are adapted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quirks {
    /// `initialize.params.protocolVersion` must be a number.
    pub protocol_version_number: bool,
    /// `session/new` must carry `mcpServers`.
    pub session_new_mcp_servers: bool,
}

/// What an agent can do. A manifest that leaves one out has the default: false, but true for `tool_calls`,
/// `tool_results` and `text_messages`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default, rename_all(serialize = "camelCase", deserialize = "snake_case"))]
#[schema(rename_all = "camelCase")]
#[allow(missing_docs)] // the names are the contract's, and say what there is to say
pub struct Capabilities {
    #[schema(required)]
    pub plan_mode: bool,
    #[schema(required)]
    pub permissions: bool,
    #[schema(required)]
    pub questions: bool,
    #[schema(required)]
    pub tool_calls: bool,
    #[schema(required)]
    pub tool_results: bool,
    #[schema(required)]
    pub text_messages: bool,
    #[schema(required)]
    pub images: bool,
    #[schema(required)]
    pub file_attachments: bool,
    #[schema(required)]
    pub session_lifecycle: bool,
    #[schema(required)]
    pub error_events: bool,
    #[schema(required)]
    pub reasoning: bool,
    #[schema(required)]
    pub status: bool,
    #[schema(required)]
    pub command_execution: bool,
    #[schema(required)]
    pub file_changes: bool,
    #[schema(required)]
    pub mcp_tools: bool,
    #[schema(required)]
    pub streaming_deltas: bool,
    #[schema(required)]
    pub item_started: bool,
    #[schema(required)]
    pub shared_process: bool,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            plan_mode: false,
            permissions: false,
            questions: false,
            tool_calls: true,
            tool_results: true,
            text_messages: true,
            images: false,
            file_attachments: false,
            session_lifecycle: false,
            error_events: false,
            reasoning: false,
            status: false,
            command_execution: false,
            file_changes: false,
            mcp_tools: false,
            streaming_deltas: false,
            item_started: false,
            shared_process: false,
        }
    }
}

/// Something that can be chosen for a session, such as the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all(serialize = "camelCase", deserialize = "snake_case"))]
#[schema(rename_all = "camelCase")]
pub struct ConfigOption {
    /// `model`, `mode`, `thought_level`, or the agent's own.
    pub id: String,
    /// The name for people.
    pub name: String,
    /// What kind of choice it is; equal to the id for the well-known ones.
    pub category: String,
    /// `select`.
    pub r#type: OptionType,
    /// The value that holds when none is chosen.
    pub current_value: String,
    /// What can be chosen.
    pub options: Vec<OptionValue>,
}

/// How a [`ConfigOption`] is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OptionType {
    /// One of a list.
    Select,
}

/// One choice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OptionValue {
    /// What is sent.
    pub value: String,
    /// What is shown.
    pub name: String,
}

impl Manifest {
    /// Reads and checks a manifest; `origin` names it in error messages (a file name, or "the given manifest").
    ///
    /// # Errors
    /// [`Error::BadManifest`] with the place and what would be right.
    pub fn parse(text: &str, origin: &str) -> Result<Self, Error> {
        let bad = |reason: String| Error::BadManifest { origin: origin.to_owned(), reason };
        let manifest: Self = toml::from_str(text).map_err(|error| bad(error.to_string().trim_end().to_owned()))?;
        check::check(&manifest).map_err(bad)?;
        Ok(manifest)
    }

    /// File name of the launcher below `<data>/bin/agent_processes/`.
    pub fn launcher(&self) -> String {
        self.launch.launcher.clone().unwrap_or_else(|| format!("{}-acp", self.id))
    }
}

/// A minimal manifest for an agent that speaks ACP on stdio when started as `command args…`.
///
/// # Errors
/// [`Error::BadManifest`] when id or command can't be used.
pub fn manifest_from_command(id: &str, name: &str, command: &str, args: &[String]) -> Result<String, Error> {
    #[derive(Serialize)]
    struct Minimal<'a> {
        schema: u32,
        id: &'a str,
        name: &'a str,
        launch: MinimalLaunch<'a>,
    }
    #[derive(Serialize)]
    struct MinimalLaunch<'a> {
        path_names: [&'a str; 1],
        args: &'a [String],
    }
    let launch = MinimalLaunch { path_names: [command], args };
    let bad = |reason: String| Error::BadManifest { origin: "the given command".to_owned(), reason };
    let text = toml::to_string(&Minimal { schema: SCHEMA_VERSION, id, name, launch }).map_err(|error| bad(error.to_string()))?;
    Manifest::parse(&text, "the given command").map(|_| text)
}
