//! Known secrets are taken out of what is stored.
//!
//! JSON stays JSON: only what stands within strings is replaced, found by what the string means, however it is escaped, and
//! also one level of JSON within a string deep. Numbers and structure stay as they are, even when a secret looks like them.

use std::collections::BTreeSet;

use aho_corasick::{AhoCorasick, MatchKind};
use memchr::{memchr, memchr2};

/// What stands in a secret's place.
pub const REDACTED: &str = "[redacted]";

/// Shorter secrets are not looked for: they stand in too much that is none.
pub const SECRET_MIN_BYTES: usize = 8;

/// Finds secrets. Cheap where there are none.
pub struct Redactor {
    /// Secrets as they are, and as they stand in a JSON string.
    exact: AhoCorasick,
    /// The same, once more escaped: what a text without [`hides`](Redactor::hides) holds, as it is written.
    written: AhoCorasick,
    /// Some secret has control characters.
    has_controls: bool,
    /// Some secret has slashes.
    has_slashes: bool,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redactor(…)") // its patterns are secret
    }
}

impl Redactor {
    /// A redactor for these secrets; `None` when none is left of at least [`SECRET_MIN_BYTES`], or there are too many.
    pub fn new<S: AsRef<str>>(secrets: impl IntoIterator<Item = S>) -> Option<Self> {
        let mut exact: Vec<String> = Vec::new();
        for secret in secrets {
            let secret = secret.as_ref().trim();
            if secret.len() >= SECRET_MIN_BYTES && secret != REDACTED {
                exact.extend([secret.to_owned(), escaped(secret)]);
            }
        }
        exact.sort_unstable();
        exact.dedup();
        if exact.is_empty() {
            return None;
        }
        let written: BTreeSet<String> = exact.iter().map(|secret| escaped(secret)).chain(exact.iter().cloned()).collect();
        let has = |test: fn(char) -> bool| exact.iter().any(|secret| secret.contains(test));
        let (has_controls, has_slashes) = (has(char::is_control), has(|c| c == '/'));
        let build = |patterns: Vec<String>| AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(patterns).ok();
        Some(Self { exact: build(exact)?, written: build(written.into_iter().collect())?, has_controls, has_slashes })
    }

    /// True when the text has escapes behind which a secret may be that isn't written as usual: `\/`, and `\uXXXX`. For
    /// control characters the latter is usual.
    fn hides(&self, text: &[u8]) -> bool {
        let mut at = 0;
        while let Some(found) = memchr(b'\\', &text[at..]) {
            let escape = &text[at + found..];
            match escape.get(1) {
                Some(b'u') if self.has_controls || !matches!(escape.get(2..5), Some(b"000" | b"001")) => return true,
                Some(b'/') if self.has_slashes => return true,
                _ => at = (at + found + 2).min(text.len()),
            }
        }
        false
    }

    /// A JSON text without the secrets; `None` when it holds none. What is no JSON comes out harmless, too.
    pub fn json(&self, text: &[u8]) -> Option<Vec<u8>> {
        if !self.written.is_match(text) && !self.hides(text) {
            return None;
        }
        let mut out = Cuts::new(text);
        let mut decoded = Decoded::default();
        let mut at = 0;
        while let Some(quote) = memchr(b'"', &text[at..]) {
            let start = at + quote + 1;
            let end = string_end(text, start);
            let raw = &text[start..end];
            if raw.contains(&b'\\') {
                decoded.fill(raw);
                for found in self.exact.find_iter(&decoded.bytes) {
                    out.cut(start + decoded.raw_at(found.start()), start + decoded.raw_at(found.end()));
                }
            } else {
                self.exact.find_iter(raw).for_each(|found| out.cut(start + found.start(), start + found.end()));
            }
            at = (end + 1).min(text.len());
        }
        out.finish()
    }

    /// A plain text without the secrets; `None` when it holds none.
    pub fn text(&self, text: &str) -> Option<String> {
        let mut out = Cuts::new(text.as_bytes());
        self.exact.find_iter(text).for_each(|found| out.cut(found.start(), found.end()));
        out.finish().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Takes secrets out of a JSON text.
    pub fn clean_json(&self, text: &mut String) {
        if let Some(clean) = self.json(text.as_bytes()) {
            *text = String::from_utf8_lossy(&clean).into_owned(); // whole characters were cut
        }
    }

    /// Takes secrets out of a plain text.
    pub fn clean_text(&self, text: &mut String) {
        if let Some(clean) = self.text(text) {
            *text = clean;
        }
    }
}

/// As within a JSON string.
fn escaped(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// Where a string's content ends that begins at `start`: at its quote, or at the end of a text that has none.
fn string_end(text: &[u8], start: usize) -> usize {
    let mut at = start;
    while let Some(found) = text.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        if text[at + found] == b'"' {
            return at + found;
        }
        at += found + 2;
    }
    text.len()
}

/// A copy of a text in which ranges are replaced.
struct Cuts<'a> {
    text: &'a [u8],
    out: Vec<u8>,
    copied: usize,
}

impl<'a> Cuts<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self { text, out: Vec::new(), copied: 0 }
    }

    fn cut(&mut self, from: usize, to: usize) {
        self.out.extend_from_slice(&self.text[self.copied..from]);
        self.out.extend_from_slice(REDACTED.as_bytes());
        self.copied = to;
    }

    fn finish(mut self) -> Option<Vec<u8>> {
        if self.copied == 0 {
            return None;
        }
        self.out.extend_from_slice(&self.text[self.copied..]);
        Some(self.out)
    }
}

/// What a string with escapes means (RFC 8259 section 7), and where each part of it was written.
#[derive(Default)]
struct Decoded {
    bytes: Vec<u8>,
    /// Where a run or an escape begins: here, and in the raw text.
    parts: Vec<(usize, usize)>,
    /// Length of the raw text.
    raw_len: usize,
}

impl Decoded {
    fn fill(&mut self, raw: &[u8]) {
        (self.raw_len, _) = (raw.len(), self.bytes.clear());
        self.parts.clear();
        let mut at = 0;
        while at < raw.len() {
            self.parts.push((self.bytes.len(), at));
            if raw[at] != b'\\' {
                let run = memchr(b'\\', &raw[at..]).unwrap_or(raw.len() - at);
                self.bytes.extend_from_slice(&raw[at..at + run]);
                at += run;
                continue;
            }
            let (meant, length) = escape(&raw[at..]);
            match meant {
                Some(meant) => self.bytes.extend_from_slice(meant.encode_utf8(&mut [0; 4]).as_bytes()),
                None => self.bytes.push(0xff), // in no UTF-8, so in no secret
            }
            at += length;
        }
    }

    /// Where in the raw text this position was written. A position within an escape's character doesn't come up: secrets
    /// are whole characters.
    fn raw_at(&self, position: usize) -> usize {
        if position >= self.bytes.len() {
            return self.raw_len;
        }
        let part = self.parts.partition_point(|(start, _)| *start <= position).saturating_sub(1);
        self.parts.get(part).map_or(0, |(start, raw)| raw + (position - start))
    }
}

/// The character that an escape at the beginning means, and the escape's length.
fn escape(raw: &[u8]) -> (Option<char>, usize) {
    let simple = |meant| (Some(meant), 2);
    match raw.get(1) {
        Some(b'n') => simple('\n'),
        Some(b't') => simple('\t'),
        Some(b'r') => simple('\r'),
        Some(b'b') => simple('\u{8}'),
        Some(b'f') => simple('\u{c}'),
        Some(byte @ (b'"' | b'\\' | b'/')) => simple(char::from(*byte)),
        Some(b'u') => unicode_escape(raw),
        _ => (None, raw.len().min(1)),
    }
}

fn unicode_escape(raw: &[u8]) -> (Option<char>, usize) {
    let hex = |from: usize| {
        let digits = std::str::from_utf8(raw.get(from..from + 4)?).ok()?;
        u32::from_str_radix(digits, 16).ok()
    };
    match hex(2) {
        Some(high @ 0xd800..=0xdbff) if raw.get(6..8) == Some(br"\u") => match hex(8) {
            Some(low @ 0xdc00..=0xdfff) => (char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)), 12),
            _ => (None, 6),
        },
        Some(code) => (char::from_u32(code), 6),
        None => (None, 2),
    }
}

#[cfg(test)]
#[path = "redact_tests.rs"]
mod tests;
