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

/// A prompt under way of which the file has no turn that runs.
pub(super) struct Fresh {
    pub(super) turn: Turn,
    pub(super) request: u64,
    pub(super) client_id: String,
    /// Where in the whole log it was sent.
    pub(super) seq: u64,
}

/// What is known of a session's turns.
pub(super) struct Known {
    /// That began, as the file has them; in their order.
    pub(super) turns: Vec<Turn>,
    /// The number of the request by turn, for those under way.
    pub(super) underway: Vec<(String, u64)>,
    pub(super) fresh: Vec<Fresh>,
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
        Self { turns, underway: numbers, fresh: Vec::new() }
    }

    fn number(&self, turn_id: &str) -> Option<u64> {
        self.underway.iter().find(|(id, _)| id == turn_id).map(|(_, number)| *number)
    }

    /// The answer to a turn that isn't under way: its place in the agent's stream, and what it says. An id may be another
    /// client's, too: an answer that gives a stop reason is a prompt's.
    fn answer<'a>(&self, turn: &Turn, heard: &'a [Heard]) -> Option<(u64, &'a Result<String, String>)> {
        let sent = turn.doc.sent.as_ref().filter(|_| self.number(&turn.id).is_none())?;
        let answers = heard.iter().filter(|heard| heard.at > sent.events_after).filter_map(|heard| match &heard.what {
            What::Answer { id, answer } if *id == sent.client_id => Some((heard.at, answer)),
            _ => None,
        });
        let answers: Vec<_> = answers.collect();
        let is_prompts = |(_, answer): &&(u64, &Result<String, String>)| {
            answer.as_ref().is_ok_and(|result| crate::acp::raw_member(result, "stopReason").is_some())
        };
        answers.iter().find(is_prompts).or_else(|| answers.iter().find(|(_, answer)| answer.is_err())).copied()
    }

    /// Turns that run for the file, and that neither the agent has nor an answer is known of: by their ids.
    pub(super) fn lost(&self, heard: &[Heard]) -> HashSet<String> {
        let lost =
            |turn: &&Turn| turn.state == "running" && self.number(&turn.id).is_none() && self.answer(turn, heard).is_none();
        self.turns.iter().filter(lost).map(|turn| turn.id.clone()).collect()
    }

    /// Everything in its order. `session` is what clients call it, `newest` where the agent's stream ends.
    pub(super) fn ops(self, session: &str, heard: Vec<Heard>, newest: u64) -> Vec<Op> {
        let lost = self.lost(&heard);
        let mut ends: Vec<_> =
            self.turns.iter().filter_map(|turn| Some((turn.id.clone(), self.answer(turn, &heard)?.0))).collect();
        let begins = self.turns.iter().filter(|turn| !lost.contains(&turn.id));
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

impl Fresh {
    fn begin(self, events_after: u64) -> Op {
        let sent = Some((self.client_id, events_after));
        Op::Begin { turn: Box::new(self.turn), request: self.request, sent }
    }
}
