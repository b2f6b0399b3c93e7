//! One row's change, its place among others, and both as bytes.
//!
//! An entry of a change tree:
//!
//! ```text
//! key    commit time, µs | number | tablet        all big-endian, so that they sort
//!        8 bytes           4 bytes  8 bytes
//! value  a protobuf message: 1 row key, 2 mutations (google.bigtable.v2.Mutation)
//! ```
//!
//! Commit times never decrease in a tablet, numbers tell apart what is committed
//! at the same one. The tablet is the one that the row was in then: trees that
//! two children of it have inherited, and trees that become one when tablets
//! are merged, hold no two changes under one key.
//!
//! Invariants: bytes sort as places do; decoding takes only what encoding
//! gives, and never panics. `tests/golden/change.txt` pins the bytes.

use bytes::Bytes;
use prost::Message;
use row_api::data;

use crate::schema::TabletId;

/// Bytes of a key.
pub(crate) const KEY_BYTES: usize = NUMBER_OFFSET + size_of::<u32>() + size_of::<u64>();
const NUMBER_OFFSET: usize = size_of::<u64>();
const TABLET_OFFSET: usize = NUMBER_OFFSET + size_of::<u32>();

/// A place among the changes of a tablet; ordered as commits are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChangePosition {
    /// When the change was committed, µs since 1970.
    pub commit_us: u64,
    /// Its number among those of that time.
    pub number: u32,
    /// The tablet that it was made in, by number.
    pub tablet: u64,
}

impl ChangePosition {
    /// The first place of the time `commit_us`.
    pub fn at_time(commit_us: u64) -> Self {
        Self { commit_us, ..Self::default() }
    }

    /// The last place of that time.
    pub fn end_of_time(commit_us: u64) -> Self {
        Self { commit_us, number: u32::MAX, tablet: u64::MAX }
    }

    /// The place right behind this one.
    #[must_use]
    pub fn next(self) -> Self {
        if let Some(tablet) = self.tablet.checked_add(1) {
            return Self { tablet, ..self };
        }
        match self.number.checked_add(1) {
            Some(number) => Self { number, tablet: 0, ..self },
            None => Self::at_time(self.commit_us.saturating_add(1)),
        }
    }

    /// The place that `tablet` gives to what is committed at `now_us`, or as
    /// soon after this place as can be.
    #[must_use]
    pub(crate) fn next_commit(self, now_us: u64, tablet: TabletId) -> Self {
        let place = |commit_us, number| Self { commit_us, number, tablet: tablet.0 };
        match self.number.checked_add(1) {
            _ if now_us > self.commit_us => place(now_us, 0),
            Some(number) => place(self.commit_us, number),
            None => place(self.commit_us.saturating_add(1), 0),
        }
    }

    /// The key of a change in this place.
    pub fn encode(self) -> [u8; KEY_BYTES] {
        let mut key = [0; KEY_BYTES];
        key[..NUMBER_OFFSET].copy_from_slice(&self.commit_us.to_be_bytes());
        key[NUMBER_OFFSET..TABLET_OFFSET].copy_from_slice(&self.number.to_be_bytes());
        key[TABLET_OFFSET..].copy_from_slice(&self.tablet.to_be_bytes());
        key
    }

    /// The place whose key is `key`, if any.
    pub fn decode(key: &[u8]) -> Option<Self> {
        let key = <&[u8; KEY_BYTES]>::try_from(key).ok()?;
        Some(Self {
            commit_us: u64::from_be_bytes(*key.first_chunk()?),
            number: u32::from_be_bytes(*key[NUMBER_OFFSET..].first_chunk()?),
            tablet: u64::from_be_bytes(*key[TABLET_OFFSET..].first_chunk()?),
        })
    }
}

/// What was done to one row at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Its place.
    pub position: ChangePosition,
    /// The row.
    pub row_key: Bytes,
    /// What was done, in order; at least one mutation.
    pub mutations: Vec<data::Mutation>,
}

/// A change as its tree holds it.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StoredChange {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) row_key: Bytes,
    #[prost(message, repeated, tag = "2")]
    pub(crate) mutations: Vec<data::Mutation>,
}

/// Just the row of a stored change.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct StoredRow {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) row_key: Bytes,
}

/// An entry of a change tree that holds no change: damage, or a newer format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a change, under the key {key:02x?}")]
pub struct BadChange {
    /// The entry's key.
    pub key: Vec<u8>,
}

impl Change {
    /// Reads an entry.
    ///
    /// # Errors
    ///
    /// [`BadChange`]
    pub fn decode(key: &[u8], value: Bytes) -> Result<Self, BadChange> {
        let bad = || BadChange { key: key.to_vec() };
        let position = ChangePosition::decode(key).ok_or_else(bad)?;
        let StoredChange { row_key, mutations } = StoredChange::decode(value).map_err(|_| bad())?;
        if row_key.is_empty() || mutations.iter().any(|mutation| mutation.mutation.is_none()) {
            return Err(bad());
        }
        Ok(Self { position, row_key, mutations })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use row_api::data::mutation::{DeleteFromRow, Mutation, SetCell};

    use super::*;

    fn position() -> impl Strategy<Value = ChangePosition> {
        let number = prop_oneof![0..3_u32, Just(u32::MAX), any::<u32>()];
        let tablet = prop_oneof![0..3_u64, Just(u64::MAX), any::<u64>()];
        (prop_oneof![0..3_u64, any::<u64>()], number, tablet)
            .prop_map(|(commit_us, number, tablet)| ChangePosition { commit_us, number, tablet })
    }

    proptest! {
        #[test]
        fn keys_sort_as_places_do_and_come_back(a in position(), b in position()) {
            prop_assert_eq!(a.encode().cmp(&b.encode()), a.cmp(&b));
            prop_assert_eq!(ChangePosition::decode(&a.encode()), Some(a));
        }

        #[test]
        fn nothing_lies_between_a_place_and_the_next(a in position(), b in position()) {
            prop_assume!(a.commit_us < u64::MAX);
            prop_assert!(a < a.next());
            prop_assert!(b <= a || b >= a.next());
        }

        #[test]
        fn commits_go_forward_whatever_the_clock_says(last in position(), now_us in 0..5_u64) {
            prop_assume!(last.commit_us < u64::MAX);
            let next = last.next_commit(now_us, TabletId(1));
            prop_assert!(next > last && next.commit_us >= now_us);
        }

        #[test]
        fn any_bytes_decode_or_are_refused(key in prop::collection::vec(any::<u8>(), 0..24), value in prop::collection::vec(any::<u8>(), 0..40)) {
            let _whatever = Change::decode(&key, value.into());
        }
    }

    #[test]
    fn bytes_are_those_of_the_golden_file() {
        let set = SetCell {
            family_name: "f".into(),
            column_qualifier: "q".into(),
            timestamp_micros: 1_700_000_000_000_000,
            value: "v".into(),
        };
        let stored = StoredChange {
            row_key: "row".into(),
            mutations: vec![Mutation::DeleteFromRow(DeleteFromRow {}).into(), Mutation::SetCell(set).into()],
        };
        let position = ChangePosition { commit_us: 1_700_000_000_123_456, number: 7, tablet: 258 };
        let hex = |bytes: &[u8]| {
            let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            bytes.join(" ")
        };
        let (key, value) = (position.encode(), Bytes::from(stored.encode_to_vec()));
        let lines = format!("{}\n{}\n", hex(&key), hex(&value));
        assert_eq!(lines, include_str!("../../tests/golden/change.txt"));
        let change = Change::decode(&key, value.clone()).unwrap();
        assert_eq!((change.position, change.row_key.as_ref()), (position, &b"row"[..]));
        assert_eq!(change.mutations, stored.mutations);
        assert_eq!(StoredRow::decode(value).unwrap().row_key, "row");
    }
}
