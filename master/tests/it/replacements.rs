//! Tablets that take the place of others at several servers: moves, merges,
//! balance, and servers that go.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use cluster::ServerId;
use master::MasterOptions;
use master::balance::BalanceOptions;
use row_api::names::TableName;
use tablet_server::TabletServer;
use tablet_server::control::{Assignment, Health, TabletControl};
use tablet_server::metadata::METADATA_TABLE;
use tablet_server::schema::TabletId;
use tokio::task::JoinSet;
use vfs::SimulatedFileSystem;
use vfs::simulated::FaultPlan;

use crate::splits::{DIR, ROWS, check_tablets, records};
use crate::stack::{Stack, set};
use crate::traffic::{self, Traffic};

pub type Opened = Result<Stack, Box<dyn std::error::Error + Send + Sync>>;

/// Everything is settled at once, and merged if it is small.
pub fn hasty() -> MasterOptions {
    let balance = BalanceOptions {
        merge_after: Duration::ZERO,
        settled_after: Duration::ZERO,
        busy_rows_per_s: 1e9,
        ..BalanceOptions::default()
    };
    MasterOptions { balance, ..MasterOptions::default() }
}

/// Nothing is merged, whatever time passes.
pub fn patient() -> MasterOptions {
    let balance = BalanceOptions { merge_after: Duration::MAX, ..hasty().balance };
    MasterOptions { balance, ..MasterOptions::default() }
}

pub async fn open(fs: &SimulatedFileSystem, server_count: usize, options: MasterOptions) -> Opened {
    Stack::open_fleet(Arc::new(fs.clone()), Path::new(DIR), server_count, |_| {}, options).await
}

fn id(number: usize) -> ServerId {
    ServerId(format!("tablet-server-{number}"))
}

/// The tablets of tables, in order, with their servers.
pub fn user_tablets(stack: &Stack) -> Vec<(ServerId, Assignment)> {
    let all = stack.served().into_iter().map(|(server, stats)| (server, stats.assignment));
    let mut of_tables: Vec<_> = all.filter(|(_, tablet)| tablet.table != METADATA_TABLE).collect();
    of_tables.sort_by_key(|(_, tablet)| (tablet.table, tablet.range.start.clone()));
    of_tables
}

fn server(stack: &Stack, number: usize) -> Arc<TabletServer> {
    let servers = stack.fleet.servers();
    Arc::clone(servers.iter().find(|server| *TabletControl::id(&***server) == id(number)).unwrap())
}

/// A disk of two servers, with a table of [`ROWS`], a tablet of it from each of `splits` on.
async fn disk(splits: &[&str]) -> (SimulatedFileSystem, TableName) {
    let fs = SimulatedFileSystem::new();
    let stack = open(&fs, 2, MasterOptions::default()).await.unwrap();
    let table = stack.create("t", splits).await;
    for row in ROWS {
        stack.put(&table, row, "v").await;
    }
    stack.close().await;
    (fs.power_cut(0), table)
}

/// Moves the table's first tablet to the server where it is not.
async fn move_first(stack: &Stack) -> master::Result<TabletId> {
    let (from, tablet) = user_tablets(stack).remove(0);
    let to = if from == id(1) { id(2) } else { id(1) };
    stack.master.move_tablet(tablet.tablet, to).await
}

/// What both rows and METADATA are like after whatever has happened.
async fn check(stack: &Stack, table: &TableName, case: &str) {
    check_tablets(stack, case).await;
    assert_eq!(stack.keys(table).await, ROWS, "{case}");
    for row in ROWS {
        stack.put(table, row, "w").await;
        assert_eq!(stack.value(table, row).await.unwrap(), "w", "{case}");
    }
}

#[tokio::test]
async fn a_tablet_moves_there_and_back_with_all_that_was_written_meanwhile() {
    let (fs, table) = disk(&[]).await;
    let stack = open(&fs, 2, patient()).await.unwrap();
    for round in 0..4 {
        stack.put(&table, "a", &round.to_string()).await;
        let before = user_tablets(&stack).remove(0);
        let moved = move_first(&stack).await.unwrap();
        let after = user_tablets(&stack).remove(0);
        assert_ne!(before.0, after.0);
        assert_eq!(after.1.tablet, moved);
        assert_eq!(stack.value(&table, "a").await.unwrap(), round.to_string());
        check_tablets(&stack, "after a move").await;
    }
    let (at, tablet) = user_tablets(&stack).remove(0);
    stack.master.move_tablet(tablet.tablet, at).await.unwrap_err();
    stack.master.move_tablet(tablet.tablet, id(9)).await.unwrap_err();
    stack.master.move_tablet(TabletId(1 << 40), id(1)).await.unwrap_err();
    stack.close().await;
    let stack = open(&fs.power_cut(1), 2, patient()).await.unwrap();
    check(&stack, &table, "after a restart").await;
    stack.master.delete_table(table).await.unwrap();
    assert!(user_tablets(&stack).is_empty());
    stack.close().await;
}

/// Cuts the power at each operation of `change`; what is found then has as many of the
/// table's tablets as one of `counts`, and each of those is met.
async fn cut_everywhere<F: Future<Output = bool>>(
    splits: &[&str],
    counts: [usize; 2],
    change: impl Fn(Arc<Stack>) -> F,
) {
    let mut outcomes = BTreeSet::new();
    for cut in 0.. {
        let (fs, table) = disk(splits).await;
        let stack = Arc::new(open(&fs, 2, hasty()).await.unwrap());
        let before = user_tablets(&stack);
        let begun = fs.operation_count();
        fs.set_faults(FaultPlan { cut_at: Some(begun + cut), ..FaultPlan::default() });
        let is_done = change(Arc::clone(&stack)).await;
        let is_past = fs.operation_count() <= begun + cut;
        drop(stack);

        let case = format!("cut at {cut}");
        let opened = open(&fs.power_cut(cut), 2, patient()).await;
        let stack = opened.unwrap_or_else(|error| panic!("{case}: {error}"));
        let after = user_tablets(&stack);
        let is_changed = after.iter().any(|(_, new)| before.iter().all(|(_, old)| old.tablet != new.tablet));
        assert!(is_changed || !is_done, "{case}");
        assert_eq!(after.len(), counts[usize::from(is_changed)], "{case}");
        outcomes.insert(is_changed);
        check(&stack, &table, &case).await;
        let left = stack.lock_service.list("replacements/").await.unwrap();
        assert!(left.is_empty(), "{case}: {left:?}");
        stack.close().await;
        if is_past {
            break;
        }
    }
    assert_eq!(outcomes.len(), 2, "both outcomes are met");
}

#[tokio::test]
async fn a_crash_anywhere_in_a_move_leaves_the_tablet_at_one_server() {
    cut_everywhere(&[], [1, 1], |stack| async move { move_first(&stack).await.is_ok() }).await;
}

#[tokio::test]
async fn a_crash_anywhere_in_a_merge_leaves_both_tablets_or_the_one() {
    cut_everywhere(&["d"], [2, 1], |stack| async move {
        let [left, right] = <[_; 2]>::try_from(user_tablets(&stack)).unwrap();
        if left.0 != right.0 {
            stack.master.move_tablet(left.1.tablet, right.0).await.is_ok_and(|_| false)
        } else {
            stack.master.merge_tablets(left.1.tablet, right.1.tablet).await.is_ok()
        }
    })
    .await;
}

#[tokio::test]
async fn small_neighbours_become_one_and_what_was_split_at_once_stays_for_a_while() {
    let (fs, table) = disk(&["c", "e"]).await;
    let stack = open(&fs, 1, MasterOptions::default()).await.unwrap();
    for minute in 0..60 {
        stack.master.balance(SystemTime::UNIX_EPOCH + Duration::from_secs(60 * minute)).await.unwrap();
    }
    assert_eq!(user_tablets(&stack).len(), 3);
    assert!(user_tablets(&stack).iter().all(|(server, _)| *server == id(1)), "the other one is to leave");
    stack.close().await;

    let stack = open(&fs.power_cut(1), 1, hasty()).await.unwrap();
    for second in 0..10 {
        stack.master.balance(SystemTime::UNIX_EPOCH + Duration::from_secs(second)).await.unwrap();
        check(&stack, &table, "while merging").await;
    }
    assert_eq!(user_tablets(&stack).len(), 1);
    stack.close().await;
    let stack = open(&fs.power_cut(2), 1, patient()).await.unwrap();
    check(&stack, &table, "after a restart").await;
    stack.close().await;
}

#[tokio::test]
async fn new_tablets_are_spread_and_servers_that_come_get_some() {
    let fs = SimulatedFileSystem::new();
    let stack = open(&fs, 2, patient()).await.unwrap();
    let table = stack.create("t", &["b", "c", "d", "e", "f", "g", "h"]).await;
    for row in ROWS {
        stack.put(&table, row, "v").await;
    }
    let counts = |stack: &Stack, count| -> Vec<usize> {
        (1..=count).map(|number| server(stack, number).stats().len()).collect()
    };
    // METADATA's two among them.
    assert_eq!(counts(&stack, 2), [5, 5]);
    stack.close().await;

    let stack = open(&fs.power_cut(1), 4, patient()).await.unwrap();
    for second in 0..10 {
        stack.master.balance(SystemTime::UNIX_EPOCH + Duration::from_secs(second)).await.unwrap();
    }
    assert!(counts(&stack, 4).iter().all(|count| [2, 3].contains(count)), "{:?}", counts(&stack, 4));
    check(&stack, &table, "spread").await;
    stack.close().await;
}

#[tokio::test]
async fn others_serve_what_a_server_that_is_killed_has_acknowledged() {
    let (fs, table) = disk(&["c", "e", "g"]).await;
    let mut stack = open(&fs, 3, patient()).await.unwrap();
    // Each has something to lose.
    stack.master.balance(SystemTime::UNIX_EPOCH).await.unwrap();
    stack.master.balance(SystemTime::UNIX_EPOCH + Duration::from_secs(1)).await.unwrap();
    // Among them whoever has METADATA, its root included.
    for (round, number) in [2, 1, 3, 1].into_iter().enumerate() {
        for row in ROWS {
            stack.put(&table, row, &format!("{round}")).await;
        }
        server(&stack, number).kill().await;
        assert_eq!(server(&stack, number).health(), Health::Gone);
        stack.master.fail_over().await.unwrap();
        assert!(user_tablets(&stack).iter().all(|(server, _)| *server != id(number)));
        for row in ROWS {
            assert_eq!(stack.value(&table, row).await.unwrap(), format!("{round}"), "{number}");
        }
        check(&stack, &table, &format!("without {number}")).await;
        assert_eq!(server(&stack, number).health(), Health::Well, "it is as good as new");
    }
    stack.close().await;
    stack = open(&fs.power_cut(1), 3, patient()).await.unwrap();
    check(&stack, &table, "after a restart").await;
    stack.close().await;
}

#[tokio::test]
async fn a_server_whose_log_fails_gives_its_tablets_to_others_and_reads_on_where_there_are_none() {
    for server_count in [1, 2] {
        let fs = SimulatedFileSystem::new();
        let stack = open(&fs, server_count, patient()).await.unwrap();
        let table = stack.create("t", &[]).await;
        for row in ROWS {
            stack.put(&table, row, "v").await;
        }
        let (id, _) = user_tablets(&stack).remove(0);
        fs.set_faults(FaultPlan { fail_at: Some(fs.operation_count()), ..FaultPlan::default() });
        stack.client.mutate_row(&table, b"a", vec![set("f", "q", "w")]).await.unwrap_err();
        stack.master.fail_over().await.unwrap();
        assert_eq!(stack.keys(&table).await, ROWS);
        if server_count == 1 {
            assert_eq!(user_tablets(&stack).remove(0).0, id);
            stack.client.mutate_row(&table, b"a", vec![set("f", "q", "w")]).await.unwrap_err();
            stack.fleet.close().await.unwrap_err();
        } else {
            assert_ne!(user_tablets(&stack).remove(0).0, id);
            check(&stack, &table, "elsewhere").await;
            stack.close().await;
        }
    }
}

#[tokio::test]
async fn the_only_server_serves_again_after_its_death() {
    let fs = SimulatedFileSystem::new();
    let stack = open(&fs, 1, patient()).await.unwrap();
    let table = stack.create("t", &["c"]).await;
    for row in ROWS {
        stack.put(&table, row, "v").await;
    }
    server(&stack, 1).kill().await;
    stack.master.fail_over().await.unwrap();
    check(&stack, &table, "again").await;
    stack.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn splits_moves_merges_and_balance_under_traffic_lose_and_repeat_nothing() {
    const WRITERS: usize = 6;
    const WRITES: usize = 150;
    let fs = SimulatedFileSystem::new();
    let small = |options: &mut tablet_server::TabletServerOptions| options.tablet_bytes_max = 60_000;
    let balance = BalanceOptions { tablet_bytes_max: 200_000, ..hasty().balance };
    let stack = Stack::open_fleet(
        Arc::new(fs.clone()),
        Path::new(DIR),
        3,
        small,
        MasterOptions { balance, ..MasterOptions::default() },
    );
    let stack = Arc::new(stack.await.unwrap());
    let table = stack.create("t", &["2", "4", "f"]).await;
    let mut traffic = Traffic::begin(&stack, &table, WRITES);
    for writer in 0..WRITERS {
        let (client, table, written) = (stack.client.clone(), table.clone(), Arc::clone(&traffic.written));
        traffic.writers.spawn(async move {
            for i in 0..WRITES {
                let row = format!("{:03}-{writer}", (i * 37 + writer * 11) % WRITES);
                let mutations = vec![set("f", "q", &"v".repeat(1_000))];
                client.mutate_row(&table, row.as_bytes(), mutations).await.unwrap();
                assert!(client.read_row(&table, row.as_bytes()).await.unwrap().is_some(), "{row}");
                written.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    let (changed, is_done) = (Arc::clone(&stack), Arc::clone(&traffic.done));
    let changer = tokio::spawn(async move {
        for second in 0.. {
            if is_done.load(Ordering::SeqCst) {
                return second;
            }
            changed.master.split_large_tablets().await.unwrap();
            move_first(&changed).await.unwrap();
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
            changed.master.balance(now).await.unwrap();
        }
        0
    });
    traffic.end().await;
    assert!(changer.await.unwrap() > 0);
    traffic::check(&stack, &table, WRITERS * WRITES, WRITES).await;
    check_tablets(&stack, "after the traffic").await;
    assert!(!records(&stack).await.is_empty());
    Arc::into_inner(stack).unwrap().close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_acknowledged_while_servers_are_killed_is_there() {
    const WRITERS: usize = 4;
    let fs = SimulatedFileSystem::new();
    let stack = Arc::new(open(&fs, 3, patient()).await.unwrap());
    let table = stack.create("t", &["1", "2", "3"]).await;
    let done = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (client, table, done) = (stack.client.clone(), table.clone(), Arc::clone(&done));
        writers.spawn(async move {
            let mut acknowledged = Vec::new();
            for i in 0.. {
                if done.load(Ordering::SeqCst) {
                    break;
                }
                let row = format!("{}-{writer}-{i:05}", i % 4);
                let answer = client.mutate_row(&table, row.as_bytes(), vec![set("f", "q", "v")]).await;
                match answer {
                    Ok(()) => acknowledged.push(row),
                    Err(status) => assert_eq!(status.code(), tonic::Code::Unavailable, "{status}"),
                }
            }
            acknowledged
        });
    }
    for number in [1, 2, 3, 1, 2, 3] {
        tokio::time::sleep(Duration::from_millis(20)).await;
        server(&stack, number).kill().await;
        stack.master.fail_over().await.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    let acknowledged = writers.join_all().await.concat();
    assert!(!acknowledged.is_empty());
    let keys: BTreeSet<String> = stack.keys(&table).await.into_iter().collect();
    for row in acknowledged {
        assert!(keys.contains(&row), "{row}");
    }
    check_tablets(&stack, "after the kills").await;
    Arc::into_inner(stack).unwrap().close().await;
}
