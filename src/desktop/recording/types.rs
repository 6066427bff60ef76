//! What is asked of recordings, and told of them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::desktop::waits::Region;

/// How the desktop is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RecordingSpec {
    /// Frames a second at most; below 1 it is 1, above 60 it is 60. The desktop's `recordingFps`, or 30, when absent.
    pub fps: Option<u32>,
    /// Only this part of the screen, clipped to it.
    pub region: Option<Region>,
    /// False leaves the pointer out.
    pub cursor: Option<bool>,
    /// The file ends at this size; the bound `desktop_recording_max_bytes` when absent, and at most.
    pub max_bytes: Option<u64>,
    /// The video ends at this duration, pauses not counted; the bound `desktop_recording_max_ms` when absent, and at most.
    pub max_duration_ms: Option<u64>,
}

/// What became of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecordingStatus {
    /// Under way.
    Recording,
    /// It ended, and plays.
    Completed,
    /// It ended, and there is nothing in it.
    Failed,
}

/// Why a recording ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// Somebody asked for it.
    Stopped,
    /// It was as large as it may become.
    Size,
    /// It was as long as it may become.
    Duration,
    /// The desktop was stopped.
    DesktopStopped,
    /// The X server ended unasked.
    DesktopRestarted,
    /// The server was stopped.
    ServerStopped,
    /// The server was started again, or killed.
    ServerRestarted,
    /// The disk refused a write.
    Disk,
    /// A frame could not be encoded.
    Encoder,
}

/// A recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Recording {
    /// `rec_<n>`; never used again.
    pub id: String,
    /// What became of it.
    pub status: RecordingStatus,
    /// Its file in `recordings/` of the desktop's directory.
    pub file_name: String,
    /// Its size on the disk by now.
    pub bytes: u64,
    /// RFC 3339.
    pub started_at: String,
    /// RFC 3339; once it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// Of the video, without pauses.
    pub duration_ms: u64,
    /// Of the video, in pixels: an even number. Absent for a file that another program made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// As `width`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// Frames a second at most; a screen that is still has fewer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fps: Option<u32>,
    /// Whether it is paused.
    pub paused: bool,
    /// Why it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<EndReason>,
}
