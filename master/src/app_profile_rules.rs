//! What an app profile may look like: checks of admin requests, without any state.
//!
//! Every cluster of an instance is served from here, so routing changes nothing
//! but what requests may do: only routing to one cluster allows single-row
//! transactions. The warnings that `ignore_warnings` overrides are for changes
//! that take transactions away from requests that have them, or that let
//! transactions run in two clusters at once.

use row_api::admin;
use row_api::admin::app_profile::data_boost_isolation_read_only::ComputeBillingOwner;
use row_api::admin::app_profile::{
    DataBoostIsolationReadOnly, Isolation, MultiClusterRoutingUseAny, Priority, RoutingPolicy,
    SingleClusterRouting, StandardIsolation,
};
use row_api::names::AppProfileName;
use tablet_server::app_profiles::DEFAULT_APP_PROFILE;
use tablet_server::limits;
use tonic::Status;

use crate::instance_record::{InstanceRecord, allows_transactions};

/// App profiles of one instance.
const APP_PROFILE_COUNT_MAX: usize = 2_000;

/// Characters of a description.
const DESCRIPTION_CHARS_MAX: usize = 1_024;

/// The clusters that `profile` names.
pub fn clusters(profile: &admin::AppProfile) -> impl Iterator<Item = &str> {
    let (one, many) = match &profile.routing_policy {
        Some(RoutingPolicy::SingleClusterRouting(single)) => (Some(&single.cluster_id), None),
        Some(RoutingPolicy::MultiClusterRoutingUseAny(any)) => (None, Some(&any.cluster_ids)),
        None => (None, None),
    };
    one.into_iter().chain(many.into_iter().flatten()).map(String::as_str)
}

/// Adds `profile`, with the etag `etag`, to its instance.
///
/// # Errors
///
/// INVALID_ARGUMENT, NOT_FOUND for a cluster, ALREADY_EXISTS, RESOURCE_EXHAUSTED,
/// FAILED_PRECONDITION for what only a warning forbids.
pub fn add(
    record: &mut InstanceRecord,
    name: &AppProfileName,
    profile: admin::AppProfile,
    ignore_warnings: bool,
    etag: String,
) -> Result<(), Status> {
    if !profile.name.is_empty() && profile.name != name.to_string() {
        let why = format_args!("{:?}, must be empty or {:?}", profile.name, name.to_string());
        return Err(limits::refuse("app_profile.name", why));
    }
    let profile = check(record, profile)?;
    if record.app_profiles.contains_key(&name.app_profile) {
        return Err(Status::already_exists(format!("App profile already exists: {name}")));
    }
    if record.app_profiles.len() >= APP_PROFILE_COUNT_MAX {
        let why = format!("{} has {APP_PROFILE_COUNT_MAX} app profiles, which is the most", name.instance);
        return Err(Status::resource_exhausted(why));
    }
    if !ignore_warnings {
        warn(record, name, None, &profile)?;
    }
    record.app_profiles.insert(name.app_profile.clone(), admin::AppProfile { etag, ..profile });
    Ok(())
}

/// Takes over those fields of `update` that `paths` name, all of them where there
/// is no mask, under the new etag `etag`.
///
/// # Errors
///
/// As [`add`]; NOT_FOUND where there is no such profile; ABORTED where `update` has
/// another etag.
pub fn update(
    record: &mut InstanceRecord,
    name: &AppProfileName,
    update: admin::AppProfile,
    paths: Option<&[String]>,
    ignore_warnings: bool,
    etag: String,
) -> Result<(), Status> {
    let known = record.app_profiles.get(&name.app_profile).ok_or_else(|| not_found(name))?.clone();
    if !update.etag.is_empty() && update.etag != known.etag {
        let why = format!("app_profile.etag: {:?}, but {name} has changed to {:?}", update.etag, known.etag);
        return Err(Status::aborted(why));
    }
    let changed = match paths {
        None => update,
        Some([]) => return Err(limits::refuse("update_mask", "is empty, at least 1 path is needed")),
        Some(paths) => {
            let mut changed = known.clone();
            for path in paths {
                take(&mut changed, &update, path)?;
            }
            changed
        }
    };
    let changed = check(record, changed)?;
    if !ignore_warnings {
        warn(record, name, Some(&known), &changed)?;
    }
    record.app_profiles.insert(name.app_profile.clone(), admin::AppProfile { etag, ..changed });
    Ok(())
}

/// Removes a profile.
///
/// # Errors
///
/// NOT_FOUND, or FAILED_PRECONDITION for the default one.
pub fn remove(record: &mut InstanceRecord, name: &AppProfileName) -> Result<(), Status> {
    if name.app_profile == DEFAULT_APP_PROFILE {
        let why = format!("{name} is the default app profile, which cannot be deleted");
        return Err(Status::failed_precondition(why));
    }
    record.app_profiles.remove(&name.app_profile).map(drop).ok_or_else(|| not_found(name))
}

/// NOT_FOUND for the profile `name`.
pub fn not_found(name: &AppProfileName) -> Status {
    Status::not_found(format!("App profile not found: {name}"))
}

/// The routing of `profile` to one cluster, as far as it has any.
fn single_cluster(profile: &admin::AppProfile) -> SingleClusterRouting {
    match &profile.routing_policy {
        Some(RoutingPolicy::SingleClusterRouting(single)) => single.clone(),
        _ => SingleClusterRouting::default(),
    }
}

/// The routing of `profile` to any of several clusters, as far as it has any.
fn any_cluster(profile: &admin::AppProfile) -> MultiClusterRoutingUseAny {
    match &profile.routing_policy {
        Some(RoutingPolicy::MultiClusterRoutingUseAny(any)) => any.clone(),
        _ => MultiClusterRoutingUseAny::default(),
    }
}

/// Takes one field over.
fn take(to: &mut admin::AppProfile, from: &admin::AppProfile, path: &str) -> Result<(), Status> {
    let (field, rest) = path.split_once('.').unwrap_or((path, ""));
    let unknown = || limits::refuse("update_mask", format_args!("{path:?} is no field of an app profile"));
    match (field, rest) {
        // The etag guards the update whether or not the mask names it.
        ("etag", "") => {}
        ("name", "") => {
            return Err(limits::refuse("update_mask", format_args!("{path:?} cannot be changed")));
        }
        ("description", "") => to.description.clone_from(&from.description),
        ("single_cluster_routing", _) => {
            let (mut single, new) = (single_cluster(to), single_cluster(from));
            match rest {
                "" => single = new,
                "cluster_id" => single.cluster_id = new.cluster_id,
                "allow_transactional_writes" => {
                    single.allow_transactional_writes = new.allow_transactional_writes;
                }
                _ => return Err(unknown()),
            }
            to.routing_policy = Some(RoutingPolicy::SingleClusterRouting(single));
        }
        ("multi_cluster_routing_use_any", _) => {
            let (mut any, new) = (any_cluster(to), any_cluster(from));
            match rest {
                "" => any = new,
                "cluster_ids" => any.cluster_ids = new.cluster_ids,
                "row_affinity" => any.affinity = new.affinity,
                _ => return Err(unknown()),
            }
            to.routing_policy = Some(RoutingPolicy::MultiClusterRoutingUseAny(any));
        }
        ("priority", "") | ("standard_isolation", "" | "priority") => {
            to.isolation = Some(Isolation::StandardIsolation(StandardIsolation { priority: priority(from) }));
        }
        ("data_boost_isolation_read_only", "" | "compute_billing_owner") => {
            let boost = match &from.isolation {
                Some(Isolation::DataBoostIsolationReadOnly(boost)) => *boost,
                _ => DataBoostIsolationReadOnly::default(),
            };
            to.isolation = Some(Isolation::DataBoostIsolationReadOnly(boost));
        }
        _ => return Err(unknown()),
    }
    Ok(())
}

/// The priority that `profile` asks for, in the old field or the new one.
#[expect(deprecated, reason = "clients still send the old field, which is kept as the new one")]
fn priority(profile: &admin::AppProfile) -> i32 {
    match &profile.isolation {
        Some(Isolation::Priority(priority)) => *priority,
        Some(Isolation::StandardIsolation(standard)) => standard.priority,
        Some(Isolation::DataBoostIsolationReadOnly(_)) | None => Priority::Unspecified.into(),
    }
}

/// Checks a profile as it is to become, and gives what of it is kept.
fn check(record: &InstanceRecord, profile: admin::AppProfile) -> Result<admin::AppProfile, Status> {
    let chars = profile.description.chars().count();
    limits::check_at_most("app_profile.description", chars, DESCRIPTION_CHARS_MAX, "characters")?;
    let is_known = |field: &str, cluster: &str| {
        if record.clusters.contains_key(cluster) {
            return Ok(());
        }
        let why = format!("app_profile.{field}: the instance has no cluster {cluster:?}");
        Err(if cluster.is_empty() { Status::invalid_argument(why) } else { Status::not_found(why) })
    };
    match &profile.routing_policy {
        None => {
            let why = "one of single_cluster_routing, multi_cluster_routing_use_any is needed";
            return Err(limits::refuse("app_profile.routing_policy", why));
        }
        Some(RoutingPolicy::SingleClusterRouting(single)) => {
            is_known("single_cluster_routing.cluster_id", &single.cluster_id)?;
        }
        Some(RoutingPolicy::MultiClusterRoutingUseAny(any)) => {
            for (place, cluster) in any.cluster_ids.iter().enumerate() {
                let field = format!("multi_cluster_routing_use_any.cluster_ids[{place}]");
                if any.cluster_ids[..place].contains(cluster) {
                    return Err(limits::refuse(format_args!("app_profile.{field}"), "is named twice"));
                }
                is_known(&field, cluster)?;
            }
        }
    }
    let isolation = Some(check_isolation(&profile)?);
    Ok(admin::AppProfile {
        description: profile.description,
        routing_policy: profile.routing_policy,
        isolation,
        ..admin::AppProfile::default()
    })
}

fn check_isolation(profile: &admin::AppProfile) -> Result<Isolation, Status> {
    if let Some(Isolation::DataBoostIsolationReadOnly(boost)) = &profile.isolation {
        const FIELD: &str = "app_profile.data_boost_isolation_read_only";
        if boost.compute_billing_owner != Some(ComputeBillingOwner::HostPays.into()) {
            return Err(limits::refuse(format_args!("{FIELD}.compute_billing_owner"), "must be HOST_PAYS"));
        }
        let is_single = matches!(profile.routing_policy, Some(RoutingPolicy::SingleClusterRouting(_)));
        if !is_single || allows_transactions(profile) {
            let why = "needs single_cluster_routing that does not allow transactional writes";
            return Err(limits::refuse(FIELD, why));
        }
        return Ok(Isolation::DataBoostIsolationReadOnly(*boost));
    }
    let priority = match Priority::try_from(priority(profile)) {
        Ok(Priority::Unspecified) => Priority::High,
        Ok(priority) => priority,
        Err(_) => {
            let why = "must be PRIORITY_LOW, PRIORITY_MEDIUM or PRIORITY_HIGH";
            return Err(limits::refuse("app_profile.standard_isolation.priority", why));
        }
    };
    Ok(Isolation::StandardIsolation(StandardIsolation { priority: priority.into() }))
}

/// Refuses what is only done with `ignore_warnings`.
fn warn(
    record: &InstanceRecord,
    name: &AppProfileName,
    before: Option<&admin::AppProfile>,
    after: &admin::AppProfile,
) -> Result<(), Status> {
    let warning =
        |why: String| Err(Status::failed_precondition(format!("{why}; set ignore_warnings to do it anyway")));
    if before.is_some_and(allows_transactions) && !allows_transactions(after) {
        return warning(format!("requests that use {name} could no longer be single-row transactions"));
    }
    let target = clusters(after).next();
    if !allows_transactions(after) {
        return Ok(());
    }
    if before.is_some_and(|before| allows_transactions(before) && clusters(before).next() != target) {
        return warning(format!(
            "single-row transactions under {name} would move to another cluster at once"
        ));
    }
    let elsewhere = record.app_profiles.iter().find(|(id, other)| {
        **id != name.app_profile && allows_transactions(other) && clusters(other).next() != target
    });
    match elsewhere {
        Some((other, _)) => warning(format!(
            "the app profile {other:?} allows single-row transactions in another cluster, and both may change one row"
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use row_api::names::InstanceName;
    use tonic::Code;

    fn name(app_profile: &str) -> AppProfileName {
        let instance = InstanceName { project: "p".to_owned(), instance: "i".to_owned() };
        AppProfileName { instance, app_profile: app_profile.to_owned() }
    }

    fn record() -> InstanceRecord {
        let cluster = |id: &str| (id.to_owned(), admin::Cluster::default());
        InstanceRecord::new(admin::Instance::default(), BTreeMap::from(["c1", "c2"].map(cluster)))
    }

    fn single(cluster_id: &str, allow_transactional_writes: bool) -> admin::AppProfile {
        let single = SingleClusterRouting { cluster_id: cluster_id.to_owned(), allow_transactional_writes };
        let routing_policy = Some(RoutingPolicy::SingleClusterRouting(single));
        admin::AppProfile { routing_policy, ..admin::AppProfile::default() }
    }

    fn any(clusters: &[&str]) -> admin::AppProfile {
        let cluster_ids = clusters.iter().map(|id| (*id).to_owned()).collect();
        let any = MultiClusterRoutingUseAny { cluster_ids, ..MultiClusterRoutingUseAny::default() };
        let routing_policy = Some(RoutingPolicy::MultiClusterRoutingUseAny(any));
        admin::AppProfile { routing_policy, ..admin::AppProfile::default() }
    }

    fn code(outcome: Result<(), Status>) -> Code {
        outcome.map_or_else(|status| status.code(), |()| Code::Ok)
    }

    fn added(record: &mut InstanceRecord, id: &str, profile: admin::AppProfile) -> Code {
        code(add(record, &name(id), profile, false, "7".to_owned()))
    }

    #[test]
    fn a_new_profile_is_checked_as_a_whole() {
        let boost = |owner: Option<i32>, of: admin::AppProfile| {
            let isolation = DataBoostIsolationReadOnly { compute_billing_owner: owner };
            admin::AppProfile { isolation: Some(Isolation::DataBoostIsolationReadOnly(isolation)), ..of }
        };
        let pays = Some(ComputeBillingOwner::HostPays.into());
        let standard = Isolation::StandardIsolation(StandardIsolation { priority: 9 });
        for (profile, expected) in [
            (single("c1", true), Code::Ok),
            (any(&[]), Code::Ok),
            (any(&["c2", "c1"]), Code::Ok),
            (boost(pays, single("c1", false)), Code::Ok),
            (admin::AppProfile::default(), Code::InvalidArgument),
            (single("", false), Code::InvalidArgument),
            (single("c3", false), Code::NotFound),
            (any(&["c1", "c3"]), Code::NotFound),
            (any(&["c1", "c1"]), Code::InvalidArgument),
            (boost(None, single("c1", false)), Code::InvalidArgument),
            (boost(pays, single("c1", true)), Code::InvalidArgument),
            (boost(pays, any(&[])), Code::InvalidArgument),
            (admin::AppProfile { isolation: Some(standard), ..any(&[]) }, Code::InvalidArgument),
            (admin::AppProfile { description: "d".repeat(1_025), ..any(&[]) }, Code::InvalidArgument),
            (admin::AppProfile { name: "x".to_owned(), ..any(&[]) }, Code::InvalidArgument),
        ] {
            assert_eq!(added(&mut record(), "a", profile.clone()), expected, "{profile:?}");
        }
        assert_eq!(added(&mut record(), DEFAULT_APP_PROFILE, any(&[])), Code::AlreadyExists);
    }

    #[test]
    fn transactions_in_two_clusters_need_ignore_warnings() {
        let mut record = record();
        assert_eq!(added(&mut record, "a", single("c1", true)), Code::Ok);
        assert_eq!(added(&mut record, "b", single("c1", true)), Code::Ok);
        assert_eq!(added(&mut record, "c", single("c2", true)), Code::FailedPrecondition);
        add(&mut record, &name("c"), single("c2", true), true, "8".to_owned()).unwrap();
    }

    #[test]
    fn taking_transactions_away_needs_ignore_warnings() {
        let mut record = record();
        let mut change = |profile, path: &str, ignore_warnings| {
            code(update(
                &mut record,
                &name("a"),
                profile,
                Some(&[path.to_owned()]),
                ignore_warnings,
                "8".to_owned(),
            ))
        };
        const SINGLE: &str = "single_cluster_routing";
        const ANY: &str = "multi_cluster_routing_use_any";
        assert_eq!(change(any(&[]), ANY, false), Code::NotFound);
        assert_eq!(added(&mut record, "a", any(&[])), Code::Ok);
        let mut change = |profile, path: &str, ignore_warnings| {
            code(update(
                &mut record,
                &name("a"),
                profile,
                Some(&[path.to_owned()]),
                ignore_warnings,
                "8".to_owned(),
            ))
        };
        assert_eq!(change(single("c1", false), SINGLE, false), Code::Ok);
        assert_eq!(
            change(single("", true), "single_cluster_routing.allow_transactional_writes", false),
            Code::Ok
        );
        assert_eq!(change(single("c2", true), SINGLE, false), Code::FailedPrecondition);
        assert_eq!(change(any(&[]), ANY, false), Code::FailedPrecondition);
        assert_eq!(change(any(&[]), ANY, true), Code::Ok);
    }

    #[test]
    fn an_update_takes_what_its_mask_names_under_its_etag() {
        let mut record = record();
        assert_eq!(added(&mut record, "a", single("c1", true)), Code::Ok);
        let described = |etag: &str| admin::AppProfile {
            description: "new".to_owned(),
            etag: etag.to_owned(),
            ..any(&[])
        };
        let (paths, unknown) = (["description".to_owned()], ["colour".to_owned()]);
        let mut change = |update_to, paths, etag: &str| {
            code(update(&mut record, &name("a"), update_to, paths, false, etag.to_owned()))
        };
        assert_eq!(change(described("6"), Some(&paths[..]), "8"), Code::Aborted);
        assert_eq!(change(described("7"), Some(&paths), "8"), Code::Ok);
        assert_eq!(change(described("7"), Some(&paths), "9"), Code::Aborted);
        assert_eq!(change(described(""), Some(&unknown), "9"), Code::InvalidArgument);
        assert_eq!(change(described(""), Some(&[]), "9"), Code::InvalidArgument);
        // Without a mask all is replaced.
        assert_eq!(change(described(""), None, "9"), Code::FailedPrecondition);
        let found = &record.app_profiles["a"];
        assert_eq!((found.description.as_str(), found.etag.as_str()), ("new", "8"));
        assert_eq!(clusters(found).collect::<Vec<_>>(), ["c1"]);
    }

    #[test]
    fn the_default_profile_stays() {
        let mut record = record();
        assert_eq!(code(remove(&mut record, &name(DEFAULT_APP_PROFILE))), Code::FailedPrecondition);
        assert_eq!(code(remove(&mut record, &name("a"))), Code::NotFound);
    }
}
