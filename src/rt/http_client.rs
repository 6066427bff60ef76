//! HTTP clients: plain HTTP, and TLS in a root without a resolver or certificates.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::{ClientBuilder, Url};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use crate::config::Env;

/// A server that doesn't take a connection by then isn't there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How soon a peer that vanished without a word is noticed.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// Why there can be no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The file that `SSL_CERT_FILE` names can't be used.
    #[error("SSL_CERT_FILE {}: {cause}", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// TLS can't be set up.
    #[error("can't set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// A client for `endpoint` that follows no redirect and has no limit on the answer; the caller may change both.
///
/// # Errors
/// [`ClientError`].
pub fn builder(endpoint: &Url, env: &Env) -> Result<ClientBuilder, ClientError> {
    let builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls(env)?)
        .user_agent(concat!("sandboxd/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none()) // a token follows no stranger's
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_keepalive(TCP_KEEPALIVE);
    if !is_loopback(endpoint) {
        return Ok(builder);
    }
    // Another machine's loopback is not ours: no proxy. And no resolver needs to be there for this name.
    let both = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)].map(|ip| SocketAddr::new(ip, 0));
    Ok(builder.no_proxy().resolve_to_addrs("localhost", &both))
}

/// The innermost reason: the outer ones only repeat the URL.
pub fn cause(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// Compiled-in roots, and those of the file that `SSL_CERT_FILE` names.
fn tls(env: &Env) -> Result<rustls::ClientConfig, ClientError> {
    let mut roots = rustls::RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(path) = env.path("SSL_CERT_FILE") {
        roots.add_parsable_certificates(certificates(&path)?);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    read.map_err(|error| ClientError::Certificates { path: path.to_owned(), cause: error.to_string() })
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
