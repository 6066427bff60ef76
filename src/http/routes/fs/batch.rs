//! Many small things in one request.

use std::path::Path;

use axum::Json;
use axum::extract::State;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::target::{AuthorQuery, PathText, Reached, path_answer, shown};
use crate::fs::{Content, Error, Expected, Fsync, Located, Reach, Sha256Hex, Validator};
use crate::http::extract::LargeJson;
use crate::http::problem::{ApiError, ErrorCode};
use crate::http::{AppState, ProblemDetails};

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(run_batch))
}

/// What is to be done, in this order.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct FsBatch {
    operations: Vec<FsOperation>,
    /// True ends it behind the first one that fails; what was done stays.
    #[serde(default)]
    stop_on_error: bool,
}

/// One of them.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "op", rename_all = "lowercase", rename_all_fields = "camelCase")]
enum FsOperation {
    /// Gives a content.
    Read {
        path: PathText,
        /// Without one: text when the content is UTF-8, else base64.
        encoding: Option<Encoding>,
    },
    /// Writes a file whole; directories above it are made.
    Write {
        path: PathText,
        content: String,
        /// What `content` is; text when absent.
        #[serde(default)]
        encoding: Encoding,
        /// Only if the file has this content (hex), else 412.
        expect_sha256: Option<String>,
        /// True: only if there is no such file, else 412.
        #[serde(default)]
        create: bool,
    },
    /// Removes a file, a link or a directory.
    Delete {
        path: PathText,
        #[serde(default)]
        recursive: bool,
    },
    /// Makes a directory, and those above it.
    Mkdir { path: PathText },
    /// Gives another name.
    Move {
        from: PathText,
        to: PathText,
        #[serde(default)]
        overwrite: bool,
    },
    /// Copies.
    Copy {
        from: PathText,
        to: PathText,
        #[serde(default)]
        overwrite: bool,
    },
    /// Says what a path leads to.
    Stat {
        path: PathText,
        /// False says what a link itself is.
        #[serde(default = "yes")]
        follow: bool,
    },
}

fn yes() -> bool {
    true
}

/// What a content is in JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    #[default]
    Utf8,
    Base64,
}

/// A result for each operation, in their order; fewer when it ended early.
#[derive(Debug, Serialize, ToSchema)]
struct FsBatchResult {
    results: Vec<FsOperationResult>,
    /// How many of them failed.
    failed: usize,
}

/// What one operation gave.
#[derive(Debug, Serialize, ToSchema)]
struct FsOperationResult {
    /// The status that the route for it answers.
    status: u16,
    /// Its answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    body: Option<Value>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ProblemDetails>)]
    problem: Option<Value>,
}

/// Does a list of small things, one after another, each with a result of its own.
#[utoipa::path(post, path = "/v1/fs/batch", tag = "fs", operation_id = "post_fs_batch", request_body = FsBatch, params(AuthorQuery),
    responses((status = 200, body = FsBatchResult), (status = 400, body = ProblemDetails), (status = 413, body = ProblemDetails),
              (status = 422, body = ProblemDetails)))]
async fn run_batch(
    State(state): State<AppState>,
    Reached(reach): Reached,
    LargeJson(batch): LargeJson<FsBatch>,
) -> Result<Json<FsBatchResult>, ApiError> {
    let bounds = &state.config.bounds;
    if batch.operations.len() as u64 > bounds.fs_batch_operations_max {
        let (what, max) = ("operations of one batch".to_owned(), bounds.fs_batch_operations_max);
        return Err(Error::TooMuch { what, max, bound: "fs_batch_operations_max" }.into());
    }
    let mut batch_run = Run { state: &state, reach, bytes_left: bounds.fs_batch_read_max_bytes };
    let mut answer = FsBatchResult { results: Vec::with_capacity(batch.operations.len()), failed: 0 };
    for operation in batch.operations {
        match batch_run.one(operation).await {
            Ok(body) => answer.results.push(FsOperationResult { status: 200, body: Some(body), problem: None }),
            Err(error) => {
                let problem = error.body();
                let status = problem["status"].as_u64().and_then(|status| status.try_into().ok()).unwrap_or(500);
                answer.results.push(FsOperationResult { status, body: None, problem: Some(problem) });
                answer.failed += 1;
                if batch.stop_on_error {
                    break;
                }
            }
        }
    }
    Ok(Json(answer))
}

struct Run<'a> {
    state: &'a AppState,
    reach: Reach,
    /// What may still be read into the answer.
    bytes_left: u64,
}

impl Run<'_> {
    async fn one(&mut self, operation: FsOperation) -> Result<Value, ApiError> {
        let (fs, reach) = (&self.state.fs, &self.reach);
        match operation {
            FsOperation::Read { path, encoding } => self.read(path.locate(reach)?, encoding).await,
            FsOperation::Write { path, content, encoding, expect_sha256, create } => {
                let expected = expected(expect_sha256, create)?;
                self.write(path.locate(reach)?, content, encoding, expected).await
            }
            FsOperation::Delete { path, recursive } => {
                let at = path.locate(reach)?;
                let answer = path_answer(at.path());
                fs.remove(reach, at, recursive).await?;
                Ok(answer)
            }
            FsOperation::Mkdir { path } => {
                let at = path.locate(reach)?;
                let answer = path_answer(at.path());
                fs.make_directory(reach, at).await?;
                Ok(answer)
            }
            FsOperation::Move { from, to, overwrite } => {
                let (from, to) = (from.locate(reach)?, to.locate(reach)?);
                let answer = both(from.path(), to.path());
                fs.relocate(reach, from, to, overwrite).await?;
                Ok(answer)
            }
            FsOperation::Copy { from, to, overwrite } => {
                let (from, to) = (from.locate(reach)?, to.locate(reach)?);
                let answer = both(from.path(), to.path());
                fs.copy(reach, from, to, overwrite).await?;
                Ok(answer)
            }
            FsOperation::Stat { path, follow } => {
                let stat = fs.stat(reach, path.locate(reach)?, follow).await?;
                serde_json::from_slice(&stat).map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))
            }
        }
    }

    async fn read(&mut self, at: Located, encoding: Option<Encoding>) -> Result<Value, ApiError> {
        let mut answer = path_answer(at.path());
        let opened = self.state.fs.open(&self.reach, at).await?;
        let max = self.state.config.bounds.fs_batch_read_max_bytes;
        let too_much = || Error::TooMuch { what: "bytes read in one batch".to_owned(), max, bound: "fs_batch_read_max_bytes" };
        if opened.meta.size > self.bytes_left {
            return Err(too_much().into());
        }
        let mut content = Vec::new();
        match self.state.fs.read(&opened, None).await? {
            Content::Whole(whole) => content.extend_from_slice(&whole),
            Content::Pieces(_, mut pieces) => {
                while let Some(piece) = pieces.recv().await {
                    content.extend_from_slice(&piece?);
                    if content.len() as u64 > self.bytes_left {
                        return Err(too_much().into());
                    }
                }
            }
        }
        self.bytes_left -= (content.len() as u64).min(self.bytes_left);
        answer["size"] = content.len().into();
        answer["sha256"] = match &opened.validator {
            Validator::Content(hash) => hash.as_str().into(),
            Validator::Times(_) => Sha256Hex::of(&content).as_str().into(),
        };
        let (encoding, text) = match (encoding, String::from_utf8(content)) {
            (None | Some(Encoding::Utf8), Ok(text)) => (Encoding::Utf8, text),
            (Some(Encoding::Base64), Ok(text)) => (Encoding::Base64, BASE64_STANDARD.encode(text)),
            (None | Some(Encoding::Base64), Err(odd)) => (Encoding::Base64, BASE64_STANDARD.encode(odd.as_bytes())),
            (Some(Encoding::Utf8), Err(_)) => return Err(ApiError::invalid("the file isn't UTF-8: ask for base64")),
        };
        answer["encoding"] = json!(encoding);
        answer["content"] = text.into();
        Ok(answer)
    }

    async fn write(&self, at: Located, content: String, encoding: Encoding, expected: Expected) -> Result<Value, ApiError> {
        let content = match encoding {
            Encoding::Utf8 => content.into_bytes(),
            Encoding::Base64 => {
                let decoded = BASE64_STANDARD.decode(content);
                decoded.map_err(|error| ApiError::invalid(format!("a content in base64: {error}")))?
            }
        };
        let written = self.state.fs.write(&self.reach, at, content.into(), expected, Fsync::No).await?;
        let mut answer = path_answer(written.at.path());
        answer["bytesWritten"] = written.size.into();
        answer["sha256"] = written.hash.as_str().into();
        Ok(answer)
    }
}

fn expected(hash: Option<String>, create: bool) -> Result<Expected, ApiError> {
    match (hash, create) {
        (None, false) => Ok(Expected::Anything),
        (None, true) => Ok(Expected::Nothing),
        (Some(_), true) => Err(ApiError::invalid("expectSha256 and create together: send one of them")),
        (Some(hash), false) => {
            let hash = Sha256Hex::parse(&hash).ok_or_else(|| ApiError::invalid("expectSha256 must be 64 hex digits"))?;
            Ok(Expected::Content(vec![hash]))
        }
    }
}

fn both(from: &Path, to: &Path) -> Value {
    let mut answer = json!({});
    shown(&mut answer, "from", from);
    shown(&mut answer, "to", to);
    answer
}
