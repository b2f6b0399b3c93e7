//! What a workload is, and what is measured of it.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::timeout_at;

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
    p50: Duration,
    p99: Duration,
}

/// Time under load before anything counts.
const WARM_UP: Duration = Duration::from_millis(300);

/// How long the last requests of a round may take.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

/// Runs all `workers` at once for the plan's time.
async fn run<W: Worker>(workers: Vec<W>, plan: &Plan) -> Outcome<Figures> {
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
    let mut total = 0;
    let mut latencies = Histogram::<u64>::new(3)?;
    loop {
        let next = timeout_at((end + ANSWER_PATIENCE).into(), running.join_next()).await;
        let Some(done) = next.map_err(|_| "a request has no answer")? else { break };
        let (operation_count, part) = done??;
        total += operation_count;
        latencies.add(part)?;
    }
    let quantile = |quantile| Duration::from_micros(latencies.value_at_quantile(quantile));
    Ok(Figures {
        operations_per_second: total as f64 / began.elapsed().as_secs_f64(),
        p50: quantile(0.5),
        p99: quantile(0.99),
    })
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Sides of a comparison: Hayloft first, then perhaps a peer.
pub(crate) type Sides<'a, S> = &'a [(&'static str, &'a S)];

/// Runs `workload` on each side, round after round, and prints the median of
/// each and the ratio of the first to the second.
pub(crate) async fn compare<S, W: Worker>(
    workload: &str,
    sides: Sides<'_, S>,
    plan: &Plan,
    mut workers: impl AsyncFnMut(&S) -> Outcome<Vec<W>>,
) -> Outcome<()> {
    let mut rounds: Vec<Vec<Figures>> = vec![Vec::new(); sides.len()];
    for _ in 0..plan.rounds {
        for ((_, side), figures) in sides.iter().zip(&mut rounds) {
            figures.push(run(workers(side).await?, plan).await?);
        }
    }
    let medians: Vec<Figures> = rounds.into_iter().map(median).collect();
    for ((name, _), Figures { operations_per_second, p50, p99 }) in sides.iter().zip(&medians) {
        println!(
            "{workload:<22} {name:<12} {operations_per_second:>10.0} ops/s   p50 {:>8}   p99 {:>8}",
            format!("{p50:.2?}"),
            format!("{p99:.2?}"),
        );
    }
    if let ([ours, theirs], [_, (peer, _)]) = (&medians[..], sides) {
        let ratio = ours.operations_per_second / theirs.operations_per_second;
        println!("ratio {workload} vs {peer}: {ratio:.2}");
    }
    Ok(())
}

/// The round with the median throughput.
fn median(mut rounds: Vec<Figures>) -> Figures {
    rounds.sort_by(|a, b| a.operations_per_second.total_cmp(&b.operations_per_second));
    rounds[rounds.len() / 2]
}
