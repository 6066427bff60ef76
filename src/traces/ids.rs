//! Ids by OpenTelemetry's rules (Trace API, "SpanContext"): 16 and 8 bytes as lowercase hex, not all zero. They are derived
//! from what the span is about: whoever meets the same thing again, as after a restart, finds the same span.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// 32 hex digits.
pub fn trace_id(names: &[&str]) -> String {
    hex::<16>("trace", names)
}

/// 16 hex digits.
pub fn span_id(names: &[&str]) -> String {
    hex::<8>("span", names)
}

/// The first `N` bytes of a digest. That all are zero is as likely as meeting the same digest twice.
fn hex<const N: usize>(what: &str, names: &[&str]) -> String {
    let mut digest = Sha256::new_with_prefix(what);
    for name in names {
        digest.update([0]);
        digest.update(name);
    }
    digest.finalize().iter().take(N).fold(String::with_capacity(2 * N), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}"); // writing to a String can't fail
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_opentelemetry_and_tell_things_apart() {
        let id = trace_id(&["turn", "turn_1"]);
        assert_eq!((id.len(), span_id(&["turn", "turn_1"]).len()), (32, 16));
        assert!(id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)), "{id}");
        assert_eq!(id, trace_id(&["turn", "turn_1"]));
        assert_ne!(id, trace_id(&["turn", "turn_2"]));
        assert_ne!(trace_id(&["ab", "c"]), trace_id(&["a", "bc"]));
    }
}
