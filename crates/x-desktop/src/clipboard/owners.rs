//! Who owns a selection, what is kept of others' content, and who gets an answer from where.

use std::collections::VecDeque;
use std::time::Instant;

use x11rb::protocol::xfixes::{ConnectionExt as _, SelectionEvent, SelectionEventMask, SelectionNotifyEvent};
use x11rb::protocol::xproto::{Atom, AtomEnum, ConnectionExt as _, Timestamp};

use super::fetch::{Fetch, Outcome, Waiter, Want, too_many};
use super::offer::{Item, Offer, STRING, text_targets};
use super::task::Task;
use super::{KEPT_BYTES, Selection};
use crate::Result;

/// Callers that wait to hear what there is.
const MAX_WAITING: usize = 64;
/// Targets of another program that are read.
const MAX_THEIR_TARGETS: usize = 1024;

/// One selection.
pub(super) struct Board {
    pub selection: Selection,
    pub atom: Atom,
    /// We own it.
    pub own: Option<Own>,
    /// Another program does.
    theirs: Option<Theirs>,
}

pub(super) struct Own {
    pub offer: Offer,
    pub since: Timestamp,
}

/// What is known of another program's content.
#[derive(Default)]
struct Theirs {
    targets: Targets,
    /// Waiting for `targets`.
    waiting: Vec<Waiter>,
    kept: Offer,
    to_keep: VecDeque<Atom>,
}

#[derive(Default)]
enum Targets {
    #[default]
    Asked,
    Known(Vec<Atom>),
    Refused,
}

impl Board {
    pub fn new(selection: Selection, atom: Atom) -> Self {
        Self { selection, atom, own: None, theirs: None }
    }

    pub fn deadlines(&self) -> impl Iterator<Item = Instant> {
        self.theirs.iter().flat_map(|theirs| theirs.waiting.iter().map(Waiter::at))
    }

    /// Takes out who waited too long.
    pub fn late(&mut self, now: Instant) -> Vec<Waiter> {
        let waiting = self.theirs.as_mut().map(|theirs| &mut theirs.waiting);
        waiting.map(|waiting| waiting.extract_if(.., |waiter| waiter.is_late(now)).collect()).unwrap_or_default()
    }
}

impl Theirs {
    /// The `index`th target that would do for `want`, if its owner has so many.
    fn candidate(&self, want: &Want, index: usize, text: &[Atom]) -> Option<Atom> {
        let is_offered = |target: &&Atom| match &self.targets {
            Targets::Known(targets) => targets.contains(target),
            // It doesn't say: the two that programs have which know little.
            Targets::Asked | Targets::Refused => **target == text[0] || **target == STRING,
        };
        match (want, &self.targets) {
            (Want::Text(_), _) => text.iter().filter(is_offered).nth(index).copied(),
            (Want::Target(target, _), Targets::Known(targets)) => {
                Some(*target).filter(|target| index == 0 && targets.contains(target))
            }
            (Want::Target(target, _), _) => Some(*target).filter(|_| index == 0),
            (Want::Targets(_), _) => None,
        }
    }
}

impl Task {
    /// At the start: hears of new owners from now on, and finds those that are there.
    pub fn look_at_owners(&mut self) -> Result<()> {
        let mask = SelectionEventMask::SET_SELECTION_OWNER
            | SelectionEventMask::SELECTION_WINDOW_DESTROY
            | SelectionEventMask::SELECTION_CLIENT_CLOSE;
        for board in 0..self.boards.len() {
            let atom = self.boards[board].atom;
            self.conn.xfixes_select_selection_input(self.window, atom, mask)?;
            if self.conn.get_selection_owner(atom)?.reply()?.owner != x11rb::NONE {
                self.is_theirs(board)?;
            }
        }
        Ok(())
    }

    /// Takes a selection; with nothing to offer, empties it.
    pub fn own(&mut self, board: usize, offer: Offer) -> Result<()> {
        let since = self.now()?;
        let owner = if offer.items.is_empty() { x11rb::NONE } else { self.window };
        self.conn.set_selection_owner(owner, self.boards[board].atom, since)?;
        let is_emptied = owner == x11rb::NONE;
        let waiting = self.forget_theirs(board);
        self.boards[board].own = (!is_emptied).then_some(Own { offer, since });
        self.changed(board);
        waiting.into_iter().try_for_each(|waiter| self.route(waiter))
    }

    /// Somebody took a selection, gave it up, or ended.
    pub fn owner_changed(&mut self, notify: &SelectionNotifyEvent) -> Result<()> {
        let Some(board) = self.boards.iter().position(|board| board.atom == notify.selection) else { return Ok(()) };
        // This may be long past: what counts is who owns it now.
        let owner = self.conn.get_selection_owner(notify.selection)?.reply()?.owner;
        let is_taken = notify.subtype == SelectionEvent::SET_SELECTION_OWNER;
        if owner == self.window {
            return Ok(());
        }
        if owner == x11rb::NONE && !is_taken {
            return self.outlive(board, notify.selection_timestamp);
        }
        if is_taken {
            self.changed(board);
            self.boards[board].own = None;
            let waiting = self.forget_theirs(board);
            // If it isn't the owner any more, there is another event to come.
            if owner == notify.owner && owner != x11rb::NONE {
                self.is_theirs(board)?;
            }
            waiting.into_iter().try_for_each(|waiter| self.route(waiter))?;
        }
        Ok(())
    }

    /// Another program has new content: asks what there is, and then for what can be kept.
    fn is_theirs(&mut self, board: usize) -> Result<()> {
        self.boards[board].theirs = Some(Theirs::default());
        let time = self.now()?;
        if !self.fetch(board, self.atoms.TARGETS, time, None)? {
            self.targets_known(board, Targets::Refused)?;
        }
        Ok(())
    }

    /// The owner ended, and nobody took the selection since: it is ours, with what was kept.
    fn outlive(&mut self, board: usize, since: Timestamp) -> Result<()> {
        let Some(theirs) = self.boards[board].theirs.as_mut() else { return Ok(()) };
        let offer = std::mem::take(&mut theirs.kept);
        let mut waiting = self.forget_theirs(board);
        // Whoever waits for a program that ended waits in vain.
        for fetch in self.fetches.iter_mut().filter(|fetch| fetch.board == board) {
            waiting.append(&mut fetch.waiters);
        }
        let is_kept = !offer.items.is_empty() && self.take_over(board, since)?;
        if is_kept {
            self.boards[board].own = Some(Own { offer, since });
        } else {
            self.changed(board);
        }
        waiting.into_iter().try_for_each(|waiter| self.route(waiter))
    }

    /// With the time of the owner that ended, so that whoever copies something now wins, whatever comes first.
    fn take_over(&mut self, board: usize, since: Timestamp) -> Result<bool> {
        let atom = self.boards[board].atom;
        self.conn.grab_server()?;
        if self.conn.get_selection_owner(atom)?.reply()?.owner == x11rb::NONE {
            self.conn.set_selection_owner(self.window, atom, since)?;
        }
        let owner = self.conn.get_selection_owner(atom)?.reply()?.owner;
        self.conn.ungrab_server()?;
        Ok(owner == self.window)
    }

    /// What is known is of an owner that was. Who waited to hear what it has is returned.
    fn forget_theirs(&mut self, board: usize) -> Vec<Waiter> {
        for fetch in self.fetches.iter_mut().filter(|fetch| fetch.board == board) {
            fetch.is_current = false;
        }
        let mut waiting = self.boards[board].theirs.take().map(|theirs| theirs.waiting).unwrap_or_default();
        waiting.iter_mut().for_each(|waiter| waiter.refused = 0);
        waiting
    }

    /// Answers from memory, or asks the owner.
    pub fn route(&mut self, waiter: Waiter) -> Result<()> {
        let board = &mut self.boards[waiter.board];
        if let Some(own) = &board.own {
            let offer = own.offer.clone();
            return self.give(waiter, &offer);
        }
        let Some(theirs) = &mut board.theirs else {
            waiter.none();
            return Ok(());
        };
        if matches!(theirs.targets, Targets::Asked) {
            match theirs.waiting.len() < MAX_WAITING {
                true => theirs.waiting.push(waiter),
                false => waiter.fail(too_many()),
            }
            return Ok(());
        }
        let candidate = theirs.candidate(&waiter.want, waiter.refused, &text_targets(&self.atoms));
        match (candidate, &waiter.want, &theirs.targets) {
            (Some(target), ..) => {
                let time = self.now()?;
                self.fetch(waiter.board, target, time, Some(waiter))?;
            }
            (None, Want::Targets(_), Targets::Known(targets)) => {
                let targets = targets.clone();
                self.give_names(waiter, &targets)?;
            }
            (None, ..) => waiter.none(),
        }
        Ok(())
    }

    /// From an offer that is at hand.
    fn give(&self, waiter: Waiter, offer: &Offer) -> Result<()> {
        let item = match &waiter.want {
            Want::Text(_) => offer.first_of(&text_targets(&self.atoms)),
            Want::Target(target, _) => offer.find(*target),
            Want::Targets(_) => {
                let targets: Vec<_> = offer.items.iter().map(|item| item.target).collect();
                return self.give_names(waiter, &targets);
            }
        };
        match item {
            Some(item) => self.give_item(waiter, item),
            None => {
                waiter.none();
                Ok(())
            }
        }
    }

    fn give_item(&self, waiter: Waiter, item: &Item) -> Result<()> {
        let content = self.content(item)?;
        match waiter.want {
            Want::Text(reply) | Want::Target(_, reply) => reply(Ok(Some(content))),
            Want::Targets(_) => {}
        }
        Ok(())
    }

    fn give_names(&self, waiter: Waiter, targets: &[Atom]) -> Result<()> {
        let Want::Targets(reply) = waiter.want else { return Ok(()) };
        let asked = targets.iter().map(|&target| Ok(self.conn.get_atom_name(target)?)).collect::<Result<Vec<_>>>()?;
        // Who offers a name that isn't one offers nothing.
        let names = asked.into_iter().filter_map(|name| name.reply().ok());
        reply(Ok(names.map(|name| String::from_utf8_lossy(&name.name).into_owned()).collect()));
        Ok(())
    }

    /// The owner was too slow, but what it had may have been fetched before.
    pub fn give_kept(&self, waiter: Waiter) -> Result<()> {
        let kept = self.boards[waiter.board].theirs.as_ref().map(|theirs| &theirs.kept);
        let item = kept.and_then(|kept| match &waiter.want {
            Want::Text(_) => kept.first_of(&text_targets(&self.atoms)),
            Want::Target(target, _) => kept.find(*target),
            Want::Targets(_) => None,
        });
        match item {
            Some(item) => self.give_item(waiter, item),
            None => {
                waiter.miss();
                Ok(())
            }
        }
    }

    /// A fetch has ended.
    pub fn fetched(&mut self, fetch: Fetch, outcome: Outcome) -> Result<()> {
        let Fetch { board, is_current, target, waiters, limit, .. } = fetch;
        if is_current && target == self.atoms.TARGETS {
            let targets = match &outcome {
                Outcome::Content(item) => Targets::Known(their_targets(item)),
                _ => Targets::Refused,
            };
            return self.targets_known(board, targets);
        }
        for mut waiter in waiters {
            match &outcome {
                Outcome::Content(item) => self.give_item(waiter, item)?,
                Outcome::TooLarge if limit < self.limits.content_bytes => self.route(waiter)?,
                Outcome::TooLarge => waiter.fail(self.too_large()),
                Outcome::TooSlow => self.give_kept(waiter)?,
                Outcome::Refused => {
                    // Another owner since: it is asked from the start.
                    waiter.refused = if is_current { waiter.refused + 1 } else { 0 };
                    self.route(waiter)?;
                }
            }
        }
        if is_current { self.keep(board, target, outcome) } else { Ok(()) }
    }

    fn targets_known(&mut self, board: usize, targets: Targets) -> Result<()> {
        let Some(theirs) = &mut self.boards[board].theirs else { return Ok(()) };
        let text = text_targets(&self.atoms);
        theirs.to_keep = match &targets {
            // A password: it is to be gone when its program is.
            Targets::Known(targets) if targets.contains(&self.atoms.SECRET) => VecDeque::new(),
            Targets::Known(targets) => {
                let best_text = text.into_iter().find(|target| targets.contains(target));
                let atoms = &self.atoms;
                let others = [atoms.IMAGE_PNG, atoms.TEXT_HTML, atoms.URI_LIST, atoms.FILES_COPIED];
                best_text.into_iter().chain(others.into_iter().filter(|target| targets.contains(target))).collect()
            }
            Targets::Asked | Targets::Refused => VecDeque::from([text[0]]),
        };
        theirs.targets = targets;
        let waiting = std::mem::take(&mut theirs.waiting);
        waiting.into_iter().try_for_each(|waiter| self.route(waiter))?;
        self.keep_next(board)
    }

    fn keep_next(&mut self, board: usize) -> Result<()> {
        let Some(target) = self.boards[board].theirs.as_mut().and_then(|theirs| theirs.to_keep.front().copied()) else {
            return Ok(());
        };
        let time = self.now()?;
        if !self.fetch(board, target, time, None)?
            && let Some(theirs) = &mut self.boards[board].theirs
        {
            theirs.to_keep.clear();
        }
        Ok(())
    }

    fn keep(&mut self, board: usize, target: Atom, outcome: Outcome) -> Result<()> {
        let Some(theirs) = &mut self.boards[board].theirs else { return Ok(()) };
        if theirs.to_keep.front() != Some(&target) {
            return Ok(());
        }
        theirs.to_keep.pop_front();
        let kept: usize = theirs.kept.items.iter().map(|item| item.bytes.len()).sum();
        match outcome {
            Outcome::Content(item) if kept + item.bytes.len() <= KEPT_BYTES => theirs.kept.items.push(item),
            _ => {}
        }
        self.keep_next(board)
    }
}

fn their_targets(item: &Item) -> Vec<Atom> {
    let atoms = item.bytes.chunks_exact(4).take(MAX_THEIR_TARGETS);
    let numbers = atoms.map(|four| u32::from_ne_bytes([four[0], four[1], four[2], four[3]]));
    numbers.filter(|&atom| atom != u32::from(AtomEnum::NONE)).collect()
}
