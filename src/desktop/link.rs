//! The one connection to the X server: a thread owns it, tasks ask it.
//!
//! A thread and not a task, because a server that hangs would hold up a thread of the runtime. What is asked waits in a bounded
//! queue; the answer is waited for as long as `desktop_call_timeout_ms`.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tokio::sync::{oneshot, watch};
use x_desktop::{Display, Happened};

use super::Error;

/// Changes are told no more often: whoever draws without pause doesn't keep the thread busy.
const TOLD_EVERY: Duration = Duration::from_millis(8);

type Work = Box<dyn FnOnce(&mut Display) + Send>;

/// How often each has happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Something may look different. Counts only while a [`Watcher`] is there.
    pub(super) changes: u64,
    /// Windows came, went or were activated.
    pub(super) windows: u64,
    /// The screen got another size.
    pub(super) resizes: u64,
    /// The pointer got another picture.
    pub(super) cursors: u64,
}

/// A cheap handle on the thread; it ends with the last one.
#[derive(Clone)]
pub(super) struct Link {
    inner: Arc<Inner>,
}

struct Inner {
    queue: SyncSender<Work>,
    wake: Arc<OwnedFd>,
    seen: watch::Receiver<Seen>,
    watchers: Arc<AtomicUsize>,
    timeout: Duration,
}

impl Drop for Inner {
    fn drop(&mut self) {
        ring(&self.wake); // the thread finds its queue closed
    }
}

/// Hears of changes as long as it is held.
pub(super) struct Watcher {
    seen: watch::Receiver<Seen>,
    watchers: Arc<AtomicUsize>,
}

impl Watcher {
    /// What has happened so far; from now on `changed` waits for more.
    pub(super) fn now(&mut self) -> Seen {
        *self.seen.borrow_and_update()
    }

    /// Resolves when something happened since the last look. False when the connection is gone. Cancel safe.
    pub(super) async fn changed(&mut self) -> bool {
        self.seen.changed().await.is_ok()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Link {
    /// Has a thread own this connection. What is asked has `timeout`, and `queue_max` wait at most.
    ///
    /// # Errors
    /// No thread or descriptor can be had.
    pub(super) fn start(display: Display, timeout: Duration, queue_max: usize) -> io::Result<Self> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (queue, asked) = sync_channel(queue_max);
        let (tell, seen) = watch::channel(Seen::default());
        let watchers = Arc::new(AtomicUsize::new(0));
        let thread = Thread { display, asked, wake: Arc::clone(&wake), tell, watchers: Arc::clone(&watchers), is_armed: true };
        std::thread::Builder::new().name("desktop-x11".to_owned()).spawn(move || thread.run())?;
        Ok(Self { inner: Arc::new(Inner { queue, wake, seen, watchers, timeout }) })
    }

    /// Has the thread do this. What was asked and not begun isn't done once the future is dropped.
    ///
    /// # Errors
    /// [`Error::TimedOut`]; [`Error::Failed`] when the connection is gone; what `work` says, as `failed` words it.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        what: &'static str,
        failed: fn(String) -> Error,
        work: impl FnOnce(&mut Display) -> x_desktop::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let work: Work = Box::new(move |display| {
            if !reply.is_closed() {
                let _ = reply.send(work(display)); // nobody waits any more
            }
        });
        self.inner.queue.try_send(work).map_err(|error| match error {
            TrySendError::Full(_) => Error::Changing("busy"),
            TrySendError::Disconnected(_) => Error::gone(),
        })?;
        ring(&self.inner.wake);
        let timeout = self.inner.timeout;
        let timed_out = |_| Error::TimedOut { what, timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX) };
        let answer = tokio::time::timeout(timeout, answer).await.map_err(timed_out)?;
        answer.map_err(|_| Error::gone())?.map_err(|error| Error::of_x(error, failed))
    }

    /// Hears of what happens on the screen.
    pub(super) fn watch(&self) -> Watcher {
        let inner = &self.inner;
        inner.watchers.fetch_add(1, Ordering::Relaxed);
        ring(&inner.wake); // it tells of changes from now on
        Watcher { seen: inner.seen.clone(), watchers: Arc::clone(&inner.watchers) }
    }

    /// Resolves when the connection is gone. Cancel safe.
    pub(super) async fn gone(&self) {
        let mut seen = self.inner.seen.clone();
        while seen.changed().await.is_ok() {}
    }
}

fn ring(wake: &OwnedFd) {
    let _ = rustix::io::write(wake, &1_u64.to_ne_bytes()); // full: it is awake
}

struct Thread {
    display: Display,
    asked: Receiver<Work>,
    wake: Arc<OwnedFd>,
    tell: watch::Sender<Seen>,
    watchers: Arc<AtomicUsize>,
    /// The next change will be told by the server.
    is_armed: bool,
}

impl Thread {
    fn run(mut self) {
        let (mut seen, mut told_at) = (Seen::default(), Instant::now());
        let why = loop {
            if let Err(why) = self.wait(told_at) {
                break why;
            }
            let mut number = [0; 8];
            let _ = rustix::io::read(&*self.wake, &mut number); // not rung: something else woke us
            loop {
                match self.asked.try_recv() {
                    Ok(work) => work(&mut self.display),
                    Err(std::sync::mpsc::TryRecvError::Empty) => break,
                    Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
                }
            }
            match self.look(&mut seen, &mut told_at) {
                Ok(()) => {}
                Err(why) => break why.to_string(),
            }
        };
        tracing::info!(why, "the connection to the X server is gone");
    }

    /// Until there is something to do.
    fn wait(&self, told_at: Instant) -> Result<(), String> {
        let is_waiting = !self.is_armed && self.watchers.load(Ordering::Relaxed) > 0;
        let left = TOLD_EVERY.saturating_sub(told_at.elapsed());
        let timeout = is_waiting.then(|| Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) });
        let (socket, wake) = (self.display.fd(), self.wake.as_fd());
        let mut fds = [PollFd::new(&socket, PollFlags::IN), PollFd::new(&wake, PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.to_string()),
        }
    }

    fn look(&mut self, seen: &mut Seen, told_at: &mut Instant) -> x_desktop::Result<()> {
        let before = *seen;
        if !self.is_armed && self.watchers.load(Ordering::Relaxed) > 0 && told_at.elapsed() >= TOLD_EVERY {
            self.display.rearm()?;
            (self.is_armed, *told_at) = (true, Instant::now());
            seen.changes += 1;
        }
        // Last: whatever is sent may bring events into memory, of which the descriptor says nothing.
        let Happened { damaged, windows, resized, cursor, .. } = self.display.pump()?;
        self.is_armed &= !damaged;
        seen.windows += u64::from(windows);
        seen.resizes += u64::from(resized);
        seen.cursors += u64::from(cursor);
        if *seen != before {
            self.tell.send_replace(*seen);
        }
        Ok(())
    }
}
