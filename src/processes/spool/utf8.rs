//! Cutting bytes without cutting characters. Pure.

use std::borrow::Cow;

/// How long the first piece of at most `max` bytes is (`max` ≥ 4), so that no valid character is cut in two. Broken
/// sequences are cut anywhere.
pub(super) fn piece_len(bytes: &[u8], max: usize) -> usize {
    if bytes.len() <= max {
        return bytes.len();
    }
    (max - 3..max).rev().find(|at| starts_character(bytes[*at])).map_or(max, |lead| {
        let Some(needed) = character_len(bytes[lead]) else { return max };
        let whole = &bytes[lead..bytes.len().min(lead + needed)];
        let broken = std::str::from_utf8(whole).is_err_and(|error| error.error_len().is_some());
        if lead + needed > max && !broken { lead } else { max }
    })
}

/// How many bytes at the end are the beginning of a character: 0 to 3.
fn unfinished_len(bytes: &[u8]) -> usize {
    let from = bytes.len().saturating_sub(3);
    let Some(lead) = (from..bytes.len()).rev().find(|at| starts_character(bytes[*at])) else { return 0 };
    let unfinished = std::str::from_utf8(&bytes[lead..]).is_err_and(|error| error.error_len().is_none());
    if unfinished { bytes.len() - lead } else { 0 }
}

fn starts_character(byte: u8) -> bool {
    byte & 0b1100_0000 != 0b1000_0000
}

/// The length a lead byte promises; `None` for a byte that leads nothing longer than itself.
fn character_len(lead: u8) -> Option<usize> {
    match lead {
        0xC2..=0xDF => Some(2),
        0xE0..=0xEF => Some(3),
        0xF0..=0xF4 => Some(4),
        _ => None,
    }
}

/// Holds back the beginning of a character until the rest has been read: one for each stream.
#[derive(Debug, Default)]
pub struct Utf8Carry {
    held: Vec<u8>, // at most 3
}

impl Utf8Carry {
    /// What is held back.
    pub fn held(&self) -> &[u8] {
        &self.held
    }

    /// What can be handed on, with what was held back before in front. Holds back at most 3 bytes, and only such as may
    /// still become a character.
    pub fn push<'a>(&mut self, read: &'a [u8]) -> Cow<'a, [u8]> {
        if self.held.is_empty() {
            let (on, held) = read.split_at(read.len() - unfinished_len(read));
            self.held.extend_from_slice(held);
            return Cow::Borrowed(on);
        }
        let mut joined = Vec::with_capacity(self.held.len() + read.len());
        joined.append(&mut self.held);
        joined.extend_from_slice(read);
        self.held = joined.split_off(joined.len() - unfinished_len(&joined));
        Cow::Owned(joined)
    }

    /// What is still held back, when nothing more will be read.
    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Text and rubbish in turns, so that both broken and whole characters lie at every place.
    fn mixed() -> impl Strategy<Value = Vec<u8>> {
        let text = prop_oneof!["[a-zé€😀\n]{0,6}".prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 0..4)];
        prop::collection::vec(text, 0..20).prop_map(|parts| parts.concat())
    }

    fn pieces(mut bytes: &[u8], max: usize) -> Vec<&[u8]> {
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(piece_len(bytes, max));
            pieces.push(piece);
            bytes = rest;
        }
        pieces
    }

    /// The starts of the valid characters of more than one byte, and their lengths.
    fn characters(bytes: &[u8]) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        let mut at = 0;
        for chunk in bytes.utf8_chunks() {
            found.extend(chunk.valid().char_indices().map(|(index, c)| (at + index, c.len_utf8())).filter(|(_, len)| *len > 1));
            at += chunk.valid().len() + chunk.invalid().len();
        }
        found
    }

    fn assert_no_character_is_cut(whole: &[u8], lens: impl Iterator<Item = usize>) {
        let cuts: Vec<usize> = lens
            .scan(0, |at, len| {
                *at += len;
                Some(*at)
            })
            .collect();
        for (start, len) in characters(whole) {
            assert!(!cuts.iter().any(|cut| (start + 1..start + len).contains(cut)), "{start}+{len} of {whole:?} at {cuts:?}");
        }
    }

    #[test]
    fn what_is_held_back_is_what_may_become_a_character() {
        for (read, on) in [
            (&b"ab"[..], 2),
            (b"a\xC3", 1),
            (b"a\xE2\x82", 1),
            (b"a\xF0\x9F\x98", 1),
            (b"\xF0", 0),
            (b"\xFF", 1),
            (b"\xC0", 1),
            (b"\xE0\x80", 2),
            (b"\xED\xA0", 2),
            (b"\xF4\x90", 2),
            (b"a\x80\x80\x80", 4),
            ("é€😀".as_bytes(), 9),
            (b"\xC3\xC3", 1),
        ] {
            assert_eq!(Utf8Carry::default().push(read).len(), on, "{read:?}");
        }
    }

    #[test]
    fn a_character_in_two_reads_comes_whole_and_the_rest_at_the_end() {
        let mut carry = Utf8Carry::default();
        assert_eq!(&*carry.push(b"x\xE2\x82"), b"x");
        assert_eq!(&*carry.push(b"\xACy\xF0"), "€y".as_bytes());
        assert_eq!(carry.finish(), b"\xF0");
        assert_eq!(carry.finish(), b"");
    }

    proptest! {
        #[test]
        fn carried_reads_join_to_the_input(parts in prop::collection::vec(mixed(), 0..8), cut in 0usize..9) {
            let whole = parts.concat();
            let reads: Vec<&[u8]> = whole.chunks(cut.max(1)).collect();
            let mut carry = Utf8Carry::default();
            let mut out: Vec<Vec<u8>> = reads.iter().map(|read| carry.push(read).into_owned()).collect();
            prop_assert!(carry.held.len() <= 3);
            out.push(carry.finish());
            prop_assert_eq!(out.concat(), whole.clone());
            assert_no_character_is_cut(&whole, out.iter().map(Vec::len));
        }

        #[test]
        fn pieces_join_to_the_input(whole in mixed(), max in 4usize..12) {
            let pieces = pieces(&whole, max);
            prop_assert!(pieces.iter().all(|piece| (1..=max).contains(&piece.len())));
            prop_assert_eq!(pieces.concat(), whole.clone());
            assert_no_character_is_cut(&whole, pieces.iter().map(|piece| piece.len()));
        }
    }
}
