//! NAL units between start codes (ITU-T H.264, annex B), and with lengths before them (ISO/IEC 14496-15, 5.3.3).

/// A sequence parameter set (H.264, table 7-1).
const SPS: u8 = 7;
/// A picture parameter set.
const PPS: u8 = 8;

/// The NAL units of an Annex B stream, without start codes.
pub(crate) fn units(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = after_start_code(data);
    std::iter::from_fn(move || {
        let now = rest?;
        let end = find(now).unwrap_or(now.len());
        rest = after_start_code(&now[end..]);
        // the zero before a start code of four bytes, and trailing zeros, belong to no unit
        let length = now[..end].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        Some(&now[..length])
    })
    .filter(|unit| !unit.is_empty())
}

/// The offset of the next three-byte start code.
fn find(data: &[u8]) -> Option<usize> {
    let mut from = 0;
    // the third byte decides how far to go on: most are above 1
    while let Some(third) = data.get(from + 2) {
        match third {
            1 if data[from] == 0 && data[from + 1] == 0 => return Some(from),
            0 => from += 1,
            _ => from += 3,
        }
    }
    None
}

fn after_start_code(data: &[u8]) -> Option<&[u8]> {
    find(data).map(|at| &data[at + 3..])
}

/// The parameter sets of a stream, as an `avcC` box has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ParameterSets {
    pub(crate) sps: Vec<u8>,
    pub(crate) pps: Vec<u8>,
}

impl ParameterSets {
    /// The first of each, when `data` has both.
    pub(crate) fn of(data: &[u8]) -> Option<Self> {
        let first = |kind| units(data).find(|unit| unit[0] & 0x1f == kind).map(<[u8]>::to_vec);
        Some(Self { sps: first(SPS)?, pps: first(PPS)? })
    }
}

/// Appends the units of `data` to `into`, each after its length in four bytes, without parameter sets: those are in `avcC`.
pub(crate) fn to_sample(data: &[u8], into: &mut Vec<u8>) {
    for unit in units(data).filter(|unit| !matches!(unit[0] & 0x1f, SPS | PPS)) {
        // a unit is part of a frame, which is some megabytes at most
        let length = u32::try_from(unit.len()).unwrap_or(u32::MAX);
        into.extend_from_slice(&length.to_be_bytes());
        into.extend_from_slice(unit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_codes_of_three_and_four_bytes_and_trailing_zeros() {
        let data = [0, 0, 0, 1, 0x67, 1, 0, 2, 0, 0, 1, 0x68, 9, 0, 0, 0, 1, 0x65, 7, 0, 0];
        let seen: Vec<&[u8]> = units(&data).collect();
        assert_eq!(seen, [&[0x67, 1, 0, 2][..], &[0x68, 9], &[0x65, 7]]);
        let sets = ParameterSets::of(&data).unwrap();
        assert_eq!((sets.sps, sets.pps), (vec![0x67, 1, 0, 2], vec![0x68, 9]));
        let mut sample = Vec::new();
        to_sample(&data, &mut sample);
        assert_eq!(sample, [0, 0, 0, 2, 0x65, 7]);
    }

    #[test]
    fn rubbish_has_no_units() {
        for data in [&[][..], &[0], &[0, 0], &[0, 0, 1], &[0, 0, 2, 1], &[1, 2, 3, 4], &[0, 0, 1, 0, 0, 1, 0]] {
            assert_eq!(units(data).count(), 0, "{data:?}");
            assert_eq!(ParameterSets::of(data), None);
        }
    }

    #[test]
    fn a_start_code_is_found_wherever_it_lies() {
        for before in 0..9_usize {
            let mut data = vec![5; before];
            data.extend([0, 0, 1, 0x41, 3]);
            assert_eq!(units(&data).collect::<Vec<_>>(), [&[0x41, 3]], "{before}");
        }
    }
}
