//! Which files of a tree a client asks for.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use ignore::overrides::{Override, OverrideBuilder};

use super::rules::{Rules, Verdict};
use crate::fs::Error;
use crate::fs::draft::PREFIX;

/// So many patterns one request may have.
const PATTERNS_MAX: usize = 256;

/// Which files of a tree a client asks for, in its words.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Only what fits one of these; with `!` before it, nothing that fits. They win over ignore rules, and have their
    /// syntax.
    pub globs: Vec<String>,
    /// Further ignore rules, which win over those of the tree.
    pub ignore: Vec<String>,
    /// Names that begin with a dot, too.
    pub hidden: bool,
    /// What the tree's ignore rules leave out, too, and what is in `.git`.
    pub ignored: bool,
    /// So many levels; 1 is what the directory itself holds.
    pub depth: Option<usize>,
}

/// The same, compiled.
#[derive(Debug)]
pub struct Selection {
    globs: Override,
    ignore: Gitignore,
    hidden: bool,
    pub(super) has_rules: bool,
    pub(super) depth: usize,
    /// Nobody asked for that depth: what is deeper is told.
    pub(super) is_depth_told: bool,
}

/// What is done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// It is given, and gone into.
    Given,
    /// It is gone into only.
    Passed,
    /// It is left out with what it holds.
    Left,
}

impl Wanted {
    /// Compiles the patterns.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is no pattern.
    pub fn compile(&self, depth_max: usize) -> Result<Selection, Error> {
        if self.globs.len() + self.ignore.len() > PATTERNS_MAX {
            return Err(Error::Invalid(format!("more than {PATTERNS_MAX} patterns")));
        }
        if self.depth == Some(0) {
            return Err(Error::Invalid("depth must be at least 1".to_owned()));
        }
        let failed = |error: ignore::Error| Error::Invalid(format!("a pattern for names: {error}"));
        let mut globs = OverrideBuilder::new("");
        for glob in &self.globs {
            globs.add(glob).map_err(failed)?;
        }
        let mut ignore = GitignoreBuilder::new("");
        for pattern in &self.ignore {
            ignore.add_line(None, pattern).map_err(failed)?;
        }
        Ok(Selection {
            globs: globs.build().map_err(failed)?,
            ignore: ignore.build().map_err(failed)?,
            hidden: self.hidden,
            has_rules: !self.ignored,
            depth: self.depth.unwrap_or(depth_max).min(depth_max),
            is_depth_told: self.depth.is_none_or(|depth| depth > depth_max),
        })
    }
}

impl Selection {
    /// What is done with a file, by its path from where the walk starts.
    pub(super) fn choose(&self, rules: Option<&Rules>, relative: &[u8], name: &[u8], is_directory: bool) -> Choice {
        if name.starts_with(PREFIX.as_bytes()) || (self.has_rules && name == b".git") {
            return Choice::Left;
        }
        let path = Path::new(OsStr::from_bytes(relative));
        match Verdict::of(&self.globs.matched(path, is_directory)) {
            Verdict::Kept => return Choice::Given,
            Verdict::Ignored => return Choice::Left,
            Verdict::Unnamed => {}
        }
        let asked = Verdict::of(&self.ignore.matched(path, is_directory));
        let verdict = match (asked, rules) {
            (Verdict::Unnamed, Some(rules)) => rules.verdict(relative, is_directory),
            _ => asked,
        };
        match verdict {
            Verdict::Ignored => Choice::Left,
            Verdict::Unnamed if !self.hidden && name.starts_with(b".") => Choice::Left,
            // Only directories come here when there are patterns that files must fit.
            _ if self.globs.num_whitelists() > 0 => Choice::Passed,
            _ => Choice::Given,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(wanted: &Wanted, path: &str, is_directory: bool) -> Choice {
        let name = path.rsplit('/').next().unwrap_or_default();
        wanted.compile(9).expect("patterns").choose(None, path.as_bytes(), name.as_bytes(), is_directory)
    }

    #[test]
    fn globs_win_over_everything_but_what_is_being_written() {
        let wanted = Wanted { globs: vec!["*.rs".into(), "!x.rs".into()], ignore: vec!["a.rs".into()], ..Wanted::default() };
        assert_eq!(choose(&wanted, "src/a.rs", false), Choice::Given);
        assert_eq!(choose(&wanted, "src/x.rs", false), Choice::Left);
        assert_eq!(choose(&wanted, "src/a.c", false), Choice::Left);
        assert_eq!(choose(&wanted, "src", true), Choice::Passed);
        assert_eq!(choose(&wanted, ".git", true), Choice::Left);
        let all = Wanted { hidden: true, ignored: true, ..Wanted::default() };
        assert_eq!(choose(&all, ".git", true), Choice::Given);
        assert_eq!(choose(&all, ".sandboxd-tmp_w1", false), Choice::Left);
    }

    #[test]
    fn dots_hide_unless_asked_for() {
        assert_eq!(choose(&Wanted::default(), "a/.b", false), Choice::Left);
        assert_eq!(choose(&Wanted { hidden: true, ..Wanted::default() }, "a/.b", false), Choice::Given);
        assert_eq!(choose(&Wanted { ignore: vec!["!.b".into()], ..Wanted::default() }, "a/.b", false), Choice::Given);
    }

    #[test]
    fn what_is_no_pattern_is_told() {
        for wanted in [
            Wanted { globs: vec!["[a".into()], ..Wanted::default() },
            Wanted { globs: vec!["{a".into()], ..Wanted::default() },
            Wanted { ignore: vec!["x".to_owned(); 257], ..Wanted::default() },
            Wanted { depth: Some(0), ..Wanted::default() },
        ] {
            assert!(wanted.compile(9).is_err(), "{wanted:?}");
        }
    }
}
