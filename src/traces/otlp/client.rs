//! One POST to a collector.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{StatusCode, Url};
use serde_json::Value;

use crate::config::{Env, Otlp};
use crate::rt::http_client;

/// What is read of an answer.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

pub(super) struct Client {
    http: reqwest::Client,
    endpoint: Url,
    headers: HeaderMap,
    timeout: Duration,
}

/// What became of a request (OTLP, "OTLP/HTTP Response").
pub(super) enum Sent {
    /// The collector took it, but for so many spans.
    Taken { rejected: u64 },
    /// It never will.
    Refused(String),
    /// It may later.
    Later { why: String, after: Option<Duration> },
}

impl Client {
    /// # Errors
    /// Why the settings can't be used, in words.
    pub(super) fn new(settings: &Otlp, env: &Env) -> Result<Self, String> {
        let endpoint = Url::parse(&settings.endpoint).map_err(|error| format!("the OTLP endpoint is no URL: {error}"))?;
        if !matches!(endpoint.scheme(), "http" | "https") {
            return Err("the OTLP endpoint must begin with http:// or https://".to_owned());
        }
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in &settings.headers {
            let bad = || format!("OTEL_EXPORTER_OTLP_HEADERS: {name} can't be sent as a header");
            let mut sent = HeaderValue::from_str(value.expose()).map_err(|_| bad())?;
            sent.set_sensitive(true);
            headers.insert(HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?, sent);
        }
        let builder = http_client::builder(&endpoint, env).map_err(|error| error.to_string())?;
        let http = builder.build().map_err(|error| http_client::cause(&error))?;
        Ok(Self { http, endpoint, headers, timeout: settings.timeout })
    }

    /// The endpoint without user, password and query.
    pub(super) fn shown(&self) -> String {
        let mut shown = self.endpoint.clone();
        let _ = (shown.set_username(""), shown.set_password(None)); // HTTP URLs can have both
        shown.set_query(None);
        shown.to_string()
    }

    pub(super) async fn post(&self, body: Vec<u8>) -> Sent {
        let request = self.http.post(self.endpoint.clone()).headers(self.headers.clone()).timeout(self.timeout).body(body);
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Sent::Later { why: http_client::cause(&error), after: None },
        };
        let status = response.status();
        if status.is_success() {
            return Sent::Taken { rejected: rejected(response).await };
        }
        let why = format!("the collector answered {status}");
        let may_later = matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
                | StatusCode::INTERNAL_SERVER_ERROR
        );
        let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        if may_later { Sent::Later { why, after: after.map(Duration::from_secs) } } else { Sent::Refused(why) }
    }
}

/// `partialSuccess.rejectedSpans`: a number, or a number as text.
async fn rejected(mut response: reqwest::Response) -> u64 {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        if body.len() + chunk.len() > ANSWER_MAX_BYTES {
            return 0;
        }
        body.extend_from_slice(&chunk);
    }
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    let rejected = &answer["partialSuccess"]["rejectedSpans"];
    rejected.as_u64().or_else(|| rejected.as_str()?.parse().ok()).unwrap_or(0)
}
