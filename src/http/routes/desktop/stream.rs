//! The desktop live: the switch, tickets, viewers, and the WebSocket of a viewer.

use std::net::{IpAddr, SocketAddr};

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use axum::{Extension, Json};
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::config::{as_duration, as_usize};
use crate::desktop::{Conversation, Said, StreamStatus, Ticket, TicketSpec, ViewerList, Wire};
use crate::http::closing;
use crate::http::extract::{ApiJson, ApiPath, ApiQuery};
use crate::http::negotiate::Peer;
use crate::http::problem::ApiError;
use crate::http::{AppState, ProblemDetails};
use crate::rt::spawn_owned;

/// Messages of a viewer that wait to be heard, and such for it that wait to be sent.
const WAITING_MAX: usize = 64;
/// So many pings may stay without any word.
const PINGS_MISSED: u32 = 4;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(start_stream))
        .routes(routes!(stop_stream))
        .routes(routes!(get_stream))
        .routes(routes!(make_ticket))
        .routes(routes!(list_viewers))
        .routes(routes!(kick_viewer))
        .routes(routes!(signal))
}

/// Switches the desktop's live stream on; on already, it stays as it is.
#[utoipa::path(post, path = "/v1/desktop/stream/start", tag = "desktop", operation_id = "start_desktop_stream",
    responses((status = 200, body = StreamStatus), (status = 409, body = ProblemDetails)))]
async fn start_stream(State(state): State<AppState>) -> Result<Json<StreamStatus>, ApiError> {
    Ok(Json(state.desktop.start_stream().await?))
}

/// Switches it off. All viewers are told, and end.
#[utoipa::path(post, path = "/v1/desktop/stream/stop", tag = "desktop", operation_id = "stop_desktop_stream",
    responses((status = 200, body = StreamStatus)))]
async fn stop_stream(State(state): State<AppState>) -> Result<Json<StreamStatus>, ApiError> {
    Ok(Json(state.desktop.stop_stream().await?))
}

/// Whether it is on, what was asked for, and what is sent.
#[utoipa::path(get, path = "/v1/desktop/stream/status", tag = "desktop", operation_id = "get_desktop_stream_status",
    responses((status = 200, body = StreamStatus)))]
async fn get_stream(State(state): State<AppState>) -> Json<StreamStatus> {
    Json(state.desktop.stream_status())
}

/// Makes a ticket: leave for one to watch or to control this desktop, without the token.
#[utoipa::path(post, path = "/v1/desktop/stream/tickets", tag = "desktop", operation_id = "make_desktop_ticket",
    request_body = TicketSpec,
    responses((status = 200, body = Ticket), (status = 400, body = ProblemDetails), (status = 409, body = ProblemDetails),
              (status = 422, body = ProblemDetails)))]
async fn make_ticket(State(state): State<AppState>, ApiJson(spec): ApiJson<TicketSpec>) -> Result<Json<Ticket>, ApiError> {
    Ok(Json(state.desktop.ticket(&spec)?))
}

/// Who watches, how the picture gets to each, and who is in control.
#[utoipa::path(get, path = "/v1/desktop/stream/viewers", tag = "desktop", operation_id = "list_desktop_viewers",
    responses((status = 200, body = ViewerList), (status = 409, body = ProblemDetails)))]
async fn list_viewers(State(state): State<AppState>) -> Result<Json<ViewerList>, ApiError> {
    Ok(Json(state.desktop.viewers()?))
}

/// Sends a viewer away. The ticket that it came with is taken back.
#[utoipa::path(delete, path = "/v1/desktop/stream/viewers/{id}", tag = "desktop", operation_id = "kick_desktop_viewer",
    params(("id" = String, Path, description = "Of the list")),
    responses((status = 204, description = "It is gone"), (status = 404, body = ProblemDetails), (status = 409, body = ProblemDetails)))]
async fn kick_viewer(State(state): State<AppState>, ApiPath(id): ApiPath<String>) -> Result<StatusCode, ApiError> {
    state.desktop.kick(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct SignalQuery {
    /// Instead of the token: from `POST /v1/desktop/stream/tickets`.
    ticket: Option<String>,
    /// The token, for browsers, which can't give a WebSocket a header.
    #[allow(dead_code)] // the guard reads it
    access_token: Option<String>,
}

/// A viewer's WebSocket: the signalling of neko v3, and ours beside it (docs/API.md, "The desktop, live").
#[utoipa::path(get, path = "/v1/desktop/stream/signaling", tag = "desktop", operation_id = "signal_desktop_stream",
    params(SignalQuery),
    responses((status = 101, description = "A WebSocket"), (status = 400, body = ProblemDetails, description = "No WebSocket is asked for"),
        (status = 401, body = ProblemDetails), (status = 403, body = ProblemDetails, description = "A page of another origin"),
        (status = 409, body = ProblemDetails, description = "The stream is off"),
        (status = 503, body = ProblemDetails, description = "Too many watch")))]
async fn signal(
    State(state): State<AppState>,
    ApiQuery(query): ApiQuery<SignalQuery>,
    Extension(Peer(remote)): Extension<Peer>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.map_err(|rejection| ApiError::invalid(rejection.body_text()))?;
    let viewer = state.desktop.view(query.ticket.as_deref(), Some(remote), asked_at(&headers))?;
    let bounds = &state.config.bounds;
    let (max, ping) = (as_usize(bounds.ws_message_max_bytes), as_duration(bounds.ws_ping_ms));
    let stop = state.stop.clone();
    Ok(upgrade.max_message_size(max).max_frame_size(max).on_upgrade(move |socket| talk(viewer, socket, ping, stop)))
}

/// Where the client found this server, when that is an address: it is likely to find media there, too.
fn asked_at(headers: &HeaderMap) -> Option<IpAddr> {
    let host = headers.get(header::HOST)?.to_str().ok()?;
    let address = host.parse::<SocketAddr>().map(|address| address.ip());
    address.or_else(|_| host.trim_matches(['[', ']']).parse()).ok().or_else(|| {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        name.eq_ignore_ascii_case("localhost").then(|| IpAddr::from([127, 0, 0, 1]))
    })
}

/// Until either side ends.
async fn talk(viewer: Conversation, socket: WebSocket, ping: Duration, stop: CancellationToken) {
    let (tell, heard) = mpsc::channel(WAITING_MAX);
    let (said, mut saying) = mpsc::channel(WAITING_MAX);
    let mut running = spawn_owned("desktop-viewer", viewer.run(Wire { heard, said }));
    let (mut sink, mut incoming) = socket.split();
    let mut pings = tokio::time::interval_at(Instant::now() + ping, ping);
    let listen = async {
        let mut heard_at = Instant::now();
        loop {
            tokio::select! {
                message = incoming.next() => match message {
                    Some(Ok(Message::Text(text))) => {
                        heard_at = Instant::now();
                        if tell.send(text.as_str().to_owned()).await.is_err() {
                            return None;
                        }
                    }
                    Some(Err(error)) => return closing::unreadable(&error),
                    Some(Ok(Message::Close(_))) | None => return None,
                    Some(Ok(_)) => heard_at = Instant::now(),
                },
                _ = pings.tick() => if heard_at.elapsed() >= ping * PINGS_MISSED { return None },
            }
        }
    };
    let speak = async {
        let mut pings = tokio::time::interval_at(Instant::now() + ping, ping);
        loop {
            let message = tokio::select! {
                said = saying.recv() => match said {
                    Some(Said::Text(text)) => Message::text(text),
                    Some(Said::Binary(bytes)) => Message::binary(bytes),
                    None => return None,
                },
                _ = pings.tick() => Message::Ping(bytes::Bytes::new()),
            };
            if sink.send(message).await.is_err() {
                return None;
            }
        }
    };
    let why = tokio::select! {
        why = listen => why,
        why = speak => why,
        () = stop.cancelled() => Some(closing::GOING_AWAY),
    };
    drop((tell, saying)); // it hears of it
    let _ = tokio::time::timeout(ping, &mut running).await;
    running.abort();
    if let Some(why) = why {
        let _ = tokio::time::timeout(ping, closing::part(&mut sink, why)).await; // it may be gone
    }
    let _ = sink.close().await; // it may be gone
}
