//! The sound of the sandbox, for viewers that hear.
//!
//! ```text
//! absent ◀──────▶ there ──somebody hears──▶ listening ──nobody hears──▶ there
//!    ▲                                          │ the server ends
//!    └──────────────────────────────────────────┘
//! ```
//! A sound server that comes later is found.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sound_capture::{Connection, Error, Packet, SAMPLE_RATE, places};
use tokio::sync::mpsc;
use webrtc_peers::Sound;

use super::Stream;
use crate::config::Env;
use crate::desktop::Parts;

/// How often a sound server is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Packets that wait to be handed out; one more is left out.
const PACKETS_MAX: usize = 16;
const ABSENT: &str = "no PulseAudio or PipeWire server answers: start one with a sink, and what programs play there is heard";

/// Whether there is sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hearing {
    /// A sound server answers.
    There,
    /// Why not.
    Absent(String),
}

impl Hearing {
    /// # Errors
    /// Why there is no sound.
    pub(super) fn as_result(&self) -> Result<(), String> {
        match self {
            Self::There => Ok(()),
            Self::Absent(why) => Err(why.clone()),
        }
    }
}

impl Default for Hearing {
    fn default() -> Self {
        Self::Absent("not known yet".to_owned())
    }
}

pub(super) struct Ear {
    stream: Arc<Stream>,
    env: Env,
    homes: Vec<PathBuf>,
}

impl Ear {
    pub(super) fn new(stream: Arc<Stream>, parts: &Parts) -> Self {
        let own = parts.env.get("HOME").map(PathBuf::from);
        let homes = stream.session.env.get("HOME").map(PathBuf::from).into_iter().chain(own).collect();
        Self { stream, env: parts.env.clone(), homes }
    }

    /// Until the stream ends.
    pub(super) async fn run(self) {
        let stop = self.stream.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.serve() => {}
        }
    }

    async fn serve(&self) {
        loop {
            let asked = self.stream.ear_asked.notified();
            let found = self.find().await;
            let hearing = match &found {
                Ok(_) => Hearing::There,
                Err(why) => Hearing::Absent(why.clone()),
            };
            self.stream.hearing.send_if_modified(|known| {
                *known != hearing && {
                    *known = hearing;
                    true
                }
            });
            if let Some(connection) = found.ok().filter(|_| self.stream.viewers.anyone_hears()) {
                match self.listen(connection).await {
                    Ok(()) => continue, // nobody hears any more
                    Err(error) => tracing::info!(%error, "the sound server"),
                }
            }
            let _ = tokio::time::timeout(LOOK_EVERY, asked).await; // either is a reason to look again
        }
    }

    /// # Errors
    /// Why there is none.
    async fn find(&self) -> Result<Connection, String> {
        let (env, homes) = (self.env.clone(), self.homes.clone());
        let found = tokio::task::spawn_blocking(move || {
            let homes: Vec<_> = homes.iter().map(PathBuf::as_path).collect();
            places(|name| env.get(name).map(str::to_owned), rustix::process::getuid().as_raw(), &homes)
        });
        let mut why = ABSENT.to_owned();
        for place in found.await.unwrap_or_default() {
            match Connection::open(&place).await {
                Ok(connection) => return Ok(connection),
                Err(error) => why = format!("{}: {error}", place.socket.display()),
            }
        }
        Err(why)
    }

    /// Hands out what is heard, until nobody hears.
    async fn listen(&self, connection: Connection) -> Result<(), Error> {
        let (tell, mut packets) = mpsc::channel(PACKETS_MAX);
        let began = u64::try_from(self.stream.began.elapsed().as_millis()).unwrap_or(0) * u64::from(SAMPLE_RATE / 1000);
        let listening = connection.listen(tell);
        tokio::pin!(listening);
        loop {
            tokio::select! {
                ended = &mut listening => return ended,
                Some(packet) = packets.recv() => self.hand_out(packet, began).await,
                () = self.stream.ear_asked.notified() => if !self.stream.viewers.anyone_hears() {
                    return Ok(());
                },
            }
        }
    }

    async fn hand_out(&self, Packet { data, at_sample, heard }: Packet, began: u64) {
        let sound = Sound { data, at_sample: began + at_sample, heard };
        let _ = self.stream.sounds.send(Arc::new(sound.clone())); // nobody hears over a WebSocket
        if let Some(gateway) = &self.stream.gateway {
            gateway.sound(sound).await;
        }
    }
}
