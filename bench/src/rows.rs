//! The Bigtable door: one row at a time, beside Google's emulator.
//!
//! The emulator keeps its tables in memory; Hayloft syncs each write before it
//! answers.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use row_api::admin::{ColumnFamily, CreateTableRequest, Table};
use row_api::client::{RowClient, connect_lazy};
use row_api::data::{Mutation, mutation};
use row_api::names::{InstanceName, TableName};
use tonic::transport::Endpoint;

use crate::measure::{self, Worker};
use crate::server::{Hayloft, Peer};
use crate::{Outcome, Plan};

const ROW_COUNT: u32 = 20_000;
const VALUE_BYTES: usize = 1000;
const BATCH_ROW_COUNT: u32 = 500;

struct Side {
    address: String,
    table: TableName,
}

pub(crate) async fn compare(hayloft: &Hayloft, plan: &Plan) -> Outcome<()> {
    let peer = Peer::cbtemulator()?;
    let ours = Side::fill(hayloft.bigtable.to_string()).await?;
    let theirs = match &peer {
        Some(peer) => Some(Side::fill(peer.address.to_string()).await?),
        None => None,
    };
    let mut sides = vec![measure::Side { name: "hayloft", target: &ours, process: &hayloft.process }];
    for (peer, target) in peer.iter().zip(&theirs) {
        sides.push(measure::Side { name: "cbtemulator", target, process: &peer.process });
    }
    measure::compare("rows/mutate_row", &sides, plan, async |side: &Side| {
        side.workers(plan, |client, table, random| Write { client, table, random })
    })
    .await?;
    measure::compare("rows/read_rows", &sides, plan, async |side: &Side| {
        side.workers(plan, |client, table, random| Read { client, table, random })
    })
    .await
}

impl Side {
    /// Makes the table and writes every row once.
    async fn fill(address: String) -> Outcome<Self> {
        let instance = InstanceName { project: "bench".to_owned(), instance: "bench".to_owned() };
        let side = Self { address, table: TableName { instance, table: "rows".to_owned() } };
        let client = side.client()?;
        let column_families = [("f".to_owned(), ColumnFamily::default())].into();
        let request = CreateTableRequest {
            parent: side.table.instance.to_string(),
            table_id: side.table.table.clone(),
            table: Some(Table { column_families, ..Table::default() }),
            ..CreateTableRequest::default()
        };
        client.table_admin().create_table(request).await?;
        let mut random = SmallRng::seed_from_u64(0);
        for first in (0..ROW_COUNT).step_by(BATCH_ROW_COUNT as usize) {
            let rows = first..first + BATCH_ROW_COUNT;
            let entries = rows.map(|row| (key(row), vec![set_cell(&mut random)])).collect();
            for answer in client.mutate_rows(&side.table, entries).await? {
                answer?;
            }
        }
        Ok(side)
    }

    fn client(&self) -> Outcome<RowClient> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address))?.tcp_nodelay(true);
        Ok(RowClient::new(connect_lazy(&endpoint)))
    }

    /// A connection and a seed for each.
    fn workers<W>(
        &self,
        plan: &Plan,
        worker: impl Fn(RowClient, TableName, SmallRng) -> W,
    ) -> Outcome<Vec<W>> {
        let seeds = 0..u64::from(plan.connections);
        seeds
            .map(|seed| Ok(worker(self.client()?, self.table.clone(), SmallRng::seed_from_u64(seed))))
            .collect()
    }
}

struct Write {
    client: RowClient,
    table: TableName,
    random: SmallRng,
}

impl Worker for Write {
    async fn step(&mut self) -> Outcome<u64> {
        let key = key(self.random.random_range(0..ROW_COUNT));
        self.client.mutate_row(&self.table, &key, vec![set_cell(&mut self.random)]).await?;
        Ok(1)
    }
}

struct Read {
    client: RowClient,
    table: TableName,
    random: SmallRng,
}

impl Worker for Read {
    async fn step(&mut self) -> Outcome<u64> {
        let key = key(self.random.random_range(0..ROW_COUNT));
        let row = self.client.read_row(&self.table, &key).await?;
        match row.as_ref().and_then(|row| row.cell("f", b"q")) {
            Some(cell) if cell.value.len() == VALUE_BYTES => Ok(1),
            _ => Err(format!("row {} is not as it was written", String::from_utf8_lossy(&key)).into()),
        }
    }
}

fn key(row: u32) -> Vec<u8> {
    format!("user{row:08}").into_bytes()
}

/// A cell of bytes that do not compress, always at the same timestamp: each
/// write replaces the one before.
fn set_cell(random: &mut SmallRng) -> Mutation {
    let mut value = vec![0; VALUE_BYTES];
    random.fill(&mut value[..]);
    let cell = mutation::SetCell {
        family_name: "f".to_owned(),
        column_qualifier: b"q".to_vec().into(),
        timestamp_micros: 1_000_000,
        value: value.into(),
    };
    Mutation { mutation: Some(mutation::Mutation::SetCell(cell)) }
}
