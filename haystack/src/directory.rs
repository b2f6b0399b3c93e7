//! The photo directory: which photos there are and in which albums, in tables
//! of the system instance (Haystack 3.2; DESIGN 6).
//!
//! No read of a photo needs it.
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
//! Every photo is also in the album whose name is empty, which no client can
//! name: a page of all photos is one scan too.
//!
//! An upload's row is written after its needles and a delete's row is removed
//! after its tombstone, so a row without a photo can be left by a crash in a
//! delete; deleting again repairs that. Rows of uploads that wait at the same
//! time share one MutateRows.

use std::ops::Bound;
use std::sync::Arc;

use row_api::data::Mutation;
use row_api::row::Row;

use crate::error::Result;
use crate::photo::{Photo, SizeDescription};
use crate::photo_id::{PhotoId, PhotoSize};
use crate::tables::{RowWrite, Scan, SystemTable, Tables, delete_row, set_cell};

const INFO: &str = "info";
const SIZE: &str = "size";
/// The album that every photo is in.
const EVERY_PHOTO: &str = "";

/// A page of photos.
#[derive(Debug)]
pub struct PhotoPage {
    /// Its photos, newest first.
    pub photos: Vec<Photo>,
    /// Where the next page starts, if there may be one.
    pub next: Option<String>,
}

/// An album as a list of albums shows it.
#[derive(Debug)]
pub struct AlbumCover {
    /// The album's name.
    pub name: String,
    /// Its newest photo.
    pub newest: Photo,
}

/// The photo directory's client.
#[derive(Debug)]
pub struct Directory {
    tables: Arc<Tables>,
}

impl Directory {
    /// The directory in `tables`.
    pub fn new(tables: Arc<Tables>) -> Self {
        Self { tables }
    }

    /// Writes the rows of `photo`.
    ///
    /// # Durability
    ///
    /// They are durable when this returns.
    ///
    /// # Errors
    ///
    /// - [`Error::DirectoryAway`](crate::Error::DirectoryAway): nothing was written.
    /// - [`Error::Directory`](crate::Error::Directory): the rows may or may not be there.
    pub async fn insert(&self, photo: &Photo) -> Result<()> {
        let mutations = to_mutations(photo);
        let mut rows: Vec<RowWrite> = albums_of(photo)
            .map(|album| RowWrite {
                table: SystemTable::Albums,
                key: album_key(album, &photo.id),
                mutations: mutations.clone(),
            })
            .collect();
        rows.push(RowWrite { table: SystemTable::Photos, key: photo.id.encode().to_vec(), mutations });
        self.tables.write(rows).await
    }

    /// The row of the photo `id`, if there is one.
    ///
    /// # Errors
    ///
    /// [`Error::DirectoryAway`](crate::Error::DirectoryAway), [`Error::Directory`](crate::Error::Directory)
    pub async fn get(&self, id: &PhotoId) -> Result<Option<Photo>> {
        let row = self.tables.read(SystemTable::Photos, &id.encode()).await?;
        Ok(row.map(|row| to_photo(*id, &row)))
    }

    /// Removes the rows of the photo `id`: the photo's last, so that after a
    /// crash in between, removing again still finds the album.
    ///
    /// # Errors
    ///
    /// [`Error::DirectoryAway`](crate::Error::DirectoryAway), [`Error::Directory`](crate::Error::Directory):
    /// rows may be left.
    pub async fn remove(&self, id: &PhotoId) -> Result<()> {
        let Some(photo) = self.get(id).await? else { return Ok(()) };
        let delete = |table, key| RowWrite { table, key, mutations: vec![delete_row()] };
        let albums = albums_of(&photo).map(|album| delete(SystemTable::Albums, album_key(album, id)));
        self.tables.write(albums.collect()).await?;
        self.tables.write(vec![delete(SystemTable::Photos, id.encode().to_vec())]).await
    }

    /// At most `count_max` photos of `album`, or of all there are, newest first,
    /// after the place `after` that an earlier page gave.
    ///
    /// # Errors
    ///
    /// [`Error::DirectoryAway`](crate::Error::DirectoryAway), [`Error::Directory`](crate::Error::Directory)
    pub async fn photos(
        &self,
        album: Option<&str>,
        after: Option<&str>,
        count_max: usize,
    ) -> Result<PhotoPage> {
        let prefix = album_prefix(album.unwrap_or(EVERY_PHOTO));
        let start = match after {
            Some(after) => Bound::Excluded([&prefix, after.as_bytes()].concat()),
            None => Bound::Included(prefix.clone()),
        };
        let end = end_of_album(&prefix);
        let rows = self.scan(start, end, count_max).await?;
        let place = |row: &Row| row.key.slice(prefix.len().min(row.key.len())..);
        let next = rows.last().filter(|_| rows.len() == count_max).map(place);
        let photos = rows.iter().filter_map(|row| Some(to_photo(id_at(&place(row))?, row))).collect();
        let next = next.and_then(|place| std::str::from_utf8(&place).ok().map(str::to_owned));
        Ok(PhotoPage { photos, next })
    }

    /// At most `count_max` albums in the order of their names, after the one
    /// called `after`: one short scan an album.
    ///
    /// # Errors
    ///
    /// [`Error::DirectoryAway`](crate::Error::DirectoryAway), [`Error::Directory`](crate::Error::Directory)
    pub async fn albums(&self, after: Option<&str>, count_max: usize) -> Result<Vec<AlbumCover>> {
        let mut covers = Vec::new();
        let mut start = end_of_album(&album_prefix(after.unwrap_or(EVERY_PHOTO)));
        while covers.len() < count_max {
            let found = self.scan(Bound::Included(start), END_OF_ALBUMS.to_vec(), 1).await?;
            let Some(row) = found.first() else { break };
            let name_bytes = row.key.iter().position(|byte| *byte == 0).unwrap_or(row.key.len());
            let (name, place) = (&row.key[..name_bytes], row.key.get(name_bytes + 1..).unwrap_or_default());
            start = end_of_album(&[name, &[0]].concat());
            if let (Ok(name), Some(id)) = (std::str::from_utf8(name), id_at(place)) {
                covers.push(AlbumCover { name: name.to_owned(), newest: to_photo(id, row) });
            }
        }
        Ok(covers)
    }

    async fn scan(&self, start: Bound<Vec<u8>>, end: Vec<u8>, row_count_max: usize) -> Result<Vec<Row>> {
        self.tables.scan(Scan { table: SystemTable::Albums, start, end, row_count_max, filter: None }).await
    }
}

/// Above every album's key: no byte of UTF-8 is 0xff.
const END_OF_ALBUMS: &[u8] = &[0xff];

/// Bytes of the hexadecimal digits that order an album.
const ALBUM_ORDER_BYTES: usize = 16;

fn albums_of(photo: &Photo) -> impl Iterator<Item = &str> {
    std::iter::once(EVERY_PHOTO).chain(photo.album.as_deref())
}

fn album_prefix(album: &str) -> Vec<u8> {
    [album.as_bytes(), &[0]].concat()
}

/// The end of the album whose keys begin with `prefix`, which ends with a zero byte.
fn end_of_album(prefix: &[u8]) -> Vec<u8> {
    [&prefix[..prefix.len() - 1], &[1]].concat()
}

fn album_key(album: &str, id: &PhotoId) -> Vec<u8> {
    let order = format!("{:016x}", !id.key.0);
    [&album_prefix(album), order.as_bytes(), &id.encode()].concat()
}

/// The id in a place in an album.
fn id_at(place: &[u8]) -> Option<PhotoId> {
    PhotoId::decode(place.get(ALBUM_ORDER_BYTES..)?).ok()
}

fn to_mutations(photo: &Photo) -> Vec<Mutation> {
    // The same cells however often they are written.
    let uploaded_ms = photo.id.key.uploaded_ms();
    let set =
        |family, qualifier: &'static str, value: String| set_cell(family, qualifier, uploaded_ms, value);
    let mut mutations = vec![
        set(INFO, "volume", photo.id.volume.to_string()),
        set(INFO, "uploaded_ms", uploaded_ms.to_string()),
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
