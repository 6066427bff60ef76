//! The file that a request is about: `path` of its query, byte for byte, and where that may lead.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use axum::extract::FromRequestParts;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::request::Parts;
use percent_encoding::percent_decode;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::{IntoParams, ToSchema};

pub(in crate::http::routes) use crate::fs::shown;
use crate::fs::{self, Author, Fence, Located, Reach};
use crate::http::AppState;
use crate::http::problem::ApiError;
use crate::sessions::{self, Root, SessionInfo};

/// The file that a route is about.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // describes the API; the extractors read the query's bytes
struct PathQuery {
    /// The file: absolute, below the home (`~/…`), or relative to the home, or to the session's directory. Names that are
    /// not UTF-8 are percent-encoded byte for byte.
    path: String,
}

/// In whose name something is done.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // the same
pub(in crate::http::routes) struct AuthorQuery {
    /// Relative paths start in this session's directory, all stay beneath its roots, and what is done is done in its name.
    session_id: Option<String>,
    /// The tool call of that session that this belongs to.
    tool_call_id: Option<String>,
    /// True writes over what the session hasn't seen.
    #[serde(default)]
    force: bool,
}

/// A file, and in whose name.
pub(in crate::http::routes) struct TargetQuery;

impl IntoParams for TargetQuery {
    fn into_params(within: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        [PathQuery::into_params(&within), AuthorQuery::into_params(&within)].concat()
    }
}

/// A file that may be left out, for questions.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // the same
pub(in crate::http::routes) struct OptionalTargetQuery {
    /// As elsewhere; the home, or the session's directory, when absent.
    path: Option<String>,
    /// Relative paths start in this session's directory, and all stay beneath its roots.
    session_id: Option<String>,
}

/// A file that a request names.
pub(in crate::http::routes) struct Target {
    pub(in crate::http::routes) reach: Reach,
    pub(in crate::http::routes) at: Located,
}

/// Where the paths of a request may lead, and in whose name it acts.
pub(in crate::http::routes) struct Reached(pub(in crate::http::routes) Reach);

impl FromRequestParts<AppState> for Reached {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        Raw::of(parts)?.reach(state).await.map(Self)
    }
}

/// The same, or the directory where relative paths start.
pub(in crate::http::routes) struct OptionalTarget(pub(in crate::http::routes) Target);

impl FromRequestParts<AppState> for Target {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let query = Raw::of(parts)?;
        let missing = || ApiError::invalid("Failed to deserialize query string: missing field `path`");
        let reach = query.reach(state).await?;
        let path = query.path.ok_or_else(missing)?;
        Ok(Self { at: reach.locate(&path)?, reach })
    }
}

impl FromRequestParts<AppState> for OptionalTarget {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let query = Raw::of(parts)?;
        let reach = query.reach(state).await?;
        Ok(Self(Target { at: reach.locate(&query.path.unwrap_or_default())?, reach }))
    }
}

/// Where paths may lead in a session's name that isn't said in the query.
pub(super) async fn reach(state: &AppState, session_id: &str) -> Result<Reach, ApiError> {
    Raw { session_id: Some(session_id.to_owned()), ..Raw::default() }.reach(state).await
}

/// What is read of a query without taking it for UTF-8.
#[derive(Default)]
struct Raw {
    path: Option<OsString>,
    session_id: Option<String>,
    tool_call_id: Option<String>,
    force: Option<bool>,
}

/// Where a session's paths begin, and where they may lead.
async fn standing_of(state: &AppState, session: &SessionInfo) -> Result<Reach, ApiError> {
    let reach = match &session.roots {
        None => state.fs.reach().clone(),
        Some(roots) => {
            let fence = |root: &Root| Fence { path: root.path.clone().into(), real: root.real.clone().into() };
            state.fs.beneath(roots.iter().map(fence).collect()).await?
        }
    };
    Ok(reach.from_base(Path::new(&session.cwd)))
}

/// For questions about what was done: they are asked in nobody's name. The path, when there is one, without links.
pub(super) async fn optional_path(
    state: &AppState,
    uri: &http::Uri,
    session_id: Option<&str>,
) -> Result<(Reach, Option<PathBuf>), ApiError> {
    let path = Raw::of_query(uri.query().unwrap_or_default())?.path;
    let session = match session_id {
        Some(id) => match state.sessions.get(id).await {
            Err(sessions::Error::UnknownSession { .. }) => None, // one that is gone has left edits
            found => Some(found?),
        },
        None => None,
    };
    let reach = match &session {
        Some(session) => standing_of(state, session).await?,
        None => state.fs.reach().clone(),
    };
    let Some(path) = path else { return Ok((reach, None)) };
    let path = state.fs.resolve(&reach, &reach.locate(&path)?).await;
    if !reach.covers(&path) {
        return Err(fs::Error::Outside(path).into());
    }
    Ok((reach, Some(path)))
}

impl Raw {
    /// In the name of a session, a path begins in its directory, and stays beneath its roots.
    async fn reach(&self, state: &AppState) -> Result<Reach, ApiError> {
        let forces = self.force.unwrap_or_default();
        let Some(id) = &self.session_id else {
            return Ok(state.fs.reach().in_name_of(Author { forces, ..Author::default() }));
        };
        let session = state.sessions.get(id).await?;
        let author = Author {
            session_id: Some(id.clone()),
            turn_id: session.current_turn_id.clone(),
            tool_call_id: self.tool_call_id.clone(),
            forces,
        };
        Ok(standing_of(state, &session).await?.in_name_of(author))
    }

    fn of(parts: &Parts) -> Result<Self, ApiError> {
        Self::of_query(parts.uri.query().unwrap_or_default())
    }

    fn of_query(query: &str) -> Result<Self, ApiError> {
        let mut raw = Self::default();
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = || -> Vec<u8> { percent_decode(value.replace('+', " ").as_bytes()).collect() };
            let is_second = match key {
                "path" => raw.path.replace(OsString::from_vec(decoded())).is_some(),
                "sessionId" => raw.session_id.replace(String::from_utf8_lossy(&decoded()).into_owned()).is_some(),
                "toolCallId" => raw.tool_call_id.replace(String::from_utf8_lossy(&decoded()).into_owned()).is_some(),
                "force" => {
                    let not_bool = |_| ApiError::invalid("force: provided string was not `true` or `false`");
                    raw.force.replace(value.parse().map_err(not_bool)?).is_some()
                }
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

/// `{"path": …}`.
pub(in crate::http::routes) fn path_answer(path: &Path) -> Value {
    let mut answer = json!({});
    shown(&mut answer, "path", path);
    answer
}
