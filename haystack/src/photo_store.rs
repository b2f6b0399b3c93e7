//! Where the photo service keeps photos: the volumes of this process, or logical
//! volumes whose replicas lie on several stores.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster::Shutdown;
use row_api::client::RowClient;
use vfs::FileSystem;

use crate::compaction::Compacted;
use crate::error::{Error, Result};
use crate::logical::LogicalVolumes;
use crate::logical::table_ledger::TableLedger;
use crate::media_type::MediaType;
use crate::options::{LOCAL_STORE, StoresOptions};
use crate::overseer::Alone;
use crate::photo_id::{PhotoId, PhotoSize, VolumeId};
use crate::scrub::Scrubbed;
use crate::store::{Deleted, Store, StoreOptions, Surroundings, VolumeStats};
use crate::stores::VolumeStore;
use crate::stores::client::RemoteStore;
use crate::stores::local::LocalStore;
use crate::volume::{StoredNeedle, volume_of_path};

/// Time between two looks at whether the stores were heard of.
const READY_PERIOD: Duration = Duration::from_millis(20);

/// Where photos are kept.
#[derive(Debug)]
pub(crate) enum PhotoStore {
    /// In the volumes of this process.
    Embedded(Arc<Store>),
    /// In replicas, one of them perhaps in this process too.
    Replicated(Arc<LogicalVolumes>, Option<Arc<Store>>),
}

impl PhotoStore {
    /// Opens the volumes in `dir`. Blocks.
    pub(crate) fn embedded(fs: Arc<dyn FileSystem>, dir: &Path, options: StoreOptions) -> Result<Self> {
        let surroundings = Surroundings { overseer: Arc::new(Alone), ..Surroundings::default() };
        let store = Arc::new(Store::open(fs, dir, options, surroundings)?);
        store.start_care()?;
        Ok(Self::Embedded(store))
    }

    /// Puts logical volumes over the stores of `stores`; that of this process, in
    /// `dir`, is opened if it is among them. Blocks.
    ///
    /// # Errors
    ///
    /// - [`Error::BadOption`]: photos lie in `dir` and it is not among the stores.
    /// - As [`Store::open`].
    pub(crate) fn replicated(
        fs: &Arc<dyn FileSystem>,
        dir: &Path,
        options: StoreOptions,
        stores: &StoresOptions,
        rows: RowClient,
    ) -> Result<Self> {
        let surroundings = Surroundings::default();
        let mut local = None;
        let mut all: Vec<(String, Arc<dyn VolumeStore>)> = Vec::with_capacity(stores.addresses.len());
        for address in &stores.addresses {
            let store: Arc<dyn VolumeStore> = if address == LOCAL_STORE {
                let opened = LocalStore::open_in(Arc::clone(fs), dir, options, stores.labels.clone())?;
                local = Some(Arc::clone(opened.store()));
                Arc::new(opened)
            } else {
                let token = stores.token.as_ref().map(|token| token.0.as_str());
                Arc::new(RemoteStore::new(address, token)?)
            };
            all.push((address.clone(), store));
        }
        if local.is_none()
            && fs.exists(dir)?
            && fs.list(dir)?.iter().any(|name| volume_of_path(name).is_some())
        {
            return Err(Error::BadOption {
                option: "stores",
                found: stores.addresses.join(","),
                range: "such that `local` is among them: this data directory has photos",
            });
        }
        let ledger = Arc::new(TableLedger::new(rows));
        let volumes = LogicalVolumes::new(all, ledger, stores.replicas, surroundings);
        Ok(Self::Replicated(Arc::new(volumes), local))
    }

    /// Begins background work, which ends when `shutdown` begins.
    pub(crate) fn start(&self, shutdown: &Shutdown) {
        if let Self::Replicated(volumes, _) = self {
            volumes.start(shutdown);
        }
    }

    /// Returns once every store answered, or did not.
    pub(crate) async fn wait_until_ready(&self) {
        if let Self::Replicated(volumes, _) = self {
            while !volumes.is_ready() || !volumes.has_heard() {
                tokio::time::sleep(READY_PERIOD).await;
            }
        }
    }

    /// Whether photos are taken, as far as tables go.
    pub(crate) fn is_ready(&self) -> bool {
        match self {
            Self::Embedded(_) => true,
            Self::Replicated(volumes, _) => volumes.is_ready(),
        }
    }

    /// As [`Store::append`] and [`LogicalVolumes::append`].
    pub(crate) async fn append(&self, sizes: &[(PhotoSize, MediaType, Bytes)]) -> Result<PhotoId> {
        match self {
            Self::Embedded(store) => store.append(sizes).await,
            Self::Replicated(volumes, _) => volumes.append(sizes).await,
        }
    }

    /// As [`Store::read`] and [`LogicalVolumes::read`].
    pub(crate) async fn read(&self, id: &PhotoId, size: PhotoSize) -> Result<Option<StoredNeedle>> {
        match self {
            Self::Embedded(store) => store.read(id, size).await,
            Self::Replicated(volumes, _) => volumes.read(id, size).await,
        }
    }

    /// As [`Store::delete`] and [`LogicalVolumes::delete`].
    pub(crate) async fn delete(&self, id: &PhotoId) -> Result<Deleted> {
        match self {
            Self::Embedded(store) => store.delete(id).await,
            Self::Replicated(volumes, _) => volumes.delete(id).await,
        }
    }

    /// The volumes of this process, if photos are in any.
    fn local(&self) -> Option<&Arc<Store>> {
        match self {
            Self::Embedded(store) => Some(store),
            Self::Replicated(_, local) => local.as_ref(),
        }
    }

    /// As [`Store::compact_volume`].
    pub(crate) async fn compact_volume(&self, volume: VolumeId) -> Result<Compacted> {
        self.local().ok_or(Error::NoReplica { volume })?.compact_volume(volume).await
    }

    /// As [`Store::scrub_volume`].
    pub(crate) async fn scrub_volume(&self, volume: VolumeId) -> Result<Scrubbed> {
        self.local().ok_or(Error::NoReplica { volume })?.scrub_volume(volume).await
    }

    /// The volumes of this process.
    pub(crate) fn stats(&self) -> Vec<VolumeStats> {
        self.local().map(|store| store.stats()).unwrap_or_default()
    }

    /// The logical volumes, where there are any.
    pub(crate) fn logical(&self) -> Option<&Arc<LogicalVolumes>> {
        match self {
            Self::Embedded(_) => None,
            Self::Replicated(volumes, _) => Some(volumes),
        }
    }

    /// Writes what is queued and ends the writers of this process. Blocks.
    pub(crate) fn close(&self) {
        if let Some(store) = self.local() {
            store.close();
        }
    }
}
