//! The rules that hold: the policy, in its order, then what clients decided for good, refusals first.

use super::error::Error;
use super::policy::{Compiled, Decision, Effect, Rule, decide};
use super::subject::{Known, Subject};
use super::types::Scope;
use crate::rt::ids::new_id;
use crate::store::{RowChange, RuleRow};

/// Origin of the policy's rows.
const POLICY: &str = "policy";

/// Origin of the rows of what is remembered.
const REMEMBERED: &str = "remembered";

/// A rule and when it was made, in Unix milliseconds.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub compiled: Compiled,
    pub created_at_ms: i64,
}

/// All rules.
#[derive(Debug, Default)]
pub(super) struct RuleBook {
    pub policy: Vec<Kept>,
    /// Oldest first.
    pub remembered: Vec<Kept>,
}

impl RuleBook {
    /// From the file. A rule of the policy that can't be read may have been a refusal: from its place on all is asked.
    pub fn load(rows: Vec<RuleRow>) -> Self {
        let mut book = Self::default();
        for row in rows {
            let read = serde_json::from_str::<Rule>(&row.doc).ok().and_then(|rule| Compiled::new(rule).ok());
            let is_policy = row.origin == POLICY;
            if read.is_none() {
                tracing::warn!(rule = row.id, origin = row.origin, "a permission rule can't be read");
            }
            let stand_in = || is_policy.then(|| Compiled::new(Rule::new(row.id.clone(), Effect::Ask)).ok()).flatten();
            let Some(compiled) = read.or_else(stand_in) else { continue };
            let list = if is_policy { &mut book.policy } else { &mut book.remembered };
            list.push(Kept { compiled, created_at_ms: row.created_at_ms });
        }
        book
    }

    /// A policy decides before what is remembered: what it refuses or asks, no "always" allows.
    pub fn decide(&self, subject: &Subject) -> Decision {
        let remembered =
            |deny: bool| self.remembered.iter().filter(move |kept| (kept.compiled.rule.effect == Effect::Deny) == deny);
        let all = self.policy.iter().chain(remembered(true)).chain(remembered(false));
        decide(all.map(|kept| &kept.compiled), subject)
    }

    /// Adds what was decided for good, unless it is there already; gives its id and what changes in the file.
    pub fn remember(&mut self, mut rule: Rule, now_ms: i64, max: usize) -> Option<(String, Vec<RowChange>)> {
        rule.id.clear();
        let same = self.remembered.iter().find(|kept| Rule { id: String::new(), ..kept.compiled.rule.clone() } == rule);
        if let Some(same) = same {
            return Some((same.compiled.rule.id.clone(), Vec::new()));
        }
        rule.id = new_id("rule");
        let kept = Kept { compiled: Compiled::new(rule).ok()?, created_at_ms: now_ms };
        let (id, row) = (kept.compiled.rule.id.clone(), row(&kept, now_ms, REMEMBERED));
        self.remembered.push(kept);
        let too_many = self.remembered.len().saturating_sub(max);
        let forgotten = self.remembered.drain(..too_many).map(|kept| RowChange::DeleteRule { id: kept.compiled.rule.id });
        let changes = std::iter::once(RowChange::PutRule(Box::new(row))).chain(forgotten).collect();
        Some((id, changes))
    }

    /// Drops what is remembered for one session; gives what changes in the file.
    pub fn forget_session(&mut self, session_id: &str) -> Vec<RowChange> {
        let of_session = |kept: &mut Kept| kept.compiled.rule.session_id.as_deref() == Some(session_id);
        let gone = self.remembered.extract_if(.., of_session);
        gone.map(|kept| RowChange::DeleteRule { id: kept.compiled.rule.id }).collect()
    }

    /// Checks a new policy; gives it with what changes in the file.
    ///
    /// # Errors
    /// [`Error::BadRule`] names the first rule and field that can't be used, [`Error::TooManyRules`].
    pub fn check(
        &self,
        rules: Vec<serde_json::Value>,
        now_ms: i64,
        max: u64,
        rule_max_bytes: u64,
    ) -> Result<(Vec<Kept>, RowChange), Error> {
        if rules.len() as u64 > max {
            return Err(Error::TooManyRules { max });
        }
        let mut policy: Vec<Kept> = Vec::new();
        for (at, value) in rules.into_iter().enumerate() {
            let id = value["id"].as_str().unwrap_or_default().to_owned();
            let bad = |field: &str, problem: String| Error::BadRule {
                number: at + 1,
                id: id.clone(),
                field: field.to_owned(),
                problem,
            };
            if value.to_string().len() as u64 > rule_max_bytes {
                return Err(bad("all", format!("a rule may have {rule_max_bytes} bytes (bound permission_rule_max_bytes)")));
            }
            let mut rule: Rule = serde_path(value).map_err(|(field, problem)| bad(&field, problem))?;
            if rule.id.is_empty() {
                rule.id = new_id("rule");
            }
            if rule.id.len() > 100 || rule.id.chars().any(|c| c.is_control() || c == '/') {
                return Err(bad("id", "give at most 100 bytes without control characters and slashes".to_owned()));
            }
            if policy.iter().chain(&self.remembered).any(|other| other.compiled.rule.id == rule.id) {
                return Err(bad("id", "another rule has it".to_owned()));
            }
            let compiled = Compiled::new(rule).map_err(|fault| bad(fault.field, fault.problem))?;
            policy.push(Kept { compiled, created_at_ms: now_ms });
        }
        let rows = policy.iter().zip(0..).map(|(kept, position)| row(kept, position, POLICY)).collect();
        Ok((policy, RowChange::ReplaceRules { origin: POLICY, rules: rows }))
    }
}

/// The rule, or the field that doesn't fit and why.
fn serde_path(value: serde_json::Value) -> Result<Rule, (String, String)> {
    let Some(members) = value.as_object() else { return Err(("all".to_owned(), "a rule is an object".to_owned())) };
    if !members.contains_key("effect") {
        return Err(("effect".to_owned(), "give allow, deny or ask".to_owned()));
    }
    // Alone beside an effect that fits, so that what is wrong has a name.
    for (key, member) in members.iter().filter(|(key, _)| *key != "effect") {
        let alone = serde_json::json!({"effect": "ask", key: member});
        serde_json::from_value::<Rule>(alone).map_err(|error| (key.clone(), error.to_string()))?;
    }
    serde_json::from_value(value).map_err(|error| ("effect".to_owned(), error.to_string()))
}

fn row(kept: &Kept, position: i64, origin: &'static str) -> RuleRow {
    RuleRow {
        id: kept.compiled.rule.id.clone(),
        position,
        origin: origin.to_owned(),
        created_at_ms: kept.created_at_ms,
        doc: serde_json::to_string(&kept.compiled.rule).unwrap_or_default(), // it was JSON before
    }
}

/// What an "always" means, as narrow as it can be said: the agent, the kind of tool and the very command with its
/// directory, or the folders of the files, or else the very input. `None` when that would say too much or too little.
pub(super) fn lasting(subject: &Subject, max_bytes: u64) -> Option<Rule> {
    if !subject.readable || subject.tool_kind.as_deref() == Some("switch_mode") {
        return None; // another mode is another policy of the agent's
    }
    let mut rule = Rule::new(String::new(), Effect::Allow);
    rule.agents = Some(vec![subject.origin.agent.clone()]);
    rule.tool_kinds = subject.tool_kind.clone().map(|kind| vec![kind]);
    match &subject.command {
        Known::Is(line) if !subject.asks_more => {
            rule.commands = Some(vec![format!("exact:{}", line.text)]);
            rule.tool_kinds = None; // a command is a command
            rule.cwd = Some(globset::escape(subject.cwd.as_deref()?));
        }
        Known::Absent
            if !subject.paths.is_empty() && !subject.odd_paths && rule.tool_kinds.is_some() && subject.touches_files() =>
        {
            let mut folders: Vec<_> = subject.paths.iter().map(|path| folder(path)).collect();
            folders.dedup();
            rule.paths = Some(folders);
        }
        _ => {
            let called = subject.name.as_ref().or(subject.title.as_ref())?;
            rule.tools = Some(vec![globset::escape(called)]);
            rule.input = Some(subject.input.clone()).filter(serde_json::Value::is_object);
            rule.input.as_ref()?;
        }
    }
    let bytes = serde_json::to_string(&rule).ok()?.len() as u64;
    (bytes <= max_bytes).then_some(rule)
}

/// The files of a path's folder, but not of those below it.
fn folder(path: &str) -> String {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    format!("{}/*", globset::escape(folder))
}

/// The rule for what was decided.
pub(super) fn decided(lasting: &Rule, effect: Effect, scope: Scope, session_id: Option<&str>) -> Option<Rule> {
    let session_id = match scope {
        Scope::Session => Some(session_id?.to_owned()),
        Scope::Always => None,
    };
    Some(Rule { effect, session_id, ..lasting.clone() })
}
