//! Watching files, and waiting for one.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::target::{OptionalTarget, OptionalTargetQuery, Target, TargetQuery, shown};
use crate::config::as_duration;
use crate::fs::{Ready, WaitFor, WatchSpec};
use crate::http::extract::{ApiQuery, accepts};
use crate::http::problem::{ApiError, ErrorCode};
use crate::http::{AppState, ProblemDetails, slow, sse};

/// Patterns of one watch.
const PATTERNS_MAX: usize = 256;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(watch)).routes(routes!(wait))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct WatchQuery {
    /// False watches only what lies in the directory itself.
    #[serde(default = "yes")]
    recursive: bool,
    /// What is left out: patterns as in a `.gitignore` there, divided by commas; `!` takes one back. They win over
    /// `.gitignore`.
    #[param(example = "node_modules,*.log")]
    ignore: Option<String>,
    /// False doesn't ask `.gitignore` and `.git/info/exclude`.
    #[serde(default = "yes")]
    gitignore: bool,
    /// False leaves out names that begin with a dot.
    #[serde(default = "yes")]
    hidden: bool,
    /// True also watches `.git`.
    #[serde(default)]
    git: bool,
}

fn yes() -> bool {
    true
}

impl WatchQuery {
    fn spec(&self) -> Result<WatchSpec, ApiError> {
        let patterns = self.ignore.as_deref().unwrap_or_default().split(',').map(str::trim);
        let ignore: Vec<_> = patterns.filter(|pattern| !pattern.is_empty()).map(str::to_owned).collect();
        if ignore.len() > PATTERNS_MAX {
            return Err(ApiError::invalid(format!("ignore has more than {PATTERNS_MAX} patterns")));
        }
        let Self { recursive, gitignore, hidden, git, .. } = *self;
        Ok(WatchSpec { recursive, ignore, gitignore, hidden, git })
    }
}

/// Watches a directory.
///
/// An event stream. First `ready` (`{path,mode,why?,directories,entries,sequence}`), once nothing that changes from then on
/// is missed; then `message` with events of the log, which `/v1/events` has as well: `fs.changed`
/// (`{root,changes:[{type,path,absolutePath,kind,from?,to?}]}`, `type` being `create`, `change`, `delete` or `rename`), and
/// `fs.resync` (`{root,reason,mode,scan,differences?}`) where changes may have been missed: what differs follows, as far as
/// that can be known. `Last-Event-ID` goes on behind that position; `gap` says what can't be had any more.
#[utoipa::path(get, path = "/v1/fs/watch", tag = "fs", operation_id = "get_fs_watch",
    params(OptionalTargetQuery, WatchQuery,
           ("Last-Event-ID" = Option<u64>, Header, description = "The last position that was received")),
    responses((status = 200, description = "Server-sent events"), (status = 400, body = ProblemDetails),
        (status = 403, body = ProblemDetails), (status = 406, body = ProblemDetails), (status = 413, body = ProblemDetails),
        (status = 503, body = ProblemDetails)))]
async fn watch(
    State(state): State<AppState>,
    OptionalTarget(target): OptionalTarget,
    ApiQuery(query): ApiQuery<WatchQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    if !accepts(&headers, "text", "event-stream") {
        let why = "accept must allow text/event-stream";
        return Err(ApiError::with_message(ErrorCode::NotAcceptable, "not acceptable", why));
    }
    let resumed = sse::last_event_id(&headers)?;
    let watch = state.fs.watch(&target.reach, target.at, query.spec()?).await?;
    let frame = ready_frame(&watch.ready, resumed.is_some());
    let after = resumed.unwrap_or(watch.ready.sequence);
    sse::open_behind(&state, watch.stream, after, frame.into(), watch.held)
}

/// Who has no position yet gets this one, so that a connection that is lost at once misses nothing.
fn ready_frame(ready: &Ready, is_resumed: bool) -> String {
    let mut data = json!({});
    shown(&mut data, "path", &ready.root);
    data["mode"] = ready.means.mode.into();
    if let Some(why) = ready.means.why {
        data["why"] = why.into();
    }
    data["directories"] = ready.directories.into();
    data["entries"] = ready.entries.into();
    data["sequence"] = ready.sequence.into();
    let id = if is_resumed { String::new() } else { format!("id: {}\n", ready.sequence) };
    format!("event: ready\n{id}data: {data}\n\n")
}

/// What of a file is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum WaitEvent {
    /// It is there, or comes.
    Exists,
    /// It isn't there, or goes.
    Gone,
    /// It becomes another, comes or goes.
    Changed,
    /// It is there, and nobody has changed it for `stableMs`.
    Stable,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct WaitQuery {
    /// `exists` when absent.
    #[param(inline)]
    event: Option<WaitEvent>,
    /// At most `long_poll_max_ms`.
    #[serde(default = "default_timeout_ms")]
    #[param(default = 30_000)]
    timeout_ms: u64,
    /// For `stable`.
    #[serde(default = "default_stable_ms")]
    #[param(default = 500)]
    stable_ms: u64,
}

fn default_timeout_ms() -> u64 {
    30_000
}

fn default_stable_ms() -> u64 {
    500
}

/// How waiting for a file ended.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct FsWaited {
    /// The file.
    path: Value,
    /// What was waited for.
    event: WaitEvent,
    /// False when the time was over first.
    met: bool,
    /// What it is now, as `GET /v1/fs/stat` says it; null when it isn't there.
    #[schema(value_type = Option<super::entries::FsStat>)]
    stat: Option<Box<RawValue>>,
}

/// Waits for a file: that it is there, is gone, changes, or has come to rest. It need not be there yet, nor the
/// directories above it. A long wait sends white space before the JSON.
#[utoipa::path(get, path = "/v1/fs/wait", tag = "fs", operation_id = "get_fs_wait", params(TargetQuery, WaitQuery),
    responses((status = 200, body = FsWaited), (status = 400, body = ProblemDetails), (status = 403, body = ProblemDetails)))]
async fn wait(State(state): State<AppState>, target: Target, ApiQuery(query): ApiQuery<WaitQuery>) -> Result<Response, ApiError> {
    let bounds = &state.config.bounds;
    if query.timeout_ms > bounds.long_poll_max_ms {
        return Err(ApiError::invalid(format!("timeoutMs must be at most {}", bounds.long_poll_max_ms)));
    }
    let (event, time) = (query.event.unwrap_or(WaitEvent::Exists), Duration::from_millis(query.timeout_ms));
    let what = match event {
        WaitEvent::Exists => WaitFor::Exists,
        WaitEvent::Gone => WaitFor::Gone,
        WaitEvent::Changed => WaitFor::Changed,
        WaitEvent::Stable => WaitFor::Stable(Duration::from_millis(query.stable_ms)),
    };
    let keepalive = as_duration(bounds.acp_post_keepalive_ms);
    let stop = state.stop.clone();
    let waited = async move {
        let mut path = json!({});
        shown(&mut path, "path", target.at.path());
        let waited = tokio::select! {
            waited = state.fs.wait_for(&target.reach, target.at, what, time) => waited?,
            () = stop.cancelled() => return Err(crate::fs::Error::Stopping.into()),
        };
        let stat = waited.stat.and_then(|stat| RawValue::from_string(String::from_utf8(stat).ok()?).ok());
        Ok(FsWaited { path: path["path"].take(), event, met: waited.met, stat })
    };
    slow::json(waited, keepalive).await
}
