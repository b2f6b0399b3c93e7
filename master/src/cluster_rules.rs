//! What a cluster may look like: checks of admin requests, without any state.
//!
//! Nodes, storage and place are recorded as they are asked for; all clusters are
//! served by the tablet servers that there are.

mod nodes;

use std::collections::BTreeMap;

use row_api::admin;
use row_api::admin::StorageType;
use row_api::admin::cluster::{ClusterConfig, Config, NodeScalingFactor};
use row_api::admin::instance::Type;
use row_api::names::InstanceName;
use tablet_server::limits;
use tonic::Status;

use crate::app_profile_rules;
use crate::instance_record::InstanceRecord;
use crate::resource_ids;
use nodes::{autoscaling, check_nodes, take_scaling};

/// Clusters of one instance: a zone has one at most, and Google's service has about that many zones.
const CLUSTER_COUNT_MAX: usize = 64;

/// Checks the clusters of an instance that is to be created.
///
/// # Errors
///
/// INVALID_ARGUMENT, or UNIMPLEMENTED for what is not built.
pub fn check_all(
    instance: &InstanceName,
    r#type: Type,
    clusters: BTreeMap<String, admin::Cluster>,
) -> Result<BTreeMap<String, admin::Cluster>, Status> {
    if clusters.is_empty() {
        return Err(limits::refuse("clusters", "is empty, at least 1 is needed"));
    }
    limits::check_at_most("clusters", clusters.len(), CLUSTER_COUNT_MAX, "clusters")?;
    if r#type == Type::Development && clusters.len() > 1 {
        let why = format_args!("{} clusters, a development instance has 1", clusters.len());
        return Err(limits::refuse("clusters", why));
    }
    let mut checked: BTreeMap<String, admin::Cluster> = BTreeMap::new();
    for (id, cluster) in clusters {
        let field = format!("clusters[{id:?}]");
        resource_ids::check_cluster_id(&field, &id)?;
        let cluster = check_cluster(&field, instance, &id, r#type, cluster)?;
        if let Some(found) = conflict(&checked, &cluster) {
            return Err(limits::refuse(field, found));
        }
        checked.insert(id, cluster);
    }
    Ok(checked)
}

/// Adds a cluster to an instance.
///
/// # Errors
///
/// INVALID_ARGUMENT, ALREADY_EXISTS, FAILED_PRECONDITION, UNIMPLEMENTED.
pub fn add(
    record: &mut InstanceRecord,
    instance: &InstanceName,
    id: &str,
    cluster: admin::Cluster,
) -> Result<(), Status> {
    let r#type = record.instance_type();
    let cluster = check_cluster("cluster", instance, id, r#type, cluster)?;
    if record.clusters.contains_key(id) {
        return Err(Status::already_exists(format!("Cluster already exists: {instance}/clusters/{id}")));
    }
    if r#type == Type::Development {
        return Err(Status::failed_precondition(format!(
            "{instance} is a development instance, which has 1 cluster"
        )));
    }
    if let Some(found) = conflict(&record.clusters, &cluster) {
        return Err(Status::failed_precondition(format!("cluster: {found}")));
    }
    limits::check_at_most(
        "cluster_id",
        record.clusters.len() + 1,
        CLUSTER_COUNT_MAX,
        "clusters in the instance",
    )?;
    record.clusters.insert(id.to_owned(), cluster);
    Ok(())
}

/// Removes a cluster of an instance.
///
/// # Errors
///
/// NOT_FOUND, or FAILED_PRECONDITION for the last one and for one that an app profile routes to.
pub fn remove(record: &mut InstanceRecord, instance: &InstanceName, id: &str) -> Result<(), Status> {
    let name = format!("{instance}/clusters/{id}");
    if !record.clusters.contains_key(id) {
        return Err(Status::not_found(format!("Cluster not found: {name}")));
    }
    if record.clusters.len() == 1 {
        let why = format!("{name} is the last cluster of its instance: delete the instance instead");
        return Err(Status::failed_precondition(why));
    }
    let routed =
        |profile: &&admin::AppProfile| app_profile_rules::clusters(profile).any(|cluster| cluster == id);
    if let Some((profile, _)) = record.app_profiles.iter().find(|(_, profile)| routed(profile)) {
        let why =
            format!("{name} is what the app profile {profile:?} routes to: change or delete that first");
        return Err(Status::failed_precondition(why));
    }
    record.clusters.remove(id);
    Ok(())
}

/// Replaces the number of nodes, or the autoscaling, by those of `new`.
///
/// # Errors
///
/// INVALID_ARGUMENT.
pub fn replace(known: &mut admin::Cluster, r#type: Type, new: &admin::Cluster) -> Result<(), Status> {
    let fixed = [
        ("location", !new.location.is_empty() && new.location != known.location),
        (
            "default_storage_type",
            new.default_storage_type != 0 && new.default_storage_type != known.default_storage_type,
        ),
        (
            "node_scaling_factor",
            new.node_scaling_factor != 0 && new.node_scaling_factor != known.node_scaling_factor,
        ),
        ("encryption_config", names_key(new)),
    ];
    if let Some((field, _)) = fixed.iter().find(|(_, differs)| *differs) {
        return Err(limits::refuse(field, "cannot be changed"));
    }
    known.serve_nodes = new.serve_nodes;
    known.config = new.config;
    *known = check_nodes("", r#type, std::mem::take(known))?;
    Ok(())
}

/// Takes over those fields of `new` that `paths` name.
///
/// # Errors
///
/// INVALID_ARGUMENT; `known` may then be half changed.
pub fn update(
    known: &mut admin::Cluster,
    r#type: Type,
    new: &admin::Cluster,
    paths: &[String],
) -> Result<(), Status> {
    const SCALING: &str = "cluster_config.cluster_autoscaling_config";
    if paths.is_empty() {
        return Err(limits::refuse("update_mask", "is empty, at least 1 path is needed"));
    }
    let mut scaling = autoscaling(known);
    let given = autoscaling(new);
    let mut sets_nodes = false;
    let mut sets_scaling = false;
    for path in paths {
        let scaling_path = path.strip_prefix(SCALING).map(|rest| rest.strip_prefix('.').unwrap_or(rest));
        match (path.as_str(), scaling_path) {
            ("serve_nodes", _) => {
                known.serve_nodes = new.serve_nodes;
                sets_nodes = true;
            }
            ("cluster_config", _) | (_, Some("")) => {
                scaling = given;
                sets_scaling = true;
            }
            (_, Some(rest)) => {
                let (to, from) = (scaling.get_or_insert_default(), given.unwrap_or_default());
                if !take_scaling(to, &from, rest) {
                    return Err(limits::refuse(
                        "update_mask",
                        format_args!("{path:?} is no field of a cluster"),
                    ));
                }
                sets_scaling = true;
            }
            (
                "name"
                | "location"
                | "state"
                | "default_storage_type"
                | "encryption_config"
                | "node_scaling_factor",
                _,
            ) => {
                return Err(limits::refuse("update_mask", format_args!("{path:?} cannot be changed")));
            }
            _ => {
                return Err(limits::refuse("update_mask", format_args!("{path:?} is no field of a cluster")));
            }
        }
    }
    match (scaling, sets_nodes) {
        (Some(_), true) if !sets_scaling => {
            let why = "the cluster is autoscaled; name cluster_config in update_mask, and leave it empty, to end that";
            return Err(limits::refuse("cluster.serve_nodes", why));
        }
        (Some(_), false) => known.serve_nodes = 0,
        _ => {}
    }
    known.config = scaling
        .map(|config| Config::ClusterConfig(ClusterConfig { cluster_autoscaling_config: Some(config) }));
    *known = check_nodes("cluster.", r#type, std::mem::take(known))?;
    Ok(())
}

/// Checks one cluster that is to be created, which stands at `field` of its request, and gives what of it is kept.
fn check_cluster(
    field: &str,
    instance: &InstanceName,
    id: &str,
    r#type: Type,
    cluster: admin::Cluster,
) -> Result<admin::Cluster, Status> {
    let refuse = |part: &str, why: String| Err(limits::refuse(format_args!("{field}.{part}"), why));
    let name = format!("{instance}/clusters/{id}");
    if !cluster.name.is_empty() && cluster.name != name {
        return refuse("name", format!("{:?}, must be empty or {name:?}", cluster.name));
    }
    if cluster.state != 0 {
        return refuse("state", "is given by the server, leave it empty".to_owned());
    }
    if names_key(&cluster) {
        return Err(Status::unimplemented(format!(
            "{field}.encryption_config: keys of the customer's are not built in this version of Hayloft."
        )));
    }
    let zone = cluster.location.strip_prefix(&format!("projects/{}/locations/", instance.project));
    let is_zone_letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !zone.is_some_and(|zone| !zone.is_empty() && zone.chars().all(is_zone_letter)) {
        let form = format!("projects/{}/locations/<zone>", instance.project);
        return refuse("location", format!("{:?} is not of the form {form:?}", cluster.location));
    }
    let storage = match StorageType::try_from(cluster.default_storage_type) {
        Ok(StorageType::Unspecified) => StorageType::Ssd,
        Ok(storage) => storage,
        Err(_) => {
            return refuse(
                "default_storage_type",
                format!("{}, must be SSD or HDD", cluster.default_storage_type),
            );
        }
    };
    if NodeScalingFactor::try_from(cluster.node_scaling_factor).is_err() {
        return refuse("node_scaling_factor", format!("{}, must be 1X or 2X", cluster.node_scaling_factor));
    }
    let kept = admin::Cluster { name: String::new(), default_storage_type: storage.into(), ..cluster };
    check_nodes(&format!("{field}."), r#type, kept)
}

/// Whether the cluster is to be encrypted with a key of the customer's; Go's client sends an empty name for none.
fn names_key(cluster: &admin::Cluster) -> bool {
    cluster.encryption_config.as_ref().is_some_and(|config| !config.kms_key_name.is_empty())
}

/// Why `new` cannot stand beside `known` clusters, if so.
fn conflict(known: &BTreeMap<String, admin::Cluster>, new: &admin::Cluster) -> Option<String> {
    known.iter().find_map(|(id, cluster)| {
        if cluster.location == new.location {
            Some(format!(
                "cluster {id:?} is in {} already, a zone has 1 cluster of an instance",
                new.location
            ))
        } else if cluster.default_storage_type != new.default_storage_type {
            let (theirs, ours) = (cluster.default_storage_type(), new.default_storage_type());
            let (theirs, ours) = (theirs.as_str_name(), ours.as_str_name());
            Some(format!(
                "cluster {id:?} has {theirs} storage, not {ours}: all clusters of an instance have the same"
            ))
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use row_api::admin::cluster::ClusterAutoscalingConfig;
    use row_api::admin::{AutoscalingLimits, AutoscalingTargets};
    use tonic::Code;

    fn instance() -> InstanceName {
        InstanceName { project: "p".to_owned(), instance: "an-instance".to_owned() }
    }

    fn in_zone(zone: &str, serve_nodes: i32) -> admin::Cluster {
        let location = format!("projects/p/locations/{zone}");
        admin::Cluster { location, serve_nodes, ..admin::Cluster::default() }
    }

    fn scaled(min: i32, max: i32, cpu: i32, gib: i32) -> admin::Cluster {
        let scaling = ClusterAutoscalingConfig {
            autoscaling_limits: Some(AutoscalingLimits { min_serve_nodes: min, max_serve_nodes: max }),
            autoscaling_targets: Some(AutoscalingTargets {
                cpu_utilization_percent: cpu,
                storage_utilization_gib_per_node: gib,
            }),
        };
        let config = Config::ClusterConfig(ClusterConfig { cluster_autoscaling_config: Some(scaling) });
        admin::Cluster { config: Some(config), ..in_zone("z", 0) }
    }

    fn check(r#type: Type, cluster: admin::Cluster) -> Result<admin::Cluster, Status> {
        check_cluster("cluster", &instance(), "a-cluster", r#type, cluster)
    }

    fn record(zones: &[&str]) -> InstanceRecord {
        let cluster =
            |zone: &&str| (format!("cluster-{zone}"), check(Type::Production, in_zone(zone, 1)).unwrap());
        let clusters = zones.iter().map(cluster);
        InstanceRecord::new(admin::Instance::default(), clusters.collect())
    }

    #[test]
    fn what_is_left_out_is_filled_in() {
        let cluster = check(Type::Production, in_zone("z", 0)).unwrap();
        assert_eq!((cluster.serve_nodes, cluster.default_storage_type()), (1, StorageType::Ssd));
        let cluster = check(Type::Production, scaled(2, 20, 50, 0)).unwrap();
        let targets = autoscaling(&cluster).unwrap().autoscaling_targets.unwrap();
        assert_eq!((cluster.serve_nodes, targets.storage_utilization_gib_per_node), (2, 2560));
    }

    #[test]
    fn what_a_cluster_may_not_be_is_refused_by_field() {
        let with = |change: fn(&mut admin::Cluster)| {
            let mut cluster = in_zone("z", 3);
            change(&mut cluster);
            cluster
        };
        let factor = i32::from(NodeScalingFactor::NodeScalingFactor2x);
        for (cluster, field) in [
            (in_zone("", 1), "location: "),
            (in_zone("Z/1", 1), "location: "),
            (with(|cluster| cluster.location = "projects/q/locations/z".to_owned()), "location: "),
            (in_zone("z", -1), "serve_nodes: -1, at least 1"),
            (admin::Cluster { node_scaling_factor: factor, ..in_zone("z", 3) }, "serve_nodes: 3, "),
            (with(|cluster| cluster.node_scaling_factor = 9), "node_scaling_factor: 9, "),
            (with(|cluster| cluster.default_storage_type = 9), "default_storage_type: 9, "),
            (with(|cluster| cluster.state = 1), "state: "),
            (with(|cluster| cluster.name = "x".to_owned()), "name: "),
            (admin::Cluster { serve_nodes: 1, ..scaled(1, 2, 50, 0) }, "serve_nodes: 1, must be 0"),
            (
                scaled(0, 2, 50, 0),
                "cluster_config.cluster_autoscaling_config.autoscaling_limits.min_serve_nodes: 0, ",
            ),
            (
                scaled(2, 1, 50, 0),
                "cluster_config.cluster_autoscaling_config.autoscaling_limits.max_serve_nodes: 1, ",
            ),
            (
                scaled(1, 11, 50, 0),
                "cluster_config.cluster_autoscaling_config.autoscaling_limits.max_serve_nodes: 11, ",
            ),
            (
                scaled(1, 2, 9, 0),
                "cluster_config.cluster_autoscaling_config.autoscaling_targets.cpu_utilization_percent: 9, ",
            ),
            (
                scaled(1, 2, 10, 5121),
                "cluster_config.cluster_autoscaling_config.autoscaling_targets.storage_utilization_gib_per_node: 5121, ",
            ),
        ] {
            let error = check(Type::Production, cluster).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{field}");
            assert!(error.message().starts_with(&format!("cluster.{field}")), "{error}");
        }
        assert!(check(Type::Development, in_zone("z", 2)).is_err());
        assert!(check(Type::Development, scaled(1, 2, 50, 0)).is_err());
    }

    #[test]
    fn clusters_of_an_instance_differ_by_zone_and_not_by_storage() {
        let all = |clusters: [admin::Cluster; 2], r#type| {
            let clusters = clusters.into_iter().zip(["cluster-1", "cluster-2"]);
            check_all(&instance(), r#type, clusters.map(|(cluster, id)| (id.to_owned(), cluster)).collect())
        };
        assert!(all([in_zone("y", 1), in_zone("z", 1)], Type::Production).is_ok());
        assert!(all([in_zone("z", 1), in_zone("z", 1)], Type::Production).is_err());
        assert!(all([in_zone("y", 1), in_zone("z", 1)], Type::Development).is_err());
        let hdd = admin::Cluster { default_storage_type: StorageType::Hdd.into(), ..in_zone("z", 1) };
        assert!(all([in_zone("y", 1), hdd], Type::Production).is_err());
    }

    #[test]
    fn a_cluster_stays_while_it_is_the_last_or_a_profile_routes_to_it() {
        let mut alone = record(&["y"]);
        let refused = |outcome: Result<(), Status>| outcome.unwrap_err().code();
        assert_eq!(refused(remove(&mut alone, &instance(), "cluster-z")), Code::NotFound);
        assert_eq!(refused(remove(&mut alone, &instance(), "cluster-y")), Code::FailedPrecondition);
        assert_eq!(refused(add(&mut alone, &instance(), "cluster-y", in_zone("z", 1))), Code::AlreadyExists);
        assert_eq!(
            refused(add(&mut alone, &instance(), "cluster-z", in_zone("y", 1))),
            Code::FailedPrecondition
        );
        add(&mut alone, &instance(), "cluster-z", in_zone("z", 1)).unwrap();
        // The default profile was made for the only cluster, and routes there.
        assert_eq!(refused(remove(&mut alone, &instance(), "cluster-y")), Code::FailedPrecondition);
        remove(&mut alone, &instance(), "cluster-z").unwrap();
    }

    #[test]
    fn a_mask_reaches_into_the_autoscaling() {
        let at = |rest: &str| format!("cluster_config.cluster_autoscaling_config{rest}");
        let mut cluster = check(Type::Production, in_zone("z", 3)).unwrap();
        let paths = [
            ".autoscaling_limits.min_serve_nodes",
            ".autoscaling_limits.max_serve_nodes",
            ".autoscaling_targets",
        ];
        update(&mut cluster, Type::Production, &scaled(2, 8, 20, 0), &paths.map(at)).unwrap();
        assert_eq!(cluster.serve_nodes, 2);
        update(
            &mut cluster,
            Type::Production,
            &scaled(3, 0, 0, 0),
            &[at(".autoscaling_limits.min_serve_nodes")],
        )
        .unwrap();
        let bounds = autoscaling(&cluster).unwrap().autoscaling_limits.unwrap();
        assert_eq!((bounds.min_serve_nodes, bounds.max_serve_nodes), (3, 8));
        let nodes = ["serve_nodes".to_owned()];
        assert!(update(&mut cluster.clone(), Type::Production, &in_zone("", 5), &nodes).is_err());
        update(&mut cluster, Type::Production, &in_zone("", 5), &["serve_nodes".to_owned(), at("")]).unwrap();
        assert_eq!((cluster.serve_nodes, autoscaling(&cluster)), (5, None));
        for path in ["location", "nodes", "cluster_config.cluster_autoscaling_config.autoscaling_limits.most"]
        {
            assert!(
                update(&mut cluster.clone(), Type::Production, &in_zone("", 5), &[path.to_owned()]).is_err()
            );
        }
        let moved = in_zone("elsewhere", 4);
        assert!(replace(&mut cluster.clone(), Type::Production, &moved).is_err());
        replace(&mut cluster, Type::Production, &in_zone("z", 4)).unwrap();
        assert_eq!(cluster.serve_nodes, 4);
    }
}
