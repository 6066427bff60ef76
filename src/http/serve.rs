//! The accept loop: HTTP/1.1 and HTTP/2 cleartext on one listener, with bounds on connections and on slow headers.

use std::sync::Arc;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config::{Bounds, as_duration, as_usize};
use crate::rt::spawn_owned;

/// Serves until `stop`, then lets open requests end. Event streams end by themselves on the same token.
pub async fn serve(listener: TcpListener, router: Router, bounds: &Bounds, stop: CancellationToken) {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(as_duration(bounds.http_header_timeout_ms));
    http.http2().timer(TokioTimer::new()).keep_alive_interval(as_duration(bounds.http_header_timeout_ms));
    let http = Arc::new(http);
    let connections = Arc::new(Semaphore::new(as_usize(bounds.http_connections_max)));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &connections) => accepted,
            () = stop.cancelled() => break,
        };
        let Some((socket, permit)) = accepted else { continue };
        let service = TowerToHyperService::new(router.clone());
        let io = TokioIo::new(socket);
        let connection = http.serve_connection_with_upgrades(io, service).into_owned();
        let connection = graceful.watch(connection);
        spawn_owned("connection", async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended early");
            }
            drop(permit);
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

async fn accept(listener: &TcpListener, connections: &Arc<Semaphore>) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = connections.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((socket, _)) => {
            let _ = socket.set_nodelay(true); // slower without, not wrong
            Some((socket, permit))
        }
        Err(error) => {
            tracing::warn!(%error, "accept failed");
            // As with too many open files: trying at once again would only burn the processor.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            None
        }
    }
}
