//! Who gets an answer from where.

use x11rb::protocol::xproto::{Atom, ConnectionExt as _};

use super::fetch::{Fetch, Outcome, Waiter, Want, too_many};
use super::keep::their_targets;
use super::offer::{Item, Offer, text_targets};
use super::owners::Targets;
use super::task::Task;
use crate::Result;

/// Callers that wait to hear what there is.
const MAX_WAITING: usize = 64;

impl Task {
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

    pub fn give_item(&self, waiter: Waiter, item: &Item) -> Result<()> {
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
}
