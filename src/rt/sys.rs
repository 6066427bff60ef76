//! The only `unsafe` of the crate: what a child does between fork and exec, descriptors that tokio watches, those that
//! this process was started with, sets of signals, and memory that outlives it.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::atomic::AtomicU64;

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::SigSet;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What has to be done in the child itself, before it becomes the program.
#[derive(Debug, Default)]
pub(crate) struct BeforeExec {
    /// Lead a new session whose controlling terminal is stdin (setsid(2), TIOCSCTTY); else only a new process group.
    pub(crate) terminal: bool,
    /// Both limits, soft and hard.
    pub(crate) rlimits: Vec<(Resource, u64)>,
    /// A cgroup's `cgroup.procs`, to enter it before anything can be started outside.
    pub(crate) cgroup_procs: Option<OwnedFd>,
}

/// Has the plan carried out in the child that `command` starts.
#[allow(unsafe_code)]
pub(crate) fn apply(command: &mut Command, plan: BeforeExec) {
    if !plan.terminal {
        command.process_group(0);
    }
    // SAFETY: between fork and exec of a process with several threads only async-signal-safe functions may be called
    // (signal-safety(7)). `carry_out` makes plain system calls: setsid, ioctl, setrlimit, write. It neither allocates nor
    // takes a lock: `plan` was made before the fork, and errors are numbers. A panic can't unwind into std's code,
    // because nothing in it panics.
    unsafe {
        command.pre_exec(move || carry_out(&plan));
    }
}

fn carry_out(plan: &BeforeExec) -> io::Result<()> {
    if let Some(procs) = &plan.cgroup_procs {
        rustix::io::write(procs, b"0")?; // cgroup v2: 0 is the writer itself
    }
    for (resource, limit) in &plan.rlimits {
        setrlimit(*resource, *limit, *limit)?;
    }
    if plan.terminal {
        rustix::process::setsid()?;
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
    }
    Ok(())
}

/// Keeps what this process was started with, beyond its stdio, from its children. What it opens itself is closed on exec
/// already.
#[allow(unsafe_code)]
pub(crate) fn keep_inherited() {
    use nix::libc::{F_SETFD, FD_CLOEXEC, fcntl};
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let open: Vec<i32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for descriptor in open.into_iter().filter(|descriptor| *descriptor > 2) {
        // SAFETY: F_SETFD changes a flag and nothing else (fcntl(2)); whoever owns the descriptor can go on using it, and
        // one that was closed meanwhile is EBADF. The constants are those of this call.
        unsafe { fcntl(descriptor, F_SETFD, FD_CLOEXEC) };
    }
}

/// Closes what the caller had open besides the standard streams: an inherited lock or pipe would be held for as long as
/// we run, and by all that we start. Has to come before anything is opened here.
pub(crate) fn close_inherited() {
    let open: Vec<i32> = std::fs::read_dir("/proc/self/fd")
        .map(|entries| entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
        .unwrap_or_default();
    for descriptor in open.into_iter().filter(|descriptor| *descriptor > 2) {
        let _ = nix::unistd::close(descriptor); // the one that listed them is closed already
    }
}

/// This process's code and constants. For a process that waits nearly always, and has most of a large program's pages only
/// because the kernel maps neighbours, too.
pub(crate) struct Code {
    mappings: Vec<(usize, usize)>,
}

impl Code {
    pub(crate) fn find() -> Self {
        Self { mappings: clean_mappings(&std::fs::read_to_string("/proc/self/maps").unwrap_or_default()) }
    }

    /// Takes its pages out of this process's memory; what is needed comes back.
    #[allow(unsafe_code)]
    pub(crate) fn give_back(&self) {
        use rustix::mm::{Advice, madvise};
        for (start, len) in &self.mappings {
            // SAFETY: a private mapping of a file that was never written to, and that this process never unmaps: its pages are
            // read from the file again, which can't have changed, since it is being executed (ETXTBSY), or a library. What
            // was relocated lies elsewhere.
            let _ = unsafe { madvise(std::ptr::with_exposed_provenance_mut(*start), *len, Advice::LinuxDontNeed) };
        }
    }
}

/// Of proc_pid_maps(5): code, and what lies before it in the same file. What lies behind may have been relocated, and is
/// read-only nevertheless (RELRO).
fn clean_mappings(maps: &str) -> Vec<(usize, usize)> {
    let parsed = maps.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (range, modes) = (fields.next()?, fields.next()?);
        let file = fields.nth(3).filter(|file| file.starts_with('/'))?;
        let (start, end) = range.split_once('-')?;
        let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
        Some((start, end.checked_sub(start)?, modes, file))
    });
    let parsed: Vec<_> = parsed.collect();
    let is_clean = |(start, _, modes, file): &(usize, usize, &str, &str)| match *modes {
        "r-xp" => true,
        "r--p" => parsed.iter().any(|(code, _, modes, of)| *modes == "r-xp" && of == file && code > start),
        _ => false,
    };
    parsed.iter().filter(|mapping| is_clean(mapping)).map(|(start, len, ..)| (*start, *len)).collect()
}

/// A set of signals by number, real-time ones included, which nix doesn't name.
#[allow(unsafe_code)]
pub(crate) fn signal_set(numbers: impl Iterator<Item = i32>) -> SigSet {
    use nix::libc::{sigaddset, sigemptyset, sigset_t};
    let mut set = std::mem::MaybeUninit::<sigset_t>::uninit();
    // SAFETY: sigemptyset(3) initialises the set that it is given; sigaddset(3) changes an initialised one and refuses
    // numbers that are none. from_sigset_t_unchecked asks for a set of valid signals, which it is.
    unsafe {
        sigemptyset(set.as_mut_ptr());
        for number in numbers {
            sigaddset(set.as_mut_ptr(), number);
        }
        SigSet::from_sigset_t_unchecked(set.assume_init())
    }
}

/// Memory behind a descriptor (memfd_create(2)): whoever holds the descriptor finds what was written, however this process
/// ended. Nobody else may map it meanwhile.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    at: std::ptr::NonNull<u8>,
    len: usize,
    fd: OwnedFd,
}

// SAFETY: it owns its mapping, and gives references to it only for as long as it is borrowed itself.
#[allow(unsafe_code)]
unsafe impl Send for SharedMemory {}
// SAFETY: as above; what changes through a shared reference are atomics.
#[allow(unsafe_code)]
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// New memory, all zero; pages are taken as they are touched.
    ///
    /// # Errors
    /// No memory, or no descriptor.
    pub(crate) fn new(name: &str, len: usize) -> io::Result<Self> {
        let fd = rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&fd, len as u64)?;
        Self::open(fd)
    }

    /// What an earlier process wrote.
    ///
    /// # Errors
    /// It can't be mapped.
    #[allow(unsafe_code)]
    pub(crate) fn open(fd: OwnedFd) -> io::Result<Self> {
        use rustix::mm::{MapFlags, ProtFlags, mmap};
        let len = usize::try_from(rustix::fs::fstat(&fd)?.st_size).map_err(|_| io::ErrorKind::InvalidData)?;
        if len == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        // SAFETY: a new mapping of a file of this length, which nobody shortens: only we and the keeper, which doesn't touch
        // it, have the descriptor. It is unmapped when this is dropped, and not used otherwise.
        let at = unsafe { mmap(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &fd, 0)? };
        let at = std::ptr::NonNull::new(at.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { at, len, fd })
    }

    /// Its descriptor.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Gives pages back to the system; they are zero then. Whole pages, as `place` and `len` say.
    pub(crate) fn give_back(&mut self, place: usize, len: usize) {
        use rustix::fs::{FallocateFlags, fallocate};
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let _ = fallocate(&self.fd, how, place as u64, len as u64); // it stays in use then
    }

    /// The number at a place, which is a multiple of 8.
    #[allow(unsafe_code)]
    pub(crate) fn number(&self, place: usize) -> &AtomicU64 {
        assert!(place.is_multiple_of(8) && place + 8 <= self.len, "a place of a number within the memory");
        // SAFETY: within the mapping, aligned (a mapping begins at a page), and always reached as an atomic: `bytes` and
        // `bytes_mut` are for other places, which callers keep apart by their layout, and an overlap could tear nothing, since
        // both need `self`, the latter alone.
        unsafe { AtomicU64::from_ptr(self.at.as_ptr().add(place).cast()) }
    }

    /// The bytes from a place on.
    #[allow(unsafe_code)]
    pub(crate) fn bytes(&self, place: usize, len: usize) -> &[u8] {
        assert!(place.checked_add(len).is_some_and(|end| end <= self.len), "within the memory");
        // SAFETY: within the mapping, which lives as long as `self`; nobody else writes there.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr().add(place), len) }
    }

    /// The same, to be written.
    #[allow(unsafe_code)]
    pub(crate) fn bytes_mut(&mut self, place: usize, len: usize) -> &mut [u8] {
        assert!(place.checked_add(len).is_some_and(|end| end <= self.len), "within the memory");
        // SAFETY: as above, and `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr().add(place), len) }
    }
}

impl Drop for SharedMemory {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: the mapping that `open` made, once; nothing borrows it any more.
        let _ = unsafe { rustix::mm::munmap(self.at.as_ptr().cast(), self.len) };
    }
}

/// Has tokio watch a descriptor.
///
/// # Errors
/// epoll can't watch it.
#[allow(unsafe_code)]
pub(crate) fn watched(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor has to stay open and the same for as long as the AsyncFd has it. An OwnedFd is: nobody else
    // may close it, and its `as_raw_fd` always gives the same number.
    unsafe { AsyncFd::register_with_interest(descriptor, interest) }.map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_read_again_is_given_back() {
        let maps = "1000-2000 r--p 00000000 fe:00 1 /bin/x\n2000-5000 r-xp 00001000 fe:00 1 /bin/x\n\
                    5000-6000 r--p 00004000 fe:00 1 /bin/x\n6000-7000 rw-p 00005000 fe:00 1 /bin/x\n\
                    7000-8000 r--p 00000000 00:00 0 [vvar]\n8000-9000 r-xp 00000000 00:00 0 [vdso]\n";
        assert_eq!(clean_mappings(maps), [(0x1000, 0x1000), (0x2000, 0x3000)]);
        Code::find().give_back(); // and this test goes on
        assert_eq!(clean_mappings("").len(), 0);
    }
}
