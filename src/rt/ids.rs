//! Ids that sort by time: a prefix, 12 hex digits of Unix milliseconds, 12 random hex digits.

use rand::RngExt as _;

use super::clock::now_ms;

/// A new id such as `acp_019aa3b1c2d4_9f31c07be2a4`. Two made in the same millisecond differ by 48 random bits.
pub fn new_id(prefix: &str) -> String {
    let random: u64 = rand::rng().random::<u64>() & 0xffff_ffff_ffff;
    format!("{prefix}_{:012x}_{random:012x}", now_ms())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_differ() {
        let first = new_id("x");
        std::thread::sleep(std::time::Duration::from_millis(2));
        let second = new_id("x");
        assert!(first < second);
        assert_eq!(first.len(), "x_".len() + 25);
    }
}
