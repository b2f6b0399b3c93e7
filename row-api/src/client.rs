//! A row client for Hayloft's own roles.
//!
//! The photo store, the cache and the master reach rows only through this: the
//! public API, over a socket or inside the process. So any of them works
//! against another machine, or against Google's Bigtable, unchanged.

use std::time::Duration;

use prost::Message;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use crate::admin::bigtable_table_admin_client::BigtableTableAdminClient;
use crate::data::bigtable_client::BigtableClient;
use crate::data::read_rows_response::cell_chunk::RowStatus;
use crate::data::{
    MutateRowRequest, MutateRowsRequest, Mutation, ReadRowsRequest, RowSet, mutate_rows_request,
};
use crate::names::TableName;
use crate::row::{Row, RowAssembler};

/// Where calls go. Cheap to clone.
///
/// Its error is a concrete type because the compiler cannot show that a future
/// is `Send` over a boxed one, which would forbid every call in a spawned task.
pub type RowChannel = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, tonic::transport::Error>;

/// The largest answer taken, bytes: a 256 MiB row and its frame.
const ANSWER_BYTES_MAX: usize = 257 << 20;

/// A channel to the services in `routes`, in this process: no socket, no TLS.
pub fn in_process(routes: Routes) -> RowChannel {
    BoxCloneSyncService::new(ServiceExt::<http::Request<Body>>::map_err(routes, |never| match never {}))
}

/// A channel over the network that connects at the first call.
pub fn connect_lazy(endpoint: &Endpoint) -> RowChannel {
    BoxCloneSyncService::new(endpoint.connect_lazy())
}

/// Rows and tables behind one channel. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RowClient {
    rows: BigtableClient<RowChannel>,
    tables: BigtableTableAdminClient<RowChannel>,
}

impl RowClient {
    /// A client that calls over `channel`.
    pub fn new(channel: RowChannel) -> Self {
        Self {
            rows: BigtableClient::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX),
            tables: BigtableTableAdminClient::new(channel),
        }
    }

    /// The generated data client, for what has no method here.
    pub fn data(&self) -> BigtableClient<RowChannel> {
        self.rows.clone()
    }

    /// The generated table admin client.
    pub fn table_admin(&self) -> BigtableTableAdminClient<RowChannel> {
        self.tables.clone()
    }

    /// Applies `mutations` to the row `key`, atomically and durably.
    ///
    /// # Errors
    ///
    /// The server's status. After UNAVAILABLE or DEADLINE_EXCEEDED the row may
    /// or may not have changed.
    pub async fn mutate_row(
        &self,
        table: &TableName,
        key: &[u8],
        mutations: Vec<Mutation>,
    ) -> Result<(), Status> {
        let request = MutateRowRequest {
            table_name: table.to_string(),
            row_key: key.to_vec().into(),
            mutations,
            ..MutateRowRequest::default()
        };
        self.rows.clone().mutate_row(request).await.map(drop)
    }

    /// Applies `entries` of (row key, mutations), each row atomically and
    /// durably; the answers stand in the order of the entries.
    ///
    /// # Errors
    ///
    /// The server's status for the call as a whole; which rows changed is then unknown.
    pub async fn mutate_rows(
        &self,
        table: &TableName,
        entries: Vec<(Vec<u8>, Vec<Mutation>)>,
    ) -> Result<Vec<Result<(), Status>>, Status> {
        let mut answers: Vec<Result<(), Status>> =
            entries.iter().map(|_| Err(Status::unknown("the server did not answer for this row"))).collect();
        let request = MutateRowsRequest {
            table_name: table.to_string(),
            entries: entries
                .into_iter()
                .map(|(key, mutations)| mutate_rows_request::Entry {
                    row_key: key.into(),
                    mutations,
                    ..mutate_rows_request::Entry::default()
                })
                .collect(),
            ..MutateRowsRequest::default()
        };
        let mut stream = self.rows.clone().mutate_rows(request).await?.into_inner();
        while let Some(response) = stream.message().await? {
            for entry in response.entries {
                let status = entry.status.unwrap_or_default();
                let place = usize::try_from(entry.index).ok().and_then(|index| answers.get_mut(index));
                let place = place
                    .ok_or_else(|| Status::internal("the server answered for an entry it was not given"))?;
                *place = match Code::from(status.code) {
                    Code::Ok => Ok(()),
                    code => {
                        let details = status.encode_to_vec().into();
                        Err(Status::with_details(code, status.message, details))
                    }
                };
            }
        }
        Ok(answers)
    }

    /// The row `key`, newest cell of each column first, if it has any cell.
    ///
    /// # Errors
    ///
    /// The server's status.
    pub async fn read_row(&self, table: &TableName, key: &[u8]) -> Result<Option<Row>, Status> {
        let mut rows = self
            .read_rows(ReadRowsRequest {
                table_name: table.to_string(),
                rows: Some(RowSet { row_keys: vec![key.to_vec().into()], row_ranges: Vec::new() }),
                rows_limit: 1,
                ..ReadRowsRequest::default()
            })
            .await?;
        let row = rows.next().await?;
        // To the stream's end: one dropped before its trailers is reset, and the
        // thousands of a busy connection make HTTP/2 give it up.
        while rows.next().await?.is_some() {}
        Ok(row)
    }

    /// The rows that `request` asks for, one at a time.
    ///
    /// # Errors
    ///
    /// The server's status.
    pub async fn read_rows(&self, request: ReadRowsRequest) -> Result<RowStream, Status> {
        self.read_rows_request(Request::new(request)).await
    }

    /// The rows that `request` asks for, which may carry a deadline and metadata.
    ///
    /// # Errors
    ///
    /// The server's status.
    pub async fn read_rows_request(&self, request: Request<ReadRowsRequest>) -> Result<RowStream, Status> {
        let stream = self.rows.clone().read_rows(request).await?.into_inner();
        Ok(RowStream { stream, assembler: RowAssembler::default(), ready: Vec::new().into_iter() })
    }

    /// Waits until the service answers, asking every 50 ms for at most `patience`.
    /// Any answer but UNAVAILABLE counts.
    ///
    /// # Errors
    ///
    /// The last status, once patience has run out.
    pub async fn ready(&self, table: &TableName, patience: Duration) -> Result<(), Status> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            match self.read_row(table, b"\0").await {
                Err(status) if status.code() == Code::Unavailable => {
                    if tokio::time::Instant::now() >= deadline {
                        return Err(status);
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                _ => return Ok(()),
            }
        }
    }
}

/// Rows as they arrive.
#[derive(Debug)]
pub struct RowStream {
    stream: tonic::Streaming<crate::data::ReadRowsResponse>,
    assembler: RowAssembler,
    ready: std::vec::IntoIter<Row>,
}

impl RowStream {
    /// The next row; none once the answer is complete.
    ///
    /// # Errors
    ///
    /// The server's status, or DATA_LOSS where its chunks make no row.
    pub async fn next(&mut self) -> Result<Option<Row>, Status> {
        loop {
            if let Some(row) = self.ready.next() {
                return Ok(Some(row));
            }
            let Some(response) = self.stream.message().await? else {
                self.assembler.finish()?;
                return Ok(None);
            };
            let mut rows = Vec::new();
            for chunk in response.chunks {
                let committed = matches!(chunk.row_status, Some(RowStatus::CommitRow(true)));
                if let Some(row) = self.assembler.push(chunk)? {
                    debug_assert!(committed);
                    rows.push(row);
                }
            }
            self.ready = rows.into_iter();
        }
    }
}
