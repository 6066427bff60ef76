//! The one way to build an HTTP client: plain HTTP and TLS in a root without a resolver or certificates.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use crate::config::Env;

/// A server that doesn't take a connection by then isn't there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How soon a peer that vanished without a word is noticed.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file of certificates that the environment names can't be used.
    #[error("SSL_CERT_FILE {path}: {cause}")]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// TLS can't be set up.
    #[error("can't set up TLS: {0}")]
    Tls(String),
    /// The client can't be made.
    #[error("can't make an HTTP client: {0}")]
    Client(String),
}

/// A client for this endpoint, with roots compiled in and those of `SSL_CERT_FILE`. Follows no redirect: what is sent may
/// be secret. Connects to nothing yet; there is no limit on an answer.
///
/// # Errors
/// `SSL_CERT_FILE` can't be used, or the system refuses.
pub fn build(endpoint: &Url, env: &Env) -> Result<reqwest::Client, Error> {
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls(env)?)
        .user_agent(concat!("sandboxd/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_keepalive(TCP_KEEPALIVE);
    if is_loopback(endpoint) {
        // Another machine's loopback is not ours: no proxy. And no resolver needs to be there for this name.
        let both = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)].map(|ip| SocketAddr::new(ip, 0));
        builder = builder.no_proxy().resolve_to_addrs("localhost", &both);
    }
    builder.build().map_err(|error| Error::Client(cause(&error)))
}

/// The innermost reason: the outer ones only repeat the URL.
pub fn cause(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

fn tls(env: &Env) -> Result<rustls::ClientConfig, Error> {
    let mut roots = rustls::RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(path) = env.path("SSL_CERT_FILE") {
        let bad = |error: &dyn std::fmt::Display| Error::Certificates { path: path.clone(), cause: error.to_string() };
        for certificate in CertificateDer::pem_file_iter(&path).map_err(|error| bad(&error))? {
            roots.add_parsable_certificates([certificate.map_err(|error| bad(&error))?]);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| Error::Tls(error.to_string()))?;
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
}
