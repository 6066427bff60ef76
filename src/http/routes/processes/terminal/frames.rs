//! The text frames of a terminal's WebSocket.

use axum::extract::ws::Message;
use serde::{Deserialize, Serialize};

use crate::processes::types::{ExitInfo, TerminalSize};

/// What a client says.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum ClientFrame {
    /// Typed text; bytes with `encoding` `base64`.
    Input {
        data: String,
        #[serde(default)]
        encoding: Option<String>,
    },
    /// The client's window has another size.
    Resize(TerminalSize),
    /// It wants to leave.
    Close,
}

impl ClientFrame {
    /// # Errors
    /// The contract's sentence about a frame that can't be understood.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| format!("invalid terminal frame: {error}"))
    }
}

/// What the server says.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase", rename_all_fields = "camelCase")]
pub(super) enum ServerFrame<'a> {
    /// Always first.
    Ready {
        process_id: &'a str,
        #[serde(flatten)]
        size: Option<TerminalSize>,
    },
    /// The process ended; a close frame follows.
    Exit {
        exit_code: Option<i32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        exit: Option<ExitInfo>,
    },
    /// Something the client asked for was not done, or output was left out. The connection stays usable.
    Error { message: &'a str },
    /// The next binary frame draws the screen.
    Snapshot {
        #[serde(flatten)]
        size: TerminalSize,
        bytes: usize,
    },
    /// Somebody changed the terminal's size.
    Resize(TerminalSize),
    /// Output was left out; a snapshot follows.
    Lagged { skipped_bytes: u64 },
}

impl From<ServerFrame<'_>> for Message {
    fn from(frame: ServerFrame<'_>) -> Self {
        Self::text(serde_json::to_string(&frame).unwrap_or_default()) // strings and numbers: it can't fail
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::processes::Exit;

    #[test]
    fn client_frames_are_understood() {
        let input = |data: &str, encoding: Option<&str>| ClientFrame::Input {
            data: data.to_owned(),
            encoding: encoding.map(str::to_owned),
        };
        for (text, frame) in [
            (r#"{"type":"input","data":"ls\n"}"#, input("ls\n", None)),
            (r#"{"data":"bHM=","encoding":"base64","type":"input"}"#, input("bHM=", Some("base64"))),
            (r#"{"type":"input","data":"x","encoding":null,"more":1}"#, input("x", None)),
            (r#"{"type":"resize","cols":111,"rows":33}"#, ClientFrame::Resize(TerminalSize { cols: 111, rows: 33 })),
            (r#"{"type":"close"}"#, ClientFrame::Close),
        ] {
            assert_eq!(ClientFrame::parse(text), Ok(frame), "{text}");
        }
        for text in
            ["", "ls", "[]", "{}", r#"{"type":"input"}"#, r#"{"type":"paste"}"#, r#"{"type":"resize","cols":-1,"rows":2}"#]
        {
            assert!(ClientFrame::parse(text).expect_err(text).starts_with("invalid terminal frame: "), "{text}");
        }
    }

    #[test]
    fn server_frames_are_the_contracts() {
        let size = TerminalSize { cols: 80, rows: 24 };
        for (frame, expected) in [
            (ServerFrame::Ready { process_id: "proc_3", size: None }, json!({"type": "ready", "processId": "proc_3"})),
            (
                ServerFrame::Ready { process_id: "proc_3", size: Some(size) },
                json!({"type": "ready", "processId": "proc_3", "cols": 80, "rows": 24}),
            ),
            (
                ServerFrame::Exit { exit_code: Some(5), exit: Some(Exit::Code(5).into()) },
                json!({"type": "exit", "exitCode": 5, "exit": {"code": 5}}),
            ),
            (
                ServerFrame::Exit { exit_code: None, exit: Some(Exit::Signal(9).into()) },
                json!({"type": "exit", "exitCode": null, "exit": {"signal": "SIGKILL", "number": 9}}),
            ),
            (ServerFrame::Error { message: "no" }, json!({"type": "error", "message": "no"})),
            (ServerFrame::Snapshot { size, bytes: 7 }, json!({"type": "snapshot", "cols": 80, "rows": 24, "bytes": 7})),
            (ServerFrame::Resize(size), json!({"type": "resize", "cols": 80, "rows": 24})),
            (ServerFrame::Lagged { skipped_bytes: 9 }, json!({"type": "lagged", "skippedBytes": 9})),
        ] {
            let Message::Text(text) = Message::from(frame) else { panic!("a text frame") };
            assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), expected);
        }
    }
}
