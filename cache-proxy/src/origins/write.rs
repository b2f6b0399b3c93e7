//! What a write of memcached's does to a cell: a pure function of what is there.

use bytes::Bytes;

use super::cell::{CellValue, identity_of_cas};
use crate::protocol::command::StoreVerb;
use crate::protocol::number::{Decimal, parse_u64};

/// A write of one cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CellWrite {
    /// set, add, replace, append, prepend, cas.
    Store {
        verb: StoreVerb,
        value: Bytes,
        client_flags: u32,
        /// The second it is to expire in; 0 for never.
        expires_at: u32,
        /// What the cell's cas must be.
        compare: Option<u64>,
        /// append and prepend to nothing store.
        vivify: bool,
    },
    /// incr, decr.
    Arithmetic {
        delta: u64,
        increment: bool,
        compare: Option<u64>,
        /// What is stored where there is nothing, and when that expires.
        initial: Option<(u64, u32)>,
        /// When the number is to expire, if that is to change.
        expires_at: Option<u32>,
    },
    Delete {
        compare: Option<u64>,
    },
    /// touch, gat, and mg with a T.
    Touch {
        expires_at: u32,
    },
}

/// What has become of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WriteOutcome {
    /// The cell is this now, and its item has that cas.
    Done(CellValue, u64),
    Deleted,
    NotStored,
    Exists,
    NotFound,
    NotNumeric,
    TooLarge,
    /// The line to answer, without its end. Whether the cell has changed is not known.
    Failed(std::sync::Arc<str>),
}

/// What to do to the cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Make this the cell.
    Put(CellValue),
    /// Give the value that is there the flags and expiry of this.
    Annotate(CellValue),
    Delete,
    Refuse(WriteOutcome),
}

impl CellWrite {
    /// The cell that this writes whatever is there.
    pub(super) fn unconditional(&self, timestamp_us: i64) -> Option<CellValue> {
        match self {
            Self::Store { verb: StoreVerb::Set, value, client_flags, expires_at, compare: None, .. } => {
                Some(CellValue {
                    value: value.clone(),
                    timestamp_us,
                    client_flags: *client_flags,
                    expires_at: *expires_at,
                })
            }
            _ => None,
        }
    }

    /// What to do where the cell is `old`, at the time `now` and `timestamp_us`.
    pub(super) fn step(
        &self,
        old: Option<&CellValue>,
        now: u32,
        timestamp_us: i64,
        value_bytes_max: usize,
    ) -> Step {
        let old = old.filter(|old| !old.is_expired(now));
        let timestamp_us = old.map_or(timestamp_us, |old| timestamp_us.max(old.timestamp_us));
        let step = self.step_live(old, timestamp_us);
        match &step {
            Step::Put(value) if value.value.len() > value_bytes_max => Step::Refuse(WriteOutcome::TooLarge),
            Step::Put(value) | Step::Annotate(value) if value.is_expired(now) => Step::Delete,
            _ => step,
        }
    }

    fn step_live(&self, old: Option<&CellValue>, timestamp_us: i64) -> Step {
        let differs = |compare: &Option<u64>, old: &CellValue| {
            compare.is_some_and(|cas| identity_of_cas(cas) != old.identity())
        };
        match self {
            Self::Store { verb, value, client_flags, expires_at, compare, vivify } => {
                let new = || CellValue {
                    value: value.clone(),
                    timestamp_us,
                    client_flags: *client_flags,
                    expires_at: *expires_at,
                };
                let joined = |old: &CellValue, parts: [&[u8]; 2]| {
                    Step::Put(CellValue { value: parts.concat().into(), timestamp_us, ..old.clone() })
                };
                match (verb, old) {
                    (StoreVerb::Cas, None) => Step::Refuse(WriteOutcome::NotFound),
                    (StoreVerb::Add, Some(_)) | (StoreVerb::Replace, None) => {
                        Step::Refuse(WriteOutcome::NotStored)
                    }
                    (StoreVerb::Append | StoreVerb::Prepend, None) if !vivify => {
                        Step::Refuse(WriteOutcome::NotStored)
                    }
                    (_, Some(old)) if differs(compare, old) => Step::Refuse(WriteOutcome::Exists),
                    (StoreVerb::Append, Some(old)) => joined(old, [&old.value, value]),
                    (StoreVerb::Prepend, Some(old)) => joined(old, [value, &old.value]),
                    _ => Step::Put(new()),
                }
            }
            Self::Arithmetic { delta, increment, compare, initial, expires_at } => {
                let number = |number: u64| Bytes::copy_from_slice(Decimal::new(number).as_bytes());
                match (old, initial) {
                    (None, None) => Step::Refuse(WriteOutcome::NotFound),
                    (None, Some((initial, expires_at))) => Step::Put(CellValue {
                        value: number(*initial),
                        timestamp_us,
                        client_flags: 0,
                        expires_at: *expires_at,
                    }),
                    (Some(old), _) if differs(compare, old) => Step::Refuse(WriteOutcome::Exists),
                    (Some(old), _) => {
                        let Some(before) = parse_u64(&old.value) else {
                            return Step::Refuse(WriteOutcome::NotNumeric);
                        };
                        let after = match increment {
                            true => before.wrapping_add(*delta),
                            false => before.saturating_sub(*delta),
                        };
                        Step::Put(CellValue {
                            value: number(after),
                            timestamp_us,
                            client_flags: old.client_flags,
                            expires_at: expires_at.unwrap_or(old.expires_at),
                        })
                    }
                }
            }
            Self::Delete { compare } => match old {
                None => Step::Refuse(WriteOutcome::NotFound),
                Some(old) if differs(compare, old) => Step::Refuse(WriteOutcome::Exists),
                Some(_) => Step::Delete,
            },
            Self::Touch { expires_at } => match old {
                None => Step::Refuse(WriteOutcome::NotFound),
                Some(old) => Step::Annotate(CellValue { expires_at: *expires_at, ..old.clone() }),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u32 = 1_000;
    const NOW_US: i64 = 1_000_000_000;

    fn value(text: &str, timestamp_us: i64, client_flags: u32, expires_at: u32) -> CellValue {
        CellValue { value: Bytes::copy_from_slice(text.as_bytes()), timestamp_us, client_flags, expires_at }
    }

    fn store(verb: StoreVerb, compare: Option<u64>) -> CellWrite {
        let value = Bytes::from_static(b"new");
        CellWrite::Store { verb, value, client_flags: 3, expires_at: 0, compare, vivify: false }
    }

    fn count(increment: bool, delta: u64, initial: Option<(u64, u32)>) -> CellWrite {
        CellWrite::Arithmetic { delta, increment, compare: None, initial, expires_at: None }
    }

    #[test]
    fn writes_do_what_memcached_does() {
        let old = value("old", 7_000, 9, 2_000);
        let number = value("10", 7_000, 9, 0);
        let expired = value("old", 7_000, 9, NOW);
        let cas = 5 << 40 | old.identity();
        let put = |text, flags, expires_at| Step::Put(value(text, NOW_US, flags, expires_at));
        let refuse = Step::Refuse;
        use StoreVerb::{Add, Append, Cas, Prepend, Replace, Set};
        use WriteOutcome::{Exists, NotFound, NotNumeric, NotStored};
        for (write, old, expected) in [
            (store(Set, None), Some(&old), put("new", 3, 0)),
            (store(Add, None), None, put("new", 3, 0)),
            (store(Add, None), Some(&old), refuse(NotStored)),
            (store(Add, None), Some(&expired), put("new", 3, 0)),
            (store(Replace, None), Some(&old), put("new", 3, 0)),
            (store(Replace, None), Some(&expired), refuse(NotStored)),
            (store(Append, None), Some(&old), put("oldnew", 9, 2_000)),
            (store(Prepend, None), Some(&old), put("newold", 9, 2_000)),
            (store(Append, None), None, refuse(NotStored)),
            (store(Cas, Some(cas)), Some(&old), put("new", 3, 0)),
            (store(Cas, Some(cas + 1)), Some(&old), refuse(Exists)),
            (store(Cas, Some(cas)), None, refuse(NotFound)),
            (count(true, 5, None), Some(&number), put("15", 9, 0)),
            (count(false, 50, None), Some(&number), put("0", 9, 0)),
            (count(true, u64::MAX, None), Some(&number), put("9", 9, 0)),
            (count(true, 1, None), Some(&old), refuse(NotNumeric)),
            (count(true, 1, None), None, refuse(NotFound)),
            (count(true, 1, Some((4, 0))), None, put("4", 0, 0)),
            (CellWrite::Delete { compare: None }, Some(&old), Step::Delete),
            (CellWrite::Delete { compare: Some(1) }, Some(&old), refuse(Exists)),
            (CellWrite::Delete { compare: None }, Some(&expired), refuse(NotFound)),
            (
                CellWrite::Touch { expires_at: 3_000 },
                Some(&old),
                Step::Annotate(value("old", 7_000, 9, 3_000)),
            ),
            (CellWrite::Touch { expires_at: 1 }, Some(&old), Step::Delete),
            (CellWrite::Touch { expires_at: 3_000 }, None, refuse(NotFound)),
        ] {
            assert_eq!(write.step(old, NOW, NOW_US, 100), expected, "{write:?}");
        }
        assert_eq!(store(Append, None).step(Some(&old), NOW, NOW_US, 5), refuse(WriteOutcome::TooLarge));
    }

    #[test]
    fn a_write_is_newer_than_what_it_follows_whatever_the_clock_says() {
        let ahead = value("old", NOW_US + 5_000, 0, 0);
        let Step::Put(new) = store(StoreVerb::Replace, None).step(Some(&ahead), NOW, NOW_US, 100) else {
            panic!()
        };
        assert_eq!(new.timestamp_us, NOW_US + 5_000);
    }
}
