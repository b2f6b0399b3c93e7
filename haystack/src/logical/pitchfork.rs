//! The pitchfork (Haystack 4.3): each store is asked all the time for a report,
//! which tries its connection, and for a photo of one volume after the other,
//! which tries its disk.

use super::health::Sight;
use super::{LogicalVolumes, Repair};
use crate::error::{Error, Result};
use crate::photo_id::PhotoKey;
use crate::stores::{ReplicaState, StoreReport};

impl LogicalVolumes {
    /// Probes the store at `place`, for ever.
    pub(super) async fn probe_always(&self, place: usize) {
        let mut turn = 0;
        loop {
            self.probe(place, turn).await;
            turn = turn.wrapping_add(1);
            tokio::time::sleep(self.options.probe_period).await;
        }
    }

    /// Probes the store at `place`: its volumes in turn.
    pub(super) async fn probe(&self, place: usize, turn: usize) {
        loop {
            let generation = self.catalog.read().generation;
            let report = match self.probed(place, turn).await {
                Ok(report) => report,
                Err(error) => return self.note(place, Sight::ProbeFailed(error.to_string())),
            };
            let now_ms = self.now_ms();
            self.take_damage(place, &report, now_ms);
            let mut catalog = self.catalog.write();
            if catalog.generation != generation {
                // It may lack a replica that was made meanwhile.
                continue;
            }
            let (known, id) = (catalog.stores[place].id(), report.id);
            if known.is_some_and(|known| known != id) {
                tracing::error!(
                    address = catalog.stores[place].address,
                    "another store answers at this address: its replicas are made anew"
                );
            }
            if catalog.take_report(place, report, now_ms) {
                let entry = &catalog.stores[place];
                let (address, condition) = (&entry.address, entry.health.condition().name());
                tracing::info!(address, condition, store = %id, "a store is heard of");
                drop(catalog);
                self.progress.lock().doubt_all();
            }
            return self.settle.notify_one();
        }
    }

    /// What a store found damaged of its own is repaired from others; what was
    /// tried is tried again after a while.
    fn take_damage(&self, place: usize, report: &StoreReport, now_ms: u64) {
        let period = self.options.compare_period;
        for (volume, key) in &report.damaged {
            let repair = Repair { volume: *volume, key: PhotoKey(*key), place };
            if self.progress.lock().may_try(repair, period, now_ms) {
                // If too many wait already, a later report tells it again.
                let _ = self.repairs.try_send(repair);
            }
        }
    }

    async fn probed(&self, place: usize, turn: usize) -> Result<StoreReport> {
        let (store, address) = {
            let catalog = self.catalog.read();
            let entry = &catalog.stores[place];
            (std::sync::Arc::clone(&entry.store), entry.address.clone())
        };
        let patience = self.options.probe_patience;
        let late = |_| Error::StoreAway {
            store: address.as_str().into(),
            found: format!("no answer to a probe within {patience:?}"),
        };
        let mut report = tokio::time::timeout(patience, store.report()).await.map_err(late)??;
        let served = report.replicas.iter_mut().filter(|replica| replica.state != ReplicaState::Ill);
        let mut served: Vec<_> = served.collect();
        if served.is_empty() {
            return Ok(report);
        }
        let at = turn % served.len();
        match tokio::time::timeout(patience, store.probe(served[at].volume)).await.map_err(late)? {
            Ok(()) | Err(Error::NoReplica { .. }) => {}
            Err(error @ (Error::StoreAway { .. } | Error::StoreRefused { .. })) => return Err(error),
            Err(error) => {
                tracing::error!(volume = %served[at].volume, address, %error, "a replica cannot be read");
                served[at].state = ReplicaState::Ill;
            }
        }
        Ok(report)
    }
}
