//! One agent process as its server's owner sees it: pipes, the line cutter, the tail of stderr.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::task::JoinHandle;

use super::line::LineCutter;
use super::types::{Launch, LaunchError, Quirks};
use crate::config::{Bounds, as_usize};
use crate::processes::{Child, ChildSpec, Children, Exit, Owner, Started, StderrTail};
use crate::rt::spawn_owned;
use crate::store::Store;

/// A started agent.
pub(super) struct Agent {
    pub(super) process: Child,
    pub(super) quirks: Quirks,
    pub(super) input: Input,
    pub(super) output: Output,
    stderr: Arc<Mutex<StderrTail>>,
    stderr_task: JoinHandle<()>,
}

/// Towards the agent.
pub(super) struct Input {
    stdin: Option<ChildStdin>,
    /// Whole lines that the agent hasn't read yet; written in order, whatever clients do meanwhile.
    outgoing: BytesMut,
    queue_max_bytes: usize,
}

/// From the agent.
pub(super) struct Output {
    stdout: Option<ChildStdout>,
    pub(super) lines: LineCutter,
}

/// What the agent's side of its owner's loop brings.
pub(super) enum AgentEvent {
    /// Something was read, or stdout ended.
    Read,
    /// Something was written.
    Written,
    /// The agent closed its stdin.
    StdinClosed,
    /// It exited.
    Exited(Exit),
}

impl Agent {
    pub(super) fn start(children: &Children, launch: &Launch, name: &str, bounds: &Bounds) -> Result<Self, LaunchError> {
        let spec = ChildSpec {
            program: launch.program.clone(),
            args: launch.args.clone(),
            cwd: None,
            env: launch.env.clone(),
            owner: Owner::Agent,
        };
        let Started { stdin, stdout, stderr, process } = children.spawn(&spec)?;
        let tail =
            Arc::new(Mutex::new(StderrTail::new(as_usize(bounds.stderr_tail_max_lines), as_usize(bounds.stderr_line_max_bytes))));
        let stderr_task = spawn_owned("agent-stderr", read_stderr(stderr, Arc::clone(&tail), name.to_owned()));
        let input =
            Input { stdin: Some(stdin), outgoing: BytesMut::new(), queue_max_bytes: as_usize(bounds.acp_stdin_queue_max_bytes) };
        let output = Output { stdout: Some(stdout), lines: LineCutter::new(as_usize(bounds.acp_line_max_bytes)) };
        Ok(Self { process, quirks: launch.quirks, input, output, stderr: tail, stderr_task })
    }

    /// Reads and writes at the same time: an agent that waits for us to read must not keep us from writing, nor the
    /// other way round. Its exit is only reported while `exited` is false. Cancel safe, as each part is.
    pub(super) async fn event(&mut self, store: &Store, exited: bool) -> AgentEvent {
        let Self { process, input, output, .. } = self;
        tokio::select! {
            () = output.read_some(store) => AgentEvent::Read,
            written = input.write_some() => if written.is_ok() { AgentEvent::Written } else { AgentEvent::StdinClosed },
            exit = process.exited(), if !exited => AgentEvent::Exited(exit),
        }
    }

    /// The last lines of stderr, after it ended or `wait` passed.
    pub(super) async fn stderr_tail(&mut self, wait: Duration) -> String {
        let _ = tokio::time::timeout(wait, &mut self.stderr_task).await; // late lines are lost to the report only
        self.stderr.lock().unwrap_or_else(PoisonError::into_inner).text()
    }
}

impl Input {
    /// Queues one line. False when the agent has left too much unread, or closed its stdin.
    pub(super) fn send(&mut self, line: &Bytes) -> bool {
        if self.stdin.is_none() || self.outgoing.len() + line.len() > self.queue_max_bytes {
            return false;
        }
        self.outgoing.extend_from_slice(line);
        self.outgoing.extend_from_slice(b"\n");
        true
    }

    /// Writes some of what is queued; waits for ever when there is nothing. Cancel safe: what was written is taken
    /// out of the queue in the same step.
    ///
    /// # Errors
    /// The agent closed its stdin.
    async fn write_some(&mut self) -> std::io::Result<()> {
        let Some(stdin) = self.stdin.as_mut().filter(|_| !self.outgoing.is_empty()) else {
            return std::future::pending().await;
        };
        let count = stdin.write(&self.outgoing).await?;
        self.outgoing.advance(count);
        if self.outgoing.is_empty() && self.outgoing.capacity() > 1024 * 1024 {
            self.outgoing = BytesMut::new(); // gives the memory of a big message back
        }
        Ok(())
    }

    /// Writes what the pipe takes right now, so that the agent works while we do other things. What is left, and any
    /// error, is for [`Input::write_some`].
    pub(super) fn write_now(&mut self) {
        let Some(stdin) = self.stdin.as_mut().filter(|_| !self.outgoing.is_empty()) else { return };
        let mut nobody = Context::from_waker(Waker::noop()); // write_some registers the one that counts
        if let Poll::Ready(Ok(count)) = Pin::new(stdin).poll_write(&mut nobody, &self.outgoing) {
            self.outgoing.advance(count);
        }
    }

    /// True once nothing more can be written.
    pub(super) fn is_closed(&self) -> bool {
        self.stdin.is_none()
    }

    /// Says that nothing more will be written to it.
    pub(super) fn close(&mut self) {
        self.stdin = None;
        self.outgoing.clear();
    }
}

impl Output {
    /// Reads some of stdout into `lines` once the log has room; waits for ever at its end. Cancel safe.
    async fn read_some(&mut self, store: &Store) {
        let Some(stdout) = self.stdout.as_mut() else { return std::future::pending().await };
        store.room().await;
        match stdout.read_buf(self.lines.buffer()).await {
            Ok(count) if count > 0 => {}
            _ => self.stdout = None,
        }
    }

    /// True once stdout is at its end.
    pub(super) fn ended(&self) -> bool {
        self.stdout.is_none()
    }
}

async fn read_stderr(mut stderr: ChildStderr, tail: Arc<Mutex<StderrTail>>, agent: String) {
    let mut buffer = vec![0; 4096];
    while let Ok(count) = stderr.read(&mut buffer).await {
        if count == 0 {
            return;
        }
        tracing::debug!(agent, bytes = count, "agent wrote to stderr");
        tail.lock().unwrap_or_else(PoisonError::into_inner).push(&buffer[..count]);
    }
}
