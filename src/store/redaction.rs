//! What of a change of rows may hold secrets that nobody needs again.
//!
//! Left as given is what things are started or restored with: the handshakes and sessions of ACP servers (an MCP server's
//! environment and headers), the requests of processes that are started again, permission rules, and contents of files.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use serde::Deserialize;

use super::rows::RowChange;
use super::session_rows::SpanRow;
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
            clean_session(&mut row.doc, redactor);
        }
        RowChange::PutTurn(row) => redactor.clean_json(&mut row.doc),
        RowChange::PutRequest(row) => redactor.clean_json(&mut row.doc),
        RowChange::PutSpan(row) => clean_span(row, redactor),
        RowChange::PutFsEdit(row, _) => {
            redactor.clean_json(&mut row.doc);
            row.diff.iter_mut().for_each(|diff| redactor.clean_text(diff));
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
        | RowChange::LoseSpans { .. }
        | RowChange::TrimSpans { .. }
        | RowChange::SetFsEditStatus { .. }
        | RowChange::PutFsSeen(_)
        | RowChange::PutWorktree(_)
        | RowChange::DeleteWorktree { .. }
        | RowChange::TrimFs(_)
        | RowChange::KeepSpanCursor { .. } => {}
    }
}

/// What a session was opened with is kept as given: it is opened again with it.
fn clean_session(doc: &mut String, redactor: &Redactor) {
    let mut clean = doc.clone();
    redactor.clean_json(&mut clean);
    if clean == *doc {
        return;
    }
    let opened_with = members(doc).remove(OPENED_WITH);
    if let Some(opened_with) = opened_with {
        let mut all = members(&clean);
        all.insert(OPENED_WITH.to_owned(), opened_with);
        clean = serde_json::to_string(&all).unwrap_or(clean);
    }
    *doc = clean;
}

/// The member of a session's document that names it.
const OPENED_WITH: &str = "openedWith";

fn members(object: &str) -> BTreeMap<String, Box<RawValue>> {
    serde_json::from_str(object).unwrap_or_default()
}

/// The same for a span on its way elsewhere.
pub(super) fn clean_span(row: &mut SpanRow, redactor: &Redactor) {
    redactor.clean_text(&mut row.name);
    redactor.clean_json(&mut row.doc);
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
