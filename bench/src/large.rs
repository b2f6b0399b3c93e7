//! A table much larger than the server's memory: loaded while its tablets split,
//! scanned, read at random, and there again after a restart in order and after a
//! crash.
//!
//! What counts as the server's memory is what it has allocated (`RssAnon`). The
//! pages of its files that the system keeps at hand (`RssFile`) are given up
//! whenever somebody else wants them; a limit on both is what a control group is
//! for, and `--hayloft` may be a script that enters one.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use clap::Parser;
use prost::Message;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use row_api::data::{MutateRowsResponse, ReadRowsResponse};
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::Outcome;
use crate::http;
use crate::measure::{self, Schedule, Side};
use crate::rows::connection::Connection;
use crate::rows::load::{Call, Load, Order};
use crate::rows::table::{ScanFilter, Table, VALUE_BYTES};
use crate::server::{Hayloft, Memory, data_root};

/// Rows written by one request.
const BATCH_ROWS: u32 = 200;
/// Connections that scan, each its part of the table.
const SCANS: u32 = 4;
/// Rows written over before the crash: more than memtables hold.
const REWRITTEN_ROWS: u32 = 200_000;
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
const SAMPLE_EVERY: Duration = Duration::from_millis(50);
/// How long a write that is turned away waits before it is sent again, and how often.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
const RETRIES_MAX: u32 = 200;

/// How large a table, in how much memory.
#[derive(Clone, Debug, Parser)]
pub(crate) struct Plan {
    /// Gibibytes of values.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=80))]
    gib: u32,
    /// Mebibytes that the server may allocate in all.
    #[arg(long, default_value_t = 512)]
    budget_mib: u64,
    /// Connections that load and read, each with one request on its way.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    connections: u32,
    /// Seconds of reads of single rows.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// The server's settings, as the environment has them.
    #[arg(
        long,
        value_delimiter = ' ',
        default_value = "HAYLOFT_ROWS_MEMORY=256MiB HAYLOFT_ROWS_MEMTABLES=64MiB HAYLOFT_MEMCACHED_MEMORY=16MiB HAYLOFT_BIGTABLE_IN_FLIGHT_MAX=64MiB"
    )]
    settings: Vec<String>,
}

/// Runs all of it; its last lines are the figures.
pub(crate) async fn run(binary: &Path, plan: &Plan) -> Outcome<()> {
    let directory = tempfile::tempdir_in(data_root())?;
    let start = || Hayloft::start_in(binary, directory.path(), &plan.settings);
    let mut figures = Vec::new();
    let row_count = u32::try_from((u64::from(plan.gib) << 30) / VALUE_BYTES as u64)?;
    println!("{row_count} values of {VALUE_BYTES} bytes; {}", plan.settings.join(" "));

    let hayloft = start()?;
    let watch = Watch::begin(&hayloft);
    let table = Table::create(hayloft.bigtable, "large", row_count).await?;
    figures.push(load(&hayloft, &table, row_count, plan.connections).await?);
    figures.push(scan(&hayloft, &table).await?);
    figures.push(reads("reads", &hayloft, &table, plan.connections, plan.seconds).await?);
    figures.push(watch.end(&hayloft, plan.budget_mib)?);

    let begun = Instant::now();
    drop(hayloft);
    let stopped = begun.elapsed();
    let (hayloft, started) = timed(start)?;
    figures.push(format!("large/restart: stopped in {stopped:.2?}, ready again in {started:.2?}"));
    let table = table.at(hayloft.bigtable);
    figures.push(reads("reads after the restart", &hayloft, &table, plan.connections, 3).await?);

    load(&hayloft, &table, row_count.min(REWRITTEN_ROWS), plan.connections).await?;
    hayloft.process.kill()?;
    let (hayloft, started) = timed(start)?;
    let watch = Watch::begin(&hayloft);
    figures.push(format!("large/recovery: ready again in {started:.2?} after a crash"));
    let table = table.at(hayloft.bigtable);
    figures.push(reads("reads after the crash", &hayloft, &table, plan.connections, 3).await?);
    figures.push(watch.end(&hayloft, plan.budget_mib)?);
    figures.iter().for_each(|line| println!("{line}"));
    Ok(())
}

fn timed<T>(work: impl FnOnce() -> Outcome<T>) -> Outcome<(T, Duration)> {
    let begun = Instant::now();
    Ok((work()?, begun.elapsed()))
}

/// Writes the first `row_count` rows: each connection its share, ascending.
async fn load(hayloft: &Hayloft, table: &Table, row_count: u32, connections: u32) -> Outcome<String> {
    let (begun, written, retries) = (Instant::now(), Arc::new(AtomicU64::new(0)), Arc::default());
    let mut writers = JoinSet::new();
    for place in 0..connections {
        let share = |place: u32| u64::from(row_count) * u64::from(place) / u64::from(connections);
        let rows = u32::try_from(share(place))?..u32::try_from(share(place + 1))?;
        let (table, written, retries) = (table.clone(), Arc::clone(&written), Arc::clone(&retries));
        writers.spawn(async move { write(&table, rows, place, &written, &retries).await });
    }
    watched("load", hayloft, &written, all(writers)).await?;
    let retries: u64 = AtomicU64::load(&retries, Relaxed);
    Ok(format!(
        "large/load: {}, {} tablets, {retries} batches sent again",
        pace(&written, begun),
        tablets(hayloft).await?
    ))
}

async fn write(
    table: &Table,
    rows: std::ops::Range<u32>,
    seed: u32,
    written: &AtomicU64,
    retries: &AtomicU64,
) -> Outcome<()> {
    let mut connection = Connection::open(table.address).await?;
    let mut random = SmallRng::seed_from_u64(seed.into());
    let end = rows.end;
    for first in rows.step_by(BATCH_ROWS as usize) {
        let batch = first..end.min(first + BATCH_ROWS);
        let count = u64::from(batch.end - batch.start);
        let request = table.write_all(batch, &mut random);
        let mut attempt = 0;
        loop {
            let refused = |message: bytes::Bytes| {
                let answer = MutateRowsResponse::decode(message)?;
                let failed = answer.entries.into_iter().filter_map(|entry| entry.status);
                match failed.into_iter().find(|status| status.code != 0) {
                    Some(status) => Err(Status::new(Code::from(status.code), status.message).into()),
                    None => Ok(()),
                }
            };
            match connection.call(Call::WriteBatch(BATCH_ROWS).rpc(), request.clone(), refused).await {
                Ok(()) => break,
                Err(error) => match error.downcast_ref::<Status>() {
                    Some(status) if status.code() == Code::Unavailable && attempt < RETRIES_MAX => {
                        retries.fetch_add(1, Relaxed);
                        attempt += 1;
                        tokio::time::sleep(RETRY_PAUSE).await;
                    }
                    _ => return Err(error),
                },
            }
        }
        written.fetch_add(count, Relaxed);
    }
    Ok(())
}

/// Reads every row once.
async fn scan(hayloft: &Hayloft, table: &Table) -> Outcome<String> {
    let (begun, read) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let mut scans = JoinSet::new();
    for place in 0..SCANS {
        let first = table.row_count / SCANS * place;
        let count = if place + 1 < SCANS { table.row_count / SCANS } else { table.row_count - first };
        let (table, read) = (table.clone(), Arc::clone(&read));
        scans.spawn(async move {
            let mut connection = Connection::open(table.address).await?;
            let request = table.scan(first, count, ScanFilter::None);
            let mut of_scan = 0;
            let take = |message: bytes::Bytes| {
                let rows = ReadRowsResponse::decode(message)?.chunks.len() as u64;
                of_scan += rows;
                read.fetch_add(rows, Relaxed);
                Ok(())
            };
            connection.call(Call::Scan(count, ScanFilter::None).rpc(), request, take).await?;
            if of_scan == u64::from(count) {
                Ok(())
            } else {
                Err(format!("a scan gave {of_scan} rows of {count}").into())
            }
        });
    }
    watched("scan", hayloft, &read, all(scans)).await?;
    Ok(format!("large/scan: {}", pace(&read, begun)))
}

/// Reads single rows at random.
async fn reads(
    name: &str,
    hayloft: &Hayloft,
    table: &Table,
    connections: u32,
    seconds: u64,
) -> Outcome<String> {
    let sides = [Side { name: "hayloft", target: table.clone(), process: Some(&hayloft.process) }];
    let schedule = Schedule { duration: Duration::from_secs(seconds), rounds: 1 };
    let workers = async |table: &Table| Load::open(table, Call::Read, Order::Random, connections).await;
    let reads = measure::compare(&format!("large/{name}"), &sides, schedule, workers).await?;
    Ok(format!("large/{name}: {}", reads.ours()))
}

async fn all(mut tasks: JoinSet<Outcome<()>>) -> Outcome<()> {
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// `work`, with a line about how far it is now and then.
async fn watched(
    name: &str,
    hayloft: &Hayloft,
    rows: &AtomicU64,
    work: impl Future<Output = Outcome<()>>,
) -> Outcome<()> {
    let begun = Instant::now();
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = tokio::time::sleep(PROGRESS_EVERY) => {
                let Memory { anonymous_mib, file_mib, peak_mib } = hayloft.process.memory()?;
                println!(
                    "{name:<5} {:>5.0?}  {}  {} tablets  anonymous {anonymous_mib} MiB, of files {file_mib} MiB, peak of both {peak_mib} MiB",
                    begun.elapsed(),
                    pace(rows, begun),
                    tablets(hayloft).await?,
                );
            }
        }
    }
}

fn pace(rows: &AtomicU64, begun: Instant) -> String {
    let (rows, seconds) = (rows.load(Relaxed), begun.elapsed().as_secs_f64());
    let mib = rows as f64 * VALUE_BYTES as f64 / f64::from(1 << 20);
    format!("{rows} rows in {seconds:.1} s, {:.0} rows/s, {:.1} MiB/s", rows as f64 / seconds, mib / seconds)
}

/// Tablets that are served now.
async fn tablets(hayloft: &Hayloft) -> Outcome<u64> {
    let mut connection = http::Connection::open(hayloft.console).await?;
    connection.get("/metrics").await?;
    let text = String::from_utf8_lossy(connection.body());
    let of_servers = text.lines().filter(|line| line.starts_with("hayloft_tablets{"));
    let counts = of_servers.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    Ok(counts.sum())
}

/// Looks at the server's memory all the time.
struct Watch {
    looking: tokio::task::JoinHandle<()>,
    anonymous_mib: Arc<AtomicU64>,
}

impl Watch {
    fn begin(hayloft: &Hayloft) -> Self {
        let (process, anonymous_mib) = (hayloft.process.id(), Arc::new(AtomicU64::new(0)));
        let peak = Arc::clone(&anonymous_mib);
        let looking = tokio::spawn(async move {
            while let Ok(memory) = Memory::of(process) {
                peak.fetch_max(memory.anonymous_mib, Relaxed);
                tokio::time::sleep(SAMPLE_EVERY).await;
            }
        });
        Self { looking, anonymous_mib }
    }

    fn end(self, hayloft: &Hayloft, budget_mib: u64) -> Outcome<String> {
        self.looking.abort();
        let (anonymous_mib, memory) = (self.anonymous_mib.load(Relaxed), hayloft.process.memory()?);
        let verdict = if anonymous_mib <= budget_mib { "within" } else { "BEYOND" };
        Ok(format!(
            "large/memory: anonymous {anonymous_mib} MiB at most, {verdict} the budget of {budget_mib} MiB; with pages of files {} MiB at most",
            memory.peak_mib
        ))
    }
}
