//! A client of one language server (LSP 3.17), over any two pipes.
//!
//! ```text
//!   callers ──commands──▶ connection (the owner task) ──frames──▶ server
//!      ▲                        │      ▲
//!      └──── answers, diagnostics ◀────┴──frames── reader
//! ```
//! Nothing waits for anything else: requests of the server are answered while ours are under way, and what it doesn't read yet
//! lies in a bounded queue. A caller that goes away, and a time that is over, are told to the server by `$/cancelRequest`.
//!
//! | module | what |
//! |---|---|
//! | `connection` | **the owner task**: what is under way, in both directions |
//! | `client` | the handle on it; documents, and waiting for diagnostics |
//! | `handshake` | `initialize`, and what we say we can |
//! | `frame`, `message` | bytes to messages |
//! | `server_asks` | what servers ask of a client |
//! | `state` | what a server has told: diagnostics, progress, registrations, its log |
//! | `document` | the text that a server was given |
//! | `uri` | paths as URIs |
//! | `position` | lines and characters in UTF-8, UTF-16 and UTF-32 |

mod client;
mod connection;
mod document;
mod error;
mod frame;
mod handshake;
mod message;
mod position;
mod server_asks;
mod state;
mod uri;

use std::time::Duration;

use serde_json::Value;

pub use client::{Client, Waited};
pub use connection::start;
pub use error::{Error, ResponseError, Result};
pub use frame::{FrameError, Frames, encode};
pub use position::{Encoding, Lines};
pub use server_asks::{ApplyEdit, Asks};
pub use state::{LogLine, Progress, Published};
pub use uri::{path_of, uri_of};

/// What a client is made with.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The root, as a `file:` URI.
    pub root_uri: String,
    /// Its name for people.
    pub name: String,
    /// `initializationOptions`; null when there are none.
    pub initialization_options: Value,
    /// What `workspace/configuration` is answered from, by section.
    pub settings: Value,
    /// Us: servers end when this process is gone.
    pub process_id: u32,
}

/// How much of everything.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Of one message, in bytes; a longer one ends the connection.
    pub message_max_bytes: usize,
    /// Bytes that a server hasn't read; a request beyond is refused.
    pub outgoing_max_bytes: usize,
    /// Requests under way.
    pub requests_max: usize,
    /// Files whose diagnostics are kept; the ones that were told of longest ago go.
    pub files_max: usize,
    /// Diagnostics of one file; more are counted only.
    pub diagnostics_max: usize,
    /// Lines that the server had logged.
    pub log_max_lines: usize,
    /// Of one such line.
    pub log_line_max_bytes: usize,
    /// For `initialize`.
    pub start_timeout: Duration,
}
