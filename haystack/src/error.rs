//! What can go wrong in this crate, cut by what the caller does next.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::needle::NeedleDamage;
use crate::photo_id::VolumeId;

/// An operation's outcome.
pub type Result<T> = std::result::Result<T, Error>;

/// An operation that failed. Cheap to clone: one failed sync answers a whole batch.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// An option is outside its range: change the configuration.
    #[error("{option} is {found}, but must be {range}")]
    BadOption {
        /// The field of [`HaystackOptions`](crate::HaystackOptions).
        option: &'static str,
        /// Its value.
        found: String,
        /// What it may be.
        range: &'static str,
    },
    /// The data directory is in use by another process.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The lock file.
        path: PathBuf,
    },
    /// A file operation failed; nothing was acknowledged.
    #[error("the volume's file failed")]
    Io(#[source] Arc<vfs::Error>),
    /// The bytes at a place that should hold a needle are not that needle:
    /// restore the photo from elsewhere.
    #[error("{} is damaged at byte {offset}", path.display())]
    Damaged {
        /// The volume's file.
        path: PathBuf,
        /// Where the needle starts.
        offset: u64,
        /// What is wrong with it.
        #[source]
        found: NeedleDamage,
    },
    /// A volume's file exists and cannot be served: call a human.
    #[error("volume {volume} cannot be served: {found}")]
    VolumeIll {
        /// The volume.
        volume: VolumeId,
        /// Why.
        found: String,
    },
    /// The file that says which store this is cannot be read: call a human.
    #[error("{} is damaged or of another version", path.display())]
    StoreIll {
        /// The file.
        path: PathBuf,
    },
    /// The store has no replica of the volume.
    #[error("there is no replica of volume {volume} here")]
    NoReplica {
        /// The volume.
        volume: VolumeId,
    },
    /// The store has a replica of the volume already; it is untouched.
    #[error("there is a replica of volume {volume} here already")]
    ReplicaExists {
        /// The volume.
        volume: VolumeId,
    },
    /// A store does not answer, or not in time: what it was asked for may or may
    /// not have been done. Ask another replica.
    #[error("the store at {store} is away: {found}")]
    StoreAway {
        /// Its address.
        store: Arc<str>,
        /// What was seen.
        found: String,
    },
    /// A store answers and does not take the request: mend the configuration.
    #[error("the store at {store} refused: {found}")]
    StoreRefused {
        /// Its address.
        store: Arc<str>,
        /// What it said.
        found: String,
    },
    /// What a store sent is not what was written: ask another replica, and have
    /// this one repaired.
    #[error("a replica of volume {volume} is damaged: {found}")]
    ReplicaDamaged {
        /// The volume.
        volume: VolumeId,
        /// What was seen.
        found: String,
    },
    /// Too few stores are well for another logical volume, and none that there
    /// is takes photos: try again later. Nothing was acknowledged.
    #[error("{well_count} stores can take photos, and {replica_count} are needed")]
    TooFewStores {
        /// Stores that could hold a replica.
        well_count: usize,
        /// Replicas of each photo.
        replica_count: usize,
    },
    /// No replica of the volume answers: try again later.
    #[error("no replica of volume {volume} answers")]
    NoneAnswers {
        /// The volume.
        volume: VolumeId,
    },
    /// The volume takes no photo any more: write to another one.
    #[error("volume {volume} is sealed")]
    Sealed {
        /// The volume.
        volume: VolumeId,
    },
    /// A write or a sync of the volume failed before; it takes nothing until it
    /// is opened again. Reads go on.
    #[error("volume {volume} takes no writes since one failed")]
    Poisoned {
        /// The volume.
        volume: VolumeId,
    },
    /// The disk has no room: nothing was written. Reads and deletes go on.
    #[error("{available_bytes} bytes are free on the disk, and {reserve_bytes} are held in reserve")]
    DiskFull {
        /// Free bytes below the data directory.
        available_bytes: u64,
        /// Bytes that uploads leave free.
        reserve_bytes: u64,
    },
    /// A compaction found fewer needles than the index knows, or bytes that it
    /// could not read: nothing has changed. Repair what the scrub reports, or
    /// delete it, first.
    #[error("volume {volume} is not compacted: {missing_count} of its needles cannot be read")]
    Uncompactable {
        /// The volume.
        volume: VolumeId,
        /// Needles that were not found.
        missing_count: usize,
    },
    /// More than one needle can hold: nothing was written.
    #[error("{found_bytes} bytes are more than the {limit_bytes} that one photo may have")]
    TooLarge {
        /// The size given.
        found_bytes: u64,
        /// The size allowed.
        limit_bytes: u64,
    },
    /// The bytes are no image of a kind that is taken.
    #[error("this is {found}, not a JPEG, PNG, WebP or GIF image")]
    NotAnImage {
        /// What they look like.
        found: &'static str,
    },
    /// The image's header claims more than is decoded; nothing was decoded.
    #[error("the image has {width} x {height} pixels; at most {pixel_count_max} are taken")]
    TooManyPixels {
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
        /// Pixels allowed.
        pixel_count_max: u64,
    },
    /// The image begins well and does not decode.
    #[error("the {format} image is damaged: {found}")]
    DamagedImage {
        /// The format by its first bytes.
        format: &'static str,
        /// What the decoder said.
        found: String,
    },
    /// A bounded queue is full: try again after a while. Nothing was done.
    #[error("too many {what} wait already")]
    Busy {
        /// What waits.
        what: &'static str,
        /// When to come again.
        retry_after: Duration,
    },
    /// The tables of the photo directory do not answer yet: try again.
    #[error("the photo directory does not answer yet")]
    DirectoryAway,
    /// The tables of the photo directory refused.
    #[error("the photo directory failed")]
    Directory(#[source] Arc<tonic::Status>),
    /// The service is closing; nothing was done.
    #[error("the photo service is closing")]
    Closing,
}

impl From<vfs::Error> for Error {
    fn from(error: vfs::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}
