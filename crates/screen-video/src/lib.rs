//! Video of a screen: H.264 and a fragmented MP4 that is playable at any moment.

mod annexb;
mod boxes;
mod encoder;
mod error;
mod fmp4;
mod i420;

pub use encoder::{
    BITRATE_BPS, Encoded, Encoder, FPS, GREATEST_LONG_SIDE, GREATEST_SHORT_SIDE, LEAST_SIDE, Purpose, Settings};
pub use error::{Error, Result};
pub use fmp4::{FRAGMENT_DATA_BYTES, FRAGMENT_DURATION, Fmp4Writer, Summary};
