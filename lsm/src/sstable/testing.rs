//! Seeded randomness and tables for the tests of this crate's formats.

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

use vfs::{FileSystem, SimulatedFileSystem};

use super::writer::FinishedTable;
use super::{ReadMode, Table, TableOptions, TableWriter};
use crate::Result;
use crate::block_cache::BlockCache;
use crate::internal_key::{self, Kind, Trailer};
use crate::range_tombstone::{FragmentedTombstones, RangeTombstone};

/// A seeded stream of numbers (splitmix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`, which is not zero.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.number() % bound as u64).expect("below a usize")
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.number().to_le_bytes()[0]
    }
}

/// An encoded internal key and its value.
pub(crate) type Entry = (Vec<u8>, Vec<u8>);

/// An encoded internal key.
pub(crate) fn key(user_key: &[u8], sequence: u64, kind: Kind) -> Vec<u8> {
    let mut encoded = Vec::new();
    internal_key::encode(&mut encoded, user_key, Trailer::new(sequence, kind));
    encoded
}

/// Up to `count` writes, in order: user keys of all lengths that share
/// prefixes and terminators, up to five versions each, some values large.
pub(crate) fn random_entries(random: &mut Random, count: usize) -> Vec<Entry> {
    let mut entries = Vec::with_capacity(count);
    while entries.len() < count {
        let len = random.below(12);
        let mut user_key: Vec<u8> = (0..len).map(|_| b"\0\x01ab\xff"[random.below(5)]).collect();
        if random.below(20) == 0 {
            user_key.resize(len + random.below(300), b'k');
        }
        for _ in 0..=random.below(4) {
            let kind = [Kind::Put, Kind::Put, Kind::Merge, Kind::Delete][random.below(4)];
            let value_bytes =
                if kind == Kind::Delete { 0 } else { random.below(60) * (1 + random.below(20)) };
            let is_compressible = random.below(2) == 0;
            let value =
                (0..value_bytes).map(|_| if is_compressible { b'v' } else { random.byte() }).collect();
            entries.push((key(&user_key, random.number() % 1_000, kind), value));
        }
    }
    entries.sort_by(|(a, _), (b, _)| internal_key::compare(a, b));
    let write = |(key, _): &Entry| {
        let (user_key, trailer) = internal_key::decode(key).expect("an internal key");
        (user_key.to_vec(), trailer.sequence())
    };
    entries.dedup_by_key(|entry| write(entry));
    entries
}

/// Writes `entries` and `tombstones` as the table `path` of `fs`.
pub(crate) fn write_table(
    fs: &SimulatedFileSystem,
    path: &Path,
    options: &TableOptions,
    entries: &[Entry],
    tombstones: &[RangeTombstone],
) -> FinishedTable {
    let mut writer = TableWriter::create(fs, path, options.clone()).expect("the name is new");
    for (key, value) in entries {
        writer.add(key, value).expect("keys ascend");
    }
    writer.set_range_tombstones(FragmentedTombstones::new(tombstones));
    writer.finish().expect("no faults are planned")
}

/// Opens the table `path` of `fs` with a block cache of its own.
pub(crate) fn open_table(fs: &SimulatedFileSystem, path: &Path) -> Result<Arc<Table>> {
    Table::open(fs.open(path, vfs::Access::Read)?, path, Arc::new(BlockCache::new(1 << 20, 0, 0)))
}

/// The bytes of `path` as another file, changed.
pub(crate) fn write_bytes(bytes: &[u8]) -> (SimulatedFileSystem, &'static Path) {
    let fs = SimulatedFileSystem::new();
    let path = Path::new("/table");
    let file = fs.create(path).expect("the name is new");
    file.write_all_at(&[IoSlice::new(bytes)], 0).expect("no faults are planned");
    (fs, path)
}

/// All entries as a cursor in `mode` sees them, forward.
pub(crate) fn read_forward(table: &Arc<Table>, mode: ReadMode) -> Result<Vec<Entry>> {
    let mut cursor = table.cursor(mode);
    let mut entries = Vec::new();
    let mut on = cursor.seek_to_first()?;
    while on {
        entries.push((cursor.key().to_vec(), cursor.value().to_vec()));
        on = cursor.next()?;
    }
    Ok(entries)
}

/// All entries as a cursor in `mode` sees them, backward, and turned round.
pub(crate) fn read_backward(table: &Arc<Table>, mode: ReadMode) -> Result<Vec<Entry>> {
    let mut cursor = table.cursor(mode);
    let mut entries = Vec::new();
    let mut on = cursor.seek_to_last()?;
    while on {
        entries.push((cursor.key().to_vec(), cursor.value_bytes().to_vec()));
        on = cursor.prev()?;
    }
    entries.reverse();
    Ok(entries)
}
