//! A cached cell: its value, and beside it what memcached knows and Bigtable does not.
//!
//! A value is the newest cell of its column. Its client flags and its time to
//! expire stand in a companion: the column of the same family whose qualifier
//! has `\0memcached` appended, in a cell of the same timestamp. A value that is
//! written through another door has another timestamp, so its companion is not
//! found, and it has no flags and does not expire. A value without flags or
//! expiry has no companion.
//!
//! A companion's value, 9 bytes:
//!
//! ```text
//! OFFSET  SIZE  FIELD
//! 0       1     version, 1
//! 1       4     client flags, little-endian
//! 5       4     the second of the Unix epoch that it expires in, 0 for never, little-endian
//! ```
//!
//! Anything else is no companion. Table admins see these columns; a read of the
//! whole row shows them.

use bytes::Bytes;
use row_api::data::mutation::{DeleteFromColumn, Mutation as Change, SetCell};
use row_api::data::{Mutation, TimestampRange};
use row_api::row::Row;
use twox_hash::XxHash3_64;

use super::key::CellKey;

/// What a companion's qualifier ends with.
const COMPANION_SUFFIX: &[u8] = b"\0memcached";

const COMPANION_VERSION: u8 = 1;
const FLAGS_OFFSET: usize = 1;
const EXPIRY_OFFSET: usize = FLAGS_OFFSET + size_of::<u32>();
const COMPANION_BYTES: usize = EXPIRY_OFFSET + size_of::<u32>();
const _: () = assert!(COMPANION_BYTES == 9);

/// Bits of a cas that tell values apart; the rest is the generation's.
pub(crate) const IDENTITY_BITS: u32 = 40;
const IDENTITY_MASK: u64 = (1 << IDENTITY_BITS) - 1;

/// Timestamps are whole milliseconds: what every table keeps.
pub(crate) const GRANULARITY_US: i64 = 1_000;

/// The qualifier of the companion of the column `qualifier`.
pub(crate) fn companion_of(qualifier: &[u8]) -> Bytes {
    [qualifier, COMPANION_SUFFIX].concat().into()
}

/// The column that `qualifier` is, or is the companion of.
pub(crate) fn column_of(qualifier: &[u8]) -> &[u8] {
    qualifier.strip_suffix(COMPANION_SUFFIX).unwrap_or(qualifier)
}

/// The number that stands for a value with its timestamp, in the low
/// [`IDENTITY_BITS`] of its cas: the same in every process, and after every refill.
pub(crate) fn identity(timestamp_us: i64, value: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(timestamp_us.cast_unsigned(), value) & IDENTITY_MASK
}

/// The part of a client's cas that stands for a value.
pub(crate) fn identity_of_cas(cas: u64) -> u64 {
    cas & IDENTITY_MASK
}

/// A value as memcached's clients know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CellValue {
    pub(crate) value: Bytes,
    /// The cell's timestamp, µs; 0 for a photo.
    pub(crate) timestamp_us: i64,
    pub(crate) client_flags: u32,
    /// The second it expires in; 0 for never.
    pub(crate) expires_at: u32,
}

impl CellValue {
    /// The value of `key` in `row`, expired ones included.
    pub(crate) fn of_row(row: &Row, key: &CellKey) -> Option<Self> {
        let cell = row.cell(&key.family, &key.qualifier)?;
        let companion = row
            .cell(&key.family, &companion_of(&key.qualifier))
            .filter(|companion| companion.timestamp_us == cell.timestamp_us)
            .and_then(|companion| decode_companion(&companion.value));
        let (client_flags, expires_at) = companion.unwrap_or_default();
        Some(Self { value: cell.value.clone(), timestamp_us: cell.timestamp_us, client_flags, expires_at })
    }

    /// Whether it has expired at `now`, for memcached's clients.
    pub(crate) fn is_expired(&self, now: u32) -> bool {
        self.expires_at != 0 && self.expires_at <= now
    }

    pub(crate) fn identity(&self) -> u64 {
        identity(self.timestamp_us, &self.value)
    }

    /// What makes this the newest cell of the column `key`, whatever is in it.
    /// Older versions stay for the table's garbage collection.
    pub(crate) fn mutations(&self, key: &CellKey) -> Vec<Mutation> {
        // Cells as new as this one, or newer by another clock, would hide it.
        let not_older = TimestampRange { start_timestamp_micros: self.timestamp_us, end_timestamp_micros: 0 };
        let companion = companion_of(&key.qualifier);
        let mut mutations = vec![
            delete(key, key.qualifier.clone().into(), Some(not_older)),
            delete(key, companion, Some(not_older)),
            set(key, key.qualifier.clone().into(), self.timestamp_us, self.value.clone()),
        ];
        mutations.extend(self.companion_mutation(key));
        mutations
    }

    /// What gives this value, which is there, its flags and expiry.
    pub(crate) fn companion_mutations(&self, key: &CellKey) -> Vec<Mutation> {
        let at = TimestampRange { start_timestamp_micros: self.timestamp_us, end_timestamp_micros: 0 };
        let mut mutations = vec![delete(key, companion_of(&key.qualifier), Some(at))];
        mutations.extend(self.companion_mutation(key));
        mutations
    }

    fn companion_mutation(&self, key: &CellKey) -> Option<Mutation> {
        let is_plain = self.client_flags == 0 && self.expires_at == 0;
        let value = encode_companion(self.client_flags, self.expires_at);
        (!is_plain).then(|| set(key, companion_of(&key.qualifier), self.timestamp_us, value))
    }
}

/// What deletes the column `key` and its companion. `mark_us` tells this
/// deletion from any other in the table's stream of changes: cells of that
/// time, of which there are none left, are deleted once more.
pub(crate) fn delete_mutations(key: &CellKey, mark_us: i64) -> Vec<Mutation> {
    let mark =
        TimestampRange { start_timestamp_micros: mark_us, end_timestamp_micros: mark_us + GRANULARITY_US };
    let companion = companion_of(&key.qualifier);
    vec![
        delete(key, key.qualifier.clone().into(), None),
        delete(key, companion.clone(), None),
        delete(key, companion, Some(mark)),
    ]
}

fn set(key: &CellKey, column_qualifier: Bytes, timestamp_micros: i64, value: Bytes) -> Mutation {
    let family_name = key.family.clone();
    Change::SetCell(SetCell { family_name, column_qualifier, timestamp_micros, value }).into()
}

fn delete(key: &CellKey, column_qualifier: Bytes, time_range: Option<TimestampRange>) -> Mutation {
    let family_name = key.family.clone();
    Change::DeleteFromColumn(DeleteFromColumn { family_name, column_qualifier, time_range }).into()
}

fn encode_companion(client_flags: u32, expires_at: u32) -> Bytes {
    let mut bytes = [COMPANION_VERSION; COMPANION_BYTES];
    bytes[FLAGS_OFFSET..EXPIRY_OFFSET].copy_from_slice(&client_flags.to_le_bytes());
    bytes[EXPIRY_OFFSET..].copy_from_slice(&expires_at.to_le_bytes());
    Bytes::copy_from_slice(&bytes)
}

fn decode_companion(value: &[u8]) -> Option<(u32, u32)> {
    let bytes = <&[u8; COMPANION_BYTES]>::try_from(value).ok()?;
    if bytes[0] != COMPANION_VERSION {
        return None;
    }
    let client_flags = u32::from_le_bytes(*bytes[FLAGS_OFFSET..].first_chunk()?);
    let expires_at = u32::from_le_bytes(*bytes[EXPIRY_OFFSET..].first_chunk()?);
    Some((client_flags, expires_at))
}

#[cfg(test)]
mod tests {
    use row_api::names::InstanceName;
    use row_api::row::Cell;

    use super::super::key::OriginKey;
    use super::*;

    fn key() -> CellKey {
        let instance = InstanceName { project: "p".into(), instance: "i".into() };
        match OriginKey::parse(b"row:t:r:f:q", &instance) {
            Ok(OriginKey::Cell(cell)) => cell,
            other => panic!("{other:?}"),
        }
    }

    fn cell(qualifier: &[u8], timestamp_us: i64, value: &[u8]) -> Cell {
        Cell {
            family: "f".to_owned(),
            qualifier: Bytes::copy_from_slice(qualifier),
            timestamp_us,
            value: Bytes::copy_from_slice(value),
            labels: Vec::new(),
        }
    }

    #[test]
    fn a_companion_has_the_documented_bytes() {
        let bytes = encode_companion(0x0102_0304, 0x6543_2101);
        assert_eq!(&bytes[..], [1, 4, 3, 2, 1, 1, 0x21, 0x43, 0x65]);
        assert_eq!(decode_companion(&bytes), Some((0x0102_0304, 0x6543_2101)));
        for wrong in [&b""[..], b"123456789", &bytes[..8], &[bytes.as_ref(), b"x"].concat()] {
            assert_eq!(decode_companion(wrong), None);
        }
    }

    #[test]
    fn a_companion_counts_only_beside_its_own_value() {
        let companion = encode_companion(7, 9);
        for (companion_at, expected) in [(5_000, (7, 9)), (4_000, (0, 0)), (6_000, (0, 0))] {
            let cells = vec![cell(b"q", 5_000, b"v"), cell(b"q\0memcached", companion_at, &companion)];
            let value = CellValue::of_row(&Row { key: "r".into(), cells }, &key()).unwrap();
            assert_eq!((value.client_flags, value.expires_at), expected);
            assert_eq!((value.value.as_ref(), value.timestamp_us), (&b"v"[..], 5_000));
        }
        let row = Row { key: "r".into(), cells: vec![cell(b"q\0memcached", 5_000, &companion)] };
        assert_eq!(CellValue::of_row(&row, &key()), None);
    }

    #[test]
    fn an_identity_is_of_value_and_timestamp_and_fits_beside_a_generation() {
        assert_eq!(identity(5, b"v"), identity(5, b"v"));
        assert_ne!(identity(5, b"v"), identity(6, b"v"));
        assert_ne!(identity(5, b"v"), identity(5, b"w"));
        assert_eq!(identity(5, b"v") >> IDENTITY_BITS, 0);
        assert_eq!(identity_of_cas(3 << IDENTITY_BITS | identity(5, b"v")), identity(5, b"v"));
    }
}
