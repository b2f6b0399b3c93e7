#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lsm::fuzzing::damaged_log(bytes));
