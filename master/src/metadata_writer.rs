//! The master's writes to METADATA: through the same router as anybody's rows,
//! so that METADATA's own tablets may be anywhere.

use std::sync::Arc;

use row_api::data::Mutation;
use tablet_server::catalog::Table;
use tablet_server::gateway::Router;
use tablet_server::gateway::row_batches::{self, Entry};
use tablet_server::metadata::{METADATA_TABLE, TabletRecord};
use tablet_server::mutation::RowMutations;
use tonic::Status;

use crate::error::Result;

/// Writes METADATA's rows, those of the root tablet included.
#[derive(Clone, Debug)]
pub struct MetadataWriter {
    router: Arc<Router>,
    metadata: Arc<Table>,
}

impl MetadataWriter {
    /// A writer that finds METADATA's tablets with `router`.
    pub fn new(router: Arc<Router>) -> Self {
        let metadata = router.catalog().by_id(METADATA_TABLE).expect("every catalog holds METADATA");
        Self { router, metadata }
    }

    /// Makes METADATA say what `records` say, each row atomically, all durably.
    ///
    /// # Errors
    ///
    /// [`Error`](crate::Error); any of the rows may be written.
    pub async fn record(&self, records: &[TabletRecord]) -> Result<()> {
        self.apply(records.iter().map(|record| (record.key(), record.to_mutations())).collect()).await
    }

    /// Removes the rows of these keys.
    ///
    /// # Errors
    ///
    /// [`Error`](crate::Error); any of the rows may be gone.
    pub async fn remove(&self, keys: impl IntoIterator<Item = Vec<u8>>) -> Result<()> {
        self.apply(keys.into_iter().map(|key| (key, TabletRecord::removal())).collect()).await
    }

    async fn apply(&self, rows: Vec<(Vec<u8>, Vec<Mutation>)>) -> Result<()> {
        let schema = self.metadata.schema();
        let mut entries = Vec::with_capacity(rows.len());
        for (place, (key, mutations)) in rows.into_iter().enumerate() {
            let row = RowMutations::check(&schema, "mutations", key.into(), mutations)?;
            entries.push(Entry { place, row });
        }
        let mut failed = None;
        let mut answer = |_, outcome: &std::result::Result<(), Status>| {
            if let Err(status) = outcome {
                failed = Some(status.clone());
            }
        };
        row_batches::apply(&self.router, &self.metadata, entries, &mut answer).await;
        match failed {
            Some(status) => Err(status.into()),
            None => Ok(()),
        }
    }
}
