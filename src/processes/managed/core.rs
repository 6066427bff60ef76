//! What happens after an exit: decided without I/O or a clock.

use std::time::Duration;

use crate::processes::types::{Exit, ExitReason, RestartPolicy};

/// The first pause before a restart; it doubles with each that follows.
const FIRST_DELAY: Duration = Duration::from_millis(100);

/// After an exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// It stays ended.
    Stay,
    /// It is started again after this time.
    Restart(Duration),
}

/// Whether a process that ended is started again. `in_a_row` counts the restarts since it last ran for a while;
/// `max_delay` bounds the pause.
pub(super) fn after_exit(
    policy: RestartPolicy,
    exit: Option<Exit>,
    reason: ExitReason,
    in_a_row: u32,
    max_delay: Duration,
) -> After {
    let asked_for = matches!(reason, ExitReason::Stopped | ExitReason::Killed | ExitReason::ServerStopped);
    let failed = exit != Some(Exit::Code(0)) || reason != ExitReason::Exited;
    let again = match policy {
        RestartPolicy::Never => false,
        RestartPolicy::OnFailure => failed && !asked_for,
        RestartPolicy::Always => !asked_for,
    };
    if again { After::Restart(FIRST_DELAY.saturating_mul(1 << in_a_row.min(16)).min(max_delay)) } else { After::Stay }
}

/// Whether a process that the last server left is started by the next one.
pub(in crate::processes) fn after_server(policy: RestartPolicy, end: Option<ExitReason>) -> bool {
    match (policy, end) {
        (RestartPolicy::Always, None | Some(ExitReason::ServerLost | ExitReason::ServerStopped)) => true,
        (RestartPolicy::OnFailure, None | Some(ExitReason::ServerLost)) => true,
        (RestartPolicy::Never | RestartPolicy::Always | RestartPolicy::OnFailure, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn policies_decide_by_what_happened() {
        use ExitReason::{Exited, Killed, MemoryLimit, Stopped};
        use RestartPolicy::{Always, Never, OnFailure};
        let again = |policy, exit, reason| after_exit(policy, Some(exit), reason, 0, LONG) != After::Stay;
        for exit in [Exit::Code(0), Exit::Code(1), Exit::Signal(9)] {
            assert!(!again(Never, exit, Exited));
            assert!(again(Always, exit, Exited));
            assert_eq!(again(OnFailure, exit, Exited), exit != Exit::Code(0));
            assert!(again(OnFailure, exit, MemoryLimit));
            for asked in [Stopped, Killed] {
                assert!(!again(Always, exit, asked) && !again(OnFailure, exit, asked));
            }
        }
    }

    #[test]
    fn pauses_double_up_to_the_bound() {
        let pause = |in_a_row| after_exit(RestartPolicy::Always, Some(Exit::Code(1)), ExitReason::Exited, in_a_row, LONG);
        assert_eq!(pause(0), After::Restart(Duration::from_millis(100)));
        assert_eq!(pause(3), After::Restart(Duration::from_millis(800)));
        assert_eq!(pause(u32::MAX), After::Restart(LONG));
    }

    #[test]
    fn the_next_server_takes_up_what_should_run() {
        assert!(after_server(RestartPolicy::Always, None));
        assert!(after_server(RestartPolicy::OnFailure, Some(ExitReason::ServerLost)));
        assert!(!after_server(RestartPolicy::OnFailure, Some(ExitReason::ServerStopped)));
        assert!(!after_server(RestartPolicy::Always, Some(ExitReason::Stopped)));
        assert!(!after_server(RestartPolicy::Never, None));
    }
}
