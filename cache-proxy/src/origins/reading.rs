//! Reading keys through: one read of the origin for all who miss them.
//!
//! Who misses first leads: its reads run in tasks of their own, so that they
//! come to an end whatever becomes of its client, and all others wait for them.

use std::collections::HashMap;
use std::sync::Arc;

use super::cell::CellValue;
use super::flights::{Boarding, Flight};
use super::key::{CellKey, OriginKey, PhotoKey};
use super::rows::{self, Found};
use super::{Fetched, Origins, line, refusal};
use crate::invalidation::table_state::TableState;

/// A key whose origin is to be read for all who wait.
struct Led<K> {
    key: K,
    flight: Flight,
    /// The generation of its row when it left.
    generation: u32,
}

impl Origins {
    /// Reads `keys`, each once for all who ask; what came of it, in their order.
    pub(super) async fn read(self: &Arc<Self>, keys: Vec<OriginKey>) -> Vec<(OriginKey, Fetched)> {
        let mut by_table: HashMap<Box<[u8]>, Vec<Led<CellKey>>> = HashMap::new();
        let mut arrivals = Vec::with_capacity(keys.len());
        for key in &keys {
            match self.flights.board(key.canonical()) {
                Boarding::Wait(arrival) => {
                    metrics::counter!("hayloft_cache_origin_waits_total").increment(1);
                    arrivals.push(arrival);
                }
                Boarding::Lead(flight) => {
                    arrivals.push(flight.subscribe());
                    match key {
                        OriginKey::Cell(cell) => by_table
                            .entry(cell.table_part().into())
                            .or_default()
                            .push(Led { key: cell.clone(), flight, generation: 0 }),
                        OriginKey::Photo(photo) => {
                            let (origins, photo) = (Arc::clone(self), photo.clone());
                            tokio::spawn(async move { origins.fetch_photo(photo, flight).await });
                        }
                    }
                }
            }
        }
        for (part, led) in by_table {
            let origins = Arc::clone(self);
            tokio::spawn(async move { origins.fetch_cells(&part, led).await });
        }
        let mut outcomes = Vec::with_capacity(keys.len());
        for (key, mut arrival) in keys.into_iter().zip(arrivals) {
            // Whoever leads has a deadline, so this ends.
            let fetched = match arrival.wait_for(Option::is_some).await {
                Ok(fetched) => fetched.clone().unwrap_or(Fetched::Later),
                Err(_) => Fetched::Failed("SERVER_ERROR the read of the origin was given up".into()),
            };
            outcomes.push((key, fetched));
        }
        outcomes
    }

    /// Reads cells of one table, and lands their flights.
    async fn fetch_cells(self: Arc<Self>, part: &[u8], mut led: Vec<Led<CellKey>>) {
        let known = self.table_or_new(part);
        let Some(name) = super::key::table_name(part, &self.options.instance) else {
            return self.fail(led, &"CLIENT_ERROR the key names no table".into());
        };
        if let Some(table) = &known {
            for cell in &mut led {
                table.note_column(&cell.key.family, &cell.key.qualifier);
                cell.generation = table.generation(&cell.key.row);
            }
        }
        let outcome = self.call("rows", "read", async {
            let keys: Vec<&CellKey> = led.iter().map(|led| &led.key).collect();
            rows::read_cells(&self.client, &name, &keys, self.options.timeout).await.map_err(|status| {
                if status.code() == tonic::Code::NotFound {
                    self.forget_table(part);
                }
                refusal(&status)
            })
        });
        let found = match outcome.await {
            Ok(found) => found,
            Err(failure) => return self.fail(led, &failure),
        };
        metrics::counter!("hayloft_cache_origin_keys_total", "origin" => "rows").increment(led.len() as u64);
        if let Some(table) = &known {
            self.want_followed(table);
        }
        for (led, found) in led.into_iter().zip(found) {
            self.land_cell(known.as_deref(), led, found);
        }
    }

    fn land_cell(&self, table: Option<&TableState>, led: Led<CellKey>, found: Found) {
        let Led { key, flight, generation } = led;
        let now = self.clock.now_s();
        let value = match found {
            Found::Unread => return self.flights.cancel(flight, Fetched::Later),
            Found::Value(value) if value.value.len() > self.value_bytes_max => {
                let failure = "SERVER_ERROR object too large for cache".into();
                return self.flights.cancel(flight, Fetched::Failed(failure));
            }
            Found::Value(value) if !value.is_expired(now) => Some(value),
            Found::Value(_) | Found::Absent => None,
        };
        let cas = value.as_ref().map_or(0, |value| TableState::cas(generation, value.identity()));
        let fetched = value.clone().map_or(Fetched::Absent, |value| Fetched::Value(Arc::new(value), cas));
        self.flights.land(flight, fetched, || {
            if let Some(table) = table {
                self.keep(table, &key, value.as_ref(), generation);
            }
        });
    }

    /// Keeps what `key` is known to be, for as long as that may be.
    ///
    /// REQUIRES: the key's lock in `flights`.
    pub(super) fn keep(
        &self,
        table: &TableState,
        key: &CellKey,
        value: Option<&CellValue>,
        generation: u32,
    ) -> u64 {
        let now = self.clock.now_s();
        let lifetime = Self::lifetime_seconds(table.lifetime(self.clock.now_us()));
        let Some(value) = value else {
            self.shelf.put_absence(key.canonical(), generation, lifetime, now);
            return 0;
        };
        let ends = [
            now.saturating_add(lifetime),
            value.expires_at,
            table.expires_at(&key.family, value.timestamp_us),
        ];
        let expires_at = ends.into_iter().filter(|end| *end != 0).min().unwrap_or(0);
        self.shelf.put(key.canonical(), value, generation, expires_at, now)
    }

    /// Has the changes of `table` followed.
    pub(super) fn want_followed(&self, table: &TableState) {
        if table.wish_followed() {
            self.wish_to_follow.notify_one();
        }
    }

    fn fail(&self, led: Vec<Led<CellKey>>, failure: &Arc<str>) {
        for led in led {
            self.flights.cancel(led.flight, Fetched::Failed(Arc::clone(failure)));
        }
    }

    async fn fetch_photo(self: Arc<Self>, key: PhotoKey, flight: Flight) {
        let Some(photos) = &self.photos else {
            let failure = "SERVER_ERROR no photo origin is configured".into();
            return self.flights.cancel(flight, Fetched::Failed(failure));
        };
        let outcome = self.call("photos", "read", async {
            let read = photos.get(&key.path(), self.value_bytes_max).await;
            read.map_err(|error| line(&format!("SERVER_ERROR the photo origin: {error}")))
        });
        let now = self.clock.now_s();
        let lifetime = Self::lifetime_seconds(self.options.photo_lifetime);
        match outcome.await {
            Err(failure) => self.flights.cancel(flight, Fetched::Failed(failure)),
            Ok(None) => self.flights.land(flight, Fetched::Absent, || {
                self.shelf.put_absence(key.canonical(), 0, lifetime, now);
            }),
            Ok(Some(value)) => {
                let value = CellValue { value, timestamp_us: 0, client_flags: 0, expires_at: 0 };
                let cas = TableState::cas(0, value.identity());
                let fetched = Fetched::Value(Arc::new(value.clone()), cas);
                self.flights.land(flight, fetched, || {
                    self.shelf.put(key.canonical(), &value, 0, now.saturating_add(lifetime), now);
                });
            }
        }
    }
}
