//! Sessions as these rows use them: through `/v1/acp`, which both programs have, and through `/v1/sessions`. Every reply
//! is checked, and an unexpected one ends the row.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::Result;
use crate::http::{Client, Reply};
use crate::rows::rpc;

/// The ACP server of these rows, and its raw stream.
pub const ACP_PATH: &str = "/v1/acp/bench-turns";
/// No single request of these rows may take longer, a turn included.
pub const REQUEST_LIMIT: Duration = Duration::from_secs(60);

/// One connection.
pub struct Api {
    client: Client,
    sent: u64,
}

impl Api {
    pub async fn connect(addr: SocketAddr) -> Result<Self> {
        Ok(Self { client: Client::connect(addr).await?, sent: 0 })
    }

    /// Starts the agent and says hello to it.
    pub async fn initialize(&mut self, agent: &str) -> Result<()> {
        let params = json!({"protocolVersion": 1, "clientCapabilities": {}});
        self.acp(&format!("{ACP_PATH}?agent={agent}"), "initialize", &params).await.map(drop)
    }

    /// A session through `/v1/acp`; gives the agent's id for it.
    pub async fn acp_session(&mut self) -> Result<String> {
        let params = json!({"cwd": std::env::temp_dir(), "mcpServers": []});
        let result = self.acp(ACP_PATH, "session/new", &params).await?;
        text_of(&result, "sessionId")
    }

    /// Prompts through `/v1/acp` and waits for the answer.
    pub async fn acp_prompt(&mut self, session: &str, text: &str) -> Result<()> {
        let params = json!({"sessionId": session, "prompt": [{"type": "text", "text": text}]});
        let result = self.acp(ACP_PATH, "session/prompt", &params).await?;
        if result["stopReason"] == "end_turn" { Ok(()) } else { Err(format!("the turn ended so: {result}").into()) }
    }

    async fn acp(&mut self, path: &str, method: &str, params: &Value) -> Result<Value> {
        self.sent += 1;
        let body = rpc(self.sent, method, params);
        let mut answer = checked("POST", path, &self.client.call("POST", path, &body, REQUEST_LIMIT).await?)?;
        match answer["result"].take() {
            Value::Null => Err(format!("{method} answered {answer}").into()),
            result => Ok(result),
        }
    }

    /// A session through `/v1/sessions`.
    pub async fn create(&mut self, agent: &str) -> Result<String> {
        text_of(&self.ask("POST", "/v1/sessions", json!({"agent": agent}).to_string().as_bytes()).await?, "id")
    }

    /// The session that changed last, as `/v1/sessions` calls it.
    pub async fn newest(&mut self) -> Result<String> {
        text_of(&self.ask("GET", "/v1/sessions?limit=1", b"").await?["sessions"][0], "id")
    }

    /// Submits a message; gives the turn's id.
    pub async fn submit(&mut self, session: &str, text: &str) -> Result<String> {
        let body = json!({"text": text}).to_string();
        text_of(&self.ask("POST", &format!("/v1/sessions/{session}/messages"), body.as_bytes()).await?, "turnId")
    }

    /// Waits until a turn has ended well.
    pub async fn wait_ended(&mut self, session: &str, turn: &str) -> Result<()> {
        let turn = self.ask("GET", &format!("/v1/sessions/{session}/turns/{turn}?waitMs=30000"), b"").await?;
        if turn["outcome"] == "finished" { Ok(()) } else { Err(format!("the turn is so: {turn}").into()) }
    }

    /// Any request whose answer is JSON.
    pub async fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Value> {
        checked(method, path, &self.raw(method, path, body).await?)
    }

    /// Any request.
    pub async fn raw(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Reply> {
        self.client.call(method, path, body, REQUEST_LIMIT).await
    }
}

fn checked(method: &str, path: &str, reply: &Reply) -> Result<Value> {
    match (reply.status, serde_json::from_slice(&reply.body)) {
        (200..=202, Ok(value)) => Ok(value),
        (status, _) => Err(format!("{method} {path} answered {status}: {:.300}", String::from_utf8_lossy(&reply.body)).into()),
    }
}

fn text_of(value: &Value, key: &str) -> Result<String> {
    Ok(value[key].as_str().ok_or_else(|| format!("no {key}: {value:.300}"))?.to_owned())
}
