//! What the owner does when it is asked.

use std::time::Duration;

use bytes::Bytes;
use nix::sys::signal::{Signal, killpg};
use tokio::sync::oneshot;

use super::Command;
use super::task::Task;
use crate::processes::Error;
use crate::processes::types::{ExitReason, SignalScope, Stopped, TerminalSize};
use crate::rt::spawn_owned;

/// Ctrl-D: what a terminal has instead of an end of stdin.
pub(super) const END_OF_TRANSMISSION: &[u8] = &[4];

impl Task {
    /// Answers are dropped when nobody waits for them any more: what was asked is done all the same.
    pub(super) fn handle(&mut self, command: Command) {
        match command {
            Command::Input { bytes, reply } => _ = reply.send(self.take_input(&bytes)),
            Command::CloseStdin { reply } => _ = reply.send(self.end_stdin()),
            Command::Resize { size, reply } => _ = reply.send(self.resize(size)),
            Command::Signal { signal, scope, reply } => self.signal(signal, scope, reply),
            Command::End { reason, grace, reply } => self.end_tree(reason, grace, reply),
            Command::Attach { reply } => {
                let attached = match &mut self.terminal {
                    Some(_) if !self.info.is_alive() => Err(self.not_running()),
                    Some(terminal) => terminal.attach(),
                    None => Err(Error::NoTerminal { id: self.info.id }),
                };
                let _ = reply.send(attached);
            }
            Command::Redraw { viewer } => {
                if let Some(terminal) = &mut self.terminal {
                    let (snapshot, size) = (terminal.snapshot(), terminal.size);
                    terminal.viewers.redraw(&viewer, size, || snapshot);
                }
            }
            Command::Screen { look, reply } => match &mut self.terminal {
                Some(terminal) => look(terminal.screen()),
                None => _ = reply.send(Error::NoTerminal { id: self.info.id }),
            },
            Command::Breach { reason } => self.breach(reason),
            Command::BoundLog { max_bytes } => self.output.set_max_bytes(max_bytes),
        }
    }

    fn not_running(&self) -> Error {
        Error::NotRunning { id: self.info.id, exit: self.info.exit }
    }

    fn take_input(&mut self, bytes: &Bytes) -> Result<usize, Error> {
        if !self.is_running() {
            return Err(self.not_running());
        }
        if !self.stdio.has_stdin() || self.close_stdin {
            return Err(Error::StdinClosed { id: self.info.id });
        }
        if bytes.len() > self.input_room() {
            return Err(Error::InputQueueFull { id: self.info.id, queued: self.input.len() });
        }
        self.queue_input(bytes);
        Ok(bytes.len())
    }

    fn end_stdin(&mut self) -> Result<(), Error> {
        if self.terminal.is_some() {
            return self.take_input(&Bytes::from_static(END_OF_TRANSMISSION)).map(|_| ());
        }
        if !self.is_running() {
            return Err(self.not_running());
        }
        self.close_stdin = true;
        self.input.set_closes(true);
        self.write_input();
        Ok(())
    }

    fn resize(&mut self, size: TerminalSize) -> Result<(), Error> {
        let Some(terminal) = &mut self.terminal else { return Err(Error::NoTerminal { id: self.info.id }) };
        let Some(tty) = self.stdio.tty() else {
            return Err(Error::NotRunning { id: self.info.id, exit: self.info.exit });
        };
        tty.resize(size).map_err(|error| Error::Invalid(format!("the terminal can't be resized: {error}")))?;
        if terminal.size != size {
            terminal.resize(size);
            self.output.resized(size);
            self.info.terminal = Some(size);
            self.shown_later();
        }
        Ok(())
    }

    fn signal(&mut self, signal: Signal, scope: SignalScope, reply: oneshot::Sender<Result<usize, Error>>) {
        let foreground = self.stdio.tty().and_then(|tty| tty.foreground()).filter(|_| scope == SignalScope::Group);
        if let Some(group) = foreground {
            let _ = reply.send(Ok(usize::from(killpg(group, signal).is_ok())));
            return;
        }
        if !self.is_running() && scope != SignalScope::Tree {
            let _ = reply.send(Err(self.not_running()));
            return;
        }
        let child = self.child.clone();
        spawn_owned("process-signal", async move {
            let _ = reply.send(Ok(child.signal(signal, scope).await));
        });
    }

    fn end_tree(&mut self, reason: ExitReason, grace: Duration, reply: oneshot::Sender<Stopped>) {
        if self.info.is_alive() {
            self.ending = Some(reason);
        }
        let child = self.child.clone();
        spawn_owned("process-stop", async move {
            let _ = reply.send(child.stop(grace).await);
        });
    }
}
