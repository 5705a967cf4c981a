//! `alcedo.yaml`, as a pull request from anybody could have it.

#![no_main]

use alcedo_fuzz::{corpus, file, file_seeds};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: corpus::seed("file", file_seeds::all()), |bytes: &[u8]| file::check(bytes));
