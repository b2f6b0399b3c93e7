//! The decoders of this crate's formats, for `lsm/fuzz`: each takes any bytes
//! and must return, whatever they are, without having allocated much more.
//! Checksums are left out, since a fuzzer would never get past them.

use bytes::Bytes;

use crate::internal_key::{LookupKey, SEQUENCE_MAX};
use crate::range_tombstone::FragmentedTombstones;
use crate::sstable::block::Block;
use crate::sstable::block_cursor::BlockCursor;
use crate::sstable::block_index::{BlockIndex, IndexFile};
use crate::sstable::format::{FOOTER_BYTES, Footer, FormatVersion};
use crate::sstable::{FilterHash, Properties, filter, format};
use crate::{FilterKey, FilterKind, varint};

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

#[cfg(test)]
mod tests {
    use crate::sstable::testing::Random;

    #[test]
    fn no_decoder_panics_on_random_bytes() {
        let decoders = [
            super::block,
            super::block_index,
            super::filter,
            super::footer_and_properties,
            super::block_envelope,
            super::range_tombstones,
            super::varints,
        ];
        let mut random = Random::new(17);
        for round in 0..20_000 {
            // Small numbers are likelier to look like lengths and counts.
            let bound = [4, 16, 256][round % 3];
            let bytes: Vec<u8> = (0..random.below(120))
                .map(|_| u8::try_from(random.below(bound)).expect("below 256"))
                .collect();
            for decode in decoders {
                decode(&bytes);
            }
        }
    }
}
