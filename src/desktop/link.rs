//! The one connection to the X server: a thread owns it, tasks ask it.
//!
//! A thread and not a task, because a server that hangs would hold up a thread of the runtime. What is asked waits in a bounded
//! queue; the answer is waited for as long as `desktop_call_timeout_ms`. A picture that somebody still holds is given again while
//! nothing was drawn since: the stream, a recording and screenshots of a screen that rests share one.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tokio::sync::{oneshot, watch};
use x_desktop::{Display, Frame, Happened, Pointer, Rect};

use super::Error;

/// Changes are told no more often: whoever draws without pause doesn't keep the thread busy.
const TOLD_EVERY: Duration = Duration::from_millis(8);

type Work = Box<dyn FnOnce(&mut Eye) + Send>;

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
        let eye = Eye::new(display);
        let thread = Thread { eye, asked, wake: Arc::clone(&wake), tell, watchers: Arc::clone(&watchers) };
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
        self.see(what, failed, move |eye| work(&mut eye.display)).await
    }

    /// As [`Link::call`], for who wants pictures.
    ///
    /// # Errors
    /// As [`Link::call`].
    pub(super) async fn see<T: Send + 'static>(
        &self,
        what: &'static str,
        failed: fn(String) -> Error,
        work: impl FnOnce(&mut Eye) -> x_desktop::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let work: Work = Box::new(move |eye| {
            if !reply.is_closed() {
                let _ = reply.send(work(eye)); // nobody waits any more
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

/// The connection as its thread has it.
pub(super) struct Eye {
    pub(super) display: Display,
    seen: Seen,
    /// The next change will be told by the server.
    is_armed: bool,
    armed_at: Instant,
    last: Last,
}

/// The last picture of the whole screen, as long as somebody holds it.
struct Last {
    frame: Weak<Frame>,
    taken: Instant,
    changes: u64,
    /// Nothing was drawn since.
    is_current: bool,
}

/// A picture.
pub(super) struct Taken {
    /// Without the pointer.
    pub(super) frame: Arc<Frame>,
    /// If it was asked for.
    pub(super) pointer: Option<Pointer>,
    /// [`Seen::changes`] that it shows.
    pub(super) changes: u64,
}

impl Eye {
    fn new(display: Display) -> Self {
        let now = Instant::now();
        let last = Last { frame: Weak::new(), taken: now, changes: 0, is_current: false };
        Self { display, seen: Seen::default(), is_armed: true, armed_at: now, last }
    }

    /// The whole screen.
    pub(super) fn screen(&self) -> Rect {
        Rect::of_size(self.display.size())
    }

    /// A picture of `part`. One that somebody else took is as good if nothing was drawn since, or if it isn't older than `max_age`.
    pub(super) fn picture(&mut self, part: Rect, with_pointer: bool, max_age: Duration) -> x_desktop::Result<Taken> {
        let held = self.last.frame.upgrade();
        let mut pointer = None;
        if with_pointer || held.is_some() {
            // whatever was drawn before this answer is told before it
            pointer = Some(self.display.pointer()?).filter(|_| with_pointer);
            self.take_events()?;
        }
        let Last { taken, changes, is_current, .. } = self.last;
        if let Some(frame) = held.filter(|frame| frame.rect == self.screen() && (is_current || taken.elapsed() < max_age)) {
            let changes = if is_current { self.seen.changes } else { changes };
            let frame = if part == frame.rect { frame } else { Arc::new(frame.crop(part)?) };
            return Ok(Taken { frame, pointer, changes });
        }
        if !self.is_armed {
            self.arm()?;
        }
        let frame = Arc::new(self.display.capture(part)?);
        let changes = self.seen.changes;
        if part == self.screen() {
            self.last = Last { frame: Arc::downgrade(&frame), taken: Instant::now(), changes, is_current: true };
        }
        Ok(Taken { frame, pointer, changes })
    }

    /// What is drawn from now on is another change.
    fn arm(&mut self) -> x_desktop::Result<()> {
        self.display.rearm()?;
        (self.is_armed, self.armed_at) = (true, Instant::now());
        self.seen.changes += 1;
        Ok(())
    }

    fn take_events(&mut self) -> x_desktop::Result<()> {
        let Happened { damaged, windows, resized, cursor, .. } = self.display.pump()?;
        self.is_armed &= !damaged;
        self.last.is_current &= !damaged;
        self.seen.windows += u64::from(windows);
        self.seen.resizes += u64::from(resized);
        self.seen.cursors += u64::from(cursor);
        Ok(())
    }
}

struct Thread {
    eye: Eye,
    asked: Receiver<Work>,
    wake: Arc<OwnedFd>,
    tell: watch::Sender<Seen>,
    watchers: Arc<AtomicUsize>,
}

impl Thread {
    fn run(mut self) {
        let why = loop {
            if let Err(why) = self.wait() {
                break why;
            }
            let mut number = [0; 8];
            let _ = rustix::io::read(&*self.wake, &mut number); // not rung: something else woke us
            loop {
                match self.asked.try_recv() {
                    Ok(work) => work(&mut self.eye),
                    Err(std::sync::mpsc::TryRecvError::Empty) => break,
                    Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
                }
            }
            match self.look() {
                Ok(()) => {}
                Err(why) => break why.to_string(),
            }
        };
        tracing::info!(why, "the connection to the X server is gone");
    }

    /// Somebody is to be told of a change.
    fn is_owing(&self) -> bool {
        !self.eye.is_armed && self.watchers.load(Ordering::Relaxed) > 0
    }

    /// Until there is something to do.
    fn wait(&self) -> Result<(), String> {
        let left = TOLD_EVERY.saturating_sub(self.eye.armed_at.elapsed());
        let timeout = self.is_owing().then(|| Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) });
        let (socket, wake) = (self.eye.display.fd(), self.wake.as_fd());
        let mut fds = [PollFd::new(&socket, PollFlags::IN), PollFd::new(&wake, PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.to_string()),
        }
    }

    fn look(&mut self) -> x_desktop::Result<()> {
        if self.is_owing() && self.eye.armed_at.elapsed() >= TOLD_EVERY {
            self.eye.arm()?;
        }
        // Last: whatever is sent may bring events into memory, of which the descriptor says nothing.
        self.eye.take_events()?;
        let seen = self.eye.seen;
        self.tell.send_if_modified(|told| std::mem::replace(told, seen) != seen);
        Ok(())
    }
}
