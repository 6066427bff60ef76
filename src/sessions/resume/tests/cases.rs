//! What can be half done when a server is killed, one by one.

use serde_json::{Value, json};

use super::world::{Agent, Life, SESSION, Told};
use super::{chunk, life, tool};
use crate::acp::{Decided, Verdict};
use crate::sessions::turn::Turn;
use crate::sessions::types::{SessionState, TurnLimits};

/// Acts in one life, is killed, and acts in the next, which learns what the first gave.
fn twice<T>(first: impl AsyncFnOnce(&mut Life, &mut Agent) -> T, second: impl AsyncFnOnce(&mut Life, &mut Agent, T)) {
    let (dir, mut agent) = (tempfile::tempdir().expect("a folder"), Agent::default());
    let left = life(dir.path(), async |life| {
        life.open().await;
        let left = first(life, &mut agent).await;
        life.kill().await;
        left
    });
    life(dir.path(), async |life| second(life, &mut agent, left).await);
}

fn kinds(told: &Told, wanted: &str) -> usize {
    told.events.iter().filter(|event| event["type"] == wanted).count()
}

fn only_request(life: &Life, session: &str) -> (String, Option<i64>) {
    let pending = life.sessions.gate().pending_in(session);
    assert_eq!(pending.len(), 1);
    (pending[0].request_id.clone(), pending[0].deadline_at_ms)
}

#[test]
fn a_request_waits_on_under_its_id_and_with_its_deadline() {
    twice(
        async |life, agent| {
            life.prompt(agent, "1", "go");
            life.update(&tool(1, 0));
            assert_eq!(life.ask(agent, "5", "c1"), Verdict::Ask);
            only_request(life, &life.live().await.id)
        },
        async |life, agent, before| {
            let session = life.live().await.id.clone();
            assert_eq!(life.resume(agent).await, []);
            assert_eq!(before, only_request(life, &session));
            assert_eq!(life.sessions.get(&session).await.expect("a session").state, SessionState::Waiting);
            life.answer(agent, "5");
            life.update(&tool(1, 4));
            life.end(agent, "1");
            let told = life.told().await;
            assert_eq!((kinds(&told, "request.created"), kinds(&told, "request.resolved")), (1, 1));
            let wait = told.spans.iter().find(|span| span["kind"] == "permission").expect("a span");
            assert_eq!((&wait["outcome"], &wait["parent"]), (&json!("allowed"), &json!(true)));
            assert!(told.spans.iter().all(|span| span["over"] == true && span["outcome"] != "lost"), "{:#?}", told.spans);
        },
    );
}

#[test]
fn an_answer_that_may_not_have_arrived_is_given_again() {
    twice(
        async |life, agent| {
            life.prompt(agent, "1", "go");
            life.ask(agent, "5", "c1");
            life.decide("5");
        },
        async |life, agent, ()| {
            let result = r#"{"outcome":{"optionId":"a","outcome":"selected"}}"#.to_owned();
            assert_eq!(life.resume(agent).await, [Decided { id: "5".into(), result, by: "client".into() }]);
            life.end(agent, "1");
            let told = life.told().await;
            assert_eq!((kinds(&told, "request.created"), kinds(&told, "request.resolved")), (1, 1));
            assert_eq!((&told.memory["pending"], &told.turns[0]["state"]), (&json!(0), &json!("ended")));
        },
    );
}

#[test]
fn what_is_asked_once_more_is_no_other_request() {
    twice(
        async |life, agent| {
            life.prompt(agent, "1", "go");
            life.asks("5", "c1"); // it is in the pipe still
            only_request(life, &life.live().await.id)
        },
        async |life, agent, before| {
            assert_eq!(life.resume(agent).await, []);
            assert_eq!(life.ask(agent, "5", "c1"), Verdict::Ask);
            assert_eq!(before, only_request(life, &life.live().await.id));
            life.answer(agent, "5");
            life.end(agent, "1");
            let told = life.told().await;
            assert_eq!((kinds(&told, "request.created"), kinds(&told, "request.resolved")), (1, 1));
        },
    );
}

#[test]
fn what_was_answered_without_our_noting_it_is_over() {
    twice(
        async |life, agent| {
            life.prompt(agent, "1", "go");
            life.ask(agent, "5", "c1");
            let outcome = json!({"outcome": "selected", "optionId": "r"});
            let params = json!({"requestId": 5, "sessionId": SESSION, "by": "client", "outcome": outcome});
            life.emit(&json!({"jsonrpc": "2.0", "method": "_adapter/request_resolved", "params": params}));
            agent.asked.clear();
        },
        async |life, agent, ()| {
            assert_eq!(life.resume(agent).await, []);
            life.end(agent, "1");
            let told = life.told().await;
            let resolved = told.events.iter().find(|event| event["type"] == "request.resolved").expect("an event");
            assert_eq!((&resolved["data"]["outcome"], &resolved["data"]["by"]), (&json!("denied"), &json!("client")));
        },
    );
}

#[test]
fn an_answer_of_which_the_log_has_no_words_is_known_all_the_same() {
    let result = json!({"action": "accept", "content": {"answer": "yes"}}).to_string();
    twice(
        async |life, agent| {
            life.prompt(agent, "1", "go");
            let params = json!({"sessionId": SESSION, "mode": "form", "message": "?", "requestedSchema": {"type": "object"}});
            life.question(agent, "5", &params);
            let resolved = json!({"requestId": 5, "sessionId": SESSION, "by": "client"});
            life.emit(&json!({"jsonrpc": "2.0", "method": "_adapter/request_resolved", "params": resolved}));
            agent.asked.clear();
            agent.answered.push(("5".to_owned(), result.clone()));
            only_request(life, &life.live().await.id).0
        },
        async |life, agent, request| {
            assert_eq!(life.resume(agent).await, []);
            let content = serde_json::from_value(json!({"decision": "allow", "content": {"answer": "yes"}})).expect("an answer");
            let again = life.sessions.gate().resolve(&request, content).await.expect("the same answer is no conflict");
            assert!(again.already_resolved);
        },
    );
}

#[test]
fn what_is_said_after_a_turn_is_made_up_for_too() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut agent = Agent::default();
    life(dir.path(), async |life| {
        life.open().await;
        life.prompt(&mut agent, "1", "go");
        life.end(&mut agent, "1");
        life.flush();
        life.store.settle().await;
        life.store.hold_later();
        life.update(&json!({"sessionUpdate": "session_info_update", "title": "late"}));
        life.update(&chunk("agent_message_chunk", "by the way"));
        life.flush();
        life.store.kill(0).await;
    });
    life(dir.path(), async |life| {
        life.resume(&agent).await;
        let told = life.told().await;
        assert_eq!((&told.row["title"], &told.states), (&json!("late"), &vec![json!("idle"), json!("running"), json!("idle")]));
        assert!(told.events.iter().any(|event| event["data"]["delta"]["text"] == "by the way"));
        life.prompt(&mut agent, "2", "more");
        life.end(&mut agent, "2");
        assert_eq!(life.told().await.memory["stats"]["turns"], 2);
    });
}

#[test]
fn a_turn_that_the_agent_knows_nothing_of_is_lost() {
    twice(
        async |life, agent| {
            life.prompt(agent, "1", "go");
            life.update(&chunk("agent_message_chunk", "half"));
            agent.underway.clear();
        },
        async |life, agent, ()| {
            life.resume(agent).await;
            let told = life.told().await;
            assert_eq!(
                (&told.turns[0]["doc"]["outcome"], &told.turns[0]["doc"]["reason"]),
                (&json!("lost"), &json!("server_restarted"))
            );
            assert_eq!((kinds(&told, "turn.ended"), &told.memory["running"]), (1, &json!(0)));
        },
    );
}

#[test]
fn what_was_folded_otherwise_keeps_no_turn_from_its_end() {
    twice(
        async |life, agent| {
            life.prompt(agent, "1", "go");
            life.update(&chunk("agent_message_chunk", "a"));
            life.fold_only(&tool(7, 0)); // another version may have made something else of what it heard
            life.update(&chunk("agent_message_chunk", "b"));
        },
        async |life, agent, ()| {
            life.resume(agent).await;
            life.update(&chunk("agent_message_chunk", "c"));
            life.end(agent, "1");
            let told = life.told().await;
            assert_eq!((kinds(&told, "turn.started"), kinds(&told, "turn.ended")), (1, 1));
            assert_eq!(told.turns[0]["doc"]["outcome"], "finished");
            let said: String = told.events.iter().filter_map(|event| event["data"]["delta"]["text"].as_str()).collect();
            assert_eq!(said, "abc");
            assert!(told.items.iter().all(|item| item["status"] != "in_progress"), "{:#?}", told.items);
        },
    );
}

#[test]
fn a_turn_of_the_queue_that_was_sent_is_not_sent_again() {
    twice(
        async |life, agent| {
            let prompt = serde_json::value::to_raw_value(&json!([{"type": "text", "text": "go"}])).expect("JSON");
            let turn = Turn::submitted(1, prompt, TurnLimits::default(), None, 1);
            life.store.change(turn.change(&life.live().await.id)).await.expect("written");
            let id = json!(turn.id).to_string();
            let (params, tag) = (json!({"sessionId": SESSION, "prompt": []}).to_string(), Some(turn.id.clone()));
            agent.underway.push((id, params, tag));
            turn.id
        },
        async |life, agent, queued| {
            life.resume(agent).await;
            let live = life.live().await;
            assert!(live.lock().running.iter().map(|running| &running.turn.id).eq([&queued]));
            assert!(live.lock().queue.is_empty());
            let client_id = Value::from(queued.clone()).to_string();
            life.end(agent, &client_id);
            let told = life.told().await;
            assert_eq!((told.turns.len(), &told.turns[0]["state"]), (1, &json!("ended")));
            assert_eq!(told.turns[0]["doc"]["prompt"][0]["text"], "go");
        },
    );
}
