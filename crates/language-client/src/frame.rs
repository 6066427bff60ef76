//! The base protocol: a header with `Content-Length`, an empty line, so many bytes (LSP 3.17, "Base Protocol").

use bytes::{Buf as _, Bytes, BytesMut};

/// All header lines of one message.
const HEADER_MAX_BYTES: usize = 4_096;

/// Why bytes are no message. The connection can't go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A header without end.
    #[error("a header is longer than {HEADER_MAX_BYTES} bytes")]
    HeaderTooLong,
    /// A line that is none of a header, which is what a program prints that thinks its stdout is free.
    #[error("not the header of a message: {0:?}")]
    NotAHeader(String),
    /// A header without `Content-Length`.
    #[error("a header without Content-Length")]
    NoLength,
    /// More than is taken.
    #[error("a message of {length} bytes; at most {max} are taken")]
    TooLong {
        /// What it says.
        length: u64,
        /// What is taken.
        max: usize,
    },
}

/// Cuts a stream of bytes into messages.
#[derive(Debug)]
pub struct Frames {
    buffer: BytesMut,
    max_bytes: usize,
    /// Of the message whose header was read.
    length: Option<usize>,
}

impl Frames {
    /// Messages of at most so many bytes.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        Self { buffer: BytesMut::new(), max_bytes, length: None }
    }

    /// Where to read into.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next whole message. `None` when more has to be read.
    ///
    /// # Errors
    /// Each [`FrameError`]; what follows can't be told apart any more.
    pub fn cut(&mut self) -> Result<Option<Bytes>, FrameError> {
        let length = match self.length {
            Some(length) => length,
            None => match self.header()? {
                Some(length) => *self.length.insert(length),
                None => return Ok(None),
            },
        };
        if self.buffer.len() < length {
            return Ok(None);
        }
        self.length = None;
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    fn header(&mut self) -> Result<Option<usize>, FrameError> {
        let seen = &self.buffer[..self.buffer.len().min(HEADER_MAX_BYTES)];
        let Some(end) = seen.windows(4).position(|window| window == b"\r\n\r\n") else {
            // a program that prints says so with its first line
            return match seen.split(|byte| *byte == b'\n').next().filter(|first| first.len() < seen.len()) {
                Some(first) if !first.contains(&b':') => Err(not_a_header(first)),
                _ if seen.len() == HEADER_MAX_BYTES => Err(FrameError::HeaderTooLong),
                _ => Ok(None),
            };
        };
        let length = length_of(&self.buffer[..end])?;
        self.buffer.advance(end + 4);
        match usize::try_from(length).ok().filter(|length| *length <= self.max_bytes) {
            Some(length) => Ok(Some(length)),
            None => Err(FrameError::TooLong { length, max: self.max_bytes }),
        }
    }
}

fn length_of(header: &[u8]) -> Result<u64, FrameError> {
    let mut length = None;
    for line in header.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { return Err(not_a_header(line)) };
        if line[..colon].eq_ignore_ascii_case(b"content-length") {
            let digits = std::str::from_utf8(&line[colon + 1..]).ok().map(str::trim);
            length = Some(digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| not_a_header(line))?);
        }
    }
    length.ok_or(FrameError::NoLength)
}

fn not_a_header(line: &[u8]) -> FrameError {
    FrameError::NotAHeader(String::from_utf8_lossy(&line[..line.len().min(120)]).into_owned())
}

/// A message with its header.
#[must_use]
pub fn encode(body: &[u8]) -> Vec<u8> {
    [format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(frames: &mut Frames, bytes: &[u8]) -> Result<Vec<Bytes>, FrameError> {
        frames.buffer().extend_from_slice(bytes);
        std::iter::from_fn(|| frames.cut().transpose()).collect()
    }

    #[test]
    fn what_is_no_message_is_named() {
        let error = |bytes: &[u8]| all(&mut Frames::new(10), bytes).expect_err("no message");
        assert_eq!(error(b"listening on stdio\n"), FrameError::NotAHeader("listening on stdio".into()));
        assert_eq!(error(b"Content-Length: many\r\n\r\n"), FrameError::NotAHeader("Content-Length: many".into()));
        assert_eq!(error(b"Content-Type: x\r\n\r\n"), FrameError::NoLength);
        assert_eq!(error(b"Content-Length: 11\r\n\r\n"), FrameError::TooLong { length: 11, max: 10 });
        assert_eq!(error(&[b'x'; HEADER_MAX_BYTES]), FrameError::HeaderTooLong);
        assert!(matches!(error(b"Content-Length: 99999999999999999999\r\n\r\n"), FrameError::NotAHeader(_)));
    }

    #[test]
    fn headers_have_any_order_and_case() {
        let bytes = b"Content-Type: application/vscode-jsonrpc; charset=utf-8\r\ncontent-length:2\r\n\r\n{}";
        assert_eq!(all(&mut Frames::new(10), bytes), Ok(vec![Bytes::from_static(b"{}")]));
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in_however_they_are_cut(bodies: Vec<Vec<u8>>, cut in 1_usize..50) {
            let stream: Vec<u8> = bodies.iter().flat_map(|body| encode(body)).collect();
            let mut frames = Frames::new(1000);
            let mut seen = Vec::new();
            for piece in stream.chunks(cut) {
                seen.extend(all(&mut frames, piece).unwrap());
            }
            prop_assert_eq!(seen, bodies);
        }

        #[test]
        fn rubbish_does_no_harm(bytes: Vec<u8>) {
            let _ = all(&mut Frames::new(100), &bytes);
        }
    }
}
