//! Handing out what we own (ICCCM 2.0 §2.2, §2.6, §2.7.2).

use std::sync::Arc;
use std::time::Instant;

use x11rb::connection::RequestConnection;
use x11rb::protocol::xproto::{
    Atom, AtomEnum, ChangeWindowAttributesAux, ConnectionExt as _, EventMask, PropMode, SELECTION_NOTIFY_EVENT,
    SelectionNotifyEvent, SelectionRequestEvent, Timestamp, Window,
};
use x11rb::wrapper::ConnectionExt as _;

use super::offer::{Item, Offer};
use super::task::Task;
use crate::Result;

/// Content beyond this is handed out in pieces of this size, as many programs expect of content that is large.
const PIECE_BYTES: usize = 512 << 10;
/// Room for the header of a request.
const HEADER_BYTES: usize = 64;
/// Pairs of a `MULTIPLE` request that are answered.
const MAX_PAIRS: usize = 64;

/// Content on its way to a program that asked for it, piece by piece.
pub(super) struct Outgoing {
    pub requestor: Window,
    property: Atom,
    kind: Atom,
    bytes: Arc<[u8]>,
    sent: usize,
    pub until: Instant,
}

impl Task {
    /// Answers a request for a selection: always, be it with no.
    pub fn serve(&mut self, request: &SelectionRequestEvent) -> Result<()> {
        // Programs from before ICCCM give no property: the target's name serves then.
        let property = if request.property == x11rb::NONE { request.target } else { request.property };
        let is_done = match self.offer_for(request) {
            Some((offer, since)) if request.target == self.atoms.MULTIPLE => {
                request.property != x11rb::NONE && self.convert_all(request.requestor, property, &offer, since)?
            }
            Some((offer, since)) => self.convert(request.requestor, property, request.target, &offer, since)?,
            None => false,
        };
        let notify = SelectionNotifyEvent {
            response_type: SELECTION_NOTIFY_EVENT,
            sequence: 0,
            time: request.time,
            requestor: request.requestor,
            selection: request.selection,
            target: request.target,
            property: if is_done { property } else { x11rb::NONE },
        };
        self.conn.send_event(false, request.requestor, EventMask::NO_EVENT, notify)?;
        Ok(())
    }

    /// What we own, if we did at the time of the request.
    fn offer_for(&self, request: &SelectionRequestEvent) -> Option<(Offer, Timestamp)> {
        let board = self.boards.iter().find(|board| board.atom == request.selection)?;
        let own = board.own.as_ref()?;
        let is_late_enough = request.time == x11rb::CURRENT_TIME || !is_before(request.time, own.since);
        is_late_enough.then(|| (own.offer.clone(), own.since))
    }

    /// Puts one form of the content into a property of the requestor. Whether there is that form.
    fn convert(&mut self, to: Window, property: Atom, target: Atom, offer: &Offer, since: Timestamp) -> Result<bool> {
        let atoms = &self.atoms;
        if target == atoms.TARGETS {
            let ours = [atoms.TARGETS, atoms.TIMESTAMP, atoms.MULTIPLE];
            let all: Vec<_> = ours.into_iter().chain(offer.items.iter().map(|item| item.target)).collect();
            self.conn.change_property32(PropMode::REPLACE, to, property, AtomEnum::ATOM, &all)?;
            return Ok(true);
        }
        if target == atoms.TIMESTAMP {
            self.conn.change_property32(PropMode::REPLACE, to, property, AtomEnum::INTEGER, &[since])?;
            return Ok(true);
        }
        match offer.find(target) {
            Some(item) if item.bytes.len() <= self.piece_bytes() => {
                self.conn.change_property8(PropMode::REPLACE, to, property, item.kind, &item.bytes)?;
                Ok(true)
            }
            Some(item) => self.send_in_pieces(to, property, item),
            None => Ok(false),
        }
    }

    /// `MULTIPLE`: pairs of target and property, each done as if asked for alone.
    fn convert_all(&mut self, to: Window, property: Atom, offer: &Offer, since: Timestamp) -> Result<bool> {
        let units = u32::try_from(2 * MAX_PAIRS).unwrap_or(u32::MAX);
        // The requestor may be gone.
        let Ok(reply) = self.conn.get_property(false, to, property, AtomEnum::ANY, 0, units)?.reply() else { return Ok(false) };
        let Some(values) = reply.value32() else { return Ok(false) };
        let mut pairs: Vec<_> = values.collect();
        if pairs.is_empty() || reply.bytes_after > 0 {
            return Ok(false);
        }
        for pair in pairs.chunks_exact_mut(2) {
            let (target, property) = (pair[0], pair[1]);
            let is_one = property != x11rb::NONE && target != self.atoms.MULTIPLE;
            if !(is_one && self.convert(to, property, target, offer, since)?) {
                pair[1] = x11rb::NONE;
            }
        }
        self.conn.change_property32(PropMode::REPLACE, to, property, self.atoms.ATOM_PAIR, &pairs)?;
        Ok(true)
    }

    fn piece_bytes(&self) -> usize {
        self.conn.maximum_request_bytes().saturating_sub(HEADER_BYTES).clamp(1, PIECE_BYTES)
    }

    fn send_in_pieces(&mut self, to: Window, property: Atom, item: &Item) -> Result<bool> {
        self.outgoing.retain(|outgoing| (outgoing.requestor, outgoing.property) != (to, property));
        if self.outgoing.len() >= self.limits.transfers {
            return Ok(false);
        }
        // Before the property is there, so that its deletion isn't missed.
        self.listen(to, EventMask::PROPERTY_CHANGE | EventMask::STRUCTURE_NOTIFY)?;
        let at_least = u32::try_from(item.bytes.len()).unwrap_or(u32::MAX);
        self.conn.change_property32(PropMode::REPLACE, to, property, self.atoms.INCR, &[at_least])?;
        let until = Instant::now() + self.limits.transfer_time;
        let (kind, bytes) = (item.kind, Arc::clone(&item.bytes));
        self.outgoing.push(Outgoing { requestor: to, property, kind, bytes, sent: 0, until });
        Ok(true)
    }

    /// The requestor has taken a piece: here is the next one. After the last comes an empty one.
    pub fn send_more(&mut self, requestor: Window, property: Atom) -> Result<()> {
        let is_this = |outgoing: &Outgoing| (outgoing.requestor, outgoing.property) == (requestor, property);
        let size = self.piece_bytes();
        let Some(place) = self.outgoing.iter().position(is_this) else { return Ok(()) };
        let outgoing = &mut self.outgoing[place];
        let end = outgoing.bytes.len().min(outgoing.sent + size);
        let piece = &outgoing.bytes[outgoing.sent..end];
        self.conn.change_property8(PropMode::REPLACE, requestor, property, outgoing.kind, piece)?;
        let is_last = piece.is_empty();
        outgoing.sent = end;
        if is_last {
            self.outgoing.swap_remove(place);
            self.stop_listening(requestor)?;
        }
        Ok(())
    }

    /// Gives up on programs that don't take what they asked for.
    pub fn expire_outgoing(&mut self, now: Instant) -> Result<()> {
        while let Some(place) = self.outgoing.iter().position(|outgoing| outgoing.until <= now) {
            let requestor = self.outgoing.swap_remove(place).requestor;
            self.stop_listening(requestor)?;
        }
        Ok(())
    }

    fn stop_listening(&self, requestor: Window) -> Result<()> {
        if self.outgoing.iter().all(|outgoing| outgoing.requestor != requestor) {
            self.listen(requestor, EventMask::NO_EVENT)?;
        }
        Ok(())
    }

    fn listen(&self, window: Window, events: EventMask) -> Result<()> {
        self.conn.change_window_attributes(window, &ChangeWindowAttributesAux::new().event_mask(events))?;
        Ok(())
    }
}

/// Times of the server wrap around after 49.7 days.
fn is_before(time: Timestamp, other: Timestamp) -> bool {
    time.wrapping_sub(other).cast_signed() < 0
}
