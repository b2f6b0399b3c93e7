//! Tables in memory behind the row API: enough of them for a photo directory,
//! and able to be away or to fail.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use row_api::admin::bigtable_table_admin_server::{BigtableTableAdmin, BigtableTableAdminServer};
use row_api::admin::{CreateTableRequest, Table, TableAnswer};
use row_api::client::{RowClient, in_process};
use row_api::data::bigtable_server::{Bigtable, BigtableServer};
use row_api::data::mutation::Mutation as Change;
use row_api::data::read_rows_response::CellChunk;
use row_api::data::read_rows_response::cell_chunk::RowStatus;
use row_api::data::row_filter::Filter;
use row_api::data::row_range::{EndKey, StartKey};
use row_api::data::{
    CheckAndMutateRowRequest, CheckAndMutateRowResponse, MutateRowRequest, MutateRowResponse,
    MutateRowsRequest, MutateRowsResponse, Mutation, ReadRowsRequest, ReadRowsResponse, mutate_rows_response,
};
use tonic::codegen::BoxStream;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status};

type Row = BTreeMap<(String, Bytes), Bytes>;

#[derive(Clone, Default)]
pub struct RowTable {
    tables: Arc<Mutex<BTreeMap<String, BTreeMap<Bytes, Row>>>>,
    created: Arc<Mutex<BTreeSet<String>>>,
    /// The code that every call fails with; 0 for none.
    failure: Arc<AtomicI32>,
}

impl RowTable {
    pub fn client(&self) -> RowClient {
        let routes = Routes::new(BigtableServer::new(self.clone()))
            .add_service(BigtableTableAdminServer::new(self.clone()));
        RowClient::new(in_process(routes))
    }

    pub fn fail_with(&self, code: Code) {
        self.failure.store(code as i32, Ordering::SeqCst);
    }

    pub fn row_count(&self, table: &str) -> usize {
        let name = format!("projects/hayloft/instances/system/tables/{table}");
        self.tables.lock().get(&name).map_or(0, BTreeMap::len)
    }

    /// Forgets the rows of `table`.
    pub fn drop_rows(&self, table: &str) {
        self.tables.lock().remove(&format!("projects/hayloft/instances/system/tables/{table}"));
    }

    fn check(&self) -> Result<(), Status> {
        match Code::from(self.failure.load(Ordering::SeqCst)) {
            Code::Ok => Ok(()),
            code => Err(Status::new(code, "told to fail")),
        }
    }

    fn apply(&self, table: &str, key: &Bytes, mutations: Vec<Mutation>) {
        let mut tables = self.tables.lock();
        let rows = tables.entry(table.to_owned()).or_default();
        for mutation in mutations {
            match mutation.mutation {
                Some(Change::SetCell(cell)) => {
                    let column = (cell.family_name, cell.column_qualifier);
                    rows.entry(key.clone()).or_default().insert(column, cell.value);
                }
                Some(Change::DeleteFromRow(_)) => drop(rows.remove(key)),
                other => panic!("a photo directory does not use {other:?}"),
            }
        }
    }
}

#[tonic::async_trait]
impl Bigtable for RowTable {
    async fn read_rows(
        &self,
        request: Request<ReadRowsRequest>,
    ) -> Result<Response<BoxStream<ReadRowsResponse>>, Status> {
        self.check()?;
        let request = request.into_inner();
        let rows = self.tables.lock().get(&request.table_name).cloned().unwrap_or_default();
        let set = request.rows.unwrap_or_default();
        let mut found: Vec<(Bytes, Row)> =
            set.row_keys.iter().filter_map(|key| Some((key.clone(), rows.get(key)?.clone()))).collect();
        for range in set.row_ranges {
            let start = match range.start_key {
                Some(StartKey::StartKeyClosed(key)) => Bound::Included(key),
                Some(StartKey::StartKeyOpen(key)) => Bound::Excluded(key),
                None => Bound::Unbounded,
            };
            let Some(EndKey::EndKeyOpen(end)) = range.end_key else { panic!("an open end") };
            if matches!(&start, Bound::Included(key) | Bound::Excluded(key) if *key >= end) {
                continue;
            }
            let range = rows.range((start, Bound::Excluded(end)));
            found.extend(range.map(|(key, row)| (key.clone(), row.clone())));
        }
        let limit =
            usize::try_from(request.rows_limit).unwrap().checked_sub(1).map_or(usize::MAX, |last| last + 1);
        let responses = found.into_iter().take(limit).map(|(key, row)| Ok(response(&key, row)));
        let stream: BoxStream<ReadRowsResponse> =
            Box::pin(futures_util::stream::iter(responses.collect::<Vec<_>>()));
        Ok(Response::new(stream))
    }

    async fn mutate_row(
        &self,
        request: Request<MutateRowRequest>,
    ) -> Result<Response<MutateRowResponse>, Status> {
        self.check()?;
        let request = request.into_inner();
        self.apply(&request.table_name, &request.row_key, request.mutations);
        Ok(Response::new(MutateRowResponse::default()))
    }

    async fn check_and_mutate_row(
        &self,
        request: Request<CheckAndMutateRowRequest>,
    ) -> Result<Response<CheckAndMutateRowResponse>, Status> {
        self.check()?;
        let request = request.into_inner();
        let Some(Filter::Chain(chain)) = request.predicate_filter.and_then(|filter| filter.filter) else {
            panic!("a photo directory asks for one column")
        };
        let (mut family, mut qualifier, mut wanted) = (String::new(), Bytes::new(), None);
        for filter in chain.filters.into_iter().filter_map(|filter| filter.filter) {
            match filter {
                Filter::FamilyNameRegexFilter(name) => family = name,
                Filter::ColumnQualifierRegexFilter(name) => qualifier = name,
                Filter::ValueRegexFilter(value) => wanted = Some(value),
                other => panic!("a photo directory does not use {other:?}"),
            }
        }
        let found = {
            let tables = self.tables.lock();
            let row = tables.get(&request.table_name).and_then(|rows| rows.get(&request.row_key));
            row.and_then(|row| row.get(&(family, qualifier)).cloned())
        };
        let predicate_matched = found.is_some_and(|value| wanted.is_none_or(|wanted| wanted == value));
        let mutations = if predicate_matched { request.true_mutations } else { request.false_mutations };
        self.apply(&request.table_name, &request.row_key, mutations);
        Ok(Response::new(CheckAndMutateRowResponse { predicate_matched }))
    }

    async fn mutate_rows(
        &self,
        request: Request<MutateRowsRequest>,
    ) -> Result<Response<BoxStream<MutateRowsResponse>>, Status> {
        self.check()?;
        let request = request.into_inner();
        let mut entries = Vec::new();
        for (index, entry) in (0..).zip(request.entries) {
            self.apply(&request.table_name, &entry.row_key, entry.mutations);
            entries.push(mutate_rows_response::Entry { index, status: None });
        }
        let response = MutateRowsResponse { entries, ..MutateRowsResponse::default() };
        let stream: BoxStream<MutateRowsResponse> = Box::pin(futures_util::stream::iter([Ok(response)]));
        Ok(Response::new(stream))
    }
}

fn response(key: &Bytes, row: Row) -> ReadRowsResponse {
    let last = row.len() - 1;
    let chunks = row.into_iter().enumerate().map(|(place, ((family, qualifier), value))| CellChunk {
        row_key: if place == 0 { key.clone() } else { Bytes::new() },
        family_name: Some(family),
        qualifier: Some(qualifier.to_vec()),
        value,
        row_status: (place == last).then_some(RowStatus::CommitRow(true)),
        ..CellChunk::default()
    });
    ReadRowsResponse { chunks: chunks.collect(), ..ReadRowsResponse::default() }
}

#[tonic::async_trait]
impl BigtableTableAdmin for RowTable {
    async fn create_table(
        &self,
        request: Request<CreateTableRequest>,
    ) -> Result<Response<TableAnswer>, Status> {
        self.check()?;
        let CreateTableRequest { parent, table_id, .. } = request.into_inner();
        match self.created.lock().insert(format!("{parent}/tables/{table_id}")) {
            true => Ok(Response::new(Table::default().into())),
            false => Err(Status::already_exists(table_id)),
        }
    }
}
