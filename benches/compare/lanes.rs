//! Both sides of a row, each going on without the other: a side that fails drops out with its reason.
//!
//! The other rows stop at the first error. Those about processes don't, so that a server without these routes is
//! told apart from one that answers wrongly, and still shows what the other side needs.

use crate::Result;
use crate::report::{Better, Row, Summary};
use crate::subject::{Pair, Side};

/// What each side has of its own: its server, its connections, its samples. A side that failed has only its reason;
/// what it had measured until then is gone, because half a row is no figure.
pub struct Lanes<T> {
    sides: Pair<std::result::Result<T, String>>,
    reference_first: bool,
}

impl<T> Lanes<T> {
    /// Makes both lanes, ours first.
    pub fn open(mut open: impl FnMut(Side) -> Result<T>) -> Self {
        let mut lane = |side| open(side).map_err(|e| e.to_string());
        Self { sides: Pair { ours: lane(Side::Ours), reference: lane(Side::Reference) }, reference_first: false }
    }

    /// Lets each side that still stands act once. Who goes first changes each time: what ran just before, a plain
    /// spawn or the other side's clearing up, shows in the slowest hundredth.
    pub fn each(&mut self, mut act: impl FnMut(Side, &mut T) -> Result<()>) {
        let mut order = Side::BOTH;
        if self.reference_first {
            order.reverse();
        }
        self.reference_first = !self.reference_first;
        for side in order {
            let lane = self.sides.get_mut(side);
            let outcome = lane.as_mut().map(|inner| act(side, inner));
            if let Ok(Err(error)) = outcome {
                *lane = Err(error.to_string());
            }
        }
    }

    /// A row with a figure of each side that still stands.
    pub fn row(&self, name: &'static str, unit: &'static str, better: Better, figure: impl Fn(&T) -> Summary) -> Row {
        let of = |side| self.sides.get(side).as_ref().map_or(Summary::NONE, &figure);
        Row::new(name, unit, better, Pair { ours: of(Side::Ours), reference: of(Side::Reference) })
    }

    /// "ours …; reference …", leaving out a side that failed.
    pub fn tell(&self, sentence: impl Fn(&T) -> String) -> String {
        let told = Side::BOTH.iter().filter_map(|side| {
            let lane = self.sides.get(*side).as_ref().ok()?;
            Some(format!("{} {}", side.name(), sentence(lane)))
        });
        told.collect::<Vec<_>>().join("; ")
    }

    /// The finished rows; the first carries the reasons of the sides that failed.
    pub fn report(&self, mut rows: Vec<Row>) -> Vec<Row> {
        if let Some(first) = rows.first_mut() {
            let failed = Side::BOTH.iter().filter_map(|side| {
                let reason = self.sides.get(*side).as_ref().err()?;
                Some(format!("{}: {reason}", side.name()))
            });
            first.failures.extend(failed);
        }
        rows
    }
}
