//! Variants that were made lately, and those that are being made: each once.

use std::sync::Arc;

use bytes::Bytes;
use moka::future::Cache;

use crate::error::{Error, Result};
use crate::imaging::Imaging;
use crate::imaging::variant::Variant;
use crate::media_type::MediaType;
use crate::photo_id::PhotoId;

/// Bytes that a cached variant takes beside its data, about.
const ENTRY_BYTES: usize = 256;

/// A variant as it is served.
#[derive(Clone, Debug)]
pub struct RenderedVariant {
    /// Its format.
    pub media_type: MediaType,
    /// Its bytes.
    pub data: Bytes,
    /// crc32c of its bytes.
    pub checksum: u32,
}

/// Variants in memory, the least used of which go first.
#[derive(Clone, Debug)]
pub struct Variants {
    cache: Cache<([u8; 27], Variant), RenderedVariant>,
    imaging: Imaging,
}

impl Variants {
    /// At most `bytes_max` bytes of variants that `imaging` makes.
    pub fn new(imaging: Imaging, bytes_max: u64) -> Self {
        let weigh = |_: &_, variant: &RenderedVariant| {
            u32::try_from(variant.data.len() + ENTRY_BYTES).unwrap_or(u32::MAX)
        };
        Self { cache: Cache::builder().max_capacity(bytes_max).weigher(weigh).build(), imaging }
    }

    /// `variant` of the photo `id`, made of what `source` gives if it is not
    /// there. Whoever asks for one that is being made waits for it.
    ///
    /// # Errors
    ///
    /// Those of `source`, [`Error::Busy`], and those of [`Variant::render`].
    pub async fn get<F>(&self, id: &PhotoId, variant: Variant, source: F) -> Result<RenderedVariant>
    where
        F: Future<Output = Result<(MediaType, Bytes)>>,
    {
        let make = async {
            let (media_type, source) = source.await?;
            let (media_type, data) = self.imaging.variant(variant, media_type, source).await?;
            Ok(RenderedVariant { media_type, checksum: crc32c::crc32c(&data), data })
        };
        let entry = self.cache.entry((id.encode(), variant)).or_try_insert_with(make).await;
        let entry = entry.map_err(|error: Arc<Error>| (*error).clone())?;
        if entry.is_fresh() {
            // The cache would evict some time later, and hold more than its bound till then.
            self.cache.run_pending_tasks().await;
        }
        Ok(entry.into_value())
    }
}
