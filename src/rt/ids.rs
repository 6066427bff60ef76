//! Ids that sort by time: a prefix, 12 hex digits of Unix milliseconds, 4 that count within one, 8 random ones.

use std::sync::atomic::{AtomicU64, Ordering};

use rand::RngExt as _;

use super::clock::now_ms;

/// The last time and count given: milliseconds times 65536, plus the count.
static LAST: AtomicU64 = AtomicU64::new(0);

/// A new id such as `acp_019aa3b1c2d4_00009f31c07b`. Those of one run sort in the order in which they were made, also when
/// the clock goes back; those of two runs differ by 32 random bits.
pub fn new_id(prefix: &str) -> String {
    let now = u64::try_from(now_ms()).unwrap_or(0) << 16;
    let next = |last: u64| (last + 1).max(now);
    let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last))).unwrap_or_default();
    let stamp = next(last);
    let random: u32 = rand::rng().random();
    format!("{prefix}_{:012x}_{:04x}{random:08x}", stamp >> 16, stamp & 0xffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_in_the_order_in_which_they_were_made() {
        let ids: Vec<_> = (0..100_000).map(|_| new_id("x")).collect();
        assert!(ids.is_sorted_by(|first, second| first < second));
        assert!(ids.iter().all(|id| id.len() == "x_".len() + 25));
    }
}
