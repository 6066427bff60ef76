//! Which MCP servers a session gets: those of its request and those of its directory, as ACP says it. Pure.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::mcp::{CommandLine, LocalServer, McpServerConfig, OAuth, RemoteServer, Transport};
use super::references::{Missing, expand};

/// `sh` goes to `$1` and becomes what follows: ACP has no working directory for a server.
const IN_DIRECTORY: &str = r#"cd "$1" && shift && exec "$@""#;

/// What a session gets, and what it doesn't.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Resolved {
    /// The servers: those of the request as they came, then those of the directory by name.
    pub servers: Vec<Server>,
    /// The servers that it can't get. Those that are switched off aren't named.
    pub left_out: Vec<LeftOut>,
    /// Values of variables that were referred to; whoever gives the variables notes them.
    pub secrets: Vec<String>,
}

/// A server that a session gets.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// An `McpServer` (ACP v1, Session Setup, MCP Servers).
    pub acp: Value,
    /// Where it comes from.
    pub origin: Origin,
    /// Time for its readiness check, where its configuration has one.
    pub timeout_ms: Option<u64>,
}

/// Where a server comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The request for the session.
    Request,
    /// The configuration of the directory.
    Directory,
}

impl Server {
    /// Its name, which is empty when a client gave none.
    pub fn name(&self) -> &str {
        name_of(&self.acp)
    }
}

/// A server that a session doesn't get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Its name.
    pub name: String,
    /// Where it comes from.
    pub origin: Origin,
    /// Why.
    pub reason: Reason,
}

/// Why a session doesn't get a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Its configuration refers to a variable that isn't set.
    #[error("the variable {0} is not set in the server's environment: set it, or give a default (${{{0}:-default}})")]
    VariableMissing(String),
    /// The agent can't use servers of this kind.
    #[error("the agent can't use MCP servers of kind {0} (agentCapabilities.mcpCapabilities)")]
    NotOffered(&'static str),
    /// It asks for a login by OAuth.
    #[error("a login by OAuth is not done here: give a token by bearerTokenEnvVar or headers")]
    OAuth,
    /// Its command is empty.
    #[error("its command is empty")]
    NoCommand,
    /// Its entry in the file can't be used.
    #[error("its entry in mcp.json can't be used: {0}")]
    Unreadable(String),
}

impl From<Missing> for Reason {
    fn from(Missing(name): Missing) -> Self {
        Self::VariableMissing(name)
    }
}

/// What a session in `directory` gets: `requested` (`McpServer`s of ACP, verbatim), and of `configured` what `requested`
/// doesn't name. `capabilities` are the agent's `agentCapabilities`; `env` gives the variables that are referred to.
pub fn mcp_servers(
    directory: &Path,
    requested: &[Value],
    configured: &BTreeMap<String, Value>,
    capabilities: &Value,
    env: impl Fn(&str) -> Option<String>,
) -> Resolved {
    let mut resolved = Resolved::default();
    for acp in requested {
        let server = Server { acp: acp.clone(), origin: Origin::Request, timeout_ms: None };
        resolved.add(name_of(acp), Origin::Request, Ok(server), capabilities);
    }
    for (name, entry) in configured {
        if requested.iter().any(|requested| name_of(requested) == name) {
            continue;
        }
        let server = match serde_json::from_value::<McpServerConfig>(entry.clone()) {
            Ok(config) if !config.is_enabled() => continue,
            Ok(config) => {
                let (origin, timeout_ms) = (Origin::Directory, config.timeout_ms());
                render(directory, name, &config, &env).map(|acp| Server { acp, origin, timeout_ms })
            }
            Err(error) => Err(Reason::Unreadable(error.to_string())),
        };
        resolved.add(name, Origin::Directory, server, capabilities);
    }
    resolved
}

impl Resolved {
    fn add(&mut self, name: &str, origin: Origin, server: Result<Server, Reason>, capabilities: &Value) {
        let offered = |kind: &str| capabilities["mcpCapabilities"][kind] == true;
        let server = server.and_then(|server| match server.acp["type"].as_str() {
            Some("http") if !offered("http") => Err(Reason::NotOffered("http")),
            Some("sse") if !offered("sse") => Err(Reason::NotOffered("sse")),
            _ => Ok(server), // stdio is offered by every agent; what we don't know, the agent judges
        });
        match server {
            Ok(server) => self.servers.push(server),
            Err(reason) => self.left_out.push(LeftOut { name: name.to_owned(), origin, reason }),
        }
    }
}

fn name_of(acp: &Value) -> &str {
    acp["name"].as_str().unwrap_or_default()
}

fn render(
    directory: &Path,
    name: &str,
    config: &McpServerConfig,
    env: &impl Fn(&str) -> Option<String>,
) -> Result<Value, Reason> {
    match config {
        McpServerConfig::Local(server) => local(directory, name, server, env),
        McpServerConfig::Remote(server) => remote(name, server, env),
    }
}

fn local(directory: &Path, name: &str, server: &LocalServer, env: &impl Fn(&str) -> Option<String>) -> Result<Value, Reason> {
    let mut words = match &server.command {
        CommandLine::Program(program) => vec![program.clone()],
        CommandLine::Words(words) => words.clone(),
    };
    words.extend(server.args.iter().cloned());
    let mut words = words.iter().map(|word| expand(word, env)).collect::<Result<Vec<_>, _>>()?;
    if words.first().is_none_or(String::is_empty) {
        return Err(Reason::NoCommand);
    }
    if let Some(cwd) = &server.cwd {
        let cwd = directory.join(expand(cwd, env)?).to_string_lossy().into_owned();
        words.splice(0..0, ["/bin/sh".to_owned(), "-c".to_owned(), IN_DIRECTORY.to_owned(), "sh".to_owned(), cwd]);
    } else if words[0].contains('/') {
        words[0] = directory.join(&words[0]).to_string_lossy().into_owned();
    }
    let variables = server.env.iter().flatten().map(|(name, value)| Ok(json!({"name": name, "value": expand(value, env)?})));
    let variables = variables.collect::<Result<Vec<_>, Missing>>()?;
    Ok(json!({"name": name, "command": words[0], "args": words[1..], "env": variables}))
}

fn remote(name: &str, server: &RemoteServer, env: &impl Fn(&str) -> Option<String>) -> Result<Value, Reason> {
    if !matches!(server.oauth, None | Some(OAuth::Flag(false))) {
        return Err(Reason::OAuth);
    }
    let variable = |name: &str| env(name).ok_or_else(|| Missing(name.to_owned()));
    // What comes later replaces an earlier one of the same name, whatever its case (RFC 9110 section 5.1).
    let mut headers: BTreeMap<String, (&str, String)> = BTreeMap::new();
    for (name, value) in server.headers.iter().flatten() {
        headers.insert(name.to_ascii_lowercase(), (name, expand(value, env)?));
    }
    if let Some(token) = &server.bearer_token_env_var {
        headers.insert("authorization".to_owned(), ("Authorization", format!("Bearer {}", variable(token)?)));
    }
    for (name, value) in server.env_headers.iter().flatten() {
        headers.insert(name.to_ascii_lowercase(), (name, variable(value)?));
    }
    let headers: Vec<_> = headers.into_values().map(|(name, value)| json!({"name": name, "value": value})).collect();
    let kind = if server.transport == Some(Transport::Sse) { "sse" } else { "http" };
    Ok(json!({"type": kind, "name": name, "url": expand(&server.url, env)?, "headers": headers}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        [("KEY", "k"), ("HOME", "/h")].into_iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
    }

    fn resolve(requested: &[Value], configured: Value, capabilities: Value) -> Resolved {
        let configured = serde_json::from_value(configured).expect("an object");
        mcp_servers(Path::new("/d"), requested, &configured, &capabilities, env)
    }

    fn one(config: Value) -> Result<Value, Reason> {
        let all = json!({"mcpCapabilities": {"http": true, "sse": true}});
        let Resolved { mut servers, mut left_out, .. } = resolve(&[], json!({"x": config}), all);
        assert_eq!(servers.len() + left_out.len(), 1);
        servers.pop().map(|server| server.acp).ok_or_else(|| left_out.pop().expect("one of both").reason)
    }

    #[test]
    fn local_servers() {
        let config = json!({"type": "local", "command": ["npx", "-y"], "args": ["$KEY", "a b"], "env": {"T": "${KEY}", "E": ""}});
        let env = json!([{"name": "E", "value": ""}, {"name": "T", "value": "k"}]);
        let expected = json!({"name": "x", "command": "npx", "args": ["-y", "k", "a b"], "env": env});
        assert_eq!(one(config), Ok(expected));
        let config = json!({"type": "local", "command": "./run", "args": []});
        assert_eq!(one(config).expect("a server")["command"], "/d/./run");
        let config = json!({"type": "local", "command": "run", "args": ["1"], "cwd": "sub/${KEY}"});
        let server = one(config).expect("a server");
        assert_eq!(server["command"], "/bin/sh");
        assert_eq!(server["args"], json!(["-c", r#"cd "$1" && shift && exec "$@""#, "sh", "/d/sub/k", "run", "1"]));
        assert_eq!(one(json!({"type": "local", "command": ""})), Err(Reason::NoCommand));
        assert_eq!(one(json!({"type": "local", "command": []})), Err(Reason::NoCommand));
    }

    #[test]
    fn remote_servers() {
        let config = json!({"type": "remote", "url": "http://${HOST:-localhost}/", "headers": {"authorization": "no", "A": "$KEY"},
            "bearerTokenEnvVar": "KEY", "envHeaders": {"a": "HOME", "B": "KEY"}, "oauth": false});
        let headers = json!([{"name": "a", "value": "/h"}, {"name": "Authorization", "value": "Bearer k"},
            {"name": "B", "value": "k"}]);
        assert_eq!(one(config), Ok(json!({"type": "http", "name": "x", "url": "http://localhost/", "headers": headers})));
        let config = json!({"type": "remote", "url": "u", "transport": "sse"});
        assert_eq!(one(config), Ok(json!({"type": "sse", "name": "x", "url": "u", "headers": []})));
        for oauth in [json!(true), json!({"clientId": "c"})] {
            assert_eq!(one(json!({"type": "remote", "url": "u", "oauth": oauth})), Err(Reason::OAuth));
        }
    }

    #[test]
    fn a_missing_variable_is_named_wherever_it_stands() {
        let missing = Err(Reason::VariableMissing("NO".to_owned()));
        for config in [
            json!({"type": "local", "command": "$NO"}),
            json!({"type": "local", "command": "x", "args": ["a", "${NO}"]}),
            json!({"type": "local", "command": "x", "env": {"A": "$NO"}}),
            json!({"type": "local", "command": "x", "cwd": "$NO"}),
            json!({"type": "remote", "url": "http://$NO"}),
            json!({"type": "remote", "url": "u", "headers": {"A": "$NO"}}),
            json!({"type": "remote", "url": "u", "bearerTokenEnvVar": "NO"}),
            json!({"type": "remote", "url": "u", "envHeaders": {"A": "NO"}}),
        ] {
            assert_eq!(one(config.clone()), missing, "{config}");
        }
        let words = Reason::VariableMissing("NO".to_owned()).to_string();
        assert_eq!(words, "the variable NO is not set in the server's environment: set it, or give a default (${NO:-default})");
    }

    #[test]
    fn the_request_wins_and_nothing_is_lost_in_silence() {
        let requested = [json!({"name": "a", "command": "mine", "args": ["$NO"], "env": [], "_meta": 1})];
        let configured = json!({
            "a": {"type": "local", "command": "other"},
            "b": {"type": "local", "command": "b", "timeoutMs": 7},
            "off": {"type": "local", "command": "$NO", "enabled": false},
            "odd": {"type": "pigeon"},
            "web": {"type": "remote", "url": "u"},
        });
        let resolved = resolve(&requested, configured, json!({"mcpCapabilities": {"sse": true}}));
        let servers: Vec<_> = resolved.servers.iter().map(|server| (server.name(), server.timeout_ms)).collect();
        assert_eq!(servers, [("a", None), ("b", Some(7))]);
        assert_eq!(resolved.servers[0].acp, requested[0], "verbatim");
        let left_out: Vec<_> = resolved.left_out.iter().map(|left_out| left_out.name.as_str()).collect();
        assert_eq!(left_out, ["odd", "web"]);
        assert_eq!(resolved.left_out[1].reason, Reason::NotOffered("http"));
    }

    #[test]
    fn kinds_that_the_agent_lacks_are_left_out_of_the_request_too() {
        let requested = ["http", "sse", "acp"].map(|kind| json!({"type": kind, "name": kind, "url": "u", "headers": []}));
        let resolved = resolve(&requested, json!({}), Value::Null);
        assert_eq!(resolved.servers.iter().map(Server::name).collect::<Vec<_>>(), ["acp"], "an unknown kind is for the agent");
        assert_eq!(resolved.left_out.len(), 2);
    }
}
