//! Counts by prefix, which is what stands before a key's first colon: `stats
//! detail`, and the hit rates of parts of a cache.
//!
//! The number of prefixes is bounded; those that come when it is reached are
//! counted together, under a name that no key has.

use std::sync::atomic::{AtomicBool, Ordering};

use hashbrown::HashMap;
use parking_lot::Mutex;

const PREFIX_COUNT_MAX: usize = 1000;

/// Longest prefix that is told apart.
const PREFIX_BYTES_MAX: usize = 64;

const OTHERS: &[u8] = b"(others)";

/// What was done to keys of a prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PrefixCounts {
    /// Keys asked for.
    pub(crate) get: u64,
    /// Keys found.
    pub(crate) hit: u64,
    /// Values stored or tried to be.
    pub(crate) set: u64,
    /// Keys deleted or tried to be.
    pub(crate) delete: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Prefixes {
    is_on: AtomicBool,
    counts: Mutex<HashMap<Box<[u8]>, PrefixCounts>>,
}

impl Prefixes {
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    pub(crate) fn turn(&self, on: bool) {
        self.is_on.store(on, Ordering::Relaxed);
    }

    /// Counts something that was done to `key`. A key without a colon has no prefix.
    pub(crate) fn count(&self, key: &[u8], add: impl FnOnce(&mut PrefixCounts)) {
        let Some(end) = memchr::memchr(b':', key) else { return };
        let prefix = &key[..end.min(PREFIX_BYTES_MAX)];
        let mut counts = self.counts.lock();
        if let Some(found) = counts.get_mut(prefix) {
            return add(found);
        }
        let prefix = if counts.len() < PREFIX_COUNT_MAX { prefix } else { OTHERS };
        add(counts.entry(prefix.into()).or_default());
    }

    /// The prefixes by name.
    pub(crate) fn list(&self) -> Vec<(Box<[u8]>, PrefixCounts)> {
        let mut list: Vec<_> =
            self.counts.lock().iter().map(|(prefix, counts)| (prefix.clone(), *counts)).collect();
        list.sort_by(|one, other| one.0.cmp(&other.0));
        list
    }

    pub(crate) fn reset(&self) {
        self.counts.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_bounded_in_number() {
        let prefixes = Prefixes::default();
        for number in 0..5000 {
            prefixes.count(format!("p{number}:key").as_bytes(), |counts| counts.get += 1);
        }
        prefixes.count(b"no colon", |counts| counts.get += 1);
        let list = prefixes.list();
        assert_eq!(list.len(), PREFIX_COUNT_MAX + 1);
        assert_eq!(list.iter().map(|(_, counts)| counts.get).sum::<u64>(), 5000);
    }
}
