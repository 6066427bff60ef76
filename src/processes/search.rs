//! Searching what a process wrote: its log, and a terminal's screen.

use std::collections::{HashSet, VecDeque};

use super::Error;
use super::logs::{blocking, log_of, streams};
use super::room::{Found, Room};
use super::spool::{LineItem, Lines, SpoolReader, Streams};
use super::types::{SearchMatch, SearchResult, SearchSource, SearchSpec};
use crate::config::{Bounds, as_usize};

/// A pattern may be compiled to so many bytes.
const PATTERN_MAX_BYTES: usize = 1024 * 1024;

/// Characters of a pattern.
pub const PATTERN_MAX_CHARS: usize = 200;

/// Compiles a client's pattern. Matching takes time linear in the text, whatever the pattern.
///
/// # Errors
/// [`Error::Invalid`] says what is wrong with it.
pub(super) fn pattern(text: &str) -> Result<regex::Regex, Error> {
    if text.is_empty() || text.chars().count() > PATTERN_MAX_CHARS {
        return Err(Error::Invalid(format!("pattern has 1 to {PATTERN_MAX_CHARS} characters")));
    }
    let built = regex::RegexBuilder::new(text).size_limit(PATTERN_MAX_BYTES).dfa_size_limit(PATTERN_MAX_BYTES).build();
    built.map_err(|error| Error::Invalid(format!("pattern is not a regular expression: {error}")))
}

/// Searches screen and log.
pub(super) async fn search(room: &Room, found: &Found, spec: SearchSpec) -> Result<SearchResult, Error> {
    let pattern = pattern(&spec.pattern)?;
    let info = found.info();
    let in_screen = spec.source != Some(SearchSource::Log) && info.tty;
    let in_log = spec.source != Some(SearchSource::Screen);
    if spec.source == Some(SearchSource::Screen) && !info.tty {
        return Err(Error::NoTerminal { id: info.id });
    }
    let mut hits = Hits::new(pattern, &spec, &room.bounds);
    if in_screen {
        let lines = super::api::screen(room, found, |screen| screen.text(true, true)).await?;
        for (at, line) in lines.into_iter().enumerate() {
            hits.line(at as u64 + 1, line, None);
        }
        hits.end_source();
    }
    if in_log {
        let index = match found {
            Found::Alive(handle) => std::sync::Arc::clone(&handle.log.index),
            Found::Finished(finished) => log_of(room, finished).await?,
        };
        let streams = spec.stream.map_or(Streams::ALL, streams);
        hits.source = SearchSource::Log;
        hits = blocking(info.id, move || {
            for item in Lines::new(SpoolReader::new(index), streams) {
                match item? {
                    LineItem::Line(line) => hits.line(line.number, line.text, Some(line.sequence)),
                    LineItem::Gap(gap) => hits.missing(gap.bytes.of(streams)),
                }
            }
            hits.end_source();
            Ok(hits)
        })
        .await?;
    }
    Ok(hits.result)
}

/// Matches as they are found.
struct Hits {
    pattern: regex::Regex,
    limit: usize,
    context: usize,
    source: SearchSource,
    /// The last lines, for what comes before a match.
    before: VecDeque<String>,
    /// Matches that still want lines after them.
    open: VecDeque<(usize, usize)>,
    /// What the screen's matches say: the log has the same lines again.
    seen: HashSet<String>,
    line_max_bytes: usize,
    /// Bytes that may still be shown.
    room: usize,
    result: SearchResult,
}

impl Hits {
    fn new(pattern: regex::Regex, spec: &SearchSpec, bounds: &Bounds) -> Self {
        let result = SearchResult { matches: Vec::new(), total: 0, truncated: false, total_lines: 0, bytes_missing: 0 };
        Self {
            pattern,
            limit: spec.limit,
            context: spec.context,
            source: SearchSource::Screen,
            before: VecDeque::new(),
            open: VecDeque::new(),
            seen: HashSet::new(),
            line_max_bytes: as_usize(bounds.search_line_max_bytes),
            room: as_usize(bounds.search_answer_max_bytes),
            result,
        }
    }

    fn line(&mut self, number: u64, text: String, sequence: Option<u64>) {
        self.result.total_lines += 1;
        for (at, wanted) in &mut self.open {
            let shown = shown(&text, self.line_max_bytes);
            *wanted = if self.room < shown.len() { 0 } else { *wanted - 1 };
            self.result.truncated |= self.room < shown.len();
            if self.room >= shown.len() {
                self.room -= shown.len();
                self.result.matches[*at].context_after.push(shown.to_owned());
            }
        }
        self.open.retain(|(_, wanted)| *wanted > 0);
        if self.pattern.is_match(&text) && !(self.source == SearchSource::Log && self.seen.contains(text.trim_end())) {
            self.found(number, &text, sequence);
        }
        if self.context > 0 {
            self.before.push_back(shown(&text, self.line_max_bytes).to_owned());
            if self.before.len() > self.context {
                self.before.pop_front();
            }
        }
    }

    fn found(&mut self, line: u64, text: &str, sequence: Option<u64>) {
        self.result.total += 1;
        if self.source == SearchSource::Screen {
            self.seen.insert(text.trim_end().to_owned());
        }
        let needed = shown(text, self.line_max_bytes).len() + self.before.iter().map(String::len).sum::<usize>();
        if self.result.matches.len() >= self.limit || needed > self.room {
            self.result.truncated = true;
            return;
        }
        self.room -= needed;
        if self.context > 0 {
            self.open.push_back((self.result.matches.len(), self.context));
        }
        self.result.matches.push(SearchMatch {
            line,
            content: shown(text, self.line_max_bytes).to_owned(),
            context_before: self.before.iter().cloned().collect(),
            context_after: Vec::new(),
            source: self.source,
            sequence,
        });
    }

    fn missing(&mut self, bytes: u64) {
        self.result.bytes_missing += bytes;
        self.end_source();
    }

    /// Lines of two sources, or around a gap, aren't each other's context.
    fn end_source(&mut self) {
        self.before.clear();
        self.open.clear();
    }
}

/// The beginning of a line, in whole characters.
fn shown(line: &str, max_bytes: usize) -> &str {
    &line[..line.floor_char_boundary(max_bytes)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(limit: usize, context: usize) -> SearchSpec {
        SearchSpec { pattern: "x".into(), limit, context, stream: None, source: None }
    }

    #[test]
    fn matches_come_with_their_surroundings_and_are_counted_beyond_the_limit() {
        let mut hits = Hits::new(pattern("b|d").expect("valid"), &spec(1, 1), &Bounds::default());
        for (at, text) in ["a", "b", "c", "d"].into_iter().enumerate() {
            hits.line(at as u64 + 1, text.to_owned(), None);
        }
        let result = hits.result;
        assert_eq!((result.total, result.truncated, result.total_lines, result.matches.len()), (2, true, 4, 1));
        let first = &result.matches[0];
        assert_eq!((first.line, &*first.content), (2, "b"));
        assert_eq!((first.context_before.clone(), first.context_after.clone()), (vec!["a".to_owned()], vec!["c".to_owned()]));
    }

    #[test]
    fn an_answer_has_a_bound() {
        let mut hits = Hits::new(pattern("a").expect("valid"), &spec(500, 50), &Bounds::default());
        for at in 0..3000 {
            hits.line(at, "a".repeat(60_000), None);
        }
        let result = hits.result;
        let line = |text: &String| text.len();
        let bytes: usize = result
            .matches
            .iter()
            .map(|hit| hit.content.len() + hit.context_before.iter().chain(&hit.context_after).map(line).sum::<usize>())
            .sum();
        assert!(
            bytes <= as_usize(Bounds::default().search_answer_max_bytes) && result.truncated && result.total == 3000,
            "{bytes}"
        );
    }

    #[test]
    fn what_the_screen_shows_is_not_found_again_in_the_log() {
        let mut hits = Hits::new(pattern("b").expect("valid"), &spec(10, 0), &Bounds::default());
        hits.line(1, "ab".into(), None);
        hits.end_source();
        hits.source = SearchSource::Log;
        hits.line(1, "ab".into(), Some(1));
        hits.line(2, "older b".into(), Some(2));
        assert_eq!(hits.result.matches.iter().map(|hit| &*hit.content).collect::<Vec<_>>(), ["ab", "older b"]);
    }

    #[test]
    fn a_pattern_that_blows_up_elsewhere_is_quick_and_a_huge_one_refused() {
        let evil = pattern("(a*)*b").expect("valid");
        assert!(!evil.is_match(&"a".repeat(100_000)));
        assert!(pattern("(").is_err() && pattern("").is_err() && pattern(&"a".repeat(201)).is_err());
        assert!(pattern("(\\w{1000}){1000}").is_err());
    }
}
