//! Which tables a compaction takes. Pure: it looks at a version and decides.
//!
//! Levels are sized from the lowest one up: its bytes are what they are, each
//! level above is to hold `level_ratio` times less, and the first whose bytes
//! fit `level_bytes_base` is the *base*, into which level 0 is merged; levels
//! between are empty. So no more than about a ninth of a tree is in levels that
//! may hide what is below, whatever its size. (RocksDB's dynamic level sizes;
//! Dong et al., "Optimizing Space Amplification in RocksDB", CIDR 2017, 3.)
//!
//! Beside sizes, what readers or the disk suffer from makes a compaction due:
//!
//! - *tombstones*: a table mostly of deletes, which scans step over, or with
//!   range deletes over more bytes than it has itself, goes down until they meet
//!   what they delete and go with it;
//! - *garbage*: a table of which the tree's part is the smaller one is
//!   rewritten, which gives back the rest;
//! - *space*: all above the lowest level together are more than a fifth of it, and
//!   there is nothing else to do.

use std::sync::Arc;

use crate::tables::table_ref::TableRef;
use crate::version::{LEVEL_COUNT, Version, overlapping};
use crate::{KeyRange, Options};

/// The lowest level.
const LOWEST: usize = LEVEL_COUNT - 1;
/// Fewer deletes than these do not make a compaction due.
const TOMBSTONE_COUNT_MIN: u64 = 4096;
/// Nor do range deletes over fewer bytes.
const COVERED_BYTES_MIN: u64 = 1 << 20;
/// The most that the levels above may take of the lowest one.
const UPPER_PERCENT_MAX: u64 = 20;

/// The inputs of a compaction and where its output goes.
#[derive(Debug)]
pub(crate) struct Pick {
    /// Of each level, the tables taken, in the version's order.
    pub(crate) inputs: [Vec<Arc<TableRef>>; LEVEL_COUNT],
    pub(crate) output_level: usize,
    /// The tables can go there as they are.
    pub(crate) is_move: bool,
}

impl Pick {
    pub(crate) fn tables(&self) -> impl Iterator<Item = &Arc<TableRef>> {
        self.inputs.iter().flatten()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.tables().map(|table| table.bytes()).sum()
    }
}

/// Why a compaction is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// A level is larger than it should be, or holds tables and should not.
    Size { level: usize },
    /// A table is mostly what nobody sees.
    Table { level: usize, index: usize },
}

/// How large each level should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Targets {
    /// The level that level 0 is merged into.
    base: usize,
    /// Zero above the base; the lowest level has none.
    bytes: [u64; LEVEL_COUNT],
}

impl Targets {
    fn new(version: &Version, options: &Options) -> Self {
        // The largest, which is the lowest unless the tree is from before levels were sized like this.
        let mut level_bytes = (1..LEVEL_COUNT).map(|level| version.level_bytes(level)).max().unwrap_or(0);
        let mut base = LOWEST;
        let mut bytes = [0; LEVEL_COUNT];
        bytes[LOWEST] = u64::MAX;
        while level_bytes > options.level_bytes_base && base > 1 {
            base -= 1;
            level_bytes /= options.level_ratio;
            bytes[base] = level_bytes.max(1);
        }
        Self { base, bytes }
    }
}

/// The compaction that is due first in a version, and how much: in per cent of
/// the bound that is exceeded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Due {
    pub(crate) percent: u64,
    reason: Reason,
    base: usize,
}

/// When a version is looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moment {
    /// The least sequence number that a snapshot holds.
    pub(crate) oldest_snapshot: Option<u64>,
    /// Nothing was flushed for a while: time for what can wait.
    pub(crate) is_idle: bool,
}

impl Moment {
    /// Whether no snapshot keeps the table's deletes from doing their work.
    fn is_past(&self, table: &TableRef) -> bool {
        self.oldest_snapshot.is_none_or(|oldest| table.record().sequence_max <= oldest)
    }
}

/// What is due in `version`.
pub(crate) fn due(version: &Version, options: &Options, moment: Moment) -> Option<Due> {
    let targets = Targets::new(version, options);
    let (percent, level) = fullest(version, options, &targets);
    let due = if percent > 100 || (percent == 100 && level == 0) {
        Some((percent, Reason::Size { level }))
    } else if let Some((level, index)) = useless(version, moment) {
        Some((100, Reason::Table { level, index }))
    } else if moment.is_idle && is_spacious(version, options) {
        Some((100, Reason::Size { level }))
    } else {
        None
    };
    due.map(|(percent, reason)| Due { percent, reason, base: targets.base })
}

/// The first table that readers or the disk would rather be without: its level and index.
fn useless(version: &Version, moment: Moment) -> Option<(usize, usize)> {
    (0..LEVEL_COUNT).find_map(|level| {
        let is_useless = |table: &Arc<TableRef>| {
            has_garbage(table) || (moment.is_past(table) && is_deletes(version, level, table))
        };
        version.level(level).iter().position(is_useless).map(|index| (level, index))
    })
}

/// Whether the levels above take too much of the lowest one.
fn is_spacious(version: &Version, options: &Options) -> bool {
    let lowest_bytes = version.level_bytes(LOWEST);
    let upper_bytes = (0..LOWEST).map(|level| version.level_bytes(level)).sum::<u64>();
    lowest_bytes > options.level_bytes_base
        && upper_bytes.saturating_mul(100) > lowest_bytes.saturating_mul(UPPER_PERCENT_MAX)
}

/// The level that is fullest, and how full it is, in per cent of its bound.
fn fullest(version: &Version, options: &Options, targets: &Targets) -> (u64, usize) {
    let l0_count = version.level(0).len() as u64;
    let mut most = (l0_count.saturating_mul(100) / options.l0_compaction_trigger as u64, 0);
    for level in (1..LOWEST).filter(|level| version.level_bytes(*level) > 0) {
        // What is above the base should not be there.
        let percent = match targets.bytes[level] {
            0 => 150,
            target => version.level_bytes(level).saturating_mul(100) / target,
        };
        if percent > most.0 {
            most = (percent, level);
        }
    }
    most
}

/// Whether less than half of a file is what the tree sees of it, and a rewrite gives back the rest.
fn has_garbage(table: &TableRef) -> bool {
    table.garbage_bytes() > table.bytes()
}

/// Whether deletes are most of what a table holds, or cover more than it has.
fn is_deletes(version: &Version, level: usize, table: &TableRef) -> bool {
    let tombstones = table.tombstone_count();
    if tombstones >= TOMBSTONE_COUNT_MIN && tombstones.saturating_mul(2) >= table.entry_count() {
        return true;
    }
    !table.range_tombstones().is_empty()
        && covered_bytes(version, level, table) >= table.bytes().max(COVERED_BYTES_MIN)
}

/// Bytes of the levels below that the table's range deletes cover, roughly.
fn covered_bytes(version: &Version, level: usize, table: &TableRef) -> u64 {
    /// More are not looked at: it is for a few wide ones that this matters.
    const FRAGMENTS_MAX: usize = 64;
    let mut covered = 0;
    for fragment in table.range_tombstones().iter().take(FRAGMENTS_MAX) {
        let range = KeyRange {
            start: bytes::Bytes::copy_from_slice(fragment.start),
            end: bytes::Bytes::copy_from_slice(fragment.end),
        };
        for lower in version.deeper_levels()[level..].iter().flat_map(|tables| overlapping(tables, &range)) {
            // Damage is for who reads the table to report.
            covered += lower.approximate_bytes(&range).unwrap_or(0);
        }
    }
    covered
}

/// Bytes that compactions would have to rewrite until every level is within its
/// bound, roughly: what is too much in one level is merged into the next, and
/// with its like there. (After RocksDB's `EstimateCompactionBytesNeeded`.)
pub(crate) fn debt_bytes(version: &Version, options: &Options) -> u64 {
    let targets = Targets::new(version, options);
    let (mut debt, mut carried) = (0_u64, 0_u64);
    if version.level(0).len() >= options.l0_compaction_trigger {
        carried = version.level_bytes(0);
        debt += carried + version.level_bytes(targets.base);
    }
    for level in targets.base..LOWEST {
        let bytes = version.level_bytes(level) + carried;
        carried = bytes.saturating_sub(targets.bytes[level]);
        if carried > 0 {
            let below = u128::from(version.level_bytes(level + 1));
            let merged = u128::from(carried) * below / u128::from(bytes);
            debt += carried + u64::try_from(merged).unwrap_or(u64::MAX);
        }
    }
    debt
}

/// The compaction that is due.
pub(crate) fn pick(version: &Version, due: Due) -> Option<Pick> {
    let (level, upper) = match due.reason {
        Reason::Size { level: 0 } | Reason::Table { level: 0, .. } => (0, version.level(0).to_vec()),
        Reason::Size { level } => (level, vec![least_overlap(version, level)?]),
        Reason::Table { level, index } => (level, vec![Arc::clone(version.level(level).get(index)?)]),
    };
    let range = hull(&upper)?;
    let is_in_place =
        matches!(due.reason, Reason::Table { .. }) && level > 0 && is_lowest(version, level, &range);
    let output_level = if is_in_place { level } else { output_level(version, level, due.base) };
    let lower = if is_in_place { Vec::new() } else { version.overlapping(output_level, &range).to_vec() };
    let is_move = !is_in_place
        && lower.is_empty()
        && are_disjoint(&upper)
        && !upper.iter().any(|table| {
            has_garbage(table)
                || (table.has_tombstones() && is_lowest(version, output_level, table.key_range()))
        });
    let mut inputs: [Vec<Arc<TableRef>>; LEVEL_COUNT] = Default::default();
    inputs[output_level] = lower;
    inputs[level] = upper;
    Some(Pick { inputs, output_level, is_move })
}

/// The compaction of all tables into the lowest level; none if there is no table.
pub(crate) fn pick_all(version: &Version) -> Option<Pick> {
    version.tables().next()?;
    let inputs = std::array::from_fn(|level| version.level(level).to_vec());
    Some(Pick { inputs, output_level: LOWEST, is_move: false })
}

/// Where tables of `level` go: to the next level that holds tables or should.
fn output_level(version: &Version, level: usize, base: usize) -> usize {
    let next = (level + 1..LOWEST).find(|next| *next >= base || version.level_bytes(*next) > 0);
    next.unwrap_or(LOWEST)
}

/// The table of `level` that makes the least of the next level be rewritten for its size, and what its
/// rewriting sets free.
fn least_overlap(version: &Version, level: usize) -> Option<Arc<TableRef>> {
    let cost = |table: &Arc<TableRef>| {
        let lower = version.overlapping(level + 1, table.key_range());
        let bytes: u64 = lower.iter().map(|table| table.bytes()).sum();
        bytes.saturating_mul(1000) / (table.bytes() + table.garbage_bytes()).max(1)
    };
    version.level(level).iter().min_by_key(|table| cost(table)).cloned()
}

/// From the first key of any of `tables` to past the last one.
fn hull(tables: &[Arc<TableRef>]) -> Option<KeyRange> {
    let start = tables.iter().map(|table| &table.key_range().start).min()?.clone();
    let end = tables.iter().map(|table| &table.key_range().end).max()?.clone();
    Some(KeyRange { start, end })
}

fn are_disjoint(tables: &[Arc<TableRef>]) -> bool {
    let mut ranges: Vec<_> = tables.iter().map(|table| table.key_range()).collect();
    ranges.sort_by(|a, b| a.start.cmp(&b.start));
    ranges.is_sorted_by(|a, b| a.end <= b.start)
}

/// Whether no table below `level` holds keys of `range`.
fn is_lowest(version: &Version, level: usize, range: &KeyRange) -> bool {
    version.deeper_levels()[level..].iter().all(|deeper| overlapping(deeper, range).is_empty())
}
