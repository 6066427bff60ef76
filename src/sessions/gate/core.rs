//! What waits, and what becomes of it. No clock, no disk, no agent: time comes in, rows and results go out.
//!
//! States of a request: *pending* → *resolved*, once, by whoever is first ([`State::answered`]), by its agent
//! ([`State::withdrawn`], [`State::server_gone`]) or at once by a rule or the bound ([`State::asked`]).

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::watch;

use super::answers::{self, Remember};
use super::policy::{Decision, Effect, Rule};
use super::rules::{self, RuleBook};
use super::subject::{Origin, Subject, ToolCall};
use super::types::{Closed, Opened, Outcome, PermissionOption, RequestInfo, RequestKind, RequestState, Resolution, Scope, Where};
use crate::acp::{Asked, Verdict};
use crate::config::{Bounds, as_usize};
use crate::rt::ids::new_id;
use crate::store::RowChange;

/// Requests that are over and stay in memory until the file surely has them.
const RECENT_MAX: usize = 256;

/// Characters of a title.
const TITLE_MAX: usize = 300;

/// Everything the gate knows.
#[derive(Debug, Default)]
pub(super) struct State {
    pub book: RuleBook,
    pub pending: HashMap<String, Pending>,
    /// Server id and the agent's id, to ours.
    pub by_agent: HashMap<(String, String), String>,
    pub deadlines: BTreeSet<(i64, String)>,
    /// Those of an earlier run of which it isn't known whether their agent lives.
    pub left: HashSet<String>,
    /// Those that their agent will ask again.
    pub again: HashSet<String>,
    recent: VecDeque<Arc<RequestInfo>>,
}

/// A request that waits.
#[derive(Debug)]
pub(super) struct Pending {
    pub info: Arc<RequestInfo>,
    /// The rule that an "always" makes, but for its effect and scope.
    pub lasting: Option<Rule>,
    intents: Vec<Intent>,
    done: watch::Sender<bool>,
}

/// What somebody who answers through us has in mind; the agent's answer comes back without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Intent {
    pub by: String,
    pub result: String,
    pub message: Option<String>,
    pub remember: Remember,
}

/// Params of `session/request_permission`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PermissionParams {
    tool_call: ToolCall,
    #[serde(default)]
    options: Vec<Value>,
}

/// A request as it was read.
pub(super) struct Reading {
    title: Option<String>,
    tool_kind: Option<String>,
    options: Vec<PermissionOption>,
    pub subject: Option<Subject>,
}

impl State {
    /// `None` for what no person answers.
    pub fn asked(&mut self, at: Where<'_>, asked: &Asked<'_>, now_ms: i64, bounds: &Bounds) -> Option<Opened> {
        let kind = RequestKind::of(asked.method, asked.session.is_some())?;
        let reading = read(kind, at, asked.params);
        let decision = match &reading.subject {
            Some(subject) => self.book.decide(subject),
            None => Decision { effect: Effect::Ask, rule: None, deadline_ms: None },
        };
        let lasting = reading.subject.as_ref().and_then(|subject| rules::lasting(subject, bounds.permission_rule_max_bytes));
        let mut info = describe(kind, at, asked, reading, now_ms, bounds);
        let at_once = match answers::effect(&info.options, decision.effect) {
            Some(result) => Some((result, decision.rule.clone(), None)),
            None if decision.effect == Effect::Deny => {
                Some((answers::default(kind, &info.options).0, decision.rule.clone(), None))
            }
            None if self.pending.len() >= as_usize(bounds.requests_pending_max) => {
                let reason = format!("{} requests wait already (bound requests_pending_max)", self.pending.len());
                Some((answers::default(kind, &info.options).0, None, Some(reason)))
            }
            None => None,
        };
        Some(match at_once {
            Some((result, rule, reason)) => self.decided(info, result, rule, reason, now_ms),
            None => {
                let (rule_ms, default_ms) = (decision.deadline_ms, default_deadline_ms(kind, bounds));
                let time_ms = i64::try_from(rule_ms.unwrap_or(default_ms)).unwrap_or(i64::MAX);
                info.deadline_at_ms = Some(now_ms.saturating_add(time_ms));
                info.asked_by_rule = decision.rule;
                self.wait(info, lasting, now_ms)
            }
        })
    }

    fn decided(
        &mut self,
        mut info: RequestInfo,
        result: String,
        rule: Option<String>,
        reason: Option<String>,
        now_ms: i64,
    ) -> Opened {
        let by = rule.as_ref().map_or_else(|| "limit".to_owned(), |rule| format!("rule:{rule}"));
        let created = info.created();
        let (outcome, option) = answers::outcome(info.kind, &info.options, Some(&result));
        // Of a refusal without an option that says it, the agent is told that it was cancelled.
        let outcome = if outcome == Outcome::Cancelled { info.default } else { outcome };
        let mut resolution = resolution(outcome, by.clone(), now_ms);
        resolution.option_id = option.map(|option| option.option_id);
        resolution.result = RawValue::from_string(result.clone()).ok();
        (resolution.rule, resolution.reason) = (rule, reason);
        settle(&mut info, resolution);
        let resolved = Some(info.resolved());
        let changes = vec![info.row()];
        let (request_id, kind) = (info.request_id.clone(), info.kind);
        self.keep(Arc::new(info));
        Opened { request_id, kind, verdict: Verdict::Answer { result, by }, created, resolved, changes, replaced: None }
    }

    fn wait(&mut self, info: RequestInfo, lasting: Option<Rule>, now_ms: i64) -> Opened {
        let key = (info.server_id.clone(), info.agent_request_id.clone());
        let older = self.by_agent.get(&key).cloned();
        let reason = "the agent asked again under the same id";
        let replaced = older.and_then(|older| self.close(&older, gone(Outcome::Lost, "agent", reason, now_ms))).map(Box::new);
        let changes = vec![info.row()];
        let (request_id, kind, created) = (info.request_id.clone(), info.kind, info.created());
        self.by_agent.insert(key, request_id.clone());
        self.deadlines.extend(info.deadline_at_ms.map(|at_ms| (at_ms, request_id.clone())));
        self.pending.insert(request_id.clone(), Pending::new(info, lasting));
        Opened { request_id, kind, verdict: Verdict::Ask, created, resolved: None, changes, replaced }
    }

    /// The agent's request was answered; `None` when it doesn't wait here.
    pub fn answered(
        &mut self,
        server_id: &str,
        agent_id: &str,
        result: Option<&str>,
        by: &str,
        now_ms: i64,
        bounds: &Bounds,
    ) -> Option<Closed> {
        let id = self.id_of(server_id, agent_id)?;
        let pending = self.pending.get(&id)?;
        let (outcome, option) = answers::outcome(pending.info.kind, &pending.info.options, result);
        let intent = pending.intents.iter().find(|intent| intent.by == by && Some(intent.result.as_str()) == result).cloned();
        let remember = intent.as_ref().map_or(Remember::ByOption, |intent| intent.remember);
        let scope = match remember {
            Remember::Nothing => None,
            Remember::For(scope) => Some(scope),
            Remember::ByOption => option.as_ref().filter(|option| option.kind.ends_with("_always")).map(|_| Scope::Session),
        };
        let mut resolution = resolution(outcome, by.to_owned(), now_ms);
        resolution.option_id = option.map(|option| option.option_id);
        resolution.message = intent.and_then(|intent| intent.message);
        resolution.reason = (by == "deadline").then(|| "nobody decided in time".to_owned());
        let short = result.filter(|result| result.len() <= as_usize(bounds.request_answer_max_bytes));
        resolution.result = short.and_then(|result| RawValue::from_string(result.to_owned()).ok());
        if by == "deadline" && outcome == Outcome::Cancelled {
            resolution.outcome = pending.info.default;
        }
        let (remembered, changes) = self.remember(&id, outcome, scope, now_ms, bounds).unzip();
        resolution.remembered = remembered;
        let mut closed = self.close(&id, resolution)?;
        closed.changes.extend(changes.unwrap_or_default());
        Some(closed)
    }

    fn remember(
        &mut self,
        id: &str,
        outcome: Outcome,
        scope: Option<Scope>,
        now_ms: i64,
        bounds: &Bounds,
    ) -> Option<(String, Vec<RowChange>)> {
        let effect = match outcome {
            Outcome::Allowed => Effect::Allow,
            Outcome::Denied => Effect::Deny,
            _ => return None,
        };
        let pending = self.pending.get(id)?;
        let rule = rules::decided(pending.lasting.as_ref()?, effect, scope?, pending.info.session_id.as_deref())?;
        self.book.remember(rule, now_ms, as_usize(bounds.permission_rules_max))
    }

    /// The agent took its request back.
    pub fn withdrawn(&mut self, server_id: &str, agent_id: &str, now_ms: i64) -> Option<Closed> {
        let id = self.id_of(server_id, agent_id)?;
        self.close(&id, gone(Outcome::Withdrawn, "agent", "the agent took it back", now_ms))
    }

    /// The agent that asked is gone, and all its requests with it.
    pub fn server_gone(&mut self, server_id: &str, reason: &str, now_ms: i64) -> Vec<Closed> {
        let mut ids: Vec<_> =
            self.pending.iter().filter(|(_, pending)| pending.info.server_id == server_id).map(|(id, _)| id.clone()).collect();
        ids.sort_unstable();
        ids.iter().filter_map(|id| self.close(id, gone(Outcome::Lost, "server", reason, now_ms))).collect()
    }

    pub(super) fn close(&mut self, id: &str, resolution: Resolution) -> Option<Closed> {
        let pending = self.pending.remove(id)?;
        self.left.remove(id);
        self.again.remove(id);
        let mut info = RequestInfo::clone(&pending.info);
        let key = (info.server_id.clone(), info.agent_request_id.clone());
        if self.by_agent.get(&key).is_some_and(|current| current == id) {
            self.by_agent.remove(&key);
        }
        if let Some(at_ms) = info.deadline_at_ms {
            self.deadlines.remove(&(at_ms, id.to_owned()));
        }
        settle(&mut info, resolution);
        let closed = info.closed(vec![info.row()]);
        self.keep(Arc::new(info));
        pending.done.send_replace(true);
        Some(closed)
    }

    fn keep(&mut self, info: Arc<RequestInfo>) {
        self.recent.push_back(info);
        if self.recent.len() > RECENT_MAX {
            self.recent.pop_front();
        }
    }

    fn id_of(&self, server_id: &str, agent_id: &str) -> Option<String> {
        self.by_agent.get(&(server_id.to_owned(), agent_id.to_owned())).cloned()
    }

    /// A request that waits.
    pub fn pending(&self, id: &str) -> Option<&Pending> {
        self.pending.get(id)
    }

    /// All that wait, newest first.
    pub fn all_pending(&self) -> Vec<Arc<RequestInfo>> {
        let mut all: Vec<_> = self.pending.values().map(|pending| Arc::clone(&pending.info)).collect();
        all.sort_unstable_by(|a, b| b.request_id.cmp(&a.request_id));
        all
    }

    /// A request that waits, or was over a moment ago.
    pub fn known(&self, id: &str) -> Option<Arc<RequestInfo>> {
        let recent = || self.recent.iter().rev().find(|info| info.request_id == id);
        self.pending.get(id).map(|pending| &pending.info).or_else(recent).cloned()
    }

    /// Notes what somebody is about to answer.
    pub fn intend(&mut self, id: &str, intent: Intent) {
        if let Some(pending) = self.pending.get_mut(id) {
            pending.intents.push(intent);
        }
    }

    /// It could not be sent.
    pub fn give_up(&mut self, id: &str, intent: &Intent) {
        if let Some(pending) = self.pending.get_mut(id)
            && let Some(at) = pending.intents.iter().position(|other| other == intent)
        {
            pending.intents.swap_remove(at);
        }
    }

    /// When the next one is due.
    pub fn next_deadline_ms(&self) -> Option<i64> {
        self.deadlines.first().map(|(at_ms, _)| *at_ms)
    }

    /// Takes those whose time is over.
    pub fn take_due(&mut self, now_ms: i64) -> Vec<Arc<RequestInfo>> {
        let later = self.deadlines.split_off(&(now_ms.saturating_add(1), String::new()));
        let due = std::mem::replace(&mut self.deadlines, later);
        due.iter().filter_map(|(_, id)| self.pending.get(id)).map(|pending| Arc::clone(&pending.info)).collect()
    }

    /// The default could not be sent: it is tried again then.
    pub fn retry_at(&mut self, info: &RequestInfo, at_ms: i64) {
        let Some(pending) = self.pending.get_mut(&info.request_id) else { return };
        Arc::make_mut(&mut pending.info).deadline_at_ms = Some(at_ms);
        self.deadlines.insert((at_ms, info.request_id.clone()));
    }
}

impl Pending {
    pub(super) fn new(info: RequestInfo, lasting: Option<Rule>) -> Self {
        Self { info: Arc::new(info), lasting, intents: Vec::new(), done: watch::Sender::new(false) }
    }

    /// Becomes true once it is over.
    pub fn done(&self) -> watch::Receiver<bool> {
        self.done.subscribe()
    }
}

fn default_deadline_ms(kind: RequestKind, bounds: &Bounds) -> u64 {
    match kind {
        RequestKind::Permission => bounds.permission_deadline_ms,
        RequestKind::Elicitation | RequestKind::Question => bounds.elicitation_deadline_ms,
    }
}

pub(super) fn read(kind: RequestKind, at: Where<'_>, params: &str) -> Reading {
    let mut reading = Reading { title: None, tool_kind: None, options: Vec::new(), subject: None };
    match kind {
        RequestKind::Permission => {
            let origin =
                Origin { agent: at.agent.to_owned(), session_id: at.session_id.map(str::to_owned), cwd: at.cwd.to_owned() };
            let params: Option<PermissionParams> = serde_json::from_str(params).ok();
            let subject = Subject::new(origin, params.as_ref().map(|params| &params.tool_call));
            reading.title = subject.title.clone().or_else(|| subject.name.clone());
            reading.tool_kind = subject.tool_kind.clone();
            let options = params.into_iter().flat_map(|params| params.options);
            reading.options = options.filter_map(|option| serde_json::from_value(option).ok()).collect();
            reading.subject = Some(subject);
        }
        RequestKind::Elicitation => {
            let params: Value = serde_json::from_str(params).unwrap_or_default();
            reading.title = params["message"].as_str().map(str::to_owned);
        }
        RequestKind::Question => {}
    }
    reading.title = reading.title.map(|title| title.chars().take(TITLE_MAX).collect());
    reading
}

fn describe(kind: RequestKind, at: Where<'_>, asked: &Asked<'_>, reading: Reading, now_ms: i64, bounds: &Bounds) -> RequestInfo {
    let short = asked.params.len() <= as_usize(bounds.request_params_max_bytes);
    RequestInfo {
        request_id: new_id("req"),
        kind,
        state: RequestState::Pending,
        session_id: at.session_id.map(str::to_owned),
        turn_id: at.turn_id.map(str::to_owned),
        server_id: at.server_id.to_owned(),
        agent: at.agent.to_owned(),
        agent_request_id: asked.id.to_owned(),
        method: asked.method.to_owned(),
        title: reading.title,
        tool_kind: reading.tool_kind,
        params: short.then(|| RawValue::from_string(asked.params.to_owned()).ok()).flatten(),
        params_bytes: (!short).then_some(asked.params.len()),
        created_at_ms: now_ms,
        deadline_at_ms: None,
        default: answers::default(kind, &reading.options).1,
        options: reading.options,
        asked_by_rule: None,
        resolution: None,
    }
}

fn resolution(outcome: Outcome, by: String, now_ms: i64) -> Resolution {
    Resolution {
        outcome,
        option_id: None,
        by,
        rule: None,
        message: None,
        reason: None,
        remembered: None,
        result: None,
        at_ms: now_ms,
    }
}

pub(super) fn gone(outcome: Outcome, by: &str, reason: &str, now_ms: i64) -> Resolution {
    Resolution { reason: Some(reason.to_owned()), ..resolution(outcome, by.to_owned(), now_ms) }
}

fn settle(info: &mut RequestInfo, resolution: Resolution) {
    info.state = RequestState::Resolved;
    info.resolution = Some(resolution);
}
