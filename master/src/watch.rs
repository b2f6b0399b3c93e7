//! What servers count, from one look at it to the next: rates, smoothed over some
//! [`MEMORY_S`] seconds, and for how long a tablet has not grown. Purely; the time is given.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use cluster::ServerId;
use tablet_server::control::{Assignment, TabletStats};
use tablet_server::schema::TabletId;

/// Seconds after which a rate of before counts for a third of what it did.
pub const MEMORY_S: f64 = 20.0;

/// So many bytes more are no growth: what is in memory and what is on disk take different room.
const STIR_BYTES: u64 = 64 << 10;

/// A server at one moment.
#[derive(Clone, Debug)]
pub struct ServerSample {
    /// The server.
    pub server: ServerId,
    /// Whether it is to have no tablets.
    pub is_leaving: bool,
    /// Its tablets.
    pub tablets: Vec<TabletStats>,
}

/// A server of late.
#[derive(Clone, Debug)]
pub struct ServerFigures {
    /// The server.
    pub server: ServerId,
    /// Whether it is to have no tablets.
    pub is_leaving: bool,
    /// Its tablets.
    pub tablets: Vec<TabletFigures>,
}

/// A tablet of late.
#[derive(Clone, Debug)]
pub struct TabletFigures {
    /// The tablet.
    pub assignment: Assignment,
    /// What it holds, in memory and on disk.
    pub bytes: u64,
    /// Rows that it read and wrote, of late.
    pub rows_per_s: f64,
    /// For how long it has been seen.
    pub age: Duration,
    /// For how much of it it has not grown.
    pub quiet: Duration,
    /// Whether it can be merged at all.
    pub can_merge: bool,
}

/// What was seen of a tablet.
#[derive(Clone, Debug)]
struct Seen {
    first: SystemTime,
    row_count: u64,
    /// None before the second look.
    rows_per_s: Option<f64>,
    quiet_since: SystemTime,
    /// The fewest since then.
    quiet_bytes: u64,
}

impl Seen {
    /// Rows a second now that `row_count` are counted, so long after.
    fn rate(&self, row_count: u64, elapsed: Duration) -> Option<f64> {
        if elapsed.is_zero() {
            return self.rows_per_s;
        }
        // One that was loaded anew counts from nothing.
        let rows = row_count.checked_sub(self.row_count).unwrap_or(row_count);
        let rate = rows as f64 / elapsed.as_secs_f64();
        let before = self.rows_per_s.unwrap_or(rate);
        Some(rate + (before - rate) * (-elapsed.as_secs_f64() / MEMORY_S).exp())
    }
}

/// The last look, and what is remembered from before.
#[derive(Debug, Default)]
pub struct Watch {
    last: Option<SystemTime>,
    seen: HashMap<TabletId, Seen>,
}

impl Watch {
    /// Takes in what the servers count at `now`. Tablets that are not among it are forgotten.
    pub fn learn(&mut self, now: SystemTime, samples: Vec<ServerSample>) -> Vec<ServerFigures> {
        let elapsed = self.last.replace(now).and_then(|last| now.duration_since(last).ok());
        let before = std::mem::take(&mut self.seen);
        let mut figures = Vec::with_capacity(samples.len());
        for ServerSample { server, is_leaving, tablets } in samples {
            let look = |stats: TabletStats| self.look(now, elapsed.unwrap_or_default(), &before, stats);
            figures.push(ServerFigures {
                server,
                is_leaving,
                tablets: tablets.into_iter().map(look).collect(),
            });
        }
        figures
    }

    fn look(
        &mut self,
        now: SystemTime,
        elapsed: Duration,
        before: &HashMap<TabletId, Seen>,
        stats: TabletStats,
    ) -> TabletFigures {
        let TabletStats { assignment, memtable_bytes, sstable_bytes, row_count, can_merge } = stats;
        let bytes = memtable_bytes + sstable_bytes;
        let known = before.get(&assignment.tablet);
        let rows_per_s = known.and_then(|known| known.rate(row_count, elapsed));
        let new = Seen { first: now, row_count, rows_per_s, quiet_since: now, quiet_bytes: bytes };
        let seen = match known {
            Some(seen) if bytes <= seen.quiet_bytes + seen.quiet_bytes / 10 + STIR_BYTES => {
                Seen { row_count, rows_per_s, quiet_bytes: bytes.min(seen.quiet_bytes), ..seen.clone() }
            }
            Some(seen) => Seen { first: seen.first, ..new },
            None => new,
        };
        let since = |moment: SystemTime| now.duration_since(moment).unwrap_or_default();
        let figures = TabletFigures {
            bytes,
            rows_per_s: rows_per_s.unwrap_or(0.0),
            age: since(seen.first),
            quiet: since(seen.quiet_since),
            can_merge,
            assignment,
        };
        self.seen.insert(figures.assignment.tablet, seen);
        figures
    }
}

#[cfg(test)]
mod tests {
    use cluster::Epoch;
    use tablet_server::row_set::RowRange;
    use tablet_server::schema::TableId;

    use super::*;

    fn look(watch: &mut Watch, second: u64, bytes: u64, row_count: u64) -> TabletFigures {
        let assignment = Assignment {
            tablet: TabletId(1),
            table: TableId(1),
            range: RowRange::default(),
            epoch: Epoch(1),
        };
        let stats =
            TabletStats { assignment, memtable_bytes: 0, sstable_bytes: bytes, row_count, can_merge: true };
        let sample =
            ServerSample { server: ServerId("a".to_owned()), is_leaving: false, tablets: vec![stats] };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        watch.learn(now, vec![sample]).remove(0).tablets.remove(0)
    }

    #[test]
    fn growth_ends_the_quiet_and_nothing_else_does() {
        let mut watch = Watch::default();
        assert_eq!(look(&mut watch, 100, 1 << 20, 0).quiet, Duration::ZERO);
        let later = look(&mut watch, 110, 1 << 20, 50);
        assert_eq!((later.quiet.as_secs(), later.age.as_secs(), later.rows_per_s), (10, 10, 5.0));
        assert_eq!(look(&mut watch, 120, 1 << 10, 50).quiet.as_secs(), 20);
        // A little at a time is growth, too.
        assert_eq!(look(&mut watch, 130, 60 << 10, 50).quiet.as_secs(), 30);
        assert_eq!(look(&mut watch, 140, 120 << 10, 50).quiet, Duration::ZERO);
        let anew = look(&mut watch, 150, 120 << 10, 20);
        assert_eq!(anew.age.as_secs(), 50);
        // Little is left of the five rows a second, and the two since do not count in full yet.
        assert!((1.0..2.0).contains(&anew.rows_per_s), "{}", anew.rows_per_s);
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let mut watch = Watch::default();
        look(&mut watch, 100, 1, 0);
        watch.learn(SystemTime::UNIX_EPOCH + Duration::from_secs(110), Vec::new());
        assert_eq!(look(&mut watch, 120, 1, 0).age, Duration::ZERO);
    }
}
