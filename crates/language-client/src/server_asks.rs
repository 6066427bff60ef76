//! What servers ask of their client, and say without being asked (LSP 3.17).

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::Setup;
use crate::error::{METHOD_NOT_FOUND, ResponseError};
use crate::state::{Progress, Registration, State};
use crate::uri::canonical;

/// Edits that a server wants made, one after the other.
pub type Asks = mpsc::Receiver<ApplyEdit>;

/// A `workspace/applyEdit` of a server. Dropped, it is answered that it wasn't made.
#[derive(Debug)]
pub struct ApplyEdit {
    /// For people.
    pub label: Option<String>,
    /// LSP's `WorkspaceEdit`.
    pub edit: Value,
    /// Whether it was made, or why not.
    pub reply: oneshot::Sender<Result<(), String>>,
}

/// What comes of a request.
pub(crate) enum Answer {
    Now(Result<Value, ResponseError>),
    /// When somebody has made an edit.
    Applied(oneshot::Receiver<Result<(), String>>),
}

/// Answers a request of a server.
pub(crate) fn answer(
    method: &str,
    params: Option<&RawValue>,
    setup: &Setup,
    state: &State,
    asks: &mpsc::Sender<ApplyEdit>,
) -> Answer {
    let params: Value = params.and_then(|params| serde_json::from_str(params.get()).ok()).unwrap_or_default();
    Answer::Now(Ok(match method {
        "workspace/configuration" => configuration(&params, &setup.settings),
        "workspace/workspaceFolders" => json!([{"uri": setup.root_uri, "name": setup.name}]),
        "workspace/applyEdit" => return apply(params, asks),
        "client/registerCapability" => {
            let registrations = params["registrations"].as_array().into_iter().flatten();
            registrations.filter_map(registration).for_each(|registration| state.register(registration));
            Value::Null
        }
        "client/unregisterCapability" => {
            // the field is misspelt in the protocol
            let ids = params["unregisterations"].as_array().into_iter().flatten();
            ids.filter_map(|gone| gone["id"].as_str()).for_each(|id| state.unregister(id));
            Value::Null
        }
        "window/showMessageRequest" => {
            said(&params, state);
            Value::Null // nobody is there to choose
        }
        "window/showDocument" => json!({"success": false}),
        "workspace/diagnostic/refresh" => {
            state.refresh();
            Value::Null
        }
        "window/workDoneProgress/create"
        | "workspace/semanticTokens/refresh"
        | "workspace/inlayHint/refresh"
        | "workspace/inlineValue/refresh"
        | "workspace/codeLens/refresh"
        | "workspace/foldingRange/refresh" => Value::Null,
        _ => {
            let message = format!("{method} is not known here");
            return Answer::Now(Err(ResponseError { code: METHOD_NOT_FOUND, message, data: None }));
        }
    }))
}

fn apply(mut params: Value, asks: &mpsc::Sender<ApplyEdit>) -> Answer {
    let (reply, applied) = oneshot::channel();
    let label = params["label"].as_str().map(str::to_owned);
    match asks.try_send(ApplyEdit { label, edit: params["edit"].take(), reply }) {
        Ok(()) => Answer::Applied(applied),
        Err(_) => Answer::Now(Ok(json!({"applied": false, "failureReason": "too many edits wait"}))),
    }
}

fn registration(told: &Value) -> Option<Registration> {
    let text = |key: &str| told[key].as_str().map(str::to_owned);
    Some(Registration { id: text("id")?, method: text("method")?, options: told["registerOptions"].clone() })
}

/// Each item by its section, `a.b` being a path; all of it without one.
fn configuration(params: &Value, settings: &Value) -> Value {
    let of = |item: &Value| match item["section"].as_str().filter(|section| !section.is_empty()) {
        Some(section) => section.split('.').try_fold(settings, |value, part| value.get(part)).cloned().unwrap_or_default(),
        None => settings.clone(),
    };
    params["items"].as_array().map(|items| items.iter().map(of).collect()).unwrap_or_default()
}

#[derive(Deserialize)]
struct PublishDiagnostics {
    uri: String,
    version: Option<i32>,
    #[serde(default)]
    diagnostics: Vec<Value>,
}

/// Takes note of what a server says.
pub(crate) fn hear(method: &str, params: Option<&RawValue>, state: &State) {
    let Some(params) = params else { return };
    match method {
        "textDocument/publishDiagnostics" => match serde_json::from_str::<PublishDiagnostics>(params.get()) {
            Ok(PublishDiagnostics { uri, version, diagnostics }) => state.publish(canonical(uri), version, diagnostics),
            Err(error) => tracing::debug!(%error, "diagnostics that make no sense"),
        },
        "$/progress" | "window/logMessage" | "window/showMessage" => {
            let params: Value = serde_json::from_str(params.get()).unwrap_or_default();
            if method == "$/progress" { progressed(&params, state) } else { said(&params, state) }
        }
        _ => {}
    }
}

fn said(params: &Value, state: &State) {
    let level = match params["type"].as_u64() {
        Some(1) => "error",
        Some(2) => "warning",
        Some(3) => "info",
        Some(5) => "debug",
        _ => "log",
    };
    state.log(level, params["message"].as_str().unwrap_or_default().to_owned());
}

fn progressed(params: &Value, state: &State) {
    let (token, value) = (params["token"].to_string(), &params["value"]);
    let before = state.progress_of(&token);
    let text = |key: &str| value[key].as_str().map(str::to_owned);
    let progress = match value["kind"].as_str() {
        Some("begin" | "report") => {
            let before = before.unwrap_or(Progress { title: String::new(), message: None, percentage: None });
            Some(Progress {
                title: text("title").unwrap_or(before.title),
                message: text("message").or(before.message),
                percentage: value["percentage"].as_u64().or(before.percentage),
            })
        }
        Some("end") => None,
        _ => return, // partial results: never asked for
    };
    state.progressed(token, progress);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_found_by_section() {
        let settings = json!({"python": {"analysis": {"strict": true}}});
        let params = json!({"items": [{"section": "python.analysis"}, {"section": "python.none"}, {"section": ""}, {}]});
        let expected = json!([{"strict": true}, null, settings, settings]);
        assert_eq!(configuration(&params, &settings), expected);
    }
}
