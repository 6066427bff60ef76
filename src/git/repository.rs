//! The repository that a directory belongs to: where it is, whether it may be used, and what of its configuration has
//! to be switched off.

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Error;
use super::command::{Command, Commands, Output};
use crate::rt::files;

/// Names and paths that git tells of a repository are never longer.
const TOLD_MAX_BYTES: u64 = 64 * 1024;

/// So many directories may hold one repository's objects.
const STORES_MAX: usize = 32;

/// Opens a directory by its real path, if the caller may use it. May block.
pub type Allows = Arc<dyn Fn(&Path) -> Option<OwnedFd> + Send + Sync>;

/// A directory that a caller may use, and a way to ask for more.
#[derive(Clone)]
pub struct Place {
    /// What the caller named.
    pub path: PathBuf,
    /// The same, held.
    pub directory: Arc<OwnedFd>,
    /// Asks for others.
    pub allows: Allows,
}

/// A repository that may be used.
pub(super) struct Repository {
    /// As git says it; the same in all its worktrees.
    pub(super) common_dir: PathBuf,
    /// Where this working tree begins.
    pub(super) top: Option<PathBuf>,
    git_dir: PathBuf,
    /// Commands run here: the top, or the place itself.
    directory: Arc<OwnedFd>,
    /// Switches filters and hooks off.
    pub(super) settings: Vec<OsString>,
    place: Place,
}

impl Place {
    /// Opens a directory that git named.
    pub(super) async fn open(&self, path: &Path) -> Result<OwnedFd, Error> {
        let (allows, asked) = (Arc::clone(&self.allows), path.to_path_buf());
        let opened = tokio::task::spawn_blocking(move || allows(&asked)).await.map_err(|_| Error::Stopping)?;
        opened.ok_or_else(|| Error::Outside(path.to_path_buf()))
    }

    /// Fails when objects are taken from where the caller may not look.
    async fn judge_objects(&self, objects: PathBuf) -> Result<(), Error> {
        let allows = Arc::clone(&self.allows);
        let judged = tokio::task::spawn_blocking(move || {
            let mut open = vec![objects];
            let mut seen = 0;
            while let Some(objects) = open.pop() {
                let Ok(real) = objects.canonicalize() else { continue }; // it isn't there, and nothing is taken from it
                seen += 1;
                if seen > STORES_MAX {
                    return Err(Error::Refused(format!("objects in more than {STORES_MAX} directories")));
                }
                allows(&real).ok_or_else(|| Error::Outside(real.clone()))?;
                open.extend(alternates(&real)?);
            }
            Ok(())
        });
        judged.await.map_err(|_| Error::Stopping)?
    }
}

/// Where more objects are. Source: gitrepository-layout(5), `objects/info/alternates`.
fn alternates(objects: &Path) -> Result<Vec<PathBuf>, Error> {
    let path = objects.join("info/alternates");
    let text = match files::read_bounded(&path, TOLD_MAX_BYTES) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Vec::new()),
        Err(error) => return Err(Error::Refused(format!("{}: {error}", path.display()))),
    };
    if text.lines().any(|line| line.starts_with('"')) {
        return Err(Error::Refused(format!("{}: a path in quotes", path.display())));
    }
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(|line| objects.join(line)).collect())
}

impl Repository {
    /// Finds the repository of a directory.
    ///
    /// # Errors
    /// [`Error::NotARepository`], [`Error::Outside`], [`Error::Refused`], and those of running git.
    pub(super) async fn find(commands: &Commands, place: &Place) -> Result<Self, Error> {
        // The last one fails where there is no working tree, once the others are told.
        let args = ["rev-parse", "--path-format=absolute", "--absolute-git-dir", "--git-common-dir", "--show-toplevel"];
        let told = commands.run(&place.directory, Command::new(args, TOLD_MAX_BYTES)).await?;
        let paths: Vec<PathBuf> = lines(&told.stdout).map(|line| PathBuf::from(OsStr::from_bytes(line))).collect();
        let (git_dir, common_dir, top) = match (told.code(), &paths[..]) {
            (Some(0), [git_dir, common_dir, top]) => (git_dir.clone(), common_dir.clone(), Some(top.clone())),
            (Some(128), [git_dir, common_dir]) => (git_dir.clone(), common_dir.clone(), None),
            _ if told.said.contains("not a git repository") => return Err(Error::NotARepository(place.path.clone())),
            (Some(0), _) => return Err(Error::Refused("a path with a line break".to_owned())),
            _ => return Err(told.failed()),
        };
        place.open(&git_dir).await?;
        place.open(&common_dir).await?;
        place.judge_objects(common_dir.join("objects")).await?;
        let directory = match &top {
            Some(top) => Arc::new(place.open(top).await?),
            None => Arc::clone(&place.directory),
        };
        let mut found = Self { common_dir, top, git_dir, directory, settings: Vec::new(), place: place.clone() };
        found.settings = found.switched_off(commands).await?;
        Ok(found)
    }

    /// What switches off each filter and hook that the configuration names.
    async fn switched_off(&self, commands: &Commands) -> Result<Vec<OsString>, Error> {
        let args = ["config", "-z", "--name-only", "--get-regexp", r"^(filter|hook)\."];
        let told = self.run(commands, Command::new(args, TOLD_MAX_BYTES)).await?;
        match told.code() {
            _ if told.truncated => Err(Error::Refused("too many filters and hooks".to_owned())),
            Some(0 | 1) => overrides(&told.stdout, commands.bounds.git_drivers_max), // 1: there are none
            _ => Err(told.failed()),
        }
    }

    /// Runs a command on this repository, at its top.
    pub(super) async fn run(&self, commands: &Commands, mut command: Command) -> Result<Output, Error> {
        let mut variables = vec![("GIT_DIR".into(), self.git_dir.clone().into_os_string())];
        variables.extend(self.top.as_ref().map(|top| ("GIT_WORK_TREE".into(), top.clone().into_os_string())));
        command.variables = variables;
        command.settings.extend(self.settings.iter().cloned());
        commands.run(&self.directory, command).await
    }

    /// Where its working tree begins.
    pub(super) fn work_tree(&self) -> Result<&Path, Error> {
        self.top.as_deref().ok_or_else(|| Error::NoWorkTree(self.place.path.clone()))
    }

    /// The hash that a revision stands for, as a `kind` of object; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what looks like an option, and those of running git.
    pub(super) async fn resolve(&self, commands: &Commands, revision: &str, kind: &str) -> Result<Option<String>, Error> {
        if revision.is_empty() || revision.starts_with('-') || revision.contains(['\0', '\n']) {
            return Err(Error::Invalid(format!("not a revision: {revision:?}")));
        }
        let args = ["rev-parse".to_owned(), "--verify".to_owned(), "--quiet".to_owned(), format!("{revision}^{{{kind}}}")];
        let told = self.run(commands, Command::new(args, TOLD_MAX_BYTES)).await?;
        Ok((told.code() == Some(0)).then(|| told.line()))
    }
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.strip_suffix(b"\n").into_iter().flat_map(|text| text.split(|byte| *byte == b'\n'))
}

/// Settings against names like `filter.lfs.clean` and `hook.lint.command`, each with a NUL behind it.
fn overrides(names: &[u8], drivers_max: u64) -> Result<Vec<OsString>, Error> {
    let mut drivers: Vec<&[u8]> = names.split(|byte| *byte == 0).filter_map(driver).collect();
    drivers.sort_unstable();
    drivers.dedup();
    if drivers.len() as u64 > drivers_max {
        return Err(Error::Refused(format!("{} filters and hooks, more than {drivers_max} (git_drivers_max)", drivers.len())));
    }
    // The first `=` ends the name of a setting that is given on the command line.
    if let Some(name) = drivers.iter().find(|driver| driver.contains(&b'=')) {
        return Err(Error::Refused(format!("a name with an equals sign: {}", String::from_utf8_lossy(name))));
    }
    let keys = |driver: &[u8]| match driver.starts_with(b"filter.") {
        true => &["clean=", "smudge=", "process=", "required=false"][..],
        false => &["enabled=false", "event="][..],
    };
    let all = drivers.iter().flat_map(|driver| keys(driver).iter().map(|key| [driver, &b"."[..], key.as_bytes()].concat()));
    Ok(all.map(OsString::from_vec).collect())
}

/// `filter.lfs` of `filter.lfs.clean`; `None` for what has no name in the middle, which names nothing to run.
fn driver(name: &[u8]) -> Option<&[u8]> {
    let last = name.iter().rposition(|byte| *byte == b'.')?;
    name[..last].contains(&b'.').then_some(&name[..last])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(names: &[u8]) -> Vec<String> {
        let all = overrides(names, 2).expect("settings");
        all.iter().map(|setting| setting.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn each_filter_and_hook_is_switched_off_once() {
        assert_eq!(shown(b""), Vec::<String>::new());
        let expected = ["filter.a.b.clean=", "filter.a.b.smudge=", "filter.a.b.process=", "filter.a.b.required=false"];
        assert_eq!(shown(b"filter.a.b.clean\0filter.a.b.process\0filter.clean\0"), expected);
        assert_eq!(shown(b"hook.lint.command\0"), ["hook.lint.enabled=false", "hook.lint.event="]);
    }

    #[test]
    fn what_cannot_be_switched_off_is_refused() {
        assert!(matches!(overrides(b"filter.a=b.clean\0", 2), Err(Error::Refused(_))));
        assert!(matches!(overrides(b"filter.a.clean\0filter.b.clean\0filter.c.clean\0", 2), Err(Error::Refused(_))));
    }
}
