//! The HTTP client of the command line: plain HTTP and TLS in a root without a resolver or certificates.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use super::{Failure, json};
use crate::config::{Env, Secret};

/// Where `server` listens by default.
pub(super) const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:2468";

/// A server that doesn't take a connection by then isn't there. There is no limit on the answer: a turn may take a day.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How soon a peer that vanished without a word is noticed.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// One server, and the way in.
pub(super) struct Client {
    http: reqwest::Client,
    endpoint: Url,
    token: Option<Secret>,
}

impl Client {
    /// A client for the server at `endpoint`. Connects to nothing yet.
    ///
    /// # Errors
    /// The endpoint is no URL of a server, or `SSL_CERT_FILE` can't be used.
    pub(super) fn new(endpoint: &str, token: Option<Secret>, env: &Env) -> Result<Self, Failure> {
        let bad = |why: &str| Failure::usage(format_args!("--endpoint {endpoint:?}: {why}; give it like {DEFAULT_ENDPOINT}"));
        let endpoint = Url::parse(endpoint).map_err(|error| bad(&error.to_string()))?;
        if !matches!(endpoint.scheme(), "http" | "https") {
            return Err(bad("only http and https are spoken"));
        }
        let http = build(&endpoint, env)?;
        Ok(Self { http, endpoint, token })
    }

    /// The endpoint without a slash at its end.
    pub(super) fn endpoint(&self) -> &str {
        self.endpoint.as_str().trim_end_matches('/')
    }

    /// A request for the resource with these path segments, which may hold any characters.
    pub(super) fn request(&self, method: Method, segments: &[&str], query: &[(&str, &str)]) -> RequestBuilder {
        let mut url = self.endpoint.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments); // http and https URLs always have a path
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = self.http.request(method, url);
        match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        }
    }

    /// Sends a request that must succeed.
    ///
    /// # Errors
    /// The server can't be reached, or answers with another status than 2xx: its problem is part of the failure.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.text().await.unwrap_or_default();
        let hint =
            if status == StatusCode::UNAUTHORIZED { ": give the server's token by SANDBOXD_TOKEN or --token-file" } else { "" };
        Err(Failure::failed(format_args!("unexpected http status: {status}{hint}")).with_body(json::pretty(&body)))
    }

    /// Sends a request that must succeed, and gives the body as text.
    ///
    /// # Errors
    /// As [`Client::send`], and when the connection breaks off within the body.
    pub(super) async fn fetch(&self, request: RequestBuilder) -> Result<String, Failure> {
        let response = self.send(request).await?;
        response.text().await.map_err(|error| Failure::failed(format_args!("the answer broke off: {}", cause(&error))))
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let endpoint = self.endpoint();
        let help = if error.is_connect() { "; is the server running there?" } else { "" };
        Failure::failed(format_args!("no answer from {endpoint}: {}{help}", cause(error)))
    }
}

/// The innermost reason: the outer ones only repeat the URL.
pub(super) fn cause(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// The one place that builds an HTTP client.
fn build(endpoint: &Url, env: &Env) -> Result<reqwest::Client, Failure> {
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls(env)?)
        .user_agent(concat!("sandboxd/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none()) // the API has none, and a token follows no stranger's
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_keepalive(TCP_KEEPALIVE);
    if is_loopback(endpoint) {
        // Another machine's loopback is not ours: no proxy. And no resolver needs to be there for this name.
        let both = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)].map(|ip| SocketAddr::new(ip, 0));
        builder = builder.no_proxy().resolve_to_addrs("localhost", &both);
    }
    builder.build().map_err(|error| Failure::failed(format_args!("can't make an HTTP client: {}", cause(&error))))
}

/// Compiled-in roots, and those of the file that `SSL_CERT_FILE` names.
fn tls(env: &Env) -> Result<rustls::ClientConfig, Failure> {
    let mut roots = rustls::RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(path) = env.path("SSL_CERT_FILE") {
        let bad = |error: &dyn std::fmt::Display| Failure::usage(format_args!("SSL_CERT_FILE {}: {error}", path.display()));
        for certificate in CertificateDer::pem_file_iter(&path).map_err(|error| bad(&error))? {
            roots.add_parsable_certificates([certificate.map_err(|error| bad(&error))?]);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| Failure::failed(format_args!("can't set up TLS: {error}")))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn is_loopback(endpoint: &Url) -> bool {
    let host = endpoint.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_endpoints() {
        let loopback = |text: &str| is_loopback(&Url::parse(text).expect("a URL"));
        for yes in ["http://127.0.0.1:2468", "http://localhost", "https://[::1]:1/x", "http://LOCALHOST:3"] {
            assert!(loopback(yes), "{yes}");
        }
        for no in ["http://10.0.0.1", "http://localhost.example", "http://[2001:db8::1]"] {
            assert!(!loopback(no), "{no}");
        }
    }

    #[test]
    fn segments_may_hold_anything() {
        let client = Client::new("http://h/base/", None, &Env::default()).unwrap_or_else(|failure| panic!("{failure:?}"));
        let request = client.request(Method::GET, &["v1", "acp", "a/b ?%"], &[("agent", "x&y")]).build().expect("a request");
        assert_eq!(request.url().as_str(), "http://h/base/v1/acp/a%2Fb%20%3F%25?agent=x%26y");
    }
}
