//! Which volumes a store has: which of them a photo goes to, how one is made
//! and removed, and whether the disk has room for more.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vfs::FileSystem;

use super::{Store, StoreOptions};
use crate::error::{Error, Result};
use crate::photo_id::VolumeId;
use crate::superblock::Superblock;
use crate::volume::{Volume, VolumeState, volume_path};

impl Store {
    pub(super) async fn write_enabled_volume(&self) -> Result<Arc<Volume>> {
        if let Some(volume) = self.choose() {
            return Ok(volume);
        }
        let _creating = self.creating.lock().await;
        // Whoever held the lock before may have left one.
        match self.choose() {
            Some(volume) => Ok(volume),
            None => self.create_next_volume().await,
        }
    }

    /// A write-enabled volume, each in turn; none if there are fewer than wanted.
    fn choose(&self) -> Option<Arc<Volume>> {
        let volumes = self.volumes.read();
        let enabled = |volume: &&Arc<Volume>| {
            matches!(volume.core().state(), VolumeState::WriteEnabled | VolumeState::Full)
        };
        // A compaction may have enabled more than are wanted: their turn comes later.
        let count = self.options.write_enabled_count;
        if volumes.values().filter(enabled).take(count).count() < count {
            return None;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % count;
        let volume = Arc::clone(volumes.values().filter(enabled).nth(turn)?);
        // The disk was checked: it has room again.
        volume.core().resume_if_full();
        Some(volume)
    }

    async fn create_next_volume(&self) -> Result<Arc<Volume>> {
        let id = {
            let volumes = self.volumes.read();
            let ill = self.ill.read();
            let last = volumes.keys().chain(ill.keys()).max();
            VolumeId(last.map_or(1, |last| last.0 + 1))
        };
        self.create_volume(id).await
    }

    /// Creates the volume `id`, for whoever places replicas.
    ///
    /// # Errors
    ///
    /// - [`Error::ReplicaExists`]: it is untouched.
    /// - [`Error::DiskFull`], [`Error::Io`]: it is not there.
    pub(crate) async fn create_named(&self, id: VolumeId) -> Result<Arc<Volume>> {
        self.check_disk()?;
        let _creating = self.creating.lock().await;
        if self.volumes.read().contains_key(&id) || self.ill.read().contains_key(&id) {
            return Err(Error::ReplicaExists { volume: id });
        }
        self.create_volume(id).await
    }

    /// Takes the volume `id` out and removes its files; reads that have begun
    /// are finished. Blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]: files may be left, and are found at the next start.
    pub(crate) fn remove_named(&self, id: VolumeId) -> Result<()> {
        let removed = self.volumes.write().remove(&id);
        let was_ill = self.ill.write().remove(&id).is_some();
        if let Some(volume) = &removed {
            volume.close();
        }
        if removed.is_some() || was_ill {
            let path = volume_path(&self.dir, id);
            self.fs.remove(&path)?;
            let index_path = path.with_extension("index");
            if self.fs.exists(&index_path)? {
                self.fs.remove(&index_path)?;
            }
            self.fs.sync_dir(&self.dir)?;
        }
        Ok(())
    }

    /// The volume `id`.
    ///
    /// # Errors
    ///
    /// [`Error::NoReplica`], [`Error::VolumeIll`]
    pub(crate) fn named(&self, id: VolumeId) -> Result<Arc<Volume>> {
        self.volume(id)?.ok_or(Error::NoReplica { volume: id })
    }

    /// Each volume that is served, in the order of their numbers.
    pub(crate) fn served(&self) -> Vec<Arc<Volume>> {
        self.volumes.read().values().cloned().collect()
    }

    /// Volumes whose files cannot be served.
    pub(crate) fn ill(&self) -> Vec<VolumeId> {
        self.ill.read().keys().copied().collect()
    }

    /// Where it lies.
    pub(crate) fn dir(&self) -> (&dyn FileSystem, &Path) {
        (&*self.fs, &self.dir)
    }

    /// What it was told.
    pub(crate) fn options(&self) -> &StoreOptions {
        &self.options
    }

    async fn create_volume(&self, id: VolumeId) -> Result<Arc<Volume>> {
        let superblock = Superblock {
            logical_volume: id,
            physical_volume: (self.surroundings.random)(),
            created_ms: (self.surroundings.now_ms)(),
        };
        let (fs, dir) = (Arc::clone(&self.fs), self.dir.clone());
        let (options, overseer) = (self.options.volumes, Arc::clone(&self.surroundings.overseer));
        let create = move || Volume::create(&fs, &dir, superblock, options, overseer);
        let created = tokio::task::spawn_blocking(create).await.map_err(|_| Error::Closing)?;
        let volume = Arc::new(created.map_err(|error| self.name_full_disk(error))?);
        tracing::info!(volume = %id, "a volume is created");
        self.volumes.write().insert(id, Arc::clone(&volume));
        Ok(volume)
    }

    /// Refuses photos while the disk's reserve is all that is left.
    pub(crate) fn check_disk(&self) -> Result<()> {
        let available_bytes = self.fs.available_bytes(&self.dir)?;
        let reserve_bytes = self.options.disk_reserve_bytes;
        if available_bytes < reserve_bytes {
            return Err(Error::DiskFull { available_bytes, reserve_bytes });
        }
        Ok(())
    }

    pub(super) fn disk_full(&self) -> Error {
        let available_bytes = self.fs.available_bytes(&self.dir).unwrap_or(0);
        Error::DiskFull { available_bytes, reserve_bytes: self.options.disk_reserve_bytes }
    }

    pub(super) fn name_full_disk(&self, error: Error) -> Error {
        match &error {
            Error::Io(cause) if cause.kind() == std::io::ErrorKind::StorageFull => self.disk_full(),
            _ => error,
        }
    }
}
