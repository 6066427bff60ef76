//! A small HTTP/1.1 client: keep-alive requests, and a reader of server-sent events.
//!
//! It exists so that the benchmark measures the server and not a client library: one socket, one buffer, no
//! pooling. It understands `content-length` and `chunked` bodies (RFC 9112 §6 and §7.1) and the event stream
//! format of the HTML standard (§9.2), as far as both subjects use them. Every wait takes a limit.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::Result;

/// Bytes asked of the socket at once.
const READ_BYTES: usize = 64 * 1024;
/// A response head longer than this is taken for a mistake.
const MAX_HEAD_BYTES: usize = 32 * 1024;

/// An answer, read to its end.
pub struct Reply {
    pub status: u16,
    pub body: Vec<u8>,
}

/// One keep-alive connection. A failed or timed-out call leaves it unusable: drop it then.
pub struct Client {
    stream: TcpStream,
    addr: SocketAddr,
    raw: Vec<u8>,
}

impl Client {
    /// Connects to a loopback address, without Nagle's delay.
    pub async fn connect(addr: SocketAddr) -> Result<Self> {
        let stream = timeout(Duration::from_secs(2), TcpStream::connect(addr)).await??;
        stream.set_nodelay(true)?;
        let raw = vec![0; READ_BYTES];
        Ok(Self { stream, addr, raw })
    }

    /// Sends one request and reads the whole answer, or fails after `limit`.
    pub async fn call(&mut self, method: &str, path: &str, body: &[u8], limit: Duration) -> Result<Reply> {
        self.call_with(method, path, "application/json", body, limit).await
    }

    /// The same with a body of another type.
    pub async fn call_with(&mut self, method: &str, path: &str, kind: &str, body: &[u8], limit: Duration) -> Result<Reply> {
        match timeout(limit, self.exchange(method, path, kind, body)).await {
            Ok(reply) => reply,
            Err(_) => Err(format!("{method} {path}: no complete answer within {limit:?}").into()),
        }
    }

    /// Gets something large, which is thrown away: gives its size.
    pub async fn drain(&mut self, path: &str, limit: Duration) -> Result<u64> {
        let drain = async {
            let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.addr);
            self.stream.write_all(request.as_bytes()).await?;
            let (head, rest) = read_head(&mut self.stream, &mut self.raw).await?;
            if head.status != 200 || head.chunked {
                return Err(format!("GET {path}: status {}, or no length", head.status).into());
            }
            let mut got = rest.len();
            let mut raw = vec![0; 1 << 20];
            while got < head.length {
                got += read_some(&mut self.stream, &mut raw).await?;
            }
            Ok(got as u64)
        };
        timeout(limit, drain).await?
    }

    /// Puts a file.
    pub async fn send_file(&mut self, path: &str, file: &std::path::Path, limit: Duration) -> Result<()> {
        let send = async {
            let mut file = tokio::fs::File::open(file).await?;
            file.set_max_buf_size(1 << 20);
            let length = file.metadata().await?.len();
            let request = format!("PUT {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: {length}\r\n\r\n", self.addr);
            self.stream.write_all(request.as_bytes()).await?;
            let mut piece = vec![0; 1 << 20];
            loop {
                match file.read(&mut piece).await? {
                    0 => break,
                    read => self.stream.write_all(&piece[..read]).await?,
                }
            }
            let (head, rest) = read_head(&mut self.stream, &mut self.raw).await?;
            let body = self.read_body(&head, rest).await?;
            match head.status {
                200 => Ok(()),
                status => Err(format!("PUT {path}: {status} {:.200}", String::from_utf8_lossy(&body)).into()),
            }
        };
        timeout(limit, send).await?
    }

    async fn exchange(&mut self, method: &str, path: &str, kind: &str, body: &[u8]) -> Result<Reply> {
        let addr = self.addr;
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {addr}\r\naccept: application/json\r\n\
             content-type: {kind}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.stream.write_all(&request).await?;
        let (head, rest) = read_head(&mut self.stream, &mut self.raw).await?;
        let body = self.read_body(&head, rest).await?;
        Ok(Reply { status: head.status, body })
    }

    async fn read_body(&mut self, head: &Head, rest: Vec<u8>) -> Result<Vec<u8>> {
        if head.chunked {
            let (mut chunks, mut body) = (Dechunker::default(), Vec::new());
            chunks.feed(&rest, &mut body)?;
            while !chunks.is_done() {
                let n = read_some(&mut self.stream, &mut self.raw).await?;
                chunks.feed(&self.raw[..n], &mut body)?;
            }
            return Ok(body);
        }
        let mut body = rest;
        while body.len() < head.length {
            let n = read_some(&mut self.stream, &mut self.raw).await?;
            body.extend_from_slice(&self.raw[..n]);
        }
        Ok(body)
    }
}

/// Reads at least one byte; the end of the connection is an error here.
async fn read_some(stream: &mut TcpStream, raw: &mut [u8]) -> Result<usize> {
    match stream.read(raw).await? {
        0 => Err("connection closed in the middle of an answer".into()),
        n => Ok(n),
    }
}

/// What the benchmark needs of a response head.
struct Head {
    status: u16,
    /// `content-length`, 0 when absent (then the answer has no body, or it is chunked).
    length: usize,
    chunked: bool,
}

/// Reads up to the blank line; returns the head and what came after it.
async fn read_head(stream: &mut TcpStream, raw: &mut [u8]) -> Result<(Head, Vec<u8>)> {
    let mut seen = Vec::with_capacity(1024);
    loop {
        let n = read_some(stream, raw).await?;
        seen.extend_from_slice(&raw[..n]);
        if let Some(at) = seen.windows(4).position(|w| w == b"\r\n\r\n") {
            let rest = seen.split_off(at + 4);
            return Ok((parse_head(&seen)?, rest));
        }
        if seen.len() > MAX_HEAD_BYTES {
            return Err("response head too long".into());
        }
    }
}

fn parse_head(bytes: &[u8]) -> Result<Head> {
    let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|l| l.split(' ').nth(1)).ok_or("no status line")?.parse()?;
    let mut head = Head { status, length: 0, chunked: false };
    for line in lines {
        match line.split_once(':') {
            Some(("content-length", v)) => head.length = v.trim().parse()?,
            Some(("transfer-encoding", v)) => head.chunked = v.contains("chunked"),
            _ => {}
        }
    }
    Ok(head)
}

/// Where a [`Dechunker`] is in the chunked body.
#[derive(Clone, Copy, Default, PartialEq)]
enum Place {
    #[default]
    Size,
    Data(usize),
    /// The CRLF after a chunk: this many bytes of it are still to come.
    Gap(usize),
    Trailer,
    Done,
}

/// An incremental decoder of `transfer-encoding: chunked`; input may be cut anywhere.
#[derive(Default)]
struct Dechunker {
    place: Place,
    line: Vec<u8>,
}

impl Dechunker {
    fn is_done(&self) -> bool {
        self.place == Place::Done
    }

    /// Decodes `input` and appends the payload to `out`.
    fn feed(&mut self, mut input: &[u8], out: &mut Vec<u8>) -> Result<()> {
        while !input.is_empty() {
            match self.place {
                Place::Done => return Ok(()),
                Place::Data(left) => {
                    let n = left.min(input.len());
                    out.extend_from_slice(&input[..n]);
                    input = &input[n..];
                    self.place = if n == left { Place::Gap(2) } else { Place::Data(left - n) };
                }
                Place::Gap(left) => {
                    let n = left.min(input.len());
                    input = &input[n..];
                    self.place = if n == left { Place::Size } else { Place::Gap(left - n) };
                }
                Place::Size | Place::Trailer => {
                    if input[0] == b'\n' {
                        self.end_line()?;
                    } else if input[0] != b'\r' {
                        self.line.push(input[0]);
                    }
                    input = &input[1..];
                }
            }
        }
        Ok(())
    }

    fn end_line(&mut self) -> Result<()> {
        let line = std::mem::take(&mut self.line);
        if self.place == Place::Trailer {
            if line.is_empty() {
                self.place = Place::Done;
            }
            return Ok(());
        }
        let size = line.split(|b| *b == b';').next().unwrap_or_default();
        let size = usize::from_str_radix(std::str::from_utf8(size)?.trim(), 16)?;
        self.place = if size == 0 { Place::Trailer } else { Place::Data(size) };
        Ok(())
    }
}

/// An open event stream. Only frames of the wanted name with a numeric id are handed on, so comments and notices
/// such as a gap marker are never counted as events. An unnamed frame is called `message`.
pub struct EventStream {
    stream: TcpStream,
    chunks: Option<Dechunker>,
    raw: Vec<u8>,
    text: Vec<u8>,
    frame: Frame,
    first: Vec<u8>,
}

struct Frame {
    wanted: &'static str,
    id: Option<u64>,
    fits: bool,
    data: Vec<u8>,
}

impl EventStream {
    /// Opens `path` as an event stream, resuming after `last_id` when given; anything but 200 is an error.
    pub async fn open(addr: SocketAddr, path: &str, last_id: Option<u64>) -> Result<Self> {
        Self::open_named(addr, path, last_id, "message").await
    }

    /// Like [`EventStream::open`], for frames of another name.
    pub async fn open_named(addr: SocketAddr, path: &str, last_id: Option<u64>, name: &'static str) -> Result<Self> {
        timeout(Duration::from_secs(5), Self::open_now(addr, path, last_id, name)).await?
    }

    async fn open_now(addr: SocketAddr, path: &str, last_id: Option<u64>, name: &'static str) -> Result<Self> {
        let mut stream = TcpStream::connect(addr).await?;
        let resume = last_id.map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
        let request = format!("GET {path} HTTP/1.1\r\nhost: {addr}\r\naccept: text/event-stream\r\n{resume}\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut raw = vec![0; READ_BYTES];
        let (head, first) = read_head(&mut stream, &mut raw).await?;
        if head.status != 200 {
            return Err(format!("GET {path}: status {}", head.status).into());
        }
        let chunks = head.chunked.then(Dechunker::default);
        Ok(Self { stream, chunks, raw, text: Vec::new(), frame: Frame::named(name), first })
    }

    /// Waits for bytes once and hands every event completed by them to `each`; `false` at the end of the stream.
    /// Cancel safe: the only await is the socket read, and nothing is taken from it before it returns.
    pub async fn read_events(&mut self, each: impl FnMut(u64, &[u8])) -> Result<bool> {
        let first = std::mem::take(&mut self.first);
        if first.is_empty() {
            let n = self.stream.read(&mut self.raw).await?;
            if n == 0 {
                return Ok(false);
            }
            match &mut self.chunks {
                Some(chunks) => chunks.feed(&self.raw[..n], &mut self.text)?,
                None => self.text.extend_from_slice(&self.raw[..n]),
            }
        } else {
            match &mut self.chunks {
                Some(chunks) => chunks.feed(&first, &mut self.text)?,
                None => self.text.extend_from_slice(&first),
            }
        }
        self.parse(each);
        Ok(!self.chunks.as_ref().is_some_and(Dechunker::is_done))
    }

    fn parse(&mut self, mut each: impl FnMut(u64, &[u8])) {
        let mut at = 0;
        while let Some(len) = self.text[at..].iter().position(|b| *b == b'\n') {
            let line = self.text[at..at + len].strip_suffix(b"\r").unwrap_or(&self.text[at..at + len]);
            if line.is_empty() {
                if let (Some(id), true) = (self.frame.id, self.frame.fits) {
                    each(id, &self.frame.data);
                }
                self.frame.clear();
            } else {
                self.frame.take_line(line);
            }
            at += len + 1;
        }
        self.text.drain(..at);
    }
}

impl Frame {
    fn named(wanted: &'static str) -> Self {
        Self { wanted, id: None, fits: wanted == "message", data: Vec::new() }
    }

    /// Keeps the buffer for the next frame.
    fn clear(&mut self) {
        self.id = None;
        self.fits = self.wanted == "message";
        self.data.clear();
    }

    fn take_line(&mut self, line: &[u8]) {
        if let Some(data) = line.strip_prefix(b"data:") {
            self.data.extend_from_slice(data);
        } else if let Some(id) = line.strip_prefix(b"id:") {
            self.id = std::str::from_utf8(id).ok().and_then(|s| s.trim().parse().ok());
        } else if let Some(name) = line.strip_prefix(b"event:") {
            self.fits = name.trim_ascii() == self.wanted.as_bytes();
        }
    }
}
