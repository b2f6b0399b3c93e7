//! Photos into every replica of a logical volume, or of another one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use super::LogicalVolumes;
use super::catalog::{Catalog, Replica};
use super::ledger::VolumeRecord;
use crate::error::{Error, Result};
use crate::media_type::MediaType;
use crate::needle::DATA_BYTES_MAX;
use crate::photo_id::{Cookie, PhotoId, PhotoKey, PhotoSize, VolumeId};
use crate::stores::identity::StoreId;
use crate::stores::{PhotoNeedles, ReplicaReport, ReplicaState};
use crate::writer::Purpose;

/// Volumes that one photo is tried in.
const ATTEMPT_COUNT_MAX: usize = 4;
/// Bytes of a photo for which a store gets a second more.
const BYTES_PER_S: u64 = 4 << 20;

impl LogicalVolumes {
    /// Stores `sizes` of a new photo, given largest first, and returns its id.
    ///
    /// # Durability
    ///
    /// Every replica of its volume has synced all sizes when this returns.
    ///
    /// # Cancel safety
    ///
    /// If dropped, the photo may have become durable under an id that nobody knows.
    ///
    /// # Errors
    ///
    /// - [`Error::DirectoryAway`]: nothing was written.
    /// - [`Error::TooFewStores`], [`Error::DiskFull`]: no volume took it, and no
    ///   further one can be made.
    /// - [`Error::TooLarge`]
    pub async fn append(self: &Arc<Self>, sizes: &[(PhotoSize, MediaType, Bytes)]) -> Result<PhotoId> {
        let limit_bytes = u64::from(DATA_BYTES_MAX);
        if let Some((_, _, data)) = sizes.iter().find(|(_, _, data)| data.len() as u64 > limit_bytes) {
            return Err(Error::TooLarge { found_bytes: data.len() as u64, limit_bytes });
        }
        if !self.is_ready() {
            return Err(Error::DirectoryAway);
        }
        let photo = PhotoNeedles {
            key: self.next_key(),
            cookie: Cookie((self.surroundings.random)()),
            sizes: sizes.to_vec(),
        };
        // A client that goes leaves a whole photo behind, or none.
        let volumes = Arc::clone(self);
        tokio::spawn(async move { volumes.place(&photo).await }).await.map_err(|_| Error::Closing)?
    }

    /// A key above every key given out before, in this life or an earlier one.
    fn next_key(&self) -> PhotoKey {
        let now = PhotoKey::first_at(self.now_ms()).0.max(self.catalog.read().key_max() + 1);
        let update = |last: u64| Some(now.max(last + 1));
        let last = self.last_key.fetch_update(Ordering::AcqRel, Ordering::Acquire, update);
        PhotoKey(now.max(last.expect("the update always gives a value") + 1))
    }

    async fn place(&self, photo: &PhotoNeedles) -> Result<PhotoId> {
        let mut attempt = 1;
        loop {
            let members = self.members.read().await;
            let (volume, replicas) = self.write_enabled_volume().await?;
            self.in_flight.lock().insert(photo.key);
            let outcome = self.write_all(volume, &replicas, photo).await;
            self.in_flight.lock().remove(&photo.key);
            drop(members);
            match outcome {
                Ok(()) => return Ok(PhotoId { volume, key: photo.key, cookie: photo.cookie }),
                Err(error) if attempt == ATTEMPT_COUNT_MAX => return Err(error),
                Err(_) => attempt += 1,
            }
        }
    }

    /// Writes `photo` to all of `replicas` at once. If one fails the volume takes
    /// no more photos, and what was written is owed a tombstone.
    async fn write_all(&self, volume: VolumeId, replicas: &[Replica], photo: &PhotoNeedles) -> Result<()> {
        let patience = self.options.write_patience + Duration::from_secs(photo.data_bytes() / BYTES_PER_S);
        let writes = replicas.iter().map(|replica| {
            let write = replica.store.append(volume, std::slice::from_ref(photo), Purpose::Upload);
            self.ask(replica, patience, write)
        });
        let outcomes = join_all(writes).await;
        let mut failures = Vec::new();
        let mut sealed = false;
        // Who says that the volume takes nothing has written nothing.
        let mut written = BTreeSet::new();
        for (replica, outcome) in replicas.iter().zip(&outcomes) {
            match outcome {
                Ok(volume_bytes) => {
                    written.insert(replica.id);
                    sealed |= self.has_its_size(replica, *volume_bytes);
                }
                Err(error) => {
                    sealed |= matches!(error, Error::Sealed { .. });
                    if !matches!(
                        error,
                        Error::Sealed { .. } | Error::DiskFull { .. } | Error::NoReplica { .. }
                    ) {
                        written.insert(replica.id);
                    }
                    self.amend(replica, volume, error);
                    failures.push((replica, error.clone()));
                }
            }
        }
        if sealed {
            self.seal(volume).await;
        }
        let Some((replica, error)) = failures.into_iter().next() else { return Ok(()) };
        self.withdraw(volume, photo, written, &format!("a write failed at store {}: {error}", replica.id))
            .await;
        Err(error)
    }

    fn has_its_size(&self, replica: &Replica, volume_bytes: u64) -> bool {
        let catalog = self.catalog.read();
        let report = catalog.stores[replica.place].report.as_ref();
        report.is_some_and(|report| volume_bytes >= report.volume_bytes_max)
    }

    /// What `error` tells of a replica is known before its store's next report.
    fn amend(&self, replica: &Replica, volume: VolumeId, error: &Error) {
        let mut catalog = self.catalog.write();
        let Some(report) = catalog.stores[replica.place].report.as_mut() else { return };
        let known = report.replicas.iter_mut().find(|known| known.volume == volume);
        match (error, known) {
            (Error::Poisoned { .. } | Error::Io(_), Some(known)) => known.state = ReplicaState::Poisoned,
            (Error::Sealed { .. }, Some(known)) => known.state = ReplicaState::Sealed,
            (Error::VolumeIll { .. }, Some(known)) => known.state = ReplicaState::Ill,
            (Error::NoReplica { .. }, Some(_)) => report.replicas.retain(|known| known.volume != volume),
            (Error::DiskFull { available_bytes, .. }, _) => {
                report.available_bytes = (*available_bytes).min(report.reserve_bytes);
            }
            _ => {}
        }
    }

    async fn seal(&self, volume: VolumeId) {
        let record = {
            let mut catalog = self.catalog.write();
            let Some(logical) = catalog.volumes.get_mut(&volume).filter(|logical| !logical.record.sealed)
            else {
                return;
            };
            logical.record.sealed = true;
            logical.record.clone()
        };
        tracing::info!(%volume, "a logical volume has its size");
        if let Err(error) = self.ledger.put_volume(volume, &record).await {
            // Its stores seal it too, and the next write that they refuse tries again.
            tracing::warn!(%volume, %error, "it is not written down that the volume has its size");
        }
    }

    async fn withdraw(
        &self,
        volume: VolumeId,
        photo: &PhotoNeedles,
        written: BTreeSet<StoreId>,
        reason: &str,
    ) {
        metrics::counter!("hayloft_haystack_replica_write_failures_total").increment(1);
        tracing::warn!(%volume, reason, "a photo goes to another logical volume");
        if written.is_empty() {
            return;
        }
        let debts = {
            let mut catalog = self.catalog.write();
            if let Some(logical) = catalog.volumes.get_mut(&volume) {
                logical.failed_write = Some(reason.to_owned());
            }
            catalog.owe((volume, photo.key), photo.cookie, written);
            catalog.debts.get(&(volume, photo.key)).map(|debt| ((volume, photo.key), debt.clone()))
        };
        self.settle.notify_one();
        if let Err(error) = self.ledger.put_debts(&debts.into_iter().collect()).await {
            // Nobody knows the id: at worst, after a restart, the photo stays as garbage.
            tracing::warn!(%volume, %error, "the tombstone of a failed write is not written down");
        }
    }

    /// A volume that takes photos, each in turn, and its replicas.
    async fn write_enabled_volume(&self) -> Result<(VolumeId, Vec<Replica>)> {
        if let Some(chosen) = self.choose(self.wanted_count()) {
            return Ok(chosen);
        }
        let _creating = self.creating.lock().await;
        // Whoever held the lock before may have left one.
        if let Some(chosen) = self.choose(self.wanted_count()) {
            return Ok(chosen);
        }
        match self.create_volume().await {
            Ok(()) => self.choose(1).ok_or(Error::TooFewStores {
                well_count: self.catalog.read().site_count(),
                replica_count: self.options.replica_count,
            }),
            // One is better than none.
            Err(error) => self.choose(1).ok_or(error),
        }
    }

    /// As many volumes as give each store that is well a place in one.
    fn wanted_count(&self) -> usize {
        let site_count = self.catalog.read().site_count();
        self.options.write_enabled_count.max(site_count / self.options.replica_count)
    }

    fn choose(&self, wanted_count: usize) -> Option<(VolumeId, Vec<Replica>)> {
        let catalog = self.catalog.read();
        let writable = catalog.writable();
        if writable.len() < wanted_count.max(1) {
            return None;
        }
        let volume = writable[self.turn.fetch_add(1, Ordering::Relaxed) % writable.len()];
        let members = &catalog.volumes.get(&volume)?.record.members;
        let replicas: Option<Vec<Replica>> = members.iter().map(|member| catalog.store(*member)).collect();
        Some((volume, replicas?))
    }

    /// Makes a logical volume on stores that are well; on others if one of them
    /// fails.
    async fn create_volume(&self) -> Result<()> {
        let mut failed = BTreeSet::new();
        loop {
            let (volume, replicas) = {
                let catalog = self.catalog.read();
                let placed = catalog.place_new(&failed);
                (catalog.next_volume(), placed.ok_or_else(|| self.no_place(&catalog))?)
            };
            self.catalog.write().generation += 1;
            let creations = replicas.iter().map(|replica| {
                let creation = replica.store.create_replica(volume, false);
                self.ask(replica, self.options.write_patience, creation)
            });
            let outcomes = join_all(creations).await;
            let outcome: Result<Vec<u64>> = outcomes.iter().cloned().collect();
            match outcome {
                Ok(physicals) => return self.publish_volume(volume, &replicas, &physicals).await,
                Err(error) => {
                    tracing::warn!(%volume, %error, "a logical volume is not made where it was to be");
                }
            }
            for (replica, outcome) in replicas.iter().zip(outcomes) {
                match outcome {
                    Ok(physical) => self.remove_new(volume, replica, physical).await,
                    Err(_) => drop(failed.insert(replica.place)),
                }
            }
        }
    }

    fn no_place(&self, catalog: &Catalog) -> Error {
        if let Some((available_bytes, reserve_bytes)) = catalog.full_disk() {
            return Error::DiskFull { available_bytes, reserve_bytes };
        }
        Error::TooFewStores { well_count: catalog.site_count(), replica_count: self.options.replica_count }
    }

    async fn remove_new(&self, volume: VolumeId, replica: &Replica, physical: u64) {
        let removal = replica.store.remove_replica(volume, physical);
        if let Err(error) = self.ask(replica, self.options.write_patience, removal).await {
            tracing::warn!(%volume, %error, "an empty replica is left behind");
        }
    }

    /// Writes down a volume whose replicas are made, and lets it take photos.
    async fn publish_volume(&self, volume: VolumeId, replicas: &[Replica], physicals: &[u64]) -> Result<()> {
        let record = VolumeRecord {
            replica_count: replicas.len(),
            members: replicas.iter().map(|replica| replica.id).collect(),
            sealed: false,
            read_only: false,
        };
        self.ledger.put_volume(volume, &record).await?;
        let mut catalog = self.catalog.write();
        for (replica, physical) in replicas.iter().zip(physicals) {
            let Some(report) = catalog.stores[replica.place].report.as_mut() else { continue };
            if report.replica(volume).is_none() {
                report.replicas.push(new_replica(volume, *physical, false));
            }
        }
        catalog.generation += 1;
        catalog.insert(volume, record);
        tracing::info!(%volume, replicas = ?replicas.iter().map(|replica| replica.id).collect::<Vec<_>>(), "a logical volume is made");
        Ok(())
    }
}

/// What a store will tell of a replica that was just made.
pub(super) fn new_replica(volume: VolumeId, physical: u64, filling: bool) -> ReplicaReport {
    ReplicaReport {
        volume,
        physical,
        filling,
        state: ReplicaState::WriteEnabled,
        volume_bytes: 0,
        live_bytes: 0,
        photo_count: 0,
        key_max: 0,
    }
}
