//! The thread: it waits for the X server and for calls, whichever comes first, and never for another program.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use x11rb::connection::{Connection, RequestConnection};
use x11rb::protocol::Event;
use x11rb::protocol::xfixes::{self, ConnectionExt as _};
use x11rb::protocol::xproto::{
    self, Atom, ConnectionExt as _, CreateWindowAux, EventMask, PropMode, Timestamp, Window, WindowClass,
};
use x11rb::rust_connection::RustConnection;
use x11rb::wrapper::ConnectionExt as _;

use super::fetch::{Fetch, Waiter, Want};
use super::offer::Offer;
use super::owners::Board;
use super::serve::Outgoing;
use super::{Changes, Content, Deadline, Limits, OnChange, Reply, Selection, Target};
use crate::{Error, Result};

x11rb::atom_manager! {
    /// Names of targets and types: ICCCM 2.0 §2.6, and MIME types as programs use them.
    pub(super) Atoms: AtomsCookie {
        ATOM_PAIR,
        CLIPBOARD,
        COMPOUND_TEXT,
        INCR,
        MULTIPLE,
        TARGETS,
        TEXT,
        TIMESTAMP,
        UTF8_STRING,
        TEXT_PLAIN: b"text/plain",
        TEXT_UTF8: b"text/plain;charset=utf-8",
        TEXT_UTF8_UPPER: b"text/plain;charset=UTF-8",
        TEXT_HTML: b"text/html",
        URI_LIST: b"text/uri-list",
        FILES_COPIED: b"x-special/gnome-copied-files",
        IMAGE_PNG: b"image/png",
        SECRET: b"x-kde-passwordManagerHint",
        TRANSFER: b"SANDBOXD_TRANSFER",
        STAMP: b"SANDBOXD_STAMP",
    }
}

/// Events that are handled before calls are looked at again.
const EVENTS_AT_ONCE: usize = 256;

/// What callers ask.
#[allow(missing_docs)]
pub(super) enum Command {
    Set { selections: Vec<Selection>, content: Vec<(String, Vec<u8>)>, reply: Reply<()> },
    Get { selection: Selection, target: Target, deadline: Deadline, reply: Reply<Option<Content>> },
    Targets { selection: Selection, deadline: Deadline, reply: Reply<Vec<String>> },
}

/// All that the thread has.
pub(super) struct Task {
    pub conn: RustConnection,
    pub root: Window,
    /// Owns selections, and gets a property changed to know the time.
    pub window: Window,
    pub atoms: Atoms,
    pub limits: Limits,
    pub boards: [Board; 2],
    pub fetches: Vec<Fetch>,
    /// Windows of fetches that ended as they should, to be used again.
    pub idle: Vec<Window>,
    pub outgoing: Vec<Outgoing>,
    /// Events that came while the time was asked for.
    backlog: VecDeque<Event>,
    inbox: Receiver<Command>,
    wake: Arc<OwnedFd>,
    changes: Changes,
    on_change: OnChange,
}

/// What the thread does next.
enum Next {
    Wait,
    GoOn,
    End,
}

impl Task {
    pub fn open(
        display: Option<&str>,
        limits: Limits,
        inbox: Receiver<Command>,
        wake: Arc<OwnedFd>,
        changes: Changes,
        on_change: OnChange,
    ) -> Result<Self> {
        let (conn, screen) = x11rb::connect(display)?;
        conn.extension_information(xfixes::X11_EXTENSION_NAME)?.ok_or(Error::Missing(xfixes::X11_EXTENSION_NAME))?;
        conn.xfixes_query_version(5, 0)?.reply()?;
        let root = conn.setup().roots[screen].root;
        let atoms = Atoms::new(&conn)?.reply()?;
        let boards = [Board::new(Selection::Clipboard, atoms.CLIPBOARD), Board::new(Selection::Primary, PRIMARY)];
        let (fetches, idle, outgoing, backlog) = Default::default();
        let mut task = Self {
            window: 0,
            conn,
            root,
            atoms,
            limits,
            boards,
            fetches,
            idle,
            outgoing,
            backlog,
            inbox,
            wake,
            changes,
            on_change,
        };
        task.window = task.new_window()?;
        task.look_at_owners()?;
        Ok(task)
    }

    /// Until nobody can call any more, or the X server is gone. Then whoever waits is told so by its reply being dropped.
    pub fn run(mut self) {
        loop {
            match self.turn() {
                Ok(Next::Wait) => self.sleep(),
                Ok(Next::End) | Err(Error::Gone(_)) => break,
                // One request was refused: whoever wanted it has no answer, everybody else goes on.
                Ok(Next::GoOn) | Err(_) => {}
            }
        }
    }

    fn turn(&mut self) -> Result<Next> {
        loop {
            match self.inbox.try_recv() {
                Ok(command) => self.obey(command)?,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Ok(Next::End),
            }
        }
        self.expire(Instant::now())?;
        for _ in 0..EVENTS_AT_ONCE {
            // Flushing may read, so that events wait in memory and the descriptor says nothing of them.
            self.conn.flush()?;
            match self.next_event()? {
                Some(event) => self.handle(event)?,
                None => return Ok(Next::Wait),
            }
        }
        Ok(Next::GoOn)
    }

    fn next_event(&mut self) -> Result<Option<Event>> {
        match self.backlog.pop_front() {
            Some(event) => Ok(Some(event)),
            None => Ok(self.conn.poll_for_event()?),
        }
    }

    fn sleep(&self) {
        let until = self.next_deadline().map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = until.and_then(|left| Timespec::try_from(left).ok());
        let mut fds = [
            PollFd::from_borrowed_fd(self.conn.stream().as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN),
        ];
        // An interrupted wait is a short one; a connection that ended is found by the next turn.
        let _ = poll(&mut fds, timeout.as_ref());
        let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
    }

    fn obey(&mut self, command: Command) -> Result<()> {
        match command {
            Command::Set { selections, content, reply } => {
                let done = self.set(&selections, content);
                answer(done, reply)
            }
            Command::Get { selection, target, deadline, reply } => {
                let want = match target {
                    Target::Text => Want::Text(reply),
                    // A name that the server has never heard, nobody offers.
                    Target::Named(name) => match self.conn.intern_atom(true, name.as_bytes())?.reply()?.atom {
                        x11rb::NONE => {
                            reply(Ok(None));
                            return Ok(());
                        }
                        atom => Want::Target(atom, reply),
                    },
                };
                self.route(Waiter::new(selection.index(), deadline, want))
            }
            Command::Targets { selection, deadline, reply } => {
                self.route(Waiter::new(selection.index(), deadline, Want::Targets(reply)))
            }
        }
    }

    fn set(&mut self, selections: &[Selection], content: Vec<(String, Vec<u8>)>) -> Result<()> {
        let bytes: usize = content.iter().map(|(_, bytes)| bytes.len()).sum();
        if bytes > self.limits.content_bytes {
            return Err(self.too_large());
        }
        let mut given = Vec::with_capacity(content.len());
        for (name, bytes) in content {
            given.push((self.conn.intern_atom(false, name.as_bytes())?.reply()?.atom, bytes));
        }
        let offer = Offer::new(given, &self.atoms);
        selections.iter().try_for_each(|selection| self.own(selection.index(), offer.clone()))
    }

    pub fn too_large(&self) -> Error {
        Error::TooLarge { what: "the content of a selection", limit_bytes: self.limits.content_bytes }
    }

    fn handle(&mut self, event: Event) -> Result<()> {
        match event {
            Event::SelectionRequest(request) => self.serve(&request),
            Event::SelectionNotify(notify) => self.answered(&notify),
            Event::XfixesSelectionNotify(notify) => self.owner_changed(&notify),
            Event::PropertyNotify(notify) if notify.state == xproto::Property::NEW_VALUE => self.more_came(&notify),
            Event::PropertyNotify(notify) => self.send_more(notify.window, notify.atom),
            Event::DestroyNotify(notify) => {
                self.outgoing.retain(|outgoing| outgoing.requestor != notify.window);
                Ok(())
            }
            _ => Ok(()), // errors, too: of windows of programs that just ended
        }
    }

    /// The server's time, which a selection is owned and asked for with (ICCCM 2.0 §2.1). Waits for the server only.
    pub fn now(&mut self) -> Result<Timestamp> {
        let (window, stamp) = (self.window, self.atoms.STAMP);
        self.conn.change_property8(PropMode::APPEND, window, stamp, self.atoms.TEXT, &[])?;
        self.conn.flush()?;
        loop {
            match self.conn.wait_for_event()? {
                Event::PropertyNotify(notify) if notify.window == window && notify.atom == stamp => return Ok(notify.time),
                event => self.backlog.push_back(event),
            }
        }
    }

    /// A window that others put properties on.
    pub fn new_window(&self) -> Result<Window> {
        let window = self.conn.generate_id()?;
        let aux = CreateWindowAux::new().override_redirect(1).event_mask(EventMask::PROPERTY_CHANGE);
        self.conn.create_window(0, window, self.root, -1, -1, 1, 1, 0, WindowClass::INPUT_ONLY, 0, &aux)?;
        Ok(window)
    }

    /// The selection has other content.
    pub fn changed(&self, board: usize) {
        let count = self.changes[board].fetch_add(1, Ordering::AcqRel) + 1;
        (self.on_change)(self.boards[board].selection, count);
    }

    pub fn name(&self, atom: Atom) -> Result<String> {
        let reply = self.conn.get_atom_name(atom)?.reply()?;
        Ok(String::from_utf8_lossy(&reply.name).into_owned())
    }

    fn next_deadline(&self) -> Option<Instant> {
        let fetches = self.fetches.iter().flat_map(Fetch::deadlines);
        let waiting = self.boards.iter().flat_map(Board::deadlines);
        fetches.chain(waiting).chain(self.outgoing.iter().map(|outgoing| outgoing.until)).min()
    }
}

/// `PRIMARY`: an atom that every server has from the start (X11 protocol, appendix B).
const PRIMARY: Atom = 1;

/// What only concerns the caller goes to the caller; what ends the connection ends the thread.
fn answer<T>(result: Result<T>, reply: Reply<T>) -> Result<()> {
    let gone = match &result {
        Err(error @ Error::Gone(_)) => Err(error.clone()),
        _ => Ok(()),
    };
    reply(result);
    gone
}
