//! The keys that something is under way for: flights and writes.
//!
//! Who misses a key leads its flight or waits for it, so a thousand clients on
//! one cold key are one read of the origin. Writers of a key take turns, in the
//! order they came, so their order at the origin is known here.
//!
//! A key is here only while something is under way, or somebody waits for a turn.
//! Whatever is done to an item with a route, in the item table or among the known
//! absences, is done under its key's lock here.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, watch};
use twox_hash::XxHash3_64;

use super::Fetched;
use super::gate::Gate;

const SHARD_COUNT: usize = 64;

/// A flight's number: no two are the same.
type FlightNumber = u64;

#[derive(Debug, Default)]
struct Key {
    gate: Gate<FlightNumber>,
    /// What the flight of the gate brings.
    arrival: Option<watch::Receiver<Option<Fetched>>>,
    /// Writers take turns by it.
    turns: Arc<tokio::sync::Mutex<()>>,
    /// Those who write or wait for their turn.
    writer_count: usize,
}

impl Key {
    fn is_idle(&self) -> bool {
        self.gate.is_idle() && self.writer_count == 0
    }
}

type Shard = Mutex<HashMap<Box<[u8]>, Key>>;

/// The keys that something is under way for.
#[derive(Debug)]
pub(crate) struct Flights {
    shards: Box<[Shard]>,
    last_number: AtomicU64,
}

/// How somebody who misses gets the value.
#[derive(Debug)]
pub(crate) enum Boarding {
    /// By reading the origin for all.
    Lead(Flight),
    /// By waiting for one who does.
    Wait(watch::Receiver<Option<Fetched>>),
}

/// A flight, in the hands of who reads the origin. Those who wait are told when
/// it is dropped without having landed.
#[derive(Debug)]
pub(crate) struct Flight {
    key: Box<[u8]>,
    number: FlightNumber,
    arrival: watch::Sender<Option<Fetched>>,
}

impl Flight {
    /// A way to wait for it.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<Fetched>> {
        self.arrival.subscribe()
    }
}

impl Flights {
    pub(crate) fn new() -> Self {
        let shards = (0..SHARD_COUNT).map(|_| Shard::default()).collect();
        Self { shards, last_number: AtomicU64::new(0) }
    }

    fn shard(&self, key: &[u8]) -> &Shard {
        let hash = XxHash3_64::oneshot(key);
        &self.shards[usize::try_from(hash % SHARD_COUNT as u64).expect("it is small")]
    }

    /// Joins the flight for `key`, or begins one.
    pub(crate) fn board(&self, key: &[u8]) -> Boarding {
        let mut shard = self.shard(key).lock();
        let entry = shard.entry(key.into()).or_default();
        if let (Some(_), Some(arrival)) = (entry.gate.flight(), &entry.arrival) {
            // A flight whose leader is gone brings nothing.
            if arrival.has_changed().is_ok() {
                return Boarding::Wait(arrival.clone());
            }
        }
        let number = self.last_number.fetch_add(1, Ordering::Relaxed) + 1;
        let (arrival, waiting) = watch::channel(None);
        entry.gate.depart(number);
        entry.arrival = Some(waiting);
        Boarding::Lead(Flight { key: key.into(), number, arrival })
    }

    /// Ends `flight` with what it brings, and has `store` store that if it may be.
    pub(crate) fn land(&self, flight: Flight, fetched: Fetched, store: impl FnOnce()) {
        let Flight { key, number, arrival } = flight;
        {
            let mut shard = self.shard(&key).lock();
            if let Entry::Occupied(mut entry) = shard.entry(key) {
                if entry.get_mut().gate.land(&number) {
                    store();
                }
                if entry.get().is_idle() {
                    entry.remove();
                }
            }
        }
        arrival.send_replace(Some(fetched));
    }

    /// Forgets `flight`, which brings nothing worth waiting for.
    pub(crate) fn cancel(&self, flight: Flight, fetched: Fetched) {
        self.land(flight, fetched, || {});
    }

    /// Notes a change of `key` by somebody else; `remove` takes away what is stored.
    pub(crate) fn disturb<T>(&self, key: &[u8], remove: impl FnOnce() -> T) -> T {
        let mut shard = self.shard(key).lock();
        if let Some(entry) = shard.get_mut(key) {
            entry.gate.disturb();
            if entry.is_idle() {
                shard.remove(key);
            }
        }
        remove()
    }

    /// Waits for the turn to write `key`, and begins.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the place in the queue up.
    pub(crate) async fn begin_write<'f, G: FnOnce()>(&'f self, key: &[u8], give_up: G) -> WriteTurn<'f, G> {
        let (queued, turns) = {
            let mut shard = self.shard(key).lock();
            let entry = shard.entry(key.into()).or_default();
            entry.writer_count += 1;
            (Queued { flights: self, key: key.into() }, Arc::clone(&entry.turns))
        };
        let turn = turns.lock_owned().await;
        if let Some(entry) = self.shard(key).lock().get_mut(key) {
            entry.gate.begin_write();
        }
        WriteTurn { queued, _turn: turn, give_up: Some(give_up) }
    }
}

/// One who writes, or waits to.
#[derive(Debug)]
struct Queued<'f> {
    flights: &'f Flights,
    key: Box<[u8]>,
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        let mut shard = self.flights.shard(&self.key).lock();
        if let Some(entry) = shard.get_mut(&self.key) {
            entry.writer_count -= 1;
            if entry.is_idle() {
                shard.remove(&self.key);
            }
        }
    }
}

/// A write under way. Dropped before [`WriteTurn::finish`], its outcome is
/// unknown: `give_up` takes away what is stored.
#[derive(Debug)]
pub(crate) struct WriteTurn<'f, G: FnOnce()> {
    queued: Queued<'f>,
    give_up: Option<G>,
    _turn: OwnedMutexGuard<()>,
}

impl<G: FnOnce()> WriteTurn<'_, G> {
    /// Ends the write: `store` stores what it wrote if that may be, else what is
    /// stored is taken away.
    pub(crate) fn finish(mut self, store: impl FnOnce()) {
        self.end(Some(store));
    }

    fn end(&mut self, store: Option<impl FnOnce()>) {
        let Some(give_up) = self.give_up.take() else { return };
        let mut shard = self.queued.flights.shard(&self.queued.key).lock();
        let may_store = shard.get_mut(&self.queued.key).is_some_and(|entry| entry.gate.end_write());
        match store {
            Some(store) if may_store => store(),
            _ => give_up(),
        }
    }
}

impl<G: FnOnce()> Drop for WriteTurn<'_, G> {
    fn drop(&mut self) {
        self.end(None::<fn()>);
    }
}
