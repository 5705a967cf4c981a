//! Artifacts: bytes as they come from a bucket, and bytes as the tar inside, where a checksum would keep mutations out.

#![no_main]

use alcedo_fuzz::{archive, archive_mutations, archive_seeds, corpus};
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

fuzz_target!(init: corpus::seed("archive", archive_seeds::all()), |bytes: &[u8]| {
    archive::check(bytes);
    archive::check(&archive::packed(bytes));
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    archive_mutations::mutate(data, size, max_size, seed)
});
