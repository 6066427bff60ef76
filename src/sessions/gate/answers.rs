//! Decisions as agents understand them, and back: JSON-RPC results of ACP v1's `session/request_permission` and
//! `elicitation/create`.

use serde_json::{Value, json};

use super::error::Error;
use super::policy::Effect;
use super::types::{Answer, DecisionWord, Outcome, PermissionOption, RequestKind, Scope};

/// Of which of a client's answers a rule is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remember {
    /// Of none.
    Nothing,
    /// For the session, when the option that was chosen is one of ACP's `…_always`.
    ByOption,
    /// In any case.
    For(Scope),
}

/// An answer on its way to the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    /// The JSON-RPC result.
    pub result: String,
    pub remember: Remember,
}

/// What the agent is told when nobody decides.
pub(super) fn default(kind: RequestKind, options: &[PermissionOption]) -> (String, Outcome) {
    match kind {
        RequestKind::Permission => (effect(options, Effect::Deny).unwrap_or_else(cancelled), Outcome::Denied),
        RequestKind::Elicitation => (json!({"action": "decline"}).to_string(), Outcome::Declined),
        RequestKind::Question => (cancelled(), Outcome::Cancelled),
    }
}

/// What the agent is told when a turn is cancelled (ACP v1, "Cancellation").
pub(super) fn cancel(kind: RequestKind) -> String {
    match kind {
        RequestKind::Permission | RequestKind::Question => cancelled(),
        RequestKind::Elicitation => json!({"action": "cancel"}).to_string(),
    }
}

/// A rule's effect for once; `None` when no option says it, or the rule leaves it open.
pub(super) fn effect(options: &[PermissionOption], effect: Effect) -> Option<String> {
    let kinds = match effect {
        Effect::Allow => ["allow_once", "allow_always"],
        Effect::Deny => ["reject_once", "reject_always"],
        Effect::Ask => return None,
    };
    kinds.iter().find_map(|kind| option_of(options, kind)).map(selected)
}

/// A client's answer for the agent.
///
/// # Errors
/// [`Error::Invalid`] when it doesn't fit the request.
pub(super) fn reply(kind: RequestKind, options: &[PermissionOption], answer: &Answer) -> Result<Reply, Error> {
    let given = [answer.decision.is_some(), answer.option_id.is_some(), answer.result.is_some()];
    if given.iter().filter(|given| **given).count() != 1 {
        return Err(Error::Invalid("give one of decision, optionId and result".to_owned()));
    }
    if answer.content.is_some() && (kind, answer.decision) != (RequestKind::Elicitation, Some(DecisionWord::Allow)) {
        return Err(Error::Invalid("content goes with the decision allow of an elicitation".to_owned()));
    }
    if answer.remember.is_some() && kind != RequestKind::Permission {
        return Err(Error::Invalid("only decisions on permissions can be remembered".to_owned()));
    }
    let remember = answer.remember.map_or(Remember::ByOption, Remember::For);
    if let Some(result) = &answer.result {
        return Ok(Reply { result: result.get().to_owned(), remember });
    }
    if let Some(id) = &answer.option_id {
        let option = options.iter().find(|option| option.option_id == *id);
        let wrong = || Error::Invalid(format!("the request has no option {id:?}: {}", choices(options)));
        return Ok(Reply { result: selected(option.ok_or_else(wrong)?), remember });
    }
    match (kind, answer.decision.unwrap_or(DecisionWord::Deny)) {
        (kind, DecisionWord::Cancel) => Ok(Reply { result: cancel(kind), remember: Remember::Nothing }),
        (RequestKind::Permission, word) => permission(options, word, remember),
        (RequestKind::Elicitation, DecisionWord::Allow) => {
            let content = answer.content.as_ref();
            let result =
                content.map_or_else(|| json!({"action": "accept"}), |content| json!({"action": "accept", "content": content}));
            Ok(Reply { result: result.to_string(), remember: Remember::Nothing })
        }
        (kind, DecisionWord::Deny) => Ok(Reply { result: default(kind, options).0, remember: Remember::Nothing }),
        (RequestKind::Elicitation, _) => Err(Error::Invalid("an elicitation is decided by allow, deny or cancel".to_owned())),
        (RequestKind::Question, _) => Err(Error::Invalid("a question is answered by result, or by deny or cancel".to_owned())),
    }
}

/// "Always" is the agent's own option when it has just one; of several none is clearly meant, so ours remembers.
fn permission(options: &[PermissionOption], word: DecisionWord, remember: Remember) -> Result<Reply, Error> {
    let (effect_meant, lasting) = match word {
        DecisionWord::Allow => (Effect::Allow, None),
        DecisionWord::Always => (Effect::Allow, Some("allow_always")),
        DecisionWord::Never => (Effect::Deny, Some("reject_always")),
        DecisionWord::Deny | DecisionWord::Cancel => (Effect::Deny, None),
    };
    let remember = match (lasting, remember) {
        (Some(_), Remember::ByOption) => Remember::For(Scope::Session),
        (None, Remember::ByOption) => Remember::Nothing,
        (_, remember) => remember,
    };
    let mut fitting = options.iter().filter(|option| lasting.is_some_and(|kind| option.kind == kind));
    let result = match (fitting.next(), fitting.next()) {
        (Some(only), None) => Some(selected(only)),
        _ => effect(options, effect_meant),
    };
    let result = match effect_meant {
        Effect::Deny => result.unwrap_or_else(cancelled),
        Effect::Allow | Effect::Ask => {
            result.ok_or_else(|| Error::Invalid(format!("the agent offers nothing that allows it: {}", choices(options))))?
        }
    };
    Ok(Reply { result, remember })
}

/// What a result says.
pub(super) fn outcome(
    kind: RequestKind,
    options: &[PermissionOption],
    result: Option<&str>,
) -> (Outcome, Option<PermissionOption>) {
    let Some(result) = result else { return (Outcome::Failed, None) };
    let result: Value = serde_json::from_str(result).unwrap_or_default();
    match kind {
        RequestKind::Permission if result["outcome"]["outcome"] == "cancelled" => (Outcome::Cancelled, None),
        RequestKind::Permission => {
            let chosen = options.iter().find(|option| result["outcome"]["optionId"] == option.option_id.as_str()).cloned();
            let outcome = match chosen.as_ref().map(|option| option.kind.as_str()) {
                Some("allow_once" | "allow_always") => Outcome::Allowed,
                Some("reject_once" | "reject_always") => Outcome::Denied,
                _ => Outcome::Answered,
            };
            (outcome, chosen)
        }
        RequestKind::Elicitation => match result["action"].as_str() {
            Some("accept") => (Outcome::Accepted, None),
            Some("decline") => (Outcome::Declined, None),
            Some("cancel") => (Outcome::Cancelled, None),
            _ => (Outcome::Answered, None),
        },
        RequestKind::Question if result["outcome"]["outcome"] == "cancelled" => (Outcome::Cancelled, None),
        RequestKind::Question => (Outcome::Answered, None),
    }
}

fn option_of<'a>(options: &'a [PermissionOption], kind: &str) -> Option<&'a PermissionOption> {
    options.iter().find(|option| option.kind == kind)
}

fn selected(option: &PermissionOption) -> String {
    json!({"outcome": {"outcome": "selected", "optionId": option.option_id}}).to_string()
}

fn cancelled() -> String {
    json!({"outcome": {"outcome": "cancelled"}}).to_string()
}

fn choices(options: &[PermissionOption]) -> String {
    let all: Vec<_> = options.iter().map(|option| format!("{} ({})", option.option_id, option.kind)).collect();
    if all.is_empty() { "it has no options; give a result".to_owned() } else { format!("use one of {}", all.join(", ")) }
}
