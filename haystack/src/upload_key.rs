//! Idempotency keys: an upload that is sent again is the same photos
//! (draft-ietf-httpapi-idempotency-key-header).
//!
//! Table `upload_keys`, one row a key; the row's key is the client's.
//!
//! | family  | qualifier | value                   |
//! |---------|-----------|-------------------------|
//! | `claim` | `claim`   | JSON of a [`Claim`]     |
//!
//! A claim is written after the needles of the photos that it names and before
//! their rows, and only if there is none (CheckAndMutateRow). So of several
//! uploads with one key, at once or after a crash, at one door or at several, the
//! first to get here makes the photos; every other one finds its claim, takes
//! its own needles back, and completes the claimed photos' rows if a crash left
//! them out. The row service forgets a claim after [`KEY_LIFETIME`].

use std::collections::HashSet;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::Result;
use crate::photo::{Photo, SizeDescription};
use crate::photo_id::{PhotoId, PhotoSize};
use crate::tables::{RowWrite, SystemTable, Tables, column_filter, delete_row, set_cell};

/// How long a key is known.
pub const KEY_LIFETIME: Duration = Duration::from_secs(24 * 3600);

const FAMILY: &str = "claim";
const CLAIM: &str = "claim";

/// What an upload was: two with the same fingerprint are the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint(String);

/// A fingerprint in the making. Without a key nothing is computed.
#[derive(Clone, Debug)]
pub struct Fingerprinter {
    hash: Option<Sha256>,
    part_bytes: u64,
}

impl Fingerprinter {
    /// A fingerprint that is computed only if it is `wanted`.
    pub fn new(wanted: bool) -> Self {
        Self { hash: wanted.then(Sha256::new), part_bytes: 0 }
    }

    /// Takes some of a part's bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        if let Some(hash) = &mut self.hash {
            hash.update(bytes);
            self.part_bytes += bytes.len() as u64;
        }
    }

    /// Ends a part: what follows is told apart from it.
    pub fn end_part(&mut self) {
        if let Some(hash) = &mut self.hash {
            hash.update(self.part_bytes.to_le_bytes());
            self.part_bytes = 0;
        }
    }

    /// The fingerprint of all parts; empty if it was not wanted.
    pub fn finish(self) -> Fingerprint {
        use std::fmt::Write;
        let digest = self.hash.map(Sha256::finalize);
        let mut text = String::new();
        for byte in digest.iter().flatten() {
            write!(text, "{byte:02x}").expect("writing to a string");
        }
        Fingerprint(text)
    }
}

/// What a key was used for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    fingerprint: Fingerprint,
    photos: Vec<ClaimedPhoto>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ClaimedPhoto {
    id: String,
    album: Option<String>,
    filename: Option<String>,
    sizes: Vec<(String, SizeDescription)>,
}

impl Claim {
    /// A claim on `photos` by an upload with `fingerprint`.
    pub fn new(fingerprint: Fingerprint, photos: &[Photo]) -> Self {
        let claimed = |photo: &Photo| ClaimedPhoto {
            id: photo.id.to_string(),
            album: photo.album.clone(),
            filename: photo.filename.clone(),
            sizes: photo.sizes.iter().map(|(size, about)| (size.name().to_owned(), about.clone())).collect(),
        };
        Self { fingerprint, photos: photos.iter().map(claimed).collect() }
    }

    /// Whether it was made by an upload with `fingerprint`.
    pub fn is_of(&self, fingerprint: &Fingerprint) -> bool {
        self.fingerprint == *fingerprint
    }

    /// The photos that it names.
    pub fn photos(&self) -> Vec<Photo> {
        let photo = |claimed: &ClaimedPhoto| {
            let size =
                |(name, about): &(String, SizeDescription)| Some((PhotoSize::named(name)?, about.clone()));
            Some(Photo {
                id: PhotoId::from_str(&claimed.id).ok()?,
                album: claimed.album.clone(),
                filename: claimed.filename.clone(),
                sizes: claimed.sizes.iter().filter_map(size).collect(),
            })
        };
        self.photos.iter().filter_map(photo).collect()
    }
}

/// The keys that clients gave.
#[derive(Debug)]
pub struct UploadKeys {
    tables: Arc<Tables>,
    in_use: Arc<Mutex<HashSet<String>>>,
}

/// A key that an upload at this door uses now.
#[derive(Debug)]
pub struct KeyInUse {
    key: String,
    in_use: Arc<Mutex<HashSet<String>>>,
}

impl KeyInUse {
    /// The key.
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl Drop for KeyInUse {
    fn drop(&mut self) {
        self.in_use.lock().remove(&self.key);
    }
}

impl UploadKeys {
    /// The keys in `tables`.
    pub fn new(tables: Arc<Tables>) -> Self {
        Self { tables, in_use: Arc::default() }
    }

    /// Takes `key` for an upload; none if another one at this door has it now.
    pub fn begin(&self, key: &str) -> Option<KeyInUse> {
        let taken = self.in_use.lock().insert(key.to_owned());
        taken.then(|| KeyInUse { key: key.to_owned(), in_use: Arc::clone(&self.in_use) })
    }

    /// What `key` was used for, if it is known.
    ///
    /// # Errors
    ///
    /// [`Error::DirectoryAway`](crate::Error::DirectoryAway), [`Error::Directory`](crate::Error::Directory)
    pub async fn find(&self, key: &str) -> Result<Option<Claim>> {
        let row = self.tables.read(SystemTable::UploadKeys, key.as_bytes()).await?;
        Ok(row.and_then(|row| serde_json::from_slice(&row.cell(FAMILY, CLAIM.as_bytes())?.value).ok()))
    }

    /// Makes `claim` for `key`, or gives the one that was there before.
    ///
    /// # Durability
    ///
    /// The claim is durable when this returns.
    ///
    /// # Errors
    ///
    /// As [`UploadKeys::find`]: it may or may not have been made.
    pub async fn claim(&self, key: &str, claim: &Claim, now_ms: u64) -> Result<Option<Claim>> {
        let value = serde_json::to_vec(claim).expect("numbers and text become JSON");
        let mutation = set_cell(FAMILY, CLAIM, now_ms, value);
        loop {
            let predicate = column_filter(FAMILY, CLAIM, None);
            let branches = [Vec::new(), vec![mutation.clone()]];
            let table = SystemTable::UploadKeys;
            if !self.tables.check_and_write(table, key.as_bytes(), predicate, branches).await? {
                return Ok(None);
            }
            if let Some(found) = self.find(key).await? {
                return Ok(Some(found));
            }
            // It has expired in between, or cannot be read.
            let row = RowWrite { table, key: key.as_bytes().to_vec(), mutations: vec![delete_row()] };
            self.tables.write(vec![row]).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(parts: &[&[&[u8]]]) -> Fingerprint {
        let mut fingerprinter = Fingerprinter::new(true);
        for part in parts {
            part.iter().for_each(|piece| fingerprinter.update(piece));
            fingerprinter.end_part();
        }
        fingerprinter.finish()
    }

    #[test]
    fn pieces_do_not_matter_and_parts_do() {
        assert_eq!(fingerprint(&[&[b"ab", b"c"]]), fingerprint(&[&[b"a", b"bc"]]));
        assert_ne!(fingerprint(&[&[b"ab"], &[b"c"]]), fingerprint(&[&[b"a"], &[b"bc"]]));
        assert_ne!(fingerprint(&[&[b"a"], &[]]), fingerprint(&[&[b"a"]]));
    }
}
