//! Where peers can reach us.

use std::net::{IpAddr, SocketAddr};

use crate::peer::Places;

/// Candidates in one offer, of each kind: a browser checks each of them with each of its own.
const PLACES_MAX: usize = 8;

/// In the order in which they should be tried: what was told by configuration, where the client found us (`asked_at`), then the
/// machine's own addresses.
pub(crate) fn places(port: u16, configured: &[IpAddr], asked_at: Option<IpAddr>, own: &[IpAddr]) -> Places {
    let mut all: Vec<IpAddr> = Vec::new();
    for address in configured.iter().copied().chain(asked_at).chain(own.iter().copied()) {
        if is_reachable(address) && !all.contains(&address) && all.len() < PLACES_MAX {
            all.push(address);
        }
    }
    let places: Vec<SocketAddr> = all.into_iter().map(|address| SocketAddr::new(address, port)).collect();
    Places { udp: places.clone(), tcp: places }
}

/// The addresses of the machine's interfaces.
pub(crate) fn own() -> Vec<IpAddr> {
    let all = match nix::ifaddrs::getifaddrs() {
        Ok(all) => all,
        Err(error) => {
            tracing::warn!(%error, "the machine's addresses aren't known");
            return Vec::new();
        }
    };
    let address = |storage: nix::sys::socket::SockaddrStorage| {
        let v4 = storage.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|address| IpAddr::from(address.ip())))
    };
    all.filter_map(|interface| interface.address.and_then(address)).collect()
}

/// Link-local addresses need a scope that no candidate has (RFC 8445, 5.1.1.1).
fn is_reachable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_unspecified() && !address.is_link_local() && !address.is_multicast(),
        IpAddr::V6(address) => !address.is_unspecified() && !address.is_unicast_link_local() && !address.is_multicast(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn what_was_configured_comes_first_and_nothing_twice() {
        let own = [ip("127.0.0.1"), ip("10.0.0.5"), ip("fe80::1"), ip("169.254.3.4")];
        let places = places(9, &[ip("203.0.113.7"), ip("10.0.0.5")], Some(ip("127.0.0.1")), &own);
        let expected: Vec<SocketAddr> = ["203.0.113.7:9", "10.0.0.5:9", "127.0.0.1:9"].map(|at| at.parse().expect("one")).into();
        assert_eq!((&places.udp, &places.tcp), (&expected, &expected));
    }

    #[test]
    fn there_are_not_too_many() {
        let own: Vec<IpAddr> = (1..=50).map(|last| ip(&format!("10.0.0.{last}"))).collect();
        assert_eq!(places(9, &[], None, &own).udp.len(), PLACES_MAX);
    }
}
