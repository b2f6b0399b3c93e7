//! Uploads that come in parts and survive both ends (tus 1.0).
//!
//! Table `partial_uploads`, one row an upload; the key is its id.
//!
//! | family   | qualifier              | value                                  |
//! |----------|------------------------|----------------------------------------|
//! | `upload` | `about`                | JSON of an [`UploadAbout`]             |
//! | `upload` | `c`, offset in 16 hex digits | the chunk there, see [`crate::chunk`] |
//! | `upload` | `url`                  | what it became, once it is complete    |
//!
//! A chunk's cell is written after the chunk is durable; the offset is where
//! the chunks that follow each other from zero end. A crash costs a client at
//! most the chunk under way.

use std::collections::HashSet;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use row_api::row::Row;
use serde::{Deserialize, Serialize};

use crate::chunk::{self, Chunk};
use crate::error::Result;
use crate::tables::{RowWrite, Scan, SystemTable, Tables, column_filter, delete_row, set_cell};

/// How long an upload that is not complete is kept after its creation.
pub const UPLOAD_LIFETIME: Duration = Duration::from_secs(24 * 3600);

const FAMILY: &str = "upload";
const ABOUT: &str = "about";
const URL: &str = "url";
const CHUNK_PREFIX: &str = "c";

/// What an upload is to become.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A photo.
    Photo {
        /// Its album.
        album: Option<String>,
        /// Its file's name.
        filename: Option<String>,
    },
    /// A blob.
    Blob {
        /// Its name.
        name: String,
        /// Its media type.
        content_type: String,
    },
}

/// What an upload was announced as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadAbout {
    /// Bytes that it will have.
    pub length: u64,
    /// What it is to become.
    pub target: Target,
    /// The client's metadata, as it came.
    pub metadata: String,
    /// When it is forgotten, ms since 1970.
    pub expires_ms: u64,
}

/// An upload as its row tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartialUpload {
    /// Its id.
    pub id: String,
    /// What it was announced as.
    pub about: UploadAbout,
    /// What has arrived.
    pub chunks: Vec<Chunk>,
    /// The path of what it became, once it is complete.
    pub url: Option<String>,
}

impl PartialUpload {
    /// Bytes that have arrived.
    pub fn offset(&self) -> u64 {
        match self.url {
            Some(_) => self.about.length,
            None => self.chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum(),
        }
    }
}

/// The uploads under way.
#[derive(Debug)]
pub struct PartialUploads {
    tables: Arc<Tables>,
    in_use: Arc<Mutex<HashSet<String>>>,
}

/// An upload that one request writes to now.
#[derive(Debug)]
pub struct UploadInUse {
    id: String,
    in_use: Arc<Mutex<HashSet<String>>>,
}

impl Drop for UploadInUse {
    fn drop(&mut self) {
        self.in_use.lock().remove(&self.id);
    }
}

impl PartialUploads {
    /// The uploads in `tables`.
    pub fn new(tables: Arc<Tables>) -> Self {
        Self { tables, in_use: Arc::default() }
    }

    /// Takes the upload `id` for one request; none if another has it now.
    pub fn begin(&self, id: &str) -> Option<UploadInUse> {
        let taken = self.in_use.lock().insert(id.to_owned());
        taken.then(|| UploadInUse { id: id.to_owned(), in_use: Arc::clone(&self.in_use) })
    }

    /// Writes down the upload `id`.
    ///
    /// # Durability
    ///
    /// It is durable when this returns, as are the changes of the other methods.
    ///
    /// # Errors
    ///
    /// [`Error::DirectoryAway`](crate::Error::DirectoryAway), [`Error::Directory`](crate::Error::Directory)
    pub async fn create(&self, id: &str, about: &UploadAbout, now_ms: u64) -> Result<()> {
        let value = serde_json::to_vec(about).expect("numbers and text become JSON");
        self.write(id, vec![set_cell(FAMILY, ABOUT, now_ms, value)]).await
    }

    /// The upload `id`, if there is one that has not expired at `now_ms`.
    ///
    /// # Errors
    ///
    /// As [`PartialUploads::create`].
    pub async fn get(&self, id: &str, now_ms: u64) -> Result<Option<PartialUpload>> {
        let row = self.tables.read(SystemTable::PartialUploads, id.as_bytes()).await?;
        let upload = row.and_then(|row| to_upload(&row));
        Ok(upload.filter(|upload| now_ms < upload.about.expires_ms))
    }

    /// Adds `chunks`, which begin at `offset`.
    ///
    /// # Errors
    ///
    /// As [`PartialUploads::create`].
    pub async fn add(&self, id: &str, mut offset: u64, chunks: &[Chunk], now_ms: u64) -> Result<()> {
        let mut mutations = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let qualifier = format!("{CHUNK_PREFIX}{offset:016x}");
            mutations.push(set_cell(FAMILY, qualifier, now_ms, chunk::encode(std::slice::from_ref(chunk))));
            offset += u64::from(chunk.bytes);
        }
        if mutations.is_empty() { Ok(()) } else { self.write(id, mutations).await }
    }

    /// Writes down that the upload became what is at `url`.
    ///
    /// # Errors
    ///
    /// As [`PartialUploads::create`].
    pub async fn complete(&self, upload: &PartialUpload, url: &str, now_ms: u64) -> Result<()> {
        self.write(&upload.id, vec![set_cell(FAMILY, URL, now_ms, url.to_owned())]).await
    }

    /// Forgets the upload `id`.
    ///
    /// # Errors
    ///
    /// As [`PartialUploads::create`].
    pub async fn remove(&self, id: &str) -> Result<()> {
        self.write(id, vec![delete_row()]).await
    }

    /// Some uploads that have expired at `now_ms`, among at most `row_count_max`
    /// from the id `after` on; and the id to go on after.
    ///
    /// # Errors
    ///
    /// As [`PartialUploads::create`].
    pub async fn expired(
        &self,
        after: Option<&str>,
        row_count_max: usize,
        now_ms: u64,
    ) -> Result<(Vec<String>, Option<String>)> {
        let start = match after {
            Some(after) => Bound::Excluded(after.as_bytes().to_vec()),
            None => Bound::Unbounded,
        };
        let filter = Some(column_filter(FAMILY, ABOUT, None));
        let table = SystemTable::PartialUploads;
        let rows = self.tables.scan(Scan { table, start, end: vec![0xff], row_count_max, filter }).await?;
        let uploads: Vec<PartialUpload> = rows.iter().filter_map(to_upload).collect();
        let next = uploads.last().filter(|_| rows.len() == row_count_max).map(|upload| upload.id.clone());
        let expired = uploads.into_iter().filter(|upload| upload.about.expires_ms <= now_ms);
        Ok((expired.map(|upload| upload.id).collect(), next))
    }

    /// The upload `id`, expired or not.
    ///
    /// # Errors
    ///
    /// As [`PartialUploads::create`].
    pub async fn get_expired(&self, id: &str) -> Result<Option<PartialUpload>> {
        self.get(id, 0).await
    }

    async fn write(&self, id: &str, mutations: Vec<row_api::data::Mutation>) -> Result<()> {
        let table = SystemTable::PartialUploads;
        self.tables.write(vec![RowWrite { table, key: id.as_bytes().to_vec(), mutations }]).await
    }
}

/// The upload in `row`. Chunks count as far as they follow each other.
fn to_upload(row: &Row) -> Option<PartialUpload> {
    let about: UploadAbout = serde_json::from_slice(&row.cell(FAMILY, ABOUT.as_bytes())?.value).ok()?;
    let url = row.cell(FAMILY, URL.as_bytes());
    let url = url.and_then(|cell| std::str::from_utf8(&cell.value).ok()).map(str::to_owned);
    let (mut chunks, mut offset) = (Vec::new(), 0);
    for cell in &row.cells {
        let Some(at) = cell.qualifier.strip_prefix(CHUNK_PREFIX.as_bytes()) else { continue };
        let at = std::str::from_utf8(at).ok().and_then(|at| u64::from_str_radix(at, 16).ok());
        if at == Some(offset)
            && let Some([chunk]) = chunk::decode(&cell.value).as_deref()
        {
            chunks.push(*chunk);
            offset += u64::from(chunk.bytes);
        }
    }
    Some(PartialUpload { id: String::from_utf8(row.key.to_vec()).ok()?, about, chunks, url })
}
