//! Folding once more what was folded before, when the server was killed and the agent lives on: what the stream has already
//! is known again, so that only what is missing is appended.
//!
//! Updates fold to the same events in the same order whenever they are folded, but for three things: ids of items are
//! random, text is cut into deltas wherever time had it, and others (clients, the daemon) say something in between. So ids
//! are given from the stored events in their order ([`Already::ids`]), text is compared by item, and what others said is
//! passed over. Stored events are a beginning of what is folded: what comes after their end is new ([`Already::missing`]).

use std::collections::VecDeque;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::event::Projected;
use super::json::Key;
use super::stored::Delta;

/// Stored events, from the beginning of a turn.
#[derive(Debug, Default)]
pub struct Already {
    said: VecDeque<Said>,
    ids: VecDeque<String>,
    turns: Vec<String>,
    /// The last of them says what became of a turn that was never sent.
    of_dropped: bool,
    state: Option<String>,
    is_reopened: bool,
    is_other: bool,
}

/// What the fold makes, as far as it is the same each time.
#[derive(Debug, PartialEq)]
enum Said {
    /// All text of an item up to the next event.
    Text { item_id: String, text: String },
    /// Anything else, with the id of the item or turn that it is about.
    Event { kind: String, about: String },
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, rename = "type")]
    kind: Key<'a>,
    #[serde(borrow)]
    source: Key<'a>,
    synthetic: bool,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// What is read of `data`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct About<'a> {
    #[serde(borrow)]
    turn_id: Option<Key<'a>>,
    #[serde(borrow)]
    item_id: Option<Key<'a>>,
    #[serde(borrow)]
    item: Option<ItemId<'a>>,
    #[serde(borrow)]
    state: Option<Key<'a>>,
    #[serde(borrow)]
    stats: Option<&'a RawValue>,
    #[serde(borrow)]
    truncated: Option<&'a RawValue>,
    #[serde(borrow)]
    reopened: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ItemId<'a> {
    #[serde(borrow)]
    item_id: Key<'a>,
}

impl Already {
    /// The next stored event, its payload.
    pub fn push(&mut self, payload: &str) {
        let Ok(event) = serde_json::from_str::<Event<'_>>(payload) else { return };
        let Ok(about) = serde_json::from_str::<About<'_>>(event.data.get()) else { return };
        match event.kind.0.as_ref() {
            "session.state" => self.state = about.state.as_ref().map(|state| state.0.clone().into_owned()),
            "session.updated" if about.reopened.is_some() => self.is_reopened = true,
            "turn.started" => self.turns.extend(about.turn_id.as_ref().map(|id| id.0.clone().into_owned())),
            "turn.ended" => {
                self.of_dropped = !about.turn_id.as_ref().is_some_and(|id| self.has_begun(&id.0));
                if self.of_dropped {
                    return;
                }
            }
            _ => {}
        }
        if event.kind.0 == "session.updated" && event.source.0 == "daemon" && std::mem::take(&mut self.of_dropped) {
            return;
        }
        let Some(said) = said(&event, &about) else { return };
        if let Said::Event { kind, about } = &said
            && kind == "item.started"
        {
            self.ids.push_back(about.clone());
        }
        match (self.said.back_mut(), said) {
            (Some(Said::Text { item_id, text }), Said::Text { item_id: other, text: more }) if *item_id == other => {
                text.push_str(&more);
            }
            (_, said) => self.said.push_back(said),
        }
    }

    /// Ids of the items that began, in their order.
    pub fn ids(&self) -> VecDeque<String> {
        self.ids.clone()
    }

    /// Turns that began, in their order.
    pub fn turns(&self) -> &[String] {
        &self.turns
    }

    /// True for one of them.
    pub fn has_begun(&self, turn_id: &str) -> bool {
        self.turns.iter().any(|turn| turn == turn_id)
    }

    /// The state of the session that was told last; once.
    pub fn take_state(&mut self) -> Option<String> {
        self.state.take()
    }

    /// True when a client opened the session again: the agent may have repeated what it said before.
    pub fn is_reopened(&self) -> bool {
        self.is_reopened
    }

    /// True once everything that is stored came once more.
    pub fn is_over(&self) -> bool {
        self.said.is_empty()
    }

    /// True when something else came: it was folded otherwise then, as by another version.
    pub fn is_other(&self) -> bool {
        self.is_other
    }

    /// What is stored next, in short: the fold has to make this. For the log.
    pub fn next_in_short(&self) -> String {
        match self.said.front() {
            Some(Said::Text { item_id, .. }) => format!("text of {item_id}"),
            Some(Said::Event { kind, about }) => format!("{kind} {about}"),
            None => "nothing".to_owned(),
        }
    }

    /// The next event of the fold, as far as it is missing: `None` when it is stored, a delta with the rest of its text when
    /// a part of it is.
    pub fn missing(&mut self, event: Projected) -> Option<Projected> {
        if self.is_other {
            return None;
        }
        let payload = std::str::from_utf8(&event.payload).unwrap_or_default();
        let read = serde_json::from_str::<Event<'_>>(payload).ok();
        let about = read.as_ref().and_then(|read| serde_json::from_str::<About<'_>>(read.data.get()).ok());
        match read.zip(about).and_then(|(event, about)| said(&event, &about)) {
            None => Some(event),
            Some(Said::Text { item_id, text }) => self.missing_text(event, &item_id, &text),
            Some(said) => {
                // Text that was written otherwise, as without a secret, is all there: more follows it.
                self.said.pop_front_if(|first| matches!(first, Said::Text { .. }));
                match self.said.pop_front() {
                    None => Some(event),
                    Some(first) => {
                        self.is_other = first != said;
                        None
                    }
                }
            }
        }
    }

    fn missing_text(&mut self, event: Projected, item_id: &str, text: &str) -> Option<Projected> {
        let is_last = self.said.len() == 1;
        match self.said.front_mut() {
            None => Some(event),
            Some(Said::Text { item_id: known, text: stored }) if known == item_id => {
                if let Some(left) = stored.strip_prefix(text) {
                    *stored = left.to_owned();
                    if stored.is_empty() {
                        self.said.pop_front();
                    }
                    return None;
                }
                let rest = text.strip_prefix(stored.as_str()).filter(|_| is_last).map(str::to_owned);
                self.said.pop_front();
                cut(&event, &rest?)
            }
            Some(_) => None,
        }
    }
}

/// The same delta with another text.
fn cut(event: &Projected, text: &str) -> Option<Projected> {
    #[derive(Deserialize)]
    struct Whole<'a> {
        #[serde(borrow)]
        data: Data<'a>,
    }
    #[derive(Deserialize)]
    struct Data<'a> {
        #[serde(borrow)]
        delta: Written<'a>,
    }
    #[derive(Deserialize)]
    struct Written<'a> {
        #[serde(borrow)]
        text: &'a RawValue,
    }
    let payload = std::str::from_utf8(&event.payload).ok()?;
    let written = serde_json::from_str::<Whole<'_>>(payload).ok()?.data.delta.text.get();
    let (before, after) = payload.rsplit_once(written)?; // it is the last member that holds words
    let payload = format!("{before}{}{after}", serde_json::to_string(text).ok()?);
    Some(Projected { kind: event.kind, payload: Bytes::from(payload) })
}

/// What the fold says with an event; nothing for what others say.
fn said(event: &Event<'_>, about: &About<'_>) -> Option<Said> {
    let (kind, source) = (event.kind.0.as_ref(), event.source.0.as_ref());
    let is_fold = match kind {
        "turn.started" | "turn.ended" => true,
        // A message that joins a turn is said by a client, the prompt's item is concluded; a lost turn's are closed by us.
        "item.started" | "item.completed" | "item.delta" => source == "agent" || (source == "client" && event.synthetic),
        "session.updated" => source == "agent" || (source == "daemon" && about.stats.is_some()),
        "agent.unparsed" => about.truncated.is_none(), // else it was no envelope at all
        _ => false,
    };
    if !is_fold {
        return None;
    }
    if kind == "item.delta"
        && let Some(Delta { item_id, delta: Some(part), .. }) = Delta::parse(event.data)
    {
        let text = part.text.map(|text| text.0.into_owned()).unwrap_or_default();
        return Some(Said::Text { item_id: item_id.into_owned(), text });
    }
    let item_id = about.item.as_ref().map(|item| &item.item_id).or(about.item_id.as_ref());
    let about = about.turn_id.as_ref().or(item_id).map(|id| id.0.clone().into_owned()).unwrap_or_default();
    Some(Said::Event { kind: kind.to_owned(), about })
}
