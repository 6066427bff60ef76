//! Wall-clock time as the wire shows it.

use std::time::{SystemTime, UNIX_EPOCH};

use time::{Duration, OffsetDateTime};

/// Milliseconds since the Unix epoch; 0 when the clock stands before it.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// RFC 3339 in UTC, with nanoseconds and `+00:00`, as the contract has it.
pub fn rfc3339(unix_ms: i64) -> String {
    let at = OffsetDateTime::UNIX_EPOCH.saturating_add(Duration::milliseconds(unix_ms));
    let (date, time) = (at.date(), at.time());
    let nanoseconds = time.nanosecond();
    format!("{date}T{:02}:{:02}:{:02}.{nanoseconds:09}+00:00", time.hour(), time.minute(), time.second())
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_told_as_the_contract_has_them() {
        assert_eq!(super::rfc3339(1_795_304_893_937), "2026-11-21T23:48:13.937000000+00:00");
        assert_eq!(super::rfc3339(0), "1970-01-01T00:00:00.000000000+00:00");
    }
}
