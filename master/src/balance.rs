//! What is to be done about uneven load: from figures to steps, purely.
//!
//! - A server that leaves gives its tablets to those that have least to do.
//! - Where one server has much more to do than another, one of its tablets moves
//!   to the other. What a server has to do is the sum over its tablets of their
//!   shares of all rows read and written, of all bytes, and, at a quarter, of the
//!   number of tablets.
//! - A tablet that by itself has half of what a server would have evenly cannot
//!   be evened out: it is split.
//! - Small neighbours that have not grown for long are merged.
//!
//! Few steps at a time, and none for a tablet that was seen first a moment ago:
//! what a step changes shows before the next one.

use std::time::Duration;

use cluster::ServerId;
use tablet_server::metadata::METADATA_TABLE;
use tablet_server::schema::TabletId;

use crate::watch::{ServerFigures, TabletFigures};

/// Below so many rows a second, all servers together, shares of them say nothing.
const ROWS_PER_S_MIN: f64 = 200.0;

/// Below so many bytes, all servers together, shares of them say nothing.
const BYTES_MIN: u64 = 64 << 20;

/// What a tablet weighs for being one, beside rows and bytes.
const COUNT_WEIGHT: f64 = 0.25;

/// Servers whose work differs by less than this part of an even share are left alone.
const TOLERANCE: f64 = 0.3;

/// Two tablets together hold at most this part of what one may, to be merged.
const MERGED_PART: u64 = 4;

/// When steps are taken, and how many at a time.
#[derive(Clone, Debug)]
pub struct BalanceOptions {
    /// A tablet that holds more bytes is split for its size.
    pub tablet_bytes_max: u64,
    /// Small neighbours are merged once neither has grown for so long.
    pub merge_after: Duration,
    /// A tablet is left alone until it has been seen for so long.
    pub settled_after: Duration,
    /// A tablet with fewer rows a second is not split for them.
    pub busy_rows_per_s: f64,
    /// Moves at once, to even out load.
    pub move_count_max: usize,
    /// Moves at once from servers that leave, for which somebody waits.
    pub leave_count_max: usize,
}

impl Default for BalanceOptions {
    fn default() -> Self {
        Self {
            tablet_bytes_max: tablet_server::server::TABLET_BYTES_MAX,
            merge_after: Duration::from_secs(24 * 3600),
            settled_after: Duration::from_secs(60),
            busy_rows_per_s: 2_000.0,
            move_count_max: 2,
            leave_count_max: 16,
        }
    }
}

/// Something that would even out load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Move the tablet to the server.
    Move(TabletId, ServerId),
    /// Split the tablet where half of its rows are asked for.
    Split(TabletId),
    /// Merge the tablets, which follow each other.
    Merge(TabletId, TabletId),
}

/// What the shares are shares of.
struct Whole {
    rows_per_s: f64,
    bytes: u64,
    tablet_count: usize,
}

impl Whole {
    fn of(servers: &[ServerFigures]) -> Self {
        let tablets = || servers.iter().flat_map(|server| &server.tablets);
        Self {
            rows_per_s: tablets().map(|tablet| tablet.rows_per_s).sum(),
            bytes: tablets().map(|tablet| tablet.bytes).sum(),
            tablet_count: tablets().count(),
        }
    }

    /// What the tablet gives its server to do, as a part of all that there is.
    fn weight(&self, tablet: &TabletFigures) -> f64 {
        let rows = tablet.rows_per_s / self.rows_per_s.max(ROWS_PER_S_MIN);
        let bytes = tablet.bytes as f64 / self.bytes.max(BYTES_MIN) as f64;
        rows + bytes + COUNT_WEIGHT / self.tablet_count.max(1) as f64
    }
}

/// What is to be done now.
pub fn steps(servers: &[ServerFigures], options: &BalanceOptions) -> Vec<Step> {
    let mut steps = moves(servers, options);
    steps.extend(busy_split(servers, options));
    if steps.is_empty() {
        steps.extend(merge(servers, options));
    }
    steps
}

/// One server's work.
struct Work<'a> {
    figures: &'a ServerFigures,
    weight: f64,
    /// Those that may move, with what they weigh.
    movable: Vec<(&'a TabletFigures, f64)>,
}

fn moves(servers: &[ServerFigures], options: &BalanceOptions) -> Vec<Step> {
    let whole = Whole::of(servers);
    let work = |figures| work_of(figures, &whole, options);
    let (leaving, mut staying): (Vec<Work<'_>>, Vec<_>) =
        servers.iter().map(work).partition(|work| work.figures.is_leaving);
    let mut steps = Vec::new();
    let orphans = leaving.iter().flat_map(|work| &work.figures.tablets);
    for tablet in orphans.take(options.leave_count_max) {
        let Some(least) = staying.iter_mut().min_by(|a, b| a.weight.total_cmp(&b.weight)) else { break };
        least.weight += whole.weight(tablet);
        steps.push(Step::Move(tablet.assignment.tablet, least.figures.server.clone()));
    }
    let even_share = staying.iter().map(|work| work.weight).sum::<f64>() / staying.len().max(1) as f64;
    while steps.len() < options.move_count_max {
        staying.sort_by(|a, b| a.weight.total_cmp(&b.weight));
        let [least, .., most] = staying.as_mut_slice() else { break };
        let gap = most.weight - least.weight;
        if gap < TOLERANCE * even_share {
            break;
        }
        // The one that leaves the two closest; it must make the gap smaller by some part.
        let remaining = |weight: f64| (gap - 2.0 * weight).abs();
        let best = (0..most.movable.len())
            .min_by(|a, b| remaining(most.movable[*a].1).total_cmp(&remaining(most.movable[*b].1)));
        let Some(best) = best.filter(|best| remaining(most.movable[*best].1) < 0.8 * gap) else { break };
        let (tablet, weight) = most.movable.swap_remove(best);
        most.weight -= weight;
        least.weight += weight;
        steps.push(Step::Move(tablet.assignment.tablet, least.figures.server.clone()));
    }
    steps
}

fn work_of<'a>(figures: &'a ServerFigures, whole: &Whole, options: &BalanceOptions) -> Work<'a> {
    let is_movable = |tablet: &&TabletFigures| {
        tablet.age >= options.settled_after && tablet.assignment.table != METADATA_TABLE
    };
    let movable = figures.tablets.iter().filter(is_movable);
    Work {
        figures,
        weight: figures.tablets.iter().map(|tablet| whole.weight(tablet)).sum(),
        movable: movable.map(|tablet| (tablet, whole.weight(tablet))).collect(),
    }
}

/// The busiest tablet, where it has too much to be evened out.
fn busy_split(servers: &[ServerFigures], options: &BalanceOptions) -> Option<Step> {
    let staying_count = servers.iter().filter(|server| !server.is_leaving).count();
    let share = Whole::of(servers).rows_per_s / staying_count.max(1) as f64;
    let tablets = servers.iter().flat_map(|server| &server.tablets);
    let busiest = tablets.max_by(|a, b| a.rows_per_s.total_cmp(&b.rows_per_s))?;
    let is_too_busy = staying_count > 1
        && busiest.rows_per_s >= options.busy_rows_per_s
        && busiest.rows_per_s > share / 2.0
        && busiest.age >= options.settled_after
        && busiest.assignment.table != METADATA_TABLE;
    is_too_busy.then_some(Step::Split(busiest.assignment.tablet))
}

/// Two neighbours that are small and have been for long.
fn merge(servers: &[ServerFigures], options: &BalanceOptions) -> Option<Step> {
    servers.iter().find_map(|server| {
        let mut tablets: Vec<&TabletFigures> = server.tablets.iter().collect();
        tablets.sort_by_key(|tablet| (tablet.assignment.table, tablet.assignment.range.start.clone()));
        let pairs = tablets.windows(2).filter(|pair| can_merge(pair[0], pair[1], options));
        let pair = pairs.min_by_key(|pair| pair[0].bytes + pair[1].bytes)?;
        Some(Step::Merge(pair[0].assignment.tablet, pair[1].assignment.tablet))
    })
}

fn can_merge(left: &TabletFigures, right: &TabletFigures, options: &BalanceOptions) -> bool {
    let (before, behind) = (&left.assignment, &right.assignment);
    let follow = before.table == behind.table
        && !before.range.end.is_empty()
        && before.range.end == behind.range.start;
    let is_calm = |tablet: &TabletFigures| tablet.can_merge && tablet.quiet >= options.merge_after;
    follow
        && before.table != METADATA_TABLE
        && is_calm(left)
        && is_calm(right)
        && left.bytes + right.bytes <= options.tablet_bytes_max / MERGED_PART
        && left.rows_per_s + right.rows_per_s <= options.busy_rows_per_s / MERGED_PART as f64
}

#[cfg(test)]
mod tests {
    use cluster::Epoch;
    use tablet_server::control::Assignment;
    use tablet_server::row_set::RowRange;
    use tablet_server::schema::TableId;

    use super::*;

    const MIB: u64 = 1 << 20;

    /// A tablet of the table 1 from one two-digit row to the next.
    fn tablet(number: u64, mib: u64, rows_per_s: f64) -> TabletFigures {
        let row = |number: u64| format!("{number:02}").into_bytes().into();
        TabletFigures {
            assignment: Assignment {
                tablet: TabletId(number),
                table: TableId(1),
                range: RowRange { start: row(number), end: row(number + 1) },
                epoch: Epoch(1),
            },
            bytes: mib * MIB,
            rows_per_s,
            age: Duration::from_secs(3600),
            quiet: Duration::from_secs(60),
            can_merge: true,
        }
    }

    fn server(name: &str, tablets: Vec<TabletFigures>) -> ServerFigures {
        ServerFigures { server: ServerId(name.to_owned()), is_leaving: false, tablets }
    }

    fn moved(tablet: u64, to: &str) -> Step {
        Step::Move(TabletId(tablet), ServerId(to.to_owned()))
    }

    #[test]
    fn a_new_server_gets_tablets_a_few_at_a_time_until_all_have_alike() {
        let options = BalanceOptions::default();
        let mut servers = vec![
            server("a", (1..=8).map(|number| tablet(number, 100, 10.0)).collect()),
            server("b", Vec::new()),
        ];
        let mut rounds = 0;
        loop {
            let steps = steps(&servers, &options);
            assert!(steps.len() <= options.move_count_max);
            if steps.is_empty() {
                break;
            }
            for step in steps {
                let Step::Move(tablet, to) = step else { panic!("{step:?}") };
                let all = servers.iter_mut().find_map(|server| {
                    let at = server.tablets.iter().position(|other| other.assignment.tablet == tablet)?;
                    Some(server.tablets.remove(at))
                });
                let target = servers.iter_mut().find(|server| server.server == to);
                target.unwrap().tablets.push(all.unwrap());
            }
            rounds += 1;
        }
        assert_eq!(rounds, 2);
        assert!(servers.iter().all(|server| server.tablets.len() == 4));
    }

    #[test]
    fn busy_tablets_part_and_what_would_only_change_places_stays() {
        let options = BalanceOptions::default();
        let busy = server("a", vec![tablet(1, 10, 600.0), tablet(2, 10, 600.0)]);
        assert_eq!(steps(&[busy.clone(), server("b", vec![tablet(3, 10, 1.0)])], &options).len(), 1);
        let only = server("a", vec![tablet(1, 10, 1_000.0)]);
        assert_eq!(steps(&[only, server("b", vec![tablet(3, 10, 1.0)])], &options), []);
        let mut young = busy;
        young.tablets.iter_mut().for_each(|tablet| tablet.age = Duration::from_secs(1));
        assert_eq!(steps(&[young, server("b", Vec::new())], &options), []);
    }

    #[test]
    fn a_server_that_leaves_gives_all_it_has() {
        let options = BalanceOptions::default();
        let root = Assignment { table: METADATA_TABLE, ..tablet(1, 0, 0.0).assignment };
        let root = TabletFigures { assignment: root, age: Duration::ZERO, ..tablet(1, 0, 0.0) };
        let leaving = ServerFigures { is_leaving: true, ..server("b", vec![root, tablet(2, 5, 0.0)]) };
        let staying = server("a", vec![tablet(3, 5, 0.0)]);
        assert_eq!(steps(&[staying, leaving.clone()], &options), [moved(1, "a"), moved(2, "a")]);
        assert_eq!(steps(&[leaving], &options), [], "there is nowhere to go");
        let many = (1..=100).map(|number| tablet(number, 5, 0.0)).collect();
        let leaving = ServerFigures { is_leaving: true, ..server("b", many) };
        assert_eq!(steps(&[server("a", Vec::new()), leaving], &options).len(), options.leave_count_max);
    }

    #[test]
    fn a_tablet_that_is_too_busy_for_one_server_is_split() {
        let options = BalanceOptions::default();
        let alone = vec![server("a", vec![tablet(1, 10, 9_000.0)])];
        assert_eq!(steps(&alone, &options), [], "one server has no use of it");
        let two = [alone, vec![server("b", vec![tablet(2, 10, 10.0)])]].concat();
        assert_eq!(steps(&two, &options), [Step::Split(TabletId(1))]);
    }

    #[test]
    fn small_neighbours_are_merged_once_they_have_been_quiet_for_long() {
        let options = BalanceOptions { merge_after: Duration::from_secs(60), ..BalanceOptions::default() };
        let merged = |tablets: Vec<TabletFigures>| steps(&[server("a", tablets)], &options);
        let (left, right) = (tablet(1, 3, 1.0), tablet(2, 4, 1.0));
        assert_eq!(merged(vec![right.clone(), left.clone()]), [Step::Merge(TabletId(1), TabletId(2))]);
        let stirred = TabletFigures { quiet: Duration::from_secs(59), ..right.clone() };
        let recorded = TabletFigures { can_merge: false, ..right.clone() };
        for other in [stirred, recorded, tablet(2, 200, 1.0), tablet(2, 4, 900.0), tablet(3, 4, 1.0)] {
            assert_eq!(merged(vec![left.clone(), other.clone()]), [], "{other:?}");
        }
        let two = [server("a", vec![left]), server("b", vec![right])];
        assert_eq!(merge(&two, &options), None, "they are not together");
    }
}
