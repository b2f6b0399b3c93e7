//! Stores behind one seam: whoever places, reads and heals replicas asks a
//! [`VolumeStore`] and does not know whether it lies in this process or on
//! another machine.
//!
//! - [`identity`]: what tells one store from another, and from itself wiped.
//! - [`local`]: the store of this process.
//! - [`watch`]: what a store learns of its own damage.
//! - [`frames`], [`protocol`]: photos and refusals as bytes between processes.
//! - [`client`], [`server`]: a store over the network, from both ends.
//!
//! A store holds at most one replica of a logical volume, a physical volume. It
//! tells what it has from the superblocks (Haystack 3.4), so a photo is read
//! without a table. A replica that is still being filled from others says so.

pub mod client;
pub mod frames;
pub mod identity;
pub mod local;
pub mod protocol;
pub mod server;
pub mod watch;

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::index::KnownKey;
use crate::media_type::MediaType;
use crate::photo_id::{Cookie, PhotoId, PhotoKey, PhotoSize, VolumeId};
use crate::volume::StoredNeedle;
use crate::writer::Purpose;
use identity::{Labels, StoreId};

/// Keys in one page of a listing, at most.
pub const KEY_COUNT_MAX: usize = 16_384;
/// Bytes after which an answer with whole photos takes no further one.
pub const COPY_BYTES: u64 = 4 << 20;

/// What a replica takes, as its store tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReplicaState {
    /// Photos and deletes.
    WriteEnabled,
    /// Deletes only, until the disk has room again.
    Full,
    /// Deletes and repairs: it has its size, or is damaged in the middle.
    Sealed,
    /// Nothing: a write or a sync failed. Reads go on.
    Poisoned,
    /// Nothing at all: its file cannot be served.
    Ill,
}

impl fmt::Display for ReplicaState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WriteEnabled => "write-enabled",
            Self::Full => "full",
            Self::Sealed => "sealed",
            Self::Poisoned => "poisoned",
            Self::Ill => "ill",
        })
    }
}

/// One replica, as its store tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaReport {
    /// The logical volume.
    pub volume: VolumeId,
    /// The physical volume's own number; 0 where the file cannot say.
    pub physical: u64,
    /// Whether it is still being filled and lacks photos.
    pub filling: bool,
    /// What it takes.
    pub state: ReplicaState,
    /// Length of its file, bytes.
    pub volume_bytes: u64,
    /// Bytes of needles that are not deleted.
    pub live_bytes: u64,
    /// Photos that are not deleted.
    pub photo_count: u64,
    /// The largest key it has seen; 0 if none.
    pub key_max: u64,
}

/// What a store tells of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreReport {
    /// Who it is.
    pub id: StoreId,
    /// Where it stands: `rack`, for one.
    pub labels: Labels,
    /// Bytes that its disk has free.
    pub available_bytes: u64,
    /// Bytes of them that it keeps for deletes.
    pub reserve_bytes: u64,
    /// Size at which it seals a volume, bytes.
    pub volume_bytes_max: u64,
    /// Its replicas, in the order of their logical volumes.
    pub replicas: Vec<ReplicaReport>,
    /// Photos that it found damaged, by volume and key, as far as it remembers.
    pub damaged: Vec<(VolumeId, u64)>,
}

impl StoreReport {
    /// Whether only its reserve is left of the disk.
    pub fn is_full(&self) -> bool {
        self.available_bytes <= self.reserve_bytes
    }

    /// Its replica of `volume`.
    pub fn replica(&self, volume: VolumeId) -> Option<&ReplicaReport> {
        self.replicas.iter().find(|replica| replica.volume == volume)
    }
}

/// All needles of a photo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhotoNeedles {
    /// Its key.
    pub key: PhotoKey,
    /// Its cookie.
    pub cookie: Cookie,
    /// Its sizes, largest first.
    pub sizes: Vec<(PhotoSize, MediaType, Bytes)>,
}

impl PhotoNeedles {
    /// Bytes of data of all sizes.
    pub fn data_bytes(&self) -> u64 {
        self.sizes.iter().map(|(_, _, data)| data.len() as u64).sum()
    }
}

/// What a replica has under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The photo, every needle of it verified.
    Photo(PhotoNeedles),
    /// Nothing.
    Absent(PhotoKey),
    /// Needles that are not what was written.
    Damaged(PhotoKey),
}

impl Found {
    /// The key that was asked for.
    pub fn key(&self) -> PhotoKey {
        match self {
            Self::Photo(photo) => photo.key,
            Self::Absent(key) | Self::Damaged(key) => *key,
        }
    }
}

/// A photo that is to be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Burial {
    /// Its key.
    pub key: PhotoKey,
    /// Its cookie; zero where nobody knows it any more. Nobody checks it.
    pub cookie: Cookie,
}

/// The replicas of one store machine.
///
/// A call for a volume of which there is no replica fails with
/// [`Error::NoReplica`](crate::Error::NoReplica). Every call can be dropped at any
/// point; what it writes may then become durable or not.
#[async_trait]
pub trait VolumeStore: Send + Sync + fmt::Debug {
    /// What there is: the pitchfork's first probe.
    async fn report(&self) -> Result<StoreReport>;

    /// Makes an empty replica of `volume` and returns its physical number. While
    /// it is `filling` it says so in reports, also after a restart.
    ///
    /// # Errors
    ///
    /// [`Error::ReplicaExists`](crate::Error::ReplicaExists), [`Error::DiskFull`](crate::Error::DiskFull)
    async fn create_replica(&self, volume: VolumeId, filling: bool) -> Result<u64>;

    /// The replica has all that it lacked.
    async fn finish_filling(&self, volume: VolumeId) -> Result<()>;

    /// Removes the replica and its files, if it is still the one with this
    /// physical number; 0 stands for one whose file cannot say.
    async fn remove_replica(&self, volume: VolumeId, physical: u64) -> Result<()>;

    /// Appends `photos`, each whole or not at all, and returns the length of the
    /// volume's file after it. Each is synced when this returns.
    ///
    /// # Errors
    ///
    /// Some of `photos` may have become durable.
    async fn append(&self, volume: VolumeId, photos: &[PhotoNeedles], purpose: Purpose) -> Result<u64>;

    /// Deletes photos for good, those too that are not there and might still
    /// come. Synced when this returns.
    async fn bury(&self, volume: VolumeId, burials: &[Burial]) -> Result<()>;

    /// One size of a photo, verified, under a checksum of its data alone; none if
    /// there is no such photo or its cookie is another.
    async fn read(&self, id: &PhotoId, size: PhotoSize) -> Result<Option<StoredNeedle>>;

    /// The cookie of a photo; none if there is no such photo.
    async fn cookie(&self, volume: VolumeId, key: PhotoKey) -> Result<Option<Cookie>>;

    /// The keys after `after` in order, buried ones too, at most `count_max` and
    /// at most [`KEY_COUNT_MAX`]. A page that is shorter is the last.
    async fn keys(
        &self,
        volume: VolumeId,
        after: Option<PhotoKey>,
        count_max: usize,
    ) -> Result<Vec<KnownKey>>;

    /// Whole photos, in the order of `keys`: at least one, and as many as fit
    /// into about [`COPY_BYTES`].
    async fn photos(&self, volume: VolumeId, keys: &[PhotoKey]) -> Result<Vec<Found>>;

    /// Takes no more photos into `volume`.
    async fn seal(&self, volume: VolumeId) -> Result<()>;

    /// Reads some photo of `volume`: the pitchfork's last probe.
    async fn probe(&self, volume: VolumeId) -> Result<()>;
}
