//! Replicas made equal: each gets the photos and the tombstones that it lacks
//! and others have. A pass walks all their keys in order, a page at a time, so
//! it holds little, and a pass that broke off is begun again at no harm.

use std::collections::VecDeque;
use std::time::Duration;

use super::catalog::Replica;
use super::{LogicalVolumes, Repair};
use crate::error::Result;
use crate::index::KnownKey;
use crate::photo_id::{Cookie, PhotoKey, VolumeId};
use crate::stores::{Burial, Found, KEY_COUNT_MAX, PhotoNeedles};
use crate::writer::Purpose;

/// Photos that are looked for before they are copied, and tombstones given at once.
const BATCH_COUNT: usize = 512;
/// Time for a page of keys, or for a batch of photos, at one store.
const COPY_PATIENCE: Duration = Duration::from_secs(60);

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Levelled {
    /// Photos copied to a replica.
    pub copied_count: u64,
    /// Bytes of their data.
    pub copied_bytes: u64,
    /// Tombstones given to a replica.
    pub buried_count: u64,
    /// Photos that no replica has undamaged.
    pub lost_count: u64,
}

/// The keys of one replica, in order.
struct Listing {
    replica: Replica,
    page: VecDeque<KnownKey>,
    /// Where the next page begins; none after the last.
    next: Option<Option<PhotoKey>>,
}

/// A photo that some replicas lack: by place in the pass's replicas.
struct Copy {
    key: PhotoKey,
    having: Vec<usize>,
    lacking: Vec<usize>,
}

/// What is found and not yet done.
#[derive(Default)]
struct Gathered {
    burials: Vec<Vec<PhotoKey>>,
    copies: Vec<Copy>,
}

impl LogicalVolumes {
    /// Makes `replicas` of `volume` equal; `done` is told after each batch.
    ///
    /// # Errors
    ///
    /// What a store failed with; what was done stays done.
    pub(super) async fn level(
        &self,
        volume: VolumeId,
        replicas: &[Replica],
        mut done: impl FnMut(&Levelled) + Send,
    ) -> Result<Levelled> {
        let listing =
            |replica: &Replica| Listing { replica: replica.clone(), page: VecDeque::new(), next: Some(None) };
        let mut listings: Vec<Listing> = replicas.iter().map(listing).collect();
        let mut gathered = Gathered { burials: vec![Vec::new(); replicas.len()], copies: Vec::new() };
        let mut levelled = Levelled::default();
        loop {
            for listing in &mut listings {
                self.turn_page(volume, listing).await?;
            }
            let next =
                listings.iter().filter_map(|listing| listing.page.front()).map(|known| known.key).min();
            let Some(key) = next else { break };
            self.compare(volume, key, &mut listings, &mut gathered);
            let full = gathered.burials.iter().map(Vec::len).max().unwrap_or(0) >= BATCH_COUNT;
            if full || gathered.copies.len() >= BATCH_COUNT {
                self.give(volume, replicas, &mut gathered, &mut levelled).await?;
                done(&levelled);
            }
        }
        self.give(volume, replicas, &mut gathered, &mut levelled).await?;
        done(&levelled);
        Ok(levelled)
    }

    async fn turn_page(&self, volume: VolumeId, listing: &mut Listing) -> Result<()> {
        if let (true, Some(after)) = (listing.page.is_empty(), listing.next) {
            let Listing { replica, .. } = &*listing;
            let page =
                self.ask(replica, COPY_PATIENCE, replica.store.keys(volume, after, KEY_COUNT_MAX)).await?;
            let last = page.last().map(|known| known.key);
            listing.next = last.filter(|_| page.len() == KEY_COUNT_MAX).map(Some);
            listing.page = page.into();
        }
        Ok(())
    }

    /// Sees what each replica has under `key`, the smallest that is left.
    fn compare(&self, volume: VolumeId, key: PhotoKey, listings: &mut [Listing], gathered: &mut Gathered) {
        let (mut having, mut lacking, mut burying) = (Vec::new(), Vec::new(), Vec::new());
        let mut buried = false;
        for (at, listing) in listings.iter_mut().enumerate() {
            let known = listing.page.front().copied().filter(|known| known.key == key);
            if known.is_some() {
                listing.page.pop_front();
            }
            match known {
                Some(known) if known.buried => buried = true,
                Some(_) => {
                    having.push(at);
                    burying.push(at);
                }
                None => {
                    lacking.push(at);
                    burying.push(at);
                }
            }
        }
        if buried {
            burying.into_iter().for_each(|at| gathered.burials[at].push(key));
        } else if !lacking.is_empty() {
            let owed = self.catalog.read().debts.contains_key(&(volume, key));
            // One that is being written is on its way to every replica.
            if !owed && !self.in_flight.lock().contains(&key) {
                gathered.copies.push(Copy { key, having, lacking });
            }
        }
    }

    async fn give(
        &self,
        volume: VolumeId,
        replicas: &[Replica],
        gathered: &mut Gathered,
        levelled: &mut Levelled,
    ) -> Result<()> {
        for (replica, keys) in replicas.iter().zip(&mut gathered.burials) {
            let burials: Vec<Burial> = keys.drain(..).map(|key| Burial { key, cookie: Cookie(0) }).collect();
            if !burials.is_empty() {
                self.ask(replica, COPY_PATIENCE, replica.store.bury(volume, &burials)).await?;
                levelled.buried_count += burials.len() as u64;
            }
        }
        let mut copies = VecDeque::from(std::mem::take(&mut gathered.copies));
        while let Some(first) = copies.front() {
            // Neighbours that lie alike are copied together.
            let alike =
                copies.iter().take_while(|copy| copy.having == first.having && copy.lacking == first.lacking);
            let keys: Vec<PhotoKey> = alike.map(|copy| copy.key).collect();
            let source = &replicas[first.having[0]];
            let found = self.ask(source, COPY_PATIENCE, source.store.photos(volume, &keys)).await?;
            if found.is_empty() {
                // Against the contract; without this it would be asked for ever.
                return Ok(());
            }
            let targets: Vec<&Replica> = first.lacking.iter().map(|at| &replicas[*at]).collect();
            let answered = found.len().min(keys.len());
            let mut photos = Vec::with_capacity(answered);
            for (copy, found) in copies.drain(..answered).zip(found) {
                match found {
                    Found::Photo(photo) => photos.push(photo),
                    // Deleted meanwhile.
                    Found::Absent(_) => {}
                    Found::Damaged(key) => {
                        // If too many wait already, the next comparison finds it again.
                        let _ = self.repairs.try_send(Repair { volume, key, place: source.place });
                        let others = copy.having[1..].iter().map(|at| &replicas[*at]);
                        match self.undamaged(volume, key, others).await {
                            Some(photo) => photos.push(photo),
                            None => levelled.lost_count += 1,
                        }
                    }
                }
            }
            self.copy(volume, &photos, &targets, levelled).await?;
        }
        Ok(())
    }

    async fn copy(
        &self,
        volume: VolumeId,
        photos: &[PhotoNeedles],
        targets: &[&Replica],
        levelled: &mut Levelled,
    ) -> Result<()> {
        if photos.is_empty() {
            return Ok(());
        }
        let bytes: u64 = photos.iter().map(PhotoNeedles::data_bytes).sum();
        for target in targets {
            self.ask(target, COPY_PATIENCE, target.store.append(volume, photos, Purpose::Repair)).await?;
            levelled.copied_count += photos.len() as u64;
            levelled.copied_bytes += bytes;
        }
        // Clients come first.
        let rate = self.options.copy_bytes_per_s.max(1);
        tokio::time::sleep(Duration::from_micros(bytes.saturating_mul(1_000_000) / rate)).await;
        Ok(())
    }

    /// The photo `key` from the first of `replicas` that has it undamaged.
    pub(super) async fn undamaged<'a>(
        &self,
        volume: VolumeId,
        key: PhotoKey,
        replicas: impl Iterator<Item = &'a Replica>,
    ) -> Option<PhotoNeedles> {
        for replica in replicas {
            let found = self.ask(replica, COPY_PATIENCE, replica.store.photos(volume, &[key])).await;
            if let Ok([Found::Photo(photo)]) = found.as_deref() {
                return Some(photo.clone());
            }
        }
        None
    }
}
