//! The task of one viewer: what it says over its WebSocket and its data channel, and what it hears.
//!
//! ```text
//! init ──▶ watching over WebRTC, or this socket, or not yet ◀──▶ another way, whenever it asks ──▶ gone
//! ```
//! Dropping the future lets go of what it held, and forgets it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval};
use webrtc_peers::{CloseReason, PeerEvent, PeerId};

use super::input::{Hands, Input, WheelUnit};
use super::messages::{Init, Media, Request, event, host};
use super::picture::{Kind, Picture, Rectangles, message};
use super::viewers::{Joined, Path, Viewer};
use super::{LEASE, Stream};
use crate::desktop::{Desktop, Error, LeaseSpec, SelectionName, SetSelection};
use crate::rt::spawn_owned;

/// neko's.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Events of a WebRTC peer that wait; one more closes it.
const PEER_EVENTS_MAX: usize = 1_024;
/// Inputs that wait to be carried out; one more ends the viewer: it would be late for good.
const INPUTS_MAX: usize = 1_024;
/// A clipboard that is longer isn't sent, in bytes.
const CLIPBOARD_MAX_BYTES: usize = 1 << 20;

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
    }
}

/// A WebRTC peer, closed when this is dropped.
struct Peer {
    stream: Arc<Stream>,
    id: PeerId,
    events: mpsc::Receiver<PeerEvent>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let (stream, id) = (Arc::clone(&self.stream), self.id);
        spawn_owned("desktop-webrtc-close", async move {
            if let Some(gateway) = &stream.gateway {
                gateway.close(id).await;
            }
        });
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
            unit,
            leased_until: Instant::now(),
        };
        let end = talk.until_end(&mut heard, &mut frames).await;
        if let End::Told(why) = end {
            let _ = talk.say("system/disconnect", json!({"message": why})).await; // it may have left
        }
    }
}

impl Talk {
    async fn until_end(&mut self, heard: &mut mpsc::Receiver<String>, frames: &mut mpsc::Receiver<Arc<super::Packet>>) -> End {
        let (stream, viewer) = (Arc::clone(&self.presence.stream), Arc::clone(&self.presence.viewer));
        let mut hosts = stream.viewers.host();
        let mut sizes = stream.size.subscribe();
        let mut copied = stream.session.copied.subscribe();
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.reset();
        if self.init().await.is_err() {
            return End::Left;
        }
        loop {
            let done = tokio::select! {
                biased;
                () = viewer.kicked.cancelled() => return End::Told("you were sent away"),
                () = stream.stop.cancelled() => return End::Told("the stream was stopped"),
                text = heard.recv() => match text {
                    Some(text) => self.hear(&text).await,
                    None => return End::Left,
                },
                event = next_event(&mut self.peer) => self.peer_event(event).await,
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
                _ = heartbeat.tick() => self.say("system/heartbeat", Value::Null).await,
            };
            if done.is_err() {
                return End::Left;
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
            Request::Heartbeat => self.is_neko(),
            Request::TakeControl => {
                stream.viewers.take_control(&viewer);
                let host_now = stream.viewers.host().borrow().map(viewer_id);
                return Ok(self.say("control/host", host(&viewer.id(), host_now.as_deref())).await);
            }
            Request::ReleaseControl => stream.viewers.release(&viewer),
            Request::Signal => return self.offer().await,
            Request::Answer(sdp) => {
                if let (Some(peer), Some(gateway)) = (&self.peer, &stream.gateway) {
                    gateway.answer(peer.id, sdp).await.map_err(|error| Error::Invalid(error.to_string()))?;
                }
            }
            Request::Hello(hello) => {
                self.is_ours = true;
                viewer.because(hello.reason);
            }
            Request::Media(media) => {
                self.peer = None;
                self.is_shown = true;
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

    /// A client of neko's own counts the wheel in another way.
    fn is_neko(&self) {
        if !self.is_ours {
            self.unit.send_replace(WheelUnit::Notches);
        }
    }

    fn may_control(&self) -> Result<(), Error> {
        let may = self.presence.viewer.may_control();
        may.then_some(()).ok_or_else(|| Error::Conflict("this ticket is for watching only".to_owned()))
    }

    /// Another WebRTC connection, in place of the one before.
    async fn offer(&mut self) -> Result<Result<(), ()>, Error> {
        let (stream, viewer) = (Arc::clone(&self.presence.stream), Arc::clone(&self.presence.viewer));
        self.peer = None;
        self.rectangles = None;
        viewer.goes_by(Path::Connecting);
        let Some(gateway) = &stream.gateway else {
            let why = stream.no_gateway.as_deref().unwrap_or("there is none");
            return Err(Error::Conflict(format!("WebRTC can't be had: {why}; ask for stream/request instead")));
        };
        let (tell, events) = mpsc::channel(PEER_EVENTS_MAX);
        let offered = gateway.offer(self.asked_at, tell).await.map_err(|error| Error::Conflict(error.to_string()))?;
        let (id, sdp) = offered;
        self.peer = Some(Peer { stream: Arc::clone(&stream), id, events });
        // One of our own, so that no client asks a stranger's server: checks of ICE are answered there.
        let ice = json!([{"urls": [format!("stun:127.0.0.1:{}", gateway.port())]}]);
        let payload = json!({
            "sdp": sdp,
            "iceservers": ice,
            "video": {"disabled": false, "id": "main", "video": "main", "auto": true},
            "audio": {"disabled": true},
        });
        Ok(self.say("signal/provide", payload).await)
    }

    async fn peer_event(&mut self, event: PeerEvent) -> Result<(), ()> {
        let (stream, viewer) = (Arc::clone(&self.presence.stream), Arc::clone(&self.presence.viewer));
        match event {
            PeerEvent::Connected => {
                viewer.goes_by(Path::WebRtc(None));
                viewer.wants_keyframe();
                stream.asked.notify_one();
            }
            PeerEvent::Opened => {}
            PeerEvent::Message(bytes) => return self.message(&bytes).await,
            PeerEvent::KeyframeWanted => {
                viewer.wants_keyframe();
                stream.asked.notify_one();
            }
            PeerEvent::Estimate(bps) => viewer.carries(bps),
            PeerEvent::Stats(stats) => viewer.has_stats(stats),
            PeerEvent::Closed(reason) => {
                self.peer = None;
                viewer.goes_by(Path::Connecting);
                if reason != CloseReason::Left {
                    tracing::debug!(?reason, viewer = viewer.id(), "a WebRTC connection ended");
                }
                return self.say("signal/close", json!({"reason": format!("{reason:?}")})).await;
            }
        }
        Ok(())
    }

    /// Of the data channel.
    async fn message(&mut self, bytes: &[u8]) -> Result<(), ()> {
        let Some(input) = Input::parse(bytes) else { return Ok(()) }; // as neko does
        if let Input::Ping(theirs) = input {
            self.is_neko();
            return self.pong(theirs).await;
        }
        match self.act(input).await {
            Ok(()) => Ok(()),
            Err(error) => self.say("system/error", json!({"code": error.code(), "message": error.to_string()})).await,
        }
    }

    async fn pong(&self, theirs: [u8; 8]) -> Result<(), ()> {
        let stream = &self.presence.stream;
        let (Some(peer), Some(gateway)) = (&self.peer, &stream.gateway) else { return Ok(()) };
        let now_ms = u64::try_from(crate::rt::clock::now_ms()).unwrap_or(0);
        let base = u64::from(u32::MAX);
        let mut pong = vec![3, 0, 19];
        pong.extend(theirs);
        for part in [now_ms / base, now_ms % base] {
            pong.extend(u32::try_from(part).unwrap_or(0).to_be_bytes());
        }
        gateway.message(peer.id, pong).await;
        Ok(())
    }

    /// Carries out an input, for whom it is allowed.
    async fn act(&mut self, input: Input) -> Result<(), Error> {
        self.may_control()?;
        let Presence { stream, viewer } = &self.presence;
        if input.is_meant() {
            stream.viewers.take_control(viewer);
            self.lease().await?;
        } else if *self.presence.stream.viewers.host().borrow() != Some(self.presence.viewer.number) {
            return Ok(()); // only passes over the picture
        }
        self.inputs.try_send(input).map_err(|_| Error::Input("too much at once".to_owned()))
    }

    /// People take over: while they do something, agents that ask for the lease don't get it.
    async fn lease(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        if now + LEASE / 2 < self.leased_until {
            return Ok(());
        }
        self.leased_until = now + LEASE;
        let ttl_ms = u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX);
        let spec = LeaseSpec { holder: self.presence.viewer.id(), ttl_ms, take_over: true };
        self.desktop.lease().take(spec).await.map(drop)
    }

    async fn press(&mut self, input: Input) -> Result<(), Error> {
        self.act(input).await?;
        let up = match input {
            Input::Button { number, .. } => Input::Button { number, is_down: false },
            Input::Key { keysym, .. } => Input::Key { keysym, is_down: false },
            other => other,
        };
        self.act(up).await
    }

    async fn chord(&mut self, key: char) -> Result<(), Error> {
        const CONTROL: u32 = 0xffe3;
        self.act(Input::Key { keysym: CONTROL, is_down: true }).await?;
        self.press(Input::Key { keysym: key.into(), is_down: true }).await?;
        self.act(Input::Key { keysym: CONTROL, is_down: false }).await
    }

    async fn set_clipboard(&mut self, text: String) -> Result<(), Error> {
        self.may_control()?;
        self.lease().await?;
        self.desktop.set_clipboard(SetSelection { text, selection: None }).await
    }

    async fn send_rectangles(&mut self) -> Result<(), ()> {
        let Some(mut rectangles) = self.rectangles.take() else { return Ok(()) };
        let Some(picture) = self.pictures.borrow_and_update().clone() else {
            self.rectangles = Some(rectangles);
            return Ok(());
        };
        let (number, at) = (picture.number, picture.at);
        let made = tokio::task::spawn_blocking(move || {
            let made = rectangles.of(&picture);
            (rectangles, made)
        });
        let Ok((rectangles, made)) = made.await else { return Err(()) };
        self.rectangles = Some(rectangles);
        let made = match made {
            Ok(made) => made,
            Err(error) => return self.say("system/error", json!({"code": "picture", "message": error})).await,
        };
        let count = made.len();
        for (index, part) in made.into_iter().enumerate() {
            let rect = (part.rect.x, part.rect.y, part.rect.width, part.rect.height);
            self.send(message(Kind::Jpeg { is_last: index + 1 == count }, number, at, rect, &part.jpeg)).await?;
        }
        self.is_shown = count == 0;
        Ok(())
    }

    async fn tell_host(&self, now: Option<u64>) -> Result<(), ()> {
        let by = now.map_or_else(|| self.presence.viewer.id(), viewer_id);
        self.say("control/host", host(&by, now.map(viewer_id).as_deref())).await
    }

    async fn tell_size(&self, (width, height): (u32, u32)) -> Result<(), ()> {
        let (id, rate) = (self.presence.viewer.id(), self.presence.stream.fps);
        self.say("screen/updated", json!({"id": id, "width": width, "height": height, "rate": rate})).await?;
        // The SDK knows only this for another size; it asks for another connection then.
        if self.is_ours { Ok(()) } else { self.init().await }
    }

    /// What is copied on the desktop is told to who is in control.
    async fn tell_clipboard(&self) -> Result<(), ()> {
        let Presence { stream, viewer } = &self.presence;
        if *stream.viewers.host().borrow() != Some(viewer.number) {
            return Ok(());
        }
        match self.desktop.clipboard(SelectionName::Clipboard).await {
            Ok(copied) if copied.text.len() > CLIPBOARD_MAX_BYTES => {
                let message = format!("what was copied is longer than {CLIPBOARD_MAX_BYTES} bytes: read it over the API");
                self.say("system/error", json!({"code": "clipboard", "message": message})).await
            }
            Ok(copied) if !copied.text.is_empty() => self.say("clipboard/updated", json!({"text": copied.text})).await,
            _ => Ok(()), // no text
        }
    }
}

fn viewer_id(number: u64) -> String {
    format!("viewer_{number}")
}

/// Of its WebRTC connection; never while there is none. Cancel safe.
async fn next_event(peer: &mut Option<Peer>) -> PeerEvent {
    match peer {
        Some(peer) => peer.events.recv().await.unwrap_or(PeerEvent::Closed(CloseReason::Closed)),
        None => std::future::pending().await,
    }
}

/// Inputs of a viewer are carried out in their order, until it is gone; then all that it held is let go. Moves that wait behind each
/// other are one.
async fn carry_out(
    stream: Arc<Stream>,
    viewer: Arc<Viewer>,
    mut inputs: mpsc::Receiver<Input>,
    units: watch::Receiver<WheelUnit>,
) {
    let mut hands = Hands::default();
    let mut hosts = stream.viewers.host();
    let mut next = None;
    loop {
        let input = match next.take() {
            Some(input) => input,
            None => tokio::select! {
                input = inputs.recv() => match input {
                    Some(input) => input,
                    None => break,
                },
                // somebody else took over
                Ok(()) = hosts.changed() => {
                    if *hosts.borrow_and_update() != Some(viewer.number) {
                        hands.let_go(&stream.session.link).await;
                    }
                    continue;
                }
            },
        };
        let mut input = input;
        while matches!(input, Input::Move { .. })
            && let Ok(other) = inputs.try_recv()
        {
            if !matches!(other, Input::Move { .. }) {
                next = Some(other);
                break;
            }
            input = other;
        }
        hands.unit = *units.borrow();
        let _alone = stream.session.alone().await;
        if let Err(error) = hands.carry_out(&stream.session.link, input).await {
            tracing::debug!(%error, viewer = viewer.id(), "an input of a viewer");
        }
    }
    hands.let_go(&stream.session.link).await;
}
