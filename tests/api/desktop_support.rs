//! A server with a desktop on a display of its own, for tests of several files.

use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::support::{Home, Options, PATIENCE, Server, kill};

pub struct Desktop {
    pub server: Server,
    spec: Value,
}

impl Desktop {
    /// A desktop of 800x600 that can be made 2560x1440.
    pub async fn start(home: &Home, options: &Options, display: u32) -> Self {
        let server = Server::start_with(home, options);
        let desktop = Self { server, spec: json!({"width": 800, "height": 600, "displayNum": display}) };
        desktop.begin().await;
        desktop
    }

    /// Starts it, again.
    pub async fn begin(&self) {
        let status = self.post("start", &self.spec).await;
        assert_eq!(status["state"], "active", "{status}");
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.server.http.request(method, format!("{}/v1/desktop/{path}", self.server.url))
    }

    /// Status and JSON; what has no body is null.
    pub async fn answer(&self, request: RequestBuilder) -> (u16, Value) {
        let answer = tokio::time::timeout(PATIENCE, request.send()).await.expect("an answer in time").expect("an answer");
        let (status, text) = (answer.status().as_u16(), answer.text().await.expect("a body"));
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    pub async fn get(&self, path: &str) -> Value {
        self.done(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Value {
        self.done(self.request(Method::POST, path).json(body)).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Value {
        self.done(self.request(Method::PUT, path).json(body)).await
    }

    async fn done(&self, request: RequestBuilder) -> Value {
        let (status, body) = self.answer(request).await;
        assert!((200..300).contains(&status), "{status} {body}");
        body
    }

    /// Kills a process of the desktop, and waits until another one is in its place.
    pub async fn replace(&self, name: &str) {
        let pid = self.pid_of(name).await.expect("it runs");
        kill(u32::try_from(pid).expect("a pid"), "KILL");
        until(name, async || {
            let is_active = self.get("status").await["state"] == "active";
            self.pid_of(name).await.filter(|other| is_active && *other != pid)
        })
        .await;
    }

    async fn pid_of(&self, name: &str) -> Option<u64> {
        let status = self.get("status").await;
        let all = status["processes"].as_array().into_iter().flatten();
        all.filter(|process| process["name"] == name).find_map(|process| process["pid"].as_u64())
    }

    /// Kills the server, and waits until the next one has the desktop.
    pub async fn crash(&self) {
        self.server.crash();
        until("the desktop", async || {
            let answer = self.request(Method::GET, "status").send().await.ok()?;
            let status: Value = answer.json().await.ok()?;
            (status["state"] == "active").then_some(())
        })
        .await;
    }
}

pub async fn until<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} never came");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
