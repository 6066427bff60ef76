//! Asking the program that owns a selection for its content (ICCCM 2.0 §2.4, §2.7.2).
//!
//! Each question has a window of its own, so that a late answer to one isn't taken for the answer to another. A fetch goes on
//! when nobody waits for it any more, until its own time is over: a program that writes to a window that is gone may end of it.

use std::time::Instant;

use x11rb::protocol::xproto::{Atom, AtomEnum, ConnectionExt as _, PropertyNotifyEvent, SelectionNotifyEvent, Timestamp, Window};

use super::offer::{Item, encoding};
use super::task::Task;
use super::{Content, Deadline, KEPT_BYTES, Reply};
use crate::{Error, Result};

/// Callers that wait for one content.
const MAX_WAITERS: usize = 64;

/// What somebody waits for.
pub(super) enum Want {
    Text(Reply<Option<Content>>),
    Target(Atom, Reply<Option<Content>>),
    Targets(Reply<Vec<String>>),
}

/// Somebody who waits for what another program owns.
pub(super) struct Waiter {
    pub board: usize,
    pub deadline: Deadline,
    /// How many of the targets that would do were refused.
    pub refused: usize,
    pub want: Want,
}

impl Waiter {
    pub fn new(board: usize, deadline: Deadline, want: Want) -> Self {
        Self { board, deadline, refused: 0, want }
    }

    pub fn at(&self) -> Instant {
        self.deadline.at
    }

    pub fn is_late(&self, now: Instant) -> bool {
        self.deadline.at <= now
    }

    pub fn fail(self, error: Error) {
        match self.want {
            Want::Text(reply) | Want::Target(_, reply) => reply(Err(error)),
            Want::Targets(reply) => reply(Err(error)),
        }
    }

    pub fn miss(self) {
        let missed = self.deadline.missed();
        self.fail(missed);
    }

    /// There is nothing.
    pub fn none(self) {
        match self.want {
            Want::Text(reply) | Want::Target(_, reply) => reply(Ok(None)),
            Want::Targets(reply) => reply(Ok(Vec::new())),
        }
    }
}

/// One question to one owner.
pub(super) struct Fetch {
    window: Window,
    pub board: usize,
    /// Its owner is still the owner.
    pub is_current: bool,
    pub target: Atom,
    pub waiters: Vec<Waiter>,
    /// Bytes that are taken of it.
    pub limit: usize,
    until: Instant,
    phase: Phase,
}

enum Phase {
    Asked,
    /// Pieces come. `None` once they are more than may be kept: the rest is taken and dropped.
    Pieces {
        kind: Atom,
        bytes: Option<Vec<u8>>,
    },
}

/// How a fetch ended.
pub(super) enum Outcome {
    Content(Item),
    TooLarge,
    Refused,
    TooSlow,
}

impl Fetch {
    pub fn deadlines(&self) -> impl Iterator<Item = Instant> {
        self.waiters.iter().map(Waiter::at).chain([self.until])
    }

    fn is_dropping(&self) -> bool {
        matches!(self.phase, Phase::Pieces { bytes: None, .. })
    }
}

impl Task {
    /// Asks the owner, or joins a question that was asked already. Whether there was room for that.
    pub fn fetch(&mut self, board: usize, target: Atom, time: Timestamp, waiter: Option<Waiter>) -> Result<bool> {
        let is_same = |fetch: &&mut Fetch| fetch.board == board && fetch.target == target && fetch.is_current;
        let all = self.limits.content_bytes;
        let too_large = self.too_large();
        if let Some(fetch) = self.fetches.iter_mut().find(is_same) {
            match waiter {
                Some(waiter) if fetch.waiters.len() >= MAX_WAITERS => waiter.fail(too_many()),
                Some(waiter) if fetch.is_dropping() && fetch.limit >= all => waiter.fail(too_large),
                Some(waiter) => {
                    // More than can be kept may still be given: it is asked again when this has ended, since some owners
                    // do one transfer at a time and forget who asks meanwhile.
                    fetch.limit = if fetch.is_dropping() { fetch.limit } else { all };
                    fetch.waiters.push(waiter);
                }
                None => {}
            }
            return Ok(true);
        }
        if self.fetches.len() >= self.limits.transfers {
            if let Some(waiter) = waiter {
                waiter.fail(too_many());
            }
            return Ok(false);
        }
        let window = self.idle.pop().map_or_else(|| self.new_window(), Ok)?;
        self.conn.convert_selection(window, self.boards[board].atom, target, self.atoms.TRANSFER, time)?;
        let until = Instant::now() + self.limits.transfer_time;
        let limit = if waiter.is_some() { self.limits.content_bytes } else { KEPT_BYTES.min(self.limits.content_bytes) };
        let waiters = waiter.into_iter().collect();
        self.fetches.push(Fetch { window, board, is_current: true, target, waiters, limit, until, phase: Phase::Asked });
        Ok(true)
    }

    /// The owner has answered.
    pub fn answered(&mut self, notify: &SelectionNotifyEvent) -> Result<()> {
        let is_this = |fetch: &Fetch| fetch.window == notify.requestor && fetch.target == notify.target;
        let Some(place) = self.fetches.iter().position(is_this) else { return Ok(()) };
        if notify.property == x11rb::NONE {
            return self.end(place, Outcome::Refused);
        }
        let (window, property) = (notify.requestor, notify.property);
        let reply =
            self.conn.get_property(false, window, property, AtomEnum::ANY, 0, units(0, self.fetches[place].limit))?.reply()?;
        self.conn.delete_property(window, property)?;
        if reply.type_ == self.atoms.INCR {
            self.fetches[place].phase = Phase::Pieces { kind: x11rb::NONE, bytes: Some(Vec::new()) };
            return Ok(());
        }
        let is_too_large = reply.bytes_after > 0 || reply.value.len() > self.fetches[place].limit;
        let target = self.fetches[place].target;
        self.end(
            place,
            match is_too_large {
                true => Outcome::TooLarge,
                // The owner says that it wrote a property, and there is none.
                false if reply.type_ == x11rb::NONE => Outcome::Refused,
                false => Outcome::Content(Item { target, kind: reply.type_, bytes: reply.value.into() }),
            },
        )
    }

    /// A property of one of our windows is new: the next piece, if pieces are what we wait for.
    pub fn more_came(&mut self, notify: &PropertyNotifyEvent) -> Result<()> {
        let Some(place) = self.fetches.iter().position(|fetch| fetch.window == notify.window) else { return Ok(()) };
        let Phase::Pieces { bytes, .. } = &self.fetches[place].phase else { return Ok(()) };
        let limit = self.fetches[place].limit;
        let units = units(bytes.as_ref().map_or(limit, Vec::len), limit);
        let reply = self.conn.get_property(false, notify.window, notify.atom, AtomEnum::ANY, 0, units)?.reply()?;
        if reply.type_ == x11rb::NONE {
            return Ok(()); // was taken with the piece before
        }
        self.conn.delete_property(notify.window, notify.atom)?;
        let fetch = &mut self.fetches[place];
        let Phase::Pieces { kind, bytes } = &mut fetch.phase else { return Ok(()) };
        *kind = reply.type_;
        let is_last = reply.value.is_empty() && reply.bytes_after == 0;
        if is_last {
            let (target, kind) = (fetch.target, *kind);
            let outcome = match bytes.take() {
                Some(bytes) => Outcome::Content(Item { target, kind, bytes: bytes.into() }),
                None => Outcome::TooLarge,
            };
            return self.end(place, outcome);
        }
        match bytes {
            Some(so_far) if reply.bytes_after == 0 && so_far.len() + reply.value.len() <= limit => {
                so_far.extend_from_slice(&reply.value);
            }
            _ => {
                *bytes = None;
                let waiters = std::mem::take(&mut fetch.waiters);
                let error = self.too_large();
                waiters.into_iter().for_each(|waiter| waiter.fail(error.clone()));
            }
        }
        Ok(())
    }

    fn end(&mut self, place: usize, outcome: Outcome) -> Result<()> {
        let fetch = self.fetches.swap_remove(place);
        match outcome {
            // Its owner may still write to it: not to be used again.
            Outcome::TooSlow => drop(self.conn.destroy_window(fetch.window)?),
            _ => self.idle.push(fetch.window),
        }
        self.fetched(fetch, outcome)
    }

    /// Tells those who waited long enough, and ends what takes too long.
    pub fn expire(&mut self, now: Instant) -> Result<()> {
        let mut late = Vec::new();
        for fetch in &mut self.fetches {
            late.extend(fetch.waiters.extract_if(.., |waiter| waiter.is_late(now)));
        }
        for board in &mut self.boards {
            late.extend(board.late(now));
        }
        late.into_iter().try_for_each(|waiter| self.give_kept(waiter))?;
        while let Some(place) = self.fetches.iter().position(|fetch| fetch.until <= now) {
            self.end(place, Outcome::TooSlow)?;
        }
        self.expire_outgoing(now)
    }

    /// What a caller gets of an item.
    pub fn content(&self, item: &Item) -> Result<Content> {
        let target = self.name(item.target)?;
        let encoding = encoding(item, &target, &self.atoms);
        Ok(Content { target, bytes: item.bytes.clone(), encoding })
    }
}

/// What fits beside `has` bytes and one unit more, so that too much is seen.
fn units(has: usize, limit: usize) -> u32 {
    u32::try_from(limit.saturating_sub(has) / 4 + 1).unwrap_or(u32::MAX)
}

pub(super) fn too_many() -> Error {
    Error::Refused("too many transfers of selections are under way".into())
}
