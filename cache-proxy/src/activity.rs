//! What a cache is asked for most: hot keys, and hit rates by prefix.
//!
//! One request in `SAMPLE_EVERY` is looked at, so that the others pay for a
//! counter of their own connection and nothing else. Hot keys are counted by
//! Space-Saving (Metwally, Agrawal and El Abbadi, "Efficient computation of
//! frequent and top-k elements in data streams", ICDT 2005): a key that is not
//! among the counters takes the smallest one over, with its count, which then
//! bounds its error. Counts are halved again and again, so that they speak of
//! the last minutes of a busy cache and not of last week.

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::item_table::TableStatistics;
use crate::prefixes::{PrefixCounts, Prefixes};
use crate::server::Cache;

/// Requests of a connection of which one is looked at.
pub(crate) const SAMPLE_EVERY: u32 = 64;

const COUNTER_COUNT: usize = 256;

/// Sightings after which all counts are halved.
const HALVING_SIGHTINGS: u64 = 100_000;

/// A key that is asked for often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HotKey {
    /// The key.
    pub key: Vec<u8>,
    /// Requests lately, about; too many by `error` at most.
    pub requests: u64,
    /// Of `requests`.
    pub error: u64,
}

/// What is asked for under a prefix, which is what stands before a key's first colon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixActivity {
    /// The prefix.
    pub prefix: Vec<u8>,
    /// Keys asked for, about.
    pub gets: u64,
    /// Keys found, about.
    pub hits: u64,
}

/// What a cache does, for those who look at it.
#[derive(Clone, Debug)]
pub struct Activity {
    /// What it holds, and counted.
    pub table: TableStatistics,
    /// Connections that are open.
    pub connection_count: u64,
    /// The hottest keys, the hottest first.
    pub hot_keys: Vec<HotKey>,
    /// The prefixes that are asked for most, the first first.
    pub prefixes: Vec<PrefixActivity>,
}

impl Cache {
    /// What the cache does, with so many of the hottest keys and prefixes at most.
    pub fn activity(&self, count_max: usize) -> Activity {
        let sampled = &self.shared.sampled;
        Activity {
            table: self.statistics(),
            connection_count: self.shared.connections.open_count(),
            hot_keys: sampled.hottest(count_max),
            prefixes: sampled.prefixes(count_max),
        }
    }
}

#[derive(Debug)]
struct Counter {
    key: Box<[u8]>,
    count: u64,
    error: u64,
}

/// The counters of Space-Saving.
#[derive(Debug, Default)]
struct Sketch {
    counters: Vec<Counter>,
    places: HashMap<Box<[u8]>, usize>,
    sighting_count: u64,
}

impl Sketch {
    fn see(&mut self, key: &[u8]) {
        self.sighting_count += 1;
        if self.sighting_count.is_multiple_of(HALVING_SIGHTINGS) {
            for counter in &mut self.counters {
                (counter.count, counter.error) = (counter.count / 2, counter.error / 2);
            }
        }
        if let Some(place) = self.places.get(key) {
            self.counters[*place].count += 1;
            return;
        }
        if self.counters.len() < COUNTER_COUNT {
            self.places.insert(key.into(), self.counters.len());
            self.counters.push(Counter { key: key.into(), count: 1, error: 0 });
            return;
        }
        let smallest = self.counters.iter().enumerate().min_by_key(|(_, counter)| counter.count);
        let Some((place, _)) = smallest else { return };
        let counter = &mut self.counters[place];
        self.places.remove(&counter.key);
        self.places.insert(key.into(), place);
        *counter = Counter { key: key.into(), count: counter.count + 1, error: counter.count };
    }
}

/// What the sampled requests asked for.
#[derive(Debug, Default)]
pub(crate) struct Sampled {
    sketch: Mutex<Sketch>,
    prefixes: Prefixes,
}

impl Sampled {
    pub(crate) fn see(&self, key: &[u8], is_found: bool) {
        self.sketch.lock().see(key);
        self.prefixes.count(key, |counts| {
            counts.get += 1;
            counts.hit += u64::from(is_found);
        });
    }

    fn hottest(&self, count_max: usize) -> Vec<HotKey> {
        let scale = u64::from(SAMPLE_EVERY);
        let sketch = self.sketch.lock();
        let shown = |counter: &Counter| HotKey {
            key: counter.key.to_vec(),
            requests: counter.count * scale,
            error: counter.error * scale,
        };
        let mut keys: Vec<HotKey> = sketch.counters.iter().map(shown).collect();
        drop(sketch);
        // A count that may be all error says nothing.
        keys.retain(|key| key.requests > key.error);
        keys.sort_by_key(|key| std::cmp::Reverse(key.requests - key.error));
        keys.truncate(count_max);
        keys
    }

    pub(crate) fn prefixes(&self, count_max: usize) -> Vec<PrefixActivity> {
        let scale = u64::from(SAMPLE_EVERY);
        let shown = |(prefix, counts): (Box<[u8]>, PrefixCounts)| PrefixActivity {
            prefix: prefix.into(),
            gets: counts.get * scale,
            hits: counts.hit * scale,
        };
        let mut prefixes: Vec<PrefixActivity> = self.prefixes.list().into_iter().map(shown).collect();
        prefixes.sort_by_key(|prefix| std::cmp::Reverse(prefix.gets));
        prefixes.truncate(count_max);
        prefixes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hottest_keys_come_first_among_many_that_are_not() {
        let sampled = Sampled::default();
        for number in 0..50_000u64 {
            sampled.see(format!("cold:{number}").as_bytes(), false);
            if number % 4 == 0 {
                sampled.see(b"hot:1", true);
            }
            if number % 20 == 0 {
                sampled.see(b"warm:1", number % 40 == 0);
            }
        }
        let hottest = sampled.hottest(10);
        assert_eq!(hottest[0].key, b"hot:1");
        assert_eq!(hottest[1].key, b"warm:1");
        let truth = 12_500 * u64::from(SAMPLE_EVERY);
        assert!(hottest[0].requests >= truth && hottest[0].requests - hottest[0].error <= truth);
        let prefixes = sampled.prefixes(2);
        assert_eq!(
            (prefixes[0].prefix.as_slice(), prefixes[1].prefix.as_slice()),
            (&b"cold"[..], &b"hot"[..])
        );
        assert_eq!((prefixes[1].gets, prefixes[1].hits), (truth, truth));
        assert!(sampled.sketch.lock().counters.len() <= COUNTER_COUNT);
    }

    #[test]
    fn what_was_hot_long_ago_cools_down() {
        let sampled = Sampled::default();
        (0..HALVING_SIGHTINGS).for_each(|_| sampled.see(b"then", true));
        (0..3 * HALVING_SIGHTINGS).for_each(|_| sampled.see(b"now", true));
        let hottest = sampled.hottest(2);
        assert_eq!(hottest[0].key, b"now");
        assert!(hottest[0].requests > 8 * hottest[1].requests, "{hottest:?}");
    }
}
