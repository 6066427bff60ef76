//! What can go wrong with a video.

/// What can go wrong with a video.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A size that the encoder can't take: at least 1×1, at most 3840×2160 in either orientation.
    #[error("{width}x{height} pixels can't be encoded: at least 1x1, at most 3840x2160 in either orientation")]
    Size {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
    },
    /// A frame that is shorter than its size and stride say.
    #[error("a frame of {bytes} bytes isn't {width}x{height} pixels with {stride} bytes a row")]
    Frame {
        /// The frame's length.
        bytes: usize,
        /// Bytes from one row to the next.
        stride: usize,
        /// In pixels.
        width: usize,
        /// In pixels.
        height: usize,
    },
    /// The colours couldn't be converted: a stride of 4 GiB and more.
    #[error("the colours of a frame can't be converted")]
    Conversion,
    /// The encoder failed.
    #[error("the encoder failed: {0}")]
    Codec(#[from] openh264::Error),
    /// A stream that begins without a keyframe, or changes its parameter sets on the way: not one track of an MP4 file.
    #[error("not a stream for one track: {0}")]
    Stream(&'static str),
    /// Writing or reading the file failed. What was written before is playable.
    #[error("the file: {0}")]
    Io(#[from] std::io::Error),
    /// A box couldn't be made or read.
    #[error("not an MP4 file of ours: {0}")]
    Mp4(#[from] mp4_atom::Error),
    /// The file ends before its first frame: nothing in it can be played.
    #[error("the file holds no frame")]
    NoFrames,
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
