//! The file that a request is about: `path` of its query, byte for byte, and where that may lead.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use axum::extract::FromRequestParts;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::request::Parts;
use percent_encoding::percent_decode;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use crate::fs::{Located, Reach};
use crate::http::AppState;
use crate::http::problem::ApiError;

/// What every route for files takes in its query.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // describes the API; the extractors read the query's bytes
pub(in crate::http::routes) struct TargetQuery {
    /// The file: absolute, below the home (`~/…`), or relative to the home, or to the session's directory. Names that are
    /// not UTF-8 are percent-encoded byte for byte.
    path: String,
    /// Relative paths start in this session's directory.
    session_id: Option<String>,
}

/// The same where `path` may be left out.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // the same
pub(in crate::http::routes) struct OptionalTargetQuery {
    /// As elsewhere; the home, or the session's directory, when absent.
    path: Option<String>,
    /// Relative paths start in this session's directory.
    session_id: Option<String>,
}

/// A file that a request names.
pub(in crate::http::routes) struct Target {
    pub(in crate::http::routes) reach: Reach,
    pub(in crate::http::routes) at: Located,
}

/// The same, or the directory where relative paths start.
pub(in crate::http::routes) struct OptionalTarget(pub(in crate::http::routes) Target);

impl FromRequestParts<AppState> for Target {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let query = Raw::of(parts)?;
        let missing = || ApiError::invalid("Failed to deserialize query string: missing field `path`");
        let path = query.path.ok_or_else(missing)?;
        Self::new(state, &path, query.session_id.as_deref()).await
    }
}

impl FromRequestParts<AppState> for OptionalTarget {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let query = Raw::of(parts)?;
        Target::new(state, &query.path.unwrap_or_default(), query.session_id.as_deref()).await.map(Self)
    }
}

impl Target {
    async fn new(state: &AppState, path: &OsString, session_id: Option<&str>) -> Result<Self, ApiError> {
        let reach = reach(state, session_id).await?;
        Ok(Self { at: reach.locate(path)?, reach })
    }
}

/// Where a request's paths may lead.
pub(in crate::http::routes) async fn reach(state: &AppState, session_id: Option<&str>) -> Result<Reach, ApiError> {
    let reach = state.fs.reach();
    match session_id {
        Some(id) => Ok(reach.from_base(Path::new(&state.sessions.get(id).await?.cwd))),
        None => Ok(reach.clone()),
    }
}

/// What is read of a query without taking it for UTF-8.
#[derive(Default)]
struct Raw {
    path: Option<OsString>,
    session_id: Option<String>,
}

impl Raw {
    fn of(parts: &Parts) -> Result<Self, ApiError> {
        let mut raw = Self::default();
        for pair in parts.uri.query().unwrap_or_default().split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = || -> Vec<u8> { percent_decode(value.replace('+', " ").as_bytes()).collect() };
            let is_second = match key {
                "path" => raw.path.replace(OsString::from_vec(decoded())).is_some(),
                "sessionId" => raw.session_id.replace(String::from_utf8_lossy(&decoded()).into_owned()).is_some(),
                _ => false,
            };
            if is_second {
                return Err(ApiError::invalid(format!("Failed to deserialize query string: duplicate field `{key}`")));
            }
        }
        Ok(raw)
    }
}

/// A path in a JSON body: text, or its bytes when they are no text.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub(in crate::http::routes) enum PathText {
    /// As elsewhere.
    Text(String),
    /// As `pathBase64` of an entry.
    Bytes {
        /// The bytes in base64.
        base64: String,
    },
}

impl PathText {
    /// What it names.
    pub(in crate::http::routes) fn locate(&self, reach: &Reach) -> Result<Located, ApiError> {
        let raw = match self {
            Self::Text(text) => OsString::from(text),
            Self::Bytes { base64 } => {
                let bytes = BASE64_STANDARD.decode(base64);
                OsString::from_vec(bytes.map_err(|error| ApiError::invalid(format!("a path in base64: {error}")))?)
            }
        };
        Ok(reach.locate(&raw)?)
    }
}

/// A path in an answer: under `key`, and when it isn't UTF-8 its bytes beside it.
pub(in crate::http::routes) fn shown(answer: &mut Value, key: &str, path: &Path) {
    answer[key] = path.to_string_lossy().into();
    if path.to_str().is_none() {
        answer[format!("{key}Base64")] = BASE64_STANDARD.encode(PathBuf::from(path).as_os_str().as_bytes()).into();
    }
}

/// `{"path": …}`.
pub(in crate::http::routes) fn path_answer(path: &Path) -> Value {
    let mut answer = json!({});
    shown(&mut answer, "path", path);
    answer
}
