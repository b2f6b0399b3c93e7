//! A cell's key in the tree of its tablet: the order of the tree is the order
//! of Bigtable's cells within a family (the paper, section 2).
//!
//! ```text
//! row escaped | 00 01 | family id | qualifier escaped | 00 01 | inverted timestamp
//!                       4 bytes BE                              8 bytes BE
//! ```
//!
//! Escaped bytes hold each `00` as `00 FF`; so `00 01`, the terminator, occurs
//! first at the end of the row, sorts before any longer key, and is what bloom
//! filters cut at ([`FILTER_KEY`]). The timestamp is `i64::MAX - t` as an
//! unsigned number, so that the newest cell of a column comes first. Integers
//! are big-endian here, against the house's habit, because they must sort.
//!
//! Invariants: `encode` is injective; bytes sort as (row, family id,
//! qualifier, newest first) do; `decode` takes only what `encode` gives and
//! never panics. `tests/golden/cell_keys.txt` pins the bytes.

use bytes::Bytes;

use crate::schema::FamilyId;

/// What a tablet's tree builds its bloom filters over: whole rows.
pub const FILTER_KEY: lsm::FilterKey = lsm::FilterKey::ThroughTerminator(TERMINATOR);

/// Ends a row and a qualifier.
const TERMINATOR: [u8; 2] = [0x00, 0x01];
/// Follows a zero byte that belongs to the escaped bytes.
const ESCAPE: u8 = 0xFF;
/// Bytes of a family id.
pub(crate) const FAMILY_BYTES: usize = size_of::<u32>();
/// Bytes of an inverted timestamp.
pub(crate) const TIMESTAMP_BYTES: usize = size_of::<i64>();

/// A key that is no cell's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cell key, at byte {offset} of {}: {:02x?}", .found.len(), &.found[..(*.found).len().min(64)])]
pub struct BadCellKey {
    /// Where it stops making sense.
    pub offset: usize,
    /// The key.
    pub found: Vec<u8>,
}

/// A cell key taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellKey {
    /// The row's key.
    pub row: Vec<u8>,
    /// The family's number.
    pub family: FamilyId,
    /// The column's qualifier.
    pub qualifier: Vec<u8>,
    /// The cell's timestamp, µs.
    pub timestamp_us: i64,
}

impl CellKey {
    /// Takes `key` apart.
    ///
    /// # Errors
    ///
    /// [`BadCellKey`] where no cell has this key.
    pub fn decode(key: &[u8]) -> Result<Self, BadCellKey> {
        let bad = |offset| BadCellKey { offset, found: key.to_vec() };
        let mut row = Vec::new();
        let family_at = decode_escaped(key, 0, &mut row).map_err(bad)?;
        let family = family_at_offset(key, family_at).ok_or_else(|| bad(family_at))?;
        let mut qualifier = Vec::new();
        let timestamp_at = decode_escaped(key, family_at + FAMILY_BYTES, &mut qualifier).map_err(bad)?;
        let timestamp_us = decode_timestamp(&key[timestamp_at..]).ok_or_else(|| bad(timestamp_at))?;
        Ok(Self { row, family, qualifier, timestamp_us })
    }

    /// The key's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut key = column_prefix(&self.row, self.family, &self.qualifier);
        push_timestamp(&mut key, self.timestamp_us);
        key
    }
}

/// What the keys of all cells of `row`, and no others, start with.
pub fn row_prefix(row: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(row.len() + 2 * TERMINATOR.len() + FAMILY_BYTES + TIMESTAMP_BYTES + 24);
    push_escaped(&mut key, row);
    key
}

/// What the keys of all cells of a row's family, and no others, start with.
pub fn family_prefix(row: &[u8], family: FamilyId) -> Vec<u8> {
    let mut key = row_prefix(row);
    push_family(&mut key, family);
    key
}

/// What the keys of all cells of a column, and no others, start with.
pub fn column_prefix(row: &[u8], family: FamilyId, qualifier: &[u8]) -> Vec<u8> {
    let mut key = family_prefix(row, family);
    push_escaped(&mut key, qualifier);
    key
}

/// The row that begins at `key` or around it, which may be cut short or lie
/// between two cells. Empty only before the first row.
pub fn row_near(key: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(key.len());
    let mut rest = key;
    while let Some(zero) = rest.iter().position(|byte| *byte == 0) {
        row.extend_from_slice(&rest[..zero]);
        if rest.get(zero + 1) != Some(&ESCAPE) {
            return row;
        }
        row.push(0);
        rest = &rest[zero + 2..];
    }
    row.extend_from_slice(rest);
    row
}

/// Turns `prefix` into the first key after all keys that start with it, or
/// into the empty key where there is none.
pub fn into_successor(mut prefix: Vec<u8>) -> Vec<u8> {
    while let Some(last) = prefix.pop() {
        if let Some(next) = last.checked_add(1) {
            prefix.push(next);
            break;
        }
    }
    prefix
}

/// The cell keys of the rows from `start` on and before `end`; an empty `end`
/// is past every row.
pub fn rows_range(start: &[u8], end: &[u8]) -> lsm::KeyRange {
    let end = if end.is_empty() { Bytes::new() } else { row_prefix(end).into() };
    lsm::KeyRange { start: row_prefix(start).into(), end }
}

/// Appends a family's number to a row's prefix.
pub(crate) fn push_family(key: &mut Vec<u8>, family: FamilyId) {
    key.extend_from_slice(&family.0.to_be_bytes());
}

/// Appends `bytes`, escaped and terminated.
pub(crate) fn push_escaped(key: &mut Vec<u8>, bytes: &[u8]) {
    let mut rest = bytes;
    while let Some(zero) = rest.iter().position(|byte| *byte == 0) {
        key.extend_from_slice(&rest[..=zero]);
        key.push(ESCAPE);
        rest = &rest[zero + 1..];
    }
    key.extend_from_slice(rest);
    key.extend_from_slice(&TERMINATOR);
}

/// Appends a timestamp to a column's prefix.
pub(crate) fn push_timestamp(key: &mut Vec<u8>, timestamp_us: i64) {
    key.extend_from_slice(&invert(timestamp_us).to_be_bytes());
}

/// Appends to `bytes` what stands escaped in `key` from `offset` on; gives the
/// offset after the terminator, or the offset of what is wrong.
pub(crate) fn decode_escaped(key: &[u8], offset: usize, bytes: &mut Vec<u8>) -> Result<usize, usize> {
    let mut at = offset;
    loop {
        let zero = key.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == 0));
        let zero = at + zero.ok_or(key.len())?;
        bytes.extend_from_slice(&key[at..zero]);
        at = zero + 2;
        match key.get(zero + 1) {
            Some(&ESCAPE) => bytes.push(0),
            Some(&next) if next == TERMINATOR[1] => return Ok(at),
            _ => return Err(zero),
        }
    }
}

/// The offset after the terminator of what stands escaped from `offset` on, or
/// the offset of what is wrong.
pub(crate) fn skip_escaped(key: &[u8], offset: usize) -> Result<usize, usize> {
    let mut at = offset;
    loop {
        let zero = key.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == 0));
        let zero = at + zero.ok_or(key.len())?;
        at = zero + 2;
        match key.get(zero + 1) {
            Some(&ESCAPE) => {}
            Some(&next) if next == TERMINATOR[1] => return Ok(at),
            _ => return Err(zero),
        }
    }
}

/// The family id at `offset`.
pub(crate) fn family_at_offset(key: &[u8], offset: usize) -> Option<FamilyId> {
    let bytes = key.get(offset..)?.first_chunk::<FAMILY_BYTES>()?;
    Some(FamilyId(u32::from_be_bytes(*bytes)))
}

/// The timestamp that ends `key`, which must be a whole cell key.
pub(crate) fn timestamp_of(key: &[u8]) -> Option<i64> {
    key.last_chunk::<TIMESTAMP_BYTES>().map(|bytes| uninvert(u64::from_be_bytes(*bytes)))
}

/// The timestamp whose bytes are `bytes`, no more and no less.
pub(crate) fn decode_timestamp(bytes: &[u8]) -> Option<i64> {
    bytes.try_into().ok().map(|bytes| uninvert(u64::from_be_bytes(bytes)))
}

#[expect(clippy::cast_sign_loss, reason = "wraps on purpose: a bijection of all 64-bit values")]
fn invert(timestamp_us: i64) -> u64 {
    (i64::MAX as u64).wrapping_sub(timestamp_us as u64)
}

#[expect(clippy::cast_possible_wrap, reason = "the inverse of `invert`")]
fn uninvert(inverted: u64) -> i64 {
    (i64::MAX as u64).wrapping_sub(inverted) as i64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes that meet the escaping often.
    fn name() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(
            prop_oneof![Just(0), Just(1), Just(2), Just(0xFE), Just(0xFF), any::<u8>()],
            0..6,
        )
    }

    fn cell() -> impl Strategy<Value = CellKey> {
        let family = prop_oneof![0..3u32, any::<u32>()];
        let timestamp = prop_oneof![0..3i64, any::<i64>()];
        (name(), family, name(), timestamp).prop_map(|(row, family, qualifier, timestamp_us)| CellKey {
            row,
            family: FamilyId(family),
            qualifier,
            timestamp_us,
        })
    }

    /// The order that keys must have.
    fn position(cell: &CellKey) -> (&[u8], FamilyId, &[u8], std::cmp::Reverse<i64>) {
        (&cell.row, cell.family, &cell.qualifier, std::cmp::Reverse(cell.timestamp_us))
    }

    fn in_range(key: &[u8], start: &[u8], end: &[u8]) -> bool {
        start <= key && (end.is_empty() || key < end)
    }

    proptest! {
        #[test]
        fn keys_sort_as_cells_do(a in cell(), b in cell()) {
            prop_assert_eq!(a.encode().cmp(&b.encode()), position(&a).cmp(&position(&b)));
        }

        #[test]
        fn keys_survive_the_round_trip(cell in cell()) {
            prop_assert_eq!(CellKey::decode(&cell.encode()).unwrap(), cell);
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..40), cell in cell(), cut in any::<prop::sample::Index>()) {
            if let Ok(decoded) = CellKey::decode(&bytes) {
                prop_assert_eq!(decoded.encode(), bytes);
            }
            let key = cell.encode();
            prop_assert!(CellKey::decode(&key[..cut.index(key.len())]).is_err());
        }

        #[test]
        fn prefixes_and_their_successors_enclose_their_cells(a in cell(), b in cell()) {
            let key = b.encode();
            for (prefix, same) in [
                (row_prefix(&a.row), a.row == b.row),
                (family_prefix(&a.row, a.family), (&a.row, a.family) == (&b.row, b.family)),
                (
                    column_prefix(&a.row, a.family, &a.qualifier),
                    (&a.row, a.family, &a.qualifier) == (&b.row, b.family, &b.qualifier),
                ),
            ] {
                prop_assert_eq!(key.starts_with(&prefix), same);
                prop_assert_eq!(in_range(&key, &prefix, &into_successor(prefix.clone())), same);
            }
        }

        #[test]
        fn the_first_terminator_ends_the_row(cell in cell()) {
            let key = cell.encode();
            let end = key.windows(2).position(|pair| pair == TERMINATOR).unwrap() + TERMINATOR.len();
            prop_assert_eq!(&key[..end], row_prefix(&cell.row));
        }

        #[test]
        fn row_ranges_hold_their_rows(cell in cell(), start in name(), end in name()) {
            let range = rows_range(&start, &end);
            let held = cell.row >= start && (end.is_empty() || cell.row < end);
            prop_assert_eq!(in_range(&cell.encode(), &range.start, &range.end), held);
        }
    }

    #[test]
    fn a_row_is_found_near_whole_keys_and_parts_of_keys() {
        let key =
            CellKey { row: b"a\0b".into(), family: FamilyId(1), qualifier: b"q".into(), timestamp_us: 5 };
        assert_eq!(row_near(&key.encode()), b"a\0b");
        assert_eq!(row_near(&row_prefix(b"a\0b")), b"a\0b");
        // As the separators of index blocks are: between two keys, as short as may be.
        for (part, row) in
            [(&b""[..], &b""[..]), (b"ab", b"ab"), (b"a\0", b"a"), (b"a\0\xff", b"a\0"), (b"a\0\x02", b"a")]
        {
            assert_eq!(row_near(part), row, "{part:?}");
        }
    }

    #[test]
    fn bytes_are_those_of_the_golden_file() {
        let mut lines = String::new();
        for (row, family, qualifier, timestamp_us) in [
            (&b"row"[..], 1, &b"qualifier"[..], 1_700_000_000_000_000),
            (b"", 0, b"", 0),
            (b"a\0b", 258, b"\0\x01\xff", i64::MAX),
            (b"\xff\xff", u32::MAX, b"q", 1_000),
        ] {
            let key = CellKey {
                row: row.into(),
                family: FamilyId(family),
                qualifier: qualifier.into(),
                timestamp_us,
            };
            let bytes: Vec<String> = key.encode().iter().map(|byte| format!("{byte:02x}")).collect();
            lines.push_str(&format!(
                "{} {family} {} {timestamp_us}\n  {}\n",
                row.escape_ascii(),
                qualifier.escape_ascii(),
                bytes.join(" "),
            ));
        }
        assert_eq!(lines, include_str!("../tests/golden/cell_keys.txt"));
    }
}
