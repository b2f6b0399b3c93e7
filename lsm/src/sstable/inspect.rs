//! Looks into a table offline: what it says about itself, whether it holds,
//! and what is in it.
//!
//! ```
//! # use std::path::Path;
//! # use vfs::FileSystem;
//! # fn show(fs: &dyn FileSystem) -> lsm::Result<()> {
//! let table = lsm::sstable::inspect::open(fs, Path::new("tables/1-7.sst"))?;
//! println!("{} entries", table.summary().entry_count);
//! for damage in table.verify(|done, total| println!("{done} of {total} bytes"))? {
//!     println!("{damage}");
//! }
//! # Ok(())
//! # }
//! ```

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::block::{Block, tag_of};
use super::block_cursor::BlockCursor;
use super::block_index::{DataBlock, IndexPosition};
use super::filter::key_hash;
use super::table::decode_block;
use super::{Blocking, FilterHash, ReadMode, Table, TableCursor};
use crate::block_cache::BlockCache;
use crate::error::Damage;
use crate::internal_key::{self, Kind};
use crate::range_tombstone::fragmented::Fragment;
use crate::{Error, FilterKey, KeyRange, Result};

/// Opens the table at `path` to look into it.
///
/// # Errors
///
/// - [`Error::Io`]: the file cannot be read.
/// - [`Error::Damaged`]: what every reader needs does not hold: footer, properties, top of the index,
///   filters or range tombstones.
pub fn open(fs: &dyn vfs::FileSystem, path: &Path) -> Result<Inspection> {
    let file = fs.open(path, vfs::Access::Read)?;
    Ok(Inspection { table: Table::open(file, path, Arc::new(BlockCache::new(0, 0, 0)))? })
}

/// A table that is looked into.
#[derive(Debug)]
pub struct Inspection {
    table: Arc<Table>,
}

/// What a table says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The file's length.
    pub file_bytes: u64,
    /// Smallest user key to just past the largest one, range tombstones included.
    pub key_range: KeyRange,
    /// Puts, deletes and merge operands.
    pub entry_count: u64,
    /// Of them, deletes.
    pub tombstone_count: u64,
    /// Of the entries, merge operands.
    pub merge_count: u64,
    /// Range deletes, counted once for each fragment of the key space they cover.
    pub range_tombstone_count: u64,
    /// Least sequence number.
    pub sequence_min: u64,
    /// Greatest sequence number.
    pub sequence_max: u64,
    /// Bytes of keys and values as they were written.
    pub raw_bytes: u64,
    /// Bytes of data blocks as they are stored.
    pub data_bytes: u64,
    /// Data blocks.
    pub data_block_count: u64,
    /// What the bloom filters are built over.
    pub filter_key: FilterKey,
    /// Anonymous memory that the open table takes.
    pub memory_bytes: u64,
}

/// What a write of one key does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sets this value.
    Put(Bytes),
    /// Removes the value.
    Delete,
    /// Changes the value by this operand.
    Merge(Bytes),
}

/// A put, a delete or a merge in a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The user key.
    pub key: Bytes,
    /// Its sequence number.
    pub sequence: u64,
    /// What it does.
    pub change: Change,
}

/// A range delete in a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeDelete {
    /// What it covers, cut where others begin or end.
    pub key_range: KeyRange,
    /// Its sequence number.
    pub sequence: u64,
}

/// The writes of a table, by key and then the newest first.
#[derive(Debug)]
pub struct Writes {
    cursor: TableCursor,
    is_started: bool,
}

impl Inspection {
    /// What the table says about itself.
    pub fn summary(&self) -> Summary {
        let properties = self.table.properties().clone();
        Summary {
            file_bytes: self.table.file_bytes(),
            key_range: properties.key_range,
            entry_count: properties.entry_count,
            tombstone_count: properties.tombstone_count,
            merge_count: properties.merge_count,
            range_tombstone_count: properties.range_tombstone_count,
            sequence_min: properties.sequence_min,
            sequence_max: properties.sequence_max,
            raw_bytes: properties.raw_bytes,
            data_bytes: properties.data_bytes,
            data_block_count: properties.data_block_count,
            filter_key: properties.filter_key,
            memory_bytes: self.table.memory_bytes() as u64,
        }
    }

    /// Puts, deletes and merges in order, up to the first damage.
    pub fn writes(&self) -> Writes {
        Writes { cursor: self.table.cursor(ReadMode::Compaction), is_started: false }
    }

    /// Range deletes in order.
    pub fn range_deletes(&self) -> Vec<RangeDelete> {
        let mut deletes = Vec::new();
        for fragment in self.table.range_tombstones().iter() {
            let key_range = KeyRange {
                start: Bytes::copy_from_slice(fragment.start),
                end: Bytes::copy_from_slice(fragment.end),
            };
            let delete = |&sequence| RangeDelete { key_range: key_range.clone(), sequence };
            deletes.extend(fragment.sequences.iter().map(delete));
        }
        deletes
    }

    /// Reads all of the table and returns each damage found, an
    /// [`Error::Damaged`] with file and offset: checksums, the order of keys,
    /// index, filters and counts. Tells `progress` how many bytes of data
    /// blocks, of how many, are done.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]: the file cannot be read.
    pub fn verify(&self, mut progress: impl FnMut(u64, u64)) -> Result<Vec<Error>> {
        let mut check = Check {
            table: &self.table,
            last_key: Vec::new(),
            entry_count: 0,
            data_bytes: 0,
            found: Vec::new(),
        };
        let total = self.table.properties().data_bytes;
        let mut position = self.table.index_first(Blocking::Allowed);
        loop {
            let next = match position {
                Ok(Some(position)) => check.indexed_block(position).map(|()| position),
                Ok(None) => break,
                Err(error) => Err(error),
            };
            progress(check.data_bytes, total);
            position = match next {
                Ok(next) => self.table.index_next(next, Blocking::Allowed),
                Err(damage @ Error::Damaged { .. }) => {
                    // Without the index nothing tells where the next block is.
                    check.found.push(damage);
                    return Ok(check.found);
                }
                Err(error) => return Err(error),
            };
        }
        check.counts();
        check.last_key.clear();
        check.range_tombstones();
        Ok(check.found)
    }
}

impl Iterator for Writes {
    type Item = Result<Write>;

    fn next(&mut self) -> Option<Result<Write>> {
        let is_on = match (self.is_started, self.cursor.is_valid()) {
            (false, _) => self.cursor.seek_to_first(),
            (true, true) => self.cursor.next(),
            (true, false) => return None,
        };
        self.is_started = true;
        match is_on {
            Ok(true) => {
                let (user_key, trailer) = internal_key::decode(self.cursor.key())?;
                let change = match trailer.kind()? {
                    Kind::Put => Change::Put(self.cursor.value_bytes()),
                    Kind::Merge => Change::Merge(self.cursor.value_bytes()),
                    Kind::Delete | Kind::RangeDelete => Change::Delete,
                };
                Some(Ok(Write {
                    key: Bytes::copy_from_slice(user_key),
                    sequence: trailer.sequence(),
                    change,
                }))
            }
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

/// A verification under way.
struct Check<'a> {
    table: &'a Arc<Table>,
    /// Of the blocks before; empty before the first one.
    last_key: Vec<u8>,
    entry_count: u64,
    data_bytes: u64,
    found: Vec<Error>,
}

impl Check<'_> {
    /// Verifies a data block; its damage is found, the index's and the disk's returned.
    fn indexed_block(&mut self, position: IndexPosition) -> Result<()> {
        let separator = self.table.index_separator(position)?;
        let data_block = self.table.index_entry(position, Blocking::Allowed)?;
        let checked = match self.read(data_block)? {
            Ok(block) => self.entries(block, &separator),
            Err(damage) => Err(damage),
        };
        if let Err(damage) = checked {
            self.found.push(self.table.damaged(damage, data_block.handle.offset));
        }
        // Whatever this block holds, the next one's keys come behind its separator.
        self.last_key.clear();
        self.last_key.extend_from_slice(&separator);
        self.data_bytes += u64::from(data_block.handle.stored_bytes);
        Ok(())
    }

    fn read(&self, data_block: DataBlock) -> Result<Result<Block, Damage>> {
        let (file, blocks_end) = self.table.file();
        let range = match data_block.handle.range(blocks_end) {
            Ok(range) => range,
            Err(damage) => return Ok(Err(damage)),
        };
        let mut sealed = vec![0; range.len()];
        file.read_exact_at(&mut sealed, data_block.handle.offset)?;
        Ok(decode_block(&sealed.into(), data_block))
    }

    fn entries(&mut self, block: Block, separator: &[u8]) -> Result<(), Damage> {
        let rule = self.table.properties().filter_key;
        let mut tags = block.tags().to_vec().into_iter();
        let is_tagged = tags.len() > 0;
        let mut cursor = BlockCursor::new(block);
        let mut is_on = cursor.seek_to_first()?;
        while is_on {
            let (user_key, trailer) =
                internal_key::decode(cursor.key()).ok_or(Damage("a key is too short"))?;
            if is_tagged && tags.next() != Some(tag_of(key_hash(user_key))) {
                return Err(Damage("the tags hide a key"));
            }
            if !matches!(trailer.kind(), Some(Kind::Put | Kind::Delete | Kind::Merge)) {
                return Err(Damage("a key is of no kind that stands in a data block"));
            }
            if !self.last_key.is_empty() && internal_key::compare(&self.last_key, cursor.key()).is_ge() {
                return Err(Damage("keys are out of order"));
            }
            self.within_properties(user_key, trailer.sequence())?;
            if !self.table.may_contain(user_key, FilterHash::of_key(user_key, rule)) {
                return Err(Damage("the filter hides a key"));
            }
            self.entry_count += 1;
            self.last_key.clear();
            self.last_key.extend_from_slice(cursor.key());
            is_on = cursor.next()?;
        }
        if tags.len() > 0 {
            return Err(Damage("there are more tags than keys"));
        }
        if internal_key::compare(&self.last_key, separator).is_gt() {
            return Err(Damage("the index leads past a key"));
        }
        Ok(())
    }

    fn within_properties(&self, user_key: &[u8], sequence: u64) -> Result<(), Damage> {
        let properties = self.table.properties();
        if !(properties.sequence_min..=properties.sequence_max).contains(&sequence) {
            return Err(Damage("a sequence number is not among those that the properties name"));
        }
        if !properties.key_range.contains(user_key) {
            return Err(Damage("a key is not in the range that the properties name"));
        }
        match internal_key::decode(&self.last_key) {
            Some((last_key, last))
                if last_key == user_key && last.sequence() == sequence && last.kind().is_some() =>
            {
                Err(Damage("two writes of a key have one sequence number"))
            }
            _ => Ok(()),
        }
    }

    /// Verifies the range tombstones, whose block is sound, against the properties.
    fn range_tombstones(&mut self) {
        let properties = self.table.properties();
        let fragments = self.table.range_tombstones();
        let of_fragment = |fragment: Fragment<'_>| {
            let mut sequences = fragment.sequences.iter();
            sequences.try_for_each(|sequence| self.within_properties(fragment.start, *sequence))
        };
        let count: usize = fragments.iter().map(|fragment| fragment.sequences.len()).sum();
        let checked = fragments.iter().try_for_each(of_fragment).and_then(|()| {
            let counts_right = count as u64 == properties.range_tombstone_count;
            let ends_right = fragments.key_range().is_none_or(|range| range.end <= properties.key_range.end);
            if counts_right && ends_right {
                Ok(())
            } else {
                Err(Damage("the properties do not describe the range tombstones"))
            }
        });
        if let Err(damage) = checked {
            self.found.push(self.table.damaged(damage, self.table.properties_offset()));
        }
    }

    fn counts(&mut self) {
        let properties = self.table.properties();
        if self.found.is_empty()
            && (self.entry_count, self.data_bytes) != (properties.entry_count, properties.data_bytes)
        {
            let offset = self.table.properties_offset();
            self.found.push(
                self.table.damaged(Damage("the properties count other entries than there are"), offset),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use vfs::SimulatedFileSystem;

    use super::super::testing::{Random, random_entries, write_bytes, write_table};
    use super::super::{Compression, TableOptions};
    use super::*;
    use crate::range_tombstone::RangeTombstone;

    #[test]
    fn a_sound_table_shows_what_was_written() {
        let entries = random_entries(&mut Random::new(4), 3_000);
        let fs = SimulatedFileSystem::new();
        let path = Path::new("/table");
        let deleted = RangeTombstone { start: "m".into(), end: "n".into(), sequence: 5 };
        let options = TableOptions { index_partition_bytes: 1_000, ..TableOptions::default() };
        write_table(&fs, path, &options, &entries, std::slice::from_ref(&deleted));
        let inspection = open(&fs, path).unwrap();
        assert_eq!(inspection.summary().entry_count, entries.len() as u64);
        assert_eq!(inspection.range_deletes().len(), 1);
        let writes: Vec<_> = inspection.writes().map(Result::unwrap).collect();
        assert_eq!(writes.len(), entries.len());
        assert!(writes.iter().zip(&entries).all(|(write, (key, value))| {
            let written: &[u8] = match &write.change {
                Change::Put(value) | Change::Merge(value) => value,
                Change::Delete => b"",
            };
            write.key == internal_key::user_key(key) && written == value
        }));
        let mut last = (0, 0);
        assert_eq!(format!("{:?}", inspection.verify(|done, total| last = (done, total)).unwrap()), "[]");
        assert_eq!(last.0, last.1);
    }

    #[test]
    fn every_damaged_block_is_named_by_its_offset() {
        let entries = random_entries(&mut Random::new(4), 300);
        let fs = SimulatedFileSystem::new();
        let options =
            TableOptions { compression: Compression::Raw, block_bytes: 2_000, ..TableOptions::default() };
        let finished = write_table(&fs, Path::new("/table"), &options, &entries, &[]);
        let mut bytes = vec![0; usize::try_from(finished.file_bytes).unwrap()];
        finished.file.read_exact_at(&mut bytes, 0).unwrap();
        let data_bytes = usize::try_from(finished.properties.data_bytes).unwrap();
        bytes[10] ^= 1;
        bytes[data_bytes / 2] ^= 1;
        let (fs, path) = write_bytes(&bytes);
        let found = open(&fs, path).unwrap().verify(|_, _| {}).unwrap();
        let offsets: Vec<_> = found
            .iter()
            .map(|error| match error {
                Error::Damaged { offset, .. } => usize::try_from(*offset).unwrap(),
                other => panic!("{other}"),
            })
            .collect();
        assert_eq!(offsets.len(), 2);
        assert_eq!(offsets[0], 0);
        assert!(offsets[1] <= data_bytes / 2 && offsets[1] > data_bytes / 4);
        assert!(open(&fs, path).unwrap().writes().next().unwrap().is_err());
    }
}
