//! The thin edge: parses requests, asks a room, writes the answer. One file per resource under `routes/`; one
//! registration makes both the route and its OpenAPI entry.

mod closing;
mod docs;
mod edge;
pub mod extract;
mod guard;
mod negotiate;
mod page;
pub mod problem;
pub(crate) mod repository;
pub mod routes;
mod safe;
mod serve;
mod slow;
pub mod sse;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware;
use axum::response::{IntoResponse as _, Response};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

pub use routes::{ProblemDetails, openapi};
pub use safe::{SafeMode, SafeModeHealth, SafeModeStatus, safe_router};
pub use serve::serve;

use crate::acp::Acp;
use crate::acp::remote::Remote;
use crate::agents::Agents;
use crate::config::{Config, as_duration, as_usize};
use crate::crashes::Crashes;
use crate::desktop::Desktop;
use crate::fs::{Fs, Uploads};
use crate::git::Git;
use crate::keeper::Keeper;
use crate::lsp::Lsp;
use crate::processes::Processes;
use crate::sessions::Sessions;
use crate::store::{Store, Stream};
use crate::traces::Traces;
use crate::workspace::Workspace;
use guard::Guard;
use problem::{ApiError, ErrorCode};

/// What routes reach: handles on the rooms.
#[derive(Clone)]
pub struct AppState {
    /// What the server runs with.
    pub config: Arc<Config>,
    /// Agents over HTTP.
    pub acp: Acp,
    /// The same for clients of ACP's remote transport.
    pub remote: Remote,
    /// The catalogue.
    pub agents: Agents,
    /// Language servers.
    pub lsp: Lsp,
    /// Processes and terminals.
    pub processes: Processes,
    /// What is configured per directory.
    pub workspace: Workspace,
    /// Files.
    pub fs: Fs,
    /// Uploads in pieces.
    pub uploads: Uploads,
    /// Repositories.
    pub git: Git,
    /// The X session.
    pub desktop: Desktop,
    /// ACP sessions that last.
    pub sessions: Sessions,
    /// The log.
    pub store: Store,
    /// What took how long.
    pub traces: Traces,
    /// Installation progress of all agents.
    pub install_events: Arc<Stream>,
    /// One permit per open event stream.
    pub subscribers: Arc<Semaphore>,
    /// One permit per open WebSocket.
    pub ws_clients: Arc<Semaphore>,
    /// Who starts the server again.
    pub keeper: Keeper,
    /// How servers before this one ended that did not want to.
    pub crashes: Crashes,
    /// Asks for a restart.
    pub restart: CancellationToken,
    /// Ends open streams at shutdown.
    pub stop: CancellationToken,
    /// When the server started, in Unix milliseconds.
    pub started_at_ms: i64,
}

impl extract::BodyLimit for AppState {
    fn body_max_bytes(&self) -> usize {
        as_usize(self.config.bounds.http_body_max_bytes)
    }

    fn large_body_max_bytes(&self) -> usize {
        as_usize(self.config.bounds.acp_body_max_bytes)
    }

    fn body_idle_timeout(&self) -> Duration {
        as_duration(self.config.bounds.http_body_idle_timeout_ms)
    }
}

/// The whole service. Outermost first: request id and log line, panics, CORS, who may come in, routes.
pub fn router(state: AppState) -> Router {
    let config = Arc::clone(&state.config);
    let (routes, _) = routes::routes().split_for_parts();
    let routes = routes.fallback(not_found).method_not_allowed_fallback(method_not_allowed);
    dressed(routes.with_state(state), &config)
}

/// Routes with what happens to every request.
fn dressed(routes: Router, config: &Config) -> Router {
    let guard = Guard::new(config);
    let cors = edge::cors(&config.cors);
    routes
        .layer(middleware::from_fn_with_state(guard, guard::guard))
        .layer(cors)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn(edge::observe))
}

async fn not_found(request: Request) -> Response {
    let detail = format!("endpoint not found: {} (the API is described at /docs)", request.uri().path());
    ApiError::new(ErrorCode::EndpointNotFound, detail).into_response()
}

async fn method_not_allowed(request: Request) -> Response {
    let detail = format!("{} has no {}: the Allow header names its methods", request.uri().path(), request.method());
    ApiError::new(ErrorCode::MethodNotAllowed, detail).into_response()
}

/// The cause goes to the log, not to the client.
fn panicked(cause: Box<dyn std::any::Any + Send>) -> Response {
    let cause = cause.downcast_ref::<String>().map(String::as_str).or_else(|| cause.downcast_ref::<&str>().copied());
    let id = problem::REQUEST_ID.try_with(Clone::clone).unwrap_or_default();
    tracing::error!(id, cause = cause.unwrap_or("unknown"), "a handler panicked");
    ApiError::new(ErrorCode::Internal, "a bug in the server; the log has the cause under this request's id").into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    async fn explode() -> Response {
        panic!("a bug with a secret in it")
    }

    #[tokio::test]
    async fn a_panic_is_a_problem_that_tells_nothing() {
        let router: Router = Router::new().route("/", get(explode)).layer(CatchPanicLayer::custom(panicked));
        let response = router.oneshot(Request::new(Body::empty())).await.expect("an answer");
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (500, &"application/problem+json".parse().expect("a value"))
        );
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        assert!(!String::from_utf8_lossy(&body).contains("secret"));
    }
}
