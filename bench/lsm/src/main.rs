//! The engine beside other embedded stores: same keys, same values, same
//! durability, same memory, alternating in one run.
//!
//! Read on in this order:
//!
//! - [`store`]: what is asked of each side, and how each is set up.
//! - [`data`]: keys and values.
//! - [`workload`]: the workloads, named as db_bench of LevelDB and RocksDB names them.
//! - [`measure`]: what is measured of one, and what is printed.

mod data;
mod measure;
mod store;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::store::StoreKind;
use crate::workload::Workload;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// How much, how long, how often, beside whom.
#[derive(Debug, Parser)]
#[command(name = "bench/run lsm", about = "Measures the engine beside other embedded stores")]
struct Plan {
    /// 1,000,000 keys, all in the cache, for a first look.
    #[arg(long)]
    quick: bool,
    /// Keys in the store [default: 5,000,000, --quick: 1,000,000].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1000..=200_000_000))]
    keys: Option<u32>,
    /// Block cache of each store, MiB [default: 64, --quick: 256].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    cache_mib: Option<u64>,
    /// Seconds that each side reads in each round [default: 5, --quick: 2].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: Option<u64>,
    /// Alternating rounds, of which the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=25))]
    rounds: u8,
    /// Threads that read at once, and that write at once in fillsync.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    threads: u8,
    /// Whom to stand beside; without a name, ours alone.
    #[arg(long, value_enum, value_delimiter = ',', num_args = 0.., default_values = StoreKind::PEERS)]
    peers: Vec<StoreKind>,
    /// Only these workloads.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Workload>,
    /// Where the stores' directories are made [default: the system's directory for temporary files].
    #[arg(long)]
    dir: Option<PathBuf>,
}

impl Plan {
    fn keys(&self) -> u32 {
        self.keys.unwrap_or(if self.quick { 1_000_000 } else { 5_000_000 })
    }

    fn cache_bytes(&self) -> u64 {
        self.cache_mib.unwrap_or(if self.quick { 256 } else { 64 }) << 20
    }

    fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(if self.quick { 2 } else { 5 }))
    }

    fn workloads(&self) -> Vec<Workload> {
        if self.only.is_empty() { Workload::value_variants().to_vec() } else { self.only.clone() }
    }

    fn dir(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(std::env::temp_dir)
    }

    /// Ours first.
    fn sides(&self) -> Vec<StoreKind> {
        std::iter::once(StoreKind::Lsm).chain(self.peers.iter().copied()).collect()
    }
}

fn main() -> ExitCode {
    match run(&Plan::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(plan: &Plan) -> Outcome<()> {
    println!(
        "{} keys of {} bytes with values of {} bytes, {} MiB of block cache, {} MiB of memtables, {} threads; \
         median of {} rounds; {} cores",
        plan.keys(),
        data::KEY_BYTES,
        data::VALUE_BYTES,
        plan.cache_bytes() >> 20,
        store::MEMTABLE_BYTES >> 20,
        plan.threads,
        plan.rounds,
        std::thread::available_parallelism()?,
    );
    workload::compare(plan)
}
