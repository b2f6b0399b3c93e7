//! Blobs: bytes of any type under a name, which points to immutable chunks.
//!
//! Table `blobs`, one row a blob; the key is its name.
//!
//! | family | qualifier | value                                          |
//! |--------|-----------|------------------------------------------------|
//! | `blob` | `etag`    | 16 hex digits, another for each time it is put |
//! | `blob` | `about`   | JSON of a [`BlobAbout`]                        |
//! | `blob` | `chunks`  | its chunks, see [`crate::chunk`]               |
//!
//! The chunks are durable before the row names them, and deleted after it does
//! not any more; a crash in between leaves chunks that nobody finds, never a
//! name without its bytes. A condition is checked by the row service together
//! with the write (CheckAndMutateRow), so it holds among several doors. Within
//! one, whoever replaces a blob takes turns by name, and so knows which chunks
//! to delete.

use std::hash::BuildHasher;
use std::ops::Bound;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, MutexGuard};

use crate::chunk::{self, Chunk};
use crate::error::Result;
use crate::tables::{RowWrite, Scan, SystemTable, Tables, column_filter, delete_row, set_cell};
use row_api::row::Row;

const FAMILY: &str = "blob";
const ETAG: &str = "etag";
const ABOUT: &str = "about";
const CHUNKS: &str = "chunks";

/// Names that are replaced at once share this many locks.
const TURN_COUNT: usize = 256;

/// What is known of a blob beside its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobAbout {
    /// Its length.
    pub bytes: u64,
    /// Its media type, as the client gave it.
    pub content_type: String,
    /// When it was put, ms since 1970; later than whatever it replaced.
    pub modified_ms: u64,
}

/// A blob as its row tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Its entity tag, without quotes.
    pub etag: String,
    /// What is known of it.
    pub about: BlobAbout,
    /// Its bytes.
    pub chunks: Vec<Chunk>,
}

/// What must hold for a write to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    None,
    /// There is no blob of this name.
    Absent,
    /// There is one.
    Present,
    /// There is one with one of these entity tags, without quotes.
    Tags(Vec<String>),
}

impl Condition {
    /// Whether it holds for `found`.
    pub fn holds(&self, found: Option<&Blob>) -> bool {
        match (self, found) {
            (Self::None, _) | (Self::Absent, None) | (Self::Present, Some(_)) => true,
            (Self::Tags(tags), Some(blob)) => tags.contains(&blob.etag),
            (Self::Absent, Some(_)) | (Self::Present | Self::Tags(_), None) => false,
        }
    }
}

/// A place in a list of blobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listed {
    /// A blob.
    Blob {
        /// Its name.
        name: String,
        /// Its entity tag, without quotes.
        etag: String,
        /// What is known of it.
        about: BlobAbout,
    },
    /// All names that begin like this, up to the delimiter.
    Prefix(String),
}

impl Listed {
    /// Its name, after which a list goes on.
    pub fn name(&self) -> &str {
        match self {
            Self::Blob { name, .. } | Self::Prefix(name) => name,
        }
    }
}

/// What a list of blobs holds.
#[derive(Clone, Debug)]
pub struct BlobQuery {
    /// How the names begin.
    pub prefix: String,
    /// Names with this text behind the prefix are listed once, up to it.
    pub delimiter: Option<String>,
    /// The place after which it begins.
    pub after: Option<String>,
    /// Places, at most.
    pub count_max: usize,
}

/// The names of blobs.
#[derive(Debug)]
pub struct Blobs {
    tables: Arc<Tables>,
    hasher: std::hash::RandomState,
    turns: Box<[Mutex<()>]>,
}

impl Blobs {
    /// The names in `tables`.
    pub fn new(tables: Arc<Tables>) -> Self {
        let turns = (0..TURN_COUNT).map(|_| Mutex::new(())).collect();
        Self { tables, hasher: std::hash::RandomState::new(), turns }
    }

    /// Waits for the turn to change what `name` points to.
    async fn turn(&self, name: &str) -> MutexGuard<'_, ()> {
        let place = self.hasher.hash_one(name) % TURN_COUNT as u64;
        self.turns[usize::try_from(place).expect("a small number")].lock().await
    }

    /// The blob called `name`.
    ///
    /// # Errors
    ///
    /// [`Error::DirectoryAway`](crate::Error::DirectoryAway), [`Error::Directory`](crate::Error::Directory)
    pub async fn get(&self, name: &str) -> Result<Option<Blob>> {
        Ok(self.tables.read(SystemTable::Blobs, name.as_bytes()).await?.and_then(|row| to_blob(&row)))
    }

    /// Makes `name` point to `blob` if `condition` holds, and gives what it
    /// pointed to before; none if the condition did not hold and nothing changed.
    /// The blob's time is moved behind that of what it replaces.
    ///
    /// # Durability
    ///
    /// The name is durable when this returns.
    ///
    /// # Errors
    ///
    /// As [`Blobs::get`]; after [`Error::Directory`](crate::Error::Directory) it may have changed.
    pub async fn put(
        &self,
        name: &str,
        blob: &mut Blob,
        condition: &Condition,
    ) -> Result<Option<Option<Blob>>> {
        let _turn = self.turn(name).await;
        let before = self.get(name).await?;
        if !condition.holds(before.as_ref()) {
            return Ok(None);
        }
        if let Some(before) = &before {
            // Of two cells of a column the one with the later time counts.
            blob.about.modified_ms = blob.about.modified_ms.max(before.about.modified_ms + 1);
        }
        let at = blob.about.modified_ms;
        let about = serde_json::to_string(&blob.about).expect("numbers and text become JSON");
        let mutations = vec![
            set_cell(FAMILY, ETAG, at, blob.etag.clone()),
            set_cell(FAMILY, ABOUT, at, about),
            set_cell(FAMILY, CHUNKS, at, chunk::encode(&blob.chunks)),
        ];
        let done = self.change(name, mutations, condition, before.as_ref()).await?;
        Ok(done.then_some(before))
    }

    /// Removes `name` if `condition` holds, and gives what it pointed to; none if
    /// the condition did not hold.
    ///
    /// # Durability
    ///
    /// The name is gone for good when this returns.
    ///
    /// # Errors
    ///
    /// As [`Blobs::put`].
    pub async fn remove(&self, name: &str, condition: &Condition) -> Result<Option<Option<Blob>>> {
        let _turn = self.turn(name).await;
        let before = self.get(name).await?;
        if !condition.holds(before.as_ref()) {
            return Ok(None);
        }
        if before.is_none() {
            return Ok(Some(None));
        }
        let done = self.change(name, vec![delete_row()], condition, before.as_ref()).await?;
        Ok(done.then_some(before))
    }

    /// Applies `mutations`; with a condition, only if it still holds.
    async fn change(
        &self,
        name: &str,
        mutations: Vec<row_api::data::Mutation>,
        condition: &Condition,
        before: Option<&Blob>,
    ) -> Result<bool> {
        let (value, when_there) = match (condition, before) {
            (Condition::None, _) => {
                let key = name.as_bytes().to_vec();
                let row = RowWrite { table: SystemTable::Blobs, key, mutations };
                return self.tables.write(vec![row]).await.map(|()| true);
            }
            (Condition::Tags(_), Some(before)) => (Some(before.etag.as_str()), true),
            (Condition::Absent, _) => (None, false),
            (Condition::Present | Condition::Tags(_), _) => (None, true),
        };
        let branches = if when_there { [mutations, Vec::new()] } else { [Vec::new(), mutations] };
        let predicate = column_filter(FAMILY, ETAG, value);
        let was_there =
            self.tables.check_and_write(SystemTable::Blobs, name.as_bytes(), predicate, branches).await?;
        Ok(was_there == when_there)
    }

    /// The places that `query` asks for, in the order of their names.
    ///
    /// # Errors
    ///
    /// As [`Blobs::get`].
    pub async fn list(&self, query: &BlobQuery) -> Result<Vec<Listed>> {
        /// Rows of one scan.
        const ROW_COUNT_MAX: usize = 256;
        let prefix = query.prefix.as_str();
        let end = after_prefix(prefix);
        let mut start = match &query.after {
            None => Bound::Included(prefix.as_bytes().to_vec()),
            Some(after) if query.folds(after).is_some_and(|folded| folded.len() == after.len()) => {
                Bound::Included(after_prefix(after).max(prefix.as_bytes().to_vec()))
            }
            Some(after) if after.as_str() < prefix => Bound::Included(prefix.as_bytes().to_vec()),
            Some(after) => Bound::Excluded(after.as_bytes().to_vec()),
        };
        let mut listed = Vec::new();
        'scans: while listed.len() < query.count_max && !is_past(&start, &end) {
            let row_count_max = ROW_COUNT_MAX.min(query.count_max - listed.len());
            let filter = Some(column_filter(FAMILY, "etag|about", None));
            let scan = Scan { table: SystemTable::Blobs, start, end: end.clone(), row_count_max, filter };
            let rows = self.tables.scan(scan).await?;
            let complete = rows.len() < row_count_max;
            start = Bound::Unbounded;
            for row in rows {
                start = Bound::Excluded(row.key.to_vec());
                let (Ok(name), Some((etag, about))) = (std::str::from_utf8(&row.key), describe(&row)) else {
                    continue;
                };
                if let Some(folded) = query.folds(name) {
                    listed.push(Listed::Prefix(folded.to_owned()));
                    start = Bound::Included(after_prefix(folded));
                    continue 'scans;
                }
                listed.push(Listed::Blob { name: name.to_owned(), etag, about });
            }
            if complete {
                break;
            }
        }
        Ok(listed)
    }
}

impl BlobQuery {
    /// What `name` is listed as, if the delimiter stands in it behind the prefix.
    fn folds<'a>(&self, name: &'a str) -> Option<&'a str> {
        let delimiter = self.delimiter.as_deref()?;
        let rest = name.strip_prefix(self.prefix.as_str())?;
        let at = rest.find(delimiter)?;
        Some(&name[..self.prefix.len() + at + delimiter.len()])
    }
}

/// The first key after all that begin with `prefix`: no byte of UTF-8 is 0xff.
fn after_prefix(prefix: &str) -> Vec<u8> {
    [prefix.as_bytes(), &[0xff]].concat()
}

fn is_past(start: &Bound<Vec<u8>>, end: &[u8]) -> bool {
    match start {
        Bound::Included(start) | Bound::Excluded(start) => start.as_slice() >= end,
        Bound::Unbounded => false,
    }
}

fn describe(row: &Row) -> Option<(String, BlobAbout)> {
    let etag = row.cell(FAMILY, ETAG.as_bytes())?;
    let about = row.cell(FAMILY, ABOUT.as_bytes())?;
    Some((std::str::from_utf8(&etag.value).ok()?.to_owned(), serde_json::from_slice(&about.value).ok()?))
}

fn to_blob(row: &Row) -> Option<Blob> {
    let (etag, about) = describe(row)?;
    let chunks = chunk::decode(&row.cell(FAMILY, CHUNKS.as_bytes())?.value)?;
    Some(Blob { etag, about, chunks })
}
