use row_api::admin;
use row_api::admin::authorized_view::{AuthorizedView as Kind, FamilySubsets, SubsetView};
use row_api::data::mutation::{DeleteFromFamily, DeleteFromRow, Mutation as Change};
use row_api::data::row_filter::Filter;
use row_api::data::{
    CheckAndMutateRowRequest, MutateRowRequest, MutateRowsRequest, Mutation, ReadModifyWriteRowRequest,
    ReadModifyWriteRule, ReadRowsRequest, RowFilter, RowSet, SampleRowKeysRequest, mutate_rows_request,
    read_modify_write_rule,
};
use row_api::names::TableName;
use tonic::Code;

use crate::stack::{INSTANCE, Stack, name, set};
use crate::tables::code;

/// Rows `b…` and `d…`; of family `f` the columns `q` and `p…`, of `g` all.
fn subset() -> SubsetView {
    let of = |exact: &[&'static str], prefixes: &[&'static str]| FamilySubsets {
        qualifiers: exact.iter().map(|text| (*text).into()).collect(),
        qualifier_prefixes: prefixes.iter().map(|text| (*text).into()).collect(),
    };
    SubsetView {
        row_prefixes: vec!["d".into(), "b".into()],
        family_subsets: [("f".to_owned(), of(&["q"], &["p"])), ("g".to_owned(), of(&[], &[""]))].into(),
    }
}

impl Stack {
    /// A table with rows a to e, each with columns in and out of the view, and the view `v` of it.
    async fn create_with_view(&self) -> TableName {
        let table = self.create("t", &["bb", "c", "dd"]).await;
        for row in ["a", "b1", "b2", "c", "d", "e"] {
            let columns = [("f", "hidden"), ("f", "p1"), ("f", "q"), ("f", "q2"), ("g", "x")];
            let cells = columns.map(|(family, qualifier)| set(family, qualifier, "v"));
            self.client.mutate_row(&table, row.as_bytes(), cells.to_vec()).await.unwrap();
        }
        let request = admin::CreateAuthorizedViewRequest {
            parent: table.to_string(),
            authorized_view_id: "v".to_owned(),
            authorized_view: Some(admin::AuthorizedView {
                authorized_view: Some(Kind::SubsetView(subset())),
                ..admin::AuthorizedView::default()
            }),
        };
        self.client.table_admin().create_authorized_view(request).await.unwrap();
        table
    }

    /// What a read of the view shows, as `row/family:qualifier`.
    async fn seen(&self, request: ReadRowsRequest) -> Vec<String> {
        let request = ReadRowsRequest { authorized_view_name: view("v"), ..request };
        let rows = self.rows(request).await.unwrap();
        let show = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        rows.iter()
            .flat_map(|row| {
                row.cells
                    .iter()
                    .map(|cell| format!("{}/{}:{}", show(&row.key), cell.family, show(&cell.qualifier)))
            })
            .collect()
    }
}

fn view(id: &str) -> String {
    format!("{INSTANCE}/tables/t/authorizedViews/{id}")
}

#[tokio::test]
async fn a_read_sees_the_view_before_any_filter() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::open(dir.path()).await;
    stack.create_with_view().await;
    stack.close().await;
    let stack = Stack::open(dir.path()).await;
    let all = |row: &str| ["f:p1", "f:q", "g:x"].map(|column| format!("{row}/{column}"));
    let expected = [all("b1"), all("b2"), all("d")].concat();
    assert_eq!(stack.seen(ReadRowsRequest::default()).await, expected);

    let filter = |filter| Some(RowFilter::from(filter));
    let second =
        ReadRowsRequest { filter: filter(Filter::CellsPerRowOffsetFilter(2)), ..ReadRowsRequest::default() };
    assert_eq!(stack.seen(second).await, ["b1/g:x", "b2/g:x", "d/g:x"]);
    let hidden = Filter::ColumnQualifierRegexFilter("hidden|q.*".into());
    let hidden = ReadRowsRequest { filter: filter(hidden), ..ReadRowsRequest::default() };
    assert_eq!(stack.seen(hidden).await, ["b1/f:q", "b2/f:q", "d/f:q"]);
    let limited = ReadRowsRequest { rows_limit: 1, reversed: true, ..ReadRowsRequest::default() };
    assert_eq!(stack.seen(limited).await, all("d"));
    let keys = RowSet { row_keys: vec!["a".into(), "b2".into(), "e".into()], row_ranges: Vec::new() };
    assert_eq!(
        stack.seen(ReadRowsRequest { rows: Some(keys), ..ReadRowsRequest::default() }).await,
        all("b2")
    );

    let both = ReadRowsRequest {
        table_name: name("t").to_string(),
        authorized_view_name: view("v"),
        ..ReadRowsRequest::default()
    };
    assert_eq!(code(stack.rows(both).await), Code::InvalidArgument);
    let other = ReadRowsRequest { authorized_view_name: view("w"), ..ReadRowsRequest::default() };
    assert_eq!(code(stack.rows(other).await), Code::NotFound);

    let request = SampleRowKeysRequest { authorized_view_name: view("v"), ..SampleRowKeysRequest::default() };
    let mut samples = stack.client.data().sample_row_keys(request).await.unwrap().into_inner();
    let mut keys = Vec::new();
    while let Some(sample) = samples.message().await.unwrap() {
        keys.push(sample.row_key);
    }
    // c lies beyond the view.
    assert_eq!(keys, ["bb", "dd", ""]);
    stack.close().await;
}

#[tokio::test]
async fn a_write_beyond_the_view_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::open(dir.path()).await;
    let table = stack.create_with_view().await;
    let mut data = stack.client.data();
    let mutate = |row: &'static str, mutations: Vec<Mutation>| MutateRowRequest {
        authorized_view_name: view("v"),
        row_key: row.into(),
        mutations,
        ..MutateRowRequest::default()
    };
    let change = |mutation| Mutation::from(mutation);
    let drop_family =
        |family: &str| change(Change::DeleteFromFamily(DeleteFromFamily { family_name: family.to_owned() }));
    for (row, mutations, expected) in [
        ("b1", vec![set("f", "q", "new"), set("g", "y", "new")], Code::Ok),
        ("b1", vec![set("f", "q", "no"), set("f", "hidden", "no")], Code::PermissionDenied),
        ("a", vec![set("f", "q", "no")], Code::PermissionDenied),
        ("b1", vec![drop_family("f")], Code::PermissionDenied),
        ("b2", vec![drop_family("g")], Code::Ok),
        ("b1", vec![change(Change::DeleteFromRow(DeleteFromRow {}))], Code::PermissionDenied),
        ("b1", vec![set("nonesuch", "q", "no")], Code::PermissionDenied),
    ] {
        assert_eq!(
            code(data.mutate_row(mutate(row, mutations.clone())).await),
            expected,
            "{row} {mutations:?}"
        );
    }
    assert_eq!(stack.value(&table, "b1").await.as_deref(), Some("new"));
    assert_eq!(stack.value(&table, "a").await.as_deref(), Some("v"));

    let entry = |row: &'static str| mutate_rows_request::Entry {
        row_key: row.into(),
        mutations: vec![set("f", "q", "bulk")],
        ..mutate_rows_request::Entry::default()
    };
    let request = MutateRowsRequest {
        authorized_view_name: view("v"),
        entries: ["a", "b1", "e"].map(entry).to_vec(),
        ..MutateRowsRequest::default()
    };
    let answer = data.mutate_rows(request).await.unwrap().into_inner().message().await.unwrap().unwrap();
    let codes: Vec<Code> =
        answer.entries.iter().map(|entry| entry.status.as_ref().unwrap().code.into()).collect();
    assert_eq!(codes, [Code::PermissionDenied, Code::Ok, Code::PermissionDenied]);

    let check = |row: &'static str, family: &str, qualifier: &str| CheckAndMutateRowRequest {
        authorized_view_name: view("v"),
        row_key: row.into(),
        predicate_filter: Some(RowFilter::from(Filter::ColumnQualifierRegexFilter("hidden".into()))),
        true_mutations: vec![set(family, qualifier, "matched")],
        false_mutations: vec![set("f", "q", "otherwise")],
        ..CheckAndMutateRowRequest::default()
    };
    // The predicate does not see what the view hides.
    assert!(!data.check_and_mutate_row(check("b1", "f", "q")).await.unwrap().into_inner().predicate_matched);
    assert_eq!(stack.value(&table, "b1").await.as_deref(), Some("otherwise"));
    assert_eq!(code(data.check_and_mutate_row(check("b1", "f", "hidden")).await), Code::PermissionDenied);
    assert_eq!(code(data.check_and_mutate_row(check("a", "f", "q")).await), Code::PermissionDenied);

    for (row, qualifier, expected) in [
        ("b1", "p-list", Code::Ok),
        ("b1", "hidden", Code::PermissionDenied),
        ("c", "p-list", Code::PermissionDenied),
    ] {
        let rule = ReadModifyWriteRule {
            family_name: "f".to_owned(),
            column_qualifier: qualifier.into(),
            rule: Some(read_modify_write_rule::Rule::AppendValue("x".into())),
        };
        let request = ReadModifyWriteRowRequest {
            authorized_view_name: view("v"),
            row_key: row.into(),
            rules: vec![rule],
            ..ReadModifyWriteRowRequest::default()
        };
        assert_eq!(code(data.read_modify_write_row(request).await), expected, "{row} {qualifier}");
    }
    stack.close().await;
}

#[tokio::test]
async fn a_protected_view_keeps_its_table_and_instance() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::open(dir.path()).await;
    let table = stack.create_with_view().await;
    let mut admin = stack.client.table_admin();
    let protect = |deletion_protection| admin::UpdateAuthorizedViewRequest {
        authorized_view: Some(admin::AuthorizedView {
            name: view("v"),
            deletion_protection,
            ..admin::AuthorizedView::default()
        }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["deletion_protection".to_owned()] }),
        ignore_warnings: false,
    };
    admin.update_authorized_view(protect(true)).await.unwrap();
    let delete_view = || admin::DeleteAuthorizedViewRequest { name: view("v"), etag: String::new() };
    let delete_table = || admin::DeleteTableRequest { name: table.to_string() };
    assert_eq!(code(admin.delete_authorized_view(delete_view()).await), Code::FailedPrecondition);
    assert_eq!(code(admin.delete_table(delete_table()).await), Code::FailedPrecondition);
    let deleted = stack.master.delete_instance(table.instance.clone()).await;
    assert_eq!(code(deleted.map_err(tonic::Status::from)), Code::FailedPrecondition);
    admin.update_authorized_view(protect(false)).await.unwrap();
    admin.delete_authorized_view(delete_view()).await.unwrap();
    assert_eq!(code(admin.delete_authorized_view(delete_view()).await), Code::NotFound);
    let read = ReadRowsRequest { authorized_view_name: view("v"), ..ReadRowsRequest::default() };
    assert_eq!(code(stack.rows(read).await), Code::NotFound);
    admin.delete_table(delete_table()).await.unwrap();
    stack.close().await;
}
