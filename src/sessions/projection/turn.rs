//! The beginning and the end of a turn. Source: ACP v1, "Prompt Turn".

use serde::Serialize;
use serde_json::value::RawValue;

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The agent answered the prompt.
    Finished,
    /// Somebody cancelled it.
    Cancelled,
    /// The agent answered with an error.
    Failed,
    /// The agent or the daemon ended before the answer came.
    Lost,
}

/// The end of a turn.
#[derive(Debug, Clone, Copy)]
pub struct TurnEnd<'a> {
    /// The turn, also when the fold has not seen its start.
    pub turn_id: &'a str,
    /// How.
    pub outcome: Outcome,
    /// ACP's stop reason.
    pub stop_reason: Option<&'a str>,
    /// The agent's error as JSON text.
    pub error: Option<&'a str>,
    /// Why, in our words.
    pub reason: Option<&'a str>,
    /// Usage in the agent's answer as JSON text.
    pub usage: Option<&'a str>,
}

/// `data` of `turn.started`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TurnStarted<'a> {
    pub turn_id: &'a str,
    pub origin: &'a str,
    pub prompt: Verbatim<'a>,
}

/// `data` of `turn.ended`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TurnEnded<'a> {
    pub turn_id: &'a str,
    pub outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Verbatim<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Verbatim<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<i64>,
}

/// JSON as it is written; what is none becomes a string.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Verbatim<'a> {
    Json(&'a RawValue),
    Text(&'a str),
}

impl<'a> Verbatim<'a> {
    /// Of a text that should be JSON.
    pub fn of(text: &'a str) -> Self {
        serde_json::from_str(text).map_or(Self::Text(text), Self::Json)
    }
}
