//! Rows are linearizable while their tablets split, merge and move, and while servers and
//! the whole process are killed: see the crate `histories`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use histories::{Clients, History, Plan};
use master::MasterOptions;
use master::balance::BalanceOptions;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use row_api::names::TableName;
use tablet_server::TabletServerOptions;
use tablet_server::control::TabletControl;
use tokio::task::JoinHandle;
use vfs::SimulatedFileSystem;
use vfs::simulated::FaultPlan;

use crate::replacements::{hasty, user_tablets};
use crate::splits::{DIR, check_tablets};
use crate::stack::{Stack, name};

const SERVER_COUNT: usize = 3;
const CLIENT_COUNT: u64 = 6;

/// Runs with so many seeds, more of them on request.
fn seeds() -> std::ops::Range<u64> {
    let count = std::env::var("HAYLOFT_TEST_SEEDS").ok().and_then(|count| count.parse().ok());
    0..count.map_or(2, |count: u64| (count / 8).max(2))
}

fn rows() -> Arc<History> {
    Arc::new(History::new((0..16).map(|row| format!("row-{row:02}")).collect()))
}

fn plan(seed: u64) -> Plan {
    Plan { seed, client_count: CLIENT_COUNT, pause: Duration::ZERO }
}

/// Small tablets, of which small neighbours are merged soon.
async fn open(fs: &SimulatedFileSystem) -> Arc<Stack> {
    let small = |options: &mut TabletServerOptions| options.tablet_bytes_max = 30_000;
    let balance = BalanceOptions { tablet_bytes_max: 100_000, ..hasty().balance };
    let options = MasterOptions { balance, ..MasterOptions::default() };
    let stack = Stack::open_fleet(Arc::new(fs.clone()), Path::new(DIR), SERVER_COUNT, small, options);
    Arc::new(stack.await.unwrap())
}

/// Splits, moves, merges and balances until told to end, and then says how often something
/// was changed; what fails in between fails for everybody.
struct Changer {
    done: Arc<AtomicBool>,
    task: JoinHandle<usize>,
}

impl Changer {
    fn begin(stack: &Arc<Stack>, seed: u64) -> Self {
        let (done, stack) = (Arc::new(AtomicBool::new(false)), Arc::clone(stack));
        let is_done = Arc::clone(&done);
        let task = tokio::spawn(async move {
            let mut random = StdRng::seed_from_u64(seed);
            let mut change_count = 0;
            for second in 0.. {
                if is_done.load(Ordering::SeqCst) {
                    break;
                }
                change_count += usize::from(change(&stack, &mut random, second).await);
                tokio::task::yield_now().await;
            }
            change_count
        });
        Self { done, task }
    }

    async fn end(self) -> usize {
        self.done.store(true, Ordering::SeqCst);
        self.task.await.unwrap()
    }
}

/// Makes some change; whether it came about.
async fn change(stack: &Stack, random: &mut StdRng, second: u64) -> bool {
    match random.random_range(0..4) {
        0 => stack.master.split_large_tablets().await.is_ok(),
        1 => stack.master.balance(SystemTime::UNIX_EPOCH + Duration::from_secs(second)).await.is_ok(),
        _ => {
            let tablets = user_tablets(stack);
            let servers = stack.fleet.servers();
            if tablets.is_empty() {
                return false;
            }
            let (_, tablet) = &tablets[random.random_range(0..tablets.len())];
            let to = servers[random.random_range(0..servers.len())].id().clone();
            stack.master.move_tablet(tablet.tablet, to).await.is_ok()
        }
    }
}

/// Lets clients and changes run until there are so many operations.
async fn until(history: &History, operation_count: usize) {
    while history.len() < operation_count {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn check(stack: &Stack, history: &History, table: &TableName, case: &str) {
    history.check().unwrap_or_else(|violation| panic!("{case}: {violation}"));
    check_tablets(stack, case).await;
    let keys = stack.keys(table).await;
    assert!(keys.iter().all(|key| history.keys().contains(key)), "{case}: {keys:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rows_are_linearizable_while_tablets_split_merge_and_move_and_no_client_sees_an_error() {
    for seed in seeds() {
        let fs = SimulatedFileSystem::new();
        let stack = open(&fs).await;
        let table = stack.create("t", &["row-05", "row-10"]).await;
        let history = rows();
        let clients = Clients::begin(&stack.client, &table, &history, plan(seed));
        let changer = Changer::begin(&stack, seed);
        until(&history, 6_000).await;
        assert!(changer.end().await > 0, "seed {seed}");
        let tally = clients.end().await;
        assert!(tally.failures.is_empty(), "seed {seed}: {:?}", tally.failures);
        assert_eq!(tally.refused_count, 0, "seed {seed}");
        check(&stack, &history, &table, &format!("seed {seed}")).await;
        Arc::into_inner(stack).unwrap().close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rows_are_linearizable_while_servers_are_killed_and_others_take_over() {
    for seed in seeds() {
        let fs = SimulatedFileSystem::new();
        let stack = open(&fs).await;
        let table = stack.create("t", &["row-05", "row-10"]).await;
        let history = rows();
        let clients = Clients::begin(&stack.client, &table, &history, plan(seed));
        let mut random = StdRng::seed_from_u64(seed);
        for round in 1..=4 {
            let changer = Changer::begin(&stack, seed + round);
            until(&history, history.len() + 800).await;
            changer.end().await;
            let servers = stack.fleet.servers();
            servers[random.random_range(0..servers.len())].kill().await;
            stack.master.fail_over().await.unwrap();
        }
        until(&history, history.len() + 500).await;
        clients.end().await;
        check(&stack, &history, &table, &format!("seed {seed}")).await;
        Arc::into_inner(stack).unwrap().close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rows_are_linearizable_across_power_cuts_under_traffic() {
    for seed in seeds() {
        let mut fs = SimulatedFileSystem::new();
        let history = rows();
        let stack = open(&fs).await;
        let table = stack.create("t", &["row-05", "row-10"]).await;
        Arc::into_inner(stack).unwrap().close().await;
        for cut in 0..4 {
            fs = fs.power_cut(seed * 16 + cut);
            let stack = open(&fs).await;
            let clients = Clients::begin(&stack.client, &table, &history, plan(seed * 16 + cut));
            let changer = Changer::begin(&stack, seed * 16 + cut);
            until(&history, history.len() + 600).await;
            // From some operation of the disk on, nothing is done any more.
            let cut_at = fs.operation_count() + 10 * cut;
            fs.set_faults(FaultPlan { cut_at: Some(cut_at), ..FaultPlan::default() });
            while fs.operation_count() <= cut_at {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            clients.abandon().await;
            changer.end().await;
            for server in stack.fleet.servers() {
                server.kill().await;
            }
        }
        let stack = open(&fs.power_cut(seed)).await;
        let clients = Clients::begin(&stack.client, &name("t"), &history, plan(seed));
        until(&history, history.len() + 300).await;
        clients.end().await;
        check(&stack, &history, &table, &format!("seed {seed}")).await;
        Arc::into_inner(stack).unwrap().close().await;
    }
}
