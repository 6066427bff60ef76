//! Signals: what they ask of the server, and what of them children must not inherit.

use nix::sys::signal::{SigSet, Signal as Number};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What the server is to the system it runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// One program among others.
    Service,
    /// The first process (init(1)): the kernel passes it only signals that it handles, and container hosts ask it to
    /// stop in ways of their own.
    Init,
}

/// How container hosts tell an init of the systemd kind to halt: SIGRTMIN+3 as glibc counts (signal(7)), whatever libc
/// we are built with.
const HALT: i32 = 34 + 3;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// An orderly stop; the signal's name.
    Stop(&'static str),
    /// That managed processes get it.
    Forward(Number),
}

/// The signals that are listened to.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    init: Option<InitSignals>,
}

struct InitSignals {
    quit: Signal,
    power: Signal,
    halt: Signal,
    user_1: Signal,
    user_2: Signal,
}

impl Signals {
    /// Starts to listen.
    pub(super) fn new(role: Role) -> std::io::Result<Self> {
        let on = |number: i32| signal(SignalKind::from_raw(number));
        let init = match role {
            Role::Service => None,
            Role::Init => Some(InitSignals {
                quit: on(Number::SIGQUIT as i32)?,
                power: on(Number::SIGPWR as i32)?,
                halt: on(HALT)?,
                user_1: on(Number::SIGUSR1 as i32)?,
                user_2: on(Number::SIGUSR2 as i32)?,
            }),
        };
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            init,
        })
    }

    /// The next one. Cancel safe.
    pub(super) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Stop("SIGINT"),
            _ = self.terminate.recv() => Asked::Stop("SIGTERM"),
            _ = self.hangup.recv() => Asked::Stop("SIGHUP"),
            asked = next_of_init(&mut self.init) => asked,
        }
    }

    /// The next one that asks to stop. Cancel safe.
    pub(super) async fn stop(&mut self) -> &'static str {
        loop {
            if let Asked::Stop(name) = self.next().await {
                return name;
            }
        }
    }
}

async fn next_of_init(signals: &mut Option<InitSignals>) -> Asked {
    let Some(signals) = signals else { return std::future::pending().await };
    tokio::select! {
        _ = signals.quit.recv() => Asked::Stop("SIGQUIT"),
        _ = signals.power.recv() => Asked::Stop("SIGPWR"),
        _ = signals.halt.recv() => Asked::Stop("SIGRTMIN+3"),
        _ = signals.user_1.recv() => Asked::Forward(Number::SIGUSR1),
        _ = signals.user_2.recv() => Asked::Forward(Number::SIGUSR2),
    }
}

/// Blocks no signal, whatever the caller had blocked. For the first thread, before there are others: they inherit it.
pub(crate) fn unblock() {
    if let Err(errno) = SigSet::empty().thread_set_mask() {
        eprintln!("signals stay blocked as the caller had them: {errno}");
    }
}

/// Ignored signals would stay ignored in all children (execve(2)), handled ones don't: so those that the caller had us
/// ignore get a handler, which does nothing. std takes care of SIGPIPE itself.
pub(super) fn keep_ignored_ones_here() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    for number in ignored(&status).filter(|number| *number != Number::SIGPIPE as i32) {
        if let Err(error) = signal(SignalKind::from_raw(number)) {
            tracing::debug!(number, %error, "a signal stays ignored, in children, too");
        }
    }
}

/// The numbers in `SigIgn` of proc_pid_status(5): a mask in hexadecimal, signal 1 being bit 0.
fn ignored(status: &str) -> impl Iterator<Item = i32> + use<> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    (1..=64).filter(move |number| mask >> (number - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_mask() {
        let status = "Name:\tx\nSigBlk:\tffffffffffffffff\nSigIgn:\t8000000000001005\nSigCgt:\t0000000000000000\n";
        assert_eq!(ignored(status).collect::<Vec<_>>(), [1, 3, 13, 64]);
        assert_eq!(ignored("").count(), 0);
    }
}
