//! The HTTP client of the command line.

use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};

use super::{Failure, json};
use crate::config::{Env, Secret};
pub(super) use crate::rt::http_client::cause;
use crate::rt::http_client::{self, ClientError};

/// Where `server` listens by default.
pub(super) const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:2468";

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
        self.check(response).await
    }

    async fn check(&self, response: Response) -> Result<Response, Failure> {
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
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        self.accept(response).await
    }

    /// The body of an answer, as text.
    ///
    /// # Errors
    /// As [`Client::fetch`], but for reaching the server.
    pub(super) async fn accept(&self, response: Response) -> Result<String, Failure> {
        let response = self.check(response).await?;
        response.text().await.map_err(|error| Failure::failed(format_args!("the answer broke off: {}", cause(&error))))
    }

    /// The failure when nobody answers.
    pub(super) fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let endpoint = self.endpoint();
        let help = if error.is_connect() { "; is the server running there?" } else { "" };
        Failure::failed(format_args!("no answer from {endpoint}: {}{help}", cause(error)))
    }
}

/// There is no limit on the answer: a turn may take a day.
fn build(endpoint: &Url, env: &Env) -> Result<reqwest::Client, Failure> {
    let builder = http_client::builder(endpoint, env).map_err(|error| match error {
        ClientError::Certificates { .. } => Failure::usage(error),
        ClientError::Tls(_) => Failure::failed(error),
    })?;
    builder.build().map_err(|error| Failure::failed(format_args!("can't make an HTTP client: {}", cause(&error))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_may_hold_anything() {
        let client = Client::new("http://h/base/", None, &Env::default()).unwrap_or_else(|failure| panic!("{failure:?}"));
        let request = client.request(Method::GET, &["v1", "acp", "a/b ?%"], &[("agent", "x&y")]).build().expect("a request");
        assert_eq!(request.url().as_str(), "http://h/base/v1/acp/a%2Fb%20%3F%25?agent=x%26y");
    }
}
