//! PulseAudio's native protocol over a Unix socket: each message is a descriptor of 20 bytes, and then a command or samples.

use std::ffi::CString;
use std::io::Cursor;
use std::time::Duration;

use pulseaudio::protocol::{
    self, AuthParams, AuthReply, Command, CommandReply, DESCRIPTOR_SIZE, Prop, Props, ProtocolError, SetClientNameReply,
    TagStructReader,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::place::Place;
use crate::{Error, Result};

/// For each answer.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// A longer message ends the connection, in bytes.
const MESSAGE_MAX_BYTES: usize = 1 << 20;
/// Every cookie is as long; what is shorter breaks the protocol.
const COOKIE_BYTES: usize = 256;
/// Of messages that are commands.
const COMMANDS: u32 = u32::MAX;

/// A connection to a sound server.
pub struct Connection {
    socket: UnixStream,
    version: u16,
    next_sequence: u32,
}

/// What came.
pub(crate) enum Message {
    /// An answer, or something that happened.
    Command(Vec<u8>),
    /// Samples of this channel.
    Samples(u32, Vec<u8>),
}

impl Connection {
    /// Connects, and says who we are.
    ///
    /// # Errors
    /// Nobody answers, not in time, or refuses.
    pub async fn open(place: &Place) -> Result<Self> {
        let socket = timeout(PATIENCE, UnixStream::connect(&place.socket)).await.map_err(|_| Error::Silent)??;
        let mut cookie = match &place.cookie {
            Some(path) => tokio::fs::read(path).await.unwrap_or_default(), // a server of the same user wants none
            None => Vec::new(),
        };
        cookie.resize(COOKIE_BYTES, 0);
        let mut connection = Self { socket, version: protocol::MAX_VERSION, next_sequence: 0 };
        let auth = AuthParams { version: protocol::MAX_VERSION, supports_shm: false, supports_memfd: false, cookie };
        let reply: AuthReply = connection.ask("a client", Command::Auth(auth)).await?;
        connection.version = reply.version.min(protocol::MAX_VERSION);
        let mut props = Props::new();
        props.set(Prop::ApplicationName, CLIENT_NAME);
        let _: SetClientNameReply = connection.ask("its name", Command::SetClientName(props)).await?;
        Ok(connection)
    }

    /// Asks, and waits for the answer. `what` is for whoever reads the error.
    ///
    /// # Errors
    /// No answer in time, a refusal, or no protocol.
    pub(crate) async fn ask<R: CommandReply>(&mut self, what: &'static str, command: Command) -> Result<R> {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let mut bytes = Vec::new();
        protocol::encode_command_message(&mut bytes, sequence, &command, self.version).map_err(unreadable)?;
        let version = self.version;
        let answered = async {
            self.socket.write_all(&bytes).await?;
            loop {
                let Message::Command(bytes) = self.next().await? else { continue };
                let mut cursor = Cursor::new(bytes.as_slice());
                let (of, reply) = Command::read_tag_prefixed(&mut cursor, version).map_err(unreadable)?;
                match reply {
                    Command::Reply if of == sequence => {
                        return TagStructReader::new(&mut cursor, version).read().map_err(unreadable);
                    }
                    Command::Error(error) if of == sequence => return Err(Error::Refused { what, why: error.to_string() }),
                    _ => {} // something that happened
                }
            }
        };
        timeout(PATIENCE, answered).await.map_err(|_| Error::Silent)?
    }

    /// The next message. Not cancel safe: a part of it may have been read.
    ///
    /// # Errors
    /// The server is gone, or says what is too long.
    pub(crate) async fn next(&mut self) -> Result<Message> {
        let mut head = [0; DESCRIPTOR_SIZE];
        self.socket.read_exact(&mut head).await?;
        let head = protocol::read_descriptor(&mut head.as_slice()).map_err(unreadable)?;
        let length = usize::try_from(head.length).unwrap_or(usize::MAX);
        if length > MESSAGE_MAX_BYTES {
            return Err(Error::Protocol(format!("a message of {length} bytes")));
        }
        let mut body = vec![0; length];
        self.socket.read_exact(&mut body).await?;
        Ok(if head.channel == COMMANDS { Message::Command(body) } else { Message::Samples(head.channel, body) })
    }
}

const CLIENT_NAME: &std::ffi::CStr = c"sandboxd";

fn unreadable(error: ProtocolError) -> Error {
    Error::Protocol(error.to_string())
}

pub(crate) fn text(text: &str) -> CString {
    CString::new(text).unwrap_or_default() // a constant of ours
}
