//! The task of one viewer: what it says over its WebSocket and its data channel, and what it hears.
//!
//! ```text
//! init ──▶ watching over WebRTC, or this socket, or not yet ◀──▶ another way, whenever it asks ──▶ gone
//! ```
//! Dropping the future lets go of what it held, and forgets it.
//!
//! | module | what |
//! |---|---|
//! | `acts` | what it does with pointer, keyboard and clipboard |
//! | `peer` | its WebRTC connection |
//! | `tells` | what it is told |

mod acts;
mod peer;
mod tells;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{Instant, interval, timeout};
use webrtc_peers::Sound;

use self::acts::carry_out;
use self::peer::{Peer, next_event};
use super::Stream;
use super::input::{Input, WheelUnit};
use super::messages::{Init, Media, Request, event, host};
use super::picture::{Kind, Packet, Picture, Rectangles, message, sound_message};
use super::pointer::Told;
use super::viewers::{Joined, Path, Viewer};
use crate::desktop::{Desktop, Error};
use crate::rt::spawn_owned;

/// neko's.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Inputs that wait to be carried out; one more ends the viewer: it would be late for good.
const INPUTS_MAX: usize = 1_024;
/// Whoever is sent away hears why, if it reads within this time.
const FAREWELL: Duration = Duration::from_secs(1);

/// What goes to the viewer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
}

/// What comes from it, and goes to it. The HTTP edge has the socket.
pub struct Wire {
    /// Text messages that came; closed when the socket is.
    pub heard: mpsc::Receiver<String>,
    /// Closed when the socket is.
    pub said: mpsc::Sender<Said>,
}

/// A viewer that has come in and not begun yet.
pub struct Conversation {
    desktop: Desktop,
    stream: Arc<Stream>,
    joined: Joined,
    asked_at: Option<IpAddr>,
}

/// A viewer, gone when this is dropped.
struct Presence {
    stream: Arc<Stream>,
    viewer: Arc<Viewer>,
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.stream.viewers.leave(&self.viewer);
        self.stream.asked.notify_one();
        self.stream.ear_asked.notify_one();
    }
}

/// Why a viewer ends.
enum End {
    /// It left.
    Left,
    /// It is told why.
    Told(&'static str),
}

struct Talk {
    desktop: Desktop,
    presence: Presence,
    asked_at: Option<IpAddr>,
    said: mpsc::Sender<Said>,
    inputs: mpsc::Sender<Input>,
    peer: Option<Peer>,
    rectangles: Option<Rectangles>,
    pictures: watch::Receiver<Option<Arc<Picture>>>,
    /// Whether the last rectangles were shown.
    is_shown: bool,
    /// It knows our events.
    is_ours: bool,
    /// What it knows of the pointer, if it shows that itself.
    pointer: Option<Told>,
    /// Its data channel is open.
    has_channel: bool,
    /// While it hears over this connection.
    sounds: Option<broadcast::Receiver<Arc<Sound>>>,
    unit: watch::Sender<WheelUnit>,
    leased_until: Instant,
}

impl Conversation {
    pub(super) fn new(desktop: Desktop, stream: Arc<Stream>, joined: Joined, asked_at: Option<IpAddr>) -> Self {
        Self { desktop, stream, joined, asked_at }
    }

    /// Until the viewer leaves, is sent away, or the stream ends.
    pub async fn run(self, wire: Wire) {
        let Self { desktop, stream, joined: Joined { viewer, mut frames }, asked_at } = self;
        let presence = Presence { stream: Arc::clone(&stream), viewer: Arc::clone(&viewer) };
        let (inputs, waiting) = mpsc::channel(INPUTS_MAX);
        let (unit, units) = watch::channel(WheelUnit::default());
        spawn_owned("desktop-viewer-input", carry_out(Arc::clone(&stream), Arc::clone(&viewer), waiting, units));
        let Wire { mut heard, said } = wire;
        let mut talk = Talk {
            desktop,
            presence,
            asked_at,
            said,
            inputs,
            peer: None,
            rectangles: None,
            pictures: stream.pictures.subscribe(),
            is_shown: true,
            is_ours: false,
            pointer: None,
            has_channel: false,
            sounds: None,
            unit,
            leased_until: Instant::now(),
        };
        let end = tokio::select! {
            biased;
            () = viewer.kicked.cancelled() => End::Told("you were sent away"),
            () = stream.stop.cancelled() => End::Told("the stream was stopped"),
            () = talk.go_on(&mut heard, &mut frames) => End::Left,
        };
        if let End::Told(why) = end {
            let _ = timeout(FAREWELL, talk.say("system/disconnect", json!({"message": why}))).await; // it may have left
        }
    }
}

impl Talk {
    /// Until it has left.
    async fn go_on(&mut self, heard: &mut mpsc::Receiver<String>, frames: &mut mpsc::Receiver<Arc<Packet>>) {
        let stream = Arc::clone(&self.presence.stream);
        let mut hosts = stream.viewers.host();
        let mut sizes = stream.size.subscribe();
        let mut copied = stream.session.copied.subscribe();
        let mut pointers = stream.pointers.subscribe();
        let mut drawn = stream.draws_pointer.subscribe();
        let mut hearing = stream.hearing.subscribe();
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.reset();
        if self.init().await.is_err() {
            return;
        }
        loop {
            let done = tokio::select! {
                biased;
                text = heard.recv() => match text {
                    Some(text) => self.hear(&text).await,
                    None => return,
                },
                event = next_event(&mut self.peer) => self.peer_event(event).await,
                sound = next_sound(&mut self.sounds) => self.send(sound_message(&sound)).await,
                Ok(()) = pointers.changed(), if self.pointer.is_some() => self.tell_pointer().await,
                Some(packet) = frames.recv() => {
                    let rect = (0, 0, packet.size.0, packet.size.1);
                    let kind = Kind::H264 { is_keyframe: packet.is_keyframe };
                    self.send(message(kind, packet.number, packet.at, rect, &packet.data)).await
                }
                Ok(()) = self.pictures.changed(), if self.rectangles.is_some() && self.is_shown => self.send_rectangles().await,
                Ok(()) = hosts.changed() => {
                    let now = *hosts.borrow_and_update();
                    self.tell_host(now).await
                }
                Ok(()) = sizes.changed() => {
                    let now = *sizes.borrow_and_update();
                    self.tell_size(now).await
                }
                Ok(()) = copied.changed() => self.tell_clipboard().await,
                Ok(()) = drawn.changed() => self.tell_drawn().await,
                Ok(()) = hearing.changed() => self.tell_hearing().await,
                _ = heartbeat.tick() => self.say("system/heartbeat", Value::Null).await,
            };
            if done.is_err() {
                return;
            }
        }
    }

    /// # Errors
    /// It has left.
    async fn say(&self, name: &str, payload: Value) -> Result<(), ()> {
        self.said.send(Said::Text(event(name, payload))).await.map_err(drop)
    }

    async fn send(&self, message: Vec<u8>) -> Result<(), ()> {
        self.presence.viewer.sent(message.len());
        self.said.send(Said::Binary(message)).await.map_err(drop)
    }

    async fn init(&self) -> Result<(), ()> {
        let Presence { stream, viewer } = &self.presence;
        let (width, height) = *stream.size.borrow();
        let host_id = stream.viewers.host().borrow().map(viewer_id);
        let init = Init {
            session_id: viewer.id(),
            host_id,
            width,
            height,
            rate: stream.fps,
            may_control: viewer.may_control(),
            webrtc: stream.no_gateway.clone().map_or(Ok(()), Err),
            audio: stream.hearing.borrow().as_result(),
            ticket: viewer.claims.as_ref().and_then(|claims| self.desktop.ticket_again(claims)),
        };
        self.said.send(Said::Text(init.event())).await.map_err(drop)
    }

    async fn hear(&mut self, text: &str) -> Result<(), ()> {
        match Request::parse(text) {
            Ok(request) => match self.obey(request).await {
                Ok(done) => done,
                Err(error) => self.say("system/error", json!({"code": error.code(), "message": error.to_string()})).await,
            },
            Err(why) => self.say("system/error", json!({"code": "invalid", "message": why})).await,
        }
    }

    /// # Errors
    /// Why it isn't done; inside, that it has left.
    async fn obey(&mut self, request: Request) -> Result<Result<(), ()>, Error> {
        let (stream, viewer) = (Arc::clone(&self.presence.stream), Arc::clone(&self.presence.viewer));
        match request {
            Request::Nothing => {}
            Request::Ping(theirs) => return Ok(self.say("client/pong", theirs).await),
            Request::Heartbeat => return Ok(self.is_neko().await),
            Request::TakeControl => {
                stream.viewers.take_control(&viewer);
                let host_now = stream.viewers.host().borrow().map(viewer_id);
                return Ok(self.say("control/host", host(&viewer.id(), host_now.as_deref())).await);
            }
            Request::ReleaseControl => stream.viewers.release(&viewer),
            Request::Signal { hears } => return self.offer(hears).await,
            Request::Hear(on) => self.hears(on).await,
            Request::Answer(sdp) => {
                if let (Some(peer), Some(gateway)) = (&self.peer, &stream.gateway) {
                    gateway.answer(peer.id, sdp).await.map_err(|error| Error::Invalid(error.to_string()))?;
                }
            }
            Request::Hello(hello) => return Ok(self.is_known(hello).await),
            Request::Media(media) => {
                (self.peer, self.has_channel, self.is_shown) = (None, false, true);
                self.hears(viewer.is_hearing()).await;
                self.rectangles = (media == Media::Jpeg).then(Rectangles::default);
                viewer.goes_by(if media == Media::Jpeg { Path::Rectangles } else { Path::Frames });
                stream.asked.notify_one();
                if media == Media::Jpeg && self.pictures.borrow().is_some() {
                    return Ok(self.send_rectangles().await);
                }
            }
            Request::Shown(_) => {
                viewer.has_shown();
                stream.asked.notify_one();
                self.is_shown = true;
                if self.rectangles.is_some() && self.pictures.has_changed().unwrap_or(false) {
                    return Ok(self.send_rectangles().await);
                }
            }
            Request::Act(input) => self.act(input).await?,
            Request::Press(input) => self.press(input).await?,
            Request::At { x, y, then } => {
                self.act(Input::Move { x, y }).await?;
                return Box::pin(self.obey(*then)).await;
            }
            Request::Chord(key) => self.chord(key).await?,
            Request::SetClipboard(text) => self.set_clipboard(text).await?,
            Request::Paste(text) => {
                if let Some(text) = text {
                    self.set_clipboard(text).await?;
                }
                self.chord('v').await?;
            }
            Request::SetScreen { width, height } => {
                self.may_control()?;
                self.desktop.resize(width, height).await?;
            }
        }
        Ok(Ok(()))
    }
}

fn viewer_id(number: u64) -> String {
    format!("viewer_{number}")
}

/// Of the sandbox; never while it doesn't hear here. What came too fast is left out. Cancel safe.
async fn next_sound(sounds: &mut Option<broadcast::Receiver<Arc<Sound>>>) -> Arc<Sound> {
    while let Some(waiting) = sounds {
        match waiting.recv().await {
            Ok(sound) => return sound,
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => *sounds = None,
        }
    }
    std::future::pending().await
}
