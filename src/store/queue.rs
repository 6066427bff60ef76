//! What waits to be committed.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};

use super::rows::RowChange;
use super::stream::Stream;
use super::types::Error;

/// What is committed on the spot: at most this many events,
const LITTLE_COMMANDS: usize = 32;
/// of at most this size.
const LITTLE_BYTES: u64 = 64 * 1024;
/// What one queued event costs beside its payload.
const COMMAND_OVERHEAD_BYTES: u64 = 128;
pub(super) struct Append {
    pub(super) stream: Arc<Stream>,
    pub(super) kind: &'static str,
    pub(super) payload: Bytes,
    pub(super) change: Option<RowChange>,
    pub(super) ack: Option<oneshot::Sender<u64>>,
}

pub(super) enum Command {
    Append(Append),
    Change { change: RowChange, reply: oneshot::Sender<Result<(), Error>> },
    Open { names: Vec<String>, reply: oneshot::Sender<Result<Vec<Arc<Stream>>, Error>> },
    Close { reply: oneshot::Sender<()> },
}

impl Command {
    fn bytes(&self) -> u64 {
        match self {
            Self::Append(append) => append.payload.len() as u64 + COMMAND_OVERHEAD_BYTES,
            _ => COMMAND_OVERHEAD_BYTES,
        }
    }
}

/// What waits for the disk. Pushing never blocks: whoever produces without end awaits [`Queue::room`] before it reads
/// on, so the queue overshoots its bound by one chunk per producer at most.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    filled: Condvar,
    drained: Notify,
    max_bytes: u64,
}

#[derive(Default)]
struct Waiting {
    commands: VecDeque<Command>,
    bytes: u64,
    closed: bool,
    /// The writer's thread shall take what is here.
    wanted: bool,
}

impl Queue {
    pub(super) fn new(max_bytes: u64) -> Self {
        Self { waiting: Mutex::default(), filled: Condvar::new(), drained: Notify::new(), max_bytes }
    }

    /// After closing, a command is dropped, which its sender sees as a closed reply.
    pub(super) fn push(&self, command: Command) {
        self.put(command);
        self.wake();
    }

    /// Leaves the command in the queue; [`Queue::wake`] or a take must follow.
    pub(super) fn put(&self, command: Command) {
        let mut waiting = self.lock();
        if !waiting.closed {
            waiting.bytes += command.bytes();
            waiting.commands.push_back(command);
        }
    }

    /// Has the writer's thread look into the queue.
    pub(super) fn wake(&self) {
        self.lock().wanted = true;
        self.filled.notify_one();
    }

    pub(super) async fn room(&self) {
        loop {
            let drained = self.drained.notified(); // made before the look, so that no wake is lost in between
            if self.has_room() {
                return;
            }
            drained.await;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().commands.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.lock().bytes < self.max_bytes
    }

    /// Blocks until [`Queue::wake`] was called since the last time.
    pub(super) fn wait(&self) {
        let mut waiting = self.lock();
        while !waiting.wanted {
            waiting = self.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        waiting.wanted = false;
    }

    /// True when it holds a few small events and nothing else.
    pub(super) fn is_little(&self) -> bool {
        let waiting = self.lock();
        waiting.commands.len() <= LITTLE_COMMANDS
            && waiting.bytes <= LITTLE_BYTES
            && waiting.commands.iter().all(|command| matches!(command, Command::Append(_)))
    }

    /// The oldest commands, in order. Whoever takes holds the writer, so that order stays.
    pub(super) fn take(&self, max: usize) -> Vec<Command> {
        let mut waiting = self.lock();
        let count = waiting.commands.len().min(max);
        let batch: Vec<_> = waiting.commands.drain(..count).collect();
        waiting.bytes -= batch.iter().map(Command::bytes).sum::<u64>();
        drop(waiting);
        self.drained.notify_waiters();
        batch
    }

    pub(super) fn close(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        waiting.commands.clear();
        waiting.bytes = 0;
        drop(waiting);
        self.drained.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner) // each change leaves it whole
    }
}
