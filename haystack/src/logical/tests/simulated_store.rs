//! A store in memory that fails as it is told.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::index::KnownKey;
use crate::photo_id::{Cookie, PhotoId, PhotoKey, PhotoSize, VolumeId};
use crate::stores::identity::StoreId;
use crate::stores::{Burial, Found, PhotoNeedles, ReplicaReport, ReplicaState, StoreReport, VolumeStore};
use crate::volume::StoredNeedle;
use crate::writer::Purpose;

/// What is wrong with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing.
    None,
    /// It refuses connections.
    Down,
    /// It takes requests, does what it is asked, and never answers.
    Silent,
    /// It does what writes ask, and says that it failed.
    DoneButFailed,
    /// Its disk failed in a write: reads go on.
    Poisoned,
    /// Its disk is full.
    Full,
}

#[derive(Debug)]
struct SimulatedVolume {
    physical: u64,
    filling: bool,
    photos: BTreeMap<PhotoKey, PhotoNeedles>,
    buried: BTreeSet<PhotoKey>,
    damaged: BTreeSet<PhotoKey>,
    key_max: u64,
}

#[derive(Debug)]
struct State {
    id: StoreId,
    fault: Fault,
    /// Calls after which it is down.
    calls_left: Option<u64>,
    volumes: BTreeMap<VolumeId, SimulatedVolume>,
    next_number: u64,
    volume_photo_count_max: usize,
}

/// A store in memory.
#[derive(Debug)]
pub(super) struct SimulatedStore {
    name: String,
    rack: String,
    state: Mutex<State>,
}

impl SimulatedStore {
    pub(super) fn new(place: usize, rack: &str) -> Self {
        let state = State {
            id: StoreId(1000 + place as u64),
            fault: Fault::None,
            calls_left: None,
            volumes: BTreeMap::new(),
            next_number: 1,
            volume_photo_count_max: usize::MAX,
        };
        Self { name: format!("store-{place}"), rack: rack.to_owned(), state: Mutex::new(state) }
    }

    pub(super) fn name(&self) -> String {
        self.name.clone()
    }

    pub(super) fn set_fault(&self, fault: Fault) {
        let mut state = self.state.lock();
        state.fault = fault;
        state.calls_left = None;
    }

    pub(super) fn fault(&self) -> Fault {
        let state = self.state.lock();
        if state.calls_left.is_some() { Fault::Down } else { state.fault }
    }

    pub(super) fn fail_after(&self, call_count: u64) {
        self.state.lock().calls_left = Some(call_count);
    }

    pub(super) fn set_volume_photo_count_max(&self, count: usize) {
        self.state.lock().volume_photo_count_max = count;
    }

    /// It comes back empty, as another one.
    pub(super) fn wipe(&self) {
        let mut state = self.state.lock();
        state.volumes.clear();
        state.id = StoreId(state.id.0 + 1000);
    }

    /// One volume's file is gone.
    pub(super) fn lose(&self, volume: VolumeId) {
        self.state.lock().volumes.remove(&volume);
    }

    pub(super) fn damage(&self, volume: VolumeId, key: PhotoKey) {
        if let Some(volume) = self.state.lock().volumes.get_mut(&volume) {
            volume.damaged.insert(key);
        }
    }

    pub(super) fn is_damaged(&self, volume: VolumeId, key: PhotoKey) -> bool {
        self.state.lock().volumes.get(&volume).is_some_and(|volume| volume.damaged.contains(&key))
    }

    pub(super) fn holds(&self, volume: VolumeId) -> bool {
        self.state.lock().volumes.contains_key(&volume)
    }

    pub(super) fn has(&self, volume: VolumeId, key: PhotoKey) -> bool {
        self.live_keys(volume).contains(&key)
    }

    pub(super) fn live_keys(&self, volume: VolumeId) -> Vec<PhotoKey> {
        let state = self.state.lock();
        let photos = state.volumes.get(&volume).map(|volume| volume.photos.keys().copied().collect());
        photos.unwrap_or_default()
    }

    pub(super) fn volumes(&self) -> Vec<VolumeId> {
        self.state.lock().volumes.keys().copied().collect()
    }

    /// Runs `call` on the state, as the fault allows; `writes` is what a full
    /// disk and a failed one turn away.
    async fn call<T>(&self, writes: bool, call: impl FnOnce(&mut State) -> Result<T> + Send) -> Result<T> {
        let away = || Error::StoreAway {
            store: self.name.as_str().into(),
            found: "as the test wants it".to_owned(),
        };
        tokio::task::yield_now().await;
        let (outcome, fault) = {
            let mut state = self.state.lock();
            if let Some(left) = state.calls_left {
                if left == 0 {
                    return Err(away());
                }
                state.calls_left = Some(left - 1);
            }
            match state.fault {
                Fault::Down => return Err(away()),
                Fault::Poisoned if writes => return Err(Error::Poisoned { volume: VolumeId(0) }),
                Fault::Full if writes => {
                    return Err(Error::DiskFull { available_bytes: 0, reserve_bytes: 1 });
                }
                fault => (call(&mut state), fault),
            }
        };
        match fault {
            Fault::Silent => std::future::pending().await,
            Fault::DoneButFailed if writes => Err(away()),
            _ => outcome,
        }
    }
}

impl State {
    fn volume(&mut self, volume: VolumeId) -> Result<&mut SimulatedVolume> {
        self.volumes.get_mut(&volume).ok_or(Error::NoReplica { volume })
    }
}

#[async_trait]
impl VolumeStore for SimulatedStore {
    async fn report(&self) -> Result<StoreReport> {
        self.call(false, |state| {
            let full = state.fault == Fault::Full;
            let poisoned = state.fault == Fault::Poisoned;
            let photo_count_max = state.volume_photo_count_max;
            let replica = |(volume, found): (&VolumeId, &SimulatedVolume)| ReplicaReport {
                volume: *volume,
                physical: found.physical,
                filling: found.filling,
                state: match () {
                    () if poisoned => ReplicaState::Poisoned,
                    () if found.photos.len() >= photo_count_max => ReplicaState::Sealed,
                    () => ReplicaState::WriteEnabled,
                },
                volume_bytes: found.photos.len() as u64,
                live_bytes: 0,
                photo_count: found.photos.len() as u64,
                key_max: found.key_max,
            };
            Ok(StoreReport {
                id: state.id,
                labels: format!("rack={}", self.rack).parse().unwrap(),
                available_bytes: if full { 0 } else { 1 << 30 },
                reserve_bytes: 1,
                volume_bytes_max: photo_count_max as u64,
                replicas: state.volumes.iter().map(replica).collect(),
                damaged: Vec::new(),
            })
        })
        .await
    }

    async fn create_replica(&self, volume: VolumeId, filling: bool) -> Result<u64> {
        self.call(true, |state| {
            if state.volumes.contains_key(&volume) {
                return Err(Error::ReplicaExists { volume });
            }
            let physical = state.next_number;
            state.next_number += 1;
            let (photos, buried, damaged) = Default::default();
            state
                .volumes
                .insert(volume, SimulatedVolume { physical, filling, photos, buried, damaged, key_max: 0 });
            Ok(physical)
        })
        .await
    }

    async fn finish_filling(&self, volume: VolumeId) -> Result<()> {
        self.call(true, |state| state.volume(volume).map(|volume| volume.filling = false)).await
    }

    async fn remove_replica(&self, volume: VolumeId, physical: u64) -> Result<()> {
        self.call(true, |state| {
            if state.volume(volume)?.physical != physical {
                return Err(Error::NoReplica { volume });
            }
            state.volumes.remove(&volume);
            Ok(())
        })
        .await
    }

    async fn append(&self, id: VolumeId, photos: &[PhotoNeedles], purpose: Purpose) -> Result<u64> {
        self.call(true, |state| {
            let photo_count_max = state.volume_photo_count_max;
            let volume = state.volume(id)?;
            if purpose == Purpose::Upload && volume.photos.len() >= photo_count_max {
                return Err(Error::Sealed { volume: id });
            }
            for photo in photos {
                volume.key_max = volume.key_max.max(photo.key.0);
                if !volume.buried.contains(&photo.key) {
                    volume.damaged.remove(&photo.key);
                    volume.photos.insert(photo.key, photo.clone());
                }
            }
            Ok(volume.photos.len() as u64)
        })
        .await
    }

    async fn bury(&self, volume: VolumeId, burials: &[Burial]) -> Result<()> {
        self.call(true, |state| {
            let volume = state.volume(volume)?;
            for burial in burials {
                volume.buried.insert(burial.key);
                volume.photos.remove(&burial.key);
                volume.damaged.remove(&burial.key);
            }
            Ok(())
        })
        .await
    }

    async fn read(&self, id: &PhotoId, size: PhotoSize) -> Result<Option<StoredNeedle>> {
        self.call(false, |state| {
            let volume = state.volume(id.volume)?;
            if volume.damaged.contains(&id.key) {
                return Err(Error::ReplicaDamaged { volume: id.volume, found: "a bit".to_owned() });
            }
            let photo = volume.photos.get(&id.key).filter(|photo| photo.cookie == id.cookie);
            let needle = photo.and_then(|photo| photo.sizes.iter().find(|(found, ..)| *found == size));
            Ok(needle.map(|(_, media_type, data)| StoredNeedle {
                media_type: *media_type,
                data: data.clone(),
                checksum: crc32c::crc32c(data),
                cookie: id.cookie,
            }))
        })
        .await
    }

    async fn cookie(&self, volume: VolumeId, key: PhotoKey) -> Result<Option<Cookie>> {
        self.call(false, |state| Ok(state.volume(volume)?.photos.get(&key).map(|photo| photo.cookie))).await
    }

    async fn keys(
        &self,
        volume: VolumeId,
        after: Option<PhotoKey>,
        count_max: usize,
    ) -> Result<Vec<KnownKey>> {
        self.call(false, |state| {
            let volume = state.volume(volume)?;
            let live = volume.photos.keys().map(|key| KnownKey { key: *key, buried: false });
            let dead = volume.buried.iter().map(|key| KnownKey { key: *key, buried: true });
            let known: BTreeSet<KnownKey> =
                live.chain(dead).filter(|known| Some(known.key) > after).collect();
            Ok(known.into_iter().take(count_max).collect())
        })
        .await
    }

    async fn photos(&self, volume: VolumeId, keys: &[PhotoKey]) -> Result<Vec<Found>> {
        self.call(false, |state| {
            let volume = state.volume(volume)?;
            let found = |key: &PhotoKey| match volume.photos.get(key) {
                Some(_) if volume.damaged.contains(key) => Found::Damaged(*key),
                Some(photo) => Found::Photo(photo.clone()),
                None => Found::Absent(*key),
            };
            // Few at a time, so that a fill has several steps.
            Ok(keys.iter().take(5).map(found).collect())
        })
        .await
    }

    async fn seal(&self, volume: VolumeId) -> Result<()> {
        self.call(true, |state| state.volume(volume).map(drop)).await
    }

    async fn probe(&self, volume: VolumeId) -> Result<()> {
        self.call(false, |state| state.volume(volume).map(drop)).await
    }
}
