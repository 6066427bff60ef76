//! What is said of a file and a place in it, the same in all questions.

use std::time::Duration;

use serde::Deserialize;
use utoipa::ToSchema;

use super::super::fs::target::PathText;
use crate::fs::Reach;
use crate::http::AppState;
use crate::http::problem::ApiError;
use crate::lsp::{Asked, Asking, Encoding, Place, Position, Range};

/// What characters are counted in.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
pub(super) enum PositionEncoding {
    /// Bytes.
    #[serde(rename = "utf-8")]
    Utf8,
    /// As LSP does when nothing else is agreed on.
    #[default]
    #[serde(rename = "utf-16")]
    Utf16,
    /// Code points.
    #[serde(rename = "utf-32")]
    Utf32,
}

impl From<PositionEncoding> for Encoding {
    fn from(encoding: PositionEncoding) -> Self {
        match encoding {
            PositionEncoding::Utf8 => Self::Utf8,
            PositionEncoding::Utf16 => Self::Utf16,
            PositionEncoding::Utf32 => Self::Utf32,
        }
    }
}

/// A question about a file. A place in it is said by `line` and `character`, or by `line` and `atText`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Question {
    /// The file.
    pub(super) path: PathText,
    /// From 0.
    pub(super) line: Option<u32>,
    /// From 0, in `encoding`.
    pub(super) character: Option<u32>,
    /// Text of the line, instead of `character`: where it begins.
    pub(super) at_text: Option<String>,
    /// Which one, from 1, when the text is there several times.
    pub(super) occurrence: Option<usize>,
    /// A part of the file.
    pub(super) range: Option<Range>,
    /// What characters are counted in, in the answer, too: `utf-16` when absent.
    #[serde(default)]
    pub(super) encoding: PositionEncoding,
    /// One server only, as the catalogue calls it; else the first that can.
    pub(super) server: Option<String>,
    /// What the file would have, instead of what it has.
    pub(super) text: Option<String>,
    /// `lsp_request_timeout_ms` when absent, and at most that.
    pub(super) timeout_ms: Option<u64>,
}

impl Question {
    pub(super) async fn asking(&self, state: &AppState, reach: &Reach) -> Result<Asking, ApiError> {
        let max = state.config.bounds.lsp_request_timeout_ms;
        if self.timeout_ms.is_some_and(|timeout_ms| timeout_ms > max) {
            return Err(ApiError::invalid(format!("timeoutMs must be at most {max}")));
        }
        Ok(Asking {
            file: asked(state, reach, self.path.locate(reach)?).await?,
            text: self.text.clone(),
            server: self.server.clone(),
            encoding: self.encoding.into(),
            timeout: self.timeout_ms.map(Duration::from_millis),
        })
    }

    pub(super) fn place(&self) -> Result<Place, ApiError> {
        let line =
            self.line.ok_or_else(|| ApiError::invalid("the place is missing: give `line` with `character` or `atText`"))?;
        match (self.character, &self.at_text) {
            (Some(character), None) => Ok(Place::At(Position { line, character })),
            (None, Some(text)) if !text.is_empty() => {
                Ok(Place::Text { line, text: text.clone(), occurrence: self.occurrence.unwrap_or(1).max(1) })
            }
            _ => Err(ApiError::invalid("a place in a line is said by `character` or by `atText`, and by one of them")),
        }
    }
}

/// A file or directory that this client may read, where it really lies.
pub(super) async fn asked(state: &AppState, reach: &Reach, at: crate::fs::Located) -> Result<Asked, ApiError> {
    state.fs.stat(reach, at.clone(), true).await?;
    let path = state.fs.resolve(reach, &at).await;
    Ok(Asked { path, base: reach.base().to_path_buf() })
}
