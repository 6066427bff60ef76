//! A small WebSocket client (RFC 6455) that does only what it is told: it answers no ping and no close by itself.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// No test waits longer for a frame.
const PATIENCE: Duration = Duration::from_secs(30);

/// The example of RFC 6455 section 1.3, so that the answer is known.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const PONG: u8 = 10;

#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    Text(serde_json::Value),
    Binary(Vec<u8>),
    /// The status code and the reason, when there is one.
    Close(Option<(u16, String)>),
    Ping,
    Pong(Vec<u8>),
}

pub struct Ws {
    socket: TcpStream,
    buffer: Vec<u8>,
    /// The answer to the upgrade.
    pub head: String,
}

impl Ws {
    /// # Errors
    /// The whole answer when it is none to an upgrade.
    pub async fn connect(port: u16, path: &str, headers: &[(&str, &str)]) -> Result<Self, String> {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
        let mut request = format!(
            "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
        );
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        socket.write_all(format!("{request}\r\n").as_bytes()).await.expect("sent");
        let mut ws = Self { socket, buffer: Vec::new(), head: String::new() };
        let head = loop {
            if let Some(end) = ws.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break ws.buffer.drain(..end + 4).collect::<Vec<_>>();
            }
            assert!(ws.fill().await, "the server closed without an answer");
        };
        let head = String::from_utf8(head).expect("text");
        if head.starts_with("HTTP/1.1 101 ") {
            assert!(head.contains(ACCEPT), "{head}");
            ws.head = head;
            return Ok(ws);
        }
        let length = head.to_ascii_lowercase().split("content-length: ").nth(1).map(|rest| rest.lines().next().map(str::parse));
        let length: usize = length.flatten().expect("a length").expect("a number");
        while ws.buffer.len() < length && ws.fill().await {}
        Err(head + &String::from_utf8_lossy(&ws.buffer))
    }

    async fn fill(&mut self) -> bool {
        let read = tokio::time::timeout(PATIENCE, self.socket.read_buf(&mut self.buffer)).await.expect("something in time");
        read.is_ok_and(|count| count > 0)
    }

    /// One frame as it is, the last of its message when `fin`.
    pub async fn send_frame(&mut self, fin: bool, opcode: u8, payload: &[u8]) {
        let mut out = vec![u8::from(fin) << 7 | opcode];
        match payload.len() {
            length @ 0..126 => out.push(0x80 | u8::try_from(length).expect("small")),
            length @ 126..65536 => {
                out.push(0x80 | 126);
                out.extend_from_slice(&u16::try_from(length).expect("two bytes").to_be_bytes());
            }
            length => {
                out.push(0x80 | 127);
                out.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        out.extend_from_slice(&MASK);
        out.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ MASK[at % 4]));
        let _ = self.socket.write_all(&out).await; // the server may have gone
    }

    pub async fn send(&mut self, frame: &serde_json::Value) {
        self.send_frame(true, TEXT, frame.to_string().as_bytes()).await;
    }

    /// The next frame; `None` once the connection is closed.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, used)) = parse(&self.buffer) {
                self.buffer.drain(..used);
                return Some(frame);
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// The next text frame; whatever else comes first is a failure.
    pub async fn text(&mut self) -> serde_json::Value {
        match self.next().await {
            Some(Frame::Text(value)) => value,
            other => panic!("no text frame: {other:?}"),
        }
    }

    /// Reads binary frames until `enough` of what they make up together.
    pub async fn output(&mut self, enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let mut output = Vec::new();
        while !enough(&output) {
            match self.next().await {
                Some(Frame::Binary(bytes)) => output.extend_from_slice(&bytes),
                Some(Frame::Ping) => {}
                other => panic!("no output: {other:?} after {:?}", String::from_utf8_lossy(&output)),
            }
        }
        output
    }
}

fn parse(buffer: &[u8]) -> Option<(Frame, usize)> {
    let (first, second) = (*buffer.first()?, *buffer.get(1)?);
    assert!(first & 0x80 != 0 && second & 0x80 == 0, "the server neither splits nor masks");
    let (length, start) = match second {
        126 => (usize::from(u16::from_be_bytes(buffer.get(2..4)?.try_into().ok()?)), 4),
        127 => (usize::try_from(u64::from_be_bytes(buffer.get(2..10)?.try_into().ok()?)).expect("a length"), 10),
        short => (usize::from(short), 2),
    };
    let payload = buffer.get(start..start + length)?;
    let frame = match first & 0x0f {
        TEXT => Frame::Text(serde_json::from_slice(payload).expect("JSON")),
        BINARY => Frame::Binary(payload.to_vec()),
        8 => Frame::Close(
            payload
                .split_first_chunk()
                .map(|(code, reason)| (u16::from_be_bytes(*code), String::from_utf8_lossy(reason).into_owned())),
        ),
        9 => Frame::Ping,
        PONG => Frame::Pong(payload.to_vec()),
        other => panic!("opcode {other}"),
    };
    Some((frame, start + length))
}
