//! What an agent asked, and had no answer to when the server was killed.

use std::sync::Arc;

use super::Tail;
use super::heard::What;
use crate::acp::Decided;
use crate::rt::clock::now_ms;
use crate::sessions::Sessions;
use crate::sessions::gate::{Closed, RequestInfo, RequestKind};
use crate::store::RequestFilter;
use crate::traces::RequestSeen;

/// Requests that are over, of which one may have been answered last.
const RECENT_MAX: usize = 500;

/// What became of a request.
enum Fate {
    Waits,
    /// The agent hasn't asked it for the log: it will once more.
    Again,
    Over(Option<Box<Closed>>),
}

impl Sessions {
    /// Requests that the file has as pending, and that are not among those that wait for the agent (`asked`): those that were
    /// answered end with that; `answered` knows how.
    pub(in crate::sessions) fn answered_meanwhile(
        &self,
        server_id: &str,
        left: &[Arc<RequestInfo>],
        (asked, answered): (&[String], &[(String, String)]),
        tail: &Tail,
    ) -> Vec<Closed> {
        let mut over = Vec::new();
        for info in left {
            match self.fate(server_id, info, (asked, answered), tail) {
                Fate::Waits => {}
                Fate::Again => self.gate().expect_again(info),
                Fate::Over(closed) => over.extend(closed.map(|closed| *closed)),
            }
        }
        over
    }

    fn fate(
        &self,
        server_id: &str,
        info: &RequestInfo,
        (asked, answered): (&[String], &[(String, String)]),
        tail: &Tail,
    ) -> Fate {
        let agent_id = &info.agent_request_id;
        if asked.contains(agent_id) {
            return Fate::Waits;
        }
        let last = tail.said.iter().rev().find(|heard| match &heard.what {
            What::Answered { id, .. } | What::Withdrawn { id } | What::Asked { id, .. } => id == agent_id,
            _ => false,
        });
        match last.map(|heard| &heard.what) {
            Some(What::Answered { by, outcome, .. }) => {
                let result = outcome.as_ref().filter(|outcome| *outcome != "null" && info.kind == RequestKind::Permission);
                let result = result.map(|outcome| format!(r#"{{"outcome":{outcome}}}"#));
                // The log has only what was decided of permissions.
                let told = || answered.iter().rev().find(|(id, _)| id == agent_id).map(|(_, result)| result.clone());
                let result = result.or_else(told);
                Fate::Over(self.gate().answered(server_id, agent_id, result.as_deref(), by, now_ms()).map(Box::new))
            }
            Some(What::Withdrawn { .. }) => Fate::Over(self.gate().withdrawn(server_id, agent_id, now_ms()).map(Box::new)),
            _ => Fate::Again,
        }
    }

    /// The answer to what waits for the agent, but was decided: it may not have reached it.
    pub(in crate::sessions) async fn decided_before(&self, server_id: &str, agent_id: &str) -> Option<Decided> {
        let filter = RequestFilter { state: Some("resolved".to_owned()), ..RequestFilter::default() };
        let rows = self.store().requests(filter, RECENT_MAX).await.ok()?;
        let mut infos = rows.iter().filter_map(|row| serde_json::from_str::<RequestInfo>(&row.doc).ok());
        let info = infos.find(|info| info.server_id == server_id && info.agent_request_id == agent_id)?;
        let resolution = info.resolution?;
        Some(Decided { id: agent_id.to_owned(), result: resolution.result?.get().to_owned(), by: resolution.by })
    }
}

/// For spans.
pub(super) fn seen(pending: &[Arc<RequestInfo>]) -> Vec<RequestSeen<'_>> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Params<'a> {
        #[serde(borrow)]
        tool_call: Call<'a>,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Call<'a> {
        tool_call_id: &'a str,
    }
    let each = pending.iter().rev().map(|info| {
        let params = info.params.as_ref().and_then(|params| serde_json::from_str::<Params<'_>>(params.get()).ok());
        let call_id = params.map(|params| params.tool_call.tool_call_id);
        RequestSeen { request_id: &info.request_id, kind: info.kind.as_str(), call_id }
    });
    each.collect()
}

impl Tail {
    /// What the agent asked last under this id: method, params and session.
    pub(in crate::sessions) fn asked(&self, agent_id: &str) -> Option<(&str, &str, Option<&str>)> {
        self.said.iter().rev().find_map(|heard| match &heard.what {
            What::Asked { id, method, params, session } if id == agent_id => {
                Some((method.as_str(), params.as_str(), session.as_deref()))
            }
            _ => None,
        })
    }
}
