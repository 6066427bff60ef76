//! A server with a desktop on a display of its own, for tests of several files.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::support::{Home, Options, Server, kill};

/// For programs on a machine that is slow.
const PATIENCE: Duration = Duration::from_secs(90);

pub struct Desktop {
    pub server: Server,
    spec: Value,
}

impl Desktop {
    /// A desktop of 800x600 that can be made 2560x1440.
    pub async fn start(home: &Home, options: &Options, display: u32) -> Self {
        Self::start_with(home, options, screen(display, 800, 600)).await
    }

    pub async fn start_with(home: &Home, options: &Options, spec: Value) -> Self {
        let desktop = Self::inactive(home, options, spec);
        desktop.begin().await;
        desktop
    }

    /// A server whose desktop is not started yet.
    pub fn inactive(home: &Home, options: &Options, spec: Value) -> Self {
        Self { server: Server::start_with(home, options), spec }
    }

    /// Starts it, also again; its status.
    pub async fn begin(&self) -> Value {
        let status = self.post("start", &self.spec).await;
        assert_eq!(status["state"], "active", "{status}");
        status
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.server.http.request(method, format!("{}/v1/desktop/{path}", self.server.url))
    }

    /// Status and JSON; what has no body is null.
    pub async fn answer(&self, request: RequestBuilder) -> (u16, Value) {
        let answer = request.timeout(PATIENCE).send().await.expect("an answer in time");
        let (status, text) = (answer.status().as_u16(), answer.text().await.expect("a body in time"));
        (status, if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect("JSON") })
    }

    pub async fn get(&self, path: &str) -> Value {
        self.done(path, self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Value {
        self.done(&format!("{path} {body}"), self.request(Method::POST, path).json(body)).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Value {
        self.done(&format!("{path} {body}"), self.request(Method::PUT, path).json(body)).await
    }

    async fn done(&self, what: &str, request: RequestBuilder) -> Value {
        let (status, answer) = self.answer(request).await;
        assert_eq!(status, 200, "{what}: {answer}");
        answer
    }

    /// Status and problem of a call that must fail.
    pub async fn refused(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, problem) = self.answer(self.request(Method::POST, path).json(body)).await;
        assert!(status >= 400 && problem.is_object(), "{path} {body}: {status} {problem}");
        (status, problem)
    }

    /// What is told at a path, once it fits.
    pub async fn when(&self, path: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let look = async || {
            let now = self.get(path).await;
            if fits(&now) { Ok(now) } else { Err(format!("{path} stays {now}")) }
        };
        settled(look).await
    }

    /// Its status, once it is active.
    pub async fn active(&self) -> Value {
        self.when("status", |status| status["state"] == "active").await
    }

    /// An xterm that writes what is typed into a file, once it has the keyboard.
    pub async fn typewriter(&self, home: &Home) -> PathBuf {
        let file = home.path().join("typed");
        let script = format!("stty -echo; cat > '{}'", file.display());
        let spec = json!({"app": "xterm", "args": ["-u8", "-e", "sh", "-c", script], "wait": true});
        let launched = self.post("launch", &spec).await;
        let id = launched["windowId"].as_str().expect("a window").to_owned();
        self.post(&format!("windows/{id}/focus"), &json!({})).await;
        until("the file", async || file.exists().then_some(())).await;
        file
    }

    /// The pid of one of the desktop's own processes.
    pub async fn pid_of(&self, name: &str) -> Option<u32> {
        let status = self.get("status").await;
        let all = status["processes"].as_array().into_iter().flatten();
        all.filter(|process| process["name"] == name).find_map(|process| u32::try_from(process["pid"].as_u64()?).ok())
    }

    /// Kills one of the desktop's own processes; its pid.
    pub async fn kill(&self, name: &str) -> u32 {
        let pid = self.pid_of(name).await.expect("it runs");
        kill(pid, "KILL");
        pid
    }

    /// Kills one, and waits until another is in its place.
    pub async fn replace(&self, name: &str) {
        let pid = self.kill(name).await;
        until(name, async || {
            let is_active = self.get("status").await["state"] == "active";
            self.pid_of(name).await.filter(|other| is_active && *other != pid)
        })
        .await;
    }

    /// Kills the server; the desktop's status, once the next one has it.
    pub async fn crash(&self) -> Value {
        self.server.crash();
        self.active().await
    }
}

pub fn screen(display: u32, width: u32, height: u32) -> Value {
    json!({"displayNum": display, "width": width, "height": height})
}

pub async fn until<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    settled(async || look().await.ok_or_else(|| format!("{what} never came"))).await
}

/// Looks until there is something; when patience ends, says why there is not.
async fn settled<T>(look: impl AsyncFn() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(why) => assert!(Instant::now() < deadline, "{why}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
