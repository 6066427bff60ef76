//! Video of a screen: H.264, and a fragmented MP4 that is playable at any moment.
//!
//! Everything here blocks and belongs to one thread. Time is an input.
//!
//! | module | what |
//! |---|---|
//! | `encoder` | BGRX frames to H.264, for files and for live streams |
//! | `i420` | colours: BGRX to planes of BT.709, padded to even sizes |
//! | `fmp4`, `boxes`, `annexb` | the file: fragments of at most a second |
//! | `recording` | frames, still screens, pauses and bounds into one file |
//! | `inspect` | what a file holds; cutting off what a kill tore |
//!
//! H.264 is encoded by openh264 (BSD-2-Clause), built from source. The grant for patents that its maker gives covers only
//! the maker's own binaries.

mod annexb;
mod boxes;
mod encoder;
mod error;
mod fmp4;
mod i420;
mod inspect;
mod raw;
mod recording;

pub use encoder::{BITRATE_BPS, Encoded, Encoder, FPS, GREATEST_LONG_SIDE, GREATEST_SHORT_SIDE, LEAST_SIDE, Purpose, Settings};
pub use error::{Error, Result};
pub use fmp4::{FRAGMENT_DATA_BYTES, FRAGMENT_DURATION, Fmp4Writer, Summary};
pub use inspect::{Info, inspect, repair};
pub use recording::{KEYFRAME_EVERY, KEYFRAME_FRAMES, Limit, Limits, Progress, Recording, SETTLES, STILL_FRAME_EVERY};
