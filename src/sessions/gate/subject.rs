//! What a permission is asked for: tool, paths and command, read from the params of `session/request_permission`
//! (ACP v1, "Requesting Permission"). Whatever is written otherwise than expected is *unknown*, which no rule allows.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::shell::Line;

/// Nesting of a tool's input that is looked at for paths.
const DEPTH_MAX: usize = 4;

/// Members of a tool's input that say nothing beyond which command is run, and where.
const COMMAND_MEMBERS: &[&str] = &[
    "command",
    "cmd",
    "args",
    "cwd",
    "workdir",
    "workingdirectory",
    "directory",
    "description",
    "title",
    "explanation",
    "reason",
    "justification",
    "timeout",
    "timeoutms",
    "runinbackground",
    "isbackground",
];

/// Members that say where a command runs.
const CWD_MEMBERS: &[&str] = &["cwd", "workdir", "workingdirectory"];

/// Who asks, and from where.
#[derive(Debug, Clone, Default)]
pub(super) struct Origin {
    pub agent: String,
    pub session_id: Option<String>,
    pub cwd: String,
}

/// The params, as far as they are of interest.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ToolCall {
    #[serde(default)]
    pub title: Value,
    #[serde(default)]
    pub name: Value,
    #[serde(default)]
    pub kind: Value,
    #[serde(default)]
    pub raw_input: Value,
    #[serde(default)]
    pub locations: Value,
    #[serde(default)]
    pub content: Value,
}

/// What may be known of something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Known<T> {
    /// It is this.
    Is(T),
    /// There is none.
    Absent,
    /// There may be one, but it can't be read.
    Unknown,
}

/// A tool call that waits for permission.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub origin: Origin,
    /// False when the params could not be read at all.
    pub readable: bool,
    pub title: Option<String>,
    pub name: Option<String>,
    /// A word of ACP's `ToolKind`.
    pub tool_kind: Option<String>,
    pub input: Value,
    pub command: Known<Line>,
    /// True when the input asks for more than to run the command.
    pub asks_more: bool,
    /// Absolute and without `..`, as far as names tell: links aren't followed.
    pub paths: Vec<String>,
    /// True when there are paths that can't be read.
    pub odd_paths: bool,
    /// Where the tool runs: an absolute path.
    pub cwd: Option<String>,
}

impl Subject {
    /// Of a tool call; `None`: its params can't be read.
    pub fn new(origin: Origin, call: Option<&ToolCall>) -> Self {
        let unreadable = ToolCall::default();
        let input = &call.unwrap_or(&unreadable).raw_input;
        let cwd = own_cwd(input, &origin.cwd);
        let mut subject = Self {
            readable: call.is_some(),
            title: None,
            name: None,
            tool_kind: None,
            input: input.clone(),
            command: Known::Unknown,
            asks_more: false,
            paths: Vec::new(),
            odd_paths: false,
            cwd,
            origin,
        };
        if let Some(call) = call {
            subject.read(call);
        }
        subject
    }

    fn read(&mut self, call: &ToolCall) {
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        self.title = text(&call.title);
        self.name = text(&call.name);
        self.tool_kind = text(&call.kind).filter(|kind| super::policy::TOOL_KINDS.contains(&kind.as_str()));
        self.command = command(&call.raw_input, self.tool_kind.as_deref());
        self.asks_more = call.raw_input.as_object().is_some_and(|input| input.iter().any(|(key, value)| is_more(key, value)));
        for location in call.locations.as_array().into_iter().flatten() {
            self.add_path(&location["path"]);
        }
        for content in call.content.as_array().into_iter().flatten().filter(|content| content["type"] == "diff") {
            self.add_path(&content["path"]);
        }
        self.add_paths_of(&call.raw_input, DEPTH_MAX);
        self.paths.sort_unstable();
        self.paths.dedup();
    }

    /// True when it runs something, as far as anybody knows.
    pub fn runs_something(&self) -> bool {
        self.command != Known::Absent || self.tool_kind.as_deref() == Some("execute")
    }

    /// True when its kind of tool does what it does to the paths it names.
    pub fn touches_files(&self) -> bool {
        self.tool_kind.as_deref().is_some_and(|kind| super::policy::FILE_KINDS.contains(&kind))
    }

    fn add_paths_of(&mut self, value: &Value, depth: usize) {
        match value {
            Value::Object(members) if depth > 0 => self.add_members(members, depth),
            Value::Array(items) if depth > 0 => items.iter().for_each(|item| self.add_paths_of(item, depth - 1)),
            Value::Object(_) | Value::Array(_) => self.odd_paths = true,
            _ => {}
        }
    }

    fn add_members(&mut self, members: &Map<String, Value>, depth: usize) {
        for (key, value) in members {
            match value {
                _ if CWD_MEMBERS.contains(&plain(key).as_str()) => {}
                Value::String(_) if names_a_path(key) => self.add_path(value),
                Value::Array(items) if names_a_path(key) && items.iter().all(Value::is_string) => {
                    items.iter().for_each(|item| self.add_path(item));
                }
                nested => self.add_paths_of(nested, depth - 1),
            }
        }
    }

    /// A relative one is meant from the session's directory or from the tool's own: both count.
    fn add_path(&mut self, value: &Value) {
        let Some(path) = value.as_str().filter(|path| !path.is_empty()).and_then(plain_path) else {
            self.odd_paths = true;
            return;
        };
        let bases = [Some(self.origin.cwd.clone()), self.cwd.clone()];
        let all: Vec<_> = bases.iter().flatten().filter_map(|base| absolute(&path, base)).collect();
        self.odd_paths |= all.is_empty();
        self.paths.extend(all);
    }
}

fn own_cwd(input: &Value, session_cwd: &str) -> Option<String> {
    let members = input.as_object().into_iter().flatten();
    let mut own = members.filter(|(key, value)| CWD_MEMBERS.contains(&plain(key).as_str()) && !value.is_null());
    match own.next() {
        None => absolute(session_cwd, "/"),
        Some((_, value)) => value.as_str().and_then(plain_path).and_then(|path| absolute(&path, session_cwd)),
    }
}

/// A key without case and separators: `file_path` and `filePath` are one.
fn plain(key: &str) -> String {
    key.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

fn names_a_path(key: &str) -> bool {
    let key = plain(key);
    let ends = ["path", "paths", "file", "files", "filename", "filenames", "dir", "dirs", "directory", "folder"];
    ends.iter().any(|end| key.ends_with(end))
        || matches!(key.as_str(), "source" | "destination" | "target" | "from" | "to" | "uri")
}

/// Null, false and nothing ask for nothing.
fn is_more(key: &str, value: &Value) -> bool {
    let empty = match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    };
    !empty && !COMMAND_MEMBERS.contains(&plain(key).as_str())
}

fn command(input: &Value, tool_kind: Option<&str>) -> Known<Line> {
    let given: Vec<_> = ["command", "cmd"].iter().filter_map(|key| input.get(key)).filter(|value| !value.is_null()).collect();
    let args = input.get("args").filter(|args| !args.is_null());
    match (given.as_slice(), args) {
        ([], _) if tool_kind == Some("execute") || (tool_kind.is_none() && !input.is_object()) => Known::Unknown,
        ([], _) => Known::Absent,
        ([Value::String(text)], None) => Known::Is(Line::of_text(text)),
        ([Value::String(program)], Some(args)) => match words(args) {
            Some(args) => Known::Is(Line::of_words(&[vec![program.clone()], args].concat())),
            None => Known::Unknown,
        },
        ([value], None) => {
            words(value).filter(|words| !words.is_empty()).map_or(Known::Unknown, |words| Known::Is(Line::of_words(&words)))
        }
        _ => Known::Unknown,
    }
}

fn words(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|word| word.as_str().map(str::to_owned)).collect()
}

/// A path without `file://`; `None` for other addresses, `~` and what no path can hold.
fn plain_path(path: &str) -> Option<String> {
    let path = match path.strip_prefix("file://") {
        Some(rest) => percent_encoding::percent_decode_str(rest).decode_utf8().ok()?.into_owned(),
        None => path.to_owned(),
    };
    let odd = path.starts_with('~') || path.contains("://") || path.contains('\0');
    (!odd).then_some(path)
}

/// The path from `base`, without `.`, `..` and doubled slashes, as far as names tell. `None` without an absolute base.
pub(super) fn absolute(path: &str, base: &str) -> Option<String> {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{base}/{path}") };
    let mut parts = Vec::new();
    for part in whole.strip_prefix('/')?.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    Some(format!("/{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn subject(call: Value) -> Subject {
        let origin = Origin { agent: "a".into(), session_id: None, cwd: "/w".into() };
        Subject::new(origin, Some(&serde_json::from_value(call).expect("a tool call")))
    }

    #[test]
    fn paths_are_found_wherever_they_are() {
        let found = subject(json!({
            "kind": "edit",
            "locations": [{"path": "/w/a/../b"}],
            "content": [{"type": "diff", "path": "c//./d", "newText": ""}],
            "rawInput": {"file_path": "../etc/x", "edits": [{"filePath": "/e"}], "files": ["f", "g"], "content": "/no"},
        }));
        assert_eq!(found.paths, ["/e", "/etc/x", "/w/b", "/w/c/d", "/w/f", "/w/g"]);
        assert!(!found.odd_paths);
    }

    #[test]
    fn odd_paths_are_said() {
        for path in ["~/x", "https://x/y", "", "a\0b", "file:///%ff"] {
            assert!(subject(json!({"rawInput": {"path": path}})).odd_paths, "{path:?}");
        }
        assert!(subject(json!({"locations": [{"path": 7}]})).odd_paths);
    }

    #[test]
    fn a_relative_path_counts_from_both_directories() {
        let found = subject(json!({"rawInput": {"path": "x", "cwd": "/etc"}}));
        assert_eq!((found.paths, found.cwd.as_deref()), (vec!["/etc/x".to_owned(), "/w/x".to_owned()], Some("/etc")));
    }

    #[test]
    fn commands_in_every_spelling() {
        let text = |call| match subject(call).command {
            Known::Is(line) => line.text,
            other => format!("{other:?}"),
        };
        assert_eq!(text(json!({"rawInput": {"command": "ls -l"}})), "ls -l");
        assert_eq!(text(json!({"rawInput": {"command": ["ls", "a b"]}})), "ls 'a b'");
        assert_eq!(text(json!({"rawInput": {"command": "ls", "args": ["-l"]}})), "ls -l");
        assert_eq!(text(json!({"kind": "edit", "rawInput": {"path": "x"}})), "Absent");
        for odd in [
            json!({"command": 7}),
            json!({"command": [7]}),
            json!({"command": []}),
            json!({"command": "a", "cmd": "b"}),
            json!({}),
        ] {
            assert_eq!(text(json!({"kind": "execute", "rawInput": odd})), "Unknown");
        }
        assert_eq!(text(json!({"kind": "execute"})), "Unknown");
    }

    #[test]
    fn more_than_the_command_is_noticed() {
        let more = |input| subject(json!({"rawInput": input})).asks_more;
        assert!(!more(json!({"command": "ls", "description": "x", "timeout": 1, "dangerouslyDisableSandbox": false})));
        assert!(more(json!({"command": "ls", "dangerouslyDisableSandbox": true})));
        assert!(more(json!({"command": "ls", "additionalPermissions": {"network": {}}})));
        assert!(more(json!({"command": "ls", "url": "https://x"})));
    }
}
