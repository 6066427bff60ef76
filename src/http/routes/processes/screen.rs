//! What a terminal shows, for those who have no terminal themselves.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::header;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::extract::{ApiPath, ApiQuery};
use crate::http::problem::ApiError;
use crate::http::{AppState, ProblemDetails};
use crate::processes::types::TerminalSize;
use crate::processes::{CursorInfo, Screen, ScreenCells};

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get_terminal_screen))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase")]
struct ScreenQuery {
    /// `text` (JSON with lines), `cells` (JSON with styled runs), or `plain` (`text/plain`).
    #[serde(default)]
    format: Format,
    /// With the lines above the screen, as far as they are in memory; not with `cells`.
    #[serde(default)]
    scrollback: bool,
    /// One line for the rows that a long line was wrapped into; not with `cells`.
    #[serde(default)]
    join_wrapped: bool,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Text,
    Cells,
    Plain,
}

/// A terminal's screen as text.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ScreenText {
    size: TerminalSize,
    /// From top to bottom, without the blanks at their ends.
    lines: Vec<String>,
    cursor: CursorInfo,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    /// A full-screen program shows its own screen; the scrollback belongs to the other one.
    alternate: bool,
    /// Lines above the screen.
    scrollback_lines: usize,
}

fn text(screen: &Screen, query: &ScreenQuery) -> ScreenText {
    ScreenText {
        size: screen.size(),
        lines: screen.text(query.scrollback, query.join_wrapped),
        cursor: screen.cursor_info(),
        title: screen.title().map(str::to_owned),
        alternate: screen.is_alternate(),
        scrollback_lines: screen.scrollback_lines(),
    }
}

/// Shows a terminal's screen as it is now; of a process that ended, as it was last.
#[utoipa::path(get, path = "/v1/processes/{id}/terminal/screen", tag = "processes", operation_id = "get_terminal_screen",
    params(("id" = String, Path, description = "`proc_<n>`"), ScreenQuery),
    responses((status = 200, body = ScreenText, description = "With `format=cells` a ScreenCells"),
        (status = 400, body = ProblemDetails), (status = 404, body = ProblemDetails),
        (status = 409, body = ProblemDetails, description = "It has no terminal"), (status = 500, body = ProblemDetails)))]
async fn get_terminal_screen(
    State(state): State<AppState>,
    ApiPath(id): ApiPath<String>,
    ApiQuery(query): ApiQuery<ScreenQuery>,
) -> Result<Response, ApiError> {
    if matches!(query.format, Format::Cells) {
        let cells: ScreenCells = state.processes.screen(&id, |screen| screen.cells()).await?;
        return Ok(Json(cells).into_response());
    }
    let is_plain = matches!(query.format, Format::Plain);
    let shown = state.processes.screen(&id, move |screen| text(screen, &query)).await?;
    if is_plain {
        let lines: String = shown.lines.iter().flat_map(|line| [line, "\n"]).collect();
        return Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], lines).into_response());
    }
    Ok(Json(shown).into_response())
}
