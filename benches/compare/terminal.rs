//! A client of one terminal: a WebSocket as `GET /v1/processes/{id}/terminal/ws` speaks it.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::Result;

const ATTACH_LIMIT: Duration = Duration::from_secs(5);

/// An attached terminal. Dropping it cuts the connection, the process runs on.
pub struct Terminal {
    socket: WebSocketStream<TcpStream>,
}

impl Terminal {
    /// Connects without Nagle's delay and waits for `ready`, from which on the output is ours.
    pub async fn attach(addr: SocketAddr, id: &str) -> Result<Self> {
        timeout(ATTACH_LIMIT, Self::attach_now(addr, id)).await?
    }

    async fn attach_now(addr: SocketAddr, id: &str) -> Result<Self> {
        let path = format!("/v1/processes/{id}/terminal/ws");
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let upgraded = client_async(format!("ws://{addr}{path}"), stream).await;
        let (mut socket, _) = upgraded.map_err(|e| format!("GET {path}: {e}"))?;
        let first = socket.next().await.ok_or("closed before ready")??;
        match first.to_text().ok().and_then(|text| serde_json::from_str::<Value>(text).ok()) {
            Some(frame) if frame["type"] == "ready" => Ok(Self { socket }),
            _ => Err(format!("GET {path}: first frame is {first:?}").into()),
        }
    }

    /// Types `text`.
    pub async fn send(&mut self, text: &str) -> Result<()> {
        let frame = json!({"type": "input", "data": text}).to_string();
        Ok(self.socket.send(Message::text(frame)).await?)
    }

    /// The next piece of output, `None` when none came within `limit`. Notices that are neither `error` nor `exit`
    /// are passed over; those two and a close are errors here, as nothing measured ends by itself.
    pub async fn output(&mut self, limit: Duration) -> Result<Option<Bytes>> {
        loop {
            let Ok(message) = timeout(limit, self.socket.next()).await else {
                return Ok(None);
            };
            match message.ok_or("terminal ended")?? {
                Message::Binary(bytes) => return Ok(Some(bytes)),
                Message::Text(text) => fail_on_end(&text)?,
                Message::Close(_) => return Err("terminal closed".into()),
                _ => {}
            }
        }
    }

    /// Reads until the output ends with `wanted`.
    pub async fn expect(&mut self, wanted: &[u8], limit: Duration) -> Result<()> {
        let mut seen = Vec::new();
        while !seen.ends_with(wanted) {
            match self.output(limit).await? {
                Some(bytes) => seen.extend_from_slice(&bytes),
                None => return Err(format!("terminal wrote {:?} only", String::from_utf8_lossy(&seen)).into()),
            }
        }
        Ok(())
    }
}

fn fail_on_end(text: &str) -> Result<()> {
    let frame: Value = serde_json::from_str(text)?;
    match frame["type"].as_str() {
        Some("error" | "exit") => Err(format!("terminal said {text}").into()),
        _ => Ok(()),
    }
}
