//! One agent process as its server's owner sees it: its channel, the line cutter, the tail of stderr.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use super::line::LineCutter;
use super::types::{Launch, LaunchError, Quirks};
use crate::config::{Bounds, as_usize};
use crate::processes::channel::{Channel, Outlived, Record, Spoken, Stderr};
use crate::processes::{Child, ChildSpec, Children, Exit, Owner, ProcessId, StderrTail};
use crate::rt::clock::now_ms;
use crate::rt::spawn_owned;
use crate::store::Store;

/// A started agent.
pub(super) struct Agent {
    pub(super) process: Child,
    pub(super) quirks: Quirks,
    channel: Channel,
    /// Whole lines that the agent hasn't read yet; written in order, whatever clients do meanwhile.
    outgoing: BytesMut,
    /// The last lines of `outgoing`, of which the journal doesn't tell yet.
    unnoted: Vec<Unnoted>,
    queue_max_bytes: usize,
    is_input_closed: bool,
    pub(super) lines: LineCutter,
    stderr: Arc<Mutex<StderrTail>>,
    stderr_task: JoinHandle<()>,
}

/// A line that waits to be written, and to be noted for the next server.
struct Unnoted {
    kind: u32,
    about: Vec<u8>,
    bytes: usize,
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

/// What the next server is told of an agent that outlives this one.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct About {
    pub(super) instance: String,
    agent: String,
    program: String,
    quirks: (bool, bool),
    started_at_ms: i64,
}

/// An agent that outlived the server before this one.
pub(super) struct Taken {
    pub(super) agent: Agent,
    pub(super) records: Vec<Record>,
    /// It has ended since.
    pub(super) is_over: bool,
}

/// The agents that an earlier server left.
pub(super) fn outlived(children: &Children) -> Vec<(ProcessId, About)> {
    let about = |about: Vec<u8>| serde_json::from_slice::<About>(&about).ok();
    children.outlived().into_iter().filter_map(|(id, text)| Some((id, about(text)?))).collect()
}

impl Agent {
    /// `read_to` is how far agents of this server have been read before: positions go on.
    pub(super) fn start(
        children: &Children,
        launch: &Launch,
        (instance, name): (&str, &str),
        read_to: u64,
        bounds: &Bounds,
    ) -> Result<Self, LaunchError> {
        let spec = ChildSpec {
            program: launch.program.clone(),
            args: launch.args.clone(),
            cwd: None,
            env: launch.env.clone(),
            owner: Owner::Agent,
        };
        let about = About {
            instance: instance.to_owned(),
            agent: name.to_owned(),
            program: launch.program.display().to_string(),
            quirks: (launch.quirks.protocol_version_number, launch.quirks.session_new_mcp_servers),
            started_at_ms: now_ms(),
        };
        let about = serde_json::to_vec(&about).unwrap_or_default();
        Ok(Self::new(children.speak(&spec, &about, read_to)?, launch.quirks, name, read_to, bounds))
    }

    /// Goes on with one of [`outlived`], whose lines are in the log up to `read_to`. `None` when nobody can.
    pub(super) fn go_on(children: &Children, id: ProcessId, about: &About, read_to: u64, bounds: &Bounds) -> Option<Taken> {
        let program = about.program.clone().into();
        let spec = ChildSpec { program, args: Vec::new(), cwd: None, env: Vec::new(), owner: Owner::Agent };
        let outlived = children.go_on_with(id, &spec, about.started_at_ms, read_to)?;
        let Outlived { spoken, is_over, records, unsent, unsettled, read_to } = outlived;
        let (protocol_version_number, session_new_mcp_servers) = about.quirks;
        let quirks = Quirks { protocol_version_number, session_new_mcp_servers };
        let mut agent = Self::new(spoken, quirks, &about.agent, read_to, bounds);
        agent.outgoing.extend_from_slice(&unsent);
        agent.lines.buffer().extend_from_slice(&unsettled);
        Some(Taken { agent, records, is_over })
    }

    fn new(spoken: Spoken, quirks: Quirks, name: &str, read_to: u64, bounds: &Bounds) -> Self {
        let Spoken { channel, stderr, process } = spoken;
        let tail =
            Arc::new(Mutex::new(StderrTail::new(as_usize(bounds.stderr_tail_max_lines), as_usize(bounds.stderr_line_max_bytes))));
        let stderr_task = spawn_owned("agent-stderr", read_stderr(stderr, Arc::clone(&tail), name.to_owned()));
        Self {
            process,
            quirks,
            channel,
            outgoing: BytesMut::new(),
            unnoted: Vec::new(),
            queue_max_bytes: as_usize(bounds.acp_stdin_queue_max_bytes),
            is_input_closed: false,
            lines: LineCutter::from(read_to, as_usize(bounds.acp_line_max_bytes)),
            stderr: tail,
            stderr_task,
        }
    }

    /// Reads and writes at the same time: an agent that waits for us to read must not keep us from writing, nor the
    /// other way round. Its exit is only reported while `exited` is false. Cancel safe, as each part is.
    pub(super) async fn event(&mut self, store: &Store, exited: bool) -> AgentEvent {
        let Self { process, channel, outgoing, .. } = self;
        let readable = async {
            store.room().await;
            channel.readable().await;
        };
        tokio::select! {
            () = readable => {
                self.channel.try_read(self.lines.buffer());
                AgentEvent::Read
            }
            () = channel.writable(), if !outgoing.is_empty() => if self.write_some() { AgentEvent::Written } else { AgentEvent::StdinClosed },
            exit = process.exited(), if !exited => AgentEvent::Exited(exit),
        }
    }

    /// The last lines of stderr, after it ended or `wait` passed.
    pub(super) async fn stderr_tail(&mut self, wait: Duration) -> String {
        let _ = tokio::time::timeout(wait, &mut self.stderr_task).await; // late lines are lost to the report only
        self.stderr.lock().unwrap_or_else(PoisonError::into_inner).text()
    }

    /// True once stdout is at its end.
    pub(super) fn has_ended(&self) -> bool {
        self.channel.is_read_to_its_end()
    }

    /// Queues one line, with what the next server has to know of it: that is noted right before something is written. False
    /// when the agent has left too much unread, or closed its stdin.
    pub(super) fn send(&mut self, line: &Bytes, kind: u32, about: impl FnOnce() -> Vec<u8>) -> bool {
        if self.is_input_closed || self.outgoing.len() + line.len() > self.queue_max_bytes {
            return false;
        }
        self.outgoing.extend_from_slice(line);
        self.outgoing.extend_from_slice(b"\n");
        if self.channel.is_kept() {
            self.unnoted.push(Unnoted { kind, about: about(), bytes: line.len() + 1 });
        }
        true
    }

    /// From here on the next server would write the lines that wait, were we killed.
    fn note_lines(&mut self) {
        let mut start = self.outgoing.len() - self.unnoted.iter().map(|line| line.bytes).sum::<usize>();
        for Unnoted { kind, about, bytes } in self.unnoted.drain(..) {
            self.channel.note(kind, &about, &self.outgoing[start..start + bytes]);
            start += bytes;
        }
    }

    /// Tells the next server something.
    pub(super) fn note(&mut self, kind: u32, about: impl FnOnce() -> Vec<u8>) {
        if self.channel.is_kept() {
            self.channel.note(kind, &about(), b"");
        }
    }

    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    pub(super) fn channel_mut(&mut self) -> &mut Channel {
        &mut self.channel
    }

    /// Writes the journal anew: these records, and the lines that wait.
    pub(super) fn tidy(&mut self, records: &[(u32, Vec<u8>)], line_kind: u32) {
        self.note_lines();
        let records = records.iter().map(|(kind, about)| (*kind, &about[..]));
        self.channel.tidy(records, line_kind, &self.outgoing);
    }

    /// Writes what the pipe takes right now, so that the agent works while we do other things. False when it closed its
    /// stdin.
    pub(super) fn write_some(&mut self) -> bool {
        if self.outgoing.is_empty() {
            return true;
        }
        self.note_lines();
        match self.channel.try_write(&self.outgoing) {
            Ok(count) => self.outgoing.advance(count),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted) => {}
            Err(_) => return false,
        }
        if self.outgoing.is_empty() && self.outgoing.capacity() > 1024 * 1024 {
            self.outgoing = BytesMut::new(); // gives the memory of a big message back
        }
        true
    }

    /// True once nothing more can be written.
    pub(super) fn is_input_closed(&self) -> bool {
        self.is_input_closed
    }

    /// Says that nothing more will be written to it.
    pub(super) fn close_input(&mut self) {
        self.channel.close_stdin();
        self.is_input_closed = true;
        self.outgoing.clear();
        self.unnoted.clear();
    }
}

async fn read_stderr(stderr: Stderr, tail: Arc<Mutex<StderrTail>>, agent: String) {
    let mut buffer = vec![0; 4096];
    while let Ok(count) = stderr.read(&mut buffer).await {
        if count == 0 {
            return;
        }
        tracing::debug!(agent, bytes = count, "agent wrote to stderr");
        tail.lock().unwrap_or_else(PoisonError::into_inner).push(&buffer[..count]);
    }
}
