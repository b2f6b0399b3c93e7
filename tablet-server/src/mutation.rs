//! Mutations of one row: checked as a whole first, then encoded as one batch.
//!
//! Deletes become range deletes over the cells' keys, so that they cost the
//! same whatever they remove; later puts of the same batch are not masked,
//! because a batch is applied in order. What is added to an aggregate cell becomes
//! a merge operand, complete and checked: nothing can refuse it once it is logged.

use bytes::Bytes;
use lsm::WriteBatch;
use row_api::data;
use row_api::data::TimestampOrigin;
use row_api::data::mutation::{
    AddToCell, DeleteFromColumn, DeleteFromFamily, DeleteFromRow, MergeToCell, Mutation, SetCell,
};
use row_api::data::value::Kind;
use tonic::Status;

use crate::group_trees::GroupTrees;
use crate::schema::{FamilyId, TableSchema};
use crate::{aggregate, cell_key, limits};

/// A SetCell's timestamp that asks for the server's clock.
const SERVER_CLOCK: i64 = -1;

/// What a write takes in a batch beyond row key, qualifier and value: kind, tree,
/// two lengths, escapes' ends, family and timestamp.
const OPERATION_BYTES: usize = 24;

/// Checked mutations of one row, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowMutations {
    row_key: Bytes,
    operations: Vec<Operation>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Operation {
    Set {
        family: FamilyId,
        qualifier: Bytes,
        /// None is the server's clock.
        timestamp_us: Option<i64>,
        value: Bytes,
    },
    Merge {
        family: FamilyId,
        qualifier: Bytes,
        timestamp_us: i64,
        operand: Bytes,
    },
    /// A merge of nothing.
    Nothing,
    DeleteColumn {
        family: FamilyId,
        qualifier: Bytes,
        /// From here on.
        start_us: i64,
        /// Before here; none is the end of time.
        end_us: Option<i64>,
    },
    DeleteFamily(FamilyId),
    DeleteRow,
}

impl RowMutations {
    /// Checks `row_key` and `mutations`, which stand at `field` in a message
    /// that has the key beside them, against the limits and the schema.
    ///
    /// # Errors
    ///
    /// - INVALID_ARGUMENT: a limit, a timestamp, a missing field.
    /// - NOT_FOUND: a family that the table does not have.
    pub fn check(
        schema: &TableSchema,
        field: &str,
        row_key: Bytes,
        mutations: Vec<data::Mutation>,
    ) -> Result<Self, Status> {
        let message = field.strip_suffix("mutations").unwrap_or_default();
        limits::check_row_key(format_args!("{message}row_key"), &row_key)?;
        limits::check_mutation_count(field, mutations.len())?;
        let operations = mutations
            .into_iter()
            .enumerate()
            .map(|(index, mutation)| Operation::check(schema, &format_args!("{field}[{index}]"), mutation))
            .collect::<Result<_, _>>()?;
        Ok(Self { row_key, operations })
    }

    /// The row.
    pub fn row_key(&self) -> &Bytes {
        &self.row_key
    }

    /// How many mutations there are.
    pub fn count(&self) -> usize {
        self.operations.len()
    }

    /// Whether a cell gets the server's clock: such a row must not be sent twice.
    pub fn uses_server_clock(&self) -> bool {
        self.operations.iter().any(|operation| matches!(operation, Operation::Set { timestamp_us: None, .. }))
    }

    /// Bytes that the writes take in a batch; a little more or less, where keys hold zero bytes.
    pub fn bytes(&self) -> usize {
        let row_bytes = self.row_key.len();
        self.operations.iter().map(|operation| OPERATION_BYTES + row_bytes + operation.data_bytes()).sum()
    }

    /// The families that it changes, where it does not change all; some more than once.
    pub fn families(&self) -> impl Iterator<Item = FamilyId> {
        self.operations.iter().filter_map(Operation::family)
    }

    /// Adds the writes to `batch`, for the trees that hold the row. Cells
    /// without a timestamp of their own get `now_us`, cut to the millisecond.
    pub fn encode(&self, trees: &GroupTrees, now_us: i64, batch: &mut WriteBatch) {
        let mut key = cell_key::row_prefix(&self.row_key);
        let row_bytes = key.len();
        for operation in &self.operations {
            key.truncate(row_bytes);
            operation.encode(trees, now_us, &mut key, batch);
        }
    }

    /// The mutations as messages, with the timestamps that [`RowMutations::encode`]
    /// gives at `now_us`; those of families that `schema` lacks are left out.
    pub fn to_messages(&self, schema: &TableSchema, now_us: i64) -> Vec<data::Mutation> {
        self.operations.iter().filter_map(|operation| operation.to_message(schema, now_us)).collect()
    }
}

impl Operation {
    /// The one that it changes.
    fn family(&self) -> Option<FamilyId> {
        match self {
            Self::Set { family, .. }
            | Self::Merge { family, .. }
            | Self::DeleteColumn { family, .. }
            | Self::DeleteFamily(family) => Some(*family),
            Self::Nothing | Self::DeleteRow => None,
        }
    }

    /// Bytes of its qualifier and value.
    fn data_bytes(&self) -> usize {
        match self {
            Self::Set { qualifier, value, .. } => qualifier.len() + value.len(),
            Self::DeleteColumn { qualifier, .. } => 2 * qualifier.len(),
            Self::Merge { qualifier, operand, .. } => qualifier.len() + operand.len(),
            Self::Nothing | Self::DeleteFamily(_) | Self::DeleteRow => 0,
        }
    }

    fn check(
        schema: &TableSchema,
        field: &std::fmt::Arguments<'_>,
        mutation: data::Mutation,
    ) -> Result<Self, Status> {
        let origin = TimestampOrigin::try_from(mutation.timestamp_origin).map_err(|_| {
            let why = "must be USER_SPECIFIED or CLIENT_AUTO_GENERATED";
            limits::refuse(
                format_args!("{field}.timestamp_origin"),
                format_args!("{}, {why}", mutation.timestamp_origin),
            )
        })?;
        match mutation.mutation {
            Some(Mutation::SetCell(set)) => Self::check_set(schema, field, set, origin),
            Some(Mutation::DeleteFromColumn(delete)) => Self::check_delete_column(schema, field, delete),
            Some(Mutation::DeleteFromFamily(delete)) => {
                let name = format_args!("{field}.delete_from_family.family_name");
                Ok(Self::DeleteFamily(schema.find_family(name, &delete.family_name)?.id))
            }
            Some(Mutation::DeleteFromRow(_)) => Ok(Self::DeleteRow),
            Some(Mutation::AddToCell(add)) => Self::check_add(schema, field, add),
            Some(Mutation::MergeToCell(merge)) => Self::check_merge(schema, field, merge),
            None => Err(limits::refuse(field, "is empty, it must set, delete or add something")),
        }
    }

    fn check_set(
        schema: &TableSchema,
        field: &std::fmt::Arguments<'_>,
        set: SetCell,
        origin: TimestampOrigin,
    ) -> Result<Self, Status> {
        let name = format_args!("{field}.set_cell.family_name");
        let family = schema.find_family(name, &set.family_name)?;
        family.check_plain(name)?;
        limits::check_qualifier(format_args!("{field}.set_cell.column_qualifier"), &set.column_qualifier)?;
        limits::check_value(format_args!("{field}.set_cell.value"), &set.value)?;
        let timestamp_us = match set.timestamp_micros {
            SERVER_CLOCK => None,
            exact if origin == TimestampOrigin::ClientAutoGenerated && exact > 0 => {
                Some(exact - exact % limits::TIMESTAMP_GRANULE_US)
            }
            given => {
                limits::check_timestamp(format_args!("{field}.set_cell.timestamp_micros"), given)?;
                Some(given)
            }
        };
        let family = family.id;
        Ok(Self::Set { family, qualifier: set.column_qualifier, timestamp_us, value: set.value })
    }

    fn check_add(
        schema: &TableSchema,
        field: &std::fmt::Arguments<'_>,
        add: AddToCell,
    ) -> Result<Self, Status> {
        let field = format_args!("{field}.add_to_cell");
        let name = format_args!("{field}.family_name");
        let family = schema.find_family(name, &add.family_name)?;
        let aggregate = family.check_aggregate(name)?;
        Ok(Self::Merge {
            family: family.id,
            qualifier: aggregate::check_qualifier(
                format_args!("{field}.column_qualifier"),
                add.column_qualifier,
            )?,
            timestamp_us: aggregate::check_timestamp(format_args!("{field}.timestamp"), add.timestamp)?,
            operand: aggregate.add(format_args!("{field}.input"), add.input.unwrap_or_default())?,
        })
    }

    fn check_merge(
        schema: &TableSchema,
        field: &std::fmt::Arguments<'_>,
        merge: MergeToCell,
    ) -> Result<Self, Status> {
        let field = format_args!("{field}.merge_to_cell");
        let name = format_args!("{field}.family_name");
        let family = schema.find_family(name, &merge.family_name)?;
        let aggregate = family.check_aggregate(name)?;
        let column = format_args!("{field}.column_qualifier");
        let qualifier = aggregate::check_qualifier(column, merge.column_qualifier)?;
        let timestamp_us = aggregate::check_timestamp(format_args!("{field}.timestamp"), merge.timestamp)?;
        let operand = aggregate.merge(format_args!("{field}.input"), merge.input.unwrap_or_default())?;
        Ok(match operand {
            Some(operand) => Self::Merge { family: family.id, qualifier, timestamp_us, operand },
            None => Self::Nothing,
        })
    }

    fn check_delete_column(
        schema: &TableSchema,
        field: &std::fmt::Arguments<'_>,
        delete: DeleteFromColumn,
    ) -> Result<Self, Status> {
        let field = format_args!("{field}.delete_from_column");
        let family = schema.find_family(format_args!("{field}.family_name"), &delete.family_name)?.id;
        limits::check_qualifier(format_args!("{field}.column_qualifier"), &delete.column_qualifier)?;
        let range = delete.time_range.unwrap_or_default();
        let (start_us, end_us) = (range.start_timestamp_micros, range.end_timestamp_micros);
        limits::check_timestamp(format_args!("{field}.time_range.start_timestamp_micros"), start_us)?;
        limits::check_timestamp(format_args!("{field}.time_range.end_timestamp_micros"), end_us)?;
        let end_us = (end_us != 0).then_some(end_us);
        if end_us.is_some_and(|end_us| start_us >= end_us) {
            return Err(limits::refuse(
                format_args!("{field}.time_range"),
                "end_timestamp_micros must be after start_timestamp_micros, or 0 for no end",
            ));
        }
        Ok(Self::DeleteColumn { family, qualifier: delete.column_qualifier, start_us, end_us })
    }

    /// None where `schema` lacks the family.
    fn to_message(&self, schema: &TableSchema, now_us: i64) -> Option<data::Mutation> {
        let name = |family| schema.family_name(family).map(str::to_owned);
        let message = match self {
            Self::Set { family, qualifier, timestamp_us, value } => Mutation::SetCell(SetCell {
                family_name: name(*family)?,
                column_qualifier: qualifier.clone(),
                timestamp_micros: timestamp_us.unwrap_or_else(|| clock_timestamp(now_us)),
                value: value.clone(),
            }),
            // An AddToCell, too, is the merge that it comes to.
            Self::Merge { family, qualifier, timestamp_us, operand } => {
                let value = |kind| Some(data::Value { r#type: None, kind: Some(kind) });
                Mutation::MergeToCell(MergeToCell {
                    family_name: name(*family)?,
                    column_qualifier: value(Kind::RawValue(qualifier.clone())),
                    timestamp: value(Kind::RawTimestampMicros(*timestamp_us)),
                    input: value(Kind::RawValue(aggregate::input(operand))),
                })
            }
            Self::Nothing => return None,
            Self::DeleteColumn { family, qualifier, start_us, end_us } => {
                let range = data::TimestampRange {
                    start_timestamp_micros: *start_us,
                    end_timestamp_micros: end_us.unwrap_or_default(),
                };
                Mutation::DeleteFromColumn(DeleteFromColumn {
                    family_name: name(*family)?,
                    column_qualifier: qualifier.clone(),
                    time_range: (range != data::TimestampRange::default()).then_some(range),
                })
            }
            Self::DeleteFamily(family) => {
                Mutation::DeleteFromFamily(DeleteFromFamily { family_name: name(*family)? })
            }
            Self::DeleteRow => Mutation::DeleteFromRow(DeleteFromRow {}),
        };
        Some(message.into())
    }

    /// Adds the write to `batch`; `key` holds the row's prefix.
    fn encode(&self, trees: &GroupTrees, now_us: i64, key: &mut Vec<u8>, batch: &mut WriteBatch) {
        match self {
            Self::Set { family, qualifier, timestamp_us, value } => {
                cell_key::push_family(key, *family);
                cell_key::push_escaped(key, qualifier);
                cell_key::push_timestamp(key, timestamp_us.unwrap_or_else(|| clock_timestamp(now_us)));
                trees.each_of(*family, |tree| batch.put(tree, key, value));
            }
            Self::Merge { family, qualifier, timestamp_us, operand } => {
                cell_key::push_family(key, *family);
                cell_key::push_escaped(key, qualifier);
                cell_key::push_timestamp(key, *timestamp_us);
                trees.each_of(*family, |tree| batch.merge(tree, key, operand));
            }
            Self::Nothing => {}
            Self::DeleteColumn { family, qualifier, start_us, end_us } => {
                cell_key::push_family(key, *family);
                cell_key::push_escaped(key, qualifier);
                // Newest first: the range runs from its end down to its start.
                let mut first = key.clone();
                let mut last = key.clone();
                if let Some(end_us) = end_us {
                    cell_key::push_timestamp(&mut first, end_us - 1);
                }
                cell_key::push_timestamp(&mut last, *start_us);
                let past = cell_key::into_successor(last);
                trees.each_of(*family, |tree| batch.delete_range(tree, &first, &past));
            }
            Self::DeleteFamily(family) => {
                cell_key::push_family(key, *family);
                let past = cell_key::into_successor(key.clone());
                trees.each_of(*family, |tree| batch.delete_range(tree, key, &past));
            }
            Self::DeleteRow => {
                let past = cell_key::into_successor(key.clone());
                trees.each(|tree| batch.delete_range(tree, key, &past));
            }
        }
    }
}

/// The timestamp of a cell that is written at `now_us`.
pub(crate) fn clock_timestamp(now_us: i64) -> i64 {
    let now_us = now_us.max(0);
    now_us - now_us % limits::TIMESTAMP_GRANULE_US
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::TableSchema;

    fn schema() -> TableSchema {
        TableSchema::with_families(&["a", "b"])
    }

    fn set(timestamp_micros: i64) -> SetCell {
        SetCell { family_name: "a".into(), column_qualifier: "q".into(), timestamp_micros, value: "v".into() }
    }

    fn delete(start_timestamp_micros: i64, end_timestamp_micros: i64) -> Mutation {
        Mutation::DeleteFromColumn(DeleteFromColumn {
            family_name: "a".into(),
            column_qualifier: "q".into(),
            time_range: Some(data::TimestampRange { start_timestamp_micros, end_timestamp_micros }),
        })
    }

    #[track_caller]
    fn refused(mutations: Vec<Mutation>, code: tonic::Code, message: &str) {
        let mutations = mutations.into_iter().map(data::Mutation::from).collect();
        let status = RowMutations::check(&schema(), "mutations", "r".into(), mutations).unwrap_err();
        assert_eq!((status.code(), status.message()), (code, message));
    }

    #[test]
    fn refusals_name_field_size_and_limit() {
        use tonic::Code::{InvalidArgument, NotFound};
        let good = || Mutation::SetCell(set(0));
        refused(vec![], InvalidArgument, "mutations: is empty, at least 1 is needed");
        refused(
            vec![good(), Mutation::SetCell(SetCell { column_qualifier: vec![0; 17_000].into(), ..set(0) })],
            InvalidArgument,
            "mutations[1].set_cell.column_qualifier: 17000 bytes, at most 16384",
        );
        refused(
            vec![Mutation::SetCell(SetCell { family_name: "nope".into(), ..set(0) })],
            NotFound,
            "mutations[0].set_cell.family_name: unknown family \"nope\"",
        );
        refused(
            vec![Mutation::SetCell(set(1_500))],
            InvalidArgument,
            "mutations[0].set_cell.timestamp_micros: 1500, must be a multiple of 1000 (milliseconds)",
        );
        refused(
            vec![Mutation::SetCell(set(-2))],
            InvalidArgument,
            "mutations[0].set_cell.timestamp_micros: -2, at least 0",
        );
        refused(
            vec![delete(2_000, 1_000)],
            InvalidArgument,
            "mutations[0].delete_from_column.time_range: end_timestamp_micros must be after \
             start_timestamp_micros, or 0 for no end",
        );
        refused(
            vec![Mutation::DeleteFromFamily(DeleteFromFamily { family_name: "c".into() })],
            NotFound,
            "mutations[0].delete_from_family.family_name: unknown family \"c\"",
        );
        refused(
            vec![Mutation::AddToCell(AddToCell { family_name: "a".into(), ..AddToCell::default() })],
            InvalidArgument,
            "mutations[0].add_to_cell.family_name: is no aggregate family: it has no value_type of aggregate_type",
        );
        let empty = RowMutations::check(&schema(), "mutations", "r".into(), vec![data::Mutation::default()]);
        assert_eq!(
            empty.unwrap_err().message(),
            "mutations[0]: is empty, it must set, delete or add something"
        );
    }

    #[test]
    fn the_row_key_is_named_beside_its_mutations() {
        let check = |field, key: Bytes| {
            let mutations = vec![Mutation::SetCell(set(0)).into()];
            RowMutations::check(&schema(), field, key, mutations).unwrap_err().message().to_owned()
        };
        assert_eq!(
            check("entries[7].mutations", Bytes::new()),
            "entries[7].row_key: is empty, a row key has at least 1 byte"
        );
        assert_eq!(check("mutations", vec![b'x'; 5_000].into()), "row_key: 5000 bytes, at most 4096");
    }

    #[test]
    fn a_timestamp_of_the_clients_own_is_cut_to_the_millisecond() {
        let check = |timestamp, timestamp_origin: i32| {
            let set = Mutation::SetCell(set(timestamp)).into();
            let mutations = vec![data::Mutation { timestamp_origin, ..set }];
            let checked = RowMutations::check(&schema(), "mutations", "r".into(), mutations)?;
            let [Operation::Set { timestamp_us, .. }] = checked.operations[..] else { panic!("one set") };
            Ok::<_, Status>(timestamp_us)
        };
        let generated = TimestampOrigin::ClientAutoGenerated.into();
        assert_eq!(check(1_234_567, generated).unwrap(), Some(1_234_000));
        assert_eq!(check(-1, generated).unwrap(), None);
        for (timestamp, origin) in
            [(-500, generated), (1_234_567, TimestampOrigin::UserSpecified.into()), (0, 3)]
        {
            assert_eq!(check(timestamp, origin).unwrap_err().code(), tonic::Code::InvalidArgument);
        }
    }

    #[test]
    fn only_minus_one_asks_for_the_clock() {
        let with = |timestamp| {
            let mutations = vec![Mutation::SetCell(set(timestamp)).into()];
            RowMutations::check(&schema(), "mutations", "r".into(), mutations).unwrap()
        };
        assert!(with(-1).uses_server_clock());
        assert!(!with(0).uses_server_clock());
        assert_eq!(clock_timestamp(1_234_567), 1_234_000);
    }
}
