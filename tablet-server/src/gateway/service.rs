//! `google.bigtable.v2.Bigtable`: requests are checked as a whole, then routed.
//!
//! App profiles decide what a request may do, not where it goes: every cluster of
//! an instance is this one. What is not built answers UNIMPLEMENTED with a sentence.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::{Stream, stream};
use prost::Message;
use row_api::data;
use row_api::data::bigtable_server::{Bigtable, BigtableServer};
use row_api::data::row_range::EndKey;
use row_api::names::{AuthorizedViewName, InstanceName, TableName};
use row_api::rpc;
use tonic::codegen::BoxStream;
use tonic::{Code, Request, Response, Status};

use super::change_messages::stream_partition;
use super::change_request::StreamRequest;
use super::change_stream::{self, ChangeStream};
use super::meters::Meters;
use super::request_stats::RequestStats;
use super::router::Router;
use super::row_batches::{self, Entry};
use super::table_scan::TableScan;
use super::{Caller, REQUEST_BYTES_MAX};
use crate::app_profiles::Access;
use crate::authorized_view::AuthorizedView;
use crate::catalog::Table;
use crate::check_and_mutate::CheckAndMutate;
use crate::chunk;
use crate::clock::{self, Clock};
use crate::error::Error;
use crate::filter::Filter;
use crate::limits;
use crate::mutation::RowMutations;
use crate::read_modify_write::ReadModifyWrite;
use crate::row_scan::ScanOptions;
use crate::row_server::{ReadRequest, RowSample};
use crate::row_set::{RowRange, RowSet};
use crate::schema::TableSchema;

/// Entries in one message of a MutateRows answer.
const ENTRIES_PER_ANSWER: usize = 10_000;

/// What a request is about.
struct Target {
    table: Arc<Table>,
    schema: Arc<TableSchema>,
    /// What it is held to.
    view: Option<Arc<AuthorizedView>>,
}

/// A checked ReadRows.
struct Read {
    table: Arc<Table>,
    request: ReadRequest,
    stats: Option<RequestStats>,
}

/// A checked CheckAndMutateRow.
struct Checked {
    table: Arc<Table>,
    schema: Arc<TableSchema>,
    request: CheckAndMutate,
}

/// The row service, for one kind of caller. Cheap to clone.
#[derive(Clone)]
pub struct RowService {
    router: Arc<Router>,
    clock: Clock,
    caller: Caller,
    meters: Arc<Meters>,
}

impl RowService {
    /// A service for `caller` over the tables that `router` reaches.
    pub fn new(router: Arc<Router>, clock: Clock, caller: Caller) -> Self {
        Self { router, clock, caller, meters: Arc::new(Meters::new()) }
    }

    /// The gRPC server, with its bound on a request's size.
    pub fn into_server(self) -> BigtableServer<Self> {
        BigtableServer::new(self).max_decoding_message_size(REQUEST_BYTES_MAX)
    }

    /// What a request is about that names a table or a view, under the app profile `profile`.
    fn target(&self, table: &str, view: &str, profile: &str, access: Access) -> Result<Target, Status> {
        if view.is_empty() {
            let table = self.table(table)?;
            table.check_app_profile(profile, access)?;
            return Ok(Target { schema: table.schema(), table, view: None });
        }
        if !table.is_empty() {
            let why = "is set beside table_name, and at most one of them may be";
            return Err(limits::refuse("authorized_view_name", why));
        }
        let name = AuthorizedViewName::parse("authorized_view_name", view)?;
        let table = self.table(&name.table.to_string())?;
        table.check_app_profile(profile, access)?;
        let schema = table.schema();
        let view = schema.authorized_views.get(&name.view).cloned();
        let view = view.ok_or_else(|| Status::not_found(format!("Authorized view not found: {name}")))?;
        Ok(Target { schema, table, view: Some(view) })
    }

    fn table(&self, name: &str) -> Result<Arc<Table>, Status> {
        if let Some(table) = self.router.catalog().by_name(name) {
            return Ok(table);
        }
        TableName::parse("table_name", name)?;
        Err(Error::NoTable { name: name.to_owned() }.into())
    }

    fn target_to_change(
        &self,
        table: &str,
        view: &str,
        profile: &str,
        access: Access,
    ) -> Result<Target, Status> {
        let target = self.target(table, view, profile, access)?;
        self.caller.check_change(&target.table.name)?;
        Ok(target)
    }

    /// What a ReadRows asks for.
    fn check_read(&self, request: &data::ReadRowsRequest) -> Result<Read, Status> {
        let stats = RequestStats::begin(request.request_stats_view)?;
        check_no_materialized_view(&request.materialized_view_name)?;
        let data::ReadRowsRequest { table_name, authorized_view_name: view, app_profile_id, .. } = request;
        let Target { table, schema, view } = self.target(table_name, view, app_profile_id, Access::Read)?;
        let rows_limit = u64::try_from(request.rows_limit).map_err(|_| {
            Status::invalid_argument(format!("rows_limit: {}, at least 0 (no limit)", request.rows_limit))
        })?;
        let mut filter = Filter::compile("filter", request.filter.as_ref(), &schema)?;
        let mut rows = RowSet::check("rows", request.rows.as_ref())?;
        if let Some(view) = view {
            filter = filter.in_view(&view, &schema);
            rows = rows.intersection(view.rows());
        }
        let options = ScanOptions {
            reversed: request.reversed,
            rows_limit: (rows_limit > 0).then_some(rows_limit),
            now_us: (self.clock)(),
            sample_seed: rand::random(),
        };
        Ok(Read { table, request: ReadRequest { schema, rows, filter, options }, stats })
    }

    async fn read(&self, read: Read) -> Result<BoxStream<data::ReadRowsResponse>, Status> {
        if read.stats.is_none()
            && let [only] = read.request.rows.ranges()
            && let Some(row_key) = single_row(only)
        {
            let row = self.router.read_row(&read.table, &row_key, &read.request).await?;
            let answer = chunk::responses(row.into_iter().collect());
            return Ok(Box::pin(stream::iter(answer.into_iter().map(Ok))));
        }
        // In a box, so that the many reads of one row do without its size.
        Box::pin(self.scan(read)).await
    }

    async fn scan(&self, read: Read) -> Result<BoxStream<data::ReadRowsResponse>, Status> {
        let Read { table, request, stats } = read;
        let scan = TableScan::new(Arc::clone(&self.router), table, request);
        let mut answer = Answer { scan, ready: VecDeque::new(), stats };
        // What is wrong from the start is the call's status, not its stream's.
        answer.fill().await?;
        Ok(Box::pin(answer.into_stream(Arc::clone(&self.meters))))
    }

    async fn sample(
        &self,
        request: data::SampleRowKeysRequest,
    ) -> Result<BoxStream<data::SampleRowKeysResponse>, Status> {
        check_no_materialized_view(&request.materialized_view_name)?;
        let data::SampleRowKeysRequest { table_name, authorized_view_name: view, app_profile_id, .. } =
            &request;
        let Target { table, view, .. } = self.target(table_name, view, app_profile_id, Access::Read)?;
        let asked = request.row_range.unwrap_or_default();
        let start = RowRange::check("row_range", &asked)?.start;
        let end = match asked.end_key {
            Some(EndKey::EndKeyClosed(key) | EndKey::EndKeyOpen(key)) => key,
            None => Bytes::new(),
        };
        let rows = RowRange { start, end };
        // A view shows no row that is not its own, and no bytes of others.
        let visible = match &view {
            Some(view) => view.rows().clip(&rows),
            None => RowSet::all().clip(&rows),
        };
        let answer = |row_key, bytes: u64| {
            let offset_bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            Ok(data::SampleRowKeysResponse { row_key, offset_bytes })
        };
        let mut bytes_before = 0_u64;
        let mut answers = Vec::new();
        for range in visible.ranges() {
            let samples = self.router.sample(&table, range).await?;
            let Some((end, inside)) = samples.split_last() else { continue };
            let before = |sample: &RowSample| bytes_before.saturating_add(sample.bytes_before);
            answers.extend(inside.iter().map(|sample| answer(sample.row.clone(), before(sample))));
            bytes_before = before(end);
        }
        answers.push(answer(rows.end, bytes_before));
        Ok(Box::pin(stream::iter(answers)))
    }

    /// What a MutateRow writes, and where.
    fn check_mutate(&self, request: data::MutateRowRequest) -> Result<(Arc<Table>, RowMutations), Status> {
        let data::MutateRowRequest { table_name, authorized_view_name: view, app_profile_id, .. } = &request;
        let Target { table, schema, view } =
            self.target_to_change(table_name, view, app_profile_id, Access::Write)?;
        if let Some(view) = view {
            view.check_row("row_key", &request.row_key)?;
            view.check_mutations("mutations", &request.mutations)?;
        }
        let row = RowMutations::check(&schema, "mutations", request.row_key, request.mutations)?;
        Ok((table, row))
    }

    async fn mutate_many(
        &self,
        request: data::MutateRowsRequest,
    ) -> Result<BoxStream<data::MutateRowsResponse>, Status> {
        let data::MutateRowsRequest { table_name, authorized_view_name: view, app_profile_id, .. } = &request;
        let Target { table, schema, view } =
            self.target_to_change(table_name, view, app_profile_id, Access::Write)?;
        let mutation_count = request.entries.iter().map(|entry| entry.mutations.len().max(1)).sum();
        limits::check_mutation_count("entries", mutation_count)?;
        let mut statuses = vec![rpc::Status::default(); request.entries.len()];
        let mut entries = Vec::with_capacity(request.entries.len());
        let mut field = String::new();
        for (place, entry) in request.entries.into_iter().enumerate() {
            field.clear();
            write!(field, "entries[{place}].mutations").expect("a string takes all");
            let in_view = view.as_ref().map_or(Ok(()), |view| {
                view.check_row(format_args!("entries[{place}].row_key"), &entry.row_key)?;
                view.check_mutations(&field, &entry.mutations)
            });
            let checked =
                in_view.and_then(|()| RowMutations::check(&schema, &field, entry.row_key, entry.mutations));
            match checked {
                Ok(row) => entries.push(Entry { place, row }),
                Err(status) => statuses[place] = status_message(&status),
            }
        }
        let mut answer = |place: usize, outcome: &Result<(), Status>| {
            if let Err(status) = outcome {
                statuses[place] = status_message(status);
            }
        };
        row_batches::apply(&self.router, &table, entries, &mut answer).await;
        for status in statuses.iter().filter(|status| status.code != i32::from(Code::Ok)) {
            self.meters.mutate_rows.count_error(status.code.into());
        }
        let mut entries = (0_i64..)
            .zip(statuses)
            .map(|(index, status)| data::mutate_rows_response::Entry { index, status: Some(status) });
        let answers = std::iter::from_fn(move || {
            let entries: Vec<_> = entries.by_ref().take(ENTRIES_PER_ANSWER).collect();
            (!entries.is_empty()).then(|| Ok(data::MutateRowsResponse { entries, ..Default::default() }))
        });
        Ok(Box::pin(stream::iter(answers)))
    }

    /// What a CheckAndMutateRow asks and writes, and where.
    fn check_check_and_mutate(&self, request: data::CheckAndMutateRowRequest) -> Result<Checked, Status> {
        let data::CheckAndMutateRowRequest { table_name, authorized_view_name: view, app_profile_id, .. } =
            &request;
        let Target { table, schema, view } =
            self.target_to_change(table_name, view, app_profile_id, Access::Transaction)?;
        if let Some(view) = &view {
            view.check_row("row_key", &request.row_key)?;
            view.check_mutations("true_mutations", &request.true_mutations)?;
            view.check_mutations("false_mutations", &request.false_mutations)?;
        }
        let mut request = CheckAndMutate::check(&schema, request)?;
        if let Some(view) = view {
            request = request.in_view(&view, &schema);
        }
        Ok(Checked { table, schema, request })
    }

    async fn read_modify_write(
        &self,
        request: data::ReadModifyWriteRowRequest,
    ) -> Result<data::ReadModifyWriteRowResponse, Status> {
        let data::ReadModifyWriteRowRequest {
            table_name, authorized_view_name: view, app_profile_id, ..
        } = &request;
        let Target { table, schema, view } =
            self.target_to_change(table_name, view, app_profile_id, Access::Transaction)?;
        if let Some(view) = view {
            view.check_row("row_key", &request.row_key)?;
            view.check_rules("rules", &request.rules)?;
        }
        let request = ReadModifyWrite::check(&schema, request.row_key, request.rules)?;
        let row = self.router.read_modify_write(&table, &schema, &request).await?;
        Ok(data::ReadModifyWriteRowResponse { row: Some(row) })
    }

    async fn change_partitions(
        &self,
        request: data::GenerateInitialChangeStreamPartitionsRequest,
    ) -> Result<BoxStream<data::GenerateInitialChangeStreamPartitionsResponse>, Status> {
        let table = self.streamed_table(&request.table_name, &request.app_profile_id)?;
        let ranges = change_stream::partitions(&self.router, &table, &RowRange::default()).await?;
        let answers = ranges.into_iter().map(|rows| {
            let partition = Some(stream_partition(&rows));
            Ok(data::GenerateInitialChangeStreamPartitionsResponse { partition })
        });
        Ok(Box::pin(stream::iter(answers)))
    }

    async fn change_stream(
        &self,
        request: data::ReadChangeStreamRequest,
    ) -> Result<BoxStream<data::ReadChangeStreamResponse>, Status> {
        let table = self.streamed_table(&request.table_name, &request.app_profile_id)?;
        let request = StreamRequest::check(table.id, request, clock::unsigned((self.clock)()))?;
        let (router, clock) = (Arc::clone(&self.router), Arc::clone(&self.clock));
        let stream = ChangeStream::begin(router, table, clock, request).await?;
        Ok(Box::pin(stream.into_stream()))
    }

    /// The table, which has a change stream.
    fn streamed_table(&self, name: &str, profile: &str) -> Result<Arc<Table>, Status> {
        let Target { table, schema, .. } = self.target(name, "", profile, Access::Read)?;
        match schema.change_retention_us {
            Some(_) => Ok(table),
            None => Err(Error::NoChangeStream.into()),
        }
    }
}

#[tonic::async_trait]
impl Bigtable for RowService {
    async fn read_rows(
        &self,
        request: Request<data::ReadRowsRequest>,
    ) -> Result<Response<BoxStream<data::ReadRowsResponse>>, Status> {
        let begun = Instant::now();
        // Checked before anything waits: what waits holds no more than it needs.
        let answer = match self.check_read(&request.into_inner()) {
            Ok(read) => self.read(read).await,
            Err(status) => Err(status),
        };
        self.meters.read_rows.count(begun, &answer);
        answer.map(Response::new)
    }

    async fn sample_row_keys(
        &self,
        request: Request<data::SampleRowKeysRequest>,
    ) -> Result<Response<BoxStream<data::SampleRowKeysResponse>>, Status> {
        let begun = Instant::now();
        let answer = self.sample(request.into_inner()).await;
        self.meters.sample_row_keys.count(begun, &answer);
        answer.map(Response::new)
    }

    async fn mutate_row(
        &self,
        request: Request<data::MutateRowRequest>,
    ) -> Result<Response<data::MutateRowResponse>, Status> {
        let begun = Instant::now();
        let answer = match self.check_mutate(request.into_inner()) {
            Ok((table, row)) => self.router.mutate_row(&table, &row).await.map_err(Status::from),
            Err(status) => Err(status),
        };
        self.meters.mutate_row.count(begun, &answer);
        answer.map(|()| Response::new(data::MutateRowResponse {}))
    }

    async fn mutate_rows(
        &self,
        request: Request<data::MutateRowsRequest>,
    ) -> Result<Response<BoxStream<data::MutateRowsResponse>>, Status> {
        let begun = Instant::now();
        let answer = self.mutate_many(request.into_inner()).await;
        self.meters.mutate_rows.count(begun, &answer);
        answer.map(Response::new)
    }

    async fn check_and_mutate_row(
        &self,
        request: Request<data::CheckAndMutateRowRequest>,
    ) -> Result<Response<data::CheckAndMutateRowResponse>, Status> {
        let begun = Instant::now();
        let answer = match self.check_check_and_mutate(request.into_inner()) {
            Ok(Checked { table, schema, request }) => {
                self.router.check_and_mutate(&table, &schema, &request).await.map_err(Status::from)
            }
            Err(status) => Err(status),
        };
        self.meters.check_and_mutate_row.count(begun, &answer);
        answer.map(|predicate_matched| Response::new(data::CheckAndMutateRowResponse { predicate_matched }))
    }

    async fn read_modify_write_row(
        &self,
        request: Request<data::ReadModifyWriteRowRequest>,
    ) -> Result<Response<data::ReadModifyWriteRowResponse>, Status> {
        let begun = Instant::now();
        let answer = self.read_modify_write(request.into_inner()).await;
        self.meters.read_modify_write_row.count(begun, &answer);
        answer.map(Response::new)
    }

    async fn generate_initial_change_stream_partitions(
        &self,
        request: Request<data::GenerateInitialChangeStreamPartitionsRequest>,
    ) -> Result<Response<BoxStream<data::GenerateInitialChangeStreamPartitionsResponse>>, Status> {
        let begun = Instant::now();
        let answer = self.change_partitions(request.into_inner()).await;
        self.meters.generate_initial_change_stream_partitions.count(begun, &answer);
        answer.map(Response::new)
    }

    async fn read_change_stream(
        &self,
        request: Request<data::ReadChangeStreamRequest>,
    ) -> Result<Response<BoxStream<data::ReadChangeStreamResponse>>, Status> {
        let begun = Instant::now();
        let answer = self.change_stream(request.into_inner()).await;
        self.meters.read_change_stream.count(begun, &answer);
        answer.map(Response::new)
    }

    async fn ping_and_warm(
        &self,
        request: Request<data::PingAndWarmRequest>,
    ) -> Result<Response<data::PingAndWarmResponse>, Status> {
        let data::PingAndWarmRequest { name, app_profile_id } = request.get_ref();
        let instance = InstanceName::parse("name", name)?;
        self.router.catalog().app_profiles(&instance).check(&instance, app_profile_id, Access::Read)?;
        Ok(Response::new(data::PingAndWarmResponse {}))
    }
}

impl fmt::Debug for RowService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowService").field("caller", &self.caller).finish_non_exhaustive()
    }
}

/// A scan, as the messages of its answer.
struct Answer {
    scan: TableScan,
    ready: VecDeque<data::ReadRowsResponse>,
    /// What the last message tells, where it was asked for.
    stats: Option<RequestStats>,
}

impl Answer {
    /// Reads on if no message waits; none waits after that only where the scan is complete.
    async fn fill(&mut self) -> Result<(), Status> {
        while self.ready.is_empty() {
            let Some(batch) = self.scan.next().await? else {
                let stats = self.stats.take().map(|stats| stats.end(self.scan.seen()));
                self.ready.extend(stats);
                return Ok(());
            };
            if let Some(stats) = &mut self.stats {
                stats.count(&batch.rows);
            }
            self.ready.extend(chunk::responses(batch.rows));
            if let Some(last_scanned_row_key) = batch.last_scanned_row_key {
                self.ready.push_back(data::ReadRowsResponse {
                    last_scanned_row_key,
                    ..data::ReadRowsResponse::default()
                });
            }
        }
        Ok(())
    }

    fn into_stream(self, meters: Arc<Meters>) -> impl Stream<Item = Result<data::ReadRowsResponse, Status>> {
        stream::try_unfold((self, meters), |(mut answer, meters)| async move {
            if let Err(status) = answer.fill().await {
                meters.read_rows.count_error(status.code());
                return Err(status);
            }
            Ok(answer.ready.pop_front().map(|message| (message, (answer, meters))))
        })
    }
}

fn check_no_materialized_view(name: &str) -> Result<(), Status> {
    if name.is_empty() {
        return Ok(());
    }
    let why = "materialized_view_name: materialized views are not part of Hayloft. Read a table or an authorized view.";
    Err(Status::unimplemented(why))
}

/// The row that is all of `range`, if it is one.
fn single_row(range: &RowRange) -> Option<Bytes> {
    let is_one = !range.start.is_empty() && range.end.strip_suffix(&[0]) == Some(&*range.start);
    is_one.then(|| range.start.clone())
}

fn status_message(status: &Status) -> rpc::Status {
    let details = rpc::Status::decode(status.details()).unwrap_or_default().details;
    rpc::Status { code: status.code().into(), message: status.message().to_owned(), details }
}
