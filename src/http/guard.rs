//! Who may come in: the token, and the pages that a browser lets call us.
//!
//! A browser adds `Origin` to what a page asks for. Requests that change something and WebSockets are refused when it
//! names a page that is neither ours nor allowed by CORS flags. Without a token on a loopback address, a `Host` that
//! is no loopback name is refused too: a hostile page can point its own name at 127.0.0.1 (DNS rebinding).

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, Method, Uri, header};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::problem::{ApiError, ErrorCode};
use crate::config::{Auth, Config};

/// Where a ticket is as good as the token.
const TICKETED: &str = "/v1/desktop/stream/signaling";

fn has_ticket(query: &str) -> bool {
    query.split('&').any(|pair| pair.starts_with("ticket="))
}

/// The rules, ready to be asked.
#[derive(Debug, Clone)]
pub struct Guard(Arc<Rules>);

#[derive(Debug)]
struct Rules {
    /// Hashed, so that comparing takes the same time whatever the lengths.
    token: Option<[u8; 32]>,
    origins: Vec<HeaderValue>,
    any_origin: bool,
    loopback_only: bool,
}

impl Guard {
    /// The rules that this configuration makes.
    pub fn new(config: &Config) -> Self {
        let token = match &config.auth {
            Auth::Open => None,
            Auth::Token(token) => Some(hash(token.expose())),
        };
        let loopback_only = token.is_none() && config.bind.ip().is_loopback();
        let rules = Rules { token, origins: config.cors.origins.clone(), any_origin: config.cors.any_origin, loopback_only };
        Self(Arc::new(rules))
    }

    fn check(&self, request: &Request) -> Result<(), ApiError> {
        let (headers, path) = (request.headers(), request.uri().path());
        let is_websocket = headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
        let host = host(request);
        self.check_host(host.as_deref())?;
        if is_websocket || !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
            self.check_origin(headers, host.as_deref())?;
        }
        if is_websocket && path == TICKETED && request.uri().query().is_some_and(has_ticket) {
            return Ok(()); // the desktop's room reads it
        }
        if ["/v1", "/acp"].iter().any(|root| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
        {
            self.check_token(headers, request.uri(), is_websocket)?;
        }
        Ok(())
    }

    /// `access_token` in the query is for WebSockets alone: browsers can't give those a header.
    fn check_token(&self, headers: &HeaderMap, uri: &Uri, is_websocket: bool) -> Result<(), ApiError> {
        let Some(wanted) = &self.0.token else { return Ok(()) };
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "));
        let query = uri.query().filter(|_| is_websocket).and_then(access_token);
        let fits = |token: &str| bool::from(hash(token).ct_eq(wanted));
        if given.is_some_and(fits) || query.as_deref().is_some_and(fits) {
            return Ok(());
        }
        let message = "missing or invalid bearer token";
        Err(ApiError::new(ErrorCode::TokenInvalid, "token invalid")
            .member("details", serde_json::json!({"message": message}))
            .header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")))
    }

    fn check_origin(&self, headers: &HeaderMap, host: Option<&str>) -> Result<(), ApiError> {
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
        let same = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
        if self.0.any_origin || self.0.origins.contains(origin) || (same.is_some() && same == host) {
            return Ok(());
        }
        let origin = String::from_utf8_lossy(origin.as_bytes()).into_owned();
        Err(ApiError::new(
            ErrorCode::PermissionDenied,
            format!("pages of {origin} may not call this server: start it with --cors-allow-origin {origin} to let them"),
        ))
    }

    fn check_host(&self, host: Option<&str>) -> Result<(), ApiError> {
        let Some(host) = host.filter(|_| self.0.loopback_only) else { return Ok(()) };
        let allowed = |origin: &HeaderValue| {
            origin.to_str().is_ok_and(|origin| origin.split_once("://").is_some_and(|(_, authority)| authority == host))
        };
        if is_loopback_name(host) || self.0.origins.iter().any(allowed) {
            return Ok(());
        }
        Err(ApiError::new(
            ErrorCode::PermissionDenied,
            format!(
                "the Host {host} is not this machine's loopback, and there is no token: use 127.0.0.1 or localhost, start the server \
                 with a token, or allow the name with --cors-allow-origin http://{host}"
            ),
        ))
    }
}

/// The layer.
pub async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    match guard.check(&request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// What the client calls this server: `Host`, or `:authority`, which HTTP/2 has instead (RFC 9113 section 8.3.1). Bytes
/// that aren't text are replaced, so that no name is taken for one of ours.
fn host(request: &Request) -> Option<Cow<'_, str>> {
    if let Some(host) = request.headers().get(header::HOST) {
        return Some(String::from_utf8_lossy(host.as_bytes()));
    }
    let authority = request.uri().authority()?.as_str();
    Some(authority.rsplit_once('@').map_or(authority, |(_, host)| host).into())
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn access_token(query: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("access_token="))?;
    percent_encoding::percent_decode_str(&value.replace('+', " ")).decode_utf8().ok().map(Cow::into_owned)
}

fn is_loopback_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.to_ascii_lowercase().ends_with(".localhost")
        || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_names() {
        for yes in ["127.0.0.1:2468", "localhost", "LOCALHOST:1", "[::1]:2468", "a.localhost:3", "127.8.9.1"] {
            assert!(is_loopback_name(yes), "{yes}");
        }
        for no in ["evil.test:2468", "10.0.0.1", "localhost.evil.test", "[2001:db8::1]:2468", ""] {
            assert!(!is_loopback_name(no), "{no}");
        }
    }

    #[test]
    fn the_name_of_the_server_is_found_with_either_protocol() {
        let request = |uri: &str, host: Option<&[u8]>| {
            let mut request = Request::new(axum::body::Body::empty());
            *request.uri_mut() = uri.parse().expect("a URI");
            let value = host.map(|host| HeaderValue::from_bytes(host).expect("a header"));
            request.headers_mut().extend(value.map(|value| (header::HOST, value)));
            request
        };
        assert_eq!(host(&request("/v1", Some(b"a:1"))).as_deref(), Some("a:1"));
        assert_eq!(host(&request("http://evil.test:1/v1", None)).as_deref(), Some("evil.test:1"));
        assert_eq!(host(&request("http://localhost@evil.test/v1", None)).as_deref(), Some("evil.test"));
        assert_eq!(host(&request("/v1", Some(b"localhost\xff"))).as_deref(), Some("localhost\u{fffd}"));
        assert_eq!(host(&request("/v1", None)), None);
    }

    #[test]
    fn the_query_token_is_decoded() {
        assert_eq!(access_token("a=b&access_token=x%2By+z").as_deref(), Some("x+y z"));
        assert_eq!(access_token("access_tokens=1"), None);
    }
}
