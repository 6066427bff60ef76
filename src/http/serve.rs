//! The accept loop: HTTP/1.1 and HTTP/2 cleartext on one listener, with bounds on connections and on slow headers.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::negotiate::Peer;
use crate::config::{Bounds, as_duration, as_usize};
use crate::rt::spawn_owned;

/// How an HTTP/2 connection begins (RFC 9113 section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// At a stop, the time for a client that has connected to begin its request.
const FIRST_WORDS: Duration = Duration::from_millis(50);

/// How often a preface that came in pieces is looked at.
const PREFACE_POLL: Duration = Duration::from_millis(10);

/// Serves until `stop`, then lets open requests end, those that have just come included. Event streams end by themselves on the same token.
///
/// Dropping the future closes the listener; connections go on until they end.
pub async fn serve(listener: TcpListener, router: Router, bounds: &Bounds, stop: CancellationToken) {
    let header_timeout = as_duration(bounds.http_header_timeout_ms);
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(header_timeout);
    http.http2().timer(TokioTimer::new()).keep_alive_interval(header_timeout);
    let http = Arc::new(http);
    let connections = Arc::new(Semaphore::new(as_usize(bounds.http_connections_max)));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &connections) => accepted,
            () = stop.cancelled() => break,
        };
        let Some((socket, peer, permit)) = accepted else { continue };
        let service = TowerToHyperService::new(router.clone().map_request(move |request| from(peer, request)));
        let (http, watcher, stop) = (Arc::clone(&http), graceful.watcher(), stop.clone());
        spawn_owned("connection", async move {
            // Hyper's own timeout begins only once it knows which version this is.
            let spoken = tokio::select! {
                spoken = tokio::time::timeout(header_timeout, version_known(&socket)) => spoken,
                () = late(&stop) => return,
            };
            if !matches!(spoken, Ok(Ok(()))) {
                return tracing::debug!("connection closed: its client said nothing");
            }
            let connection = http.serve_connection_with_upgrades(TokioIo::new(socket), service).into_owned();
            // The watcher's own way closes a connection at once whose request is there and not yet read.
            let mut connection = pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = late(&stop) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "connection ended early");
            }
            drop((permit, watcher));
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

/// Resolves a moment after the stop: a client that has just connected is about to speak, and is answered.
async fn late(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(FIRST_WORDS).await;
}

/// Resolves once so much has come that the version is known. Takes nothing from the socket. Cancel safe.
async fn version_known(socket: &TcpStream) -> std::io::Result<()> {
    let mut start = [0; HTTP2_PREFACE.len()];
    loop {
        let got = socket.peek(&mut start).await?;
        let may_become_http2 = got > 0 && got < HTTP2_PREFACE.len() && HTTP2_PREFACE.starts_with(&start[..got]);
        if !may_become_http2 {
            return Ok(());
        }
        tokio::time::sleep(PREFACE_POLL).await; // the socket stays readable: there is no wake-up for more
    }
}

/// Says where a request comes from.
fn from(peer: Peer, request: Request<Incoming>) -> Request<Incoming> {
    let mut request = request;
    request.extensions_mut().insert(peer);
    request
}

async fn accept(listener: &TcpListener, connections: &Arc<Semaphore>) -> Option<(TcpStream, Peer, OwnedSemaphorePermit)> {
    let permit = connections.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((socket, from)) => {
            let _ = socket.set_nodelay(true); // slower without, not wrong
            Some((socket, Peer(from.ip()), permit))
        }
        Err(error) => {
            tracing::warn!(%error, "accept failed");
            // As with too many open files: trying at once again would only burn the processor.
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}
