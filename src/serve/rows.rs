//! Tablet servers, master and gateway, wired to each other inside the process.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cluster::lock_service::LockService;
use master::balance::BalanceOptions;
use master::{Master, MasterOptions};
use row_api::client::{self, RowClient};
use tablet_server::control::{TabletControl, TabletStats};
use tablet_server::gateway::{Caller, Locator, Router, RowService};
use tablet_server::{Catalog, Fleet, FleetOptions, system_clock};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tonic::service::Routes;

use super::home::Home;
use super::{ServeError, count};
use crate::config::Config;

/// Brings what is told of a server's engine up to date, beside what all of them count.
fn publish_engine_metrics(server: &str, stats: &lsm::EngineStats) {
    let server = || server.to_owned();
    for (kind, bytes) in [
        ("memtables", stats.active_memtable_bytes + stats.frozen_memtable_bytes),
        ("block_cache", stats.block_cache_bytes),
        ("reserved", stats.reserved_bytes),
        ("in_memory_groups", stats.kept_block_bytes),
    ] {
        metrics::gauge!("hayloft_lsm_memory_bytes", "server" => server(), "kind" => kind).set(bytes as f64);
    }
    for (level, bytes) in stats.level_bytes.iter().enumerate() {
        metrics::gauge!("hayloft_lsm_level_bytes", "server" => server(), "level" => level.to_string())
            .set(*bytes as f64);
    }
    metrics::gauge!("hayloft_lsm_compaction_debt_bytes", "server" => server())
        .set(stats.compaction_debt_bytes as f64);
    metrics::gauge!("hayloft_lsm_write_amplification", "server" => server()).set(stats.write_amplification());
    metrics::gauge!("hayloft_lsm_space_amplification", "server" => server()).set(stats.space_amplification());
    metrics::counter!("hayloft_lsm_block_cache_hits_total", "server" => server())
        .absolute(stats.block_cache_hit_count);
    metrics::counter!("hayloft_lsm_block_cache_misses_total", "server" => server())
        .absolute(stats.block_cache_miss_count);
    metrics::counter!("hayloft_lsm_filter_checks_total", "server" => server())
        .absolute(stats.filter_check_count);
    metrics::counter!("hayloft_lsm_filter_useful_total", "server" => server())
        .absolute(stats.filter_useful_count);
    let stalls = &stats.stalls;
    for (reason, count, us) in [
        ("memtables", stalls.memtable_stall_count, stalls.memtable_stall_us),
        ("compactions", stalls.compaction_stall_count, stalls.compaction_stall_us),
        ("log", stalls.log_stall_count, stalls.log_stall_us),
        ("ingest", stalls.ingest_stall_count, stalls.ingest_stall_us),
        ("pace", stalls.paced_count, stalls.paced_us),
    ] {
        metrics::counter!("hayloft_lsm_stalls_total", "server" => server(), "reason" => reason)
            .absolute(count);
        metrics::counter!("hayloft_lsm_stall_us_total", "server" => server(), "reason" => reason)
            .absolute(us);
    }
}

/// The row roles of this process.
pub(super) struct Rows {
    fleet: Arc<Fleet>,
    master: Arc<Master>,
    router: Arc<Router>,
    /// What the master and the servers are asked to do from time to time.
    chores: [JoinHandle<()>; 7],
}

impl Rows {
    /// Recovers the tablets and has the master assign them; rows can be read
    /// and written when this returns.
    pub(super) async fn open(config: &Config, home: &Home) -> Result<Self, ServeError> {
        let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
        let mut options = FleetOptions::new(home.tablet_servers(), count(config.tablet_server_count));
        options.each.engine.memtable_bytes_max = bytes(config.memtable_bytes);
        options.each.engine.in_memory_bytes_max = bytes(config.in_memory_bytes);
        options.each.engine.memory_bytes_max = bytes(config.rows_bytes);
        options.each.tablet_bytes_max = config.tablet_bytes_max;
        let balance = BalanceOptions {
            tablet_bytes_max: config.tablet_bytes_max,
            merge_after: config.merge_after,
            ..BalanceOptions::default()
        };
        let master_options = MasterOptions { balance, undelete_time: config.undelete_time };

        let lock_service: Arc<dyn LockService> = Arc::clone(&home.lock_service) as _;
        let catalog = Arc::new(Catalog::new());
        let fleet = Fleet::open(
            options,
            Arc::clone(&home.fs),
            Arc::clone(&lock_service),
            Arc::clone(&catalog),
            system_clock(),
        )
        .await
        .map_err(ServeError::TabletServer)?;
        let servers = Arc::clone(fleet.directory());
        let locator = Locator::new(Arc::clone(&lock_service), Arc::clone(&servers), &catalog);
        let router = Arc::new(Router::new(locator, catalog));
        let recovery = Arc::clone(&fleet) as _;
        let master =
            Master::start(lock_service, servers, Arc::clone(&router), recovery, master_options).await;
        let master = master.map_err(ServeError::Master)?;
        let chores = [
            repeat(Duration::from_secs(60), &master, "note the tablets' load", |master| async move {
                master.note_load().await
            }),
            repeat(Duration::from_secs(1), &master, "split a tablet", |master| async move {
                master.split_large_tablets().await
            }),
            repeat(
                Duration::from_secs(1),
                &master,
                "replace a tablet server that is gone",
                |master| async move { master.fail_over().await },
            ),
            repeat(Duration::from_secs(2), &master, "even out load", |master| async move {
                master.balance(SystemTime::now()).await
            }),
            repeat(
                Duration::from_secs(1),
                &master,
                "move a family to its locality group",
                |master| async move { master.place_families().await },
            ),
            repeat(Duration::from_secs(60), &master, "remove what has expired", |master| async move {
                master.expire(SystemTime::now()).await
            }),
            trim_changes(&fleet),
        ];
        Ok(Self { fleet, master, router, chores })
    }

    /// The master, for operators.
    pub(super) fn master(&self) -> &Arc<Master> {
        &self.master
    }

    /// A client for the process's other roles, which passes no socket.
    pub(super) fn client(&self) -> RowClient {
        RowClient::new(client::in_process(self.routes(Caller::Role)))
    }

    /// The row service as it is for `caller`.
    pub(super) fn service(&self, caller: Caller) -> RowService {
        RowService::new(Arc::clone(&self.router), system_clock(), caller)
    }

    /// All services of Bigtable's API as they are for `caller`.
    pub(super) fn routes(&self, caller: Caller) -> Routes {
        master::add_services(Routes::new(self.service(caller).into_server()), &self.master, caller)
    }

    /// Brings the gauges of the tablets up to date.
    pub(super) fn publish_metrics(&self) {
        let servers = self.fleet.servers();
        let tablets: Vec<_> = servers.iter().flat_map(|server| server.stats()).collect();
        let sum = |bytes: fn(&TabletStats) -> u64| tablets.iter().map(bytes).sum::<u64>() as f64;
        metrics::gauge!("hayloft_tablets").set(tablets.len() as f64);
        metrics::gauge!("hayloft_tablet_memtable_bytes").set(sum(|tablet| tablet.memtable_bytes));
        metrics::gauge!("hayloft_tablet_sstable_bytes").set(sum(|tablet| tablet.sstable_bytes));
        for server in servers {
            publish_engine_metrics(&server.id().0, &server.engine().stats());
        }
    }

    /// Ends the streams that have no end of their own.
    pub(super) fn end_streams(&self) {
        self.router.end_streams();
    }

    /// Syncs the commit log and stops serving rows. Call it when nobody asks for any more.
    pub(super) async fn close(&self) -> Result<(), ServeError> {
        self.chores.iter().for_each(JoinHandle::abort);
        self.fleet.close().await.map_err(ServeError::Close)
    }
}

/// Has the servers of `fleet` delete changes that are older than their tables keep them.
fn trim_changes(fleet: &Arc<Fleet>) -> JoinHandle<()> {
    let fleet = Arc::clone(fleet);
    each(Duration::from_secs(60), move || {
        let servers = fleet.servers();
        async move {
            for server in servers {
                server.trim_changes().await;
            }
        }
    })
}

/// Has `master` do a chore now and then each `period`.
fn repeat<F>(
    period: Duration,
    master: &Arc<Master>,
    what: &'static str,
    chore: impl Fn(Arc<Master>) -> F + Send + 'static,
) -> JoinHandle<()>
where
    F: Future<Output = master::Result<()>> + Send,
{
    let master = Arc::clone(master);
    each(period, move || {
        let done = chore(Arc::clone(&master));
        async move {
            if let Err(error) = done.await {
                tracing::warn!(error = &error as &dyn std::error::Error, "the master could not {what}");
            }
        }
    })
}

/// Does `chore` now and each `period`, and never twice at once.
fn each<F>(period: Duration, chore: impl Fn() -> F + Send + 'static) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send,
{
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            chore().await;
        }
    })
}
