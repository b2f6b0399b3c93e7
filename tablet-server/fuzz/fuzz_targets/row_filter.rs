//! Any message that decodes as a filter compiles or is refused, within the
//! limits on time and memory that the fuzzer sets.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use row_api::data::RowFilter;
use tablet_server::filter::Filter;
use tablet_server::schema::{Family, FamilyId, TableId, TableSchema};

fuzz_target!(|bytes: &[u8]| {
    let Ok(filter) = RowFilter::decode(bytes) else { return };
    let mut schema = TableSchema::new(TableId(1));
    schema.families.insert("f".to_owned(), Family::new(FamilyId(1)));
    schema.next_family_id = FamilyId(2);
    let _ = Filter::compile("filter", Some(&filter), &schema);
});
