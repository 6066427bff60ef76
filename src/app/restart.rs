//! A restart that is asked for: the keeper starts the server anew, and what runs goes on.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::task::JoinHandle;

use super::{ANSWER_TIME, CLOSE_TIME};
use crate::crashes::Ending;
use crate::desktop::EndReason;
use crate::http::AppState;
use crate::keeper::RESTART_CODE;
use crate::store;

/// The stream of what happens to the server itself.
const STREAM: &str = "server";

/// Streams end, open requests get up to a second, and what was appended is committed. The log isn't closed: whatever still
/// runs would be refused, and answer agents with errors. What comes after is as after a SIGKILL, which loses nothing.
pub(super) async fn let_go(state: &AppState, server: JoinHandle<()>) -> ! {
    tracing::info!("restarting: what runs goes on");
    state.stop.cancel();
    if tokio::time::timeout(ANSWER_TIME, server).await.is_err() {
        tracing::info!("requests that were not answered in time are cut");
    }
    state.desktop.shut_down(EndReason::ServerRestarted).await;
    let _ = tokio::time::timeout(CLOSE_TIME, state.store.settle()).await; // a disk that hangs can't be waited for
    leave()
}

/// Ends this process so that the keeper starts another one. Nothing is dropped: destructors would end or remove what is to
/// live on.
pub(super) fn leave() -> ! {
    std::process::exit(RESTART_CODE)
}

/// Tells who follows the log that this isn't the first server of the keeper.
///
/// # Errors
/// The disk refuses the stream.
pub(super) async fn tell(state: &AppState) -> Result<(), store::Error> {
    let AppState { store, keeper, crashes, .. } = state;
    if keeper.starts() <= 1 {
        return Ok(());
    }
    let reason = match keeper.last() {
        None => "asked",
        Some(last) if last.is_upgrade => "upgrade_failed",
        Some(_) => "crash",
    };
    let last = keeper.last().map(|last| (Ending::from(last.ended), last.uptime_ms));
    let newest = crashes.list().into_iter().next().filter(|_| last.is_some());
    let event = json!({
        "type": "server.restarted",
        "reason": reason,
        "starts": keeper.starts(),
        "version": env!("CARGO_PKG_VERSION"),
        "ended": last.as_ref().map(|(ended, _)| ended),
        "uptimeMs": last.as_ref().map(|(_, uptime_ms)| uptime_ms),
        "crashId": newest.map(|report| report.id),
    });
    let stream = store.open_stream(STREAM).await?;
    tracing::info!(reason, starts = keeper.starts(), "the server was started again");
    store.append(&stream, "server.restarted", Bytes::from(event.to_string()), None);
    store.flush();
    Ok(())
}

/// Resolves when it was asked for. Cancel safe.
pub(super) async fn asked(state: &AppState) {
    state.restart.cancelled().await;
    // The answer to who asked is on its way.
    tokio::time::sleep(Duration::from_millis(20)).await;
}
