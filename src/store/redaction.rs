//! What of a change of rows may hold secrets that nobody needs again.
//!
//! Left as given is what things are started or restored with: the handshakes and sessions of ACP servers (an MCP server's
//! environment and headers), the requests of processes that are started again, and permission rules.

use serde::Deserialize;

use super::rows::RowChange;
use crate::rt::redact::Redactor;

/// Takes known secrets out.
pub(super) fn clean(change: &mut RowChange, redactor: &Redactor) {
    match change {
        RowChange::PutProcess(row) => {
            if !is_needed_again(&row.spec) {
                redactor.clean_json(&mut row.spec);
            }
        }
        RowChange::PutSession(row) => {
            if let Some(title) = &mut row.title {
                redactor.clean_text(title);
            }
            redactor.clean_json(&mut row.doc);
        }
        RowChange::PutTurn(row) => redactor.clean_json(&mut row.doc),
        RowChange::PutRequest(row) => redactor.clean_json(&mut row.doc),
        RowChange::PutSpan(row) => {
            redactor.clean_text(&mut row.name);
            redactor.clean_json(&mut row.doc);
        }
        RowChange::Many(changes) => changes.iter_mut().for_each(|change| clean(change, redactor)),
        RowChange::PutAcpServer(_)
        | RowChange::DeleteAcpServer { .. }
        | RowChange::SetInitialize { .. }
        | RowChange::SetAuthenticate { .. }
        | RowChange::PutAcpSession { .. }
        | RowChange::CountProcess { .. }
        | RowChange::DeleteProcesses { .. }
        | RowChange::PutStream { .. }
        | RowChange::DeleteSession { .. }
        | RowChange::PutRule(_)
        | RowChange::DeleteRule { .. }
        | RowChange::ReplaceRules { .. }
        | RowChange::LoseSpans
        | RowChange::TrimSpans { .. }
        | RowChange::KeepSpanCursor { .. } => {}
    }
}

#[derive(Deserialize)]
struct Policy {
    #[serde(default)]
    restart: Option<String>,
}

/// True for the request of a process that may be started again; also for one that can't be read.
fn is_needed_again(spec: &str) -> bool {
    serde_json::from_str::<Policy>(spec).map_or(true, |policy| policy.restart.is_some_and(|restart| restart != "never"))
}
