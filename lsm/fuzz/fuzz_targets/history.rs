//! A small history of an engine, drawn from the bytes, against its model.

#![no_main]
#![allow(dead_code, reason = "the tests of the crate use all of it")]

#[path = "../../tests/it/history/mod.rs"]
mod history;
#[path = "../../tests/it/slot_log.rs"]
mod slot_log;

use history::choices::Choices;
use lsm::Background;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((&options, bytes)) = bytes.split_first() else { return };
    let steps = history::step::history(&mut Choices::Bytes(bytes), 300);
    history::check(options.into(), &steps, &[Background::Inline]);
});
