//! Which ports are open, and whose they are: looked at now and then while anything runs, and whenever somebody asks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;

use super::Error;
use super::ports::{Port, PortEvent, PortScan, PortTable};
use super::room::Room;
use super::types::{Owner, PortInfo, ProcessId};
use crate::config::as_duration;
use crate::rt::spawn_owned;

type Whose = (ProcessId, Option<Owner>);

/// What was open at the last look.
#[derive(Default)]
pub(super) struct OpenPorts {
    state: Mutex<(PortScan, PortTable<Whose>)>,
    /// The last answer: many may wait for a port at once.
    latest: tokio::sync::Mutex<Option<(Instant, Vec<PortInfo>)>>,
}

/// Starts the task that looks every `ports_poll_ms`. It ends with the room.
pub(super) fn watch(room: &Arc<Room>) {
    let every = as_duration(room.bounds.ports_poll_ms);
    let room = Arc::downgrade(room);
    spawn_owned("ports", async move {
        let mut was_busy = false;
        loop {
            tokio::time::sleep(every).await;
            let Some(room) = room.upgrade() else { return };
            // One more look after the last process: its ports are closed.
            let is_busy = !room.children.running().is_empty();
            if (is_busy || was_busy)
                && let Err(error) = look(&room).await
            {
                tracing::debug!(%error, "listening ports could not be looked at");
            }
            was_busy = is_busy;
        }
    });
}

/// Looks now, writes an event for what has changed, and gives what is open.
pub(super) async fn look(room: &Arc<Room>) -> Result<Vec<PortInfo>, Error> {
    let room = Arc::clone(room);
    let looked = tokio::task::spawn_blocking(move || {
        let mut state = room.ports.state.lock().unwrap_or_else(PoisonError::into_inner); // each look sets it anew
        let (scan, table) = &mut *state;
        let (now, owners) = scan.look().map_err(|error| Error::Invalid(format!("ports can't be listed here: {error}")))?;
        for event in table.update(&now, &owners, |pid| room.children.owner_of(pid)) {
            let (kind, port) = match event {
                PortEvent::Opened(port) => ("port.opened", port),
                PortEvent::Closed(port) => ("port.closed", port),
            };
            let payload = json!({"type": kind, "port": info(&room, &port)}).to_string();
            room.store.append(&room.events, kind, Bytes::from(payload), None);
        }
        if table.left_out() > 0 {
            tracing::warn!(left_out = table.left_out(), "more ports are open than are recorded");
        }
        Ok(table.ports().map(|port| info(&room, port)).collect())
    });
    looked.await.map_err(|_| Error::Stopping)?
}

/// What was open at most so long ago; all who ask meanwhile share one look.
async fn recent(room: &Arc<Room>, max_age: Duration) -> Result<Vec<PortInfo>, Error> {
    let mut latest = room.ports.latest.lock().await;
    if let Some((_, open)) = latest.as_ref().filter(|(at, _)| at.elapsed() < max_age) {
        return Ok(open.clone());
    }
    let open = look(room).await?;
    *latest = Some((Instant::now(), open.clone()));
    Ok(open)
}

/// Waits until a process listens on a port, or on any with 0. Cancel safe.
///
/// # Errors
/// Ports can't be listed here.
pub(super) async fn opened(room: &Arc<Room>, id: ProcessId, wanted: u16, poll: Duration) -> Result<u16, Error> {
    loop {
        let open = recent(room, poll).await?;
        let found = open.iter().find(|port| port.process_id == Some(id) && (wanted == 0 || port.port == wanted));
        if let Some(port) = found {
            return Ok(port.port);
        }
        tokio::time::sleep(poll).await;
    }
}

fn info(room: &Room, port: &Port<Whose>) -> PortInfo {
    let owner = port.owner.and_then(|(id, owner)| owner.or_else(|| room.find(id).map(|found| found.info().owner)));
    PortInfo {
        port: port.port,
        addresses: port.addresses.clone(),
        pid: port.pid,
        process_id: port.owner.map(|(id, _)| id),
        owner,
    }
}
