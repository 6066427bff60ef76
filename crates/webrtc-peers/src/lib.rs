//! WebRTC peers that watch one video, listen to one sound and send messages.
//!
//! A [`Gateway`] has one UDP port, and a TCP port of the same number for networks that UDP can't pass (ICE-TCP, RFC 6544). It
//! offers, peers answer (RFC 8829); it is ICE-lite (RFC 8445, 2.5), so it needs nothing of a peer's candidates: where a peer is,
//! its checks tell. Each peer gets the same frames of H.264 (RFC 6184), the same sound as Opus (RFC 7587) if it wants any, and one data
//! channel (RFC 8831). A frame that a peer has no room for isn't sent to it later: it gets the next keyframe.
//!
//! Nothing answers who doesn't know the password of a peer's offer.
//!
//! | module | what |
//! |---|---|
//! | `gateway` | **the owner task**: sockets, and which peer a packet is for |
//! | `peer` | one peer, without I/O |
//! | `rise` | when what is estimated of its network is too low |
//! | `udp`, `tcp` | packets in and out |
//! | `addresses` | where peers can reach us |

mod addresses;
mod error;
mod gateway;
mod peer;
mod rise;
mod tcp;
mod udp;

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use error::{Error, Result};
pub use gateway::Gateway;

/// What a gateway is made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where to listen; the unspecified address of IPv6 is both families.
    pub bind: IpAddr,
    /// The first port of these that is free is taken, for UDP and for TCP.
    pub ports: RangeInclusive<u16>,
    /// Addresses that peers can reach us at besides the machine's own: those outside of a NAT or a container that hands the same
    /// port number through.
    pub addresses: Vec<IpAddr>,
    /// Peers at once.
    pub peers_max: usize,
    /// A longer message from a peer closes it, in bytes.
    pub message_max_bytes: usize,
    /// A peer that hasn't connected by then is closed.
    pub connect_timeout: Duration,
    /// A peer that nothing was heard of for so long is closed.
    pub silent_timeout: Duration,
}

/// One encoded frame.
#[derive(Debug, Clone)]
pub struct Frame {
    /// NAL units with start codes (ITU-T H.264, annex B); a keyframe begins with its SPS and PPS.
    pub data: Arc<[u8]>,
    /// Decodable without any frame before it.
    pub is_keyframe: bool,
    /// When its picture was taken, since the beginning of the stream.
    pub at: Duration,
    /// The same by the clock.
    pub taken: Instant,
}

/// A packet of sound.
#[derive(Debug, Clone)]
pub struct Sound {
    /// One Opus packet (RFC 6716), 48 kHz.
    pub data: Arc<[u8]>,
    /// Samples of each channel before it since the beginning, those of silence that wasn't sent among them.
    pub at_sample: u64,
    /// When it was heard.
    pub heard: Instant,
}

/// What a peer is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wish {
    /// Where its client found our server: it is likely to find this there, too.
    pub asked_at: Option<IpAddr>,
    /// There is sound; it gets some after [`Gateway::hear`].
    pub sound: bool,
}

/// What a peer is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub(crate) u64);

/// What happens to a peer.
#[derive(Debug, Clone, PartialEq)]
pub enum PeerEvent {
    /// It gets frames from now on.
    Connected,
    /// Its data channel is open.
    Opened,
    /// It sent this over the data channel.
    Message(Vec<u8>),
    /// It can't show anything until the next keyframe.
    KeyframeWanted,
    /// What the network to it carries, about, in bits per second.
    Estimate(u64),
    /// Once a second.
    Stats(PeerStats),
    /// It is gone; the last event.
    Closed(CloseReason),
}

/// How a peer is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Transport {
    Udp,
    Tcp,
}

/// How it goes with a peer.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerStats {
    /// Once it is connected.
    pub transport: Option<Transport>,
    /// Where it is.
    pub remote: Option<SocketAddr>,
    /// So far.
    pub bytes_sent: u64,
    /// Of the last check.
    pub round_trip: Option<Duration>,
    /// Of what was sent in the last second, 0 to 1.
    pub loss: Option<f32>,
}

/// Why a peer is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloseReason {
    /// It closed the connection.
    Left,
    /// It didn't connect in time: its network lets neither UDP nor TCP through to us.
    NeverConnected,
    /// Nothing was heard of it.
    Silent,
    /// It sent too long a message, or more events came of it than were taken.
    Overrun,
    /// We closed it.
    Closed,
    /// It broke the protocol, or the library did.
    Failed(String),
}
