//! Pointer and keyboard.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Done;
use super::lease::{Admitted, HolderHeader};
use crate::desktop::types::PointerPosition;
use crate::desktop::{Action, ActionButton, ActionsResult, ActionsSpec, Modifiers, Point, Space};
use crate::http::extract::ApiJson;
use crate::http::problem::ApiError;
use crate::http::{AppState, ProblemDetails};

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(get_mouse_position))
        .routes(routes!(move_mouse))
        .routes(routes!(click_mouse))
        .routes(routes!(press_mouse))
        .routes(routes!(release_mouse))
        .routes(routes!(drag_mouse))
        .routes(routes!(scroll_mouse))
        .routes(routes!(type_text))
        .routes(routes!(press_key))
        .routes(routes!(key_down))
        .routes(routes!(key_up))
        .routes(routes!(perform_actions))
}

type Position = Result<Json<PointerPosition>, ApiError>;

async fn act(state: &AppState, action: Action, space: Space) -> Position {
    Ok(Json(state.desktop.act(action, space).await?))
}

/// Says where the pointer is.
#[utoipa::path(get, path = "/v1/desktop/mouse/position", tag = "desktop", operation_id = "get_desktop_mouse_position",
    responses((status = 200, body = PointerPosition), (status = 409, body = ProblemDetails), (status = 502, body = ProblemDetails),
              (status = 503, body = ProblemDetails)))]
async fn get_mouse_position(State(state): State<AppState>) -> Position {
    Ok(Json(state.desktop.pointer().await?))
}

/// Where to.
#[derive(Debug, Deserialize, ToSchema)]
struct MoveBody {
    /// Pixels from the left; beyond the screen is its edge.
    x: i32,
    /// Pixels from above.
    y: i32,
    #[serde(flatten)]
    space: Space,
}

/// Moves the pointer.
#[utoipa::path(post, path = "/v1/desktop/mouse/move", tag = "desktop", operation_id = "move_desktop_mouse", params(HolderHeader), request_body = MoveBody,
    responses((status = 200, body = PointerPosition), (status = 400, body = ProblemDetails), (status = 409, body = ProblemDetails),
              (status = 422, body = ProblemDetails), (status = 502, body = ProblemDetails), (status = 503, body = ProblemDetails)))]
async fn move_mouse(_: Admitted, State(state): State<AppState>, ApiJson(body): ApiJson<MoveBody>) -> Position {
    act(&state, Action::Move { x: body.x, y: body.y }, body.space).await
}

/// Where and how.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ClickBody {
    /// Pixels from the left.
    x: i32,
    /// Pixels from above.
    y: i32,
    /// `left` when absent.
    #[serde(default)]
    button: Option<ActionButton>,
    /// 1 to 1 000; 1 when absent.
    #[serde(default)]
    click_count: Option<u32>,
    /// Held meanwhile.
    #[serde(default)]
    modifiers: Option<Modifiers>,
    /// How long each is, to 10 000.
    #[serde(default)]
    hold_ms: Option<u64>,
    #[serde(flatten)]
    space: Space,
}

/// Clicks somewhere.
#[utoipa::path(post, path = "/v1/desktop/mouse/click", tag = "desktop", operation_id = "click_desktop_mouse", params(HolderHeader), request_body = ClickBody,
    responses((status = 200, body = PointerPosition), (status = 400, body = ProblemDetails), (status = 409, body = ProblemDetails),
              (status = 422, body = ProblemDetails), (status = 502, body = ProblemDetails), (status = 503, body = ProblemDetails)))]
async fn click_mouse(_: Admitted, State(state): State<AppState>, ApiJson(body): ApiJson<ClickBody>) -> Position {
    let action = Action::Click {
        x: Some(body.x),
        y: Some(body.y),
        button: body.button.unwrap_or_default(),
        click_count: body.click_count,
        modifiers: body.modifiers.unwrap_or_default(),
        hold_ms: body.hold_ms.unwrap_or(0),
    };
    act(&state, action, body.space).await
}

/// Which button, and where: where the pointer is when both are absent.
#[derive(Debug, Deserialize, ToSchema)]
struct ButtonBody {
    /// Pixels from the left.
    #[serde(default)]
    x: Option<i32>,
    /// Pixels from above.
    #[serde(default)]
    y: Option<i32>,
    /// `left` when absent.
    #[serde(default)]
    button: Option<ActionButton>,
    #[serde(flatten)]
    space: Space,
}

/// Presses a button, to stay down.
#[utoipa::path(post, path = "/v1/desktop/mouse/down", tag = "desktop", operation_id = "press_desktop_mouse", params(HolderHeader), request_body = ButtonBody,
    responses((status = 200, body = PointerPosition), (status = 400, body = ProblemDetails), (status = 409, body = ProblemDetails),
              (status = 422, body = ProblemDetails), (status = 502, body = ProblemDetails), (status = 503, body = ProblemDetails)))]
async fn press_mouse(_: Admitted, State(state): State<AppState>, ApiJson(body): ApiJson<ButtonBody>) -> Position {
    act(&state, Action::MouseDown { x: body.x, y: body.y, button: body.button.unwrap_or_default() }, body.space).await
}

/// Releases a button.
#[utoipa::path(post, path = "/v1/desktop/mouse/up", tag = "desktop", operation_id = "release_desktop_mouse", params(HolderHeader), request_body = ButtonBody,
    responses((status = 200, body = PointerPosition), (status = 400, body = ProblemDetails), (status = 409, body = ProblemDetails),
              (status = 422, body = ProblemDetails), (status = 502, body = ProblemDetails), (status = 503, body = ProblemDetails)))]
async fn release_mouse(_: Admitted, State(state): State<AppState>, ApiJson(body): ApiJson<ButtonBody>) -> Position {
    act(&state, Action::MouseUp { x: body.x, y: body.y, button: body.button.unwrap_or_default() }, body.space).await
}

/// From where to where.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct DragBody {
    /// Pixels from the left.
    start_x: i32,
    /// Pixels from above.
    start_y: i32,
    /// Pixels from the left.
    end_x: i32,
    /// Pixels from above.
    end_y: i32,
    /// Points in between.
    #[serde(default)]
    path: Option<Vec<Point>>,
    /// `left` when absent.
    #[serde(default)]
    button: Option<ActionButton>,
    /// How long it takes; by its length when absent.
    #[serde(default)]
    duration_ms: Option<u64>,
    /// Held meanwhile.
    #[serde(default)]
    modifiers: Option<Modifiers>,
    #[serde(flatten)]
    space: Space,
}

/// Drags from one place to another, with motion in between.
#[utoipa::path(post, path = "/v1/desktop/mouse/drag", tag = "desktop", operation_id = "drag_desktop_mouse", params(HolderHeader), request_body = DragBody,
    responses((status = 200, body = PointerPosition), (status = 400, body = ProblemDetails), (status = 409, body = ProblemDetails),
              (status = 422, body = ProblemDetails), (status = 502, body = ProblemDetails), (status = 503, body = ProblemDetails)))]
async fn drag_mouse(_: Admitted, State(state): State<AppState>, ApiJson(body): ApiJson<DragBody>) -> Position {
    let mut path = vec![Point { x: body.start_x, y: body.start_y }];
    path.extend(body.path.unwrap_or_default());
    path.push(Point { x: body.end_x, y: body.end_y });
    let action = Action::Drag {
        path,
        button: body.button.unwrap_or_default(),
        duration_ms: body.duration_ms,
        steps: None,
        modifiers: body.modifiers.unwrap_or_default(),
    };
    act(&state, action, body.space).await
}

/// Where, and how far.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ScrollBody {
    /// Pixels from the left.
    x: i32,
    /// Pixels from above.
    y: i32,
    /// Notches to the right; negative to the left.
    #[serde(default)]
    delta_x: Option<i32>,
    /// Notches down; negative up.
    #[serde(default)]
    delta_y: Option<i32>,
    /// Held meanwhile.
    #[serde(default)]
    modifiers: Option<Modifiers>,
    #[serde(flatten)]
    space: Space,
}

/// Turns the wheel somewhere.
#[utoipa::path(post, path = "/v1/desktop/mouse/scroll", tag = "desktop", operation_id = "scroll_desktop_mouse", params(HolderHeader), request_body = ScrollBody,
    responses((status = 200, body = PointerPosition), (status = 400, body = ProblemDetails), (status = 409, body = ProblemDetails),
              (status = 422, body = ProblemDetails), (status = 502, body = ProblemDetails), (status = 503, body = ProblemDetails)))]
async fn scroll_mouse(_: Admitted, State(state): State<AppState>, ApiJson(body): ApiJson<ScrollBody>) -> Position {
    let action = Action::Scroll {
        x: Some(body.x),
        y: Some(body.y),
        delta_x: body.delta_x,
        delta_y: body.delta_y,
        modifiers: body.modifiers.unwrap_or_default(),
    };
    act(&state, action, body.space).await
}

/// What to type.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct TypeBody {
    /// Any text.
    text: String,
    /// Between two characters, to 60 000; 0 when absent.
    #[serde(default)]
    delay_ms: Option<u64>,
}

type Ok = Result<Json<Done>, ApiError>;

async fn keys(state: &AppState, action: Action) -> Ok {
    state.desktop.act(action, Space::default()).await?;
    Ok(Done::new())
}

/// Types text into the window that has the keyboard, whatever the layout.
#[utoipa::path(post, path = "/v1/desktop/keyboard/type", tag = "desktop", operation_id = "type_desktop_text", params(HolderHeader), request_body = TypeBody,
    responses((status = 200, body = Done), (status = 400, body = ProblemDetails), (status = 409, body = ProblemDetails),
              (status = 422, body = ProblemDetails), (status = 502, body = ProblemDetails), (status = 503, body = ProblemDetails)))]
async fn type_text(_: Admitted, State(state): State<AppState>, ApiJson(body): ApiJson<TypeBody>) -> Ok {
    keys(&state, Action::Type { text: body.text, delay_ms: body.delay_ms }).await
}

/// Which key.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct PressBody {
    /// A name as xdotool knows them, or a common other one; several joined by `+`.
    key: String,
    /// Held meanwhile.
    #[serde(default)]
    modifiers: Option<Modifiers>,
    /// How often, 1 to 1 000; 1 when absent.
    #[serde(default)]
    count: Option<u32>,
    /// How long each time, to 10 000.
    #[serde(default)]
    hold_ms: Option<u64>,
}

/// Presses and releases a key.
#[utoipa::path(post, path = "/v1/desktop/keyboard/press", tag = "desktop", operation_id = "press_desktop_key", params(HolderHeader), request_body = PressBody,
    responses((status = 200, body = Done), (status = 400, body = ProblemDetails), (status = 409, body = ProblemDetails),
              (status = 422, body = ProblemDetails), (status = 502, body = ProblemDetails), (status = 503, body = ProblemDetails)))]
async fn press_key(_: Admitted, State(state): State<AppState>, ApiJson(body): ApiJson<PressBody>) -> Ok {
    let hold_ms = body.hold_ms.unwrap_or(0);
    keys(&state, Action::Key { key: body.key, modifiers: body.modifiers, count: body.count, hold_ms }).await
}

/// Which keys.
#[derive(Debug, Deserialize, ToSchema)]
struct KeyBody {
    /// As of `press`.
    key: String,
}

/// Presses a key, to stay down.
#[utoipa::path(post, path = "/v1/desktop/keyboard/down", tag = "desktop", operation_id = "hold_desktop_key", params(HolderHeader), request_body = KeyBody,
    responses((status = 200, body = Done), (status = 400, body = ProblemDetails), (status = 409, body = ProblemDetails),
              (status = 422, body = ProblemDetails), (status = 502, body = ProblemDetails), (status = 503, body = ProblemDetails)))]
async fn key_down(_: Admitted, State(state): State<AppState>, ApiJson(body): ApiJson<KeyBody>) -> Ok {
    keys(&state, Action::KeyDown { key: body.key }).await
}

/// Releases a key.
#[utoipa::path(post, path = "/v1/desktop/keyboard/up", tag = "desktop", operation_id = "release_desktop_key", params(HolderHeader), request_body = KeyBody,
    responses((status = 200, body = Done), (status = 400, body = ProblemDetails), (status = 409, body = ProblemDetails),
              (status = 422, body = ProblemDetails), (status = 502, body = ProblemDetails), (status = 503, body = ProblemDetails)))]
async fn key_up(_: Admitted, State(state): State<AppState>, ApiJson(body): ApiJson<KeyBody>) -> Ok {
    keys(&state, Action::KeyUp { key: body.key }).await
}

/// Does a list of actions, one after the other, with nobody else in between. The first that fails ends the list. What is wrong
/// with one of them is a 400 before anything is done.
#[utoipa::path(post, path = "/v1/desktop/actions", tag = "desktop", operation_id = "perform_desktop_actions", params(HolderHeader), request_body = ActionsSpec,
    responses((status = 200, body = ActionsResult), (status = 400, body = ProblemDetails), (status = 409, body = ProblemDetails),
              (status = 422, body = ProblemDetails), (status = 502, body = ProblemDetails), (status = 503, body = ProblemDetails)))]
async fn perform_actions(
    _: Admitted,
    State(state): State<AppState>,
    ApiJson(spec): ApiJson<ActionsSpec>,
) -> Result<Json<ActionsResult>, ApiError> {
    Ok(Json(state.desktop.perform(spec).await?))
}
