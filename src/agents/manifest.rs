//! What an agent is: one TOML file, the same for built-in agents and for those that users add.
//!
//! The shape is published as `schemas/agent-manifest.schema.json`; a test holds the two together. [`Manifest::parse`]
//! is the only way in, so a manifest in memory is always a valid one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::Error;

/// The manifest format that is understood.
pub const SCHEMA_VERSION: u32 = 1;

/// The value of `launch.builtin` that starts our own executable.
pub const MOCK_SUBCOMMAND: &str = "mock-agent-process";

/// One agent, as its file describes it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`SCHEMA_VERSION`].
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
    pub plan_mode: bool,
    pub permissions: bool,
    pub questions: bool,
    pub tool_calls: bool,
    pub tool_results: bool,
    pub text_messages: bool,
    pub images: bool,
    pub file_attachments: bool,
    pub session_lifecycle: bool,
    pub error_events: bool,
    pub reasoning: bool,
    pub status: bool,
    pub command_execution: bool,
    pub file_changes: bool,
    pub mcp_tools: bool,
    pub streaming_deltas: bool,
    pub item_started: bool,
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
        manifest.check().map_err(bad)?;
        Ok(manifest)
    }

    /// File name of the launcher below `<data>/bin/agent_processes/`.
    pub fn launcher(&self) -> String {
        self.launch.launcher.clone().unwrap_or_else(|| format!("{}-acp", self.id))
    }

    fn check(&self) -> Result<(), String> {
        if self.schema != SCHEMA_VERSION {
            return Err(format!("schema = {} is not understood: this server reads schema = {SCHEMA_VERSION}", self.schema));
        }
        if !is_id(&self.id) {
            return Err(format!("id {:?}: use up to 64 of a-z 0-9 . _ -, beginning with a letter or digit", self.id));
        }
        if self.name.trim().is_empty() {
            return Err("name is empty".to_owned());
        }
        self.check_launch()?;
        for name in &self.native.names {
            check_executable_name("native.names", name)?;
        }
        self.install.npm.as_ref().map_or(Ok(()), check_npm)?;
        if self.install.npm.is_none() && self.launch.path_names.is_empty() && self.launch.builtin.is_none() {
            return Err("nothing to start: give launch.path_names or [install.npm]".to_owned());
        }
        self.config_options.iter().try_for_each(check_option)
    }

    fn check_launch(&self) -> Result<(), String> {
        let launch = &self.launch;
        if let Some(launcher) = launch.launcher.as_ref().filter(|name| !is_file_name(name)) {
            return Err(format!("launch.launcher {launcher:?} is not a plain file name"));
        }
        for name in &launch.path_names {
            check_executable_name("launch.path_names", name)?;
        }
        if let Some(builtin) = launch.builtin.as_ref().filter(|name| *name != MOCK_SUBCOMMAND) {
            return Err(format!("launch.builtin {builtin:?} is not known: there is only {MOCK_SUBCOMMAND:?}"));
        }
        let names = launch.env.keys().chain(launch.env_if_root.keys());
        for name in names.filter(|name| !is_variable(name)) {
            return Err(format!("launch.env: {name:?} is not a variable's name"));
        }
        let mut values = launch.env.values().chain(launch.env_if_root.values()).chain(&launch.args);
        if values.any(|value| value.contains('\0')) {
            return Err("launch: a value holds a NUL character".to_owned());
        }
        Ok(())
    }
}

fn check_npm(npm: &NpmPackage) -> Result<(), String> {
    let companions = || npm.companions.iter();
    let names = std::iter::once(&npm.package).chain(companions().map(|companion| &companion.package)).chain(&npm.run_scripts);
    for name in names.filter(|name| !is_package(name)) {
        return Err(format!("install.npm: {name:?} is not a package name"));
    }
    for version in npm.version.iter().chain(companions().map(|companion| &companion.version)) {
        check_version(version).map_err(|reason| format!("install.npm.version: {reason}"))?;
    }
    for bin in std::iter::once(&npm.bin).chain(companions().map(|companion| &companion.bin)).filter(|bin| !is_file_name(bin)) {
        return Err(format!("install.npm.bin {bin:?} is not a plain file name"));
    }
    if npm.integrity.is_some() && npm.version.is_none() {
        return Err("install.npm.integrity needs the version that it belongs to".to_owned());
    }
    for integrity in npm.integrity.iter().chain(companions().filter_map(|companion| companion.integrity.as_ref())) {
        if !integrity.starts_with("sha512-") || integrity.len() != "sha512-".len() + 88 {
            return Err(format!("install.npm.integrity {integrity:?} is not an SRI string of SHA-512"));
        }
    }
    Ok(())
}

fn check_option(option: &ConfigOption) -> Result<(), String> {
    if option.id.is_empty() || option.category.is_empty() {
        return Err("config_options: id and category can't be empty".to_owned());
    }
    if option.options.iter().any(|choice| choice.value == option.current_value) {
        return Ok(());
    }
    Err(format!("config_options {:?}: current_value {:?} is not one of its options", option.id, option.current_value))
}

fn check_executable_name(field: &str, name: &str) -> Result<(), String> {
    let absolute = name.starts_with('/') && !name.contains('\0');
    if absolute || is_file_name(name) {
        return Ok(());
    }
    Err(format!("{field}: {name:?} is neither a plain name nor an absolute path"))
}

/// Checks that `version` is a version or a tag: anything with `/` or `:` would make npm fetch from elsewhere, and a
/// leading `-` would be an option.
///
/// # Errors
/// A sentence saying so.
pub(super) fn check_version(version: &str) -> Result<(), String> {
    let plain = version.len() <= 128 && version.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-' | '_'));
    if plain && version.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Ok(());
    }
    Err(format!("{version:?} is not a version such as 1.2.3 or a tag such as latest"))
}

fn is_id(id: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    id.len() <= 64 && id.chars().all(allowed) && id.starts_with(|c: char| c.is_ascii_alphanumeric())
}

fn is_file_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 255 && !name.starts_with('.') && !name.contains(['/', '\0'])
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// npm package names: `name` or `@scope/name`, URL-safe, not beginning with `.`, `_` or `-`.
fn is_package(name: &str) -> bool {
    let part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-'))
    };
    name.len() <= 214
        && match name.strip_prefix('@') {
            Some(scoped) => scoped.split_once('/').is_some_and(|(scope, name)| part(scope) && part(name)),
            None => part(name),
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
