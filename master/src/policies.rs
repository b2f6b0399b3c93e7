//! IAM policies of resources, each a record `policy/<resource name>` of the lock service.
//!
//! A policy goes when its resource goes. Without authentication everybody may do
//! everything, and says so to who asks.

use std::fmt;

use bytes::Bytes;
use cluster::lock_service::Expect;
use prost::Message;
use row_api::iam::{
    GetIamPolicyRequest, Policy, SetIamPolicyRequest, TestIamPermissionsRequest, TestIamPermissionsResponse,
};
use row_api::names::{AuthorizedViewName, BackupName, BadName, InstanceName, TableName};

use crate::error::Result;
use crate::master::{Master, damaged};
use crate::{authorized_view_rules, policy_rules};

/// What the keys of policies start with.
const PREFIX: &str = "policy/";

/// Something that has a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// An instance.
    Instance(InstanceName),
    /// A table.
    Table(TableName),
    /// An authorized view of a table.
    AuthorizedView(AuthorizedViewName),
    /// A backup.
    Backup(BackupName),
}

impl Resource {
    /// Takes `text`, the content of the request's `field`, for a table, what belongs to one, or a backup.
    ///
    /// # Errors
    ///
    /// [`BadName`] when it has another form.
    pub fn parse(field: &'static str, text: &str) -> std::result::Result<Self, BadName> {
        if text.contains("/authorizedViews/") {
            return AuthorizedViewName::parse(field, text).map(Self::AuthorizedView);
        }
        if text.contains("/backups/") {
            return BackupName::parse(field, text).map(Self::Backup);
        }
        TableName::parse(field, text).map(Self::Table)
    }

    /// The instance that it is or belongs to.
    pub fn instance(&self) -> &InstanceName {
        match self {
            Self::Instance(name) => name,
            Self::Table(name) => &name.instance,
            Self::AuthorizedView(name) => &name.table.instance,
            Self::Backup(name) => &name.cluster.instance,
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instance(name) => name.fmt(f),
            Self::Table(name) => name.fmt(f),
            Self::AuthorizedView(name) => name.fmt(f),
            Self::Backup(name) => name.fmt(f),
        }
    }
}

impl Master {
    /// The policy of `resource`, as `request` asks for it.
    ///
    /// # Errors
    ///
    /// NOT_FOUND, INVALID_ARGUMENT, or [`Error`](crate::Error).
    pub async fn policy(&self, resource: &Resource, request: &GetIamPolicyRequest) -> Result<Policy> {
        self.check_is_there(resource).await?;
        let (policy, _) = self.read_policy(resource).await?;
        policy_rules::check_get(&policy, request)?;
        Ok(policy)
    }

    /// Replaces the policy of `resource`.
    ///
    /// # Errors
    ///
    /// NOT_FOUND, ABORTED where it has changed since it was read, what
    /// [`policy_rules::check_set`] refuses, or [`Error`](crate::Error); then nothing changed.
    pub async fn set_policy(&self, resource: &Resource, request: SetIamPolicyRequest) -> Result<Policy> {
        // So that the resource does not go in between, and leave its policy to a successor.
        let _cluster = self.cluster.lock().await;
        self.check_is_there(resource).await?;
        let (known, expect) = self.read_policy(resource).await?;
        let etag = Bytes::copy_from_slice(&self.new_epoch().await?.0.to_be_bytes());
        let policy = policy_rules::check_set(&known, request, etag)?;
        self.lock_service.put(&key(resource), policy.encode_to_vec().into(), expect).await?;
        Ok(policy)
    }

    /// What may be done with `resource` of what `request` asks about: without
    /// authentication all of it, but nothing where there is no such resource.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT, or [`Error`](crate::Error).
    pub async fn test_permissions(
        &self,
        resource: &Resource,
        request: TestIamPermissionsRequest,
    ) -> Result<TestIamPermissionsResponse> {
        let permissions = policy_rules::check_permissions(request.permissions)?;
        match self.check_is_there(resource).await {
            Ok(()) => Ok(TestIamPermissionsResponse { permissions }),
            Err(error) if error.is_absence() => Ok(TestIamPermissionsResponse::default()),
            Err(error) => Err(error),
        }
    }

    async fn check_is_there(&self, resource: &Resource) -> Result<()> {
        match resource {
            Resource::Instance(name) => self.instance(name).await.map(drop),
            Resource::Table(name) => self.table(name).await.map(drop),
            Resource::Backup(name) => self.backup(name).await.map(drop),
            Resource::AuthorizedView(name) => {
                let is_there = self.table(&name.table).await?.authorized_views.contains_key(&name.view);
                is_there.then_some(()).ok_or_else(|| authorized_view_rules::not_found(name).into())
            }
        }
    }

    /// Removes the policy of `resource` and of all below it.
    pub(crate) async fn remove_policies(&self, resource: &Resource) -> Result<()> {
        let key = key(resource);
        for found in self.lock_service.list(&format!("{key}/")).await? {
            self.lock_service.delete(&found.key, Expect::Anything).await?;
        }
        Ok(self.lock_service.delete(&key, Expect::Anything).await?)
    }

    async fn read_policy(&self, resource: &Resource) -> Result<(Policy, Expect)> {
        let key = key(resource);
        let Some(found) = self.lock_service.get(&key).await? else {
            return Ok((policy_rules::unset(), Expect::Absent));
        };
        Ok((
            Policy::decode(found.value).map_err(|error| damaged(&key, &error.to_string()))?,
            Expect::At(found.revision),
        ))
    }
}

fn key(resource: &Resource) -> String {
    format!("{PREFIX}{resource}")
}
