//! What is measured of a workload: operations, their times, and what they cost.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::Outcome;

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

/// How fast one side was in one round.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Speed {
    pub(crate) operations_per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) p999: Duration,
    /// The longest that one operation took: a stall, where there was one.
    pub(crate) longest: Duration,
}

impl Speed {
    /// Of threads that ran side by side.
    pub(crate) fn of(parts: Vec<Measured>) -> Self {
        let mut latencies = Histogram::<u64>::new(2).expect("the digits are valid");
        let mut operations_per_second = 0.0;
        for part in parts {
            operations_per_second += part.operations as f64 / part.took.as_secs_f64();
            latencies.add(part.latencies).expect("the histogram grows by itself");
        }
        let quantile = |quantile| Duration::from_nanos(latencies.value_at_quantile(quantile));
        Self {
            operations_per_second,
            p50: quantile(0.5),
            p99: quantile(0.99),
            p999: quantile(0.999),
            longest: Duration::from_nanos(latencies.max()),
        }
    }
}

/// What one side reached in one round, and what it took of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Figures {
    pub(crate) speed: Speed,
    /// Bytes written to files, background work to its end included.
    pub(crate) written_bytes: u64,
    /// Bytes of keys and values that were put.
    pub(crate) put_bytes: u64,
    /// Of the store's directory afterwards.
    pub(crate) disk_bytes: u64,
    /// The most anonymous memory while it ran.
    pub(crate) memory_bytes: u64,
}

impl Figures {
    /// One line, for the process that asked.
    pub(crate) fn encode(&self) -> String {
        let Self { speed, written_bytes, put_bytes, disk_bytes, memory_bytes } = self;
        let [p50, p99, p999, longest] =
            [speed.p50, speed.p99, speed.p999, speed.longest].map(|latency| latency.as_nanos());
        format!(
            "{} {p50} {p99} {p999} {longest} {written_bytes} {put_bytes} {disk_bytes} {memory_bytes}",
            speed.operations_per_second
        )
    }

    pub(crate) fn decode(line: &str) -> Outcome<Self> {
        let (operations_per_second, rest) = line.split_once(' ').ok_or("an answer is cut off")?;
        let numbers: Result<Vec<u64>, _> = rest.split(' ').map(str::parse).collect();
        let [p50, p99, p999, longest, written_bytes, put_bytes, disk_bytes, memory_bytes] = numbers?[..]
        else {
            return Err(format!("an answer has other fields: {line}").into());
        };
        let [p50, p99, p999, longest] = [p50, p99, p999, longest].map(Duration::from_nanos);
        let operations_per_second = operations_per_second.parse()?;
        let speed = Speed { operations_per_second, p50, p99, p999, longest };
        Ok(Self { speed, written_bytes, put_bytes, disk_bytes, memory_bytes })
    }

    /// The round with the median throughput.
    pub(crate) fn median(rounds: &[Self]) -> Option<Self> {
        let mut rounds = rounds.to_vec();
        let speed = |figures: &Self| figures.speed.operations_per_second;
        rounds.sort_by(|a, b| speed(a).total_cmp(&speed(b)));
        rounds.get(rounds.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_come_back_from_their_line() {
        let speed = Speed {
            operations_per_second: 1234.5,
            p50: Duration::from_nanos(1),
            p99: Duration::from_nanos(2),
            p999: Duration::from_nanos(3),
            longest: Duration::from_nanos(4),
        };
        let figures = Figures { speed, written_bytes: 5, put_bytes: 6, disk_bytes: 7, memory_bytes: 8 };
        assert_eq!(Figures::decode(&figures.encode()).unwrap(), figures);
        assert!(Figures::decode("1 2 3").is_err());
    }
}
