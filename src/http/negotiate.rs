//! What a client would rather have (RFC 9110 section 12): lists whose members have weights.

use std::net::IpAddr;

use http::header::{ACCEPT, ACCEPT_ENCODING, HeaderName};
use http::{HeaderMap, HeaderValue};

use crate::fs::Coding;

/// A weight in thousandths: 0 refuses.
type Weight = u16;

/// Without a word about it, something that isn't encoded is welcome, but anything that is named is more so.
const UNNAMED: Weight = 1;
const FULL: Weight = 1000;

/// Where a connection comes from.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// How closely `Accept` names a media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Named {
    /// `*/*`.
    Any,
    /// `image/*`.
    Kind,
    /// `image/png`.
    Itself,
}

/// What `Accept` says of a media type: the closest of its ranges counts. `None` when none covers it, or there is no such
/// header.
pub fn media(headers: &HeaderMap, kind: &str, subtype: &str) -> Option<(Named, Weight)> {
    let fits = |(range, weight): (String, Weight)| {
        let (its_kind, its_subtype) = range.split_once('/')?;
        let named = match (its_kind, its_subtype) {
            ("*", "*") => Named::Any,
            (its, "*") if its == kind => Named::Kind,
            (its, its_subtype) if its == kind && its_subtype == subtype => Named::Itself,
            _ => return None,
        };
        Some((named, weight))
    };
    weighted(headers, &ACCEPT).filter_map(fits).max()
}

/// The coding that a client has named and likes best; `None` for the content as it is. On a loopback address gzip would cost
/// both sides more than it saves, so that is only for clients that refuse what isn't encoded.
pub fn coding(headers: &HeaderMap, peer: Option<Peer>) -> Option<Coding> {
    let members: Vec<_> = weighted(headers, &ACCEPT_ENCODING).collect();
    let weight = |name: &str| members.iter().find(|(member, _)| member == name).map(|(_, weight)| *weight);
    let plain = weight("identity").or_else(|| weight("*")).unwrap_or(UNNAMED);
    let is_near = peer.is_none_or(|Peer(ip)| ip.to_canonical().is_loopback());
    let wanted = |coding: Coding| {
        let named = weight(coding.as_str());
        let weight = named.or_else(|| weight("*").filter(|_| plain == 0))?;
        let is_worth_it = coding == Coding::Zstd || !is_near || plain == 0;
        (weight > 0 && weight >= plain && is_worth_it).then_some((weight, coding))
    };
    // The last of those that are as welcome.
    [Coding::Gzip, Coding::Zstd].into_iter().filter_map(wanted).max_by_key(|(weight, _)| *weight).map(|(_, coding)| coding)
}

/// The members of a list in lower case, without parameters, and their weights.
fn weighted(headers: &HeaderMap, name: &HeaderName) -> impl Iterator<Item = (String, Weight)> {
    let values = headers.get_all(name).iter().filter_map(|value: &HeaderValue| value.to_str().ok());
    let members = values.flat_map(|value| value.split(',')).map(str::trim).filter(|member| !member.is_empty());
    members.map(|member| {
        let mut parts = member.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        (name, weight.and_then(thousandths).unwrap_or(FULL))
    })
}

/// `0.5` is 500. `None` for what is no weight.
fn thousandths(weight: &str) -> Option<Weight> {
    let weight: f32 = weight.trim().parse().ok()?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // between 0 and 1000
    (0.0..=1.0).contains(&weight).then(|| (weight * f32::from(FULL)).round() as Weight)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const FAR: Option<Peer> = Some(Peer(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7))));
    const NEAR: Option<Peer> = Some(Peer(IpAddr::V4(Ipv4Addr::LOCALHOST)));

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().expect("a header"))])
    }

    #[test]
    fn the_closest_range_counts() {
        let png = |accept: &str| media(&headers(ACCEPT, accept), "image", "png");
        assert_eq!(png("text/html"), None);
        assert_eq!(media(&HeaderMap::new(), "image", "png"), None);
        assert_eq!(png("*/*;q=0.8, image/*;q=0.25"), Some((Named::Kind, 250)));
        assert_eq!(png("IMAGE/PNG; Q=0.001, image/*"), Some((Named::Itself, 1)));
        assert_eq!(png("image/png;q=0, */*"), Some((Named::Itself, 0)));
        assert_eq!(png("image/png;q=much"), Some((Named::Itself, 1000)));
    }

    #[test]
    fn codings_by_weight_and_distance() {
        for (accepted, far, near) in [
            ("", None, None),
            ("br, deflate", None, None),
            ("gzip, deflate", Some(Coding::Gzip), None),
            ("gzip, deflate, br, zstd", Some(Coding::Zstd), Some(Coding::Zstd)),
            ("zstd;q=0.5, gzip", Some(Coding::Gzip), Some(Coding::Zstd)),
            ("zstd;q=0, GZIP;q=0.001", Some(Coding::Gzip), None),
            ("gzip;q=0.5, identity", None, None),
            ("gzip, identity;q=0", Some(Coding::Gzip), Some(Coding::Gzip)),
            ("gzip, *;q=0", Some(Coding::Gzip), Some(Coding::Gzip)),
            ("identity;q=0, *", Some(Coding::Zstd), Some(Coding::Zstd)),
            ("*", None, None),
            ("*;q=0", None, None),
        ] {
            let headers = headers(ACCEPT_ENCODING, accepted);
            assert_eq!((coding(&headers, FAR), coding(&headers, NEAR)), (far, near), "{accepted}");
        }
        let mapped = Some(Peer("::ffff:127.0.0.1".parse().expect("an address")));
        assert_eq!(coding(&headers(ACCEPT_ENCODING, "gzip"), mapped), None);
    }
}
