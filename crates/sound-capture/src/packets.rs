//! Samples as Opus.

use std::sync::Arc;
use std::time::Instant;

use opus::{Application, Bitrate, Channels, Encoder};

use crate::{CHANNELS, PACKET_SAMPLES, Packet, Result, SAMPLE_RATE};

/// Bits a second: music is as good as the original to most ears.
const BITRATE_BPS: i32 = 96_000;
/// What a packet can have at most (RFC 6716, 3.2.1: 1275 bytes a frame).
const PACKET_MAX_BYTES: usize = 1_275;
/// So many packets of silence are sent after sound, so that decoders fade; then none.
const FADE_PACKETS: u32 = 10;
/// A sample: signed, 16 bits, little-endian.
const SAMPLE_BYTES: usize = 2;
const PACKET_BYTES: usize = PACKET_SAMPLES as usize * CHANNELS as usize * SAMPLE_BYTES;

/// Gathers samples and encodes each 20 ms of them.
pub(crate) struct Packets {
    encoder: Encoder,
    waiting: Vec<u8>,
    at_sample: u64,
    silent: u32,
}

impl Packets {
    pub(crate) fn new() -> Result<Self> {
        let mut encoder = Encoder::new(SAMPLE_RATE, Channels::Stereo, Application::Audio)?;
        encoder.set_bitrate(Bitrate::Bits(BITRATE_BPS))?;
        encoder.set_inband_fec(true)?;
        encoder.set_packet_loss_perc(5)?; // else the above does nothing
        Ok(Self { encoder, waiting: Vec::new(), at_sample: 0, silent: FADE_PACKETS })
    }

    /// Gives each packet that these samples complete.
    pub(crate) fn take(&mut self, samples: &[u8], mut each: impl FnMut(Packet)) -> Result<()> {
        self.waiting.extend(samples);
        let mut done = 0;
        while let Some(bytes) = self.waiting.get(done..done + PACKET_BYTES) {
            let samples: Vec<i16> = bytes.as_chunks::<SAMPLE_BYTES>().0.iter().map(|bytes| i16::from_le_bytes(*bytes)).collect();
            let at_sample = self.at_sample;
            self.at_sample += u64::from(PACKET_SAMPLES);
            done += PACKET_BYTES;
            let is_silent = samples.iter().all(|sample| *sample == 0);
            self.silent = if is_silent { self.silent.saturating_add(1) } else { 0 };
            if self.silent <= FADE_PACKETS {
                let data: Arc<[u8]> = self.encoder.encode_vec(&samples, PACKET_MAX_BYTES)?.into();
                each(Packet { data, at_sample, heard: Instant::now() });
            }
        }
        self.waiting.drain(..done);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_of_20_ms_and_silence_is_none() {
        let mut packets = Packets::new().expect("an encoder");
        let mut made = Vec::new();
        packets.take(&vec![0; PACKET_BYTES * 5], |packet| made.push(packet)).expect("encoded");
        assert!(made.is_empty(), "nothing was ever heard");
        let tone: Vec<u8> = (0..960_i16)
            .flat_map(|at| {
                let v = (at % 100) * 300;
                [v, v]
            })
            .flat_map(i16::to_le_bytes)
            .collect();
        packets.take(&tone[..100], |packet| made.push(packet)).expect("encoded");
        assert!(made.is_empty());
        packets.take(&tone[100..], |packet| made.push(packet)).expect("encoded");
        assert_eq!((made.len(), made[0].at_sample), (1, 5 * 960));
        let mut decoder = opus::Decoder::new(SAMPLE_RATE, Channels::Stereo).expect("a decoder");
        let mut out = vec![0_i16; 960 * 2];
        assert_eq!(decoder.decode(&made[0].data, &mut out, false).expect("decoded"), 960);
        packets.take(&vec![0; PACKET_BYTES * 50], |packet| made.push(packet)).expect("encoded");
        assert_eq!(made.len(), 1 + FADE_PACKETS as usize);
    }
}
