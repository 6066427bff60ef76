//! Decisions: asked through any session, given at any door, by rules, or by nobody in time.

use std::time::Instant;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Home, Options, PATIENCE, Server};

/// A server with one session of the mock's.
struct Desk {
    home: Home,
    server: Server,
    session: String,
}

impl Desk {
    async fn new(options: &Options) -> Self {
        let home = Home::new();
        let server = Server::start_with(&home, options);
        let (status, session) = server.send("/v1/sessions", &json!({"agent": "mock", "cwd": home.path()})).await;
        assert_eq!(status, 201, "{session}");
        let session = session["id"].as_str().expect("an id").to_owned();
        Self { home, server, session }
    }

    async fn say(&self, text: &str) -> String {
        let (status, body) = self.server.send(&format!("/v1/sessions/{}/messages", self.session), &json!({"text": text})).await;
        assert_eq!(status, 202, "{body}");
        body["turnId"].as_str().expect("a turn").to_owned()
    }

    /// The mock's tool asks to write a file of this name.
    async fn write(&self, name: &str) -> String {
        self.say(&format!("/tool {}", self.home.path().join(name).display())).await
    }

    async fn turn_end(&self, turn: &str) -> Value {
        self.poll(&format!("/v1/sessions/{}/turns/{turn}", self.session), |turn| turn["state"] == "ended").await
    }

    /// The one request that waits.
    async fn pending(&self) -> Value {
        let page = self.poll("/v1/requests?state=pending", |page| page["requests"] != json!([])).await;
        page["requests"][0].clone()
    }

    async fn poll(&self, path: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (status, body) = self.server.get(path).await;
            assert_eq!(status, 200, "{body}");
            if fits(&body) {
                return body;
            }
            assert!(Instant::now() < deadline, "{path} stays {body}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    async fn resolve(&self, request: &Value, answer: Value) -> (u16, Value) {
        let id = request["requestId"].as_str().expect("an id");
        self.server.send(&format!("/v1/requests/{id}/resolve"), &answer).await
    }

    async fn put_policy(&self, rules: Value) -> (u16, Value) {
        ask(&self.server, Method::PUT, "/v1/requests/policy", Some(&json!({"rules": rules}))).await
    }

    async fn resolution(&self, request: &Value) -> Value {
        let id = request["requestId"].as_str().expect("an id");
        let (status, shown) = self.server.get(&format!("/v1/requests/{id}?waitMs=30000")).await;
        assert_eq!((status, &shown["state"]), (200, &json!("resolved")), "{shown}");
        shown["resolution"].clone()
    }

    fn there(&self, name: &str) -> bool {
        self.home.path().join(name).exists()
    }

    /// The session's events of this type.
    async fn events(&self, kind: &str) -> Vec<Value> {
        let (_, page) = self.server.get(&format!("/v1/sessions/{}/events?limit=500", self.session)).await;
        let all = page["events"].as_array().expect("events").iter();
        all.filter(|event| event["type"] == kind).map(|event| event["data"].clone()).collect()
    }
}

async fn ask(server: &Server, method: Method, path: &str, body: Option<&Value>) -> (u16, Value) {
    let mut request = server.http.request(method, server.url(path));
    if let Some(body) = body {
        request = request.json(body);
    }
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    let text = response.text().await.expect("a body");
    (status, if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect("JSON") })
}

#[tokio::test]
async fn a_decision_reaches_the_agent_and_everybody_is_told() {
    let desk = Desk::new(&Options::default()).await;
    for (name, decision, outcome, there) in [("yes", "allow", "allowed", true), ("no", "deny", "denied", false)] {
        let turn = desk.write(name).await;
        let request = desk.pending().await;
        assert_eq!(
            (&request["kind"], &request["toolKind"], &request["sessionId"]),
            (&json!("permission"), &json!("edit"), &json!(desk.session))
        );
        assert_eq!((&request["turnId"], &request["default"]), (&json!(turn), &json!("denied")));
        let (_, session) = desk.server.get(&format!("/v1/sessions/{}", desk.session)).await;
        assert_eq!(session["state"], "waiting");
        let (status, body) = desk.resolve(&request, json!({"decision": decision, "by": "ada", "message": "because"})).await;
        assert_eq!((status, &body["state"], &body["alreadyResolved"]), (200, &json!("resolved"), &json!(false)), "{body}");
        let resolution = desk.resolution(&request).await;
        assert_eq!(
            (&resolution["outcome"], &resolution["by"], &resolution["message"]),
            (&json!(outcome), &json!("api:ada"), &json!("because"))
        );
        assert_eq!(desk.turn_end(&turn).await["outcome"], "finished");
        assert_eq!(desk.there(name), there, "{name}");
    }
    let (created, resolved) = (desk.events("request.created").await, desk.events("request.resolved").await);
    assert_eq!((created.len(), resolved.len()), (2, 2));
    assert_eq!((&created[0]["requestId"], &resolved[0]["outcome"]), (&resolved[0]["requestId"], &json!("allowed")));
    let (_, trail) = desk.server.get(&format!("/v1/requests?status=resolved&sessionId={}&kind=permission", desk.session)).await;
    assert_eq!(trail["requests"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn the_first_answer_wins_at_any_door() {
    let desk = Desk::new(&Options::default()).await;
    let mut raw = desk.server.events("sessions-mock", None).await;
    let turn = desk.write("raced").await;
    let request = desk.pending().await;
    let agent_id: Value = serde_json::from_str(request["agentRequestId"].as_str().expect("JSON text")).expect("JSON");
    let refuse = json!({"outcome": {"outcome": "selected", "optionId": "reject_once"}});
    let (status, _) = desk.server.post("sessions-mock", None, &json!({"jsonrpc": "2.0", "id": agent_id, "result": refuse})).await;
    assert_eq!(status, 202);
    assert_eq!(desk.resolution(&request).await["by"], "client");
    let (status, body) = desk.resolve(&request, json!({"decision": "allow"})).await;
    assert_eq!((status, &body["request"]["resolution"]["outcome"]), (409, &json!("denied")), "{body}");
    let (status, body) = desk.resolve(&request, json!({"decision": "deny"})).await;
    assert_eq!((status, &body["alreadyResolved"]), (200, &json!(true)), "{body}");
    desk.turn_end(&turn).await;
    assert!(!desk.there("raced"));

    let turn = desk.write("again").await;
    let request = desk.pending().await;
    assert_eq!(desk.resolve(&request, json!({"optionId": "allow_once"})).await.0, 200);
    let told =
        raw.until(|event| event.data["method"] == "_adapter/request_resolved" && event.data["params"]["by"] == "api").await;
    assert_eq!(told.last().expect("it").data["params"]["outcome"]["optionId"], "allow_once");
    desk.turn_end(&turn).await;
    assert!(desk.there("again"));
}

#[tokio::test]
async fn many_answers_at_once_are_one() {
    let desk = Desk::new(&Options::default()).await;
    desk.write("x").await;
    let request = desk.pending().await;
    let answers =
        (0..8).map(|number| desk.resolve(&request, json!({"decision": if number % 2 == 0 { "allow" } else { "deny" }})));
    let answers = futures_util::future::join_all(answers).await;
    let first = answers.iter().filter(|(status, body)| *status == 200 && body["alreadyResolved"] == false).count();
    let same = answers.iter().filter(|(status, body)| *status == 200 && body["alreadyResolved"] == true).count();
    let others = answers.iter().filter(|(status, _)| *status == 409).count();
    assert_eq!((first, same, others), (1, 3, 4), "{answers:?}");
    assert_eq!(desk.events("request.resolved").await.len(), 1);
}

#[tokio::test]
async fn rules_decide_and_are_kept() {
    let desk = Desk::new(&Options::default()).await;
    let (status, policy) = desk
        .put_policy(json!([
            {"id": "keys", "effect": "deny", "paths": ["**/*.key"]},
            {"id": "here", "effect": "allow", "agents": ["mock"], "toolKinds": ["edit"], "paths": ["*"]},
        ]))
        .await;
    assert_eq!((status, policy["rules"].as_array().map(Vec::len)), (200, Some(2)), "{policy}");
    for (name, outcome, rule) in [("a", "allowed", "here"), ("x/../b", "allowed", "here"), ("c.key", "denied", "keys")] {
        let turn = desk.write(name).await;
        desk.turn_end(&turn).await;
        let resolved = desk.events("request.resolved").await.pop().expect("decided");
        assert_eq!((&resolved["outcome"], &resolved["rule"]), (&json!(outcome), &json!(rule)), "{name}");
        assert_eq!(resolved["by"], format!("rule:{rule}"));
    }
    assert!(desk.there("a") && !desk.there("c.key"));
    desk.say("/tool /nowhere/x").await;
    let request = desk.pending().await;
    assert_eq!(request["title"], "Write /nowhere/x");
    desk.resolve(&request, json!({"decision": "never", "remember": "always"})).await;

    let Desk { home, server, session } = desk;
    assert_eq!(server.stop(), Some(0));
    let desk = Desk { server: Server::start(&home), home, session };
    let (_, rules) = desk.server.get("/v1/requests/rules").await;
    let origins: Vec<_> = rules["rules"].as_array().expect("rules").iter().map(|rule| rule["origin"].clone()).collect();
    assert_eq!(origins, ["policy", "policy", "remembered"]);
    let turn = desk.say("/tool /nowhere/y").await;
    desk.turn_end(&turn).await;
    let remembered = rules["rules"][2]["id"].as_str().expect("an id");
    assert_eq!(desk.events("request.resolved").await.pop().expect("decided")["rule"], remembered);
    let forget = format!("/v1/requests/rules/{remembered}");
    assert_eq!(ask(&desk.server, Method::DELETE, &forget, None).await.0, 204);
    assert_eq!(ask(&desk.server, Method::DELETE, &forget, None).await.0, 404);
    assert_eq!(ask(&desk.server, Method::DELETE, "/v1/requests/rules/keys", None).await.0, 404, "the policy's");
    desk.say("/tool /nowhere/z").await;
    desk.pending().await;
}

#[tokio::test]
async fn an_always_at_the_raw_door_is_remembered() {
    let desk = Desk::new(&Options::default()).await;
    let turn = desk.write("a").await;
    let request = desk.pending().await;
    let agent_id: Value = serde_json::from_str(request["agentRequestId"].as_str().expect("JSON text")).expect("JSON");
    let always = json!({"outcome": {"outcome": "selected", "optionId": "allow_always"}});
    desk.server.post("sessions-mock", None, &json!({"jsonrpc": "2.0", "id": agent_id, "result": always})).await;
    desk.turn_end(&turn).await;
    let rule = desk.resolution(&request).await["remembered"].clone();
    let turn = desk.write("b").await;
    desk.turn_end(&turn).await;
    assert!(desk.there("b"));
    assert_eq!(desk.events("request.resolved").await.pop().expect("decided")["rule"], rule);
    let (_, rules) = desk.server.get("/v1/requests/rules").await;
    assert_eq!(rules["rules"][0]["sessionId"], desk.session);
}

#[tokio::test]
async fn nobody_decides() {
    let desk = Desk::new(&Options::default().env("SANDBOXD_PERMISSION_DEADLINE_MS", "300")).await;
    let turn = desk.write("late").await;
    assert_eq!(desk.turn_end(&turn).await["outcome"], "finished");
    let resolved = desk.events("request.resolved").await.pop().expect("decided");
    assert_eq!((&resolved["outcome"], &resolved["by"]), (&json!("denied"), &json!("deadline")));
    assert!(!desk.there("late"));
}

#[tokio::test]
async fn a_form_is_answered_or_not() {
    let desk = Desk::new(&Options::default()).await;
    let cases = [
        (json!({"decision": "allow", "content": {"answer": "blue"}}), "accepted", "answered: blue"),
        (json!({"decision": "deny"}), "declined", "not answered"),
        (json!({"result": {"action": "cancel"}}), "cancelled", "not answered"),
    ];
    for (answer, outcome, said) in cases {
        let turn = desk.say("/question Which colour?").await;
        let request = desk.pending().await;
        assert_eq!((&request["kind"], &request["title"]), (&json!("elicitation"), &json!("Which colour?")));
        let (status, body) = desk.resolve(&request, answer).await;
        assert_eq!((status, &body["resolution"]["outcome"]), (200, &json!(outcome)), "{body}");
        desk.turn_end(&turn).await;
        let items = desk.events("item.completed").await;
        let text = items.last().expect("an item")["item"]["parts"].to_string();
        assert!(text.contains(said), "{text}");
    }
}

#[tokio::test]
async fn an_interrupted_turn_waits_for_nobody() {
    let desk = Desk::new(&Options::default()).await;
    let turn = desk.write("x").await;
    let request = desk.pending().await;
    desk.server.send(&format!("/v1/sessions/{}/interrupt", desk.session), &json!({})).await;
    assert_eq!(desk.turn_end(&turn).await["outcome"], "cancelled");
    let resolution = desk.resolution(&request).await;
    assert_eq!((&resolution["outcome"], &resolution["by"]), (&json!("cancelled"), &json!("cancel")));
}

#[tokio::test]
async fn what_a_killed_server_leaves_is_lost() {
    let desk = Desk::new(&Options::default()).await;
    desk.write("x").await;
    let request = desk.pending().await;
    let Desk { home, server, session } = desk;
    server.kill();
    let desk = Desk { server: Server::start(&home), home, session };
    let resolution = desk.resolution(&request).await;
    assert_eq!((&resolution["outcome"], &resolution["by"]), (&json!("lost"), &json!("server")));
    assert_eq!(desk.events("request.resolved").await.len(), 1);
    let (status, _) = desk.resolve(&request, json!({"decision": "allow"})).await;
    assert_eq!(status, 409);
}

#[tokio::test]
async fn what_does_not_fit_is_refused() {
    let desk = Desk::new(&Options::default()).await;
    desk.write("x").await;
    let request = desk.pending().await;
    for (answer, status, word) in [
        (json!({}), 400, "one of decision"),
        (json!({"optionId": "nope"}), 400, "allow_once"),
        (json!({"decision": "perhaps"}), 422, "perhaps"),
        (json!({"decision": "allow", "rule": "x"}), 422, "rule"),
    ] {
        let (given, body) = desk.resolve(&request, answer.clone()).await;
        assert_eq!(given, status, "{answer}: {body}");
        assert!(body["detail"].as_str().expect("a detail").contains(word), "{body}");
    }
    let (status, body) =
        desk.put_policy(json!([{"effect": "ask"}, {"id": "w", "effect": "allow", "toolKinds": ["write"]}])).await;
    assert_eq!(
        (status, &body["rule"], &body["id"], &body["field"]),
        (400, &json!(2), &json!("w"), &json!("toolKinds")),
        "{body}"
    );
    assert_eq!(desk.server.get("/v1/requests/policy").await, (200, json!({"rules": []})));
    for path in ["/v1/requests?limit=0", "/v1/requests?limit=501", "/v1/requests?state=open", "/v1/requests?kind=x"] {
        assert_eq!(desk.server.get(path).await.0, 400, "{path}");
    }
    let (status, body) = desk.server.get("/v1/requests/req_none?waitMs=20000").await;
    assert_eq!((status, &body["details"]["resource"]), (404, &json!("request")), "{body}");
    assert_eq!(desk.server.get("/v1/requests/req_none?waitMs=99999999999").await.0, 400);
}
