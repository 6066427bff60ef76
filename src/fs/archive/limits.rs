//! What an archive may cost, and the readers that see to it.

use std::cell::{Cell, RefCell};
use std::io::{self, BufRead, Read};
use std::rc::Rc;

use bytes::{Buf as _, Bytes};

use super::super::Error;
use super::Pieces;
use crate::config::Bounds;

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// A frame may ask for a window of so many bytes, as a power of two: 128 MiB is what `zstd` itself accepts unasked.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// What one archive has cost so far. Readers and rules share it.
pub(super) struct Gauge {
    bounds: Bounds,
    /// Bytes that came.
    received: Cell<u64>,
    /// Bytes of the archive without its compression.
    expanded: Cell<u64>,
    /// What the headers of one entry may still take; `None` while its content is read.
    header_left: Cell<Option<u64>>,
    /// Bytes of files.
    content: Cell<u64>,
    entries: Cell<u64>,
    /// Names that wait for the end.
    pending_bytes: Cell<u64>,
    /// Why a reader stopped.
    refused: RefCell<Option<Error>>,
}

impl Gauge {
    pub(super) fn new(bounds: Bounds) -> Rc<Self> {
        Rc::new(Self {
            bounds,
            received: Cell::default(),
            expanded: Cell::default(),
            header_left: Cell::default(),
            content: Cell::default(),
            entries: Cell::default(),
            pending_bytes: Cell::default(),
            refused: RefCell::default(),
        })
    }

    /// What comes now is headers of one entry, behind so much that nobody has read of the one before. The crate takes long
    /// names and PAX records whole into memory.
    pub(super) fn begin_header(&self, unread: u64) {
        const BLOCK_BYTES: u64 = 512;
        let behind = unread.saturating_add(BLOCK_BYTES);
        self.header_left.set(Some(self.bounds.fs_archive_header_max_bytes.saturating_add(if unread > 0 { behind } else { 0 })));
    }

    /// What comes now is content.
    pub(super) fn end_header(&self) {
        self.header_left.set(None);
    }

    /// One more entry, with so much content and as many parts in its name.
    pub(super) fn take(&self, content: u64, depth: u64) -> Result<(), Error> {
        let bounds = &self.bounds;
        self.entries.set(self.entries.get() + 1);
        self.content.set(self.content.get().saturating_add(content));
        within("the archive's entries", self.entries.get(), bounds.fs_archive_entries_max, "fs_archive_entries_max")?;
        within("what the archive holds in bytes", self.content.get(), bounds.fs_archive_max_bytes, "fs_archive_max_bytes")?;
        within("the depth of a name in the archive", depth, bounds.fs_archive_depth_max, "fs_archive_depth_max")
    }

    /// A name that waits for the end takes memory until then.
    pub(super) fn keep(&self, bytes: usize) -> Result<(), Error> {
        let max = self.bounds.fs_archive_pending_max_bytes;
        self.pending_bytes.set(self.pending_bytes.get() + bytes as u64);
        within("bytes of names of directories and links", self.pending_bytes.get(), max, "fs_archive_pending_max_bytes")
    }

    /// Why a reader stopped, when it was one of these that did.
    pub(super) fn refusal(&self) -> Option<Error> {
        self.refused.borrow_mut().take()
    }

    /// False once a reader has stopped.
    pub(super) fn is_sound(&self) -> bool {
        self.refused.borrow().is_none()
    }

    fn refuse(&self, error: Error) -> io::Error {
        let said = io::Error::other(error.to_string());
        *self.refused.borrow_mut() = Some(error);
        said
    }

    fn read(&self, bytes: u64) -> Result<(), Error> {
        self.expanded.set(self.expanded.get() + bytes);
        let bounds = &self.bounds;
        let allowed = self.received.get().saturating_mul(bounds.fs_archive_ratio_max).max(bounds.fs_archive_ratio_free_bytes);
        if self.expanded.get() > allowed {
            let (what, max) = ("times that the archive grew".to_owned(), self.bounds.fs_archive_ratio_max);
            return Err(Error::TooMuch { what, max, bound: "fs_archive_ratio_max" });
        }
        if let Some(left) = self.header_left.get() {
            let Some(left) = left.checked_sub(bytes) else {
                let (what, max) = ("bytes of headers of one entry".to_owned(), self.bounds.fs_archive_header_max_bytes);
                return Err(Error::TooMuch { what, max, bound: "fs_archive_header_max_bytes" });
            };
            self.header_left.set(Some(left));
        }
        Ok(())
    }
}

fn within(what: &str, found: u64, max: u64, bound: &'static str) -> Result<(), Error> {
    if found > max { Err(Error::TooMuch { what: what.to_owned(), max, bound }) } else { Ok(()) }
}

/// Reads what comes through a channel, on a thread that may wait.
struct Incoming {
    pieces: Pieces,
    piece: Bytes,
    is_at_end: bool,
    gauge: Rc<Gauge>,
}

impl BufRead for Incoming {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.piece.is_empty() && !self.is_at_end {
            match self.pieces.blocking_recv() {
                Some(Some(piece)) => {
                    self.gauge.received.set(self.gauge.received.get() + piece.len() as u64);
                    self.piece = piece;
                }
                Some(None) => self.is_at_end = true,
                None => return Err(self.gauge.refuse(Error::BrokeOff("the archive ended early".to_owned()))),
            }
        }
        Ok(&self.piece)
    }

    fn consume(&mut self, bytes: usize) {
        self.piece.advance(bytes);
    }
}

impl Read for Incoming {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let bytes = available.len().min(into.len());
        into[..bytes].copy_from_slice(&available[..bytes]);
        self.consume(bytes);
        Ok(bytes)
    }
}

/// Counts what passes, and ends it when it is too much.
struct Metered<R> {
    inner: R,
    gauge: Rc<Gauge>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.inner.read(into)?;
        self.gauge.read(bytes as u64).map_err(|error| self.gauge.refuse(error))?;
        Ok(bytes)
    }
}

/// The archive without its compression, which its first bytes tell.
pub(super) fn open(pieces: Pieces, gauge: &Rc<Gauge>) -> io::Result<Box<dyn Read>> {
    let mut incoming = Incoming { pieces, piece: Bytes::new(), is_at_end: false, gauge: Rc::clone(gauge) };
    let mut first = Vec::with_capacity(ZSTD.len());
    (&mut incoming).take(ZSTD.len() as u64).read_to_end(&mut first)?;
    let (is_gzip, is_zstd) = (first.starts_with(&GZIP), first == ZSTD);
    let whole = Read::chain(io::Cursor::new(first), incoming);
    let gauge = Rc::clone(gauge);
    if is_gzip {
        return Ok(Box::new(Metered { inner: flate2::bufread::MultiGzDecoder::new(whole), gauge }));
    }
    if is_zstd {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(whole)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
        return Ok(Box::new(Metered { inner: decoder, gauge }));
    }
    Ok(Box::new(Metered { inner: whole, gauge }))
}
