use std::path::Path;
use std::sync::Arc;

use row_api::admin;
use tonic::Code;
use vfs::SimulatedFileSystem;
use vfs::simulated::FaultPlan;

use crate::stack::{Stack, name};

const DIR: &str = "/data";
const SPLITS: [&str; 2] = ["h", "p"];

async fn open(fs: &SimulatedFileSystem) -> Result<Stack, Box<dyn std::error::Error + Send + Sync>> {
    Stack::open_on(Arc::new(fs.clone()), Path::new(DIR), |_| {}).await
}

async fn delete(stack: &Stack) -> Result<(), tonic::Status> {
    let request = admin::DeleteTableRequest { name: name("t").to_string() };
    stack.client.table_admin().delete_table(request).await.map(drop)
}

/// A disk that saw a first start, and table `t` with a row in each tablet if `with_table`.
async fn disk(with_table: bool) -> SimulatedFileSystem {
    let fs = SimulatedFileSystem::new();
    let stack = open(&fs).await.unwrap();
    if with_table {
        let table = stack.create("t", &SPLITS).await;
        for row in ["a", "i", "q"] {
            stack.put(&table, row, "v").await;
        }
    }
    stack.close().await;
    fs.power_cut(0)
}

/// The table is all there, or not at all and its name is free.
async fn check(fs: &SimulatedFileSystem, keys: &[&str], acknowledged: Option<bool>, case: &str) {
    let stack = open(fs).await.unwrap_or_else(|error| panic!("{case}: {error}"));
    let there = match stack.client.read_row(&name("t"), b"a").await {
        Ok(_) => true,
        Err(status) => {
            assert_eq!(status.code(), Code::NotFound, "{case}: {status}");
            false
        }
    };
    assert!(acknowledged.is_none_or(|expected| there == expected), "{case}: the table is there: {there}");
    if there {
        assert_eq!(stack.keys(&name("t")).await, keys, "{case}");
    } else {
        stack.create("t", &SPLITS).await;
        assert!(stack.keys(&name("t")).await.is_empty(), "{case}");
    }
    assert_eq!(stack.boundaries(&name("t")).await, ["h", "p", ""], "{case}");
    // METADATA's two tablets and the table's three: nothing is left over.
    assert_eq!(stack.server.stats().len(), 5, "{case}");
    assert_eq!(stack.server.engine().trees().len(), 5, "{case}");
    stack.close().await;
}

#[tokio::test]
async fn a_crash_anywhere_in_a_creation_leaves_all_of_the_table_or_none() {
    for cut in 0.. {
        let fs = disk(false).await;
        let stack = open(&fs).await.unwrap();
        let begun = fs.operation_count();
        fs.set_faults(FaultPlan { cut_at: Some(begun + cut), ..FaultPlan::default() });
        let created = stack.try_create("t", &SPLITS).await.is_ok();
        let is_past = fs.operation_count() <= begun + cut;
        drop(stack);
        check(&fs.power_cut(cut), &[], created.then_some(true), &format!("cut at {cut}")).await;
        if is_past {
            assert!(created && cut > 10);
            return;
        }
    }
}

#[tokio::test]
async fn a_crash_anywhere_in_a_deletion_leaves_all_of_the_table_or_none() {
    for cut in 0.. {
        let fs = disk(true).await;
        let stack = open(&fs).await.unwrap();
        let begun = fs.operation_count();
        fs.set_faults(FaultPlan { cut_at: Some(begun + cut), ..FaultPlan::default() });
        let deleted = delete(&stack).await.is_ok();
        let is_past = fs.operation_count() <= begun + cut;
        drop(stack);
        let keys = ["a", "i", "q"];
        check(&fs.power_cut(cut), &keys, deleted.then_some(false), &format!("cut at {cut}")).await;
        if is_past {
            assert!(deleted && cut > 5);
            return;
        }
    }
}

#[tokio::test]
async fn a_crash_anywhere_in_the_first_start_is_made_good_by_the_next() {
    for cut in 0.. {
        let fs = SimulatedFileSystem::new();
        fs.set_faults(FaultPlan { cut_at: Some(cut), ..FaultPlan::default() });
        let started = open(&fs).await.is_ok();
        let is_past = fs.operation_count() <= cut;
        check(&fs.power_cut(cut), &[], Some(false), &format!("cut at {cut}")).await;
        if is_past {
            assert!(started && cut > 10);
            return;
        }
    }
}
