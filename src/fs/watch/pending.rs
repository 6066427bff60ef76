//! What is to be looked at before changes are told: places of which the kernel said something, with what clients believe
//! to be there. Pure.
//!
//! ```text
//!   event ──▶ place pending: what clients know of it, and where what is there now came from ──▶ looked at ──▶ told
//! ```

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::dirs::{Entry, Place};

/// Where what is at a place came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// It was there all the time.
    Same,
    /// It was there, and clients know it from there.
    From(Place),
    /// Clients don't know it.
    New,
    /// There is nothing.
    Gone,
}

/// A place that is to be looked at.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    /// What clients know to be there.
    pub(super) was: Option<Entry>,
    pub(super) origin: Origin,
    /// When what is there came to be there, relative to the others.
    pub(super) order: u64,
    /// Its content was written to.
    pub(super) written: bool,
    /// It was gone when it was looked at, though no event had said so: the event is on its way.
    pub(super) is_early: bool,
    /// What is known of it is what is there.
    pub(super) is_looked_at: bool,
}

/// The first half of a rename, until the second comes.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) entry: Option<Entry>,
    pub(super) origin: Origin,
    pub(super) written: bool,
    pub(super) from: Place,
    at: Instant,
}

/// When to look and to tell.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    /// So long changes of one path are gathered.
    pub(super) window: Duration,
    /// Where only contents changed, so long a silence is enough.
    pub(super) settle: Duration,
}

/// Between the two halves of a rename lies no more than what the kernel and our queue take.
const HALVES_APART: Duration = Duration::from_millis(25);

/// All that is to be looked at.
#[derive(Default)]
pub(super) struct Pendings {
    places: HashMap<Place, Pending>,
    leaving: HashMap<u32, Leaving>,
    next: u64,
    /// The first and the last event since changes were told.
    since: Option<(Instant, Instant)>,
    /// Something came, went or was renamed.
    is_structural: bool,
}

impl Pendings {
    /// A place is to be looked at; `was` is what is known of it.
    pub(super) fn touch(&mut self, place: &Place, was: impl FnOnce() -> Option<Entry>) -> &mut Pending {
        let next = &mut self.next;
        // Asked for twice, so that the name is only cloned for a new one: most events are of a place that is known.
        if !self.places.contains_key(place) {
            let was = was();
            let origin = if was.is_some() { Origin::Same } else { Origin::New };
            *next += 1;
            let pending = Pending { was, origin, order: *next, written: false, is_early: false, is_looked_at: false };
            self.places.insert(place.clone(), pending);
        }
        self.places.get_mut(place).expect("just put there")
    }

    /// What is at a place came or went.
    pub(super) fn replace(&mut self, place: &Place, origin: Origin, was: impl FnOnce() -> Option<Entry>) -> &mut Pending {
        self.next += 1;
        let order = self.next;
        self.is_structural = true;
        let pending = self.touch(place, was);
        pending.order = order;
        pending.origin = origin;
        pending.is_looked_at = false;
        pending
    }

    /// The first half of a rename; `entry` was taken out of the tree.
    pub(super) fn leave(&mut self, place: &Place, cookie: u32, entry: Option<Entry>, now: Instant) {
        let before = self.touch(place, || entry);
        let written = std::mem::take(&mut before.written);
        let origin = match before.origin.clone() {
            Origin::Same => Origin::From(place.clone()),
            Origin::Gone => Origin::New,
            known => known,
        };
        self.replace(place, Origin::Gone, || entry);
        self.leaving.insert(cookie, Leaving { entry, origin, written, from: place.clone(), at: now });
    }

    /// The second half: what was left with the first.
    pub(super) fn arrive(&mut self, cookie: u32) -> Option<Leaving> {
        self.leaving.remove(&cookie)
    }

    /// What left and came nowhere.
    pub(super) fn left(&mut self) -> Vec<Leaving> {
        self.leaving.drain().map(|(_, leaving)| leaving).collect()
    }

    /// An event came.
    pub(super) fn stir(&mut self, now: Instant) {
        let first = self.since.map_or(now, |(first, _)| first);
        self.since = Some((first, now));
    }

    /// When to look; `None` when there is nothing to look at.
    pub(super) fn due(&self, timing: &Timing) -> Option<Instant> {
        let (first, last) = self.since?;
        let full = first + timing.window;
        let due = if self.is_structural { full } else { full.min(last + timing.settle) };
        let halves = self.leaving.values().map(|leaving| leaving.at + HALVES_APART).max();
        Some(halves.map_or(due, |halves| due.max(halves)))
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn get_mut(&mut self, place: &Place) -> Option<&mut Pending> {
        self.places.get_mut(place)
    }

    /// The last position in the order.
    pub(super) fn last(&self) -> u64 {
        self.next
    }

    /// The places behind a position, in order.
    pub(super) fn after(&self, position: u64) -> Vec<Place> {
        let places = self.places.iter().filter(|(_, pending)| pending.order > position);
        let mut places: Vec<_> = places.map(|(place, pending)| (pending.order, place)).collect();
        places.sort_unstable_by_key(|(order, _)| *order);
        places.into_iter().map(|(_, place)| place.clone()).collect()
    }

    /// All of it, to be told; what is early stays for the next time while `is_there`.
    pub(super) fn take(&mut self, now: Instant, is_there: impl Fn(&Place) -> bool) -> HashMap<Place, Pending> {
        let is_early = |(place, pending): &(Place, Pending)| pending.is_early && is_there(place);
        let (early, places) = std::mem::take(&mut self.places).into_iter().partition(is_early);
        self.places = early;
        self.is_structural = false;
        self.since = (!self.places.is_empty()).then_some((now, now));
        places
    }

    /// Nothing is to be looked at.
    pub(super) fn clear(&mut self) {
        *self = Self { next: self.next, ..Self::default() };
    }
}
