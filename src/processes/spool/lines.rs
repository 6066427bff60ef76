//! Output as lines of text, for a search.

use std::collections::VecDeque;
use std::io;

use super::escape::{Class, Escape};
use super::reader::SpoolReader;
use super::types::{Entry, Gap, Item, Stream, Streams};
use super::utf8::piece_len;

/// The most bytes of one line; what is longer comes in pieces.
pub const MAX_LINE_BYTES: usize = 64 * 1024;

/// What is read at a time.
const READ_BYTES: usize = 16 * 1024;

/// A line as a terminal would show it, roughly: without escape sequences and control characters (but tabs), and what a
/// carriage return overwrites. What isn't UTF-8 is replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// From 1, over what is kept of all chosen streams, in the order in which lines end. Pieces of a line share it.
    pub number: u64,
    /// The entry where the text begins.
    pub sequence: u64,
    /// Its stream: no line has text of two.
    pub stream: Stream,
    /// The text, without its line end.
    pub text: String,
    /// How it ended.
    pub end: LineEnd,
}

/// How a line ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineEnd {
    /// With `\n`.
    Newline,
    /// Longer than [`MAX_LINE_BYTES`]: the next line of this stream goes on with it.
    Cut,
    /// The rest is missing.
    Gap,
    /// Not yet: nothing more is there.
    Unfinished,
}

/// What a search gets, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineItem {
    /// A line.
    Line(Line),
    /// Output of a chosen stream that is missing.
    Gap(Gap),
}

/// Makes lines of items. Holds at most one line of each stream.
#[derive(Debug)]
pub struct LineAssembler {
    streams: Streams,
    /// The number of the last line that ended or was cut.
    number: u64,
    open: [Open; 3],
}

#[derive(Debug)]
struct Open {
    stream: Stream,
    escape: Escape,
    text: Vec<u8>,
    sequence: u64,
    /// Something has come since the last line feed, if only what isn't shown.
    begun: bool,
    /// The next text overwrites what is there.
    returned: bool,
    /// The number of the line whose first pieces were given.
    cut: Option<u64>,
}

impl LineAssembler {
    /// Makes lines of these streams, each of its own text.
    pub fn new(streams: Streams) -> Self {
        Self { streams, number: 0, open: Stream::ALL.map(Open::new) }
    }

    /// Takes an item, and adds the lines that end in it.
    pub fn push(&mut self, item: &Item, out: &mut impl Extend<LineItem>) {
        match item {
            Item::Entry(entry) if self.streams.contains(entry.stream) => self.entry(entry, out),
            Item::Gap(gap) if gap.bytes.of(self.streams) > 0 => {
                for stream in Stream::ALL.into_iter().filter(|stream| gap.bytes.get(*stream) > 0) {
                    self.end(stream, LineEnd::Gap, out);
                }
                out.extend([LineItem::Gap(*gap)]);
            }
            Item::Entry(_) | Item::Gap(_) | Item::Control { .. } => {}
        }
    }

    /// Adds the lines that have not ended.
    pub fn finish(&mut self, out: &mut impl Extend<LineItem>) {
        for stream in Stream::ALL {
            self.end(stream, LineEnd::Unfinished, out);
        }
    }

    /// The lines that have not ended, without taking them out. Their numbers are those of the last line that did.
    pub fn open_lines(&self) -> impl Iterator<Item = Line> {
        self.open.iter().filter(|open| !open.text.is_empty()).map(|open| open.line(self.number, &open.text, LineEnd::Unfinished))
    }

    fn entry(&mut self, entry: &Entry, out: &mut impl Extend<LineItem>) {
        let mut bytes = entry.bytes.as_slice();
        while !bytes.is_empty() {
            let open = self.open(entry.stream);
            let plain = open.escape.plain_len(bytes);
            let (taken, rest) = bytes.split_at(plain.max(1));
            bytes = rest;
            open.begin(entry.sequence);
            match if plain > 0 { Class::Text } else { open.escape.take(taken[0]) } {
                Class::Text => {
                    open.show(taken, entry.sequence);
                    self.cut(entry, out);
                }
                Class::CarriageReturn => open.returned = true,
                Class::LineFeed => self.end(entry.stream, LineEnd::Newline, out),
                Class::Hidden => {}
            }
        }
    }

    fn open(&mut self, stream: Stream) -> &mut Open {
        let at = Stream::ALL.iter().position(|other| *other == stream).unwrap_or(0);
        &mut self.open[at]
    }

    fn cut(&mut self, entry: &Entry, out: &mut impl Extend<LineItem>) {
        while self.open(entry.stream).text.len() > MAX_LINE_BYTES {
            let number = self.number_of(entry.stream);
            let open = self.open(entry.stream);
            let rest = open.text.split_off(piece_len(&open.text, MAX_LINE_BYTES));
            let text = std::mem::replace(&mut open.text, rest);
            let line = open.line(number, &text, LineEnd::Cut);
            (open.cut, open.sequence) = (Some(number), entry.sequence);
            out.extend([LineItem::Line(line)]);
        }
    }

    fn end(&mut self, stream: Stream, end: LineEnd, out: &mut impl Extend<LineItem>) {
        let open = self.open(stream);
        let nothing_shown = open.text.is_empty() && end != LineEnd::Newline;
        if open.begun && !nothing_shown {
            let number = self.number_of(stream);
            let open = self.open(stream);
            let line = open.line(number, &open.text, end);
            out.extend([LineItem::Line(line)]);
        }
        *self.open(stream) = Open::new(stream);
    }

    fn number_of(&mut self, stream: Stream) -> u64 {
        if let Some(number) = self.open(stream).cut {
            return number;
        }
        self.number += 1;
        self.number
    }
}

impl Open {
    fn new(stream: Stream) -> Self {
        Self { stream, escape: Escape::default(), text: Vec::new(), sequence: 0, begun: false, returned: false, cut: None }
    }

    fn begin(&mut self, sequence: u64) {
        if !self.begun {
            (self.begun, self.sequence) = (true, sequence);
        }
    }

    fn show(&mut self, text: &[u8], sequence: u64) {
        let overwrites = std::mem::take(&mut self.returned);
        if overwrites || (self.text.is_empty() && self.cut.is_none()) {
            self.text.clear();
            self.sequence = sequence;
        }
        self.text.extend_from_slice(text);
    }

    fn line(&self, number: u64, text: &[u8], end: LineEnd) -> Line {
        let mut text = String::from_utf8_lossy(text).into_owned();
        if text.as_bytes().contains(&C1_LEAD) {
            text.retain(|c| !is_c1(c));
        }
        Line { number, sequence: self.sequence, stream: self.stream, text, end }
    }
}

/// How control characters of two bytes begin in UTF-8, among others.
const C1_LEAD: u8 = 0xC2;

fn is_c1(c: char) -> bool {
    ('\u{80}'..='\u{9f}').contains(&c)
}

/// The lines of a spool, from where a reader stands to where it has nothing more. Then the iterator ends, also when the
/// process goes on; and after an error.
pub struct Lines {
    reader: SpoolReader,
    assembler: LineAssembler,
    items: VecDeque<Item>,
    ready: VecDeque<LineItem>,
    ended: bool,
}

impl Lines {
    /// Reads these streams.
    pub fn new(reader: SpoolReader, streams: Streams) -> Self {
        let assembler = LineAssembler::new(streams);
        Self { reader, assembler, items: VecDeque::new(), ready: VecDeque::new(), ended: false }
    }
}

impl Iterator for Lines {
    type Item = io::Result<LineItem>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(Ok(item));
            }
            if self.ended {
                return None;
            }
            if let Some(item) = self.items.pop_front() {
                self.assembler.push(&item, &mut self.ready);
                continue;
            }
            match self.reader.read(READ_BYTES) {
                Ok(items) if items.is_empty() => {
                    self.ended = true;
                    self.assembler.finish(&mut self.ready);
                }
                Ok(items) => self.items.extend(items),
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
    }
}
