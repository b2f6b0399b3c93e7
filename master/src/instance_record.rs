//! An instance's record in the lock service, `instance/<instance name>`.
//!
//! Instance, clusters and app profiles stand in one record, so that a change of
//! any of them is one write and their rules hold at every moment. An instance
//! that nobody created has no record: it exists all the same, as
//! [`InstanceRecord::implicit`] describes it, and gets its record with the first
//! change of it. The record of a deleted instance stays behind, empty, so that
//! the instance does not come back as one that nobody created.

use std::collections::BTreeMap;

use cluster::lock_service::Record;
use prost::Message;
use row_api::admin;
use row_api::admin::app_profile::{
    Isolation, MultiClusterRoutingUseAny, Priority, RoutingPolicy, SingleClusterRouting, StandardIsolation,
};
use row_api::names::InstanceName;
use tablet_server::app_profiles::{AppProfile, AppProfiles, DEFAULT_APP_PROFILE};

use crate::error::Result;
use crate::master::damaged;

/// What the keys of instance records start with.
pub const PREFIX: &str = "instance/";

/// The id of an implicit instance's only cluster, and of its location.
pub const IMPLICIT_CLUSTER: &str = "hayloft";

/// Where an instance is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum InstanceState {
    /// Damage: a record always says one of the others.
    Unspecified = 0,
    /// In use.
    Serving = 1,
    /// Its tables are being removed; a restart finishes it.
    Deleting = 2,
    /// Gone, until somebody creates it again.
    Deleted = 3,
}

/// An instance, as it is recorded.
#[derive(Clone, PartialEq, Message)]
pub struct InstanceRecord {
    /// Where it is in its life.
    #[prost(enumeration = "InstanceState", tag = "1")]
    pub state: i32,
    /// Display name, type, edition, labels, time of creation; its name is empty.
    #[prost(message, optional, tag = "2")]
    pub instance: Option<admin::Instance>,
    /// Its clusters by id; their names are empty.
    #[prost(btree_map = "string, message", tag = "3")]
    pub clusters: BTreeMap<String, admin::Cluster>,
    /// Its app profiles by id, the default one among them; their names are empty.
    #[prost(btree_map = "string, message", tag = "4")]
    pub app_profiles: BTreeMap<String, admin::AppProfile>,
    /// Once deleted: a number greater than that of each deletion before.
    #[prost(uint64, tag = "5")]
    pub deletion: u64,
}

/// Where the record of the instance `name` stands.
pub fn key(name: &InstanceName) -> String {
    format!("{PREFIX}{name}")
}

impl InstanceRecord {
    /// A new instance with these clusters, and the default app profile that they call for.
    pub fn new(instance: admin::Instance, clusters: BTreeMap<String, admin::Cluster>) -> Self {
        let default = default_app_profile(&clusters);
        Self {
            state: InstanceState::Serving.into(),
            instance: Some(instance),
            clusters,
            app_profiles: [(DEFAULT_APP_PROFILE.to_owned(), default)].into(),
            deletion: 0,
        }
    }

    /// An instance that nobody created, on so many tablet servers.
    pub fn implicit(name: &InstanceName, server_count: usize) -> Self {
        let cluster = admin::Cluster {
            location: format!("projects/{}/locations/{IMPLICIT_CLUSTER}", name.project),
            serve_nodes: i32::try_from(server_count).unwrap_or(i32::MAX),
            default_storage_type: admin::StorageType::Ssd.into(),
            ..admin::Cluster::default()
        };
        let instance = admin::Instance {
            display_name: name.instance.clone(),
            r#type: admin::instance::Type::Production.into(),
            ..admin::Instance::default()
        };
        Self::new(instance, [(IMPLICIT_CLUSTER.to_owned(), cluster)].into())
    }

    /// What stays of an instance that is gone.
    pub fn deleted(deletion: u64) -> Self {
        Self { state: InstanceState::Deleted.into(), deletion, ..Self::default() }
    }

    /// Reads the record `found`: whose it is, and what it says.
    ///
    /// # Errors
    ///
    /// DATA_LOSS where it describes no instance.
    pub fn read(found: &Record) -> Result<(InstanceName, Self)> {
        let bad = |why: &str| damaged(&found.key, why);
        let name = found.key.strip_prefix(PREFIX).unwrap_or_default();
        let name = InstanceName::parse("name", name).map_err(|error| bad(&error.to_string()))?;
        let record = Self::decode(&*found.value).map_err(|error| bad(&error.to_string()))?;
        match record.state() {
            InstanceState::Unspecified => Err(bad("its state is missing")),
            InstanceState::Serving if record.instance.is_none() || record.clusters.is_empty() => {
                Err(bad("it has no instance or no cluster"))
            }
            _ => Ok((name, record)),
        }
    }

    /// What requests may do by the app profile that they name.
    pub fn data_app_profiles(&self) -> AppProfiles {
        match self.state() {
            InstanceState::Serving => {
                let profiles = self.app_profiles.iter();
                AppProfiles::Known(
                    profiles.map(|(id, profile)| (id.clone(), data_app_profile(profile))).collect(),
                )
            }
            _ => AppProfiles::Deleted,
        }
    }

    /// The instance as clients see it.
    pub fn instance_view(&self, name: &InstanceName) -> admin::Instance {
        admin::Instance {
            name: name.to_string(),
            state: admin::instance::State::Ready.into(),
            ..self.instance.clone().unwrap_or_default()
        }
    }

    /// The instance's type.
    pub fn instance_type(&self) -> admin::instance::Type {
        self.instance.as_ref().map(admin::Instance::r#type).unwrap_or_default()
    }
}

/// Whether requests under `profile` may write, and read to write.
fn data_app_profile(profile: &admin::AppProfile) -> AppProfile {
    AppProfile {
        allows_writes: !matches!(profile.isolation, Some(Isolation::DataBoostIsolationReadOnly(_))),
        allows_transactions: allows_transactions(profile),
    }
}

/// Whether `profile` routes to one cluster and lets its requests read and then write.
pub fn allows_transactions(profile: &admin::AppProfile) -> bool {
    match &profile.routing_policy {
        Some(RoutingPolicy::SingleClusterRouting(single)) => single.allow_transactional_writes,
        Some(RoutingPolicy::MultiClusterRoutingUseAny(_)) | None => false,
    }
}

/// Requests stick to an only cluster and may be transactions there, or go to any of several.
fn default_app_profile(clusters: &BTreeMap<String, admin::Cluster>) -> admin::AppProfile {
    let routing = match clusters.keys().next() {
        Some(only) if clusters.len() == 1 => RoutingPolicy::SingleClusterRouting(SingleClusterRouting {
            cluster_id: only.clone(),
            allow_transactional_writes: true,
        }),
        _ => RoutingPolicy::MultiClusterRoutingUseAny(MultiClusterRoutingUseAny::default()),
    };
    admin::AppProfile {
        etag: "1".to_owned(),
        description: "Requests that name no app profile".to_owned(),
        routing_policy: Some(routing),
        isolation: Some(Isolation::StandardIsolation(StandardIsolation { priority: Priority::High.into() })),
        ..admin::AppProfile::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use cluster::lock_service::Revision;

    fn name() -> InstanceName {
        InstanceName { project: "p".to_owned(), instance: "i".to_owned() }
    }

    fn read(value: Vec<u8>) -> Result<(InstanceName, InstanceRecord)> {
        InstanceRecord::read(&Record { key: key(&name()), value: Bytes::from(value), revision: Revision(1) })
    }

    #[test]
    fn a_record_comes_back_as_it_was_written() {
        for record in [InstanceRecord::implicit(&name(), 3), InstanceRecord::deleted(7)] {
            assert_eq!(read(record.encode_to_vec()).unwrap(), (name(), record));
        }
        assert!(read(b"\xff".to_vec()).is_err());
        assert!(read(Vec::new()).is_err());
    }

    #[test]
    fn the_default_profile_allows_transactions_on_an_only_cluster() {
        let one = InstanceRecord::implicit(&name(), 1);
        let mut clusters = one.clusters.clone();
        clusters.insert("other-cluster".to_owned(), admin::Cluster::default());
        let two = InstanceRecord::new(admin::Instance::default(), clusters);
        for (record, expected) in [(one, true), (two, false)] {
            let AppProfiles::Known(profiles) = record.data_app_profiles() else {
                panic!("the instance is there")
            };
            let profile = profiles[DEFAULT_APP_PROFILE];
            assert!(profile.allows_writes);
            assert_eq!(profile.allows_transactions, expected);
        }
    }
}
