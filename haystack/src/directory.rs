//! The photo directory: which photos there are and in which albums, in tables
//! of the system instance (Haystack 3.2; DESIGN 6).
//!
//! It is reached over the public row API only, and no read of a photo needs it.
//! Its tables are created at the first start; until the row service answers,
//! uploads are told to come back.
//!
//! Table `photos`, one row a photo:
//!
//! | row key  | family | qualifier                          | value                              |
//! |----------|--------|------------------------------------|------------------------------------|
//! | photo id | `info` | `volume`, `uploaded_ms`            | decimal                            |
//! | photo id | `info` | `album`, `filename`                | UTF-8; absent where there is none   |
//! | photo id | `size` | `original`, `large`, … `thumb`     | JSON of a [`SizeDescription`]      |
//!
//! Table `albums`, one row a photo in an album, with the same columns, so that a
//! page of an album is one scan. Its key is the album's name, a zero byte, the
//! complement of the photo's key in 16 hex digits (newest first), and the id.
//!
//! An upload's row is written after its needles and a delete's row is removed
//! after its tombstone, so a row without a photo can be left by a crash in a
//! delete; deleting again repairs that. Rows of uploads that wait at the same
//! time share one MutateRows.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster::Shutdown;
use parking_lot::Mutex;
use row_api::admin::{ColumnFamily, CreateTableRequest, GcRule, Table, gc_rule};
use row_api::client::RowClient;
use row_api::data::mutation::{DeleteFromRow, Mutation as Change, SetCell};
use row_api::data::row_range::{EndKey, StartKey};
use row_api::data::{Mutation, ReadRowsRequest, RowRange, RowSet};
use row_api::names::{InstanceName, TableName};
use row_api::row::Row;
use tokio::sync::{mpsc, oneshot, watch};
use tonic::{Code, Status};

use crate::error::{Error, Result};
use crate::photo::{Photo, SizeDescription};
use crate::photo_id::{PhotoId, PhotoSize};

const INFO: &str = "info";
const SIZE: &str = "size";

/// Rows in one MutateRows, at most, and rows that wait for the next one.
const BATCH_ROW_COUNT_MAX: usize = 128;
/// Time between two attempts to create the tables.
const RETRY_PERIOD: Duration = Duration::from_millis(100);

type RowEntry = (Vec<u8>, Vec<Mutation>);

#[derive(Debug)]
struct RowWrite {
    photo: RowEntry,
    album: Option<RowEntry>,
    answer: oneshot::Sender<Result<()>>,
}

/// A page of an album.
#[derive(Debug)]
pub struct AlbumPage {
    /// Its photos, newest first.
    pub photos: Vec<Photo>,
    /// Where the next page starts, if there may be one.
    pub next: Option<String>,
}

/// The photo directory's client.
#[derive(Debug)]
pub struct Directory {
    rows: RowClient,
    photos: TableName,
    albums: TableName,
    ready: watch::Sender<bool>,
    writes: mpsc::Sender<RowWrite>,
    /// The other end of `writes`, until [`Directory::start`].
    waiting: Mutex<Option<mpsc::Receiver<RowWrite>>>,
}

impl Directory {
    /// A directory behind `rows`. It does nothing before [`Directory::start`].
    pub fn new(rows: RowClient) -> Self {
        let instance = InstanceName { project: "hayloft".to_owned(), instance: "system".to_owned() };
        let table = |name: &str| TableName { instance: instance.clone(), table: name.to_owned() };
        let (photos, albums) = (table("photos"), table("albums"));
        let (writes, waiting) = mpsc::channel(BATCH_ROW_COUNT_MAX);
        Self {
            rows,
            photos,
            albums,
            ready: watch::Sender::new(false),
            writes,
            waiting: Mutex::new(Some(waiting)),
        }
    }

    /// Creates the tables, as often as it takes, and then writes rows, until
    /// `shutdown` begins and nobody writes any more. Starting twice is starting once.
    pub fn start(self: &Arc<Self>, shutdown: &Shutdown) {
        let Some(mut waiting) = self.waiting.lock().take() else { return };
        let directory = Arc::clone(self);
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.begun() => return,
                () = directory.create_tables() => {}
            }
            directory.ready.send_replace(true);
            tracing::info!("the photo directory answers");
            let mut batch = Vec::new();
            while waiting.recv_many(&mut batch, BATCH_ROW_COUNT_MAX).await > 0 {
                directory.write_batch(std::mem::take(&mut batch)).await;
            }
        });
    }

    /// Whether the tables are there.
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Returns once the tables are there.
    ///
    /// # Cancel safety
    ///
    /// Safe to drop and to call again.
    pub async fn wait_until_ready(&self) {
        let known = self.ready.subscribe().wait_for(|ready| *ready).await.is_ok();
        debug_assert!(known, "the sender lives in self");
    }

    async fn create_tables(&self) {
        let mut warned = false;
        for table in [&self.photos, &self.albums] {
            while let Err(status) = self.create_table(table).await {
                if status.code() != Code::Unavailable && !warned {
                    warned = true;
                    tracing::warn!(%table, %status, "cannot create a table of the photo directory; trying on");
                }
                tokio::time::sleep(RETRY_PERIOD).await;
            }
        }
    }

    async fn create_table(&self, table: &TableName) -> std::result::Result<(), Status> {
        let family = || ColumnFamily {
            gc_rule: Some(GcRule { rule: Some(gc_rule::Rule::MaxNumVersions(1)) }),
            ..ColumnFamily::default()
        };
        let request = CreateTableRequest {
            parent: table.instance.to_string(),
            table_id: table.table.clone(),
            table: Some(Table {
                column_families: [(INFO.to_owned(), family()), (SIZE.to_owned(), family())].into(),
                ..Table::default()
            }),
            ..CreateTableRequest::default()
        };
        match self.rows.table_admin().create_table(request).await {
            Err(status) if status.code() != Code::AlreadyExists => Err(status),
            _ => Ok(()),
        }
    }

    /// Writes the rows of `photo`.
    ///
    /// # Durability
    ///
    /// They are durable when this returns.
    ///
    /// # Errors
    ///
    /// - [`Error::DirectoryAway`]: nothing was written.
    /// - [`Error::Directory`]: the rows may or may not be there.
    pub async fn insert(&self, photo: &Photo) -> Result<()> {
        if !self.is_ready() {
            return Err(Error::DirectoryAway);
        }
        let mutations = to_mutations(photo);
        let album = photo.album.as_deref().map(|album| (album_key(album, &photo.id), mutations.clone()));
        let (answer, outcome) = oneshot::channel();
        let write = RowWrite { photo: (photo.id.encode().to_vec(), mutations), album, answer };
        self.writes.send(write).await.map_err(|_| Error::Closing)?;
        outcome.await.map_err(|_| Error::Closing)?
    }

    async fn write_batch(&self, batch: Vec<RowWrite>) {
        let (mut photos, mut albums, mut answers) = (Vec::new(), Vec::new(), Vec::new());
        for RowWrite { photo, album, answer } in batch {
            photos.push(photo);
            answers.push((answer, album.is_some()));
            albums.extend(album);
        }
        let albums_written = async {
            if albums.is_empty() { Ok(Vec::new()) } else { self.rows.mutate_rows(&self.albums, albums).await }
        };
        let (photos, albums) = tokio::join!(self.rows.mutate_rows(&self.photos, photos), albums_written);
        let (mut photos, mut albums) = (each(photos), each(albums));
        for (answer, in_album) in answers {
            let mut outcome = photos();
            if in_album {
                outcome = outcome.and(albums());
            }
            // Whoever waited may have gone.
            let _ = answer.send(outcome.map_err(from_status));
        }
    }

    /// The row of the photo `id`, if there is one.
    ///
    /// # Errors
    ///
    /// [`Error::DirectoryAway`], [`Error::Directory`]
    pub async fn get(&self, id: &PhotoId) -> Result<Option<Photo>> {
        let row = self.rows.read_row(&self.photos, &id.encode()).await.map_err(from_status)?;
        Ok(row.map(|row| to_photo(*id, &row)))
    }

    /// Removes the rows of the photo `id`: the photo's last, so that after a
    /// crash in between, removing again still finds the album.
    ///
    /// # Errors
    ///
    /// [`Error::DirectoryAway`], [`Error::Directory`]: rows may be left.
    pub async fn remove(&self, id: &PhotoId) -> Result<()> {
        let Some(photo) = self.get(id).await? else { return Ok(()) };
        let delete = || vec![Mutation::from(Change::DeleteFromRow(DeleteFromRow {}))];
        if let Some(album) = &photo.album {
            let key = album_key(album, id);
            self.rows.mutate_row(&self.albums, &key, delete()).await.map_err(from_status)?;
        }
        self.rows.mutate_row(&self.photos, &id.encode(), delete()).await.map_err(from_status)
    }

    /// At most `count_max` photos of `album`, newest first, after the place
    /// `after` that an earlier page gave.
    ///
    /// # Errors
    ///
    /// [`Error::DirectoryAway`], [`Error::Directory`]
    pub async fn album(&self, album: &str, after: Option<&str>, count_max: usize) -> Result<AlbumPage> {
        let prefix = album_prefix(album);
        let mut end = prefix.clone();
        *end.last_mut().expect("it ends with a zero byte") = 1;
        let start_key = match after {
            Some(after) => StartKey::StartKeyOpen([&prefix, after.as_bytes()].concat().into()),
            None => StartKey::StartKeyClosed(prefix.clone().into()),
        };
        let range = RowRange { start_key: Some(start_key), end_key: Some(EndKey::EndKeyOpen(end.into())) };
        let request = ReadRowsRequest {
            table_name: self.albums.to_string(),
            rows: Some(RowSet { row_keys: Vec::new(), row_ranges: vec![range] }),
            rows_limit: i64::try_from(count_max).unwrap_or(i64::MAX),
            ..ReadRowsRequest::default()
        };
        let mut stream = self.rows.read_rows(request).await.map_err(from_status)?;
        let mut page = AlbumPage { photos: Vec::new(), next: None };
        let mut last = Bytes::new();
        let mut row_count = 0;
        while let Some(row) = stream.next().await.map_err(from_status)? {
            let place = row.key.slice(prefix.len().min(row.key.len())..);
            let id = place.get(ALBUM_ORDER_BYTES..).and_then(|id| PhotoId::decode(id).ok());
            page.photos.extend(id.map(|id| to_photo(id, &row)));
            last = place;
            row_count += 1;
        }
        if row_count == count_max {
            page.next = std::str::from_utf8(&last).ok().map(str::to_owned);
        }
        Ok(page)
    }
}

/// Bytes of the hexadecimal digits that order an album.
const ALBUM_ORDER_BYTES: usize = 16;

fn album_prefix(album: &str) -> Vec<u8> {
    [album.as_bytes(), &[0]].concat()
}

fn album_key(album: &str, id: &PhotoId) -> Vec<u8> {
    let order = format!("{:016x}", !id.key.0);
    [&album_prefix(album), order.as_bytes(), &id.encode()].concat()
}

fn to_mutations(photo: &Photo) -> Vec<Mutation> {
    // The same cells however often they are written.
    let timestamp_micros = i64::try_from(photo.id.key.uploaded_ms()).unwrap_or(0).saturating_mul(1000);
    let set = |family: &str, qualifier: &'static str, value: String| {
        Mutation::from(Change::SetCell(SetCell {
            family_name: family.to_owned(),
            column_qualifier: Bytes::from_static(qualifier.as_bytes()),
            timestamp_micros,
            value: value.into(),
        }))
    };
    let mut mutations = vec![
        set(INFO, "volume", photo.id.volume.to_string()),
        set(INFO, "uploaded_ms", photo.id.key.uploaded_ms().to_string()),
    ];
    mutations.extend(photo.album.clone().map(|album| set(INFO, "album", album)));
    mutations.extend(photo.filename.clone().map(|filename| set(INFO, "filename", filename)));
    mutations.extend(photo.sizes.iter().map(|(size, description)| {
        let json = serde_json::to_string(description).expect("numbers and text become JSON");
        set(SIZE, size.name(), json)
    }));
    mutations
}

/// The photo in `row`. A column that cannot be read is as good as absent.
fn to_photo(id: PhotoId, row: &Row) -> Photo {
    let text = |qualifier: &str| {
        let cell = row.cell(INFO, qualifier.as_bytes())?;
        std::str::from_utf8(&cell.value).ok().map(str::to_owned)
    };
    let size = |size: PhotoSize| {
        let cell = row.cell(SIZE, size.name().as_bytes())?;
        Some((size, serde_json::from_slice::<SizeDescription>(&cell.value).ok()?))
    };
    let sizes = PhotoSize::ALL.into_iter().filter_map(size).collect();
    Photo { id, album: text("album"), filename: text("filename"), sizes }
}

/// The outcomes of a MutateRows one by one; a failed call failed for each.
fn each(
    outcome: std::result::Result<Vec<std::result::Result<(), Status>>, Status>,
) -> impl FnMut() -> std::result::Result<(), Status> {
    let (mut answers, failure) = match outcome {
        Ok(answers) => (answers.into_iter(), Status::internal("the row service left a row out")),
        Err(status) => (Vec::new().into_iter(), status),
    };
    move || answers.next().unwrap_or_else(|| Err(failure.clone()))
}

fn from_status(status: Status) -> Error {
    match status.code() {
        Code::Unavailable => Error::DirectoryAway,
        _ => Error::Directory(Arc::new(status)),
    }
}
