//! What the network of a viewer carries that gets frames over its WebSocket and says when it has shown one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Frames that a viewer hasn't shown yet: one more waits until it has.
const UNSHOWN_MAX: usize = 3;
/// So much may be on its way when a frame is added.
const QUEUE: Duration = Duration::from_millis(250);
/// The time of a smaller frame says more of the distance and of the viewer than of the network's width.
const TELLING_BYTES: usize = 8_000;
/// A network is noticed when a frame takes so long.
const SLOW: Duration = Duration::from_millis(100);
/// A small frame that is shown sooner found no queue.
const PROMPT: Duration = Duration::from_millis(80);
/// What is estimated after such a frame, of what was before.
const RISE: f64 = 1.03;
/// How much of it a frame that went better changes; one that went worse, half.
const BETTER: f64 = 0.2;
/// More than that is as if nothing were known.
const ENOUGH_BPS: f64 = 50_000_000.0;

/// Frames on their way, and how fast they got there.
#[derive(Debug, Default)]
pub(super) struct Carried {
    unshown: VecDeque<(Instant, usize)>,
    shown_at: Option<Instant>,
    estimate_bps: Option<f64>,
}

impl Carried {
    pub(super) fn has_room(&self) -> bool {
        let bytes: usize = self.unshown.iter().map(|(_, bytes)| bytes).sum();
        let is_short = self.estimate_bps.is_none_or(|bps| bits(bytes) / bps < QUEUE.as_secs_f64());
        self.unshown.is_empty() || self.unshown.len() < UNSHOWN_MAX && is_short
    }

    pub(super) fn sent(&mut self, bytes: usize, now: Instant) {
        self.unshown.push_back((now, bytes));
    }

    /// The oldest that wasn't, was shown.
    pub(super) fn shown(&mut self, now: Instant) {
        let Some((sent_at, bytes)) = self.unshown.pop_front() else { return };
        let began = self.shown_at.map_or(sent_at, |shown_at| shown_at.max(sent_at));
        self.shown_at = Some(now);
        let took = now.saturating_duration_since(began).max(Duration::from_millis(1));
        let measured = bits(bytes) / took.as_secs_f64();
        let next = match self.estimate_bps {
            None => (bytes >= TELLING_BYTES && took > SLOW).then_some(measured),
            Some(bps) if bytes >= TELLING_BYTES && measured < bps => Some(f64::midpoint(bps, measured)),
            Some(bps) if bytes >= TELLING_BYTES => Some(bps + (measured - bps) * BETTER),
            Some(bps) if took < PROMPT => Some(bps * RISE),
            same => same,
        };
        self.estimate_bps = next.filter(|bps| *bps < ENOUGH_BPS);
    }

    /// In bits per second; `None` while it seems to be enough for anything.
    pub(super) fn bps(&self) -> Option<u64> {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // at most 50 million
        self.estimate_bps.map(|bps| bps as u64)
    }
}

fn bits(bytes: usize) -> f64 {
    #[allow(clippy::cast_precision_loss)] // far below 2^52
    let bits = bytes as f64 * 8.0;
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends a frame over a network of so many bits per second, and has it shown.
    fn pass(carried: &mut Carried, at: &mut Instant, bytes: usize, bps: f64) {
        assert!(carried.has_room());
        carried.sent(bytes, *at);
        *at += Duration::from_millis(10) + Duration::from_secs_f64(bits(bytes) / bps);
        carried.shown(*at);
    }

    #[test]
    fn a_slow_network_is_found_out_by_one_frame_and_a_better_one_in_time() {
        let (mut carried, mut at) = (Carried::default(), Instant::now());
        pass(&mut carried, &mut at, 50_000, 1e9);
        assert_eq!(carried.bps(), None);
        pass(&mut carried, &mut at, 50_000, 1e6);
        let found = carried.bps().expect("an estimate");
        assert!((900_000..1_000_000).contains(&found), "{found}");
        carried.sent(40_000, at);
        assert!(!carried.has_room(), "it takes 0.3 s");
        carried.shown(at + Duration::from_millis(330));
        at += Duration::from_millis(330);
        for _ in 0..200 {
            pass(&mut carried, &mut at, 2_000, 1e9);
        }
        assert_eq!(carried.bps(), None, "small frames pass at once");
    }

    #[test]
    fn frames_on_their_way_are_bounded_in_number() {
        let (mut carried, at) = (Carried::default(), Instant::now());
        for _ in 0..UNSHOWN_MAX {
            assert!(carried.has_room());
            carried.sent(100, at);
        }
        assert!(!carried.has_room());
        (0..=UNSHOWN_MAX).for_each(|_| carried.shown(at));
        assert!(carried.has_room());
    }
}
