//! Whether, when and how the server is started again. Pure: time comes in.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::RESTART_CODE;
use super::protocol::Ended;

/// What comes after a server's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// The keeper ends, too, with this code.
    End(i32),
    /// Another one is started.
    Start {
        after: Duration,
        /// It only says why it doesn't work.
        safe: bool,
    },
}

/// A server's life, at its end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Life {
    pub(super) ended: Ended,
    pub(super) uptime: Duration,
    /// It had said that it answers requests.
    pub(super) was_ready: bool,
    /// It was started in safe mode.
    pub(super) was_safe: bool,
}

/// What is remembered of earlier servers.
#[derive(Debug)]
pub(super) struct Policy {
    /// Deaths in a row, each soon after the start.
    pub(super) crashes: u64,
    crashes_max: u64,
    steady: Duration,
    was_ever_ready: bool,
    pub(super) is_stopping: bool,
}

/// Signals that ask for a stop and end a server that doesn't handle them yet.
const STOPS: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);

impl Policy {
    /// More than `crashes_max` deaths in a row end in safe mode; a server that lived for `steady` starts the count anew.
    pub(super) fn new(crashes_max: u64, steady: Duration) -> Self {
        Self { crashes: 0, crashes_max, steady, was_ever_ready: false, is_stopping: false }
    }

    pub(super) fn ended(&mut self, life: Life) -> Next {
        let Life { ended, uptime, was_ready, was_safe } = life;
        self.was_ever_ready |= was_ready && !was_safe;
        if uptime >= self.steady && !was_safe {
            self.crashes = 0;
        }
        match ended {
            // By the very signal: it had no handler yet.
            _ if self.is_stopping => {
                let is_orderly = ended == Ended::Code(0) || STOPS.iter().any(|stop| ended == Ended::Signal(*stop as i32));
                return Next::End(if is_orderly { 0 } else { 1 });
            }
            Ended::Code(0) => return Next::End(0),
            Ended::Code(RESTART_CODE) if was_ready => return Next::Start { after: Duration::ZERO, safe: false },
            Ended::Code(code) if !self.was_ever_ready => return Next::End(code), // wrong flags, a port that is taken
            _ => {}
        }
        self.crashes += 1;
        if self.crashes > self.crashes_max {
            return Next::Start { after: if was_safe { PAUSE_MAX } else { Duration::ZERO }, safe: true };
        }
        // The first time at once: it may never happen again.
        let doublings = u32::try_from(self.crashes - 1).unwrap_or(u32::MAX);
        let after = match doublings {
            0 => Duration::ZERO,
            more => FIRST_PAUSE.saturating_mul(1 << (more - 1).min(16)).min(PAUSE_MAX),
        };
        // A bound far beyond the default is for tests that kill: there is nothing to wait for.
        let after = if self.crashes_max >= 1_000 { Duration::ZERO } else { after };
        Next::Start { after, safe: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEADY: Duration = Duration::from_secs(10);

    fn life(ended: Ended, uptime_ms: u64) -> Life {
        Life { ended, uptime: Duration::from_millis(uptime_ms), was_ready: true, was_safe: false }
    }

    fn start(after_ms: u64, safe: bool) -> Next {
        Next::Start { after: Duration::from_millis(after_ms), safe }
    }

    #[test]
    fn a_first_start_that_fails_ends_with_its_code() {
        let mut policy = Policy::new(5, STEADY);
        let failed = Life { was_ready: false, ..life(Ended::Code(2), 5) };
        assert_eq!(policy.ended(failed), Next::End(2));
    }

    #[test]
    fn a_server_that_was_asked_to_stop_is_not_started_again() {
        let mut policy = Policy::new(5, STEADY);
        assert_eq!(policy.ended(life(Ended::Code(0), 5)), Next::End(0));
        policy.is_stopping = true;
        assert_eq!(policy.ended(life(Ended::Signal(9), 5)), Next::End(1));
        assert_eq!(policy.ended(life(Ended::Signal(15), 5)), Next::End(0), "it had no handler yet");
    }

    #[test]
    fn a_restart_that_is_asked_for_is_no_death() {
        let mut policy = Policy::new(1, STEADY);
        assert_eq!(policy.ended(life(Ended::Signal(6), 5)), start(0, false));
        for _ in 0..5 {
            assert_eq!(policy.ended(life(Ended::Code(RESTART_CODE), 5)), start(0, false));
        }
        assert_eq!(policy.ended(life(Ended::Code(RESTART_CODE), 20_000)), start(0, false));
        assert_eq!(policy.ended(life(Ended::Signal(6), 5)), start(0, false), "the steady one started the count anew");
        let unready = Life { was_ready: false, ..life(Ended::Code(RESTART_CODE), 5) };
        assert_eq!(policy.ended(unready), start(0, true), "it can't ask before it is ready");
    }

    #[test]
    fn deaths_in_a_row_are_answered_later_and_later_and_end_in_safe_mode() {
        let mut policy = Policy::new(4, STEADY);
        let mut death = || policy.ended(life(Ended::Signal(11), 100));
        assert_eq!(
            [death(), death(), death(), death()],
            [start(0, false), start(50, false), start(100, false), start(200, false)]
        );
        assert_eq!(death(), start(0, true));
        let safe = Life { was_safe: true, ..life(Ended::Code(RESTART_CODE), 60_000) };
        assert_eq!(policy.ended(safe), start(0, false), "it is tried again");
        assert_eq!(policy.ended(life(Ended::Code(1), 10)), start(0, true), "and fails again");
        assert_eq!(policy.ended(life(Ended::Signal(6), 20_000)), start(0, false), "it had lived long enough");
    }
}
