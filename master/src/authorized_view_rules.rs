//! What an authorized view may look like: checks of admin requests, without any state.

use row_api::admin;
use row_api::admin::authorized_view::{AuthorizedView as Kind, ResponseView, SubsetView};
use row_api::names::AuthorizedViewName;
use tablet_server::limits;
use tablet_server::table_record::TableRecord;
use tonic::Status;

/// Authorized views of one table.
const VIEW_COUNT_MAX: usize = 1_000;

/// Row prefixes of a view, and qualifiers and their prefixes together.
const PART_COUNT_MAX: usize = 10_000;

/// Bytes of all views of a table; they stand in the table's record.
const VIEWS_BYTES_MAX: usize = 512 << 10;

/// Adds `view`, with the etag `etag`, to its table.
///
/// # Errors
///
/// INVALID_ARGUMENT, NOT_FOUND for a family, ALREADY_EXISTS, RESOURCE_EXHAUSTED.
pub fn add(
    record: &mut TableRecord,
    name: &AuthorizedViewName,
    view: admin::AuthorizedView,
    etag: String,
) -> Result<(), Status> {
    if !view.name.is_empty() && view.name != name.to_string() {
        let why = format_args!("{:?}, must be empty or {:?}", view.name, name.to_string());
        return Err(limits::refuse("authorized_view.name", why));
    }
    if record.authorized_views.contains_key(&name.view) {
        return Err(Status::already_exists(format!("Authorized view already exists: {name}")));
    }
    if record.authorized_views.len() >= VIEW_COUNT_MAX {
        let why = format!("{} has {VIEW_COUNT_MAX} authorized views, which is the most", name.table);
        return Err(Status::resource_exhausted(why));
    }
    put(record, name, admin::AuthorizedView { name: String::new(), etag, ..view })
}

/// Takes over those fields of `update` that `paths` name: without any, those
/// that are set; with `*`, all of them.
///
/// # Errors
///
/// As [`add`]; NOT_FOUND where there is no such view; ABORTED where `update` has
/// another etag.
pub fn update(
    record: &mut TableRecord,
    name: &AuthorizedViewName,
    update: &admin::AuthorizedView,
    paths: &[String],
    etag: String,
) -> Result<(), Status> {
    let known = record.authorized_views.get(&name.view).ok_or_else(|| not_found(name))?;
    check_etag("authorized_view.etag", &update.etag, known, name)?;
    let mut changed = admin::AuthorizedView { etag, ..known.clone() };
    if paths.is_empty() {
        if update.authorized_view.is_some() {
            changed.authorized_view.clone_from(&update.authorized_view);
        }
        changed.deletion_protection |= update.deletion_protection;
    }
    for path in paths {
        match path.as_str() {
            "*" => {
                changed.authorized_view.clone_from(&update.authorized_view);
                changed.deletion_protection = update.deletion_protection;
            }
            "subset_view" => changed.authorized_view.clone_from(&update.authorized_view),
            "subset_view.row_prefixes" => {
                subset_mut(&mut changed).row_prefixes = subset_of(update).row_prefixes;
            }
            "subset_view.family_subsets" => {
                subset_mut(&mut changed).family_subsets = subset_of(update).family_subsets;
            }
            "deletion_protection" => changed.deletion_protection = update.deletion_protection,
            // It guards the update whether or not the mask names it.
            "etag" => {}
            "name" => return Err(limits::refuse("update_mask", format_args!("{path:?} cannot be changed"))),
            _ => {
                let why = format_args!("{path:?} is no field of an authorized view");
                return Err(limits::refuse("update_mask", why));
            }
        }
    }
    put(record, name, changed)
}

/// Removes a view.
///
/// # Errors
///
/// NOT_FOUND, ABORTED where `etag` is another one, FAILED_PRECONDITION for a protected one.
pub fn remove(record: &mut TableRecord, name: &AuthorizedViewName, etag: &str) -> Result<(), Status> {
    let known = record.authorized_views.get(&name.view).ok_or_else(|| not_found(name))?;
    check_etag("etag", etag, known, name)?;
    if known.deletion_protection {
        let why = format!("{name} is protected: set deletion_protection to false before deleting it");
        return Err(Status::failed_precondition(why));
    }
    record.authorized_views.remove(&name.view);
    Ok(())
}

/// NOT_FOUND for the view `name`.
pub fn not_found(name: &AuthorizedViewName) -> Status {
    Status::not_found(format!("Authorized view not found: {name}"))
}

/// What `shown` shows of a view; unspecified is `default`.
///
/// # Errors
///
/// INVALID_ARGUMENT where it is no view of a view.
pub fn shown(shown: i32, default: ResponseView) -> Result<ResponseView, Status> {
    match ResponseView::try_from(shown) {
        Ok(ResponseView::Unspecified) => Ok(default),
        Ok(shown) => Ok(shown),
        Err(_) => Err(limits::refuse("view", format_args!("{shown}, must be NAME_ONLY, BASIC or FULL"))),
    }
}

fn check_etag(
    field: &str,
    etag: &str,
    known: &admin::AuthorizedView,
    name: &AuthorizedViewName,
) -> Result<(), Status> {
    if etag.is_empty() || etag == known.etag {
        return Ok(());
    }
    Err(Status::aborted(format!("{field}: {etag:?}, but {name} has changed to {:?}", known.etag)))
}

/// Checks a view as it is to become, and puts it into its table.
fn put(
    record: &mut TableRecord,
    name: &AuthorizedViewName,
    view: admin::AuthorizedView,
) -> Result<(), Status> {
    const FIELD: &str = "authorized_view.subset_view";
    let Some(Kind::SubsetView(subset)) = &view.authorized_view else {
        return Err(limits::refuse(FIELD, "is missing"));
    };
    limits::check_at_most(
        format_args!("{FIELD}.row_prefixes"),
        subset.row_prefixes.len(),
        PART_COUNT_MAX,
        "prefixes",
    )?;
    for (place, prefix) in subset.row_prefixes.iter().enumerate() {
        let field = format_args!("{FIELD}.row_prefixes[{place}]");
        limits::check_at_most(field, prefix.len(), limits::ROW_KEY_BYTES_MAX, "bytes")?;
    }
    let mut part_count = 0;
    for (family, parts) in &subset.family_subsets {
        let field = format!("{FIELD}.family_subsets[{family:?}]");
        limits::check_family_name(&field, family)?;
        if !record.table().column_families.contains_key(family) {
            return Err(Status::not_found(format!("{field}: unknown family {family:?}")));
        }
        for (part, list) in
            [("qualifiers", &parts.qualifiers), ("qualifier_prefixes", &parts.qualifier_prefixes)]
        {
            for (place, qualifier) in list.iter().enumerate() {
                limits::check_qualifier(format_args!("{field}.{part}[{place}]"), qualifier)?;
            }
            part_count += list.len();
        }
    }
    limits::check_at_most(
        format_args!("{FIELD}.family_subsets"),
        part_count,
        PART_COUNT_MAX,
        "qualifiers in all",
    )?;
    record.authorized_views.insert(name.view.clone(), view);
    let bytes: usize = record.authorized_views.values().map(prost::Message::encoded_len).sum();
    if bytes > VIEWS_BYTES_MAX {
        let why = format!("{}: {bytes} bytes of authorized views, at most {VIEWS_BYTES_MAX}", name.table);
        return Err(Status::resource_exhausted(why));
    }
    Ok(())
}

fn subset_of(view: &admin::AuthorizedView) -> SubsetView {
    match &view.authorized_view {
        Some(Kind::SubsetView(subset)) => subset.clone(),
        None => SubsetView::default(),
    }
}

fn subset_mut(view: &mut admin::AuthorizedView) -> &mut SubsetView {
    let Kind::SubsetView(subset) =
        view.authorized_view.get_or_insert_with(|| Kind::SubsetView(SubsetView::default()));
    subset
}

#[cfg(test)]
mod tests {
    use super::*;
    use row_api::admin::authorized_view::FamilySubsets;
    use row_api::names::TableName;
    use tablet_server::schema::TableId;
    use tonic::Code;

    fn name(view: &str) -> AuthorizedViewName {
        let table = TableName::parse("name", "projects/p/instances/i/tables/t").unwrap();
        AuthorizedViewName { table, view: view.to_owned() }
    }

    fn table() -> TableRecord {
        let mut record = TableRecord::new(TableId(1), Vec::new());
        record.add_family("f", admin::ColumnFamily::default());
        record
    }

    fn view(prefixes: &[&'static str], families: &[&str]) -> admin::AuthorizedView {
        let subsets = families.iter().map(|family| ((*family).to_owned(), FamilySubsets::default()));
        let subset = SubsetView {
            row_prefixes: prefixes.iter().map(|prefix| (*prefix).into()).collect(),
            family_subsets: subsets.collect(),
        };
        let authorized_view = Some(Kind::SubsetView(subset));
        admin::AuthorizedView { authorized_view, ..admin::AuthorizedView::default() }
    }

    fn code(outcome: Result<(), Status>) -> Code {
        outcome.map_or_else(|status| status.code(), |()| Code::Ok)
    }

    #[test]
    fn a_new_view_is_checked_as_a_whole() {
        let protected = admin::AuthorizedView { name: "x".to_owned(), ..view(&[""], &["f"]) };
        let long: &'static str = Box::leak("r".repeat(4_097).into_boxed_str());
        for (view, expected) in [
            (view(&["a", ""], &["f"]), Code::Ok),
            (view(&[], &[]), Code::Ok),
            (view(&[""], &["g"]), Code::NotFound),
            (view(&[""], &["a b"]), Code::InvalidArgument),
            (view(&[long], &[]), Code::InvalidArgument),
            (admin::AuthorizedView::default(), Code::InvalidArgument),
            (protected, Code::InvalidArgument),
        ] {
            assert_eq!(
                code(add(&mut table(), &name("v"), view.clone(), "1".to_owned())),
                expected,
                "{view:?}"
            );
        }
        let mut record = table();
        add(&mut record, &name("v"), view(&[""], &[]), "1".to_owned()).unwrap();
        assert_eq!(code(add(&mut record, &name("v"), view(&[""], &[]), "2".to_owned())), Code::AlreadyExists);
    }

    #[test]
    fn an_update_takes_what_its_mask_names() {
        let mut record = table();
        add(&mut record, &name("v"), view(&["a"], &["f"]), "1".to_owned()).unwrap();
        let protected = |of: admin::AuthorizedView| admin::AuthorizedView { deletion_protection: true, ..of };
        let mut change = |view, paths: &[&str], etag: &str| {
            let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
            let outcome = code(update(&mut record, &name("v"), &view, &paths, etag.to_owned()));
            let found = &record.authorized_views["v"];
            (outcome, subset_of(found), found.deletion_protection)
        };
        let (code, subset, is_protected) =
            change(protected(view(&["b"], &[])), &["subset_view.row_prefixes"], "2");
        assert_eq!((code, is_protected, subset.family_subsets.len()), (Code::Ok, false, 1));
        assert_eq!(subset.row_prefixes, ["b"]);
        let stale = admin::AuthorizedView { etag: "1".to_owned(), ..view(&["c"], &[]) };
        assert_eq!(change(stale, &["subset_view"], "3").0, Code::Aborted);
        // Nothing named: what is set.
        let only_protected = protected(admin::AuthorizedView::default());
        let (code, subset, is_protected) = change(only_protected, &[], "3");
        assert_eq!((code, subset.row_prefixes.len(), is_protected), (Code::Ok, 1, true));
        let (code, subset, is_protected) = change(view(&["d"], &[]), &["*"], "4");
        assert_eq!((code, subset.family_subsets.len(), is_protected), (Code::Ok, 0, false));
        for path in ["name", "colour", "subset_view.colour"] {
            assert_eq!(change(view(&[], &[]), &[path], "5").0, Code::InvalidArgument);
        }
        assert_eq!(change(admin::AuthorizedView::default(), &["*"], "5").0, Code::InvalidArgument);
    }

    #[test]
    fn a_protected_view_stays() {
        let mut record = table();
        let protected = admin::AuthorizedView { deletion_protection: true, ..view(&["a"], &["f"]) };
        add(&mut record, &name("v"), protected, "1".to_owned()).unwrap();
        assert_eq!(code(remove(&mut record, &name("w"), "")), Code::NotFound);
        assert_eq!(code(remove(&mut record, &name("v"), "0")), Code::Aborted);
        assert_eq!(code(remove(&mut record, &name("v"), "1")), Code::FailedPrecondition);
        let open = ["deletion_protection".to_owned()];
        update(&mut record, &name("v"), &view(&[], &[]), &open, "2".to_owned()).unwrap();
        remove(&mut record, &name("v"), "2").unwrap();
    }
}
