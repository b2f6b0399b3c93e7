//! Hayloft's doors beside their peers: same machine, same client, same data,
//! alternating in one run.
//!
//! Read on in this order:
//!
//! - [`measure`]: what a workload is, and what is measured of it.
//! - [`server`]: the processes under load, started and ended here.
//! - [`rows`], [`photos`], [`cache`]: the doors, each with its workloads.
//! - [`large`]: a table much larger than memory.
//!
//! The client shares the machine with the server, so figures are those of a
//! whole machine at work, and the ratio says more than either side.

mod cache;
mod http;
mod large;
mod measure;
mod photos;
mod rows;
mod server;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use crate::measure::Schedule;
use crate::server::Hayloft;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[derive(Debug, Parser)]
#[command(name = "bench/run", about = "Measures Hayloft's doors beside their peers")]
struct Arguments {
    /// The server's binary.
    #[arg(long, hide = true)]
    hayloft: PathBuf,
    #[command(subcommand)]
    suite: Suite,
}

#[derive(Debug, Subcommand)]
enum Suite {
    /// One row, one photo, one item at a time, from several connections.
    First(Plan),
    /// The Bigtable door, beside Google's emulator and the paper's figures.
    Rows(rows::Plan),
    /// The memcached door, beside memcached: throughput, memory, hit rates.
    Cache(cache::SuitePlan),
    /// A table much larger than the server's memory.
    Large(large::Plan),
}

/// How long, how often, from how many connections.
#[derive(Clone, Debug, Parser)]
struct Plan {
    /// Connections, each with one request on its way.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,
    /// Seconds that each side of each round is under load.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Alternating rounds, of which the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=25))]
    rounds: u8,
    /// Only these doors.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["rows", "photos", "cache"])]
    only: Vec<DoorName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DoorName {
    Rows,
    Photos,
    Cache,
}

impl Plan {
    fn schedule(&self) -> Schedule {
        Schedule { duration: Duration::from_secs(self.seconds), rounds: self.rounds }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let suite = async {
        match &arguments.suite {
            Suite::First(plan) => first(&arguments.hayloft, plan).await,
            Suite::Rows(plan) => rows::suite(&arguments.hayloft, plan).await,
            Suite::Cache(plan) => cache::suite(&arguments.hayloft, plan).await,
            Suite::Large(plan) => large::run(&arguments.hayloft, plan).await,
        }
    };
    let outcome = tokio::select! {
        outcome = suite => outcome,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn first(binary: &Path, plan: &Plan) -> Outcome<()> {
    println!(
        "{} connections, one request on its way on each; median of {} rounds of {} s; {} cores, client and server on them",
        plan.connections,
        plan.rounds,
        plan.seconds,
        std::thread::available_parallelism()?,
    );
    let hayloft = Hayloft::start(binary)?;
    if plan.only.contains(&DoorName::Rows) {
        rows::compare(&hayloft, plan).await?;
    }
    if plan.only.contains(&DoorName::Photos) {
        photos::compare(&hayloft, plan).await?;
    }
    if plan.only.contains(&DoorName::Cache) {
        cache::compare(&hayloft, plan).await?;
    }
    Ok(())
}
