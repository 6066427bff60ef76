//! Datagrams, with the local address that each came to.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};

use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// The kernel may join datagrams of one sender to as much.
const BUFFER_BYTES: usize = 65_536;
/// A keyframe at once; the kernel takes what it allows.
const SEND_BUFFER_BYTES: usize = 1 << 20;

pub(crate) struct Udp {
    socket: UdpSocket,
    state: UdpSocketState,
    port: u16,
    buffer: Vec<u8>,
}

impl Udp {
    /// # Errors
    /// The address isn't free.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = socket(address, Type::DGRAM, Protocol::UDP)?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let _ = state.set_send_buffer_size(UdpSockRef::from(&socket), SEND_BUFFER_BYTES); // smaller: more is lost
        let socket = UdpSocket::from_std(socket.into())?;
        let port = socket.local_addr()?.port();
        Ok(Self { socket, state, port, buffer: vec![0; BUFFER_BYTES] })
    }

    /// The port that it has.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Resolves when there may be something. Cancel safe.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Gives each datagram of one read with where it came from, and to. False when there is none.
    pub(crate) fn read(&mut self, mut each: impl FnMut(SocketAddr, SocketAddr, &[u8])) -> bool {
        let Self { socket, state, port, buffer } = self;
        let mut meta = [RecvMeta::default()];
        let read = socket
            .try_io(Interest::READABLE, || state.recv(UdpSockRef::from(&*socket), &mut [IoSliceMut::new(buffer)], &mut meta));
        // Errors of a datagram that was sent come here, too: ICE finds out by itself.
        if !matches!(read, Ok(1)) {
            return read.is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock);
        }
        let [meta] = meta;
        let to = SocketAddr::new(meta.dst_ip.unwrap_or(IpAddr::from([127, 0, 0, 1])), *port);
        for datagram in buffer[..meta.len].chunks(meta.stride.max(1)) {
            each(meta.addr, to, datagram);
        }
        true
    }

    /// Sends it, or not when the kernel's buffer is full: as a network that is full would.
    pub(crate) fn send(&self, from: IpAddr, to: SocketAddr, contents: &[u8]) {
        let src_ip = Some(from).filter(|from| !from.is_unspecified());
        let transmit = Transmit { destination: to, ecn: None, contents, segment_size: None, src_ip };
        let sent = self.socket.try_io(Interest::WRITABLE, || self.state.try_send(UdpSockRef::from(&self.socket), &transmit));
        if let Err(error) = sent {
            tracing::trace!(%error, %to, "a datagram isn't sent");
        }
    }
}

/// Bound, not blocking; of IPv6 only that.
pub(crate) fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    Ok(socket)
}
