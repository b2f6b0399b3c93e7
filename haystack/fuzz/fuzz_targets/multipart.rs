#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| haystack::fuzzing::multipart(bytes));
