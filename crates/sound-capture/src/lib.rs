//! What a PulseAudio server plays (or PipeWire's, which speaks the same), as Opus packets (RFC 6716).
//!
//! ```text
//! programs ──▶ default sink ──monitor──▶ this: samples ──▶ Opus, 20 ms a packet ──▶ who listens
//! ```
//! Silence isn't sent.
//!
//! | module | what |
//! |---|---|
//! | `place` | where a server may be |
//! | `connection` | PulseAudio's native protocol: commands and replies |
//! | `listening` | **the future that listens**: samples in, packets out |
//! | `packets` | samples as Opus |

mod connection;
mod listening;
mod packets;
mod place;

use std::io;
use std::sync::Arc;
use std::time::Instant;

pub use connection::Connection;
pub use place::{Place, places};

/// Samples a second of each channel.
pub const SAMPLE_RATE: u32 = 48_000;
/// Left and right.
pub const CHANNELS: u8 = 2;
/// Samples of each channel in a packet: 20 ms.
pub const PACKET_SAMPLES: u32 = SAMPLE_RATE / 50;

/// 20 ms of sound.
#[derive(Debug, Clone)]
pub struct Packet {
    /// One Opus packet, 48 kHz, stereo.
    pub data: Arc<[u8]>,
    /// Samples of each channel before it, those of silence among them.
    pub at_sample: u64,
    /// When it was heard.
    pub heard: Instant,
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers there.
    #[error("no answer: {0}")]
    Unreachable(#[from] io::Error),
    /// It takes longer than [`connection::PATIENCE`].
    #[error("the sound server doesn't answer in time")]
    Silent,
    /// It refuses: what it says.
    #[error("the sound server refuses {what}: {why}")]
    Refused {
        /// What was asked of it.
        what: &'static str,
        /// Its answer.
        why: String,
    },
    /// What it says isn't PulseAudio's protocol.
    #[error("the sound server says what can't be understood: {0}")]
    Protocol(String),
    /// The encoder fails.
    #[error("Opus: {0}")]
    Opus(#[from] opus::Error),
}

/// With [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
