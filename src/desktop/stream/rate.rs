//! How much is encoded: bit rate, frames a second and size, by what the networks carry.

use std::time::{Duration, Instant};

/// Of what the slowest network carries: the rest is for retransmissions, and for what is asked of it otherwise.
const SHARE: f64 = 0.85;
/// With less, nothing can be read any more: frames become rare instead.
const LEAST_BPS: u32 = 150_000;
/// Bits for a pixel of a frame, at most. Video and text that scrolls need half of it; most else far less.
const BITS_PER_PIXEL: f64 = 0.2;
const WANTED_BPS: std::ops::RangeInclusive<f64> = 1_000_000.0..=16_000_000.0;
/// Estimates tremble: a rate that is lower or higher by less is as good.
const TREMBLE: f64 = 0.05;
/// A higher rate is taken no more often.
const RISES_EVERY: Duration = Duration::from_secs(1);
/// Below this part of what is wanted, the picture becomes smaller; above the other, when that lasts, as large as the screen again.
/// Each begins with a keyframe.
const SMALL: f64 = 0.035;
const LARGE: f64 = 0.06;
const LASTS: Duration = Duration::from_secs(3);
/// Two frames that each take so long to be sent make the picture smaller, too, until it rests or frames take less than the other.
const HEAVY: Duration = Duration::from_millis(400);
const LIGHT: Duration = Duration::from_millis(80);
const HEAVY_WITHIN: Duration = Duration::from_millis(1500);
const LEAST_FPS: u32 = 5;

/// How to encode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) bitrate_bps: u32,
    pub(super) fps: u32,
    /// The picture is so many times smaller than the screen, each way.
    pub(super) shrink: u32,
}

#[derive(Debug)]
pub(super) struct RateControl {
    wanted_bps: f64,
    fps_max: u32,
    now: Rate,
    changed_at: Instant,
    /// Since when it carries a large picture, while that is small.
    large_since: Option<Instant>,
    /// The last frame that took long to be sent, and whether there was another one before it.
    heavy: Option<(Instant, bool)>,
}

impl RateControl {
    pub(super) fn new((width, height): (u32, u32), fps_max: u32, now: Instant) -> Self {
        let wanted_bps = wanted_bps((width, height), fps_max);
        let rate = rate(wanted_bps, wanted_bps, fps_max);
        Self { wanted_bps, fps_max, now: rate, changed_at: now, large_since: None, heavy: None }
    }

    pub(super) fn rate(&self) -> Rate {
        self.now
    }

    /// What would be sent if all networks carried it, in bits per second.
    pub(super) fn wanted_bps(&self) -> u64 {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // at most 16 million
        let bps = self.wanted_bps as u64;
        bps
    }

    /// Takes what the slowest network carries (`None`: nobody knows); true when something is to change.
    pub(super) fn consider(&mut self, slowest_bps: Option<u64>, now: Instant) -> bool {
        #[allow(clippy::cast_precision_loss)] // far below 2^52
        let carried = slowest_bps.map_or(self.wanted_bps, |bps| bps as f64 * SHARE);
        let carried = carried.min(self.wanted_bps);
        let shrink = self.shrink(carried / self.wanted_bps, now);
        let next = Rate { shrink, ..rate(carried, self.wanted_bps, self.fps_max) };
        let factor = f64::from(next.bitrate_bps) / f64::from(self.now.bitrate_bps);
        let is_due = now.saturating_duration_since(self.changed_at) >= RISES_EVERY;
        let is_higher = factor > 1.0 + TREMBLE || factor > 1.0 && carried >= self.wanted_bps;
        let is_other = factor < 1.0 - TREMBLE || is_higher && is_due || shrink != self.now.shrink;
        if is_other {
            (self.now, self.changed_at) = (next, now);
        }
        is_other
    }

    /// A frame is to be sent that takes so long by what the slowest network carries.
    pub(super) fn sent(&mut self, takes: Duration, now: Instant) {
        let is_small = self.now.shrink > 1;
        if takes > HEAVY || is_small && takes > LIGHT {
            let again = self.heavy.is_some_and(|(at, again)| is_small && again || now < at + HEAVY_WITHIN);
            self.heavy = Some((now, again));
        }
    }

    /// Nothing moves: the picture may be large again, if the network carries that at all.
    pub(super) fn rests(&mut self, now: Instant) {
        self.heavy = None;
        self.large_since = now.checked_sub(LASTS);
    }

    fn is_heavy(&self, now: Instant) -> bool {
        self.heavy.is_some_and(|(at, again)| again && now < at + LASTS)
    }

    fn shrink(&mut self, part: f64, now: Instant) -> u32 {
        if part < SMALL || self.now.shrink == 2 && part < LARGE || self.is_heavy(now) {
            self.large_since = None;
            return 2;
        }
        let since = *self.large_since.get_or_insert(now);
        if self.now.shrink == 2 && now.saturating_duration_since(since) < LASTS { 2 } else { 1 }
    }
}

fn wanted_bps((width, height): (u32, u32), fps: u32) -> f64 {
    let bps = f64::from(width) * f64::from(height) * f64::from(fps) * BITS_PER_PIXEL;
    bps.clamp(*WANTED_BPS.start(), *WANTED_BPS.end())
}

/// First each frame gets less, then there are fewer, then they are smaller.
fn rate(bps: f64, wanted_bps: f64, fps_max: u32) -> Rate {
    let part = bps / wanted_bps;
    let slower = if part >= 0.2 {
        1
    } else if part >= 0.075 {
        2
    } else {
        3
    };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // at most 16 million
    let bitrate_bps = (bps as u32).max(LEAST_BPS);
    Rate { bitrate_bps, fps: (fps_max / slower).max(LEAST_FPS.min(fps_max)), shrink: 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_room_is_less_at_once_and_more_only_when_it_lasts() {
        let begin = Instant::now();
        let mut control = RateControl::new((1280, 720), 30, begin);
        let best = control.rate();
        assert_eq!((best.fps, best.shrink), (30, 1));
        assert!(!control.consider(None, begin));
        assert!(!control.consider(Some(10_000_000), begin), "more than is wanted");
        assert!(control.consider(Some(900_000), begin));
        let slow = control.rate();
        assert_eq!((slow.bitrate_bps, slow.fps, slow.shrink), (765_000, 15, 1));
        assert!(!control.consider(Some(880_000), begin), "about the same");
        assert!(!control.consider(Some(10_000_000), begin), "not so often");
        assert!(control.consider(Some(10_000_000), begin + RISES_EVERY));
        assert_eq!(control.rate(), best);
        let mut at = begin + RISES_EVERY;
        assert!(control.consider(Some(20_000), at));
        let least = control.rate();
        assert_eq!((least.bitrate_bps, least.fps, least.shrink), (LEAST_BPS, 10, 2));
        at += RISES_EVERY;
        assert!(control.consider(Some(10_000_000), at));
        assert_eq!((control.rate().bitrate_bps, control.rate().shrink), (best.bitrate_bps, 2), "a larger picture has to last");
        at += LASTS;
        assert!(control.consider(Some(10_000_000), at));
        assert_eq!(control.rate(), best);
    }

    #[test]
    fn frames_that_take_long_make_it_smaller_until_it_rests() {
        let begin = Instant::now();
        let mut control = RateControl::new((1280, 720), 30, begin);
        let (long, short) = (Duration::from_millis(900), Duration::from_millis(20));
        control.sent(long, begin);
        assert!(!control.consider(None, begin), "one is a keyframe");
        let mut at = begin + Duration::from_secs(1);
        control.sent(long, at);
        assert!(control.consider(None, at));
        assert_eq!(control.rate().shrink, 2);
        for _ in 0..40 {
            at += Duration::from_millis(100);
            control.sent(LIGHT * 2, at);
            assert!(!control.consider(None, at), "large ones would take longer still");
        }
        control.rests(at);
        assert!(control.consider(None, at));
        assert_eq!(control.rate().shrink, 1);
        control.sent(long, at);
        control.sent(short, at);
        assert!(!control.consider(None, at));
    }

    #[test]
    fn sizes_and_frame_rates_are_bounded() {
        for (size, fps) in [((1, 1), 1), ((16, 16), 60), ((3840, 2160), 60)] {
            let control = RateControl::new(size, fps, Instant::now());
            let rate = control.rate();
            assert!((1_000_000..=16_000_000).contains(&rate.bitrate_bps) && rate.fps == fps, "{rate:?}");
        }
    }
}
