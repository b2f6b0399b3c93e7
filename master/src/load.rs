//! Which tablets keep the servers busy: from counters, minute by minute, purely.
//!
//! A tablet server counts the rows that each tablet reads and writes. A window is
//! the time between two looks at the counters; what the process spent on
//! processors meanwhile is divided among the tablets by their rows. So a figure
//! says which tablets the work is for, and takes one row for as much work as
//! another.
//!
//! History is in memory, bounded, and begins anew with the master.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, SystemTime};

use tablet_server::control::TabletStats;
use tablet_server::row_set::RowRange;
use tablet_server::schema::{TableId, TabletId};

/// How far back history goes, where it has room.
pub const HISTORY: Duration = Duration::from_secs(14 * 24 * 3600);

/// Shorter windows tell nothing: the system counts processors' time in steps.
const WINDOW_MIN: Duration = Duration::from_secs(1);

/// Busy tablets remembered, over all windows.
const REMEMBERED_COUNT_MAX: usize = 20_000;

/// The busiest of a window that are remembered.
const WINDOW_COUNT_MAX: usize = 32;

/// A tablet is hot from this share of the processors' time on.
const HOT_PERCENT: f64 = 1.0;

/// Of hot tablets within so much time the hottest moment stands for all.
const INTERVAL: Duration = Duration::from_secs(15 * 60);

/// What was seen at one moment.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When.
    pub at: SystemTime,
    /// What the process has spent on processors since it began, all of them together.
    pub cpu: Duration,
    /// The processors that it may use.
    pub cpu_count: usize,
    /// The tablets that are served.
    pub tablets: Vec<TabletStats>,
}

/// A tablet that kept its server busy for a while.
#[derive(Clone, Debug, PartialEq)]
pub struct HotTablet {
    /// Its table.
    pub table: TableId,
    /// The tablet.
    pub tablet: TabletId,
    /// Its rows.
    pub range: RowRange,
    /// When that began.
    pub start: SystemTime,
    /// When it ended.
    pub end: SystemTime,
    /// Its part of all the processors' time, in percent.
    pub cpu_percent: f64,
}

/// The last days.
#[derive(Debug, Default)]
pub struct LoadHistory {
    last: Option<Sample>,
    /// In the order of their windows.
    hot: VecDeque<HotTablet>,
}

impl LoadHistory {
    /// Closes the window that the sample before began, and begins one with `sample`.
    pub fn learn(&mut self, sample: Sample) {
        self.hot.extend(self.window(&sample));
        let oldest = sample.at.checked_sub(HISTORY).unwrap_or(SystemTime::UNIX_EPOCH);
        while self.hot.len() > REMEMBERED_COUNT_MAX || self.hot.front().is_some_and(|hot| hot.end < oldest) {
            self.hot.pop_front();
        }
        self.last = Some(sample);
    }

    /// Tablets for which `is_asked` that were hot in a window that began from
    /// `start` on and before `end`, the hottest first; the window under way ends at `now`.
    pub fn hot(
        &self,
        now: &Sample,
        start: SystemTime,
        end: SystemTime,
        is_asked: impl Fn(TableId) -> bool,
    ) -> Vec<HotTablet> {
        let under_way = self.window(now);
        let mut hottest: HashMap<(TabletId, u64), &HotTablet> = HashMap::new();
        for hot in self.hot.iter().chain(&under_way) {
            if hot.start < start || hot.start >= end || !is_asked(hot.table) {
                continue;
            }
            let since_start = hot.start.duration_since(start).unwrap_or_default();
            let interval = since_start.as_secs() / INTERVAL.as_secs();
            let known = hottest.entry((hot.tablet, interval)).or_insert(hot);
            if hot.cpu_percent > known.cpu_percent {
                *known = hot;
            }
        }
        let mut hottest: Vec<HotTablet> = hottest.into_values().cloned().collect();
        hottest.sort_by(|a, b| {
            b.cpu_percent.total_cmp(&a.cpu_percent).then(a.start.cmp(&b.start)).then(a.tablet.cmp(&b.tablet))
        });
        hottest
    }

    /// The hot tablets since the last sample, the hottest first.
    fn window(&self, now: &Sample) -> Vec<HotTablet> {
        let Some(last) = &self.last else { return Vec::new() };
        let elapsed = now.at.duration_since(last.at).unwrap_or_default();
        let cpu = now.cpu.saturating_sub(last.cpu);
        if elapsed < WINDOW_MIN {
            return Vec::new();
        }
        let before: HashMap<TabletId, u64> =
            last.tablets.iter().map(|stats| (stats.assignment.tablet, stats.row_count)).collect();
        // A tablet that was loaded anew counts from nothing.
        let rows = |stats: &TabletStats| {
            let before = before.get(&stats.assignment.tablet).copied().unwrap_or(0);
            stats.row_count.checked_sub(before).unwrap_or(stats.row_count)
        };
        let all: u64 = now.tablets.iter().map(rows).sum();
        let busy_percent = 100.0 * cpu.as_secs_f64() / (elapsed.as_secs_f64() * now.cpu_count.max(1) as f64);
        let mut hot: Vec<HotTablet> = now
            .tablets
            .iter()
            .filter(|stats| rows(stats) > 0)
            .map(|stats| HotTablet {
                table: stats.assignment.table,
                tablet: stats.assignment.tablet,
                range: stats.assignment.range.clone(),
                start: last.at,
                end: now.at,
                cpu_percent: busy_percent.min(100.0) * rows(stats) as f64 / all as f64,
            })
            .filter(|hot| hot.cpu_percent >= HOT_PERCENT)
            .collect();
        hot.sort_by(|a, b| b.cpu_percent.total_cmp(&a.cpu_percent));
        hot.truncate(WINDOW_COUNT_MAX);
        hot
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster::Epoch;
    use tablet_server::control::Assignment;

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(second)
    }

    /// Tablets 1, 2, … of tables of the same numbers, with so many rows.
    fn sample(second: u64, cpu_seconds: u64, rows: &[u64]) -> Sample {
        let stats = |(row_count, number): (&u64, u64)| TabletStats {
            assignment: Assignment {
                tablet: TabletId(number),
                table: TableId(number),
                range: RowRange::default(),
                epoch: Epoch(1),
            },
            memtable_bytes: 0,
            sstable_bytes: 0,
            row_count: *row_count,
            can_merge: true,
        };
        Sample {
            at: at(second),
            cpu: Duration::from_secs(cpu_seconds),
            cpu_count: 2,
            tablets: rows.iter().zip(1..).map(stats).collect(),
        }
    }

    fn shown(hot: &[HotTablet]) -> Vec<(u64, u64, f64)> {
        let second = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        hot.iter()
            .map(|hot| (hot.tablet.0, second(hot.start), (hot.cpu_percent * 10.0).round() / 10.0))
            .collect()
    }

    #[test]
    fn the_processors_time_is_divided_by_rows() {
        let mut history = LoadHistory::default();
        history.learn(sample(0, 10, &[100, 0, 0]));
        // 60 of 120 processor seconds, of which tablet 2 has three quarters, and 3 almost nothing.
        let now = sample(60, 70, &[10_100, 30_000, 1]);
        let all = |_| true;
        assert_eq!(shown(&history.hot(&now, at(0), at(100), all)), [(2, 0, 37.5), (1, 0, 12.5)]);
        history.learn(now.clone());
        let later = sample(60, 70, &[10_100, 30_000, 1]);
        assert_eq!(history.hot(&later, at(0), at(100), all).len(), 2);
        assert_eq!(history.hot(&later, at(1), at(100), all).len(), 0);
        assert_eq!(history.hot(&later, at(0), at(100), |table| table == TableId(1)).len(), 1);
    }

    #[test]
    fn the_hottest_moment_of_a_quarter_of_an_hour_stands_for_it() {
        let mut history = LoadHistory::default();
        let mut rows = 0;
        for (minute, cpu) in [0, 6, 18, 30, 36].into_iter().enumerate() {
            rows += 10;
            history.learn(sample(60 * minute as u64, cpu, &[rows]));
        }
        rows += 10;
        history.learn(sample(1_200, 60, &[rows]));
        let now = sample(1_260, 84, &[rows + 10]);
        let hot = history.hot(&now, at(0), at(10_000), |_| true);
        assert_eq!(shown(&hot), [(1, 1_200, 20.0), (1, 60, 10.0)]);
    }

    #[test]
    fn a_tablet_that_was_loaded_anew_counts_from_nothing() {
        let mut history = LoadHistory::default();
        history.learn(sample(0, 0, &[1_000]));
        assert_eq!(shown(&history.hot(&sample(10, 10, &[5]), at(0), at(1), |_| true)), [(1, 0, 50.0)]);
        assert!(history.hot(&sample(10, 10, &[1_000]), at(0), at(1), |_| true).is_empty());
    }

    #[test]
    fn history_is_bounded() {
        let mut history = LoadHistory::default();
        for minute in 0..30_000 {
            history.learn(sample(60 * minute, 60 * minute, &[minute]));
        }
        assert!(history.hot.len() <= REMEMBERED_COUNT_MAX);
        assert!(history.hot.front().unwrap().end >= at(60 * 29_999) - HISTORY);
    }
}
