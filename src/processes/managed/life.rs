//! How a process ends, and begins again.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::core::{After, after_exit};
use super::limits::{self, Watched};
use super::stdio::{How, Stdio};
use super::task::{GATHER_AFTER, Phase, Task};
use super::viewers::Piece;
use crate::config::as_duration;
use crate::processes::Error;
use crate::processes::children::Child;
use crate::processes::spool::Stream;
use crate::processes::types::{Exit, ExitInfo, ExitReason, ProcessStatus};
use crate::rt::clock::now_ms;
use crate::rt::spawn_owned;

/// A process that ran so long is taken to have come up: its restarts count from the beginning again.
const STEADY: Duration = Duration::from_secs(10);

/// How long the store may take to commit an exit before it is shown all the same.
const COMMIT_PATIENCE: Duration = Duration::from_millis(250);

impl Task {
    /// Ends the tree because of a limit: after the exit, what it left in the background.
    pub(super) fn breach(&mut self, reason: ExitReason) {
        if matches!(self.phase, Phase::Pausing { .. }) {
            return;
        }
        tracing::info!(id = %self.info.id, ?reason, "a process is ended because of its limits");
        self.watched = Watched::over();
        if self.phase == Phase::Running {
            self.ending.get_or_insert(reason);
        }
        let child = self.child.clone();
        spawn_owned("process-stop", async move { child.stop(Duration::ZERO).await });
    }

    /// Moves on when a phase is over.
    pub(super) async fn advance(&mut self) {
        match self.phase {
            Phase::Draining { exit, until, .. } if self.stdio.is_read_to_its_end() || Instant::now() >= until => {
                self.read_what_waits();
                // Half a character: where something in the background has the pipes, they have no end.
                Stream::ALL.into_iter().for_each(|stream| self.output.finish(stream));
                let by_kernel = || limits::breached(&self.child, exit);
                let reason = self.ending.or_else(by_kernel).unwrap_or(ExitReason::Exited);
                self.after(Some(exit), reason).await;
            }
            Phase::Pausing { .. } if self.ending.is_some() => {
                let reason = self.ending.unwrap_or(ExitReason::Stopped);
                self.end(self.last_exit(), reason).await;
            }
            Phase::Pausing { until } if Instant::now() >= until => self.restart().await,
            _ => {}
        }
    }

    fn last_exit(&self) -> Option<Exit> {
        self.info.exit.map(Exit::from)
    }

    /// After an exit, or a start that failed.
    async fn after(&mut self, exit: Option<Exit>, reason: ExitReason) {
        if self.started_at.elapsed() >= STEADY {
            self.restarts_in_a_row = 0;
        }
        let max_delay = as_duration(self.room.bounds.process_restart_max_delay_ms);
        match after_exit(self.spec.restart, exit, reason, self.restarts_in_a_row, max_delay) {
            After::Restart(pause) if !self.room.is_stopping() => {
                self.note_exit(exit, reason);
                self.ending = None; // a limit ended it; what is asked for from now on ends the pause
                self.info.status = ProcessStatus::Restarting;
                self.phase = Phase::Pausing { until: Instant::now() + pause };
                self.show("process.exited").await;
                self.child.stop(Duration::ZERO).await; // what it left would be in the way of its successor
            }
            _ => self.end(exit, reason).await,
        }
    }

    fn note_exit(&mut self, exit: Option<Exit>, reason: ExitReason) {
        self.info.pid = None;
        self.info.exit_code = exit.and_then(Exit::code);
        self.info.exit = exit.map(ExitInfo::from);
        self.info.exit_reason = Some(reason);
        self.info.exited_at_ms = Some(now_ms());
    }

    /// The end: everything that was written is in the log.
    pub(super) async fn end(&mut self, exit: Option<Exit>, reason: ExitReason) {
        self.note_exit(exit, reason);
        self.info.status = ProcessStatus::Exited;
        self.phase = Phase::Ended;
        self.ending = None;
        self.show("process.exited").await;
        if !self.stdio.is_read_to_its_end() {
            self.lingers = Arc::clone(&self.room.lingering).try_acquire_owned().ok();
            if self.lingers.is_none() {
                tracing::warn!(id = %self.info.id, "too much goes on in the background: the output of this process's rest is not read");
                self.stdio.close();
                self.forget_child();
            }
        }
        if let Some(terminal) = &mut self.terminal {
            terminal.finish(&Piece::Exited(Arc::new(self.info.clone())));
        }
    }

    async fn restart(&mut self) {
        let size = self.terminal.as_ref().map(|terminal| terminal.size);
        let confined = self.room.confine(self.info.id, &self.spec.run.limits);
        let first = self.prepared.as_ref().map(|prepared| prepared.stdin.clone()).unwrap_or_default();
        // Before it is handed over: the next server may find it with what is on the slate now.
        self.input.clear();
        self.input.push(&first);
        self.input.set_closes(self.spec.close_stdin);
        let how = How { terminal: size, stdin: true, kept_with: self.input.slate.as_ref() };
        let prepared = self.prepared.as_ref().ok_or(Error::Stopping);
        match prepared.and_then(|prepared| Stdio::start(&self.room.children, prepared.launch(), &how, confined)) {
            Ok((stdio, child, exit)) => {
                spawn_owned("process", exit.collect());
                self.release_child();
                (self.stdio, self.child) = (stdio, child);
                self.close_stdin = self.spec.close_stdin;
                self.watched = Watched::start(&self.spec.run.limits);
                self.output.bytes = 0;
                self.started_at = Instant::now();
                self.gather_at = Some(self.started_at + GATHER_AFTER);
                self.phase = Phase::Running;
                self.restarts_in_a_row += 1;
                self.info.restarts += 1;
                self.info.status = ProcessStatus::Running;
                self.info.pid = Some(self.child.pid());
                (self.info.exit, self.info.exit_code, self.info.exit_reason, self.info.exited_at_ms) = (None, None, None, None);
                self.show("process.restarted").await;
                self.watch_limits();
                self.write_input();
            }
            Err(error) => {
                tracing::warn!(id = %self.info.id, %error, "a process could not be started again");
                self.restarts_in_a_row += 1;
                self.after(None, ExitReason::StartFailed).await;
            }
        }
    }

    /// Commits the process as it is now, with an event, and then shows it.
    pub(super) async fn show(&mut self, event: &'static str) {
        let mut committed = self.room.log_change(event, &self.info, &self.kept, self.output.disk_bytes());
        // A slow disk doesn't keep the exit back.
        let is_committed = tokio::time::timeout(COMMIT_PATIENCE, &mut committed).await.is_ok();
        match self.phase {
            Phase::Running => {}
            _ if !is_committed => self.uncommitted = Some(committed),
            // The next server starts it again: it must not wait for the end of this one.
            Phase::Pausing { .. } => self.child.forget(),
            _ => self.child.release(),
        }
        if !self.info.is_alive() {
            self.room.is_over();
        }
        self.publish.send_replace(Arc::new(self.info.clone()));
    }

    /// Nothing of the process has to outlive us, once its end is in the file.
    pub(super) fn forget_child(&mut self) {
        self.once_committed(Child::forget);
    }

    /// Takes a predecessor away, once its end is in the file: what the keeper has under its name is its successor's.
    fn release_child(&mut self) {
        self.once_committed(Child::release);
    }

    fn once_committed(&mut self, work: fn(&Child)) {
        match self.uncommitted.take() {
            None => work(&self.child),
            Some(committed) => {
                let child = self.child.clone();
                spawn_owned("process-release", async move {
                    let _ = committed.await; // it could not be kept, or the store is closed: no matter any more
                    work(&child);
                });
            }
        }
    }
}
