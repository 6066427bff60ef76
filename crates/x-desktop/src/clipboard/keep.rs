//! What is kept of other programs' content, for when they end.

use std::collections::VecDeque;

use x11rb::protocol::xproto::{Atom, AtomEnum};

use super::KEPT_BYTES;
use super::fetch::{Outcome, Waiter, Want};
use super::offer::{Item, text_targets};
use super::owners::Targets;
use super::task::Task;
use crate::Result;

/// Targets of another program that are read.
const MAX_THEIR_TARGETS: usize = 1024;

impl Task {
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

    /// The owner has said what it has, or won't.
    pub fn targets_known(&mut self, board: usize, targets: Targets) -> Result<()> {
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

    /// A fetch has ended: if it was for this, its content is kept.
    pub fn keep(&mut self, board: usize, target: Atom, outcome: Outcome) -> Result<()> {
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

/// Atoms of a `TARGETS` answer.
pub(super) fn their_targets(item: &Item) -> Vec<Atom> {
    let atoms = item.bytes.chunks_exact(4).take(MAX_THEIR_TARGETS);
    let numbers = atoms.map(|four| u32::from_ne_bytes([four[0], four[1], four[2], four[3]]));
    numbers.filter(|&atom| atom != u32::from(AtomEnum::NONE)).collect()
}
