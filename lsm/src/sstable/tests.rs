//! Tables as a whole: against a sorted list, damaged, cut off, pinned.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use vfs::{Access, FileSystem, SimulatedFileSystem};

use super::testing::{
    Entry, Random, key, open_table, random_entries, read_backward, read_forward, write_bytes, write_table,
};
use super::{Blocking, Compression, FilterHash, ReadMode, Table, TableOptions, TableWriter};
use crate::internal_key::{self, Kind, LookupKey, SEQUENCE_MAX, Trailer};
use crate::range_tombstone::{FragmentedTombstones, RangeTombstone};
use crate::{Error, FilterKey, FilterKind, KeyRange, Result};

const PATH: &str = "/table";

fn random_options(random: &mut Random) -> TableOptions {
    TableOptions {
        compression: [Compression::Raw, Compression::Lz4][random.below(2)],
        filter_kind: [FilterKind::Bloom, FilterKind::BlockedBloom][random.below(2)],
        filter_key: [FilterKey::WholeKey, FilterKey::ThroughTerminator([0, 1])][random.below(2)],
        block_bytes: [64, 300, 4096, 1 << 20][random.below(4)],
        index_partition_bytes: [64, 500, 1 << 20][random.below(3)],
    }
}

fn random_tombstones(random: &mut Random) -> Vec<RangeTombstone> {
    let count = random.below(20);
    let mut bound = || Bytes::copy_from_slice(&[b"\0\x01ab\xff"[random.below(5)], random.byte()]);
    let mut tombstones: Vec<_> = (0..count)
        .map(|sequence| RangeTombstone { start: bound(), end: bound(), sequence: sequence as u64 })
        .collect();
    tombstones.retain(|tombstone| tombstone.start < tombstone.end);
    tombstones
}

/// Everything that can be read from a table, twice and in every way.
fn read_everything(table: &Arc<Table>) -> Result<Vec<Entry>> {
    let forward = read_forward(table, ReadMode::Compaction)?;
    for mode in [ReadMode::Scan, ReadMode::Hot, ReadMode::Hot] {
        assert_eq!(read_forward(table, mode)?, forward);
    }
    assert_eq!(read_backward(table, ReadMode::Hot)?, forward);
    assert_eq!(read_backward(table, ReadMode::Compaction)?, forward);
    Ok(forward)
}

#[test]
fn a_table_agrees_with_a_sorted_list_under_all_options() {
    for seed in 0..150 {
        let mut random = Random::new(seed);
        let options = random_options(&mut random);
        let count = [0, 1, 20, 400, 2_000][random.below(5)];
        let entries = random_entries(&mut random, count);
        let tombstones = random_tombstones(&mut random);
        let fs = SimulatedFileSystem::new();
        let finished = write_table(&fs, Path::new(PATH), &options, &entries, &tombstones);
        let table = open_table(&fs, Path::new(PATH)).unwrap();
        assert_eq!(read_everything(&table).unwrap(), entries, "seed {seed}");
        assert_eq!(*table.properties(), finished.properties);
        assert_eq!(table.file_bytes(), finished.file_bytes);
        check_properties(&table, &entries, &tombstones);
        check_seeks(&table, &entries, &mut random);
        check_gets(&table, &entries, options.filter_key, &mut random);
    }
}

fn check_properties(table: &Arc<Table>, entries: &[Entry], tombstones: &[RangeTombstone]) {
    let properties = table.properties();
    assert_eq!(properties.entry_count, entries.len() as u64);
    let trailer = |entry: &Entry| internal_key::trailer(&entry.0);
    let deletes = entries.iter().filter(|entry| trailer(entry).kind() == Some(Kind::Delete)).count();
    assert_eq!(properties.tombstone_count, deletes as u64);
    let sequences = entries.iter().map(|entry| trailer(entry).sequence());
    let sequences = sequences.chain(tombstones.iter().map(|tombstone| tombstone.sequence));
    let (min, max) =
        sequences.fold((u64::MAX, 0), |(min, max), sequence| (min.min(sequence), max.max(sequence)));
    assert_eq!((properties.sequence_min, properties.sequence_max), (min.min(max), max));
    let range = &properties.key_range;
    for (key, _) in entries {
        assert!((&*range.start..&*range.end).contains(&internal_key::user_key(key)));
    }
    for tombstone in tombstones {
        assert!(range.start <= tombstone.start && tombstone.end <= range.end);
    }
    let fragments = FragmentedTombstones::new(tombstones);
    assert!(table.range_tombstones().iter().eq(fragments.iter()));
    let whole = table.approximate_bytes(&KeyRange::default()).unwrap();
    assert!(whole >= properties.data_bytes && whole <= table.file_bytes());
}

fn check_seeks(table: &Arc<Table>, entries: &[Entry], random: &mut Random) {
    for mode in [ReadMode::Hot, ReadMode::Compaction] {
        let mut cursor = table.cursor(mode);
        for _ in 0..200 {
            let other = random_entries(random, 1).remove(0).0;
            let target = match random.below(2) {
                1 if !entries.is_empty() => entries[random.below(entries.len())].0.clone(),
                _ => other,
            };
            let at = entries.partition_point(|(key, _)| internal_key::compare(key, &target).is_lt());
            assert_eq!(cursor.seek(&target).unwrap(), at < entries.len());
            assert_eq!(cursor.is_valid().then(|| cursor.key()), entries.get(at).map(|(key, _)| &key[..]));
            if cursor.is_valid() && cursor.prev().unwrap() {
                assert_eq!(cursor.key(), entries[at - 1].0);
                assert!(cursor.next().unwrap());
                assert_eq!(cursor.value(), entries[at].1);
            }
            assert_eq!(cursor.seek_before(&target).unwrap(), at > 0);
            assert_eq!(
                cursor.is_valid().then(|| cursor.key()),
                at.checked_sub(1).map(|at| &entries[at].0[..])
            );
        }
    }
}

fn check_gets(table: &Arc<Table>, entries: &[Entry], rule: FilterKey, random: &mut Random) {
    let mut versions = BTreeMap::<&[u8], Vec<(Trailer, &[u8])>>::new();
    for (key, value) in entries {
        versions.entry(internal_key::user_key(key)).or_default().push((internal_key::trailer(key), value));
    }
    for (user_key, versions) in &versions {
        for sequence in [0, random.number() % 1_000, SEQUENCE_MAX] {
            let expected = versions.iter().find(|(trailer, _)| trailer.sequence() <= sequence);
            let found = table.get(&LookupKey::new(user_key, sequence, rule), Blocking::Allowed).unwrap();
            let found = found.as_ref().map(|found| (found.sequence, Some(found.kind), &*found.value));
            assert_eq!(found, expected.map(|(trailer, value)| (trailer.sequence(), trailer.kind(), *value)));
        }
        let filter_key = &user_key[..rule.filter_key_bytes(user_key)];
        assert!(table.may_contain(filter_key, FilterHash::of_key(filter_key, rule)));
    }
    for _ in 0..100 {
        let other = random_entries(random, 1).remove(0).0;
        let user_key = internal_key::user_key(&other);
        if !versions.contains_key(user_key) {
            for rule in [FilterKey::WholeKey, FilterKey::ThroughTerminator([0, 1])] {
                assert_eq!(
                    table.get(&LookupKey::new(user_key, SEQUENCE_MAX, rule), Blocking::Allowed).unwrap(),
                    None
                );
            }
        }
    }
}

/// Twelve writes, the last one of `kind`.
fn small_entries(kind: Kind) -> Vec<Entry> {
    let value = |i: u8| if i.is_multiple_of(2) { vec![i; 70] } else { vec![i, 1, 2, 3] };
    let kind = |i| if i == 11 { kind } else { Kind::Put };
    (0..12).map(|i| (key(format!("row{i:02}").as_bytes(), 40 - u64::from(i), kind(i)), value(i))).collect()
}

/// Two levels of index, both compressions, a filter and range tombstones in little.
fn small_table(
    compression: Compression,
    filter_kind: FilterKind,
) -> (Vec<u8>, Vec<Entry>, Vec<RangeTombstone>) {
    let entries = small_entries(Kind::Merge);
    let tombstones = vec![RangeTombstone { start: "row03".into(), end: "row07".into(), sequence: 50 }];
    let options = TableOptions {
        compression,
        filter_kind,
        filter_key: FilterKey::WholeKey,
        block_bytes: 200,
        index_partition_bytes: 64,
    };
    let fs = SimulatedFileSystem::new();
    let finished = write_table(&fs, Path::new(PATH), &options, &entries, &tombstones);
    let mut bytes = vec![0; usize::try_from(finished.file_bytes).unwrap()];
    finished.file.read_exact_at(&mut bytes, 0).unwrap();
    (bytes, entries, tombstones)
}

fn read_damaged(bytes: &[u8]) -> Result<(Vec<Entry>, Arc<Table>)> {
    let (fs, path) = write_bytes(bytes);
    let table = open_table(&fs, path)?;
    Ok((read_everything(&table)?, table))
}

#[test]
fn every_changed_byte_is_reported_as_damage_with_its_file() {
    for compression in [Compression::Raw, Compression::Lz4] {
        let (good, _, _) = small_table(compression, FilterKind::default());
        assert!(read_damaged(&good).is_ok());
        for at in 0..good.len() {
            for flip in [1, 0x80, 0xff] {
                let mut bytes = good.clone();
                bytes[at] ^= flip;
                match read_damaged(&bytes) {
                    Err(Error::Damaged { file, offset, .. }) => {
                        assert_eq!(file, Path::new(PATH));
                        assert!(offset <= at as u64, "byte {at} was reported at {offset}");
                    }
                    other => panic!("byte {at} of {compression:?}: {other:?}"),
                }
            }
        }
    }
}

#[test]
fn a_table_cut_off_anywhere_does_not_open() {
    let (good, _, _) = small_table(Compression::Lz4, FilterKind::default());
    for len in 0..good.len() {
        let (fs, path) = write_bytes(&good[..len]);
        assert!(matches!(open_table(&fs, path), Err(Error::Damaged { .. })), "{len}");
    }
}

#[test]
fn forged_tables_with_valid_checksums_never_panic() {
    let (good, _, _) = small_table(Compression::Lz4, FilterKind::default());
    let mut random = Random::new(99);
    for _ in 0..10_000 {
        let mut bytes = good.clone();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len());
            bytes[at] = random.byte();
        }
        restore_checksums(&mut bytes, &good);
        // What comes out may be anything, as long as something does; modes may differ on what is out of order.
        let (fs, path) = write_bytes(&bytes);
        let Ok(table) = open_table(&fs, path) else { continue };
        for mode in [ReadMode::Hot, ReadMode::Compaction] {
            let _ = read_forward(&table, mode);
            let _ = read_backward(&table, mode);
        }
        let _ = table.get(&LookupKey::new(b"row04", SEQUENCE_MAX, FilterKey::WholeKey), Blocking::Allowed);
        let _ = table.cursor(ReadMode::Scan).seek_before(&key(b"row08", 9, Kind::Put));
        let _ = table.approximate_bytes(&KeyRange { start: "row02".into(), end: "row08".into() });
    }
}

/// Makes the checksums of blocks and footer fit again; `good` tells where the blocks are.
fn restore_checksums(bytes: &mut [u8], good: &[u8]) {
    let mut start = 0;
    for end in 5..=good.len() - 64 {
        if end < start + 5 {
            continue;
        }
        let crc = crc32fast::hash(&good[start..end - 4]);
        if good[end - 4..end] == crc.to_le_bytes() {
            let crc = crc32fast::hash(&bytes[start..end - 4]);
            bytes[end - 4..end].copy_from_slice(&crc.to_le_bytes());
            start = end;
        }
    }
    let footer = good.len() - 64;
    assert_eq!(start, footer, "blocks fill the file up to its footer");
    let crc = crc32fast::hash(&bytes[footer..footer + 52]);
    bytes[footer + 52..footer + 56].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn golden_tables_are_written_to_the_byte_and_still_read() {
    let (raw, lz4) = (Compression::Raw, Compression::Lz4);
    for (compression, filter_kind, name) in [
        (raw, FilterKind::BlockedBloom, "sstable-v3-raw"),
        (lz4, FilterKind::BlockedBloom, "sstable-v3-lz4"),
        (raw, FilterKind::Bloom, "sstable-v3-bloom"),
    ] {
        let (bytes, ..) = small_table(compression, filter_kind);
        let path = golden(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &bytes).unwrap();
        }
        let golden = std::fs::read(&path).unwrap();
        assert!(golden == bytes, "{name} differs: a new format needs a new version and keeps this file");
        check_small_table(&golden, Kind::Merge);
    }
}

#[test]
fn golden_tables_of_older_versions_are_still_read() {
    for (name, kind) in [
        ("sstable-v1-raw", Kind::Put),
        ("sstable-v1-lz4", Kind::Put),
        ("sstable-v2-raw", Kind::Merge),
        ("sstable-v2-lz4", Kind::Merge),
    ] {
        check_small_table(&std::fs::read(golden(name)).unwrap(), kind);
    }
}

fn golden(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Checks that `bytes` hold what [`small_table`] does, with entries of `kind`.
fn check_small_table(bytes: &[u8], kind: Kind) {
    let (read, table) = read_damaged(bytes).unwrap();
    assert_eq!(read, small_entries(kind));
    assert_eq!(table.properties().merge_count, u64::from(kind == Kind::Merge));
    assert_eq!(table.range_tombstones().len(), 1);
    check_gets(&table, &read, FilterKey::WholeKey, &mut Random::new(1));
}

#[test]
fn keys_out_of_order_and_of_other_kinds_are_refused() {
    let fs = SimulatedFileSystem::new();
    let mut writer = TableWriter::create(&fs, Path::new(PATH), TableOptions::default()).unwrap();
    assert!(matches!(writer.add(b"short", b""), Err(Error::OutOfOrder { .. })));
    assert!(matches!(writer.add(&key(b"a", 1, Kind::RangeDelete), b"b"), Err(Error::OutOfOrder { .. })));
    writer.add(&key(b"b", 5, Kind::Put), b"").unwrap();
    for refused in [key(b"b", 5, Kind::Put), key(b"b", 6, Kind::Put), key(b"a", 1, Kind::Put)] {
        assert!(matches!(writer.add(&refused, b""), Err(Error::OutOfOrder { .. })));
    }
    writer.add(&key(b"b", 4, Kind::Delete), b"").unwrap();
    assert_eq!(writer.finish().unwrap().properties.entry_count, 2);
    let again = TableWriter::create(&fs, Path::new(PATH), TableOptions::default());
    assert!(matches!(again, Err(Error::Io(_))), "tables are never overwritten");
}

#[test]
fn only_range_tombstones_make_a_table_whose_gets_find_nothing() {
    let tombstones = [RangeTombstone { start: "c".into(), end: "f".into(), sequence: 9 }];
    let fs = SimulatedFileSystem::new();
    write_table(&fs, Path::new(PATH), &TableOptions::default(), &[], &tombstones);
    let table = open_table(&fs, Path::new(PATH)).unwrap();
    assert_eq!(table.properties().key_range, KeyRange { start: "c".into(), end: "f".into() });
    assert_eq!(table.get(&LookupKey::new(b"d", 20, FilterKey::WholeKey), Blocking::Allowed).unwrap(), None);
    assert_eq!(table.range_tombstones().covering_sequence(b"d", 20), Some(9));
    assert_eq!(table.range_tombstones().covering_sequence(b"f", 20), None);
}

#[test]
fn estimates_come_close_to_the_file() {
    let mut random = Random::new(5);
    let entries = random_entries(&mut random, 20_000);
    let fs = SimulatedFileSystem::new();
    let options = TableOptions { compression: Compression::Raw, ..TableOptions::default() };
    let mut writer = TableWriter::create(&fs, Path::new(PATH), options).unwrap();
    for (key, value) in &entries {
        writer.add(key, value).unwrap();
    }
    let estimated = writer.estimated_bytes();
    let actual = writer.finish().unwrap().file_bytes;
    assert!(estimated.abs_diff(actual) < actual / 50 + 1_000, "{estimated} {actual}");
}

#[test]
fn finished_tables_survive_a_power_cut_once_the_directory_is_synced() {
    let mut random = Random::new(8);
    let entries = random_entries(&mut random, 500);
    for seed in 0..20 {
        let fs = SimulatedFileSystem::new();
        write_table(&fs, Path::new(PATH), &TableOptions::default(), &entries, &[]);
        fs.sync_dir(Path::new("/")).unwrap();
        let table = open_table(&fs.power_cut(seed), Path::new(PATH)).unwrap();
        assert_eq!(read_everything(&table).unwrap(), entries);
    }
}

#[test]
fn scans_leave_the_block_cache_as_it_was_and_hot_reads_stay_in_bounds() {
    let mut random = Random::new(21);
    let entries = random_entries(&mut random, 5_000);
    let fs = SimulatedFileSystem::new();
    write_table(&fs, Path::new(PATH), &TableOptions::default(), &entries, &[]);
    let bytes_max = 64 << 10;
    let cache = Arc::new(crate::block_cache::BlockCache::new(bytes_max, 0, 0));
    let file = fs.open(Path::new(PATH), Access::Read).unwrap();
    let table = Table::open(file, Path::new(PATH), Arc::clone(&cache)).unwrap();
    for mode in [ReadMode::Scan, ReadMode::Compaction] {
        assert_eq!(read_forward(&table, mode).unwrap(), entries);
        assert_eq!(cache.bytes(), 0);
    }
    assert_eq!(read_forward(&table, ReadMode::Hot).unwrap(), entries);
    assert!((1..=bytes_max).contains(&cache.bytes()), "{}", cache.bytes());
}

#[test]
fn a_cold_table_names_each_block_that_it_lacks_until_it_is_fetched() {
    let mut random = Random::new(31);
    for round in 0..12 {
        let entries = random_entries(&mut random, 1_500);
        let fs = SimulatedFileSystem::new();
        write_table(&fs, Path::new(PATH), &random_options(&mut random), &entries, &[]);
        let table = open_table(&fs, Path::new(PATH)).unwrap();
        fs.evict(Path::new(PATH), 0..table.file_bytes());
        let mode = [ReadMode::Hot, ReadMode::Scan][round % 2];
        let mut cursor = table.cursor(mode);
        cursor.set_blocking(Blocking::Forbidden);
        let mut missed = Vec::new();
        for (at, (key, value)) in entries.iter().enumerate() {
            while let Err(error) = if at == 0 { cursor.seek_to_first() } else { cursor.seek(key) } {
                let Error::WouldBlock(miss) = error else { panic!("{error:?}") };
                assert_eq!(miss.file(), Path::new(PATH));
                missed.push((miss.offset(), miss.bytes()));
                miss.fetch().unwrap();
            }
            assert_eq!((cursor.key(), cursor.value()), (&key[..], &value[..]));
        }
        let fetched = missed.len();
        assert!(fetched as u64 > table.properties().data_block_count / 64, "pages hold several blocks");
        assert!(missed.iter().all(|(offset, bytes)| offset + bytes <= table.file_bytes()));
        for (key, _) in &entries {
            let lookup = LookupKey::new(
                internal_key::user_key(key),
                internal_key::trailer(key).sequence(),
                FilterKey::WholeKey,
            );
            let found = table.get(&lookup, Blocking::Forbidden).unwrap().expect("there");
            assert_eq!(found.sequence, lookup.sequence(), "what was fetched stays in memory");
        }
    }
}
