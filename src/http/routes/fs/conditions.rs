//! Conditional requests and ranges (RFC 9110 sections 13 and 14).

use std::ops::Range;

use headers::{ETag, HeaderMapExt as _, IfMatch, IfNoneMatch, IfRange};
use http::{HeaderMap, HeaderValue, header};

use crate::fs::{Expected, Sha256Hex};
use crate::http::problem::{ApiError, ErrorCode};

/// What a read is answered with.
pub(in crate::http::routes) enum Read {
    /// 200.
    All,
    /// 206.
    Part(Range<u64>),
    /// 304: the client has what goes by this tag.
    NotModified(String),
}

/// True when an answer depends on the content's tags; so does what a client may want to compare or to go on with later.
pub(super) fn are_there(headers: &HeaderMap) -> bool {
    [header::IF_MATCH, header::IF_NONE_MATCH, header::IF_RANGE, header::RANGE].iter().any(|name| headers.contains_key(name))
}

/// What of a content of `size` bytes is asked for. It has all these tags; the first is that of the content as it is.
///
/// # Errors
/// 412 when `If-Match` doesn't fit, 416 for a range beyond the end.
pub(in crate::http::routes) fn read(headers: &HeaderMap, etags: &[String], size: u64) -> Result<Read, ApiError> {
    let parsed = || etags.iter().filter_map(|text| Some((text, text.parse::<ETag>().ok()?)));
    if let Some(expected) = headers.typed_get::<IfMatch>()
        && !parsed().any(|(_, etag)| expected.precondition_passes(&etag))
    {
        let now = etags.first().map_or("", String::as_str);
        return Err(ApiError::new(ErrorCode::PreconditionFailed, format!("precondition failed: the file is {now}")));
    }
    if let Some(known) = headers.typed_get::<IfNoneMatch>()
        && let Some((text, _)) = parsed().find(|(_, etag)| !known.precondition_passes(etag))
    {
        return Ok(Read::NotModified(text.clone()));
    }
    let is_whole = |whole: &IfRange| parsed().next().is_some_and(|(_, etag)| !whole.is_modified(Some(&etag), None));
    match headers.get(header::RANGE) {
        Some(range) if headers.typed_get::<IfRange>().is_none_or(|whole| is_whole(&whole)) => part(range, size),
        _ => Ok(Read::All),
    }
}

/// Section 14.1.2. Several ranges at once are answered with all of it, as section 14.2 allows; so is what is no range.
fn part(range: &HeaderValue, size: u64) -> Result<Read, ApiError> {
    let spec = range.to_str().ok().and_then(|range| range.strip_prefix("bytes=")).map(str::trim);
    let Some((start, end)) = spec.filter(|spec| !spec.contains(',')).and_then(|spec| spec.split_once('-')) else {
        return Ok(Read::All);
    };
    let part = match (start.parse::<u64>(), end.parse::<u64>()) {
        (Ok(start), Ok(last)) if start <= last => start..last.saturating_add(1).min(size),
        (Ok(start), Err(_)) if end.is_empty() => start..size,
        (Err(_), Ok(count)) if start.is_empty() => size.saturating_sub(count)..size,
        _ => return Ok(Read::All),
    };
    if part.start < part.end { Ok(Read::Part(part)) } else { Err(beyond(size)) }
}

fn beyond(size: u64) -> ApiError {
    let error = ApiError::new(ErrorCode::RangeNotSatisfiable, format!("range not satisfiable: the file has {size} bytes"));
    match HeaderValue::from_str(&format!("bytes */{size}")) {
        Ok(value) => error.header(header::CONTENT_RANGE, value),
        Err(_) => error,
    }
}

/// What must be there for a change to be made: `If-Match` and `If-None-Match`, by content hashes.
///
/// # Errors
/// 400 for both at once, or what is no list of entity tags.
pub(super) fn expected(headers: &HeaderMap) -> Result<Expected, ApiError> {
    match (tags(headers, &header::IF_MATCH)?, tags(headers, &header::IF_NONE_MATCH)?) {
        (None, None) => Ok(Expected::Anything),
        (Some(Tags::Any), None) => Ok(Expected::Something),
        (Some(Tags::These(hashes)), None) => Ok(Expected::Content(hashes)),
        (None, Some(Tags::Any)) => Ok(Expected::Nothing),
        (None, Some(Tags::These(hashes))) => Ok(Expected::Not(hashes)),
        (Some(_), Some(_)) => Err(ApiError::invalid("If-Match and If-None-Match together: send one of them")),
    }
}

enum Tags {
    Any,
    These(Vec<Sha256Hex>),
}

/// A weak tag, and one that is no hash, fits no content.
fn tags(headers: &HeaderMap, name: &header::HeaderName) -> Result<Option<Tags>, ApiError> {
    let mut hashes = Vec::new();
    let mut values = headers.get_all(name).iter().peekable();
    if values.peek().is_none() {
        return Ok(None);
    }
    for value in values {
        let no_list = || ApiError::invalid(format!("{name} must be * or entity tags, like \"<sha256>\""));
        let text = value.to_str().map_err(|_| no_list())?;
        if text.trim() == "*" {
            return Ok(Some(Tags::Any));
        }
        for tag in text.split(',').map(str::trim).filter(|tag| !tag.is_empty()) {
            let opaque = tag.strip_prefix("W/").unwrap_or(tag);
            let opaque = opaque.strip_prefix('"').and_then(|opaque| opaque.strip_suffix('"')).ok_or_else(no_list)?;
            hashes.extend(Sha256Hex::of_etag(opaque).filter(|_| !tag.starts_with("W/")));
        }
    }
    Ok(Some(Tags::These(hashes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::{Coding, Validator};

    fn etags() -> Vec<String> {
        let content = Validator::Content(Sha256Hex::of(b"0123456789"));
        vec![content.etag(None), content.etag(Some(Coding::Zstd)), Validator::Times("1-2-3".to_owned()).etag(None)]
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (header::HeaderName::from_static(name), value.parse().expect("a header"))).collect()
    }

    fn ask(pairs: &[(&'static str, &str)]) -> String {
        match read(&headers(pairs), &etags(), 10) {
            Ok(Read::All) => "all".to_owned(),
            Ok(Read::Part(part)) => format!("{part:?}"),
            Ok(Read::NotModified(etag)) => format!("has {etag}"),
            Err(error) => error.body()["status"].to_string(),
        }
    }

    #[test]
    fn ranges() {
        for (range, answer) in [
            ("bytes=0-3", "0..4"),
            ("bytes=5-", "5..10"),
            ("bytes=-4", "6..10"),
            ("bytes=-40", "0..10"),
            ("bytes=8-99", "8..10"),
            ("bytes=10-", "416"),
            ("bytes=0-1,4-5", "all"),
            ("bytes=-0", "416"),
            ("bytes=5-3", "all"),
            ("lines=0-1", "all"),
        ] {
            assert_eq!(ask(&[("range", range)]), answer, "{range}");
        }
    }

    #[test]
    fn conditions() {
        let [tag, encoded, weak] = &etags()[..] else { panic!("three") };
        for known in [tag, encoded, weak] {
            assert_eq!(ask(&[("if-none-match", known)]), format!("has {known}"));
        }
        assert_eq!(ask(&[("if-none-match", &format!("W/{tag}"))]), format!("has {tag}"));
        assert_eq!(ask(&[("if-match", encoded)]), "all");
        assert_eq!(ask(&[("if-match", weak)]), "412");
        assert_eq!(ask(&[("range", "bytes=0-3"), ("if-range", encoded)]), "all");
        assert_eq!(ask(&[("if-none-match", "\"x\"")]), "all");
        assert_eq!(ask(&[("if-match", "\"x\"")]), "412");
        assert_eq!(ask(&[("range", "bytes=0-3"), ("if-range", tag)]), "0..4");
        assert_eq!(ask(&[("range", "bytes=0-3"), ("if-range", "\"x\"")]), "all");
    }

    #[test]
    fn what_a_write_expects() {
        let hash = Sha256Hex::of(b"a");
        let tag = format!("\"{}\"", hash.as_str());
        let of = |pairs: &[(&'static str, &str)]| expected(&headers(pairs)).ok();
        assert_eq!(of(&[]), Some(Expected::Anything));
        assert_eq!(of(&[("if-match", "*")]), Some(Expected::Something));
        assert_eq!(of(&[("if-none-match", "*")]), Some(Expected::Nothing));
        assert_eq!(of(&[("if-match", &tag)]), Some(Expected::Content(vec![hash.clone()])));
        assert_eq!(
            of(&[("if-match", &tag.replace("\"", "-gzip\"").replacen("-gzip", "", 1))]),
            Some(Expected::Content(vec![hash]))
        );
        assert_eq!(of(&[("if-match", &format!("W/{tag}, \"x\""))]), Some(Expected::Content(vec![])));
        assert_eq!(of(&[("if-match", "x")]), None);
    }
}
