//! `bench/run cache`: our door beside memcached with as many threads and as
//! much memory.
//!
//! Debian's memcached sends each answer of a `get` by itself but batches those
//! of `mg`, so that each of our pipelined workloads is held to its `mg` too.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::traffic::{Client, KEY_BYTES, Traffic, VALUE_BYTES, fill, key, put_set};
use crate::Outcome;
use crate::measure::{self, Comparison, Schedule, Side};
use crate::server::{Hayloft, Peer};

/// Items that the throughput workloads ask for.
const ITEM_COUNT: u64 = 100_000;

/// Keys and requests of the traces, and memory for a small part of the keys.
const TRACE_KEYS: u64 = 1_000_000;
const TRACE_MEBIBYTES: u64 = 32;

/// Keys asked for at once by the traces.
const TRACE_BATCH: u64 = 50;

/// How long and how often, and which workloads.
#[derive(Clone, Debug, Parser)]
pub(crate) struct Plan {
    /// One short round, and no ten million items.
    #[arg(long)]
    quick: bool,
    /// Milliseconds that each side of each round is under load [default: 2000, or 600].
    #[arg(long)]
    milliseconds: Option<u64>,
    /// Alternating rounds, of which the median counts [default: 5, or 1].
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=25))]
    rounds: Option<u8>,
    /// Only the workloads that have one of these in their name.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Another memcached than the installed one.
    #[arg(long)]
    memcached: Option<PathBuf>,
}

impl Plan {
    fn schedule(&self) -> Schedule {
        let (milliseconds, rounds) = if self.quick { (600, 1) } else { (2000, 5) };
        Schedule {
            duration: Duration::from_millis(self.milliseconds.unwrap_or(milliseconds)),
            rounds: self.rounds.unwrap_or(rounds),
        }
    }

    fn wants(&self, workload: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| workload.contains(part.as_str()))
    }

    /// Both servers, each with so much memory.
    fn servers(&self, binary: &Path, mebibytes: u64) -> Outcome<(Hayloft, Option<Peer>)> {
        let settings = [
            format!("HAYLOFT_MEMCACHED_MEMORY={mebibytes}MiB"),
            "HAYLOFT_MEMCACHED_CONNECTIONS_MAX=4096".to_owned(),
            // It is not stopped to be started again.
            "HAYLOFT_MEMCACHED_WARM_RESTART=false".to_owned(),
        ];
        let peer = Peer::memcached_of(self.memcached.as_deref(), mebibytes)?;
        Ok((Hayloft::start_with(binary, &settings)?, peer))
    }
}

/// The whole suite; its last lines are the ratios.
pub(crate) async fn suite(binary: &Path, plan: &Plan) -> Outcome<()> {
    let Schedule { duration, rounds } = plan.schedule();
    println!(
        "keys of {KEY_BYTES} bytes, values of {VALUE_BYTES}; median of {rounds} rounds of {duration:?}; {} cores, \
         client and server on them",
        std::thread::available_parallelism()?,
    );
    let mut ratios = throughput(binary, plan).await?;
    ratios.extend(memory(binary, plan).await?);
    ratios.extend(hit_rates(binary, plan).await?);
    for ratio in ratios {
        println!("{ratio}");
    }
    Ok(())
}

fn sides<'a>(hayloft: &'a Hayloft, peer: Option<&'a Peer>) -> Vec<Side<'a, SocketAddr>> {
    let mut sides =
        vec![Side { name: "hayloft", target: hayloft.memcached, process: Some(&hayloft.process) }];
    if let Some(peer) = peer {
        sides.push(Side { name: "memcached", target: peer.address, process: Some(&peer.process) });
    }
    sides
}

async fn throughput(binary: &Path, plan: &Plan) -> Outcome<Vec<String>> {
    let (hayloft, peer) = plan.servers(binary, 1024)?;
    let sides = sides(&hayloft, peer.as_ref());
    for side in &sides {
        fill(side.target, 0..ITEM_COUNT).await?;
    }
    let mut ratios = Vec::new();
    for connections in [1, 50, 1000] {
        let mut meta: Vec<(usize, Comparison)> = Vec::new();
        for traffic in [Traffic::MetaGet, Traffic::Get, Traffic::Mixed, Traffic::Set, Traffic::Multiget] {
            let pipelines: &[usize] = if traffic == Traffic::Multiget { &[1] } else { &[1, 16, 32] };
            for pipeline in pipelines.iter().copied() {
                let workload = format!("cache/{}-x{pipeline}-c{connections}", traffic.name());
                if !plan.wants(&workload) {
                    continue;
                }
                let workers = async |address: &SocketAddr| {
                    Client::open(*address, traffic, pipeline, connections, ITEM_COUNT).await
                };
                let comparison = measure::compare(&workload, &sides, plan.schedule(), workers).await?;
                ratios.extend(comparison.ratios());
                let their_mg = meta.iter().find(|(of, _)| *of == pipeline && traffic == Traffic::Get);
                if let Some(rate) = their_mg.and_then(|(_, mg)| mg.rate_of("memcached")) {
                    ratios.push(comparison.ratio_to("memcached's mg", rate));
                }
                if traffic == Traffic::MetaGet {
                    meta.push((pipeline, comparison));
                }
            }
        }
    }
    Ok(ratios)
}

/// Memory that the processes grew by for each item, over its key and value.
async fn memory(binary: &Path, plan: &Plan) -> Outcome<Vec<String>> {
    let mut ratios = Vec::new();
    let counts: &[(u64, &str)] =
        if plan.quick { &[(1_000_000, "1m")] } else { &[(1_000_000, "1m"), (10_000_000, "10m")] };
    for (item_count, name) in counts.iter().copied() {
        let workload = format!("cache/memory-{name}");
        if !plan.wants(&workload) {
            continue;
        }
        let (hayloft, peer) = plan.servers(binary, 4096)?;
        let mut figures = Vec::new();
        for side in sides(&hayloft, peer.as_ref()) {
            let process = side.process.ok_or("a server is a process")?;
            let before = process.memory()?.anonymous_mib;
            fill(side.target, 0..item_count).await?;
            let grown_mib = process.memory()?.anonymous_mib.saturating_sub(before);
            let bytes = (grown_mib << 20) as f64 / item_count as f64;
            let payload = (KEY_BYTES + VALUE_BYTES) as f64;
            println!(
                "{workload:<38} {:<11} {bytes:>8.1} bytes an item, {:.1} over its payload",
                side.name,
                bytes - payload
            );
            figures.push(bytes);
        }
        if let [ours, theirs] = figures[..] {
            ratios.push(format!(
                "ratio {workload} vs memcached: {:.2} (of bytes: less is better)",
                ours / theirs
            ));
        }
    }
    Ok(ratios)
}

/// How many of a trace's requests find their item: keys by Zipf's law, and the
/// same with scans over keys that nobody asks for twice.
async fn hit_rates(binary: &Path, plan: &Plan) -> Outcome<Vec<String>> {
    let mut ratios = Vec::new();
    for (workload, scan_share) in [("cache/hits-zipf", 0.0), ("cache/hits-zipf-and-scans", 0.3)] {
        if !plan.wants(workload) {
            continue;
        }
        let (hayloft, peer) = plan.servers(binary, TRACE_MEBIBYTES)?;
        let mut figures = Vec::new();
        for side in sides(&hayloft, peer.as_ref()) {
            let request_count = if plan.quick { 1_000_000 } else { 5_000_000 };
            let hits = replay(side.target, request_count, scan_share).await?;
            println!("{workload:<38} {:<11} {:>8.2} % hits", side.name, hits * 100.0);
            figures.push(hits);
        }
        if let [ours, theirs] = figures[..] {
            ratios.push(format!("ratio {workload} vs memcached: {:.3}", ours / theirs));
        }
    }
    Ok(ratios)
}

/// The share of hits in the second half of a trace; what is missing is set.
async fn replay(address: SocketAddr, request_count: u64, scan_share: f64) -> Outcome<f64> {
    let zipf = Zipf::new(TRACE_KEYS);
    let mut random = SmallRng::seed_from_u64(7);
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut scanned, mut hits, mut asked) = (TRACE_KEYS, 0, 0);
    for turn in 0..request_count / TRACE_BATCH {
        let is_scan = random.random_bool(scan_share);
        let keys: Vec<u64> = (0..TRACE_BATCH)
            .map(|_| {
                scanned += u64::from(is_scan);
                if is_scan { scanned } else { zipf.draw(&mut random) }
            })
            .collect();
        let found = multiget(&mut stream, &keys).await?;
        let missing: Vec<u64> =
            keys.iter().zip(&found).filter(|(_, found)| !**found).map(|(key, _)| *key).collect();
        if turn >= request_count / TRACE_BATCH / 2 && !is_scan {
            asked += TRACE_BATCH;
            hits += TRACE_BATCH - missing.len() as u64;
        }
        let mut sets = Vec::new();
        missing.iter().for_each(|number| put_set(*number, " noreply", &mut sets));
        stream.write_all(&sets).await?;
    }
    Ok(hits as f64 / f64::max(asked as f64, 1.0))
}

/// Which of `keys` are there.
async fn multiget(stream: &mut TcpStream, keys: &[u64]) -> Outcome<Vec<bool>> {
    let mut request = Vec::new();
    for number in keys {
        request.extend(format!("mg {} k\r\n", key(*number)).bytes());
    }
    request.extend(b"mn\r\n");
    stream.write_all(&request).await?;
    let (mut answer, mut part) = (Vec::new(), [0; 16 << 10]);
    while !answer.ends_with(b"MN\r\n") {
        match stream.read(&mut part).await? {
            0 => return Err("the server closed".into()),
            count => answer.extend_from_slice(&part[..count]),
        }
    }
    let found: Vec<bool> =
        answer.split(|byte| *byte == b'\n').map(|line| line.starts_with(b"HD")).take(keys.len()).collect();
    Ok(found)
}

/// Ranks whose probability is inverse to them.
struct Zipf {
    cumulative: Vec<f64>,
}

impl Zipf {
    fn new(count: u64) -> Self {
        let mut total = 0.0;
        let sum = |rank: u64| {
            total += 1.0 / rank as f64;
            total
        };
        Self { cumulative: (1..=count).map(sum).collect() }
    }

    fn draw(&self, random: &mut SmallRng) -> u64 {
        let point = random.random_range(0.0..self.cumulative[self.cumulative.len() - 1]);
        self.cumulative.partition_point(|sum| *sum < point) as u64
    }
}
