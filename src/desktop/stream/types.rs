//! What clients are told of the stream.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::rate::Rate;
use super::{Stream, ViewerMode};
use crate::desktop::Error;

/// A name for a viewer is no longer.
const NAME_MAX_CHARS: usize = 100;

/// The stream.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamStatus {
    /// Whether it is on.
    pub active: bool,
    /// How many watch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub viewers: Option<usize>,
    /// What is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video: Option<StreamVideo>,
    /// Whether there is sound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio: Option<StreamPart>,
    /// Whether WebRTC can be had; the WebSocket always can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webrtc: Option<StreamPart>,
}

/// Video as it is encoded now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamVideo {
    /// `h264`.
    pub codec: String,
    /// What the start asked for, if that is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested_codec: Option<String>,
    /// Of the screen, in pixels.
    pub width: u32,
    /// Of the screen, in pixels.
    pub height: u32,
    /// Frames a second at most, now: less than what was asked for where a network is slow.
    pub frame_rate: u32,
    /// What the start asked for.
    pub requested_frame_rate: u32,
    /// At most, now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bitrate_bps: Option<u32>,
    /// The picture is so many times smaller than the screen, each way, because a network is slow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shrink: Option<u32>,
}

/// A part of the stream that may be missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct StreamPart {
    /// Whether it is there.
    pub available: bool,
    /// Why it isn't.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The port of UDP and TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

impl StreamStatus {
    pub(super) fn of(stream: &Stream, (width, height): (u32, u32), rate: Option<Rate>) -> Self {
        let asked_codec = stream.spec.stream_video_codec.clone();
        let video = StreamVideo {
            codec: "h264".to_owned(),
            requested_codec: asked_codec.filter(|codec| codec != "h264"),
            width,
            height,
            frame_rate: rate.map_or(stream.fps, |rate| rate.fps),
            requested_frame_rate: stream.fps,
            bitrate_bps: rate.map(|rate| rate.bitrate_bps),
            shrink: rate.map(|rate| rate.shrink).filter(|shrink| *shrink > 1),
        };
        let webrtc = StreamPart {
            available: stream.gateway.is_some(),
            reason: stream.no_gateway.clone(),
            port: stream.gateway.as_ref().map(webrtc_peers::Gateway::port),
        };
        let audio = stream.hearing.borrow().as_result();
        let audio = StreamPart { available: audio.is_ok(), reason: audio.err(), port: None };
        Self { active: true, viewers: Some(stream.viewers.len()), video: Some(video), audio: Some(audio), webrtc: Some(webrtc) }
    }
}

/// The ticket that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TicketSpec {
    /// What its viewer may do.
    pub mode: ViewerMode,
    /// Good for so long, 1 to `desktop_ticket_ttl_max_ms`; 60 000 when absent.
    #[serde(default)]
    pub ttl_ms: Option<u64>,
    /// Who it is for, as the list of viewers shows it; 1 to 100 characters.
    #[serde(default)]
    pub name: Option<String>,
}

impl TicketSpec {
    pub(super) fn check(&self, ttl_max_ms: u64) -> Result<(), Error> {
        if let Some(ttl_ms) = self.ttl_ms.filter(|ttl_ms| !(1..=ttl_max_ms).contains(ttl_ms)) {
            return Err(Error::Invalid(format!("ttlMs is 1 to {ttl_max_ms}, not {ttl_ms}")));
        }
        if self.name.as_ref().is_some_and(|name| !(1..=NAME_MAX_CHARS).contains(&name.chars().count())) {
            return Err(Error::Invalid(format!("name is 1 to {NAME_MAX_CHARS} characters")));
        }
        Ok(())
    }
}

/// A ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ticket {
    /// To be given to `GET /v1/desktop/stream/signaling` as `ticket`, instead of the token.
    pub ticket: String,
    /// What its viewer may do.
    pub mode: ViewerMode,
    /// RFC 3339. Whoever came with it may stay.
    pub expires_at: String,
    /// The page that shows the desktop with it, on this server. The ticket is behind `#`: no server or proxy sees it there.
    pub page: String,
}

impl Ticket {
    pub(super) fn new(ticket: String, mode: ViewerMode, expires_at: String) -> Self {
        let page = format!("/ui/desktop#ticket={ticket}");
        Self { ticket, mode, expires_at, page }
    }
}

/// Who watches.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ViewerList {
    /// In the order in which they came.
    pub viewers: Vec<ViewerInfo>,
}

/// A viewer.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ViewerInfo {
    /// For `DELETE /v1/desktop/stream/viewers/{id}`.
    pub id: String,
    /// As its ticket names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it may do.
    pub mode: ViewerMode,
    /// Whether its input counts now.
    pub in_control: bool,
    /// Since when it is here, RFC 3339.
    pub connected_at: String,
    /// How the picture gets to it: `connecting`, `webrtc-udp`, `webrtc-tcp`, `websocket-h264` or `websocket-jpeg`.
    pub path: String,
    /// Why it isn't a better one, as the viewer says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_reason: Option<String>,
    /// Where its WebSocket comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// To it and back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trip_ms: Option<f64>,
    /// What its network carries, about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated_bps: Option<u64>,
    /// Sent so far.
    pub bytes_sent: u64,
    /// Of what was sent in the last second, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f32>,
}

/// A range of ports, `59050-59070`, or one.
pub(super) fn ports(text: &str) -> Result<RangeInclusive<u16>, Error> {
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    let range = match text.split_once('-') {
        None => port(text).map(|port| port..=port),
        Some((first, last)) => port(first).zip(port(last)).map(|(first, last)| first..=last).filter(|range| !range.is_empty()),
    };
    range
        .ok_or_else(|| Error::Invalid(format!("webrtcPortRange is two ports from 1 to 65535, such as 59050-59070, not {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_ports() {
        assert_eq!(ports("59050-59070").expect("a range"), 59_050..=59_070);
        assert_eq!(ports("7").expect("one"), 7..=7);
        for wrong in ["", "-", "9-8", "0-5", "1-65536", "a-b", "1-2-3"] {
            assert!(ports(wrong).is_err(), "{wrong}");
        }
    }
}
