//! The keeper: the small process above the server that keeps what must not die with it.
//!
//! `sandboxd server` becomes the keeper and starts itself once more as the server. The keeper is the server's parent, the
//! child subreaper and, in a container, PID 1. It holds descriptors that the server hands to it over a Unix socket
//! (SCM_RIGHTS), takes the exit statuses of processes that outlive a server, and starts the server again when it died.
//! It knows nothing of HTTP, SQLite or agents; all that it remembers is in tables of a fixed size.
//!
//! ```text
//!            ready                     exit 0, or died after a stop was asked for
//!  starting ───────▶ serving ─────────────────────────────────────────────────────▶ keeper ends
//!     ▲ │ first start failed: keeper ends with its code
//!     │ └─────────────┬────────── died, exit ≠ 0 ──┘
//!     └── back-off ◀──┘      too often in a row: started in safe mode, which says so and is ended after a while
//! ```
//!
//! [`run()`] is the whole process, one thread, one poll(2) loop. [`Keeper`] is the server's end of the socket.

mod behind;
mod ending;
mod link;
mod policy;
mod program;
mod protocol;
mod relay;
mod run;
mod table;

use std::ffi::{OsStr, OsString};

pub use link::{Keeper, Kept, LastRun};
pub use protocol::Ended;

/// Tells the server that its stdin is the keeper's socket.
pub const KEPT_FLAG: &str = "--kept";

/// Tells the server that it came up and died too often: it only says so.
pub const SAFE_MODE_FLAG: &str = "--safe-mode";

/// Exit code of a server that wants to be started again (EX_TEMPFAIL of sysexits.h).
pub const RESTART_CODE: i32 = 75;

/// The flags of the command line that take a value, before the verb.
const VALUE_FLAGS: [&str; 3] = ["-t", "--token", "--token-file"];

/// Whether a command line asks for a server that is kept: the verb is `server`, without `--no-keeper`.
pub fn is_asked_for(args: &[OsString]) -> bool {
    let mut rest = args.iter().skip(1);
    let verb = loop {
        let Some(arg) = rest.next() else { return false };
        if VALUE_FLAGS.iter().any(|flag| arg == flag) {
            let _ = rest.next();
        } else if !arg.as_encoded_bytes().starts_with(b"-") {
            break arg;
        }
    };
    let own = |arg: &OsString| [KEPT_FLAG, "--no-keeper", "--help", "-h"].iter().any(|flag| arg == OsStr::new(flag));
    verb == "server" && !rest.any(own)
}

/// Is the keeper until it ends; gives the exit code. `args` as the process was given them.
pub fn run(args: Vec<OsString>) -> i32 {
    run::run(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_is_kept() {
        let asked = |line: &str| is_asked_for(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert!(asked("sandboxd server --no-token"));
        assert!(asked("sandboxd --token server server -p 1"));
        assert!(asked("sandboxd --token=x -n server"));
        assert!(!asked("sandboxd server --no-keeper"));
        assert!(!asked("sandboxd server --kept"));
        assert!(!asked("sandboxd --token server"));
        assert!(!asked("sandboxd daemon start server"));
        assert!(!asked("sandboxd"));
    }
}
