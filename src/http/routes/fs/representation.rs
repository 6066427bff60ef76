//! As what a file is sent: its type and its coding, as far as the client asks for one (RFC 9110 section 12).

use http::{HeaderMap, HeaderValue, header};

use crate::fs::{Coding, Error, Fs, Opened};
use crate::http::negotiate::{self, Named, Peer, media};

/// Smaller files aren't encoded: headers alone have as many bytes.
const ENCODED_MIN_BYTES: u64 = 1024;
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// What is answered depends on these.
pub(super) const VARY: HeaderValue = HeaderValue::from_static("accept, accept-encoding");

/// Bytes, unless `Accept` names what the file is by its name (or all of that kind, as browsers do for pictures), and doesn't
/// like bytes better.
pub(super) fn content_type(headers: &HeaderMap, opened: &Opened) -> HeaderValue {
    let guessed = mime_guess::from_path(opened.at().path()).first_raw().and_then(|guess| guess.split_once('/'));
    let Some((kind, subtype)) = guessed else { return OCTETS };
    let octets = media(headers, "application", "octet-stream").map_or(0, |(_, weight)| weight);
    match media(headers, kind, subtype) {
        Some((named, weight)) if weight > 0 && weight >= octets => {
            // All of `application` is what clients say that mean bytes.
            let is_meant = named == Named::Itself || (named == Named::Kind && kind != "application");
            let charset = if kind == "text" { "; charset=utf-8" } else { "" };
            let shown = HeaderValue::try_from(format!("{kind}/{subtype}{charset}"));
            shown.ok().filter(|_| is_meant).unwrap_or(OCTETS)
        }
        _ => OCTETS,
    }
}

/// The coding for all of a file. None for a part: what a range counts would be the encoded bytes.
///
/// # Errors
/// When the file can't be read.
pub(super) async fn coding(fs: &Fs, headers: &HeaderMap, peer: Option<Peer>, opened: &Opened) -> Result<Option<Coding>, Error> {
    if headers.contains_key(header::RANGE) || opened.meta.size < ENCODED_MIN_BYTES {
        return Ok(None);
    }
    match negotiate::coding(headers, peer) {
        Some(coding) if fs.shrinks(opened).await? => Ok(Some(coding)),
        _ => Ok(None),
    }
}
