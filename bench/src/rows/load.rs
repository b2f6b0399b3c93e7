//! What a connection asks of a table, again and again.

use bytes::Bytes;
use prost::Message;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use row_api::data::read_rows_response::cell_chunk::RowStatus;
use row_api::data::{CheckAndMutateRowResponse, MutateRowsResponse, ReadRowsResponse};

use super::connection::Connection;
use super::table::{ScanFilter, Table, VALUE_BYTES};
use crate::Outcome;
use crate::measure::Worker;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Read,
    ReadBatch(u32),
    Write,
    WriteBatch(u32),
    CheckAndMutate,
    Scan(u32, ScanFilter),
}

impl Call {
    /// Rows that one request is about; what it counts.
    fn row_count(self) -> u32 {
        match self {
            Self::Read | Self::Write | Self::CheckAndMutate => 1,
            Self::ReadBatch(count) | Self::WriteBatch(count) | Self::Scan(count, _) => count,
        }
    }

    /// Rows in an answer.
    fn answered_row_count(self) -> u32 {
        match self {
            Self::Scan(count, ScanFilter::OneInTen) => count / 10,
            Self::Read | Self::ReadBatch(_) | Self::Scan(..) => self.row_count(),
            Self::Write | Self::WriteBatch(_) | Self::CheckAndMutate => 0,
        }
    }

    pub(crate) fn rpc(self) -> &'static str {
        match self {
            Self::Read | Self::ReadBatch(_) | Self::Scan(..) => "/google.bigtable.v2.Bigtable/ReadRows",
            Self::Write => "/google.bigtable.v2.Bigtable/MutateRow",
            Self::WriteBatch(_) => "/google.bigtable.v2.Bigtable/MutateRows",
            Self::CheckAndMutate => "/google.bigtable.v2.Bigtable/CheckAndMutateRow",
        }
    }
}

/// Which rows requests are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Random,
    /// From the connection's own start on, and around.
    Sequential,
}

/// One connection under load.
pub(crate) struct Load {
    connection: Connection,
    table: Table,
    call: Call,
    order: Order,
    next_row: u32,
    random: SmallRng,
    /// Whether an answer has been taken apart; from then on its bytes are counted.
    checked: bool,
}

impl Load {
    /// `count` connections to the table's server, each with its share of its rows.
    pub(crate) async fn open(table: &Table, call: Call, order: Order, count: u32) -> Outcome<Vec<Self>> {
        let mut loads = Vec::new();
        for place in 0..count {
            loads.push(Self {
                connection: Connection::open(table.address).await?,
                table: table.clone(),
                call,
                order,
                next_row: table.row_count / count * place,
                random: SmallRng::seed_from_u64(place.into()),
                checked: false,
            });
        }
        Ok(loads)
    }

    /// The first of `count` rows that follow each other.
    fn run_of_rows(&mut self, count: u32) -> u32 {
        let last_start = self.table.row_count - count;
        match self.order {
            Order::Random => self.random.random_range(0..=last_start),
            Order::Sequential => {
                let first = if self.next_row > last_start { 0 } else { self.next_row };
                self.next_row = first + count;
                first
            }
        }
    }

    /// The rows of a batch: each anywhere, or one after the other.
    fn batch(&mut self, count: u32) -> Vec<u32> {
        match self.order {
            Order::Random => (0..count).map(|_| self.random.random_range(0..self.table.row_count)).collect(),
            Order::Sequential => {
                let first = self.run_of_rows(count);
                (first..first + count).collect()
            }
        }
    }

    fn request(&mut self) -> Bytes {
        match self.call {
            Call::Read => {
                let row = self.run_of_rows(1);
                self.table.read([row].into_iter())
            }
            Call::ReadBatch(count) => {
                let rows = self.batch(count);
                self.table.read(rows.into_iter())
            }
            Call::Write => {
                let row = self.run_of_rows(1);
                self.table.write(row, &mut self.random)
            }
            Call::WriteBatch(count) => {
                let rows = self.batch(count);
                self.table.write_all(rows.into_iter(), &mut self.random)
            }
            Call::CheckAndMutate => {
                let row = self.run_of_rows(1);
                self.table.write_if_there(row, &mut self.random)
            }
            Call::Scan(count, filter) => {
                let first = self.run_of_rows(count);
                self.table.scan(first, count, filter)
            }
        }
    }

    /// Whether `messages` are the whole answer, taken apart.
    fn check(&self, messages: &[Bytes]) -> Outcome<()> {
        let mut rows = 0;
        for message in messages {
            match self.call {
                Call::Read | Call::ReadBatch(_) | Call::Scan(..) => {
                    let chunks = ReadRowsResponse::decode(message.clone())?.chunks;
                    rows += chunks
                        .iter()
                        .filter(|chunk| chunk.value.len() == VALUE_BYTES)
                        .filter(|chunk| chunk.row_status == Some(RowStatus::CommitRow(true)))
                        .count();
                }
                Call::WriteBatch(_) => {
                    let entries = MutateRowsResponse::decode(message.clone())?.entries;
                    if entries
                        .iter()
                        .any(|entry| entry.status.as_ref().is_some_and(|status| status.code != 0))
                    {
                        return Err("a row of a batch was not written".into());
                    }
                }
                Call::CheckAndMutate => {
                    if !CheckAndMutateRowResponse::decode(message.clone())?.predicate_matched {
                        return Err("a row is not there".into());
                    }
                }
                Call::Write => {}
            }
        }
        // A key that a random batch names twice is answered once; a run's tenth may begin anywhere.
        let expected = self.call.answered_row_count() as usize;
        match self.call {
            Call::ReadBatch(_) if rows > expected * 9 / 10 => Ok(()),
            _ if rows == expected => Ok(()),
            _ => Err(format!("{rows} rows came back of {expected}").into()),
        }
    }
}

impl Worker for Load {
    async fn step(&mut self) -> Outcome<u64> {
        let request = self.request();
        let (mut kept, mut bytes) = (Vec::new(), 0);
        let take = |message: Bytes| {
            bytes += message.len();
            if !self.checked {
                kept.push(message);
            }
            Ok(())
        };
        self.connection.call(self.call.rpc(), request, take).await?;
        if !self.checked {
            self.check(&kept)?;
            self.checked = true;
        }
        if bytes < self.call.answered_row_count() as usize * VALUE_BYTES * 9 / 10 {
            return Err("an answer is too short".into());
        }
        Ok(self.call.row_count().into())
    }
}
