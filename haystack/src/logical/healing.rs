//! What goes on in the background: debts are paid, lost replicas are made anew
//! from others (Haystack's bulk sync), replicas are compared, single needles are
//! repaired.
//!
//! A replica is made in these steps; a crash after any of them is taken up by
//! the next start:
//!
//! | step | what | what a crash after it leaves |
//! |------|------|------------------------------|
//! | 1 | an empty replica that says it is being filled | it, to be filled on |
//! | 2 | photos and tombstones are copied, some at a time | it, to be filled on |
//! | 3 | it is written down as a member | a member that says it is being filled: filled on |
//! | 4 | it says no more that it is being filled | a complete member |
//!
//! While it is filled its volume takes no photos, and deletes go to it too.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::catalog::{Catalog, Refill, Replica};
use super::ledger::VolumeRecord;
use super::status::RefillProgress;
use super::write::new_replica;
use super::{LogicalVolumes, Repair};
use crate::error::Result;
use crate::photo_id::VolumeId;
use crate::writer::Purpose;

/// Time for the steps that move no photos.
const STEP_PATIENCE: Duration = Duration::from_secs(30);

impl LogicalVolumes {
    /// Pays debts, takes in volumes that only stores know, and removes replicas
    /// that nobody needs, for ever.
    pub(super) async fn settle_always(&self) {
        loop {
            // Whatever wakes it is looked for at each turn anyway.
            let _ = tokio::time::timeout(self.options.probe_period, self.settle.notified()).await;
            self.settle_once().await;
        }
    }

    pub(super) async fn settle_once(&self) {
        let well: Vec<usize> = {
            let catalog = self.catalog.read();
            let places = 0..catalog.stores.len();
            places.filter(|place| catalog.stores[*place].health.is_well()).collect()
        };
        for place in well {
            if let Err(error) = self.pay_debts(place).await {
                tracing::warn!(%error, "tombstones stay owed");
            }
        }
        if let Err(error) = self.adopt().await {
            tracing::warn!(%error, "a volume that stores announce is not written down yet");
        }
        self.remove_leftovers().await;
    }

    /// Writes down volumes that only stores know of: their own, before they
    /// served here, or those of a directory that was lost.
    async fn adopt(&self) -> Result<()> {
        let now_ms = self.now_ms();
        // One that is being made is nobody's stranger.
        let Ok(_creating) = self.creating.try_lock() else { return Ok(()) };
        let strangers = self.catalog.read().strangers(self.options.replace_after, now_ms);
        for (volume, members) in strangers {
            let replica_count = self.options.replica_count;
            let record = VolumeRecord { replica_count, members, sealed: false, read_only: false };
            self.ledger.put_volume(volume, &record).await?;
            tracing::info!(%volume, members = ?record.members, "a volume that stores announce is taken in");
            self.catalog.write().insert(volume, record);
        }
        Ok(())
    }

    async fn remove_leftovers(&self) {
        let leftovers = self.catalog.read().leftovers();
        for leftover in leftovers {
            let (volume, replica) = (leftover.volume, &leftover.replica);
            self.catalog.write().generation += 1;
            let removal = replica.store.remove_replica(volume, leftover.physical);
            match self.ask(replica, STEP_PATIENCE, removal).await {
                Ok(()) => {
                    tracing::info!(%volume, store = %replica.id, "a replica that is not needed is removed");
                }
                Err(error) => tracing::warn!(%volume, %error, "a replica that is not needed is not removed"),
            }
            self.forget_replica(replica, volume);
        }
    }

    fn forget_replica(&self, replica: &Replica, volume: VolumeId) {
        let mut catalog = self.catalog.write();
        catalog.generation += 1;
        if let Some(report) = &mut catalog.stores[replica.place].report {
            report.replicas.retain(|known| known.volume != volume);
        }
    }

    /// Makes replicas that are missing, and compares others, for ever.
    pub(super) async fn mend_always(&self) {
        loop {
            if !self.mend_once().await {
                tokio::time::sleep(self.options.probe_period).await;
            }
        }
    }

    /// Does what is most urgent; false if nothing was to be done, or it failed.
    pub(super) async fn mend_once(&self) -> bool {
        let now_ms = self.now_ms();
        let refill = {
            let catalog = self.catalog.read();
            catalog.loaded.then(|| catalog.next_refill(self.options.replace_after, now_ms)).flatten()
        };
        if let Some(refill) = refill {
            return self.refill(&refill).await;
        }
        let due = {
            let (catalog, mut progress) = (self.catalog.read(), self.progress.lock());
            let comparable =
                catalog.volumes.keys().copied().filter(|volume| is_comparable(&catalog, *volume));
            progress.next_due(comparable, self.options.compare_period, now_ms)
        };
        match due {
            Some(volume) => self.compare_replicas(volume).await,
            None => false,
        }
    }

    async fn refill(&self, refill: &Refill) -> bool {
        let (volume, target) = (refill.volume, &refill.target);
        {
            let mut catalog = self.catalog.write();
            catalog.generation += 1;
            let Some(logical) = catalog.volumes.get_mut(&volume) else { return false };
            logical.filling = Some(target.id);
        }
        // From here on every write and delete knows of it.
        drop(self.members.write().await);
        let address = self.catalog.read().stores[target.place].address.clone();
        let photo_count = self.photo_count(volume);
        tracing::info!(%volume, address, photo_count, "a replica is being made");
        self.progress.lock().refills.insert(volume, RefillProgress::new(address, photo_count, self.now_ms()));
        let outcome = self.fill(refill).await;
        if let Some(logical) = self.catalog.write().volumes.get_mut(&volume) {
            logical.filling = None;
        }
        let now_ms = self.now_ms();
        let finished = self.progress.lock().finish_refill(volume, outcome.as_ref().err(), now_ms);
        let Some(RefillProgress { copied_count, copied_bytes, started_ms, .. }) = finished else {
            return false;
        };
        let seconds = Duration::from_millis(now_ms.saturating_sub(started_ms)).as_secs_f64();
        match &outcome {
            Ok(()) => tracing::info!(%volume, copied_count, copied_bytes, seconds, "a replica is complete"),
            Err(error) => {
                tracing::warn!(%volume, copied_count, copied_bytes, %error, "a replica is not complete yet");
            }
        }
        outcome.is_ok()
    }

    fn photo_count(&self, volume: VolumeId) -> u64 {
        let catalog = self.catalog.read();
        let reports = catalog.stores.iter().filter_map(|entry| entry.report.as_ref());
        reports
            .filter_map(|report| report.replica(volume))
            .map(|replica| replica.photo_count)
            .max()
            .unwrap_or(0)
    }

    async fn fill(&self, refill: &Refill) -> Result<()> {
        let (volume, target) = (refill.volume, &refill.target);
        let store = Arc::clone(&target.store);
        if let Some(physical) = refill.obsolete {
            self.ask(target, STEP_PATIENCE, store.remove_replica(volume, physical)).await?;
            self.forget_replica(target, volume);
        }
        if !refill.begun {
            let physical = self.ask(target, STEP_PATIENCE, store.create_replica(volume, true)).await?;
            let mut catalog = self.catalog.write();
            catalog.generation += 1;
            if let Some(report) = &mut catalog.stores[target.place].report {
                report.replicas.push(new_replica(volume, physical, true));
            }
        }
        let mut replicas = refill.sources.clone();
        replicas.push(target.clone());
        let levelled = self
            .level(volume, &replicas, |levelled| {
                if let Some(progress) = self.progress.lock().refills.get_mut(&volume) {
                    progress.take(levelled);
                }
            })
            .await?;
        if levelled.lost_count > 0 {
            tracing::error!(%volume, photos = levelled.lost_count, "photos are damaged in every replica");
        }
        let (now_ms, replace_after) = (self.now_ms(), self.options.replace_after);
        let record = self.catalog.read().with_member(volume, target.id, replace_after, now_ms);
        let Some(record) = record else { return Ok(()) };
        self.ledger.put_volume(volume, &record).await?;
        self.ask(target, STEP_PATIENCE, store.finish_filling(volume)).await?;
        let left = {
            let mut catalog = self.catalog.write();
            catalog.generation += 1;
            if let Some(logical) = catalog.volumes.get_mut(&volume) {
                logical.record = record;
                logical.filling = None;
            }
            let report = catalog.stores[target.place].report.as_mut();
            let known =
                report.and_then(|report| report.replicas.iter_mut().find(|known| known.volume == volume));
            if let Some(known) = known {
                known.filling = false;
            }
            catalog.release_debts(volume)
        };
        self.progress.lock().doubt(volume);
        self.ledger.put_debts(&left).await
    }

    /// Compares the replicas of `volume` and gives each what it lacks.
    async fn compare_replicas(&self, volume: VolumeId) -> bool {
        let replicas = self.catalog.read().complete(volume);
        let outcome = self.level(volume, &replicas, |_| ()).await;
        let levelled = match outcome {
            Ok(levelled) => levelled,
            Err(error) => {
                tracing::warn!(%volume, %error, "a comparison of replicas broke off");
                return false;
            }
        };
        if levelled.copied_count + levelled.buried_count + levelled.lost_count > 0 {
            tracing::info!(%volume, ?levelled, "replicas differed");
        }
        let now_ms = self.now_ms();
        self.progress.lock().compared(volume, levelled, now_ms);
        true
    }

    /// Repairs single needles, for ever.
    pub(super) async fn repair_always(&self, mut repairs: mpsc::Receiver<Repair>) {
        while let Some(repair) = repairs.recv().await {
            self.repair(repair).await;
        }
    }

    pub(super) async fn repair(&self, repair: Repair) {
        let Repair { volume, key, place } = repair;
        let replicas = self.catalog.read().complete(volume);
        let Some(target) = replicas.iter().find(|replica| replica.place == place) else { return };
        // Many readers may have found the same.
        if self.undamaged(volume, key, std::iter::once(target)).await.is_some() {
            return;
        }
        let sources = replicas.iter().filter(|replica| replica.place != place && replica.well);
        let Some(photo) = self.undamaged(volume, key, sources).await else {
            tracing::error!(%volume, key = key.0, store = %target.id, "a photo is damaged and no replica in reach has it whole");
            metrics::counter!("hayloft_haystack_unrepaired_total").increment(1);
            return self.progress.lock().unrepaired(volume, key);
        };
        let append = target.store.append(volume, std::slice::from_ref(&photo), Purpose::Repair);
        match self.ask(target, STEP_PATIENCE, append).await {
            Ok(_) => {
                tracing::info!(%volume, key = key.0, store = %target.id, "a photo is repaired from another replica");
                metrics::counter!("hayloft_haystack_repaired_total").increment(1);
                self.progress.lock().repaired(volume, key);
            }
            Err(error) => {
                tracing::error!(%volume, key = key.0, store = %target.id, %error, "a photo is not repaired");
                self.progress.lock().unrepaired(volume, key);
            }
        }
    }
}

/// Whether all members of `volume` are there, and more than one.
fn is_comparable(catalog: &Catalog, volume: VolumeId) -> bool {
    let complete = catalog.complete(volume);
    let Some(logical) = catalog.volumes.get(&volume) else { return false };
    let all = complete.len() == logical.record.members.len() && complete.iter().all(|replica| replica.well);
    all && complete.len() > 1 && logical.filling.is_none()
}
