//! What can be chosen for one tree: block size, compression, and that its blocks stay in memory.

use lsm::{Compression, Error, KeyRange, TreeFormat, TreeId, TreeTuning};

use crate::engine::{TREE, inline_options, open, opened, write};

const OTHER: TreeId = TreeId(2);

/// Puts 200 keys of 1 KiB that LZ4 makes small into `tree`, and writes them out.
fn fill(engine: &lsm::Engine, tree: &lsm::Tree) {
    for number in 0..200 {
        let key = format!("{number:04}");
        write(engine, |batch| batch.put(tree.id(), key.as_bytes(), &[b'v'; 1024]));
    }
    tree.compact().expect("compacted");
}

fn scan(engine: &lsm::Engine, tree: &lsm::Tree) -> usize {
    let mut iter = tree.iter(&engine.snapshot(), KeyRange::default());
    let mut count = 0;
    while iter.next().expect("readable") {
        assert_eq!(iter.value(), [b'v'; 1024]);
        count += 1;
    }
    count
}

#[test]
fn each_tree_has_a_compression_of_its_own() {
    let (_fs, engine, packed) = opened();
    let raw = engine.create_tree(OTHER, TreeFormat::default()).expect("created");
    raw.tune(TreeTuning { compression: Compression::Raw, ..TreeTuning::default() }).expect("tuned");
    fill(&engine, &packed);
    fill(&engine, &raw);
    let [packed_bytes, raw_bytes] = [&packed, &raw].map(|tree| tree.stats().sstable_bytes);
    assert!(packed_bytes * 4 < raw_bytes, "{packed_bytes} {raw_bytes}");
    assert_eq!((scan(&engine, &packed), scan(&engine, &raw)), (200, 200));
}

#[test]
fn a_block_size_out_of_range_is_refused() {
    let (_fs, _engine, tree) = opened();
    let tuned = tree.tune(TreeTuning { block_bytes: Some(255), ..TreeTuning::default() });
    assert!(matches!(tuned, Err(Error::InvalidOption { name: "block_bytes", found: 255, .. })));
    tree.tune(TreeTuning { block_bytes: Some(4 << 20), ..TreeTuning::default() }).expect("tuned");
}

#[test]
fn what_a_tree_in_memory_holds_is_there_once_it_is_written_and_after_a_start_once_it_is_loaded() {
    for compression in [Compression::Lz4, Compression::Raw] {
        let (fs, engine, tree) = opened();
        let tuning = TreeTuning { compression, in_memory: true, ..TreeTuning::default() };
        tree.tune(tuning).expect("tuned");
        fill(&engine, &tree);
        let kept = engine.stats().kept_block_bytes;
        assert!(kept > 200 * 1024, "{kept}");
        assert_eq!(scan(&engine, &tree), 200);
        assert_eq!(engine.stats().kept_block_bytes, kept);
        drop((engine, tree));

        let engine = open(&fs, 2);
        let tree = engine.tree(TREE).expect("exists");
        tree.tune(tuning).expect("tuned");
        assert_eq!(engine.stats().kept_block_bytes, 0);
        tree.load();
        assert!(engine.stats().kept_block_bytes > 200 * 1024);
        tree.tune(TreeTuning::default()).expect("tuned");
        assert_eq!(engine.stats().kept_block_bytes, 0, "it lets go");
        assert_eq!(scan(&engine, &tree), 200);
    }
}

#[test]
fn what_has_no_room_in_memory_is_read_as_that_of_other_trees() {
    let fs = vfs::SimulatedFileSystem::new();
    let options = lsm::Options { in_memory_bytes_max: 64 << 10, ..inline_options() };
    let dir = std::path::Path::new("/engine");
    let engine = lsm::Engine::open(std::sync::Arc::new(fs), dir, 1, options).expect("opens");
    let tree = engine.create_tree(TREE, TreeFormat::default()).expect("created");
    tree.tune(TreeTuning { in_memory: true, ..TreeTuning::default() }).expect("tuned");
    fill(&engine, &tree);
    assert_eq!(scan(&engine, &tree), 200);
    let kept = engine.stats().kept_block_bytes;
    assert!(kept > 0 && kept <= 64 << 10, "{kept}");
}
