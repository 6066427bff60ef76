//! What is about to be started: finding the program, its environment, and the reasons why it can't be.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::is_executable;
use crate::config::Env;
use crate::processes::Error;
use crate::processes::types::{Owner, ProcessId};

/// A child that is about to be started.
#[derive(Debug, Clone)]
pub(in crate::processes) struct Launch {
    pub(in crate::processes) id: ProcessId,
    pub(in crate::processes) owner: Owner,
    /// What the program is told that it is called.
    pub(in crate::processes) name: OsString,
    /// The executable: with a path, std starts it without copying this process (posix_spawn).
    pub(in crate::processes) program: PathBuf,
    pub(in crate::processes) args: Vec<OsString>,
    pub(in crate::processes) cwd: Option<PathBuf>,
    /// On top of what every child inherits.
    pub(in crate::processes) env: Vec<(OsString, OsString)>,
    /// It outlives this server: the keeper has its descriptors and learns of its end.
    pub(in crate::processes) is_kept: bool,
}

impl Launch {
    /// The command, without its stdio.
    pub(in crate::processes) fn command(&self, env: &Env) -> Command {
        let mut command = self.bare(&self.program);
        command.arg0(&self.name).args(&self.args).env_clear().envs(env.for_children());
        command.envs(self.env.iter().map(|(key, value)| (key, value)));
        command
    }

    #[allow(clippy::disallowed_methods)] // the one place that makes a command
    fn bare(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Some(cwd) = &self.cwd {
            command.current_dir(cwd);
        }
        command
    }

    /// Starts it.
    pub(super) fn spawn(&self, command: &mut Command) -> Result<std::process::Child, Error> {
        if self.cwd.as_ref().is_some_and(|cwd| !cwd.is_dir()) {
            return Err(Error::BadCwd { cwd: self.cwd.clone().unwrap_or_default() });
        }
        command.spawn().map_err(|error| self.refused(&error))
    }

    fn refused(&self, error: &std::io::Error) -> Error {
        let program = self.program.clone();
        match error.kind() {
            // A script whose interpreter is missing fails so, too.
            std::io::ErrorKind::NotFound if program.exists() => {
                Error::Refused { program, cause: "the interpreter named in its first line was not found".to_owned() }
            }
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => Error::ExecutableNotFound { program },
            std::io::ErrorKind::PermissionDenied => Error::NotPermitted { program },
            std::io::ErrorKind::ArgumentListTooLong => {
                Error::Invalid("arguments and environment together are longer than the system allows".to_owned())
            }
            _ if error.raw_os_error() == Some(nix::errno::Errno::ENOEXEC as i32) => Error::Invalid(format!(
                "{} is neither a binary nor has it a first line that names its interpreter",
                program.display()
            )),
            _ => Error::Refused { program, cause: error.to_string() },
        }
    }
}

/// Finds `name` as execvp(3) does: with a slash it is a path (counted from `cwd`), else it is looked for in `path`.
///
/// # Errors
/// [`Error::ExecutableNotFound`], or [`Error::NotPermitted`] when there is one that may not be executed.
pub(in crate::processes) fn resolve(name: &OsStr, cwd: Option<&Path>, path: &[PathBuf]) -> Result<PathBuf, Error> {
    if name.as_bytes().contains(&b'/') {
        let given = cwd.map_or_else(|| PathBuf::from(name), |cwd| cwd.join(name));
        return judge(given.clone(), is_executable(&given));
    }
    let all = || path.iter().map(|folder| folder.join(name));
    match all().find(|candidate| is_executable(candidate)) {
        Some(found) => Ok(found),
        None => match all().find(|candidate| candidate.is_file()) {
            Some(there) => judge(there, false),
            None => Err(Error::ExecutableNotFound { program: PathBuf::from(name) }),
        },
    }
}

fn judge(program: PathBuf, may_run: bool) -> Result<PathBuf, Error> {
    match (may_run, program.metadata()) {
        (true, _) => Ok(program),
        (false, Ok(_)) => Err(Error::NotPermitted { program }),
        (false, Err(error)) if error.kind() == std::io::ErrorKind::PermissionDenied => Err(Error::NotPermitted { program }),
        (false, Err(_)) => Err(Error::ExecutableNotFound { program }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_for_and_paths_are_not() {
        let path = [PathBuf::from("/nowhere"), PathBuf::from("/usr/bin"), PathBuf::from("/bin")];
        let found = resolve(OsStr::new("sh"), None, &path).expect("there is a shell");
        assert!(found.ends_with("sh") && found.is_absolute());
        assert!(matches!(resolve(OsStr::new("no-such-program"), None, &path), Err(Error::ExecutableNotFound { .. })));
        assert!(matches!(resolve(OsStr::new("./sh"), Some(Path::new("/tmp")), &path), Err(Error::ExecutableNotFound { .. })));
        assert!(resolve(OsStr::new("./sh"), Some(Path::new("/bin")), &path).is_ok());
        assert!(matches!(resolve(OsStr::new("/etc/passwd"), None, &path), Err(Error::NotPermitted { .. })));
        assert!(matches!(resolve(OsStr::new("/etc"), None, &path), Err(Error::NotPermitted { .. })));
    }
}
