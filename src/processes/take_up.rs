//! Starting the room: what the last run left is taken up.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Error;
use super::api::Processes;
use super::children::{Children, Known};
use super::kept::{Kept, digest, row_from_json};
use super::logs::blocking;
use super::managed::{self, Adoption, Beginning};
use super::room::Room;
use super::types::{Exit, ExitInfo, ExitReason, Owner, ProcessId, ProcessInfo, ProcessSpec, ProcessStatus, TerminalSize};
use super::{open_ports, spool};
use crate::config::Bounds;
use crate::rt::clock::now_ms;
use crate::rt::spawn_owned;
use crate::store::{ProcessRow, Store};

impl Processes {
    /// Takes up what the last run left: finished processes are shown as they ended, those that live on with the keeper go
    /// on, the others that ran are marked as lost, and such as have a restart policy are started again.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn start(children: Children, store: Store, bounds: Bounds, data: &Path) -> Result<Self, Error> {
        let events = store.open_stream("processes").await?;
        let (rows, last) = store.processes(owner_word).await?;
        children.count_from(last);
        let name = store.path().file_stem().map_or_else(|| "sandboxd".into(), PathBuf::from);
        let scripts = data.join("scripts").join(&name);
        let folder = data.join("spool").join(&name); // servers that share a home have a file and folders each
        let folders = (folder.clone(), scripts.clone());
        let room = tokio::task::spawn_blocking(move || Room::new(children, store, events, bounds, folders)).await;
        let room = Arc::new(room.map_err(|_| Error::Stopping)?);
        open_ports::watch(&room);
        let processes = Self { room };
        let known: std::collections::HashSet<u64> = rows.iter().map(|row| row.number).collect();
        let living = processes.room.children.inherited_ids();
        let swept = blocking(ProcessId(0), move || {
            remove_scripts(&scripts, &living);
            std::fs::create_dir_all(&folder)?;
            // One that was started just before the last server died has no row yet, and a log all the same.
            spool::sweep(&folder, |number| known.contains(&number) || living.contains(&ProcessId(number)))
        });
        if let Err(error) = swept.await {
            tracing::warn!(%error, "the folder of logs could not be tidied");
        }
        let children = &processes.room.children;
        let is_in_question = |id: &ProcessId| children.is_unstarted(*id) && children.inherited_slate(*id).is_some();
        let in_question: Vec<ProcessId> = children.inherited_ids().into_iter().filter(is_in_question).collect();
        children.find_unstarted(in_question.clone()).await;
        let found: Vec<ProcessId> = in_question.into_iter().filter(|id| !children.is_unstarted(*id)).collect();
        processes.take_up(rows, &found);
        Ok(processes)
    }

    /// `found` are starts that the last server told nobody of.
    fn take_up(&self, rows: Vec<ProcessRow>, found: &[ProcessId]) {
        let mut finished = Vec::with_capacity(rows.len());
        let mut again = Vec::new();
        let mut living = Vec::new();
        for row in self.with_uncommitted(rows) {
            let Ok(spec) = serde_json::from_str::<ProcessSpec>(&row.spec) else { continue };
            let (info, end) = remembered(&row, &spec);
            let is_unstarted = self.room.children.is_unstarted(info.id);
            if self.room.children.has_inherited(info.id) && !is_unstarted {
                let is_running = end.is_none() || found.contains(&info.id);
                living.push((info, spec, Kept::remembered(&row), is_running));
                continue;
            }
            if managed::core::after_server(spec.restart, end) {
                again.push((info.clone(), spec, is_unstarted));
            } else if end.is_none() {
                let kept = Kept::remembered(&row);
                drop(self.room.log_change("process.exited", &info, &kept, 0));
            }
            finished.push((info, row.end.as_ref().map_or(0, |end| end.log_bytes), row.idempotency));
        }
        self.room.enter_finished(finished);
        for (info, spec, kept, is_running) in living {
            let id = info.id;
            if let Err(error) = self.go_on_with(info, spec, kept, is_running) {
                tracing::warn!(%id, %error, "a process that lives on can't be taken up");
            }
        }
        for (info, spec, is_unstarted) in again {
            if is_unstarted {
                let processes = self.clone();
                // What may have been started has the same cookie: it has to be gone before.
                spawn_owned("process-again", async move {
                    processes.room.children.end_inherited(info.id).await;
                    processes.start_again(&info, spec);
                });
            } else {
                self.start_again(&info, spec);
            }
        }
    }

    /// The rows, and those of processes that were started just before the last server died. One that it came to start no more
    /// was never promised to anybody: whoever asked for it asks again, and its key is free.
    fn with_uncommitted(&self, mut rows: Vec<ProcessRow>) -> Vec<ProcessRow> {
        let known: std::collections::HashSet<u64> = rows.iter().map(|row| row.number).collect();
        let children = &self.room.children;
        let new = children.inherited_ids().into_iter().filter(|id| !known.contains(&id.0) && !children.is_unstarted(*id));
        let new: Vec<ProcessRow> = new.filter_map(|id| row_from_json(children.inherited_slate(id)?.row())).collect();
        for row in &new {
            // As its owner would have, had it come to it.
            if let Ok(spec) = serde_json::from_str::<ProcessSpec>(&row.spec) {
                let info = alive_again(remembered(row, &spec).0);
                drop(self.room.log_change("process.started", &info, &Kept::remembered(row), 0));
            }
        }
        rows.extend(new);
        rows
    }

    /// One that outlived the server before this one.
    fn go_on_with(&self, info: ProcessInfo, spec: ProcessSpec, kept: Kept, is_running: bool) -> std::io::Result<()> {
        let room = &self.room;
        let program: PathBuf = info.command.to_string().into();
        let known = Known {
            owner: info.owner,
            program,
            args: spec.run.args.iter().map(Into::into).collect(),
            cwd: spec.run.cwd.as_ref().map(PathBuf::from),
            created_at_ms: info.created_at_ms,
            cgroup: room.cgroup_of(info.id, &spec.run.limits),
            ended: (!is_running).then(|| info.exit.map_or(Exit::Code(-1), Exit::from)),
        };
        let lost = ProcessInfo { exit_reason: Some(ExitReason::ServerLost), ..info.clone() };
        let gone_on = room.children.adopt(info.id, known).ok_or(std::io::ErrorKind::NotFound.into()).and_then(|adopted| {
            let info = if is_running { ProcessInfo { pid: Some(adopted.child.pid()), ..alive_again(info) } } else { info };
            let slot = is_running.then(|| room.forced_slot());
            managed::adopt(Adoption { room: Arc::clone(room), info, spec, kept: kept.clone(), adopted, slot }).map(drop)
        });
        if gone_on.is_err() {
            if is_running {
                drop(room.log_change("process.exited", &lost, &kept, 0));
            }
            let (children, id) = (room.children.clone(), lost.id);
            room.enter_finished(vec![(lost, 0, None)]);
            spawn_owned("process-end", async move { children.end_inherited(id).await });
        }
        gone_on
    }

    fn start_again(&self, info: &ProcessInfo, spec: ProcessSpec) {
        let start = || {
            let digest = spec.run.idempotency_key.as_ref().map(|_| digest(&spec));
            let slot = self.room.slot()?;
            let prepared = self.prepare(&spec.run, info.id, info.owner, spec.tty)?;
            let kept = Kept::new(&spec, digest, &prepared.program());
            let room = Arc::clone(&self.room);
            let (id, owner, predecessor) = (info.id, info.owner, Some(info.clone()));
            managed::start(Beginning { room, id, owner, spec, prepared, kept, slot, predecessor })
        };
        if let Err(error) = start() {
            tracing::warn!(id = %info.id, %error, "a process could not be started again");
        }
    }
}

/// Scripts of a killed server's processes, but for those that live on.
fn remove_scripts(folder: &Path, living: &[ProcessId]) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let id = name.to_str().and_then(|name| name.split('.').next()?.parse::<ProcessId>().ok());
        if !id.is_some_and(|id| living.contains(&id)) {
            let _ = std::fs::remove_file(entry.path()); // the next start tries again
        }
    }
}

/// As it is shown while it runs.
fn alive_again(info: ProcessInfo) -> ProcessInfo {
    let status = ProcessStatus::Running;
    ProcessInfo { status, exit_code: None, exited_at_ms: None, exit: None, exit_reason: None, ..info }
}

fn owner_word(word: &str) -> Option<&'static str> {
    Owner::ALL.into_iter().map(Owner::as_str).find(|known| *known == word)
}

/// A process as the file remembers it, and how it ended when that is known.
fn remembered(row: &ProcessRow, spec: &ProcessSpec) -> (ProcessInfo, Option<ExitReason>) {
    let reason = row.end.as_ref().map(|end| ExitReason::from_word(&end.reason));
    let owner = Owner::ALL.into_iter().find(|owner| owner.as_str() == row.owner).unwrap_or(Owner::User);
    let exit = row.end.as_ref().and_then(|end| match (end.code, end.signal) {
        (Some(code), _) => Some(ExitInfo::Code { code }),
        (None, Some(number)) => Some(super::Exit::Signal(number).into()),
        (None, None) => None,
    });
    let boxed = |text: &String| text.as_str().into();
    let info = ProcessInfo {
        id: ProcessId(row.number),
        command: boxed(&spec.run.command),
        args: spec.run.args.iter().map(boxed).collect(),
        cwd: spec.run.cwd.as_ref().map(boxed),
        tty: spec.tty,
        interactive: spec.interactive,
        owner,
        status: ProcessStatus::Exited,
        pid: None,
        exit_code: row.end.as_ref().and_then(|end| end.code),
        created_at_ms: row.created_at_ms,
        exited_at_ms: Some(row.end.as_ref().map_or_else(now_ms, |end| end.at_ms)),
        exit,
        exit_reason: Some(reason.unwrap_or(ExitReason::ServerLost)),
        restart: Some(spec.restart).filter(|policy| *policy != Default::default()),
        restarts: row.restarts,
        terminal: row.terminal.map(|(cols, rows)| TerminalSize { cols, rows }),
        tree: None,
    };
    (info, reason)
}
