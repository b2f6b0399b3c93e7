//! Who serves which tablet: from what is known to what is to be done, purely.
//!
//! A tablet's data lies on its server's disk, so a tablet goes back to the
//! server that METADATA names, and waits while that one is away. A new tablet
//! goes to the server that has the fewest.

use std::collections::{BTreeMap, BTreeSet};

use cluster::{Epoch, ServerId};
use tablet_server::control::Assignment;
use tablet_server::metadata::TabletRecord;
use tablet_server::schema::TabletId;

/// What the master knows of servers and tablets.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// Live servers, and the ownerships that each serves under.
    servers: BTreeMap<ServerId, BTreeMap<TabletId, Epoch>>,
    /// The tablets that METADATA names.
    tablets: BTreeMap<TabletId, TabletRecord>,
}

/// Something that the master learned.
#[derive(Clone, Debug)]
pub enum Event {
    /// A server is alive and serves these tablets.
    ServerFound {
        /// The server.
        server: ServerId,
        /// What it serves, and under which ownership.
        serving: BTreeMap<TabletId, Epoch>,
    },
    /// A server is gone.
    ServerLost {
        /// The server.
        server: ServerId,
    },
    /// METADATA names these tablets.
    TabletsFound(Vec<TabletRecord>),
    /// A server serves a tablet.
    Served {
        /// The tablet.
        tablet: TabletId,
        /// Its owner.
        server: ServerId,
        /// The number of the ownership.
        epoch: Epoch,
    },
    /// These tablets are no more.
    TabletsDropped(BTreeSet<TabletId>),
}

/// Something that the master is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write in METADATA, first, that the tablet has this owner, and then have it load the tablet.
    Assign(TabletRecord),
}

impl Cluster {
    /// Takes `event` in, and gives what it makes necessary; ownerships that
    /// begin now get the number `epoch`, which must be new.
    pub fn learn(&mut self, event: Event, epoch: Epoch) -> Vec<Action> {
        match event {
            Event::ServerFound { server, serving } => {
                self.servers.insert(server.clone(), serving);
                self.assign(|record| record.server.as_ref() == Some(&server), epoch)
            }
            Event::ServerLost { server } => {
                self.servers.remove(&server);
                Vec::new()
            }
            Event::TabletsFound(records) => {
                let found: BTreeSet<TabletId> = records.iter().map(|record| record.tablet).collect();
                self.tablets.extend(records.into_iter().map(|record| (record.tablet, record)));
                self.assign(|record| found.contains(&record.tablet), epoch)
            }
            Event::Served { tablet, server, epoch } => {
                if let Some(serving) = self.servers.get_mut(&server) {
                    serving.insert(tablet, epoch);
                }
                Vec::new()
            }
            Event::TabletsDropped(dropped) => {
                self.tablets.retain(|tablet, _| !dropped.contains(tablet));
                for serving in self.servers.values_mut() {
                    serving.retain(|tablet, _| !dropped.contains(tablet));
                }
                Vec::new()
            }
        }
    }

    /// Servers for `count` new tablets, in the order of the tablets: neighbours
    /// together, each server up to an even share. Empty where no server is alive.
    pub fn place(&self, count: usize) -> Vec<ServerId> {
        let mut loads: BTreeMap<&ServerId, usize> = self.servers.keys().map(|server| (server, 0)).collect();
        for server in self.tablets.values().filter_map(|record| record.server.as_ref()) {
            loads.entry(server).and_modify(|load| *load += 1);
        }
        let mut counts: BTreeMap<&ServerId, usize> = BTreeMap::new();
        for _ in 0..count {
            let Some((server, load)) = loads.iter_mut().min_by_key(|(_, load)| **load) else { break };
            *load += 1;
            *counts.entry(server).or_default() += 1;
        }
        counts.into_iter().flat_map(|(server, count)| std::iter::repeat_n(server.clone(), count)).collect()
    }

    /// Live servers.
    pub fn server_count(&self) -> usize {
        self.servers.len()
    }

    /// Assigns those of the tablets whose owner is alive and does not serve them under the recorded ownership.
    fn assign(&mut self, which: impl Fn(&TabletRecord) -> bool, epoch: Epoch) -> Vec<Action> {
        let mut actions = Vec::new();
        for record in self.tablets.values_mut().filter(|record| which(record)) {
            let Some(serving) = record.server.as_ref().and_then(|server| self.servers.get(server)) else {
                continue;
            };
            if serving.get(&record.tablet) == Some(&record.epoch) {
                continue;
            }
            record.epoch = epoch;
            actions.push(Action::Assign(record.clone()));
        }
        actions
    }
}

/// What the server of `record` is told.
pub fn assignment_of(record: &TabletRecord) -> Assignment {
    Assignment {
        tablet: record.tablet,
        table: record.table,
        range: record.range.clone(),
        epoch: record.epoch,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tablet_server::row_set::RowRange;
    use tablet_server::schema::TableId;

    fn server(name: &str) -> ServerId {
        ServerId(name.to_owned())
    }

    fn record(tablet: u64, owner: &str, epoch: u64) -> TabletRecord {
        TabletRecord {
            tablet: TabletId(tablet),
            table: TableId(1),
            range: RowRange::default(),
            epoch: Epoch(epoch),
            server: Some(server(owner)),
        }
    }

    fn found(name: &str, serving: &[(u64, u64)]) -> Event {
        let serving = serving.iter().map(|(tablet, epoch)| (TabletId(*tablet), Epoch(*epoch))).collect();
        Event::ServerFound { server: server(name), serving }
    }

    #[test]
    fn tablets_go_back_to_the_server_that_holds_their_data_under_a_new_ownership() {
        let mut cluster = Cluster::default();
        assert!(cluster.learn(found("a", &[]), Epoch(10)).is_empty());
        let actions =
            cluster.learn(Event::TabletsFound(vec![record(1, "a", 3), record(2, "b", 3)]), Epoch(11));
        assert_eq!(actions, [Action::Assign(record(1, "a", 11))]);
        let actions = cluster.learn(found("b", &[]), Epoch(12));
        assert_eq!(actions, [Action::Assign(record(2, "b", 12))]);
    }

    #[test]
    fn a_tablet_that_is_served_as_recorded_is_left_alone() {
        let mut cluster = Cluster::default();
        cluster.learn(found("a", &[(1, 3), (2, 2)]), Epoch(10));
        let actions =
            cluster.learn(Event::TabletsFound(vec![record(1, "a", 3), record(2, "a", 3)]), Epoch(11));
        assert_eq!(actions, [Action::Assign(record(2, "a", 11))]);
    }

    #[test]
    fn a_lost_server_gets_no_new_tablet_and_its_own_ones_back_when_it_returns() {
        let mut cluster = Cluster::default();
        cluster.learn(found("a", &[(1, 3)]), Epoch(10));
        cluster.learn(Event::TabletsFound(vec![record(1, "a", 3)]), Epoch(11));
        cluster.learn(Event::ServerLost { server: server("a") }, Epoch(12));
        assert!(cluster.place(1).is_empty());
        assert_eq!(cluster.learn(found("a", &[]), Epoch(13)), [Action::Assign(record(1, "a", 13))]);
    }

    #[test]
    fn new_tablets_even_the_servers_out_and_neighbours_stay_together() {
        let mut cluster = Cluster::default();
        cluster.learn(found("a", &[]), Epoch(1));
        cluster.learn(found("b", &[]), Epoch(2));
        cluster.learn(Event::TabletsFound(vec![record(1, "a", 1), record(2, "a", 1)]), Epoch(3));
        assert_eq!(cluster.place(4), [server("a"), server("b"), server("b"), server("b")]);
        cluster.learn(Event::TabletsDropped([TabletId(1), TabletId(2)].into()), Epoch(4));
        assert_eq!(cluster.place(2), [server("a"), server("b")]);
    }
}
