//! What the file remembers of a process.

use super::types::{CommandSpec, ExitInfo, ExitReason, Owner, ProcessId, ProcessInfo, ProcessSpec, RestartPolicy};
use crate::store::{ProcessEnd, ProcessRow};

/// What the file remembers of a request.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    spec: String,
    idempotency: Option<(String, String)>,
}

impl Kept {
    /// As it was kept.
    pub(super) fn remembered(row: &ProcessRow) -> Self {
        Self { spec: row.spec.clone(), idempotency: row.idempotency.clone() }
    }

    /// Environment, stdin and script are only kept where they may be needed again. `shown` is the command of a script.
    pub(super) fn new(spec: &ProcessSpec, digest: Option<String>, shown: &str) -> Self {
        let idempotency = spec.run.idempotency_key.clone().zip(digest);
        let spec = if spec.restart == RestartPolicy::Never {
            let CommandSpec { command, args, cwd, shell, limits, .. } = spec.run.clone();
            let command = if spec.run.script.is_some() { shown.to_owned() } else { command };
            let run = CommandSpec { command, args, cwd, shell, limits, ..CommandSpec::default() };
            &ProcessSpec { run, tty: spec.tty, interactive: spec.interactive, ..ProcessSpec::default() }
        } else {
            spec
        };
        Self { spec: serde_json::to_string(spec).unwrap_or_default(), idempotency }
    }
}

impl Kept {
    /// Its row for the next server, should it not be committed when this one dies.
    pub(super) fn row_json(&self, id: ProcessId, owner: Owner, spec: &ProcessSpec, created_at_ms: i64) -> Vec<u8> {
        let terminal = spec.tty.then(|| spec.terminal.unwrap_or_default()).map(|size| (size.cols, size.rows));
        let draft = Draft {
            number: id.0,
            spec: self.spec.as_str().into(),
            owner: owner.as_str().into(),
            created_at_ms,
            terminal,
            idempotency: self.idempotency.clone(),
        };
        serde_json::to_vec(&draft).unwrap_or_default()
    }
}

/// What of a row is known when its process is started.
#[derive(serde::Serialize, serde::Deserialize)]
struct Draft<'a> {
    number: u64,
    spec: std::borrow::Cow<'a, str>,
    owner: std::borrow::Cow<'a, str>,
    created_at_ms: i64,
    terminal: Option<(u16, u16)>,
    idempotency: Option<(String, String)>,
}

/// The row that [`Kept::row_json`] wrote.
pub(super) fn row_from_json(json: &[u8]) -> Option<ProcessRow> {
    let Draft { number, spec, owner, created_at_ms, terminal, idempotency } = serde_json::from_slice(json).ok()?;
    let owner = Owner::ALL.into_iter().map(Owner::as_str).find(|known| *known == owner)?;
    Some(ProcessRow { number, spec: spec.into(), owner, created_at_ms, end: None, restarts: 0, terminal, idempotency })
}

/// The row of a process as it is now.
pub(super) fn row(info: &ProcessInfo, kept: &Kept, log_bytes: u64) -> ProcessRow {
    let end = info.exited_at_ms.filter(|_| !info.is_alive()).map(|at_ms| ProcessEnd {
        at_ms,
        code: info.exit_code,
        signal: match info.exit {
            Some(ExitInfo::Signal { number, .. }) => Some(number),
            _ => None,
        },
        reason: info.exit_reason.unwrap_or(ExitReason::Exited).as_str().to_owned(),
        log_bytes,
    });
    ProcessRow {
        number: info.id.0,
        spec: kept.spec.clone(),
        owner: info.owner.as_str(),
        created_at_ms: info.created_at_ms,
        end,
        restarts: info.restarts,
        terminal: info.terminal.map(|size| (size.cols, size.rows)),
        idempotency: kept.idempotency.clone(),
    }
}

/// A process that the last run left, the bytes of its log, and its idempotency key with the digest.
pub(super) type Remembered = (ProcessInfo, u64, Option<(String, String)>);

/// Names a request's content.
pub(super) fn digest(spec: &impl serde::Serialize) -> String {
    use sha2::Digest as _;
    use std::fmt::Write as _;
    let text = serde_json::to_vec(spec).unwrap_or_default();
    let mut hex = String::with_capacity(64);
    for byte in sha2::Sha256::digest(&text) {
        let _ = write!(hex, "{byte:02x}"); // writing to a String can't fail
    }
    hex
}
