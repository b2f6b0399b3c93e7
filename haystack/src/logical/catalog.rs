//! What is known of stores and logical volumes at this moment, and what follows
//! from it: which replicas are read, which volumes take photos, what is to be
//! healed. No clock, no network: everything here is a function of the state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::health::{Health, Sight};
use super::ledger::{Debt, Debts, Pages, VolumeRecord};
use super::placement::{self, Site};
use crate::photo_id::{Cookie, PhotoKey, VolumeId};
use crate::stores::identity::StoreId;
use crate::stores::{ReplicaReport, ReplicaState, StoreReport, VolumeStore};

/// One store that the configuration names.
#[derive(Debug)]
pub struct StoreEntry {
    /// Where it is.
    pub address: String,
    /// How it is asked.
    pub store: Arc<dyn VolumeStore>,
    /// How it is doing.
    pub health: Health,
    /// What it last told.
    pub report: Option<StoreReport>,
}

impl StoreEntry {
    /// Its number, once it has told it.
    pub fn id(&self) -> Option<StoreId> {
        self.report.as_ref().map(|report| report.id)
    }

    fn replica(&self, volume: VolumeId) -> Option<&ReplicaReport> {
        self.report.as_ref()?.replica(volume)
    }
}

/// What is known of a logical volume beside what is written down.
#[derive(Debug)]
pub struct LogicalVolume {
    /// What is written down.
    pub record: VolumeRecord,
    /// Why a write failed whose outcome at some replica is unknown; it takes no
    /// photo until every replica has the tombstone.
    pub failed_write: Option<String>,
    /// The store that is being filled with a further replica.
    pub filling: Option<StoreId>,
}

/// A replica and the store to ask for it.
#[derive(Clone, Debug)]
pub struct Replica {
    /// The store's place in the catalog.
    pub place: usize,
    /// The store's number.
    pub id: StoreId,
    /// The store.
    pub store: Arc<dyn VolumeStore>,
    /// Whether the store is well.
    pub well: bool,
}

/// A replica that is to be made.
#[derive(Clone, Debug)]
pub struct Refill {
    /// The volume.
    pub volume: VolumeId,
    /// Where the new replica goes.
    pub target: Replica,
    /// What the target has under that number and has to give up first, by its
    /// physical number.
    pub obsolete: Option<u64>,
    /// Whether a replica that was begun is there already.
    pub begun: bool,
    /// Complete replicas.
    pub sources: Vec<Replica>,
}

/// A replica that nobody needs any more.
#[derive(Clone, Debug)]
pub struct Leftover {
    /// The volume.
    pub volume: VolumeId,
    /// The store that has it.
    pub replica: Replica,
    /// Its physical number.
    pub physical: u64,
}

/// Stores and logical volumes.
#[derive(Debug)]
pub struct Catalog {
    /// Replicas of a new volume.
    pub replica_count: usize,
    /// The stores, in the order of the configuration.
    pub stores: Vec<StoreEntry>,
    /// The logical volumes that are written down.
    pub volumes: BTreeMap<VolumeId, LogicalVolume>,
    /// Tombstones that stores lack.
    pub debts: Debts,
    /// Stores that an operator keeps photos from.
    pub read_only_stores: BTreeSet<StoreId>,
    /// Whether the ledger was read.
    pub loaded: bool,
    /// Rises when replicas are made or removed: a report that was asked for
    /// before says nothing of them.
    pub generation: u64,
}

impl Catalog {
    /// Stores of whom nothing is known yet, at `now_ms`.
    pub fn new(stores: Vec<(String, Arc<dyn VolumeStore>)>, replica_count: usize, now_ms: u64) -> Self {
        let entry =
            |(address, store)| StoreEntry { address, store, health: Health::new(now_ms), report: None };
        Self {
            replica_count,
            stores: stores.into_iter().map(entry).collect(),
            volumes: BTreeMap::new(),
            debts: Debts::new(),
            read_only_stores: BTreeSet::new(),
            loaded: false,
            generation: 0,
        }
    }

    /// Takes in what is written down. Debts of this life stay.
    pub fn load(&mut self, pages: Pages) {
        for (volume, record) in pages.volumes {
            self.insert(volume, record);
        }
        for (of, debt) in pages.debts {
            self.owe(of, debt.cookie, debt.stores);
        }
        self.read_only_stores = pages.read_only_stores;
        self.loaded = true;
    }

    /// Adds a logical volume.
    pub fn insert(&mut self, volume: VolumeId, record: VolumeRecord) {
        let logical = LogicalVolume { record, failed_write: None, filling: None };
        self.volumes.insert(volume, logical);
    }

    /// Takes in what the store at `place` told. A store that another address
    /// leads to as well is one store: the second address is ill.
    pub fn take_report(&mut self, place: usize, report: StoreReport, now_ms: u64) -> bool {
        let twin = self
            .stores
            .iter()
            .enumerate()
            .find(|(other, entry)| *other < place && entry.id() == Some(report.id));
        if let Some((_, twin)) = twin {
            let complaint = format!("it is the same store as {}", twin.address);
            self.stores[place].report = None;
            return self.stores[place].health.see(Sight::ProbeFailed(complaint), now_ms);
        }
        self.stores[place].report = Some(report);
        self.stores[place].health.see(Sight::Probed, now_ms)
    }

    /// Notes that the store at `place` failed.
    pub fn take_failure(&mut self, place: usize, sight: Sight, now_ms: u64) -> bool {
        self.stores[place].health.see(sight, now_ms)
    }

    fn replica_at(&self, place: usize) -> Option<Replica> {
        let entry = &self.stores[place];
        let store = Arc::clone(&entry.store);
        Some(Replica { place, id: entry.id()?, store, well: entry.health.is_well() })
    }

    fn place_of(&self, id: StoreId) -> Option<usize> {
        self.stores.iter().position(|entry| entry.id() == Some(id))
    }

    /// Complete replicas of `volume`, those first whose store is well; by what
    /// the stores announce as long as nothing is written down of it.
    pub fn complete(&self, volume: VolumeId) -> Vec<Replica> {
        let logical = self.volumes.get(&volume);
        let is_member = |id: StoreId| logical.is_none_or(|logical| logical.record.members.contains(&id));
        let complete = |place: &usize| {
            let entry = &self.stores[*place];
            let there = entry
                .replica(volume)
                .is_some_and(|replica| !replica.filling && replica.state != ReplicaState::Ill);
            there && entry.id().is_some_and(is_member)
        };
        let places = (0..self.stores.len()).filter(complete);
        let mut replicas: Vec<Replica> = places.filter_map(|place| self.replica_at(place)).collect();
        replicas.sort_by_key(|replica| !replica.well);
        replicas
    }

    /// Whether anybody knows of the volume, be it that no replica is in reach.
    pub fn is_known(&self, volume: VolumeId) -> bool {
        self.volumes.contains_key(&volume)
            || !self.loaded
            || self.stores.iter().any(|entry| entry.replica(volume).is_some())
    }

    /// Whom a tombstone in `volume` concerns: members, whether in reach or not,
    /// and the store that is being filled.
    pub fn concerned(&self, volume: VolumeId) -> BTreeSet<StoreId> {
        match self.volumes.get(&volume) {
            Some(logical) => logical.record.members.iter().copied().chain(logical.filling).collect(),
            None => self.complete(volume).into_iter().map(|replica| replica.id).collect(),
        }
    }

    /// The store with the number `id`, if it is there.
    pub fn store(&self, id: StoreId) -> Option<Replica> {
        self.place_of(id).and_then(|place| self.replica_at(place))
    }

    /// Notes that `stores` lack a tombstone.
    pub fn owe(&mut self, of: (VolumeId, PhotoKey), cookie: Cookie, stores: BTreeSet<StoreId>) {
        let debt = self.debts.entry(of).or_insert_with(|| Debt { cookie, stores: BTreeSet::new() });
        debt.stores.extend(stores);
    }

    /// Notes that `store` has tombstones; returns what is left of these debts.
    pub fn pay(&mut self, store: StoreId, paid: &[(VolumeId, PhotoKey)]) -> Debts {
        let mut left = Debts::new();
        for of in paid {
            let Some(debt) = self.debts.get_mut(of) else { continue };
            debt.stores.remove(&store);
            left.insert(*of, debt.clone());
            if debt.stores.is_empty() {
                self.debts.remove(of);
            }
        }
        for (volume, _) in paid {
            self.forgive(*volume);
        }
        left
    }

    /// Lets `volume` take photos again if its failed writes are settled.
    fn forgive(&mut self, volume: VolumeId) {
        let first = (volume, PhotoKey(0));
        let owes = self.debts.range(first..).next().is_some_and(|((other, _), _)| *other == volume);
        if let Some(logical) = self.volumes.get_mut(&volume).filter(|_| !owes) {
            logical.failed_write = None;
        }
    }

    /// What `store` owes, at most `count_max` tombstones of one volume.
    pub fn debts_of(&self, store: StoreId, count_max: usize) -> Option<(VolumeId, Vec<(PhotoKey, Cookie)>)> {
        let mut owed = self.debts.iter().filter(|(_, debt)| debt.stores.contains(&store)).peekable();
        let ((volume, _), _) = owed.peek()?;
        let volume = *volume;
        let of_volume = owed.take_while(|((other, _), _)| *other == volume).take(count_max);
        Some((volume, of_volume.map(|((_, key), debt)| (*key, debt.cookie)).collect()))
    }

    /// Why `volume` takes no photos; none if it does.
    pub fn read_only_reason(&self, volume: VolumeId) -> Option<String> {
        let Some(logical) = self.volumes.get(&volume) else {
            return Some("it is not written down yet".to_owned());
        };
        let record = &logical.record;
        if record.read_only {
            return Some("by command".to_owned());
        }
        if record.sealed {
            return Some("it has its size".to_owned());
        }
        if record.members.len() < record.replica_count {
            return Some(format!("it has {} of {} replicas", record.members.len(), record.replica_count));
        }
        if logical.filling.is_some() {
            return Some("a replica is being made".to_owned());
        }
        if let Some(failed) = &logical.failed_write {
            return Some(failed.clone());
        }
        record.members.iter().find_map(|member| self.member_reason(volume, *member))
    }

    fn member_reason(&self, volume: VolumeId, member: StoreId) -> Option<String> {
        let Some(place) = self.place_of(member) else { return Some(format!("store {member} is not there")) };
        let entry = &self.stores[place];
        let address = &entry.address;
        if !entry.health.is_well() {
            return Some(format!("{address} is {}", entry.health.condition().name()));
        }
        if self.read_only_stores.contains(&member) {
            return Some(format!("{address} is read-only by command"));
        }
        match entry.replica(volume) {
            None => Some(format!("{address} has lost its replica")),
            Some(replica) if replica.filling => Some(format!("{address} is being filled")),
            Some(replica)
                if replica.state != ReplicaState::WriteEnabled && replica.state != ReplicaState::Full =>
            {
                Some(format!("it is {} at {address}", replica.state))
            }
            Some(_) if entry.report.as_ref().is_some_and(StoreReport::is_full) => {
                Some(format!("the disk of {address} is full"))
            }
            Some(_) => None,
        }
    }

    /// Volumes that take photos.
    pub fn writable(&self) -> Vec<VolumeId> {
        let volumes = self.volumes.keys().copied();
        volumes.filter(|volume| self.read_only_reason(*volume).is_none()).collect()
    }

    /// Stores that can take a new replica.
    fn sites(&self) -> Vec<Site> {
        let site = |(place, entry): (usize, &StoreEntry)| {
            let report = entry.report.as_ref()?;
            let open =
                entry.health.is_well() && !report.is_full() && !self.read_only_stores.contains(&report.id);
            let enabled = |replica: &&ReplicaReport| replica.state == ReplicaState::WriteEnabled;
            open.then(|| Site {
                place,
                rack: report.labels.rack().to_owned(),
                write_enabled_count: report.replicas.iter().filter(enabled).count(),
                available_bytes: report.available_bytes,
            })
        };
        self.stores.iter().enumerate().filter_map(site).collect()
    }

    /// How many stores can take a new replica.
    pub fn site_count(&self) -> usize {
        self.sites().len()
    }

    /// Whether a disk, rather than a store, is what new replicas lack.
    pub fn full_disk(&self) -> Option<(u64, u64)> {
        let reports = self
            .stores
            .iter()
            .filter(|entry| entry.health.is_well())
            .filter_map(|entry| entry.report.as_ref());
        reports
            .filter(|report| report.is_full())
            .map(|report| (report.available_bytes, report.reserve_bytes))
            .next()
    }

    /// Stores for the replicas of a new volume, at none of the places in `without`.
    pub fn place_new(&self, without: &BTreeSet<usize>) -> Option<Vec<Replica>> {
        let mut sites = self.sites();
        sites.retain(|site| !without.contains(&site.place));
        let places = placement::choose(sites, &[], self.replica_count)?;
        places.into_iter().map(|place| self.replica_at(place)).collect()
    }

    /// A number that no volume has had.
    pub fn next_volume(&self) -> VolumeId {
        let reports = self.stores.iter().filter_map(|entry| entry.report.as_ref());
        let announced = reports.flat_map(|report| &report.replicas).map(|replica| replica.volume);
        let last = announced.chain(self.volumes.keys().copied()).max();
        VolumeId(last.map_or(1, |last| last.0 + 1))
    }

    /// The largest key that any store has seen.
    pub fn key_max(&self) -> u64 {
        let reports = self.stores.iter().filter_map(|entry| entry.report.as_ref());
        reports.flat_map(|report| &report.replicas).map(|replica| replica.key_max).max().unwrap_or(0)
    }

    /// Volumes that stores announce and that are not written down, with the
    /// stores that have them whole: once every store has spoken, or been waited
    /// for long enough.
    pub fn strangers(&self, replace_after: Duration, now_ms: u64) -> Vec<(VolumeId, BTreeSet<StoreId>)> {
        let heard =
            |entry: &StoreEntry| entry.report.is_some() || entry.health.is_away_for(replace_after, now_ms);
        if !self.loaded || !self.stores.iter().all(heard) {
            return Vec::new();
        }
        let reports = self.stores.iter().filter_map(|entry| entry.report.as_ref());
        let announced = reports.flat_map(|report| &report.replicas).map(|replica| replica.volume);
        let unknown: BTreeSet<VolumeId> =
            announced.filter(|volume| !self.volumes.contains_key(volume)).collect();
        let holders =
            |volume| self.complete(volume).into_iter().map(|replica| replica.id).collect::<BTreeSet<_>>();
        unknown
            .into_iter()
            .map(|volume| (volume, holders(volume)))
            .filter(|(_, holders)| !holders.is_empty())
            .collect()
    }

    /// Makes `target` a member of `volume` in the place of those that have lost
    /// their replica, and returns what is to be written down.
    pub fn with_member(
        &self,
        volume: VolumeId,
        target: StoreId,
        replace_after: Duration,
        now_ms: u64,
    ) -> Option<VolumeRecord> {
        let mut record = self.volumes.get(&volume)?.record.clone();
        record.members.retain(|member| !self.is_lost(volume, *member, replace_after, now_ms));
        record.members.insert(target);
        Some(record)
    }

    /// Whether `member` has lost its replica of `volume` for good, as far as
    /// anybody can tell.
    fn is_lost(&self, volume: VolumeId, member: StoreId, replace_after: Duration, now_ms: u64) -> bool {
        let Some(place) = self.place_of(member) else {
            // Its address has another store now, or has not answered in this life.
            let away = |entry: &StoreEntry| {
                entry.report.is_some() || entry.health.is_away_for(replace_after, now_ms)
            };
            return self.stores.iter().all(away);
        };
        let entry = &self.stores[place];
        if !entry.health.is_well() {
            return entry.health.is_away_for(replace_after, now_ms);
        }
        entry.replica(volume).is_none_or(|replica| replica.filling || replica.state == ReplicaState::Ill)
    }

    /// The next replica that is to be made, beside those under way.
    pub fn next_refill(&self, replace_after: Duration, now_ms: u64) -> Option<Refill> {
        self.volumes.iter().filter(|(_, logical)| logical.filling.is_none()).find_map(|(volume, logical)| {
            let record = &logical.record;
            let kept: Vec<StoreId> = record
                .members
                .iter()
                .copied()
                .filter(|member| !self.is_lost(*volume, *member, replace_after, now_ms))
                .collect();
            let sources: Vec<Replica> =
                self.complete(*volume).into_iter().filter(|source| source.well).collect();
            if kept.len() >= record.replica_count || sources.is_empty() {
                return None;
            }
            let racks: Vec<&str> = kept
                .iter()
                .filter_map(|id| self.stores[self.place_of(*id)?].report.as_ref())
                .map(|report| report.labels.rack())
                .collect();
            let mut sites = self.sites();
            sites.retain(|site| self.stores[site.place].id().is_some_and(|id| !kept.contains(&id)));
            // One that was begun is finished first.
            let begun = sites
                .iter()
                .find(|site| self.stores[site.place].replica(*volume).is_some_and(|replica| replica.filling));
            let place = match begun {
                Some(site) => site.place,
                None => placement::choose(sites, &racks, 1)?[0],
            };
            let there = self.stores[place].replica(*volume);
            Some(Refill {
                volume: *volume,
                target: self.replica_at(place)?,
                obsolete: there.filter(|replica| !replica.filling).map(|replica| replica.physical),
                begun: there.is_some_and(|replica| replica.filling),
                sources,
            })
        })
    }

    /// Replicas that stand beside enough others which are complete and well.
    pub fn leftovers(&self) -> Vec<Leftover> {
        let mut leftovers = Vec::new();
        for (place, entry) in self.stores.iter().enumerate() {
            let (Some(report), true) = (&entry.report, entry.health.is_well()) else { continue };
            for replica in &report.replicas {
                let Some(logical) = self.volumes.get(&replica.volume) else { continue };
                let record = &logical.record;
                let needed = record.members.contains(&report.id) || logical.filling == Some(report.id);
                let well = self.complete(replica.volume).iter().filter(|replica| replica.well).count();
                if !needed && well >= record.replica_count {
                    let at = self.replica_at(place);
                    leftovers.extend(at.map(|at| Leftover {
                        volume: replica.volume,
                        replica: at,
                        physical: replica.physical,
                    }));
                }
            }
        }
        leftovers
    }

    /// Forgets debts of stores that are no members of `volume`, and returns what
    /// is left of those debts.
    pub fn release_debts(&mut self, volume: VolumeId) -> Debts {
        let concerned = self.concerned(volume);
        let strangers: BTreeMap<StoreId, Vec<(VolumeId, PhotoKey)>> = self
            .debts
            .range((volume, PhotoKey(0))..=(volume, PhotoKey(u64::MAX)))
            .flat_map(|(of, debt)| debt.stores.difference(&concerned).map(|store| (*store, *of)))
            .fold(BTreeMap::new(), |mut by_store, (store, of)| {
                by_store.entry(store).or_default().push(of);
                by_store
            });
        let mut left = Debts::new();
        for (store, paid) in strangers {
            left.extend(self.pay(store, &paid));
        }
        left
    }
}
