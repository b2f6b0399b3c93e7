//! Rows read, written and scanned, beside Google's emulator; and, over one
//! connection, durable writes beside a bare write and fdatasync.

use std::path::Path;

use super::bare_sync::{BareSync, LoadOrSync};
use super::load::{Call, Load, Order};
use super::table::{ScanFilter, Table};
use super::{Plan, sides};
use crate::Outcome;
use crate::measure::{self, Side};
use crate::server::{Hayloft, Peer, data_root};

const WORKLOADS: &[(&str, Call)] = &[
    ("write", Call::Write),
    ("read", Call::Read),
    ("check_and_mutate", Call::CheckAndMutate),
    ("write_batch_100", Call::WriteBatch(100)),
    ("scan_100", Call::Scan(100, ScanFilter::None)),
    ("scan_100_latest", Call::Scan(100, ScanFilter::Latest)),
    ("scan_10000", Call::Scan(10_000, ScanFilter::None)),
    ("scan_10000_latest", Call::Scan(10_000, ScanFilter::Latest)),
    ("scan_10000_1_in_10", Call::Scan(10_000, ScanFilter::OneInTen)),
];

/// What is measured over each number of connections even if it is to be quick.
const SINGLE_COUNT: usize = 2;

/// What a workload reaches.
enum Target {
    Table(Table),
    /// Nothing: the disk itself.
    Disk,
}

/// Runs the workloads and returns the ratios.
pub(super) async fn run(binary: &Path, plan: &Plan) -> Outcome<Vec<String>> {
    let connections_max = plan.connections.iter().copied().max().unwrap_or(1);
    let mut wanted = Vec::new();
    for (place, (name, call)) in WORKLOADS.iter().enumerate() {
        for &connections in &plan.connections {
            let workload = format!("rows/{name}_c{connections}");
            let is_left_out = plan.quick && place >= SINGLE_COUNT && connections != connections_max;
            if !is_left_out && plan.wants(&workload) {
                wanted.push((workload, *call, connections));
            }
        }
    }
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let hayloft = Hayloft::start(binary)?;
    let peer = if plan.alone { None } else { Peer::cbtemulator()? };
    let tables = sides(&hayloft, peer.as_ref(), if plan.quick { 20_000 } else { 100_000 }).await?;
    let mut ratios = Vec::new();
    for (workload, call, connections) in wanted {
        let targets = tables.iter().map(|side| Target::Table(side.target.clone()));
        let mut sides: Vec<_> = tables
            .iter()
            .zip(targets)
            .map(|(side, target)| Side { name: side.name, target, process: side.process })
            .collect();
        if call == Call::Write && connections == 1 && !plan.alone {
            sides.push(Side { name: "fdatasync", target: Target::Disk, process: None });
        }
        let workers = async |target: &Target| workers(target, call, connections).await;
        ratios.extend(measure::compare(&workload, &sides, plan.schedule(), workers).await?.ratios());
    }
    Ok(ratios)
}

async fn workers(target: &Target, call: Call, connections: u32) -> Outcome<Vec<LoadOrSync>> {
    match target {
        Target::Table(table) => {
            let loads = Load::open(table, call, Order::Random, connections).await?;
            Ok(loads.into_iter().map(|load| LoadOrSync::Load(Box::new(load))).collect())
        }
        Target::Disk => {
            let file = tempfile::tempfile_in(data_root())?;
            Ok(vec![LoadOrSync::Sync(BareSync::new(file)?)])
        }
    }
}
