//! What clients said is told again to a new process of their agent.

use bytes::Bytes;

use super::*;

const MAX: Max = Max { sessions: 2, params_bytes: 1024 };
const CAN_LOAD: &str = r#"{"agentCapabilities":{"loadSession":true}}"#;
const CAN_RESUME: &str = r#"{"agentCapabilities":{"loadSession":true,"sessionCapabilities":{"resume":{}}}}"#;

fn envelope(text: &str) -> Envelope {
    Envelope::parse(Bytes::copy_from_slice(text.as_bytes())).expect("an envelope")
}

fn prompt(session: &str) -> Envelope {
    envelope(&format!(r#"{{"id":1,"method":"session/prompt","params":{{"sessionId":"{session}"}}}}"#))
}

#[test]
fn long_params_are_not_remembered() {
    let memory = Memory::new(MAX);
    assert!(memory.wants_params("session/new", &"x".repeat(1024)));
    assert!(!memory.wants_params("session/new", &"x".repeat(1025)));
    assert!(!memory.wants_params("session/prompt", "{}"));
}

fn remembered() -> Memory {
    let mut memory = Memory::new(MAX);
    memory.succeeded("initialize", r#"{"protocolVersion":1}"#, CAN_LOAD);
    memory.succeeded("session/new", r#"{"cwd":"/w"}"#, r#"{"sessionId":"s1"}"#);
    memory
}

/// Walks through the steps; answers each with `answer`, which gives a result or refuses.
fn walk(memory: &mut Memory, envelope: &Envelope, answer: impl Fn(&Step) -> Option<&'static str>) -> Vec<(String, String)> {
    let mut steps = Vec::new();
    while let Some(step) = memory.step_before(envelope) {
        steps.push((step.method.clone(), step.params.clone()));
        match answer(&step) {
            Some(result) => drop(memory.step_succeeded(&step, result)),
            None => assert!(memory.step_failed(&step), "no other way after {step:?}"),
        }
        assert!(steps.len() < 10, "it never ends: {steps:?}");
    }
    steps
}

#[test]
fn nothing_is_repeated_to_a_process_that_heard_it() {
    assert_eq!(remembered().step_before(&prompt("s1")), None);
}

#[test]
fn a_new_process_is_told_in_order_with_the_settings() {
    let mut memory = remembered();
    memory.succeeded("session/set_mode", r#"{"sessionId":"s1","modeId":"plan"}"#, "{}");
    memory.forget_process();
    let steps = walk(&mut memory, &prompt("s1"), |step| Some(if step.method == "initialize" { CAN_LOAD } else { "{}" }));
    let expected = [
        ("initialize", r#"{"protocolVersion":1}"#),
        ("session/load", r#"{"cwd":"/w","mcpServers":[],"sessionId":"s1"}"#),
        ("session/set_mode", r#"{"modeId":"plan","sessionId":"s1"}"#),
    ];
    assert_eq!(steps, expected.map(|(method, params)| (method.to_owned(), params.to_owned())));
    assert_eq!(memory.step_before(&prompt("s1")), None);
}

#[test]
fn a_new_handshake_by_the_client_needs_no_step() {
    let mut memory = remembered();
    memory.forget_process();
    assert_eq!(memory.step_before(&envelope(r#"{"id":1,"method":"initialize","params":{}}"#)), None);
}

#[test]
fn what_cannot_be_restored_is_opened_afresh_under_another_id() {
    let mut memory = remembered();
    memory.forget_process();
    let steps = walk(&mut memory, &prompt("s1"), |step| match step.method.as_str() {
        "initialize" => Some(CAN_RESUME),
        "session/new" => Some(r#"{"sessionId":"s9"}"#),
        _ => None,
    });
    assert_eq!(
        steps.iter().map(|(method, _)| method.as_str()).collect::<Vec<_>>(),
        ["initialize", "session/resume", "session/new"]
    );
    assert_eq!((memory.agent_session("s1"), memory.client_session("s9")), (Some("s9"), Some("s1")));
    memory.forget_process();
    memory.succeeded("initialize", "{}", CAN_RESUME);
    let step = memory.step_before(&prompt("s1")).expect("a step");
    assert!(step.params.contains(r#""sessionId":"s9""#), "{step:?}");
}

#[test]
fn a_session_waits_for_the_clients_own_initialize() {
    let mut memory = remembered();
    memory.forget_process();
    memory.heard("initialize");
    assert!(memory.must_wait(&prompt("s1")));
    assert!(!memory.must_wait(&prompt("unknown")));
    memory.succeeded("initialize", "{}", CAN_LOAD);
    assert!(!memory.must_wait(&prompt("s1")));
    assert_eq!(memory.step_before(&prompt("s1")).map(|step| step.method).as_deref(), Some("session/load"));
    memory.forget_process();
    memory.heard("initialize");
    memory.refused("initialize");
    assert_eq!(memory.step_before(&prompt("s1")).map(|step| step.purpose), Some(Purpose::Initialize));
}

#[test]
fn a_load_by_the_client_keeps_the_mapping() {
    let mut memory = remembered();
    memory.forget_process();
    memory.succeeded("initialize", "{}", "{}");
    let step = memory.step_before(&prompt("s1")).expect("a step");
    memory.step_succeeded(&step, r#"{"sessionId":"s9"}"#);
    memory.succeeded("session/load", r#"{"sessionId":"s1","cwd":"/"}"#, "{}");
    assert_eq!(memory.agent_session("s1"), Some("s9"));
}

#[test]
fn rows_bring_everything_back() {
    let mut memory = remembered();
    let learned = memory.succeeded("session/set_config_option", r#"{"sessionId":"s1","configId":"model","value":"m"}"#, "{}");
    let Some(Learned::Session { row, .. }) = learned else { panic!("a session") };
    let server = AcpServerRow {
        server_id: "x".into(),
        agent: "a".into(),
        instance: "i".into(),
        created_at_ms: 0,
        initialize: Some("{}".into()),
        authenticate: None,
        initialized: None,
    };
    let mut again = Memory::from_rows(&server, vec![row], MAX);
    let steps = walk(&mut again, &prompt("s1"), |step| Some(if step.method == "initialize" { CAN_LOAD } else { "{}" }));
    assert_eq!(steps.len(), 3);
    assert_eq!(steps[2].0, "session/set_config_option");
}

#[test]
fn the_session_that_was_not_used_longest_is_forgotten_at_the_bound() {
    let mut memory = remembered();
    memory.succeeded("session/new", "{}", r#"{"sessionId":"s2"}"#);
    memory.used("s1");
    let learned = memory.succeeded("session/new", "{}", r#"{"sessionId":"s3"}"#);
    assert!(matches!(learned, Some(Learned::Session { forget: Some(forget), .. }) if forget == "s2"));
    let learned = memory.succeeded("session/new", "{}", r#"{"sessionId":"s4"}"#);
    assert!(matches!(learned, Some(Learned::Session { forget: Some(forget), .. }) if forget == "s1"));
}
