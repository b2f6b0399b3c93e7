//! How many nodes a cluster has, and how it is autoscaled: checks without any state.

use std::ops::RangeInclusive;

use row_api::admin;
use row_api::admin::cluster::{ClusterAutoscalingConfig, ClusterConfig, Config, NodeScalingFactor};
use row_api::admin::instance::Type;
use row_api::admin::{AutoscalingLimits, AutoscalingTargets, StorageType};
use tablet_server::limits;
use tonic::Status;

/// An autoscaled cluster may grow to this many times its smallest size.
const SCALING_RATIO_MAX: i32 = 10;

/// Percent of the processors' time that autoscaling may aim at.
const CPU_PERCENT: RangeInclusive<i32> = 10..=80;

/// How the cluster is autoscaled; an empty configuration is none.
pub(super) fn autoscaling(cluster: &admin::Cluster) -> Option<ClusterAutoscalingConfig> {
    let Some(Config::ClusterConfig(config)) = &cluster.config else { return None };
    config.cluster_autoscaling_config.filter(|scaling| {
        scaling.autoscaling_limits.unwrap_or_default() != AutoscalingLimits::default()
            || scaling.autoscaling_targets.unwrap_or_default() != AutoscalingTargets::default()
    })
}

/// Checks the number of nodes and the autoscaling, fields that stand behind
/// `prefix` in their request, and fills in what was left to the server.
pub(super) fn check_nodes(
    prefix: &str,
    r#type: Type,
    mut cluster: admin::Cluster,
) -> Result<admin::Cluster, Status> {
    let refuse = |part: &str, why: String| Err(limits::refuse(format_args!("{prefix}{part}"), why));
    let nodes = cluster.serve_nodes;
    let step = if cluster.node_scaling_factor() == NodeScalingFactor::NodeScalingFactor2x { 2 } else { 1 };
    if nodes < 0 {
        return refuse("serve_nodes", format!("{nodes}, at least 1"));
    }
    if nodes % step != 0 {
        return refuse(
            "serve_nodes",
            format!("{nodes}, must be a multiple of {step} by node_scaling_factor"),
        );
    }
    let Some(scaling) = autoscaling(&cluster) else {
        cluster.config = None;
        if r#type == Type::Development && nodes > 1 {
            return refuse("serve_nodes", format!("{nodes}, a development instance has 1 node"));
        }
        cluster.serve_nodes = nodes.max(step);
        return Ok(cluster);
    };
    const FIELD: &str = "cluster_config.cluster_autoscaling_config";
    if nodes != 0 {
        return refuse("serve_nodes", format!("{nodes}, must be 0 where cluster_autoscaling_config is set"));
    }
    if r#type == Type::Development {
        return refuse(FIELD, "a development instance is not autoscaled".to_owned());
    }
    let bounds = scaling.autoscaling_limits.unwrap_or_default();
    let mut targets = scaling.autoscaling_targets.unwrap_or_default();
    check_limits(&format!("{prefix}{FIELD}.autoscaling_limits"), bounds, step)?;
    check_targets(
        &format!("{prefix}{FIELD}.autoscaling_targets"),
        &mut targets,
        cluster.default_storage_type(),
    )?;
    let scaling =
        ClusterAutoscalingConfig { autoscaling_limits: Some(bounds), autoscaling_targets: Some(targets) };
    cluster.serve_nodes = bounds.min_serve_nodes;
    cluster.config = Some(Config::ClusterConfig(ClusterConfig { cluster_autoscaling_config: Some(scaling) }));
    Ok(cluster)
}

fn check_limits(field: &str, bounds: AutoscalingLimits, step: i32) -> Result<(), Status> {
    let AutoscalingLimits { min_serve_nodes: min, max_serve_nodes: max } = bounds;
    if min < 1 {
        return Err(limits::refuse(
            format_args!("{field}.min_serve_nodes"),
            format_args!("{min}, at least 1"),
        ));
    }
    let most = min.saturating_mul(SCALING_RATIO_MAX);
    if !(min..=most).contains(&max) {
        let why =
            format_args!("{max}, at least min_serve_nodes ({min}), at most {SCALING_RATIO_MAX} times that");
        return Err(limits::refuse(format_args!("{field}.max_serve_nodes"), why));
    }
    if min % step != 0 || max % step != 0 {
        let why = format_args!("{min} to {max}, must be multiples of {step} by node_scaling_factor");
        return Err(limits::refuse(field, why));
    }
    Ok(())
}

fn check_targets(field: &str, targets: &mut AutoscalingTargets, storage: StorageType) -> Result<(), Status> {
    let cpu = targets.cpu_utilization_percent;
    if !CPU_PERCENT.contains(&cpu) {
        let why = format_args!("{cpu}, from {} to {}", CPU_PERCENT.start(), CPU_PERCENT.end());
        return Err(limits::refuse(format_args!("{field}.cpu_utilization_percent"), why));
    }
    let allowed = if storage == StorageType::Hdd { 8192..=16_384 } else { 2560..=5120 };
    let gib = &mut targets.storage_utilization_gib_per_node;
    if *gib == 0 {
        *gib = *allowed.start();
    }
    if !allowed.contains(gib) {
        let why = format_args!("{gib}, from {} to {} GiB", allowed.start(), allowed.end());
        return Err(limits::refuse(format_args!("{field}.storage_utilization_gib_per_node"), why));
    }
    Ok(())
}

/// Takes over one field below an autoscaling configuration; false if there is none of that path.
pub(super) fn take_scaling(
    to: &mut ClusterAutoscalingConfig,
    from: &ClusterAutoscalingConfig,
    path: &str,
) -> bool {
    let (group, field) = path.split_once('.').unwrap_or((path, ""));
    match group {
        "autoscaling_limits" => {
            let (to, from) =
                (to.autoscaling_limits.get_or_insert_default(), from.autoscaling_limits.unwrap_or_default());
            match field {
                "" => *to = from,
                "min_serve_nodes" => to.min_serve_nodes = from.min_serve_nodes,
                "max_serve_nodes" => to.max_serve_nodes = from.max_serve_nodes,
                _ => return false,
            }
        }
        "autoscaling_targets" => {
            let (to, from) = (
                to.autoscaling_targets.get_or_insert_default(),
                from.autoscaling_targets.unwrap_or_default(),
            );
            match field {
                "" => *to = from,
                "cpu_utilization_percent" => to.cpu_utilization_percent = from.cpu_utilization_percent,
                "storage_utilization_gib_per_node" => {
                    to.storage_utilization_gib_per_node = from.storage_utilization_gib_per_node;
                }
                _ => return false,
            }
        }
        _ => return false,
    }
    true
}
