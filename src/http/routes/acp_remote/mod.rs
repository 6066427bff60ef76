//! `/acp`: ACP's remote transport over HTTP. What it says and to whom is in the ACP room; here are headers and statuses.
//! Source: ACP's proposal "Streamable HTTP & WebSocket Transport".

mod socket;
mod stream;

use axum::body::Bytes;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{FromRequestParts as _, OptionalFromRequestParts, Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::acp::remote::{Door, Error, Mark, Remote, Scope, Target};
use crate::acp::{Envelope, Kind, ParseError};
use crate::config::{as_duration, as_usize};
use crate::http::extract::{ApiQuery, is_json, read_body};
use crate::http::problem::{ApiError, ErrorCode};
use crate::http::slow::{self, Pending};
use crate::http::{AppState, ProblemDetails};

/// Names a connection, in requests and in the answer to `initialize`.
pub(in crate::http) const CONNECTION_ID: HeaderName = HeaderName::from_static("acp-connection-id");
/// Names a session.
pub(in crate::http) const SESSION_ID: HeaderName = HeaderName::from_static("acp-session-id");

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(post_acp_remote, get_acp_remote, delete_acp_remote)).routes(routes!(
        post_acp_remote_agent,
        get_acp_remote_agent,
        delete_acp_remote_agent
    ))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct TargetQuery {
    /// Which agent, unless the path says it; needed to open a connection.
    agent: Option<String>,
    /// The ACP server to use; left out, clients with the same capabilities share one per agent.
    server: Option<String>,
    /// The token, for browsers, which can't give a WebSocket a header.
    #[allow(dead_code)] // the guard reads it
    access_token: Option<String>,
}

impl TargetQuery {
    fn target(self, agent: Option<String>) -> Target {
        Target { agent: agent.or(self.agent), server: self.server }
    }
}

/// The agent in the path `/acp/{agent}`.
struct InPath(Option<String>);

impl<S: Send + Sync> axum::extract::FromRequestParts<S> for InPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut http::request::Parts, state: &S) -> Result<Self, ApiError> {
        let path = <Path<String> as OptionalFromRequestParts<S>>::from_request_parts(parts, state).await;
        path.map(|path| Self(path.map(|Path(agent)| agent))).map_err(|rejection| ApiError::invalid(rejection.body_text()))
    }
}

/// Sends one JSON-RPC message.
///
/// `initialize` without `Acp-Connection-Id` opens a connection and is answered 200 with the agent's answer and that
/// header; when it takes long, white space comes first. Everything else is 202, and its answer comes on a stream.
#[utoipa::path(post, path = "/acp", tag = "acp remote", operation_id = "post_acp_remote",
    params(TargetQuery,
        ("Acp-Connection-Id" = Option<String>, Header, description = "From the answer to `initialize`"),
        ("Acp-Session-Id" = Option<String>, Header, description = "The session that the message is about")),
    request_body(content = serde_json::Value, description = "A JSON-RPC 2.0 object"),
    responses(
        (status = 200, description = "The answer to `initialize`", body = serde_json::Value),
        (status = 202, description = "Taken"),
        (status = 400, body = ProblemDetails, description = "No JSON object, a header is missing or names another session, no agent named, or `initialize` on a connection"),
        (status = 404, body = ProblemDetails, description = "Unknown connection, or the agent is not installed"),
        (status = 408, body = ProblemDetails), (status = 409, body = ProblemDetails), (status = 413, body = ProblemDetails),
        (status = 415, body = ProblemDetails), (status = 500, body = ProblemDetails), (status = 502, body = ProblemDetails),
        (status = 503, body = ProblemDetails), (status = 507, body = ProblemDetails)))]
async fn post_acp_remote(
    State(state): State<AppState>,
    InPath(agent): InPath,
    ApiQuery(query): ApiQuery<TargetQuery>,
    request: Request,
) -> Result<Response, ApiError> {
    if !is_json(request.headers()) {
        let why = "content-type must be application/json";
        return Err(ApiError::with_message(ErrorCode::UnsupportedMediaType, "unsupported media type", why));
    }
    let headers = request.headers().clone();
    let bounds = &state.config.bounds;
    let idle = as_duration(bounds.http_body_idle_timeout_ms);
    let body = read_body(request.into_body(), as_usize(bounds.acp_body_max_bytes), idle).await?;
    let envelope = Envelope::parse(body).map_err(no_envelope)?;
    let connection_id = text_of(&headers, &CONNECTION_ID)?;
    if envelope.method() == "initialize" && connection_id.is_none() {
        return open(&state, query.target(agent), envelope).await;
    }
    let connection = state.remote.get(needed(connection_id)?).await?;
    let session = text_of(&headers, &SESSION_ID)?;
    state.remote.receive(&connection, envelope, Door::Post(session)).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

/// The same for the agent in the path.
#[utoipa::path(post, path = "/acp/{agent}", tag = "acp remote", operation_id = "post_acp_remote_agent",
    params(("agent" = String, Path, description = "The agent"), TargetQuery),
    request_body(content = serde_json::Value, description = "A JSON-RPC 2.0 object"),
    responses((status = 200, body = serde_json::Value), (status = 202, description = "Taken"), (status = "4XX", body = ProblemDetails),
        (status = "5XX", body = ProblemDetails)))]
async fn post_acp_remote_agent(
    state: State<AppState>,
    agent: InPath,
    query: ApiQuery<TargetQuery>,
    request: Request,
) -> Result<Response, ApiError> {
    post_acp_remote(state, agent, query, request).await
}

/// Opens a stream of server-sent events (or, with `Upgrade: websocket`, a WebSocket that carries a whole connection).
///
/// Without `Acp-Session-Id` it is the connection's own stream, else that session's. Each event is one JSON-RPC message;
/// its id is for `Last-Event-ID`, which reads on from there and takes the place of another receiver. What can't be had any
/// more is a notification `_sandboxd/gap`.
#[utoipa::path(get, path = "/acp", tag = "acp remote", operation_id = "get_acp_remote",
    params(TargetQuery,
        ("Acp-Connection-Id" = Option<String>, Header, description = "From the answer to `initialize`; a WebSocket has none"),
        ("Acp-Session-Id" = Option<String>, Header, description = "The session whose stream is wanted"),
        ("Last-Event-ID" = Option<String>, Header, description = "The last id that was received")),
    responses(
        (status = 101, description = "A WebSocket"),
        (status = 200, description = "Server-sent events", content_type = "text/event-stream", body = String),
        (status = 400, body = ProblemDetails), (status = 404, body = ProblemDetails, description = "Unknown connection"),
        (status = 406, body = ProblemDetails), (status = 409, body = ProblemDetails, description = "The stream has a receiver"),
        (status = 426, body = ProblemDetails, description = "No WebSocket is possible like this"),
        (status = 503, body = ProblemDetails)))]
async fn get_acp_remote(
    State(state): State<AppState>,
    InPath(agent): InPath,
    ApiQuery(query): ApiQuery<TargetQuery>,
    request: Request,
) -> Result<Response, ApiError> {
    let (mut parts, _) = request.into_parts();
    let upgrade = parts.headers.get(header::UPGRADE);
    if upgrade.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket")) {
        let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &state).await;
        return socket::accept(&state, query.target(agent), upgrade.map_err(|rejection| no_socket(&rejection.body_text()))?);
    }
    let accepts = parts.headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    if !accepts.into_iter().any(|value| value.to_ascii_lowercase().contains("text/event-stream")) {
        let why = "accept must name text/event-stream";
        return Err(ApiError::with_message(ErrorCode::NotAcceptable, "not acceptable", why));
    }
    let connection = state.remote.get(needed(text_of(&parts.headers, &CONNECTION_ID)?)?).await?;
    let session = text_of(&parts.headers, &SESSION_ID)?;
    let scope = session.map_or(Scope::Connection, |session| Scope::Session(session.to_owned()));
    let after = last_event_id(&parts.headers)?;
    let feed = state.remote.open(&connection, scope, after.as_ref()).await?;
    stream::respond(&state, feed)
}

/// The same for the agent in the path.
#[utoipa::path(get, path = "/acp/{agent}", tag = "acp remote", operation_id = "get_acp_remote_agent",
    params(("agent" = String, Path, description = "The agent"), TargetQuery),
    responses((status = 101, description = "A WebSocket"),
        (status = 200, description = "Server-sent events", content_type = "text/event-stream", body = String),
        (status = "4XX", body = ProblemDetails), (status = 503, body = ProblemDetails)))]
async fn get_acp_remote_agent(
    state: State<AppState>,
    agent: InPath,
    query: ApiQuery<TargetQuery>,
    request: Request,
) -> Result<Response, ApiError> {
    get_acp_remote(state, agent, query, request).await
}

/// Ends a connection: its streams end. The agent and its sessions stay.
#[utoipa::path(delete, path = "/acp", tag = "acp remote", operation_id = "delete_acp_remote",
    params(("Acp-Connection-Id" = String, Header, description = "From the answer to `initialize`")),
    responses((status = 202, description = "It is over"), (status = 400, body = ProblemDetails),
        (status = 404, body = ProblemDetails, description = "Unknown connection")))]
async fn delete_acp_remote(State(state): State<AppState>, headers: HeaderMap) -> Result<StatusCode, ApiError> {
    let id = needed(text_of(&headers, &CONNECTION_ID)?)?;
    if state.remote.end(id).await { Ok(StatusCode::ACCEPTED) } else { Err(Error::UnknownConnection { id: id.to_owned() }.into()) }
}

/// The same for the agent in the path.
#[utoipa::path(delete, path = "/acp/{agent}", tag = "acp remote", operation_id = "delete_acp_remote_agent",
    params(("agent" = String, Path, description = "The agent"),
        ("Acp-Connection-Id" = String, Header, description = "From the answer to `initialize`")),
    responses((status = 202, description = "It is over"), (status = 400, body = ProblemDetails), (status = 404, body = ProblemDetails)))]
async fn delete_acp_remote_agent(state: State<AppState>, headers: HeaderMap) -> Result<StatusCode, ApiError> {
    delete_acp_remote(state, headers).await
}

/// Opens a connection; the header is known before the answer is.
async fn open(state: &AppState, target: Target, envelope: Envelope) -> Result<Response, ApiError> {
    if envelope.kind() != Kind::Request || envelope.id() == Some("null") {
        return Err(ApiError::invalid("initialize is a request: it needs an id"));
    }
    let (remote, id) = (state.remote.clone(), Remote::new_id());
    let header = HeaderValue::from_str(&id).map_err(ApiError::invalid)?;
    let client_id = envelope.id().unwrap_or("null").to_owned();
    let keepalive = as_duration(state.config.bounds.acp_post_keepalive_ms);
    let mut pending: Pending<Bytes> =
        Box::pin(async move { Ok(remote.connect(id, target, &envelope).await.map(|(_, answer)| answer)?) });
    let mut response = tokio::select! {
        answer = &mut pending => ([(header::CONTENT_TYPE, "application/json")], answer?).into_response(),
        () = tokio::time::sleep(keepalive) => slow::white_space(pending, keepalive, move |answer| answer.unwrap_or_else(|error| {
            socket::refusal(&client_id, &error)
        })),
    };
    response.headers_mut().insert(CONNECTION_ID, header);
    Ok(response)
}

fn no_envelope(error: ParseError) -> ApiError {
    match error {
        ParseError::NotObject => ApiError::invalid("the body must be one JSON-RPC object; ACP has no batches"),
        ParseError::NotJson(_) | ParseError::Doubled(_) => error.into(),
    }
}

fn no_socket(why: &str) -> ApiError {
    let detail = format!("no WebSocket is possible like this ({why}): use HTTP/1.1 and version 13, or POST and GET");
    ApiError::new(ErrorCode::UpgradeRequired, detail).header(header::UPGRADE, HeaderValue::from_static("websocket"))
}

fn text_of<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, ApiError> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    value.to_str().map(Some).map_err(|_| ApiError::invalid(format!("the header {name} must be text")))
}

fn needed(connection_id: Option<&str>) -> Result<&str, ApiError> {
    connection_id.ok_or_else(|| ApiError::invalid("missing Acp-Connection-Id: it is in the answer to initialize"))
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<Mark>, ApiError> {
    match text_of(headers, &HeaderName::from_static("last-event-id"))?.map(str::trim) {
        None | Some("") => Ok(None),
        Some(text) => Mark::parse(text).map(Some).ok_or_else(|| ApiError::invalid("Last-Event-ID must be the id of an event")),
    }
}
