//! Who has the desktop: decisions, without a clock or a disk.

use serde::{Deserialize, Serialize};

/// Input of others is told no more often.
pub(super) const INTRUDED_EVERY_MS: i64 = 1_000;

/// Who has it, and until when. Times are milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// As it calls itself.
    pub holder: String,
    /// Since when it is this one's.
    pub since_ms: i64,
    /// From then on it is nobody's.
    pub expires_at_ms: i64,
}

/// What became of the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Change {
    Taken,
    TakenOver,
    GivenBack,
    Expired,
    /// Somebody used the pointer or the keyboard without saying who.
    Intruded,
}

/// A change, with who has it now and who had it before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Told {
    pub(super) change: Change,
    pub(super) holder: Option<String>,
    pub(super) previous: Option<String>,
}

/// The lease.
#[derive(Debug, Default)]
pub(super) struct Core {
    held: Option<Held>,
    intruded_at_ms: Option<i64>,
}

/// What an input is to a lease.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    /// It is done, and the holder told.
    Intrusion,
    Refused(Held),
}

impl Core {
    pub(super) fn of(held: Option<Held>) -> Self {
        Self { held, intruded_at_ms: None }
    }

    pub(super) fn held(&self) -> Option<&Held> {
        self.held.as_ref()
    }

    /// Gives it to this one for so long; nothing is told when it only was renewed. Before each other call it is asked to
    /// [`Core::expire`].
    ///
    /// # Errors
    /// Who has it, unless it is taken over.
    pub(super) fn take(&mut self, holder: &str, ttl_ms: i64, take_over: bool, now_ms: i64) -> Result<(Held, Option<Told>), Held> {
        let expires_at_ms = now_ms.saturating_add(ttl_ms);
        let previous = match &mut self.held {
            Some(held) if held.holder == holder => {
                held.expires_at_ms = expires_at_ms;
                return Ok((held.clone(), None));
            }
            Some(held) if !take_over => return Err(held.clone()),
            held => held.take().map(|held| held.holder),
        };
        let held = Held { holder: holder.to_owned(), since_ms: now_ms, expires_at_ms };
        self.held = Some(held.clone());
        self.intruded_at_ms = None;
        let change = if previous.is_some() { Change::TakenOver } else { Change::Taken };
        Ok((held, Some(Told { change, holder: Some(holder.to_owned()), previous })))
    }

    /// `None` when it isn't this one's.
    pub(super) fn give_back(&mut self, holder: &str) -> Option<Told> {
        self.held.take_if(|held| held.holder == holder).map(|held| ended(Change::GivenBack, held))
    }

    /// Ends what is over.
    pub(super) fn expire(&mut self, now_ms: i64) -> Option<Told> {
        self.held.take_if(|held| held.expires_at_ms <= now_ms).map(|held| ended(Change::Expired, held))
    }

    /// Somebody came in between; `None` when nobody has it, or the holder was told of another one just now.
    pub(super) fn intrude(&mut self, now_ms: i64) -> Option<Told> {
        let holder = self.held.as_ref()?.holder.clone();
        // A clock that was set back doesn't silence it.
        if self.intruded_at_ms.is_some_and(|at_ms| (0..INTRUDED_EVERY_MS).contains(&now_ms.saturating_sub(at_ms))) {
            return None;
        }
        self.intruded_at_ms = Some(now_ms);
        Some(Told { change: Change::Intruded, holder: Some(holder), previous: None })
    }
}

fn ended(change: Change, held: Held) -> Told {
    Told { change, holder: None, previous: Some(held.holder) }
}

/// What an input of `who` is, while this is held. `None` doesn't say who it is.
pub(super) fn judge(held: Option<&Held>, who: Option<&str>, now_ms: i64) -> Verdict {
    let Some(held) = held.filter(|held| held.expires_at_ms > now_ms) else { return Verdict::Fine };
    match who {
        None => Verdict::Intrusion,
        Some(who) if who == held.holder => Verdict::Fine,
        Some(_) => Verdict::Refused(held.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(change: Change, holder: Option<&str>, previous: Option<&str>) -> Option<Told> {
        Some(Told { change, holder: holder.map(str::to_owned), previous: previous.map(str::to_owned) })
    }

    /// What is told of it, or who has it.
    fn take(core: &mut Core, holder: &str, ttl_ms: i64, take_over: bool, now_ms: i64) -> Result<Option<Told>, Held> {
        core.take(holder, ttl_ms, take_over, now_ms).map(|(_, told)| told)
    }

    #[test]
    fn it_is_taken_renewed_refused_and_given_back() {
        let mut core = Core::default();
        assert_eq!(take(&mut core, "a", 100, false, 1_000), Ok(told(Change::Taken, Some("a"), None)));
        assert_eq!(take(&mut core, "a", 300, false, 1_050), Ok(None));
        let held = Held { holder: "a".into(), since_ms: 1_000, expires_at_ms: 1_350 };
        assert_eq!(take(&mut core, "b", 100, false, 1_100), Err(held.clone()));
        assert_eq!(core.held(), Some(&held));
        assert_eq!(core.give_back("b"), None, "it isn't b's");
        assert_eq!(core.give_back("a"), told(Change::GivenBack, None, Some("a")));
        assert_eq!((core.give_back("a"), core.held()), (None, None));
    }

    #[test]
    fn it_is_taken_over_by_whoever_insists() {
        let mut core = Core::default();
        take(&mut core, "a", 100, true, 0).expect("free");
        assert_eq!(take(&mut core, "b", 100, true, 10), Ok(told(Change::TakenOver, Some("b"), Some("a"))));
        assert_eq!(core.held().map(|held| held.since_ms), Some(10));
        assert_eq!(core.give_back("a"), None);
    }

    #[test]
    fn it_ends_when_its_time_is_over() {
        let mut core = Core::default();
        take(&mut core, "a", 100, false, 0).expect("free");
        assert_eq!(core.expire(99), None);
        assert_eq!(core.expire(100), told(Change::Expired, None, Some("a")));
        assert_eq!(core.expire(101), None);
        assert_eq!(take(&mut core, "b", i64::MAX, false, 101), Ok(told(Change::Taken, Some("b"), None)));
    }

    #[test]
    fn input_of_others_is_refused_and_of_nobody_is_told_now_and_then() {
        let held = Held { holder: "a".into(), since_ms: 0, expires_at_ms: 100 };
        assert_eq!(judge(None, Some("b"), 0), Verdict::Fine);
        assert_eq!(judge(Some(&held), Some("a"), 0), Verdict::Fine);
        assert_eq!(judge(Some(&held), Some("b"), 0), Verdict::Refused(held.clone()));
        assert_eq!(judge(Some(&held), None, 99), Verdict::Intrusion);
        assert_eq!(judge(Some(&held), Some("b"), 100), Verdict::Fine, "it is over");
        let mut core = Core::of(Some(held));
        assert_eq!(core.intrude(0), told(Change::Intruded, Some("a"), None));
        assert_eq!((core.intrude(1), core.intrude(999)), (None, None));
        assert_eq!(core.intrude(1_000), told(Change::Intruded, Some("a"), None));
        assert!(core.intrude(500).is_some(), "the clock was set back");
        assert_eq!(Core::default().intrude(0), None);
    }
}
