//! Input on its way to a process: accepted, and not yet taken by it.

use std::io;

use bytes::{Buf as _, BytesMut};

use super::stdio::Stdio;
use crate::processes::desk::{self, Desks};
use crate::processes::slate::Slate;
use crate::processes::spool::Stream;
use crate::processes::types::ProcessId;

/// In memory, or on the slate of a process that outlives this server.
#[derive(Debug)]
pub(super) struct Input {
    process: ProcessId,
    heap: BytesMut,
    pub(super) slate: Option<Slate>,
}

impl Input {
    pub(super) fn new(process: ProcessId, slate: Option<Slate>) -> Self {
        Self { process, heap: BytesMut::new(), slate }
    }

    pub(super) fn len(&self) -> usize {
        self.slate.as_ref().map_or(self.heap.len(), Slate::waiting)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Accepts input. The caller has seen to the bound, for which there is room.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        match &mut self.slate {
            Some(slate) => {
                if !slate.accept(bytes) {
                    tracing::error!(process = %self.process, bytes = bytes.len(), "input has no room on the slate and is lost");
                }
            }
            None => self.heap.extend_from_slice(bytes),
        }
    }

    /// Whether stdin ends after what was accepted, for the next server.
    pub(super) fn set_closes(&self, closes: bool) {
        if let Some(slate) = &self.slate {
            slate.set_closes(closes);
        }
    }

    /// Nobody reads any more.
    pub(super) fn clear(&mut self) {
        self.heap = BytesMut::new();
        if let Some(slate) = &self.slate {
            slate.drop_input();
        }
    }

    /// Writes what the process takes right now.
    ///
    /// # Errors
    /// `WouldBlock`, or `BrokenPipe` when nobody reads any more.
    pub(super) fn write(&mut self, stdio: &Stdio, desks: Option<&Desks>) -> io::Result<usize> {
        let Some(slate) = &self.slate else {
            let count = stdio.try_write(&self.heap)?;
            self.heap.advance(count);
            if self.heap.is_empty() {
                self.heap = BytesMut::new();
            }
            return Ok(count);
        };
        let (bytes, base) = slate.next();
        let wire = stdio.input().ok_or(io::ErrorKind::BrokenPipe)?;
        let owner = desk::Owner { process: self.process, stream: Stream::Stdout, base, carry: 0 };
        let note = |count: usize| slate.given(base + count as u64);
        let given = desks.and_then(|desks| desks.with(|desk| desk.give(wire, owner, bytes, note)));
        given.unwrap_or_else(|| wire.try_write(bytes).inspect(|count| slate.given(base + *count as u64)))
    }
}
