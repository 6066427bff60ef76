//! What sessions know of files, and where they meet: the content that each saw last, lines that two of them changed, and
//! leases by which one asks the others to stay away. All of it advises but one thing: a session doesn't write over what is
//! newer than what it saw, unless it says so. One that never saw a file may make or replace it.

mod conflicts;
mod guard;
mod leases;
mod seen;
mod stale;

pub(super) use conflicts::conflicts_of;
pub use conflicts::{Conflict, Severity};
pub(super) use guard::Known;
pub use leases::{Lease, LeaseSpec, Leases};
pub(super) use seen::Seen;
pub use seen::SeenFile;
pub use stale::{FileState, Merged, Stale};

/// Who is told when sessions get in each other's way.
pub trait Notices: Send + Sync + 'static {
    /// Two sessions changed the same or neighbouring lines, or one of them what the other has leased. Called once for each
    /// pair, file and severity, by a task of this room: it must not block.
    fn conflict(&self, conflict: &Conflict);
}

/// Tells nobody.
pub struct NoNotices;

impl Notices for NoNotices {
    fn conflict(&self, _: &Conflict) {}
}
