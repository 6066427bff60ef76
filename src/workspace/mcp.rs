//! An MCP server as a directory configures it, in the words of `sandbox-agent` 0.4.2.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// An MCP server: a command, or a URL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type")]
pub enum McpServerConfig {
    /// A command that speaks MCP on stdin and stdout.
    #[serde(rename = "local", alias = "stdio")]
    Local(LocalServer),
    /// A server behind a URL.
    #[serde(rename = "remote", alias = "http")]
    Remote(RemoteServer),
}

/// A command that speaks MCP on stdin and stdout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalServer {
    /// The program, or the program and its first arguments.
    pub command: CommandLine,
    /// Its arguments, behind those of `command`.
    #[serde(default)]
    #[schema(required = false)]
    pub args: Vec<String>,
    /// Variables on top of the agent's environment.
    #[serde(default, alias = "environment", skip_serializing_if = "Option::is_none")]
    pub env: Option<BTreeMap<String, String>>,
    /// False leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Time for the readiness check, in milliseconds.
    #[serde(default, alias = "timeout", skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Its working directory; relative to the configured directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Members that this version doesn't know: kept in the file, not shown.
    #[serde(flatten)]
    #[schema(ignore)]
    unknown: Map<String, Value>,
}

/// A program, or a program and its first arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum CommandLine {
    /// The program.
    Program(String),
    /// The program and its first arguments.
    Words(Vec<String>),
}

/// A server behind a URL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RemoteServer {
    /// Where it is.
    pub url: String,
    /// Headers of each request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeMap<String, String>>,
    /// The variable of the server's environment that holds a bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer_token_env_var: Option<String>,
    /// Headers whose values are in variables: header → variable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_headers: Option<BTreeMap<String, String>>,
    /// False, or how to log in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oauth: Option<OAuth>,
    /// False leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Time for the readiness check, in milliseconds.
    #[serde(default, alias = "timeout", skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// How it speaks; Streamable HTTP when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    /// Members that this version doesn't know: kept in the file, not shown.
    #[serde(flatten)]
    #[schema(ignore)]
    unknown: Map<String, Value>,
}

/// How a remote server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Streamable HTTP.
    Http,
    /// HTTP with server-sent events, as of MCP 2024-11-05.
    Sse,
}

/// Whether one logs in by OAuth, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum OAuth {
    /// Whether.
    Flag(bool),
    /// How.
    #[serde(rename_all = "camelCase")]
    Client {
        /// The client's id.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client_id: Option<String>,
        /// The client's secret.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client_secret: Option<String>,
        /// What is asked for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scope: Option<String>,
    },
}

impl McpServerConfig {
    /// As clients see it: without members that the contract doesn't know.
    #[must_use]
    pub fn shown(mut self) -> Self {
        match &mut self {
            Self::Local(server) => server.unknown.clear(),
            Self::Remote(server) => server.unknown.clear(),
        }
        self
    }

    /// Whether sessions get it.
    pub fn is_enabled(&self) -> bool {
        let (Self::Local(LocalServer { enabled, .. }) | Self::Remote(RemoteServer { enabled, .. })) = self;
        *enabled != Some(false)
    }

    /// Time for the readiness check, when the configuration has one.
    pub fn timeout_ms(&self) -> Option<u64> {
        let (Self::Local(LocalServer { timeout_ms, .. }) | Self::Remote(RemoteServer { timeout_ms, .. })) = self;
        *timeout_ms
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Result<McpServerConfig, serde_json::Error> {
        serde_json::from_value(value)
    }

    fn shown(value: Value) -> String {
        serde_json::to_string(&read(value).expect("valid").shown()).expect("JSON")
    }

    #[test]
    fn aliases_and_defaults_as_the_contract_has_them() {
        let local = json!({"type": "stdio", "command": "x", "foo": 1, "timeout": 3, "environment": {"A": "b"}, "cwd": null});
        assert_eq!(shown(local), r#"{"type":"local","command":"x","args":[],"env":{"A":"b"},"timeoutMs":3}"#);
        let words = json!({"type": "local", "command": ["a", "b"], "enabled": false, "timeoutMs": 5, "env": {}});
        assert_eq!(shown(words), r#"{"type":"local","command":["a","b"],"args":[],"env":{},"enabled":false,"timeoutMs":5}"#);
        let remote = json!({"type": "http", "url": "u", "transport": "sse", "oauth": {"clientId": "c", "zz": 1}});
        assert_eq!(shown(remote), r#"{"type":"remote","url":"u","oauth":{"clientId":"c"},"transport":"sse"}"#);
        let remote = json!({"type": "remote", "url": "x", "headers": {}, "oauth": false, "timeout": 7});
        assert_eq!(shown(remote), r#"{"type":"remote","url":"x","headers":{},"oauth":false,"timeoutMs":7}"#);
    }

    #[test]
    fn unknown_members_are_kept_for_the_file() {
        let config = read(json!({"type": "local", "command": "x", "args": [], "more": [1]})).expect("valid");
        assert_eq!(serde_json::to_value(config).expect("JSON")["more"], json!([1]));
    }

    #[test]
    fn other_shapes_are_refused() {
        for wrong in [
            json!({"type": "zzz"}),
            json!({"command": "x"}),
            json!({"type": "local"}),
            json!({"type": "local", "command": "x", "args": null}),
            json!({"type": "local", "command": "x", "timeoutMs": "1"}),
            json!({"type": "remote", "url": "x", "transport": "ws"}),
            json!({"type": "remote", "url": "x", "oauth": "yes"}),
        ] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
