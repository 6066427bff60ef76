//! What is made on a thread and sent on in pieces, compressed or not.

use std::io::{self, Write};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::Error;

/// One piece; two are in memory at once.
pub(super) const PIECE_BYTES: usize = 256 * 1024;
/// Of what is compressed while somebody waits for it: larger levels take more time than they save.
const GZIP_LEVEL: u32 = 4;
const ZSTD_LEVEL: i32 = 3;
/// So much of a content tells whether compressing it is worth while.
pub(super) const SAMPLE_BYTES: usize = 16 * 1024;
const SAMPLE_LEVEL: i32 = 1;

/// How a content is encoded for a transfer (RFC 9110 section 8.4.1, RFC 8878).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum Coding {
    Gzip,
    Zstd,
}

impl Coding {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Gzip, Self::Zstd];

    /// As HTTP calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// Encodes what is in memory.
    pub(super) fn encode(self, content: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(GZIP_LEVEL));
                encoder.write_all(content)?;
                encoder.finish()
            }
            Self::Zstd => zstd::bulk::compress(content, ZSTD_LEVEL),
        }
    }
}

/// True when compressing makes a content clearly smaller, as far as its beginning tells: pictures, films and archives are
/// compressed already, whatever they are called.
pub(super) fn shrinks(content: &[u8]) -> io::Result<bool> {
    let sample = &content[..content.len().min(SAMPLE_BYTES)];
    Ok(zstd::bulk::compress(sample, SAMPLE_LEVEL)?.len() < sample.len() - sample.len() / 8)
}

/// Sends what is written to it on in pieces.
pub(super) struct Outgoing {
    pieces: mpsc::Sender<Result<Bytes, Error>>,
    piece: Vec<u8>,
}

impl Outgoing {
    /// Fails as soon as nobody receives any more.
    pub(super) fn new(pieces: mpsc::Sender<Result<Bytes, Error>>) -> Self {
        Self { pieces, piece: Vec::with_capacity(PIECE_BYTES) }
    }

    fn send(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES));
        self.pieces.blocking_send(Ok(piece.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Outgoing {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        let bytes = from.len().min(PIECE_BYTES - self.piece.len());
        self.piece.extend_from_slice(&from[..bytes]);
        if self.piece.len() >= PIECE_BYTES {
            self.send()?;
        }
        Ok(bytes)
    }

    /// Does nothing: pieces go when they are full, and the last one at the end.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What has something to write behind the last byte.
pub(super) trait Finish: Write {
    fn finish(self) -> io::Result<()>;
}

impl Finish for Outgoing {
    fn finish(mut self) -> io::Result<()> {
        self.send()
    }
}

macro_rules! compressed {
    ($name:ident, $encoder:ty) => {
        pub(super) struct $name($encoder);

        impl Write for $name {
            fn write(&mut self, from: &[u8]) -> io::Result<usize> {
                self.0.write(from)
            }

            fn flush(&mut self) -> io::Result<()> {
                self.0.flush()
            }
        }

        impl Finish for $name {
            fn finish(self) -> io::Result<()> {
                self.0.finish()?.finish()
            }
        }
    };
}

compressed!(Gzip, flate2::write::GzEncoder<Outgoing>);
compressed!(Zstd, zstd::stream::write::Encoder<'static, Outgoing>);

impl Gzip {
    pub(super) fn new(outgoing: Outgoing) -> Self {
        Self(flate2::write::GzEncoder::new(outgoing, flate2::Compression::new(GZIP_LEVEL)))
    }
}

impl Zstd {
    pub(super) fn new(outgoing: Outgoing) -> io::Result<Self> {
        zstd::stream::write::Encoder::new(outgoing, ZSTD_LEVEL).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_random_does_not_shrink() {
        let text = b"all work and no play makes jack a dull boy\n".repeat(100);
        assert!(shrinks(&text).expect("a sample"));
        let random: Vec<u8> = (0..4096).map(|_| rand::random()).collect();
        assert!(!shrinks(&random).expect("a sample"));
        let letters: Vec<u8> = (0..100_000).map(|_| b'a' + rand::random::<u8>() % 16).collect();
        let packed = Coding::Zstd.encode(&letters).expect("packed");
        assert!(!shrinks(&packed).expect("a sample"));
    }
}
