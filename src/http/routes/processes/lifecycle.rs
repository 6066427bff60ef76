//! From the start of a process to its deletion, and the limits that hold for all of them.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::de::IntoDeserializer as _;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::config::as_duration;
use crate::http::extract::{ApiJson, ApiPath, ApiQuery};
use crate::http::problem::ApiError;
use crate::http::{AppState, ProblemDetails, slow};
use crate::processes::Owner;
use crate::processes::types::{
    ProcessConfig, ProcessInfo, ProcessSpec, ProcessStatus, RunResult, RunSpec, SignalScope, parse_signal,
};

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_processes, create_process))
        .routes(routes!(get_process_config, set_process_config))
        .routes(routes!(run_process))
        .routes(routes!(get_process, delete_process))
        .routes(routes!(stop_process))
        .routes(routes!(kill_process))
        .routes(routes!(signal_process))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Whose: `user`, `desktop`, `system`, `agent`, `run`, `lsp`, `browser`, or `all`. Absent: those of users, the
    /// desktop and browsers.
    owner: Option<String>,
    /// Only those with, or without, a terminal.
    tty: Option<bool>,
    /// Only those that are there in their life.
    #[param(inline)]
    status: Option<ProcessStatus>,
}

/// Whom a list asks for: one owner, or everybody.
fn parse_owner(word: Option<&str>) -> Result<(Option<Owner>, bool), ApiError> {
    let Some(word) = word else { return Ok((None, false)) };
    if word == "all" {
        return Ok((None, true));
    }
    let owner: Result<Owner, serde::de::value::Error> = Owner::deserialize(word.into_deserializer());
    let words = "owner must be one of: user, desktop, system, agent, run, lsp, browser, all";
    owner.map(|owner| (Some(owner), false)).map_err(|_| ApiError::invalid(words))
}

/// Processes, in the order of their numbers.
#[derive(Debug, Serialize, ToSchema)]
struct ProcessList {
    #[schema(value_type = Vec<ProcessInfo>)]
    processes: Vec<Arc<ProcessInfo>>,
}

/// Lists processes.
#[utoipa::path(get, path = "/v1/processes", tag = "processes", operation_id = "list_processes", params(ListQuery),
    responses((status = 200, body = ProcessList), (status = 400, body = ProblemDetails)))]
async fn list_processes(
    State(state): State<AppState>,
    ApiQuery(query): ApiQuery<ListQuery>,
) -> Result<Json<ProcessList>, ApiError> {
    let (owner, all) = parse_owner(query.owner.as_deref())?;
    let mut processes = state.processes.list(owner, all);
    processes.retain(|info| query.tty.is_none_or(|tty| info.tty == tty));
    processes.retain(|info| query.status.is_none_or(|status| info.status == status));
    Ok(Json(ProcessList { processes }))
}

/// Starts a process that stays until it is deleted.
#[utoipa::path(post, path = "/v1/processes", tag = "processes", operation_id = "create_process", request_body = ProcessSpec,
    responses((status = 200, body = ProcessInfo), (status = 400, body = ProblemDetails),
        (status = 403, body = ProblemDetails, description = "The program may not be executed"),
        (status = 409, body = ProblemDetails, description = "Too many run, or the idempotency key was used for something else"),
        (status = 413, body = ProblemDetails), (status = 415, body = ProblemDetails),
        (status = 422, body = ProblemDetails, description = "Another shape is asked for, or no such program or directory"),
        (status = 502, body = ProblemDetails, description = "The system refused"), (status = 503, body = ProblemDetails),
        (status = 507, body = ProblemDetails)))]
async fn create_process(
    State(state): State<AppState>,
    ApiJson(spec): ApiJson<ProcessSpec>,
) -> Result<Json<ProcessInfo>, ApiError> {
    Ok(Json(state.processes.create(spec, Owner::User).await?))
}

/// Shows the limits.
#[utoipa::path(get, path = "/v1/processes/config", tag = "processes", operation_id = "get_process_config",
    responses((status = 200, body = ProcessConfig)))]
async fn get_process_config(State(state): State<AppState>) -> Json<ProcessConfig> {
    Json(state.processes.config())
}

/// Replaces the limits, all of them, and gives what holds now.
#[utoipa::path(post, path = "/v1/processes/config", tag = "processes", operation_id = "set_process_config",
    request_body = ProcessConfig,
    responses((status = 200, body = ProcessConfig), (status = 400, body = ProblemDetails, description = "A limit is 0"),
        (status = 413, body = ProblemDetails), (status = 415, body = ProblemDetails), (status = 422, body = ProblemDetails)))]
async fn set_process_config(
    State(state): State<AppState>,
    ApiJson(config): ApiJson<ProcessConfig>,
) -> Result<Json<ProcessConfig>, ApiError> {
    Ok(Json(state.processes.set_config(config)?))
}

/// Runs a program to its end and gives its output. A client that leaves doesn't end it; its time does. A long run sends
/// white space before the JSON.
#[utoipa::path(post, path = "/v1/processes/run", tag = "processes", operation_id = "run_process", request_body = RunSpec,
    responses((status = 200, body = RunResult), (status = 400, body = ProblemDetails),
        (status = 403, body = ProblemDetails, description = "The program may not be executed"),
        (status = 409, body = ProblemDetails, description = "Too many run, or the idempotency key was used for something else"),
        (status = 413, body = ProblemDetails), (status = 415, body = ProblemDetails),
        (status = 422, body = ProblemDetails, description = "Another shape is asked for, or no such program or directory"),
        (status = 502, body = ProblemDetails, description = "The system refused"), (status = 503, body = ProblemDetails)))]
async fn run_process(State(state): State<AppState>, ApiJson(spec): ApiJson<RunSpec>) -> Result<Response, ApiError> {
    let keepalive = as_duration(state.config.bounds.acp_post_keepalive_ms);
    slow::json(async move { Ok(state.processes.run(spec).await?) }, keepalive).await
}

/// Shows a process.
#[utoipa::path(get, path = "/v1/processes/{id}", tag = "processes", operation_id = "get_process",
    params(("id" = String, Path, description = "`proc_<n>`")),
    responses((status = 200, body = ProcessInfo), (status = 400, body = ProblemDetails), (status = 404, body = ProblemDetails)))]
async fn get_process(State(state): State<AppState>, ApiPath(id): ApiPath<String>) -> Result<Json<Arc<ProcessInfo>>, ApiError> {
    Ok(Json(state.processes.get(&id)?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase")]
struct EndQuery {
    /// How long to wait for the end, in milliseconds; 0 answers at once. Absent: until nothing is left.
    wait_ms: Option<u64>,
}

impl EndQuery {
    fn wait(&self) -> Option<Duration> {
        self.wait_ms.map(Duration::from_millis)
    }
}

/// Sends TERM to a process and all that descends from it, and shows it as it is after the wait: perhaps still running.
#[utoipa::path(post, path = "/v1/processes/{id}/stop", tag = "processes", operation_id = "stop_process",
    params(("id" = String, Path, description = "`proc_<n>`"), EndQuery),
    responses((status = 200, body = ProcessInfo), (status = 400, body = ProblemDetails), (status = 404, body = ProblemDetails)))]
async fn stop_process(
    State(state): State<AppState>,
    ApiPath(id): ApiPath<String>,
    ApiQuery(query): ApiQuery<EndQuery>,
) -> Result<Json<ProcessInfo>, ApiError> {
    Ok(Json(state.processes.stop(&id, query.wait()).await?))
}

/// Sends KILL to a process and all that descends from it.
#[utoipa::path(post, path = "/v1/processes/{id}/kill", tag = "processes", operation_id = "kill_process",
    params(("id" = String, Path, description = "`proc_<n>`"), EndQuery),
    responses((status = 200, body = ProcessInfo), (status = 400, body = ProblemDetails), (status = 404, body = ProblemDetails)))]
async fn kill_process(
    State(state): State<AppState>,
    ApiPath(id): ApiPath<String>,
    ApiQuery(query): ApiQuery<EndQuery>,
) -> Result<Json<ProcessInfo>, ApiError> {
    Ok(Json(state.processes.kill(&id, query.wait()).await?))
}

/// Deletes a process that has ended, and its log.
#[utoipa::path(delete, path = "/v1/processes/{id}", tag = "processes", operation_id = "delete_process",
    params(("id" = String, Path, description = "`proc_<n>`")),
    responses((status = 204, description = "It is gone"), (status = 400, body = ProblemDetails), (status = 404, body = ProblemDetails),
        (status = 409, body = ProblemDetails, description = "It still runs"), (status = 507, body = ProblemDetails)))]
async fn delete_process(State(state): State<AppState>, ApiPath(id): ApiPath<String>) -> Result<StatusCode, ApiError> {
    state.processes.delete(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A signal that is to be sent.
#[derive(Debug, Deserialize, ToSchema)]
struct SignalRequest {
    /// Its name or number (signal(7)): `INT`, `SIGINT` or `2`.
    #[schema(inline)]
    signal: SignalName,
    /// Who gets it.
    #[serde(default)]
    scope: SignalScope,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
enum SignalName {
    Name(String),
    Number(i32),
}

impl SignalName {
    fn parse(&self) -> Result<nix::sys::signal::Signal, ApiError> {
        let name = match self {
            Self::Name(name) => name.clone(),
            Self::Number(number) => number.to_string(),
        };
        let unknown = || ApiError::invalid(format!("unknown signal {name:?}: give a name or number of signal(7), such as INT"));
        parse_signal(&name).ok_or_else(unknown)
    }
}

/// What came of a signal.
#[derive(Debug, Serialize, ToSchema)]
struct SignalResult {
    /// Processes that it was sent to.
    signalled: usize,
}

/// Sends a signal to a process, its group, or all that descends from it.
#[utoipa::path(post, path = "/v1/processes/{id}/signal", tag = "processes", operation_id = "signal_process",
    params(("id" = String, Path, description = "`proc_<n>`")), request_body = SignalRequest,
    responses((status = 200, body = SignalResult), (status = 400, body = ProblemDetails, description = "No such signal"),
        (status = 404, body = ProblemDetails), (status = 409, body = ProblemDetails, description = "It has ended"),
        (status = 413, body = ProblemDetails), (status = 415, body = ProblemDetails), (status = 422, body = ProblemDetails)))]
async fn signal_process(
    State(state): State<AppState>,
    ApiPath(id): ApiPath<String>,
    ApiJson(request): ApiJson<SignalRequest>,
) -> Result<Json<SignalResult>, ApiError> {
    let signal = request.signal.parse()?;
    Ok(Json(SignalResult { signalled: state.processes.signal(&id, signal, request.scope).await? }))
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::Signal;
    use serde_json::json;

    use super::*;

    #[test]
    fn owners_are_words_of_the_contract_or_all() {
        assert_eq!(parse_owner(None).expect("a default"), (None, false));
        assert_eq!(parse_owner(Some("all")).expect("everybody"), (None, true));
        for owner in [Owner::User, Owner::Desktop, Owner::System, Owner::Agent, Owner::Run, Owner::Lsp, Owner::Browser] {
            assert_eq!(parse_owner(Some(owner.as_str())).expect("an owner"), (Some(owner), false));
        }
        for bad in ["", "User", "users"] {
            assert!(parse_owner(Some(bad)).expect_err(bad).detail().contains("owner must be one of"), "{bad}");
        }
    }

    #[test]
    fn signals_are_names_or_numbers() {
        for name in [json!("INT"), json!("SIGINT"), json!("int"), json!(2), json!("2")] {
            let request: SignalRequest = serde_json::from_value(json!({"signal": name})).expect("the shape");
            assert_eq!((request.signal.parse().expect("a signal"), request.scope), (Signal::SIGINT, SignalScope::Process));
        }
        for name in [json!("NOPE"), json!(0), json!(-1), json!(999), json!("")] {
            let request: SignalRequest = serde_json::from_value(json!({"signal": name, "scope": "tree"})).expect("the shape");
            assert!(request.signal.parse().is_err(), "{name}");
        }
        for shape in [json!({}), json!({"signal": 1.5}), json!({"signal": "INT", "scope": "everyone"})] {
            assert!(serde_json::from_value::<SignalRequest>(shape.clone()).is_err(), "{shape}");
        }
    }
}
