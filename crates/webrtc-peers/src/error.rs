//! What can go wrong.

use std::io;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No port of the range is free, or the system refuses a socket.
    #[error("no UDP port could be had: {0}")]
    Socket(#[source] io::Error),
    /// There are as many peers as there may be.
    #[error("there are {0} peers already")]
    TooMany(usize),
    /// The peer is gone: it left, was closed, or never connected.
    #[error("the peer is gone")]
    Gone,
    /// What it sent can't be used: what is wrong with it.
    #[error("the answer can't be used: {0}")]
    Answer(String),
    /// The library failed: a fault of ours, or of the machine's.
    #[error("WebRTC failed: {0}")]
    Internal(String),
    /// The gateway has ended.
    #[error("the gateway has ended")]
    Ended,
}

/// With [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
