//! Instances with their edition, and the messages that carry an instance.

use std::collections::BTreeMap;

use prost_types::{FieldMask, Timestamp};

use super::{Cluster, instance};

/// A tier of Google's service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Edition {
    /// Treated as [`Edition::Enterprise`].
    Unspecified = 0,
    /// The usual one.
    Enterprise = 1,
    /// The larger one.
    EnterprisePlus = 2,
}

/// Tables, and the clusters that serve them.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Instance {
    /// `projects/…/instances/…`.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What people call it.
    #[prost(string, tag = "2")]
    pub display_name: String,
    /// Given by the server.
    #[prost(enumeration = "instance::State", tag = "3")]
    pub state: i32,
    /// For production or for development.
    #[prost(enumeration = "instance::Type", tag = "4")]
    pub r#type: i32,
    /// Its tier.
    #[prost(enumeration = "Edition", tag = "14")]
    pub edition: i32,
    /// What people tag it with.
    #[prost(btree_map = "string, string", tag = "5")]
    pub labels: BTreeMap<String, String>,
    /// Given by the server.
    #[prost(message, optional, tag = "7")]
    pub create_time: Option<Timestamp>,
    /// Given by the server.
    #[prost(bool, optional, tag = "8")]
    pub satisfies_pzs: Option<bool>,
    /// Given by the server.
    #[prost(bool, optional, tag = "11")]
    pub satisfies_pzi: Option<bool>,
    /// Tags of Google's resource manager.
    #[prost(btree_map = "string, string", tag = "12")]
    pub tags: BTreeMap<String, String>,
}

/// Asks CreateInstance for an instance.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CreateInstanceRequest {
    /// `projects/…`.
    #[prost(string, tag = "1")]
    pub parent: String,
    /// Its id within the project.
    #[prost(string, tag = "2")]
    pub instance_id: String,
    /// What it is to be.
    #[prost(message, optional, tag = "3")]
    pub instance: Option<Instance>,
    /// Its clusters by id.
    #[prost(btree_map = "string, message", tag = "4")]
    pub clusters: BTreeMap<String, Cluster>,
}

/// Asks PartialUpdateInstance for a change.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PartialUpdateInstanceRequest {
    /// The instance and its new values.
    #[prost(message, optional, tag = "1")]
    pub instance: Option<Instance>,
    /// Which of them to take over.
    #[prost(message, optional, tag = "2")]
    pub update_mask: Option<FieldMask>,
}

/// The answer of ListInstances.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListInstancesResponse {
    /// The project's instances.
    #[prost(message, repeated, tag = "1")]
    pub instances: Vec<Instance>,
    /// Locations that did not answer.
    #[prost(string, repeated, tag = "2")]
    pub failed_locations: Vec<String>,
    /// Unused.
    #[prost(string, tag = "3")]
    pub next_page_token: String,
}

/// What the operation of a CreateInstance tells of it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CreateInstanceMetadata {
    /// The request.
    #[prost(message, optional, tag = "1")]
    pub original_request: Option<CreateInstanceRequest>,
    /// When it came.
    #[prost(message, optional, tag = "2")]
    pub request_time: Option<Timestamp>,
    /// When it was done.
    #[prost(message, optional, tag = "3")]
    pub finish_time: Option<Timestamp>,
}

/// What the operation of a PartialUpdateInstance tells of it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct UpdateInstanceMetadata {
    /// The request.
    #[prost(message, optional, tag = "1")]
    pub original_request: Option<PartialUpdateInstanceRequest>,
    /// When it came.
    #[prost(message, optional, tag = "2")]
    pub request_time: Option<Timestamp>,
    /// When it was done.
    #[prost(message, optional, tag = "3")]
    pub finish_time: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use googleapis_tonic_google_bigtable_admin_v2::google::bigtable::admin::v2 as published;
    use prost::Message;

    use super::*;

    #[test]
    fn an_instance_has_the_published_bytes() {
        let published = published::Instance {
            name: "name".to_owned(),
            display_name: "shown".to_owned(),
            state: 1,
            r#type: 2,
            labels: [("key".to_owned(), "value".to_owned())].into(),
            create_time: Some(Timestamp { seconds: 5, nanos: 6 }),
            satisfies_pzs: Some(true),
            satisfies_pzi: Some(false),
            tags: [("1/a".to_owned(), "b".to_owned())].into(),
        };
        let mut ours = Instance::decode(&published.encode_to_vec()[..]).unwrap();
        assert_eq!(published::Instance::decode(&ours.encode_to_vec()[..]), Ok(published));
        ours.edition = Edition::EnterprisePlus.into();
        assert_eq!(Instance::decode(&ours.encode_to_vec()[..]), Ok(ours));
    }
}
