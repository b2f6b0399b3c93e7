//! A disk that fails in the midst of a split: nobody waits for ever, and what is
//! acknowledged afterwards is there when others have taken over.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use row_api::names::TableName;
use tablet_server::TabletServerOptions;
use tablet_server::metadata::METADATA_TABLE;
use vfs::SimulatedFileSystem;
use vfs::simulated::FaultPlan;

use crate::replacements::{patient, user_tablets};
use crate::splits::{DIR, ROWS, check_served};
use crate::stack::{Stack, set};

/// Longer than anybody has to wait.
const PATIENCE: Duration = Duration::from_secs(60);

async fn open(fs: &SimulatedFileSystem, server_count: usize) -> Stack {
    let hasty = |options: &mut TabletServerOptions| options.stall_patience = Duration::from_millis(20);
    let fs = Arc::new(fs.clone());
    Stack::open_fleet(fs, Path::new(DIR), server_count, hasty, patient()).await.unwrap()
}

/// A disk of so many servers with a table of one tablet, which is not where METADATA is if there is another.
async fn disk(server_count: usize) -> (SimulatedFileSystem, TableName) {
    let fs = SimulatedFileSystem::new();
    let stack = open(&fs, server_count).await;
    let table = stack.create("t", &[]).await;
    for row in ROWS {
        stack.put(&table, row, "v").await;
    }
    let (metadata_at, _) = stack
        .served()
        .into_iter()
        .find(|(_, stats)| {
            stats.assignment.table == METADATA_TABLE && !stats.assignment.range.start.is_empty()
        })
        .unwrap();
    let (at, tablet) = user_tablets(&stack).remove(0);
    let other = stack.servers.controls().into_iter().find(|server| *server.id() != metadata_at);
    if let Some(other) = other.filter(|other| *other.id() != at) {
        stack.master.move_tablet(tablet.tablet, other.id().clone()).await.unwrap();
    }
    stack.close().await;
    (fs.power_cut(0), table)
}

/// Writes all rows; those that are acknowledged.
async fn write_all(stack: &Stack, table: &TableName, value: &str) -> Vec<&'static str> {
    let mut acknowledged = Vec::new();
    for row in ROWS {
        if stack.client.mutate_row(table, row.as_bytes(), vec![set("f", "q", value)]).await.is_ok() {
            acknowledged.push(row);
        }
    }
    acknowledged
}

/// Has each operation of the disk fail in its turn while a tablet is split.
async fn fail_everywhere(server_count: usize) {
    let mut all_written = false;
    for failing in 0.. {
        let case = format!("{server_count} servers, operation {failing} fails");
        let (fs, table) = disk(server_count).await;
        let stack = open(&fs, server_count).await;
        let (_, tablet) = user_tablets(&stack).remove(0);
        let begun = fs.operation_count();
        fs.set_faults(FaultPlan { fail_at: Some(begun + failing), ..FaultPlan::default() });
        let split = stack.master.split_tablet(tablet.tablet).await;
        let is_past = fs.operation_count() <= begun + failing;
        fs.set_faults(FaultPlan::default());

        let mut acknowledged = write_all(&stack, &table, "w").await;
        if server_count > 1 {
            for _ in 0..3 {
                // It may take a failed attempt to find out that a server's log takes no more.
                let _whatever = stack.master.fail_over().await;
            }
            acknowledged = write_all(&stack, &table, "x").await;
            assert_eq!(acknowledged, ROWS, "{case}: {split:?}");
        }
        let value = if server_count > 1 { "x" } else { "w" };
        for row in &acknowledged {
            assert_eq!(stack.value(&table, row).await.as_deref(), Some(value), "{case}: {row}");
        }
        all_written |= acknowledged.len() == ROWS.len();
        drop(stack);

        let stack = open(&fs.power_cut(failing), server_count).await;
        // A power cut after the failure may bring back a tree that was being made; nobody reads it.
        check_served(&stack, &case).await;
        assert_eq!(stack.keys(&table).await, ROWS, "{case}");
        for row in acknowledged {
            assert_eq!(stack.value(&table, row).await.as_deref(), Some(value), "{case}: {row}, reopened");
        }
        assert_eq!(write_all(&stack, &table, "y").await, ROWS, "{case}");
        stack.close().await;
        if is_past {
            assert!(split.is_ok() && failing > 5, "{case}: {split:?}");
            break;
        }
    }
    assert!(all_written);
}

#[tokio::test]
async fn writers_of_a_tablet_whose_split_meets_a_dead_disk_are_told_so() {
    tokio::time::timeout(PATIENCE, fail_everywhere(1)).await.expect("nobody waits for ever");
}

#[tokio::test]
async fn a_split_that_metadatas_disk_fails_is_all_done_or_all_undone_where_others_take_over() {
    tokio::time::timeout(PATIENCE, fail_everywhere(2)).await.expect("nobody waits for ever");
}
