//! The gate as clients see it: finding requests, waiting for them, deciding them; and the rules.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::Gate;
use super::answers::{self, Remember};
use super::core::Intent;
use super::error::Error;
use super::policy::Rule;
use super::rules::Kept;
use super::types::{Answer, RequestInfo, RequestKind, RequestState, Resolved};
use crate::rt::clock::now_ms;
use crate::store::{RequestFilter, RequestRow, RowChange};

/// Between an answer to the agent and word of it.
const TOLD_TIME: Duration = Duration::from_secs(5);

/// Characters of a name or a message.
const WORDS_MAX: usize = 2_000;

/// Which requests a list shows.
#[derive(Debug, Clone, Default)]
pub struct ListFilter {
    /// That wait, or that are over.
    pub state: Option<RequestState>,
    /// Of one session (`ses_…`).
    pub session_id: Option<String>,
    /// Of one kind.
    pub kind: Option<RequestKind>,
    /// Older than this one: the cursor of the page before.
    pub before: Option<String>,
}

/// Requests, newest first.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequestPage {
    /// At most as many as were asked for.
    #[schema(value_type = Vec<RequestInfo>)]
    pub requests: Vec<Arc<RequestInfo>>,
    /// Give it as `cursor` to get older ones; absent when there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A rule that holds.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleInfo {
    /// The rule.
    #[serde(flatten)]
    pub rule: Rule,
    /// `policy`, or `remembered` when it comes from an "always".
    pub origin: &'static str,
    /// Unix milliseconds.
    pub created_at_ms: i64,
}

impl Gate {
    /// Requests, newest first. Cancel safe.
    ///
    /// # Errors
    /// [`Error::Store`] when the file can't be read.
    pub async fn list(&self, filter: ListFilter, limit: usize) -> Result<RequestPage, Error> {
        let mut requests = if filter.state == Some(RequestState::Pending) {
            let all = self.lock().all_pending();
            all.into_iter().filter(|info| filter.covers(info)).take(limit + 1).collect()
        } else {
            self.list_kept(&filter, limit + 1).await?
        };
        let more = requests.len() > limit;
        requests.truncate(limit);
        let next_cursor = requests.last().filter(|_| more).map(|info: &Arc<RequestInfo>| info.request_id.clone());
        Ok(RequestPage { requests, next_cursor })
    }

    async fn list_kept(&self, filter: &ListFilter, limit: usize) -> Result<Vec<Arc<RequestInfo>>, Error> {
        self.inner.store.settle().await;
        let query = RequestFilter {
            state: filter.state.map(|state| state.as_str().to_owned()),
            session_id: filter.session_id.clone(),
            kind: filter.kind.map(|kind| kind.as_str().to_owned()),
            before: filter.before.clone(),
        };
        let rows = self.inner.store.requests(query, limit).await?;
        let state = self.lock();
        let newest = |row: &RequestRow| state.known(&row.id).or_else(|| read_row(row).map(Arc::new));
        Ok(rows.iter().filter_map(newest).collect())
    }

    /// One request, after at most `wait` when it isn't resolved before. Cancel safe.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Store`].
    pub async fn get(&self, id: &str, wait: Duration) -> Result<Arc<RequestInfo>, Error> {
        let done = self.lock().pending(id).map(super::core::Pending::done);
        if let Some(mut done) = done {
            let _ = tokio::time::timeout(wait, done.wait_for(|done| *done)).await; // resolved or not, it is shown
        }
        self.find(id).await
    }

    async fn find(&self, id: &str) -> Result<Arc<RequestInfo>, Error> {
        let known = self.lock().known(id);
        if let Some(known) = known {
            return Ok(known);
        }
        let row = self.inner.store.request(id).await?;
        let info = row.as_ref().and_then(read_row).map(Arc::new);
        info.ok_or_else(|| Error::NotFound { id: id.to_owned() })
    }

    /// Decides a request. The first answer counts, from whatever door. Dropping the future may leave it decided.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the answer doesn't fit, [`Error::Resolved`] when it was decided otherwise before,
    /// [`Error::NotFound`], [`Error::Acp`] when the agent can't be reached.
    pub async fn resolve(&self, id: &str, answer: Answer) -> Result<Resolved, Error> {
        let info = self.find(id).await?;
        let reply = answers::reply(info.kind, &info.options, &answer)?;
        let intent = Intent {
            by: author(&answer)?,
            result: reply.result,
            message: words("message", answer.message)?,
            remember: reply.remember,
        };
        if info.state == RequestState::Resolved {
            return same(info, &intent);
        }
        let done = self.lock().pending(id).map(super::core::Pending::done);
        let Some(mut done) = done else {
            return same(self.find(id).await?, &intent);
        };
        let first = self.send(&info, &intent).await?;
        let told = tokio::time::timeout(TOLD_TIME, done.wait_for(|done| *done)).await.is_ok();
        let after = self.find(id).await?;
        match (first, told) {
            (true, _) => Ok(Resolved { request: after, already_resolved: false }),
            (false, true) => same(after, &intent),
            (false, false) => Err(Error::AgentGone),
        }
    }

    /// Answers whatever a session waits for as ACP asks of a client that cancels its turn ("Cancellation").
    pub async fn cancel_pending(&self, session_id: &str) {
        let all = self.lock().all_pending();
        for info in all.iter().filter(|info| info.session_id.as_deref() == Some(session_id)) {
            let result = answers::cancel(info.kind);
            let intent = Intent { by: "cancel".to_owned(), result, message: None, remember: Remember::Nothing };
            if let Err(error) = self.send(info, &intent).await {
                tracing::warn!(request = info.request_id, %error, "a request could not be cancelled");
            }
        }
    }

    /// True when it was the first answer.
    pub(super) async fn send(&self, info: &RequestInfo, intent: &Intent) -> Result<bool, Error> {
        let Some(answerer) = self.inner.answerer.get() else {
            return Err(Error::Starting);
        };
        self.lock().intend(&info.request_id, intent.clone());
        let sent = answerer.answer(&info.server_id, &info.agent_request_id, intent.result.clone(), intent.by.clone()).await;
        if !matches!(sent, Ok(true)) {
            self.lock().give_up(&info.request_id, intent);
        }
        Ok(sent?)
    }

    /// The policy, in its order.
    pub fn policy(&self) -> Vec<Rule> {
        self.lock().book.policy.iter().map(|kept| kept.compiled.rule.clone()).collect()
    }

    /// Replaces the policy, whole; what waits already is not decided anew.
    ///
    /// # Errors
    /// [`Error::BadRule`], [`Error::TooManyRules`], [`Error::Store`]: then the one before holds.
    pub async fn set_policy(&self, rules: Vec<Value>) -> Result<Vec<Rule>, Error> {
        let _writing = self.inner.rules.lock().await;
        let bounds = &self.inner.bounds;
        let (policy, change) =
            self.lock().book.check(rules, now_ms(), bounds.permission_rules_max, bounds.permission_rule_max_bytes)?;
        self.inner.store.change(change).await?;
        self.lock().book.policy = policy;
        Ok(self.policy())
    }

    /// All rules: the policy in its order, then what is remembered, oldest first.
    pub fn rules(&self) -> Vec<RuleInfo> {
        let show =
            |origin| move |kept: &Kept| RuleInfo { rule: kept.compiled.rule.clone(), origin, created_at_ms: kept.created_at_ms };
        let state = self.lock();
        state.book.policy.iter().map(show("policy")).chain(state.book.remembered.iter().map(show("remembered"))).collect()
    }

    /// Forgets a decision that was remembered.
    ///
    /// # Errors
    /// [`Error::NoRule`], [`Error::Store`]: then it is remembered still.
    pub async fn forget(&self, id: &str) -> Result<(), Error> {
        let _writing = self.inner.rules.lock().await;
        if !self.lock().book.remembered.iter().any(|kept| kept.compiled.rule.id == id) {
            return Err(Error::NoRule { id: id.to_owned() });
        }
        self.inner.store.change(RowChange::DeleteRule { id: id.to_owned() }).await?;
        self.lock().book.remembered.retain(|kept| kept.compiled.rule.id != id);
        Ok(())
    }
}

impl ListFilter {
    fn covers(&self, info: &RequestInfo) -> bool {
        self.session_id.as_ref().is_none_or(|id| info.session_id.as_ref() == Some(id))
            && self.kind.is_none_or(|kind| info.kind == kind)
            && self.before.as_ref().is_none_or(|before| info.request_id < *before)
    }
}

/// A request from its row; nothing when it can't be read.
pub(super) fn read_row(row: &RequestRow) -> Option<RequestInfo> {
    let info = serde_json::from_str(&row.doc);
    info.inspect_err(|error| tracing::warn!(request = row.id, %error, "a request can't be read")).ok()
}

/// Deciding the same again is no conflict.
fn same(info: Arc<RequestInfo>, intent: &Intent) -> Result<Resolved, Error> {
    let before = info.resolution.as_ref().and_then(|resolution| resolution.result.as_ref());
    let value = |text: &str| serde_json::from_str::<Value>(text).ok();
    let is_same = before.is_some_and(|before| value(before.get()) == value(&intent.result));
    if is_same { Ok(Resolved { request: info, already_resolved: true }) } else { Err(Error::Resolved(info)) }
}

/// Who decides: the prefix keeps a name from being taken for a rule.
fn author(answer: &Answer) -> Result<String, Error> {
    let name = words("by", answer.by.clone())?;
    Ok(name.map_or_else(|| "api".to_owned(), |name| format!("api:{name}")))
}

fn words(field: &str, text: Option<String>) -> Result<Option<String>, Error> {
    match text {
        Some(text) if text.chars().count() > WORDS_MAX => {
            Err(Error::Invalid(format!("{field}: give at most {WORDS_MAX} characters")))
        }
        text => Ok(text.filter(|text| !text.is_empty())),
    }
}
