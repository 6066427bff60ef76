//! What agents do to files, told to whoever keeps book of that; and what that one has to say to sessions.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::projection::{Projected, Source};
use super::{Error, Sessions};

/// Keeps book of files. Called in the owner's task of an ACP server: whatever takes time is done elsewhere.
pub trait Witness: Send + Sync {
    /// A turn goes to an agent that works in `cwd`.
    fn turn_began(&self, session_id: &str, turn_id: &str, cwd: &str);
    /// It is over.
    fn turn_ended(&self, session_id: &str, turn_id: &str);
    /// A tool call that says something of files has ended.
    fn touched(&self, touch: Touch);
}

/// What a tool call says of files (ACP v1, "Tool Calls": locations, and content of type `diff`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touch {
    /// The session.
    pub session_id: String,
    /// Its turn, when one is under way.
    pub turn_id: Option<String>,
    /// The agent's id of the call.
    pub tool_call_id: String,
    /// ACP's kind: `read`, `edit`, `delete`, `move`, `search`, `execute`, ….
    pub kind: Option<String>,
    /// False when it failed.
    pub succeeded: bool,
    /// Files that it was about.
    pub paths: Vec<PathBuf>,
    /// What it changed, as it says.
    pub diffs: Vec<Diff>,
}

/// A changed file, as its agent says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diff {
    /// The file.
    pub path: PathBuf,
    /// What was there; `None` when nothing was.
    pub old: Option<String>,
    /// What is there now.
    pub new: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Completed {
    session_id: String,
    turn_id: Option<String>,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    item: Item,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    status: String,
    tool_call: Option<ToolCall>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToolCall {
    tool_call_id: String,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    locations: Vec<Value>,
    #[serde(default)]
    content: Vec<Value>,
}

/// What an event says of files.
pub(super) fn touch(event: &Projected) -> Option<Touch> {
    let is_tool = event.kind == "item.completed" && memchr::memmem::find(&event.payload, b"\"toolCall\"").is_some();
    let Completed { session_id, turn_id, data: Data { item } } =
        is_tool.then(|| serde_json::from_slice(&event.payload).ok()).flatten()?;
    let call = item.tool_call?;
    let diffs: Vec<_> = call.content.iter().filter_map(diff).collect();
    let located = call.locations.iter().filter_map(|location| location["path"].as_str()).map(PathBuf::from);
    let mut paths: Vec<_> = located.chain(diffs.iter().map(|diff| diff.path.clone())).collect();
    paths.dedup();
    let succeeded = item.status == "completed";
    let (tool_call_id, kind) = (call.tool_call_id, call.kind);
    (!paths.is_empty()).then_some(Touch { session_id, turn_id, tool_call_id, kind, succeeded, paths, diffs })
}

fn diff(content: &Value) -> Option<Diff> {
    let path = content["path"].as_str().filter(|_| content["type"] == "diff")?.into();
    Some(Diff { path, old: content["oldText"].as_str().map(str::to_owned), new: content["newText"].as_str()?.to_owned() })
}

impl Sessions {
    /// Who keeps book of files from now on; once.
    pub fn witnessed_by(&self, witness: Arc<dyn Witness>) {
        let _ = self.inner.witness.set(witness); // there is one in a server
    }

    pub(super) fn witness(&self) -> Option<&Arc<dyn Witness>> {
        self.inner.witness.get()
    }

    /// Sessions in memory that work in a directory which holds a file.
    pub fn working_in(&self, path: &Path) -> Vec<String> {
        let all = self.registry().all();
        all.into_iter().filter(|live| path.starts_with(&live.lock().row.cwd)).map(|live| live.id.clone()).collect()
    }

    /// Tells a session's readers something of its files, as an event of this type.
    ///
    /// # Errors
    /// [`Error::UnknownSession`].
    pub async fn notice(&self, id: &str, kind: &'static str, data: &Value) -> Result<(), Error> {
        let live = self.live(id).await?;
        live.say(&mut live.lock(), kind, Source::Daemon, data, None);
        self.store().flush();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &'static str, item: &Value) -> Projected {
        let payload = serde_json::json!({"sessionId": "ses_1", "turnId": "turn_1", "data": {"item": item}});
        Projected { kind, payload: payload.to_string().into() }
    }

    #[test]
    fn a_tool_call_tells_its_files() {
        let item = serde_json::json!({"status": "completed", "toolCall": {
            "toolCallId": "c1", "kind": "edit", "locations": [{"path": "/w/a", "line": 3}],
            "content": [{"type": "diff", "path": "/w/a", "oldText": "x", "newText": "y"}, {"type": "content"}],
        }});
        let touch = touch(&event("item.completed", &item)).expect("a touch");
        assert_eq!((touch.session_id.as_str(), touch.turn_id.as_deref(), touch.succeeded), ("ses_1", Some("turn_1"), true));
        assert_eq!(touch.paths, [PathBuf::from("/w/a")]);
        assert_eq!(touch.diffs, [Diff { path: "/w/a".into(), old: Some("x".into()), new: "y".into() }]);
    }

    #[test]
    fn other_events_tell_none() {
        let message = serde_json::json!({"status": "completed", "parts": [{"text": "\"toolCall\""}]});
        assert_eq!(touch(&event("item.completed", &message)), None);
        let call = serde_json::json!({"status": "completed", "toolCall": {"toolCallId": "c", "kind": "execute"}});
        assert_eq!(touch(&event("item.completed", &call)), None);
        assert_eq!(touch(&event("item.started", &call)), None);
    }
}
