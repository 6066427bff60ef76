//! The boxes of a fragmented MP4 with one video track (ISO/IEC 14496-12, 8.8; 14496-15, 5.4).

use mp4_atom::{
    Avc1, Avcc, Codec, Colr, Dinf, Dref, DrefEntry, Encode as _, Ftyp, Hdlr, Mdhd, Mdia, Mehd, Mfhd, Minf, Moof, Moov, Mvex,
    Mvhd, Stbl, Stco, Stsd, Tfdt, Tfhd, Tkhd, Traf, Trak, Trex, Trun, TrunEntry, Url, Visual, Vmhd,
};

use crate::annexb::ParameterSets;
use crate::error::{Error, Result};

/// Ticks in a second: what RTP and most tools use for video.
pub(crate) const TIMESCALE: u32 = 90_000;
/// The header of a box: its size and its name.
pub(crate) const HEADER_BYTES: usize = 8;
/// The bytes of a `moof` besides its samples, and of the header of its `mdat`.
pub(crate) const FRAGMENT_BYTES: usize = 8 + 16 + 8 + 16 + 20 + 20 + HEADER_BYTES;
/// The bytes of a sample in a `moof`: duration, size, flags.
pub(crate) const SAMPLE_BYTES: usize = 12;
/// The one track.
const TRACK: u32 = 1;
/// Flags of a sample (8.8.3.1): depends on no other.
const SYNC_SAMPLE: u32 = 0x0200_0000;
/// Flags of a sample: depends on others, and is no place to begin.
const OTHER_SAMPLE: u32 = 0x0101_0000;

/// A sample whose end is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) duration: u32,
    pub(crate) size: u32,
    pub(crate) is_keyframe: bool,
}

/// `ftyp` and `moov`: what a player reads first. The duration is in ticks, 0 while it isn't known; its size doesn't depend
/// on it, so that it can be written over.
pub(crate) fn head(width: u32, height: u32, sets: &ParameterSets, duration: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let brands = [b"iso5", b"iso6", b"mp41"];
    Ftyp { major_brand: b"iso5".into(), minor_version: 0, compatible_brands: brands.into_iter().map(Into::into).collect() }
        .encode(&mut bytes)?;
    let size = (u16::try_from(width), u16::try_from(height));
    let (Ok(width), Ok(height)) = size else { return Err(Error::Size { width, height }) };
    let mut moov = Moov {
        mvhd: Mvhd { timescale: TIMESCALE, rate: 1.into(), volume: 1.into(), next_track_id: TRACK + 1, ..Mvhd::default() },
        mvex: Some(Mvex {
            mehd: Some(Mehd { fragment_duration: 0 }),
            trex: vec![Trex { track_id: TRACK, default_sample_description_index: 1, ..Trex::default() }],
        }),
        trak: vec![track(width, height, sets)?],
        ..Moov::default()
    };
    set_duration(&mut moov, duration);
    moov.encode(&mut bytes)?;
    Ok(bytes)
}

/// Says how long the whole video is, in ticks.
pub(crate) fn set_duration(moov: &mut Moov, duration: u64) {
    moov.mvhd.duration = duration;
    if let Some(mehd) = moov.mvex.as_mut().and_then(|mvex| mvex.mehd.as_mut()) {
        mehd.fragment_duration = duration;
    }
    for trak in &mut moov.trak {
        trak.tkhd.duration = duration;
    }
}

fn track(width: u16, height: u16, sets: &ParameterSets) -> Result<Trak> {
    let avc1 = Avc1 {
        visual: Visual { data_reference_index: 1, width, height, ..Visual::default() },
        avcc: Avcc::new(&sets.sps, &sets.pps)?,
        // BT.709 in limited range, as the stream says itself
        colr: Some(Colr::Nclx {
            colour_primaries: 1,
            transfer_characteristics: 1,
            matrix_coefficients: 1,
            full_range_flag: false,
        }),
        ..Avc1::default()
    };
    let stbl = Stbl { stsd: Stsd { codecs: vec![Codec::Avc1(avc1)] }, stco: Some(Stco::default()), ..Stbl::default() };
    let here = DrefEntry::Url(Url::default());
    Ok(Trak {
        tkhd: Tkhd {
            track_id: TRACK,
            enabled: true,
            in_movie: true,
            width: width.into(),
            height: height.into(),
            ..Tkhd::default()
        },
        mdia: Mdia {
            mdhd: Mdhd { timescale: TIMESCALE, language: "und".into(), ..Mdhd::default() },
            hdlr: Hdlr { handler: b"vide".into(), name: "screen".into() },
            minf: Minf {
                vmhd: Some(Vmhd::default()),
                dinf: Dinf { dref: Dref { entries: vec![here] } },
                stbl,
                ..Minf::default()
            },
        },
        ..Trak::default()
    })
}

/// `moof` and the header of `mdat` for samples that begin at `base` ticks and have `data_bytes` together.
pub(crate) fn fragment_head(sequence: u32, base: u64, samples: &[Sample], data_bytes: usize) -> Result<Vec<u8>> {
    let offset = FRAGMENT_BYTES + samples.len() * SAMPLE_BYTES;
    let too_large = || Error::Stream("a fragment of 2 GiB");
    let entries = samples.iter().map(|sample| TrunEntry {
        duration: Some(sample.duration),
        size: Some(sample.size),
        flags: Some(if sample.is_keyframe { SYNC_SAMPLE } else { OTHER_SAMPLE }),
        cts: None,
    });
    // one flag alone would be written as the first sample's: 4 bytes that the offset counts either way
    let run =
        Trun { data_offset: Some(i32::try_from(offset).map_err(|_| too_large())?), samples: entries.collect::<Vec<_>>().into() };
    let mut bytes = Vec::with_capacity(offset);
    Moof {
        mfhd: Mfhd { sequence_number: sequence },
        traf: vec![Traf {
            tfhd: Tfhd { track_id: TRACK, default_base_is_moof: true, ..Tfhd::default() },
            tfdt: Some(Tfdt { base_media_decode_time: base }),
            trun: vec![run],
            ..Traf::default()
        }],
    }
    .encode(&mut bytes)?;
    let mdat = u32::try_from(data_bytes + HEADER_BYTES).map_err(|_| too_large())?;
    bytes.extend_from_slice(&mdat.to_be_bytes());
    bytes.extend_from_slice(b"mdat");
    debug_assert_eq!(bytes.len(), offset, "the data begins where the run says");
    Ok(bytes)
}

/// Whether a sample's flags say that it is a keyframe: `sample_is_non_sync_sample` is off.
pub(crate) fn is_sync(flags: u32) -> bool {
    flags & 0x0001_0000 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_has_one_size_whatever_the_duration() {
        let sets = ParameterSets { sps: vec![0x67, 66, 192, 31, 1], pps: vec![0x68, 1] };
        let sizes = [0, 1, u64::from(u32::MAX) + 5].map(|duration| head(640, 480, &sets, duration).unwrap().len());
        assert_eq!(sizes[0], sizes[1]);
        assert_eq!(sizes[1], sizes[2]);
    }

    #[test]
    fn the_data_begins_where_the_run_says() {
        for count in [1, 2, 30] {
            let samples = vec![Sample { duration: 3000, size: 10, is_keyframe: false }; count];
            let head = fragment_head(1, 7, &samples, 10 * count).unwrap();
            assert_eq!(head.len(), FRAGMENT_BYTES + count * SAMPLE_BYTES);
        }
    }
}
