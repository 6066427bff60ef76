//! One turn: a prompt and what became of it. Pure.

use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::begin::Sent;
use super::live::outcome_word;
use super::projection::Outcome;
use super::types::{TurnDoc, TurnInfo, TurnLimits};
use crate::rt::ids::new_id;
use crate::store::{RowChange, TurnRow};

/// A turn in memory.
#[derive(Debug, Clone)]
pub(super) struct Turn {
    pub(super) id: String,
    pub(super) number: u64,
    /// `queued`, `running` or `ended`.
    pub(super) state: &'static str,
    /// Key and digest of the request.
    pub(super) idempotency: Option<(String, String)>,
    pub(super) doc: TurnDoc,
    /// When it came to the front of the queue and was about to be sent, the first time.
    pub(super) taken_up: Option<Instant>,
}

impl Turn {
    /// A turn that was submitted here.
    pub(super) fn submitted(
        number: u64,
        prompt: Box<RawValue>,
        limits: TurnLimits,
        idempotency: Option<(String, String)>,
        now: i64,
    ) -> Self {
        let doc = TurnDoc {
            origin: "sessions".to_owned(),
            prompt: Some(prompt),
            delivery: "started".to_owned(),
            created_at_ms: now,
            limits,
            ..TurnDoc::default()
        };
        Self { id: new_id("turn"), number, state: "queued", idempotency, doc, taken_up: None }
    }

    /// A turn that a client of ACP began; `params` are those of its session/prompt.
    pub(super) fn of_acp(number: u64, params: &str, now: i64) -> Self {
        #[derive(serde::Deserialize)]
        struct Params {
            prompt: Option<Box<RawValue>>,
        }
        let prompt = serde_json::from_str::<Params>(params).ok().and_then(|params| params.prompt);
        let doc = TurnDoc {
            origin: "acp".to_owned(),
            prompt,
            delivery: "started".to_owned(),
            created_at_ms: now,
            ..TurnDoc::default()
        };
        Self { id: new_id("turn"), number, state: "queued", idempotency: None, doc, taken_up: None }
    }

    /// As the file has it.
    pub(super) fn from_row(row: TurnRow) -> Self {
        let state = match row.state.as_str() {
            "queued" => "queued",
            "running" => "running",
            _ => "ended",
        };
        let doc = serde_json::from_str(&row.doc).unwrap_or_default();
        Self { id: row.id, number: row.number, state, idempotency: row.idempotency, doc, taken_up: None }
    }

    /// For the file.
    pub(super) fn change(&self, session_id: &str) -> RowChange {
        RowChange::PutTurn(Box::new(TurnRow {
            id: self.id.clone(),
            session_id: session_id.to_owned(),
            number: self.number,
            state: self.state.to_owned(),
            idempotency: self.idempotency.clone(),
            doc: serde_json::to_string(&self.doc).unwrap_or_else(|_| "{}".to_owned()),
        }))
    }

    /// It goes to the agent.
    pub(super) fn sent(&mut self, place: Sent, now: i64) {
        self.doc.started_at_ms = Some(now);
        self.doc.sent = Some(place);
        self.taken_up.get_or_insert_with(Instant::now);
        self.state = "running";
    }

    /// It went there so long ago, by an earlier run: its time goes on from there.
    pub(super) fn sent_ago(&mut self, spent_ms: i64) {
        let spent = Duration::from_millis(u64::try_from(spent_ms).unwrap_or(0));
        self.taken_up = Some(Instant::now().checked_sub(spent).unwrap_or_else(Instant::now));
    }

    /// The agent's answer, or the error in its place. `cancelled_because` is why we asked for its end.
    pub(super) fn answered(&mut self, answer: Result<&str, &str>, cancelled_because: Option<&'static str>) {
        match answer {
            Ok(result) => {
                let result: Value = serde_json::from_str(result).unwrap_or_default();
                let stop_reason = result["stopReason"].as_str().map(str::to_owned);
                let is_cancelled = stop_reason.as_deref() == Some("cancelled");
                let outcome = if is_cancelled { Outcome::Cancelled } else { Outcome::Finished };
                self.doc.outcome = Some(outcome_word(outcome).to_owned());
                self.doc.stop_reason = stop_reason;
                self.doc.usage = result.get("usage").filter(|usage| !usage.is_null()).cloned();
                self.doc.reason = cancelled_because.filter(|_| is_cancelled).map(str::to_owned);
            }
            Err(error) => {
                let error: Value = serde_json::from_str(error).unwrap_or_default();
                let data = &error["data"];
                let (outcome, reason) = match data["reason"].as_str() {
                    Some(reason @ ("server_stopped" | "server_deleted")) => (Outcome::Lost, reason),
                    _ if cancelled_because.is_some() => (Outcome::Cancelled, cancelled_because.unwrap_or("interrupted")),
                    _ if data["exitCode"].is_number() || data["signal"].is_string() => (Outcome::Lost, "agent_exited"),
                    _ => (Outcome::Failed, "agent_error"),
                };
                self.doc.outcome = Some(outcome_word(outcome).to_owned());
                self.doc.reason = Some(reason.to_owned());
                self.doc.error = Some(error);
            }
        }
    }

    /// It ends without the agent's answer, by our own doing.
    pub(super) fn failed(&mut self, reason: &str, error: Option<Value>) {
        let outcome = match reason {
            "server_restarted" | "server_stopped" | "server_deleted" => Outcome::Lost,
            "exported" if self.doc.started_at_ms.is_some() => Outcome::Lost,
            "interrupted" | "closed" | "inactivity_timeout" | "timeout" => Outcome::Cancelled,
            _ => Outcome::Failed,
        };
        self.doc.outcome = Some(outcome_word(outcome).to_owned());
        self.doc.reason = Some(reason.to_owned());
        self.doc.error = error;
    }

    /// How it ended; `Failed` while it hasn't.
    pub(super) fn outcome(&self) -> Outcome {
        match self.doc.outcome.as_deref() {
            Some("finished") => Outcome::Finished,
            Some("cancelled") => Outcome::Cancelled,
            Some("lost") => Outcome::Lost,
            _ => Outcome::Failed,
        }
    }

    /// As routes show it.
    pub(super) fn info(&self, session_id: &str, position: Option<usize>) -> TurnInfo {
        let doc = self.doc.clone();
        TurnInfo {
            id: self.id.clone(),
            session_id: session_id.to_owned(),
            number: self.number,
            state: self.state.to_owned(),
            position,
            origin: doc.origin,
            delivery: doc.delivery,
            prompt: doc.prompt,
            created_at_ms: doc.created_at_ms,
            started_at_ms: doc.started_at_ms,
            ended_at_ms: doc.ended_at_ms.filter(|_| self.state == "ended"),
            outcome: doc.outcome.filter(|_| self.state == "ended"),
            stop_reason: doc.stop_reason.filter(|_| self.state == "ended"),
            reason: doc.reason.filter(|_| self.state == "ended"),
            error: doc.error.filter(|_| self.state == "ended"),
            usage: doc.usage.filter(|_| self.state == "ended"),
        }
    }
}
