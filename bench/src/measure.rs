//! What a workload is, and what is measured of it.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout_at};

use crate::server::Process;
use crate::{Outcome, Plan};

/// One connection's part of a workload.
pub(crate) trait Worker: Send + 'static {
    /// Sends a request and takes its answer; how many operations that was.
    fn step(&mut self) -> impl Future<Output = Outcome<u64>> + Send;
}

/// What one side reached in one round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    operations_per_second: f64,
    cpu_per_operation: Duration,
    p50: Duration,
    p99: Duration,
}

/// Time under load before anything counts.
const WARM_UP: Duration = Duration::from_millis(300);

/// How long the last requests of a round may take.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

/// Runs all `workers` at once for the plan's time.
async fn run<W: Worker>(workers: Vec<W>, process: &Process, plan: &Plan) -> Outcome<Figures> {
    let began = Instant::now() + WARM_UP;
    let end = began + plan.duration();
    let mut running = JoinSet::new();
    for mut worker in workers {
        running.spawn(async move {
            // From 1 µs to a minute, to 3 digits: 0.1 % of error.
            let mut latencies =
                Histogram::<u64>::new_with_bounds(1, 60_000_000, 3).expect("the bounds are valid");
            let mut operation_count = 0;
            loop {
                let sent = Instant::now();
                if sent >= end {
                    return Outcome::Ok((operation_count, latencies));
                }
                let count = worker.step().await?;
                if sent >= began {
                    operation_count += count;
                    latencies.saturating_record(micros(sent.elapsed()));
                }
            }
        });
    }
    sleep_until(began.into()).await;
    let cpu_before = process.cpu_time()?;
    let mut total: u64 = 0;
    let mut latencies = Histogram::<u64>::new(3)?;
    loop {
        let next = timeout_at((end + ANSWER_PATIENCE).into(), running.join_next()).await;
        let Some(done) = next.map_err(|_| "a request has no answer")? else { break };
        let (operation_count, part) = done??;
        total += operation_count;
        latencies.add(part)?;
    }
    let cpu_time = process.cpu_time()?.saturating_sub(cpu_before);
    let quantile = |quantile| Duration::from_micros(latencies.value_at_quantile(quantile));
    Ok(Figures {
        operations_per_second: total as f64 / began.elapsed().as_secs_f64(),
        cpu_per_operation: cpu_time.div_f64(f64::max(total as f64, 1.0)),
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
    pub(crate) target: &'a S,
    pub(crate) process: &'a Process,
}

/// Runs `workload` on each side, round after round, and prints the median of
/// each and the ratios of the first to the second: of throughput, and of
/// requests for a second of the server's CPU.
pub(crate) async fn compare<S, W: Worker>(
    workload: &str,
    sides: &[Side<'_, S>],
    plan: &Plan,
    mut workers: impl AsyncFnMut(&S) -> Outcome<Vec<W>>,
) -> Outcome<()> {
    let mut rounds: Vec<Vec<Figures>> = vec![Vec::new(); sides.len()];
    for _ in 0..plan.rounds {
        for (side, figures) in sides.iter().zip(&mut rounds) {
            figures.push(run(workers(side.target).await?, side.process, plan).await?);
        }
    }
    let medians: Vec<Figures> = rounds.into_iter().map(median).collect();
    for (side, figures) in sides.iter().zip(&medians) {
        let Figures { operations_per_second, cpu_per_operation, p50, p99 } = figures;
        println!(
            "{workload:<20} {:<12} {operations_per_second:>9.0} ops/s   p50 {:>8}   p99 {:>8}   server CPU {:>8}/op",
            side.name,
            format!("{p50:.2?}"),
            format!("{p99:.2?}"),
            format!("{cpu_per_operation:.1?}"),
        );
    }
    if let ([ours, theirs], [_, peer]) = (&medians[..], sides) {
        let ratio = ours.operations_per_second / theirs.operations_per_second;
        let cpu_ratio = theirs.cpu_per_operation.as_secs_f64() / ours.cpu_per_operation.as_secs_f64();
        println!("ratio {workload} vs {}: {ratio:.2}, by server CPU {cpu_ratio:.2}", peer.name);
    }
    Ok(())
}

/// The round with the median throughput.
fn median(mut rounds: Vec<Figures>) -> Figures {
    rounds.sort_by(|a, b| a.operations_per_second.total_cmp(&b.operations_per_second));
    rounds[rounds.len() / 2]
}
