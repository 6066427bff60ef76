//! What is different from an earlier frame.
//!
//! A frame is looked at in tiles; of each only a hash is kept, so that many earlier frames can be kept in little memory. Equal
//! hashes are taken for equal tiles: by chance they are once in 2⁶⁴. The byte of a pixel that says nothing is left out.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, Hasher as _};

use foldhash::quality::FixedState;

use super::{BYTES_PER_PIXEL, Frame, Rect};

/// The side of a tile in pixels. Those at the right and lower edges are what is left.
pub const TILE: u32 = 32;

/// How many earlier frames [`Seen`] keeps: 16 KiB each at 1920×1080.
pub const FRAMES_KEPT: usize = 64;

/// How many rectangles are told at most; more are merged.
pub const MAX_RECTS: usize = 16;

/// Bytes of a tile's row.
const TILE_ROW_BYTES: usize = TILE as usize * BYTES_PER_PIXEL;

/// What of a pixel counts.
const COLOURS: u32 = 0x00ff_ffff;

/// With more runs of tiles than this, all of them are told as one rectangle: merging them would take longer than encoding it.
const MAX_RUNS: usize = 512;

/// A hash for each tile of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tiles {
    rect: Rect,
    /// By rows from above.
    hashes: Vec<u64>,
    whole: u64,
}

impl Tiles {
    /// Looks at all of a frame.
    pub fn of(frame: &Frame) -> Self {
        let across = tiles(frame.rect.width);
        let mut hashes = Vec::with_capacity(across * tiles(frame.rect.height));
        for band in frame.data.chunks(frame.row_bytes() * TILE as usize) {
            // A row of the frame after the other: memory is read as it lies.
            let mut hashers = vec![FixedState::default().build_hasher(); across];
            for row in band.chunks_exact(frame.row_bytes()) {
                for (hasher, bytes) in hashers.iter_mut().zip(row.chunks(TILE_ROW_BYTES)) {
                    hasher.write(&colours(bytes)[..bytes.len()]);
                }
            }
            hashes.extend(hashers.iter().map(|hasher| hasher.finish()));
        }
        let mut whole = FixedState::default().build_hasher();
        for side in [frame.rect.x, frame.rect.y, frame.rect.width, frame.rect.height] {
            whole.write_u32(side);
        }
        for &hash in &hashes {
            whole.write_u64(hash);
        }
        Self { rect: frame.rect, hashes, whole: whole.finish() }
    }

    /// A hash of the whole frame and its place. The same for the same pixels in every run of one build, not in other ones.
    pub fn whole(&self) -> u64 {
        self.whole
    }

    /// The rectangle around all tiles that are different. Everything when the frames have different places or sizes.
    pub fn changed_since(&self, earlier: &Self) -> Option<Rect> {
        self.runs(earlier).into_iter().reduce(Rect::union)
    }

    /// Rectangles that have all tiles that are different: by rows from above, at most [`MAX_RECTS`]. When there were more,
    /// those that are near are merged, and may then have tiles that are the same, and overlap.
    pub fn changed_rects(&self, earlier: &Self) -> Vec<Rect> {
        let runs = self.runs(earlier);
        if runs.len() > MAX_RUNS {
            return runs.into_iter().reduce(Rect::union).into_iter().collect();
        }
        let mut rects = stacked(runs);
        while rects.len() > MAX_RECTS {
            let growth = |pair: &[Rect]| {
                let apart = pair[0].pixels() + pair[1].pixels();
                pair[0].union(pair[1]).pixels().saturating_sub(apart)
            };
            let Some((first, _)) = rects.windows(2).enumerate().min_by_key(|(_, pair)| growth(pair)) else { break };
            let next = rects.remove(first + 1);
            rects[first] = rects[first].union(next);
        }
        rects
    }

    /// Different tiles beside each other, as rectangles as high as a tile.
    fn runs(&self, earlier: &Self) -> Vec<Rect> {
        if self.rect != earlier.rect {
            return vec![self.rect];
        }
        let across = tiles(self.rect.width).max(1);
        let mut runs: Vec<Rect> = Vec::new();
        let different = self.hashes.iter().zip(&earlier.hashes).enumerate().filter(|(_, (now, then))| now != then);
        for (index, _) in different {
            let tile = self.tile(index % across, index / across);
            match runs.last_mut() {
                Some(last) if last.y == tile.y && last.x + last.width == tile.x => last.width += tile.width,
                _ => runs.push(tile),
            }
        }
        runs
    }

    /// A tile's place on the screen.
    fn tile(&self, column: usize, row: usize) -> Rect {
        let (left, top) = (column as u32 * TILE, row as u32 * TILE);
        let (width, height) = (TILE.min(self.rect.width - left), TILE.min(self.rect.height - top));
        Rect { x: self.rect.x + left, y: self.rect.y + top, width, height }
    }
}

/// Rectangles below each other and of the same columns become one.
fn stacked(runs: Vec<Rect>) -> Vec<Rect> {
    let mut rects: Vec<Rect> = Vec::new();
    for run in runs {
        let above =
            rects.iter_mut().rev().find(|rect| rect.y + rect.height == run.y && rect.x == run.x && rect.width == run.width);
        match above {
            Some(rect) => rect.height += run.height,
            None => rects.push(run),
        }
    }
    rects
}

/// How many tiles a side has.
fn tiles(side: u32) -> usize {
    side.div_ceil(TILE) as usize
}

/// What counts of up to a tile's row.
fn colours(bytes: &[u8]) -> [u8; TILE_ROW_BYTES] {
    let mut masked = [0; TILE_ROW_BYTES];
    let pixels = bytes.as_chunks::<BYTES_PER_PIXEL>().0;
    for (to, from) in masked.as_chunks_mut::<BYTES_PER_PIXEL>().0.iter_mut().zip(pixels) {
        *to = (u32::from_le_bytes(*from) & COLOURS).to_le_bytes();
    }
    masked
}

impl Frame {
    /// The rectangle around all pixels that are different, exactly. Everything when the frames have different places or sizes.
    pub fn difference(&self, earlier: &Self) -> Option<Rect> {
        if self.rect != earlier.rect {
            return Some(self.rect);
        }
        let mut around: Option<Rect> = None;
        for (y, (now, then)) in (self.rect.y..).zip(self.rows().zip(earlier.rows())) {
            // Most rows are the same, which is known the soonest this way.
            if now != then
                && let Some((first, last)) = ends_of_difference(now, then)
            {
                let in_row = Rect { x: self.rect.x + first, y, width: last - first + 1, height: 1 };
                around = Some(around.map_or(in_row, |rect| rect.union(in_row)));
            }
        }
        around
    }
}

/// The first and the last pixel of a row that are different.
fn ends_of_difference(now: &[u8], then: &[u8]) -> Option<(u32, u32)> {
    let (now, then) = (now.as_chunks::<BYTES_PER_PIXEL>().0, then.as_chunks::<BYTES_PER_PIXEL>().0);
    let differ = |at: &usize| now[*at][..3] != then[*at][..3];
    let first = (0..now.len()).find(differ)?;
    let last = (0..now.len()).rev().find(differ)?;
    Some((u32::try_from(first).ok()?, u32::try_from(last).ok()?))
}

/// The last [`FRAMES_KEPT`] frames that looked different, by number, so that a client can ask what changed since one of them.
#[derive(Debug, Default)]
pub struct Seen {
    /// The oldest first; numbers follow each other.
    kept: VecDeque<Tiles>,
    /// The number of the first of `kept`.
    first_id: u64,
}

impl Seen {
    /// Notes a frame and tells its number, from 0 on. One that looks as the latest does has the latest's number.
    pub fn note(&mut self, tiles: Tiles) -> u64 {
        if self.kept.back() != Some(&tiles) {
            if self.kept.len() == FRAMES_KEPT {
                self.kept.pop_front();
                self.first_id += 1;
            }
            self.kept.push_back(tiles);
        }
        self.first_id + self.kept.len() as u64 - 1
    }

    /// A frame's tiles. `None` when it is no longer kept, or never was.
    pub fn get(&self, id: u64) -> Option<&Tiles> {
        let index = usize::try_from(id.checked_sub(self.first_id)?).ok()?;
        self.kept.get(index)
    }

    /// The latest frame's tiles.
    pub fn latest(&self) -> Option<&Tiles> {
        self.kept.back()
    }
}

#[cfg(test)]
mod tests;
