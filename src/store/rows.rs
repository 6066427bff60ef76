//! The rows beside the log, and the changes that are made to them.

use rusqlite::{Connection, Transaction};

use super::files::{self, FsBlob, FsEditRow, FsKeep, FsSeenRow};
use super::processes;
use super::session_rows::{self, RequestRow, RuleRow, SessionRow, SpanRow, TurnRow};
use super::spans;
use super::worktrees::WorktreeRow;

/// An ACP server as the file remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcpServerRow {
    /// The id the client chose.
    pub server_id: String,
    /// Which agent it runs.
    pub agent: String,
    /// Ours; names its streams `acp/<instance>/out` and `…/in`.
    pub instance: String,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// `params` of the client's `initialize`, as JSON text.
    pub initialize: Option<String>,
    /// `params` of the client's `authenticate`, as JSON text.
    pub authenticate: Option<String>,
    /// What the agent answered to `initialize`, as JSON text.
    pub initialized: Option<String>,
}

/// What a session was opened with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcpSessionRow {
    /// The id that clients use.
    pub session_id: String,
    /// The id that the agent uses; another one when it opened a fresh session in the old one's place.
    pub agent_session_id: String,
    /// `params` of session/new, session/load or session/resume, as JSON text.
    pub params: String,
    /// Settings since then: a JSON object of key to `[method, params]`.
    pub settings: String,
    /// The agent's session is a fresh one that wasn't told yet what was said before.
    pub owes_words: bool,
}

/// A managed process as the file remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessRow {
    /// The n of `proc_<n>`.
    pub number: u64,
    /// What was asked for, as JSON text.
    pub spec: String,
    /// Who it belongs to.
    pub owner: &'static str,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// How it ended, once it did.
    pub end: Option<ProcessEnd>,
    /// How often it was started again.
    pub restarts: u32,
    /// The terminal's columns and rows.
    pub terminal: Option<(u16, u16)>,
    /// What its creator called the request, and a digest of it.
    pub idempotency: Option<(String, String)>,
}

/// How a managed process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessEnd {
    /// Unix milliseconds.
    pub at_ms: i64,
    /// What it returned.
    pub code: Option<i32>,
    /// What ended it.
    pub signal: Option<i32>,
    /// Why, as a word.
    pub reason: String,
    /// Bytes its output takes on disk.
    pub log_bytes: u64,
}

/// A change of rows. Data, not closures: all SQL stays in this room.
#[derive(Debug, Clone)]
pub enum RowChange {
    /// A server was made (its id is free).
    PutAcpServer(AcpServerRow),
    /// A server was deleted, with its sessions; its streams stay until retention takes them.
    DeleteAcpServer {
        /// The id the client chose.
        server_id: String,
        /// The instance that goes; a newer one under the same id stays.
        instance: String,
        /// Streams of deleted servers that are kept; the oldest beyond that go.
        keep_streams: u64,
    },
    /// The client's `initialize` params, and what the agent answered.
    SetInitialize {
        /// The server.
        server_id: String,
        /// Its instance: a successor under the same id is left alone.
        instance: String,
        /// JSON text.
        params: String,
        /// JSON text.
        result: String,
    },
    /// The client's `authenticate` params.
    SetAuthenticate {
        /// The server.
        server_id: String,
        /// Its instance.
        instance: String,
        /// JSON text.
        params: String,
    },
    /// A process was made, changed or ended. The highest number ever used is remembered, too.
    PutProcess(Box<ProcessRow>),
    /// A process that has no row of its own took this number.
    CountProcess {
        /// Its number.
        number: u64,
    },
    /// Processes were deleted.
    DeleteProcesses {
        /// Their numbers.
        numbers: Vec<u64>,
    },
    /// A session was opened, loaded or resumed.
    PutAcpSession {
        /// The server.
        server_id: String,
        /// Its instance.
        instance: String,
        /// The session.
        session: AcpSessionRow,
        /// Another session to forget, when the bound is reached.
        forget: Option<String>,
    },
    /// A stream was made whose row number was given beforehand.
    PutStream {
        /// Its row.
        row_id: i64,
        /// Its name, which is new.
        name: String,
    },
    /// A session was made or changed.
    PutSession(Box<SessionRow>),
    /// A session was deleted, with its turns, requests and spans.
    DeleteSession {
        /// The session.
        id: String,
        /// Streams of what was deleted that are kept; the oldest beyond that go.
        keep_streams: u64,
    },
    /// A turn was made or changed.
    PutTurn(Box<TurnRow>),
    /// A request was made or resolved.
    PutRequest(Box<RequestRow>),
    /// A rule was added.
    PutRule(Box<RuleRow>),
    /// A rule was removed.
    DeleteRule {
        /// The rule.
        id: String,
    },
    /// All rules of one origin were replaced.
    ReplaceRules {
        /// Which.
        origin: &'static str,
        /// The new ones, all of this origin.
        rules: Vec<RuleRow>,
    },
    /// A span began or ended.
    PutSpan(Box<SpanRow>),
    /// Spans that an earlier run left open ended as lost.
    LoseSpans {
        /// Those of them that still are.
        spans: Vec<String>,
        /// When that run was last heard of, in Unix milliseconds.
        at_ms: Option<i64>,
    },
    /// The oldest spans beyond a number go, some at a time.
    TrimSpans {
        /// Spans that stay.
        keep: u64,
    },
    /// The stream of processes was made into spans up to here.
    KeepSpanCursor {
        /// Position in that stream.
        position: u64,
    },
    /// A file was changed, or its change was proposed; with the contents that are kept for it.
    PutFsEdit(Box<FsEditRow>, Vec<FsBlob>),
    /// A change of a file was taken back, or a proposal decided.
    SetFsEditStatus {
        /// The edit.
        id: String,
        /// The new status.
        status: &'static str,
    },
    /// Sessions saw files.
    PutFsSeen(Vec<FsSeenRow>),
    /// The oldest of changed files beyond some bounds go, some at a time.
    TrimFs(FsKeep),
    /// A working tree was made for a session, or something of it changed.
    PutWorktree(WorktreeRow),
    /// A working tree is gone, or nobody's.
    DeleteWorktree {
        /// Where it was.
        path: Vec<u8>,
    },
    /// Several, in order.
    Many(Vec<RowChange>),
}

impl RowChange {
    pub(super) fn apply(&self, tx: &Transaction<'_>) -> rusqlite::Result<()> {
        match self {
            Self::PutAcpServer(row) => {
                tx.prepare_cached(
                    "INSERT OR REPLACE INTO acp_servers (server_id, agent, instance, created_at_ms, initialize, authenticate,
                         initialized)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                )?
                .execute((
                    &row.server_id,
                    &row.agent,
                    &row.instance,
                    row.created_at_ms,
                    &row.initialize,
                    &row.authenticate,
                    &row.initialized,
                ))?;
            }
            Self::DeleteAcpServer { server_id, instance, .. } => {
                tx.prepare_cached("DELETE FROM acp_servers WHERE server_id = ?1 AND instance = ?2")?
                    .execute((server_id, instance))?;
                super::sweep::orphan(tx, instance)?;
            }
            Self::SetInitialize { server_id, instance, params, result } => {
                tx.prepare_cached(
                    "UPDATE acp_servers SET initialize = ?3, initialized = ?4 WHERE server_id = ?1 AND instance = ?2",
                )?
                .execute((server_id, instance, params, result))?;
            }
            Self::SetAuthenticate { server_id, instance, params } => {
                tx.prepare_cached("UPDATE acp_servers SET authenticate = ?3 WHERE server_id = ?1 AND instance = ?2")?
                    .execute((server_id, instance, params))?;
            }
            Self::PutAcpSession { server_id, instance, session, forget } => {
                put_session(tx, server_id, instance, session, forget.as_deref())?;
            }
            Self::PutProcess(row) => processes::put(tx, row)?,
            Self::CountProcess { number } => processes::count(tx, *number)?,
            Self::DeleteProcesses { numbers } => processes::delete(tx, numbers)?,
            Self::PutStream { row_id, name } => super::extent::put_stream(tx, *row_id, name)?,
            Self::PutSession(row) => session_rows::put_session(tx, row)?,
            Self::DeleteSession { id, .. } => session_rows::delete_session(tx, id)?,
            Self::PutTurn(row) => session_rows::put_turn(tx, row)?,
            Self::PutRequest(row) => session_rows::put_request(tx, row)?,
            Self::PutRule(row) => session_rows::put_rule(tx, row)?,
            Self::DeleteRule { id } => drop(tx.prepare_cached("DELETE FROM permission_rules WHERE id = ?1")?.execute([id])?),
            Self::ReplaceRules { origin, rules } => {
                tx.prepare_cached("DELETE FROM permission_rules WHERE origin = ?1")?.execute([origin])?;
                rules.iter().try_for_each(|rule| session_rows::put_rule(tx, rule))?;
            }
            Self::PutSpan(row) => session_rows::put_span(tx, row)?,
            Self::LoseSpans { spans, at_ms } => spans::lose(tx, spans, *at_ms)?,
            Self::TrimSpans { keep } => spans::trim(tx, *keep)?,
            Self::KeepSpanCursor { position } => spans::keep_cursor(tx, *position)?,
            Self::PutFsEdit(row, blobs) => {
                files::put_edit(tx, row)?;
                blobs.iter().try_for_each(|blob| files::put_blob(tx, blob, row.time_ms))?;
            }
            Self::SetFsEditStatus { id, status } => files::set_status(tx, id, status)?,
            Self::PutFsSeen(rows) => files::put_seen(tx, rows)?,
            Self::PutWorktree(row) => super::worktrees::put(tx, row)?,
            Self::DeleteWorktree { path } => super::worktrees::delete(tx, path)?,
            Self::TrimFs(keep) => files::trim(tx, keep)?,
            Self::Many(changes) => changes.iter().try_for_each(|change| change.apply(tx))?,
        }
        Ok(())
    }

    /// What kind it is, for the server's log: its content may be secret.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::PutAcpServer(_) => "acp server",
            Self::DeleteAcpServer { .. } => "acp server deleted",
            Self::SetInitialize { .. } | Self::SetAuthenticate { .. } => "acp handshake",
            Self::PutAcpSession { .. } => "acp session",
            Self::PutProcess(_) => "process",
            Self::CountProcess { .. } => "process number",
            Self::DeleteProcesses { .. } => "processes deleted",
            Self::PutStream { .. } => "stream",
            Self::PutSession(_) => "session",
            Self::DeleteSession { .. } => "session deleted",
            Self::PutTurn(_) => "turn",
            Self::PutRequest(_) => "request",
            Self::PutRule(_) | Self::DeleteRule { .. } | Self::ReplaceRules { .. } => "permission rules",
            Self::PutSpan(_) | Self::LoseSpans { .. } | Self::TrimSpans { .. } | Self::KeepSpanCursor { .. } => "spans",
            Self::PutWorktree(_) | Self::DeleteWorktree { .. } => "working trees",
            Self::PutFsEdit(..) | Self::SetFsEditStatus { .. } | Self::PutFsSeen(_) | Self::TrimFs(_) => "edits of files",
            Self::Many(_) => "several",
        }
    }

    /// True when a later `other` leaves nothing of this change: it sets the same thing, or removes it.
    pub(super) fn is_undone_by(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::PutAcpSession { session, forget, .. }, Self::PutAcpSession { session: later, .. }) => {
                self.owner() == other.owner() && session.session_id == later.session_id && forget.is_none()
            }
            (Self::SetInitialize { .. }, Self::SetInitialize { .. })
            | (Self::SetAuthenticate { .. }, Self::SetAuthenticate { .. })
            | (_, Self::DeleteAcpServer { .. }) => self.owner().is_some() && self.owner() == other.owner(),
            (Self::PutProcess(row), Self::PutProcess(later)) => row.number == later.number,
            (Self::CountProcess { number }, Self::CountProcess { number: later }) => number <= later,
            (Self::PutSession(row), Self::PutSession(later)) => row.id == later.id,
            (Self::PutTurn(row), Self::PutTurn(later)) => row.id == later.id,
            (Self::PutRequest(row), Self::PutRequest(later)) => row.id == later.id,
            (Self::PutSpan(row), Self::PutSpan(later)) => row.span_id == later.span_id,
            (Self::TrimFs(_), Self::TrimFs(_)) => true,
            _ => false,
        }
    }

    /// Rows that others hang on, or that hang on others: their order counts.
    pub(super) fn hangs_together(&self) -> bool {
        matches!(self, Self::PutSession(_) | Self::PutTurn(_) | Self::PutRequest(_) | Self::PutSpan(_))
    }

    /// How many streams of what was deleted shall stay, when this deletes something that has some.
    pub(super) fn keep_streams(&self) -> Option<u64> {
        match self {
            Self::DeleteAcpServer { keep_streams, .. } | Self::DeleteSession { keep_streams, .. } => Some(*keep_streams),
            Self::Many(changes) => changes.iter().find_map(Self::keep_streams),
            _ => None,
        }
    }

    /// Id and instance of the ACP server it belongs to.
    fn owner(&self) -> Option<(&str, &str)> {
        match self {
            Self::PutAcpServer(AcpServerRow { server_id, instance, .. })
            | Self::DeleteAcpServer { server_id, instance, .. }
            | Self::SetInitialize { server_id, instance, .. }
            | Self::SetAuthenticate { server_id, instance, .. }
            | Self::PutAcpSession { server_id, instance, .. } => Some((server_id, instance)),
            _ => None,
        }
    }
}

/// Its server may have been deleted meanwhile, or have a successor: then nothing is written.
fn put_session(
    tx: &Transaction<'_>,
    server_id: &str,
    instance: &str,
    session: &AcpSessionRow,
    forget: Option<&str>,
) -> rusqlite::Result<()> {
    let known: bool = tx
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM acp_servers WHERE server_id = ?1 AND instance = ?2)")?
        .query_row((server_id, instance), |row| row.get(0))?;
    if !known {
        return Ok(());
    }
    tx.prepare_cached(
        "INSERT OR REPLACE INTO acp_sessions (server_id, session_id, agent_session_id, params, settings, owes_words)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute((
        server_id,
        &session.session_id,
        &session.agent_session_id,
        &session.params,
        &session.settings,
        session.owes_words,
    ))?;
    if let Some(forget) = forget {
        tx.prepare_cached("DELETE FROM acp_sessions WHERE server_id = ?1 AND session_id = ?2")?.execute((server_id, forget))?;
    }
    Ok(())
}

pub(super) fn acp_servers(connection: &Connection) -> rusqlite::Result<Vec<(AcpServerRow, Vec<AcpSessionRow>)>> {
    let mut servers = connection.prepare(
        "SELECT server_id, agent, instance, created_at_ms, initialize, authenticate, initialized FROM acp_servers ORDER BY server_id",
    )?;
    let mut sessions = connection.prepare(
        "SELECT session_id, agent_session_id, params, settings, owes_words FROM acp_sessions WHERE server_id = ?1 ORDER BY rowid",
    )?;
    let rows = servers.query_map([], |row| {
        Ok(AcpServerRow {
            server_id: row.get(0)?,
            agent: row.get(1)?,
            instance: row.get(2)?,
            created_at_ms: row.get(3)?,
            initialize: row.get(4)?,
            authenticate: row.get(5)?,
            initialized: row.get(6)?,
        })
    })?;
    let mut all = Vec::new();
    for server in rows {
        let server = server?;
        let of_server = sessions
            .query_map([&server.server_id], |row| {
                let (session_id, agent_session_id) = (row.get(0)?, row.get(1)?);
                let (params, settings, owes_words) = (row.get(2)?, row.get(3)?, row.get(4)?);
                Ok(AcpSessionRow { session_id, agent_session_id, params, settings, owes_words })
            })?
            .collect::<Result<_, _>>()?;
        all.push((server, of_server));
    }
    Ok(all)
}
