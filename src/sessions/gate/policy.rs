//! Rules that decide permissions, and how they are matched. Pure: nothing here waits, reads or knows the time.
//!
//! All criteria of a rule must hold. A criterion may hold, not hold, or be *unclear*, as when a command can't be taken
//! apart. The first rule in order that matches decides, and in doubt a person does: an unclear `allow` is passed over, an
//! unclear `deny` or `ask` becomes `ask`. Several paths or commands must all match for `allow`; any one is enough for
//! `deny` and `ask`.

use globset::{GlobBuilder, GlobMatcher};
use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::shell::{Line, Part};
use super::subject::{Known, Subject};

/// ACP v1, `ToolKind`.
pub(super) const TOOL_KINDS: &[&str] =
    &["read", "edit", "delete", "move", "search", "execute", "think", "fetch", "switch_mode", "other"];

/// Kinds of tools that a rule with nothing but paths may allow: they do what they do to those paths.
pub(super) const FILE_KINDS: &[&str] = &["read", "edit", "delete", "move", "search"];

/// Programs that run what follows them.
const WRAPPERS: &[&str] = &["sudo", "env", "command", "builtin", "exec", "nohup", "time", "nice", "xargs"];

/// Memory for one compiled `regex:`.
const REGEX_MAX_BYTES: usize = 256 * 1024;

/// Patterns in one list.
const PATTERNS_MAX: usize = 200;

/// What a rule comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// The agent may.
    Allow,
    /// It may not.
    Deny,
    /// Somebody must decide, whatever later rules say.
    Ask,
}

/// A rule: all of its criteria must hold. One without criteria holds for every permission.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// Yours, or ours (`rule_…`) when there is none.
    #[serde(default)]
    pub id: String,
    /// What it comes to.
    pub effect: Effect,
    /// Ids of agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agents: Option<Vec<String>>,
    /// ACP's kinds of tools: `read`, `edit`, `delete`, `move`, `search`, `execute`, `think`, `fetch`, `switch_mode`, `other`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_kinds: Option<Vec<String>>,
    /// Globs on the tool's name or, when it has none, its title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<String>>,
    /// Globs on the paths it touches: absolute, or relative to the session's directory. `*` stays within a folder, `**`
    /// does not. Links aren't followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<Vec<String>>,
    /// Globs on each simple command of a shell line, `regex:` (for the whole of it), or `exact:` on the line as written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commands: Option<Vec<String>>,
    /// The tool's input, member for member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub input: Option<Value>,
    /// One session (`ses_…`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// A glob on the directory in which the tool runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Of `ask`: time for an answer, instead of `permission_deadline_ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

impl Rule {
    /// A rule without criteria.
    pub fn new(id: String, effect: Effect) -> Self {
        Self {
            id,
            effect,
            agents: None,
            tool_kinds: None,
            tools: None,
            paths: None,
            commands: None,
            input: None,
            session_id: None,
            cwd: None,
            deadline_ms: None,
        }
    }
}

/// What is wrong with a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The field.
    pub field: &'static str,
    /// What is wrong with it, and what would be right.
    pub problem: String,
}

/// Whether a criterion holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Match {
    No,
    Unclear,
    Yes,
}

impl From<bool> for Match {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

/// What the rules say of a permission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decision {
    pub effect: Effect,
    /// The rule that decided; none when nothing matched.
    pub rule: Option<String>,
    pub deadline_ms: Option<u64>,
}

/// The first rule that matches decides; when none does, somebody must.
pub(super) fn decide<'a>(rules: impl Iterator<Item = &'a Compiled>, subject: &Subject) -> Decision {
    for compiled in rules {
        let rule = &compiled.rule;
        let effect = match (rule.effect, compiled.matches(subject)) {
            (_, Match::No) | (Effect::Allow, Match::Unclear) => continue,
            (effect, Match::Yes) => effect,
            (Effect::Deny | Effect::Ask, Match::Unclear) => Effect::Ask,
        };
        return Decision { effect, rule: Some(rule.id.clone()), deadline_ms: rule.deadline_ms };
    }
    Decision { effect: Effect::Ask, rule: None, deadline_ms: None }
}

/// A rule that can be matched.
#[derive(Debug, Clone)]
pub(super) struct Compiled {
    pub rule: Rule,
    tools: Vec<GlobMatcher>,
    paths: Vec<PathPattern>,
    commands: Vec<CommandPattern>,
    cwd: Option<GlobMatcher>,
}

#[derive(Debug, Clone)]
struct PathPattern {
    relative: bool,
    glob: GlobMatcher,
}

#[derive(Debug, Clone)]
enum CommandPattern {
    Glob(GlobMatcher),
    Regex(Regex),
    Exact(String),
}

impl CommandPattern {
    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Glob(glob) => glob.is_match(text),
            Self::Regex(regex) => regex.is_match(text),
            Self::Exact(_) => false, // speaks of whole lines
        }
    }
}

impl Compiled {
    /// # Errors
    /// The first field that can't be used.
    pub fn new(rule: Rule) -> Result<Self, Fault> {
        let fault = |field, problem: String| Fault { field, problem };
        let kinds = rule.tool_kinds.iter().flatten().find(|kind| !TOOL_KINDS.contains(&kind.as_str()));
        if let Some(kind) = kinds {
            return Err(fault("toolKinds", format!("{kind:?} is no kind of tool: use one of {}", TOOL_KINDS.join(", "))));
        }
        check_list("agents", rule.agents.as_ref())?;
        check_list("toolKinds", rule.tool_kinds.as_ref())?;
        if rule.deadline_ms.is_some() && rule.effect != Effect::Ask {
            return Err(fault("deadlineMs", "only a rule that asks can have a deadline".to_owned()));
        }
        if rule.deadline_ms == Some(0) {
            return Err(fault("deadlineMs", "give at least 1".to_owned()));
        }
        Ok(Self {
            tools: compile("tools", rule.tools.as_ref(), |text| glob(text, false))?,
            paths: compile("paths", rule.paths.as_ref(), path_pattern)?,
            commands: compile("commands", rule.commands.as_ref(), command_pattern)?,
            cwd: rule.cwd.as_deref().map(cwd_pattern).transpose().map_err(|problem| fault("cwd", problem))?,
            rule,
        })
    }

    fn matches(&self, subject: &Subject) -> Match {
        let rule = &self.rule;
        if rule.effect == Effect::Allow && (!subject.readable || self.says_too_little(subject)) {
            return Match::No;
        }
        let agents = rule.agents.as_ref().map(|agents| agents.contains(&subject.origin.agent).into());
        let session = rule.session_id.as_ref().map(|id| (subject.origin.session_id.as_ref() == Some(id)).into());
        let cwd = self.cwd.as_ref().map(|glob| match &subject.cwd {
            Some(cwd) => glob.is_match(cwd).into(),
            None => Match::Unclear,
        });
        let input = rule.input.as_ref().map(|input| (*input == subject.input).into());
        let criteria = [
            agents,
            session,
            cwd,
            input,
            rule.tool_kinds.as_ref().map(|kinds| self.tool_kind(kinds, subject)),
            rule.tools.as_ref().map(|_| self.tool(subject)),
            rule.paths.as_ref().map(|_| self.path(subject)),
            rule.commands.as_ref().map(|_| self.command(subject)),
        ];
        criteria.into_iter().flatten().min().unwrap_or(Match::Yes)
    }

    /// What runs something isn't allowed by where it points or what it calls itself; an agent's model writes both.
    fn says_too_little(&self, subject: &Subject) -> bool {
        let rule = &self.rule;
        if rule.commands.is_some() || rule.input.is_some() {
            return false;
        }
        let by_path = rule.paths.is_some();
        let by_title = rule.tools.is_some() && subject.name.is_none();
        (by_path && (subject.runs_something() || (!subject.touches_files() && rule.tool_kinds.is_none())))
            || (by_title && subject.runs_something())
    }

    fn all_must_match(&self) -> bool {
        self.rule.effect == Effect::Allow
    }

    /// What runs a command is `execute`, whatever else it calls itself.
    fn tool_kind(&self, kinds: &[String], subject: &Subject) -> Match {
        let runs = matches!(subject.command, Known::Is(_)).then_some("execute");
        let stated = subject.tool_kind.as_deref();
        let mut actual = stated.into_iter().chain(runs).peekable();
        if actual.peek().is_none() {
            return Match::Unclear;
        }
        let covers = |kind: &str| kinds.iter().any(|word| word == kind);
        if self.all_must_match() { actual.all(covers).into() } else { actual.any(covers).into() }
    }

    fn tool(&self, subject: &Subject) -> Match {
        let hit = |text: &String| self.tools.iter().any(|glob| glob.is_match(text));
        let (name, title) = (subject.name.as_ref(), subject.title.as_ref());
        match (name, title) {
            (None, None) => Match::Unclear,
            (Some(name), _) if self.all_must_match() => hit(name).into(),
            (name, title) => name.into_iter().chain(title).any(hit).into(),
        }
    }

    fn path(&self, subject: &Subject) -> Match {
        let hit = |path: &String| self.paths.iter().any(|pattern| pattern.matches(path, &subject.origin.cwd));
        if self.all_must_match() {
            let known = !subject.odd_paths && !subject.paths.is_empty();
            return (known && subject.paths.iter().all(hit)).into();
        }
        let touches_files = subject.tool_kind.as_deref().is_none_or(|kind| FILE_KINDS[..4].contains(&kind));
        let nothing_known = subject.paths.is_empty() && touches_files && !matches!(subject.command, Known::Is(_));
        match subject.paths.iter().any(hit) {
            true => Match::Yes,
            false if subject.odd_paths || nothing_known => Match::Unclear,
            false => Match::No,
        }
    }

    fn command(&self, subject: &Subject) -> Match {
        match &subject.command {
            Known::Absent => Match::No,
            Known::Unknown => Match::Unclear,
            Known::Is(line) if self.is_exactly(line) => (!self.all_must_match() || !subject.asks_more).into(),
            Known::Is(line) if self.all_must_match() => (!subject.asks_more && self.covers(line)).into(),
            Known::Is(line) => self.touches(line),
        }
    }

    fn is_exactly(&self, line: &Line) -> bool {
        self.commands.iter().any(|pattern| matches!(pattern, CommandPattern::Exact(text) if *text == line.text))
    }

    /// Every command of the line is meant.
    fn covers(&self, line: &Line) -> bool {
        let hit = |part: &Part| self.commands.iter().any(|pattern| pattern.matches(&part.text));
        line.parts.as_ref().is_some_and(|parts| !parts.is_empty() && parts.iter().all(hit))
    }

    /// Any command of the line is meant, in whatever spelling we see through.
    fn touches(&self, line: &Line) -> Match {
        let hit = |text: &str| self.commands.iter().any(|pattern| pattern.matches(text));
        match &line.parts {
            Some(parts) => (hit(&line.text) || parts.iter().any(|part| spellings(part).iter().any(|text| hit(text)))).into(),
            None if hit(&line.text) || line.text.split(|c| ";|&\n`(){}<>'\"".contains(c)).any(|piece| hit(piece.trim())) => {
                Match::Yes
            }
            None => Match::Unclear,
        }
    }
}

/// A command as written, without quotes, and without what stands before the program: `X=1 sudo /bin/rm` is `rm`, too.
fn spellings(part: &Part) -> Vec<String> {
    let mut all = vec![part.text.clone()];
    for (at, word) in part.words.iter().enumerate() {
        let program = word.rsplit('/').next().unwrap_or_default();
        all.push(part.words[at..].join(" "));
        all.push([&[program.to_owned()], &part.words[at + 1..]].concat().join(" "));
        let goes_on = WRAPPERS.contains(&program) || word.starts_with('-') || word.contains('=') || word == "!" || word == "{";
        if !goes_on {
            break;
        }
    }
    all
}

impl PathPattern {
    fn matches(&self, path: &str, cwd: &str) -> bool {
        if !self.relative {
            return self.glob.is_match(path);
        }
        let cwd = super::subject::absolute(cwd, "/").unwrap_or_default();
        let below = path.strip_prefix(cwd.trim_end_matches('/')).and_then(|rest| rest.strip_prefix('/'));
        below.is_some_and(|below| self.glob.is_match(below))
    }
}

fn check_list(field: &'static str, list: Option<&Vec<String>>) -> Result<(), Fault> {
    let fault = |problem: &str| Err(Fault { field, problem: problem.to_owned() });
    match list {
        Some(list) if list.is_empty() => fault("an empty list matches nothing: leave it out to match everything"),
        Some(list) if list.len() > PATTERNS_MAX => fault("too many: make several rules of it, of at most 200 each"),
        Some(list) if list.iter().any(String::is_empty) => fault("an empty text matches nothing"),
        _ => Ok(()),
    }
}

fn compile<T>(field: &'static str, list: Option<&Vec<String>>, one: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, Fault> {
    check_list(field, list)?;
    let compiled =
        list.into_iter().flatten().map(|text| one(text).map_err(|why| Fault { field, problem: format!("{text:?}: {why}") }));
    compiled.collect()
}

fn glob(text: &str, literal_separator: bool) -> Result<GlobMatcher, String> {
    let built = GlobBuilder::new(text).literal_separator(literal_separator).backslash_escape(true).build();
    built.map(|glob| glob.compile_matcher()).map_err(|error| error.kind().to_string())
}

fn path_pattern(text: &str) -> Result<PathPattern, String> {
    if text.starts_with('~') {
        return Err("~ isn't expanded: write the directory".to_owned());
    }
    if text.split('/').any(|part| part == "." || part == "..") {
        return Err("write the path without . and ..".to_owned());
    }
    Ok(PathPattern { relative: !text.starts_with('/') && !text.starts_with("**"), glob: glob(text, true)? })
}

fn cwd_pattern(text: &str) -> Result<GlobMatcher, String> {
    let pattern = path_pattern(text)?;
    if pattern.relative { Err(format!("{text:?}: give an absolute path")) } else { Ok(pattern.glob) }
}

fn command_pattern(text: &str) -> Result<CommandPattern, String> {
    if let Some(line) = text.strip_prefix("exact:") {
        return Ok(CommandPattern::Exact(line.to_owned()));
    }
    let Some(pattern) = text.strip_prefix("regex:") else { return Ok(CommandPattern::Glob(glob(text, false)?)) };
    // On its own first: what closes a group it never opened would get out of the anchors.
    let sound = Regex::new(pattern).map_err(|error| error.to_string());
    let whole = |_| regex::RegexBuilder::new(&format!(r"\A(?:{pattern})\z")).size_limit(REGEX_MAX_BYTES).build();
    sound.map(whole)?.map(CommandPattern::Regex).map_err(|error| error.to_string())
}
