//! What is measured of a workload, and what is printed.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::store::StoreKind;

/// Times operations: each one's time ends where the next one's begins, so that
/// one look at the clock serves both.
pub(crate) struct Stopwatch {
    began: Instant,
    last: Instant,
    operations: u64,
    latencies: Histogram<u64>,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        let now = Instant::now();
        // From 1 ns to 10 minutes, to 2 digits.
        let latencies = Histogram::new_with_bounds(1, 600_000_000_000, 2).expect("the bounds are valid");
        Self { began: now, last: now, operations: 0, latencies }
    }

    /// `operations` are done since the last lap; the time from the start.
    pub(crate) fn lap(&mut self, operations: u64) -> Duration {
        let now = Instant::now();
        let each = now.duration_since(self.last).as_nanos() / u128::from(operations);
        self.latencies.saturating_record_n(u64::try_from(each).unwrap_or(u64::MAX), operations);
        self.operations += operations;
        self.last = now;
        now.duration_since(self.began)
    }

    /// Ends now, which may be later than the last operation.
    pub(crate) fn stop(self) -> Measured {
        Measured { operations: self.operations, took: self.began.elapsed(), latencies: self.latencies }
    }
}

/// A thread's part of one round.
pub(crate) struct Measured {
    operations: u64,
    took: Duration,
    latencies: Histogram<u64>,
}

/// What one side reached in one round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    operations_per_second: f64,
    p50: Duration,
    p99: Duration,
}

impl Figures {
    /// Of threads that ran side by side.
    pub(crate) fn of(parts: Vec<Measured>) -> Self {
        let mut latencies = Histogram::<u64>::new(2).expect("the digits are valid");
        let mut operations_per_second = 0.0;
        for part in parts {
            operations_per_second += part.operations as f64 / part.took.as_secs_f64();
            latencies.add(part.latencies).expect("the histogram grows by itself");
        }
        let quantile = |quantile| Duration::from_nanos(latencies.value_at_quantile(quantile));
        Self { operations_per_second, p50: quantile(0.5), p99: quantile(0.99) }
    }
}

/// Prints the median round of each side, and the ratio of the first one to each other.
pub(crate) fn report(workload: &str, sides: &[(StoreKind, Vec<Figures>)]) {
    let medians: Vec<_> = sides.iter().map(|(kind, rounds)| (kind.name(), median(rounds))).collect();
    for (name, Figures { operations_per_second, p50, p99 }) in &medians {
        println!(
            "{workload:<18} {name:<8} {operations_per_second:>10.0} ops/s   p50 {:>9}   p99 {:>9}",
            format!("{p50:.2?}"),
            format!("{p99:.2?}"),
        );
    }
    let Some(((_, ours), peers)) = medians.split_first() else { return };
    for (peer, theirs) in peers {
        let ratio = ours.operations_per_second / theirs.operations_per_second;
        println!("ratio lsm/{workload} vs {peer}: {ratio:.2}");
    }
}

/// The round with the median throughput.
fn median(rounds: &[Figures]) -> Figures {
    let mut rounds = rounds.to_vec();
    rounds.sort_by(|a, b| a.operations_per_second.total_cmp(&b.operations_per_second));
    rounds[rounds.len() / 2]
}
