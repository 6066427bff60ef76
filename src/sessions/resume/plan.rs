//! What happened in a session since a turn began, in its order: pure.

use std::collections::HashSet;

use super::heard::{Heard, What};
use crate::acp::Underway;
use crate::sessions::turn::Turn;

/// One thing that happened.
pub(super) enum Op {
    /// A turn went to the agent, which has it as our request of this number; 0 when it has answered. `sent` is set when the
    /// file doesn't have that: the request's id as its client wrote it, and the last position in the agent's stream before.
    Begin { turn: Box<Turn>, request: u64, sent: Option<(String, u64)> },
    /// The agent told something of the session.
    Update { update: String, time_ms: i64 },
    /// The turn was answered.
    End { turn_id: String, answer: Result<String, String> },
}

/// A prompt that went to the agent, of which the file has no turn.
pub(super) struct Fresh {
    pub(super) turn: Turn,
    /// 0 when it has been answered.
    pub(super) request: u64,
    pub(super) client_id: String,
    /// Where in the whole log it was sent.
    pub(super) seq: u64,
}

/// A prompt that a client wrote, in its place.
pub(super) struct Prompt<'a> {
    pub(super) seq: u64,
    pub(super) client_id: &'a str,
    pub(super) params: &'a str,
}

/// What is known of a session's turns.
pub(super) struct Known {
    /// That began, as the file has them; in their order.
    pub(super) turns: Vec<Turn>,
    /// The number of the request by turn, for those under way.
    pub(super) underway: Vec<(String, u64)>,
    pub(super) fresh: Vec<Fresh>,
    /// Turns of ours that run for the file and were never sent.
    pub(super) unsent: Vec<String>,
}

impl Known {
    /// Sorts prompts under way to turns that run. Those that no turn is known of are left in `underway`.
    pub(super) fn new(turns: Vec<Turn>, underway: &mut Vec<Underway>) -> Self {
        let mut numbers = Vec::new();
        for turn in turns.iter().filter(|turn| turn.state == "running") {
            let client_id = turn.doc.sent.as_ref().map(|sent| sent.client_id.as_str());
            let is_it = |prompt: &Underway| match &prompt.tag {
                Some(tag) => *tag == turn.id,
                None => Some(prompt.client_id.as_str()) == client_id,
            };
            if let Some(at) = underway.iter().position(is_it) {
                numbers.push((turn.id.clone(), underway.remove(at).number));
            }
        }
        Self { turns, underway: numbers, fresh: Vec::new(), unsent: Vec::new() }
    }

    fn number(&self, turn_id: &str) -> Option<u64> {
        self.underway.iter().find(|(id, _)| id == turn_id).map(|(_, number)| *number)
    }

    /// The answer to a turn that isn't under way: its place in the agent's stream.
    fn answer(&self, turn: &Turn, heard: &[Heard]) -> Option<u64> {
        let sent = turn.doc.sent.as_ref().filter(|_| self.number(&turn.id).is_none())?;
        let after = |heard: &Heard| heard.at > sent.events_after;
        let refused = || {
            let is_it = |heard: &&Heard| matches!(&heard.what, What::Answer { id, answer: Err(_) } if *id == sent.client_id);
            heard.iter().filter(|heard| after(heard)).find(is_it).map(|heard| heard.at)
        };
        prompted(heard, &sent.client_id, after).or_else(refused)
    }

    /// Those of the prompts (a session's, oldest first) that the file has no turn of. `after` is where in the whole log the
    /// first known turn began at the earliest. Those that a client was refused have no turn: only a prompt's answer counts.
    pub(super) fn unknown<'a>(
        &self,
        prompts: &'a [Prompt<'a>],
        after: u64,
        underway: &[Underway],
        heard: &[Heard],
    ) -> Vec<&'a Prompt<'a>> {
        let mut ids = self.turns.iter().filter_map(|turn| turn.doc.sent.as_ref()).map(|sent| sent.client_id.as_str());
        let mut next = ids.next();
        let first = next.and_then(|id| {
            let position = |from: u64| prompts.iter().position(|prompt| prompt.client_id == id && prompt.seq > from);
            position(after).or_else(|| position(0))
        });
        let mut unknown = Vec::new();
        for prompt in &prompts[first.unwrap_or(0)..] {
            if next == Some(prompt.client_id) {
                next = ids.next();
                continue;
            }
            // Ours have their turn's id. A server that was killed before it sent one wrote it into the log, too.
            if self.turns.iter().any(|turn| is_id_of(turn, prompt.client_id)) {
                continue;
            }
            let is_underway = underway.iter().any(|other| other.client_id == prompt.client_id);
            if is_underway || prompted(heard, prompt.client_id, |heard| heard.seq > prompt.seq).is_some() {
                unknown.push(prompt);
            }
        }
        unknown
    }

    /// Ids under which clients may get answers to prompts.
    pub(super) fn client_ids(&self, prompts: &[Prompt<'_>]) -> HashSet<String> {
        let known = self.turns.iter().filter_map(|turn| turn.doc.sent.as_ref()).map(|sent| sent.client_id.clone());
        known.chain(prompts.iter().map(|prompt| prompt.client_id.to_owned())).collect()
    }

    /// True for a turn that is known by now.
    pub(super) fn has(&self, turn_id: &str) -> bool {
        self.turns.iter().chain(self.fresh.iter().map(|fresh| &fresh.turn)).any(|turn| turn.id == turn_id)
    }

    /// Turns that run for the file, and that neither the agent has nor an answer is known of.
    pub(super) fn lost(&self, heard: &[Heard]) -> Vec<Turn> {
        let is_out = |turn: &Turn| self.number(&turn.id).is_none() && !self.unsent.contains(&turn.id);
        let lost = |turn: &&Turn| turn.state == "running" && is_out(turn) && self.answer(turn, heard).is_none();
        self.turns.iter().filter(lost).cloned().collect()
    }

    /// Picks those of the lost turns that never got to the agent: each of its requests is known until its answer is in the
    /// log, which here is whole (`heard`). A message that was taken in is still owed to whoever sent it; a client of ACP whose
    /// POST was cut off asks again.
    pub(super) fn find_unsent(&mut self, heard: &[Heard]) {
        let is_same_agent = |turn: &Turn| {
            let began = turn.doc.sent.as_ref().map_or(0, |sent| sent.events_after);
            !heard.iter().any(|heard| matches!(heard.what, What::Restarted) && heard.at > began)
        };
        let unsent = self.lost(heard).into_iter().filter(|turn| turn.doc.origin != "acp" && is_same_agent(turn));
        self.unsent = unsent.map(|turn| turn.id).collect();
    }

    /// Turns that were answered, each with the answer's place in the agent's stream.
    fn ends(&self, heard: &[Heard]) -> Vec<(String, u64)> {
        let known = self.turns.iter().filter_map(|turn| Some((turn.id.clone(), self.answer(turn, heard)?)));
        let fresh = self.fresh.iter().filter(|fresh| fresh.request == 0).filter_map(|fresh| {
            let at = prompted(heard, &fresh.client_id, |heard| heard.seq > fresh.seq)?;
            Some((fresh.turn.id.clone(), at))
        });
        known.chain(fresh).collect()
    }

    /// Everything in its order. `session` is what clients call it, `newest` where the agent's stream ends.
    pub(super) fn ops(self, session: &str, heard: Vec<Heard>, newest: u64) -> Vec<Op> {
        let lost = self.lost(&heard);
        let mut ends = self.ends(&heard);
        let begins = self.turns.iter().filter(|turn| !lost.iter().any(|lost| lost.id == turn.id));
        let mut begins: Vec<_> = begins
            .map(|turn| {
                let after = turn.doc.sent.as_ref().map_or(0, |sent| sent.events_after);
                (after, Op::Begin { turn: Box::new(turn.clone()), request: self.number(&turn.id).unwrap_or(0), sent: None })
            })
            .collect();
        begins.sort_by_key(|(after, _)| *after);
        let mut begins = begins.into_iter().peekable();
        let mut fresh = self.fresh;
        fresh.sort_by_key(|fresh| fresh.seq);
        let mut fresh = fresh.into_iter().peekable();
        let mut ops = Vec::new();
        for Heard { seq, at, what, time_ms } in heard {
            while let Some((_, begin)) = begins.next_if(|(after, _)| *after < at) {
                ops.push(begin);
            }
            while let Some(fresh) = fresh.next_if(|fresh| fresh.seq < seq) {
                ops.push(fresh.begin(at - 1));
            }
            match what {
                What::Update { session: of, update } if of == session => ops.push(Op::Update { update, time_ms }),
                What::Answer { answer, .. } => {
                    if let Some(end) = ends.iter().position(|(_, end)| *end == at) {
                        ops.push(Op::End { turn_id: ends.swap_remove(end).0, answer });
                    }
                }
                _ => {}
            }
        }
        ops.extend(begins.map(|(_, begin)| begin));
        ops.extend(fresh.map(|fresh| fresh.begin(newest)));
        ops
    }
}

/// True of the id, as it is written, under which we send this turn.
fn is_id_of(turn: &Turn, client_id: &str) -> bool {
    client_id.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) == Some(turn.id.as_str())
}

/// The answer to a prompt under this id of its client's: its place in the agent's stream. The id may be another client's,
/// too: an answer that gives a stop reason is a prompt's.
fn prompted(heard: &[Heard], client_id: &str, is_later: impl Fn(&Heard) -> bool) -> Option<u64> {
    let is_it = |heard: &&Heard| match &heard.what {
        What::Answer { id, answer: Ok(result) } => id == client_id && crate::acp::raw_member(result, "stopReason").is_some(),
        _ => false,
    };
    heard.iter().filter(|heard| is_later(heard)).find(is_it).map(|heard| heard.at)
}

impl Fresh {
    fn begin(self, events_after: u64) -> Op {
        let sent = Some((self.client_id, events_after));
        Op::Begin { turn: Box::new(self.turn), request: self.request, sent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::begin::Sent;

    /// A turn that the file has with its beginning, sent under this id.
    fn turn(id: &str, client_id: &str) -> Turn {
        let mut turn = Turn::of_acp(1, "null", 0);
        id.clone_into(&mut turn.id);
        turn.sent(Sent { client_id: client_id.to_owned(), events_after: 5, ..Sent::default() }, 0);
        turn
    }

    #[test]
    fn what_is_in_the_log_twice_is_one_message() {
        let prompts = [10, 12].map(|seq| Prompt { seq, client_id: r#""turn_a""#, params: "null" });
        let answer = What::Answer { id: r#""turn_a""#.to_owned(), answer: Ok(r#"{"stopReason":"end_turn"}"#.to_owned()) };
        let heard = [Heard { seq: 20, at: 6, what: answer, time_ms: 0 }];
        let known = Known::new(vec![turn("turn_a", r#""turn_a""#)], &mut Vec::new());
        assert!(known.unknown(&prompts, 9, &[], &heard).is_empty());
        // A client of ACP may give its id again: that is another message.
        let prompts = [10, 12].map(|seq| Prompt { seq, client_id: "1", params: "null" });
        let answer = What::Answer { id: "1".to_owned(), answer: Ok(r#"{"stopReason":"end_turn"}"#.to_owned()) };
        let heard = [Heard { seq: 20, at: 6, what: answer, time_ms: 0 }];
        let known = Known::new(vec![turn("turn_a", "1")], &mut Vec::new());
        assert_eq!(known.unknown(&prompts, 9, &[], &heard).len(), 1);
    }
}
