//! The words of neko v3's WebSocket, as JSON: `{"event", "payload"}`.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::input::Input;

/// What a client says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Request {
    /// It wants to be in control.
    TakeControl,
    /// It doesn't any more.
    ReleaseControl,
    /// It wants a WebRTC connection, another one if it had one.
    Signal {
        hears: bool,
    },
    /// It wants sound, or doesn't any more.
    Hear(bool),
    /// Its answer to the offer.
    Answer(String),
    Act(Input),
    /// Clicks a button, or presses a key, and lets go.
    Press(Input),
    /// Does something else first.
    At {
        x: i32,
        y: i32,
        then: Box<Request>,
    },
    SetClipboard(String),
    /// Sets the clipboard if there is text, then presses Ctrl+V.
    Paste(Option<String>),
    /// Ctrl and this key.
    Chord(char),
    SetScreen {
        width: u32,
        height: u32,
    },
    /// Ours: it knows the events that neko doesn't have.
    Hello(Hello),
    /// Ours: it wants the picture over this connection.
    Media(Media),
    /// Ours: it has shown this frame.
    Shown(u64),
    /// Ours: it wants this back, to know how long that takes.
    Ping(Value),
    /// neko's own client is there.
    Heartbeat,
    /// Nothing to be done: what is only told, trickled candidates, and what isn't known.
    Nothing,
}

/// What one of our own clients says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub(super) struct Hello {
    /// Why it doesn't use WebRTC, for the list of viewers.
    pub(super) reason: Option<String>,
    /// It shows the pointer itself, by neko's messages.
    pub(super) pointer: bool,
}

/// In which form the picture comes over the WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Media {
    H264,
    Jpeg,
}

#[derive(Deserialize)]
struct Envelope {
    event: String,
    #[serde(default)]
    payload: Value,
}

#[derive(Deserialize)]
struct Sdp {
    sdp: String,
}

#[derive(Deserialize)]
struct Place {
    x: i32,
    y: i32,
}

#[derive(Deserialize)]
struct MaybePlace {
    x: Option<i32>,
    y: Option<i32>,
}

#[derive(Deserialize)]
struct Turn {
    delta_x: Option<i32>,
    delta_y: Option<i32>,
    x: Option<i32>,
    y: Option<i32>,
    #[serde(default)]
    control_key: bool,
}

#[derive(Deserialize)]
struct Code {
    code: u32,
}

#[derive(Deserialize)]
struct Keysym {
    keysym: u32,
}

#[derive(Deserialize, Default)]
struct Text {
    text: Option<String>,
}

#[derive(Deserialize)]
struct Screen {
    width: u32,
    height: u32,
}

#[derive(Deserialize)]
struct MediaSpec {
    media: Media,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SignalSpec {
    audio: AudioSpec,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AudioSpec {
    disabled: bool,
}

#[derive(Deserialize)]
struct Number {
    number: u64,
}

impl Request {
    /// # Errors
    /// What is wrong with it, for whoever wrote the client.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let Envelope { event, payload } = serde_json::from_str(text).map_err(|error| format!("no event: {error}"))?;
        Self::of(&event, payload).map_err(|error| format!("{event}: {error}"))
    }

    fn of(event: &str, payload: Value) -> Result<Self, serde_json::Error> {
        let button = |payload, is_down| Ok(Self::Act(Input::Button { number: read::<Code>(payload)?.code, is_down }));
        let key = |payload, is_down| Ok(Self::Act(Input::Key { keysym: read::<Keysym>(payload)?.keysym, is_down }));
        let place = payload.clone();
        let request = match event {
            "control/request" => Self::TakeControl,
            "control/release" => Self::ReleaseControl,
            "signal/request" => Self::Signal { hears: !read::<Option<SignalSpec>>(payload)?.unwrap_or_default().audio.disabled },
            "signal/audio" => Self::Hear(!read::<AudioSpec>(payload)?.disabled),
            "signal/answer" => Self::Answer(read::<Sdp>(payload)?.sdp),
            "control/move" => {
                let Place { x, y } = read(payload)?;
                Self::Act(Input::Move { x, y })
            }
            "control/scroll" => {
                let Turn { delta_x, delta_y, x, y, control_key } = read(payload)?;
                let (x, y) = (delta_x.or(x).unwrap_or(0), delta_y.or(y).unwrap_or(0));
                return Ok(Self::Act(Input::Scroll { x, y, control: control_key }));
            }
            "control/buttondown" => button(payload, true)?,
            "control/buttonup" => button(payload, false)?,
            "control/buttonpress" => Self::Press(Input::Button { number: read::<Code>(payload)?.code, is_down: true }),
            "control/keydown" => key(payload, true)?,
            "control/keyup" => key(payload, false)?,
            "control/keypress" => Self::Press(Input::Key { keysym: read::<Keysym>(payload)?.keysym, is_down: true }),
            "control/copy" => Self::Chord('c'),
            "control/cut" => Self::Chord('x'),
            "control/select_all" => Self::Chord('a'),
            "control/paste" => Self::Paste(read::<Option<Text>>(payload)?.and_then(|paste| paste.text)),
            "clipboard/set" => Self::SetClipboard(read::<Text>(payload)?.text.unwrap_or_default()),
            "screen/set" => {
                let Screen { width, height } = read(payload)?;
                Self::SetScreen { width, height }
            }
            "client/ping" => Self::Ping(payload),
            "client/hello" => Self::Hello(read(payload)?),
            "stream/request" => Self::Media(read::<MediaSpec>(payload)?.media),
            "stream/shown" => Self::Shown(read::<Number>(payload)?.number),
            "client/heartbeat" => Self::Heartbeat,
            _ => Self::Nothing,
        };
        let is_placed = matches!(request, Self::Press(_) | Self::Act(Input::Button { .. } | Input::Key { .. }));
        match read::<MaybePlace>(place) {
            Ok(MaybePlace { x: Some(x), y: Some(y) }) if is_placed => Ok(Self::At { x, y, then: Box::new(request) }),
            _ => Ok(request),
        }
    }
}

fn read<T: DeserializeOwned>(payload: Value) -> Result<T, serde_json::Error> {
    serde_json::from_value(payload)
}

/// An event for a client.
pub(super) fn event(name: &str, payload: Value) -> String {
    json!({"event": name, "payload": payload}).to_string()
}

/// What a client has to know before anything else.
pub(super) struct Init {
    pub(super) session_id: String,
    pub(super) host_id: Option<String>,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) rate: u32,
    pub(super) may_control: bool,
    /// Whether WebRTC can be had at all; else why not.
    pub(super) webrtc: Result<(), String>,
    /// Whether there is sound; else why not.
    pub(super) audio: Result<(), String>,
    /// For whoever came with a ticket: another one to come back with.
    pub(super) ticket: Option<String>,
}

/// Whether there is sound.
pub(super) fn audio(audio: &Result<(), String>) -> Value {
    json!({"available": audio.is_ok(), "reason": audio.as_ref().err()})
}

impl Init {
    pub(super) fn event(&self) -> String {
        let id = &self.session_id;
        let profile = json!({
            "name": id, "is_admin": self.may_control, "can_login": true, "can_connect": true, "can_watch": true,
            "can_host": self.may_control, "can_share_media": false, "can_access_clipboard": self.may_control,
            "sends_inactive_cursor": false, "can_see_inactive_cursors": false, "plugins": null,
        });
        let payload = json!({
            "session_id": id,
            "control_host": host(id, self.host_id.as_deref()),
            "screen_size": {"width": self.width, "height": self.height, "rate": self.rate},
            "sessions": {id: {"id": id, "profile": profile, "state": {"is_connected": true, "is_watching": false}}},
            "settings": {
                "private_mode": false, "locked_logins": false, "locked_controls": false, "control_protection": false,
                "implicit_hosting": true, "inactive_cursors": false, "merciful_reconnect": false,
                "heartbeat_interval": 10, "plugins": null,
            },
            "touch_events": false,
            "screencast_enabled": false,
            "webrtc": {"videos": ["main"]},
            "sandboxd": {
                "may_control": self.may_control,
                "webrtc": self.webrtc.is_ok(),
                "webrtc_reason": self.webrtc.as_ref().err(),
                "media": ["h264", "jpeg"],
                "audio": audio(&self.audio),
                "ticket": self.ticket,
            },
        });
        event("system/init", payload)
    }
}

/// Who is in control: `by` says it.
pub(super) fn host(by: &str, host: Option<&str>) -> Value {
    match host {
        Some(host) => json!({"id": by, "has_host": true, "host_id": host}),
        None => json!({"id": by, "has_host": false}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(value: Value) -> Request {
        Request::parse(&value.to_string()).expect("known")
    }

    #[test]
    fn what_the_sdk_says_is_understood() {
        assert_eq!(parsed(json!({"event": "control/request", "payload": {}})), Request::TakeControl);
        assert_eq!(
            parsed(json!({"event": "signal/request", "payload": {"video": {}, "audio": {}}})),
            Request::Signal { hears: true }
        );
        assert_eq!(parsed(json!({"event": "signal/answer", "payload": {"sdp": "v=0"}})), Request::Answer("v=0".into()));
        let candidate = json!({"event": "signal/candidate", "payload": {"candidate": "x", "sdpMid": "0"}});
        assert_eq!(parsed(candidate), Request::Nothing);
        assert_eq!(parsed(json!({"event": "control/release"})), Request::ReleaseControl);
    }

    #[test]
    fn what_nekos_client_says_is_understood() {
        let at = parsed(json!({"event": "control/buttonpress", "payload": {"code": 1, "x": 3, "y": 4}}));
        let press = Request::Press(Input::Button { number: 1, is_down: true });
        assert_eq!(at, Request::At { x: 3, y: 4, then: Box::new(press) });
        let down = parsed(json!({"event": "control/keydown", "payload": {"keysym": 97}}));
        assert_eq!(down, Request::Act(Input::Key { keysym: 97, is_down: true }));
        let scroll = parsed(json!({"event": "control/scroll", "payload": {"delta_x": 0, "delta_y": -2, "control_key": true}}));
        assert_eq!(scroll, Request::Act(Input::Scroll { x: 0, y: -2, control: true }));
        assert_eq!(parsed(json!({"event": "control/paste"})), Request::Paste(None));
        assert_eq!(parsed(json!({"event": "control/paste", "payload": {"text": "é"}})), Request::Paste(Some("é".into())));
        assert_eq!(parsed(json!({"event": "never/heard", "payload": [1]})), Request::Nothing);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for wrong in ["", "1", "{}", r#"{"event":"signal/answer"}"#, r#"{"event":"control/move","payload":{"x":"a"}}"#] {
            assert!(Request::parse(wrong).is_err(), "{wrong}");
        }
        proptest::proptest!(|(text: String)| { let _ = Request::parse(&text); });
    }
}
