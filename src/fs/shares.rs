//! Entries in JSON, many at once: several threads take shares of names, look at what has them, and write.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::fs::readlinkat;

use super::entry::{Encoder, Kind, Meta, Prefix};

/// Most threads for one listing.
const THREADS_MAX: usize = 4;
/// A name, its path and the rest of an entry, about.
const ENTRY_BYTES: usize = 160;

/// Something that a directory had.
pub(super) struct Name<'a> {
    pub(super) directory: BorrowedFd<'a>,
    /// As its path begins.
    pub(super) prefix: &'a Prefix,
    pub(super) name: &'a [u8],
}

/// Names that one thread looks at.
pub(super) trait Share: Send {
    fn len(&self) -> usize;
    fn name(&self, at: usize) -> Name<'_>;
}

/// Appends the entries of all shares that `next` gives, in their order and with commas between them. True when there were
/// any; what is gone by now is left out.
///
/// A second share is only asked for by a second thread, so a small directory costs none; while one thread asks, the others
/// write.
pub(super) fn encode<S: Share>(out: &mut Vec<u8>, next: &mut (dyn FnMut() -> Option<S> + Send)) -> bool {
    let Some(first) = next() else { return false };
    let Some(second) = next() else { return append(out, &[encode_share(&first)]) };
    let source = Mutex::new(Source { next, waiting: Some(second), number: 1 });
    let work = |mut mine: Option<(usize, S)>| {
        let mut done = Vec::new();
        while let Some((number, share)) = mine.take().or_else(|| take(&source)) {
            done.push((number, encode_share(&share)));
        }
        done
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    let mut parts = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(|| work(None))).collect();
        let mut parts = work(Some((0, first)));
        parts.extend(others.into_iter().filter_map(|part| part.join().ok()).flatten()); // a panic is in the log
        parts
    });
    parts.sort_unstable_by_key(|(number, _)| *number);
    let parts: Vec<_> = parts.into_iter().map(|(_, part)| part).collect();
    append(out, &parts)
}

struct Source<'a, S> {
    next: &'a mut (dyn FnMut() -> Option<S> + Send),
    waiting: Option<S>,
    number: usize,
}

fn take<S>(source: &Mutex<Source<'_, S>>) -> Option<(usize, S)> {
    let mut source = source.lock().unwrap_or_else(PoisonError::into_inner);
    let share = source.waiting.take().or_else(|| (source.next)())?;
    source.number += 1;
    Some((source.number, share))
}

fn append(out: &mut Vec<u8>, parts: &[Vec<u8>]) -> bool {
    out.reserve(parts.iter().map(|part| part.len() + 1).sum::<usize>() + ENTRY_BYTES);
    let mut is_empty = true;
    for part in parts.iter().filter(|part| !part.is_empty()) {
        if !std::mem::take(&mut is_empty) {
            out.push(b',');
        }
        out.extend_from_slice(part);
    }
    !is_empty
}

fn encode_share(share: &impl Share) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::with_capacity(share.len() * ENTRY_BYTES));
    let mut is_first = true;
    for at in 0..share.len() {
        let Name { directory, prefix, name } = share.name(at);
        let Ok(meta) = Meta::of(directory, Path::new(OsStr::from_bytes(name))) else { continue }; // gone
        if !std::mem::take(&mut is_first) {
            encoder.push(",");
        }
        encoder.entry(Some(prefix), name, &meta, link(directory, name, meta.kind).as_deref());
        encoder.push("}");
    }
    encoder.into_bytes()
}

/// What a link says.
pub(super) fn link(directory: BorrowedFd<'_>, name: &[u8], kind: Kind) -> Option<Vec<u8>> {
    (kind == Kind::Symlink).then(|| readlinkat(directory, name, Vec::new()).map(|target| target.into_bytes()).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd as _, OwnedFd};
    use std::sync::Arc;

    use super::*;

    struct Names(Arc<(OwnedFd, Prefix)>, Vec<String>);

    impl Share for Names {
        fn len(&self) -> usize {
            self.1.len()
        }

        fn name(&self, at: usize) -> Name<'_> {
            Name { directory: self.0.0.as_fd(), prefix: &self.0.1, name: self.1[at].as_bytes() }
        }
    }

    fn encoded(shares: &[&[&str]]) -> Vec<String> {
        let home = tempfile::tempdir().expect("a folder");
        for name in ["a", "b", "c", "d"] {
            std::fs::write(home.path().join(name), name).expect("a file");
        }
        let directory: OwnedFd = std::fs::File::open(home.path()).expect("a folder").into();
        let shared = Arc::new((directory, Prefix::new(home.path())));
        let mut left = shares.iter().map(|names| Names(Arc::clone(&shared), names.iter().map(ToString::to_string).collect()));
        let mut out = b"[".to_vec();
        let is_any = encode(&mut out, &mut || left.next());
        out.push(b']');
        let entries: Vec<serde_json::Value> = serde_json::from_slice(&out).expect("JSON");
        assert_eq!(is_any, !entries.is_empty());
        entries.iter().map(|entry| entry["name"].as_str().expect("a name").to_owned()).collect()
    }

    #[test]
    fn shares_stay_in_order_and_what_is_gone_leaves_no_comma() {
        assert_eq!(encoded(&[]), [""; 0]);
        assert_eq!(encoded(&[&["gone"]]), [""; 0]);
        assert_eq!(encoded(&[&["b", "gone", "a"]]), ["b", "a"]);
        assert_eq!(encoded(&[&["gone"], &["d"], &[], &["c", "a"], &["gone"], &["b"]]), ["d", "c", "a", "b"]);
        let many: Vec<&[&str]> = std::iter::repeat_n(&["a", "b"][..], 500).collect();
        assert_eq!(encoded(&many), ["a", "b"].repeat(500));
    }
}
