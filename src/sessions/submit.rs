//! Taking messages in: each becomes a turn, once, whatever is retried.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

use super::live::{Key, Live};
use super::projection::Source;
use super::turn::Turn;
use super::types::{MessageSpec, Submitted, TurnLimits, WhileRunning};
use super::{Error, Sessions, message};
use crate::config::as_usize;
use crate::rt::clock::now_ms;
use crate::rt::spawn_owned;
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
        let sessions = self.clone();
        let taking = spawn_owned("session-submit", async move { sessions.take(&live, spec, key).await });
        taking.await.map_err(|_| Error::Acp(crate::acp::Error::Stopping))?
    }

    async fn take(&self, live: &Arc<Live>, spec: MessageSpec, key: Option<String>) -> Result<Submitted, Error> {
        let key = key.map(|key| (key, digest(&spec)));
        let _alone = match &key {
            Some((key, _)) => Some(self.inner.retries.enter(&format!("{} {key}", live.id)).await),
            None => None,
        };
        if let Some((key, digest)) = &key
            && let Some(earlier) = self.submitted(live, key, digest).await?
        {
            return Ok(earlier);
        }
        let links = self.links(&live.id, &spec.attachments).await?;
        let prompt = message::prompt(&spec, links)?;
        if spec.while_running == WhileRunning::Steer
            && let Some(joined) = self.steer(live, &prompt, key.as_ref()).await?
        {
            return Ok(joined);
        }
        // Then it is committed together with its start, before the agent gets it.
        let goes_at_once = live.lock().is_ready();
        let (submitted, committed) = self.enqueue(live, &spec, prompt, key)?;
        if spec.while_running == WhileRunning::Interrupt {
            self.cancel_but(live, "interrupted", Some(&submitted.turn_id)).await;
        }
        if !goes_at_once {
            self.store().flush();
        }
        let _ = committed.await; // a closed store: the turn runs all the same, for as long as we do
        Ok(submitted)
    }

    fn enqueue(
        &self,
        live: &Arc<Live>,
        spec: &MessageSpec,
        prompt: Box<serde_json::value::RawValue>,
        idempotency: Option<(String, String)>,
    ) -> Result<(Submitted, oneshot::Receiver<u64>), Error> {
        let mut state = live.lock();
        let is_busy = !state.running.is_empty() || !state.queue.is_empty();
        let max = self.bounds().turn_queue_max;
        match spec.while_running {
            _ if live.is_deleted() => return Err(Error::UnknownSession { id: live.id.clone() }),
            _ if state.row.closed_at_ms.is_some() => return Err(Error::Closed { id: live.id.clone() }),
            WhileRunning::Reject if is_busy => return Err(Error::Busy { id: live.id.clone() }),
            _ if state.queue.len() >= as_usize(max) => return Err(Error::QueueFull { max }),
            _ => {}
        }
        let limits = limits(spec.limits, state.doc.turn_limits);
        let mut turn = Turn::submitted(state.next_number(), prompt, limits, idempotency, now_ms());
        let delivery = if is_busy { "queued" } else { "started" };
        turn.doc.delivery = delivery.to_owned();
        let (id, key) = (turn.id.clone(), turn.idempotency.clone());
        let mut changes = vec![turn.change(&live.id)];
        if state.row.title.is_none() {
            state.row.title = title(&turn);
            changes.push(Live::save(&mut state));
        }
        // What is just on its way to the agent is interrupted, too: it stays at the front until then.
        let at = match spec.while_running {
            WhileRunning::Interrupt => {
                usize::from(state.queue.front().is_some_and(|turn| state.sending.as_ref() == Some(&turn.id)))
            }
            _ => state.queue.len(),
        };
        state.queue.insert(at, turn);
        if let Some((key, digest)) = key {
            state.remember_key(Key { key, turn_id: id.clone(), digest, delivery });
        }
        let position = state.position(&id).unwrap_or_default();
        let data = serde_json::json!({"turnId": id, "position": position, "delivery": delivery});
        let committed = live.say_acked(&mut state, "turn.queued", Source::Client, &data, Some(RowChange::Many(changes)));
        self.work_on(live, &mut state);
        let position = is_busy.then_some(position);
        Ok((Submitted { turn_id: id, delivery: delivery.to_owned(), position, repeated: false }, committed))
    }

    /// The turn that was submitted under this key before.
    async fn submitted(&self, live: &Live, key: &str, digest: &str) -> Result<Option<Submitted>, Error> {
        {
            let state = live.lock();
            if let Some(known) = state.key(key) {
                return repeated(key, &known.turn_id, known.delivery, known.digest == digest).map(Some);
            }
            if let Some(joined) = state.doc.steered.iter().find(|joined| joined.key == key) {
                return repeated(key, &joined.turn_id, "steered", joined.digest == digest).map(Some);
            }
        }
        let Some(row) = self.store().turn_by_key(&live.id, key).await? else { return Ok(None) };
        let turn = Turn::from_row(row);
        let is_same = turn.idempotency.as_ref().is_some_and(|(_, first)| first == digest);
        repeated(key, &turn.id, &turn.doc.delivery, is_same).map(Some)
    }
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
