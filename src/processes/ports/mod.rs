//! Which TCP ports are listened on, and by which process.
//!
//! [`PortScan`] reads the system, [`PortTable`] turns what it read into records and events. Only the network namespace of
//! this process is read: a child that makes one of its own listens where none of our clients could reach it.
//!
//! The functions here that read `/proc` block.
//!
//! Sources: proc_pid_net(5), proc_pid_fd(5), `Documentation/networking/proc_net_tcp.rst`.

mod table;

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead as _, BufReader, ErrorKind, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::OsStrExt as _;

use super::children::{Stat, read_stat, started_at_ticks};

pub use table::{Port, PortEvent, PortTable};

/// A socket that listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listening {
    /// Its port.
    pub port: u16,
    /// Its address; `0.0.0.0` and `::` stand for all. An IPv4 address mapped into IPv6 is given as IPv4.
    pub address: IpAddr,
    /// Names the socket as long as it is open.
    pub inode: u64,
}

/// The process that answers for each socket, by inode. One that can't be told has no entry.
pub type Owners = HashMap<u64, u32>;

/// Looks at the listening sockets again and again, and for their owners only when something has changed.
#[derive(Debug, Default)]
pub struct PortScan {
    seen: BTreeSet<(u64, u16)>,
    owners: HashMap<u64, Holder>,
    /// A socket's owner wasn't found last time, as when it is just being handed over: worth exactly one more look.
    again: bool,
}

/// A process that holds a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Holder {
    pid: u32,
    parent: i32,
    start_ticks: u64,
}

impl From<Stat> for Holder {
    fn from(stat: Stat) -> Self {
        Self { pid: stat.pid.cast_unsigned(), parent: stat.parent, start_ticks: stat.start_ticks }
    }
}

impl PortScan {
    /// What listens now, and who answers for it. Not for many times a second: the kernel walks its whole table of
    /// connections for each look, which takes it 5 to 30 ms on a machine with 24 GB, however few there are.
    ///
    /// # Errors
    /// The kernel's table can't be read.
    pub fn look(&mut self) -> Result<(Vec<Listening>, Owners)> {
        let now = listening()?;
        let seen: BTreeSet<_> = now.iter().map(|one| (one.inode, one.port)).collect();
        let changed = seen != self.seen;
        // A server may hand its socket to a child and end: the socket stays the same.
        let lost = || self.owners.values().any(|holder| started_at_ticks(holder.pid) != Some(holder.start_ticks));
        if changed || self.again || lost() {
            let inodes: BTreeSet<u64> = seen.iter().map(|(inode, _)| *inode).collect();
            self.owners = holders(&inodes);
            self.again = changed && self.owners.len() < inodes.len();
            self.seen = seen;
        }
        Ok((now, self.owners.iter().map(|(inode, holder)| (*inode, holder.pid)).collect()))
    }
}

/// Every listening TCP socket of this network namespace.
///
/// # Errors
/// `/proc/net/tcp` can't be read. A machine without IPv6 has no `/proc/net/tcp6`, which is none.
pub fn listening() -> Result<Vec<Listening>> {
    let mut found = read_table("/proc/net/tcp")?;
    match read_table("/proc/net/tcp6") {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        more => found.extend(more?),
    }
    Ok(found)
}

/// Line by line: with many connections the table is long, and few lines listen.
fn read_table(path: &str) -> Result<Vec<Listening>> {
    let mut found = Vec::new();
    for line in BufReader::new(std::fs::File::open(path)?).lines() {
        found.extend(parse_line(&line?));
    }
    Ok(found)
}

/// `None` for the header, and for sockets that don't listen.
fn parse_line(line: &str) -> Option<Listening> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (address, port) = fields.next()?.rsplit_once(':')?;
    if fields.nth(1)? != "0A" {
        return None;
    }
    let inode = fields.nth(5)?.parse().ok().filter(|inode| *inode != 0)?;
    Some(Listening { port: u16::from_str_radix(port, 16).ok()?, address: parse_address(address)?, inode })
}

/// The kernel prints each 32-bit word of the address, which is in network order, as a number of this machine.
fn parse_address(hex: &str) -> Option<IpAddr> {
    let mut octets = [0; 16];
    let words = hex.as_bytes().chunks(8);
    let count = words.len();
    if !hex.len().is_multiple_of(8) || count > 4 {
        return None;
    }
    for (word, octets) in words.zip(octets.chunks_mut(4)) {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        octets.copy_from_slice(&word.to_ne_bytes());
    }
    match count {
        1 => Some(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]).into()),
        4 => Some(Ipv6Addr::from(octets).to_canonical()),
        _ => None,
    }
}

/// Looks through the descriptors of all processes; those it may not read are left out.
fn holders(inodes: &BTreeSet<u64>) -> HashMap<u64, Holder> {
    let mut found: HashMap<u64, Vec<Holder>> = HashMap::new();
    if inodes.is_empty() {
        return HashMap::new();
    }
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let held: BTreeSet<u64> = sockets(pid).filter(|inode| inodes.contains(inode)).collect();
        let Some(stat) = (!held.is_empty()).then(|| read_stat(pid)).flatten() else { continue };
        for inode in held {
            found.entry(inode).or_default().push(stat.into());
        }
    }
    found.into_iter().filter_map(|(inode, holders)| Some((inode, chief(&holders)?))).collect()
}

/// The inodes of the sockets that a process has open.
fn sockets(pid: i32) -> impl Iterator<Item = u64> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let link = std::fs::read_link(entry.path()).ok()?;
        std::str::from_utf8(link.as_os_str().as_bytes()).ok()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    })
}

/// Of several holders the one that the others come from: the oldest, and among those of one clock tick the one whose
/// parent is not among them.
fn chief(holders: &[Holder]) -> Option<Holder> {
    let among = |pid: i32| holders.iter().any(|holder| i64::from(holder.pid) == i64::from(pid));
    holders.iter().min_by_key(|holder| (holder.start_ticks, among(holder.parent), holder.pid)).copied()
}

#[cfg(test)]
mod tests;
