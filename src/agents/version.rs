//! Which version of an agent is there.
//!
//! Our own npm installs say so in their `package.json`; any other executable is asked with `--version`, within
//! `agent_version_timeout_ms`, and the answer is kept until the file changes or the caller wants it anew.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;

use super::files;
use crate::processes::{ChildSpec, Children, Exit, Owner};

const VERSION_MAX_BYTES: u64 = 4096;
const PACKAGE_JSON_MAX_BYTES: u64 = 1024 * 1024;

/// Inode, size and modification time of an executable.
type Identity = (u64, u64, i64, i64);

/// The version, or why it isn't known.
type Answer = Result<String, String>;

/// The answers so far. At most one per executable that a manifest names.
#[derive(Default)]
pub(super) struct Versions {
    known: Mutex<HashMap<PathBuf, (Identity, Answer)>>,
}

impl Versions {
    /// The trimmed stdout of `<program> --version`, or why there is none. Cancel safe: a probe that is dropped ends by
    /// itself.
    pub(super) async fn probe(&self, children: &Children, program: &Path, timeout: Duration, no_cache: bool) -> Answer {
        let identity = identity(program);
        if let Some(answer) = identity.filter(|_| !no_cache).and_then(|identity| self.known(program, identity)) {
            return answer;
        }
        let answer = ask(children, program, timeout).await;
        if let Some(identity) = identity {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(program.to_owned(), (identity, answer.clone()));
        }
        answer
    }

    fn known(&self, program: &Path, identity: Identity) -> Option<Answer> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(program).filter(|(then, _)| *then == identity).map(|(_, answer)| answer.clone())
    }
}

fn identity(program: &Path) -> Option<Identity> {
    let meta = std::fs::metadata(program).ok()?;
    Some((meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
}

async fn ask(children: &Children, program: &Path, timeout: Duration) -> Answer {
    let spec = ChildSpec {
        program: program.to_owned(),
        args: vec!["--version".into()],
        cwd: None,
        env: Vec::new(),
        owner: Owner::System,
    };
    let started = children.spawn(&spec).map_err(|error| error.to_string())?;
    drop(started.stdin);
    let _unread = started.stderr; // kept open: closing it would end a program that warns there first
    let process = started.process;
    let mut text = Vec::new();
    let read = async {
        let read = started.stdout.take(VERSION_MAX_BYTES).read_to_end(&mut text).await;
        (read, process.exited().await)
    };
    let outcome = tokio::time::timeout(timeout, read).await;
    process.stop(Duration::ZERO).await;
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    match outcome {
        Err(_) => Err(format!("{} --version took longer than {} ms", program.display(), timeout.as_millis())),
        Ok((Err(error), _)) => Err(format!("{} --version: {error}", program.display())),
        Ok((Ok(_), Exit::Code(0))) if !text.is_empty() => Ok(text),
        Ok((Ok(_), exit)) => Err(format!("{} --version gave no version ({exit})", program.display())),
    }
}

/// The version of `package` in an npm install.
pub(super) fn of_package(install: &Path, package: &str) -> Option<String> {
    package_json(install, package)?.get("version")?.as_str().map(str::to_owned)
}

/// The `package.json` of `package` in an npm install.
pub(super) fn package_json(install: &Path, package: &str) -> Option<serde_json::Value> {
    let path = install.join("node_modules").join(package).join("package.json");
    serde_json::from_str(&files::read_bounded(&path, PACKAGE_JSON_MAX_BYTES).ok()?).ok()
}
