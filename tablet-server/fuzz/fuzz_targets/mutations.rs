//! Any message that decodes as mutations of a row becomes a batch or is
//! refused, in families of every kind; no sketch in it takes more memory than
//! the fuzzer allows.
#![no_main]

use std::path::Path;
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use lsm::{Engine, Options, TreeId, WriteBatch};
use prost::Message;
use row_api::data::MutateRowRequest;
use tablet_server::CountedInput;
use tablet_server::aggregate::{Aggregate, CellAggregates};
use tablet_server::group_trees::{GroupTrees, tree_format};
use tablet_server::mutation::RowMutations;
use tablet_server::schema::{Family, FamilyId, TableId, TableSchema};

const FAMILIES: [(&str, Option<Aggregate>); 6] = [
    ("plain", None),
    ("sum", Some(Aggregate::Sum)),
    ("min", Some(Aggregate::Min)),
    ("max", Some(Aggregate::Max)),
    ("integers", Some(Aggregate::UniqueCount(CountedInput::Int64))),
    ("strings", Some(Aggregate::UniqueCount(CountedInput::Bytes))),
];

/// Nothing is written to it.
static TREES: LazyLock<GroupTrees> = LazyLock::new(|| {
    let options = Options { merge_operators: vec![Arc::new(CellAggregates)], ..Options::default() };
    let files = Arc::new(vfs::SimulatedFileSystem::new());
    let engine = Engine::open(files, Path::new("/engine"), 1, options).expect("opens");
    GroupTrees::single(engine.create_tree(TreeId(1), tree_format()).expect("made"))
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(request) = MutateRowRequest::decode(bytes) else { return };
    let mut schema = TableSchema::new(TableId(1));
    for (id, (name, aggregate)) in (1..).zip(FAMILIES) {
        let family = Family { aggregate, ..Family::new(FamilyId(id)) };
        schema.families.insert(name.to_owned(), family);
        schema.next_family_id = FamilyId(id + 1);
    }
    let checked = RowMutations::check(&schema, "mutations", request.row_key, request.mutations);
    if let Ok(mutations) = checked {
        mutations.encode(&TREES, 0, &mut WriteBatch::new());
    }
});
