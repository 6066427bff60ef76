//! The inverse of the fold: ACP updates for a client that loads a session. Source: ACP v1, "Session Setup", "Loading
//! Sessions".

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::json::Members;
use super::stored::{Delta, Item, Part, Stored};

/// What a stored event says to a client: `params` of `session/update`, each as JSON text. Completed items and
/// `session.updated` say something, and what came for a tool call after its end; other events say nothing.
pub fn updates(event_payload: &str, acp_session_id: &str) -> Vec<String> {
    let Some(stored) = Stored::parse(event_payload) else { return Vec::new() };
    let say = Say { acp_session_id };
    match stored.kind.0.as_ref() {
        "item.completed" => stored.item().map(|(_, item)| say.item(&item)).unwrap_or_default(),
        "item.delta" if event_payload.contains("\"late\":true") => say.late(&stored).into_iter().collect(),
        "session.updated" => Members::parse(stored.data.get()).map(|data| say.session(&data)).unwrap_or_default(),
        _ => Vec::new(),
    }
}

struct Say<'a> {
    acp_session_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Params<'a, U> {
    session_id: &'a str,
    update: U,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Chunk<'a> {
    session_update: &'static str,
    content: Content<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<&'a RawValue>,
    #[serde(rename = "_meta", skip_serializing_if = "Option::is_none")]
    meta: Option<&'a RawValue>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Text { r#type: &'static str, text: String },
    Block(&'a RawValue),
}

/// An update of the given kind with members as they were stored.
struct Told<'a>(&'static str, Vec<(&'a str, &'a RawValue)>);

impl Serialize for Told<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let kind = serde_json::value::to_raw_value(self.0).map_err(serde::ser::Error::custom)?;
        serializer.collect_map(std::iter::once(("sessionUpdate", kind.as_ref())).chain(self.1.iter().copied()))
    }
}

impl Say<'_> {
    fn update(&self, update: impl Serialize) -> String {
        let params = Params { session_id: self.acp_session_id, update };
        serde_json::to_string(&params).expect("plain structs and JSON values: every key is a string")
    }

    fn item(&self, item: &Item<'_>) -> Vec<String> {
        match (item.kind.as_ref(), item.role.as_ref()) {
            ("message", "user") => self.message("user_message_chunk", item),
            ("message", _) if is_thought(item) => self.message("agent_thought_chunk", item),
            ("message", _) => self.message("agent_message_chunk", item),
            ("tool_call", _) => self.tool_call(item).into_iter().collect(),
            ("status", _) => self.plan(item).into_iter().collect(),
            _ => Vec::new(),
        }
    }

    /// A chunk for each part: all text between two other blocks is one.
    fn message(&self, session_update: &'static str, item: &Item<'_>) -> Vec<String> {
        let agents = session_update != "user_message_chunk";
        let mut contents: Vec<Content<'_>> = item.parts.iter().map(|part| content(part, agents)).collect();
        if let Some(bytes) = item.bytes {
            let notice = format!("\n[cut: it had {bytes} bytes of text]");
            match contents.last_mut() {
                Some(Content::Text { text, .. }) => text.push_str(&notice),
                _ => contents.push(Content::Text { r#type: "text", text: notice }),
            }
        }
        let chunk = |content| Chunk { session_update, content, message_id: item.message_id, meta: item.meta };
        contents.into_iter().map(|content| self.update(chunk(content))).collect()
    }

    fn tool_call(&self, item: &Item<'_>) -> Option<String> {
        let call = Members::parse(item.tool_call?.get())?;
        let ended = matches!(call.text("status").as_deref(), Some("completed" | "failed"));
        let mut members: Vec<_> = call.0.iter().map(|(key, value)| (key.as_ref(), *value)).collect();
        let (status, title) = (quoted(&item.status), quoted(""));
        if !ended {
            members.retain(|(key, _)| *key != "status"); // else it would look as if it still went on
            members.push(("status", &status));
        }
        if call.get("title").is_none() {
            members.push(("title", &title)); // ACP asks for one
        }
        Some(self.update(Told("tool_call", members)))
    }

    fn plan(&self, item: &Item<'_>) -> Option<String> {
        let entries = item.parts.first().and_then(|part| Part::parse(part)?.entries)?;
        Some(self.update(Told("plan", vec![("entries", entries)])))
    }

    fn late(&self, stored: &Stored<'_>) -> Option<String> {
        let delta = Delta::parse(stored.data).filter(|delta| delta.late)?;
        let update = Members::parse(delta.update?.get())?;
        let members = update.0.iter().map(|(key, value)| (key.as_ref(), *value)).collect();
        Some(self.update(Told("tool_call_update", members)))
    }

    fn session(&self, data: &Members<'_>) -> Vec<String> {
        let member = |key: &str| data.0.iter().find(|(name, _)| name == key).map(|(_, value)| *value);
        let mut updates = Vec::new();
        let info = [("title", "title"), ("updatedAt", "updatedAt"), ("metadata", "_meta")];
        let info: Vec<_> = info.iter().filter_map(|(ours, theirs)| Some((*theirs, member(ours)?))).collect();
        if info.iter().any(|(key, _)| *key != "_meta") || data.0.len() == info.len() {
            updates.push(self.update(Told("session_info_update", info)));
        }
        let mut told = |kind, key, value: Option<&RawValue>| {
            updates.extend(value.map(|value| self.update(Told(kind, vec![(key, value)]))));
        };
        told("available_commands_update", "availableCommands", member("availableCommands"));
        told("config_option_update", "configOptions", member("configOptions"));
        if member("configOptions").is_none() {
            told("current_mode_update", "currentModeId", member("mode"));
        }
        if let Some(usage) = member("usage").and_then(|usage| Members::parse(usage.get())) {
            let members = usage.0.iter().map(|(key, value)| (key.as_ref(), *value)).collect();
            updates.push(self.update(Told("usage_update", members)));
        }
        updates
    }
}

/// A part of an agent's message is text of ours or a block of its own; a user's parts are blocks as they were sent.
fn content(part: &RawValue, agents: bool) -> Content<'_> {
    let text = Part::parse(part).filter(|part| agents && matches!(part.kind.as_ref(), "text" | "reasoning"));
    match text.and_then(|part| part.text) {
        Some(text) => Content::Text { r#type: "text", text: text.0.into_owned() },
        None => Content::Block(part),
    }
}

fn is_thought(item: &Item<'_>) -> bool {
    item.parts.iter().any(|part| Part::parse(part).is_some_and(|part| part.kind == "reasoning"))
}

fn quoted(text: &str) -> Box<RawValue> {
    serde_json::value::to_raw_value(text).expect("a string is JSON")
}
