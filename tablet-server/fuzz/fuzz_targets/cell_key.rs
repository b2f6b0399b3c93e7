//! Any bytes are a cell key or are refused, and what is taken encodes to itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tablet_server::cell_key::CellKey;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(key) = CellKey::decode(bytes) {
        assert_eq!(key.encode(), bytes);
    }
});
