//! Deciding through us: words, options, deadlines, and rules that outlive the server.

use std::time::Duration;

use super::*;

fn say(answer: Value) -> Answer {
    serde_json::from_str(&answer.to_string()).expect("an answer")
}

async fn wait(house: &House, id: &str) -> Resolution {
    let info = house.gate.get(id, Duration::from_secs(30)).await.expect("known");
    info.resolution.clone().expect("resolved")
}

#[tokio::test]
async fn words_become_options() {
    let house = House::new(Bounds::default()).await;
    let cases = [
        (json!({"decision": "allow"}), "a", Outcome::Allowed),
        (json!({"decision": "always"}), "aa", Outcome::Allowed),
        (json!({"decision": "deny"}), "r", Outcome::Denied),
        (json!({"decision": "never"}), "r", Outcome::Denied),
        (json!({"optionId": "aa"}), "aa", Outcome::Allowed),
        (json!({"result": {"outcome": {"outcome": "selected", "optionId": "a"}}}), "a", Outcome::Allowed),
    ];
    for (number, (body, option, outcome)) in cases.into_iter().enumerate() {
        let opened = house.ask(&number.to_string(), &command(&format!("make {number}")));
        let resolved = house.gate.resolve(&opened.request_id, say(body.clone())).await.expect("fits");
        let resolution = resolved.request.resolution.clone().expect("resolved");
        assert_eq!((resolution.option_id.as_deref(), resolution.outcome), (Some(option), outcome), "{body}");
        assert!(!resolved.already_resolved);
    }
}

#[tokio::test]
async fn the_first_answer_wins_and_the_others_are_told() {
    let house = House::new(Bounds::default()).await;
    let id = house.ask("0", &command("make")).request_id;
    house.gate.resolve(&id, say(json!({"decision": "deny", "by": "ada", "message": "not now"}))).await.expect("first");
    let again = house.gate.resolve(&id, say(json!({"decision": "deny"}))).await.expect("the same");
    assert!(again.already_resolved);
    match house.gate.resolve(&id, say(json!({"decision": "allow"}))).await {
        Err(Error::Resolved(info)) => {
            let resolution = info.resolution.as_ref().expect("resolved");
            assert_eq!((resolution.by.as_str(), resolution.message.as_deref()), ("api:ada", Some("not now")));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(house.heard().len(), 1);
}

#[tokio::test]
async fn answers_that_do_not_fit_are_refused() {
    let house = House::new(Bounds::default()).await;
    let permission = house.ask("0", &command("make")).request_id;
    let form = house.ask_as("elicitation/create", "1", &json!({"message": "Name?", "mode": "form"})).request_id;
    let question = house.ask_as("_x/question", "2", &json!({})).request_id;
    let cases = [
        (&permission, json!({})),
        (&permission, json!({"decision": "allow", "optionId": "a"})),
        (&permission, json!({"optionId": "zz"})),
        (&permission, json!({"decision": "allow", "content": {}})),
        (&form, json!({"decision": "always"})),
        (&form, json!({"decision": "deny", "remember": "session"})),
        (&question, json!({"decision": "allow"})),
        (&permission, json!({"decision": "allow", "message": "x".repeat(3_000)})),
    ];
    for (id, body) in cases {
        let refused = house.gate.resolve(id, say(body.clone())).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{body}: {refused:?}");
    }
    assert!(matches!(house.gate.resolve("req_x", say(json!({"decision": "deny"}))).await, Err(Error::NotFound { .. })));
    assert_eq!(house.heard(), []);
}

#[tokio::test]
async fn elicitations_and_questions() {
    let house = House::new(Bounds::default()).await;
    let form = house.ask_as("elicitation/create", "0", &json!({"message": "Name?", "mode": "form"}));
    assert_eq!((form.kind, &form.created["title"]), (RequestKind::Elicitation, &json!("Name?")));
    let accepted = say(json!({"decision": "allow", "content": {"name": "Ada"}}));
    house.gate.resolve(&form.request_id, accepted).await.expect("fits");
    assert_eq!(wait(&house, &form.request_id).await.outcome, Outcome::Accepted);
    let question = house.ask_as("_x/question", "1", &json!({})).request_id;
    house.gate.resolve(&question, say(json!({"result": {"answer": 42}}))).await.expect("fits");
    assert_eq!(wait(&house, &question).await.outcome, Outcome::Answered);
    let results: Vec<Value> = house.heard().iter().map(|(_, result, _)| serde_json::from_str(result).expect("JSON")).collect();
    assert_eq!(results, [json!({"action": "accept", "content": {"name": "Ada"}}), json!({"answer": 42})]);
}

#[tokio::test]
async fn nobody_decides_and_it_is_denied() {
    let house = House::new(Bounds { permission_deadline_ms: 1, elicitation_deadline_ms: 1, ..Bounds::default() }).await;
    let id = house.ask("0", &command("make")).request_id;
    let resolution = wait(&house, &id).await;
    assert_eq!(
        (resolution.outcome, resolution.by.as_str(), resolution.option_id.as_deref()),
        (Outcome::Denied, "deadline", Some("r"))
    );
    let id = house.ask_as("elicitation/create", "1", &json!({"message": "?"})).request_id;
    assert_eq!(wait(&house, &id).await.outcome, Outcome::Declined);
    let id = house.ask("2", &json!({"toolCall": {}, "options": []})).request_id;
    assert_eq!(wait(&house, &id).await.outcome, Outcome::Denied, "also when no option says so");
}

#[tokio::test]
async fn a_rule_has_its_own_deadline() {
    let house = House::new(Bounds::default()).await;
    house.gate.set_policy(vec![json!({"id": "soon", "effect": "ask", "deadlineMs": 1})]).await.expect("sound");
    let opened = house.ask("0", &command("make"));
    assert_eq!(opened.created["askedByRule"], "soon");
    assert_eq!(wait(&house, &opened.request_id).await.by, "deadline");
}

#[tokio::test]
async fn a_default_that_cannot_be_sent_is_sent_later() {
    let house = House::new(Bounds { permission_deadline_ms: 1, ..Bounds::default() }).await;
    house.agent.reachable.store(false, std::sync::atomic::Ordering::SeqCst);
    let id = house.ask("0", &command("make")).request_id;
    let refused = house.gate.resolve(&id, say(json!({"decision": "allow"}))).await;
    assert!(matches!(refused, Err(Error::Acp(_))));
    house.agent.reachable.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(wait(&house, &id).await.by, "deadline");
}

#[tokio::test]
async fn cancelling_tells_the_agent() {
    let house = House::new(Bounds::default()).await;
    let params = command("make").to_string();
    let asked = Asked { session: Some("x"), id: "0", method: "session/request_permission", params: &params };
    let opened = house.gate.asked(Where { session_id: Some("ses_1"), ..at() }, &asked, 0).expect("for people");
    house.ask("1", &command("other"));
    assert_eq!(house.gate.pending_in("ses_1").len(), 1);
    house.gate.cancel_pending("ses_1").await;
    assert_eq!(house.gate.pending_in("ses_1").len(), 0);
    let shown = house.gate.get(&opened.request_id, Duration::ZERO).await.expect("known");
    let resolution = shown.resolution.as_ref().expect("resolved");
    assert_eq!((resolution.outcome, resolution.by.as_str()), (Outcome::Cancelled, "cancel"));
    assert_eq!(house.heard().len(), 1);
}

#[tokio::test]
async fn lists_come_in_pages() {
    let house = House::new(Bounds::default()).await;
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(house.ask(&number.to_string(), &command("make")).request_id);
    }
    ids.sort_unstable_by(|a, b| b.cmp(a));
    house.gate.resolve(&ids[1], say(json!({"decision": "deny"}))).await.expect("fits");
    let all = |state| ListFilter { state, ..ListFilter::default() };
    let shown = |page: &RequestPage| page.requests.iter().map(|info| info.request_id.clone()).collect::<Vec<_>>();
    let page = house.gate.list(all(None), 2).await.expect("a page");
    assert_eq!((shown(&page), page.next_cursor.clone()), (ids[..2].to_vec(), Some(ids[1].clone())));
    let page = house.gate.list(ListFilter { before: page.next_cursor, ..all(None) }, 3).await.expect("a page");
    assert_eq!((shown(&page), page.next_cursor), (ids[2..].to_vec(), None));
    let page = house.gate.list(all(Some(RequestState::Pending)), 10).await.expect("a page");
    assert_eq!(page.requests.len(), 4);
    let page = house.gate.list(all(Some(RequestState::Resolved)), 10).await.expect("a page");
    assert_eq!(shown(&page), [ids[1].clone()]);
}

#[tokio::test]
async fn rules_outlive_the_server() {
    let house = House::new(Bounds::default()).await;
    house.gate.set_policy(vec![json!({"id": "p", "effect": "deny", "commands": ["rm *"]})]).await.expect("sound");
    let id = house.ask("0", &command("make")).request_id;
    house.gate.resolve(&id, say(json!({"decision": "always", "remember": "always"}))).await.expect("fits");
    let id = house.ask("1", &command("make clean")).request_id;
    let never = house.gate.resolve(&id, say(json!({"decision": "never", "remember": "always"}))).await.expect("fits");
    assert!(never.request.resolution.as_ref().expect("resolved").remembered.is_some());
    let house = house.again().await;
    let rules = house.gate.rules();
    assert_eq!(rules.iter().map(|info| info.origin).collect::<Vec<_>>(), ["policy", "remembered", "remembered"]);
    let outcome = |opened: Opened| opened.resolved.map(|resolved| resolved["outcome"].clone());
    assert_eq!(outcome(house.ask("0", &command("make"))), Some(json!("allowed")));
    assert_eq!(outcome(house.ask("1", &command("make clean"))), Some(json!("denied")));
    assert_eq!(outcome(house.ask("2", &command("rm x"))), Some(json!("denied")));
    house.gate.forget(&rules[1].rule.id).await.expect("remembered");
    assert!(matches!(house.gate.forget("p").await, Err(Error::NoRule { .. })), "the policy's");
    let house = house.again().await;
    assert_eq!(outcome(house.ask("3", &command("make"))), None);
}

#[tokio::test]
async fn a_policy_beats_what_is_remembered() {
    let house = House::new(Bounds::default()).await;
    let id = house.ask("0", &command("rm x")).request_id;
    house.gate.resolve(&id, say(json!({"decision": "always", "remember": "always"}))).await.expect("fits");
    house.gate.set_policy(vec![json!({"effect": "deny", "commands": ["rm *"]})]).await.expect("sound");
    assert_eq!(house.ask("1", &command("rm x")).resolved.expect("at once")["outcome"], "denied");
    house.gate.set_policy(vec![json!({"effect": "ask", "commands": ["rm *"]})]).await.expect("sound");
    assert!(house.ask("2", &command("rm x")).resolved.is_none());
    house.gate.set_policy(Vec::new()).await.expect("sound");
    assert_eq!(house.ask("3", &command("rm x")).resolved.expect("at once")["outcome"], "allowed");
}

#[tokio::test]
async fn a_policy_with_a_fault_changes_nothing() {
    let house = House::new(Bounds { permission_rules_max: 2, ..Bounds::default() }).await;
    house.gate.set_policy(vec![json!({"id": "a", "effect": "deny"})]).await.expect("sound");
    let cases = [
        (vec![json!({"effect": "ask"}), json!({"id": "b", "effect": "allow", "toolKinds": ["x"]})], 2, "toolKinds"),
        (vec![json!({"effect": "allow", "command": ["x"]})], 1, "command"),
        (vec![json!({"effect": "maybe"})], 1, "effect"),
        (vec![json!({"commands": ["x"]})], 1, "effect"),
        (vec![json!({"id": "b", "effect": "ask"}), json!({"id": "b", "effect": "ask"})], 2, "id"),
        (vec![json!([])], 1, "all"),
        (vec![json!({"effect": "ask", "commands": ["x".repeat(20_000)]})], 1, "all"),
    ];
    for (rules, wrong, named) in cases {
        match house.gate.set_policy(rules.clone()).await {
            Err(Error::BadRule { number, field, .. }) => assert_eq!((number, field.as_str()), (wrong, named)),
            other => panic!("{rules:?}: {other:?}"),
        }
    }
    assert!(matches!(house.gate.set_policy(vec![json!({"effect": "ask"}); 3]).await, Err(Error::TooManyRules { max: 2 })));
    assert_eq!(house.gate.policy().iter().map(|rule| rule.id.as_str()).collect::<Vec<_>>(), ["a"]);
}

#[tokio::test]
async fn the_oldest_decision_is_forgotten() {
    let house = House::new(Bounds { permission_rules_max: 2, ..Bounds::default() }).await;
    for number in 0..3 {
        let id = house.ask(&number.to_string(), &command(&format!("make {number}"))).request_id;
        house.gate.resolve(&id, say(json!({"decision": "always", "remember": "always"}))).await.expect("fits");
    }
    let commands: Vec<_> = house.gate.rules().into_iter().map(|info| info.rule.commands.expect("commands")[0].clone()).collect();
    assert_eq!(commands, ["exact:make 1", "exact:make 2"]);
    let house = house.again().await;
    assert_eq!(house.gate.rules().len(), 2);
}
