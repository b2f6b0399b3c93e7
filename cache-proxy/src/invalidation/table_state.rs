//! What is known of a table whose cells are cached: how fresh they are, and what
//! makes them invalid.
//!
//! Items carry a generation, in the high bits of their cas. A row's generation
//! is counted up where what is cached of it cannot be named one by one, and all
//! are where changes may have been missed: then what was cached before is not
//! served any more. An item lives for an hour at most and a generation has 24
//! bits, so a number does not come back while an item has it.
//!
//! Generations begin at random, so that items of an earlier process are not
//! served, unless the streams go on from where that one was: then its generations
//! are taken over, once what has changed since then is known.
//!
//! While the table's stream of changes is followed, every change evicts what it
//! touches, and values are as old as the stream's low watermark at most. Where
//! that falls behind by more than the bound, or there is no stream, values live
//! for the bound and no longer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use row_api::admin::{GcRule, Table, gc_rule};
use row_api::names::TableName;
use twox_hash::XxHash3_64;

use crate::origins::cell::IDENTITY_BITS;

/// Rows share this many generations.
const GENERATION_COUNT: usize = 1024;
const GENERATION_MASK: u32 = (1 << (u64::BITS - IDENTITY_BITS)) - 1;

/// The longest that a value is kept that nobody writes.
pub(crate) const LIFETIME_MAX: Duration = Duration::from_secs(3600);

/// Columns of a table that are known by name; a table with more has the cached
/// cells of a row, and some of others, invalidated by its generation.
const COLUMN_COUNT_MAX: usize = 64;

/// Own writes whose changes the stream has not told of yet.
const OWN_WRITE_COUNT_MAX: usize = 1 << 16;

/// Who follows a table.
mod follower {
    pub(super) const NONE: u8 = 0;
    /// Nobody, and somebody should.
    pub(super) const WISHED: u8 = 1;
    pub(super) const FOLLOWING: u8 = 2;
}

/// A column: family and qualifier.
pub(crate) type Column = (String, Vec<u8>);

/// A table whose cells are cached.
#[derive(Debug)]
pub(crate) struct TableState {
    pub(crate) name: TableName,
    /// How canonical keys name it.
    pub(crate) part: Box<[u8]>,
    staleness_max: Duration,
    generations: Box<[AtomicU32]>,
    is_followed: AtomicBool,
    follower: AtomicU8,
    /// Generations of the process before, whose items this one has, until the
    /// changes since then are known.
    former_generations: Mutex<Option<Vec<u32>>>,
    /// Every change committed before is known.
    watermark_us: AtomicU64,
    /// The watermarks of its open streams.
    stream_watermarks: Mutex<BTreeMap<u64, u64>>,
    columns: RwLock<BTreeSet<Column>>,
    has_more_columns: AtomicBool,
    /// The age that a family's cells reach at most, where there is such.
    ages_max: RwLock<HashMap<String, Duration>>,
    own_writes: Mutex<HashMap<u64, u32>>,
}

impl TableState {
    pub(crate) fn new(name: TableName, part: Box<[u8]>, staleness_max: Duration) -> Self {
        Self {
            name,
            part,
            staleness_max,
            generations: (0..GENERATION_COUNT).map(|_| AtomicU32::new(rand::random())).collect(),
            is_followed: AtomicBool::new(false),
            follower: AtomicU8::new(follower::NONE),
            former_generations: Mutex::default(),
            watermark_us: AtomicU64::new(0),
            stream_watermarks: Mutex::default(),
            columns: RwLock::default(),
            has_more_columns: AtomicBool::new(false),
            ages_max: RwLock::default(),
            own_writes: Mutex::default(),
        }
    }

    /// Asks for somebody to follow it; whether that is news.
    pub(crate) fn wish_followed(&self) -> bool {
        let asked = (follower::NONE, follower::WISHED);
        self.follower.compare_exchange(asked.0, asked.1, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Undertakes to follow it; false if nobody asked or somebody else does.
    pub(crate) fn take_follower(&self) -> bool {
        let taken = (follower::WISHED, follower::FOLLOWING);
        self.follower.compare_exchange(taken.0, taken.1, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Follows it no more.
    pub(crate) fn leave_follower(&self) {
        self.follower.store(follower::NONE, Ordering::Release);
    }

    /// Whether somebody follows it.
    pub(crate) fn has_follower(&self) -> bool {
        self.follower.load(Ordering::Acquire) == follower::FOLLOWING
    }

    fn generation_of(&self, row: &[u8]) -> &AtomicU32 {
        &self.generations[Self::place(row)]
    }

    fn place(row: &[u8]) -> usize {
        usize::try_from(XxHash3_64::oneshot(row) % GENERATION_COUNT as u64).expect("it is small")
    }

    /// The generation of `row`: to be asked before its origin is read.
    pub(crate) fn generation(&self, row: &[u8]) -> u32 {
        self.generation_of(row).load(Ordering::Acquire) & GENERATION_MASK
    }

    /// The cas of an item of that generation, whose value has `identity`.
    pub(crate) fn cas(generation: u32, identity: u64) -> u64 {
        u64::from(generation) << IDENTITY_BITS | identity
    }

    /// Whether an item of `row` with `cas` may be served at `now_us`.
    pub(crate) fn serves(&self, row: &[u8], cas: u64, now_us: u64) -> bool {
        self.check_lag(now_us);
        cas >> IDENTITY_BITS == u64::from(self.generation(row))
    }

    /// How long a value that is stored at `now_us` may live.
    pub(crate) fn lifetime(&self, now_us: u64) -> Duration {
        if self.check_lag(now_us) { LIFETIME_MAX } else { self.staleness_max.min(LIFETIME_MAX) }
    }

    /// How old a value that is served may be at most, by what is known now.
    pub(crate) fn lag(&self, now_us: u64) -> Duration {
        if !self.is_followed.load(Ordering::Acquire) {
            return self.staleness_max;
        }
        Duration::from_micros(now_us.saturating_sub(self.watermark_us.load(Ordering::Acquire)))
    }

    /// Whether its stream is followed closely enough.
    pub(crate) fn is_followed(&self) -> bool {
        self.is_followed.load(Ordering::Acquire)
    }

    /// The same; where the stream has fallen behind, what is cached goes.
    fn check_lag(&self, now_us: u64) -> bool {
        if !self.is_followed() {
            return false;
        }
        if self.lag(now_us) <= self.staleness_max {
            return true;
        }
        self.lose("it tells nothing new");
        false
    }

    /// Notes that the stream is not followed: nothing cached so far is served.
    pub(crate) fn lose(&self, why: &str) {
        if self.is_followed.swap(false, Ordering::AcqRel) {
            tracing::warn!(table = %self.name, why, "a stream of changes is lost: cached values live shortly");
            metrics::counter!("hayloft_cache_streams_lost_total").increment(1);
            self.invalidate_all();
        }
    }

    /// Notes that all streams are open. With `gap`, changes before may have been missed.
    pub(crate) fn regain(&self, gap: bool) {
        let former = self.former_generations.lock().take();
        if gap {
            self.own_writes.lock().clear();
            self.invalidate_all();
        } else if let Some(former) = former {
            for (generation, former) in self.generations.iter().zip(former) {
                generation.store(former, Ordering::Release);
            }
        }
        if !self.is_followed.swap(true, Ordering::AcqRel) {
            tracing::info!(table = %self.name, "changes are followed");
        }
    }

    /// Whether the watermark is close enough to be followed again.
    pub(crate) fn has_caught_up(&self, now_us: u64) -> bool {
        let behind_us = now_us.saturating_sub(self.watermark_us.load(Ordering::Acquire));
        Duration::from_micros(behind_us) <= self.staleness_max
    }

    /// Sets the watermark of one of its streams, which are numbered.
    pub(crate) fn set_watermark(&self, stream: u64, watermark_us: u64) {
        let mut streams = self.stream_watermarks.lock();
        let known = streams.entry(stream).or_insert(watermark_us);
        *known = watermark_us.max(*known);
        self.publish_watermark(&streams);
    }

    /// The watermark of one of its streams.
    pub(crate) fn watermark(&self, stream: u64) -> u64 {
        self.stream_watermarks.lock().get(&stream).copied().unwrap_or(0)
    }

    /// Forgets a stream that others have taken over from.
    pub(crate) fn remove_watermark(&self, stream: u64) {
        let mut streams = self.stream_watermarks.lock();
        streams.remove(&stream);
        self.publish_watermark(&streams);
    }

    /// Forgets all streams.
    pub(crate) fn clear_watermarks(&self) {
        self.stream_watermarks.lock().clear();
    }

    fn publish_watermark(&self, streams: &BTreeMap<u64, u64>) {
        if let Some(watermark_us) = streams.values().min() {
            self.watermark_us.store(*watermark_us, Ordering::Release);
        }
    }

    /// Makes whatever is cached of `row` and rows that share its generation invalid.
    pub(crate) fn invalidate_row(&self, row: &[u8]) {
        self.generation_of(row).fetch_add(1, Ordering::AcqRel);
        if let Some(former) = &mut *self.former_generations.lock() {
            let former = &mut former[Self::place(row)];
            *former = former.wrapping_add(1);
        }
    }

    /// The generations, to be saved with the positions in its streams.
    pub(crate) fn generations(&self) -> Vec<u32> {
        self.generations.iter().map(|generation| generation.load(Ordering::Acquire)).collect()
    }

    /// Takes the generations that were saved with the positions which its streams
    /// go on from: they count once all changes since then are known.
    pub(crate) fn await_generations(&self, saved: Vec<u32>) {
        *self.former_generations.lock() = (saved.len() == GENERATION_COUNT).then_some(saved);
    }

    /// Makes whatever is cached of the table invalid.
    pub(crate) fn invalidate_all(&self) {
        for generation in &self.generations {
            generation.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Notes that a cell of a column is about to be cached.
    pub(crate) fn note_column(&self, family: &str, qualifier: &[u8]) {
        let column = (family.to_owned(), qualifier.to_vec());
        if self.has_more_columns.load(Ordering::Acquire) || self.columns.read().contains(&column) {
            return;
        }
        let mut columns = self.columns.write();
        if columns.len() < COLUMN_COUNT_MAX {
            columns.insert(column);
        } else {
            self.has_more_columns.store(true, Ordering::Release);
        }
    }

    /// The columns that cells are cached of; none if they are too many to name.
    pub(crate) fn columns(&self) -> Option<Vec<Column>> {
        let columns = self.columns.read();
        (!self.has_more_columns.load(Ordering::Acquire)).then(|| columns.iter().cloned().collect())
    }

    /// Takes what the table's schema says of ages; whether that has changed.
    pub(crate) fn learn_ages(&self, table: &Table) -> bool {
        let age = |rule: &Option<GcRule>| rule.as_ref().and_then(age_max);
        let families = table.column_families.iter();
        let ages: HashMap<String, Duration> =
            families.filter_map(|(name, family)| Some((name.clone(), age(&family.gc_rule)?))).collect();
        let mut known = self.ages_max.write();
        let has_changed = *known != ages;
        *known = ages;
        has_changed
    }

    /// The second in which a cell of `family` is too old for its table; 0 for never.
    pub(crate) fn expires_at(&self, family: &str, timestamp_us: i64) -> u32 {
        let Some(age) = self.ages_max.read().get(family).copied() else { return 0 };
        let written = Duration::from_micros(u64::try_from(timestamp_us).unwrap_or(0));
        u32::try_from((written + age).as_secs()).unwrap_or(u32::MAX).max(1)
    }

    /// Notes a write through this proxy, before it is sent, by the number of its change.
    pub(crate) fn expect_own(&self, change: u64) {
        let mut own = self.own_writes.lock();
        if self.is_followed() && own.len() < OWN_WRITE_COUNT_MAX {
            *own.entry(change).or_insert(0) += 1;
        }
    }

    /// Takes note that the stream has told of a change; whether a write through
    /// this proxy was noted for it. Also for a write that came to nothing, or
    /// whose outcome is unknown.
    pub(crate) fn take_own(&self, change: u64) -> bool {
        let mut own = self.own_writes.lock();
        let Some(count) = own.get_mut(&change) else { return false };
        *count -= 1;
        if *count == 0 {
            own.remove(&change);
        }
        true
    }
}

/// The age that no cell exceeds under `rule`, if there is one.
fn age_max(rule: &GcRule) -> Option<Duration> {
    match rule.rule.as_ref()? {
        gc_rule::Rule::MaxAge(age) => Duration::try_from(*age).ok(),
        gc_rule::Rule::MaxNumVersions(_) => None,
        // What any part would collect goes.
        gc_rule::Rule::Union(union) => union.rules.iter().filter_map(age_max).min(),
        // Only what all parts would collect goes.
        gc_rule::Rule::Intersection(all) => {
            let ages: Option<Vec<Duration>> = all.rules.iter().map(age_max).collect();
            ages?.into_iter().max()
        }
    }
}

#[cfg(test)]
mod tests {
    use row_api::names::InstanceName;

    use super::*;

    const SECOND_US: u64 = 1_000_000;

    fn state() -> TableState {
        let instance = InstanceName { project: "p".into(), instance: "i".into() };
        let name = TableName { instance, table: "t".into() };
        TableState::new(name, b"t"[..].into(), Duration::from_secs(5))
    }

    #[test]
    fn values_live_shortly_until_the_stream_is_followed_and_after_it_is_lost() {
        let state = state();
        assert_eq!(state.lifetime(0), Duration::from_secs(5));
        let before = TableState::cas(state.generation(b"r"), 1);
        state.set_watermark(1, 100 * SECOND_US);
        state.set_watermark(2, 103 * SECOND_US);
        state.regain(true);
        assert!(!state.serves(b"r", before, 104 * SECOND_US), "a gap invalidates");
        let cas = TableState::cas(state.generation(b"r"), 1);
        assert_eq!(state.lag(104 * SECOND_US), Duration::from_secs(4));
        assert_eq!(state.lifetime(105 * SECOND_US), LIFETIME_MAX);
        assert!(state.serves(b"r", cas, 105 * SECOND_US));
        assert!(!state.serves(b"r", cas, 106 * SECOND_US), "the slowest stream is too far behind");
        assert!(!state.is_followed());
        assert_eq!(state.lag(106 * SECOND_US), Duration::from_secs(5));
    }

    #[test]
    fn items_of_the_process_before_are_served_once_the_changes_since_are_known() {
        let before = state();
        let cas = TableState::cas(before.generation(b"r"), 1);
        let state = state();
        state.await_generations(before.generations());
        state.set_watermark(1, 100 * SECOND_US);
        assert!(!state.serves(b"r", cas, 100 * SECOND_US));
        state.invalidate_row(b"other");
        state.regain(false);
        assert!(state.serves(b"r", cas, 100 * SECOND_US));
        assert!(!state.serves(b"other", TableState::cas(before.generation(b"other"), 1), 100 * SECOND_US));
    }

    #[test]
    fn own_writes_are_told_from_others_once() {
        let state = state();
        state.expect_own(7);
        assert!(!state.take_own(7), "nobody would take it away while there is no stream");
        state.regain(true);
        state.expect_own(7);
        state.expect_own(7);
        assert_eq!([state.take_own(7), state.take_own(7), state.take_own(7)], [true, true, false]);
    }

    #[test]
    fn ages_follow_the_rule() {
        let age = |seconds| gc_rule::Rule::MaxAge(prost_types::Duration { seconds, nanos: 0 });
        let versions = gc_rule::Rule::MaxNumVersions(1);
        let rules =
            |rules: Vec<gc_rule::Rule>| rules.into_iter().map(|rule| GcRule { rule: Some(rule) }).collect();
        let union = |parts| gc_rule::Rule::Union(gc_rule::Union { rules: rules(parts) });
        let all = |parts| gc_rule::Rule::Intersection(gc_rule::Intersection { rules: rules(parts) });
        for (rule, expected) in [
            (age(9), Some(9)),
            (versions.clone(), None),
            (union(vec![age(9), versions.clone(), age(7)]), Some(7)),
            (all(vec![age(9), versions]), None),
            (all(vec![age(9), age(7)]), Some(9)),
        ] {
            let found = age_max(&GcRule { rule: Some(rule) });
            assert_eq!(found, expected.map(Duration::from_secs));
        }
    }
}
