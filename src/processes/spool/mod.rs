//! The output of one process on disk: what it wrote to stdout, stderr or its terminal, in order, within a bound.
//!
//! Output is cut into *entries* of at most 8 KiB, numbered from 1 over all streams. They lie as frames in *segments*,
//! files `p<number>.<segment>.spool` of one folder. Segment 0, the *head*, is kept; of the rest the latest are kept:
//!
//! ```text
//! p7.0.spool            p7.41.spool  p7.42.spool ◀── Spool appends here, and deletes the oldest but the head
//! └ head, 1/8 of bound  └─────── rolling, 1/8 each
//!            └── readers get a Gap ──┘
//! ```
//!
//! One [`Spool`] writes. Any number of [`SpoolReader`]s follow it through its [`SpoolIndex`], which tells how far the
//! files are written; an index is also made from the files of a process that is gone. Everything here blocks on the disk
//! and is meant for a thread that may. Nothing is ever synced: what the kernel loses with the machine is lost.
//!
//! Whatever can't be written is counted: its sequences are used up, and readers get a [`Gap`](Item::Gap).

mod batch;
mod disk;
mod escape;
mod frame;
mod index;
mod lines;
mod reader;
mod scan;
mod segment;
mod types;
mod utf8;
mod walk;
mod writer;

#[cfg(test)]
mod tests;

pub use index::SpoolIndex;
pub use lines::{LineAssembler, LineItem, Lines};
pub use reader::SpoolReader;
pub use segment::{remove, sweep};
pub use types::{Control, GapReason, Item, Stream, Streams};
pub use utf8::Utf8Carry;
pub use writer::Spool;
