//! `sandboxd api`: calls a running server.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use reqwest::{Method, Response, header};

use super::client::{Client, DEFAULT_ENDPOINT, cause};
use super::report::{AgentList, Report};
use super::{Failure, TokenFlags, block_on, json, print, read_input, write_out};
use crate::agents::InstallOptions;
use crate::config::Env;
use crate::rt::clock::now_ms;

#[derive(Debug, Subcommand)]
pub(super) enum ApiCommand {
    /// Coding agents: what there is, and installing it.
    #[command(subcommand)]
    Agents(AgentsCommand),
    /// Talks to agents: raw ACP messages in, the event stream out.
    #[command(subcommand)]
    Acp(AcpCommand),
}

#[derive(Debug, Args)]
pub(super) struct Endpoint {
    /// Where the server listens.
    #[arg(short, long, value_name = "URL", default_value = DEFAULT_ENDPOINT)]
    pub(super) endpoint: String,
}

#[derive(Debug, Subcommand)]
pub(super) enum AgentsCommand {
    /// Shows the agents as the server lists them.
    List(Endpoint),
    /// Shows what can be chosen for each agent: models, modes, thought levels.
    Report(Endpoint),
    /// Installs an agent on the server's machine; returns when it is done.
    Install {
        /// The agent's id.
        agent: String,
        #[command(flatten)]
        what: InstallFlags,
        #[command(flatten)]
        endpoint: Endpoint,
    },
}

/// What is to be installed.
#[derive(Debug, Clone, Args)]
pub(super) struct InstallFlags {
    /// Installs again what is there already.
    #[arg(short, long)]
    reinstall: bool,
    /// Another version of the agent itself than the pinned one.
    #[arg(long, value_name = "VERSION")]
    agent_version: Option<String>,
    /// Another version of its ACP adapter than the pinned one.
    #[arg(long, value_name = "VERSION")]
    agent_process_version: Option<String>,
}

impl InstallFlags {
    /// True when a version was asked for.
    pub(super) fn name_a_version(&self) -> bool {
        self.agent_version.is_some() || self.agent_process_version.is_some()
    }

    /// The same for the agents room.
    pub(super) fn options(&self) -> InstallOptions {
        InstallOptions {
            reinstall: self.reinstall,
            agent_version: self.agent_version.clone(),
            agent_process_version: self.agent_process_version.clone(),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum AcpCommand {
    /// Shows the agent processes that the server runs.
    List(Endpoint),
    /// Sends one JSON-RPC message and prints the answer, however long that takes.
    Post {
        #[command(flatten)]
        server: ServerId,
        /// Which agent; needed with the first message for a server id.
        #[arg(long)]
        agent: Option<String>,
        #[command(flatten)]
        message: Message,
        #[command(flatten)]
        endpoint: Endpoint,
    },
    /// Prints what the agent says, as server-sent events, until the server is closed.
    Stream {
        #[command(flatten)]
        server: ServerId,
        /// Only what came after this event; without it, from the beginning.
        #[arg(long, value_name = "N")]
        last_event_id: Option<u64>,
        #[command(flatten)]
        endpoint: Endpoint,
    },
    /// Ends the agent process and forgets the server id.
    Close {
        #[command(flatten)]
        server: ServerId,
        #[command(flatten)]
        endpoint: Endpoint,
    },
}

#[derive(Debug, Args)]
pub(super) struct ServerId {
    /// The name that you choose for the agent process.
    #[arg(long, value_name = "ID", value_parser = server_id)]
    server_id: String,
}

#[derive(Debug, Args)]
pub(super) struct Message {
    /// The message.
    #[arg(long = "json", value_name = "JSON")]
    text: Option<String>,
    /// The file that holds the message; - is stdin.
    #[arg(long = "json-file", value_name = "FILE")]
    file: Option<PathBuf>,
}

/// A path segment that no URL parser takes for a step up or down.
fn server_id(text: &str) -> Result<String, String> {
    match text {
        "" | "." | ".." => Err("choose another name: this one can't stand in a URL".to_owned()),
        id => Ok(id.to_owned()),
    }
}

pub(super) fn run(command: ApiCommand, token: &TokenFlags, env: &Env) -> Result<(), Failure> {
    let client = |endpoint: &Endpoint| Client::new(&endpoint.endpoint, token.resolve(env)?, env);
    block_on(async {
        match command {
            ApiCommand::Agents(AgentsCommand::List(endpoint)) => show(&client(&endpoint)?, &["v1", "agents"]).await,
            ApiCommand::Agents(AgentsCommand::Report(endpoint)) => report(&client(&endpoint)?).await,
            ApiCommand::Agents(AgentsCommand::Install { agent, what, endpoint }) => {
                install(&client(&endpoint)?, &agent, &what).await
            }
            ApiCommand::Acp(AcpCommand::List(endpoint)) => show(&client(&endpoint)?, &["v1", "acp"]).await,
            ApiCommand::Acp(AcpCommand::Post { server, agent, message, endpoint }) => {
                post(&client(&endpoint)?, &server.server_id, agent.as_deref(), message.read()?).await
            }
            ApiCommand::Acp(AcpCommand::Stream { server, last_event_id, endpoint }) => {
                stream(&client(&endpoint)?, &server.server_id, last_event_id).await
            }
            ApiCommand::Acp(AcpCommand::Close { server, endpoint }) => close(&client(&endpoint)?, &server.server_id).await,
        }
    })
}

async fn show(client: &Client, segments: &[&str]) -> Result<(), Failure> {
    let body = client.fetch(client.request(Method::GET, segments, &[])).await?;
    print(json::pretty(&body))
}

async fn report(client: &Client) -> Result<(), Failure> {
    let body = client.fetch(client.request(Method::GET, &["v1", "agents"], &[("config", "true")])).await?;
    let list: AgentList = serde_json::from_str(&body).map_err(|error| {
        Failure::failed(format_args!("{} does not answer as a server of this kind does: {error}", client.endpoint()))
    })?;
    let report = Report::new(list, client.endpoint(), now_ms());
    print(serde_json::to_string_pretty(&report).map_err(Failure::failed)?)
}

async fn install(client: &Client, agent: &str, what: &InstallFlags) -> Result<(), Failure> {
    let segments = ["v1", "agents", agent, "install"];
    let body = client.fetch(client.request(Method::POST, &segments, &[]).json(&what.options())).await?;
    print(json::pretty(&body))
}

impl Message {
    fn read(self) -> Result<Vec<u8>, Failure> {
        match (self.text, self.file) {
            (Some(text), None) => Ok(text.into_bytes()),
            (None, Some(file)) => read_input(&file),
            _ => Err(Failure::failed("give the message by either --json JSON or --json-file FILE")),
        }
    }
}

/// The message goes out as it was given: the server judges it.
async fn post(client: &Client, id: &str, agent: Option<&str>, message: Vec<u8>) -> Result<(), Failure> {
    let query: Vec<(&str, &str)> = agent.map(|agent| ("agent", agent)).into_iter().collect();
    let request = client.request(Method::POST, &["v1", "acp", id], &query);
    let response = client.send(request.header(header::CONTENT_TYPE, "application/json").body(message)).await?;
    let body = response.text().await.map_err(|error| {
        let cause = cause(&error);
        Failure::failed(format_args!(
            "the connection broke off ({cause}); the agent goes on: sandboxd api acp stream --server-id {id} has its answer"
        ))
    })?;
    if body.is_empty() { Ok(()) } else { print(json::pretty(body.trim_start())) }
}

async fn stream(client: &Client, id: &str, last_event_id: Option<u64>) -> Result<(), Failure> {
    let mut request = client.request(Method::GET, &["v1", "acp", id], &[]).header(header::ACCEPT, "text/event-stream");
    if let Some(last) = last_event_id {
        request = request.header("last-event-id", last);
    }
    let mut response = client.send(request).await?;
    let mut seen = LastId { id: last_event_id.unwrap_or(0), line: Vec::new() };
    copy(&mut response, &mut seen).await.map_err(|error| match error {
        CopyError::Output(failure) => failure,
        CopyError::Input(error) => {
            Failure::failed(format_args!("the stream broke off ({}): go on with --last-event-id {}", cause(&error), seen.id))
        }
    })
}

enum CopyError {
    Input(reqwest::Error),
    Output(Failure),
}

/// Prints each piece as it arrives, until the stream ends or nobody reads stdout any more.
async fn copy(response: &mut Response, seen: &mut LastId) -> Result<(), CopyError> {
    while let Some(chunk) = response.chunk().await.map_err(CopyError::Input)? {
        if !write_out(&chunk).map_err(CopyError::Output)? {
            break;
        }
        seen.read(&chunk);
    }
    Ok(())
}

/// Follows the `id:` lines of a stream, wherever its pieces are cut.
struct LastId {
    id: u64,
    /// The beginning of the current line: no more than an `id:` line can have.
    line: Vec<u8>,
}

impl LastId {
    const LINE_MAX_BYTES: usize = 32;

    fn read(&mut self, piece: &[u8]) {
        for byte in piece {
            if *byte == b'\n' {
                let id = std::str::from_utf8(&self.line).ok().and_then(|line| line.strip_prefix("id:")?.trim().parse().ok());
                self.id = id.unwrap_or(self.id);
                self.line.clear();
            } else if self.line.len() < Self::LINE_MAX_BYTES {
                self.line.push(*byte);
            }
        }
    }
}

async fn close(client: &Client, id: &str) -> Result<(), Failure> {
    client.send(client.request(Method::DELETE, &["v1", "acp", id], &[])).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_across_pieces() {
        let mut seen = LastId { id: 3, line: Vec::new() };
        for piece in ["event: message\ni", "d: 1", "2\ndata: {\"id: 99\":1}\n\n: heart", "beat\n\n", "data: id: 7\n"] {
            seen.read(piece.as_bytes());
        }
        assert_eq!(seen.id, 12);
    }
}
