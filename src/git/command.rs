//! Running git so that nothing that a repository says is run.
//!
//! Whoever works in a repository writes its configuration, and this server may be somebody more powerful. So every
//! command is given what overrides it: no file-system monitor, hooks, pager, external diffs or filters, no network, no
//! configuration of the host, no variable of the server's. Sources: git(1), git-config(1), gitattributes(5), githooks(5).

use std::ffi::OsString;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::Semaphore;

use super::Error;
use crate::config::{Bounds, Env, as_usize};
use crate::processes::{Child, ChildSpec, Children, Exit, Owner, Started, StderrTail};
use crate::rt::{files, spawn_owned};

/// Before every command.
const OPTIONS: &[&str] = &["--no-optional-locks", "--no-pager", "--literal-pathspecs"];

/// What no repository can change.
const SETTINGS: &[&str] = &[
    "safe.directory=*", // the server's user needn't own it
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.pager=cat",
    "core.quotePath=false",
    "diff.external=",
    "diff.noprefix=false",
    "diff.mnemonicPrefix=false",
    "gc.auto=0",
    "log.follow=false",
    "log.mailmap=false",
    "log.showSignature=false", // would run gpg.program
    "maintenance.auto=false",
    "status.submoduleSummary=false",
    "submodule.recurse=false",
];

/// A partial clone would fetch what it lacks, by a helper that its configuration names.
const VARIABLES: &[(&str, &str)] = &[
    ("GIT_ALLOW_PROTOCOL", "none"),
    ("GIT_ASKPASS", "/bin/false"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_NO_LAZY_FETCH", "1"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("HOME", "/dev/null"),
    ("LC_ALL", "C"),
];

/// What of the server's environment git may need to be itself.
const INHERITED: &[&str] = &["PATH", "LD_LIBRARY_PATH", "GIT_EXEC_PATH", "TMPDIR"];

const SAID_LINES: usize = 16;
const SAID_LINE_BYTES: usize = 512;
const READ_BYTES: usize = 64 * 1024;

/// Runs commands.
pub(super) struct Commands {
    children: Children,
    env: Env,
    calls: Semaphore,
    pub(super) bounds: Bounds,
}

/// A command: what it is, and how far it may go.
pub(super) struct Command {
    /// Behind `git`; the first is its name.
    pub(super) args: Vec<OsString>,
    /// What the repository needs on top: settings, and variables.
    pub(super) settings: Vec<OsString>,
    pub(super) variables: Vec<(OsString, OsString)>,
    /// Of its output, so much is kept. More ends it.
    pub(super) output_max_bytes: u64,
    /// True for what changes something: it has more time, and goes on when nobody waits.
    pub(super) is_change: bool,
}

impl Command {
    pub(super) fn new(args: impl IntoIterator<Item = impl Into<OsString>>, output_max_bytes: u64) -> Self {
        let args = args.into_iter().map(Into::into).collect();
        Self { args, settings: Vec::new(), variables: Vec::new(), output_max_bytes, is_change: false }
    }

    fn name(&self) -> String {
        self.args.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

/// What a command said.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) stdout: Vec<u8>,
    /// There was more.
    pub(super) truncated: bool,
    exit: Option<Exit>,
    what: String,
    /// The end of its stderr.
    pub(super) said: String,
}

impl Output {
    /// Its exit code; `None` after a signal, or when it was ended because its output was too long.
    pub(super) fn code(&self) -> Option<i32> {
        self.exit.and_then(|exit| exit.code())
    }

    /// Itself when it went well, or was cut.
    pub(super) fn ok(self) -> Result<Self, Error> {
        if self.truncated || self.code() == Some(0) { Ok(self) } else { Err(self.failed()) }
    }

    pub(super) fn failed(self) -> Error {
        let exit = self.exit.map(|exit| exit.to_string()).unwrap_or_default();
        let said = self.said.trim().to_owned();
        Error::Failed { what: self.what, said: if said.is_empty() { exit } else { said } }
    }

    /// Its output as one line of text.
    pub(super) fn line(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }
}

impl Commands {
    pub(super) fn new(children: Children, env: Env, bounds: Bounds) -> Self {
        let calls = Semaphore::new(as_usize(bounds.git_calls_max));
        Self { children, env, calls, bounds }
    }

    /// Runs a command in a directory that is held. Dropping the future ends the command.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::TimedOut`], [`Error::Busy`], [`Error::Process`]. A bad exit is none.
    pub(super) async fn run(&self, directory: &OwnedFd, command: Command) -> Result<Output, Error> {
        let _call = self.calls.try_acquire().map_err(|_| Error::Busy { max: self.bounds.git_calls_max })?;
        let program = files::find_executable("git", &self.env.search_path()).ok_or(Error::Missing)?;
        let (what, max) = (command.name(), as_usize(command.output_max_bytes));
        let (timeout_ms, bound) = match command.is_change {
            true => (self.bounds.git_worktree_timeout_ms, "git_worktree_timeout_ms"),
            false => (self.bounds.git_timeout_ms, "git_timeout_ms"),
        };
        let started = self.children.spawn_bare(&self.spec(program, directory, command))?;
        let Started { stdin, stdout, stderr, process } = started;
        drop(stdin);
        let mut ending = Ending(Some(process.clone()));
        let work = async {
            let (read, said) = tokio::join!(read(stdout, max, &process), last_words(stderr));
            (read, said, process.exited().await)
        };
        let waited = tokio::time::timeout(Duration::from_millis(timeout_ms), work).await;
        let ((stdout, truncated), said, exit) = waited.map_err(|_| Error::TimedOut { what: what.clone(), timeout_ms, bound })?;
        ending.0 = None;
        Ok(Output { stdout, truncated, exit: Some(exit), what, said })
    }

    fn spec(&self, program: PathBuf, directory: &OwnedFd, command: Command) -> ChildSpec {
        let mut args: Vec<OsString> = OPTIONS.iter().map(Into::into).collect();
        let settings = SETTINGS.iter().map(OsString::from).chain(command.settings);
        args.extend(settings.flat_map(|setting| ["-c".into(), setting]));
        args.extend(command.args);
        let mut env: Vec<(OsString, OsString)> = VARIABLES.iter().map(|(key, value)| (key.into(), value.into())).collect();
        env.extend(INHERITED.iter().filter_map(|key| Some((key.into(), self.env.path(key)?.into_os_string()))));
        env.extend(command.variables);
        // The child has the descriptor until it becomes git: its directory is the one that was checked.
        let cwd = Some(PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())));
        ChildSpec { program, args, cwd, env, owner: Owner::System }
    }
}

/// Ends a command that nobody waits for.
struct Ending(Option<Child>);

impl Drop for Ending {
    fn drop(&mut self) {
        // Without a runtime the server itself is ending, and with it all children.
        if let Some(process) = self.0.take().filter(|_| tokio::runtime::Handle::try_current().is_ok()) {
            spawn_owned("git-end", async move { process.stop(Duration::ZERO).await });
        }
    }
}

/// The beginning of an output, and whether there was more. Then the command is ended.
async fn read(mut from: impl AsyncRead + Unpin, max: usize, process: &Child) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    let mut piece = vec![0; READ_BYTES];
    while let Ok(count @ 1..) = from.read(&mut piece).await {
        all.extend_from_slice(&piece[..count]);
        if all.len() > max {
            all.truncate(max);
            process.stop(Duration::ZERO).await;
            return (all, true);
        }
    }
    (all, false)
}

async fn last_words(mut from: impl AsyncRead + Unpin) -> String {
    let mut tail = StderrTail::new(SAID_LINES, SAID_LINE_BYTES);
    let mut piece = vec![0; 4096];
    while let Ok(count @ 1..) = from.read(&mut piece).await {
        tail.push(&piece[..count]);
    }
    tail.text()
}
