//! What waits to be committed.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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
/// How long an event that nobody flushes waits, once or twice, for company in a transaction.
const TICK: Duration = Duration::from_millis(2);
/// So many of those that may be later are committed at once.
const LATER_SLICE: usize = 512;
/// How long events wait that may be later, when nobody wants them sooner.
const LATER_MAX: Duration = Duration::from_millis(4);
/// After so many ticks without traffic the writer's thread sleeps.
const IDLE_TICKS_MAX: u32 = 50;

pub(super) struct Append {
    pub(super) stream: Arc<Stream>,
    pub(super) kind: &'static str,
    pub(super) payload: Bytes,
    pub(super) change: Option<RowChange>,
    /// How far its source is read with it.
    pub(super) read_to: Option<u64>,
    pub(super) ack: Option<oneshot::Sender<u64>>,
    /// It is committed together with the next one in the queue, or neither is.
    pub(super) is_joined: bool,
}

pub(super) enum Command {
    Append(Append),
    Change { change: RowChange, reply: oneshot::Sender<Result<(), Error>> },
    Open { names: Vec<String>, reply: oneshot::Sender<Result<Vec<Arc<Stream>>, Error>> },
    Make { name: String, stream: Arc<Stream> },
    Close { reply: oneshot::Sender<()> },
}

impl Command {
    fn is_joined(&self) -> bool {
        matches!(self, Self::Append(append) if append.is_joined)
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Append(append) => append_bytes(append),
            _ => COMMAND_OVERHEAD_BYTES,
        }
    }
}

fn append_bytes(append: &Append) -> u64 {
    append.payload.len() as u64 + COMMAND_OVERHEAD_BYTES
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
    /// Events that are committed after all of those; in order among themselves.
    later: VecDeque<Command>,
    /// When the first of them came.
    later_since: Option<Instant>,
    /// Somebody follows what they are about.
    later_wanted: bool,
    bytes: u64,
    closed: bool,
    /// The writer's thread shall take what is here.
    wanted: bool,
    /// The writer's thread looks at the queue every [`TICK`] by itself.
    ticking: bool,
    /// Commands taken so far.
    taken: u64,
    /// What may be later stays, for tests of what a SIGKILL leaves.
    #[cfg(test)]
    holds_later: bool,
}

impl Waiting {
    /// After closing, they are dropped.
    fn put(&mut self, commands: impl IntoIterator<Item = Command>, to: fn(&mut Self) -> &mut VecDeque<Command>) {
        if self.closed {
            return;
        }
        let before = to(self).len();
        to(self).extend(commands);
        self.bytes += to(self).range(before..).map(Command::bytes).sum::<u64>();
    }

    fn is_empty(&self) -> bool {
        self.commands.is_empty() && self.later.is_empty()
    }

    fn is_late(&self) -> bool {
        !self.later.is_empty() && self.later_since.is_some_and(|since| since.elapsed() >= LATER_MAX)
    }

    fn later_taken(&mut self) {
        if self.later.is_empty() {
            (self.later_since, self.later_wanted) = (None, false);
        }
    }

    #[cfg(not(test))]
    fn may_take_later(&self) -> bool {
        true
    }

    #[cfg(test)]
    fn may_take_later(&self) -> bool {
        !self.holds_later
    }

    /// What was later is so no more.
    fn promote(&mut self) {
        let later = std::mem::take(&mut self.later);
        self.commands.extend(later);
        (self.later_since, self.later_wanted) = (None, false);
    }
}

impl Queue {
    pub(super) fn new(max_bytes: u64) -> Self {
        Self { waiting: Mutex::default(), filled: Condvar::new(), drained: Notify::new(), max_bytes }
    }

    /// After closing, a command is dropped, which its sender sees as a closed reply.
    pub(super) fn push(&self, command: Command) {
        self.put_in_order(command);
        self.wake();
    }

    /// Leaves the command in the queue: whoever commits next takes it, the writer's thread within two ticks.
    pub(super) fn put(&self, command: Command) {
        let mut waiting = self.lock();
        waiting.put([command], |waiting| &mut waiting.commands);
        self.tick(&mut waiting);
    }

    /// Waking a thread costs more than all the rest of a commit: a thread that ticks already isn't woken.
    fn tick(&self, waiting: &mut Waiting) {
        if !waiting.closed && !std::mem::replace(&mut waiting.ticking, true) {
            self.filled.notify_one();
        }
    }

    /// The same, after what was put to be later: that is later no more.
    pub(super) fn put_in_order(&self, command: Command) {
        self.put_all_in_order([command]);
    }

    /// The same of several at once: with [`Append::is_joined`], nobody takes them apart.
    pub(super) fn put_all_in_order(&self, commands: impl IntoIterator<Item = Command>) {
        let mut waiting = self.lock();
        waiting.promote();
        waiting.put(commands, |waiting| &mut waiting.commands);
        self.tick(&mut waiting);
    }

    /// What was put to be later is so no more.
    pub(super) fn promote(&self) {
        self.lock().promote();
    }

    /// The same for what may be committed after everything that is put. With `wanted`, somebody waits for it all the same.
    pub(super) fn put_later(&self, appends: impl IntoIterator<Item = Append>, wanted: bool) {
        let mut waiting = self.lock();
        waiting.put(appends.into_iter().map(Command::Append), |waiting| &mut waiting.later);
        waiting.later_since.get_or_insert_with(Instant::now);
        waiting.later_wanted |= wanted;
        self.tick(&mut waiting);
    }

    /// From here on what may be later stays in the queue until it is promoted.
    #[cfg(test)]
    pub(super) fn hold_later(&self) {
        self.lock().holds_later = true;
    }

    /// As a SIGKILL would: of what may be later the first `kept` are committed, and nothing else any more.
    #[cfg(test)]
    pub(super) fn cut_later(&self, kept: usize) {
        let mut waiting = self.lock();
        waiting.later.truncate(kept);
        waiting.bytes = waiting.commands.iter().chain(&waiting.later).map(Command::bytes).sum();
        waiting.promote();
        waiting.holds_later = false;
    }

    #[cfg(test)]
    pub(super) fn held_later(&self) -> usize {
        self.lock().later.len()
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
        self.lock().is_empty()
    }

    /// True when something waits that shouldn't.
    pub(super) fn wants(&self) -> bool {
        let waiting = self.lock();
        !waiting.commands.is_empty() || waiting.later_wanted
    }

    pub(super) fn has_room(&self) -> bool {
        self.lock().bytes < self.max_bytes
    }

    /// Blocks the writer's thread until there is something for it: it was woken, or something that nobody else took
    /// lies there since the last tick, or `until` is reached. It ticks while there is traffic, and sleeps when there is
    /// none.
    pub(super) fn wait(&self, until: Option<Instant>) {
        let mut waiting = self.lock();
        let mut idle_ticks = 0;
        let mut seen_taken = None;
        while !waiting.wanted {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                break;
            }
            if !waiting.ticking {
                let asleep = left.unwrap_or(Duration::MAX);
                waiting = self.filled.wait_timeout(waiting, asleep).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            let (next, ticked) = self.filled.wait_timeout(waiting, TICK).unwrap_or_else(PoisonError::into_inner);
            waiting = next;
            if !ticked.timed_out() {
                continue;
            }
            let was_there = seen_taken.replace(waiting.taken) == Some(waiting.taken);
            if waiting.is_late() || !waiting.commands.is_empty() && was_there {
                break;
            }
            idle_ticks = if was_there { idle_ticks + 1 } else { 0 };
            waiting.ticking = !waiting.is_empty() || idle_ticks < IDLE_TICKS_MAX;
        }
        waiting.wanted = false;
    }

    /// True when what comes first is a few small events and nothing else.
    pub(super) fn is_little(&self) -> bool {
        let waiting = self.lock();
        let first = if waiting.commands.is_empty() { &waiting.later } else { &waiting.commands };
        first.len() <= LITTLE_COMMANDS
            && first.iter().all(|command| matches!(command, Command::Append(_)))
            && first.iter().map(Command::bytes).sum::<u64>() <= LITTLE_BYTES
    }

    /// The oldest commands, in order. Whoever takes holds the writer, so that order stays.
    pub(super) fn take(&self, max: usize) -> Vec<Command> {
        let mut waiting = self.lock();
        let count = whole(&waiting.commands, max);
        let mut batch: Vec<_> = waiting.commands.drain(..count).collect();
        // A slice: what comes meanwhile doesn't wait for all of it. Of much, a larger one.
        let slice = LATER_SLICE.max(waiting.later.len() / 4);
        let room = if waiting.may_take_later() { whole(&waiting.later, max.saturating_sub(count).min(slice)) } else { 0 };
        batch.extend(waiting.later.drain(..room));
        waiting.later_taken();
        waiting.taken += batch.len() as u64;
        waiting.bytes -= batch.iter().map(Command::bytes).sum::<u64>();
        drop(waiting);
        self.drained.notify_waiters();
        batch
    }

    /// The oldest commands as far as they are a few small events; none when another command comes first. What may be
    /// later is taken when there is nothing else, which is said.
    pub(super) fn take_little(&self) -> (Vec<Append>, bool) {
        let mut waiting = self.lock();
        let is_later = waiting.commands.is_empty();
        if is_later && !waiting.may_take_later() {
            return (Vec::new(), is_later);
        }
        let first = if is_later { &mut waiting.later } else { &mut waiting.commands };
        let mut little: Vec<Append> = Vec::new();
        let mut bytes = 0;
        while let Some(next @ Command::Append(_)) = first.front() {
            bytes += next.bytes();
            let is_full = little.len() >= LITTLE_COMMANDS || bytes > LITTLE_BYTES;
            if is_full && !little.last().is_some_and(|last| last.is_joined) {
                break;
            }
            if let Some(Command::Append(append)) = first.pop_front() {
                little.push(append);
            }
        }
        waiting.later_taken();
        waiting.taken += little.len() as u64;
        waiting.bytes -= little.iter().map(append_bytes).sum::<u64>();
        drop(waiting);
        self.drained.notify_waiters();
        (little, is_later)
    }

    /// Puts events back where they were taken; whoever does holds the writer all the while.
    pub(super) fn put_back(&self, appends: Vec<Append>, is_later: bool) {
        let mut waiting = self.lock();
        for append in appends.into_iter().rev() {
            waiting.bytes += append_bytes(&append);
            let first = if is_later { &mut waiting.later } else { &mut waiting.commands };
            first.push_front(Command::Append(append));
        }
    }

    pub(super) fn close(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        waiting.commands.clear();
        waiting.later.clear();
        waiting.bytes = 0;
        drop(waiting);
        self.drained.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner) // each change leaves it whole
    }
}

/// How many to take from the front: `max`, and what belongs to the last one of them.
fn whole(commands: &VecDeque<Command>, max: usize) -> usize {
    let mut count = commands.len().min(max);
    while count > 0 && count < commands.len() && commands[count - 1].is_joined() {
        count += 1;
    }
    count
}

/// What comes before a request to close, and the reply to it.
pub(super) fn split_at_close(mut batch: Vec<Command>) -> (Vec<Command>, Option<oneshot::Sender<()>>) {
    let Some(at) = batch.iter().position(|command| matches!(command, Command::Close { .. })) else {
        return (batch, None);
    };
    let close = batch.drain(at..).next();
    match close {
        Some(Command::Close { reply }) => (batch, Some(reply)),
        _ => (batch, None),
    }
}
