//! What servers have to say without being asked becomes events of the stream `lsp`.

use language_client::{Client, path_of};
use serde_json::json;

use super::Lsp;
use super::diagnostics::shown;
use crate::rt::clock::now_ms;

/// Diagnostics of one event; the rest is asked for.
const SHOWN_MAX: usize = 50;

/// Files whose diagnostics became others: `lsp.diagnostics`, each with what it has now.
pub(super) async fn tell(lsp: &Lsp, id: &str, server: &str, client: &Client) {
    for uri in client.take_news() {
        let (Some(path), Some(published)) = (path_of(&uri), client.diagnostics(&uri)) else { continue };
        let diagnostics =
            shown(lsp, server, client, &path, &published.diagnostics[..published.diagnostics.len().min(SHOWN_MAX)]).await;
        let count = published.diagnostics.len() + published.left_out;
        let event = json!({
            "type": "lsp.diagnostics", "time": now_ms(), "serverId": id, "server": server, "path": path.to_string_lossy(),
            "count": count, "diagnostics": diagnostics,
        });
        lsp.event("lsp.diagnostics", &event);
        lsp.inner.listener.diagnostics(&path, &event);
    }
}

/// A server ended by itself.
pub(super) fn down(lsp: &Lsp, id: &str, server: &str, why: &str) {
    let event = json!({"type": "lsp.server_ended", "time": now_ms(), "serverId": id, "server": server, "reason": why});
    lsp.event("lsp.server_ended", &event);
}
