//! With a real PulseAudio server.

#![allow(clippy::disallowed_methods)] // of the server's rooms

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use sound_capture::{Connection, Packet, Place};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

const LONG: Duration = Duration::from_secs(20);
const TONE_HZ: f64 = 440.0;

/// A server with a sink that plays to nobody, until it is dropped.
async fn server(dir: &Path) -> (Child, Place) {
    let socket = dir.join("native");
    let modules = [
        "module-null-sink sink_name=out".to_owned(),
        format!("module-native-protocol-unix auth-anonymous=1 socket={}", socket.display()),
    ];
    let mut command = Command::new("pulseaudio");
    command.args(["-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", "--log-level=error"]);
    command.args(modules.iter().flat_map(|module| ["-L", module.as_str()]));
    command.env("HOME", dir).env("XDG_RUNTIME_DIR", dir).kill_on_drop(true).stdin(Stdio::null());
    let child = command.spawn().expect("pulseaudio: apt-get install pulseaudio");
    let place = Place { socket, cookie: None };
    let up = async {
        while Connection::open(&place).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LONG, up).await.expect("the server answers");
    (child, place)
}

fn player(place: &Place, tone: &Path) -> Child {
    let mut command = Command::new("pacat");
    command.arg(format!("--server=unix:{}", place.socket.display())).args([
        "--raw",
        "--format=s16le",
        "--rate=48000",
        "--channels=2",
    ]);
    command.arg(tone).kill_on_drop(true).stdin(Stdio::null()).spawn().expect("pacat: apt-get install pulseaudio-utils")
}

fn write_tone(path: &Path, seconds: u32) {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).expect("a file"));
    for at in 0..48_000 * seconds {
        #[allow(clippy::cast_possible_truncation)]
        let sample = ((f64::from(at) * TONE_HZ / 48_000.0 * std::f64::consts::TAU).sin() * 12_000.0) as i16;
        file.write_all(&[sample.to_le_bytes(), sample.to_le_bytes()].concat()).expect("written");
    }
}

/// Of the left channel, by how often it goes up through nothing.
fn frequency(packets: &[Packet]) -> f64 {
    let mut decoder = opus::Decoder::new(48_000, opus::Channels::Stereo).expect("a decoder");
    let mut left = Vec::new();
    for packet in packets {
        let mut samples = vec![0_i16; 960 * 2];
        assert_eq!(decoder.decode(&packet.data, &mut samples, false).expect("Opus"), 960);
        left.extend(samples.chunks(2).map(|both| both[0]));
    }
    let ups = left.windows(2).filter(|two| two[0] < 0 && two[1] >= 0).count();
    ups as f64 / (left.len() as f64 / 48_000.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_played_is_heard_and_silence_is_not_sent() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut server, place) = server(dir.path()).await;
    let (tell, mut heard) = mpsc::channel(1_000);
    let listening = tokio::spawn(Connection::open(&place).await.expect("connected").listen(tell));
    sleep(Duration::from_millis(300)).await;
    assert!(heard.try_recv().is_err(), "nothing is played");

    let tone = dir.path().join("tone");
    write_tone(&tone, 10);
    let player = player(&place, &tone);
    let mut packets = Vec::new();
    while packets.len() < 75 {
        packets.push(timeout(LONG, heard.recv()).await.expect("sound").expect("a packet"));
    }
    let found = frequency(&packets[25..]);
    assert!((found - TONE_HZ).abs() < 10.0, "{found} Hz");
    assert!(packets.windows(2).all(|two| two[1].at_sample > two[0].at_sample));
    assert!(packets.iter().all(|packet| packet.data.len() < 1_000));

    drop(player);
    let quiet = async { while timeout(Duration::from_millis(500), heard.recv()).await.is_ok() {} };
    timeout(LONG, quiet).await.expect("silence");

    server.start_kill().expect("killed");
    let ended = timeout(LONG, listening).await.expect("it ends").expect("no panic");
    assert!(ended.is_err(), "the server is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_with_who_listens() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_server, place) = server(dir.path()).await;
    let (tell, heard) = mpsc::channel(1);
    let listening = tokio::spawn(Connection::open(&place).await.expect("connected").listen(tell));
    sleep(Duration::from_millis(200)).await;
    drop(heard);
    assert!(timeout(LONG, listening).await.expect("it ends").expect("no panic").is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_never_answers_is_given_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("native");
    let _mute = std::os::unix::net::UnixListener::bind(&socket).expect("bound");
    let place = Place { socket, cookie: None };
    assert!(timeout(LONG, Connection::open(&place)).await.expect("in time").is_err());
    let nowhere = Place { socket: dir.path().join("nothing"), cookie: None };
    assert!(Connection::open(&nowhere).await.is_err());
}
