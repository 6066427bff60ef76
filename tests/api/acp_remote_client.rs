//! A small client of ACP's remote transport, over POST and event streams.

use serde_json::{Value, json};

use crate::support::{PATIENCE, Server};

/// One connection.
pub struct Remote {
    http: reqwest::Client,
    pub url: String,
    pub id: String,
    pub initialized: Value,
    next: u64,
}

/// One event: its id and its message.
pub type Message = (Option<String>, Value);

impl Remote {
    /// Opens a connection; `query` follows the path.
    pub async fn connect(server: &Server, query: &str) -> Self {
        Self::connect_with(server, query, json!({})).await
    }

    pub async fn connect_with(server: &Server, query: &str, capabilities: Value) -> Self {
        let url = server.url(&format!("/acp{query}"));
        let params = json!({"protocolVersion": 1, "clientCapabilities": capabilities});
        let message = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
        let response = within(server.http.post(&url).json(&message).send()).await.expect("an answer");
        assert_eq!(response.status(), 200);
        let id = response.headers()["acp-connection-id"].to_str().expect("text").to_owned();
        let initialized = within(response.json()).await.expect("JSON");
        Self { http: server.http.clone(), url, id, initialized, next: 1 }
    }

    /// Posts a message as it is; gives the status.
    pub async fn post(&self, session: Option<&str>, message: &Value) -> u16 {
        let mut request = self.http.post(&self.url).header("acp-connection-id", &self.id).json(message);
        if let Some(session) = session {
            request = request.header("acp-session-id", session);
        }
        within(request.send()).await.expect("an answer").status().as_u16()
    }

    /// Sends a request, which must be accepted; gives its id.
    pub async fn request(&mut self, session: Option<&str>, method: &str, params: Value) -> Value {
        let id = json!(self.next);
        self.next += 1;
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        assert_eq!(self.post(session, &message).await, 202, "{message}");
        id
    }

    pub async fn prompt(&mut self, session: &str, text: &str) -> Value {
        let params = json!({"sessionId": session, "prompt": [{"type": "text", "text": text}]});
        self.request(Some(session), "session/prompt", params).await
    }

    /// Answers a request of the agent's.
    pub async fn answer(&self, session: &str, id: &Value, result: Value) -> u16 {
        self.post(Some(session), &json!({"jsonrpc": "2.0", "id": id, "result": result})).await
    }

    /// The response to a GET for a stream.
    pub async fn get(&self, session: Option<&str>, after: Option<&str>) -> reqwest::Response {
        let headers = [("acp-session-id", session), ("last-event-id", after)];
        let mut request = self.http.get(&self.url).header("accept", "text/event-stream").header("acp-connection-id", &self.id);
        for (name, value) in headers {
            request = value.into_iter().fold(request, |request, value| request.header(name, value));
        }
        within(request.send()).await.expect("an answer")
    }

    /// A stream that must open.
    pub async fn stream(&self, session: Option<&str>, after: Option<&str>) -> Messages {
        let response = self.get(session, after).await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (200, &"text/event-stream".parse().expect("text"))
        );
        Messages { response, buffer: Vec::new(), comments: Vec::new() }
    }

    /// The same, waiting until the receiver that has just left is gone for the server, too.
    pub async fn stream_when_free(&self, session: Option<&str>) -> Messages {
        loop {
            let response = self.get(session, None).await;
            if response.status() != 409 {
                assert_eq!(response.status(), 200);
                return Messages { response, buffer: Vec::new(), comments: Vec::new() };
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    /// A session of its own, found out on the connection's stream.
    pub async fn new_session(&mut self, stream: &mut Messages) -> String {
        let id = self.request(None, "session/new", json!({"cwd": "/", "mcpServers": []})).await;
        let answer = stream.until_answer(&id).await.pop().expect("an answer");
        answer.1["result"]["sessionId"].as_str().expect("a session").to_owned()
    }

    pub async fn delete(&self) -> u16 {
        let request = self.http.delete(&self.url).header("acp-connection-id", &self.id);
        within(request.send()).await.expect("an answer").status().as_u16()
    }
}

pub struct Messages {
    response: reqwest::Response,
    buffer: Vec<u8>,
    /// What is said besides messages.
    pub comments: Vec<String>,
}

impl Messages {
    /// The next message; `None` at the stream's end.
    pub async fn next(&mut self) -> Option<Message> {
        within(self.read()).await
    }

    async fn read(&mut self) -> Option<Message> {
        loop {
            while let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
                let block = std::str::from_utf8(&block).expect("UTF-8");
                let line = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
                self.comments.extend(line(": ").map(str::to_owned));
                assert!(line("event:").is_none(), "clients know one kind of event: {block}");
                if let Some(data) = line("data: ") {
                    return Some((line("id: ").map(str::to_owned), serde_json::from_str(data).expect("JSON")));
                }
            }
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// Reads until a message fits; gives everything read.
    pub async fn until(&mut self, fits: impl Fn(&Value) -> bool) -> Vec<Message> {
        let mut seen = Vec::new();
        while let Some(message) = self.next().await {
            seen.push(message);
            if fits(&seen.last().expect("just pushed").1) {
                return seen;
            }
        }
        panic!("the stream ended before the message came; seen: {seen:?}");
    }

    pub async fn until_answer(&mut self, id: &Value) -> Vec<Message> {
        self.until(|message| message.get("method").is_none() && message["id"] == *id).await
    }

    /// Reads to the end, which comes as the end of the answer.
    pub async fn until_end(&mut self) -> bool {
        while self.next().await.is_some() {}
        true
    }

    pub async fn until_method(&mut self, method: &str) -> Value {
        self.until(|message| message["method"] == method).await.pop().expect("just found").1
    }
}

/// What an agent said in these messages.
pub fn text_of(messages: &[Message]) -> String {
    let updates = messages.iter().map(|(_, message)| &message["params"]["update"]);
    let chunks = updates.filter(|update| update["sessionUpdate"] == "agent_message_chunk");
    chunks.filter_map(|update| update["content"]["text"].as_str()).collect()
}

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}
