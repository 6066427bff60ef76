//! Packets over TCP, each behind its length (RFC 4571), as ICE-TCP has them (RFC 6544).

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use socket2::{Protocol, SockRef, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::udp::socket;

/// A longer packet ends its connection: nothing of WebRTC is longer than what a datagram holds.
const PACKET_MAX_BYTES: usize = 4_096;
/// Packets that wait to be written to one connection; one more is lost, as UDP would lose it.
const WRITES_MAX: usize = 512;
/// The kernel takes no more than that before it was sent: what waits here can be told from what is on its way.
const KERNEL_MAX_BYTES: u32 = 16_384;
/// Packets are written together up to this size.
const WRITE_MAX_BYTES: usize = 16_384;
/// Packets that were read and wait for the gateway.
const READS_MAX: usize = 256;
/// A connection that says nothing that a peer knows is ended after this time.
const KNOWN_WITHIN: Duration = Duration::from_secs(10);
/// Such connections at once: one more is refused.
const STRANGERS_MAX: usize = 32;

/// What came over a connection.
pub(crate) struct Arrived {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    /// None at its end.
    pub(crate) packet: Option<Vec<u8>>,
}

struct Connection {
    writes: mpsc::Sender<Vec<u8>>,
    /// Bytes that wait to be written.
    waiting: Arc<AtomicUsize>,
    opened_at: Instant,
    /// A peer knew what it said.
    is_known: bool,
}

pub(crate) struct Tcp {
    listener: TcpListener,
    connections: HashMap<SocketAddr, Connection>,
    arrivals: (mpsc::Sender<Arrived>, mpsc::Receiver<Arrived>),
    /// Ends with this.
    tasks: JoinSet<()>,
}

impl Tcp {
    /// # Errors
    /// The address isn't free.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = socket(address, Type::STREAM, Protocol::TCP)?;
        socket.listen(i32::try_from(STRANGERS_MAX).unwrap_or(i32::MAX))?;
        let listener = TcpListener::from_std(socket.into())?;
        Ok(Self { listener, connections: HashMap::new(), arrivals: mpsc::channel(READS_MAX), tasks: JoinSet::new() })
    }

    /// The next packet, or end of a connection. Cancel safe.
    pub(crate) async fn next(&mut self) -> Arrived {
        loop {
            tokio::select! {
                Some(arrived) = self.arrivals.1.recv() => {
                    if arrived.packet.is_none() {
                        self.connections.remove(&arrived.from);
                    }
                    return arrived;
                }
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, from)) => self.opened(stream, from),
                    Err(error) => {
                        tracing::warn!(%error, "a connection for ICE-TCP can't be accepted");
                        tokio::time::sleep(Duration::from_millis(100)).await; // no descriptors: others may give one back
                    }
                },
                Some(_) = self.tasks.join_next() => {}
            }
        }
    }

    fn opened(&mut self, stream: TcpStream, from: SocketAddr) {
        let now = Instant::now();
        self.connections.retain(|_, connection| connection.is_known || now < connection.opened_at + KNOWN_WITHIN);
        let strangers = self.connections.values().filter(|connection| !connection.is_known).count();
        let Some(to) = stream.local_addr().ok().filter(|_| strangers < STRANGERS_MAX) else { return };
        let _ = stream.set_nodelay(true); // else it is later; so it is without what follows
        let _ = SockRef::from(&stream).set_tcp_notsent_lowat(KERNEL_MAX_BYTES);
        let (read, write) = stream.into_split();
        let (writes, packets) = mpsc::channel(WRITES_MAX);
        let waiting = Arc::new(AtomicUsize::new(0));
        self.connections.insert(from, Connection { writes, waiting: Arc::clone(&waiting), opened_at: now, is_known: false });
        let arrivals = self.arrivals.0.clone();
        self.tasks.spawn(async move {
            // Either ends the other: a peer that takes nothing is as gone as one that closed.
            tokio::select! {
                () = read_all(read, from, to, &arrivals) => {}
                () = write_all(write, packets, &waiting) => {}
            }
            let _ = arrivals.send(Arrived { from, to, packet: None }).await; // the gateway ends
        });
    }

    /// A peer knew what it said.
    pub(crate) fn is_known(&mut self, from: SocketAddr) {
        if let Some(connection) = self.connections.get_mut(&from) {
            connection.is_known = true;
        }
    }

    /// Sends it, or not when too much waits.
    pub(crate) fn send(&self, to: SocketAddr, packet: &[u8]) {
        if let Some(connection) = self.connections.get(&to) {
            connection.waiting.fetch_add(framed(packet), Ordering::Relaxed); // first: it may be written at once
            if connection.writes.try_send(packet.to_vec()).is_err() {
                connection.waiting.fetch_sub(framed(packet), Ordering::Relaxed);
            }
        }
    }

    /// Bytes that wait to be written to a connection; none for one that isn't there.
    pub(crate) fn waiting(&self, to: SocketAddr) -> usize {
        self.connections.get(&to).map_or(0, |connection| connection.waiting.load(Ordering::Relaxed))
    }

    /// Ends a connection: its peer is gone.
    pub(crate) fn close(&mut self, from: SocketAddr) {
        self.connections.remove(&from);
    }
}

async fn read_all(read: OwnedReadHalf, from: SocketAddr, to: SocketAddr, arrivals: &mpsc::Sender<Arrived>) {
    let mut read = BufReader::new(read);
    loop {
        let Ok(length) = read.read_u16().await else { return };
        let mut packet = vec![0; usize::from(length)];
        if packet.len() > PACKET_MAX_BYTES || read.read_exact(&mut packet).await.is_err() {
            return;
        }
        if arrivals.send(Arrived { from, to, packet: Some(packet) }).await.is_err() {
            return;
        }
    }
}

/// Ends once the connection is forgotten.
async fn write_all(mut write: OwnedWriteHalf, mut packets: mpsc::Receiver<Vec<u8>>, waiting: &AtomicUsize) {
    let mut bytes = Vec::new();
    while let Some(packet) = packets.recv().await {
        bytes.clear();
        push(&mut bytes, &packet);
        while bytes.len() < WRITE_MAX_BYTES
            && let Ok(packet) = packets.try_recv()
        {
            push(&mut bytes, &packet);
        }
        if write.write_all(&bytes).await.is_err() {
            return;
        }
        waiting.fetch_sub(bytes.len(), Ordering::Relaxed);
    }
}

fn framed(packet: &[u8]) -> usize {
    2 + packet.len()
}

fn push(bytes: &mut Vec<u8>, packet: &[u8]) {
    let Ok(length) = u16::try_from(packet.len()) else { return }; // no packet is that long
    bytes.extend(length.to_be_bytes());
    bytes.extend(packet);
}
