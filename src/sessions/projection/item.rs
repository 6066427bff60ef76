//! Items: what events of kind `item.*` carry.

use serde::Serialize;
use serde_json::value::RawValue;

/// Whether an item goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    InProgress,
    Completed,
    Failed,
}

/// An item as it is written. `P` are its parts, `T` what it keeps of ACP.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Item<'a, P> {
    pub item_id: &'a str,
    pub kind: &'static str,
    pub role: &'static str,
    pub status: Status,
    pub started_at_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<&'a RawValue>,
    pub parts: P,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_call: Option<&'a super::tool::ToolCall>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// Of the whole text, when it is cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<usize>,
    /// How many parts did not fit.
    #[serde(skip_serializing_if = "is_zero")]
    pub parts_left_out: usize,
    /// Why it failed, when we know better than the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    #[serde(rename = "_meta", skip_serializing_if = "Option::is_none")]
    pub meta: Option<&'a RawValue>,
}

impl<'a, P> Item<'a, P> {
    /// An item without anything optional.
    pub fn new(item_id: &'a str, kind: &'static str, role: &'static str, started_at_ms: i64, parts: P) -> Self {
        Self {
            item_id,
            kind,
            role,
            status: Status::InProgress,
            started_at_ms,
            completed_at_ms: None,
            message_id: None,
            parts,
            tool_call: None,
            truncated: false,
            bytes: None,
            parts_left_out: 0,
            reason: None,
            meta: None,
        }
    }

    /// The same, ended.
    pub fn ended(mut self, status: Status, now_ms: i64) -> Self {
        self.status = status;
        self.completed_at_ms = Some(now_ms);
        self
    }
}

/// `data` of `item.started` and `item.completed`.
#[derive(Serialize)]
pub(super) struct Whole<'a, P> {
    pub item: Item<'a, P>,
}

/// `data` of `item.delta` with text.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TextDelta<'a> {
    pub item_id: &'a str,
    pub delta: Text<'a>,
}

/// A piece of text.
#[derive(Serialize)]
pub(super) struct Text<'a> {
    pub r#type: &'static str,
    pub text: &'a str,
}

/// `data` of `item.delta` with anything else.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Change<'a, U> {
    pub item_id: &'a str,
    pub update: U,
    /// It came after `item.completed`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub late: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}
