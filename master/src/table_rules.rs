//! What a table may look like: checks of admin requests, without any state.

use std::time::Duration;

use bytes::Bytes;
use row_api::admin;
use row_api::admin::modify_column_families_request::Modification;
use row_api::admin::modify_column_families_request::modification::Mod;
use row_api::admin::table::TimestampGranularity;
use tablet_server::table_record::TableRecord;
use tablet_server::{gc, limits, metadata, value_type};
use tonic::Status;

/// How long a table keeps its changes.
const CHANGE_RETENTION_MIN: Duration = Duration::from_secs(24 * 60 * 60);
const CHANGE_RETENTION_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Families of a table.
const FAMILY_COUNT_MAX: usize = 1_000;

/// Boundaries that a table can be created with; each new tablet is a tree of its server.
const SPLIT_COUNT_MAX: usize = 1_000;

/// Bytes of a tablet boundary: with what METADATA adds, it is still a row key.
const SPLIT_KEY_BYTES_MAX: usize = limits::ROW_KEY_BYTES_MAX - metadata::KEY_OVERHEAD_BYTES;

/// Checks the description of a table that is to be created, and gives what of
/// it is kept.
///
/// # Errors
///
/// INVALID_ARGUMENT, or UNIMPLEMENTED for what is not built: nothing is
/// accepted and then ignored.
pub fn check_new_table(table: admin::Table) -> Result<admin::Table, Status> {
    if table.granularity() == TimestampGranularity::Unspecified && table.granularity != 0 {
        return Err(Status::invalid_argument(format!(
            "table.granularity: {}, must be MILLIS or unspecified",
            table.granularity
        )));
    }
    let absent = [
        ("automated_backup_config", table.automated_backup_config.is_some()),
        ("tiered_storage_config", table.tiered_storage_config.is_some()),
        ("row_key_schema", table.row_key_schema.is_some()),
    ];
    if let Some((field, _)) = absent.iter().find(|(_, is_set)| *is_set) {
        return Err(Status::unimplemented(format!("table.{field}: not built in this version of Hayloft.")));
    }
    let count = table.column_families.len();
    limits::check_at_most("table.column_families", count, FAMILY_COUNT_MAX, "families")?;
    let families = table.column_families.into_iter().map(|(name, family)| {
        let field = format!("table.column_families[{name:?}]");
        limits::check_family_name(&field, &name)?;
        Ok((name, check_family(&field, family)?))
    });
    if let Some(config) = &table.change_stream_config {
        check_change_stream("table.change_stream_config", config)?;
    }
    Ok(admin::Table {
        column_families: families.collect::<Result<_, Status>>()?,
        change_stream_config: table.change_stream_config,
        granularity: TimestampGranularity::Millis.into(),
        deletion_protection: table.deletion_protection,
        ..admin::Table::default()
    })
}

/// Checks the boundaries of a table that is to be created; sorted, each once.
///
/// # Errors
///
/// INVALID_ARGUMENT.
pub fn check_splits(splits: Vec<admin::create_table_request::Split>) -> Result<Vec<Bytes>, Status> {
    limits::check_at_most("initial_splits", splits.len(), SPLIT_COUNT_MAX, "keys")?;
    for (place, split) in splits.iter().enumerate() {
        let field = format!("initial_splits[{place}].key");
        limits::check_row_key(&field, &split.key)?;
        limits::check_at_most(&field, split.key.len(), SPLIT_KEY_BYTES_MAX, "bytes")?;
    }
    let mut keys: Vec<Bytes> = splits.into_iter().map(|split| split.key).collect();
    keys.sort_unstable();
    keys.dedup();
    Ok(keys)
}

/// Takes over what `paths` name of `table`.
///
/// # Errors
///
/// INVALID_ARGUMENT, UNIMPLEMENTED; `record` may then be half changed, and is to be thrown away.
pub fn update(record: &mut TableRecord, table: &admin::Table, paths: &[String]) -> Result<(), Status> {
    if paths.is_empty() {
        return Err(Status::invalid_argument("update_mask: is empty, at least 1 path is needed"));
    }
    let known = record.table_mut();
    for path in paths {
        match path.as_str() {
            "deletion_protection" => known.deletion_protection = table.deletion_protection,
            "change_stream_config" | "change_stream_config.retention_period" => {
                known.change_stream_config = table.change_stream_config;
            }
            _ => {
                let built = "only deletion_protection and change_stream_config are";
                return Err(Status::unimplemented(format!(
                    "update_mask: {path:?} is not built in this version of Hayloft, {built}."
                )));
            }
        }
    }
    match &known.change_stream_config {
        Some(config) => check_change_stream("table.change_stream_config", config),
        None => Ok(()),
    }
}

fn check_change_stream(field: &str, config: &admin::ChangeStreamConfig) -> Result<(), Status> {
    let Some(asked) = config.retention_period else {
        return Err(Status::invalid_argument(format!("{field}.retention_period: is missing")));
    };
    let period = Duration::try_from(asked).ok();
    if period.is_some_and(|period| (CHANGE_RETENTION_MIN..=CHANGE_RETENTION_MAX).contains(&period)) {
        return Ok(());
    }
    let found = asked.seconds;
    Err(Status::invalid_argument(format!("{field}.retention_period: {found} s, must be 1 to 7 days")))
}

/// Applies `modifications` to `record`, in their order.
///
/// # Errors
///
/// INVALID_ARGUMENT, ALREADY_EXISTS, NOT_FOUND, UNIMPLEMENTED; `record` may
/// then be half changed, and is to be thrown away.
pub fn modify(record: &mut TableRecord, modifications: Vec<Modification>) -> Result<(), Status> {
    if modifications.is_empty() {
        return Err(Status::invalid_argument("modifications: is empty, at least 1 is needed"));
    }
    limits::check_at_most("modifications", modifications.len(), FAMILY_COUNT_MAX, "entries")?;
    for (place, Modification { id, r#mod, update_mask }) in modifications.into_iter().enumerate() {
        let field = format!("modifications[{place}]");
        limits::check_family_name(format_args!("{field}.id"), &id)?;
        let not_found = || Status::not_found(format!("{field}.id: there is no column family {id:?}"));
        match r#mod {
            Some(Mod::Create(family)) => {
                let family = check_family(&format!("{field}.create"), family)?;
                if record.table().column_families.contains_key(&id) {
                    let why = format!("{field}.id: there is a column family {id:?} already");
                    return Err(Status::already_exists(why));
                }
                record.add_family(&id, family);
            }
            Some(Mod::Update(family)) => {
                let family = check_family(&format!("{field}.update"), family)?;
                let known = record.table_mut().column_families.get_mut(&id).ok_or_else(not_found)?;
                update_family(&field, known, &family, update_mask.map(|mask| mask.paths))?;
            }
            Some(Mod::Drop(true)) if record.table().deletion_protection => {
                let why = "the table is protected: set deletion_protection to false before dropping a family";
                return Err(Status::failed_precondition(format!("{field}.drop: {why}")));
            }
            Some(Mod::Drop(true)) if record.drop_family(&id) => {}
            Some(Mod::Drop(true)) => return Err(not_found()),
            Some(Mod::Drop(false)) => {
                return Err(Status::invalid_argument(format!("{field}.drop: must be true")));
            }
            None => {
                return Err(Status::invalid_argument(format!(
                    "{field}: one of create, update, drop is needed"
                )));
            }
        }
    }
    let count = record.table().column_families.len();
    limits::check_at_most("modifications", count, FAMILY_COUNT_MAX, "families in the end")
}

/// Takes over what the mask names; no mask names the GC rule, as it did before there were masks.
fn update_family(
    field: &str,
    known: &mut admin::ColumnFamily,
    family: &admin::ColumnFamily,
    mask: Option<Vec<String>>,
) -> Result<(), Status> {
    let paths = mask.filter(|paths| !paths.is_empty()).unwrap_or_else(|| vec!["gc_rule".to_owned()]);
    for path in &paths {
        match path.as_str() {
            "gc_rule" => known.gc_rule.clone_from(&family.gc_rule),
            "value_type" => {
                check_change(field, known.value_type.as_ref(), family.value_type.as_ref())?;
                known.value_type.clone_from(&family.value_type);
            }
            _ => {
                let why = "must be gc_rule or value_type";
                return Err(Status::invalid_argument(format!("{field}.update_mask: {path:?} {why}")));
            }
        }
    }
    Ok(())
}

/// Refuses a change of a value type that the cells written so far do not allow:
/// what is plain now stays so, and an aggregate stays the same.
fn check_change(
    field: &str,
    before: Option<&admin::Type>,
    after: Option<&admin::Type>,
) -> Result<(), Status> {
    let aggregates = [before, after].map(|value_type| value_type.and_then(value_type::aggregate));
    if before == after || aggregates == [None, None] {
        return Ok(());
    }
    // Production's words, and then the field.
    let why = "Immutable fields 'value_type.aggregate_type' cannot be updated.";
    Err(Status::invalid_argument(format!("{why} ({field}.update.value_type)")))
}

/// Checks a family; what of it is kept.
fn check_family(field: &str, family: admin::ColumnFamily) -> Result<admin::ColumnFamily, Status> {
    // A rule without content is how clients spell "keep everything".
    if let Some(rule) = family.gc_rule.as_ref().filter(|rule| rule.rule.is_some()) {
        gc::check_rule(&format!("{field}.gc_rule"), rule)?;
    }
    let checked = family.value_type.map(|of| value_type::check(&format!("{field}.value_type"), of));
    Ok(admin::ColumnFamily { gc_rule: family.gc_rule, value_type: checked.transpose()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use row_api::admin::create_table_request::Split;
    use row_api::admin::r#type::aggregate::Aggregator;
    use row_api::admin::r#type::{self as types, Kind};
    use tablet_server::aggregate::Aggregate;
    use tablet_server::schema::TableId;
    use tonic::Code;

    fn modification(id: &str, r#mod: Mod) -> Modification {
        Modification { id: id.to_owned(), r#mod: Some(r#mod), update_mask: None }
    }

    fn family() -> admin::ColumnFamily {
        admin::ColumnFamily::default()
    }

    fn record(families: &[&str]) -> TableRecord {
        let mut record = TableRecord::new(TableId(1), Vec::new());
        families.iter().for_each(|name| record.add_family(name, family()));
        record
    }

    #[test]
    fn splits_come_sorted_and_once() {
        let splits = ["c", "a", "c"].map(|key| Split { key: key.into() });
        assert_eq!(check_splits(splits.to_vec()).unwrap(), ["a", "c"]);
        for key in [Vec::new(), vec![b'x'; SPLIT_KEY_BYTES_MAX + 1]] {
            let error = check_splits(vec![Split { key: "a".into() }, Split { key: key.into() }]).unwrap_err();
            assert!(error.message().starts_with("initial_splits[1].key: "), "{error}");
        }
    }

    #[test]
    fn modifications_apply_in_order() {
        let mut changed = record(&["old"]);
        let modifications = vec![
            modification("old", Mod::Drop(true)),
            modification("new", Mod::Create(family())),
            modification("old", Mod::Create(family())),
        ];
        let before = changed.schema().family("old").unwrap().id;
        modify(&mut changed, modifications).unwrap();
        assert!(changed.schema().family("new").is_some());
        assert_ne!(changed.schema().family("old").unwrap().id, before);
    }

    #[test]
    fn a_protected_table_keeps_its_families() {
        let mut protected = record(&["f"]);
        protected.table_mut().deletion_protection = true;
        let error = modify(&mut protected, vec![modification("f", Mod::Drop(true))]).unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition);
        modify(&mut protected, vec![modification("g", Mod::Create(family()))]).unwrap();
    }

    #[test]
    fn a_bad_modification_is_refused_by_its_place() {
        for (bad, code) in [
            (modification("f", Mod::Create(family())), Code::AlreadyExists),
            (modification("g", Mod::Update(family())), Code::NotFound),
            (modification("g", Mod::Drop(true)), Code::NotFound),
            (modification("f", Mod::Drop(false)), Code::InvalidArgument),
            (modification("f/", Mod::Create(family())), Code::InvalidArgument),
            (Modification { id: "f".to_owned(), ..Modification::default() }, Code::InvalidArgument),
        ] {
            let good = modification("other", Mod::Create(family()));
            let error = modify(&mut record(&["f"]), vec![good, bad.clone()]).unwrap_err();
            assert_eq!(error.code(), code, "{bad:?}");
            assert!(error.message().starts_with("modifications[1]"), "{error}");
        }
    }

    /// An aggregate of 64-bit integers.
    fn aggregate(aggregator: Aggregator) -> admin::Type {
        use row_api::admin::r#type::int64::encoding::{BigEndianBytes, Encoding};
        let encoding = Encoding::BigEndianBytes(BigEndianBytes::default());
        let int64 = types::Int64 { encoding: Some(types::int64::Encoding { encoding: Some(encoding) }) };
        let input_type = Some(Box::new(admin::Type { kind: Some(Kind::Int64Type(int64)) }));
        let aggregate = types::Aggregate { input_type, state_type: None, aggregator: Some(aggregator) };
        admin::Type { kind: Some(Kind::AggregateType(Box::new(aggregate))) }
    }

    fn of(value_type: Option<admin::Type>) -> admin::ColumnFamily {
        admin::ColumnFamily { value_type, ..family() }
    }

    #[test]
    fn what_an_aggregate_gathers_is_for_life() {
        let sum = || Some(aggregate(Aggregator::Sum(types::aggregate::Sum {})));
        let max = Some(aggregate(Aggregator::Max(types::aggregate::Max {})));
        let mut changed = record(&["plain"]);
        modify(&mut changed, vec![modification("sum", Mod::Create(of(sum())))]).unwrap();
        let created = changed.table().column_families["sum"].clone();
        assert_eq!(changed.schema().family("sum").unwrap().aggregate, Some(Aggregate::Sum));
        let update = |name: &str, value_type| Modification {
            update_mask: Some(prost_types::FieldMask { paths: vec!["value_type".to_owned()] }),
            ..modification(name, Mod::Update(of(value_type)))
        };
        for refused in [update("sum", max), update("sum", None), update("plain", sum())] {
            let error = modify(&mut changed, vec![refused]).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument);
            assert!(error.message().ends_with("(modifications[0].update.value_type)"), "{error}");
        }
        modify(&mut changed, vec![update("sum", sum())]).unwrap();
        assert_eq!(changed.table().column_families["sum"], created);
        // Without a mask, an update is one of the rule.
        modify(&mut changed, vec![modification("sum", Mod::Update(family()))]).unwrap();
        assert_eq!(changed.table().column_families["sum"], created);
    }

    #[test]
    fn a_new_table_shows_what_its_types_imply() {
        let sum = aggregate(Aggregator::Sum(types::aggregate::Sum {}));
        let table = |value_type| admin::Table {
            column_families: [("f".to_owned(), of(Some(value_type)))].into(),
            ..admin::Table::default()
        };
        let checked = check_new_table(table(sum)).unwrap();
        let Some(Kind::AggregateType(shown)) =
            checked.column_families["f"].value_type.clone().and_then(|shown| shown.kind)
        else {
            panic!("an aggregate")
        };
        assert_eq!(shown.state_type, shown.input_type);
        let error = check_new_table(table(admin::Type::default())).unwrap_err();
        assert!(error.message().starts_with("table.column_families[\"f\"].value_type: is empty"), "{error}");
    }

    #[test]
    fn what_is_not_built_is_not_ignored() {
        let table = admin::Table {
            tiered_storage_config: Some(admin::TieredStorageConfig::default()),
            ..admin::Table::default()
        };
        assert_eq!(check_new_table(table).unwrap_err().code(), Code::Unimplemented);
    }

    fn streamed(seconds: i64) -> admin::Table {
        let retention_period = Some(prost_types::Duration { seconds, nanos: 0 });
        let change_stream_config = Some(admin::ChangeStreamConfig { retention_period });
        admin::Table { change_stream_config, ..admin::Table::default() }
    }

    #[test]
    fn changes_are_kept_for_one_to_seven_days() {
        for (days, is_good) in [(0, false), (1, true), (7, true), (8, false), (-1, false)] {
            assert_eq!(check_new_table(streamed(days * 86_400)).is_ok(), is_good, "{days}");
        }
        let without = admin::ChangeStreamConfig::default();
        let without = admin::Table { change_stream_config: Some(without), ..admin::Table::default() };
        assert_eq!(check_new_table(without).unwrap_err().code(), Code::InvalidArgument);
    }

    #[test]
    fn an_update_sets_changes_and_clears_the_change_stream() {
        let mut table = record(&["f"]);
        for (path, update, expected) in [
            ("change_stream_config", streamed(86_400), Some(86_400)),
            ("change_stream_config.retention_period", streamed(2 * 86_400), Some(2 * 86_400)),
            ("deletion_protection", admin::Table::default(), Some(2 * 86_400)),
            ("change_stream_config", admin::Table::default(), None),
        ] {
            update_one(&mut table, &update, path).unwrap();
            let config = table.table().change_stream_config;
            let seconds = config.and_then(|config| config.retention_period).map(|period| period.seconds);
            assert_eq!(seconds, expected, "{path}");
            assert_eq!(
                table.schema().change_retention_us,
                expected.map(|seconds| seconds as u64 * 1_000_000)
            );
        }
        let error = update_one(&mut table, &streamed(5), "change_stream_config").unwrap_err();
        assert!(error.message().starts_with("table.change_stream_config.retention_period: 5 s"), "{error}");
        assert_eq!(update_one(&mut table, &streamed(5), "name").unwrap_err().code(), Code::Unimplemented);
        assert_eq!(update(&mut table, &streamed(5), &[]).unwrap_err().code(), Code::InvalidArgument);
    }

    fn update_one(record: &mut TableRecord, table: &admin::Table, path: &str) -> Result<(), Status> {
        update(record, table, &[path.to_owned()])
    }
}
