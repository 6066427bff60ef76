//! A session in words, for an agent that starts afresh: the newest turns that fit.

use std::collections::VecDeque;
use std::fmt::Write as _;

use serde_json::value::RawValue;

use super::json::{Members, elements};
use super::parts::output_text;
use super::stored::{Item, Part, Stored};
use super::tool::ToolCall;

/// Of a tool's output, in its line.
const OUTPUT_HEAD_BYTES: usize = 160;
const CUT: &str = " […]";

/// A session in words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transcript {
    /// The words, oldest first.
    pub text: String,
    /// There was more.
    pub truncated: bool,
    /// How many turns are in it; the first perhaps in part.
    pub turns: usize,
}

/// Builds a transcript from `item.completed` events in their order; keeps about `max_bytes` in memory.
#[derive(Debug)]
pub struct Transcriber {
    max_bytes: usize,
    turns: VecDeque<Turn>,
    bytes: usize,
    truncated: bool,
}

#[derive(Debug)]
struct Turn {
    id: Option<String>,
    lines: VecDeque<String>,
}

impl Transcriber {
    /// Without words.
    pub fn new(max_bytes: usize) -> Self {
        Self { max_bytes, turns: VecDeque::new(), bytes: 0, truncated: false }
    }

    /// The next event, its stored payload. Others than `item.completed` are passed over.
    pub fn push(&mut self, payload: &str) {
        let Some(stored) = Stored::parse(payload).filter(|stored| stored.kind.0 == "item.completed") else { return };
        let Some(mut line) = stored.item().and_then(|(_, item)| words(&item)) else { return };
        self.truncated |= cut(&mut line, self.max_bytes / 2);
        line.push('\n');
        let id = stored.turn_id.map(|id| id.0.into_owned());
        if self.turns.back().is_none_or(|turn| turn.id != id) {
            self.turns.push_back(Turn { id, lines: VecDeque::new() });
            self.bytes += 1; // the empty line before it
        }
        self.bytes += line.len();
        self.turns.back_mut().expect("there is one now").lines.push_back(line);
        self.fit();
    }

    /// The transcript, at most `max_bytes` long.
    pub fn finish(self) -> Transcript {
        let mut text = String::with_capacity(self.bytes);
        for turn in &self.turns {
            if !text.is_empty() {
                text.push('\n');
            }
            text.extend(turn.lines.iter().map(String::as_str));
        }
        Transcript { text, truncated: self.truncated, turns: self.turns.len() }
    }

    /// Whole turns go first, the oldest; of the last one its oldest lines, but the user's words last.
    fn fit(&mut self) {
        while self.bytes > self.max_bytes {
            self.truncated = true;
            if self.turns.len() > 1 {
                let gone = self.turns.pop_front().expect("there are two");
                self.bytes -= gone.lines.iter().map(String::len).sum::<usize>() + 1;
                continue;
            }
            let Some(turn) = self.turns.front_mut() else { return };
            let users = turn.lines.front().is_some_and(|line| line.starts_with("User: ") && line.len() <= self.max_bytes / 4);
            match turn.lines.remove(usize::from(users && turn.lines.len() > 1)) {
                Some(line) => self.bytes -= line.len(),
                None => return,
            }
        }
    }
}

/// An item in words; None for what a fresh agent need not know, such as thoughts.
fn words(item: &Item<'_>) -> Option<String> {
    match (item.kind.as_ref(), item.role.as_ref()) {
        ("message", "user") => said("User: ", item),
        ("message", _) => said("Assistant: ", item),
        ("tool_call", _) => tool(item),
        ("status", _) => planned(item),
        _ => None,
    }
}

fn said(who: &str, item: &Item<'_>) -> Option<String> {
    let mut line = who.to_owned();
    for raw in &item.parts {
        let part = Part::parse(raw)?;
        match (part.kind.as_ref(), part.text) {
            ("text", Some(text)) => line.push_str(&text.0),
            ("reasoning", _) => {}
            (kind, _) => {
                let _ = write!(line, "[{kind}{}]", address(raw)); // a String takes all
            }
        }
    }
    (line.len() > who.len()).then_some(line)
}

/// Where a block that isn't text is, when it says so.
fn address(block: &RawValue) -> String {
    let block = Members::parse(block.get());
    let resource = block.as_ref().and_then(|block| Members::parse(block.get("resource")?.get()));
    let uri = block.as_ref().and_then(|block| block.text("uri")).or_else(|| resource.as_ref()?.text("uri"));
    uri.filter(|uri| uri.len() <= 512).map(|uri| format!(" {uri}")).unwrap_or_default()
}

fn tool(item: &Item<'_>) -> Option<String> {
    let mut call = ToolCall::default();
    call.merge(&Members::parse(item.tool_call?.get())?, usize::MAX);
    let name = call.text("title").filter(|title| !title.is_empty()).or_else(|| call.name()).unwrap_or_default();
    let mut line = format!("Tool: {} [{}]", on_one_line(&name, OUTPUT_HEAD_BYTES), item.status);
    if let Some(output) = output_text(&call).filter(|output| !output.trim().is_empty()) {
        let _ = write!(line, " → {}", on_one_line(&output, OUTPUT_HEAD_BYTES)); // a String takes all
    }
    Some(line)
}

fn planned(item: &Item<'_>) -> Option<String> {
    let entries = elements(Part::parse(item.parts.first()?)?.entries?)?;
    let mut line = String::from("Plan:");
    for entry in entries.iter().filter_map(|entry| Members::parse(entry.get())) {
        let mark = if entry.text("status").as_deref() == Some("completed") { "x" } else { " " };
        let _ = write!(line, " [{mark}] {};", on_one_line(&entry.text("content")?, OUTPUT_HEAD_BYTES)); // a String takes all
    }
    Some(line)
}

/// The head of a text, its white space as single spaces.
fn on_one_line(text: &str, max_bytes: usize) -> String {
    let head = &text[..text.floor_char_boundary(max_bytes * 4)]; // more than enough to look at
    let mut line = head.split_whitespace().collect::<Vec<_>>().join(" ");
    let was_cut = cut(&mut line, max_bytes);
    if !was_cut && head.len() < text.len() {
        line.push_str(CUT);
    }
    line
}

/// Cuts to `max_bytes` with a mark; true when it was longer.
fn cut(text: &mut String, max_bytes: usize) -> bool {
    if text.len() <= max_bytes {
        return false;
    }
    text.truncate(text.floor_char_boundary(max_bytes.saturating_sub(CUT.len())));
    text.push_str(CUT);
    true
}
