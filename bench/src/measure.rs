//! What a workload is, and what is measured of it.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout_at};

use crate::Outcome;
use crate::server::Process;

/// One connection's part of a workload.
pub(crate) trait Worker: Send + 'static {
    /// Sends a request and takes its answer; how many operations that was.
    fn step(&mut self) -> impl Future<Output = Outcome<u64>> + Send;
}

/// How long each side of each round is under load, and how many rounds there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    pub(crate) duration: Duration,
    /// The median of them counts.
    pub(crate) rounds: u8,
}

/// What one side reached in one round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    operations_per_second: f64,
    /// CPU time of the server; none where there is no server.
    cpu_per_operation: Option<Duration>,
    p50: Duration,
    p99: Duration,
}

/// Time under load before anything counts.
const WARM_UP: Duration = Duration::from_millis(300);

/// How long the last requests of a round may take.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

/// Runs all `workers` at once for `duration`.
///
/// A request counts by the share of its time that lies within the duration, so
/// that long ones count right too.
async fn run<W: Worker>(workers: Vec<W>, process: Option<&Process>, duration: Duration) -> Outcome<Figures> {
    let began = Instant::now() + WARM_UP;
    let end = began + duration;
    let mut running = JoinSet::new();
    for mut worker in workers {
        running.spawn(async move {
            // From 1 µs to a minute, to 3 digits: 0.1 % of error.
            let mut latencies =
                Histogram::<u64>::new_with_bounds(1, 60_000_000, 3).expect("the bounds are valid");
            let mut operation_count = 0.0;
            loop {
                let sent = Instant::now();
                if sent >= end {
                    return Outcome::Ok((operation_count, latencies));
                }
                let count = worker.step().await?;
                let answered = Instant::now();
                if answered > began {
                    let counted = answered.min(end).duration_since(sent.max(began));
                    operation_count += count as f64 * counted.div_duration_f64(answered.duration_since(sent));
                    latencies.saturating_record(micros(answered.duration_since(sent)));
                }
            }
        });
    }
    sleep_until(began.into()).await;
    let cpu_before = process.map(Process::cpu_time).transpose()?;
    sleep_until(end.into()).await;
    let cpu_after = process.map(Process::cpu_time).transpose()?;
    let mut total = 0.0;
    let mut latencies = Histogram::<u64>::new(3)?;
    loop {
        let next = timeout_at((end + ANSWER_PATIENCE).into(), running.join_next()).await;
        let Some(done) = next.map_err(|_| "a request has no answer")? else { break };
        let (operation_count, part) = done??;
        total += operation_count;
        latencies.add(part)?;
    }
    let cpu_time = cpu_after.zip(cpu_before).map(|(after, before)| after.saturating_sub(before));
    let quantile = |quantile| Duration::from_micros(latencies.value_at_quantile(quantile));
    Ok(Figures {
        operations_per_second: total / duration.as_secs_f64(),
        cpu_per_operation: cpu_time.map(|cpu_time| cpu_time.div_f64(f64::max(total, 1.0))),
        p50: quantile(0.5),
        p99: quantile(0.99),
    })
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// One server of a comparison: how the workload reaches it, and its process.
pub(crate) struct Side<'a, S> {
    pub(crate) name: &'static str,
    pub(crate) target: S,
    /// None where the side is no server.
    pub(crate) process: Option<&'a Process>,
}

/// What the sides of a workload reached: the median of each.
#[derive(Debug)]
pub(crate) struct Comparison {
    workload: String,
    medians: Vec<(&'static str, Figures)>,
}

/// Runs `workload` on each side, round after round, and prints the median of each.
pub(crate) async fn compare<S, W: Worker>(
    workload: &str,
    sides: &[Side<'_, S>],
    schedule: Schedule,
    mut workers: impl AsyncFnMut(&S) -> Outcome<Vec<W>>,
) -> Outcome<Comparison> {
    let mut rounds: Vec<Vec<Figures>> = vec![Vec::new(); sides.len()];
    for _ in 0..schedule.rounds {
        for (side, figures) in sides.iter().zip(&mut rounds) {
            let workers = workers(&side.target).await?;
            figures.push(run(workers, side.process, schedule.duration).await?);
        }
    }
    let medians: Vec<_> = sides.iter().map(|side| side.name).zip(rounds.into_iter().map(median)).collect();
    for (side, Figures { operations_per_second, cpu_per_operation, p50, p99 }) in &medians {
        let cpu = cpu_per_operation.map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.1?}/op"));
        println!(
            "{workload:<38} {side:<11} {operations_per_second:>8.0} ops/s  p50 {:>8}  p99 {:>8}  server CPU {cpu:>10}",
            format!("{p50:.2?}"),
            format!("{p99:.2?}"),
        );
    }
    Ok(Comparison { workload: workload.to_owned(), medians })
}

impl Comparison {
    /// What the first side reached.
    pub(crate) fn ours(&self) -> String {
        let Some((_, Figures { operations_per_second, p50, p99, .. })) = self.medians.first() else {
            return String::new();
        };
        format!("{operations_per_second:.0} a second, p50 {p50:.2?}, p99 {p99:.2?}")
    }

    /// A line for each peer, with the ratios of the first side to it: of
    /// throughput, and of operations for a second of the server's CPU.
    pub(crate) fn ratios(&self) -> Vec<String> {
        let Some(((_, ours), peers)) = self.medians.split_first() else { return Vec::new() };
        let line = |(peer, theirs): &(&str, Figures)| {
            let cpu = ours.cpu_per_operation.zip(theirs.cpu_per_operation);
            let cpu = cpu.map(|(ours, theirs)| theirs.as_secs_f64() / ours.as_secs_f64());
            let cpu = cpu.map_or_else(String::new, |ratio| format!(", by server CPU {ratio:.2}"));
            self.ratio_to(peer, theirs.operations_per_second) + &cpu
        };
        peers.iter().map(line).collect()
    }

    /// The throughput of the side of this name.
    pub(crate) fn rate_of(&self, name: &str) -> Option<f64> {
        let side = self.medians.iter().find(|(side, _)| *side == name)?;
        Some(side.1.operations_per_second)
    }

    /// The line for a peer of which only this figure is known.
    pub(crate) fn ratio_to(&self, peer: &str, operations_per_second: f64) -> String {
        let ours = self.medians.first().map_or(0.0, |(_, ours)| ours.operations_per_second);
        format!("ratio {} vs {peer}: {:.2}", self.workload, ours / operations_per_second)
    }

    /// Prints the ratios.
    pub(crate) fn print_ratios(&self) {
        for line in self.ratios() {
            println!("{line}");
        }
    }
}

/// The round with the median throughput.
fn median(mut rounds: Vec<Figures>) -> Figures {
    rounds.sort_by(|a, b| a.operations_per_second.total_cmp(&b.operations_per_second));
    rounds[rounds.len() / 2]
}
