//! Which files of a tree a request is about: patterns that may be given several times.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::request::Parts;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::fs::Wanted;
use crate::http::AppState;
use crate::http::problem::ApiError;

/// Patterns for names.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // describes the API; the extractor reads what comes several times
pub(super) struct PatternsQuery {
    /// Only what fits; with `!` before it, nothing that fits. Several times: the last one that fits counts. Syntax of
    /// `.gitignore`, whose rules it wins over.
    glob: Option<Vec<String>>,
    /// A further ignore rule, several times. It wins over those of the tree.
    ignore: Option<Vec<String>>,
}

/// The same, read.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    globs: Vec<String>,
    ignore: Vec<String>,
}

impl FromRequestParts<AppState> for Patterns {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Infallible> {
        let mut patterns = Self::default();
        for (key, value) in parts.uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')) {
            let of = match key {
                "glob" => &mut patterns.globs,
                "ignore" => &mut patterns.ignore,
                _ => continue,
            };
            of.push(percent_decode_str(&value.replace('+', " ")).decode_utf8_lossy().into_owned());
        }
        Ok(patterns)
    }
}

impl Patterns {
    /// With what else says which files.
    pub(super) fn wanted(self, hidden: bool, ignored: bool, depth: Option<usize>) -> Wanted {
        Wanted { globs: self.globs, ignore: self.ignore, hidden, ignored, depth }
    }
}

/// The same in a JSON body.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct SelectionBody {
    /// Only what fits one of these; with `!` before it, nothing that fits.
    globs: Vec<String>,
    /// Further ignore rules, which win over those of the tree.
    ignore: Vec<String>,
    /// Names that begin with a dot, too.
    hidden: bool,
    /// What ignore rules leave out, too.
    ignored: bool,
    /// So many levels; 1 is what the directory itself holds.
    depth: Option<usize>,
}

impl From<SelectionBody> for Wanted {
    fn from(body: SelectionBody) -> Self {
        let SelectionBody { globs, ignore, hidden, ignored, depth } = body;
        Self { globs, ignore, hidden, ignored, depth }
    }
}

/// A count that makes sense.
///
/// # Errors
/// 400 for 0.
pub(super) fn at_least_one<T: PartialEq + From<u8>>(name: &str, value: Option<T>) -> Result<Option<T>, ApiError> {
    if value == Some(T::from(0)) {
        return Err(ApiError::invalid(format!("{name} must be at least 1")));
    }
    Ok(value)
}
