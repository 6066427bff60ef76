//! Streams whose ACP server is gone: marked when it goes, and removed a slice at a time beyond a bound.

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::read::{as_i64, as_u64};
use crate::rt::clock::now_ms;

/// What one transaction removes at most, so that no commit waits long for it: events,
const SLICE_EVENTS: usize = 2000;
/// their payload,
const SLICE_BYTES: u64 = 4 * 1024 * 1024;
/// and streams.
const SLICE_STREAMS: usize = 100;

/// What one slice came to.
pub(super) struct Swept {
    /// Pages of the file that were changed, about.
    pub(super) pages: u64,
    /// Streams that are gone.
    pub(super) streams: Vec<i64>,
    /// True when nothing is left to be removed.
    pub(super) done: bool,
}

/// Marks the streams of an instance that goes.
pub(super) fn orphan(tx: &Transaction<'_>, instance: &str) -> rusqlite::Result<()> {
    [format!("acp/{instance}/out"), format!("acp/{instance}/in")].iter().try_for_each(|name| orphan_stream(tx, name))
}

/// Marks one stream whose owner goes.
pub(super) fn orphan_stream(tx: &Transaction<'_>, name: &str) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE streams SET orphaned_at_ms = ?2 WHERE name = ?1 AND orphaned_at_ms IS NULL")?
        .execute((name, now_ms()))?;
    Ok(())
}

/// At the start: marks the streams of servers that were never finished, as when an agent could not be launched, and those
/// of watched files: whoever watches again goes on in the same one, and what is followed is never removed.
pub(super) fn orphan_left_behind(connection: &Connection) -> rusqlite::Result<()> {
    let marked = connection.execute(
        "UPDATE streams SET orphaned_at_ms = ?1
         WHERE (name GLOB 'acp/*' OR name GLOB 'session/*' OR name GLOB 'fs/*') AND orphaned_at_ms IS NULL AND name NOT IN (
             SELECT 'acp/' || instance || '/out' FROM acp_servers UNION ALL SELECT 'acp/' || instance || '/in' FROM acp_servers
             UNION ALL SELECT 'session/' || id FROM sessions)",
        [now_ms()],
    )?;
    if marked > 0 {
        tracing::debug!(marked, "streams of ACP servers that no longer exist");
    }
    Ok(())
}

/// Removes one slice of the streams that were orphaned longest ago, keeping `keep` of them and all that `is_live`.
pub(super) fn slice(connection: &mut Connection, keep: u64, is_live: impl Fn(i64) -> bool) -> rusqlite::Result<Swept> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    super::log::remember_last(&tx)?;
    let old: Vec<i64> = tx
        .prepare_cached(
            "SELECT id FROM streams WHERE orphaned_at_ms IS NOT NULL
             ORDER BY orphaned_at_ms DESC, id DESC LIMIT -1 OFFSET ?1",
        )?
        .query_map([as_i64(keep)], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut swept = Swept { pages: 0, streams: Vec::new(), done: true };
    let (mut events, mut bytes) = (SLICE_EVENTS, SLICE_BYTES);
    for stream in old.into_iter().rev().filter(|stream| !is_live(*stream)) {
        if events == 0 || bytes == 0 || swept.streams.len() == SLICE_STREAMS {
            swept.done = false;
            break;
        }
        swept.pages += 1;
        if !drop_events(&tx, stream, &mut events, &mut bytes)? {
            swept.done = false;
            break;
        }
        tx.prepare_cached("DELETE FROM gaps WHERE stream_id = ?1")?.execute([stream])?;
        tx.prepare_cached("DELETE FROM streams WHERE id = ?1")?.execute([stream])?;
        swept.streams.push(stream);
    }
    tx.commit()?;
    swept.pages += (SLICE_EVENTS - events) as u64 / 4 + (SLICE_BYTES - bytes) / 4096;
    Ok(swept)
}

/// Removes a stream's oldest events as far as the budget goes; true when none is left.
fn drop_events(tx: &Transaction<'_>, stream: i64, events: &mut usize, bytes: &mut u64) -> rusqlite::Result<bool> {
    let mut select =
        tx.prepare_cached("SELECT stream_seq, length(payload) FROM events WHERE stream_id = ?1 ORDER BY stream_seq")?;
    let mut rows = select.query([stream])?;
    let mut upto = None;
    let mut is_all = true;
    while let Some(row) = rows.next()? {
        if *events == 0 || *bytes == 0 {
            is_all = false;
            break;
        }
        *events -= 1;
        *bytes = bytes.saturating_sub(as_u64(row.get(1)?));
        upto = Some(row.get::<_, i64>(0)?);
    }
    drop(rows);
    if let Some(upto) = upto {
        tx.prepare_cached("DELETE FROM events WHERE stream_id = ?1 AND stream_seq <= ?2")?.execute((stream, upto))?;
    }
    Ok(is_all)
}
