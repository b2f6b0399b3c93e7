//! Counters and scans beside whatever else a test has written, while tablets change under all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use row_api::names::TableName;
use tokio::task::{JoinHandle, JoinSet};

use crate::rows::increment;
use crate::stack::Stack;

/// The rows that count; others begin with a digit.
pub const COUNTERS: [&str; 3] = ["counter", "f-counter", "z-counter"];

/// Traffic, until [`Traffic::end`].
pub struct Traffic {
    /// Rows that were acknowledged: a scan that begins later shows as many.
    pub written: Arc<AtomicUsize>,
    /// Set once nobody writes any more.
    pub done: Arc<AtomicBool>,
    /// Whoever writes: the counters, and what the test adds.
    pub writers: JoinSet<()>,
    scanner: JoinHandle<()>,
}

impl Traffic {
    /// Counts up each of [`COUNTERS`] so many times, and scans again and again.
    pub fn begin(stack: &Arc<Stack>, table: &TableName, times: usize) -> Self {
        let (written, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let mut writers = JoinSet::new();
        for row in COUNTERS {
            let (client, table) = (stack.client.clone(), table.to_string());
            writers.spawn(async move {
                for _ in 0..times {
                    increment(&client, &table, row).await;
                }
            });
        }
        let (stack, table, told, is_done) =
            (Arc::clone(stack), table.clone(), Arc::clone(&written), Arc::clone(&done));
        let scanner = tokio::spawn(async move {
            while !is_done.load(Ordering::SeqCst) {
                let written = told.load(Ordering::SeqCst);
                let keys = stack.keys(&table).await;
                assert!(keys.is_sorted_by(|a, b| a < b), "a row came twice");
                assert!(keys.len() >= written, "{} rows of {written}", keys.len());
            }
        });
        Self { written, done, writers, scanner }
    }

    /// Waits for the writers, and ends the scans.
    pub async fn end(mut self) {
        while let Some(outcome) = self.writers.join_next().await {
            outcome.unwrap();
        }
        self.done.store(true, Ordering::SeqCst);
        self.scanner.await.unwrap();
    }
}

/// `table` holds `row_count` rows beside the counters, each of which was counted up so many times.
pub async fn check(stack: &Stack, table: &TableName, row_count: usize, times: usize) {
    assert_eq!(stack.keys(table).await.len(), row_count + COUNTERS.len());
    for row in COUNTERS {
        let found = stack.client.read_row(table, row.as_bytes()).await.unwrap().unwrap();
        let count = i64::from_be_bytes(found.cell("f", b"n").unwrap().value.as_ref().try_into().unwrap());
        assert_eq!(count, times as i64, "{row}");
    }
}
