//! The server's end: what is kept is handed over, what was kept is taken back.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, SendFlags};
use tokio::io::Interest;
use tokio::sync::{Notify, watch};

use super::behind::Behind;
use super::protocol::{Ended, FDS_MAX, Inbox, Kind, Message, UPGRADE, placed, send};
use crate::rt::{spawn_owned, sys};

/// How long descriptors wait for a keeper that doesn't read; the next ones not at all, until it does again.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often it is looked whether it does.
const CATCH_UP: Duration = Duration::from_millis(20);

/// What an earlier server left with the keeper.
#[derive(Debug)]
pub struct Kept {
    /// Its name.
    pub key: String,
    /// At the places at which they were handed over.
    pub fds: [Option<OwnedFd>; FDS_MAX],
    /// Its process; `None` when it has none, or none was told before the server died.
    pub pid: Option<u32>,
    /// How it ended, when it did.
    pub ended: Option<Ended>,
}

/// How the server before this one ended.
#[derive(Debug, Clone)]
pub struct LastRun {
    /// Its end.
    pub ended: Ended,
    /// How long it ran.
    pub uptime_ms: u64,
    /// The last of what it wrote to stderr; at most 4 KiB.
    pub stderr: String,
    /// Which process it was; `None` when it could not even be started.
    pub pid: Option<u32>,
    /// It was a newer program that never got ready; the one before was started in its place.
    pub is_upgrade: bool,
}

/// A cheap handle on the keeper. Without one, nothing is kept and all calls do nothing.
#[derive(Clone)]
pub struct Keeper {
    link: Option<Arc<Link>>,
}

struct Link {
    socket: OwnedFd,
    pid: u32,
    run_id: String,
    starts: u64,
    crashes: u64,
    program: PathBuf,
    last: Option<LastRun>,
    /// The keeper's own stderr, for when it is gone.
    stderr: Option<OwnedFd>,
    is_lost: AtomicBool,
    /// Descriptors have waited in vain, and nothing was sent since.
    is_stuck: AtomicBool,
    behind: Mutex<Behind>,
    /// Something is behind.
    fell_behind: Notify,
    /// Ends of processes that aren't our children, by key; from the first moment on, since the keeper tells each once.
    ends: Mutex<HashMap<String, watch::Sender<Option<Ended>>>>,
}

impl Keeper {
    /// Works without one.
    pub fn none() -> Self {
        Self { link: None }
    }

    /// Takes the socket that is this process's stdin, which becomes `/dev/null`, and hears what is kept. Blocks until the
    /// keeper has told everything; to be called before there are threads.
    ///
    /// # Errors
    /// stdin is no keeper's socket.
    pub fn connect() -> io::Result<(Self, Vec<Kept>)> {
        let socket = rustix::io::fcntl_dupfd_cloexec(std::io::stdin().as_fd(), 3)?;
        rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
        Self::hear(socket)
    }

    fn hear(socket: OwnedFd) -> io::Result<(Self, Vec<Kept>)> {
        send(&socket, &Message::new(Kind::Hello), &[], SendFlags::empty())?;
        let mut inbox = Inbox::new();
        let (mut kept, mut last) = (Vec::new(), None);
        let (mut pid, mut run_id, mut starts, mut stderr) = (0, String::new(), 1, None);
        let (mut crashes, mut program) = (0, PathBuf::new());
        loop {
            let received = inbox.receive(&socket, RecvFlags::empty())?;
            let (message, mut fds) = received.ok_or(io::ErrorKind::UnexpectedEof)?;
            match message.kind {
                Kind::Welcome => {
                    (pid, starts) = (message.pid.cast_unsigned(), message.number);
                    run_id = String::from_utf8_lossy(message.text).into_owned();
                    stderr = fds[0].take();
                }
                Kind::Last => {
                    let stderr = String::from_utf8_lossy(message.text).into_owned();
                    let ended = message.ended.unwrap_or(Ended::Code(-1));
                    let (pid, is_upgrade) = (some_pid(message.pid), message.key == UPGRADE);
                    last = Some(LastRun { ended, uptime_ms: message.number, stderr, pid, is_upgrade });
                }
                Kind::State => {
                    (crashes, program) = (message.number, PathBuf::from(OsStr::from_bytes(message.text)));
                }
                Kind::Kept => kept.push(Kept {
                    key: message.key.to_owned(),
                    fds: placed(fds, message.number),
                    pid: some_pid(message.pid),
                    ended: message.ended,
                }),
                Kind::End => break,
                // The process of an entry that is still to come, or has come: the entry has it, or is told it here.
                Kind::Exited => {
                    if let Some(entry) = kept.iter_mut().find(|entry| entry.key == message.key) {
                        entry.ended = message.ended;
                    }
                }
                _ => {}
            }
        }
        let running = kept.iter().filter(|entry| entry.pid.is_some() && entry.ended.is_none());
        let ends = Mutex::new(running.map(|entry| (entry.key.clone(), watch::channel(None).0)).collect());
        let (is_lost, is_stuck, behind) = (AtomicBool::new(false), AtomicBool::new(false), Mutex::default());
        let fell_behind = Notify::new();
        let link =
            Link { socket, pid, run_id, starts, crashes, program, last, stderr, is_lost, is_stuck, behind, fell_behind, ends };
        Ok((Self { link: Some(Arc::new(link)) }, kept))
    }

    /// Starts to listen to what the keeper says; once, within the runtime.
    pub fn listen(&self) {
        if let Some(link) = &self.link {
            spawn_owned("keeper", listen(Arc::clone(link)));
        }
    }

    fn there(&self) -> Option<&Arc<Link>> {
        self.link.as_ref().filter(|link| !link.is_lost.load(Ordering::Relaxed))
    }

    /// True while something outlives this process.
    pub fn is_there(&self) -> bool {
        self.there().is_some()
    }

    /// True when there was one, and it is gone.
    pub fn is_lost(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.is_lost.load(Ordering::Relaxed))
    }

    /// The keeper's pid.
    pub fn pid(&self) -> Option<u32> {
        self.link.as_ref().map(|link| link.pid)
    }

    /// Names what this keeper keeps: the same over restarts of the server.
    pub fn run_id(&self) -> Option<&str> {
        self.link.as_ref().map(|link| link.run_id.as_str())
    }

    /// How often a server was started, with this one.
    pub fn starts(&self) -> u64 {
        self.link.as_ref().map_or(1, |link| link.starts)
    }

    /// How many servers died in a row before this one, each soon after its start.
    pub fn crashes(&self) -> u64 {
        self.link.as_ref().map_or(0, |link| link.crashes)
    }

    /// The path of the program that is started as the server.
    pub fn program(&self) -> Option<&Path> {
        self.link.as_ref().map(|link| link.program.as_path())
    }

    /// How the last server died, if one did.
    pub fn last(&self) -> Option<&LastRun> {
        self.link.as_ref()?.last.as_ref()
    }

    /// Has descriptors (at most four) kept under a key of at most 64 bytes, in the place of what it had. They are safe
    /// when this returns: they lie in the keeper's queue.
    ///
    /// # Errors
    /// The keeper doesn't read, or is gone.
    pub fn keep(&self, key: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.tell(&Message { number: (1 << fds.len()) - 1, ..Message::of(Kind::Keep, key) }, fds)
    }

    /// The same, each at its place.
    ///
    /// # Errors
    /// As [`Keeper::keep`].
    pub fn keep_at(&self, key: &str, fds: [Option<BorrowedFd<'_>>; FDS_MAX]) -> io::Result<()> {
        let places = fds.iter().enumerate().filter(|(_, fd)| fd.is_some()).map(|(place, _)| 1 << place).sum();
        let fds: Vec<BorrowedFd<'_>> = fds.into_iter().flatten().collect();
        self.tell(&Message { number: places, ..Message::of(Kind::Keep, key) }, &fds)
    }

    /// The process of an entry has started.
    pub fn started(&self, key: &str, pid: u32) {
        self.say(&Message { pid: pid.cast_signed(), ..Message::of(Kind::Started, key) });
    }

    /// The same for one of an earlier server's, that it died before it told of.
    pub fn found(&self, kept: &mut Kept, pid: u32) {
        kept.pid = Some(pid);
        if let Some(link) = self.there() {
            link.ends().insert(kept.key.clone(), watch::channel(None).0); // before the keeper can tell its end
        }
        self.started(&kept.key, pid);
    }

    /// Closes one descriptor of an entry, by its place.
    pub fn close(&self, key: &str, place: usize) {
        self.say(&Message { number: place as u64, ..Message::of(Kind::Close, key) });
    }

    /// An entry isn't needed any more.
    pub fn forget(&self, key: &str) {
        if let Some(link) = &self.link {
            link.ends().remove(key);
        }
        self.say(&Message::of(Kind::Forget, key));
    }

    /// Requests are answered from now on.
    pub fn ready(&self) {
        self.say(&Message::new(Kind::Ready));
    }

    /// The next server is started from `program`, and has `time` to become ready; otherwise the present one comes back.
    ///
    /// # Errors
    /// As [`Keeper::keep`]; the path is longer than 4 KiB.
    pub fn upgrade(&self, program: &Path, time: Duration) -> io::Result<()> {
        let text = program.as_os_str().as_encoded_bytes();
        if text.len() > super::protocol::TEXT_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let number = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.tell(&Message { number, text, ..Message::new(Kind::Upgrade) }, &[])
    }

    /// The end of a process that isn't our child, whenever it was told; closed when nobody can tell it any more.
    pub fn watch(&self, kept: &Kept) -> watch::Receiver<Option<Ended>> {
        let told = self.link.as_ref().filter(|_| kept.ended.is_none());
        let told = told.and_then(|link| link.ends().get(&kept.key).map(watch::Sender::subscribe));
        told.unwrap_or_else(|| watch::channel(kept.ended).1)
    }

    /// Says something that can wait.
    fn say(&self, message: &Message<'_>) {
        let Some(link) = self.there() else { return };
        let mut behind = link.behind();
        if !behind.say(&link.socket, message) {
            tracing::warn!(kind = ?message.kind, "the keeper could not be told");
        } else if !behind.is_empty() {
            link.fell_behind.notify_one();
        }
    }

    /// What was said before comes first.
    fn tell(&self, message: &Message<'_>, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let Some(link) = self.there() else { return Ok(()) };
        let until = Instant::now() + if link.is_stuck.load(Ordering::Relaxed) { Duration::ZERO } else { PATIENCE };
        loop {
            let sent = {
                let mut behind = link.behind();
                let is_free = behind.catch_up(&link.socket);
                if is_free {
                    send(&link.socket, message, fds, SendFlags::DONTWAIT)
                } else {
                    Err(io::ErrorKind::WouldBlock.into())
                }
            };
            let is_full = sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
            link.is_stuck.store(is_full && Instant::now() >= until, Ordering::Relaxed);
            if !is_full || Instant::now() >= until {
                return sent;
            }
            std::thread::sleep(Duration::from_millis(1)); // its queue holds hundreds: it hangs
        }
    }
}

impl Link {
    fn ends(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<Option<Ended>>>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner) // a map is whole after each change
    }

    fn behind(&self) -> MutexGuard<'_, Behind> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner) // a queue, as above
    }

    /// Resolves now and then while something is behind. Cancel safe.
    async fn is_behind(&self) {
        if self.behind().is_empty() {
            self.fell_behind.notified().await;
        }
        tokio::time::sleep(CATCH_UP).await;
    }

    /// Nothing outlives us any more. Our stderr went through the keeper: now it goes where the keeper's went.
    fn lost(&self) {
        {
            let mut ends = self.ends();
            self.is_lost.store(true, Ordering::Relaxed);
            ends.clear(); // who waits looks for itself from now on
        }
        if let Some(stderr) = &self.stderr {
            let _ = rustix::stdio::dup2_stderr(stderr); // nobody to tell it to
        }
        tracing::error!("the keeper is gone: what runs goes on, but will not outlive this server any more");
    }
}

fn some_pid(pid: i32) -> Option<u32> {
    u32::try_from(pid).ok().filter(|pid| *pid > 0)
}

async fn listen(link: Arc<Link>) {
    let watched = rustix::io::fcntl_dupfd_cloexec(&link.socket, 3).map_err(io::Error::from);
    let Ok(socket) = watched.and_then(|socket| sys::watched(socket, Interest::READABLE)) else { return };
    let mut inbox = Box::new(Inbox::new());
    loop {
        let ready = tokio::select! {
            ready = socket.readable() => ready,
            () = link.is_behind() => {
                link.behind().catch_up(&link.socket);
                continue;
            }
        };
        let Ok(mut ready) = ready else { return };
        loop {
            match inbox.receive(&socket, RecvFlags::DONTWAIT) {
                Ok(Some((Message { kind: Kind::Exited, key, ended, .. }, _))) => {
                    if let Some(publish) = link.ends().get(key) {
                        publish.send_replace(ended);
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => return link.lost(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break ready.clear_ready(),
                Err(_) => return link.lost(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    #[tokio::test]
    async fn an_end_that_comes_before_anybody_asks_is_not_lost() {
        let (server, keeper) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("a pair");
        let say = |message: Message<'_>| send(&keeper, &message, &[], SendFlags::empty()).expect("sent");
        say(Message { pid: 4242, ..Message::of(Kind::Kept, "proc_1") });
        say(Message { pid: 4243, ended: Some(Ended::Code(3)), ..Message::of(Kind::Kept, "proc_2") });
        say(Message::new(Kind::End));
        let (link, kept) = Keeper::hear(server).expect("heard");
        link.listen();
        say(Message { pid: 4242, ended: Some(Ended::Code(7)), ..Message::of(Kind::Exited, "proc_1") });
        tokio::time::sleep(Duration::from_millis(50)).await; // it is heard by then
        assert_eq!(*link.watch(&kept[0]).wait_for(Option::is_some).await.expect("told"), Some(Ended::Code(7)));
        assert_eq!(*link.watch(&kept[1]).borrow(), Some(Ended::Code(3)));
        let mut never = link.watch(&Kept { key: "proc_3".into(), fds: [const { None }; FDS_MAX], pid: None, ended: None });
        assert!(never.changed().await.is_err(), "nobody tells");
    }
}
