//! Who serves which tablet: from what is known to what is to be done, purely.
//!
//! A tablet's data lies on its server's disk, so a tablet goes back to the
//! server that METADATA names, and waits until that one, or what it held, is
//! there. A new tablet goes to the server that has the fewest.

use std::collections::{BTreeMap, BTreeSet};

use cluster::{Epoch, ServerId};
use tablet_server::control::{Assignment, SplitProposal};
use tablet_server::metadata::TabletRecord;
use tablet_server::schema::TabletId;

use crate::replacement::{Level, Replacement};

/// What the master knows of servers and tablets.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// Live servers.
    servers: BTreeMap<ServerId, LiveServer>,
    /// The tablets that METADATA names.
    tablets: BTreeMap<TabletId, TabletRecord>,
}

/// A server that is alive.
#[derive(Clone, Debug)]
struct LiveServer {
    /// The ownerships that it serves under.
    serving: BTreeMap<TabletId, Epoch>,
    is_leaving: bool,
}

/// Something that the master learned.
#[derive(Clone, Debug)]
pub enum Event {
    /// A server is alive and serves these tablets.
    ServerFound {
        /// The server.
        server: ServerId,
        /// Whether it is to have none.
        is_leaving: bool,
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
    /// Tablets are no more, and others serve in their place.
    TabletsReplaced(Replacement),
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
            Event::ServerFound { server, is_leaving, serving } => {
                self.servers.insert(server.clone(), LiveServer { serving, is_leaving });
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
                if let Some(live) = self.servers.get_mut(&server) {
                    live.serving.insert(tablet, epoch);
                }
                Vec::new()
            }
            Event::TabletsDropped(dropped) => {
                self.tablets.retain(|tablet, _| !dropped.contains(tablet));
                for live in self.servers.values_mut() {
                    live.serving.retain(|tablet, _| !dropped.contains(tablet));
                }
                Vec::new()
            }
            Event::TabletsReplaced(Replacement { from, to }) => {
                for old in from {
                    self.tablets.remove(&old.tablet);
                    if let Some(live) = self.server_of(&old) {
                        live.serving.remove(&old.tablet);
                    }
                }
                for new in to {
                    if let Some(live) = self.server_of(&new) {
                        live.serving.insert(new.tablet, new.epoch);
                    }
                    self.tablets.insert(new.tablet, new);
                }
                Vec::new()
            }
        }
    }

    fn server_of(&mut self, record: &TabletRecord) -> Option<&mut LiveServer> {
        record.server.as_ref().and_then(|server| self.servers.get_mut(server))
    }

    /// What is known of the tablet.
    pub fn tablet(&self, tablet: TabletId) -> Option<&TabletRecord> {
        self.tablets.get(&tablet)
    }

    /// All tablets, in order of their numbers.
    pub fn tablets(&self) -> impl Iterator<Item = &TabletRecord> {
        self.tablets.values()
    }

    /// Live servers.
    pub fn servers(&self) -> impl Iterator<Item = &ServerId> {
        self.servers.keys()
    }

    /// Whether `server` is alive.
    pub fn is_live(&self, server: &ServerId) -> bool {
        self.servers.contains_key(server)
    }

    /// Whether the tablet's owner is alive and serves it under the recorded ownership.
    pub fn is_served(&self, record: &TabletRecord) -> bool {
        let live = record.server.as_ref().and_then(|server| self.servers.get(server));
        live.is_some_and(|live| live.serving.get(&record.tablet) == Some(&record.epoch))
    }

    /// The tablet to split as was proposed, if it may be: one that is served,
    /// and not the root, at a row inside it.
    pub fn splittable(&self, proposal: &SplitProposal) -> Option<&TabletRecord> {
        let tablet = self.tablets.get(&proposal.tablet)?;
        let is_inside = tablet.range.contains(&proposal.row) && proposal.row != tablet.range.start;
        (self.is_served(tablet) && Level::of(tablet) != Level::Root && is_inside).then_some(tablet)
    }

    /// Servers for `count` new tablets, in the order of the tablets: neighbours
    /// together, each server up to an even share. Those that leave get some only
    /// where there is no other. Empty where no server is alive.
    pub fn place(&self, count: usize) -> Vec<ServerId> {
        let all_leave = self.servers.values().all(|live| live.is_leaving);
        let staying = self.servers.iter().filter(|(_, live)| all_leave || !live.is_leaving);
        let mut loads: BTreeMap<&ServerId, usize> = staying.map(|(server, _)| (server, 0)).collect();
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

    /// How many live servers there are.
    pub fn server_count(&self) -> usize {
        self.servers.len()
    }

    /// Assigns those of the tablets whose owner is alive and does not serve them under the recorded ownership.
    fn assign(&mut self, which: impl Fn(&TabletRecord) -> bool, epoch: Epoch) -> Vec<Action> {
        let mut actions = Vec::new();
        for record in self.tablets.values_mut().filter(|record| which(record)) {
            let Some(live) = record.server.as_ref().and_then(|server| self.servers.get(server)) else {
                continue;
            };
            if live.serving.get(&record.tablet) == Some(&record.epoch) {
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
    use tablet_server::metadata::{self, METADATA_TABLE};
    use tablet_server::row_set::RowRange;
    use tablet_server::schema::TableId;

    use super::*;

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
        Event::ServerFound { server: server(name), is_leaving: false, serving }
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

    fn parted(tablet: u64, row: &'static str) -> SplitProposal {
        SplitProposal { tablet: TabletId(tablet), row: row.into() }
    }

    #[test]
    fn tablets_that_took_the_place_of_others_are_served_as_any() {
        let mut cluster = Cluster::default();
        cluster.learn(found("a", &[(1, 3)]), Epoch(10));
        cluster.learn(found("b", &[]), Epoch(10));
        cluster.learn(Event::TabletsFound(vec![record(1, "a", 3)]), Epoch(11));
        let proposal = parted(1, "m");
        let parent = cluster.splittable(&proposal).unwrap();
        let split = Replacement::split(parent, &proposal.row, [TabletId(8), TabletId(9)], Epoch(12));
        assert_eq!(cluster.learn(Event::TabletsReplaced(split.clone()), Epoch(13)), []);
        assert_eq!(cluster.splittable(&parted(1, "m")), None);
        // The children are served as they are recorded, and count as tablets.
        assert_eq!(cluster.learn(Event::TabletsFound(split.to), Epoch(15)), []);
        assert_eq!(cluster.place(2), [server("b"), server("b")]);
        assert!(cluster.splittable(&parted(9, "x")).is_some());
        let moved = cluster.tablet(TabletId(9)).unwrap();
        let moved = Replacement::relocation(moved, server("b"), TabletId(10), Epoch(16));
        assert_eq!(cluster.learn(Event::TabletsReplaced(moved), Epoch(17)), []);
        assert!(
            cluster.is_served(cluster.tablet(TabletId(10)).unwrap()) && cluster.tablet(TabletId(9)).is_none()
        );
        assert_eq!(cluster.place(1), [server("a")]);
    }

    #[test]
    fn a_server_that_leaves_gets_nothing_new_while_there_is_another() {
        let mut cluster = Cluster::default();
        let leaving =
            |name| Event::ServerFound { server: server(name), is_leaving: true, serving: BTreeMap::new() };
        cluster.learn(leaving("a"), Epoch(1));
        assert_eq!(cluster.place(1), [server("a")]);
        cluster.learn(found("b", &[]), Epoch(1));
        assert_eq!(cluster.place(2), [server("b"), server("b")]);
    }

    #[test]
    fn what_cannot_be_split_is_left_alone() {
        let mut cluster = Cluster::default();
        cluster.learn(found("a", &[(1, 3), (2, 2), (4, 3), (6, 3)]), Epoch(10));
        let root = TabletRecord { table: METADATA_TABLE, range: metadata::root_range(), ..record(4, "a", 3) };
        let inside = RowRange { start: "b".into(), end: "d".into() };
        let others = vec![
            record(1, "a", 3),
            record(2, "a", 3),
            record(3, "gone", 3),
            root,
            TabletRecord { range: inside, ..record(6, "a", 3) },
        ];
        cluster.learn(Event::TabletsFound(others), Epoch(11));
        let root_row = SplitProposal { tablet: TabletId(4), row: vec![0, 0, 0, 0, 0, 0, 0, 0, 1].into() };
        // At its first row; not loaded under its new ownership yet; without a server; the root; unknown.
        for refused in [parted(1, ""), parted(2, "m"), parted(3, "m"), root_row, parted(5, "m")] {
            assert_eq!(cluster.splittable(&refused), None, "{refused:?}");
        }
        for (row, is_inside) in [("a", false), ("b", false), ("c", true), ("d", false), ("e", false)] {
            assert_eq!(cluster.splittable(&parted(6, row)).is_some(), is_inside, "{row}");
        }
    }
}
