//! Whether MCP servers are ready: each is started or called, greeted, and asked for its tools, as an agent would do.
//!
//! ```text
//! initialize ─▶ notifications/initialized ─▶ tools/list (each page) ─▶ ready, with the number of tools
//!     └ any failure, or its time is over ─▶ failed, with the reason and the last lines of stderr
//! ```

mod failure;
mod http;
mod rpc;
mod sse;
mod stdio;

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use serde_json::{Value, json};

use super::resolve::Server;
use crate::config::{Bounds, Env, as_usize};
use crate::processes::Children;
use failure::Failure;

/// The revision of MCP that we speak first; any that a server answers with is fine for what is asked here.
const PROTOCOL_VERSION: &str = "2025-06-18";
/// Pages of a list of tools that are read.
const PAGES_MAX: usize = 64;

/// How a check went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checked {
    /// The number of its tools, or why it isn't ready.
    pub(super) outcome: Result<u64, String>,
    /// The last lines of its stderr when it isn't ready; empty when there are none.
    pub(super) stderr: String,
    /// How long that took.
    pub(super) duration_ms: u64,
}

/// Checks servers.
pub(super) struct Checker {
    pub(super) children: Children,
    pub(super) env: Env,
    pub(super) bounds: Bounds,
}

impl Checker {
    /// Checks all servers at the same time, up to `mcp_checks_max`; what they are comes in their order. What was started
    /// is ended before this returns; dropping the future ends it, too.
    pub(super) async fn check_all(&self, directory: &Path, servers: &[Server]) -> Vec<Checked> {
        let checks: Vec<_> = servers.iter().map(|server| self.check(directory, server)).collect();
        futures_util::stream::iter(checks).buffered(as_usize(self.bounds.mcp_checks_max)).collect().await
    }

    async fn check(&self, directory: &Path, server: &Server) -> Checked {
        let started = Instant::now();
        let timeout_ms = server.timeout_ms.filter(|ms| *ms > 0).unwrap_or(self.bounds.mcp_check_timeout_ms);
        let timeout_ms = timeout_ms.min(self.bounds.mcp_check_timeout_max_ms);
        let acp = &server.acp;
        let (outcome, stderr) = match acp["type"].as_str() {
            None | Some("stdio") => self.check_command(directory, acp, timeout_ms).await,
            Some("http" | "sse") => (self.check_url(acp, timeout_ms).await.map_err(|failure| failure.to_string()), String::new()),
            Some(kind) => (Err(format!("a server of kind {kind} can't be checked")), String::new()),
        };
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Checked { outcome, stderr, duration_ms }
    }

    async fn check_command(&self, directory: &Path, acp: &Value, timeout_ms: u64) -> (Result<u64, String>, String) {
        let (running, pipes, mut words) = match stdio::start(&self.children, acp, directory, &self.env, &self.bounds) {
            Ok(started) => started,
            Err(failure) => return (Err(failure.to_string()), String::new()),
        };
        let mut link = Link::Command(pipes);
        let outcome = {
            let listening = async {
                words.listen().await;
                std::future::pending().await
            };
            tokio::select! {
                outcome = within(timeout_ms, count_tools(&mut link)) => outcome,
                never = listening => never,
            }
        };
        let rubbish = link.rubbish();
        drop(link); // closes stdin
        let exit = running.end().await;
        let Err(failure) = outcome else { return (outcome.map_err(|failure| failure.to_string()), String::new()) };
        let mut text = failure.to_string();
        if let (Failure::Ended, Some(exit)) = (failure, exit) {
            text += &format!(" ({exit})");
        }
        if let Some(rubbish) = rubbish {
            text += &format!("; what it wrote on stdout is no JSON-RPC: {rubbish}");
        }
        (Err(text), words.text().await)
    }

    async fn check_url(&self, acp: &Value, timeout_ms: u64) -> Result<u64, Failure> {
        let max = as_usize(self.bounds.mcp_message_max_bytes);
        let mut link = if acp["type"] == "sse" {
            Link::Older(http::WithStream::new(acp, &self.env, max)?)
        } else {
            Link::Url(http::Streamable::new(acp, &self.env, max)?)
        };
        let outcome = within(timeout_ms, count_tools(&mut link)).await;
        if let Link::Url(link) = &link {
            link.say_goodbye().await;
        }
        outcome
    }
}

async fn within<T>(timeout_ms: u64, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let done = tokio::time::timeout(Duration::from_millis(timeout_ms), work).await;
    done.unwrap_or(Err(Failure::TimedOut(timeout_ms)))
}

/// A way to a server.
enum Link {
    Command(stdio::Pipes),
    Url(http::Streamable),
    Older(http::WithStream),
}

impl Link {
    async fn request(&mut self, id: u64, method: &'static str, params: Value) -> Result<Value, Failure> {
        let message = rpc::request(id, method, &params);
        match self {
            Self::Command(link) => link.request(id, method, &message).await,
            Self::Url(link) => link.request(id, method, &message).await,
            Self::Older(link) => link.request(id, method, &message).await,
        }
    }

    async fn notify(&mut self, method: &str) -> Result<(), Failure> {
        let message = rpc::notification(method);
        match self {
            Self::Command(link) => {
                link.write(&message).await;
                Ok(())
            }
            Self::Url(link) => link.notify(&message).await,
            Self::Older(link) => link.notify(&message).await,
        }
    }

    /// The version of all that follows.
    fn agree(&mut self, version: &str) {
        if let Self::Url(link) = self {
            link.agree(version);
        }
    }

    fn rubbish(&self) -> Option<String> {
        match self {
            Self::Command(link) => link.rubbish().map(str::to_owned),
            Self::Url(_) | Self::Older(_) => None,
        }
    }
}

/// The handshake (MCP 2025-06-18, Lifecycle), and the number of tools; a server without that capability has none.
async fn count_tools(link: &mut Link) -> Result<u64, Failure> {
    let client = json!({"name": "sandboxd", "version": env!("CARGO_PKG_VERSION")});
    let params = json!({"protocolVersion": PROTOCOL_VERSION, "capabilities": {}, "clientInfo": client});
    let hello = link.request(1, "initialize", params).await?;
    let version = hello["protocolVersion"].as_str();
    link.agree(version.ok_or_else(|| Failure::Strange("initialize was answered without a protocolVersion".to_owned()))?);
    link.notify("notifications/initialized").await?;
    if !hello["capabilities"]["tools"].is_object() {
        return Ok(0);
    }
    let (mut count, mut params) = (0, json!({}));
    for page in 0..PAGES_MAX {
        let answer = link.request(2 + page as u64, "tools/list", params).await?;
        let tools = answer["tools"].as_array();
        count += tools.ok_or_else(|| Failure::Strange("tools/list was answered without tools".to_owned()))?.len() as u64;
        match answer["nextCursor"].as_str() {
            Some(cursor) => params = json!({"cursor": cursor}),
            None => return Ok(count),
        }
    }
    Err(Failure::TooManyPages(PAGES_MAX))
}
