//! Row semantics over a real engine: what is written, and what reads make of it.

mod aggregates;
mod filter_model;
mod filters;
mod gc_model;
mod model;
mod scans;
mod writes;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use lsm::{Background, Engine, Options, Snapshot, Tree, TreeId, WriteBatch};
use row_api::data;
use row_api::data::mutation::{DeleteFromColumn, DeleteFromFamily, DeleteFromRow, Mutation, SetCell};
use row_api::data::row_filter::Filter as Kind;
use tablet_server::aggregate::CellAggregates;
use tablet_server::filter::Filter;
use tablet_server::group_trees::{GroupTrees, tree_format};
use tablet_server::mutation::RowMutations;
use tablet_server::row::Row;
use tablet_server::row_scan::{RowScan, ScanOptions};
use tablet_server::row_set::RowSet;
use tablet_server::schema::{Family, TableId, TableSchema};
use vfs::SimulatedFileSystem;

const TREE: TreeId = TreeId(1);

/// A table of one tablet, with its engine in memory and on this thread.
struct Table {
    engine: Engine,
    tree: Tree,
    trees: Arc<GroupTrees>,
    schema: TableSchema,
    now_us: i64,
}

impl Table {
    /// A table whose families are created in this order.
    fn new(families: &[&str]) -> Self {
        let options = Options {
            background: Background::Inline,
            merge_operators: vec![Arc::new(CellAggregates)],
            ..Options::default()
        };
        let files = Arc::new(SimulatedFileSystem::new());
        let engine = Engine::open(files, Path::new("/engine"), 1, options).unwrap();
        let tree = engine.create_tree(TREE, tree_format()).unwrap();
        let trees = Arc::new(GroupTrees::single(tree.clone()));
        let mut schema = TableSchema::new(TableId(1));
        for name in families {
            schema.families.insert((*name).to_owned(), Family::new(schema.next_family_id));
            schema.next_family_id.0 += 1;
        }
        Self { engine, tree, trees, schema, now_us: 1_000_000_000 }
    }

    /// Changes a row.
    fn mutate(&self, row: &str, mutations: Vec<data::Mutation>) {
        let checked = RowMutations::check(&self.schema, "mutations", key(row), mutations).unwrap();
        let mut batch = WriteBatch::new();
        checked.encode(&self.trees, self.now_us, &mut batch);
        self.write(batch);
    }

    fn write(&self, batch: WriteBatch) {
        self.engine.write(batch).unwrap().wait().unwrap();
    }

    fn snapshot(&self) -> Snapshot {
        self.engine.snapshot()
    }

    fn options(&self) -> ScanOptions {
        ScanOptions { now_us: self.now_us, ..ScanOptions::default() }
    }

    fn filter(&self, filter: Option<&data::RowFilter>) -> Filter {
        Filter::compile("filter", filter, &self.schema).unwrap()
    }

    fn scan(&self, rows: RowSet, filter: Option<&data::RowFilter>, options: ScanOptions) -> RowScan {
        RowScan::new(&self.trees, &self.snapshot(), &self.schema, rows, self.filter(filter), options)
    }

    /// All rows that the scan gives, in steps of `budget_bytes`.
    fn drain(scan: &mut RowScan, budget_bytes: usize) -> Vec<Row> {
        let mut rows = Vec::new();
        loop {
            let batch = scan.next_rows(budget_bytes).unwrap();
            rows.extend(batch.rows);
            if batch.done {
                return rows;
            }
        }
    }

    /// All rows that `filter` leaves something of.
    fn read(&self, filter: Option<&data::RowFilter>) -> Vec<Row> {
        Self::drain(&mut self.scan(RowSet::all(), filter, self.options()), 1 << 20)
    }

    /// All rows that `filter` leaves something of, a line a cell.
    fn text(&self, filter: Option<&data::RowFilter>) -> String {
        text(&self.read(filter))
    }
}

/// A line a cell: `row family:qualifier@milliseconds=value`, and the label in brackets.
fn text(rows: &[Row]) -> String {
    let mut lines = String::new();
    for row in rows {
        for cell in &row.cells {
            let label = cell.label.as_ref().map_or(String::new(), |label| format!(" [{label}]"));
            lines.push_str(&format!(
                "{} {}:{}@{}={}{label}\n",
                row.key.escape_ascii(),
                cell.family,
                cell.qualifier.escape_ascii(),
                cell.timestamp_us / 1_000,
                cell.value.escape_ascii(),
            ));
        }
    }
    lines
}

fn key(row: &str) -> Bytes {
    Bytes::copy_from_slice(row.as_bytes())
}

/// Lines as they stand in a test, without their indentation.
fn lines(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect()
}

fn set(family: &str, qualifier: &str, milliseconds: i64, value: &str) -> data::Mutation {
    mutation(Mutation::SetCell(SetCell {
        family_name: family.to_owned(),
        column_qualifier: key(qualifier),
        timestamp_micros: milliseconds * 1_000,
        value: key(value),
    }))
}

fn delete_column(family: &str, qualifier: &str, milliseconds: Option<(i64, i64)>) -> data::Mutation {
    mutation(Mutation::DeleteFromColumn(DeleteFromColumn {
        family_name: family.to_owned(),
        column_qualifier: key(qualifier),
        time_range: milliseconds.map(|(start, end)| data::TimestampRange {
            start_timestamp_micros: start * 1_000,
            end_timestamp_micros: end * 1_000,
        }),
    }))
}

fn delete_family(family: &str) -> data::Mutation {
    mutation(Mutation::DeleteFromFamily(DeleteFromFamily { family_name: family.to_owned() }))
}

fn delete_row() -> data::Mutation {
    mutation(Mutation::DeleteFromRow(DeleteFromRow {}))
}

fn mutation(mutation: Mutation) -> data::Mutation {
    data::Mutation::from(mutation)
}

fn filter(kind: Kind) -> data::RowFilter {
    kind.into()
}

fn chain(filters: Vec<data::RowFilter>) -> data::RowFilter {
    filter(Kind::Chain(data::row_filter::Chain { filters }))
}

fn interleave(filters: Vec<data::RowFilter>) -> data::RowFilter {
    filter(Kind::Interleave(data::row_filter::Interleave { filters }))
}

fn condition(
    predicate: data::RowFilter,
    on_match: Option<data::RowFilter>,
    otherwise: Option<data::RowFilter>,
) -> data::RowFilter {
    filter(Kind::Condition(Box::new(data::row_filter::Condition {
        predicate_filter: Some(Box::new(predicate)),
        true_filter: on_match.map(Box::new),
        false_filter: otherwise.map(Box::new),
    })))
}

fn family(pattern: &str) -> data::RowFilter {
    filter(Kind::FamilyNameRegexFilter(pattern.to_owned()))
}

fn qualifier(pattern: &str) -> data::RowFilter {
    filter(Kind::ColumnQualifierRegexFilter(key(pattern)))
}

fn label(label: &str) -> data::RowFilter {
    filter(Kind::ApplyLabelTransformer(label.to_owned()))
}
