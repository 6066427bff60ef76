//! Who watches, and who is in control.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use webrtc_peers::{PeerStats, Transport};

use super::carried::Carried;
use super::picture::Packet;
use super::tickets::Claims;
use super::{FRAMES_MAX, ViewerInfo, ViewerMode};
use crate::rt::clock::{now_ms, rfc3339};

/// A viewer that missed a frame gets its keyframe after this time: keyframes are for all, and who is slow misses the next one, too.
const LAG: Duration = Duration::from_secs(1);

/// All viewers of a stream.
pub(super) struct Viewers {
    all: Mutex<BTreeMap<u64, Arc<Viewer>>>,
    count: AtomicUsize,
    next: AtomicU64,
    max: usize,
    /// Who is in control.
    host: watch::Sender<Option<u64>>,
}

/// What is known of a viewer before it says anything.
pub(super) struct Sight {
    name: Option<String>,
    mode: ViewerMode,
    remote: Option<IpAddr>,
}

impl Sight {
    /// The token allows everything.
    pub(super) fn new(claims: Option<&Claims>, remote: Option<IpAddr>) -> Self {
        let mode = claims.map_or(ViewerMode::Control, |claims| claims.mode);
        Self { name: claims.and_then(|claims| claims.name.clone()), mode, remote }
    }
}

/// How the picture gets to a viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Path {
    #[default]
    Connecting,
    WebRtc(Option<Transport>),
    Frames,
    Rectangles,
}

impl Path {
    fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::WebRtc(Some(Transport::Tcp)) => "webrtc-tcp",
            Self::WebRtc(_) => "webrtc-udp",
            Self::Frames => "websocket-h264",
            Self::Rectangles => "websocket-jpeg",
        }
    }
}

/// One who watches.
pub(super) struct Viewer {
    pub(super) number: u64,
    pub(super) sight: Sight,
    pub(super) claims: Option<Claims>,
    connected_at_ms: i64,
    /// Ends it.
    pub(super) kicked: CancellationToken,
    frames: mpsc::Sender<Arc<Packet>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    path: Path,
    reason: Option<String>,
    awaits_keyframe: bool,
    /// When it missed a frame, until it has a keyframe.
    missed_at: Option<Instant>,
    shows_pointer: bool,
    hears: bool,
    /// Over its WebSocket.
    carried: Carried,
    /// Of its WebRTC connection.
    estimate_bps: Option<u64>,
    bytes_sent: u64,
    stats: Option<PeerStats>,
}

impl State {
    /// What its network carries, in bits per second, if that is known.
    fn bps(&self) -> Option<u64> {
        self.estimate_bps.or_else(|| self.carried.bps())
    }
}

impl Viewer {
    pub(super) fn id(&self) -> String {
        format!("viewer_{}", self.number)
    }

    pub(super) fn may_control(&self) -> bool {
        self.sight.mode == ViewerMode::Control
    }

    /// It gets the picture in another way from now on, or not yet.
    pub(super) fn goes_by(&self, path: Path) {
        let mut state = self.state();
        state.path = path;
        state.awaits_keyframe = path == Path::Frames;
        (state.missed_at, state.estimate_bps, state.stats) = (None, None, None);
        state.carried = Carried::default();
    }

    pub(super) fn because(&self, reason: Option<String>) {
        self.state().reason = reason;
    }

    pub(super) fn wants_keyframe(&self) {
        self.state().awaits_keyframe = true;
    }

    /// It shows the pointer itself.
    pub(super) fn shows_pointer(&self) {
        self.state().shows_pointer = true;
    }

    /// It wants sound, or doesn't.
    pub(super) fn hears(&self, on: bool) {
        self.state().hears = on;
    }

    pub(super) fn is_hearing(&self) -> bool {
        self.state().hears
    }

    pub(super) fn carries(&self, bps: u64) {
        self.state().estimate_bps = Some(bps);
    }

    pub(super) fn has_stats(&self, stats: PeerStats) {
        let mut state = self.state();
        if let Path::WebRtc(transport) = &mut state.path {
            *transport = stats.transport.or(*transport);
        }
        state.bytes_sent = stats.bytes_sent;
        state.stats = Some(stats);
    }

    pub(super) fn sent(&self, bytes: usize) {
        let mut state = self.state();
        state.bytes_sent = state.bytes_sent.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    pub(super) fn has_shown(&self) {
        self.state().carried.shown(Instant::now());
    }

    /// Takes a frame, if it gets frames and has room.
    fn take(&self, packet: &Arc<Packet>) {
        let mut state = self.state();
        if let Path::WebRtc(_) = state.path {
            state.awaits_keyframe &= !packet.is_keyframe;
            return;
        }
        if state.path != Path::Frames || (state.awaits_keyframe && !packet.is_keyframe) {
            return;
        }
        let has_room = state.carried.has_room() && self.frames.try_send(Arc::clone(packet)).is_ok();
        state.awaits_keyframe = !has_room;
        let now = Instant::now();
        state.missed_at = (!has_room).then_some(now);
        if has_room {
            state.carried.sent(packet.data.len(), now);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner) // each change leaves it whole
    }

    fn info(&self, host: Option<u64>) -> ViewerInfo {
        let state = self.state();
        let stats = state.stats.as_ref();
        ViewerInfo {
            id: self.id(),
            name: self.sight.name.clone(),
            mode: self.sight.mode,
            in_control: host == Some(self.number),
            connected_at: rfc3339(self.connected_at_ms),
            path: state.path.name().to_owned(),
            path_reason: state.reason.clone(),
            address: self.sight.remote.map(|address| address.to_string()),
            round_trip_ms: stats.and_then(|stats| stats.round_trip).map(|time| time.as_secs_f64() * 1_000.0),
            estimated_bps: state.bps(),
            bytes_sent: state.bytes_sent,
            loss: stats.and_then(|stats| stats.loss),
        }
    }
}

/// A viewer as long as it is here.
pub(super) struct Joined {
    pub(super) viewer: Arc<Viewer>,
    pub(super) frames: mpsc::Receiver<Arc<Packet>>,
}

impl Viewers {
    pub(super) fn new(max: usize) -> Self {
        let host = watch::channel(None).0;
        Self { all: Mutex::default(), count: AtomicUsize::new(0), next: AtomicU64::new(1), max, host }
    }

    /// # Errors
    /// How many there are already.
    pub(super) fn join(&self, sight: Sight, claims: Option<Claims>) -> Result<Joined, usize> {
        let mut all = self.all();
        if all.len() >= self.max {
            return Err(all.len());
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (frames, taken) = mpsc::channel(FRAMES_MAX);
        let viewer = Arc::new(Viewer {
            number,
            sight,
            claims,
            connected_at_ms: now_ms(),
            kicked: CancellationToken::new(),
            frames,
            state: Mutex::default(),
        });
        all.insert(number, Arc::clone(&viewer));
        self.count.store(all.len(), Ordering::Relaxed);
        Ok(Joined { viewer, frames: taken })
    }

    pub(super) fn leave(&self, viewer: &Viewer) {
        let mut all = self.all();
        all.remove(&viewer.number);
        self.count.store(all.len(), Ordering::Relaxed);
        drop(all);
        self.release(viewer);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Some of those who get it over their WebSocket have room.
    pub(super) fn are_ready(&self) -> bool {
        self.all().values().any(|viewer| {
            let state = viewer.state();
            // those who get rectangles look at the latest whenever they can
            state.path == Path::Rectangles || state.path == Path::Frames && state.carried.has_room()
        })
    }

    pub(super) fn want_keyframe(&self) -> bool {
        self.all().values().any(|viewer| {
            let state = viewer.state();
            let lags = state.missed_at.is_some_and(|missed_at| missed_at.elapsed() < LAG);
            state.awaits_keyframe && state.carried.has_room() && !lags
        })
    }

    pub(super) fn want_frames(&self) -> bool {
        self.all().values().any(|viewer| matches!(viewer.state().path, Path::WebRtc(_) | Path::Frames))
    }

    pub(super) fn all_show_pointer(&self) -> bool {
        self.all().values().all(|viewer| viewer.state().shows_pointer)
    }

    pub(super) fn anyone_hears(&self) -> bool {
        self.all().values().any(|viewer| viewer.is_hearing())
    }

    pub(super) fn slowest_bps(&self) -> Option<u64> {
        self.all().values().filter_map(|viewer| viewer.state().bps()).min()
    }

    pub(super) fn encoded(&self, packet: &Arc<Packet>) {
        self.all().values().for_each(|viewer| viewer.take(packet));
    }

    pub(super) fn list(&self) -> Vec<ViewerInfo> {
        let host = *self.host.borrow();
        self.all().values().map(|viewer| viewer.info(host)).collect()
    }

    /// Ends a viewer; gives what it came with.
    pub(super) fn kick(&self, id: &str) -> Option<Option<Claims>> {
        let viewer = self.all().values().find(|viewer| viewer.id() == id).cloned()?;
        viewer.kicked.cancel();
        Some(viewer.claims.clone())
    }

    pub(super) fn host(&self) -> watch::Receiver<Option<u64>> {
        self.host.subscribe()
    }

    /// It is in control from now on; whoever was isn't.
    pub(super) fn take_control(&self, viewer: &Viewer) {
        if viewer.may_control() {
            self.host.send_if_modified(|host| host.replace(viewer.number) != Some(viewer.number));
        }
    }

    pub(super) fn release(&self, viewer: &Viewer) {
        self.host.send_if_modified(|host| host.take_if(|host| *host == viewer.number).is_some());
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Viewer>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner) // each change leaves it whole
    }
}
