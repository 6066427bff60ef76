//! One peer, without any I/O: what arrives goes in, what is to be sent and told comes out.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use str0m::bwe::{Bitrate, BweKind};
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::channel::ChannelId;
use str0m::config::{CryptoProvider, DtlsCert};
use str0m::format::CodecConfig;
use str0m::media::{Direction, Frequency, MediaKind, MediaTime, Mid, Pt};
use str0m::net::{Protocol, Receive, TcpType, Transmit};
use str0m::rtp::Extension;
use str0m::{Candidate, Event, IceConnectionState, Input, Output, Rtc, RtcConfig};

use crate::error::{Error, Result};
use crate::rise::Rise;
use crate::{CloseReason, Config, Frame, PeerEvent, PeerStats, Sound, Transport};

/// Payload types of H.264 and of its retransmissions (RFC 4588), as most senders number them.
const H264: (u8, u8) = (102, 103);
/// Constrained Baseline, level 3.1: what every browser takes. With `level-asymmetry-allowed`, larger pictures are fine.
const PROFILE_LEVEL_ID: u32 = 0x0042_e01f;
/// RTP header extension that asks for no buffering before a frame is shown; a number that str0m's own don't have.
const PLAYOUT_DELAY_ID: u8 = 12;
/// Label of the only channel: clients of neko take whichever they get.
const CHANNEL: &str = "data";
/// What is assumed of the network before anything is known.
const START_BPS: u64 = 2_500_000;
/// Frames are of very different sizes: a network that carries so many times of what they take on average brings a large one in time.
const HEADROOM: u64 = 4;
/// With so many times known, no more is looked for: looking takes half a megabit per second.
const ENOUGH: u64 = 2;
/// No estimate of ours is lower.
const LEAST_BPS: u64 = 100_000;
/// A peer takes no frame while more than what it can be sent in this time still waits to be sent.
const BACKLOG: Duration = Duration::from_millis(120);
/// Of what was sent in a second: with more lost, not all is sent again (str0m's cap), and whoever misses it shows nothing, without a
/// word for many seconds.
const BROKEN_LOSS: f32 = 0.1;
/// With more, what got there is what the network carries: the library takes seconds to believe it.
const CHOKED_LOSS: f32 = 0.4;
/// With less, a keyframe gets there.
const MENDED_LOSS: f32 = 0.03;
/// Frames that are taken over the backlog: they were being encoded when it grew. To leave one out takes a keyframe, which makes it
/// grow again.
const OVER_MAX: u32 = 2;
/// Frames fit into the backlog of a slow peer one by one.
const BACKLOG_LEAST_BYTES: usize = 16_000;

/// What waits for a TCP connection is looked at as often.
const UNSENT_TICK: Duration = Duration::from_millis(20);
/// When nothing was sent for so long, and nothing is wanted, its timers are looked at less often: the library pads what is sent to
/// 50 kbit/s, in 140 packets a second, and with one packet for each look.
const QUIET_AFTER: Duration = Duration::from_millis(150);
const QUIET_TICK: Duration = Duration::from_millis(250);

/// What every peer is built with.
pub(crate) struct Recipe {
    crypto: std::sync::Arc<CryptoProvider>,
    /// One for all: making one takes a tenth of a second.
    certificate: DtlsCert,
}

impl Recipe {
    /// # Errors
    /// The library can't make a certificate.
    pub(crate) fn new() -> Result<Self> {
        let crypto = str0m::crypto::from_feature_flags();
        let certificate = crypto.dtls_provider.generate_certificate();
        let certificate = certificate.ok_or_else(|| Error::Internal("no certificate could be made".to_owned()))?;
        Ok(Self { crypto: std::sync::Arc::new(crypto), certificate })
    }

    fn rtc(&self, now: Instant) -> Rtc {
        let mut config = RtcConfig::new()
            .set_crypto_provider(std::sync::Arc::clone(&self.crypto))
            .set_dtls_cert(self.certificate.clone())
            .set_ice_lite(true)
            .clear_codecs()
            .enable_bwe(Some(Bitrate::from(START_BPS)))
            .set_extension(PLAYOUT_DELAY_ID, Extension::PlayoutDelay)
            .set_stats_interval(Some(Duration::from_secs(1)));
        let codecs: &mut CodecConfig = config.codec_config();
        codecs.enable_opus(true, false);
        codecs.add_h264(Pt::from(H264.0), Some(Pt::from(H264.1)), true, PROFILE_LEVEL_ID);
        config.build(now)
    }
}

/// Where a peer can reach us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Places {
    /// UDP, the first one stands for all.
    pub(crate) udp: Vec<SocketAddr>,
    /// ICE-TCP, passive (RFC 6544).
    pub(crate) tcp: Vec<SocketAddr>,
}

pub(crate) struct Peer {
    rtc: Rtc,
    pending: Option<SdpPendingOffer>,
    video: Mid,
    audio: Option<Mid>,
    /// It gets sound.
    pub(crate) hears: bool,
    channel: Option<ChannelId>,
    /// When it wants to be called again.
    pub(crate) next: Instant,
    /// It is gone unless it connects, or is heard of, by then.
    give_up: Option<Instant>,
    silent_timeout: Duration,
    is_connected: bool,
    /// The frames before the next one didn't get to it.
    awaits_keyframe: bool,
    /// Bytes of frames that wait to be sent, about.
    backlog: usize,
    /// Bytes that left the library and wait for their TCP connection.
    unsent: usize,
    /// Frames since it is too long.
    over: u32,
    estimate_bps: u64,
    desired_bps: u64,
    /// What the library looks for.
    sought_bps: u64,
    rise: Rise,
    /// Until the last second.
    sent_bytes: u64,
    /// When something of ours, or for its data channel, was last sent or received.
    busy_at: Instant,
    /// More was lost than can be sent again, and no keyframe came since.
    is_broken: bool,
    closed: Option<CloseReason>,
}

impl Peer {
    /// A peer and the offer for it.
    ///
    /// # Errors
    /// [`Error::Internal`].
    pub(crate) fn new(recipe: &Recipe, places: &Places, config: &Config, has_sound: bool) -> Result<(Self, String)> {
        let now = Instant::now();
        let internal = |error: &dyn std::fmt::Display| Error::Internal(error.to_string());
        let mut rtc = recipe.rtc(now);
        for udp in &places.udp {
            let candidate = Candidate::builder().udp().host(*udp).build().map_err(|error| internal(&error))?;
            rtc.add_local_candidate(candidate);
        }
        for tcp in &places.tcp {
            let candidate = Candidate::builder().tcp().host(*tcp).tcptype(TcpType::Passive).build();
            rtc.add_local_candidate(candidate.map_err(|error| internal(&error))?);
        }
        let mut changes = rtc.sdp_api();
        let name = |name: &str| Some(name.to_owned());
        // Of streams of their own: else browsers hold pictures back until the sound that belongs to them is there. Video comes last:
        // some clients take the last one that they get.
        let audio =
            has_sound.then(|| changes.add_media(MediaKind::Audio, Direction::SendOnly, name("sound"), name("audio"), None));
        let video = changes.add_media(MediaKind::Video, Direction::SendOnly, name("stream"), name("video"), None);
        changes.add_channel(CHANNEL.to_owned());
        let (offer, pending) = changes.apply().ok_or_else(|| internal(&"nothing to offer"))?;
        let peer = Self {
            rtc,
            pending: Some(pending),
            video,
            audio,
            hears: false,
            channel: None,
            next: now,
            give_up: Some(now + config.connect_timeout),
            silent_timeout: config.silent_timeout,
            is_connected: false,
            awaits_keyframe: true,
            backlog: 0,
            unsent: 0,
            over: 0,
            estimate_bps: START_BPS,
            desired_bps: START_BPS,
            sought_bps: 0,
            rise: Rise::new(),
            sent_bytes: 0,
            busy_at: now,
            is_broken: false,
            closed: None,
        };
        Ok((peer, offer.to_sdp_string()))
    }

    /// # Errors
    /// [`Error::Answer`]: what is wrong; the peer can't be used any more once a part of it was taken.
    pub(crate) fn answer(&mut self, sdp: &str) -> Result<()> {
        let answer = SdpAnswer::from_sdp_string(sdp).map_err(|error| Error::Answer(error.to_string()))?;
        let pending = self.pending.take().ok_or_else(|| Error::Answer("there was one before".to_owned()))?;
        self.rtc.sdp_api().accept_answer(pending, answer).map_err(|error| Error::Answer(error.to_string()))
    }

    /// Whether this is from the peer, by password or place.
    pub(crate) fn accepts(&self, now: Instant, proto: Protocol, from: SocketAddr, to: SocketAddr, bytes: &[u8]) -> bool {
        let Ok(contents) = bytes.try_into() else { return false };
        self.rtc.accepts(&Input::Receive(now, Receive { proto, source: from, destination: to, contents }))
    }

    /// Something came for it from the network.
    pub(crate) fn receive(&mut self, now: Instant, proto: Protocol, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let Ok(contents) = bytes.try_into() else { return }; // neither STUN, DTLS, RTP nor RTCP
        if is_dtls(bytes) {
            self.busy_at = now;
        }
        let receive = Receive { proto, source: from, destination: to, contents };
        self.input(Input::Receive(now, receive));
    }

    pub(crate) fn time_passed(&mut self, now: Instant) {
        if self.give_up.is_some_and(|at| at <= now) {
            let reason = if self.is_connected { CloseReason::Silent } else { CloseReason::NeverConnected };
            self.close(reason);
        }
        self.input(Input::Timeout(now));
    }

    fn input(&mut self, input: Input<'_>) {
        if let Err(error) = self.rtc.handle_input(input) {
            tracing::debug!(%error, "a WebRTC peer");
            self.close(CloseReason::Failed(error.to_string()));
        }
    }

    /// Takes a frame, unless what came before still waits.
    pub(crate) fn frame(&mut self, frame: &Frame) {
        if !self.is_connected || (self.awaits_keyframe && !frame.is_keyframe) {
            return;
        }
        self.over = if self.has_room() { 0 } else { self.over + 1 };
        if self.over > OVER_MAX {
            self.awaits_keyframe = true;
            return;
        }
        let Some(writer) = self.rtc.writer(self.video) else { return };
        let Some(pt) = writer.payload_params().next().map(|params| params.pt()) else { return };
        let at = MediaTime::from_micros(u64::try_from(frame.at.as_micros()).unwrap_or(u64::MAX));
        let writer = writer.playout_delay(MediaTime::from_millis(0), MediaTime::from_millis(0));
        match writer.write(pt, frame.taken, at, std::sync::Arc::clone(&frame.data)) {
            Ok(()) => {
                self.awaits_keyframe = false;
                self.backlog += frame.data.len();
                self.busy_at = Instant::now();
            }
            Err(error) => self.close(CloseReason::Failed(error.to_string())),
        }
    }

    /// Takes sound, if it hears. What comes late isn't worth waiting for.
    pub(crate) fn sound(&mut self, sound: &Sound) {
        if !self.is_connected || !self.hears {
            return;
        }
        let Some(writer) = self.audio.and_then(|mid| self.rtc.writer(mid)) else { return };
        let Some(pt) = writer.payload_params().next().map(|params| params.pt()) else { return };
        let at = MediaTime::new(sound.at_sample, Frequency::FORTY_EIGHT_KHZ);
        if let Err(error) = writer.write(pt, sound.heard, at, std::sync::Arc::clone(&sound.data)) {
            self.close(CloseReason::Failed(error.to_string()));
        }
    }

    /// False when it has no channel, or that is full: the message isn't sent then.
    pub(crate) fn message(&mut self, bytes: &[u8]) -> bool {
        let Some(mut channel) = self.channel.and_then(|id| self.rtc.channel(id)) else { return false };
        self.busy_at = Instant::now();
        matches!(channel.write(true, bytes), Ok(true))
    }

    /// What all frames together may take, once there is that much room.
    pub(crate) fn desire(&mut self, bps: u64) {
        self.desired_bps = bps;
        self.seek();
    }

    /// Has the library look for as much as isn't known yet.
    fn seek(&mut self) {
        let is_enough = self.estimate_bps >= self.desired_bps * ENOUGH;
        let sought_bps = if is_enough { 0 } else { self.desired_bps * HEADROOM };
        if sought_bps != self.sought_bps {
            self.sought_bps = sought_bps;
            self.rtc.bwe().set_desired_bitrate(Bitrate::from(sought_bps));
        }
    }

    fn is_quiet(&self, now: Instant) -> bool {
        self.is_connected && self.desired_bps == 0 && self.backlog == 0 && !self.hears && now > self.busy_at + QUIET_AFTER
    }

    fn has_room(&self) -> bool {
        let millis = u64::try_from(BACKLOG.as_millis()).unwrap_or(u64::MAX);
        let bytes = usize::try_from(self.estimate_bps / 8 * millis / 1000).unwrap_or(usize::MAX);
        self.backlog + self.unsent < bytes.max(BACKLOG_LEAST_BYTES)
    }

    /// So many bytes wait for its TCP connection; they are asked for again soon.
    pub(crate) fn waits(&mut self, unsent: usize) {
        self.unsent = unsent;
        if unsent > 0 {
            self.next = self.next.min(Instant::now() + UNSENT_TICK);
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// A frame would be sent to it.
    pub(crate) fn is_ready(&self) -> bool {
        self.is_connected && self.closed.is_none() && self.has_room()
    }

    pub(crate) fn wants_keyframe(&self) -> bool {
        self.is_ready() && self.awaits_keyframe
    }

    pub(crate) fn close(&mut self, reason: CloseReason) {
        if self.closed.is_none() {
            self.closed = Some(reason);
            let _ = self.rtc.close(); // it fails where there is nothing to close
        }
    }

    pub(crate) fn closed(&self) -> Option<&CloseReason> {
        self.closed.as_ref()
    }

    /// All that is to be sent and told now. Has to follow each of the calls above that change something.
    pub(crate) fn drain(&mut self, mut send: impl FnMut(&Transmit), mut tell: impl FnMut(PeerEvent)) {
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => {
                    let now = Instant::now();
                    let at = if self.is_quiet(now) { at.max(now + QUIET_TICK) } else { at };
                    self.next = self.give_up.map_or(at, |give_up| give_up.min(at));
                    break;
                }
                Ok(Output::Transmit(transmit)) => {
                    if is_rtp(&transmit.contents) {
                        self.backlog = self.backlog.saturating_sub(transmit.contents.len());
                    }
                    send(&transmit);
                }
                Ok(Output::Event(event)) => self.event(event, &mut tell),
                Err(error) => {
                    self.close(CloseReason::Failed(error.to_string()));
                    break;
                }
            }
        }
        if !self.rtc.is_alive() {
            self.closed.get_or_insert(CloseReason::Left);
        }
    }

    /// Of what was sent in the last second, most was lost.
    fn choked(&mut self, sent_bytes: u64, loss: f32, tell: &mut impl FnMut(PeerEvent)) {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)] // megabytes
        let carried_bps = (sent_bytes as f64 * 8.0 * f64::from(1.0 - loss)) as u64;
        if carried_bps < self.estimate_bps {
            self.estimate_bps = carried_bps.max(LEAST_BPS);
            self.rtc.bwe().reset(Bitrate::from(self.estimate_bps));
            self.awaits_keyframe = true; // what was lost isn't sent again
            tell(PeerEvent::Estimate(self.estimate_bps));
            tell(PeerEvent::KeyframeWanted);
        }
    }

    fn event(&mut self, event: Event, tell: &mut impl FnMut(PeerEvent)) {
        match event {
            Event::Connected => {
                (self.is_connected, self.give_up) = (true, None);
                tell(PeerEvent::Connected);
            }
            Event::IceConnectionStateChange(IceConnectionState::Disconnected) => {
                self.give_up = Some(Instant::now() + self.silent_timeout);
            }
            Event::IceConnectionStateChange(_) if self.is_connected => self.give_up = None,
            Event::ChannelOpen(id, _) => {
                self.channel = Some(id);
                tell(PeerEvent::Opened);
            }
            Event::ChannelClose(id) if self.channel == Some(id) => self.close(CloseReason::Left),
            Event::ChannelData(data) => tell(PeerEvent::Message(data.data)),
            Event::KeyframeRequest(_) => {
                self.awaits_keyframe = true;
                tell(PeerEvent::KeyframeWanted);
            }
            Event::EgressBitrateEstimate(BweKind::Twcc { estimate, .. } | BweKind::Remb { estimate, .. }) => {
                self.estimate_bps = estimate.as_u64();
                self.seek();
                tell(PeerEvent::Estimate(self.estimate_bps));
            }
            Event::PeerStats(stats) => {
                let pair = stats.selected_candidate_pair;
                let sent_bytes = stats.peer_bytes_tx.saturating_sub(std::mem::replace(&mut self.sent_bytes, stats.peer_bytes_tx));
                if let Some(loss) = stats.egress_loss_fraction.filter(|loss| *loss > CHOKED_LOSS) {
                    self.choked(sent_bytes, loss, tell);
                }
                self.is_broken |= stats.egress_loss_fraction.is_some_and(|loss| loss > BROKEN_LOSS);
                if self.is_broken && stats.egress_loss_fraction.is_some_and(|loss| loss < MENDED_LOSS) {
                    (self.is_broken, self.awaits_keyframe) = (false, true);
                    tell(PeerEvent::KeyframeWanted);
                }
                let round_trip = pair.as_ref().and_then(|pair| pair.current_round_trip_time).or(stats.rtt);
                if self.rise.is_due(Instant::now(), round_trip, stats.egress_loss_fraction)
                    && self.estimate_bps < self.desired_bps
                {
                    self.estimate_bps = (self.estimate_bps * 2).min(self.desired_bps * 3 / 2);
                    self.rtc.bwe().reset(Bitrate::from(self.estimate_bps));
                    tell(PeerEvent::Estimate(self.estimate_bps));
                }
                tell(PeerEvent::Stats(PeerStats {
                    transport: pair.as_ref().map(|pair| match pair.protocol {
                        Protocol::Udp => Transport::Udp,
                        _ => Transport::Tcp,
                    }),
                    remote: pair.map(|pair| pair.remote.addr),
                    bytes_sent: stats.peer_bytes_tx,
                    round_trip,
                    loss: stats.egress_loss_fraction,
                }));
            }
            _ => {}
        }
    }
}

/// RFC 7983, 7.
fn is_dtls(packet: &[u8]) -> bool {
    matches!(packet, [20..=63, ..])
}

/// RFC 5764, 5.1.2 and RFC 5761, 4: neither STUN nor DTLS, nor RTCP.
fn is_rtp(packet: &[u8]) -> bool {
    matches!(packet, [128..=191, kind, ..] if !(64..=95).contains(&(kind & 0x7f)))
}
