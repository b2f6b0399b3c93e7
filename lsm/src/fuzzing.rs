//! The decoders of this crate's formats, for `lsm/fuzz`: each takes any bytes
//! and must return, whatever they are, without having allocated much more.
//! Checksums are left out, since a fuzzer would never get past them.

mod damaged_log;
#[cfg(test)]
mod replay;

use std::path::Path;

use bytes::Bytes;
use vfs::{Access, FileSystem};

use crate::batch::Operations;
use crate::commit_log::segment::{Descriptor, take_record};
use crate::frame::{FrameReader, FrameWriter};
use crate::internal_key::{self, LookupKey, SEQUENCE_MAX};
use crate::manifest::{Edit, PRELUDE, PRELUDE_V1, TreeRecord};
use crate::range_tombstone::FragmentedTombstones;
use crate::sstable::block::Block;
use crate::sstable::block_cursor::BlockCursor;
use crate::sstable::block_index::{BlockIndex, IndexFile};
use crate::sstable::format::{FOOTER_BYTES, Footer, FormatVersion};
use crate::sstable::{FilterHash, Properties, filter, format};
use crate::{FileId, FilterKey, FilterKind, varint};

pub use self::damaged_log::damaged_log;

/// Takes any bytes, and returns.
pub type Decoder = fn(&[u8]);

/// Each decoder and the name of its fuzz target.
pub const TARGETS: [(&str, Decoder); 12] = [
    ("batch", batch),
    ("block", block),
    ("block_envelope", block_envelope),
    ("block_index", block_index),
    ("damaged_log", damaged_log),
    ("filter", filter),
    ("footer_and_properties", footer_and_properties),
    ("frames", frames),
    ("log_segment", log_segment),
    ("manifest", manifest),
    ("range_tombstones", range_tombstones),
    ("varints", varints),
];

/// A write batch, as the log holds it.
pub fn batch(bytes: &[u8]) {
    for operation in Operations::new(bytes) {
        let Ok(operation) = operation else { return };
        assert!(operation.key.end <= bytes.len() && operation.value.end <= bytes.len());
        internal_key::decode(&bytes[operation.key]);
    }
}

/// A data block, walked and searched in both directions.
pub fn block(bytes: &[u8]) {
    let Ok(block) = Block::new(Bytes::copy_from_slice(bytes)) else { return };
    let target = LookupKey::new(&bytes[..bytes.len().min(8)], SEQUENCE_MAX / 2, FilterKey::WholeKey);
    let _ = block.clone().find(target.encoded(), target.key_hash());
    let mut cursor = BlockCursor::new(block);
    let mut is_on = cursor.seek_to_first();
    while let Ok(true) = is_on {
        is_on = cursor.next();
    }
    let mut is_on = cursor.seek_to_last();
    while let Ok(true) = is_on {
        is_on = cursor.prev();
    }
    let _ = cursor.seek(target.encoded());
    let _ = cursor.seek_before(target.encoded());
}

/// The top index block of a table whose blocks are `bytes`, too.
pub fn block_index(bytes: &[u8]) {
    let blocks = Bytes::copy_from_slice(bytes);
    for levels in [1, 2] {
        let Ok(top) = Block::new(blocks.clone()) else { return };
        let Ok(index) = BlockIndex::new(top, levels, 0) else { return };
        let file = IndexFile { blocks: &blocks, top_offset: 0, read: None };
        let mut position = index.first(&file);
        while let Ok(Some(at)) = position {
            let _ = index.entry(&file, at);
            let _ = index.separator(&file, at);
            position = index.next(&file, at);
        }
        let mut position = index.last(&file);
        while let Ok(Some(at)) = position {
            position = index.prev(&file, at);
        }
        let target = LookupKey::new(b"key", SEQUENCE_MAX, FilterKey::WholeKey);
        let _ = index.seek(&file, target.encoded());
    }
}

/// A filter index and a filter partition.
pub fn filter(bytes: &[u8]) {
    let _ = filter::decode_index(bytes);
    for kind in [FilterKind::Bloom, FilterKind::BlockedBloom] {
        if let Ok(partition) = filter::Partition::decode(kind, bytes) {
            let filter = filter::Filter::new(FilterKey::WholeKey, vec![(Box::new([0xff]), partition)]);
            filter.may_contain(b"key", FilterHash::of_key(b"key", FilterKey::WholeKey));
        }
    }
}

/// A table's footer and its properties block.
pub fn footer_and_properties(bytes: &[u8]) {
    if let Some(footer) = bytes.first_chunk::<FOOTER_BYTES>() {
        let mut footer = *footer;
        Footer::restore_checksum(&mut footer);
        let _ = Footer::decode(&footer);
    }
    for version in [FormatVersion::V1, FormatVersion::NEWEST] {
        let _ = Properties::decode(bytes, version);
    }
}

/// A file of frames that were written and then damaged: payloads and damage are
/// drawn from `bytes`. What is read back is what was written, up to some frame.
pub fn frames(bytes: &[u8]) {
    const ID: FileId = FileId { epoch: 3, number: 9 };
    const PRELUDE: [u8; 8] = *b"FUZZING\x01";
    let fs = vfs::SimulatedFileSystem::new();
    let path = Path::new("/frames");
    let Some(([first, damages], mut rest)) = bytes.split_first_chunk() else { return };
    let mut take = |most: u8| {
        let (taken, left) = rest.split_at(usize::from(most).min(rest.len()));
        rest = left;
        taken
    };
    let damages: Vec<_> = (0..damages % 8).map(|_| take(3)).collect();
    let mut written = vec![take(first % 64).to_vec()];
    let file = fs.create(path).expect("the name is new");
    let mut writer = FrameWriter::start(file, ID, PRELUDE, &written[0]).expect("no faults are planned");
    while let &[length] = take(1) {
        let payload = take(length);
        let twice = length % 2 == 1;
        let appended = if twice { writer.append_twice(payload) } else { writer.append(payload, &[]) };
        appended.expect("no faults are planned");
        written.extend(std::iter::repeat_n(payload.to_vec(), 1 + usize::from(twice)));
    }
    let end = writer.offset();
    for damage in damages {
        let &[high, low, bit] = damage else { continue };
        fs.flip_bit(path, u64::from(u16::from_be_bytes([high, low])) % end, u32::from(bit % 8));
    }
    for of_twins in [false, true] {
        let file = fs.open(path, Access::Read).expect("it is there");
        let Ok(Some(mut reader)) = FrameReader::open(file, path, ID, &[PRELUDE]) else { return };
        if of_twins {
            // They skip what they take for the other one.
            while let Ok(Some(payload)) = reader.next_of_twins() {
                assert!(written.iter().any(|written| written == payload));
            }
        } else {
            let mut expected = written.iter();
            while let Ok(Some(payload)) = reader.next() {
                assert_eq!(expected.next().map(|payload| &payload[..]), Some(payload));
            }
        }
    }
}

/// A segment's description, and a group of records with their batches.
pub fn log_segment(mut bytes: &[u8]) {
    let _ = Descriptor::decode(bytes);
    while !bytes.is_empty() {
        let Ok(record) = take_record(&mut bytes) else { return };
        assert!(record.last_sequence() >= record.first_sequence);
        batch(record.batch);
    }
}

/// A manifest's frames: a snapshot, an edit, and one applied to the other.
pub fn manifest(bytes: &[u8]) {
    for prelude in [PRELUDE, PRELUDE_V1] {
        let edit = Edit::decode(bytes, prelude);
        if let Ok(edit) = &edit {
            assert_eq!(Edit::decode(&edit.encode(), PRELUDE).as_ref(), Ok(edit));
        }
        let Ok(mut record) = TreeRecord::decode(bytes, prelude) else { continue };
        assert_eq!(TreeRecord::decode(&record.encode(), PRELUDE).as_ref(), Ok(&record));
        record.sequence_max();
        let removal = Edit { removed: record.tables.keys().copied().collect(), ..Edit::default() };
        record.apply(&removal).expect("all of them are there");
    }
}

/// The envelope of a block, LZ4 included.
pub fn block_envelope(bytes: &[u8]) {
    let _ = format::verify(bytes);
    let _ = format::unseal(&Bytes::copy_from_slice(bytes));
}

/// A range tombstone block.
pub fn range_tombstones(bytes: &[u8]) {
    if let Ok(fragments) = FragmentedTombstones::decode(bytes) {
        let merged = FragmentedTombstones::merge([&fragments]);
        assert!(merged.iter().is_sorted_by(|a, b| a.end <= b.start));
    }
}

/// Variable-length integers, one after the other.
pub fn varints(mut bytes: &[u8]) {
    while varint::take(&mut bytes).is_some() {}
}
