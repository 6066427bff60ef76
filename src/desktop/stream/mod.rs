//! The desktop live: pictures to those who watch, and the input of those who control.
//!
//! ```text
//!            X connection ──picture──▶ pump ──frame──▶ gateway (WebRTC: UDP, ICE-TCP) ──▶ viewer
//!                 ▲                      └──frame or picture──▶ conversation (WebSocket) ──▶ viewer
//!                 └────────────── input ◀── conversation ◀── data channel or WebSocket ◀─┘
//! ```
//! A stream is on or off. Each viewer has a WebSocket, on which it says what it wants; what it gets over WebRTC or over that very
//! socket is the same. With the stream, or the desktop, all viewers end.
//!
//! | module | what |
//! |---|---|
//! | `pump` | **the owner task of pictures**: takes, encodes, hands out |
//! | `conversation` | **the task of a viewer**: what it says and hears |
//! | `viewers` | who watches, who is in control |
//! | `carried` | what the network of a WebSocket carries |
//! | `ear` | **the task of sound**: listens while somebody hears |
//! | `input` | pointer and keyboard of viewers |
//! | `pointer` | where it is and what it looks like, for viewers that show it themselves |
//! | `messages` | neko's words |
//! | `picture`, `rate` | frames and rectangles; how much of them |
//! | `tickets` | who may come in without the token |
//! | `types` | what clients are told |

mod carried;
mod conversation;
mod ear;
mod input;
mod messages;
mod picture;
mod pointer;
mod pump;
mod rate;
mod tickets;
mod types;
mod viewers;

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, broadcast, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use webrtc_peers::{Config as GatewayConfig, Gateway, Sound};
use x_desktop::Pointer;

pub use conversation::{Conversation, Said, Wire};
pub use tickets::ViewerMode;
pub use types::{StreamStatus, Ticket, TicketSpec, ViewerInfo, ViewerList};

use super::session::Session;
use super::supervisor::Phase;
use super::types::StartSpec;
use super::{Desktop, Error};
use crate::config::{as_duration, as_usize};
use crate::rt::clock::{now_ms, rfc3339};
use crate::rt::ids::new_id;
use crate::rt::spawn_owned;
use ear::{Ear, Hearing};
use picture::{Packet, Picture};
use pump::Pump;
use rate::Rate;
use tickets::{Claims, Tickets};
use viewers::{Sight, Viewer, Viewers};

/// Ports for media when the start doesn't say.
const PORTS: &str = "59050-59070";
/// Frames a second when the start doesn't say.
const FPS: u32 = 30;
/// Where it is kept that the stream was on, in the desktop's directory.
const FILE: &str = "stream.json";
/// A ticket is for so long when nobody says.
const TICKET_MS: u64 = 60_000;
/// A viewer that came with a ticket can come back for so long after it was last there.
const RETURN_MS: u64 = 10 * 60_000;

/// The stream, on or off; a part of [`Desktop`].
pub(super) struct Streams {
    now: watch::Sender<Option<Arc<Stream>>>,
    /// Held while it is switched.
    switching: tokio::sync::Mutex<()>,
    tickets: Mutex<Option<Tickets>>,
}

/// A stream that is on.
pub(super) struct Stream {
    session: Arc<Session>,
    spec: StartSpec,
    fps: u32,
    began: Instant,
    /// The desktop, by the time when it was started.
    desktop: i64,
    gateway: Option<Gateway>,
    /// Why there is none.
    no_gateway: Option<String>,
    viewers: Viewers,
    /// The latest one, for who makes rectangles of it.
    pictures: watch::Sender<Option<Arc<Picture>>>,
    size: watch::Sender<(u32, u32)>,
    rate: watch::Sender<Option<Rate>>,
    pointers: watch::Sender<Option<Pointer>>,
    /// The pointer is drawn in the picture, because somebody doesn't show it.
    draws_pointer: watch::Sender<bool>,
    hearing: watch::Sender<Hearing>,
    /// For those who hear over their WebSocket.
    sounds: broadcast::Sender<Arc<Sound>>,
    /// Somebody came, left, or wants something.
    asked: Notify,
    /// Somebody hears, or doesn't any more.
    ear_asked: Notify,
    stop: CancellationToken,
}

/// What the pump has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Nobody watches.
    Nothing,
    Pictures {
        /// Somebody has room for one.
        is_ready: bool,
        wants_keyframe: bool,
    },
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Stream {
    fn need(&self) -> Need {
        if self.viewers.is_empty() {
            return Need::Nothing;
        }
        let is_ready = self.wants_repeats() || self.viewers.are_ready();
        Need::Pictures { is_ready, wants_keyframe: self.wants_keyframe() }
    }

    /// Changes with what WebRTC has room for.
    fn ready(&self) -> watch::Receiver<usize> {
        self.gateway.as_ref().map_or_else(|| watch::channel(0).1, Gateway::ready)
    }

    fn wants_keyframe(&self) -> bool {
        self.viewers.want_keyframe()
    }

    /// Somebody gets video, and not rectangles only.
    fn wants_frames(&self) -> bool {
        self.viewers.want_frames()
    }

    /// Somebody gets it over WebRTC and has room, so that frames have to come even while nothing is new.
    fn wants_repeats(&self) -> bool {
        self.gateway.as_ref().is_some_and(|gateway| *gateway.ready().borrow() > 0)
    }

    /// What the slowest of the networks carries, in bits per second, where that is known.
    fn slowest_bps(&self) -> Option<u64> {
        self.viewers.slowest_bps()
    }

    /// Draws the pointer if a viewer doesn't show it itself; true when that is another thing than before.
    fn consider_pointer(&self) -> bool {
        let is_drawn = !self.viewers.all_show_pointer();
        self.draws_pointer.send_if_modified(|drawn| std::mem::replace(drawn, is_drawn) != is_drawn)
    }

    /// A viewer hears from now on, or doesn't.
    fn heard_by(&self, viewer: &Viewer, on: bool) {
        viewer.hears(on);
        self.ear_asked.notify_one();
    }

    fn resized(&self, size: (u32, u32)) {
        self.size.send_replace(size);
    }

    fn rate_is(&self, rate: Rate) {
        self.rate.send_replace(Some(rate));
    }

    /// A frame goes to those who get it over their WebSocket.
    fn encoded(&self, packet: &Arc<Packet>) {
        self.viewers.encoded(packet);
    }
}

impl Streams {
    pub(super) fn new() -> Self {
        Self { now: watch::channel(None).0, switching: tokio::sync::Mutex::default(), tickets: Mutex::new(None) }
    }

    fn now(&self) -> Option<Arc<Stream>> {
        self.now.borrow().clone()
    }
}

impl Desktop {
    /// Switches the stream on; on already, it stays as it is.
    ///
    /// # Errors
    /// There is no desktop; [`Error::Invalid`] for a range of ports that is none.
    pub async fn start_stream(&self) -> Result<StreamStatus, Error> {
        let _switching = self.inner.streams.switching.lock().await;
        let shown = self.shown();
        let session = self.session()?;
        if let Some(stream) = self.inner.streams.now().filter(|stream| Arc::ptr_eq(&stream.session, &session)) {
            return Ok(self.status_of(&stream));
        }
        let spec = shown.spec.clone();
        let (gateway, no_gateway) = match self.gateway(&spec)? {
            Ok((gateway, owner)) => {
                spawn_owned("desktop-webrtc", owner);
                (Some(gateway), None)
            }
            Err(why) => {
                tracing::warn!(why, "no WebRTC: the stream goes over WebSockets only");
                (None, Some(why))
            }
        };
        let size = session.resolution().await?;
        let stream = Arc::new(Stream {
            fps: spec.stream_frame_rate.unwrap_or(FPS),
            spec,
            began: Instant::now(),
            desktop: shown.started_at_ms.unwrap_or_default(),
            gateway,
            no_gateway,
            viewers: Viewers::new(as_usize(self.parts().bounds.desktop_viewers_max)),
            pictures: watch::channel(None).0,
            size: watch::channel((size.width, size.height)).0,
            rate: watch::channel(None).0,
            pointers: watch::channel(None).0,
            draws_pointer: watch::channel(false).0,
            hearing: watch::channel(Hearing::default()).0,
            sounds: broadcast::channel(SOUNDS_MAX).0,
            asked: Notify::new(),
            ear_asked: Notify::new(),
            stop: CancellationToken::new(),
            session: Arc::clone(&session),
        });
        spawn_owned("desktop-stream", Pump::new(Arc::clone(&stream)).run());
        spawn_owned("desktop-sound", Ear::new(Arc::clone(&stream), self.parts()).run());
        let (stop, desktop) = (stream.stop.clone(), self.clone());
        spawn_owned("desktop-stream-end", async move {
            tokio::select! {
                () = stop.cancelled() => {} // somebody switched it off
                () = desktop.left(&session) => {
                    stop.cancel();
                    desktop.go_on_streaming().await;
                }
            }
        });
        self.remember_stream(Some(stream.desktop));
        self.inner.streams.now.send_replace(Some(Arc::clone(&stream)));
        Ok(self.status_of(&stream))
    }

    /// Switches it off; all viewers are told and end.
    ///
    /// # Errors
    /// None; for the routes.
    pub async fn stop_stream(&self) -> Result<StreamStatus, Error> {
        let _switching = self.inner.streams.switching.lock().await;
        if let Some(stream) = self.inner.streams.now.send_replace(None) {
            stream.stop.cancel();
        }
        self.remember_stream(None);
        Ok(self.stream_status())
    }

    /// After its X server was restarted: on again with the next one, unless the desktop was stopped.
    /// Boxed: it is awaited in what it starts.
    fn go_on_streaming(self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let mut shown = self.inner.shown.clone();
            let settled = shown.wait_for(|shown| shown.state != Phase::Starting).await;
            let is_up = settled.is_ok_and(|shown| shown.state == Phase::Active);
            if is_up {
                self.resume_stream().await;
            }
        })
    }

    /// Switches it on again where it was on for this desktop: after a restart of the server, or of the X server.
    pub(super) async fn resume_stream(&self) {
        let kept = self.parts().home.as_ref().and_then(|home| home.kept::<i64>(FILE));
        if kept.is_some()
            && kept == self.shown().started_at_ms
            && let Err(error) = self.start_stream().await
        {
            tracing::warn!(%error, "the stream is off after the restart");
        }
    }

    fn remember_stream(&self, desktop: Option<i64>) {
        if let Some(home) = &self.parts().home {
            home.keep(FILE, desktop.as_ref());
        }
    }

    /// How it goes with the stream.
    pub fn stream_status(&self) -> StreamStatus {
        match self.stream() {
            Ok(stream) => self.status_of(&stream),
            Err(_) => StreamStatus::default(),
        }
    }

    fn status_of(&self, stream: &Stream) -> StreamStatus {
        let rate = *stream.rate.borrow();
        let size = *stream.size.borrow();
        StreamStatus::of(stream, size, rate)
    }

    /// Who watches.
    ///
    /// # Errors
    /// The stream is off.
    pub fn viewers(&self) -> Result<ViewerList, Error> {
        Ok(ViewerList { viewers: self.stream()?.viewers.list() })
    }

    /// Ends a viewer, and takes back the ticket that it came with.
    ///
    /// # Errors
    /// The stream is off; [`Error::ViewerNotFound`].
    pub async fn kick(&self, id: &str) -> Result<(), Error> {
        let stream = self.stream()?;
        let claims = stream.viewers.kick(id).ok_or_else(|| Error::ViewerNotFound(id.to_owned()))?;
        if let Some(claims) = claims {
            let tickets = self.tickets()?;
            let until_ms = claims.expires_at_ms.max(now_ms() + i64::try_from(RETURN_MS).unwrap_or(0));
            let revoked = tokio::task::spawn_blocking(move || tickets.revoke(&claims.id, until_ms, now_ms()));
            revoked.await.map_err(|_| Error::Stopping)?;
        }
        Ok(())
    }

    /// Makes a ticket for this desktop.
    ///
    /// # Errors
    /// [`Error::Invalid`]: it would be for too long; there is no desktop.
    pub fn ticket(&self, spec: &TicketSpec) -> Result<Ticket, Error> {
        spec.check(self.parts().bounds.desktop_ticket_ttl_max_ms)?;
        self.session()?;
        let expires_at_ms = now_ms() + i64::try_from(spec.ttl_ms.unwrap_or(TICKET_MS)).unwrap_or(i64::MAX / 2);
        let claims = Claims {
            id: new_id("tick"),
            mode: spec.mode,
            name: spec.name.clone(),
            desktop: self.shown().started_at_ms.unwrap_or_default(),
            expires_at_ms,
        };
        let ticket = self.tickets()?.sign(&claims);
        Ok(Ticket::new(ticket, spec.mode, rfc3339(expires_at_ms)))
    }

    /// A viewer that is to come in: with a ticket, or by the token (`None`). `asked_at` is where it found this server.
    ///
    /// # Errors
    /// [`Error::TicketInvalid`]; the stream is off; [`Error::TooManyViewers`].
    pub fn view(&self, ticket: Option<&str>, remote: Option<IpAddr>, asked_at: Option<IpAddr>) -> Result<Conversation, Error> {
        let claims = match ticket {
            None => None,
            Some(ticket) => {
                let desktop = self.shown().started_at_ms.unwrap_or_default();
                let claims = self.tickets()?.read(ticket, desktop, now_ms());
                Some(claims.map_err(|why| Error::TicketInvalid(why.to_owned()))?)
            }
        };
        let stream = self.stream()?;
        let sight = Sight::new(claims.as_ref(), remote);
        let viewer = stream.viewers.join(sight, claims).map_err(Error::TooManyViewers)?;
        Ok(Conversation::new(self.clone(), stream, viewer, asked_at))
    }

    /// A ticket to come back with, for who came with one.
    fn ticket_again(&self, claims: &Claims) -> Option<String> {
        let expires_at_ms = claims.expires_at_ms.max(now_ms() + i64::try_from(RETURN_MS).unwrap_or(0));
        Some(self.tickets().ok()?.sign(&Claims { expires_at_ms, ..claims.clone() }))
    }

    fn stream(&self) -> Result<Arc<Stream>, Error> {
        let stream = self.inner.streams.now().filter(|stream| !stream.stop.is_cancelled());
        stream.ok_or(Error::NoStream)
    }

    fn tickets(&self) -> Result<Tickets, Error> {
        let mut tickets = self.inner.streams.tickets.lock().unwrap_or_else(PoisonError::into_inner); // set once
        if let Some(tickets) = &*tickets {
            return Ok(tickets.clone());
        }
        let opened = Tickets::open(self.parts().home.as_ref()).map_err(|error| Error::Home(error.to_string()))?;
        Ok(tickets.insert(opened).clone())
    }

    /// The gateway, or why there is none.
    #[allow(clippy::type_complexity)]
    fn gateway(&self, spec: &StartSpec) -> Result<Result<(Gateway, impl Future<Output = ()> + Send + 'static), String>, Error> {
        let ports = spec.webrtc_port_range.as_deref().unwrap_or(PORTS);
        let ports = types::ports(ports)?;
        let (bounds, media) = (&self.parts().bounds, &self.parts().media);
        let config = GatewayConfig {
            bind: media.bind,
            ports,
            addresses: media.addresses.clone(),
            peers_max: as_usize(bounds.desktop_viewers_max),
            message_max_bytes: as_usize(bounds.ws_message_max_bytes),
            connect_timeout: as_duration(bounds.desktop_viewer_connect_timeout_ms),
            silent_timeout: as_duration(bounds.desktop_viewer_silent_timeout_ms),
        };
        Ok(Gateway::start(config).map_err(|error| error.to_string()))
    }
}

/// Where media is received, and how it is announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaAddresses {
    /// Where to listen: the address of the server's own port.
    pub bind: IpAddr,
    /// Where viewers find it besides, through NAT.
    pub addresses: Vec<IpAddr>,
}

/// Frames that wait for a viewer's WebSocket.
const FRAMES_MAX: usize = 2;
/// Packets of sound that wait for it; the oldest are left out.
const SOUNDS_MAX: usize = 16;
/// How long a viewer that is in control has the lease after its last input.
const LEASE: Duration = Duration::from_secs(10);
