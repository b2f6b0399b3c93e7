//! What operators see of stores and logical volumes, and what they can change.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::Serialize;

use super::catalog::Catalog;
use super::health::Condition;
use super::level::Levelled;
use super::{LogicalVolumes, Repair};
use crate::error::{Error, Result};
use crate::photo_id::{PhotoKey, VolumeId};
use crate::stores::ReplicaReport;
use crate::stores::identity::StoreId;

/// Finished refills that are remembered.
const FINISHED_COUNT_MAX: usize = 32;
/// Photos that could not be repaired, as far as they are named.
const UNREPAIRED_COUNT_MAX: usize = 1000;

/// A replica that is being made, or was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RefillProgress {
    /// The store that it is made on.
    pub address: String,
    /// Photos that it is to have, about.
    pub photo_count: u64,
    /// Photos copied so far.
    pub copied_count: u64,
    /// Bytes of them.
    pub copied_bytes: u64,
    /// When it was begun, ms since 1970.
    pub started_ms: u64,
    /// When it ended, ms since 1970; none while it is made.
    pub ended_ms: Option<u64>,
    /// What it failed with; it is then begun again.
    pub failure: Option<String>,
}

impl RefillProgress {
    /// One that begins at `started_ms`.
    pub fn new(address: String, photo_count: u64, started_ms: u64) -> Self {
        let (ended_ms, failure) = (None, None);
        Self { address, photo_count, copied_count: 0, copied_bytes: 0, started_ms, ended_ms, failure }
    }

    pub(super) fn take(&mut self, levelled: &Levelled) {
        self.copied_count = levelled.copied_count;
        self.copied_bytes = levelled.copied_bytes;
    }
}

/// What goes on in the background.
#[derive(Debug, Default)]
pub struct Progress {
    pub(super) refills: BTreeMap<VolumeId, RefillProgress>,
    finished: VecDeque<(VolumeId, RefillProgress)>,
    compared_ms: BTreeMap<VolumeId, u64>,
    unrepaired: BTreeSet<(VolumeId, PhotoKey)>,
    repaired_count: u64,
    /// When repairs that stores asked for were last tried, ms since 1970.
    tried_ms: BTreeMap<Repair, u64>,
}

impl Progress {
    /// Whether `repair` has not been tried within `period`; it counts as tried then.
    pub(super) fn may_try(&mut self, repair: Repair, period: Duration, now_ms: u64) -> bool {
        let is_over = |tried_ms: u64| u128::from(now_ms.saturating_sub(tried_ms)) >= period.as_millis();
        self.tried_ms.retain(|_, tried_ms| !is_over(*tried_ms));
        let may = self.tried_ms.len() < UNREPAIRED_COUNT_MAX && !self.tried_ms.contains_key(&repair);
        if may {
            self.tried_ms.insert(repair, now_ms);
        }
        may
    }

    /// The volume of `volumes` that has waited longest for a comparison, if one
    /// is due.
    pub(super) fn next_due(
        &mut self,
        volumes: impl Iterator<Item = VolumeId>,
        period: Duration,
        now_ms: u64,
    ) -> Option<VolumeId> {
        let waited = volumes.map(|volume| (self.compared_ms.get(&volume).copied(), volume)).min()?;
        match waited {
            (None, volume) => Some(volume),
            (Some(compared_ms), volume) => {
                (u128::from(now_ms.saturating_sub(compared_ms)) >= period.as_millis()).then_some(volume)
            }
        }
    }

    /// Something happened after which any replicas may differ.
    pub(super) fn doubt_all(&mut self) {
        self.compared_ms.clear();
    }

    /// Something happened after which the replicas of `volume` may differ.
    pub(super) fn doubt(&mut self, volume: VolumeId) {
        self.compared_ms.remove(&volume);
    }

    pub(super) fn compared(&mut self, volume: VolumeId, levelled: Levelled, now_ms: u64) {
        if levelled.lost_count == 0 {
            self.unrepaired.retain(|(other, _)| *other != volume);
        }
        self.compared_ms.insert(volume, now_ms);
    }

    pub(super) fn finish_refill(
        &mut self,
        volume: VolumeId,
        error: Option<&Error>,
        now_ms: u64,
    ) -> Option<RefillProgress> {
        let mut refill = self.refills.remove(&volume)?;
        refill.ended_ms = Some(now_ms);
        refill.failure = error.map(ToString::to_string);
        self.finished.push_back((volume, refill.clone()));
        if self.finished.len() > FINISHED_COUNT_MAX {
            self.finished.pop_front();
        }
        Some(refill)
    }

    pub(super) fn repaired(&mut self, volume: VolumeId, key: PhotoKey) {
        self.repaired_count += 1;
        self.unrepaired.remove(&(volume, key));
    }

    pub(super) fn unrepaired(&mut self, volume: VolumeId, key: PhotoKey) {
        if self.unrepaired.len() < UNREPAIRED_COUNT_MAX {
            self.unrepaired.insert((volume, key));
        }
    }
}

/// A replica for operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReplicaStatus {
    /// The store's number.
    pub store: StoreId,
    /// Where it is, if it is anywhere.
    pub address: Option<String>,
    /// How the store is doing.
    pub condition: &'static str,
    /// Whether the replica belongs to the volume, or is only being made or left.
    pub member: bool,
    /// What the store told of it.
    pub report: Option<ReplicaReport>,
}

/// A logical volume for operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VolumeStatus {
    /// Its number.
    pub volume: VolumeId,
    /// Whether it takes photos.
    pub writable: bool,
    /// Why not, if it does not.
    pub reason: Option<String>,
    /// Photos in it, by the replica that has most.
    pub photo_count: u64,
    /// Bytes of them.
    pub live_bytes: u64,
    /// Length of its largest replica, bytes.
    pub volume_bytes: u64,
    /// Replicas that it is to have.
    pub replica_count: usize,
    /// Its replicas, and others that are there.
    pub replicas: Vec<ReplicaStatus>,
    /// Tombstones that some of its replicas lack.
    pub debt_count: usize,
    /// A replica that is being made.
    pub refill: Option<RefillProgress>,
    /// Photos that no replica had whole, when it was tried last.
    pub unrepaired: Vec<String>,
    /// When its replicas were last compared, ms since 1970.
    pub compared_ms: Option<u64>,
}

/// A store for operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoreStatus {
    /// Where it is.
    pub address: String,
    /// Its number, once it has told it.
    pub store: Option<StoreId>,
    /// Its labels.
    pub labels: String,
    /// How it is doing.
    pub condition: &'static str,
    /// What it last failed with.
    pub complaint: Option<String>,
    /// Whether an operator keeps photos from it.
    pub read_only: bool,
    /// Whether its disk is full.
    pub full: bool,
    /// Bytes that its disk has free.
    pub available_bytes: u64,
    /// Replicas on it.
    pub replica_count: usize,
    /// Photos on it.
    pub photo_count: u64,
    /// Bytes of its volumes.
    pub volume_bytes: u64,
    /// Tombstones that it lacks.
    pub debt_count: usize,
}

/// Everything for operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReplicationStatus {
    /// The stores.
    pub stores: Vec<StoreStatus>,
    /// The logical volumes.
    pub volumes: Vec<VolumeStatus>,
    /// Replicas that were made lately, oldest first.
    pub finished_refills: Vec<(VolumeId, RefillProgress)>,
    /// Needles repaired since the start.
    pub repaired_count: u64,
}

impl LogicalVolumes {
    /// What there is and what goes on.
    pub fn status(&self) -> ReplicationStatus {
        let (catalog, progress) = (self.catalog.read(), self.progress.lock());
        let announced = catalog.stores.iter().filter_map(|entry| entry.report.as_ref());
        let announced = announced.flat_map(|report| &report.replicas).map(|replica| replica.volume);
        let volumes: BTreeSet<VolumeId> = catalog.volumes.keys().copied().chain(announced).collect();
        ReplicationStatus {
            stores: (0..catalog.stores.len()).map(|place| store_status(&catalog, place)).collect(),
            volumes: volumes.into_iter().map(|volume| volume_status(&catalog, &progress, volume)).collect(),
            finished_refills: progress.finished.iter().cloned().collect(),
            repaired_count: progress.repaired_count,
        }
    }

    /// Brings the gauges of stores and logical volumes up to date.
    pub fn publish_gauges(&self) {
        let status = self.status();
        for store in &status.stores {
            metrics::gauge!("hayloft_haystack_store_well", "store" => store.address.clone())
                .set(f64::from(u8::from(store.condition == Condition::Well.name())));
            gauge("hayloft_haystack_store_available_bytes", &store.address, store.available_bytes);
            gauge("hayloft_haystack_store_tombstones_owed", &store.address, store.debt_count as u64);
        }
        let count = |of: &dyn Fn(&VolumeStatus) -> bool| {
            status.volumes.iter().filter(|volume| of(volume)).count() as u64
        };
        for (state, value) in [
            ("writable", count(&|volume| volume.writable)),
            ("read-only", count(&|volume| !volume.writable)),
            ("refilled", count(&|volume| volume.refill.is_some())),
            ("unrepaired", count(&|volume| !volume.unrepaired.is_empty())),
        ] {
            #[expect(clippy::cast_precision_loss, reason = "gauges are floating point")]
            metrics::gauge!("hayloft_haystack_logical_volumes", "state" => state).set(value as f64);
        }
    }

    /// Keeps photos from `volume`, or lets it take them again.
    ///
    /// # Errors
    ///
    /// [`Error::NoReplica`]: there is no such volume. [`Error::DirectoryAway`], [`Error::Directory`]
    pub async fn set_volume_read_only(&self, volume: VolumeId, read_only: bool) -> Result<()> {
        let record = {
            let mut catalog = self.catalog.write();
            let logical = catalog.volumes.get_mut(&volume).ok_or(Error::NoReplica { volume })?;
            logical.record.read_only = read_only;
            logical.record.clone()
        };
        self.ledger.put_volume(volume, &record).await
    }

    /// Keeps photos from the store that `name` names, an address or a number, or
    /// lets it take them again; whether there is such a store.
    ///
    /// # Errors
    ///
    /// [`Error::DirectoryAway`], [`Error::Directory`]
    pub async fn set_store_read_only(&self, name: &str, read_only: bool) -> Result<bool> {
        let id = {
            let mut catalog = self.catalog.write();
            let named = |address: &str, id: StoreId| {
                address == name || address.strip_prefix("http://") == Some(name) || id.to_string() == name
            };
            let id =
                catalog.stores.iter().find_map(|entry| entry.id().filter(|id| named(&entry.address, *id)));
            let Some(id) = id else { return Ok(false) };
            match read_only {
                true => catalog.read_only_stores.insert(id),
                false => catalog.read_only_stores.remove(&id),
            };
            id
        };
        self.ledger.put_store(id, read_only).await?;
        Ok(true)
    }
}

fn gauge(name: &'static str, store: &str, value: u64) {
    #[expect(clippy::cast_precision_loss, reason = "gauges are floating point")]
    metrics::gauge!(name, "store" => store.to_owned()).set(value as f64);
}

fn store_status(catalog: &Catalog, place: usize) -> StoreStatus {
    let entry = &catalog.stores[place];
    let report = entry.report.as_ref();
    let replicas = report.map(|report| report.replicas.as_slice()).unwrap_or_default();
    let owes = |id: StoreId| catalog.debts.values().filter(|debt| debt.stores.contains(&id)).count();
    StoreStatus {
        address: entry.address.clone(),
        store: entry.id(),
        labels: report.map(|report| report.labels.to_string()).unwrap_or_default(),
        condition: entry.health.condition().name(),
        complaint: entry.health.complaint().map(str::to_owned),
        read_only: entry.id().is_some_and(|id| catalog.read_only_stores.contains(&id)),
        full: report.is_some_and(|report| report.is_full()),
        available_bytes: report.map_or(0, |report| report.available_bytes),
        replica_count: replicas.len(),
        photo_count: replicas.iter().map(|replica| replica.photo_count).sum(),
        volume_bytes: replicas.iter().map(|replica| replica.volume_bytes).sum(),
        debt_count: entry.id().map_or(0, owes),
    }
}

fn volume_status(catalog: &Catalog, progress: &Progress, volume: VolumeId) -> VolumeStatus {
    let record = catalog.volumes.get(&volume).map(|logical| &logical.record);
    let members = record.map(|record| record.members.clone()).unwrap_or_default();
    let mut replicas: Vec<ReplicaStatus> = catalog
        .stores
        .iter()
        .filter_map(|entry| {
            let id = entry.id()?;
            let report = entry.report.as_ref()?.replica(volume).cloned();
            (report.is_some() || members.contains(&id)).then(|| ReplicaStatus {
                store: id,
                address: Some(entry.address.clone()),
                condition: entry.health.condition().name(),
                member: members.contains(&id),
                report,
            })
        })
        .collect();
    let gone = members.iter().filter(|member| !replicas.iter().any(|replica| replica.store == **member));
    let gone: Vec<ReplicaStatus> = gone
        .map(|member| ReplicaStatus {
            store: *member,
            address: None,
            condition: "gone",
            member: true,
            report: None,
        })
        .collect();
    replicas.extend(gone);
    let reports = || replicas.iter().filter_map(|replica| replica.report.as_ref());
    let reason = catalog.read_only_reason(volume);
    let keys = |volume| (volume, PhotoKey(0))..=(volume, PhotoKey(u64::MAX));
    VolumeStatus {
        volume,
        writable: reason.is_none(),
        reason,
        photo_count: reports().map(|report| report.photo_count).max().unwrap_or(0),
        live_bytes: reports().map(|report| report.live_bytes).max().unwrap_or(0),
        volume_bytes: reports().map(|report| report.volume_bytes).max().unwrap_or(0),
        replica_count: record.map_or(catalog.replica_count, |record| record.replica_count),
        debt_count: catalog.debts.range(keys(volume)).count(),
        refill: progress.refills.get(&volume).cloned(),
        unrepaired: progress
            .unrepaired
            .range(keys(volume))
            .map(|(_, key)| format!("{:016x}", key.0))
            .collect(),
        compared_ms: progress.compared_ms.get(&volume).copied(),
        replicas,
    }
}
