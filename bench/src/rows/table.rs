//! A table of rows with one cell of 1000 bytes each, as the paper has them
//! (Bigtable section 7), and the requests that reach it.

use std::net::SocketAddr;

use bytes::Bytes;
use prost::Message;
use rand::RngExt;
use rand::rngs::SmallRng;
use row_api::admin::{ColumnFamily, CreateTableRequest, Table as TableSchema};
use row_api::client::{RowClient, connect_lazy};
use row_api::data::row_filter::{Chain, Filter};
use row_api::data::row_range::{EndKey, StartKey};
use row_api::data::{
    CheckAndMutateRowRequest, MutateRowRequest, MutateRowsRequest, Mutation, ReadRowsRequest, RowFilter,
    RowRange, RowSet, mutate_rows_request, mutation,
};
use row_api::names::{InstanceName, TableName};
use tonic::transport::Endpoint;

use crate::Outcome;

/// Bytes of each value.
pub(crate) const VALUE_BYTES: usize = 1000;

/// A table of a server, with rows from 0 to `row_count`.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) address: SocketAddr,
    pub(crate) row_count: u32,
    name: TableName,
}

/// What a scan leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScanFilter {
    /// Nothing.
    None,
    /// All but the newest cell of one column: what most programs ask for.
    Latest,
    /// Nine rows of ten, by a pattern of the row key.
    OneInTen,
}

impl Table {
    /// Makes the table `id`, without rows.
    pub(crate) async fn create(address: SocketAddr, id: &str, row_count: u32) -> Outcome<Self> {
        let instance = InstanceName { project: "bench".to_owned(), instance: "bench".to_owned() };
        let table = Self { address, row_count, name: TableName { instance, table: id.to_owned() } };
        let column_families = [("f".to_owned(), ColumnFamily::default())].into();
        let request = CreateTableRequest {
            parent: table.name.instance.to_string(),
            table_id: table.name.table.clone(),
            table: Some(TableSchema { column_families, ..TableSchema::default() }),
            ..CreateTableRequest::default()
        };
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
        RowClient::new(connect_lazy(&endpoint)).table_admin().create_table(request).await?;
        Ok(table)
    }

    /// The same table, of a server that listens elsewhere now.
    pub(crate) fn at(self, address: SocketAddr) -> Self {
        Self { address, ..self }
    }

    /// A MutateRow of `row`.
    pub(crate) fn write(&self, row: u32, random: &mut SmallRng) -> Bytes {
        let request = MutateRowRequest {
            table_name: self.name.to_string(),
            row_key: key(row),
            mutations: vec![set_cell(value(random))],
            ..MutateRowRequest::default()
        };
        request.encode_to_vec().into()
    }

    /// A MutateRows of `rows`.
    pub(crate) fn write_all(&self, rows: impl Iterator<Item = u32>, random: &mut SmallRng) -> Bytes {
        let entries = rows.map(|row| mutate_rows_request::Entry {
            row_key: key(row),
            mutations: vec![set_cell(value(random))],
            ..mutate_rows_request::Entry::default()
        });
        let request = MutateRowsRequest {
            table_name: self.name.to_string(),
            entries: entries.collect(),
            ..MutateRowsRequest::default()
        };
        request.encode_to_vec().into()
    }

    /// A CheckAndMutateRow of `row`, which writes if the row's column has a cell.
    pub(crate) fn write_if_there(&self, row: u32, random: &mut SmallRng) -> Bytes {
        let request = CheckAndMutateRowRequest {
            table_name: self.name.to_string(),
            row_key: key(row),
            predicate_filter: Some(latest()),
            true_mutations: vec![set_cell(value(random))],
            ..CheckAndMutateRowRequest::default()
        };
        request.encode_to_vec().into()
    }

    /// A ReadRows of the single rows `rows`.
    pub(crate) fn read(&self, rows: impl Iterator<Item = u32>) -> Bytes {
        let rows = RowSet { row_keys: rows.map(key).collect(), row_ranges: Vec::new() };
        let request = ReadRowsRequest {
            table_name: self.name.to_string(),
            rows: Some(rows),
            ..ReadRowsRequest::default()
        };
        request.encode_to_vec().into()
    }

    /// A ReadRows of the `count` rows from `first` on.
    pub(crate) fn scan(&self, first: u32, count: u32, filter: ScanFilter) -> Bytes {
        let range = RowRange {
            start_key: Some(StartKey::StartKeyClosed(key(first))),
            end_key: Some(EndKey::EndKeyOpen(key(first + count))),
        };
        let filter = match filter {
            ScanFilter::None => None,
            ScanFilter::Latest => Some(latest()),
            ScanFilter::OneInTen => Some(simple(Filter::RowKeyRegexFilter(Bytes::from_static(b"user.*7")))),
        };
        let request = ReadRowsRequest {
            table_name: self.name.to_string(),
            rows: Some(RowSet { row_keys: Vec::new(), row_ranges: vec![range] }),
            filter,
            ..ReadRowsRequest::default()
        };
        request.encode_to_vec().into()
    }
}

/// A value that does not compress.
pub(crate) fn value(random: &mut SmallRng) -> Bytes {
    let mut value = vec![0; VALUE_BYTES];
    random.fill(&mut value[..]);
    value.into()
}

fn key(row: u32) -> Bytes {
    format!("user{row:08}").into()
}

/// Always at the same timestamp, so that each write replaces the one before.
fn set_cell(value: Bytes) -> Mutation {
    let cell = mutation::SetCell {
        family_name: "f".to_owned(),
        column_qualifier: Bytes::from_static(b"q"),
        timestamp_micros: 1_000_000,
        value,
    };
    Mutation::from(mutation::Mutation::SetCell(cell))
}

fn simple(filter: Filter) -> RowFilter {
    RowFilter { filter: Some(filter), ..RowFilter::default() }
}

fn latest() -> RowFilter {
    simple(Filter::Chain(Chain {
        filters: vec![
            simple(Filter::FamilyNameRegexFilter("f".to_owned())),
            simple(Filter::ColumnQualifierRegexFilter(Bytes::from_static(b"q"))),
            simple(Filter::CellsPerColumnLimitFilter(1)),
        ],
    }))
}
