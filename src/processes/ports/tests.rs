#![allow(clippy::disallowed_methods)] // starts processes that listen

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use super::*;
use crate::processes::children::cookie_owner;
use crate::processes::{COOKIE_VARIABLE, TEST_CHILDREN};

fn parse(text: &str) -> Vec<Listening> {
    text.lines().filter_map(parse_line).collect()
}

#[cfg(target_endian = "little")]
#[test]
fn only_listening_sockets_are_read_from_the_table() {
    let text = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:07E8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 74 1 0000000061adcb43 100 0 0 10 0
   1: 0100007F:1F90 00000000:0000 0A 00000000:00000005 00:00000000 00000000  1000        0 4711 1 0000000000000000 100 0 0 10 5
   2: 0100007F:1F90 0100007F:C350 01 00000000:00000000 02:00000A1B 00000000  1000        0 4712 2 0000000000000000 20 4 30 10 -1
   3: 0100007F:C350 0100007F:1F90 06 00000000:00000000 03:00000C2E 00000000     0        0 0 3 0000000000000000
";
    let all = Listening { port: 2024, address: "0.0.0.0".parse().unwrap(), inode: 74 };
    let loopback = Listening { port: 8080, address: "127.0.0.1".parse().unwrap(), inode: 4711 };
    assert_eq!(parse(text), [all, loopback]);
}

#[cfg(target_endian = "little")]
#[test]
fn addresses_of_version_6_are_read_and_mapped_ones_are_version_4() {
    let text = "\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:0BB8 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0000000000000000 100 0 0 10 0
   1: 00000000000000000000000001000000:0BB9 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12 1 0000000000000000 100 0 0 10 0
   2: 0000000000000000FFFF00000100007F:0BBA 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 13 1 0000000000000000 100 0 0 10 0
   3: B80D0120000000000000000001000000:0BBB 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 14 1 0000000000000000 100 0 0 10 0
";
    let found: Vec<_> = parse(text).iter().map(|one| (one.port, one.address.to_string(), one.inode)).collect();
    let expected = [(3000, "::", 11), (3001, "::1", 12), (3002, "127.0.0.1", 13), (3003, "2001:db8::1", 14)];
    assert_eq!(found, expected.map(|(port, address, inode)| (port, address.to_owned(), inode)));
}

#[test]
fn rubbish_is_no_socket() {
    for line in ["", "0: x", "0: 0100007F:1F90 0:0 0A", "0: 0100:1F90 0:0 0A a b c d e 5", "0: é0100007:1 0:0 0A a b c d e 5"] {
        assert_eq!(parse_line(line), None, "{line}");
    }
    assert_eq!(parse_line("0: 00000000:1F90 0:0 0A a b c d e 0"), None, "no inode, so nobody holds it");
    assert!(parse_line("0: 00000000:1F90 0:0 0A a b c d e 5").is_some());
}

#[test]
fn the_chief_is_the_oldest_and_then_the_parent() {
    let holder = |pid, parent, start_ticks| Holder { pid, parent, start_ticks };
    assert_eq!(chief(&[holder(5, 9, 200), holder(9, 1, 100)]), Some(holder(9, 1, 100)));
    // Numbers start anew after the highest: a child may have a lower one than its parent.
    assert_eq!(chief(&[holder(5, 900, 100), holder(900, 1, 100)]), Some(holder(900, 1, 100)));
    assert_eq!(chief(&[holder(6, 1, 100), holder(5, 1, 100)]), Some(holder(5, 1, 100)));
    assert_eq!(chief(&[]), None);
}

#[test]
fn a_listener_of_this_process_is_found_until_it_is_closed() {
    let mut scan = PortScan::default();
    let mut table = PortTable::default();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let me = std::process::id();
    let (now, owners) = scan.look().unwrap();
    table.update(&now, &owners, |pid| (pid == me).then_some("us"));
    let ours = Port { port: address.port(), pid: Some(me), owner: Some("us"), addresses: vec![address.ip()] };
    assert!(table.ports().any(|port| *port == ours), "{now:?}");
    drop(listener);
    let (now, owners) = scan.look().unwrap();
    let events = table.update(&now, &owners, |_| None);
    assert!(events.contains(&PortEvent::Closed(ours)), "{events:?}");
}

/// Listens, forks a child that holds the socket too, and prints the port and the child's number. The parent ends at the
/// first byte of its input. The child, which waits for that, ends at the next byte or the input's end.
const FORKING: &str = "
import os, socket, sys
s = socket.socket()
s.bind(('127.0.0.1', 0))
s.listen()
r, w = os.pipe()
pid = os.fork()
if pid == 0:
    os.close(w)
    os.read(r, 1)
    os.read(0, 1)
    os._exit(0)
print(s.getsockname()[1], pid, flush=True)
os.read(0, 1)
";

#[test]
fn a_forked_servers_port_is_its_parents_and_then_its_childs() {
    let _alone = TEST_CHILDREN.blocking_lock();
    let mut command = Command::new("python3");
    command.args(["-c", FORKING]).env(COOKIE_VARIABLE, "store/run/proc_7").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut server = match command.spawn() {
        Ok(server) => server,
        Err(error) => return eprintln!("NOT TESTED: a forked server's port, because there is no python3: {error}"),
    };
    let (mut stdin, mut stdout) = (server.stdin.take().unwrap(), server.stdout.take().unwrap());
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        let mut byte = [0];
        stdout.read_exact(&mut byte).unwrap();
        line.push(byte[0]);
    }
    let line = String::from_utf8(line).unwrap();
    let (port, child) = line.trim().split_once(' ').unwrap();
    let (port, child): (u16, u32) = (port.parse().unwrap(), child.parse().unwrap());

    let mut scan = PortScan::default();
    let mut owner = || {
        let (now, owners) = scan.look().unwrap();
        now.iter().find(|one| one.port == port).and_then(|one| owners.get(&one.inode).copied())
    };
    let first = owner().unwrap();
    assert_eq!(first, server.id());
    assert_eq!(read_stat(child.cast_signed()).unwrap().parent, first.cast_signed());
    assert_eq!(cookie_owner(first).as_deref(), Some("store/run/proc_7"));
    assert_eq!(cookie_owner(child).as_deref(), Some("store/run/proc_7"));

    stdin.write_all(b"1").unwrap();
    server.wait().unwrap();
    assert_eq!(owner(), Some(child), "the socket has not changed, but its first owner is gone");
    drop(stdin);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while owner().is_some() {
        assert!(std::time::Instant::now() < deadline, "the child still listens");
        std::thread::yield_now();
    }
}
