//! What the photo service is told.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::imaging::variant::Variant;
use crate::logical::ReplicaOptions;
use crate::needle::DATA_BYTES_MAX;
use crate::photo_id::PhotoSize;
use crate::signature::KEY_BYTES_MIN;
use crate::stores::client::check_address;
use crate::stores::identity::Labels;

/// The address that stands for the store of this process.
pub const LOCAL_STORE: &str = "local";

/// What convinces a store that a request comes from its own cluster. It is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(pub String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// The stores that keep replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoresOptions {
    /// Where they are, 1 to 1000, such as `http://10.0.0.7:8090`; [`LOCAL_STORE`] is
    /// the one in this process.
    pub addresses: Vec<String>,
    /// What they ask for, if they do.
    pub token: Option<Token>,
    /// Labels of the store in this process.
    pub labels: Labels,
    /// How replicas are kept.
    pub replicas: ReplicaOptions,
}

impl StoresOptions {
    fn check(&self) -> Result<()> {
        within("stores", self.addresses.len(), 1..=1000, "1 to 1000 addresses")?;
        for (place, address) in self.addresses.iter().enumerate() {
            let bad = |range| Error::BadOption { option: "stores", found: address.clone(), range };
            if address != LOCAL_STORE && check_address(address).is_err() {
                return Err(bad("`local`, or an address such as http://10.0.0.7:8090"));
            }
            if self.addresses[..place].contains(address) {
                return Err(bad("each address once"));
            }
        }
        within("replicas", self.replicas.replica_count, 1..=9, "1 to 9")?;
        if self.replicas.replica_count > self.addresses.len() {
            let found = self.replicas.replica_count.to_string();
            return Err(Error::BadOption { option: "replicas", found, range: "at most as many as stores" });
        }
        Ok(())
    }
}

/// Options of a [`Haystack`](crate::Haystack). None of them is part of the
/// format: each may change between two starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HaystackOptions {
    /// Where the volumes lie.
    pub dir: PathBuf,
    /// The stores that keep replicas; none keeps photos in this process alone.
    pub stores: Option<StoresOptions>,
    /// Size at which a volume takes no more photos, bytes, 1 MiB to 16 GiB.
    /// Larger volumes are fewer files; smaller ones are sooner compacted, moved
    /// or recovered.
    pub volume_bytes_max: u64,
    /// Bytes of disk that a volume reserves at a time, 0 to 1 GiB; 0 reserves
    /// none. More keeps needles of a volume together on the disk.
    pub extent_bytes: u64,
    /// Part of a volume that is garbage from which it is compacted, percent, 0
    /// to 95; 0 compacts by command only. Less wastes less disk and copies more.
    pub compaction_garbage_percent: u8,
    /// Bytes of a volume that a compaction reads a second; 0 is no limit.
    pub compaction_bytes_per_second: u64,
    /// Bytes that the scrub reads a second; 0 scrubs by command only.
    pub scrub_bytes_per_second: u64,
    /// Volumes that take photos at once, 1 to 64. One gathers the largest
    /// batches for a sync; more help where the disk syncs in parallel.
    pub write_enabled_volume_count: usize,
    /// Bytes of the disk that uploads leave free, 0 to 1 TiB, so that deletes
    /// find room.
    pub disk_reserve_bytes: u64,
    /// Bytes of the largest photo, 1 KiB to 64 MiB.
    pub photo_bytes_max: u64,
    /// Bytes of the largest blob, 0 to 1 TiB. It is stored in chunks of 1 MiB;
    /// the list of them, 31 bytes each, is one cell.
    pub blob_bytes_max: u64,
    /// Pixels of the largest photo, 1 to 500 million. Decoding takes 3 to 8
    /// bytes a pixel in each imaging thread.
    pub pixel_count_max: u64,
    /// Photos in one form, 1 to 10 000. They are stored all or none.
    pub form_photo_count_max: usize,
    /// Longest edges of large, medium, small and thumb, pixels, 16 to 8192,
    /// each smaller than the one before.
    pub derived_edges_px: [u32; PhotoSize::DERIVED.len()],
    /// Quality of derived JPEG images, 1 to 100.
    pub jpeg_quality: u8,
    /// Bytes of variants kept in memory, 0 to 64 GiB.
    pub variant_cache_bytes_max: u64,
    /// Variants that need no signature.
    pub variants_listed: Vec<Variant>,
    /// Keys that sign URLs, 16 bytes at least, 16 keys at most: all verify.
    pub signing_keys: Vec<Vec<u8>>,
    /// Photos and blobs are read by signed URLs only; lists of them stay open.
    pub signed_only: bool,
    /// Stores originals byte for byte, with the place they were taken at.
    pub originals_untouched: bool,
    /// Photos decoded and resized at once, 1 to 256.
    pub imaging_thread_count: usize,
    /// Photos that wait for that, 0 to 10 000; more get 503.
    pub imaging_queue_max: usize,
    /// Bytes of bodies in memory at once, at least [`photo_bytes_max`](Self::photo_bytes_max),
    /// at most 64 GiB; more uploads wait before they are read.
    pub body_bytes_in_flight_max: u64,
    /// Time for a request's head, and for an idle connection, 1 s to 1 h.
    pub header_timeout: Duration,
    /// Bytes of large answers in memory at once, at least [`photo_bytes_max`](Self::photo_bytes_max),
    /// at most 64 GiB; more get 503. An answer counts until its client has taken it.
    pub answer_bytes_in_flight_max: u64,
    /// Time between two pieces of a body, for a place in memory, and for a
    /// client to take some of an answer, 1 s to 1 h.
    pub body_timeout: Duration,
    /// Bytes a second that a body brings on average, after a start of
    /// [`body_timeout`](Self::body_timeout), 1 to 1 GiB: what trickles would hold its memory for hours.
    pub body_rate_min: u64,
    /// Reads that wait for the disk at once, 1 to 512.
    pub blocking_read_count_max: usize,
}

impl Default for HaystackOptions {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("hayloft-data/haystack"),
            stores: None,
            volume_bytes_max: 8 << 30,
            extent_bytes: 16 << 20,
            compaction_garbage_percent: 40,
            compaction_bytes_per_second: 64 << 20,
            scrub_bytes_per_second: 4 << 20,
            write_enabled_volume_count: 1,
            disk_reserve_bytes: 64 << 20,
            photo_bytes_max: 25_000_000,
            blob_bytes_max: 5 << 30,
            pixel_count_max: 50_000_000,
            form_photo_count_max: 100,
            derived_edges_px: [2048, 1024, 512, 160],
            jpeg_quality: 85,
            variant_cache_bytes_max: 64 << 20,
            variants_listed: Vec::new(),
            signing_keys: Vec::new(),
            signed_only: false,
            originals_untouched: false,
            imaging_thread_count: std::thread::available_parallelism().map_or(1, usize::from).min(256),
            imaging_queue_max: 64,
            body_bytes_in_flight_max: 256 << 20,
            header_timeout: Duration::from_secs(60),
            answer_bytes_in_flight_max: 256 << 20,
            body_timeout: Duration::from_secs(30),
            body_rate_min: 4 << 10,
            blocking_read_count_max: 64,
        }
    }
}

impl HaystackOptions {
    /// Checks every option.
    ///
    /// # Errors
    ///
    /// [`Error::BadOption`] for the first that is out of its range.
    pub fn check(&self) -> Result<()> {
        self.stores.as_ref().map_or(Ok(()), StoresOptions::check)?;
        within("volume_bytes_max", self.volume_bytes_max, 1 << 20..=16 << 30, "1 MiB to 16 GiB")?;
        within("extent_bytes", self.extent_bytes, 0..=1 << 30, "0 to 1 GiB")?;
        within("compaction_garbage_percent", self.compaction_garbage_percent, 0..=95, "0 to 95")?;
        within("write_enabled_volume_count", self.write_enabled_volume_count, 1..=64, "1 to 64")?;
        within("disk_reserve_bytes", self.disk_reserve_bytes, 0..=1 << 40, "0 to 1 TiB")?;
        let photo_bytes = 1 << 10..=u64::from(DATA_BYTES_MAX);
        within("photo_bytes_max", self.photo_bytes_max, photo_bytes, "1 KiB to 64 MiB")?;
        within("blob_bytes_max", self.blob_bytes_max, 0..=1 << 40, "0 to 1 TiB")?;
        within("pixel_count_max", self.pixel_count_max, 1..=500_000_000, "1 to 500 million")?;
        within("form_photo_count_max", self.form_photo_count_max, 1..=10_000, "1 to 10000")?;
        for edge in self.derived_edges_px {
            within("derived_edges_px", edge, 16..=8192, "16 to 8192")?;
        }
        if !self.derived_edges_px.is_sorted_by(|larger, smaller| larger > smaller) {
            let found = format!("{:?}", self.derived_edges_px);
            return Err(Error::BadOption { option: "derived_edges_px", found, range: "falling" });
        }
        within("jpeg_quality", self.jpeg_quality, 1..=100, "1 to 100")?;
        within("variant_cache_bytes_max", self.variant_cache_bytes_max, 0..=64 << 30, "0 to 64 GiB")?;
        within("signing_keys", self.signing_keys.len(), 0..=16, "at most 16 keys")?;
        for key in &self.signing_keys {
            within("signing_keys", key.len(), KEY_BYTES_MIN..=1 << 10, "keys of 16 to 1024 bytes")?;
        }
        within("imaging_thread_count", self.imaging_thread_count, 1..=256, "1 to 256")?;
        within("imaging_queue_max", self.imaging_queue_max, 0..=10_000, "0 to 10000")?;
        let in_flight = self.photo_bytes_max..=64 << 30;
        let range = "photo_bytes_max to 64 GiB";
        within("body_bytes_in_flight_max", self.body_bytes_in_flight_max, in_flight.clone(), range)?;
        within("answer_bytes_in_flight_max", self.answer_bytes_in_flight_max, in_flight, range)?;
        within("header_timeout", self.header_timeout.as_secs(), 1..=3600, "1 s to 1 h")?;
        within("body_timeout", self.body_timeout.as_secs(), 1..=3600, "1 s to 1 h")?;
        within("body_rate_min", self.body_rate_min, 1..=1 << 30, "1 B to 1 GiB a second")?;
        within("blocking_read_count_max", self.blocking_read_count_max, 1..=512, "1 to 512")
    }
}

fn within<T: PartialOrd + Display + Copy>(
    option: &'static str,
    found: T,
    allowed: RangeInclusive<T>,
    range: &'static str,
) -> Result<()> {
    if allowed.contains(&found) {
        return Ok(());
    }
    Err(Error::BadOption { option, found: found.to_string(), range })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_in_range_and_others_are_refused_by_name() {
        let good = HaystackOptions::default();
        assert!(good.check().is_ok());
        let small = HaystackOptions { volume_bytes_max: 1, ..good.clone() };
        assert_eq!(
            small.check().unwrap_err().to_string(),
            "volume_bytes_max is 1, but must be 1 MiB to 16 GiB"
        );
        let edges = HaystackOptions { derived_edges_px: [100, 200, 50, 20], ..good };
        assert!(edges.check().is_err());
    }
}
