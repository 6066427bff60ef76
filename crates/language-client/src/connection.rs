//! The owner of a connection: what is under way in both directions.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::client::Client;
use crate::error::{Error, ResponseError, Result};
use crate::frame::{Frames, encode};
use crate::message::Incoming;
use crate::server_asks::{Answer, ApplyEdit, Asks, answer, hear};
use crate::state::State;
use crate::{Limits, Setup};

/// Commands that wait for the owner.
const COMMANDS_MAX: usize = 256;
/// Messages that were read and wait for it.
const MESSAGES_MAX: usize = 64;
/// Edits of a server that wait for somebody to make them.
const ASKS_MAX: usize = 8;
const READ_BYTES: usize = 64 * 1024;

/// What an owner is told.
pub(crate) enum Command {
    Request {
        method: String,
        params: Box<RawValue>,
        timeout: Duration,
        reply: oneshot::Sender<Result<Box<RawValue>>>,
        /// Gone once nobody waits any more.
        waits: oneshot::Receiver<()>,
    },
    Notify {
        method: &'static str,
        params: Box<RawValue>,
    },
    /// A notification as somebody wrote it.
    NotifyRaw {
        method: String,
        params: Box<RawValue>,
    },
}

struct Pending {
    method: String,
    reply: oneshot::Sender<Result<Box<RawValue>>>,
    deadline: Instant,
    timeout: Duration,
}

type Abandoned = Pin<Box<dyn Future<Output = u64> + Send>>;
type Applied = Pin<Box<dyn Future<Output = (Box<RawValue>, Result<(), String>)> + Send>>;

struct Owner<W> {
    writer: W,
    outgoing: BytesMut,
    commands: mpsc::Receiver<Command>,
    messages: mpsc::Receiver<Result<Bytes>>,
    pending: HashMap<u64, Pending>,
    deadlines: BTreeSet<(Instant, u64)>,
    /// Requests that nobody waits for any more.
    abandoned: FuturesUnordered<Abandoned>,
    /// Edits that were made for the server.
    applied: FuturesUnordered<Applied>,
    next_id: u64,
    setup: Arc<Setup>,
    limits: Limits,
    state: Arc<State>,
    asks: mpsc::Sender<ApplyEdit>,
}

/// A client on a server's stdout and stdin: the handle, what the server will ask for, and the owner, which has to be run and
/// ends with the connection or when the last handle is dropped.
pub fn start<R, W>(reader: R, writer: W, setup: Setup, limits: Limits) -> (Client, Asks, impl Future<Output = ()> + Send)
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let (tell, commands) = mpsc::channel(COMMANDS_MAX);
    let (read, messages) = mpsc::channel(MESSAGES_MAX);
    let (asks, asked) = mpsc::channel(ASKS_MAX);
    let (state, setup) = (Arc::new(State::new(limits.clone())), Arc::new(setup));
    let owner = Owner {
        writer,
        outgoing: BytesMut::new(),
        commands,
        messages,
        pending: HashMap::new(),
        deadlines: BTreeSet::new(),
        abandoned: FuturesUnordered::new(),
        applied: FuturesUnordered::new(),
        next_id: 1,
        setup: Arc::clone(&setup),
        limits: limits.clone(),
        state: Arc::clone(&state),
        asks,
    };
    let max_bytes = limits.message_max_bytes;
    let both = async move {
        let reading = read_all(reader, max_bytes, read);
        tokio::pin!(reading);
        let running = owner.run();
        tokio::pin!(running);
        tokio::select! {
            () = &mut running => {}
            () = &mut reading => running.await, // it hears of the end
        }
    };
    (Client::new(tell, state, setup, limits), asked, both)
}

async fn read_all<R: AsyncRead + Unpin>(mut reader: R, max_bytes: usize, read: mpsc::Sender<Result<Bytes>>) {
    let mut frames = Frames::new(max_bytes);
    loop {
        loop {
            let frame = match frames.cut() {
                Ok(None) => break,
                Ok(Some(frame)) => Ok(frame),
                Err(error) => Err(error.into()),
            };
            let is_over = frame.is_err();
            if read.send(frame).await.is_err() || is_over {
                return;
            }
        }
        frames.buffer().reserve(READ_BYTES);
        match reader.read_buf(frames.buffer()).await {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => {
                let _ = read.send(Err(Error::Gone(error.to_string()))).await; // nobody is there any more
                return;
            }
        }
    }
}

enum Woken {
    Command(Option<Command>),
    Message(Option<Result<Bytes>>),
    Written(std::io::Result<usize>),
    Abandoned(u64),
    Applied(Box<RawValue>, Result<(), String>),
    Deadline,
}

impl<W: AsyncWrite + Unpin> Owner<W> {
    async fn run(mut self) {
        let why = loop {
            let step = match self.wait().await {
                Woken::Command(Some(command)) => self.command(command),
                Woken::Command(None) => Err("nobody uses it any more".to_owned()),
                Woken::Message(Some(Ok(message))) => self.message(&message),
                Woken::Message(Some(Err(error))) => Err(error.to_string()),
                Woken::Message(None) => Err("its stdout ended".to_owned()),
                Woken::Written(Ok(count)) => {
                    self.outgoing.advance(count);
                    Ok(())
                }
                Woken::Written(Err(error)) => Err(format!("its stdin: {error}")),
                Woken::Abandoned(id) => {
                    self.abandon(id, None);
                    Ok(())
                }
                Woken::Applied(id, outcome) => {
                    let failure = outcome.err();
                    self.respond(&id, Ok(json!({"applied": failure.is_none(), "failureReason": failure})));
                    Ok(())
                }
                Woken::Deadline => {
                    self.expire(Instant::now());
                    Ok(())
                }
            };
            if let Err(why) = step {
                break why;
            }
        };
        self.state.end(&why);
        for (_, pending) in self.pending.drain() {
            let _ = pending.reply.send(Err(Error::Gone(why.clone()))); // nobody waits
        }
    }

    async fn wait(&mut self) -> Woken {
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        let expired = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let Self { writer, outgoing, commands, messages, abandoned, applied, .. } = self;
        tokio::select! {
            written = writer.write(outgoing), if !outgoing.is_empty() => Woken::Written(written),
            message = messages.recv() => Woken::Message(message),
            command = commands.recv() => Woken::Command(command),
            Some(id) = abandoned.next(), if !abandoned.is_empty() => Woken::Abandoned(id),
            Some((id, outcome)) = applied.next(), if !applied.is_empty() => Woken::Applied(id, outcome),
            () = expired => Woken::Deadline,
        }
    }

    /// # Errors
    /// Why the connection is over.
    fn command(&mut self, command: Command) -> Result<(), String> {
        match command {
            Command::Request { method, params, timeout, reply, waits } => {
                self.request(method, &params, timeout, reply, waits);
                Ok(())
            }
            Command::Notify { method, params } => self.notify(method, &params),
            Command::NotifyRaw { method, params } => self.notify(&method, &params),
        }
    }

    fn request(
        &mut self,
        method: String,
        params: &RawValue,
        timeout: Duration,
        reply: oneshot::Sender<Result<Box<RawValue>>>,
        waits: oneshot::Receiver<()>,
    ) {
        let busy = if self.pending.len() >= self.limits.requests_max {
            Some(format!("{} requests are under way", self.pending.len()))
        } else if self.outgoing.len() + params.get().len() > self.limits.outgoing_max_bytes {
            Some(format!("it hasn't read {} bytes", self.outgoing.len()))
        } else {
            None
        };
        if let Some(why) = busy {
            let _ = reply.send(Err(Error::Busy(why))); // nobody waits
            return;
        }
        let id = self.next_id;
        self.next_id += 1;
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        let deadline = Instant::now() + timeout;
        self.deadlines.insert((deadline, id));
        self.pending.insert(id, Pending { method, reply, deadline, timeout });
        self.abandoned.push(Box::pin(async move {
            let _ = waits.await; // it ends when its other end is dropped
            id
        }));
    }

    /// One that can't be told would have another text than it was told of: it is given up.
    ///
    /// # Errors
    /// It doesn't read.
    fn notify(&mut self, method: &str, params: &RawValue) -> Result<(), String> {
        if self.outgoing.len() + params.get().len() > self.limits.outgoing_max_bytes {
            return Err(format!("it doesn't read: {} bytes wait for it", self.outgoing.len()));
        }
        self.send(&json!({"jsonrpc": "2.0", "method": method, "params": params}));
        Ok(())
    }

    fn respond(&mut self, id: &RawValue, outcome: Result<Value, ResponseError>) {
        self.send(&match outcome {
            Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
            Err(error) => json!({"jsonrpc": "2.0", "id": id, "error": error}),
        });
    }

    fn send(&mut self, message: &Value) {
        self.outgoing.extend_from_slice(&encode(message.to_string().as_bytes()));
    }

    /// # Errors
    /// Why the connection is over.
    fn message(&mut self, message: &Bytes) -> Result<(), String> {
        match Incoming::parse(message)? {
            Incoming::Request { id, method, params } => {
                match answer(&method, params.as_deref(), &self.setup, &self.state, &self.asks) {
                    Answer::Now(outcome) => self.respond(&id, outcome),
                    Answer::Applied(applied) => self
                        .applied
                        .push(Box::pin(async move { (id, applied.await.unwrap_or_else(|_| Err("nobody made it".to_owned()))) })),
                }
                if self.outgoing.len() > self.limits.outgoing_max_bytes {
                    return Err(format!("it asks, and doesn't read {} bytes of answers", self.outgoing.len()));
                }
            }
            Incoming::Notification { method, params } => hear(&method, params.as_deref(), &self.state),
            Incoming::Response { id, outcome } => {
                let Some(pending) = self.forget(id) else { return Ok(()) }; // it was given up
                let outcome = outcome.map_err(|error| Error::Refused { method: pending.method, error });
                let _ = pending.reply.send(outcome); // nobody waits any more
            }
        }
        Ok(())
    }

    fn forget(&mut self, id: u64) -> Option<Pending> {
        let pending = self.pending.remove(&id)?;
        self.deadlines.remove(&(pending.deadline, id));
        Some(pending)
    }

    /// The server is told that nobody waits for an answer.
    fn abandon(&mut self, id: u64, why: Option<Error>) {
        let Some(pending) = self.forget(id) else { return }; // it was answered
        self.send(&json!({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": id}}));
        if let Some(why) = why {
            let _ = pending.reply.send(Err(why)); // nobody waits any more
        }
    }

    fn expire(&mut self, now: Instant) {
        while let Some((_, id)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            let Some(Pending { method, timeout, .. }) = self.pending.get(&id) else { return };
            let why = Error::Timeout { method: method.clone(), after: *timeout };
            self.abandon(id, Some(why));
        }
    }
}

impl<W> Drop for Owner<W> {
    fn drop(&mut self) {
        self.state.end("its owner was dropped");
        for (_, pending) in self.pending.drain() {
            let _ = pending.reply.send(Err(Error::Gone("its owner was dropped".to_owned()))); // nobody waits
        }
    }
}

/// What is sent as parameters.
pub(crate) fn raw(params: &impl serde::Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(params).unwrap_or_else(|_| RawValue::NULL.to_owned()) // maps with keys that are no strings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_that_does_not_read_is_given_up_at_its_bound() {
        let (ours, theirs) = tokio::io::duplex(64); // nobody reads the other end
        let (reader, writer) = tokio::io::split(ours);
        let setup = Setup {
            root_uri: "file:///w".to_owned(),
            name: "w".to_owned(),
            initialization_options: Value::Null,
            settings: Value::Null,
            process_id: 1,
        };
        let second = Duration::from_secs(1);
        let limits = Limits {
            message_max_bytes: 1_000,
            outgoing_max_bytes: 10_000,
            requests_max: 4,
            files_max: 4,
            diagnostics_max: 4,
            log_max_lines: 4,
            log_line_max_bytes: 100,
            start_timeout: second,
        };
        let (client, _asks, connection) = start(reader, writer, setup, limits);
        let say = async {
            let params = json!({"text": "x".repeat(1_000)});
            let mut told = 0;
            while client.notify("textDocument/didChange", &params).await.is_ok() {
                told += 1;
                tokio::task::yield_now().await;
            }
            told
        };
        let (told, ()) = tokio::join!(say, connection);
        assert!((9..=9 + COMMANDS_MAX).contains(&told), "{told}");
        assert!(client.is_gone().is_some_and(|why| why.contains("doesn't read")));
        drop(theirs);
    }
}
