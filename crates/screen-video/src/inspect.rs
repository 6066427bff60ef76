//! What a file of ours holds, and cutting off what a kill tore.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, ErrorKind, Read, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::Duration;

use mp4_atom::{Decode as _, Encode as _, Ftyp, Moof, Moov};

use crate::boxes::{self, HEADER_BYTES, TIMESCALE};
use crate::error::{Error, Result};
use crate::fmp4::{from_ticks, ticks};

/// The greatest `ftyp`, `moov` or `moof` that is read; ours have some kilobytes.
const BOX_BYTES: u64 = 4 * 1024 * 1024;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// Width and height of the video in pixels.
    pub size: (u32, u32),
    /// From the first frame to the end of the last whole fragment.
    pub duration: Duration,
    /// Frames in whole fragments.
    pub frames: u64,
    /// When the first frame is shown, which is a keyframe: a poster can be made of it.
    pub first_keyframe_at: Option<Duration>,
    /// The file's size.
    pub bytes: u64,
    /// Where the last whole fragment ends. Less than `bytes`: the rest was torn off while it was written.
    pub bytes_valid: u64,
    /// The head of the file says this duration: it was finished, or repaired, and not torn after.
    pub is_finished: bool,
}

/// Reads a file that [`crate::Fmp4Writer`] wrote, at any moment of its writing. Reads the boxes, not the video: a
/// thousandth of the file or less. Blocks.
///
/// # Errors
/// [`Error::Io`]; [`Error::NoFrames`] for a file that ends before its first whole fragment; [`Error::Mp4`] for another's.
pub fn inspect(path: &Path) -> Result<Info> {
    let (info, _) = read(&File::open(path)?)?;
    if info.frames == 0 { Err(Error::NoFrames) } else { Ok(info) }
}

/// Cuts off a torn last fragment and says the duration at the head of the file. What [`inspect`] says of it afterwards is
/// returned; a whole file stays as it is. Nobody may be writing it. Blocks until it is on the disk.
///
/// # Errors
/// As [`inspect`], which leave the file as it was.
pub fn repair(path: &Path) -> Result<Info> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let (info, head) = read(&file)?;
    if info.frames == 0 {
        return Err(Error::NoFrames);
    }
    if info.bytes_valid < info.bytes {
        file.set_len(info.bytes_valid)?;
    }
    if !info.is_finished {
        let bytes = head.with_duration(ticks(info.duration))?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&bytes)?;
    }
    file.sync_all()?;
    Ok(Info { bytes: info.bytes_valid, is_finished: true, ..info })
}

/// The boxes before the first fragment.
struct Head {
    ftyp: Ftyp,
    moov: Moov,
    bytes: u64,
}

impl Head {
    /// The same with another duration, in ticks.
    fn with_duration(mut self, duration: u64) -> Result<Vec<u8>> {
        boxes::set_duration(&mut self.moov, duration);
        let mut bytes = Vec::new();
        self.ftyp.encode(&mut bytes)?;
        self.moov.encode(&mut bytes)?;
        // a head of another size would overwrite a fragment
        if bytes.len() as u64 == self.bytes { Ok(bytes) } else { Err(Error::Stream("another program wrote its head")) }
    }
}

fn read(file: &File) -> Result<(Info, Head)> {
    let bytes = file.metadata()?.len();
    let mut reader = Reader { from: BufReader::new(file), at: 0, bytes };
    let head = reader.head()?;
    let mvhd = &head.moov.mvhd;
    let tkhd = head.moov.trak.first().map(|trak| &trak.tkhd).ok_or(Error::Stream("it has no track"))?;
    if mvhd.timescale != TIMESCALE {
        return Err(Error::Stream("another program wrote it"));
    }
    let mut info = Info {
        size: (tkhd.width.integer().into(), tkhd.height.integer().into()),
        duration: Duration::ZERO,
        frames: 0,
        first_keyframe_at: None,
        bytes,
        bytes_valid: head.bytes,
        is_finished: false,
    };
    while let Some(fragment) = reader.fragment()? {
        info.frames += fragment.frames;
        info.duration = from_ticks(fragment.end);
        info.first_keyframe_at = info.first_keyframe_at.or(fragment.first_keyframe_at.map(from_ticks));
        info.bytes_valid = reader.at;
    }
    info.is_finished = info.bytes_valid == bytes && mvhd.duration == ticks(info.duration);
    Ok((info, head))
}

/// What a fragment says of itself; times in ticks.
struct Fragment {
    frames: u64,
    end: u64,
    first_keyframe_at: Option<u64>,
}

/// Reads boxes one after another.
struct Reader<'a> {
    from: BufReader<&'a File>,
    /// The end of what was read whole.
    at: u64,
    bytes: u64,
}

impl Reader<'_> {
    fn head(&mut self) -> Result<Head> {
        let torn = || Error::NoFrames;
        let ftyp = self.named(b"ftyp")?.ok_or_else(torn)?;
        let moov = self.named(b"moov")?.ok_or_else(torn)?;
        self.at = (ftyp.len() + moov.len()) as u64;
        Ok(Head { ftyp: Ftyp::decode(&mut ftyp.as_slice())?, moov: Moov::decode(&mut moov.as_slice())?, bytes: self.at })
    }

    /// The next fragment. None at the end of the file, and where what follows isn't a whole one.
    fn fragment(&mut self) -> Result<Option<Fragment>> {
        let Ok(Some(moof)) = self.named(b"moof") else { return Ok(None) };
        let Ok(decoded) = Moof::decode(&mut moof.as_slice()) else { return Ok(None) };
        let Some((b"mdat", mdat)) = self.header()?.as_ref().map(|(kind, size)| (kind, *size)) else { return Ok(None) };
        let end = self.at + moof.len() as u64 + mdat;
        let Some((fragment, data)) = describe(&decoded) else { return Ok(None) };
        if end > self.bytes || data + HEADER_BYTES as u64 != mdat {
            return Ok(None);
        }
        self.from.seek_relative(i64::try_from(mdat).unwrap_or(i64::MAX) - HEADER_BYTES as i64)?;
        self.at = end;
        Ok(Some(fragment))
    }

    /// A whole box of this name with its header. None when the file ends before it does, or another follows.
    fn named(&mut self, name: &[u8; 4]) -> Result<Option<Vec<u8>>> {
        let Some((kind, size)) = self.header()? else { return Ok(None) };
        if kind != *name || size > BOX_BYTES {
            return Err(Error::Stream("another box is where one of ours should be"));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        bytes.extend_from_slice(&u32::try_from(size).unwrap_or(0).to_be_bytes());
        bytes.extend_from_slice(&kind);
        let read = (&mut self.from).take(size - HEADER_BYTES as u64).read_to_end(&mut bytes)?;
        Ok((read as u64 == size - HEADER_BYTES as u64).then_some(bytes))
    }

    /// The name and the size, with its header, of the next box.
    fn header(&mut self) -> Result<Option<([u8; 4], u64)>> {
        let mut header = [0; HEADER_BYTES];
        match self.from.read_exact(&mut header) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let [a, b, c, d, kind @ ..] = header;
        let size = u64::from(u32::from_be_bytes([a, b, c, d]));
        Ok((size >= HEADER_BYTES as u64).then_some((kind, size)))
    }
}

/// The frames and times of a fragment, and the bytes of its data. None for another's.
fn describe(moof: &Moof) -> Option<(Fragment, u64)> {
    let [traf] = moof.traf.as_slice() else { return None };
    let [run] = traf.trun.as_slice() else { return None };
    let mut fragment = Fragment { frames: 0, end: traf.tfdt.as_ref()?.base_media_decode_time, first_keyframe_at: None };
    let mut data = 0;
    for entry in run.samples.iter() {
        if fragment.first_keyframe_at.is_none() && entry.flags.is_some_and(boxes::is_sync) {
            fragment.first_keyframe_at = Some(fragment.end);
        }
        fragment.frames += 1;
        fragment.end += u64::from(entry.duration?);
        data += u64::from(entry.size?);
    }
    Some((fragment, data))
}
