//! Peers that connect for real, over loopback.

mod client;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use client::{Client, PATIENCE};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use webrtc_peers::{CloseReason, Config, Error, Frame, Gateway, PeerEvent, PeerId, Sound, Transport, Wish};

const EVENTS_MAX: usize = 256;

fn config() -> Config {
    Config {
        bind: IpAddr::from([127, 0, 0, 1]),
        ports: 0..=0,
        addresses: Vec::new(),
        peers_max: 8,
        message_max_bytes: 1_000,
        connect_timeout: PATIENCE,
        silent_timeout: PATIENCE,
    }
}

/// A gateway that runs until this is dropped.
struct Started {
    gateway: Gateway,
    tasks: JoinSet<()>,
}

fn start(config: Config) -> Started {
    let (gateway, owner) = Gateway::start(config).expect("a gateway");
    let mut tasks = JoinSet::new();
    tasks.spawn(owner);
    Started { gateway, tasks }
}

/// A peer on both of its ends.
struct Pair {
    id: PeerId,
    events: mpsc::Receiver<PeerEvent>,
    client: Client,
}

impl Pair {
    async fn connect(gateway: &Gateway, is_tcp: bool) -> Self {
        let (tell, events) = mpsc::channel(EVENTS_MAX);
        let wish = Wish { asked_at: None, sound: true };
        let (id, offer) = gateway.offer(wish, tell).await.expect("an offer");
        let (mut client, answer) = Client::answer(&offer, is_tcp).await;
        gateway.answer(id, answer).await.expect("taken");
        client.until("the channel", |client| client.is_connected && client.channel.is_some()).await;
        Self { id, events, client }
    }

    /// The first event that fits, while its client goes on.
    async fn event(&mut self, what: &str, fits: impl Fn(&PeerEvent) -> bool) -> PeerEvent {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "{what} never came");
            tokio::select! {
                event = self.events.recv() => {
                    let event = event.expect("the gateway is there");
                    if fits(&event) {
                        return event;
                    }
                }
                () = self.client.step() => {}
            }
        }
    }
}

/// An access unit of so many bytes: parameter sets and a slice.
fn frame(number: u8, bytes: usize, is_keyframe: bool, began: Instant) -> Frame {
    let mut data = Vec::new();
    let mut unit = |kind: u8, length: usize| {
        data.extend([0, 0, 0, 1, kind]);
        data.extend(std::iter::repeat_n(number | 0x80, length));
    };
    if is_keyframe {
        unit(0x67, 10);
        unit(0x68, 4);
        unit(0x65, bytes);
    } else {
        unit(0x41, bytes);
    }
    Frame { data: data.into(), is_keyframe, at: began.elapsed(), taken: Instant::now() }
}

async fn frames_and_messages(is_tcp: bool) {
    let Started { gateway, tasks: _tasks } = start(config());
    let mut pair = Pair::connect(&gateway, is_tcp).await;
    pair.event("the connection", |event| *event == PeerEvent::Opened).await;
    let began = Instant::now();
    for number in 0..10 {
        gateway.frame(frame(number, 5_000, number == 0, began)).await;
        pair.client.until("a frame", |client| client.frames.len() > usize::from(number)).await;
    }
    let received = std::mem::take(&mut pair.client.frames);
    for (number, data) in (0_u8..).zip(&received) {
        assert_eq!(data[..], frame(number, 5_000, number == 0, began).data[..], "frame {number}");
    }
    gateway.message(pair.id, b"to the client".to_vec()).await;
    pair.client.until("a message", |client| !client.messages.is_empty()).await;
    assert_eq!(pair.client.messages[0], b"to the client");
    pair.client.send(&[1, 0, 4, 0, 3, 0, 4]);
    pair.event("a message", |event| *event == PeerEvent::Message(vec![1, 0, 4, 0, 3, 0, 4])).await;
    let stats = pair.event("statistics", |event| matches!(event, PeerEvent::Stats(stats) if stats.transport.is_some())).await;
    let PeerEvent::Stats(stats) = stats else { unreachable!("it fits") };
    assert_eq!(stats.transport, Some(if is_tcp { Transport::Tcp } else { Transport::Udp }));
    assert!(stats.bytes_sent > 50_000, "{stats:?}");
}

#[tokio::test]
async fn frames_and_messages_over_udp() {
    frames_and_messages(false).await;
}

#[tokio::test]
async fn frames_and_messages_over_tcp() {
    frames_and_messages(true).await;
}

#[tokio::test]
async fn who_hears_gets_sound() {
    let Started { gateway, tasks: _tasks } = start(config());
    let mut pair = Pair::connect(&gateway, false).await;
    pair.event("the connection", |event| *event == PeerEvent::Connected).await;
    let sound =
        |number: u8| Sound { data: vec![0xfc, number, 1, 2].into(), at_sample: u64::from(number) * 960, heard: Instant::now() };
    gateway.sound(sound(0)).await; // it doesn't hear yet
    gateway.hear(pair.id, true).await;
    for number in 1..10 {
        gateway.sound(sound(number)).await;
        pair.client.until("a packet", |client| client.sounds.len() >= usize::from(number)).await;
    }
    assert!(pair.client.sounds.iter().zip(1..).all(|(packet, number)| packet[..] == *sound(number).data));
    gateway.hear(pair.id, false).await;
    gateway.sound(sound(10)).await;
    gateway.message(pair.id, b"after it".to_vec()).await;
    pair.client.until("a message", |client| !client.messages.is_empty()).await;
    assert_eq!(pair.client.sounds.len(), 9);
    let (tell, _events) = mpsc::channel(EVENTS_MAX);
    let (_, offer) = gateway.offer(Wish::default(), tell).await.expect("an offer");
    assert!(!offer.contains("m=audio"));
}

#[tokio::test]
async fn who_comes_later_or_lost_something_asks_for_a_keyframe() {
    let Started { gateway, tasks: _tasks } = start(config());
    let mut pair = Pair::connect(&gateway, false).await;
    pair.event("the question", |event| *event == PeerEvent::KeyframeWanted).await;
    let began = Instant::now();
    gateway.frame(frame(1, 100, false, began)).await; // shows nothing to it: isn't sent
    gateway.frame(frame(2, 100, true, began)).await;
    pair.client.until("a frame", |client| !client.frames.is_empty()).await;
    assert_eq!(pair.client.frames[0][..], frame(2, 100, true, began).data[..]);
}

#[tokio::test]
async fn a_peer_that_leaves_is_gone() {
    let Started { gateway, tasks: _tasks } = start(config());
    let mut pair = Pair::connect(&gateway, false).await;
    pair.client.leave();
    let event = pair.event("its end", |event| matches!(event, PeerEvent::Closed(_))).await;
    assert_eq!(event, PeerEvent::Closed(CloseReason::Left));
    assert!(matches!(gateway.answer(pair.id, String::new()).await, Err(Error::Gone)));
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_gone() {
    let Started { gateway, tasks: _tasks } = start(Config { silent_timeout: Duration::from_secs(1), ..config() });
    let Pair { mut events, client, .. } = Pair::connect(&gateway, false).await;
    drop(client); // without a word
    let end = async {
        loop {
            if let PeerEvent::Closed(reason) = events.recv().await.expect("an event") {
                return reason;
            }
        }
    };
    let reason = tokio::time::timeout(3 * PATIENCE, end).await.expect("its end");
    assert_eq!(reason, CloseReason::Silent);
}

#[tokio::test]
async fn a_peer_that_never_connects_is_gone_and_the_number_is_bounded() {
    let short = Config { connect_timeout: Duration::from_millis(300), peers_max: 2, ..config() };
    let Started { gateway, tasks: _tasks } = start(short);
    let (tell, mut events) = mpsc::channel(EVENTS_MAX);
    gateway.offer(Wish::default(), tell.clone()).await.expect("the first");
    gateway.offer(Wish::default(), tell.clone()).await.expect("the second");
    assert!(matches!(gateway.offer(Wish::default(), tell.clone()).await, Err(Error::TooMany(2))));
    for _ in 0..2 {
        let event = tokio::time::timeout(PATIENCE, events.recv()).await.expect("in time").expect("an event");
        assert_eq!(event, PeerEvent::Closed(CloseReason::NeverConnected));
    }
    gateway.offer(Wish::default(), tell).await.expect("there is room again");
}

#[tokio::test]
async fn too_long_a_message_ends_its_peer() {
    let Started { gateway, tasks: _tasks } = start(config());
    let mut pair = Pair::connect(&gateway, false).await;
    pair.client.send(&[7; 1_001]);
    let event = pair.event("its end", |event| matches!(event, PeerEvent::Closed(_))).await;
    assert_eq!(event, PeerEvent::Closed(CloseReason::Overrun));
}

#[tokio::test]
async fn rubbish_does_no_harm() {
    let Started { gateway, tasks: _tasks } = start(config());
    let mut pair = Pair::connect(&gateway, false).await;
    for sdp in ["", "v=0", "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n", "\0\0", "a=candidate:"] {
        let (tell, _events) = mpsc::channel(EVENTS_MAX);
        let (id, _) = gateway.offer(Wish::default(), tell).await.expect("an offer");
        assert!(matches!(gateway.answer(id, sdp.to_owned()).await, Err(Error::Answer(_))), "{sdp:?}");
        gateway.close(id).await;
    }
    let at = SocketAddr::from(([127, 0, 0, 1], gateway.port()));
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
    for first in 0..=255_u8 {
        let _ = socket.send_to(&[first; 60], at).await;
        let _ = socket.send_to(&[first], at).await;
    }
    let mut streams = Vec::new();
    for _ in 0..40 {
        let stream = TcpStream::connect(at).await.expect("connected");
        let _ = stream.try_write(&[0xff; 600]);
        streams.push(stream);
    }
    let began = Instant::now();
    gateway.frame(frame(3, 100, true, began)).await;
    pair.client.until("a frame", |client| !client.frames.is_empty()).await;
}

#[tokio::test]
async fn two_hundred_come_and_go_and_nothing_is_left() {
    let Started { gateway, tasks: _tasks } = start(config());
    let descriptors = || std::fs::read_dir("/proc/self/fd").expect("a list").count();
    let mut before = None;
    for round in 0..200 {
        let pair = Pair::connect(&gateway, round % 4 == 3).await;
        gateway.close(pair.id).await;
        let Pair { mut events, client, .. } = pair;
        while !matches!(events.recv().await, Some(PeerEvent::Closed(_))) {}
        drop(client);
        if round == 7 {
            before = Some(descriptors());
        }
    }
    tokio::time::sleep(Duration::from_millis(100)).await; // connections are closed by their tasks
    let now = descriptors();
    assert!(before.is_some_and(|before| now <= before + 2), "{before:?} descriptors became {now}");
    let ready = *gateway.ready().borrow();
    assert_eq!(ready, 0);
}

#[tokio::test]
async fn all_are_closed_with_the_last_handle() {
    let Started { gateway, mut tasks } = start(config());
    let mut pair = Pair::connect(&gateway, false).await;
    drop(gateway);
    let event = pair.event("its end", |event| matches!(event, PeerEvent::Closed(_))).await;
    assert_eq!(event, PeerEvent::Closed(CloseReason::Closed));
    tokio::time::timeout(PATIENCE, tasks.join_next()).await.expect("it ends");
}
