//! The one timer: at a request's deadline its default is sent.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Notify;

use super::answers::{self, Remember};
use super::core::Intent;
use super::types::RequestInfo;
use super::{Gate, Inner};
use crate::rt::clock::now_ms;

/// The wall clock may jump: it is looked at so often.
const SLEEP_MAX_MS: i64 = 60_000;

/// For an agent that can't be reached, when it is tried again.
const RETRY_MS: i64 = 1_000;

/// The time to reach an agent.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// Runs until the gate is gone.
pub(super) async fn run(gate: Weak<Inner>, wake: Arc<Notify>) {
    loop {
        let Some(inner) = gate.upgrade() else { return };
        let gate = Gate { inner };
        let due = gate.lock().take_due(now_ms());
        join_all(due.iter().map(|info| expire(&gate, info))).await;
        let next_ms = gate.lock().next_deadline_ms();
        drop(gate);
        let sleep_ms = next_ms.map_or(SLEEP_MAX_MS, |at_ms| (at_ms - now_ms()).clamp(0, SLEEP_MAX_MS));
        let sleep = Duration::from_millis(u64::try_from(sleep_ms).unwrap_or_default());
        tokio::select! {
            () = tokio::time::sleep(sleep) => {}
            () = wake.notified() => {}
        }
    }
}

async fn expire(gate: &Gate, info: &RequestInfo) {
    let result = answers::default(info.kind, &info.options).0;
    let intent = Intent { by: "deadline".to_owned(), result, message: None, remember: Remember::Nothing };
    let answered = tokio::time::timeout(ANSWER_TIME, gate.send(info, &intent)).await;
    if !matches!(answered, Ok(Ok(_))) {
        tracing::warn!(request = info.request_id, "the default could not be sent to the agent");
        gate.lock().retry_at(info, now_ms() + RETRY_MS);
    }
}
