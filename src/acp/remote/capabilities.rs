//! What a client says it can do, and which server fits it. Pure.
//!
//! An agent asks for what its client declared. So an agent process serves clients that declared the same: those that
//! can do nothing special share one, and each other kind has its own. Source: ACP v1, "Initialization".

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// A client's capabilities, without those that it says it doesn't have.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Capabilities(Option<Value>);

impl Capabilities {
    /// Those in the params of `initialize`.
    pub(super) fn of(params: Option<&str>) -> Self {
        let params: Value = params.and_then(|params| serde_json::from_str(params).ok()).unwrap_or_default();
        Self(canonical(&params["clientCapabilities"]))
    }

    /// The id of the server that clients like this one share.
    pub(super) fn server_id(&self, agent: &str) -> String {
        match &self.0 {
            None => format!("sessions-{agent}"),
            Some(value) => {
                let digest = Sha256::digest(value.to_string());
                let kind: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
                format!("sessions-{agent}-{kind}")
            }
        }
    }

    /// True when an agent that was told of these may ask for what [`needs_capability`].
    pub(super) fn are_special(&self) -> bool {
        self.allow("fs/") || self.allow("terminal/")
    }

    /// True when an agent may ask for this: `fs/…` and `terminal/…` need a capability.
    pub(super) fn allow(&self, method: &str) -> bool {
        let has = |pointer| self.0.as_ref().is_some_and(|value| value.pointer(pointer).is_some());
        match method {
            "fs/read_text_file" => has("/fs/readTextFile"),
            "fs/write_text_file" => has("/fs/writeTextFile"),
            _ if method.starts_with("fs/") => has("/fs"),
            _ => !method.starts_with("terminal/") || has("/terminal"),
        }
    }
}

/// True for what only a client with a capability can do, and only one of them should.
pub(super) fn needs_capability(method: &str) -> bool {
    method.starts_with("fs/") || method.starts_with("terminal/")
}

/// Members in order, without what is false, null or empty; `None` when nothing is left.
fn canonical(value: &Value) -> Option<Value> {
    match value {
        Value::Null | Value::Bool(false) => None,
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().filter_map(|(key, value)| Some((key.clone(), canonical(value)?))).collect();
            members.sort_by(|one, other| one.0.cmp(&other.0));
            (!members.is_empty()).then(|| Value::Object(Map::from_iter(members)))
        }
        Value::Array(items) if items.is_empty() => None,
        other => Some(other.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(capabilities: &str) -> Capabilities {
        Capabilities::of(Some(&format!(r#"{{"protocolVersion":1,"clientCapabilities":{capabilities}}}"#)))
    }

    #[test]
    fn clients_that_can_do_nothing_share_a_server() {
        for nothing in ["{}", "null", r#"{"fs":{"readTextFile":false,"writeTextFile":false},"terminal":false}"#] {
            assert_eq!(of(nothing).server_id("a"), "sessions-a", "{nothing}");
        }
        assert_eq!(Capabilities::of(None).server_id("a"), "sessions-a");
    }

    #[test]
    fn the_same_capabilities_make_the_same_server() {
        let id = of(r#"{"terminal":true,"fs":{"readTextFile":true}}"#).server_id("a");
        assert_eq!(id, of(r#"{"fs":{"writeTextFile":false,"readTextFile":true},"terminal":true}"#).server_id("a"));
        assert_ne!(id, of(r#"{"terminal":true}"#).server_id("a"));
        assert!(of(r#"{"terminal":true}"#).are_special() && of(r#"{"fs":{"writeTextFile":true}}"#).are_special());
        assert!(!of(r#"{"elicitation":{"form":{"x":1}}}"#).are_special());
    }

    #[test]
    fn only_what_was_declared_is_asked() {
        let some = of(r#"{"fs":{"readTextFile":true}}"#);
        assert!(some.allow("fs/read_text_file") && some.allow("session/request_permission"));
        assert!(!some.allow("fs/write_text_file") && !some.allow("terminal/create"));
    }
}
