//! The master at work: its lock, its starts, and what it carries out.
//!
//! A start (Bigtable section 5.2): take the lock; ask the servers what they
//! serve; have the root tablet loaded, then METADATA's other tablets, then,
//! once half-made and half-removed tables and instances are gone and what was to replace tablets is settled, all the rest. Each level is
//! written into the level above before it is loaded, so METADATA never names an
//! ownership older than one that is served.
//!
//! The first start makes METADATA itself. Its intent stands in the lock
//! service's record `first-start` until all of it is done, so that a
//! start after a crash does it again with the same tablets.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZero;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cluster::lock_service::{Expect, LockService, LockSession};
use cluster::{Epoch, ServerId, telemetry};
use prost::Message;
use row_api::names::TableName;
use tablet_server::control::{Recovery, TabletControl};
use tablet_server::gateway::Router;
use tablet_server::metadata::{self, METADATA_TABLE, ROOT_RECORD_KEY, RootRecord, TabletRecord};
use tablet_server::row_set::RowRange;
use tablet_server::schema::{TableId, TabletId};
use tablet_server::table_record::{self, BadTableRecord, TableRecord, TableState};
use tablet_server::{Catalog, Servers};
use tokio::sync::Mutex;

use crate::assignment::{Action, Cluster, Event, assignment_of};
use crate::balance::BalanceOptions;
use crate::error::{Error, Result};
use crate::load::{HotTablet, LoadHistory, Sample};
use crate::metadata_writer::MetadataWriter;
use crate::operations::RunningOperations;
use crate::replacement::Level;
use crate::watch::Watch;

/// The master's lock.
const LOCK: &str = "master";

/// Where the lock service keeps the first start's intent.
const FIRST_START_KEY: &str = "first-start";

/// Rows of METADATA that are read at a time.
const ROWS_AT_A_TIME: usize = 10_000;

/// The one master.
pub struct Master {
    pub(crate) lock_service: Arc<dyn LockService>,
    pub(crate) servers: Arc<Servers>,
    pub(crate) router: Arc<Router>,
    pub(crate) metadata: MetadataWriter,
    /// Held while tables or tablets change, one change at a time.
    pub(crate) cluster: Mutex<Cluster>,
    pub(crate) recovery: Arc<dyn Recovery>,
    pub(crate) options: MasterOptions,
    pub(crate) watch: parking_lot::Mutex<Watch>,
    pub(crate) running: Arc<RunningOperations>,
    /// Tables whose families may not all be in the locality groups that they are to be in.
    pub(crate) groups_due: parking_lot::Mutex<BTreeSet<TableName>>,
    load: parking_lot::Mutex<LoadHistory>,
    session: Box<dyn LockSession>,
}

/// What the master is told when it starts.
#[derive(Clone, Debug)]
pub struct MasterOptions {
    /// What tablets are moved, merged and split for.
    pub balance: BalanceOptions,
    /// How long what a table held is kept after its deletion; zero deletes it at once.
    pub undelete_time: Duration,
}

impl Default for MasterOptions {
    /// Deleted tables are kept for 7 days, as in Google's service.
    fn default() -> Self {
        Self { balance: BalanceOptions::default(), undelete_time: Duration::from_secs(7 * 86_400) }
    }
}

/// What the first start makes.
#[derive(Clone, PartialEq, Eq, Message)]
struct FirstStart {
    #[prost(string, tag = "1")]
    server: String,
    #[prost(uint64, tag = "2")]
    root_tablet: u64,
    #[prost(uint64, tag = "3")]
    second_tablet: u64,
    #[prost(uint64, tag = "4")]
    epoch: u64,
}

impl Master {
    /// Takes the master's lock and brings every tablet whose server is in
    /// `servers` into service; METADATA and all tables serve when this returns.
    /// What servers held that are gone is brought back by `recovery`.
    ///
    /// # Errors
    ///
    /// - [`Error::Lock`]: there is another master.
    /// - [`Error::NoServer`]: at the first start, `servers` is empty.
    /// - [`Error::Tablets`]: METADATA cannot be read or loaded. A table's tablet
    ///   that cannot be loaded is an event, and its rows are UNAVAILABLE.
    pub async fn start(
        lock_service: Arc<dyn LockService>,
        servers: Arc<Servers>,
        router: Arc<Router>,
        recovery: Arc<dyn Recovery>,
        options: MasterOptions,
    ) -> Result<Arc<Self>> {
        let session = lock_service.lock(LOCK).await?;
        let master = Self {
            metadata: MetadataWriter::new(Arc::clone(&router)),
            lock_service,
            servers,
            router,
            cluster: Mutex::default(),
            recovery,
            options,
            watch: parking_lot::Mutex::default(),
            running: Arc::default(),
            groups_due: parking_lot::Mutex::default(),
            load: parking_lot::Mutex::default(),
            session,
        };
        master.adopt().await?;
        master.note_load().await?;
        let master = Arc::new(master);
        master.resume_operations().await?;
        Ok(master)
    }

    /// The epoch of this master's lock.
    pub fn epoch(&self) -> Epoch {
        self.session.epoch()
    }

    /// Remembers which tablets have kept the servers busy since the last call; to be called each minute.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn note_load(&self) -> Result<()> {
        let sample = self.sample_load().await?;
        self.load.lock().learn(sample);
        Ok(())
    }

    /// Tablets of tables for which `is_asked` that were hot in a window that
    /// began from `start` on and before `end`, the hottest first.
    pub(crate) async fn hot_tablets(
        &self,
        start: SystemTime,
        end: SystemTime,
        is_asked: impl Fn(TableId) -> bool,
    ) -> Result<Vec<HotTablet>> {
        let now = self.sample_load().await?;
        Ok(self.load.lock().hot(&now, start, end, is_asked))
    }

    async fn sample_load(&self) -> Result<Sample> {
        let mut tablets = Vec::new();
        for server in self.servers.controls() {
            tablets.extend(server.tablets().await?);
        }
        Ok(Sample {
            at: SystemTime::now(),
            cpu: telemetry::process_cpu_time().unwrap_or_default(),
            cpu_count: std::thread::available_parallelism().map_or(1, NonZero::get),
            tablets,
        })
    }

    /// The tables that exist.
    pub(crate) fn catalog(&self) -> &Arc<Catalog> {
        self.router.catalog()
    }

    async fn adopt(&self) -> Result<()> {
        let mut cluster = self.cluster.lock().await;
        for server in self.servers.controls() {
            let serving = server.tablets().await?;
            let serving: BTreeMap<_, _> =
                serving.iter().map(|stats| (stats.assignment.tablet, stats.assignment.epoch)).collect();
            let server = server.id().clone();
            let is_leaving = self.servers.is_leaving(&server);
            cluster.learn(Event::ServerFound { server, is_leaving, serving }, self.new_epoch().await?);
        }
        self.finish_first_start(&cluster).await?;
        self.settle_replacements_of(&mut cluster, Level::Root).await?;
        let root = self.read_root().await?;
        self.bring_into_service(&mut cluster, vec![root]).await?;
        self.settle_replacements_of(&mut cluster, Level::Metadata).await?;
        let second_level = self.read_metadata(metadata::root_range()).await?;
        self.bring_into_service(&mut cluster, second_level).await?;
        self.settle_replacements_of(&mut cluster, Level::Tables).await?;
        let unfinished = self.load_instances().await?;
        self.load_tables(&mut cluster).await?;
        for instance in unfinished {
            tracing::warn!(%instance, "removing what is left of an instance");
            self.finish_deletion(&mut cluster, &instance).await?;
        }
        self.withdraw_half_restored().await?;
        let tablets = self.read_metadata(metadata::second_range()).await?;
        let tablet_count = tablets.len();
        let broken = self.bring_into_service(&mut cluster, tablets).await;
        if let Err(error) = broken {
            tracing::error!(error = &error as &dyn std::error::Error, "some tablets cannot be served");
        }
        tracing::info!(tablet_count, epoch = %self.epoch(), "the master has adopted the tablets");
        Ok(())
    }

    /// Makes METADATA's tablets if that was never done to its end.
    async fn finish_first_start(&self, cluster: &Cluster) -> Result<()> {
        let intent = match self.lock_service.get(FIRST_START_KEY).await? {
            Some(record) => FirstStart::decode(record.value)
                .map_err(|error| damaged(FIRST_START_KEY, &error.to_string()))?,
            None if self.lock_service.get(ROOT_RECORD_KEY).await?.is_some() => return Ok(()),
            None => {
                let server = cluster.place(1).pop().ok_or(Error::NoServer)?;
                let intent = FirstStart {
                    server: server.0,
                    root_tablet: self.lock_service.next_id().await?,
                    second_tablet: self.lock_service.next_id().await?,
                    epoch: self.lock_service.next_id().await?,
                };
                self.lock_service.put(FIRST_START_KEY, intent.encode_to_vec().into(), Expect::Absent).await?;
                intent
            }
        };
        let FirstStart { server, root_tablet, second_tablet, epoch } = intent;
        let root = RootRecord { tablet: root_tablet, server: server.clone(), epoch };
        let second = TabletRecord {
            tablet: TabletId(second_tablet),
            table: METADATA_TABLE,
            range: metadata::second_range(),
            epoch: Epoch(epoch),
            server: Some(ServerId(server)),
        };
        let control = self.control(&second)?;
        control.create_tablet(assignment_of(&root.to_tablet())).await?;
        control.create_tablet(assignment_of(&second)).await?;
        self.write_root(&root.to_tablet()).await?;
        self.metadata.record(&[second]).await?;
        self.lock_service.delete(FIRST_START_KEY, Expect::Anything).await?;
        Ok(())
    }

    /// Publishes the tables that serve, and removes what a crash left of others.
    async fn load_tables(&self, cluster: &mut Cluster) -> Result<()> {
        for record in self.lock_service.list(table_record::PREFIX).await? {
            let name = table_record::name_of_key(&record.key).map_err(tablet_server::Error::from)?;
            let table = TableRecord::read(&record.key, &record.value).map_err(tablet_server::Error::from)?;
            match table.state() {
                TableState::Serving => {
                    self.router.catalog().publish(&name, table.schema());
                    self.note_groups(&name, &table);
                }
                TableState::Creating | TableState::Deleting | TableState::Unspecified => {
                    tracing::warn!(table = %name, state = ?table.state(), "removing what is left of a table");
                    self.remove_table(cluster, &name, &table).await?;
                }
            }
        }
        Ok(())
    }

    /// Takes in what METADATA says, and has the servers load what they should.
    ///
    /// # Errors
    ///
    /// The last of the tablets' errors; the others are in service.
    async fn bring_into_service(&self, cluster: &mut Cluster, tablets: Vec<TabletRecord>) -> Result<()> {
        let actions = cluster.learn(Event::TabletsFound(tablets), self.new_epoch().await?);
        self.carry_out(cluster, actions).await
    }

    /// Does `actions`, one level of METADATA after the other.
    ///
    /// # Errors
    ///
    /// The last of the tablets' errors; the others are in service.
    pub(crate) async fn carry_out(&self, cluster: &mut Cluster, actions: Vec<Action>) -> Result<()> {
        let mut outcome = Ok(());
        for level in [Level::Root, Level::Metadata, Level::Tables] {
            let all = actions.iter().map(|Action::Assign(record)| record);
            let assigned: Vec<_> = all.filter(|record| Level::of(record) == level).cloned().collect();
            self.record(&assigned).await?;
            for record in &assigned {
                match self.load(record).await {
                    Ok(served) => _ = cluster.learn(served, record.epoch),
                    Err(error) => {
                        tracing::error!(
                            tablet = record.tablet.0,
                            error = &error as &dyn std::error::Error,
                            "cannot load a tablet"
                        );
                        outcome = Err(error);
                    }
                }
            }
        }
        outcome
    }

    async fn load(&self, record: &TabletRecord) -> Result<Event> {
        let control = self.control(record)?;
        control.load_tablet(assignment_of(record)).await?;
        Ok(Event::Served { tablet: record.tablet, server: control.id().clone(), epoch: record.epoch })
    }

    /// The server that owns the tablet.
    pub(crate) fn control(&self, record: &TabletRecord) -> Result<Arc<dyn TabletControl>> {
        record.server.as_ref().and_then(|server| self.servers.control(server)).ok_or(Error::NoServer)
    }

    /// What METADATA says of the tablets whose rows are in `range`.
    pub(crate) async fn read_metadata(&self, mut range: RowRange) -> Result<Vec<TabletRecord>> {
        let mut records: Vec<TabletRecord> = Vec::new();
        loop {
            let some = self.router.locator().metadata_rows(range.clone(), ROWS_AT_A_TIME).await?;
            let is_last = some.len() < ROWS_AT_A_TIME;
            records.extend(some);
            match records.last() {
                Some(last) if !is_last => {
                    let mut next = last.key();
                    next.push(0);
                    range.start = next.into();
                }
                _ => return Ok(records),
            }
        }
    }

    /// The tablets of `table`, in order.
    pub(crate) async fn tablets_of(&self, table: TableId) -> Result<Vec<TabletRecord>> {
        let range = RowRange {
            start: metadata::search_key(table, b"").into(),
            end: metadata::table_end_key(table).into(),
        };
        self.read_metadata(range).await
    }

    pub(crate) async fn new_epoch(&self) -> Result<Epoch> {
        Ok(Epoch(self.lock_service.next_id().await?))
    }

    pub(crate) async fn read_root(&self) -> Result<TabletRecord> {
        let missing = || damaged(ROOT_RECORD_KEY, "it is missing");
        let record = self.lock_service.get(ROOT_RECORD_KEY).await?.ok_or_else(missing)?;
        let root =
            RootRecord::decode(record.value).map_err(|error| damaged(ROOT_RECORD_KEY, &error.to_string()))?;
        Ok(root.to_tablet())
    }

    pub(crate) async fn write_root(&self, root: &TabletRecord) -> Result<()> {
        let server = root.server.clone().ok_or(Error::NoServer)?;
        let record = RootRecord { tablet: root.tablet.0, server: server.0, epoch: root.epoch.0 };
        self.lock_service.put(ROOT_RECORD_KEY, record.encode_to_vec().into(), Expect::Anything).await?;
        Ok(())
    }
}

impl fmt::Debug for Master {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Master").field("epoch", &self.epoch()).finish_non_exhaustive()
    }
}

/// The error for a record of the lock service that makes no sense.
pub(crate) fn damaged(key: &str, found: &str) -> Error {
    tablet_server::Error::from(BadTableRecord { key: key.to_owned(), found: found.to_owned() }).into()
}
