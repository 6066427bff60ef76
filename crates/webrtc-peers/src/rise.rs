//! Takes an estimate of the network that is too low for one.
//!
//! The library estimates by what arrives when. While little is sent, and on a machine that is busy, it takes late for slow, and comes
//! back by probes only, which are as late. Where nothing is lost and answers come as fast as ever, the network isn't the reason.

use std::time::{Duration, Instant};

/// So much lost is a network that is full.
const LOST: f32 = 0.02;
/// Answers that take so much longer than the fastest ones wait in a queue.
const QUEUED: Duration = Duration::from_millis(40);
/// It has to look well for so long.
const CALM: Duration = Duration::from_secs(2);
/// After one that the network couldn't carry, it waits twice as long, up to this.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Where something was lost, the network is narrow: the library finds out by itself how narrow.
const NARROW: Duration = Duration::from_secs(30);
/// Trouble so soon after a rise comes of it.
const BLAME: Duration = Duration::from_secs(4);

#[derive(Debug)]
pub(crate) struct Rise {
    fastest: Option<Duration>,
    calm_since: Option<Instant>,
    rose_at: Option<Instant>,
    lost_at: Option<Instant>,
    wait: Duration,
}

impl Rise {
    pub(crate) fn new() -> Self {
        Self { fastest: None, calm_since: None, rose_at: None, lost_at: None, wait: CALM }
    }

    /// Once a second. True when the estimate should rise now.
    pub(crate) fn is_due(&mut self, now: Instant, round_trip: Option<Duration>, loss: Option<f32>) -> bool {
        self.fastest = match (self.fastest, round_trip) {
            (Some(fastest), Some(this)) => Some(fastest.min(this)),
            (fastest, this) => fastest.or(this),
        };
        let is_queued = round_trip.zip(self.fastest).is_some_and(|(this, fastest)| this > fastest + QUEUED);
        let blamed = self.rose_at.is_some_and(|rose_at| now < rose_at + BLAME);
        let is_lost = loss.is_some_and(|loss| loss > LOST);
        if is_lost {
            self.lost_at = Some(now);
        }
        if is_queued || is_lost {
            self.calm_since = None;
            if blamed {
                self.wait = (self.wait * 2).min(WAIT_MAX);
                self.rose_at = None;
            }
            return false;
        }
        let calm_since = *self.calm_since.get_or_insert(now);
        if now < calm_since + self.wait || self.lost_at.is_some_and(|lost_at| now < lost_at + NARROW) {
            return false;
        }
        if self.rose_at.is_some_and(|rose_at| now >= rose_at + BLAME) {
            self.wait = CALM; // the last one went well
        }
        (self.calm_since, self.rose_at) = (Some(now), Some(now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Option<Duration> = Some(Duration::from_millis(20));
    const SLOW: Option<Duration> = Some(Duration::from_millis(90));

    #[test]
    fn it_rises_while_all_is_well_and_less_often_where_it_was_too_much() {
        let (mut rise, begin) = (Rise::new(), Instant::now());
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let seen: Vec<bool> = (0..5).map(|second| rise.is_due(at(second), FAST, Some(0.0))).collect();
        assert_eq!(seen, [false, false, true, false, true]);
        assert!(!rise.is_due(at(5), SLOW, None), "it was too much");
        assert!(!rise.is_due(at(6), FAST, None));
        assert!(!rise.is_due(at(9), FAST, None));
        assert!(rise.is_due(at(10), FAST, None));
        assert!(!rise.is_due(at(11), SLOW, None), "again");
        let next = (12..40).find(|second| rise.is_due(at(*second), FAST, Some(0.0)));
        assert_eq!(next, Some(20));
        assert!(!rise.is_due(at(30), FAST, Some(0.1)));
        let after = (31..90).find(|second| rise.is_due(at(*second), FAST, Some(0.0)));
        assert_eq!(after, Some(60), "what was lost is remembered");
    }

    #[test]
    fn a_network_that_is_always_full_is_left_alone() {
        let (mut rise, begin) = (Rise::new(), Instant::now());
        assert!((0..100).all(|second| !rise.is_due(begin + Duration::from_secs(second), FAST, Some(0.2))));
    }
}
