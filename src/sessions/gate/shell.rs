//! Shell lines, read just far enough to say which simple commands they run. What isn't understood for certain is
//! [`None`]: no rule may allow it. POSIX Shell Command Language sections 2.2 (quoting), 2.3 (tokens), 2.9 (commands).

/// How deep `sh -c "sh -c …"` is followed.
const DEPTH_MAX: usize = 4;

/// One simple command of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// As written, without redirections that go nowhere.
    pub text: String,
    /// Its words without quotes; expansions are left as written.
    pub words: Vec<String>,
}

/// What may be known of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// The whole of it as text.
    pub text: String,
    /// The commands it runs; `None` when that can't be said.
    pub parts: Option<Vec<Part>>,
}

impl Line {
    /// Of a line for a shell.
    pub fn of_text(text: &str) -> Self {
        Self { text: text.to_owned(), parts: parts(text, DEPTH_MAX) }
    }

    /// Of a program and its arguments.
    pub fn of_words(words: &[String]) -> Self {
        let text = words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
        let parts = match script(words) {
            Script::None => Some(vec![Part { text: text.clone(), words: words.to_vec() }]),
            Script::Text(script) => parts(script, DEPTH_MAX),
            Script::Unclear => None,
        };
        Self { text, parts }
    }
}

/// The commands of a line, those of `sh -c` included.
fn parts(text: &str, depth: usize) -> Option<Vec<Part>> {
    let depth = depth.checked_sub(1)?;
    let mut reader = Reader::default();
    reader.read(text)?;
    let mut all = Vec::new();
    for (part, expands) in reader.parts {
        match script(&part.words) {
            Script::None => all.push(part),
            // What the outer shell puts in may hold operators for the inner one.
            Script::Text(_) if expands => return None,
            Script::Text(script) => all.extend(parts(script, depth)?),
            Script::Unclear => return None,
        }
    }
    Some(all)
}

enum Script<'a> {
    /// It is no shell.
    None,
    /// `sh -c TEXT`.
    Text(&'a str),
    /// A shell that runs who knows what.
    Unclear,
}

fn script(words: &[String]) -> Script<'_> {
    let name = words.first().map_or("", |word| word.rsplit('/').next().unwrap_or_default());
    if !matches!(name, "sh" | "bash" | "zsh" | "dash" | "ash" | "ksh") {
        return Script::None;
    }
    match words {
        [_, flags, text] if flags.len() <= 4 && is_flags_with_c(flags) => Script::Text(text),
        _ => Script::Unclear,
    }
}

fn is_flags_with_c(word: &str) -> bool {
    word.strip_prefix('-').is_some_and(|flags| flags.contains('c') && flags.chars().all(|c| matches!(c, 'c' | 'l' | 'e' | 'u')))
}

/// The word as a shell would have to be given it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// Reads a line character by character.
#[derive(Default)]
struct Reader {
    parts: Vec<(Part, bool)>,
    text: String,
    words: Vec<String>,
    word: Option<String>,
    expands: bool,
}

impl Reader {
    /// `None` at the first thing that is not plain.
    fn read(&mut self, line: &str) -> Option<()> {
        let mut rest = line;
        while let Some(c) = rest.chars().next() {
            let behind = &rest[c.len_utf8()..];
            rest = match c {
                ';' | '&' | '|' | '\n' => {
                    self.end_part();
                    behind
                }
                ' ' | '\t' => {
                    self.end_word();
                    self.text.push(c);
                    behind
                }
                '\'' => self.single(behind)?,
                '"' => self.double(behind)?,
                '\\' => self.escaped(behind)?,
                '>' => self.redirection(behind)?,
                // A comment could hide a quote that isn't one.
                '#' if self.word.is_none() => return None,
                '$' if behind.starts_with(['(', '{', '[', '\'', '"']) => return None,
                '`' | '<' | '(' | ')' => return None,
                c if c.is_control() => return None,
                c => {
                    self.expands |= c == '$';
                    self.push(c);
                    behind
                }
            };
        }
        self.end_part();
        Some(())
    }

    fn push(&mut self, c: char) {
        self.text.push(c);
        self.word.get_or_insert_default().push(c);
    }

    fn single<'a>(&mut self, rest: &'a str) -> Option<&'a str> {
        let (inside, behind) = rest.split_once('\'')?;
        self.text.extend(["'", inside, "'"]);
        self.word.get_or_insert_default().push_str(inside);
        Some(behind)
    }

    fn double<'a>(&mut self, rest: &'a str) -> Option<&'a str> {
        self.text.push('"');
        self.word.get_or_insert_default();
        let mut characters = rest.char_indices().peekable();
        while let Some((at, c)) = characters.next() {
            let next = characters.peek().map(|(_, next)| *next);
            match (c, next) {
                ('"', _) => {
                    self.text.push('"');
                    return Some(&rest[at + 1..]);
                }
                ('`', _) | ('$', Some('(' | '{' | '[')) | ('\\', Some('\n')) => return None,
                ('\\', Some(escaped @ ('$' | '`' | '"' | '\\'))) => {
                    characters.next();
                    self.text.push('\\');
                    self.push(escaped);
                }
                (c, _) => {
                    self.expands |= c == '$';
                    self.push(c);
                }
            }
        }
        None // it isn't closed
    }

    fn escaped<'a>(&mut self, rest: &'a str) -> Option<&'a str> {
        let c = rest.chars().next().filter(|c| !c.is_control())?;
        self.text.push('\\');
        self.push(c);
        Some(&rest[c.len_utf8()..])
    }

    /// Only those that go nowhere are left out: `2>&1`, `>/dev/null`.
    fn redirection<'a>(&mut self, rest: &'a str) -> Option<&'a str> {
        let harmless = ["&1", "&2", "/dev/null", " /dev/null"];
        let behind = harmless.iter().find_map(|target| rest.strip_prefix(target))?;
        if !behind.is_empty() && !behind.starts_with([' ', '\t', ';', '&', '|', '\n']) {
            return None;
        }
        match self.word.as_deref() {
            None => {}
            Some("1" | "2") if self.text.ends_with(['1', '2']) => {
                self.text.pop();
                self.word = None;
            }
            Some(_) => self.end_word(),
        }
        Some(behind)
    }

    fn end_word(&mut self) {
        self.words.extend(self.word.take());
    }

    fn end_part(&mut self) {
        self.end_word();
        let text = std::mem::take(&mut self.text).trim().to_owned();
        let words = std::mem::take(&mut self.words);
        let expands = std::mem::take(&mut self.expands);
        if !words.is_empty() {
            self.parts.push((Part { text, words }, expands));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> Option<Vec<String>> {
        Line::of_text(line).parts.map(|parts| parts.into_iter().map(|part| part.text).collect())
    }

    #[test]
    fn lines_come_apart() {
        let cases: &[(&str, &[&str])] = &[
            ("git status", &["git status"]),
            ("cd a && make; ls | wc -l", &["cd a", "make", "ls", "wc -l"]),
            ("echo 'a; b' \"c | d\"", &["echo 'a; b' \"c | d\""]),
            ("a\nb &", &["a", "b"]),
            ("cargo test 2>&1 | tail", &["cargo test", "tail"]),
            ("make >/dev/null 2> /dev/null", &["make"]),
            ("bash -lc 'a; b'", &["a", "b"]),
            ("sh -c \"sh -c 'rm x'\"", &["rm x"]),
            ("echo größe \u{2003}; ls", &["echo größe", "ls"]),
            ("", &[]),
        ];
        for (line, wanted) in cases {
            assert_eq!(
                texts(line).as_deref(),
                Some(&wanted.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>()[..]),
                "{line}"
            );
        }
    }

    #[test]
    fn what_is_not_plain_is_not_understood() {
        let lines = [
            "echo $(rm x)",
            "echo `rm x`",
            "echo \"$(rm x)\"",
            "echo \"`rm x`\"",
            "ls > file",
            "ls >> file",
            "cat < file",
            "cat <<E\nE",
            "diff <(a) <(b)",
            "(rm x)",
            "git status # it's\nrm x #'",
            "echo 'open",
            "echo \"open",
            "echo \\\nrm",
            "echo $'a\\'; rm x; '",
            "echo ${x}",
            "ls >/dev/nullx",
            "ls >&3",
            "bash script.sh",
            "bash -c a b",
            "bash",
            "X='; rm y'; bash -c \"ls $X\"",
            "bash -s",
            "a\rb",
            "a\0b",
        ];
        for line in lines {
            assert_eq!(texts(line), None, "{line:?}");
        }
    }

    #[test]
    fn programs_with_arguments() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let line = Line::of_words(&words(&["git", "log", "a; rm b"]));
        assert_eq!(line.text, "git log 'a; rm b'");
        assert_eq!(line.parts.expect("plain").len(), 1);
        let line = Line::of_words(&words(&["/bin/bash", "-lc", "a; b"]));
        assert_eq!(line.parts.expect("plain").iter().map(|part| part.text.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(Line::of_words(&words(&["bash", "x.sh"])).parts, None);
    }
}
