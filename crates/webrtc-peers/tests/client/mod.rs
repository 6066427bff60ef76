//! A viewer as a browser is one, without a browser: answers, shows frames, sends messages.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::change::SdpOffer;
use str0m::channel::ChannelId;
use str0m::format::Codec;
use str0m::net::{Protocol, Receive, TcpType};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

pub const PATIENCE: Duration = Duration::from_secs(20);

enum Wire {
    Udp(UdpSocket),
    /// With what was read and isn't a whole packet yet.
    Tcp(TcpStream, Vec<u8>),
}

pub struct Client {
    rtc: Rtc,
    wire: Wire,
    local: SocketAddr,
    remote: SocketAddr,
    next: Instant,
    pub channel: Option<ChannelId>,
    pub frames: VecDeque<Vec<u8>>,
    /// Packets of Opus.
    pub sounds: VecDeque<Vec<u8>>,
    pub messages: VecDeque<Vec<u8>>,
    pub is_connected: bool,
}

impl Client {
    /// Takes an offer; gives itself and the answer.
    pub async fn answer(offer: &str, is_tcp: bool) -> (Self, String) {
        let offer = SdpOffer::from_sdp_string(offer).expect("an offer");
        let text = offer.to_sdp_string();
        let remote = candidate(&text, if is_tcp { "tcp" } else { "udp" });
        let crypto = Arc::new(str0m::crypto::from_feature_flags());
        let mut config = RtcConfig::new().set_crypto_provider(crypto).clear_codecs();
        config.codec_config().enable_opus(true, false);
        config.codec_config().add_h264(102.into(), Some(103.into()), true, 0x0042_e01f);
        let mut rtc = config.build(Instant::now());
        let (wire, local, own) = if is_tcp {
            let stream = TcpStream::connect(remote).await.expect("connected");
            let local = stream.local_addr().expect("an address");
            let own = Candidate::builder().tcp().host(local).tcptype(TcpType::Active).build().expect("a candidate");
            (Wire::Tcp(stream, Vec::new()), local, own)
        } else {
            let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
            let local = socket.local_addr().expect("an address");
            (Wire::Udp(socket), local, Candidate::host(local, "udp").expect("a candidate"))
        };
        rtc.add_local_candidate(own);
        let answer = rtc.sdp_api().accept_offer(offer).expect("an answer");
        let client = Self {
            rtc,
            wire,
            local,
            remote,
            next: Instant::now(),
            channel: None,
            frames: VecDeque::new(),
            sounds: VecDeque::new(),
            messages: VecDeque::new(),
            is_connected: false,
        };
        (client, answer.to_sdp_string())
    }

    /// Goes on until this holds.
    pub async fn until(&mut self, what: &str, mut fits: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !fits(self) {
            assert!(Instant::now() < deadline, "{what} never came");
            self.step().await;
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        let mut channel = self.rtc.channel(self.channel.expect("a channel")).expect("it is open");
        assert!(channel.write(true, bytes).expect("written"));
    }

    pub fn leave(&mut self) {
        self.rtc.close().expect("closed");
    }

    /// One thing that comes, or time that passes.
    pub async fn step(&mut self) {
        self.drain().await;
        let wait = self.next.min(Instant::now() + Duration::from_millis(50));
        let received = tokio::time::timeout_at(wait.into(), receive(&mut self.wire)).await;
        let now = Instant::now();
        let (local, remote) = (self.local, self.remote);
        let input = match &received {
            Ok(bytes) => {
                let proto = if matches!(self.wire, Wire::Tcp(..)) { Protocol::Tcp } else { Protocol::Udp };
                let contents = bytes.as_slice().try_into().expect("a packet");
                Input::Receive(now, Receive { proto, source: remote, destination: local, contents })
            }
            Err(_) => Input::Timeout(now),
        };
        self.rtc.handle_input(input).expect("taken");
        self.drain().await;
    }

    async fn drain(&mut self) {
        loop {
            match self.rtc.poll_output().expect("an output") {
                Output::Timeout(at) => {
                    self.next = at;
                    return;
                }
                Output::Transmit(transmit) => match &mut self.wire {
                    Wire::Udp(socket) => _ = socket.send_to(&transmit.contents, transmit.destination).await,
                    Wire::Tcp(stream, _) => {
                        let length = u16::try_from(transmit.contents.len()).expect("short");
                        let _ = stream.write_all(&length.to_be_bytes()).await;
                        let _ = stream.write_all(&transmit.contents).await;
                    }
                },
                Output::Event(event) => match event {
                    Event::Connected => self.is_connected = true,
                    Event::ChannelOpen(id, label) => {
                        assert_eq!(label, "data");
                        self.channel = Some(id);
                    }
                    Event::ChannelData(data) => self.messages.push_back(data.data),
                    Event::MediaData(data) if data.params.spec().codec == Codec::Opus => {
                        self.sounds.push_back(data.data.to_vec());
                    }
                    Event::MediaData(data) => self.frames.push_back(data.data.to_vec()),
                    _ => {}
                },
            }
        }
    }
}

/// Cancel safe.
async fn receive(wire: &mut Wire) -> Vec<u8> {
    match wire {
        Wire::Udp(socket) => {
            let mut bytes = vec![0; 2_000];
            let (length, _) = socket.recv_from(&mut bytes).await.expect("a datagram");
            bytes.truncate(length);
            bytes
        }
        Wire::Tcp(stream, read) => loop {
            if let [high, low, rest @ ..] = read.as_slice() {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                if rest.len() >= length {
                    let packet = rest[..length].to_vec();
                    read.drain(..length + 2);
                    return packet;
                }
            }
            assert!(stream.read_buf(read).await.expect("bytes") > 0, "the connection was closed");
        },
    }
}

/// Where an offer says that the other is.
fn candidate(sdp: &str, proto: &str) -> SocketAddr {
    let line = sdp.lines().find(|line| line.starts_with("a=candidate:") && line.contains(&format!(" {proto} ")));
    let words: Vec<&str> = line.expect("a candidate").split(' ').collect();
    format!("{}:{}", words[4], words[5]).parse().expect("an address")
}
