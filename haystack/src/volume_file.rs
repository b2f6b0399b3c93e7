//! The file that holds a volume's needles, and reads of it.
//!
//! A compaction puts another file in its place. Who has found a needle holds the
//! file that it was found in, so a read under way is not disturbed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use vfs::File;

use crate::error::{Error, Result};
use crate::group::Location;
use crate::media_type::MediaType;
use crate::needle::{HEADER_BYTES, Needle, NeedleDamage};
use crate::photo_id::{Cookie, PhotoKey, PhotoSize};
use crate::superblock::Superblock;

/// A size of a photo, read and verified.
#[derive(Clone, Debug)]
pub struct StoredNeedle {
    /// What the data is.
    pub media_type: MediaType,
    /// The data.
    pub data: Bytes,
    /// What makes a strong entity tag with the data's length: the same in every
    /// replica, and before and after a compaction.
    pub checksum: u32,
    /// The cookie that the photo was written with.
    pub cookie: Cookie,
}

impl StoredNeedle {
    /// The checksum of a needle of the photo with this `key` and `cookie`, whose
    /// bytes never change.
    pub fn checksum_of(key: PhotoKey, cookie: Cookie) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&key.0.to_le_bytes()), &cookie.0.to_le_bytes())
    }
}

/// An open volume file.
#[derive(Debug)]
pub(crate) struct VolumeFile {
    pub(crate) superblock: Superblock,
    pub(crate) path: PathBuf,
    file: Arc<dyn File>,
    seed: u32,
}

impl VolumeFile {
    pub(crate) fn new(superblock: Superblock, path: &Path, file: Arc<dyn File>) -> Self {
        Self { superblock, path: path.to_owned(), file, seed: superblock.checksum_seed() }
    }

    pub(crate) fn file(&self) -> &Arc<dyn File> {
        &self.file
    }

    /// What the checksums of its needles begin at.
    pub(crate) fn seed(&self) -> u32 {
        self.seed
    }
}

/// A needle that the index has found, in the file that holds it.
#[derive(Clone, Debug)]
pub struct FoundNeedle {
    pub(crate) file: Arc<VolumeFile>,
    /// The photo.
    pub key: PhotoKey,
    /// Its size.
    pub size: PhotoSize,
    /// Where it lies.
    pub location: Location,
}

impl FoundNeedle {
    /// Reads it if no disk need be waited for.
    ///
    /// # Errors
    ///
    /// As [`FoundNeedle::read`].
    pub fn try_read(&self) -> Result<Option<StoredNeedle>> {
        let mut buffer = self.buffer();
        if !self.file.file.try_read_exact_at(&mut buffer, self.location.offset)? {
            return Ok(None);
        }
        self.verify(buffer).map(Some)
    }

    /// Reads it, in one read. Blocks.
    ///
    /// # Errors
    ///
    /// - [`Error::Damaged`]: what lies there is not that needle.
    /// - [`Error::Io`]
    pub fn read(&self) -> Result<StoredNeedle> {
        let mut buffer = self.buffer();
        self.file.file.read_exact_at(&mut buffer, self.location.offset)?;
        self.verify(buffer)
    }

    fn buffer(&self) -> BytesMut {
        BytesMut::zeroed(usize::try_from(self.location.needle_bytes).expect("a needle fits in memory"))
    }

    fn verify(&self, mut buffer: BytesMut) -> Result<StoredNeedle> {
        let damaged =
            |found| Error::Damaged { path: self.file.path.clone(), offset: self.location.offset, found };
        let needle = Needle::decode(&buffer, self.file.seed).map_err(damaged)?;
        let header = needle.header;
        if header.key != self.key || header.alternate_key != self.size.alternate_key() || header.deleted {
            return Err(damaged(NeedleDamage::OtherNeedle));
        }
        let mut data = buffer.split_off(HEADER_BYTES);
        data.truncate(header.data_bytes as usize);
        Ok(StoredNeedle {
            media_type: header.media_type,
            data: data.freeze(),
            checksum: StoredNeedle::checksum_of(header.key, header.cookie),
            cookie: header.cookie,
        })
    }
}
