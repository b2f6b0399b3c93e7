//! Reads that are not permitted to wait for the disk.

use std::path::Path;
use std::sync::Arc;

use lsm::{Engine, Error, Iter, KeyRange, Miss, Options, Tree, TreeId, WriteBatch};
use vfs::{FileSystem, SimulatedFileSystem};

use crate::engine::inline_options;
use crate::merges::{merging, operators};

const TREE: TreeId = TreeId(1);

/// Tables on several levels, of blocks stored raw and compressed, with two
/// levels of index, operands and range deletes.
fn filled() -> (SimulatedFileSystem, Engine, Tree) {
    let fs = SimulatedFileSystem::new();
    let options = Options {
        memtable_bytes_max: 4 << 20,
        log_segment_bytes: 1 << 20,
        log_bytes_max: 64 << 20,
        table_bytes: 4 << 20,
        block_bytes: 256,
        merge_operators: operators(),
        ..inline_options()
    };
    let engine = Engine::open(Arc::new(fs.clone()), Path::new("/engine"), 1, options).expect("opens");
    let tree = engine.create_tree(TREE, merging("test.append")).expect("created");
    let mut noise = 1_u64;
    for round in 0..3_u32 {
        let mut batch = WriteBatch::new();
        for i in 0..2000_u32 {
            let key = format!("{:05}", i * 7 % 2000);
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            match (i + round) % 5 {
                0 => batch.merge(TREE, key.as_bytes(), format!("{round}").as_bytes()),
                1 => batch.delete(TREE, key.as_bytes()),
                2 => batch.put(TREE, key.as_bytes(), &[b'v'; 90]),
                _ => batch.put(TREE, key.as_bytes(), format!("{noise:x}").as_bytes()),
            }
        }
        batch.delete_range(TREE, b"00500", format!("00{}", 520 + round).as_bytes());
        engine.write(batch).expect("written").wait().expect("durable");
        if round == 0 {
            tree.compact().expect("compacted");
        } else {
            tree.flush().expect("flushed");
        }
    }
    (fs, engine, tree)
}

/// Puts all tables out of memory, but not what the block cache holds.
fn evict(fs: &SimulatedFileSystem) {
    let dir = Path::new("/engine/tables");
    for name in fs.list(dir).expect("listed") {
        fs.evict(&dir.join(name), 0..u64::from(u32::MAX));
    }
}

/// Tries until it is answered; returns the number of blocks that had to be fetched.
fn insist<T>(mut attempt: impl FnMut() -> lsm::Result<T>) -> (T, usize) {
    let mut fetched = 0;
    loop {
        match attempt() {
            Ok(answer) => return (answer, fetched),
            Err(Error::WouldBlock(miss)) => miss.fetch().expect("readable"),
            Err(error) => panic!("{error}"),
        }
        fetched += 1;
        assert!(fetched < 10_000, "it does not get on");
    }
}

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

fn entry(iter: &Iter) -> (Vec<u8>, Vec<u8>) {
    (iter.key().to_vec(), iter.value().to_vec())
}

fn all(tree: &Tree, engine: &Engine) -> Entries {
    let mut iter = tree.iter(&engine.snapshot(), KeyRange::default());
    let mut entries = Vec::new();
    while iter.next().expect("readable") {
        entries.push(entry(&iter));
    }
    entries
}

#[test]
fn a_get_names_what_it_lacks_and_answers_once_that_is_fetched() {
    let (fs, engine, tree) = filled();
    let expected = all(&tree, &engine);
    evict(&fs);
    let snapshot = engine.snapshot();
    let mut misses = 0;
    for i in 0..2000 {
        let key = format!("{i:05}").into_bytes();
        let (found, fetched) = insist(|| tree.try_get(&snapshot, &key));
        let value = expected.iter().find(|(other, _)| *other == key).map(|(_, value)| value.as_slice());
        assert_eq!(found.as_deref(), value);
        misses += fetched;
    }
    assert!(misses > 20, "{misses}");
    for (key, value) in &expected {
        let found = tree.try_get(&snapshot, key).expect("all of it is in memory by now");
        assert_eq!(found.as_deref(), Some(&value[..]));
    }
}

fn missed(result: lsm::Result<bool>) -> Miss {
    match result {
        Err(Error::WouldBlock(miss)) => miss,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_iterator_keeps_its_place_until_a_block_is_fetched() {
    let (fs, engine, tree) = filled();
    let mut expected = all(&tree, &engine);
    let mut misses = 0;
    for is_forward in [true, false] {
        for is_whole in [true, false] {
            evict(&fs);
            let start = if is_whole { "" } else { "0" };
            let range = KeyRange { start: start.into(), end: bytes::Bytes::new() };
            let mut iter = tree.iter(&engine.snapshot(), range);
            let mut entries = Vec::new();
            loop {
                let (moved, fetched) = insist(|| if is_forward { iter.try_next() } else { iter.try_prev() });
                misses += fetched;
                if !moved {
                    break;
                }
                entries.push(entry(&iter));
            }
            assert_eq!(entries, expected);
        }
        expected.reverse();
    }
    assert!(misses > 20, "{misses}");
}

#[test]
fn a_move_that_would_block_is_completed_by_one_that_may_or_turned_round() {
    let (fs, engine, tree) = filled();
    let expected = all(&tree, &engine);
    let range = || KeyRange { start: "".into(), end: "1".into() };
    let mut turns = 0;
    for at in (10..expected.len() - 10).step_by(97) {
        let mut iter = tree.iter(&engine.snapshot(), range());
        assert!(iter.seek(&expected[at].0).expect("readable"));
        evict(&fs);
        let mut here = at;
        for step in 0..40 {
            // Whole tables are evicted again and again, so some moves in the middle of others miss.
            evict(&fs);
            let is_forward = (step / 7 + at) % 2 == 0;
            let moved = if is_forward { iter.try_next() } else { iter.try_prev() };
            let there = if is_forward { here + 1 } else { here - 1 };
            here = match moved {
                Ok(moved) => {
                    assert!(moved);
                    there
                }
                Err(Error::WouldBlock(_)) if step % 3 == 0 => {
                    // Back to where it came from.
                    let turned = if is_forward { iter.prev() } else { iter.next() };
                    assert!(turned.expect("readable"));
                    turns += 1;
                    here
                }
                Err(Error::WouldBlock(_)) => {
                    let completed = if is_forward { iter.next() } else { iter.prev() };
                    assert!(completed.expect("readable"));
                    there
                }
                Err(error) => panic!("{error}"),
            };
            assert_eq!(entry(&iter), expected[here]);
            if here < 5 || here + 5 > expected.len() {
                break;
            }
        }
    }
    assert!(turns > 3, "{turns}");
}

#[test]
fn a_seek_that_would_block_goes_on_by_steps() {
    let (fs, engine, tree) = filled();
    let expected = all(&tree, &engine);
    let mut iter = tree.iter(&engine.snapshot(), KeyRange::default());
    evict(&fs);
    let key = &expected[700].0;
    let miss = missed(iter.try_seek(key));
    assert!(miss.file().starts_with("/engine/tables") && miss.bytes() > 5);
    assert_eq!(miss.offset() + miss.bytes() > 0, miss.to_string().contains("offset"));
    let (moved, _) = insist(|| iter.try_next());
    assert!(moved);
    assert_eq!(entry(&iter), expected[700]);
    evict(&fs);
    let far = &expected[1200].0;
    missed(iter.try_seek_before(far));
    assert!(iter.prev().expect("readable"));
    assert_eq!(entry(&iter), expected[1199]);
    evict(&fs);
    missed(iter.try_seek(&expected[20].0));
    assert!(iter.seek(key).expect("readable"), "sought anew, it forgets");
    assert_eq!(entry(&iter), expected[700]);
}
