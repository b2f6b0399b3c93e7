//! Tombstones at every replica, and debts of those that could not take them.

use std::collections::BTreeSet;

use futures_util::future::join_all;

use super::LogicalVolumes;
use super::ledger::Debts;
use crate::error::{Error, Result};
use crate::photo_id::{PhotoId, PhotoKey, VolumeId};
use crate::store::Deleted;
use crate::stores::Burial;
use crate::stores::identity::StoreId;

/// Tombstones that one store is given at once.
const PAYMENT_COUNT_MAX: usize = 1000;

impl LogicalVolumes {
    /// Deletes the photo `id`, all its sizes, everywhere.
    ///
    /// # Durability
    ///
    /// When this returns [`Deleted::Now`], each replica has the tombstone or it is
    /// written down that it has not. The photo does not come back.
    ///
    /// # Errors
    ///
    /// [`Error::NoneAnswers`], [`Error::DirectoryAway`], [`Error::Directory`]: the photo may
    /// be gone from some replicas; deleting again settles it.
    pub async fn delete(&self, id: &PhotoId) -> Result<Deleted> {
        match self.cookie(id.volume, id.key).await? {
            None => return Ok(Deleted::Absent),
            Some(cookie) if cookie != id.cookie => return Ok(Deleted::WrongCookie),
            Some(_) => {}
        }
        let of = (id.volume, id.key);
        let _members = self.members.read().await;
        let concerned = self.catalog.read().concerned(id.volume);
        let taken = self.bury(id.volume, Burial { key: id.key, cookie: id.cookie }, &concerned).await;
        if taken.is_empty() {
            return Err(Error::NoneAnswers { volume: id.volume });
        }
        let missed: BTreeSet<StoreId> = concerned.difference(&taken).copied().collect();
        if missed.is_empty() {
            return Ok(Deleted::Now);
        }
        let debts = {
            let mut catalog = self.catalog.write();
            catalog.owe(of, id.cookie, missed);
            Debts::from([(of, catalog.debts[&of].clone())])
        };
        self.ledger.put_debts(&debts).await?;
        Ok(Deleted::Now)
    }

    /// Gives a tombstone to `stores` and returns those that have it now.
    async fn bury(&self, volume: VolumeId, burial: Burial, stores: &BTreeSet<StoreId>) -> BTreeSet<StoreId> {
        let burials = stores.iter().map(|id| async move {
            let replica = self.catalog.read().store(*id)?;
            let patience = self.options.write_patience;
            let buried = self.ask(&replica, patience, replica.store.bury(volume, &[burial])).await;
            match buried {
                Ok(()) => Some(*id),
                Err(error) => {
                    tracing::warn!(%volume, store = %id, %error, "a tombstone is owed");
                    None
                }
            }
        });
        join_all(burials).await.into_iter().flatten().collect()
    }

    /// Gives the store at `place` the tombstones that it lacks.
    ///
    /// # Errors
    ///
    /// What the store, or the ledger, failed with; the rest stays owed.
    pub(super) async fn pay_debts(&self, place: usize) -> Result<()> {
        loop {
            let owed = {
                let catalog = self.catalog.read();
                let Some(id) = catalog.stores[place].id() else { return Ok(()) };
                let replica = catalog.store(id);
                replica.zip(catalog.debts_of(id, PAYMENT_COUNT_MAX))
            };
            let Some((replica, (volume, photos))) = owed else { return Ok(()) };
            let burials: Vec<Burial> =
                photos.iter().map(|(key, cookie)| Burial { key: *key, cookie: *cookie }).collect();
            match self.ask(&replica, self.options.write_patience, replica.store.bury(volume, &burials)).await
            {
                // A replica that is not there is made from others, tombstones and all.
                Ok(()) | Err(Error::NoReplica { .. }) => {}
                Err(error) => return Err(error),
            }
            let paid: Vec<(VolumeId, PhotoKey)> = photos.iter().map(|(key, _)| (volume, *key)).collect();
            let left = self.catalog.write().pay(replica.id, &paid);
            self.ledger.put_debts(&left).await?;
        }
    }
}
