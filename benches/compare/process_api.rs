//! `/v1/processes` as these rows use it: every reply is checked, and an unexpected one ends the row of that side.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::Result;
use crate::http::{Client, Reply};

/// No single request of these rows may take longer.
pub const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait for processes to start, or to end after they were killed.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);
/// Pause between two looks at the list, which is long in one row.
const LIST_PAUSE: Duration = Duration::from_millis(100);
const ROOT: &str = "/v1/processes";

/// A created process.
pub struct Created {
    pub id: String,
    pub pid: u64,
}

/// One connection for everything that is not timed.
pub struct Api {
    client: Client,
}

impl Api {
    pub async fn connect(addr: SocketAddr) -> Result<Self> {
        Ok(Self { client: Client::connect(addr).await? })
    }

    /// Starts a process from a body as `POST /v1/processes` takes it.
    pub async fn create(&mut self, spec: &Value) -> Result<Created> {
        let info = self.ask("POST", ROOT, Some(spec)).await?;
        let id = info["id"].as_str().ok_or_else(|| format!("created without an id: {info}"))?.to_owned();
        Ok(Created { id, pid: info["pid"].as_u64().unwrap_or(0) })
    }

    /// Writes one empty line to the process's stdin.
    pub async fn send_line(&mut self, id: &str) -> Result<()> {
        let body = json!({"data": "Cg==", "encoding": "base64"});
        let written = self.ask("POST", &format!("{ROOT}/{id}/input"), Some(&body)).await?;
        match written["bytesWritten"].as_u64() {
            Some(1) => Ok(()),
            _ => Err(format!("input of one byte: {written}").into()),
        }
    }

    /// Lets this many processes run at once; the other limits stay.
    pub async fn allow_running(&mut self, count: usize) -> Result<()> {
        let path = format!("{ROOT}/config");
        let mut config = self.ask("GET", &path, None).await?;
        config["maxConcurrentProcesses"] = json!(count);
        let stored = self.ask("POST", &path, Some(&config)).await?;
        match stored == config {
            true => Ok(()),
            false => Err(format!("stored limits {stored} instead of {config}").into()),
        }
    }

    /// Every listed process.
    pub async fn list(&mut self) -> Result<Vec<Value>> {
        let mut list = self.ask("GET", ROOT, None).await?;
        match list["processes"].take() {
            Value::Array(processes) => Ok(processes),
            other => Err(format!("list without processes: {other:.200}").into()),
        }
    }

    /// Waits until none of the listed runs any more.
    pub async fn wait_all_exited(&mut self) -> Result<()> {
        let begin = Instant::now();
        loop {
            let running = self.list().await?.iter().filter(|p| p["status"] != "exited").count();
            if running == 0 {
                return Ok(());
            }
            if begin.elapsed() > SETTLE_LIMIT {
                return Err(format!("{running} processes still run after {SETTLE_LIMIT:?}").into());
            }
            sleep(LIST_PAUSE).await;
        }
    }

    /// Kills what runs, waits for it and deletes every entry, so that the next block finds an empty list.
    pub async fn clear(&mut self) -> Result<()> {
        for process in self.list().await? {
            if process["status"] == "running" {
                self.ask("POST", &format!("{ROOT}/{}/kill", id_of(&process)?), None).await?;
            }
        }
        self.wait_all_exited().await?;
        for process in self.list().await? {
            self.ask("DELETE", &format!("{ROOT}/{}", id_of(&process)?), None).await?;
        }
        match self.list().await?.len() {
            0 => Ok(()),
            left => Err(format!("{left} processes left after deleting all").into()),
        }
    }

    async fn ask(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let reply = self.client.call(method, path, body.as_bytes(), REQUEST_LIMIT).await?;
        if reply.status == 204 {
            return Ok(Value::Null);
        }
        json_of(&reply).map_err(|e| format!("{method} {path}: {e}").into())
    }
}

fn id_of(process: &Value) -> Result<&str> {
    process["id"].as_str().ok_or_else(|| format!("listed without an id: {process}").into())
}

/// The JSON of a 200 or 201; anything else is an error that quotes the problem's detail, or else the reply.
pub fn json_of(reply: &Reply) -> Result<Value> {
    match (reply.status, serde_json::from_slice::<Value>(&reply.body)) {
        (200 | 201, Ok(value)) => Ok(value),
        (status, Ok(problem)) if problem["detail"].is_string() => Err(format!("answered {status}: {}", problem["detail"]).into()),
        (status, _) => Err(format!("answered {status}: {:.200}", String::from_utf8_lossy(&reply.body)).into()),
    }
}

/// Waits until the process runs the program whose arguments, each ended by NUL, begin with `arguments`. A shell that
/// prepares its terminal and then becomes another program is ready then, without having written a byte.
pub async fn wait_became(process: &Created, arguments: &str) -> Result<()> {
    let begin = Instant::now();
    let path = format!("/proc/{}/cmdline", process.pid);
    while begin.elapsed() < SETTLE_LIMIT {
        let now = fs::read(&path).map_err(|e| format!("{} has no {path}: {e}", process.id))?;
        if now.starts_with(arguments.as_bytes()) {
            return Ok(());
        }
        sleep(Duration::from_millis(2)).await;
    }
    Err(format!("{} did not get ready within {SETTLE_LIMIT:?}", process.id).into())
}
