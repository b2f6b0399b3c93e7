use std::sync::Arc;

use prost::Message;
use row_api::client::RowClient;
use row_api::data;
use row_api::data::read_modify_write_rule::Rule;
use row_api::data::row_range::{EndKey, StartKey};
use tonic::Code;
use vfs::RealFileSystem;

use crate::stack::{Stack, name, set};

fn read(table: &row_api::names::TableName) -> data::ReadRowsRequest {
    data::ReadRowsRequest { table_name: table.to_string(), ..data::ReadRowsRequest::default() }
}

#[tokio::test]
async fn a_scan_crosses_tablets_both_ways_and_its_limit_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::open(dir.path()).await;
    let table = stack.create("t", &["c", "e"]).await;
    let keys = ["a", "b", "c", "d", "e", "f"];
    for key in keys {
        stack.put(&table, key, key).await;
    }
    assert_eq!(stack.keys(&table).await, keys);
    let reversed = data::ReadRowsRequest { reversed: true, ..read(&table) };
    assert_eq!(stack.keys_of(reversed.clone()).await, ["f", "e", "d", "c", "b", "a"]);
    assert_eq!(stack.keys_of(data::ReadRowsRequest { rows_limit: 3, ..reversed }).await, ["f", "e", "d"]);
    assert_eq!(stack.keys_of(data::ReadRowsRequest { rows_limit: 4, ..read(&table) }).await, keys[..4]);
    let range = data::RowRange {
        start_key: Some(StartKey::StartKeyOpen("a".into())),
        end_key: Some(EndKey::EndKeyClosed("e".into())),
    };
    let rows = data::RowSet { row_keys: vec!["f".into()], row_ranges: vec![range] };
    let some = data::ReadRowsRequest { rows: Some(rows), ..read(&table) };
    assert_eq!(stack.keys_of(some.clone()).await, keys[1..]);
    let some_reversed = data::ReadRowsRequest { reversed: true, ..some };
    assert_eq!(stack.keys_of(some_reversed).await, ["f", "e", "d", "c", "b"]);
    stack.close().await;
}

#[tokio::test]
async fn samples_are_the_tablet_boundaries_and_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::open(dir.path()).await;
    let table = stack.create("t", &["m", "c", "m"]).await;
    assert_eq!(stack.boundaries(&table).await, ["c", "m", ""]);
    let whole = stack.create("whole", &[]).await;
    assert_eq!(stack.boundaries(&whole).await, [""]);
    stack.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_from_many_tasks_are_exact() {
    const TASKS: usize = 16;
    const INCREMENTS: usize = 25;
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::open(dir.path()).await;
    let table = stack.create("t", &[]).await;
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (client, table) = (stack.client.clone(), table.to_string());
            tokio::spawn(async move {
                for _ in 0..INCREMENTS {
                    increment(&client, &table, "counter").await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let row = stack.client.read_row(&table, b"counter").await.unwrap().unwrap();
    let count = i64::from_be_bytes(row.cell("f", b"n").unwrap().value.as_ref().try_into().unwrap());
    assert_eq!(count, (TASKS * INCREMENTS) as i64);
    stack.close().await;
}

/// Adds 1 to the counter in `row`.
pub async fn increment(client: &RowClient, table: &str, row: &'static str) {
    let rule = data::ReadModifyWriteRule {
        family_name: "f".to_owned(),
        column_qualifier: "n".into(),
        rule: Some(Rule::IncrementAmount(1)),
    };
    let request = data::ReadModifyWriteRowRequest {
        table_name: table.to_owned(),
        row_key: row.into(),
        rules: vec![rule],
        ..data::ReadModifyWriteRowRequest::default()
    };
    client.data().read_modify_write_row(request).await.unwrap();
}

#[tokio::test]
async fn check_and_mutate_tells_what_it_found() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::open(dir.path()).await;
    let table = stack.create("t", &["m"]).await;
    let request = data::CheckAndMutateRowRequest {
        table_name: table.to_string(),
        row_key: "z".into(),
        false_mutations: vec![set("f", "q", "first")],
        ..data::CheckAndMutateRowRequest::default()
    };
    for (matched, value) in [(false, "first"), (true, "first")] {
        let answer = stack.client.data().check_and_mutate_row(request.clone()).await.unwrap().into_inner();
        assert_eq!(answer.predicate_matched, matched);
        assert_eq!(stack.value(&table, "z").await.as_deref(), Some(value));
    }
    stack.close().await;
}

#[tokio::test]
async fn each_entry_of_a_batch_has_an_answer_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::open(dir.path()).await;
    let table = stack.create("t", &["c"]).await;
    let entries = [("d", "f"), ("a", "nosuch"), ("", "f"), ("b", "g")];
    let entries = entries.map(|(row, family)| (row.as_bytes().to_vec(), vec![set(family, "q", "v")]));
    let answers = stack.client.mutate_rows(&table, entries.to_vec()).await.unwrap();
    let codes: Vec<_> = answers
        .iter()
        .map(|answer| answer.as_ref().map_or_else(tonic::Status::code, |()| Code::Ok))
        .collect();
    assert_eq!(codes, [Code::Ok, Code::NotFound, Code::InvalidArgument, Code::Ok]);
    assert_eq!(stack.keys(&table).await, ["b", "d"]);
    stack.close().await;
}

#[tokio::test]
async fn a_large_batch_over_many_tablets_arrives_whole() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::open(dir.path()).await;
    let splits: Vec<String> = (1..40).map(|n| format!("{:04}", n * 100)).collect();
    let splits: Vec<&str> = splits.iter().map(String::as_str).collect();
    let table = stack.create("t", &splits).await;
    let value = "v".repeat(1_000);
    let keys: Vec<String> = (0..4_000).map(|n| format!("{n:04}")).collect();
    // Not in the order of the tablets.
    let entries = (0..4_000).map(|n| (keys[n * 7 % 4_000].clone().into_bytes(), vec![set("f", "q", &value)]));
    let answers = stack.client.mutate_rows(&table, entries.collect()).await.unwrap();
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(stack.keys(&table).await, keys);
    let half = data::ReadRowsRequest { reversed: true, rows_limit: 2_000, ..read(&table) };
    let last: Vec<_> = keys.iter().rev().take(2_000).cloned().collect();
    assert_eq!(stack.keys_of(half).await, last);
    stack.close().await;
}

#[tokio::test]
async fn what_is_not_there_or_not_built_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::open(dir.path()).await;
    let error = stack.client.read_row(&name("nowhere"), b"r").await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert_eq!(error.message(), "Table not found: projects/p/instances/i/tables/nowhere");
    let bad = data::ReadRowsRequest { table_name: "t".to_owned(), ..data::ReadRowsRequest::default() };
    assert_eq!(stack.rows(bad).await.unwrap_err().code(), Code::InvalidArgument);
    let view =
        data::ReadRowsRequest { materialized_view_name: "v".to_owned(), ..data::ReadRowsRequest::default() };
    assert_eq!(stack.rows(view).await.unwrap_err().code(), Code::Unimplemented);
    let table = stack.create("t", &[]).await;
    let negative = data::ReadRowsRequest { rows_limit: -1, ..read(&table) };
    assert!(stack.rows(negative).await.unwrap_err().message().starts_with("rows_limit: "));
    stack.close().await;
}

#[tokio::test]
async fn a_scan_over_the_bound_is_turned_away_with_a_delay() {
    let dir = tempfile::tempdir().unwrap();
    let fs = Arc::new(RealFileSystem);
    let stack = Stack::open_on(fs, dir.path(), |options| options.scan_count_max = 2).await.unwrap();
    let table = stack.create("t", &[]).await;
    let value = "v".repeat(100_000);
    for row in 0..100 {
        stack.put(&table, &format!("{row}"), &value).await;
    }
    let mut first = stack.client.read_rows(read(&table)).await.unwrap();
    assert!(first.next().await.unwrap().is_some());
    let second = stack.client.read_rows(read(&table)).await.unwrap();
    let error = stack.client.read_rows(read(&table)).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    let details = row_api::rpc::Status::decode(error.details()).unwrap();
    assert_eq!(details.details[0].type_url, "type.googleapis.com/google.rpc.RetryInfo");
    drop(second);
    // A scan that its reader gave up makes room at once.
    let mut rows = 1;
    while first.next().await.unwrap().is_some() {
        rows += 1;
    }
    assert_eq!(rows, 100);
    assert_eq!(stack.keys(&table).await.len(), 100);
    stack.close().await;
}

#[tokio::test]
async fn roles_write_system_tables_and_nobody_writes_metadata() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::open(dir.path()).await;
    let parent = "projects/hayloft/instances/system".to_owned();
    let family = ("f".to_owned(), row_api::admin::ColumnFamily::default());
    let create = row_api::admin::CreateTableRequest {
        parent: parent.clone(),
        table_id: "photos".to_owned(),
        table: Some(row_api::admin::Table {
            column_families: [family].into(),
            ..row_api::admin::Table::default()
        }),
        ..row_api::admin::CreateTableRequest::default()
    };
    let denied = stack.client.table_admin().create_table(create.clone()).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    stack.role.table_admin().create_table(create).await.unwrap();
    let photos = row_api::names::TableName::parse("name", &format!("{parent}/tables/photos")).unwrap();
    stack.role.mutate_row(&photos, b"r", vec![set("f", "q", "v")]).await.unwrap();
    let denied = stack.client.mutate_row(&photos, b"r", vec![set("f", "q", "w")]).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    assert_eq!(stack.value(&photos, "r").await.as_deref(), Some("v"));
    let metadata = tablet_server::metadata::metadata_table_name();
    for client in [&stack.client, &stack.role] {
        let denied = client.mutate_row(&metadata, b"r", vec![set("tablet", "start", "")]).await.unwrap_err();
        assert_eq!(denied.code(), Code::PermissionDenied);
    }
    // METADATA's second tablet, and the photos table's only one.
    assert_eq!(stack.rows(read(&metadata)).await.unwrap().len(), 2);
    stack.close().await;
}
