//! The owner of sockets and peers.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use str0m::net::{Protocol, Transmit};
use tokio::sync::{mpsc, oneshot, watch};

use crate::addresses::places;
use crate::error::{Error, Result};
use crate::peer::{Peer, Recipe};
use crate::tcp::{Arrived, Tcp};
use crate::udp::Udp;
use crate::{CloseReason, Config, Frame, PeerEvent, PeerId, Sound, Wish};

/// Commands that wait for the owner; frames are among them.
const COMMANDS_MAX: usize = 64;
/// Addresses that one peer sends from: a browser tries one for each of its networks.
const REMOTES_MAX: usize = 32;
/// A check that comes over TCP isn't answered for so long after the first one: UDP, which is later where something is lost, has the
/// first chance.
const UDP_PATIENCE: Duration = Duration::from_millis(500);
/// UDP gets to us, as long as something came in this time.
const UDP_LIVES: Duration = Duration::from_secs(2);
/// Datagrams that are read before anything else has its turn.
const READS_AT_ONCE: usize = 64;

/// A cheap handle on the owner; all peers are closed once the last one is dropped.
#[derive(Debug, Clone)]
pub struct Gateway {
    commands: mpsc::Sender<Command>,
    ready: watch::Receiver<usize>,
    port: u16,
}

#[derive(Debug)]
enum Command {
    Offer { wish: Wish, events: mpsc::Sender<PeerEvent>, reply: oneshot::Sender<Result<(PeerId, String)>> },
    Answer { id: PeerId, sdp: String, reply: oneshot::Sender<Result<()>> },
    Message { id: PeerId, bytes: Vec<u8> },
    Frame(Frame),
    Sound(Sound),
    Hear { id: PeerId, on: bool },
    Desire(u64),
    Close(PeerId),
}

impl Gateway {
    /// Binds the sockets. Nothing happens until the future is polled; it ends with the last handle.
    ///
    /// # Errors
    /// [`Error::Socket`]: no port of the range is free. [`Error::Internal`].
    pub fn start(config: Config) -> Result<(Self, impl Future<Output = ()> + Send + 'static)> {
        let recipe = Recipe::new()?;
        let (udp, tcp, port) = bind(&config).map_err(Error::Socket)?;
        let (commands, waiting) = mpsc::channel(COMMANDS_MAX);
        let (tell_ready, ready) = watch::channel(0);
        let owner = Owner {
            config,
            recipe,
            port,
            udp,
            tcp,
            commands: waiting,
            ready: tell_ready,
            peers: BTreeMap::new(),
            by_remote: HashMap::new(),
            next_id: 1,
            desired_bps: 0,
        };
        Ok((Self { commands, ready, port }, owner.run()))
    }

    /// The port of UDP and TCP.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A new peer, and the offer for it (SDP).
    ///
    /// # Errors
    /// [`Error::TooMany`], [`Error::Internal`], [`Error::Ended`].
    pub async fn offer(&self, wish: Wish, events: mpsc::Sender<PeerEvent>) -> Result<(PeerId, String)> {
        self.ask(|reply| Command::Offer { wish, events, reply }).await
    }

    /// What the peer says to its offer (SDP).
    ///
    /// # Errors
    /// [`Error::Answer`]: what is wrong with it; [`Error::Gone`], [`Error::Ended`].
    pub async fn answer(&self, id: PeerId, sdp: String) -> Result<()> {
        self.ask(|reply| Command::Answer { id, sdp, reply }).await
    }

    /// Sends a message over the peer's channel, if it has one and there is room.
    pub async fn message(&self, id: PeerId, bytes: Vec<u8>) {
        let _ = self.commands.send(Command::Message { id, bytes }).await; // it ends: so does the peer
    }

    /// Sends a frame to each peer that has room for it. Waits while the owner is busy.
    pub async fn frame(&self, frame: Frame) {
        let _ = self.commands.send(Command::Frame(frame)).await; // as above
    }

    /// Sends sound to each peer that hears.
    pub async fn sound(&self, sound: Sound) {
        let _ = self.commands.send(Command::Sound(sound)).await; // as above
    }

    /// Whether a peer gets sound; none does before this. One that wasn't offered any never does.
    pub async fn hear(&self, id: PeerId, on: bool) {
        let _ = self.commands.send(Command::Hear { id, on }).await; // as above
    }

    /// How much would be sent if networks carried it, in bits per second: so much is looked for.
    pub async fn desire(&self, bps: u64) {
        let _ = self.commands.send(Command::Desire(bps)).await; // as above
    }

    /// Closes a peer.
    pub async fn close(&self, id: PeerId) {
        let _ = self.commands.send(Command::Close(id)).await; // as above
    }

    /// How many peers would take a frame now.
    #[must_use]
    pub fn ready(&self) -> watch::Receiver<usize> {
        self.ready.clone()
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<Result<T>>) -> Command) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| Error::Ended)?;
        answer.await.map_err(|_| Error::Ended)?
    }
}

/// UDP for each family, and TCP of the same port.
fn bind(config: &Config) -> io::Result<(Vec<Udp>, Vec<Tcp>, u16)> {
    let mut last = io::Error::new(io::ErrorKind::InvalidInput, "the range of ports is empty");
    for port in config.ports.clone() {
        match bind_at(config.bind, port) {
            Ok((udp, tcp)) => {
                let port = udp.first().map_or(port, Udp::port);
                return Ok((udp, tcp, port));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn bind_at(address: IpAddr, port: u16) -> io::Result<(Vec<Udp>, Vec<Tcp>)> {
    let first = Udp::bind(SocketAddr::new(address, port))?;
    let port = first.port();
    let (mut udp, mut tcp) = (vec![first], vec![Tcp::bind(SocketAddr::new(address, port))?]);
    if address.is_ipv6() && address.is_unspecified() {
        let v4 = SocketAddr::new(IpAddr::from([0, 0, 0, 0]), port);
        udp.push(Udp::bind(v4)?);
        tcp.push(Tcp::bind(v4)?);
    }
    Ok((udp, tcp))
}

struct Entry {
    peer: Peer,
    events: mpsc::Sender<PeerEvent>,
    /// Where it sends from, the newest last.
    remotes: VecDeque<(Protocol, SocketAddr)>,
    /// It was told that a keyframe is wanted.
    has_asked: bool,
    /// When something of it last came over UDP.
    heard_udp: Option<Instant>,
    /// When the first check came over TCP.
    tried_tcp: Option<Instant>,
    /// What is sent to it goes over this connection.
    tcp_to: Option<SocketAddr>,
}

impl Entry {
    fn new(peer: Peer, events: mpsc::Sender<PeerEvent>) -> Self {
        let (heard_udp, tried_tcp, tcp_to) = (None, None, None);
        Self { peer, events, remotes: VecDeque::new(), has_asked: false, heard_udp, tried_tcp, tcp_to }
    }

    /// Takes note of a check; true when it isn't to be answered, because UDP is better.
    fn is_too_early(&mut self, proto: Protocol, now: Instant) -> bool {
        if proto == Protocol::Udp {
            self.heard_udp = Some(now);
            return false;
        }
        let tried = *self.tried_tcp.get_or_insert(now);
        let has_udp = self.heard_udp.is_some_and(|heard| now < heard + UDP_LIVES);
        match (self.peer.is_connected(), has_udp) {
            (true, _) => has_udp,
            (false, true) => now < tried + UDP_LIVES, // answers may not get to it
            (false, false) => now < tried + UDP_PATIENCE,
        }
    }
}

struct Owner {
    config: Config,
    recipe: Recipe,
    port: u16,
    udp: Vec<Udp>,
    tcp: Vec<Tcp>,
    commands: mpsc::Receiver<Command>,
    ready: watch::Sender<usize>,
    peers: BTreeMap<PeerId, Entry>,
    by_remote: HashMap<(Protocol, SocketAddr), PeerId>,
    next_id: u64,
    desired_bps: u64,
}

/// What woke the owner.
enum Woken {
    Command(Command),
    Udp(usize),
    Tcp(Arrived),
    Time,
    Ended,
}

impl Owner {
    async fn run(mut self) {
        loop {
            match self.wait().await {
                Woken::Command(command) => self.command(command),
                Woken::Udp(index) => self.datagrams(index),
                Woken::Tcp(Arrived { from, to, packet: Some(packet) }) => {
                    self.packet(Protocol::Tcp, from, to, &packet);
                }
                Woken::Tcp(Arrived { from, packet: None, .. }) => _ = self.by_remote.remove(&(Protocol::Tcp, from)),
                Woken::Time => self.time_passed(),
                Woken::Ended => break,
            }
            self.bury();
            let ready = self.peers.values().filter(|entry| entry.peer.is_ready()).count();
            self.ready.send_if_modified(|known| std::mem::replace(known, ready) != ready);
        }
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        ids.into_iter().for_each(|id| self.close(id));
        self.bury();
    }

    async fn wait(&mut self) -> Woken {
        let next = self.peers.values().map(|entry| entry.peer.next).min();
        let timeout = async {
            match next {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        let Self { commands, udp, tcp, .. } = self;
        tokio::select! {
            command = commands.recv() => command.map_or(Woken::Ended, Woken::Command),
            index = first_readable(udp) => Woken::Udp(index),
            arrived = first_arrival(tcp) => Woken::Tcp(arrived),
            () = timeout => Woken::Time,
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Offer { wish, events, reply } => {
                let offered = self.offer(wish, events);
                if let Err(Ok((id, _))) = reply.send(offered) {
                    self.close(id); // nobody waits for it any more
                }
            }
            Command::Answer { id, sdp, reply } => {
                let answered = self.with(id, |peer| peer.answer(&sdp)).unwrap_or(Err(Error::Gone));
                let _ = reply.send(answered); // as above
            }
            Command::Message { id, bytes } => {
                let sent = self.with(id, |peer| peer.message(&bytes));
                if sent == Some(false) {
                    tracing::debug!(?id, bytes = bytes.len(), "a message isn't sent: no channel, or it is full");
                }
            }
            Command::Frame(frame) => self.each(|peer| peer.frame(&frame)),
            Command::Sound(sound) => self.each(|peer| peer.sound(&sound)),
            Command::Hear { id, on } => _ = self.with(id, |peer| peer.hears = on),
            Command::Desire(bps) => {
                self.desired_bps = bps;
                self.each(|peer| peer.desire(bps));
            }
            Command::Close(id) => self.close(id),
        }
    }

    fn offer(&mut self, wish: Wish, events: mpsc::Sender<PeerEvent>) -> Result<(PeerId, String)> {
        if self.peers.len() >= self.config.peers_max {
            return Err(Error::TooMany(self.peers.len()));
        }
        let own = if self.config.bind.is_unspecified() { crate::addresses::own() } else { vec![self.config.bind] };
        let places = places(self.port, &self.config.addresses, wish.asked_at, &own);
        let (peer, offer) = Peer::new(&self.recipe, &places, &self.config, wish.sound)?;
        let id = PeerId(self.next_id);
        self.next_id += 1;
        self.peers.insert(id, Entry::new(peer, events));
        let bps = self.desired_bps;
        self.with(id, |peer| peer.desire(bps));
        Ok((id, offer))
    }

    fn datagrams(&mut self, index: usize) {
        let mut arrived = Vec::new();
        for _ in 0..READS_AT_ONCE {
            let Some(udp) = self.udp.get_mut(index) else { return };
            if !udp.read(|from, to, bytes| arrived.push((from, to, bytes.to_vec()))) {
                break;
            }
        }
        for (from, to, bytes) in arrived {
            self.packet(Protocol::Udp, from, to, &bytes);
        }
    }

    /// Gives a packet to whom it is for; to nobody if no peer knows it.
    fn packet(&mut self, proto: Protocol, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let known = self.by_remote.get(&(proto, from)).copied();
        let Some(id) = known.filter(|_| !is_stun(bytes)).or_else(|| self.knows(proto, from, to, bytes)) else { return };
        if known != Some(id) {
            self.remember(id, proto, from);
        }
        let now = Instant::now();
        if is_stun(bytes) && self.peers.get_mut(&id).is_some_and(|entry| entry.is_too_early(proto, now)) {
            return;
        }
        self.with(id, |peer| peer.receive(now, proto, from, to, bytes));
    }

    /// The peer with whose password this was made.
    fn knows(&self, proto: Protocol, from: SocketAddr, to: SocketAddr, bytes: &[u8]) -> Option<PeerId> {
        let now = Instant::now();
        self.peers.iter().find(|(_, entry)| entry.peer.accepts(now, proto, from, to, bytes)).map(|(id, _)| *id)
    }

    fn remember(&mut self, id: PeerId, proto: Protocol, from: SocketAddr) {
        let Some(entry) = self.peers.get_mut(&id) else { return };
        self.by_remote.insert((proto, from), id);
        entry.remotes.push_back((proto, from));
        if entry.remotes.len() > REMOTES_MAX
            && let Some(oldest) = entry.remotes.pop_front()
        {
            self.by_remote.remove(&oldest);
        }
        if proto == Protocol::Tcp {
            self.tcp.iter_mut().for_each(|tcp| tcp.is_known(from));
        }
    }

    fn time_passed(&mut self) {
        let now = Instant::now();
        let due: Vec<PeerId> = self.peers.iter().filter(|(_, entry)| entry.peer.next <= now).map(|(id, _)| *id).collect();
        for id in due {
            self.with(id, |peer| peer.time_passed(now));
        }
    }

    fn each(&mut self, mut change: impl FnMut(&mut Peer)) {
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in ids {
            self.with(id, &mut change);
        }
    }

    /// Changes a peer, and does what comes of it.
    fn with<T>(&mut self, id: PeerId, change: impl FnOnce(&mut Peer) -> T) -> Option<T> {
        let Self { peers, udp, tcp, config, .. } = self;
        let Entry { peer, events, has_asked, tcp_to, .. } = peers.get_mut(&id)?;
        let changed = change(peer);
        let mut overrun = false;
        let send = |transmit: &Transmit| {
            *tcp_to = (transmit.proto != Protocol::Udp).then_some(transmit.destination);
            send(udp, tcp, transmit);
        };
        let tell = |event: PeerEvent| {
            overrun |= matches!(&event, PeerEvent::Message(bytes) if bytes.len() > config.message_max_bytes);
            overrun |= events.try_send(event).is_err();
        };
        peer.drain(send, tell);
        peer.waits(tcp_to.map_or(0, |to| tcp.iter().map(|tcp| tcp.waiting(to)).sum()));
        let wants_keyframe = peer.wants_keyframe();
        if wants_keyframe && !*has_asked {
            overrun |= events.try_send(PeerEvent::KeyframeWanted).is_err();
        }
        *has_asked = wants_keyframe;
        if overrun {
            peer.close(CloseReason::Overrun);
        }
        Some(changed)
    }

    fn close(&mut self, id: PeerId) {
        self.with(id, |peer| peer.close(CloseReason::Closed));
    }

    /// Forgets who is gone.
    fn bury(&mut self) {
        let gone = self.peers.iter().filter(|(_, entry)| entry.peer.closed().is_some()).map(|(id, _)| *id);
        for id in gone.collect::<Vec<_>>() {
            self.with(id, |_| ()); // what is left to be sent: its end
            let Some(entry) = self.peers.remove(&id) else { continue };
            for remote in &entry.remotes {
                self.by_remote.remove(remote);
                if remote.0 == Protocol::Tcp {
                    self.tcp.iter_mut().for_each(|tcp| tcp.close(remote.1));
                }
            }
            let reason = entry.peer.closed().cloned().unwrap_or(CloseReason::Left);
            let _ = entry.events.try_send(PeerEvent::Closed(reason)); // full: its end tells as much
        }
    }
}

fn send(udp: &[Udp], tcp: &[Tcp], transmit: &Transmit) {
    let Transmit { proto, source, destination, contents } = transmit;
    if *proto == Protocol::Udp {
        // the first is of the family that was asked for
        let last = udp.len().saturating_sub(1);
        let socket = udp.get(if destination.is_ipv4() { last } else { 0 });
        socket.into_iter().for_each(|udp| udp.send(source.ip(), *destination, contents));
    } else {
        tcp.iter().for_each(|tcp| tcp.send(*destination, contents));
    }
}

/// RFC 7983, 7.
fn is_stun(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| *first < 4)
}

async fn first_readable(udp: &[Udp]) -> usize {
    match udp {
        [one] => {
            let _ = one.readable().await; // the read says what is wrong
            0
        }
        [one, other, ..] => tokio::select! { _ = one.readable() => 0, _ = other.readable() => 1 },
        [] => std::future::pending().await,
    }
}

async fn first_arrival(tcp: &mut [Tcp]) -> Arrived {
    match tcp {
        [one] => one.next().await,
        [one, other, ..] => tokio::select! { arrived = one.next() => arrived, arrived = other.next() => arrived },
        [] => std::future::pending().await,
    }
}
