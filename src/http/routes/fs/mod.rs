//! `/v1/fs`: files of the sandbox.

mod archive;
mod batch;
pub(super) mod conditions;
mod conflicts;
mod edit;
mod entries;
mod file;
mod history;
mod names;
mod replace;
mod representation;
mod search;
mod selection;
pub(super) mod target;
mod uploads;
mod watch;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::mpsc;
use utoipa_axum::router::OpenApiRouter;

use crate::fs;
use crate::http::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    entries::router()
        .merge(file::router())
        .merge(names::router())
        .merge(search::router())
        .merge(replace::router())
        .merge(edit::router())
        .merge(history::router())
        .merge(conflicts::router())
        .merge(archive::router())
        .merge(batch::router())
        .merge(uploads::router())
        .merge(watch::router())
}

/// A body that comes in pieces. An error cuts the connection, so that nobody takes a part for the whole.
fn body_of(pieces: mpsc::Receiver<Result<Bytes, fs::Error>>) -> Body {
    Body::from_stream(stream::unfold(pieces, |mut pieces| async move {
        let piece = pieces.recv().await?;
        Some((piece.map_err(std::io::Error::other), pieces))
    }))
}
