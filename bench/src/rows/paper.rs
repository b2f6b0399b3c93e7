//! The workloads of the Bigtable paper's section 7 beside its figure 6: values
//! of 1000 bytes a second, for one tablet server.
//!
//! The paper's machines, network and disks are those of 2006, and its clients
//! are separate machines; here all run on one. Each workload runs with one row
//! a request and with a hundred. "Read from memory" reads a table that fits
//! the caches; the others' table does not, unless the run is quick.

use std::path::Path;

use super::load::{Call, Load, Order};
use super::table::{ScanFilter, Table};
use super::{Plan, filled_table};
use crate::Outcome;
use crate::measure::{self, Side};
use crate::server::Hayloft;

const CONNECTIONS: u32 = 16;
const SMALL_ROW_COUNT: u32 = 10_000;

/// A column of figure 6, and what it stands for here.
struct Column {
    name: &'static str,
    single: Option<Call>,
    batch: Call,
    order: Order,
    is_small: bool,
    values_per_second: f64,
}

const COLUMNS: &[Column] = &[
    Column {
        name: "sequential_write",
        single: Some(Call::Write),
        batch: Call::WriteBatch(100),
        order: Order::Sequential,
        is_small: false,
        values_per_second: 8547.0,
    },
    Column {
        name: "random_write",
        single: Some(Call::Write),
        batch: Call::WriteBatch(100),
        order: Order::Random,
        is_small: false,
        values_per_second: 8850.0,
    },
    Column {
        name: "sequential_read",
        single: Some(Call::Read),
        batch: Call::ReadBatch(100),
        order: Order::Sequential,
        is_small: false,
        values_per_second: 4425.0,
    },
    Column {
        name: "random_read",
        single: Some(Call::Read),
        batch: Call::ReadBatch(100),
        order: Order::Random,
        is_small: false,
        values_per_second: 1212.0,
    },
    Column {
        name: "random_read_memory",
        single: Some(Call::Read),
        batch: Call::ReadBatch(100),
        order: Order::Random,
        is_small: true,
        values_per_second: 10_811.0,
    },
    Column {
        name: "scan",
        single: None,
        batch: Call::Scan(10_000, ScanFilter::None),
        order: Order::Sequential,
        is_small: false,
        values_per_second: 15_385.0,
    },
];

/// Runs the workloads and returns the ratios.
pub(super) async fn run(binary: &Path, plan: &Plan) -> Outcome<Vec<String>> {
    let mut wanted = Vec::new();
    for column in COLUMNS {
        let singles = column.single.map(|call| (format!("rows/paper_{}", column.name), call));
        let suffix = if column.single.is_some() { "_batch_100" } else { "" };
        let batches = (format!("rows/paper_{}{suffix}", column.name), column.batch);
        let named = singles.into_iter().chain([batches]);
        wanted.extend(named.filter(|(name, _)| plan.wants(name)).map(|(name, call)| (name, call, column)));
    }
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let hayloft = Hayloft::start(binary)?;
    let large = filled_table(&hayloft, "large", if plan.quick { 100_000 } else { 1_000_000 }).await?;
    let small = filled_table(&hayloft, "small", SMALL_ROW_COUNT).await?;
    let mut ratios = Vec::new();
    for (workload, call, column) in wanted {
        let table = if column.is_small { &small } else { &large };
        let side = Side { name: "hayloft", target: table, process: Some(&hayloft.process) };
        let workers = async |table: &&Table| Load::open(table, call, column.order, CONNECTIONS).await;
        let comparison = measure::compare(&workload, &[side], plan.schedule(), workers).await?;
        ratios.push(comparison.ratio_to("paper", column.values_per_second));
    }
    Ok(ratios)
}
