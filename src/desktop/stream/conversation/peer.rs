//! Its WebRTC connection.

use std::sync::Arc;

use serde_json::json;
use tokio::sync::mpsc;
use webrtc_peers::{CloseReason, PeerEvent, PeerId, Wish};

use super::{Presence, Talk};
use crate::desktop::Error;
use crate::desktop::stream::Stream;
use crate::desktop::stream::input::{Input, WheelUnit};
use crate::desktop::stream::messages::Hello;
use crate::desktop::stream::pointer::Told;
use crate::desktop::stream::viewers::Path;
use crate::rt::spawn_owned;

/// Events of a WebRTC peer that wait; one more closes it.
const PEER_EVENTS_MAX: usize = 1_024;

/// A WebRTC peer, closed when this is dropped.
pub(super) struct Peer {
    stream: Arc<Stream>,
    pub(super) id: PeerId,
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

impl Talk {
    /// Another WebRTC connection, in place of the one before.
    pub(super) async fn offer(&mut self, hears: bool) -> Result<Result<(), ()>, Error> {
        let (stream, viewer) = (Arc::clone(&self.presence.stream), Arc::clone(&self.presence.viewer));
        (self.peer, self.has_channel, self.rectangles) = (None, false, None);
        viewer.goes_by(Path::Connecting);
        let Some(gateway) = &stream.gateway else {
            let why = stream.no_gateway.as_deref().unwrap_or("there is none");
            return Err(Error::Conflict(format!("WebRTC can't be had: {why}; ask for stream/request instead")));
        };
        let wish = Wish { asked_at: self.asked_at, sound: stream.hearing.borrow().as_result().is_ok() };
        let (tell, events) = mpsc::channel(PEER_EVENTS_MAX);
        let offered = gateway.offer(wish, tell).await.map_err(|error| Error::Conflict(error.to_string()))?;
        let (id, sdp) = offered;
        self.peer = Some(Peer { stream: Arc::clone(&stream), id, events });
        self.hears(hears).await;
        // An empty list has the SDK ask a stranger's server. This one answers nobody; ours may not stand here: what comes from the address
        // of a STUN server, Chromium takes for that server's answers, and UDP never connects.
        let ice = json!([{"urls": ["stun:127.0.0.1:9"]}]);
        let payload = json!({
            "sdp": sdp,
            "iceservers": ice,
            "video": {"disabled": false, "id": "main", "video": "main", "auto": true},
            "audio": {"disabled": !wish.sound || !hears},
        });
        Ok(self.say("signal/provide", payload).await)
    }

    pub(super) async fn peer_event(&mut self, event: PeerEvent) -> Result<(), ()> {
        let (stream, viewer) = (Arc::clone(&self.presence.stream), Arc::clone(&self.presence.viewer));
        match event {
            PeerEvent::Connected => {
                viewer.goes_by(Path::WebRtc(None));
                viewer.wants_keyframe();
                stream.asked.notify_one();
            }
            PeerEvent::Opened => {
                self.has_channel = true;
                self.pointer = self.pointer.take().map(|_| Told::default());
                return self.tell_pointer().await;
            }
            PeerEvent::Message(bytes) => return self.message(&bytes).await,
            PeerEvent::KeyframeWanted => {
                viewer.wants_keyframe();
                stream.asked.notify_one();
            }
            PeerEvent::Estimate(bps) => viewer.carries(bps),
            PeerEvent::Stats(stats) => viewer.has_stats(stats),
            PeerEvent::Closed(reason) => {
                (self.peer, self.has_channel) = (None, false);
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
    pub(super) async fn message(&mut self, bytes: &[u8]) -> Result<(), ()> {
        let Some(input) = Input::parse(bytes) else { return Ok(()) }; // as neko does
        if let Input::Ping(theirs) = input {
            self.is_neko().await?;
            return self.pong(theirs).await;
        }
        match self.act(input).await {
            Ok(()) => Ok(()),
            Err(error) => self.say("system/error", json!({"code": error.code(), "message": error.to_string()})).await,
        }
    }

    pub(super) async fn pong(&self, theirs: [u8; 8]) -> Result<(), ()> {
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

    /// It hears from now on, or doesn't: over its WebRTC connection, or else here.
    pub(super) async fn hears(&mut self, on: bool) {
        let Presence { stream, viewer } = &self.presence;
        stream.heard_by(viewer, on);
        match (&self.peer, &stream.gateway) {
            (Some(peer), Some(gateway)) => {
                self.sounds = None;
                gateway.hear(peer.id, on).await;
            }
            _ => self.sounds = (on && self.is_ours).then(|| stream.sounds.subscribe()),
        }
    }

    /// It is one of ours.
    pub(super) async fn is_known(&mut self, hello: Hello) -> Result<(), ()> {
        self.is_ours = true;
        self.presence.viewer.because(hello.reason);
        if hello.pointer {
            self.shows_pointer();
            self.tell_pointer().await?;
        }
        self.tell_drawn().await
    }

    /// It is neko's own client, which counts the wheel in another way and shows the pointer itself.
    pub(super) async fn is_neko(&mut self) -> Result<(), ()> {
        if self.is_ours || self.pointer.is_some() {
            return Ok(());
        }
        self.unit.send_replace(WheelUnit::Notches);
        self.shows_pointer();
        self.tell_pointer().await
    }

    fn shows_pointer(&mut self) {
        self.pointer = Some(Told::default());
        self.presence.viewer.shows_pointer();
        self.presence.stream.asked.notify_one();
    }
}

/// Of its WebRTC connection; never while there is none. Cancel safe.
pub(super) async fn next_event(peer: &mut Option<Peer>) -> PeerEvent {
    match peer {
        Some(peer) => peer.events.recv().await.unwrap_or(PeerEvent::Closed(CloseReason::Closed)),
        None => std::future::pending().await,
    }
}
