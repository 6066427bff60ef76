//! The ports that are open, and what has changed since the last look. Pure.
//!
//! ```text
//! (absent) ──listened on──▶ open ──no longer, or by another process──▶ (absent)
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Listening, Owners};

/// How many records a table holds. What is above that is not recorded, and counted in [`PortTable::left_out`].
pub const PORTS_MAX: usize = 4096;

/// A port that one process listens on, at one address or several. `T` is what a process is to the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port<T> {
    /// The port.
    pub port: u16,
    /// The process; absent when that can't be told, as with another user's.
    pub pid: Option<u32>,
    /// What that process belongs to; absent when it is none of ours.
    pub owner: Option<T>,
    /// Where it listens: sorted, each once.
    pub addresses: Vec<IpAddr>,
}

/// What happened to a port. More or fewer addresses of a port that stays open are no event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortEvent<T> {
    /// A process listens on it now.
    Opened(Port<T>),
    /// That process no longer does.
    Closed(Port<T>),
}

/// The ports that were open at the last look. A port that several processes listen on is in it once for each.
#[derive(Debug)]
pub struct PortTable<T> {
    ports: BTreeMap<Key, Port<T>>,
    left_out: usize,
}

/// Port and process.
type Key = (u16, Option<u32>);

impl<T> Default for PortTable<T> {
    fn default() -> Self {
        Self { ports: BTreeMap::new(), left_out: 0 }
    }
}

impl<T: Clone> PortTable<T> {
    /// Takes up what listens now. First come the ports that closed, then those that opened, each in order of number, so
    /// a port that changed its process is closed before it is opened. `resolve` is asked once for each port that opens.
    pub fn update(&mut self, now: &[Listening], owners: &Owners, resolve: impl Fn(u32) -> Option<T>) -> Vec<PortEvent<T>> {
        let mut open: BTreeMap<Key, Vec<IpAddr>> = BTreeMap::new();
        for one in now {
            open.entry((one.port, owners.get(&one.inode).copied())).or_default().push(one.address);
        }
        let closed = self.ports.extract_if(.., |key, _| !open.contains_key(key));
        let mut events: Vec<_> = closed.map(|(_, port)| PortEvent::Closed(port)).collect();
        self.left_out = 0;
        for ((port, pid), mut addresses) in open {
            addresses.sort_unstable();
            addresses.dedup();
            let room = self.ports.len() < PORTS_MAX;
            if let Some(known) = self.ports.get_mut(&(port, pid)) {
                known.addresses = addresses;
            } else if room {
                let opened = Port { port, pid, owner: pid.and_then(&resolve), addresses };
                self.ports.insert((port, pid), opened.clone());
                events.push(PortEvent::Opened(opened));
            } else {
                self.left_out += 1;
            }
        }
        events
    }

    /// The open ports in order of number.
    pub fn ports(&self) -> impl Iterator<Item = &Port<T>> {
        self.ports.values()
    }

    /// How many more there were at the last look than a table holds.
    pub fn left_out(&self) -> usize {
        self.left_out
    }
}

#[cfg(test)]
mod tests {
    use super::PortEvent::{Closed, Opened};
    use super::*;

    fn at(port: u16, address: &str, inode: u64) -> Listening {
        Listening { port, address: address.parse().expect("an address"), inode }
    }

    fn port(port: u16, pid: Option<u32>, addresses: &[&str]) -> Port<String> {
        let addresses = addresses.iter().map(|address| address.parse().expect("an address")).collect();
        Port { port, pid, owner: pid.map(|pid| format!("proc_{pid}")), addresses }
    }

    fn resolve(pid: u32) -> Option<String> {
        Some(format!("proc_{pid}"))
    }

    #[test]
    fn addresses_of_one_port_and_process_are_one_record() {
        let mut table = PortTable::default();
        let now = [at(80, "::", 2), at(80, "0.0.0.0", 1), at(80, "0.0.0.0", 3)];
        let owners = Owners::from([(1, 7), (2, 7), (3, 7)]);
        assert_eq!(table.update(&now, &owners, resolve), [Opened(port(80, Some(7), &["0.0.0.0", "::"]))]);
        assert_eq!(table.update(&now, &owners, |_| panic!("asked again")), []);
        assert_eq!(table.update(&now[..1], &owners, resolve), []);
        assert_eq!(table.ports().collect::<Vec<_>>(), [&port(80, Some(7), &["::"])]);
        assert_eq!(table.update(&[], &Owners::new(), resolve), [Closed(port(80, Some(7), &["::"]))]);
        assert_eq!(table.ports().count(), 0);
    }

    #[test]
    fn a_port_that_changes_its_process_closes_before_it_opens() {
        let mut table = PortTable::default();
        let now = [at(80, "::", 1)];
        table.update(&now, &Owners::from([(1, 7)]), resolve);
        let changed = [Closed(port(80, Some(7), &["::"])), Opened(port(80, Some(5), &["::"]))];
        assert_eq!(table.update(&now, &Owners::from([(1, 5)]), resolve), changed);
    }

    #[test]
    fn two_processes_on_one_port_are_two_records() {
        let mut table = PortTable::default();
        let now = [at(80, "127.0.0.1", 1), at(80, "127.0.0.2", 2), at(81, "::1", 3)];
        let owners = Owners::from([(1, 7), (2, 8)]);
        assert_eq!(table.update(&now, &owners, resolve).len(), 3);
        let closed = table.update(&now[1..], &owners, resolve);
        assert_eq!(closed, [Closed(port(80, Some(7), &["127.0.0.1"]))]);
        let left = [&port(80, Some(8), &["127.0.0.2"]), &port(81, None, &["::1"])];
        assert_eq!(table.ports().collect::<Vec<_>>(), left);
    }

    #[test]
    fn a_full_table_keeps_what_it_has_and_counts_the_rest() {
        let mut table = PortTable::default();
        let all: Vec<_> = (1..=5000).map(|number| at(number, "::", number.into())).collect();
        assert_eq!(table.update(&all[904..], &Owners::new(), resolve).len(), PORTS_MAX);
        assert_eq!(table.update(&all, &Owners::new(), resolve), []);
        assert_eq!((table.ports().count(), table.left_out()), (PORTS_MAX, 904));
        let events = table.update(&all[1..4999], &Owners::new(), resolve);
        assert_eq!(events, [Closed(port(5000, None, &["::"])), Opened(port(2, None, &["::"]))]);
    }
}
