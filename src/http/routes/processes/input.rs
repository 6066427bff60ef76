//! What is written to a process: input, and the size of its terminal.

use axum::Json;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::extract::{ApiJson, ApiPath};
use crate::http::problem::{ApiError, ErrorCode};
use crate::http::{AppState, ProblemDetails};
use crate::processes::Error;
use crate::processes::types::{Encoding, TerminalSize};

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(write_process_input)).routes(routes!(resize_terminal))
}

/// The encoding that a client names; `default` when it names none.
///
/// # Errors
/// The contract's sentence about a word that is none of the three.
pub(super) fn parse_encoding(word: Option<&str>, default: Encoding) -> Result<Encoding, String> {
    match word {
        None => Ok(default),
        Some("base64") => Ok(Encoding::Base64),
        Some("utf8" | "text") => Ok(Encoding::Utf8),
        Some(_) => Err("encoding must be one of: base64, utf8, text".to_owned()),
    }
}

/// The bytes that `data` stands for.
///
/// # Errors
/// The contract's sentence about an unknown encoding or broken base64.
pub(super) fn decode(data: String, encoding: Option<&str>, default: Encoding) -> Result<Bytes, String> {
    match parse_encoding(encoding, default)? {
        Encoding::Utf8 => Ok(data.into()),
        Encoding::Base64 => match STANDARD.decode(data) {
            Ok(bytes) => Ok(bytes.into()),
            Err(error) => Err(format!("invalid base64 input: {error}")),
        },
    }
}

/// Input for a process.
#[derive(Debug, Deserialize, ToSchema)]
struct InputRequest {
    /// What to write; needed unless `eof` is set.
    data: Option<String>,
    /// What `data` is: `base64` (when absent or null), or `utf8`, also called `text`.
    encoding: Option<String>,
    /// Ends the process's stdin after `data`.
    #[serde(default)]
    eof: bool,
}

/// What was written.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct InputResult {
    /// Bytes of `data`, decoded.
    bytes_written: usize,
}

/// Writes to a process's stdin or terminal.
#[utoipa::path(post, path = "/v1/processes/{id}/input", tag = "processes", operation_id = "write_process_input",
    params(("id" = String, Path, description = "`proc_<n>`")), request_body = InputRequest,
    responses((status = 200, body = InputResult), (status = 400, body = ProblemDetails, description = "Unknown encoding, or broken base64"),
        (status = 404, body = ProblemDetails),
        (status = 409, body = ProblemDetails, description = "It has ended, its stdin is closed, or it doesn't read and too much waits already"),
        (status = 413, body = ProblemDetails, description = "More than `maxInputBytesPerRequest`"),
        (status = 415, body = ProblemDetails), (status = 422, body = ProblemDetails)))]
async fn write_process_input(
    State(state): State<AppState>,
    ApiPath(id): ApiPath<String>,
    ApiJson(request): ApiJson<InputRequest>,
) -> Result<Json<InputResult>, ApiError> {
    if request.data.is_none() && !request.eof {
        return Err(ApiError::new(ErrorCode::InvalidShape, "invalid request: missing field `data`"));
    }
    // The contract names what is wrong with the input before it looks for the process.
    let encoding = request.encoding.as_deref();
    parse_encoding(encoding, Encoding::Base64).map_err(ApiError::invalid)?;
    let bytes = request.data.map(|data| decode(data, encoding, Encoding::Base64)).transpose().map_err(ApiError::invalid)?;
    let bytes_written = match bytes {
        Some(bytes) => state.processes.input(&id, bytes).await?,
        None => 0,
    };
    if request.eof {
        state.processes.close_stdin(&id).await?;
    }
    Ok(Json(InputResult { bytes_written }))
}

/// Changes the size of a process's terminal.
#[utoipa::path(post, path = "/v1/processes/{id}/terminal/resize", tag = "processes", operation_id = "resize_terminal",
    params(("id" = String, Path, description = "`proc_<n>`")), request_body = TerminalSize,
    responses((status = 200, body = TerminalSize), (status = 400, body = ProblemDetails, description = "0, or more than 1000"),
        (status = 404, body = ProblemDetails), (status = 409, body = ProblemDetails, description = "It has no terminal, or has ended"),
        (status = 413, body = ProblemDetails), (status = 415, body = ProblemDetails), (status = 422, body = ProblemDetails)))]
async fn resize_terminal(
    State(state): State<AppState>,
    ApiPath(id): ApiPath<String>,
    ApiJson(size): ApiJson<TerminalSize>,
) -> Result<Json<TerminalSize>, ApiError> {
    match state.processes.resize(&id, size).await {
        Ok(()) => Ok(Json(size)),
        Err(Error::NotRunning { .. }) => {
            Err(ApiError::with_message(ErrorCode::Conflict, "conflict", "PTY resize handle unavailable")) // the contract's words
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(data: &str, encoding: Option<&str>) -> Result<Bytes, String> {
        decode(data.to_owned(), encoding, Encoding::Base64)
    }

    #[test]
    fn input_is_decoded_as_the_contract_says() {
        assert_eq!(decoded("aGkK", None).as_deref(), Ok(&b"hi\n"[..]));
        assert_eq!(decoded("aGkK", Some("base64")).as_deref(), Ok(&b"hi\n"[..]));
        assert_eq!(decoded("", None).as_deref(), Ok(&b""[..]));
        for text in ["utf8", "text"] {
            assert_eq!(decoded("aGkK é", Some(text)).as_deref(), Ok("aGkK é".as_bytes()));
        }
        assert_eq!(decode("aGkK".into(), None, Encoding::Utf8).as_deref(), Ok(&b"aGkK"[..]));
        for bad in ["a", "aGk", "aGkK\n", "a_-=", "é"] {
            assert!(decoded(bad, None).expect_err(bad).starts_with("invalid base64 input: "), "{bad}");
        }
        for bad in ["", "hex", "BASE64"] {
            assert_eq!(decoded("aGkK", Some(bad)), Err("encoding must be one of: base64, utf8, text".to_owned()), "{bad}");
        }
    }
}
