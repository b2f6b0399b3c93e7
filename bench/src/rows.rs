//! The Bigtable door, beside Google's emulator, a bare fdatasync and the
//! figures of the paper.
//!
//! The emulator keeps its tables in memory; Hayloft syncs each write before it
//! answers.
//!
//! - [`connection`], [`table`], [`load`]: a connection, what can be asked over
//!   it, and what one worker asks.
//! - [`beside_emulator`], [`paper`]: the workloads.

mod bare_sync;
mod beside_emulator;
pub(crate) mod connection;
pub(crate) mod load;
mod paper;
pub(crate) mod table;

use std::path::Path;
use std::time::Duration;

use clap::Parser;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use self::connection::Connection;
use self::load::{Call, Load, Order};
use self::table::Table;
use crate::Outcome;
use crate::measure::{self, Schedule, Side};
use crate::server::{Hayloft, Peer};

/// Rows written by one request while a table is filled.
const FILL_ROWS: u32 = 500;

/// How much of the Bigtable door is measured.
#[derive(Clone, Debug, Parser)]
pub(crate) struct Plan {
    /// Less of everything, in under four minutes.
    #[arg(long)]
    quick: bool,
    /// Connections, each with one request on its way.
    #[arg(long, value_delimiter = ',', default_values = ["1", "16", "64"], value_parser = clap::value_parser!(u32).range(1..=1024))]
    connections: Vec<u32>,
    /// Milliseconds that each side of each round is under load; 2000, or 700 if quick.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    milliseconds: Option<u64>,
    /// Alternating rounds, of which the median counts; 5, or 3 if quick.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=25))]
    rounds: Option<u8>,
    /// Only workloads whose name contains one of these.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Hayloft alone, as for a profile.
    #[arg(long)]
    alone: bool,
}

impl Plan {
    fn schedule(&self) -> Schedule {
        let (milliseconds, rounds) = if self.quick { (700, 3) } else { (2000, 5) };
        Schedule {
            duration: Duration::from_millis(self.milliseconds.unwrap_or(milliseconds)),
            rounds: self.rounds.unwrap_or(rounds),
        }
    }

    fn wants(&self, workload: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| workload.contains(part.as_str()))
    }
}

/// One row at a time, for a first look at all doors.
pub(crate) async fn compare(hayloft: &Hayloft, plan: &crate::Plan) -> Outcome<()> {
    const ROW_COUNT: u32 = 20_000;
    let peer = Peer::cbtemulator()?;
    let sides = sides(hayloft, peer.as_ref(), ROW_COUNT).await?;
    for (workload, call) in [("rows/mutate_row", Call::Write), ("rows/read_rows", Call::Read)] {
        let workers =
            async |table: &Table| Load::open(table, call, Order::Random, plan.connections.into()).await;
        measure::compare(workload, &sides, plan.schedule(), workers).await?.print_ratios();
    }
    Ok(())
}

/// The whole suite; its last lines are the ratios.
pub(crate) async fn suite(binary: &Path, plan: &Plan) -> Outcome<()> {
    let Schedule { duration, rounds } = plan.schedule();
    println!(
        "values of {} bytes, one request on its way on each connection; median of {rounds} rounds of {duration:?}; \
         {} cores, client and server on them",
        table::VALUE_BYTES,
        std::thread::available_parallelism()?,
    );
    let mut ratios = beside_emulator::run(binary, plan).await?;
    ratios.extend(paper::run(binary, plan).await?);
    for ratio in ratios {
        println!("{ratio}");
    }
    Ok(())
}

/// Hayloft and the emulator, if it is there, each with a table that is full.
async fn sides<'a>(
    hayloft: &'a Hayloft,
    peer: Option<&'a Peer>,
    row_count: u32,
) -> Outcome<Vec<Side<'a, Table>>> {
    let ours = filled_table(hayloft, "rows", row_count).await?;
    let mut sides = vec![Side { name: "hayloft", target: ours, process: Some(&hayloft.process) }];
    if let Some(peer) = peer {
        let theirs = Table::create(peer.address, "rows", row_count).await?;
        fill(&theirs).await?;
        sides.push(Side { name: "cbtemulator", target: theirs, process: Some(&peer.process) });
    }
    Ok(sides)
}

async fn filled_table(hayloft: &Hayloft, id: &str, row_count: u32) -> Outcome<Table> {
    let table = Table::create(hayloft.bigtable, id, row_count).await?;
    fill(&table).await?;
    Ok(table)
}

/// Writes every row once.
async fn fill(table: &Table) -> Outcome<()> {
    let mut connection = Connection::open(table.address).await?;
    let mut random = SmallRng::seed_from_u64(0);
    for first in (0..table.row_count).step_by(FILL_ROWS as usize) {
        let end = table.row_count.min(first + FILL_ROWS);
        let request = table.write_all(first..end, &mut random);
        connection.call(Call::WriteBatch(FILL_ROWS).rpc(), request, |_| Ok(())).await?;
    }
    Ok(())
}
