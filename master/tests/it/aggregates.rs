//! Aggregate cells in tablets that others take the place of: each add counts once.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use row_api::admin;
use row_api::admin::r#type::aggregate::{Aggregator, Sum};
use row_api::admin::r#type::int64::encoding::{BigEndianBytes, Encoding};
use row_api::admin::r#type::{self as types, Kind as TypeKind};
use row_api::data;
use row_api::data::mutation::{AddToCell, Mutation};
use row_api::data::value::Kind;
use row_api::names::TableName;
use tokio::task::JoinSet;
use vfs::SimulatedFileSystem;
use vfs::simulated::FaultPlan;

use crate::replacements::{hasty, open, patient, user_tablets};
use crate::splits::{DIR, ROWS, check_tablets};
use crate::stack::{INSTANCE, Stack, name, set};

/// Creates the table `t` with the families `f` and `sum`, a tablet from each of `splits` on.
async fn create(stack: &Stack, splits: &[&str]) -> TableName {
    let encoding =
        types::int64::Encoding { encoding: Some(Encoding::BigEndianBytes(BigEndianBytes::default())) };
    let int64 = TypeKind::Int64Type(types::Int64 { encoding: Some(encoding) });
    let sum = TypeKind::AggregateType(Box::new(types::Aggregate {
        input_type: Some(Box::new(admin::Type { kind: Some(int64) })),
        state_type: None,
        aggregator: Some(Aggregator::Sum(Sum {})),
    }));
    let sum = admin::ColumnFamily { gc_rule: None, value_type: Some(admin::Type { kind: Some(sum) }) };
    let families = [("f".to_owned(), admin::ColumnFamily::default()), ("sum".to_owned(), sum)];
    let split = |key: &&str| admin::create_table_request::Split { key: key.as_bytes().to_vec().into() };
    let request = admin::CreateTableRequest {
        parent: INSTANCE.to_owned(),
        table_id: "t".to_owned(),
        table: Some(admin::Table { column_families: families.into(), ..admin::Table::default() }),
        initial_splits: splits.iter().map(split).collect(),
    };
    stack.client.table_admin().create_table(request).await.unwrap();
    name("t")
}

/// Adds 1 to the row's sum.
fn add_one() -> data::Mutation {
    let value = |kind| Some(data::Value { r#type: None, kind: Some(kind) });
    data::Mutation::from(Mutation::AddToCell(AddToCell {
        family_name: "sum".to_owned(),
        column_qualifier: value(Kind::RawValue("q".into())),
        timestamp: value(Kind::RawTimestampMicros(0)),
        input: value(Kind::IntValue(1)),
    }))
}

/// Adds 1 to the sum of each row.
async fn add_to_all(stack: &Stack, table: &TableName) {
    let rows = ROWS.map(|row| (row.as_bytes().to_vec(), vec![add_one()]));
    for outcome in stack.client.mutate_rows(table, rows.into()).await.unwrap() {
        outcome.unwrap();
    }
}

/// The sums of [`ROWS`].
async fn sums(stack: &Stack, table: &TableName) -> Vec<i64> {
    let mut sums = Vec::new();
    for row in ROWS {
        let row = stack.client.read_row(table, row.as_bytes()).await.unwrap().unwrap();
        let sum = &row.cell("sum", b"q").unwrap().value;
        sums.push(i64::from_be_bytes(sum[..].try_into().unwrap()));
    }
    sums
}

/// Brings the table's first two tablets to one server and merges them.
async fn unite_first_two(stack: &Stack) -> bool {
    let tablets = user_tablets(stack);
    let [left, right, ..] = &tablets[..] else { panic!("two tablets") };
    let mut first = left.1.tablet;
    if left.0 != right.0 {
        let Ok(moved) = stack.master.move_tablet(first, right.0.clone()).await else { return false };
        first = moved;
    }
    stack.master.merge_tablets(first, right.1.tablet).await.is_ok()
}

#[tokio::test]
async fn a_crash_anywhere_in_a_move_and_a_merge_counts_each_add_once() {
    for cut in 0.. {
        let fs = SimulatedFileSystem::new();
        let stack = open(&fs, 2, hasty()).await.unwrap();
        let table = create(&stack, &["d"]).await;
        add_to_all(&stack, &table).await;
        stack.close().await;
        // Some of what was added is in tables now, some in memtables only.
        let stack = open(&fs, 2, hasty()).await.unwrap();
        add_to_all(&stack, &table).await;
        add_to_all(&stack, &table).await;

        let begun = fs.operation_count();
        fs.set_faults(FaultPlan { cut_at: Some(begun + cut), ..FaultPlan::default() });
        let is_united = unite_first_two(&stack).await;
        let is_past = fs.operation_count() <= begun + cut;
        drop(stack);

        let case = format!("cut at {cut}");
        let stack = open(&fs.power_cut(cut), 2, patient()).await.unwrap();
        check_tablets(&stack, &case).await;
        assert_eq!(sums(&stack, &table).await, [3; ROWS.len()], "{case}");
        assert!(!is_united || user_tablets(&stack).len() == 1, "{case}");
        add_to_all(&stack, &table).await;
        assert_eq!(sums(&stack, &table).await, [4; ROWS.len()], "{case}");
        stack.close().await;
        if is_past {
            assert!(is_united);
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adds_under_splits_moves_and_merges_count_once() {
    const WRITERS: usize = 4;
    const ADDS: usize = 60;
    let fs = SimulatedFileSystem::new();
    let stack = Stack::open_fleet(
        Arc::new(fs.clone()),
        Path::new(DIR),
        2,
        |options| options.tablet_bytes_max = 30_000,
        hasty(),
    );
    let stack = Arc::new(stack.await.unwrap());
    let table = create(&stack, &["c", "f"]).await;
    let done = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (client, table) = (stack.client.clone(), table.clone());
        writers.spawn(async move {
            for number in 0..ADDS {
                for row in ROWS {
                    let filler = set("f", &format!("{writer}-{number}"), &"v".repeat(500));
                    client.mutate_row(&table, row.as_bytes(), vec![add_one(), filler]).await.unwrap();
                }
            }
        });
    }
    let (changed, is_done) = (Arc::clone(&stack), Arc::clone(&done));
    let changer = tokio::spawn(async move {
        let mut merges = 0;
        while merges < 3 || !is_done.load(Ordering::SeqCst) {
            assert!(unite_first_two(&changed).await);
            merges += 1;
            changed.master.split_large_tablets().await.unwrap();
            if user_tablets(&changed).len() < 2 {
                break;
            }
        }
        merges
    });
    while let Some(outcome) = writers.join_next().await {
        outcome.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    assert!(changer.await.unwrap() > 1);
    let expected = [i64::try_from(WRITERS * ADDS).unwrap(); ROWS.len()];
    assert_eq!(sums(&stack, &table).await, expected);
    Arc::into_inner(stack).unwrap().close().await;

    let stack = open(&fs.power_cut(1), 2, patient()).await.unwrap();
    assert_eq!(sums(&stack, &table).await, expected);
    check_tablets(&stack, "after a restart").await;
    stack.close().await;
}
