//! Taking messages in: each becomes a turn, once, whatever is retried.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::live::{Live, State};
use super::projection::Source;
use super::turn::Turn;
use super::types::{MessageSpec, Submitted, TurnLimits, WhileRunning};
use super::{Error, Sessions, message};
use crate::config::as_usize;
use crate::rt::clock::now_ms;
use crate::store::RowChange;

/// A digest of a request, to tell a retry from another request under the same key.
pub(super) fn digest(request: &impl Serialize) -> String {
    let text = serde_json::to_string(request).unwrap_or_default();
    Sha256::digest(text).iter().fold(String::new(), |mut hex, byte| {
        use std::fmt::Write as _;
        let _ = write!(hex, "{byte:02x}"); // writing to a String can't fail
        hex
    })
}

impl Sessions {
    /// Takes a message in; resolves once the turn is in the file. The same `key` with the same message never prompts
    /// twice: it gives the turn of the first time. Dropping the future takes nothing back.
    ///
    /// # Errors
    /// [`Error::UnknownSession`], [`Error::Closed`], [`Error::Busy`], [`Error::QueueFull`], [`Error::KeyReused`],
    /// [`Error::Invalid`], [`Error::UnknownAttachment`].
    pub async fn submit(&self, id: &str, spec: MessageSpec, key: Option<String>) -> Result<Submitted, Error> {
        let live = self.live(id).await?;
        let digest = digest(&spec);
        if let Some(key) = &key
            && let Some(earlier) = self.submitted(&live, key, &digest).await?
        {
            return Ok(earlier);
        }
        let links = self.links(id, &spec.attachments).await?;
        let prompt = message::prompt(&spec, links)?;
        if spec.while_running == WhileRunning::Steer
            && let Some(joined) = self.steer(&live, &prompt).await
        {
            return Ok(joined);
        }
        if spec.while_running == WhileRunning::Interrupt && !live.lock().running.is_empty() {
            self.interrupt(id, "interrupted").await?;
        }
        let (turn_id, delivery, position, committed) = {
            let mut state = live.lock();
            if let Some((key, digest)) = key.as_deref().map(|key| (key, digest.as_str()))
                && let Some(earlier) = known(&state, key, digest)
            {
                return earlier; // the same request at the same time
            }
            self.enqueue(&live, &mut state, &spec, prompt, key.map(|key| (key, digest)))?
        };
        self.store().flush();
        let _ = committed.await; // a closed store: the turn runs all the same, for as long as we do
        Ok(Submitted { turn_id, delivery: delivery.to_owned(), position, repeated: false })
    }

    #[allow(clippy::type_complexity)] // one caller, one line above
    fn enqueue(
        &self,
        live: &Arc<Live>,
        state: &mut State,
        spec: &MessageSpec,
        prompt: Box<serde_json::value::RawValue>,
        idempotency: Option<(String, String)>,
    ) -> Result<(String, &'static str, Option<usize>, tokio::sync::oneshot::Receiver<u64>), Error> {
        let is_busy = !state.running.is_empty() || !state.queue.is_empty();
        let max = self.bounds().turn_queue_max;
        match spec.while_running {
            _ if state.row.closed_at_ms.is_some() => return Err(Error::Closed { id: live.id.clone() }),
            WhileRunning::Reject if is_busy => return Err(Error::Busy { id: live.id.clone() }),
            _ if state.queue.len() >= as_usize(max) => return Err(Error::QueueFull { max }),
            _ => {}
        }
        state.last_number += 1;
        let limits = limits(spec.limits, state.doc.turn_limits);
        let mut turn = Turn::submitted(state.last_number, prompt, limits, idempotency, now_ms());
        let delivery = if is_busy { "queued" } else { "started" };
        turn.doc.delivery = delivery.to_owned();
        if let Some((key, digest)) = turn.idempotency.clone() {
            state.remember_key(&key, &turn.id, &digest);
        }
        let is_first = spec.while_running == WhileRunning::Interrupt;
        let position = if is_first { 0 } else { state.queue.len() + usize::from(!state.running.is_empty()) };
        let data = serde_json::json!({"turnId": turn.id, "position": position, "delivery": delivery});
        let mut changes = vec![turn.change(&live.id)];
        if state.row.title.is_none() {
            state.row.title = title(&turn);
            changes.push(Live::save(state));
        }
        let committed = live.say_acked(state, "turn.queued", Source::Client, &data, Some(RowChange::Many(changes)));
        let id = turn.id.clone();
        if is_first {
            state.queue.push_front(turn)
        } else {
            state.queue.push_back(turn)
        }
        self.work_on(live, state);
        Ok((id, delivery, is_busy.then_some(position), committed))
    }

    /// The turn that was submitted under this key before.
    async fn submitted(&self, live: &Live, key: &str, digest: &str) -> Result<Option<Submitted>, Error> {
        if let Some(earlier) = known(&live.lock(), key, digest) {
            return earlier.map(Some);
        }
        let Some(row) = self.store().turn_by_key(&live.id, key).await? else { return Ok(None) };
        let turn = Turn::from_row(row);
        let is_same = turn.idempotency.as_ref().is_some_and(|(_, first)| first == digest);
        repeated(key, &turn.id, &turn.doc.delivery, is_same).map(Some)
    }
}

/// The same, as far as memory knows it.
fn known(state: &State, key: &str, digest: &str) -> Option<Result<Submitted, Error>> {
    let (turn_id, first) = state.keys.get(key)?;
    Some(repeated(key, turn_id, "started", first == digest))
}

fn repeated(key: &str, turn_id: &str, delivery: &str, is_same: bool) -> Result<Submitted, Error> {
    if !is_same {
        return Err(Error::KeyReused { key: key.to_owned() });
    }
    Ok(Submitted { turn_id: turn_id.to_owned(), delivery: delivery.to_owned(), position: None, repeated: true })
}

fn limits(own: Option<TurnLimits>, of_session: TurnLimits) -> TurnLimits {
    let own = own.unwrap_or_default();
    TurnLimits {
        inactivity_timeout_ms: own.inactivity_timeout_ms.or(of_session.inactivity_timeout_ms),
        timeout_ms: own.timeout_ms.or(of_session.timeout_ms),
    }
}

/// Until the agent gives a title: the beginning of the first message.
fn title(turn: &Turn) -> Option<String> {
    const TITLE_MAX_CHARS: usize = 60;
    let prompt: Value = serde_json::from_str(turn.doc.prompt.as_ref()?.get()).ok()?;
    let text = prompt.as_array()?.iter().find_map(|block| block["text"].as_str())?;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let title: String = line.chars().take(TITLE_MAX_CHARS).collect();
    Some(title).filter(|title| !title.is_empty())
}
