//! A server with files.

use std::path::PathBuf;

use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;

use crate::support::{Home, Options, Server};

/// A server, and the directory `work` in its home.
pub struct Files {
    pub home: Home,
    pub server: Server,
}

impl Files {
    pub fn new() -> Self {
        Self::with(&Options::default())
    }

    pub fn with(options: &Options) -> Self {
        let home = Home::new();
        std::fs::create_dir(home.path().join("work")).expect("a folder");
        let server = Server::start_with(&home, options);
        Self { home, server }
    }

    /// Something below `work`.
    pub fn path(&self, below: &str) -> PathBuf {
        self.home.path().join("work").join(below)
    }

    /// A request with a path below `work`.
    pub fn ask(&self, method: Method, route: &str, below: &str) -> RequestBuilder {
        self.ask_with(method, route, below, &[])
    }

    /// The same with more in its query.
    pub fn ask_with(&self, method: Method, route: &str, below: &str, query: &[(&str, &str)]) -> RequestBuilder {
        let path = self.path(below).display().to_string();
        self.request(method, route, &[&[("path", path.as_str())], query].concat())
    }

    /// A request with any query.
    pub fn request(&self, method: Method, route: &str, query: &[(&str, &str)]) -> RequestBuilder {
        let url = reqwest::Url::parse_with_params(&self.server.url(&format!("/v1/fs/{route}")), query).expect("a URL");
        self.server.http.request(method, url)
    }

    pub async fn put(&self, below: &str, content: &str) -> Value {
        json(self.ask(Method::PUT, "file", below).body(content.to_owned())).await
    }

    pub async fn get(&self, below: &str) -> Response {
        self.ask(Method::GET, "file", below).send().await.expect("an answer")
    }

    pub async fn text(&self, below: &str) -> String {
        self.get(below).await.text().await.expect("a text")
    }

    pub async fn rename(&self, body: &Value) -> (u16, Value) {
        told(self.server.http.post(self.server.url("/v1/fs/move")).json(body)).await
    }
}

/// An answer of 200.
pub async fn json(request: RequestBuilder) -> Value {
    let (status, body) = told(request).await;
    assert_eq!(status, 200, "{body}");
    body
}

/// Any answer in JSON.
pub async fn told(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    let text = response.text().await.expect("a body");
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}
