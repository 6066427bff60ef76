//! The only `unsafe` of the crate: options of the encoder that the library's safe interface lacks.

use std::ffi::{c_int, c_void};

use openh264::Error as CodecError;
use openh264::encoder::Encoder;
use openh264_sys2::{
    ENCODER_OPTION, ENCODER_OPTION_BITRATE, ENCODER_OPTION_FRAME_RATE, ENCODER_OPTION_MAX_BITRATE, SBitrateInfo, SPATIAL_LAYER_0,
};

use crate::error::Result;

/// Gives an encoder that has encoded another bit rate than `before` in bits per second, and another frame rate.
///
/// # Errors
/// The library refuses.
pub(crate) fn set_rate(codec: &mut Encoder, (before, after): (u32, u32), fps: u32) -> Result<()> {
    let mut bitrate = SBitrateInfo { iLayer: SPATIAL_LAYER_0, iBitrate: c_int::try_from(after).unwrap_or(c_int::MAX) };
    #[allow(clippy::cast_precision_loss)] // at most 60
    let mut fps = fps as f32;
    // The rate may never be above its maximum.
    let rates = match after > before {
        true => [ENCODER_OPTION_MAX_BITRATE, ENCODER_OPTION_BITRATE],
        false => [ENCODER_OPTION_BITRATE, ENCODER_OPTION_MAX_BITRATE],
    };
    set_option(codec, ENCODER_OPTION_FRAME_RATE, (&raw mut fps).cast())?;
    for option in rates {
        set_option(codec, option, (&raw mut bitrate).cast())?;
    }
    Ok(())
}

#[allow(unsafe_code)]
fn set_option(codec: &mut Encoder, option: ENCODER_OPTION, value: *mut c_void) -> Result<()> {
    // SAFETY: each of the options above reads one value of the type that it is given here, and keeps no pointer to it
    // (`CWelsH264SVCEncoder::SetOption`). None is one that the safe interface relies on.
    let code = unsafe { codec.raw_api().set_option(option, value) };
    if code == 0 { Ok(()) } else { Err(CodecError::msg("the encoder refuses another rate").into()) }
}
