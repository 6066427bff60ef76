//! What is searched for.

use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use grep_searcher::{BinaryDetection, Searcher, SearcherBuilder};

use crate::fs::Error;

/// So long may a pattern be.
const PATTERN_MAX_BYTES: usize = 16 * 1024;
/// Memory of a compiled pattern; `a{1000}{1000}` would take more.
const SIZE_MAX_BYTES: usize = 10 * 1024 * 1024;
const DFA_MAX_BYTES: usize = 64 * 1024 * 1024;
const NEST_MAX: u32 = 100;

/// Which case letters must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Case {
    /// That of the pattern.
    #[default]
    Sensitive,
    /// Any.
    Insensitive,
    /// Any, unless the pattern has an upper-case letter.
    Smart,
}

/// What is searched for: a regular expression as ripgrep reads it, in linear time whatever it is.
#[derive(Debug, Clone, Default)]
pub struct Pattern {
    /// The expression, or the text itself.
    pub text: String,
    /// It stands for itself.
    pub is_literal: bool,
    /// Which case letters must have.
    pub case: Case,
    /// Only whole words.
    pub word: bool,
    /// It may go over several lines; then each file is in memory while it is searched.
    pub multiline: bool,
}

impl Pattern {
    /// Compiles it.
    ///
    /// # Errors
    /// [`Error::Invalid`], with the place in the pattern.
    pub(in crate::fs) fn compile(&self) -> Result<RegexMatcher, Error> {
        if self.text.is_empty() || self.text.len() > PATTERN_MAX_BYTES {
            return Err(Error::Invalid(format!("pattern must have between 1 and {PATTERN_MAX_BYTES} bytes")));
        }
        let mut builder = RegexMatcherBuilder::new();
        builder
            .fixed_strings(self.is_literal)
            .case_insensitive(self.case == Case::Insensitive)
            .case_smart(self.case == Case::Smart)
            .word(self.word)
            .multi_line(true)
            .crlf(true)
            .size_limit(SIZE_MAX_BYTES)
            .dfa_size_limit(DFA_MAX_BYTES)
            .nest_limit(NEST_MAX);
        // Behind `crlf`, which says that no match has an end of line in it.
        if self.multiline {
            builder.line_terminator(None);
        }
        builder.build(&self.text).map_err(|error| {
            let help = if error.to_string().contains("not allowed") { ": set multiline to search over lines" } else { "" };
            // That error counts from the beginning of what was built around the pattern.
            match regex::Regex::new(&self.text) {
                Err(regex::Error::Syntax(shown)) if !self.is_literal => Error::Invalid(format!("pattern: {shown}")),
                _ => Error::Invalid(format!("pattern: {error}{help}")),
            }
        })
    }

    /// What goes through files for it.
    pub(super) fn searcher(&self, before: usize, after: usize, heap_max_bytes: usize) -> Searcher {
        let mut builder = SearcherBuilder::new();
        builder
            .line_terminator(grep_matcher::LineTerminator::crlf())
            .line_number(true)
            .multi_line(self.multiline)
            .before_context(before)
            .after_context(after)
            .heap_limit(Some(heap_max_bytes))
            .binary_detection(BinaryDetection::quit(0));
        // Never mapped into memory: a file that is cut while it is searched would end the server.
        builder.memory_map(grep_searcher::MmapChoice::never()).build()
    }
}

#[cfg(test)]
mod tests {
    use grep_matcher::Matcher as _;

    use super::*;

    fn finds(pattern: &Pattern, text: &str) -> bool {
        pattern.compile().expect("a pattern").is_match(text.as_bytes()).expect("an answer")
    }

    #[test]
    fn modes() {
        let of = |text: &str| Pattern { text: text.to_owned(), ..Pattern::default() };
        assert!(finds(&of("a.c"), "abc") && !finds(&of("a.c"), "ABC"));
        assert!(!finds(&Pattern { is_literal: true, ..of("a.c") }, "abc"));
        assert!(finds(&Pattern { case: Case::Insensitive, ..of("aBc") }, "AbC"));
        assert!(finds(&Pattern { case: Case::Smart, ..of("abc") }, "ABC"));
        assert!(!finds(&Pattern { case: Case::Smart, ..of("Abc") }, "ABC"));
        assert!(!finds(&Pattern { word: true, ..of("ab") }, "abc"));
        assert!(finds(&Pattern { multiline: true, ..of(r"a\nb") }, "a\nb"));
        assert!(finds(&of("a$"), "a\r\nb"), "before the end of a line of either kind");
    }

    #[test]
    fn errors_show_where() {
        let error =
            |text: &str| Pattern { text: text.to_owned(), ..Pattern::default() }.compile().expect_err("no pattern").to_string();
        assert!(error("ab(c").contains("    ab(c\n      ^"), "{}", error("ab(c"));
        assert!(error(r"a\nb").contains("multiline"), "{}", error(r"a\nb"));
        assert!(error("(a{1000}){1000}").contains("size limit"), "{}", error("(a{1000}){1000}"));
        assert!(error("").contains("between"));
        assert!(error(&"(".repeat(200)).starts_with("pattern:"));
    }
}
