//! An MCP server that is a command: messages are lines on stdin and stdout (MCP 2025-06-18, Transports, stdio).

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};

use super::failure::Failure;
use super::rpc::{self, Message};
use crate::config::{Bounds, Env, as_duration, as_usize};
use crate::processes::{Child, ChildSpec, Children, Error, Exit, Owner, Started, StderrTail};
use crate::rt::{files, spawn_owned};

/// How much of a line that is no JSON-RPC an error shows.
const RUBBISH_SHOWN_CHARS: usize = 200;
/// After the end of a server, how long its last words are waited for.
const DRAIN: Duration = Duration::from_millis(200);
/// Once its stdin is closed, a server has so long to end by itself (MCP 2025-06-18, Lifecycle, Shutdown).
const LEAVE: Duration = Duration::from_millis(300);

/// A server's process. Dropping it ends the whole tree, a little later.
pub(super) struct Running {
    process: Child,
    grace: Duration,
    has_ended: bool,
}

impl Running {
    /// Ends the whole tree, and gives how the server ended, if it did so by itself. Its stdin should be closed.
    pub(super) async fn end(mut self) -> Option<Exit> {
        let exit = tokio::time::timeout(LEAVE, self.process.exited()).await.ok();
        self.process.stop(self.grace).await;
        self.has_ended = true;
        exit
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Without a runtime the server itself is ending, and with it all children.
        if !self.has_ended && tokio::runtime::Handle::try_current().is_ok() {
            let (process, grace) = (self.process.clone(), self.grace);
            spawn_owned("mcp-check-end", async move { process.stop(grace).await });
        }
    }
}

/// What a server says on stderr.
pub(super) struct LastWords {
    stderr: ChildStderr,
    tail: StderrTail,
}

impl LastWords {
    /// Reads until nothing more can come. Cancel safe.
    pub(super) async fn listen(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = self.stderr.read(&mut buffer).await {
            self.tail.push(&buffer[..count]);
        }
    }

    /// The last lines, once the server has ended.
    pub(super) async fn text(mut self) -> String {
        let _ = tokio::time::timeout(DRAIN, self.listen()).await; // something else may hold the pipe
        self.tail.text()
    }
}

/// The pipes of a server.
pub(super) struct Pipes {
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    message_max_bytes: usize,
    /// The first line that was no JSON-RPC.
    rubbish: Option<String>,
}

/// Starts the command of an `McpServer`, in `directory`.
pub(super) fn start(
    children: &Children,
    acp: &Value,
    directory: &Path,
    env: &Env,
    bounds: &Bounds,
) -> Result<(Running, Pipes, LastWords), Failure> {
    let variables = acp["env"].as_array().into_iter().flatten();
    let variables: Vec<_> =
        variables.filter_map(|pair| Some((pair["name"].as_str()?.into(), pair["value"].as_str()?.into()))).collect();
    let path = variables.iter().find_map(|(name, value): &(std::ffi::OsString, std::ffi::OsString)| {
        (name == "PATH").then(|| std::env::split_paths(value).collect::<Vec<_>>())
    });
    let program = find(acp["command"].as_str().unwrap_or_default(), directory, &path.unwrap_or_else(|| env.search_path()))?;
    let args = acp["args"].as_array().into_iter().flatten().filter_map(Value::as_str).map(Into::into).collect();
    let spec = ChildSpec { program, args, cwd: Some(directory.to_owned()), env: variables, owner: Owner::System };
    let Started { stdin, stdout, stderr, process } = children.spawn(&spec)?;
    let tail = StderrTail::new(as_usize(bounds.stderr_tail_max_lines), as_usize(bounds.stderr_line_max_bytes));
    let running = Running { process, grace: as_duration(bounds.agent_stop_grace_ms), has_ended: false };
    let message_max_bytes = as_usize(bounds.mcp_message_max_bytes);
    let pipes = Pipes { stdin, stdout: BufReader::new(stdout), message_max_bytes, rubbish: None };
    Ok((running, pipes, LastWords { stderr, tail }))
}

/// A name is looked up on `PATH`; what has a slash is a path, relative to `directory`.
fn find(command: &str, directory: &Path, path: &[PathBuf]) -> Result<PathBuf, Failure> {
    let found = if command.contains('/') { Some(directory.join(command)) } else { files::find_executable(command, path) };
    found.ok_or_else(|| Error::ExecutableNotFound { program: command.into() }.into())
}

impl Pipes {
    /// What was on stdout that doesn't belong there.
    pub(super) fn rubbish(&self) -> Option<&str> {
        self.rubbish.as_deref()
    }

    pub(super) async fn write(&mut self, message: &Value) {
        let _ = self.stdin.write_all(format!("{message}\n").as_bytes()).await; // why it reads no more, its output says
    }

    pub(super) async fn request(&mut self, id: u64, method: &'static str, message: &Value) -> Result<Value, Failure> {
        self.write(message).await;
        loop {
            let line = self.line().await?;
            let message = rpc::read(&line, id);
            match message {
                Message::Rubbish => self.keep_rubbish(&line),
                Message::Request { answer } => self.write(&answer).await,
                message => {
                    if let Some(settled) = message.settled(method) {
                        return settled;
                    }
                }
            }
        }
    }

    async fn line(&mut self) -> Result<Vec<u8>, Failure> {
        let mut line = Vec::new();
        let max = self.message_max_bytes;
        let read = (&mut self.stdout).take(max as u64 + 1).read_until(b'\n', &mut line).await;
        match (read, line.ends_with(b"\n")) {
            (Ok(1..), true) => Ok(line),
            (Ok(_), _) if line.len() > max => Err(Failure::TooLong(max)),
            _ => {
                self.keep_rubbish(&line); // a line that was not finished
                Err(Failure::Ended)
            }
        }
    }

    fn keep_rubbish(&mut self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        if self.rubbish.is_none() && !text.trim().is_empty() {
            self.rubbish = Some(text.trim().chars().take(RUBBISH_SHOWN_CHARS).collect());
        }
    }
}
