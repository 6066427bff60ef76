//! Which request is whose. Towards the agent every request has a number of ours; on the client's side it keeps the id
//! that the client chose, so two clients may use the same id at once. Pure: no I/O, no clock.

use std::collections::{HashMap, HashSet, VecDeque};

/// A request on its way: what to call it on the client's side, and who waits.
#[derive(Debug)]
pub struct Pending<W> {
    /// The client's id as it is written; `null` for requests of our own.
    pub client_id: String,
    /// Its method.
    pub method: String,
    /// Its params as written, for the few methods that are remembered.
    pub params: Option<String>,
    /// Its session as clients call it, for methods whose answer says something about it.
    pub session: Option<String>,
    /// What its sender gave along.
    pub tag: Option<String>,
    /// Who waits.
    pub waiter: W,
}

impl<W> Pending<W> {
    /// Who waits, and the rest.
    pub fn without_waiter(self) -> (W, Pending<()>) {
        let Self { client_id, method, params, session, tag, waiter } = self;
        (waiter, Pending { client_id, method, params, session, tag, waiter: () })
    }
}

/// What an answer to a request of the agent's is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// The first one.
    First,
    /// Somebody was first, or the agent process that asked is gone.
    Late,
    /// Nothing of this id was ever asked.
    Unknown,
}

/// Requests in flight in both directions.
#[derive(Debug)]
pub struct Ids<W> {
    next: u64,
    pending: HashMap<u64, Pending<W>>,
    /// Requests of the agent that no client answered yet, by the agent's id as written.
    asked: HashSet<String>,
    /// Such requests of agent processes that are gone, and those that were answered: another answer to one must not
    /// reach the agent. As many as may be in flight, the latest.
    stale: HashSet<String>,
    /// The same, oldest first.
    stale_order: VecDeque<String>,
    max: usize,
}

impl<W> Ids<W> {
    /// At most `max` requests in flight in each direction.
    pub fn new(max: usize) -> Self {
        let (pending, asked, stale, stale_order) = (HashMap::new(), HashSet::new(), HashSet::new(), VecDeque::new());
        Self { next: 1, pending, asked, stale, stale_order, max }
    }

    /// As an earlier run left them: the numbers go on from `next`, and `answered` are requests of the agent's that were
    /// answered of late.
    pub fn resume(
        max: usize,
        next: u64,
        pending: impl Iterator<Item = (u64, Pending<W>)>,
        asked: impl IntoIterator<Item = String>,
        answered: impl IntoIterator<Item = String>,
    ) -> Self {
        let mut ids = Self { next, pending: pending.collect(), asked: asked.into_iter().collect(), ..Self::new(max) };
        answered.into_iter().for_each(|id| ids.outdate(id));
        ids
    }

    /// Another answer to this one is late.
    fn outdate(&mut self, id: String) {
        if self.max == 0 || self.asked.contains(&id) || !self.stale.insert(id.clone()) {
            return;
        }
        self.stale_order.push_back(id);
        if self.stale_order.len() > self.max
            && let Some(oldest) = self.stale_order.pop_front()
        {
            self.stale.remove(&oldest);
        }
    }

    /// Requests of the agent's that were answered of late, at most so many, oldest first.
    pub fn answered_of_late(&self, most: usize) -> impl Iterator<Item = &str> {
        self.stale_order.range(self.stale_order.len().saturating_sub(most)..).map(String::as_str)
    }

    /// The number of the next request.
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// A request in flight.
    pub fn get(&self, number: u64) -> Option<&Pending<W>> {
        self.pending.get(&number)
    }

    /// What is in flight towards the agent.
    pub fn pending(&self) -> impl Iterator<Item = (u64, &Pending<W>)> {
        self.pending.iter().map(|(number, pending)| (*number, pending))
    }

    /// The agent's open requests, by its ids.
    pub fn asked(&self) -> impl Iterator<Item = &str> {
        self.asked.iter().map(String::as_str)
    }

    /// Takes a request in and gives its number towards the agent; gives it back when there are too many.
    ///
    /// # Errors
    /// The request itself, when the bound is reached.
    pub fn insert(&mut self, pending: Pending<W>) -> Result<u64, Pending<W>> {
        if self.pending.len() >= self.max {
            return Err(pending);
        }
        Ok(self.insert_own(pending))
    }

    /// The same for a request of our own, of which there is one at a time: it goes beyond the bound.
    pub fn insert_own(&mut self, pending: Pending<W>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.pending.insert(number, pending);
        number
    }

    /// The request that an answer with this id (as the agent wrote it) belongs to; it is no longer in flight then.
    pub fn take(&mut self, agent_side_id: &str) -> Option<Pending<W>> {
        agent_side_id.parse().ok().and_then(|number: u64| self.pending.remove(&number))
    }

    /// True when a request in flight is such.
    pub fn any(&self, fits: impl Fn(&Pending<W>) -> bool) -> bool {
        self.pending.values().any(fits)
    }

    /// Towards the agent, the number of the latest request that a client knows by this id.
    pub fn number_of(&self, client_id: &str) -> Option<u64> {
        self.pending.iter().filter(|(_, pending)| pending.client_id == client_id).map(|(number, _)| *number).max()
    }

    /// True while something is asked in either direction.
    pub fn are_any(&self) -> bool {
        !self.pending.is_empty() || !self.asked.is_empty()
    }

    /// Everything in flight, because the agent is gone: oldest first. Its own open requests become stale.
    pub fn drain(&mut self) -> Vec<(u64, Pending<W>)> {
        for id in std::mem::take(&mut self.asked) {
            self.outdate(id);
        }
        let mut all: Vec<_> = self.pending.drain().collect();
        all.sort_by_key(|(number, _)| *number);
        all
    }

    /// The agent asks something under its own id.
    pub fn agent_asked(&mut self, id: &str) {
        if self.stale.remove(id) {
            self.stale_order.retain(|stale| stale != id); // it is used again: the answer is now for this one
        }
        if self.asked.len() < self.max {
            self.asked.insert(id.to_owned());
        }
    }

    /// Somebody answers.
    pub fn answered(&mut self, id: &str) -> Taken {
        if self.asked.remove(id) {
            self.outdate(id.to_owned());
            return Taken::First;
        }
        if self.stale.contains(id) { Taken::Late } else { Taken::Unknown }
    }

    /// The agent takes a request back.
    pub fn withdrawn(&mut self, id: &str) -> bool {
        self.answered(id) == Taken::First
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pending(client_id: &str, waiter: u32) -> Pending<u32> {
        Pending { client_id: client_id.into(), method: "m".into(), params: None, session: None, tag: None, waiter }
    }

    #[test]
    fn two_clients_may_use_one_id() {
        let mut ids = Ids::new(8);
        let first = ids.insert(pending("1", 10)).expect("room");
        let second = ids.insert(pending("1", 20)).expect("room");
        assert_eq!(ids.number_of("1"), Some(second));
        assert_eq!(ids.take(&second.to_string()).map(|pending| pending.waiter), Some(20));
        assert_eq!(ids.take(&first.to_string()).map(|pending| pending.waiter), Some(10));
        assert!(ids.take(&first.to_string()).is_none());
    }

    #[test]
    fn an_answer_for_a_dead_agent_does_not_reach_its_successor() {
        let mut ids: Ids<u32> = Ids::new(8);
        ids.agent_asked("5");
        ids.drain();
        assert_eq!(ids.answered("5"), Taken::Late);
        ids.agent_asked("5");
        assert_eq!([ids.answered("5"), ids.answered("5"), ids.answered("6")], [Taken::First, Taken::Late, Taken::Unknown]);
    }

    #[test]
    fn a_second_answer_is_late_under_the_next_server_too() {
        let mut ids: Ids<u32> = Ids::new(2);
        for id in ["1", "2", "3"] {
            ids.agent_asked(id);
            assert_eq!(ids.answered(id), Taken::First);
        }
        assert_eq!(ids.answered("1"), Taken::Unknown, "the oldest goes");
        let answered: Vec<_> = ids.answered_of_late(8).map(str::to_owned).collect();
        assert_eq!(answered, ["2", "3"]);
        let mut next: Ids<u32> = Ids::resume(2, 7, std::iter::empty(), ["3".to_owned()], answered);
        assert_eq!([next.answered("2"), next.answered("3"), next.answered("3")], [Taken::Late, Taken::First, Taken::Late]);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u8),
        Answer(u64),
        Drain,
    }

    proptest! {
        /// Whatever happens, each request is given back exactly once: by its answer or by the drain.
        #[test]
        fn no_waiter_is_lost_or_doubled(steps in proptest::collection::vec(prop_oneof![
            any::<u8>().prop_map(Step::Insert), (0u64..40).prop_map(Step::Answer), Just(Step::Drain)
        ], 0..80)) {
            let mut ids = Ids::new(16);
            let (mut inserted, mut returned) = (0u32, Vec::new());
            for step in steps {
                match step {
                    Step::Insert(client_id) => {
                        inserted += 1;
                        if let Err(refused) = ids.insert(pending(&client_id.to_string(), inserted)) {
                            returned.push(refused.waiter);
                        }
                    }
                    Step::Answer(number) => returned.extend(ids.take(&number.to_string()).map(|pending| pending.waiter)),
                    Step::Drain => returned.extend(ids.drain().into_iter().map(|(_, pending)| pending.waiter)),
                }
            }
            returned.extend(ids.drain().into_iter().map(|(_, pending)| pending.waiter));
            returned.sort_unstable();
            prop_assert_eq!(returned, (1..=inserted).collect::<Vec<_>>());
        }
    }
}
