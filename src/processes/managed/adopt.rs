//! A process that an earlier server started goes on.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::Handle;
use super::input::Input;
use super::limits::Watched;
use super::output::Output;
use super::stdio::Stdio;
use super::task::{GATHER_AFTER, Phase, Task};
use super::terminal::Terminal;
use crate::config::as_usize;
use crate::processes::children::{Adopted, SLATE};
use crate::processes::desk::{Left, unpack};
use crate::processes::kept::Kept;
use crate::processes::prepare::Prepared;
use crate::processes::room::{Room, Slot};
use crate::processes::slate::Slate;
use crate::processes::spool::Stream;
use crate::processes::types::{ProcessInfo, ProcessSpec, RestartPolicy};
use crate::rt::clock::now_ms;
use crate::rt::spawn_owned;

/// What a process is gone on with.
pub(in crate::processes) struct Adoption {
    pub(in crate::processes) room: Arc<Room>,
    /// As it was shown last.
    pub(in crate::processes) info: ProcessInfo,
    pub(in crate::processes) spec: ProcessSpec,
    pub(in crate::processes) kept: Kept,
    pub(in crate::processes) adopted: Adopted,
    /// Its place among those that run; `None` of one that has ended, while something in the background holds its output.
    pub(in crate::processes) slot: Option<Slot>,
}

/// Enters a process that lives on, with an owner of its own.
///
/// # Errors
/// Its descriptors can't be watched.
pub(in crate::processes) fn adopt(adoption: Adoption) -> std::io::Result<Handle> {
    let Adoption { room, info, spec, kept, adopted, slot } = adoption;
    let Adopted { child, exit, mut fds, left } = adopted;
    spawn_owned("process", exit.collect());
    let slate = fds[SLATE].take().map(Slate::open).transpose()?;
    let stdio = Stdio::adopt(spec.tty, fds)?;
    let (publish, watcher) = watch::channel(Arc::new(info.clone()));
    let (mailbox_tx, mailbox) = mpsc::channel(as_usize(room.bounds.process_mailbox_max_messages));
    let mut output = Output::new(&room.spool_dir, info.id.0, room.config().max_log_bytes_per_process, true);
    let input = made_up(&mut output, Input::new(info.id, slate), left);
    if let Some(desks) = room.children.desks() {
        desks.release(info.id);
    }
    let close_stdin = input.slate.as_ref().is_some_and(Slate::closes) && stdio.has_stdin();
    let size = info.terminal.filter(|_| spec.tty);
    let terminal = size.map(|size| Terminal::new(size, &room.bounds).of_log(output.log().index));
    let handle = Handle { id: info.id, mailbox: mailbox_tx, info: watcher, log: output.log() };
    let prepared = (spec.restart != RestartPolicy::Never)
        .then(|| Prepared::new(&spec.run, info.id, info.owner, spec.tty, room.children.env(), &room.script_dir).ok())
        .flatten();
    let lived = Duration::from_millis(u64::try_from(now_ms() - info.created_at_ms).unwrap_or(0));
    let now = Instant::now();
    let phase = if slot.is_some() { Phase::Running } else { Phase::Ended };
    let lingers = if slot.is_some() { None } else { Arc::clone(&room.lingering).try_acquire_owned().ok() };
    let watched = Watched::since(&spec.run.limits, lived);
    let task = Task {
        room,
        spec,
        kept,
        prepared,
        info,
        publish,
        mailbox,
        own_mailbox: handle.mailbox.downgrade(),
        child,
        stdio,
        input,
        close_stdin,
        output,
        terminal,
        phase,
        ending: None,
        watched,
        sampler: None,
        lingers,
        gather_at: Some(now + GATHER_AFTER).filter(|_| phase == Phase::Running),
        started_at: now.checked_sub(lived).unwrap_or(now),
        restarts_in_a_row: 0,
        uncommitted: None,
    };
    task.room.take_up(slot, handle.clone());
    spawn_owned("process-owner", async move {
        let mut task = task;
        task.write_input();
        task.watch_limits();
        task.go_on().await;
    });
    Ok(handle)
}

/// What the last server was just moving, and half characters that it held back.
fn made_up(output: &mut Output, input: Input, left: Vec<Left>) -> Input {
    let Some(slate) = &input.slate else { return input };
    let mut from_desk = None;
    for left in left {
        match left {
            Left::Given { position, .. } => slate.given(position),
            Left::Taken { stream, base, carry, bytes, .. } => from_desk = Some((stream, base, [unpack(carry), bytes].concat())),
        }
    }
    for stream in Stream::ALL {
        match &from_desk {
            Some((of, base, bytes)) if *of == stream => output.make_up(stream, *base, bytes),
            _ => {
                let logged = output.logged(stream);
                output.make_up(stream, logged, &slate.carry(stream, logged));
            }
        }
        slate.set_carry(stream, output.held(stream), output.logged(stream));
    }
    input
}
