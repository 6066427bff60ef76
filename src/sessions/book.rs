//! What ACP's remote transport asks: which sessions there are, and what was said in them.

use std::time::Duration;

use serde_json::{Value, json};

use super::Sessions;
use super::live::Live;
use super::projection::replay;
use super::types::SessionInfo;
use crate::acp::BoxFuture;
use crate::acp::remote::{History, Known, SessionBook};
use crate::config::as_usize;
use crate::store::{Item, SessionFilter};

/// Sessions in one answer to `session/list`.
const LIST_MAX: usize = 50;

impl SessionBook for Sessions {
    fn find(&self, agent: &str, acp_session_id: &str) -> BoxFuture<Option<Known>> {
        let (sessions, agent, id) = (self.clone(), agent.to_owned(), acp_session_id.to_owned());
        Box::pin(async move {
            let row = sessions.store().session_by_acp(None, Some(&agent), &id).await.ok().flatten()?;
            let live = sessions.live(&row.id).await.ok()?;
            sessions.prepare_server(&live).await.ok()?; // its server may have been deleted meanwhile
            let (server_id, ..) = live.address();
            // What passed is told as history, what passes next comes live: nothing may fall between.
            let told = live.clone();
            let look = move |newest| known(&live, newest);
            sessions.acp().ok()?.look(&server_id, move || told.end_message(), look).await.ok()
        })
    }

    fn history(&self, history: &History, after: u64) -> BoxFuture<(Vec<String>, Option<u64>)> {
        let (sessions, history) = (self.clone(), history.clone());
        Box::pin(async move {
            match sessions.told(&history, after).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::error!(%error, session = history.session_id, "the history of a session could not be read");
                    (Vec::new(), None)
                }
            }
        })
    }

    fn list(&self, agent: &str, params: &str) -> BoxFuture<String> {
        let params: Value = serde_json::from_str(params).unwrap_or_default();
        let text = |key: &str| params[key].as_str().map(str::to_owned);
        let before = text("cursor").and_then(|cursor| {
            let (time, id) = cursor.split_once(' ')?;
            Some((time.parse().ok()?, id.to_owned()))
        });
        let filter = SessionFilter { agent: Some(agent.to_owned()), cwd: text("cwd"), before, ..SessionFilter::default() };
        let sessions = self.clone();
        Box::pin(async move {
            let found = sessions.list(filter, LIST_MAX).await.unwrap_or_default();
            let mut answer = json!({"sessions": found.iter().map(listed).collect::<Vec<_>>()});
            if let Some(last) = found.last().filter(|_| found.len() == LIST_MAX) {
                answer["nextCursor"] = format!("{} {}", last.updated_at_ms, last.id).into();
            }
            answer.to_string()
        })
    }

    fn closed(&self, session_id: &str, deleted: bool) -> BoxFuture<()> {
        let (sessions, id) = (self.clone(), session_id.to_owned());
        Box::pin(async move {
            let done = if deleted { sessions.delete(&id).await } else { sessions.close(&id).await.map(drop) };
            if let Err(error) = done {
                tracing::info!(%error, session = id, "a session that a client closed was gone already");
            }
        })
    }
}

impl Sessions {
    /// A page of a session's history as `session/update` params.
    async fn told(&self, history: &History, after: u64) -> Result<(Vec<String>, Option<u64>), super::Error> {
        let live = self.live(&history.session_id).await?;
        let bounds = self.bounds();
        let (events, bytes) = (as_usize(bounds.log_page_max_events), as_usize(bounds.sse_chunk_max_bytes));
        let (_, _, acp_session_id) = live.address();
        let page = if after < history.until { live.stream.read_after(after, events, bytes).await? } else { Vec::new() };
        let next = page.last().map(Item::end).filter(|next| *next < history.until);
        let within = page.into_iter().filter(|item| item.end() <= history.until);
        let mut updates = Vec::new();
        for item in within {
            if let Item::Event(event) = item
                && let Ok(payload) = std::str::from_utf8(&event.payload)
                && !history.open_turn.as_deref().is_some_and(|turn| comes_live(payload, turn))
            {
                updates.extend(replay::updates(payload, &acp_session_id));
            }
        }
        Ok((updates, next))
    }
}

/// What is known of a session, when its server's events reach to `newest` and all of them are in its history.
fn known(live: &Live, newest: u64) -> Known {
    let state = live.lock();
    let running = state.running.last();
    let began = running.and_then(|running| running.turn.doc.sent.as_ref()).map(|sent| sent.events_after);
    let position = began.unwrap_or(newest);
    let open_turn = running.map(|running| running.turn.id.clone());
    let history = History { session_id: live.id.clone(), until: live.stream.newest().seq, open_turn };
    let mut opened = json!({});
    if let Some(modes) = &state.doc.modes {
        opened["modes"] = modes.parse();
        if let Some(mode) = &state.doc.mode {
            opened["modes"]["currentModeId"] = mode.clone().into();
        }
    }
    if let Some(options) = &state.doc.config_options {
        opened["configOptions"] = options.parse();
    }
    Known { history, server_id: state.row.server_id.clone(), opened: opened.to_string(), position }
}

/// True for what the agent says in the turn under way: the client gets it live.
fn comes_live(payload: &str, turn: &str) -> bool {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Head<'a> {
        turn_id: Option<&'a str>,
        source: &'a str,
    }
    serde_json::from_str::<Head<'_>>(payload).is_ok_and(|head| head.turn_id == Some(turn) && head.source != "client")
}

fn listed(session: &SessionInfo) -> Value {
    let at = Duration::from_millis(u64::try_from(session.updated_at_ms).unwrap_or(0));
    let updated = time::OffsetDateTime::UNIX_EPOCH + at;
    let mut entry = json!({"sessionId": session.acp_session_id, "cwd": session.cwd});
    if let Ok(text) = updated.format(&time::format_description::well_known::Rfc3339) {
        entry["updatedAt"] = text.into();
    }
    if let Some(title) = &session.title {
        entry["title"] = title.clone().into();
    }
    entry["_meta"] = json!({"sandboxd": {"id": session.id, "serverId": session.server_id, "state": session.state}});
    entry
}
