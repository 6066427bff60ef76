//! From what was asked for to what is started: the program on `PATH`, shell lines, scripts, stdin.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use bytes::Bytes;

use super::Error;
use super::children::{Launch, resolve};
use super::types::{CommandSpec, Encoding, Owner, ProcessId, ScriptLanguage};
use crate::config::Env;

/// A command that is ready to be started, as often as needed.
#[derive(Debug)]
pub(super) struct Prepared {
    launch: Launch,
    /// What it reads first.
    pub(super) stdin: Bytes,
    /// Removed when this is dropped.
    _script: Option<ScriptFile>,
}

impl Prepared {
    /// Checks a command and finds its program.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::ExecutableNotFound`], [`Error::NotPermitted`], [`Error::BadCwd`].
    pub(super) fn new(
        spec: &CommandSpec,
        id: ProcessId,
        owner: Owner,
        tty: bool,
        inherited: &Env,
        scripts: &Path,
    ) -> Result<Self, Error> {
        check(spec)?;
        // Absolute: the child is there already when it looks for its program.
        let cwd = spec.cwd.as_ref().map(|cwd| std::path::absolute(cwd).unwrap_or_else(|_| PathBuf::from(cwd)));
        if let Some(cwd) = cwd.as_ref().filter(|cwd| !cwd.is_dir()) {
            return Err(Error::BadCwd { cwd: cwd.clone() });
        }
        let path = match spec.env.get("PATH") {
            Some(path) => std::env::split_paths(path).collect(),
            None => inherited.search_path(),
        };
        let find = |name: &str| resolve(OsStr::new(name), cwd.as_deref(), &path);
        let (name, program, args, script) = match &spec.script {
            Some(script) => {
                let (name, program, first) = interpreter(script.language, find)?;
                let file = ScriptFile::write(scripts, id, script.language, &script.source)?;
                let args = first.iter().map(OsString::from).chain([file.0.clone().into_os_string()]);
                (name.to_owned(), program, args.chain(spec.args.iter().map(OsString::from)).collect(), Some(file))
            }
            None if spec.shell => {
                let line = [OsString::from("-c"), OsString::from(&spec.command), OsString::from("sh")];
                ("sh".to_owned(), find("sh")?, line.into_iter().chain(spec.args.iter().map(OsString::from)).collect(), None)
            }
            None => (spec.command.clone(), find(&spec.command)?, spec.args.iter().map(OsString::from).collect(), None),
        };
        let env = environment(spec, owner, tty, inherited);
        let launch = Launch { id, owner, name: name.into(), program, args, cwd, env, is_kept: false };
        Ok(Self { launch, stdin: stdin(spec)?, _script: script })
    }

    /// The executable's path.
    pub(super) fn program(&self) -> std::borrow::Cow<'_, str> {
        self.launch.program.to_string_lossy()
    }

    /// One start's worth.
    pub(super) fn launch(&self) -> Launch {
        self.launch.clone()
    }
}

fn check(spec: &CommandSpec) -> Result<(), Error> {
    if spec.script.is_none() && spec.command.trim().is_empty() {
        return Err(Error::Invalid("command must not be empty".to_owned()));
    }
    if spec.script.is_some() && (spec.shell || !spec.command.is_empty()) {
        return Err(Error::Invalid("give either a command or a script".to_owned()));
    }
    let strings = spec.args.iter().chain(spec.env.keys()).chain(spec.env.values()).chain([&spec.command]).chain(&spec.cwd);
    if strings.into_iter().any(|text| text.contains('\0')) {
        return Err(Error::Invalid("command, args, cwd and env can't hold a NUL character".to_owned()));
    }
    if let Some(name) = spec.env.keys().find(|name| name.is_empty() || name.contains('=')) {
        return Err(Error::Invalid(format!("{name:?} can't be the name of a variable")));
    }
    if spec.idempotency_key.as_ref().is_some_and(|key| key.is_empty() || key.len() > 200) {
        return Err(Error::Invalid("idempotencyKey has 1 to 200 bytes".to_owned()));
    }
    let limits = &spec.limits;
    if [limits.wall_time_ms, limits.output_bytes, limits.memory_bytes, limits.pids].contains(&Some(0)) {
        return Err(Error::Invalid("limits must be greater than 0".to_owned()));
    }
    Ok(())
}

/// What the interpreter is called, where it lies, and its arguments before the script.
fn interpreter(
    language: ScriptLanguage,
    find: impl Fn(&str) -> Result<PathBuf, Error>,
) -> Result<(&'static str, PathBuf, &'static [&'static str]), Error> {
    let candidates: &[(&'static str, &'static [&'static str])] = match language {
        ScriptLanguage::Sh => &[("sh", &[])],
        ScriptLanguage::Python => &[("python3", &[]), ("python", &[])],
        ScriptLanguage::Js => &[("node", &[]), ("bun", &[]), ("deno", &["run", "--allow-all"])],
    };
    let mut first_error = None;
    for (name, args) in candidates {
        match find(name) {
            Ok(program) => return Ok((name, program, args)),
            Err(error) => _ = first_error.get_or_insert(error),
        }
    }
    Err(first_error.unwrap_or_else(|| Error::ExecutableNotFound { program: PathBuf::new() }))
}

/// On top of what every child inherits. Terminals and runs have a `TERM` in any case.
fn environment(spec: &CommandSpec, owner: Owner, tty: bool, inherited: &Env) -> Vec<(OsString, OsString)> {
    let mut env = Vec::with_capacity(spec.env.len() + 1);
    if owner == Owner::Run || (tty && inherited.get("TERM").is_none_or(|term| term == "dumb")) {
        env.push(("TERM".into(), "xterm-256color".into()));
    }
    env.extend(spec.env.iter().map(|(name, value)| (name.into(), value.into())));
    env
}

fn stdin(spec: &CommandSpec) -> Result<Bytes, Error> {
    let Some(text) = &spec.stdin else { return Ok(Bytes::new()) };
    match spec.stdin_encoding.unwrap_or(Encoding::Utf8) {
        Encoding::Utf8 => Ok(Bytes::copy_from_slice(text.as_bytes())),
        Encoding::Base64 => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(text);
            bytes.map(Bytes::from).map_err(|error| Error::Invalid(format!("stdin is not base64: {error}")))
        }
    }
}

/// A script on disk.
#[derive(Debug)]
struct ScriptFile(PathBuf);

impl ScriptFile {
    fn write(folder: &Path, id: ProcessId, language: ScriptLanguage, source: &str) -> Result<Self, Error> {
        let suffix = match language {
            ScriptLanguage::Sh => "sh",
            ScriptLanguage::Python => "py",
            ScriptLanguage::Js => "js",
        };
        let path = folder.join(format!("{id}.{suffix}"));
        let write = || {
            std::fs::create_dir_all(folder)?;
            let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            std::io::Write::write_all(&mut file, source.as_bytes())
        };
        let written = write().map_err(|error| Error::Refused { program: path.clone(), cause: error.to_string() });
        let file = Self(path.clone());
        written.map(|()| file)
    }
}

impl Drop for ScriptFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0); // the script may have removed itself
    }
}
