//! MCP servers behind a URL: Streamable HTTP (MCP 2025-06-18, Transports), and the older HTTP with SSE (2024-11-05).

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response, Url};
use serde_json::Value;

use super::failure::Failure;
use super::rpc;
use super::sse::EventReader;
use crate::config::Env;
use crate::rt::http_client;

/// Between one server's own addresses.
const REDIRECTS_MAX: usize = 5;
/// For a server to take note that a session is over; it is told out of courtesy.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);
const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");

/// What both ways have in common: where, with which headers.
struct Place {
    client: Client,
    url: Url,
    headers: HeaderMap,
    message_max_bytes: usize,
}

impl Place {
    fn of(acp: &Value, env: &Env, message_max_bytes: usize) -> Result<Self, Failure> {
        let url = acp["url"].as_str().unwrap_or_default();
        let url = Url::parse(url).map_err(|error| Failure::Unusable(format!("URL ({error})")))?;
        let mut headers = HeaderMap::new();
        for entry in acp["headers"].as_array().into_iter().flatten() {
            let (name, value) = (entry["name"].as_str().unwrap_or_default(), entry["value"].as_str().unwrap_or_default());
            let unusable = || Failure::Unusable(format!("header {name:?}"));
            let name = HeaderName::try_from(name).map_err(|_| unusable())?;
            let mut value = HeaderValue::try_from(value).map_err(|_| unusable())?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        // The headers are secrets of this server: they don't go to another one.
        let redirects = Policy::custom(|attempt| {
            let same = attempt.previous().last().is_some_and(|before| before.origin() == attempt.url().origin());
            if same && attempt.previous().len() <= REDIRECTS_MAX { attempt.follow() } else { attempt.stop() }
        });
        let client = http_client::builder(&url, env)?.redirect(redirects).build()?;
        Ok(Self { client, url, headers, message_max_bytes })
    }

    fn request(&self, method: Method, url: &Url) -> RequestBuilder {
        self.client.request(method, url.clone()).headers(self.headers.clone())
    }

    async fn post(&self, request: RequestBuilder, message: &Value) -> Result<Response, Failure> {
        let request = request.header(header::ACCEPT, "application/json, text/event-stream");
        Ok(request.header(header::CONTENT_TYPE, "application/json").body(message.to_string()).send().await?)
    }
}

/// A server that speaks Streamable HTTP.
pub(super) struct Streamable {
    place: Place,
    /// What the server said at `initialize`, for all that follows.
    agreed: HeaderMap,
}

impl Streamable {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// [`Failure::Unusable`].
    pub(super) fn new(acp: &Value, env: &Env, message_max_bytes: usize) -> Result<Self, Failure> {
        Ok(Self { place: Place::of(acp, env, message_max_bytes)?, agreed: HeaderMap::new() })
    }

    /// All that follows is in this version.
    pub(super) fn agree(&mut self, version: &str) {
        if let Ok(version) = HeaderValue::try_from(version) {
            self.agreed.insert(PROTOCOL_VERSION, version);
        }
    }

    async fn post(&self, message: &Value) -> Result<Response, Failure> {
        let request = self.place.request(Method::POST, &self.place.url).headers(self.agreed.clone());
        self.place.post(request, message).await
    }

    pub(super) async fn notify(&mut self, message: &Value) -> Result<(), Failure> {
        match self.post(message).await?.status() {
            status if status.is_success() => Ok(()),
            status => Err(Failure::Status(status)),
        }
    }

    pub(super) async fn request(&mut self, id: u64, method: &'static str, message: &Value) -> Result<Value, Failure> {
        let response = self.post(message).await?;
        if let Some(session) = response.headers().get(SESSION_ID) {
            self.agreed.insert(SESSION_ID, session.clone());
        }
        let (status, max) = (response.status(), self.place.message_max_bytes);
        if status.is_success() && is_event_stream(&response) {
            let mut events = EventReader::new(response, max);
            return answer(&mut events, id, method).await;
        }
        let body = body(response, max).await?;
        match rpc::read(&body, id).settled(method) {
            Some(settled) => settled, // also an error that explains the status
            None if status.is_success() => Err(Failure::Strange(format!("{method} was answered with no JSON-RPC answer"))),
            None => Err(Failure::Status(status)),
        }
    }

    /// Says that the session is over, if there is one.
    pub(super) async fn say_goodbye(&self) {
        if self.agreed.contains_key(SESSION_ID) {
            let request = self.place.request(Method::DELETE, &self.place.url).headers(self.agreed.clone());
            let _ = request.timeout(GOODBYE_TIMEOUT).send().await; // a server needn't offer it
        }
    }
}

/// A server of the older kind: its answers come on an event stream, whose first event says where to post.
pub(super) struct WithStream {
    place: Place,
    open: Option<(Url, EventReader)>,
}

impl WithStream {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// [`Failure::Unusable`].
    pub(super) fn new(acp: &Value, env: &Env, message_max_bytes: usize) -> Result<Self, Failure> {
        Ok(Self { place: Place::of(acp, env, message_max_bytes)?, open: None })
    }

    async fn open(&mut self) -> Result<(), Failure> {
        if self.open.is_some() {
            return Ok(());
        }
        let request = self.place.request(Method::GET, &self.place.url).header(header::ACCEPT, "text/event-stream");
        let response = request.send().await?;
        if response.status() != StatusCode::OK || !is_event_stream(&response) {
            return Err(Failure::Status(response.status()));
        }
        let mut events = EventReader::new(response, self.place.message_max_bytes);
        let endpoint = loop {
            let event = events.next().await?;
            if event.name == "endpoint" {
                break event.data;
            }
        };
        let endpoint = self.place.url.join(&endpoint).ok().filter(|endpoint| endpoint.origin() == self.place.url.origin());
        let strange = || Failure::Strange("the endpoint that it names is not one of its own".to_owned());
        self.open = Some((endpoint.ok_or_else(strange)?, events));
        Ok(())
    }

    pub(super) async fn notify(&mut self, message: &Value) -> Result<(), Failure> {
        self.open().await?;
        let Some((endpoint, _)) = &self.open else { return Err(Failure::Ended) };
        let response = self.place.post(self.place.request(Method::POST, endpoint), message).await?;
        if response.status().is_success() { Ok(()) } else { Err(Failure::Status(response.status())) }
    }

    pub(super) async fn request(&mut self, id: u64, method: &'static str, message: &Value) -> Result<Value, Failure> {
        self.notify(message).await?;
        let Some((_, events)) = &mut self.open else { return Err(Failure::Ended) };
        answer(events, id, method).await
    }
}

/// The answer to `method`; what else comes meanwhile is of no interest.
async fn answer(events: &mut EventReader, id: u64, method: &'static str) -> Result<Value, Failure> {
    loop {
        let event = events.next().await?;
        if let Some(settled) = rpc::read(event.data.as_bytes(), id).settled(method) {
            return settled;
        }
    }
}

fn is_event_stream(response: &Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/event-stream")
}

async fn body(mut response: Response, max_bytes: usize) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > max_bytes {
            return Err(Failure::TooLong(max_bytes));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
