use row_api::admin;
use row_api::admin::drop_row_range_request::Target;
use row_api::admin::modify_column_families_request::Modification;
use row_api::admin::modify_column_families_request::modification::Mod;
use row_api::admin::table::View;
use row_api::client::RowClient;
use row_api::names::TableName;
use tonic::{Code, Status};

use crate::stack::{INSTANCE, Stack, name, set};

async fn drop_rows(client: &RowClient, table: &TableName, target: Option<Target>) -> Result<(), Status> {
    let request = admin::DropRowRangeRequest { name: table.to_string(), target };
    client.table_admin().drop_row_range(request).await.map(drop)
}

async fn modify(
    stack: &Stack,
    table: &TableName,
    modifications: &[(&str, Mod)],
) -> Result<admin::Table, Status> {
    let modification = |(id, r#mod): &(&str, Mod)| Modification {
        id: (*id).to_owned(),
        r#mod: Some(r#mod.clone()),
        update_mask: None,
    };
    let request = admin::ModifyColumnFamiliesRequest {
        name: table.to_string(),
        modifications: modifications.iter().map(modification).collect(),
        ..admin::ModifyColumnFamiliesRequest::default()
    };
    stack.client.table_admin().modify_column_families(request).await.map(tonic::Response::into_inner)
}

async fn delete(stack: &Stack, table: &TableName) -> Result<(), Status> {
    let request = admin::DeleteTableRequest { name: table.to_string() };
    stack.client.table_admin().delete_table(request).await.map(drop)
}

async fn get(stack: &Stack, table: &TableName, view: View) -> Result<admin::Table, Status> {
    let request = admin::GetTableRequest { name: table.to_string(), view: view.into() };
    stack.client.table_admin().get_table(request).await.map(tonic::Response::into_inner)
}

pub fn code<T>(outcome: Result<T, Status>) -> Code {
    outcome.map_or_else(|status| status.code(), |_| Code::Ok)
}

#[tokio::test]
async fn a_deleted_tables_name_begins_empty() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::open(dir.path()).await;
    let table = stack.create("t", &["m"]).await;
    assert_eq!(code(stack.try_create("t", &[]).await), Code::AlreadyExists);
    stack.put(&table, "a", "old").await;
    stack.put(&table, "z", "old").await;
    delete(&stack, &table).await.unwrap();
    assert_eq!(code(stack.client.read_row(&table, b"a").await), Code::NotFound);
    assert_eq!(code(delete(&stack, &table).await), Code::NotFound);
    stack.create("t", &[]).await;
    assert!(stack.keys(&table).await.is_empty());
    assert_eq!(stack.boundaries(&table).await, [""]);
    stack.put(&table, "a", "new").await;
    stack.close().await;
    let stack = Stack::open(dir.path()).await;
    assert_eq!(stack.keys(&table).await, ["a"]);
    assert_eq!(stack.value(&table, "a").await.as_deref(), Some("new"));
    // METADATA's two tablets and the table's one.
    assert_eq!(stack.server.stats().len(), 3);
    stack.close().await;
}

#[tokio::test]
async fn dropped_rows_stay_away_and_others_stay() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::open(dir.path()).await;
    let table = stack.create("t", &["m"]).await;
    for row in ["a", "ka", "l", "m", "ma", "n", "\u{ff}"] {
        stack.put(&table, row, "v").await;
    }
    drop_rows(&stack.client, &table, Some(Target::RowKeyPrefix("m".into()))).await.unwrap();
    assert_eq!(stack.keys(&table).await, ["a", "ka", "l", "n", "\u{ff}"]);
    stack.put(&table, "m", "again").await;
    assert_eq!(stack.value(&table, "m").await.as_deref(), Some("again"));
    drop_rows(&stack.client, &table, Some(Target::DeleteAllDataFromTable(true))).await.unwrap();
    assert!(stack.keys(&table).await.is_empty());
    for target in [None, Some(Target::DeleteAllDataFromTable(false)), Some(Target::RowKeyPrefix("".into()))] {
        assert_eq!(code(drop_rows(&stack.client, &table, target).await), Code::InvalidArgument);
    }
    assert_eq!(
        code(drop_rows(&stack.client, &name("no"), Some(Target::RowKeyPrefix("m".into()))).await),
        Code::NotFound
    );
    stack.put(&table, "b", "v").await;
    stack.close().await;
    let stack = Stack::open(dir.path()).await;
    assert_eq!(stack.keys(&table).await, ["b"]);
    stack.close().await;
}

#[tokio::test]
async fn families_change_all_together_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::open(dir.path()).await;
    let table = stack.create("t", &[]).await;
    let family = admin::ColumnFamily::default();
    let changes = [("h", Mod::Create(family.clone())), ("g", Mod::Create(family.clone()))];
    assert_eq!(code(modify(&stack, &table, &changes).await), Code::AlreadyExists);
    let families = get(&stack, &table, View::Unspecified).await.unwrap().column_families;
    assert_eq!(families.keys().collect::<Vec<_>>(), ["f", "g"]);
    let refused = stack.client.mutate_row(&table, b"r", vec![set("h", "q", "v")]).await;
    assert_eq!(code(refused), Code::NotFound);
    let changed =
        modify(&stack, &table, &[("h", Mod::Create(family)), ("g", Mod::Drop(true))]).await.unwrap();
    assert_eq!(changed.column_families.keys().collect::<Vec<_>>(), ["f", "h"]);
    stack.client.mutate_row(&table, b"r", vec![set("h", "q", "v")]).await.unwrap();
    stack.close().await;
}

#[tokio::test]
async fn a_dropped_familys_cells_do_not_come_back_under_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::open(dir.path()).await;
    let table = stack.create("t", &[]).await;
    stack.put(&table, "r", "old").await;
    let again = [("f", Mod::Drop(true)), ("f", Mod::Create(admin::ColumnFamily::default()))];
    modify(&stack, &table, &again).await.unwrap();
    assert_eq!(stack.value(&table, "r").await, None);
    stack.close().await;
    let stack = Stack::open(dir.path()).await;
    assert_eq!(stack.value(&table, "r").await, None);
    stack.put(&table, "r", "new").await;
    assert_eq!(stack.value(&table, "r").await.as_deref(), Some("new"));
    stack.close().await;
}

#[tokio::test]
async fn a_protected_table_is_not_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::open(dir.path()).await;
    let table = stack.create("t", &[]).await;
    for (deletion_protection, expected) in [(true, Code::FailedPrecondition), (false, Code::Ok)] {
        let request = admin::UpdateTableRequest {
            table: Some(admin::Table {
                name: table.to_string(),
                deletion_protection,
                ..admin::Table::default()
            }),
            update_mask: Some(prost_types::FieldMask { paths: vec!["deletion_protection".to_owned()] }),
            ..admin::UpdateTableRequest::default()
        };
        let operation = stack.client.table_admin().update_table(request).await.unwrap().into_inner();
        assert!(operation.done);
        assert_eq!(stack.operation(&operation.name).await.unwrap(), operation);
        assert_eq!(get(&stack, &table, View::Full).await.unwrap().deletion_protection, deletion_protection);
        assert_eq!(code(delete(&stack, &table).await), expected);
    }
    assert_eq!(code(stack.operation("operations/none").await), Code::NotFound);
    stack.close().await;
}

#[tokio::test]
async fn tables_are_listed_in_pages_with_their_views() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::open(dir.path()).await;
    for table in ["b", "a", "c"] {
        stack.create(table, &[]).await;
    }
    let mut names = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = admin::ListTablesRequest {
            parent: INSTANCE.to_owned(),
            page_size: 2,
            page_token,
            ..admin::ListTablesRequest::default()
        };
        let page = stack.client.table_admin().list_tables(request).await.unwrap().into_inner();
        assert!(page.tables.iter().all(|table| table.column_families.is_empty()));
        names.extend(page.tables.into_iter().map(|table| table.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["a", "b", "c"].map(|table| name(table).to_string()));
    let schema = get(&stack, &name("a"), View::Unspecified).await.unwrap();
    assert_eq!((schema.column_families.len(), schema.cluster_states.len()), (2, 0));
    let replication = get(&stack, &name("a"), View::ReplicationView).await.unwrap();
    assert_eq!((replication.column_families.len(), replication.cluster_states.len()), (0, 1));
    assert_eq!(code(get(&stack, &name("d"), View::Full).await), Code::NotFound);
    stack.close().await;
}

#[tokio::test]
async fn a_consistency_token_is_of_its_table() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::open(dir.path()).await;
    let (a, b) = (stack.create("a", &[]).await, stack.create("b", &[]).await);
    let mut tables = stack.client.table_admin();
    let request = admin::GenerateConsistencyTokenRequest { name: a.to_string() };
    let token = tables.generate_consistency_token(request).await.unwrap().into_inner().consistency_token;
    for (table, token, expected) in [
        (&a, token.as_str(), Code::Ok),
        (&b, &token, Code::InvalidArgument),
        (&a, "forged", Code::InvalidArgument),
    ] {
        let request = admin::CheckConsistencyRequest {
            name: table.to_string(),
            consistency_token: token.to_owned(),
            ..admin::CheckConsistencyRequest::default()
        };
        let answer = tables.check_consistency(request).await;
        assert!(answer.as_ref().map_or(true, |answer| answer.get_ref().consistent));
        assert_eq!(code(answer), expected);
    }
    stack.close().await;
}

#[tokio::test]
async fn a_request_that_is_wrong_is_refused_by_field() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::open(dir.path()).await;
    for (request, field) in [
        (admin::CreateTableRequest { parent: "p".to_owned(), ..good() }, "parent: "),
        (admin::CreateTableRequest { table_id: "a/b".to_owned(), ..good() }, "table_id: "),
        (
            admin::CreateTableRequest {
                initial_splits: vec![admin::create_table_request::Split::default()],
                ..good()
            },
            "initial_splits[0].key: ",
        ),
        (
            admin::CreateTableRequest {
                table: Some(admin::Table {
                    column_families: [("a b".to_owned(), admin::ColumnFamily::default())].into(),
                    ..admin::Table::default()
                }),
                ..good()
            },
            "table.column_families[\"a b\"]",
        ),
    ] {
        let error = stack.client.table_admin().create_table(request).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().starts_with(field), "{error}");
    }
    stack.close().await;
}

fn good() -> admin::CreateTableRequest {
    admin::CreateTableRequest {
        parent: INSTANCE.to_owned(),
        table_id: "t".to_owned(),
        ..admin::CreateTableRequest::default()
    }
}
