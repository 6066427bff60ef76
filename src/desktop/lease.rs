//! Two who use one desktop: the lease says whose it is. It is advisory.
//!
//! ```text
//! nobody's ──take──▶ held ──take by the same: renewed; take over: another's──▶ held
//!    ▲                │ given back, or its time is over
//!    └────────────────┘
//! ```
//! Task `desktop-lease` alone moves it and tells each change, as event `desktop.control`. Input that says whose it is is refused
//! while somebody else has the lease; input that doesn't is done, and the holder told. It lasts over restarts of the desktop and
//! of the server.

mod core;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};
use utoipa::ToSchema;

pub use self::core::Held;
use self::core::{Core, Told, Verdict, judge};
use super::{Error, MAILBOX_MAX, Parts};
use crate::rt::clock::{now_ms, rfc3339};
use crate::rt::spawn_owned;

/// Where it is kept in the desktop's directory.
const FILE: &str = "lease.json";

/// How often the wall clock is looked at while somebody has it: it may be set, or stand while the machine sleeps.
const CLOCK_LOOKED_AT: Duration = Duration::from_secs(30);

/// A holder's name is no longer.
const HOLDER_MAX_BYTES: usize = 128;

/// The lease that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaseSpec {
    /// Who wants it: 1 to 128 characters of ASCII, as in the header `X-Desktop-Holder`.
    pub holder: String,
    /// For so long from now, 1 to `desktop_lease_ttl_max_ms`.
    pub ttl_ms: u64,
    /// True takes it from whoever has it.
    #[serde(default)]
    pub take_over: bool,
}

/// Who has the desktop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaseInfo {
    /// Whether anybody has.
    pub held: bool,
    /// Who.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// Since when, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// When it ends unless it is renewed, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

impl LeaseInfo {
    fn of(held: Option<&Held>) -> Self {
        Self {
            held: held.is_some(),
            holder: held.map(|held| held.holder.clone()),
            since: held.map(|held| rfc3339(held.since_ms)),
            expires_at: held.map(|held| rfc3339(held.expires_at_ms)),
        }
    }
}

enum Command {
    Take { spec: LeaseSpec, reply: oneshot::Sender<Result<Held, Held>> },
    GiveBack { holder: String, reply: oneshot::Sender<()> },
    Intruded,
}

/// The lease as its users see it. A cheap handle.
#[derive(Clone)]
pub struct LeaseHandle {
    mailbox: mpsc::Sender<Command>,
    held: watch::Receiver<Option<Held>>,
    ttl_max_ms: u64,
}

impl LeaseHandle {
    /// Starts the owner. It goes on with what the last server left.
    pub(super) fn start(parts: &Arc<Parts>) -> Self {
        let kept = parts.home.as_ref().and_then(|home| home.kept(FILE));
        let core = Core::of(kept);
        let (mailbox, commands) = mpsc::channel(MAILBOX_MAX);
        let (publish, held) = watch::channel(core.held().cloned());
        let task = LeaseTask { parts: Arc::clone(parts), core, mailbox: commands, publish };
        spawn_owned("desktop-lease", task.run());
        Self { mailbox, held, ttl_max_ms: parts.bounds.desktop_lease_ttl_max_ms }
    }

    /// Who has it now.
    pub fn info(&self) -> LeaseInfo {
        LeaseInfo::of(self.held.borrow().as_ref().filter(|held| held.expires_at_ms > now_ms()))
    }

    /// Hears of each other holder and each other end.
    pub fn follow(&self) -> watch::Receiver<Option<Held>> {
        self.held.clone()
    }

    /// Takes or renews it. Dropping the future doesn't give it back.
    ///
    /// # Errors
    /// [`Error::Leased`] when somebody else has it and it isn't to be taken over; [`Error::Invalid`].
    pub async fn take(&self, spec: LeaseSpec) -> Result<LeaseInfo, Error> {
        check_holder(&spec.holder)?;
        if spec.ttl_ms == 0 || spec.ttl_ms > self.ttl_max_ms {
            return Err(Error::Invalid(format!("ttlMs is 1 to {}, not {}", self.ttl_max_ms, spec.ttl_ms)));
        }
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(Command::Take { spec, reply }).await.map_err(|_| Error::Stopping)?;
        let held = answer.await.map_err(|_| Error::Stopping)?.map_err(leased)?;
        Ok(LeaseInfo::of(Some(&held)))
    }

    /// Gives it back; what isn't this one's stays as it is. Dropping the future doesn't keep it.
    ///
    /// # Errors
    /// [`Error::Stopping`].
    pub async fn give_back(&self, holder: String) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(Command::GiveBack { holder, reply }).await.map_err(|_| Error::Stopping)?;
        answer.await.map_err(|_| Error::Stopping)
    }

    /// Whether an input of `who` may be made; when nobody says whose it is, it may, and the holder is told.
    ///
    /// # Errors
    /// [`Error::Leased`]; [`Error::Invalid`] for what is no holder's name.
    pub fn admit(&self, who: Option<&str>) -> Result<(), Error> {
        who.map_or(Ok(()), check_holder)?;
        let verdict = judge(self.held.borrow().as_ref(), who, now_ms());
        match verdict {
            Verdict::Fine => Ok(()),
            Verdict::Refused(held) => Err(leased(held)),
            Verdict::Intrusion => {
                let _ = self.mailbox.try_send(Command::Intruded); // full: the owner hears of it often enough
                Ok(())
            }
        }
    }
}

fn leased(held: Held) -> Error {
    Error::Leased { holder: held.holder, expires_at: rfc3339(held.expires_at_ms) }
}

/// As it can stand in a header.
fn check_holder(holder: &str) -> Result<(), Error> {
    let is_name = !holder.is_empty()
        && holder.len() <= HOLDER_MAX_BYTES
        && holder.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        && holder.trim() == holder;
    is_name.then_some(()).ok_or_else(|| {
        Error::Invalid(format!("a holder's name is 1 to {HOLDER_MAX_BYTES} characters of ASCII, without blanks around them"))
    })
}

/// The owner.
struct LeaseTask {
    parts: Arc<Parts>,
    core: Core,
    mailbox: mpsc::Receiver<Command>,
    publish: watch::Sender<Option<Held>>,
}

impl LeaseTask {
    async fn run(mut self) {
        loop {
            self.expire(now_ms());
            tokio::select! {
                command = self.mailbox.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                () = until_end(self.core.held()) => {}
            }
        }
    }

    fn obey(&mut self, command: Command) {
        let now_ms = now_ms();
        self.expire(now_ms);
        match command {
            Command::Take { spec, reply } => {
                let ttl_ms = i64::try_from(spec.ttl_ms).unwrap_or(i64::MAX);
                let taken = self.core.take(&spec.holder, ttl_ms, spec.take_over, now_ms);
                let taken = taken.map(|(held, told)| {
                    self.moved(told);
                    held
                });
                let _ = reply.send(taken); // the client may have left
            }
            Command::GiveBack { holder, reply } => {
                if let Some(told) = self.core.give_back(&holder) {
                    self.moved(Some(told));
                }
                let _ = reply.send(()); // as above
            }
            Command::Intruded => {
                if let Some(told) = self.core.intrude(now_ms) {
                    self.tell(&told);
                }
            }
        }
    }

    fn expire(&mut self, now_ms: i64) {
        if let Some(told) = self.core.expire(now_ms) {
            self.moved(Some(told));
        }
    }

    /// It is somebody else's, or for longer: shown, kept and told.
    fn moved(&self, told: Option<Told>) {
        let held = self.core.held();
        self.publish.send_replace(held.cloned());
        if let Some(home) = &self.parts.home {
            home.keep(FILE, held);
        }
        if let Some(told) = told {
            self.tell(&told);
        }
    }

    /// An event for `/v1/events`.
    fn tell(&self, told: &Told) {
        let Told { change, holder, previous } = told;
        let kind = "desktop.control";
        let payload = json!({
            "type": kind,
            "time": rfc3339(now_ms()),
            "change": change,
            "holder": holder,
            "previous": previous,
        });
        self.parts.store.append(&self.parts.events, kind, payload.to_string().into(), None);
        self.parts.store.flush();
    }
}

/// Until it is over, or may be by a clock that was set; never while nobody has it.
async fn until_end(held: Option<&Held>) {
    let Some(held) = held else { return std::future::pending().await };
    let left_ms = u64::try_from(held.expires_at_ms.saturating_sub(now_ms())).unwrap_or(0);
    tokio::time::sleep(Duration::from_millis(left_ms).min(CLOCK_LOOKED_AT)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_a_header_can_say() {
        for name in ["a", "agent 7", "session/ses_1", &"x".repeat(HOLDER_MAX_BYTES)] {
            assert!(check_holder(name).is_ok(), "{name}");
        }
        for name in ["", " a", "a ", "ä", "a\nb", &"x".repeat(HOLDER_MAX_BYTES + 1)] {
            assert!(matches!(check_holder(name), Err(Error::Invalid(_))), "{name}");
        }
    }
}
