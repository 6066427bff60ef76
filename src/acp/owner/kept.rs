//! The agent outlives this server: what the next one has to know is noted before it matters, and taken up by that one.
//!
//! Three places, each with its own order, make one picture. The *log* says how far the agent's stdout was read with what is
//! committed ([`Store::read_to`](crate::store::Store::read_to)); what came later is read again from the tape. The *journal*
//! says which requests are in flight in both directions; what an answer that isn't in the log changed is not so. The *tape*
//! has what was not written to the agent yet.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{FROM_CLIENT, Running, Waiter};
use crate::acp::agent::Taken;
use crate::acp::envelope::Envelope;
use crate::acp::ids::{Ids, Pending};
use crate::acp::messages;
use crate::acp::restore::Heard;
use crate::acp::tap::{Outlived, Underway};
use crate::acp::types::Status;
use crate::config::as_usize;
use crate::rt::clock::now_ms;

/// A request of a client's, with its line: [`Sent`].
pub(super) const SENT: u32 = 1;
/// Another line of a client's: [`Said`].
pub(super) const LINE: u32 = 2;
/// A request was answered: [`Done`].
const DONE: u32 = 3;
/// The agent asks something: [`AskedNote`].
const ASKED: u32 = 4;
/// It was answered, with the line: [`Replied`].
pub(super) const REPLIED: u32 = 5;
/// What the agent process knows: [`Known`].
const HEARD: u32 = 6;
/// The agent took a request back: [`AskedNote`], with the place of that.
const WITHDRAWN: u32 = 7;
/// Requests of the agent's that were answered of late: a list of its ids.
const ANSWERED: u32 = 8;

/// So many of these are kept: clients that answer twice do so soon.
const ANSWERED_MAX: usize = 64;

/// The position in the inbound stream that an envelope has, or will have.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Said {
    pub(super) in_seq: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Sent {
    number: u64,
    client_id: String,
    method: String,
    params: Option<String>,
    session: Option<String>,
    tag: Option<String>,
    in_seq: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Done {
    number: u64,
    /// Behind its answer in the agent's stdout.
    at: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct AskedNote {
    id: String,
    session: Option<String>,
    at: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Replied {
    pub(super) id: String,
    pub(super) by: String,
    pub(super) result: Option<String>,
    pub(super) session: Option<String>,
    /// Where clients are told in the events.
    pub(super) out_seq: u64,
    /// The client's envelope, when one answered.
    pub(super) in_seq: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Known {
    heard: Heard,
    next: u64,
}

pub(super) fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// What a journal says.
#[derive(Default)]
struct Journal {
    sent: BTreeMap<u64, (Sent, Vec<u8>)>,
    done: HashMap<u64, u64>,
    asked: Vec<(AskedNote, Option<Replied>)>,
    /// Behind the word that takes it back, by the agent's id.
    withdrawn: HashMap<String, u64>,
    known: Option<Known>,
    /// Answered of late, oldest first.
    answered: Vec<String>,
    /// Envelopes from clients, by their positions in the inbound stream.
    inbound: BTreeMap<u64, Vec<u8>>,
}

impl Journal {
    fn read(records: Vec<crate::processes::channel::Record>) -> Self {
        let mut journal = Self::default();
        for record in records {
            let about = &record.about[..];
            let line = || record.line.trim_ascii().to_vec();
            match record.kind {
                SENT => {
                    if let Ok(sent) = serde_json::from_slice::<Sent>(about) {
                        journal.inbound.insert(sent.in_seq, with_client_id(&line(), &sent.client_id));
                        journal.sent.insert(sent.number, (sent, record.line));
                    }
                }
                LINE => {
                    if let Ok(Said { in_seq: in_seq @ 1.. }) = serde_json::from_slice(about) {
                        journal.inbound.insert(in_seq, line());
                    }
                }
                DONE => {
                    if let Ok(Done { number, at }) = serde_json::from_slice(about) {
                        journal.done.insert(number, at);
                    }
                }
                ASKED => {
                    if let Ok(asked) = serde_json::from_slice::<AskedNote>(about) {
                        journal.withdrawn.remove(&asked.id); // the same id again
                        journal.answered.retain(|id| *id != asked.id);
                        journal.asked.retain(|(other, _)| other.id != asked.id);
                        journal.asked.push((asked, None));
                    }
                }
                WITHDRAWN => {
                    if let Ok(AskedNote { id, at, .. }) = serde_json::from_slice(about) {
                        journal.withdrawn.insert(id, at);
                    }
                }
                REPLIED => {
                    if let Ok(replied) = serde_json::from_slice::<Replied>(about) {
                        if let Some(in_seq) = replied.in_seq {
                            journal.inbound.insert(in_seq, line());
                        }
                        journal.answered.push(replied.id.clone());
                        let asked = journal.asked.iter_mut().rev().find(|(asked, _)| asked.id == replied.id);
                        if let Some((_, reply)) = asked {
                            *reply = Some(replied);
                        }
                    }
                }
                ANSWERED => journal.answered.extend(serde_json::from_slice::<Vec<String>>(about).unwrap_or_default()),
                HEARD => journal.known = serde_json::from_slice(about).ok().or(journal.known),
                _ => {}
            }
        }
        journal
    }
}

/// An envelope as its client wrote it, for the log.
fn with_client_id(line: &[u8], client_id: &str) -> Vec<u8> {
    match Envelope::parse(Bytes::copy_from_slice(line)) {
        Ok(envelope) => envelope.with_id(client_id).to_vec(),
        Err(_) => line.to_vec(),
    }
}

impl Running {
    /// A request goes to the agent, with its line.
    pub(super) fn sent_note(number: u64, pending: &Pending<Waiter>, in_seq: u64) -> Vec<u8> {
        json(&Sent {
            number,
            client_id: pending.client_id.clone(),
            method: pending.method.clone(),
            params: pending.params.clone(),
            session: pending.session.clone(),
            tag: pending.tag.clone(),
            in_seq,
        })
    }

    /// A request was answered with what was read last.
    pub(super) fn note_done(&mut self, number: u64) {
        let at = self.read_to();
        if let Some(agent) = &mut self.agent {
            agent.note(DONE, || json(&Done { number, at }));
        }
    }

    /// The agent asks something with what was read last.
    pub(super) fn note_asked(&mut self, id: &str, session: Option<&str>) {
        let at = self.read_to();
        if let Some(agent) = &mut self.agent {
            agent.note(ASKED, || json(&AskedNote { id: id.to_owned(), session: session.map(str::to_owned), at }));
        }
    }

    /// The agent takes a request back with what was read last.
    pub(super) fn note_withdrawn(&mut self, id: &str) {
        let at = self.read_to();
        if let Some(agent) = &mut self.agent {
            agent.note(WITHDRAWN, || json(&AskedNote { id: id.to_owned(), session: None, at }));
        }
    }

    /// An answer to a request of ours that is read again.
    pub(super) fn is_own_again(&mut self, answer: &Envelope) -> bool {
        let number = answer.id().and_then(|id| id.parse().ok());
        number.is_some_and(|number| self.own_done.get(&number) == Some(&self.read_to()))
    }

    /// How far the agent's stdout was cut into lines.
    pub(super) fn read_to(&self) -> u64 {
        self.agent.as_ref().map_or(self.last_read_to, |agent| agent.lines.position())
    }

    /// After each step: the tape gives back what is committed, and the journal what is settled.
    pub(super) async fn keep(&mut self) {
        let noted_to = self.noted_to;
        if self.unsettled.back().is_none_or(|(_, position)| *position < noted_to) {
            self.unsettled.push_back((self.owner.outbound.appended(), noted_to));
        }
        self.own_done.retain(|_, at| *at > noted_to);
        let newest = self.owner.outbound.newest().seq;
        let mut settled = None;
        while self.unsettled.front().is_some_and(|(seq, _)| *seq <= newest) {
            settled = self.unsettled.pop_front().map(|(_, position)| position);
        }
        let is_clear =
            self.held.is_empty() && self.step_deadline.is_none() && self.fetching.is_none() && self.replaying.is_none();
        let version = self.owner.memory.version();
        let Some(agent) = self.agent.as_mut().filter(|agent| agent.channel().is_kept()) else { return };
        if let Some(settled) = settled {
            agent.channel_mut().settled(settled);
        }
        agent.channel().set_resumable(is_clear);
        if std::mem::replace(&mut self.noted_version, version) != version {
            let known = Known { heard: self.owner.memory.heard_so_far().clone(), next: self.ids.next_number() };
            agent.note(HEARD, || json(&known));
        }
        if agent.channel().wants_tidying() && is_clear {
            self.tidy().await;
        }
    }

    /// Writes the journal anew, once all that it says of lines and answers is in the log.
    async fn tidy(&mut self) {
        if !self.unsettled.is_empty() || self.owner.inbound.newest().seq < self.owner.inbound.appended() {
            self.owner.store.settle().await;
        }
        let newest = self.owner.outbound.newest().seq;
        let is_behind = self.owner.inbound.newest().seq < self.owner.inbound.appended();
        if is_behind || self.unsettled.iter().any(|(seq, _)| *seq > newest) {
            return; // the disk refuses: another time
        }
        let sent = self.ids.pending().map(|(number, pending)| (SENT, Self::sent_note(number, pending, 0)));
        let asked = self.ids.asked().map(|id| {
            let session = self.asked_in.get(id).cloned();
            (ASKED, json(&AskedNote { id: id.to_owned(), session, at: 0 }))
        });
        let done = self.own_done.iter().map(|(&number, &at)| (DONE, json(&Done { number, at })));
        let known = Known { heard: self.owner.memory.heard_so_far().clone(), next: self.ids.next_number() };
        let answered: Vec<&str> = self.ids.answered_of_late(ANSWERED_MAX).collect();
        let last = [(ANSWERED, json(&answered)), (HEARD, json(&known))];
        let records: Vec<_> = sent.chain(asked).chain(done).chain(last).collect();
        if let Some(agent) = &mut self.agent {
            agent.tidy(&records, LINE);
        }
    }

    /// Goes on with an agent that outlived the server before this one.
    pub(super) async fn take_over(&mut self, taken: Taken) {
        let Taken { agent, records, is_over } = taken;
        let in_log = agent.lines.position();
        let journal = Journal::read(records);
        let pid = agent.process.pid();
        self.agent = Some(agent);
        self.ended = None;
        self.make_up_log(&journal, in_log).await;
        let Journal { sent, done, asked, known, withdrawn, answered, .. } = journal;
        self.own_done = done.iter().map(|(&number, &at)| (number, at)).filter(|(number, _)| !sent.contains_key(number)).collect();
        self.own_done.retain(|_, at| *at > in_log);
        let used = sent.keys().chain(done.keys()).max().map_or(0, |number| number + 1);
        let is_open = |number: &u64| done.get(number).is_none_or(|at| *at > in_log);
        let open: Vec<(u64, Pending<Waiter>, Vec<u8>)> = sent
            .into_iter()
            .filter(|(number, _)| is_open(number))
            .map(|(number, (sent, line))| (number, pending_again(sent), line))
            .collect();
        let underway = open.iter().filter_map(|(number, pending, line)| underway(*number, pending, line)).collect();
        let (mut waiting, mut answers) = (Vec::new(), Vec::new());
        for (asked, replied) in asked {
            answers.extend(replied.as_ref().and_then(|replied| Some((replied.id.clone(), replied.result.clone()?))));
            if withdrawn.get(&asked.id).is_some_and(|at| *at <= in_log) {
                continue;
            }
            match (asked.at <= in_log, replied) {
                (true, None) => {
                    self.asked_in.extend(asked.session.map(|session| (asked.id.clone(), session)));
                    waiting.push(asked.id);
                }
                // It is read again, and has its answer already.
                (false, Some(_)) => _ = self.answered_already.insert(asked.id),
                (true, Some(_)) | (false, None) => {}
            }
        }
        let next = known.as_ref().map_or(1, |known| known.next).max(used);
        let max = as_usize(self.owner.bounds.acp_pending_max_requests);
        let count = open.len();
        let pending = open.into_iter().map(|(number, pending, _)| (number, pending));
        self.ids = Ids::resume(max, next, pending, waiting.clone(), answered);
        if let Some(known) = known {
            self.owner.memory.goes_on(known.heard);
        }
        tracing::info!(
            server = self.owner.server_id,
            pid,
            in_flight = count,
            asked = waiting.len(),
            is_over,
            "an agent outlived the last server and goes on"
        );
        self.owner.status.send_replace(Status::Running { since_ms: now_ms() });
        let outlived = Outlived { underway, asked: waiting, answered: answers };
        for decided in self.owner.tap.resume(outlived).await {
            self.answer_agent(&decided.id, &decided.result, &decided.by);
        }
        self.owner.tap.flush();
        self.tidy().await;
        self.read_lines();
    }

    /// What was on its way into the log.
    async fn make_up_log(&mut self, journal: &Journal, in_log: u64) {
        let newest_in = self.owner.inbound.newest().seq;
        for (_, text) in journal.inbound.range(newest_in + 1..) {
            self.owner.store.append(&self.owner.inbound, FROM_CLIENT, Bytes::copy_from_slice(text), None);
        }
        let newest_out = self.owner.outbound.newest().seq;
        let told = journal.asked.iter().filter(|(asked, _)| asked.at <= in_log).filter_map(|(_, replied)| replied.as_ref());
        for replied in told.filter(|replied| replied.out_seq > newest_out) {
            let session = replied.session.as_deref();
            self.emit(messages::request_resolved(&replied.id, session, &replied.by, replied.result.as_deref()));
        }
        self.owner.store.settle().await;
    }
}

/// A request that nobody waits for any more: its answer is for the event stream.
fn pending_again(sent: Sent) -> Pending<Waiter> {
    let Sent { client_id, method, params, session, tag, .. } = sent;
    Pending { client_id, method, params, session, tag, waiter: Waiter::Client(oneshot::channel().0) }
}

fn underway(number: u64, pending: &Pending<Waiter>, line: &[u8]) -> Option<Underway> {
    let session = pending.session.clone().filter(|_| pending.method == "session/prompt")?;
    let envelope = Envelope::parse(Bytes::copy_from_slice(line.trim_ascii())).ok();
    let params = envelope.as_ref().and_then(Envelope::params).unwrap_or("null").to_owned();
    Some(Underway { session, number, client_id: pending.client_id.clone(), params, tag: pending.tag.clone() })
}
