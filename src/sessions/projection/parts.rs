//! A tool call as parts: what it was asked, what it touched and showed, what it gave back.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::diff::hunk;
use super::json::{Members, elements};
use super::tool::ToolCall;

/// One part of a tool call's item.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub(super) enum Part<'a> {
    ToolCall {
        call_id: Cow<'a, str>,
        name: Cow<'a, str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        arguments: Option<&'a RawValue>,
    },
    FileRef {
        path: Cow<'a, str>,
        action: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        diff: Option<String>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        truncated: bool,
    },
    Terminal {
        terminal_id: Cow<'a, str>,
    },
    Json {
        json: &'a RawValue,
    },
    ToolResult {
        call_id: Cow<'a, str>,
        output: Output<'a>,
    },
    /// A content block as the agent wrote it.
    #[serde(untagged)]
    Block(&'a RawValue),
}

/// What a tool gave back: the raw output when there is one, else its text.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Output<'a> {
    Raw(&'a RawValue),
    Text(Cow<'a, str>),
}

/// The parts of a call as it is now. A diff in them is for reading; the whole texts are in `toolCall`.
pub(super) fn parts(call: &ToolCall, diff_max_bytes: usize) -> Vec<Part<'_>> {
    let call_id = call.text("toolCallId").unwrap_or_default();
    let name = call.name().or_else(|| call.text("title")).unwrap_or_default();
    let mut parts = vec![Part::ToolCall { call_id: call_id.clone(), name, arguments: call.raw("rawInput") }];
    let content = call.raw("content").and_then(elements).unwrap_or_default();
    parts.extend(content.iter().map(|element| shown(element, diff_max_bytes)));
    if call.text("kind").as_deref() == Some("read") {
        let read = |path| Part::FileRef { path: Cow::Owned(path), action: "read", diff: None, truncated: false };
        parts.extend(call.paths().into_iter().map(read));
    }
    if let Some(output) = output(call, &content) {
        parts.push(Part::ToolResult { call_id, output });
    }
    parts
}

/// The text that a call gave back, as far as it is text.
pub(super) fn output_text(call: &ToolCall) -> Option<Cow<'_, str>> {
    let content = call.raw("content").and_then(elements).unwrap_or_default();
    match content_text(&content).or_else(|| call.terminal_output().map(Cow::Borrowed)) {
        Some(text) => Some(text),
        None => call.raw("rawOutput").map(|raw| super::json::text(raw).unwrap_or(Cow::Borrowed(raw.get()))),
    }
}

fn output<'a>(call: &'a ToolCall, content: &[&'a RawValue]) -> Option<Output<'a>> {
    if let Some(raw) = call.raw("rawOutput") {
        return Some(Output::Raw(raw));
    }
    if let Some(data) = call.terminal_output() {
        return Some(Output::Text(Cow::Borrowed(data)));
    }
    call.ended()?; // before, its content may as well be a question or a preview
    content_text(content).map(Output::Text)
}

/// One element of `content` (ACP `ToolCallContent`).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    path: Option<Cow<'a, str>>,
    old_text: Option<Cow<'a, str>>,
    new_text: Option<Cow<'a, str>>,
    terminal_id: Option<Cow<'a, str>>,
}

fn shown(element: &RawValue, diff_max_bytes: usize) -> Part<'_> {
    let Ok(shown) = serde_json::from_str::<Shown<'_>>(element.get()) else { return Part::Json { json: element } };
    let kind = shown.r#type.as_ref();
    if let ("content", Some(block)) = (kind, shown.content.filter(|block| block.get().starts_with('{'))) {
        return Part::Block(block);
    }
    if let ("diff", Some(new)) = (kind, &shown.new_text) {
        let action = if shown.old_text.is_some() { "patch" } else { "write" };
        let (diff, truncated) = hunk(shown.old_text.as_deref().unwrap_or_default(), new, diff_max_bytes);
        let path = shown.path.unwrap_or_default();
        return Part::FileRef { path, action, diff: Some(diff), truncated };
    }
    match (kind, shown.terminal_id) {
        ("terminal", Some(terminal_id)) => Part::Terminal { terminal_id },
        _ => Part::Json { json: element },
    }
}

fn content_text<'a>(content: &[&'a RawValue]) -> Option<Cow<'a, str>> {
    let mut texts =
        content.iter().filter_map(|element| Members::parse(Members::parse(element.get())?.get("content")?.get())?.text("text"));
    let first = texts.next()?;
    Some(texts.fold(first, |joined, text| Cow::Owned(format!("{joined}\n{text}"))))
}
