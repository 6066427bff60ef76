//! A message that joins the turn under way, where the agent can do that.

use std::sync::Arc;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::live::Live;
use super::projection::Source;
use super::types::{Steered, Submitted};
use super::{Error, Sessions};
use crate::config::as_usize;
use crate::rt::clock::now_ms;
use crate::rt::ids::new_id;

/// An extension of Codex: agents that have it say so in `agentCapabilities._meta.steering` or `_meta.steering`.
const METHOD: &str = "_session/steering";

impl Sessions {
    /// Sends a message into the turn under way. `None` when there is none, when the agent can't, or when the turn ended
    /// just then: the message then waits for its own turn.
    ///
    /// # Errors
    /// The agent didn't answer, or ended: it may have taken the message, so it isn't sent as a turn of its own.
    pub(super) async fn steer(
        &self,
        live: &Arc<Live>,
        prompt: &RawValue,
        idempotency: Option<&(String, String)>,
    ) -> Result<Option<Submitted>, Error> {
        let Some(turn_id) = live.turn_to_steer() else { return Ok(None) };
        let (server_id, agent, acp_session_id) = live.address();
        let prompt: Value = serde_json::from_str(prompt.get()).unwrap_or_default();
        let params = json!({
            "sessionId": acp_session_id,
            "prompt": prompt,
            "_meta": {"steering": {"idleBehavior": "promptRequired"}}, // else the adapter starts a turn that nobody waits for
        });
        match self.ask(&server_id, &agent, METHOD, &params, None).await {
            Ok(answer) if answer["outcome"] == "injected" => {}
            Ok(answer) => {
                tracing::debug!(outcome = %answer["outcome"], "the turn could not be steered: the message waits");
                return Ok(None);
            }
            Err(Error::Refused { error, .. }) if is_refusal(&error) => {
                tracing::debug!(%error, "the turn could not be steered: the message waits");
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        let steered = idempotency.cloned().map(|(key, digest)| Steered { key, digest, turn_id: turn_id.clone() });
        live.user_said(&prompt, steered, as_usize(self.bounds().session_steered_keys_max));
        self.store().flush();
        Ok(Some(Submitted { turn_id, delivery: "steered".to_owned(), position: None, repeated: false }))
    }
}

/// A living agent said no; what we say in the place of one that ended names its exit.
fn is_refusal(error: &Value) -> bool {
    error["data"]["exitCode"].is_null() && error["data"]["signal"].is_null()
}

impl Live {
    /// The turn that a message may join.
    fn turn_to_steer(&self) -> Option<String> {
        let state = self.lock();
        let can = state.doc.initialized.as_ref().is_some_and(|answer| can_steer(&answer.parse()));
        let is_open = state.row.closed_at_ms.is_none();
        state.running.last().map(|running| running.turn.id.clone()).filter(|_| can && is_open)
    }

    /// A message of a person within a turn. `keys_max` of them are remembered by their idempotency keys.
    fn user_said(&self, prompt: &Value, steered: Option<Steered>, keys_max: usize) {
        let (now, mut state) = (now_ms(), self.lock());
        let change = steered.map(|steered| {
            state.doc.steered.push(steered);
            let beyond = state.doc.steered.len().saturating_sub(keys_max);
            state.doc.steered.drain(..beyond); // several, when the bound has become less
            Self::save(&mut state)
        });
        let item = json!({"item": {
            "itemId": new_id("item"), "kind": "message", "role": "user", "status": "completed",
            "startedAtMs": now, "completedAtMs": now, "parts": prompt,
        }});
        self.say(&mut state, "item.started", Source::Client, &item, None);
        self.say(&mut state, "item.completed", Source::Client, &item, change);
    }
}

fn can_steer(initialized: &Value) -> bool {
    let says = |meta: &Value| meta["steering"]["supported"] == true;
    says(&initialized["_meta"]) || says(&initialized["agentCapabilities"]["_meta"])
}
