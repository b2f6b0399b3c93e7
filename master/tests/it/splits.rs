use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use row_api::names::TableName;
use tablet_server::TabletServerOptions;
use tablet_server::control::TabletStats;
use tablet_server::metadata::{self, METADATA_TABLE, TabletRecord};
use tablet_server::row_set::RowRange;
use vfs::SimulatedFileSystem;
use vfs::simulated::FaultPlan;

use crate::stack::{Stack, set};
use crate::traffic::{self, Traffic};

pub const DIR: &str = "/data";
pub const ROWS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

/// Any tablet of some rows is too large.
fn tiny(options: &mut TabletServerOptions) {
    options.tablet_bytes_max = 1;
}

async fn open(
    fs: &SimulatedFileSystem,
    adjust: impl FnOnce(&mut TabletServerOptions),
) -> Result<Stack, Box<dyn std::error::Error + Send + Sync>> {
    Stack::open_on(Arc::new(fs.clone()), Path::new(DIR), adjust).await
}

/// What METADATA says of all tablets but the root.
pub async fn records(stack: &Stack) -> Vec<TabletRecord> {
    let locator = stack.router.locator();
    let mut records = locator.metadata_rows(metadata::root_range(), 10_000).await.unwrap();
    records.extend(locator.metadata_rows(metadata::second_range(), 10_000).await.unwrap());
    records
}

/// METADATA names each tablet that is served and each tree that is there, and
/// the tablets of a table leave no gap and do not overlap; how many it names.
pub async fn check_tablets(stack: &Stack, case: &str) -> usize {
    let count = check_served(stack, case).await;
    let tree_counts = stack.fleet.servers().into_iter().map(|server| server.engine().trees().len());
    assert_eq!(tree_counts.sum::<usize>(), count + 1, "{case}");
    count
}

/// The same, whatever trees there are.
pub async fn check_served(stack: &Stack, case: &str) -> usize {
    let records = records(stack).await;
    let mut named: Vec<_> = records.iter().map(|record| (record.tablet, record.epoch)).collect();
    named.sort_unstable();
    let mut served: Vec<_> = Vec::new();
    for (server, TabletStats { assignment, .. }) in stack.served() {
        if assignment.table != METADATA_TABLE || assignment.range != metadata::root_range() {
            served.push((assignment.tablet, assignment.epoch));
            let record = records.iter().find(|record| record.tablet == assignment.tablet);
            assert_eq!(record.and_then(|record| record.server.clone()), Some(server), "{case}");
        }
    }
    served.sort_unstable();
    assert_eq!(named, served, "{case}");
    for neighbours in records.windows(2) {
        let [left, right] = neighbours else { continue };
        let start =
            if left.table == right.table { left.range.end.clone() } else { RowRange::default().start };
        assert_eq!(right.range.start, start, "{case}");
        assert!(left.table == right.table || left.range.end.is_empty(), "{case}");
    }
    assert!(stack.lock_service.list("replacements/").await.unwrap().is_empty(), "{case}");
    records.len()
}

/// A disk with a table of [`ROWS`].
async fn disk() -> (SimulatedFileSystem, TableName) {
    let fs = SimulatedFileSystem::new();
    let stack = open(&fs, |_| {}).await.unwrap();
    let table = stack.create("t", &["x"]).await;
    for row in ROWS {
        stack.put(&table, row, "v").await;
    }
    assert_eq!(check_tablets(&stack, "at first").await, 3);
    stack.close().await;
    (fs.power_cut(0), table)
}

/// So many letters of the text of this number, which do not get smaller on disk, beside other texts neither.
fn text(number: usize, count: usize) -> String {
    let mixed = |i: usize| (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let again = |number: u64| (number ^ number >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let letter = |i: usize| char::from(b'0' + (again(mixed(i)) >> 58) as u8);
    (number * count..(number + 1) * count).map(letter).collect()
}

/// Splits until nothing is too large; how many tablets there are then.
async fn split_all(stack: &Stack) -> usize {
    let mut count = 0;
    loop {
        stack.master.split_large_tablets().await.unwrap();
        let now = check_tablets(stack, "after a split").await;
        if now == count {
            return count;
        }
        count = now;
    }
}

#[tokio::test]
async fn tablets_that_have_grown_are_split_and_live_on_as_any_other() {
    let (fs, table) = disk().await;
    let stack = open(&fs, tiny).await.unwrap();
    let count = split_all(&stack).await;
    assert_eq!(stack.keys(&table).await, ROWS);
    // So few rows fill one block, which is as fine as a tree tells where its bytes lie.
    assert!(stack.boundaries(&table).await.len() > 2);
    // METADATA's own tablets are split, but for the root.
    assert!(records(&stack).await.iter().filter(|record| record.table == METADATA_TABLE).count() > 1);
    stack.put(&table, "d", "w").await;
    let begins_with = |row: &str| RowRange { start: row.to_owned().into(), end: "h".into() };
    stack.master.drop_row_range(table.clone(), begins_with("e")).await.unwrap();
    assert_eq!(stack.keys(&table).await, ["a", "b", "c", "d", "h"]);
    stack.close().await;

    let stack = open(&fs.power_cut(1), |_| {}).await.unwrap();
    assert_eq!(check_tablets(&stack, "after a restart").await, count);
    assert_eq!(stack.keys(&table).await, ["a", "b", "c", "d", "h"]);
    assert_eq!(stack.value(&table, "d").await.unwrap(), "w");
    stack.master.delete_table(table).await.unwrap();
    let left = records(&stack).await;
    assert!(left.iter().all(|record| record.table == METADATA_TABLE));
    assert_eq!(stack.server.engine().trees().len(), left.len() + 1);
    stack.close().await;
}

#[tokio::test]
async fn a_crash_anywhere_in_a_split_leaves_the_parent_or_both_children() {
    let mut outcomes = [0, 0];
    for cut in 0.. {
        let (fs, table) = disk().await;
        let stack = open(&fs, tiny).await.unwrap();
        let begun = fs.operation_count();
        fs.set_faults(FaultPlan { cut_at: Some(begun + cut), ..FaultPlan::default() });
        let split = stack.master.split_large_tablets().await.is_ok();
        let is_past = fs.operation_count() <= begun + cut;
        drop(stack);

        let case = format!("cut at {cut}");
        let stack = open(&fs.power_cut(cut), |_| {}).await.unwrap_or_else(|error| panic!("{case}: {error}"));
        let count = check_tablets(&stack, &case).await;
        assert_eq!(stack.keys(&table).await, ROWS, "{case}");
        for row in ROWS {
            stack.put(&table, row, "w").await;
            assert_eq!(stack.value(&table, row).await.unwrap(), "w", "{case}");
        }
        // The tablet of METADATA and the one that has rows.
        assert!((3..=5).contains(&count) && (!split || count == 5), "{case}: {count} tablets");
        outcomes[usize::from(count == 5)] += 1;
        stack.close().await;
        if is_past {
            break;
        }
    }
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn splits_under_traffic_lose_and_repeat_nothing() {
    const WRITERS: usize = 4;
    const BATCH_WRITERS: usize = 2;
    const WRITES: usize = 200;
    let fs = SimulatedFileSystem::new();
    let small = |options: &mut TabletServerOptions| options.tablet_bytes_max = 40_000;
    let stack = Arc::new(open(&fs, small).await.unwrap());
    let table = stack.create("t", &[]).await;
    let mut traffic = Traffic::begin(&stack, &table, WRITES);
    for writer in 0..WRITERS + BATCH_WRITERS {
        let (client, table, written) = (stack.client.clone(), table.clone(), Arc::clone(&traffic.written));
        traffic.writers.spawn(async move {
            for i in 0..WRITES {
                // Spread over all rows, in another order for each writer.
                let place = (i * 37 + writer * 11) % WRITES;
                let row = |part: usize| format!("{place:03}-{writer}-{part}").into_bytes();
                let mutations = |part| {
                    let value = text((writer * 3 + part) * WRITES + place, 1_000);
                    vec![set("f", "q", &value)]
                };
                if writer < WRITERS {
                    client.mutate_row(&table, &row(0), mutations(0)).await.unwrap();
                    written.fetch_add(1, Ordering::SeqCst);
                } else {
                    let rows = (0..3).map(|part| (row(part), mutations(part))).collect();
                    for outcome in client.mutate_rows(&table, rows).await.unwrap() {
                        outcome.unwrap();
                        written.fetch_add(1, Ordering::SeqCst);
                    }
                }
            }
        });
    }
    let (master, is_done) = (Arc::clone(&stack.master), Arc::clone(&traffic.done));
    let splitter = tokio::spawn(async move {
        while !is_done.load(Ordering::SeqCst) {
            master.split_large_tablets().await.unwrap();
            tokio::task::yield_now().await;
        }
    });

    traffic.end().await;
    splitter.await.unwrap();
    traffic::check(&stack, &table, WRITES * (WRITERS + 3 * BATCH_WRITERS), WRITES).await;
    // However little of the processor was left to it meanwhile.
    split_all(&stack).await;
    assert!(stack.boundaries(&table).await.len() > 10);
    Arc::into_inner(stack).unwrap().close().await;
}
