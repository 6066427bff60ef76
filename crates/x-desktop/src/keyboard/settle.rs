//! Waiting until the programs that were in focus have handled the keys that were pressed.
//!
//! Each is asked with `_NET_WM_PING` (EWMH 1.5), which a program answers when it comes to it in its queue, behind the keys. One
//! that doesn't know that message is watched: once no thread of its process has run for a while, its queue is empty. Where the
//! process can't be seen, a pause has to do.

use std::path::Path;
use std::time::{Duration, Instant};

use x11rb::connection::{Connection as _, RequestConnection as _};
use x11rb::protocol::res::{self, ConnectionExt as _};
use x11rb::protocol::xproto::{AtomEnum, ClientMessageEvent, ConnectionExt as _, EventMask, Window};

use crate::{Display, Error, Result};

/// A program that hasn't answered by then hangs, and would read other characters than were typed.
const LIMIT: Duration = Duration::from_secs(10);

/// A program that never sleeps for long, since it plays a film, has had time enough.
const WATCHED: Duration = Duration::from_secs(2);

/// For a program that neither answers nor can be watched.
const BLIND: Duration = Duration::from_millis(200);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(2);

/// So many looks in a row at a process that hasn't run since make it idle.
const IDLE_LOOKS: u32 = 8;

/// Threads of a process that are looked at.
const THREADS_MAX: usize = 256;

/// Windows between the one in focus and the root.
const DEPTH_MAX: usize = 32;

/// Protocols of a window that are looked at.
const PROTOCOLS_MAX: u32 = 64;

/// In place of a window in focus: the one under the pointer (X11 protocol, SetInputFocus).
const POINTER_ROOT: Window = 1;

enum By {
    Ping { token: u32 },
    Watch { pid: u32, before: Option<Asleep>, idle: u32 },
    Pause,
}

/// A wait that has begun.
pub(crate) struct Settling {
    by: By,
    window: Window,
    since: Instant,
    /// What is settled then.
    pub mark: u64,
}

impl Display {
    /// How much longer to wait before what was pressed before the first call has been handled; `None`: it has.
    pub(super) fn settle(&mut self) -> Result<Option<Duration>> {
        // The server has done what the program asked for before: it sleeps for want of keys, not of answers.
        self.sync()?;
        self.drain()?;
        let settling = self.keyboard.settling.take();
        let Some(mut settling) = settling else {
            if self.keyboard.pool.is_settled() {
                return Ok(None);
            }
            let window = self.keyboard.unsettled.first().copied().unwrap_or(self.keyboard.focus);
            let mark = self.keyboard.pool.mark();
            self.keyboard.settling = Some(Settling { by: self.begin(window)?, window, since: Instant::now(), mark });
            return Ok(Some(LOOK));
        };
        if self.is_over(&mut settling) {
            // What is pressed meanwhile notes its window again.
            self.keyboard.unsettled.retain(|window| *window != settling.window);
            if self.keyboard.unsettled.is_empty() {
                self.keyboard.pool.settle(settling.mark);
            }
            return self.settle();
        }
        if settling.since.elapsed() > LIMIT {
            return Err(Error::TimedOut {
                what: "taking the keys typed so far, by the program in focus,",
                timeout_ms: LIMIT.as_millis() as u64,
            });
        }
        self.keyboard.settling = Some(settling);
        Ok(Some(LOOK))
    }

    fn is_over(&self, settling: &mut Settling) -> bool {
        match &mut settling.by {
            By::Ping { token } => self.keyboard.pong == Some(*token),
            By::Pause => settling.since.elapsed() >= BLIND,
            By::Watch { pid, before, idle } => {
                let now = asleep(*pid);
                let is_same = now.is_some() && now == *before;
                *idle = if is_same { *idle + 1 } else { 0 };
                *before = now;
                *idle >= IDLE_LOOKS || settling.since.elapsed() >= WATCHED
            }
        }
    }

    fn begin(&mut self, focus: Window) -> Result<By> {
        let focus = match focus {
            POINTER_ROOT => self.conn.query_pointer(self.root)?.reply()?.child,
            focus => focus,
        };
        if focus == x11rb::NONE {
            return Ok(By::Pause);
        }
        match self.asked(focus) {
            Ok(Some(token)) => return Ok(By::Ping { token }),
            Ok(None) | Err(Error::NoWindow(_)) => {}
            Err(error) => return Err(error),
        }
        let pid = self.process_of(focus).ok().flatten().filter(|pid| std::fs::exists(threads(*pid)).unwrap_or(false));
        Ok(pid.map_or(By::Pause, |pid| By::Watch { pid, before: None, idle: 0 }))
    }

    /// Sends a ping to the first window from `window` upwards that knows it.
    fn asked(&mut self, mut window: Window) -> Result<Option<u32>> {
        let atoms = &self.atoms;
        for _ in 0..DEPTH_MAX {
            let protocols = self.conn.get_property(false, window, atoms.WM_PROTOCOLS, AtomEnum::ATOM, 0, PROTOCOLS_MAX)?;
            let parent = self.conn.query_tree(window)?;
            let known = protocols.reply()?.value32().is_some_and(|mut known| known.any(|atom| atom == atoms._NET_WM_PING));
            if known {
                // Window managers count their own pings from small numbers.
                let token = 0x5a00_0000 | (self.keyboard.pings & 0xff_ffff);
                self.keyboard.pings = self.keyboard.pings.wrapping_add(1);
                let data = [atoms._NET_WM_PING, token, window, 0, 0];
                let message = ClientMessageEvent::new(32, window, atoms.WM_PROTOCOLS, data);
                self.conn.send_event(false, window, EventMask::NO_EVENT, message)?;
                self.conn.flush()?;
                return Ok(Some(token));
            }
            window = parent.reply()?.parent;
            if window == self.root || window == x11rb::NONE {
                break;
            }
        }
        Ok(None)
    }

    /// The process that made a window, if it is on this machine and the server tells (X-Resource 1.2).
    fn process_of(&self, window: Window) -> Result<Option<u32>> {
        if self.conn.extension_information(res::X11_EXTENSION_NAME)?.is_none() {
            return Ok(None);
        }
        let spec = res::ClientIdSpec { client: window, mask: res::ClientIdMask::LOCAL_CLIENT_PID };
        let reply = self.conn.res_query_client_ids(&[spec])?.reply()?;
        Ok(reply.ids.first().and_then(|id| id.value.first()).copied())
    }
}

/// How often each thread of a process that sleeps had gone to sleep, or was sent to: the same numbers twice say that nothing ran
/// in between.
type Asleep = Vec<[u64; 2]>;

fn threads(pid: u32) -> String {
    format!("/proc/{pid}/task")
}

/// `None` if the process runs, or isn't seen from here.
fn asleep(pid: u32) -> Option<Asleep> {
    let threads = std::fs::read_dir(threads(pid)).ok()?.take(THREADS_MAX);
    threads.map(|thread| switches(&thread.ok()?.path().join("status"))).collect()
}

/// proc_pid_status(5).
fn switches(status: &Path) -> Option<[u64; 2]> {
    let status = std::fs::read_to_string(status).ok()?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let is_asleep = field("State:")?.starts_with('S');
    let switches = [field("voluntary_ctxt_switches:")?.parse().ok()?, field("nonvoluntary_ctxt_switches:")?.parse().ok()?];
    is_asleep.then_some(switches)
}
