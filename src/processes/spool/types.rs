//! What a spool holds and hands out.

/// Where a process wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// The pipe on descriptor 1.
    Stdout,
    /// The pipe on descriptor 2.
    Stderr,
    /// The terminal.
    Pty,
}

impl Stream {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Stdout, Self::Stderr, Self::Pty];

    fn slot(self) -> usize {
        match self {
            Self::Stdout => 0,
            Self::Stderr => 1,
            Self::Pty => 2,
        }
    }
}

/// A set of streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Streams([bool; 3]);

impl Streams {
    /// Every stream.
    pub const ALL: Self = Self([true; 3]);

    /// Whether the stream is in the set.
    pub fn contains(self, stream: Stream) -> bool {
        self.0[stream.slot()]
    }

    /// The set with this stream in it.
    #[must_use]
    pub fn with(mut self, stream: Stream) -> Self {
        self.0[stream.slot()] = true;
        self
    }
}

impl From<Stream> for Streams {
    fn from(stream: Stream) -> Self {
        Self::default().with(stream)
    }
}

/// A number of bytes for each stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamBytes([u64; 3]);

impl StreamBytes {
    /// The bytes of one stream.
    pub fn get(self, stream: Stream) -> u64 {
        self.0[stream.slot()]
    }

    /// The bytes of all streams.
    pub fn total(self) -> u64 {
        self.0.iter().fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    /// The bytes of the chosen streams.
    pub fn of(self, streams: Streams) -> u64 {
        Stream::ALL.into_iter().filter(|stream| streams.contains(*stream)).fold(0, |sum, s| sum.saturating_add(self.get(s)))
    }

    pub(super) fn set(&mut self, stream: Stream, bytes: u64) {
        self.0[stream.slot()] = bytes;
    }

    pub(super) fn since(self, earlier: Self) -> Self {
        Self(std::array::from_fn(|slot| self.0[slot].saturating_sub(earlier.0[slot])))
    }

    pub(super) fn to_array(self) -> [u64; 3] {
        self.0
    }

    pub(super) fn from_array(bytes: [u64; 3]) -> Self {
        Self(bytes)
    }
}

/// A place between two entries: the sequence of the next one, and how much each stream had written before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub next: u64,
    pub bytes: StreamBytes,
}

impl Position {
    /// Before the first entry.
    pub const START: Self = Self { next: 1, bytes: StreamBytes([0; 3]) };

    /// The place after an entry of `len` bytes that begins at `offset` of its stream.
    pub fn after(mut self, sequence: u64, stream: Stream, offset: u64, len: usize) -> Self {
        self.next = sequence.saturating_add(1);
        self.bytes.set(stream, offset.saturating_add(len as u64));
        self
    }

    /// The entries and bytes between an earlier place and this one.
    pub fn since(self, earlier: Self) -> Count {
        Count { entries: self.next.saturating_sub(earlier.next), bytes: self.bytes.since(earlier.bytes).total() }
    }
}

/// A number of entries and the bytes in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Entries.
    pub entries: u64,
    /// Bytes of all streams.
    pub bytes: u64,
}

impl Count {
    pub(super) fn plus(self, other: Self) -> Self {
        let entries = self.entries.saturating_add(other.entries);
        Self { entries, bytes: self.bytes.saturating_add(other.bytes) }
    }

    pub(super) fn minus(self, other: Self) -> Self {
        let entries = self.entries.saturating_sub(other.entries);
        Self { entries, bytes: self.bytes.saturating_sub(other.bytes) }
    }
}

/// A piece of output: 1 to 8192 bytes of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// From 1, shared by all streams of the process.
    pub sequence: u64,
    /// Where the process wrote it.
    pub stream: Stream,
    /// When it was read, Unix milliseconds.
    pub time_ms: i64,
    /// Its place in its own stream: the bytes the process had written there before.
    pub offset: u64,
    /// The bytes as they came.
    pub bytes: Vec<u8>,
}

/// Something that happened between two entries. Takes no sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// The terminal got this size.
    Resize {
        /// Columns.
        cols: u16,
        /// Rows.
        rows: u16,
    },
}

/// Entries that a reader can't have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The first missing sequence.
    pub from_sequence: u64,
    /// The last missing sequence.
    pub to_sequence: u64,
    /// The bytes missing in each stream. For a reader put inside the hole by a seek: those of the whole hole.
    pub bytes: StreamBytes,
    /// Why.
    pub reason: GapReason,
}

/// Why entries are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapReason {
    /// They were deleted to stay within the bound.
    Truncated,
    /// They could not be written, or what was written is damaged.
    NotKept,
}

/// What a reader gets, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// Output.
    Entry(Entry),
    /// Output that is missing.
    Gap(Gap),
    /// What happened before the next entry. After a [`GapReason::Truncated`] gap the size then in force is repeated, with
    /// the time of the output that follows.
    Control {
        /// Unix milliseconds.
        time_ms: i64,
        /// What happened.
        control: Control,
    },
}
