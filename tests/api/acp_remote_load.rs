//! `session/load` at any moment of a turn tells all that was said, once.

use serde_json::{Value, json};

use crate::acp_remote_client::{Remote, text_of};
use crate::sessions_support::{create, ended, events, fake, get, say, words};
use crate::support::{Home, Server};

/// Clients that load the session at different moments of one turn.
const CLIENTS: u32 = 8;

#[tokio::test]
async fn a_load_at_a_turns_end_loses_nothing() {
    let home = Home::new();
    let server = Server::start(&home);
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Remote::connect(&server, "?agent=mock").await);
    }
    for round in 0..16_u32 {
        let id = create(&server, json!({"agent": "mock"})).await;
        let session = get(&server, &id).await["acpSessionId"].as_str().expect("an id").to_owned();
        let turn = say(&server, &id, "/stream 12").await;
        let loads = clients.iter_mut().enumerate().map(|(at, client)| {
            let session = session.clone();
            // Not a time that anything is measured by: the loads only shall not all come at one moment.
            let pause = std::time::Duration::from_micros(u64::from(round) * 97 + at as u64 * 1_100);
            async move {
                tokio::time::sleep(pause).await;
                let params = json!({"sessionId": session, "cwd": "/tmp", "mcpServers": []});
                client.request(Some(&session), "session/load", params).await;
            }
        });
        futures_util::future::join_all(loads).await;
        ended(&server, &id, &turn).await;
        let last = say(&server, &id, "fin").await;
        ended(&server, &id, &last).await;
        let said = words(&events(&server, &id, "").await).concat();
        for client in &clients {
            let mut stream = client.stream(Some(&session), None).await;
            let is_last = |message: &Value| message["params"]["update"]["content"]["text"] == "fin" && is_agents(message);
            let seen = stream.until(is_last).await;
            assert_eq!(text_of(&seen), said, "round {round}");
        }
    }
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test]
async fn a_load_between_turns_has_what_the_agent_says_there() {
    let home = Home::new();
    fake(&home, "");
    let server = Server::start(&home);
    let id = create(&server, json!({"agent": "amp"})).await;
    let session = get(&server, &id).await["acpSessionId"].as_str().expect("an id").to_owned();
    let tell = |text: &str| json!({"sessionId": session, "text": text});
    server.call("sessions-amp", "amp", 1, "fake/tell", tell("by the ")).await;
    let mut client = Remote::connect(&server, "?agent=amp").await;
    client.request(Some(&session), "session/load", json!({"sessionId": session, "cwd": "/tmp", "mcpServers": []})).await;
    server.call("sessions-amp", "amp", 2, "fake/tell", tell("way")).await;
    let mut stream = client.stream(Some(&session), None).await;
    let seen = stream.until(|message| message["params"]["update"]["content"]["text"] == "way").await;
    assert_eq!(text_of(&seen), "by the way");
    assert_eq!(server.stop(), Some(0));
}

fn is_agents(message: &Value) -> bool {
    message["params"]["update"]["sessionUpdate"] == "agent_message_chunk"
}
