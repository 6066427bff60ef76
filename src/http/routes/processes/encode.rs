//! How pieces of a log look on the wire, in pages and in event streams. Written by hand, straight into the buffer that
//! goes to the socket: logs are the one thing here of which there is much.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use utoipa::ToSchema;

use crate::processes::types::{Encoding, LogStream};
use crate::processes::{LogEntry, LogItem};

/// A piece of output. Only described here: [`entry`] writes it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct LogEntryInfo {
    /// From 1, over all streams of the process.
    pub(super) sequence: u64,
    /// `stdout`, `stderr` or `pty`.
    pub(super) stream: LogStream,
    /// When it was read, in Unix milliseconds.
    pub(super) timestamp_ms: i64,
    /// At most 8192 bytes, encoded.
    pub(super) data: String,
    /// What `data` is.
    pub(super) encoding: Encoding,
    /// How many bytes of its stream came before it.
    pub(super) offset: u64,
}

/// Output that can't be had any more.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct LogGap {
    /// First missing sequence number.
    pub(super) from_sequence: u64,
    /// Last missing sequence number.
    pub(super) to_sequence: u64,
    /// Bytes that are missing, over all streams.
    pub(super) bytes: u64,
    /// `truncated` (the log's bound) or `not_kept` (the disk refused it).
    pub(super) reason: &'static str,
}

/// The word on the wire.
pub(super) fn stream_word(stream: LogStream) -> &'static str {
    match stream {
        LogStream::Stdout => "stdout",
        LogStream::Stderr => "stderr",
        LogStream::Combined => "combined",
        LogStream::Pty => "pty",
    }
}

/// Appends an entry as JSON, on one line.
pub(super) fn entry(out: &mut Vec<u8>, entry: &LogEntry, encoding: Encoding) {
    // Writing to a Vec can't fail, here and below.
    let (sequence, stream, at) = (entry.sequence, stream_word(entry.stream), entry.timestamp_ms);
    let _ = write!(out, "{{\"sequence\":{sequence},\"stream\":\"{stream}\",\"timestampMs\":{at},\"data\":");
    let word = match encoding {
        Encoding::Base64 => {
            out.push(b'"');
            base64_into(out, &entry.data);
            out.push(b'"');
            "base64"
        }
        Encoding::Utf8 => {
            let _ = serde_json::to_writer(&mut *out, &String::from_utf8_lossy(&entry.data));
            "utf8"
        }
    };
    let _ = write!(out, ",\"encoding\":\"{word}\",\"offset\":{}}}", entry.offset);
}

fn base64_into(out: &mut Vec<u8>, data: &[u8]) {
    let start = out.len();
    out.resize(start + data.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(data, &mut out[start..]).expect("as much room as padded base64 takes");
    out.truncate(start + written);
}

/// Appends items as events: `log` and `gap`.
pub(super) fn events(out: &mut Vec<u8>, items: &[LogItem], encoding: Encoding) {
    out.reserve(
        items.iter().map(|item| if let LogItem::Entry(entry) = item { entry.data.len() * 4 / 3 + 192 } else { 160 }).sum(),
    );
    for item in items {
        match item {
            LogItem::Entry(piece) => {
                let _ = write!(out, "event: log\nid: {}\ndata: ", piece.sequence);
                entry(out, piece, encoding);
            }
            LogItem::Gap { from_sequence, to_sequence, bytes, reason } => {
                let _ = write!(out, "event: gap\nid: {to_sequence}\ndata: ");
                let gap = LogGap { from_sequence: *from_sequence, to_sequence: *to_sequence, bytes: *bytes, reason };
                let _ = serde_json::to_writer(&mut *out, &gap);
            }
        }
        out.extend_from_slice(b"\n\n");
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::*;

    fn piece(data: &'static [u8]) -> LogEntry {
        LogEntry { sequence: 7, stream: LogStream::Stderr, timestamp_ms: -5, offset: 11, data: Bytes::from_static(data) }
    }

    #[test]
    fn entries_are_what_serde_would_write() {
        for data in [&b""[..], b"a", b"ab", b"abc", b"\xff\"\\\n\x00\x1b[0m", "é\u{2028}😀".as_bytes()] {
            for encoding in [Encoding::Base64, Encoding::Utf8] {
                let mut out = b"before ".to_vec();
                entry(&mut out, &piece(data), encoding);
                let text = match encoding {
                    Encoding::Base64 => STANDARD.encode(data),
                    Encoding::Utf8 => String::from_utf8_lossy(data).into_owned(),
                };
                let info =
                    LogEntryInfo { sequence: 7, stream: LogStream::Stderr, timestamp_ms: -5, data: text, encoding, offset: 11 };
                let expected = format!("before {}", serde_json::to_string(&info).expect("JSON"));
                assert_eq!(String::from_utf8(out).expect("UTF-8"), expected);
            }
        }
    }

    #[test]
    fn stream_words_are_serdes() {
        for stream in [LogStream::Stdout, LogStream::Stderr, LogStream::Combined, LogStream::Pty] {
            assert_eq!(json!(stream), Value::from(stream_word(stream)));
        }
    }

    #[test]
    fn events_are_frames_with_the_sequence_as_id() {
        let gap = LogItem::Gap { from_sequence: 1, to_sequence: 6, bytes: 600, reason: "truncated" };
        let mut out = Vec::new();
        events(&mut out, &[gap, LogItem::Entry(piece(b"hi\n\n"))], Encoding::Utf8);
        let expected = "event: gap\nid: 6\n\
            data: {\"fromSequence\":1,\"toSequence\":6,\"bytes\":600,\"reason\":\"truncated\"}\n\n\
            event: log\nid: 7\n\
            data: {\"sequence\":7,\"stream\":\"stderr\",\"timestampMs\":-5,\"data\":\"hi\\n\\n\",\"encoding\":\"utf8\",\"offset\":11}\n\n";
        assert_eq!(String::from_utf8(out).expect("UTF-8"), expected);
    }
}
