//! Changes that keep an archive one. libFuzzer's own insert and remove bytes anywhere, after which no header is where a reader
//! looks for it; these change one field of a header, or double or drop whole entries.

use std::ops::Range;

use libfuzzer_sys::fuzzer_mutate;

use crate::archive::{BLOCK, headers};

/// Fields of a header, and what they may hold: what is plain, and what must not get in.
const FIELDS: [(Range<usize>, &[&[u8]]); 10] = [
    (0..100, &[b"a", b"a/b", b"bin", b"c/", b"../a", b"/a", b"a/../../b", b".", b"a//b", b"././@LongLink"]),
    (100..108, &[b"0000644", b"0000755", b"0000777", b"0004755", b"0002755", b"0001777", b"0000000"]),
    (108..116, &[b"0000000", b"0000001"]),
    (116..124, &[b"0000000", b"0000001"]),
    (124..136, &[b"00000000000", b"00000000001", b"00000001000", b"\x80\0\0\0\0\0\0\0\0\0\0\x01"]),
    (156..157, &[b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"D", b"K", b"L", b"S", b"V", b"g", b"x", b"\0"]),
    (157..257, &[b"a", b"b", b"bin", b"..", b"../a", b"/etc", b"a/../..", b"."]),
    (257..265, &[b"ustar  \0", b"ustar\x0000", b""]),
    (265..297, &[b"", b"root", b"bin"]),
    (297..329, &[b"", b"root", b"bin"]),
];

/// Changes `data`, of which the first `size` bytes count, and answers how many count now.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let mut draw = Draw(seed);
    let headers = headers(&data[..size]);
    if headers.is_empty() || draw.below(2) == 0 {
        return fuzzer_mutate(data, size, max_size);
    }
    let which = draw.below(headers.len());
    let at = headers[which];
    let next = headers.get(which + 1).copied().unwrap_or(size).min(size);
    let length = next - at;
    match draw.below(8) {
        0 if size + length <= max_size => {
            let to = headers[draw.below(headers.len())];
            let entry = data[at..next].to_vec();
            data.copy_within(to..size, to + length);
            data[to..to + length].copy_from_slice(&entry);
            size + length
        }
        1 if headers.len() > 1 => {
            data.copy_within(next..size, at);
            size - length
        }
        _ => {
            let (field, values) = &FIELDS[draw.below(FIELDS.len())];
            let value = values[draw.below(values.len())];
            let field = &mut data[at..at + BLOCK][field.clone()];
            field.fill(0);
            field[..value.len()].copy_from_slice(value);
            size
        }
    }
}

/// Numbers from libFuzzer's seed, so that a run with the same seed is the same run (Steele and others' SplitMix, in 32 bits).
struct Draw(u32);

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9);
        let mut it = self.0;
        it = (it ^ (it >> 16)).wrapping_mul(0x85eb_ca6b);
        it = (it ^ (it >> 13)).wrapping_mul(0xc2b2_ae35);
        (it ^ (it >> 16)) as usize % bound
    }
}
