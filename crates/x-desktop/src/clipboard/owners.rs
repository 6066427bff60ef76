//! Who owns a selection.

use std::collections::VecDeque;
use std::time::Instant;

use x11rb::protocol::xfixes::{ConnectionExt as _, SelectionEvent, SelectionEventMask, SelectionNotifyEvent};
use x11rb::protocol::xproto::{Atom, ConnectionExt as _, Timestamp};

use super::Selection;
use super::fetch::{Waiter, Want};
use super::offer::{Offer, STRING};
use super::task::Task;
use crate::Result;

/// One selection.
pub(super) struct Board {
    pub selection: Selection,
    pub atom: Atom,
    /// We own it.
    pub own: Option<Own>,
    /// Another program does.
    pub theirs: Option<Theirs>,
}

pub(super) struct Own {
    pub offer: Offer,
    pub since: Timestamp,
}

/// What is known of another program's content.
#[derive(Default)]
pub(super) struct Theirs {
    pub targets: Targets,
    /// Waiting for `targets`.
    pub waiting: Vec<Waiter>,
    pub kept: Offer,
    /// The first is being fetched.
    pub to_keep: VecDeque<Atom>,
}

#[derive(Default)]
pub(super) enum Targets {
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
    pub fn candidate(&self, want: &Want, index: usize, text: &[Atom]) -> Option<Atom> {
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
}
