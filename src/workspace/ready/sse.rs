//! Server-sent events from an MCP server (WHATWG HTML, Server-sent events).

use super::failure::Failure;

/// One event.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) name: String,
    pub(super) data: String,
}

/// A stream that is being read.
pub(super) struct EventReader {
    response: reqwest::Response,
    buffer: Vec<u8>,
    max_bytes: usize,
}

impl EventReader {
    /// Reads events of at most `max_bytes`.
    pub(super) fn new(response: reqwest::Response, max_bytes: usize) -> Self {
        Self { response, buffer: Vec::new(), max_bytes }
    }

    /// The next event. Cancel safe.
    ///
    /// # Errors
    /// [`Failure::Ended`] at the stream's end, [`Failure::TooLong`], [`Failure::Unreachable`].
    pub(super) async fn next(&mut self) -> Result<Event, Failure> {
        loop {
            while let Some(block) = take_block(&mut self.buffer) {
                if let Some(event) = parse(&block) {
                    return Ok(event);
                }
            }
            if self.buffer.len() > self.max_bytes {
                return Err(Failure::TooLong(self.max_bytes));
            }
            let chunk = self.response.chunk().await?.ok_or(Failure::Ended)?;
            self.buffer.extend_from_slice(&chunk);
        }
    }
}

/// Takes what is before the next empty line.
fn take_block(buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let ends = [&b"\n\n"[..], b"\r\n\r\n", b"\r\r"].into_iter();
    let found = ends.filter_map(|end| buffer.windows(end.len()).position(|window| window == end).map(|at| at + end.len()));
    let end = found.min()?;
    Some(buffer.drain(..end).collect())
}

/// An event with data; comments and the like are none.
fn parse(block: &[u8]) -> Option<Event> {
    let text = String::from_utf8_lossy(block);
    let (mut name, mut data) = ("message".to_owned(), Vec::new());
    for line in text.split(['\n', '\r']) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => name = value.to_owned(),
            "data" => data.push(value),
            _ => {}
        }
    }
    (!data.is_empty()).then(|| Event { name, data: data.join("\n") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_cut_whatever_ends_their_lines() {
        let mut buffer = b": hello\n\nevent: endpoint\r\ndata: /x\r\n\r\ndata:a\ndata: b\nid: 1\n\ndata: half".to_vec();
        let mut events = Vec::new();
        while let Some(block) = take_block(&mut buffer) {
            events.extend(parse(&block));
        }
        let event = |name: &str, data: &str| Event { name: name.to_owned(), data: data.to_owned() };
        assert_eq!(events, [event("endpoint", "/x"), event("message", "a\nb")]);
        assert_eq!(buffer, b"data: half");
    }
}
