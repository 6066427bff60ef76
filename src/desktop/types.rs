//! What clients are told of the desktop.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::processes::ProcessId;

/// What a desktop is started with.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct StartSpec {
    /// Pixels, 1 to 16 384; 1440 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Pixels, 1 to 16 384; 900 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// The widest that the running desktop can be made; 2560, or `width` if that is more, when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_width: Option<u32>,
    /// The highest; 1440, or `height` if that is more, when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_height: Option<u32>,
    /// Dots per inch, 1 to 1 000; 96 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dpi: Option<u32>,
    /// The first display number that is tried, 1 to 59 000, with the nine after it; 99 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_num: Option<i32>,
    /// Where the desktop's home, log and recordings are; below the server's state when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_dir: Option<String>,
    /// Video codec of the stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_video_codec: Option<String>,
    /// Audio codec of the stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_audio_codec: Option<String>,
    /// Frames a second of the stream, 1 to 60.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_frame_rate: Option<u32>,
    /// UDP ports of the stream, such as `59050-59070`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webrtc_port_range: Option<String>,
    /// Frames a second of recordings that don't say otherwise, 1 to 60; 30 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recording_fps: Option<u32>,
}

/// What the desktop is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum DesktopState {
    Inactive,
    InstallRequired,
    Starting,
    Active,
    Stopping,
    Failed,
}

/// Pixels, and how many of them are an inch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[allow(missing_docs)]
pub struct Resolution {
    pub width: u32,
    pub height: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dpi: Option<u32>,
}

/// Why something failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct DesktopFailure {
    /// As in a problem's `code`.
    pub code: String,
    /// For people.
    pub message: String,
}

/// A process of the desktop's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProcessStatus {
    /// `Xvfb`, `openbox`, `dbus` or `at-spi`.
    pub name: String,
    /// Its id in `/v1/processes`, where its log is.
    pub process_id: String,
    /// Its pid while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Whether it does.
    pub running: bool,
}

/// The desktop.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DesktopStatus {
    /// What it is doing.
    pub state: DesktopState,
    /// Such as `:99`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display: Option<String>,
    /// The screen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolution: Option<Resolution>,
    /// When it was started, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// Why it isn't active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<DesktopFailure>,
    /// Programs that it needs and that aren't in the PATH.
    pub missing_dependencies: Vec<String>,
    /// What installs them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub install_command: Option<String>,
    /// Programs without which something of it doesn't work, with what that is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub optional_dependencies: Vec<OptionalDependency>,
    /// Its own processes.
    pub processes: Vec<ProcessStatus>,
    /// What happened to it, line by line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_log_path: Option<String>,
    /// The home of everything in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub home: Option<String>,
    /// How often Xvfb or openbox ended unasked and were started again, since the start.
    #[serde(skip_serializing_if = "is_zero")]
    pub restarts: u64,
    /// Windows, when it is active and there are some.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Window>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A program that something needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OptionalDependency {
    /// The program.
    pub name: String,
    /// What doesn't work without it.
    pub needed_for: String,
}

/// Where the pointer is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct PointerPosition {
    /// Pixels from the left.
    pub x: i32,
    /// Pixels from above.
    pub y: i32,
    /// The number of the X screen: 0.
    pub screen: i32,
    /// The window below the pointer; the root's id over the background.
    pub window: String,
}

/// The display.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DisplayInfo {
    /// Such as `:99`.
    pub display: String,
    /// The screen.
    pub resolution: Resolution,
    /// The largest size that it can be given while it runs.
    pub max_resolution: Resolution,
}

/// A window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// The X id, decimal.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Of its content, pixels from the left of the screen.
    pub x: i32,
    /// From above.
    pub y: i32,
    /// Of its content.
    pub width: u32,
    /// Of its content.
    pub height: u32,
    /// Whether it has the focus.
    pub is_active: bool,
    /// WM_CLASS: the class.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub class: String,
    /// WM_CLASS: the instance.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub instance: String,
    /// The process that made it, where it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// EWMH type, such as `normal` or `dialog`.
    #[serde(rename = "type")]
    pub kind: String,
    /// EWMH states, such as `maximized_vert` or `hidden`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<String>,
    /// The workspace, from 0; absent on all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace: Option<u32>,
    /// Whether it is minimised.
    pub minimized: bool,
    /// Place in the stack, 0 at the bottom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stacking: Option<u32>,
}

/// A program that was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Launched {
    /// Its id in `/v1/processes`.
    #[schema(value_type = String)]
    pub process_id: ProcessId,
    /// Its pid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Its first window, when that was waited for and came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_id: Option<String>,
}
