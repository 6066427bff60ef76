//! One tool call, joined with its updates: a member that an update names replaces the one before, an absent or null one
//! changes nothing. Source: ACP v1, "Tool Calls", "Updating".

use std::borrow::Cow;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::json::{Members, elements, is_array, is_null, is_text, text};
use super::shrink::shrink;

/// Members of `_meta` with output of which each update brings a piece, as adapters for Codex and Claude Code send it.
const OUTPUTS: [&str; 3] = ["terminal_output", "terminal_output_delta", "mcp_output_delta"];

/// Members of one object, beyond which new ones are not kept. ACP has ten.
const MEMBERS_MAX: usize = 64;
/// A member up to this size is never cut.
const SMALL_BYTES: usize = 128;

/// What is known of a call so far.
#[derive(Debug, Default, Clone)]
pub(super) struct ToolCall {
    members: Vec<(String, Box<RawValue>)>,
    meta: Vec<(String, Box<RawValue>)>,
    outputs: Vec<Output>,
    /// Something did not fit.
    pub truncated: bool,
}

#[derive(Debug, Clone)]
struct Output {
    key: String,
    terminal_id: Option<Box<RawValue>>,
    data: String,
}

impl ToolCall {
    /// Joins an update, an object with members of ACP's `ToolCallUpdate`. Members of a wrong type are as if absent, as
    /// ACP asks of readers. Keeps at most about `max_bytes`, half of it for outputs that come in pieces.
    pub fn merge(&mut self, update: &Members<'_>, max_bytes: usize) {
        let half = max_bytes / 2;
        for (key, value) in update.0.iter().filter(|(_, value)| !is_null(value)) {
            match key.as_ref() {
                "sessionUpdate" => {}
                "_meta" => self.merge_meta(value, half),
                "toolCallId" | "title" | "name" | "kind" | "status" if !is_text(value) => {}
                "content" | "locations" if !is_array(value) => {}
                name => replace(&mut self.members, name, value),
            }
        }
        self.fit(half);
    }

    fn merge_meta(&mut self, meta: &RawValue, max_bytes: usize) {
        for (key, value) in Members::parse(meta.get()).map(|members| members.0).unwrap_or_default() {
            let output = OUTPUTS.contains(&key.as_ref()).then(|| Members::parse(value.get())).flatten();
            match output.as_ref().and_then(|output| Some((output, output.text("data")?))) {
                Some((output, data)) => self.append(&key, output.get("terminal_id"), &data, max_bytes),
                None => replace(&mut self.meta, &key, value),
            }
        }
    }

    fn append(&mut self, key: &str, terminal_id: Option<&RawValue>, data: &str, max_bytes: usize) {
        let room = max_bytes.saturating_sub(self.outputs_size());
        let fits = &data[..data.floor_char_boundary(room)];
        self.truncated |= fits.len() < data.len();
        if let Some(output) = self.outputs.iter_mut().find(|output| output.key == key) {
            output.data.push_str(fits);
        } else {
            let (key, terminal_id) = (key.to_owned(), terminal_id.map(ToOwned::to_owned));
            self.outputs.push(Output { key, terminal_id, data: fits.to_owned() });
        }
    }

    /// Cuts the largest members while there is too much; down to three quarters, so that not every update cuts again.
    /// None is cut below a share while another is above it, small ones (the status!) never.
    fn fit(&mut self, max_bytes: usize) {
        if self.size() <= max_bytes {
            return;
        }
        self.truncated = true;
        let goal = max_bytes / 4 * 3;
        let share = goal / 4;
        while let Some(over) = self.size().checked_sub(goal).filter(|over| *over > 0) {
            let members = self.members.iter_mut().chain(&mut self.meta);
            let members = members.filter(|(key, value)| key != "toolCallId" && size(key, value) > SMALL_BYTES);
            let Some((key, value)) = members.max_by_key(|(key, value)| size(key, value)) else { return };
            let length = value.get().len();
            let least = if length > share { share } else { 0 };
            if let Some(smaller) = shrink(value, length.saturating_sub(over).max(least)) {
                *value = smaller;
            } else {
                let key = key.clone();
                self.members.retain(|(name, _)| *name != key);
                self.meta.retain(|(name, _)| *name != key);
            }
        }
    }

    /// Of all but the outputs.
    fn size(&self) -> usize {
        self.members.iter().chain(&self.meta).map(|(key, value)| size(key, value)).sum()
    }

    fn outputs_size(&self) -> usize {
        self.outputs.iter().map(|output| output.data.len()).sum()
    }

    /// The member as it is written.
    pub fn raw(&self, key: &str) -> Option<&RawValue> {
        self.members.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_ref())
    }

    /// The string member.
    pub fn text(&self, key: &str) -> Option<Cow<'_, str>> {
        text(self.raw(key)?)
    }

    /// How it ended, when it has: true for failed.
    pub fn ended(&self) -> Option<bool> {
        match self.text("status")?.as_ref() {
            "completed" => Some(false),
            "failed" => Some(true),
            _ => None,
        }
    }

    /// What a program calls the tool: ACP's `name`, or what Claude Code's adapter tells beside.
    pub fn name(&self) -> Option<Cow<'_, str>> {
        self.text("name").or_else(|| self.claude("toolName"))
    }

    /// The call that this one is a part of, as Claude Code's adapter tells it of subagents.
    pub fn parent_call_id(&self) -> Option<Cow<'_, str>> {
        self.claude("parentToolUseId")
    }

    fn claude(&self, key: &str) -> Option<Cow<'_, str>> {
        let (_, value) = self.meta.iter().find(|(name, _)| name == "claudeCode")?;
        Members::parse(value.get())?.text(key)
    }

    /// Output that came in pieces.
    pub fn terminal_output(&self) -> Option<&str> {
        self.outputs.iter().map(|output| output.data.as_str()).find(|data| !data.is_empty())
    }

    /// Length of the arguments as JSON.
    pub fn arguments_bytes(&self) -> usize {
        self.raw("rawInput").map_or(0, |raw| raw.get().len())
    }

    /// Length of content, raw output and output in pieces.
    pub fn output_bytes(&self) -> usize {
        let raw = ["content", "rawOutput"].iter().filter_map(|key| self.raw(key)).map(|raw| raw.get().len());
        raw.sum::<usize>() + self.outputs_size()
    }

    /// Paths among `locations`.
    pub fn paths(&self) -> Vec<String> {
        let locations = self.raw("locations").and_then(elements).unwrap_or_default();
        let paths = locations.iter().filter_map(|location| Members::parse(location.get())?.text("path").map(Cow::into_owned));
        paths.collect()
    }
}

fn replace(members: &mut Vec<(String, Box<RawValue>)>, key: &str, value: &RawValue) {
    if let Some((_, old)) = members.iter_mut().find(|(name, _)| name == key) {
        *old = value.to_owned();
    } else if members.len() < MEMBERS_MAX {
        members.push((key.to_owned(), value.to_owned()));
    }
}

fn size(key: &str, value: &RawValue) -> usize {
    key.len() + value.get().len()
}

/// The ACP tool call, without `sessionUpdate`.
impl Serialize for ToolCall {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in &self.members {
            map.serialize_entry(key, value)?;
        }
        if !self.meta.is_empty() || !self.outputs.is_empty() {
            map.serialize_entry("_meta", &Meta(self))?;
        }
        map.end()
    }
}

struct Meta<'a>(&'a ToolCall);

impl Serialize for Meta<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in &self.0.meta {
            map.serialize_entry(key, value)?;
        }
        for output in &self.0.outputs {
            map.serialize_entry(&output.key, &Joined { data: &output.data, terminal_id: output.terminal_id.as_deref() })?;
        }
        map.end()
    }
}

#[derive(Serialize)]
struct Joined<'a> {
    data: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    terminal_id: Option<&'a RawValue>,
}
