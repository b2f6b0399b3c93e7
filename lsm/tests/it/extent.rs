//! How much a tree holds where.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use lsm::{Engine, KeyRange, Options, Tree, TreeFormat, TreeId, WriteBatch};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use vfs::SimulatedFileSystem;

use crate::engine::inline_options;

const TREE: TreeId = TreeId(1);
const ROWS: u32 = 3_000;
const CELLS: u32 = 10;

fn opened(memtable_bytes_max: usize) -> (Engine, Tree) {
    let options = Options {
        memtable_bytes_max,
        memory_bytes_max: 1 << 30,
        table_bytes: 64 << 10,
        block_bytes: 1 << 10,
        level_bytes_base: 256 << 10,
        log_bytes_max: 64 << 20,
        ..inline_options()
    };
    let engine =
        Engine::open(Arc::new(SimulatedFileSystem::new()), Path::new("/db"), 1, options).expect("opens");
    let tree = engine.create_tree(TREE, TreeFormat::default()).expect("created");
    (engine, tree)
}

fn key(row: u32, cell: u32) -> Vec<u8> {
    format!("{row:05}/{cell:02}").into_bytes()
}

/// Where the row of a key begins.
fn row_of(key: &[u8]) -> Option<Bytes> {
    Some(Bytes::copy_from_slice(&key[..key.len().min(5)]))
}

/// Fills the tree in random order; the upper half of the rows has twice the bytes.
fn fill(engine: &Engine, rows: u32) {
    let mut random = SmallRng::seed_from_u64(7);
    for _ in 0..rows * CELLS {
        let (row, cell) = (random.random_range(0..rows), random.random_range(0..CELLS));
        let mut value = vec![0; if row < rows / 2 { 100 } else { 304 }];
        random.fill(&mut value[..]);
        let mut batch = WriteBatch::new();
        batch.put(TREE, &key(row, cell), &value);
        drop(engine.write(batch).expect("written"));
    }
    engine.barrier().wait().expect("durable");
}

fn rows(start: u32, end: u32) -> KeyRange {
    KeyRange { start: format!("{start:05}").into(), end: format!("{end:05}").into() }
}

/// The tree as memtables alone, as tables alone, and as both.
fn shapes() -> [(&'static str, Engine, Tree); 3] {
    [("memtables", 256 << 20, false), ("both", 2 << 20, false), ("tables", 2 << 20, true)].map(
        |(name, bytes, compact)| {
            let (engine, tree) = opened(bytes);
            fill(&engine, ROWS);
            if compact {
                tree.compact().expect("compacted");
            }
            (name, engine, tree)
        },
    )
}

#[test]
fn approximate_bytes_are_within_a_tenth() {
    for (name, _engine, tree) in shapes() {
        let whole = tree.approximate_bytes(&KeyRange::default());
        // An entry takes about 40 bytes beside key and value in memory, and few on disk.
        let overhead = if name == "memtables" { 40 + 8 } else { 14 };
        let weight = |row: u32| if row < ROWS / 2 { 100 + overhead } else { 304 + overhead };
        let total: u32 = (0..ROWS).map(weight).sum();
        for (start, end) in [(0, ROWS), (0, 300), (1400, 1700), (2000, 2100), (300, 2900)] {
            let found = tree.approximate_bytes(&rows(start, end));
            let expected = whole * u64::from((start..end).map(weight).sum::<u32>()) / u64::from(total);
            let tolerance = expected / if end - start < 200 { 4 } else { 10 };
            assert!(found.abs_diff(expected) <= tolerance, "{name} {start}..{end}: {found} for {expected}");
        }
        assert_eq!(tree.approximate_bytes(&rows(ROWS, ROWS + 5)), 0, "{name}");
    }
}

#[test]
fn split_points_part_a_range_evenly_at_rows() {
    for (name, _engine, tree) in shapes() {
        for (range, count) in [(KeyRange::default(), 1), (KeyRange::default(), 7), (rows(500, 2500), 3)] {
            let points = tree.split_points(&range, count, row_of).expect("found");
            assert_eq!(points.len(), count, "{name}");
            assert!(points.is_sorted_by(|a, b| a.key < b.key && a.bytes_before < b.bytes_before));
            let whole = tree.approximate_bytes(&range);
            let mut start = range.start.clone();
            let mut ends: Vec<_> = points.iter().map(|point| point.key.clone()).collect();
            ends.push(range.end.clone());
            for end in ends {
                assert!(end.len() <= 5, "nothing inside a row: {end:?}");
                let piece = tree.approximate_bytes(&KeyRange { start, end: end.clone() });
                let expected = whole / (count as u64 + 1);
                assert!(piece.abs_diff(expected) <= expected / 7, "{name}: {piece} for {expected}");
                start = end;
            }
        }
    }
}

#[test]
fn rows_are_not_cut_and_one_great_row_gives_no_point_inside() {
    let (engine, tree) = opened(2 << 20);
    for row in [1, 5, 9] {
        for cell in 0..if row == 5 { 99 } else { 5 } {
            let mut batch = WriteBatch::new();
            batch.put(TREE, &key(row, cell), &[7; 500]);
            drop(engine.write(batch).expect("written"));
        }
    }
    for flushed in [false, true] {
        if flushed {
            tree.flush().expect("flushed");
        }
        let points = tree.split_points(&KeyRange::default(), 20, row_of).expect("found");
        let keys: Vec<_> = points.iter().map(|point| &point.key[..]).collect();
        assert!(keys.len() <= 3 && keys.contains(&&b"00005"[..]), "{keys:?}");
        assert!(tree.split_points(&rows(5, 6), 3, row_of).expect("found").is_empty());
        assert!(tree.split_points(&KeyRange::default(), 0, row_of).expect("found").is_empty());
        assert!(tree.split_points(&KeyRange::default(), 3, |_| None).expect("found").is_empty());
    }
    let empty = engine.create_tree(TreeId(2), TreeFormat::default()).expect("created");
    assert!(empty.split_points(&KeyRange::default(), 3, row_of).expect("found").is_empty());
}
