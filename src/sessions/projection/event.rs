//! The envelope around every event of a session.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU16, Ordering};

use bytes::Bytes;
use rand::RngExt as _;
use serde::Serialize;

/// One event to be appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Projected {
    /// Its type, such as `item.delta`.
    pub kind: &'static str,
    /// Its whole payload: one JSON object on one line.
    pub payload: Bytes,
}

/// Who an event comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The agent said it.
    Agent,
    /// A client did it.
    Client,
    /// Neither: this daemon.
    Daemon,
}

/// What all events of a session share.
#[derive(Debug)]
pub(super) struct Stamp {
    pub session_id: String,
    /// The turn under way.
    pub turn_id: Option<String>,
    items_made: AtomicU16,
    /// Ids for items that begin once more.
    given: RefCell<VecDeque<String>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a, D> {
    time: i64,
    session_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    turn_id: Option<&'a str>,
    source: Source,
    synthetic: bool,
    r#type: &'static str,
    data: D,
}

impl Stamp {
    /// For a session without a turn.
    pub fn new(session_id: &str) -> Self {
        Self { session_id: session_id.to_owned(), turn_id: None, items_made: AtomicU16::new(0), given: RefCell::default() }
    }

    /// A new item: its id, and when it began. An id is as `rt::ids` makes them, from a time that is given; those of one
    /// millisecond sort as they were made.
    pub fn item(&self, now_ms: i64) -> (String, i64) {
        if let Some(given) = self.given.borrow_mut().pop_front() {
            let began = given.split('_').nth(1).and_then(|time| i64::from_str_radix(time, 16).ok());
            return (given, began.unwrap_or(now_ms));
        }
        let made = self.items_made.fetch_add(1, Ordering::Relaxed);
        let random: u32 = rand::rng().random();
        (format!("item_{:012x}_{made:04x}{random:08x}", now_ms.max(0)), now_ms)
    }

    /// The next items have these ids.
    pub fn give(&mut self, ids: VecDeque<String>) {
        self.given = RefCell::new(ids);
    }

    /// An event that its source said or did.
    pub fn said(&self, now_ms: i64, kind: &'static str, source: Source, data: impl Serialize) -> Projected {
        self.write(now_ms, kind, source, false, data)
    }

    /// An event that nobody said, but follows from what was said: a message has ended because a tool call begins.
    pub fn concluded(&self, now_ms: i64, kind: &'static str, source: Source, data: impl Serialize) -> Projected {
        self.write(now_ms, kind, source, true, data)
    }

    fn write(&self, time: i64, kind: &'static str, source: Source, synthetic: bool, data: impl Serialize) -> Projected {
        let (session_id, turn_id) = (self.session_id.as_str(), self.turn_id.as_deref());
        let envelope = Envelope { time, session_id, turn_id, source, synthetic, r#type: kind, data };
        let mut payload = serde_json::to_vec(&envelope).expect("plain structs and JSON values: every key is a string");
        // Raw values keep their white space; in valid JSON a line break can be nothing else.
        let mut at = 0;
        while let Some(found) = memchr::memchr2(b'\n', b'\r', &payload[at..]) {
            payload[at + found] = b' ';
            at += found + 1;
        }
        Projected { kind, payload: payload.into() }
    }
}
