//! The engine beside other embedded stores: same keys, same values, same
//! durability, same memory, alternating in one run.
//!
//! Read on in this order:
//!
//! - [`store`]: what is asked of each side, and how each is set up.
//! - [`data_set`]: how many keys, of which values, in how much memory.
//! - [`data`]: keys and values.
//! - [`workload`]: the workloads, named as db_bench of LevelDB and RocksDB names them.
//! - [`measure`], [`footprint`]: what is measured of one: time; disk and memory.
//! - [`side`]: a process for each side, so that the memory of one is told from another's.
//! - [`compare`], [`report`]: rounds in turn, and what is printed of them.

mod compare;
mod data;
mod data_set;
mod footprint;
mod measure;
mod report;
mod side;
mod store;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::data_set::{DataSet, SetName};
use crate::side::SidePlan;
use crate::store::StoreKind;
use crate::workload::Workload;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Measures the engine beside other embedded stores.
#[derive(Debug, Parser)]
#[command(name = "bench/run lsm", args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    plan: Plan,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// One side, which takes its orders from standard input.
    #[command(hide = true)]
    Side(SidePlan),
}

/// How much, how long, how often, beside whom.
#[derive(Debug, Args)]
struct Plan {
    /// A fifth of the data, less time, two data sets: a few minutes in all.
    #[arg(long)]
    quick: bool,
    /// Whom to stand beside; without a name, ours alone.
    #[arg(long, value_enum, value_delimiter = ',', num_args = 0.., default_values = StoreKind::PEERS)]
    peers: Vec<StoreKind>,
    /// Only these workloads.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Workload>,
    /// Only these data sets [default: all, --quick: large and cached-incompressible].
    #[arg(long, value_enum, value_delimiter = ',')]
    sets: Vec<SetName>,
    /// Keys of the large sets [default: 5,000,000, --quick: 1,000,000].
    #[arg(long, value_parser = clap::value_parser!(u32).range(10_000..=200_000_000))]
    keys: Option<u32>,
    /// Block cache of each store in the large sets, MiB, and as much for memtables [default: 64, --quick: 16].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    cache_mib: Option<u64>,
    /// Seconds that each side reads in each round [default: 2, --quick: 1].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: Option<u64>,
    /// Alternating rounds, of which the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=25))]
    rounds: u8,
    /// Threads that read at once, and that write at once in fillsync.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    threads: u8,
    /// Where the stores' directories are made [default: the system's directory for temporary files].
    #[arg(long)]
    dir: Option<PathBuf>,
}

impl Plan {
    fn keys(&self) -> u32 {
        self.keys.unwrap_or(if self.quick { 1_000_000 } else { 5_000_000 })
    }

    fn cache_bytes(&self) -> u64 {
        self.cache_mib.unwrap_or(if self.quick { 16 } else { 64 }) << 20
    }

    fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(if self.quick { 1 } else { 2 }))
    }

    fn runs(&self, workload: Workload) -> bool {
        self.only.is_empty() || self.only.contains(&workload)
    }

    fn data_sets(&self) -> Vec<DataSet> {
        let names = match &self.sets[..] {
            [] if self.quick => &[SetName::Large, SetName::CachedIncompressible],
            [] => SetName::value_variants(),
            names => names,
        };
        names.iter().map(|name| DataSet::new(*name, self.keys(), self.cache_bytes())).collect()
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
    let command_line = CommandLine::parse();
    let outcome = match command_line.role {
        Some(Role::Side(plan)) => side::serve(&plan),
        None => compare::compare(&command_line.plan),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
