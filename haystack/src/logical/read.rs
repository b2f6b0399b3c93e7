//! Photos from whichever replica answers first.
//!
//! Stores that are well are asked in turn, one at a time; the next one as soon
//! as one fails, or has taken longer than [`hedge_delay`](super::ReplicaOptions),
//! and those that are not well in the end. That a photo is not there is
//! believed when every store that is well says so.

use std::sync::atomic::Ordering;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;

use super::catalog::Replica;
use super::{LogicalVolumes, Repair};
use crate::error::{Error, Result};
use crate::photo_id::{Cookie, PhotoId, PhotoKey, PhotoSize, VolumeId};
use crate::volume::StoredNeedle;

impl LogicalVolumes {
    /// Reads `size` of the photo `id`; none if there is no such photo, or its
    /// cookie is another.
    ///
    /// # Errors
    ///
    /// [`Error::NoneAnswers`], or what the last replica failed with.
    pub async fn read(&self, id: &PhotoId, size: PhotoSize) -> Result<Option<StoredNeedle>> {
        self.first(id.volume, id.key, |replica| {
            let id = *id;
            Box::pin(async move { replica.store.read(&id, size).await })
        })
        .await
    }

    /// The cookie of the photo `key`; none if there is no such photo.
    pub(super) async fn cookie(&self, volume: VolumeId, key: PhotoKey) -> Result<Option<Cookie>> {
        self.first(volume, key, |replica| Box::pin(async move { replica.store.cookie(volume, key).await }))
            .await
    }

    /// The first replica's answer that is something.
    async fn first<T, F>(&self, volume: VolumeId, key: PhotoKey, call: F) -> Result<Option<T>>
    where
        F: Fn(Replica) -> BoxFuture<'static, Result<Option<T>>>,
    {
        let mut replicas = {
            let catalog = self.catalog.read();
            if catalog.debts.contains_key(&(volume, key)) || !catalog.is_known(volume) {
                return Ok(None);
            }
            catalog.complete(volume)
        };
        let well_count = replicas.iter().filter(|replica| replica.well).count();
        if well_count > 1 {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            replicas[..well_count].rotate_left(turn % well_count);
        }
        let mut rest = replicas.into_iter();
        let mut asked = FuturesUnordered::new();
        let (mut absent, mut failure) = (false, None);
        loop {
            if asked.is_empty() {
                // Nobody who is not well is waited for to hear that something is not there.
                let next = rest.next().filter(|replica| replica.well || !absent);
                let Some(replica) = next else { break };
                asked.push(self.ask_one(replica, &call));
            }
            let hedged = rest.len() > 0 && rest.as_slice()[0].well;
            tokio::select! {
                Some((replica, outcome)) = asked.next() => match outcome {
                    Ok(Some(found)) => return Ok(Some(found)),
                    Ok(None) => absent = true,
                    Err(error) => {
                        self.take_read_failure(&replica, volume, key, &error);
                        failure = Some(error);
                    }
                },
                () = tokio::time::sleep(self.options.hedge_delay), if hedged => {
                    metrics::counter!("hayloft_haystack_hedged_reads_total").increment(1);
                    asked.extend(rest.next().map(|replica| self.ask_one(replica, &call)));
                }
            }
        }
        match failure {
            _ if absent => Ok(None),
            Some(error) if !matches!(error, Error::StoreAway { .. }) => Err(error),
            _ => Err(Error::NoneAnswers { volume }),
        }
    }

    async fn ask_one<T, F>(&self, replica: Replica, call: &F) -> (Replica, Result<Option<T>>)
    where
        F: Fn(Replica) -> BoxFuture<'static, Result<Option<T>>>,
    {
        let outcome = self.ask(&replica, self.options.read_patience, call(replica.clone())).await;
        (replica, outcome)
    }

    fn take_read_failure(&self, replica: &Replica, volume: VolumeId, key: PhotoKey, error: &Error) {
        metrics::counter!("hayloft_haystack_failed_over_reads_total").increment(1);
        if matches!(error, Error::Damaged { .. } | Error::ReplicaDamaged { .. }) {
            tracing::warn!(%volume, store = %replica.id, %error, "a photo is read from another replica, and repaired");
            // If too many wait already, a later read or a comparison finds it again.
            let _ = self.repairs.try_send(Repair { volume, key, place: replica.place });
        }
    }
}
