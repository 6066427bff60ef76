//! Listens to what the default sink plays.

use pulseaudio::protocol::stream::{BufferAttr, StreamFlags};
use pulseaudio::protocol::{ChannelMap, Command, CreateRecordStreamReply, RecordStreamParams, SampleFormat, SampleSpec};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::connection::{Connection, Message, text};
use crate::packets::Packets;
use crate::{CHANNELS, PACKET_SAMPLES, Packet, Result, SAMPLE_RATE};

/// What the default sink plays, whichever that is.
const SOURCE: &str = "@DEFAULT_MONITOR@";
const PACKET_BYTES: u32 = PACKET_SAMPLES * CHANNELS as u32 * 2;
/// The server may hold as much back before it drops some: a second.
const SERVER_MAX_BYTES: u32 = PACKET_BYTES * 50;

impl Connection {
    /// Hands out what is heard until nobody takes it any more. A packet for which there is no room is left out: sound is now or
    /// never. Dropping the future ends it.
    ///
    /// # Errors
    /// The server refuses, or is gone.
    pub async fn listen(mut self, packets: mpsc::Sender<Packet>) -> Result<()> {
        let mut encoder = Packets::new()?;
        let params = RecordStreamParams {
            sample_spec: SampleSpec { format: SampleFormat::S16Le, channels: CHANNELS, sample_rate: SAMPLE_RATE },
            channel_map: ChannelMap::stereo(),
            source_name: Some(text(SOURCE)),
            buffer_attr: BufferAttr { max_length: SERVER_MAX_BYTES, fragment_size: PACKET_BYTES, ..BufferAttr::default() },
            flags: StreamFlags { adjust_latency: true, ..StreamFlags::default() },
            ..RecordStreamParams::default()
        };
        let stream: CreateRecordStreamReply = self.ask("to be listened to", Command::CreateRecordStream(params)).await?;
        loop {
            let message = tokio::select! {
                message = self.next() => message?,
                () = packets.closed() => return Ok(()), // the connection ends with it
            };
            let Message::Samples(channel, samples) = message else { continue };
            if channel == stream.channel {
                encoder.take(&samples, |packet| match packets.try_send(packet) {
                    Ok(()) | Err(TrySendError::Closed(_) | TrySendError::Full(_)) => {}
                })?;
            }
        }
    }
}
