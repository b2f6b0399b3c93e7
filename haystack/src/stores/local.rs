//! The store of this process as a [`VolumeStore`].
//!
//! Beside the volumes' files lies `<logical volume, 8 hex digits>.filling` for each
//! replica that lacks photos: empty, made before the volume and removed once
//! the replica is complete.
//!
//! | the power goes              | what is found              | what is done                       |
//! |-----------------------------|----------------------------|------------------------------------|
//! | before the volume's name    | a marker alone             | removed at the start               |
//! | while it is filled          | a marker and some photos   | it is filled on                    |
//! | as the marker is removed    | either                     | it is compared again, and complete |

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use parking_lot::RwLock;
use vfs::FileSystem;

use super::identity::{Labels, StoreId};
use super::watch::ReplicaWatch;
use super::{
    Burial, COPY_BYTES, Found, KEY_COUNT_MAX, PhotoNeedles, ReplicaReport, ReplicaState, StoreReport,
    VolumeStore,
};
use crate::error::{Error, Result};
use crate::index::KnownKey;
use crate::overseer::Overseer;
use crate::photo_id::{Cookie, PhotoId, PhotoKey, PhotoSize, VolumeId};
use crate::store::{Store, StoreOptions, Surroundings};
use crate::volume::{StoredNeedle, Volume, VolumeState, volume_path};
use crate::writer::Purpose;

/// The store of this process.
#[derive(Debug)]
pub struct LocalStore {
    store: Arc<Store>,
    watch: Arc<ReplicaWatch>,
    id: StoreId,
    labels: Labels,
    filling: RwLock<BTreeSet<VolumeId>>,
}

impl LocalStore {
    /// `store` under its own number, which is `fresh` if it has none yet. `watch` is
    /// the overseer that it was opened with. Blocks.
    ///
    /// # Errors
    ///
    /// [`Error::StoreIll`], [`Error::Io`]
    pub fn open(store: Arc<Store>, watch: Arc<ReplicaWatch>, labels: Labels, fresh: u64) -> Result<Self> {
        let (fs, dir) = store.dir();
        let id = StoreId::open(fs, dir, StoreId(fresh))?;
        let mut filling = BTreeSet::new();
        for name in fs.list(dir)? {
            if name.extension().is_none_or(|extension| extension != "filling") {
                continue;
            }
            let stem = name.file_stem().and_then(|stem| stem.to_str());
            let volume = stem.and_then(|stem| u32::from_str_radix(stem, 16).ok()).map(VolumeId);
            match volume.filter(|volume| store.named(*volume).is_ok()) {
                Some(volume) => drop(filling.insert(volume)),
                None => fs.remove(&dir.join(name.file_name().unwrap_or_default()))?,
            }
        }
        Ok(Self { store, watch, id, labels, filling: RwLock::new(filling) })
    }

    /// Opens the store in `dir` and begins its background care. Blocks.
    ///
    /// # Errors
    ///
    /// As [`Store::open`] and [`LocalStore::open`].
    pub fn open_in(
        fs: Arc<dyn FileSystem>,
        dir: &Path,
        options: StoreOptions,
        labels: Labels,
    ) -> Result<Self> {
        let watch = Arc::new(ReplicaWatch::default());
        let overseer = Arc::clone(&watch) as Arc<dyn Overseer>;
        let surroundings = Surroundings { overseer, ..Surroundings::default() };
        let fresh = (surroundings.random)();
        let store = Arc::new(Store::open(fs, dir, options, surroundings)?);
        store.start_care()?;
        Self::open(store, watch, labels, fresh)
    }

    /// The store itself.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Its number.
    pub fn id(&self) -> StoreId {
        self.id
    }

    fn marker(&self, volume: VolumeId) -> PathBuf {
        let (_, dir) = self.store.dir();
        volume_path(dir, volume).with_extension("filling")
    }

    fn remove_marker(&self, volume: VolumeId) -> Result<()> {
        if self.filling.read().contains(&volume) {
            let (fs, dir) = self.store.dir();
            fs.remove(&self.marker(volume))?;
            fs.sync_dir(dir)?;
            self.filling.write().remove(&volume);
        }
        Ok(())
    }

    fn describe(&self, volume: &Volume) -> ReplicaReport {
        let core = volume.core();
        let physical = core.superblock().physical_volume;
        let index = core.index();
        ReplicaReport {
            volume: core.id(),
            physical,
            filling: self.filling.read().contains(&core.id()),
            state: match core.state() {
                VolumeState::WriteEnabled => ReplicaState::WriteEnabled,
                VolumeState::Full => ReplicaState::Full,
                VolumeState::Sealed => ReplicaState::Sealed,
                VolumeState::Poisoned => ReplicaState::Poisoned,
            },
            volume_bytes: core.tail_offset(),
            live_bytes: index.totals().live_bytes,
            photo_count: index.totals().photo_count as u64,
            key_max: index.key_max().map_or(0, |key| key.0),
        }
    }

    async fn photo(&self, volume: &Arc<Volume>, key: PhotoKey) -> Result<Found> {
        let mut needles = volume.locate_all(key);
        if needles.is_empty() {
            return Ok(Found::Absent(key));
        }
        // Largest first: the order in which they lie.
        needles.reverse();
        let mut photo = PhotoNeedles { key, cookie: Cookie(0), sizes: Vec::new() };
        for found in needles {
            let size = found.size;
            match self.store.read_found(volume, found).await {
                Ok(needle) => {
                    photo.cookie = needle.cookie;
                    photo.sizes.push((size, needle.media_type, needle.data));
                }
                Err(Error::Damaged { .. }) => return Ok(Found::Damaged(key)),
                Err(error) => return Err(error),
            }
        }
        Ok(Found::Photo(photo))
    }
}

fn ill(volume: VolumeId) -> ReplicaReport {
    ReplicaReport {
        volume,
        physical: 0,
        filling: false,
        state: ReplicaState::Ill,
        volume_bytes: 0,
        live_bytes: 0,
        photo_count: 0,
        key_max: 0,
    }
}

#[async_trait]
impl VolumeStore for LocalStore {
    async fn report(&self) -> Result<StoreReport> {
        let (fs, dir) = self.store.dir();
        let mut replicas: Vec<ReplicaReport> =
            self.store.served().iter().map(|volume| self.describe(volume)).collect();
        replicas.extend(self.store.ill().into_iter().map(ill));
        replicas.sort_by_key(|replica| replica.volume);
        Ok(StoreReport {
            id: self.id,
            labels: self.labels.clone(),
            available_bytes: fs.available_bytes(dir)?,
            reserve_bytes: self.store.options().disk_reserve_bytes,
            volume_bytes_max: self.store.options().volumes.volume_bytes_max,
            replicas,
            damaged: self.watch.damaged().into_iter().map(|(volume, key)| (volume, key.0)).collect(),
        })
    }

    async fn create_replica(&self, volume: VolumeId, filling: bool) -> Result<u64> {
        if filling && self.store.named(volume).is_err() {
            self.store.check_disk()?;
            let (fs, dir) = self.store.dir();
            let marker = self.marker(volume);
            if !fs.exists(&marker)? {
                fs.create(&marker)?;
                fs.sync_dir(dir)?;
            }
            self.filling.write().insert(volume);
        }
        let created = self.store.create_named(volume).await?;
        Ok(created.core().superblock().physical_volume)
    }

    async fn finish_filling(&self, volume: VolumeId) -> Result<()> {
        self.store.named(volume)?;
        self.remove_marker(volume)
    }

    async fn remove_replica(&self, volume: VolumeId, physical: u64) -> Result<()> {
        let found = match self.store.named(volume) {
            Ok(found) => found.core().superblock().physical_volume,
            Err(Error::VolumeIll { .. }) => 0,
            Err(error) => return Err(error),
        };
        if found != physical {
            return Err(Error::NoReplica { volume });
        }
        let store = Arc::clone(&self.store);
        let removed = tokio::task::spawn_blocking(move || store.remove_named(volume)).await;
        removed.map_err(|_| Error::Closing)??;
        self.remove_marker(volume)
    }

    async fn append(&self, volume: VolumeId, photos: &[PhotoNeedles], purpose: Purpose) -> Result<u64> {
        self.store.check_disk()?;
        let volume = self.store.named(volume)?;
        volume.core().resume_if_full();
        // All wait at once, so they share syncs.
        let appends =
            photos.iter().map(|photo| volume.append(photo.key, photo.cookie, &photo.sizes, purpose));
        join_all(appends).await.into_iter().collect::<Result<()>>()?;
        for photo in photos.iter().filter(|_| purpose == Purpose::Repair) {
            self.watch.forget(volume.core().id(), photo.key);
        }
        Ok(volume.core().tail_offset())
    }

    async fn bury(&self, volume: VolumeId, burials: &[Burial]) -> Result<()> {
        let volume = self.store.named(volume)?;
        let news: Vec<&Burial> =
            burials.iter().filter(|burial| !volume.core().index().is_buried(burial.key)).collect();
        let deletes = news.into_iter().map(|burial| volume.delete(burial.key, burial.cookie));
        let outcome = join_all(deletes).await.into_iter().collect();
        for burial in burials {
            self.watch.forget(volume.core().id(), burial.key);
        }
        outcome
    }

    async fn read(&self, id: &PhotoId, size: PhotoSize) -> Result<Option<StoredNeedle>> {
        self.store.named(id.volume)?;
        self.store.read(id, size).await
    }

    async fn cookie(&self, volume: VolumeId, key: PhotoKey) -> Result<Option<Cookie>> {
        let volume = self.store.named(volume)?;
        self.store.cookie(&volume, key).await
    }

    async fn keys(
        &self,
        volume: VolumeId,
        after: Option<PhotoKey>,
        count_max: usize,
    ) -> Result<Vec<KnownKey>> {
        let volume = self.store.named(volume)?;
        let list = move || volume.core().index().keys_after(after, count_max.min(KEY_COUNT_MAX));
        tokio::task::spawn_blocking(list).await.map_err(|_| Error::Closing)
    }

    async fn photos(&self, volume: VolumeId, keys: &[PhotoKey]) -> Result<Vec<Found>> {
        let volume = self.store.named(volume)?;
        let mut found = Vec::new();
        let mut data_bytes = 0;
        for key in keys.iter().take(KEY_COUNT_MAX) {
            let photo = self.photo(&volume, *key).await?;
            if let Found::Photo(photo) = &photo {
                data_bytes += photo.data_bytes();
            }
            found.push(photo);
            if data_bytes >= COPY_BYTES {
                break;
            }
        }
        Ok(found)
    }

    async fn seal(&self, volume: VolumeId) -> Result<()> {
        self.store.named(volume)?.core().seal();
        Ok(())
    }

    async fn probe(&self, volume: VolumeId) -> Result<()> {
        let volume = self.store.named(volume)?;
        let some = volume.core().index().some_key();
        let Some(found) = some.and_then(|key| volume.locate_all(key).into_iter().next()) else {
            return Ok(());
        };
        match self.store.read_found(&volume, found).await {
            // The volume answers; one bad needle is the scrub's.
            Ok(_) | Err(Error::Damaged { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
