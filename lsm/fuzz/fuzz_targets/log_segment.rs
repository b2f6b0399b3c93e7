#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lsm::fuzzing::log_segment(bytes));
