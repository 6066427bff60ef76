//! What waits, who was first, and what is left of it.

use super::*;
use crate::acp::Verdict;

fn answer(option: &str) -> String {
    json!({"outcome": {"outcome": "selected", "optionId": option}}).to_string()
}

#[tokio::test]
async fn what_waits_is_answered_once() {
    let house = House::new(Bounds::default()).await;
    let opened = house.ask("0", &command("make"));
    assert_eq!((opened.verdict, opened.kind), (Verdict::Ask, RequestKind::Permission));
    assert_eq!(opened.created["title"], "make");
    assert_eq!(opened.created["options"], options());
    let closed = house.gate.answered("s", "0", Some(&answer("a")), "client", now_ms()).expect("the first");
    assert_eq!((closed.outcome, &closed.request_id), (Outcome::Allowed, &opened.request_id));
    assert_eq!((&closed.resolved["by"], &closed.resolved["optionId"]), (&json!("client"), &json!("a")));
    assert!(house.gate.answered("s", "0", Some(&answer("r")), "client", now_ms()).is_none(), "the second");
    assert!(house.gate.answered("other", "0", Some(&answer("a")), "client", now_ms()).is_none(), "another server");
}

#[tokio::test]
async fn what_programs_answer_is_not_kept() {
    let house = House::new(Bounds::default()).await;
    let ask =
        |session, method| house.gate.asked(at(), &Asked { session, id: "1", method, params: "{}" }, 0).map(|opened| opened.kind);
    for method in ["fs/read_text_file", "terminal/create", "mcp/message"] {
        assert_eq!(ask(Some("x"), method), None, "{method}");
    }
    assert_eq!(ask(None, "_x/ping"), None);
    assert_eq!(ask(Some("x"), "_x/question"), Some(RequestKind::Question));
    assert_eq!(ask(None, "elicitation/create"), Some(RequestKind::Elicitation));
}

#[tokio::test]
async fn rules_decide_at_once() {
    let house = House::new(Bounds::default()).await;
    let rules =
        json!([{"id": "no", "effect": "deny", "commands": ["rm *"]}, {"id": "yes", "effect": "allow", "commands": ["ls"]}]);
    house.gate.set_policy(rules.as_array().expect("a list").clone()).await.expect("sound");
    let opened = house.ask("0", &command("ls"));
    assert_eq!(opened.verdict, Verdict::Answer { result: answer("a"), by: "rule:yes".to_owned() });
    assert_eq!(opened.resolved.expect("at once")["rule"], "yes");
    let opened = house.ask("1", &command("rm x"));
    assert_eq!(opened.verdict, Verdict::Answer { result: answer("r"), by: "rule:no".to_owned() });
    let trail =
        house.gate.list(ListFilter { state: Some(RequestState::Resolved), ..ListFilter::default() }, 10).await.expect("a list");
    let outcomes: Vec<_> = trail.requests.iter().map(|info| info.resolution.as_ref().expect("resolved").outcome).collect();
    assert_eq!(outcomes, [Outcome::Denied, Outcome::Allowed]);
    assert!(house.gate.answered("s", "0", Some(&answer("a")), "rule:yes", 0).is_none(), "it never waited");
}

#[tokio::test]
async fn a_refusal_without_an_option_is_said_all_the_same() {
    let house = House::new(Bounds::default()).await;
    house.gate.set_policy(vec![json!({"effect": "deny"})]).await.expect("sound");
    let opened = house.ask("0", &json!({"toolCall": {}, "options": []}));
    let cancelled = json!({"outcome": {"outcome": "cancelled"}}).to_string();
    assert!(matches!(opened.verdict, Verdict::Answer { result, .. } if result == cancelled));
    assert_eq!(opened.resolved.expect("at once")["outcome"], "denied");
    house.gate.set_policy(vec![json!({"effect": "allow"})]).await.expect("sound");
    assert_eq!(house.ask("1", &json!({"toolCall": {}, "options": []})).verdict, Verdict::Ask, "nothing allows it");
    assert_eq!(house.ask("2", &json!("rubbish")).verdict, Verdict::Ask);
}

#[tokio::test]
async fn too_many_are_denied() {
    let house = House::new(Bounds { requests_pending_max: 2, ..Bounds::default() }).await;
    assert_eq!(house.ask("0", &command("a")).verdict, Verdict::Ask);
    assert_eq!(house.ask("1", &command("b")).verdict, Verdict::Ask);
    let opened = house.ask("2", &command("c"));
    assert_eq!(opened.verdict, Verdict::Answer { result: answer("r"), by: "limit".to_owned() });
    let resolved = opened.resolved.expect("at once");
    assert!(resolved["reason"].as_str().expect("a reason").contains("requests_pending_max"));
}

#[tokio::test]
async fn agents_take_back_and_go() {
    let house = House::new(Bounds::default()).await;
    house.ask("0", &command("a"));
    house.ask("1", &command("b"));
    assert_eq!(house.gate.withdrawn("s", "0", 9).expect("it waited").outcome, Outcome::Withdrawn);
    let gone = house.gate.server_gone("s", "the agent exited", 9);
    assert_eq!(gone.len(), 1);
    assert_eq!((gone[0].outcome, &gone[0].resolved["reason"]), (Outcome::Lost, &json!("the agent exited")));
    assert!(house.gate.server_gone("s", "", 9).is_empty());
}

#[tokio::test]
async fn an_id_that_is_used_again_replaces() {
    let house = House::new(Bounds::default()).await;
    let first = house.ask("0", &command("a"));
    let second = house.ask("0", &command("b"));
    let shown = house.gate.get(&first.request_id, std::time::Duration::ZERO).await.expect("known");
    assert_eq!(shown.resolution.as_ref().expect("over").outcome, Outcome::Lost);
    let closed = house.gate.answered("s", "0", Some(&answer("a")), "client", now_ms()).expect("waits");
    assert_eq!(closed.request_id, second.request_id);
}

#[tokio::test]
async fn what_a_run_leaves_is_lost_in_the_next() {
    let house = House::new(Bounds::default()).await;
    let opened = house.ask("0", &command("make"));
    let house = house.again().await;
    let lost = house.gate.take_lost(|_| false);
    assert_eq!((lost.len(), lost[0].outcome, &lost[0].request_id), (1, Outcome::Lost, &opened.request_id));
    assert!(house.gate.take_lost(|_| false).is_empty());
    append(&house.gate, lost.into_iter().flat_map(|closed| closed.changes));
    let house = house.again().await;
    assert!(house.gate.take_lost(|_| false).is_empty(), "the file knows");
    let shown = house.gate.get(&opened.request_id, std::time::Duration::ZERO).await.expect("kept");
    assert_eq!(shown.resolution.as_ref().expect("over").outcome, Outcome::Lost);
}

#[tokio::test]
async fn an_option_for_always_is_remembered_from_any_door() {
    let house = House::new(Bounds::default()).await;
    let at = Where { session_id: Some("ses_1"), ..at() };
    let ask = |id: &str, params: Value| {
        house.gate.asked(
            at,
            &Asked { session: Some("x"), id, method: "session/request_permission", params: &params.to_string() },
            0,
        )
    };
    ask("0", command("make | tee log")).expect("for people");
    let closed = house.gate.answered("s", "0", Some(&answer("aa")), "client", 1).expect("waits");
    let rule = closed.resolved["remembered"].as_str().expect("a rule").to_owned();
    assert_eq!(closed.changes.len(), 2, "the request and the rule");
    assert_eq!(house.gate.rules()[0].rule.session_id.as_deref(), Some("ses_1"));
    let again = ask("1", command("make | tee log")).expect("for people");
    assert_eq!(again.verdict, Verdict::Answer { result: answer("a"), by: format!("rule:{rule}") });
    assert_eq!(ask("2", command("make | tee log2")).expect("for people").verdict, Verdict::Ask);
    assert_eq!(house.gate.forget_session("ses_2").len(), 0);
    let elsewhere = Asked {
        session: Some("x"),
        id: "3",
        method: "session/request_permission",
        params: &command("make | tee log").to_string(),
    };
    let other = Where { session_id: Some("ses_2"), ..at };
    assert_eq!(house.gate.asked(other, &elsewhere, 0).expect("for people").verdict, Verdict::Ask, "another session");
    assert_eq!(house.gate.forget_session("ses_1").len(), 1);
    assert!(house.gate.rules().is_empty());
}

#[tokio::test]
async fn what_is_remembered_says_no_more_than_was_seen() {
    let house = House::new(Bounds::default()).await;
    let mut number = 0;
    let mut remembered = |call: Value| {
        number += 1;
        let params = json!({"toolCall": call, "options": options()});
        let at = Where { session_id: Some("ses_1"), ..at() };
        let id = number.to_string();
        let asked = Asked { session: Some("x"), id: &id, method: "session/request_permission", params: &params.to_string() };
        house.gate.asked(at, &asked, 0).expect("for people");
        let closed = house.gate.answered("s", &id, Some(&answer("aa")), "client", 1).expect("waits");
        let id = closed.resolved["remembered"].as_str().map(str::to_owned);
        id.and_then(|id| house.gate.rules().into_iter().find(|info| info.rule.id == id)).map(|info| info.rule)
    };
    let rule = remembered(json!({"kind": "edit", "locations": [{"path": "/w/a*/x"}]})).expect("a rule");
    assert_eq!(rule.paths, Some(vec!["/w/a[*]/*".to_owned()]), "the folder, not what is below");
    let rule = remembered(json!({"kind": "execute", "rawInput": {"command": "make", "cwd": "/w/b"}})).expect("a rule");
    assert_eq!((rule.commands, rule.cwd.as_deref()), (Some(vec!["exact:make".to_owned()]), Some("/w/b")));
    let rule = remembered(json!({"kind": "other", "title": "t", "rawInput": {"x": 1}})).expect("a rule");
    assert_eq!(rule.input, Some(json!({"x": 1})));
    let rule =
        remembered(json!({"kind": "execute", "title": "t", "rawInput": {"command": "ls", "url": "https://x"}})).expect("a rule");
    assert_eq!((rule.commands, rule.input.is_some()), (None, true));
    assert_eq!(remembered(json!({"kind": "switch_mode", "title": "t", "rawInput": {"plan": "x"}})), None);
    assert_eq!(remembered(json!({"kind": "other", "title": "t"})), None, "nothing says what it does");
    assert_eq!(remembered(json!({"kind": "other", "title": "t", "rawInput": {"x": "y".repeat(20_000)}})), None, "too long");
}
