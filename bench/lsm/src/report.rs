//! What is printed: a line a workload and side as it is done, and the ratios at the end.

use std::time::Duration;

use crate::compare::Rounds;
use crate::data_set::DataSet;
use crate::measure::Figures;
use crate::workload::Workload;

/// Collects the ratios, which are printed last.
#[derive(Debug, Default)]
pub(crate) struct Report {
    ratios: Vec<String>,
}

impl Report {
    /// Prints what the next lines are about.
    pub(crate) fn begin(&self, set: &DataSet) {
        println!("\n{}", set.describe());
        println!(
            "{:<34} {:<13} {:>9} {:>8} {:>8} {:>8} {:>8} {:>6} {:>6} {:>7}",
            "workload", "store", "ops/s", "p50", "p99", "p99.9", "longest", "w-amp", "s-amp", "RSS MiB"
        );
    }

    /// Prints the median round of each side, and keeps the ratio of the first one to each other.
    pub(crate) fn add(&mut self, set: &DataSet, workload: Workload, rounds: &Rounds) {
        let name = format!("{}{}", workload.name(), set.suffix());
        let median = |rounds| Figures::median(rounds).unwrap_or_default();
        let medians: Vec<_> = rounds.iter().map(|(kind, rounds)| (kind.name(), median(rounds))).collect();
        for (store, figures) in &medians {
            println!("{name:<34} {store:<13} {}", line(set, workload, figures));
        }
        let Some(((_, ours), peers)) = medians.split_first() else { return };
        for (peer, theirs) in peers {
            let ratio = ours.speed.operations_per_second / theirs.speed.operations_per_second;
            self.ratios.push(format!("ratio lsm/{name} vs {peer}: {ratio:.2}"));
        }
    }

    /// Prints the ratios of operations a second, ours to each peer's: higher is better.
    pub(crate) fn print_ratios(&self) {
        println!();
        for ratio in &self.ratios {
            println!("{ratio}");
        }
    }
}

fn line(set: &DataSet, workload: Workload, figures: &Figures) -> String {
    let speed = &figures.speed;
    let times = [speed.p50, speed.p99, speed.p999, speed.longest].map(short).map(|time| format!("{time:>8}"));
    let ratio = |part: u64, whole: u64| format!("{:.2}", part as f64 / whole as f64);
    let write_amplification =
        if figures.put_bytes > 0 { ratio(figures.written_bytes, figures.put_bytes) } else { "-".to_owned() };
    let holds_all = workload != Workload::FillSync && workload != Workload::DeleteRangeThenScan;
    let space_amplification = if holds_all { ratio(figures.disk_bytes, set.bytes()) } else { "-".to_owned() };
    format!(
        "{:>9.0} {} {write_amplification:>6} {space_amplification:>6} {:>7}",
        speed.operations_per_second,
        times.join(" "),
        figures.memory_bytes >> 20
    )
}

/// A time in at most 8 characters.
fn short(time: Duration) -> String {
    let ns = time.as_nanos();
    match ns {
        0..10_000 => format!("{ns} ns"),
        10_000..10_000_000 => format!("{:.0} us", ns as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.0} ms", ns as f64 / 1e6),
        _ => format!("{:.0} s", time.as_secs_f64()),
    }
}
