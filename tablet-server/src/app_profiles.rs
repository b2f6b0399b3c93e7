//! What requests may do by the app profile that they name.
//!
//! Written by the master into each instance's record, read by gateways at every
//! request. An instance that nobody created has no app profiles of its own: any
//! name is good there, and nothing is refused.

use std::collections::HashMap;

use row_api::names::InstanceName;
use tonic::Status;

/// The profile of requests that name none.
pub const DEFAULT_APP_PROFILE: &str = "default";

/// What a request does, as far as an app profile may forbid it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads.
    Read,
    /// Writes, without reading first.
    Write,
    /// Reads and then writes: a single-row transaction.
    Transaction,
}

/// One app profile, as far as requests are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppProfile {
    /// Whether requests may write at all: Data Boost reads only.
    pub allows_writes: bool,
    /// Whether they may be single-row transactions: only routing to one cluster can allow them.
    pub allows_transactions: bool,
}

/// The app profiles of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AppProfiles {
    /// Nobody created the instance: every name stands for a profile that allows everything.
    #[default]
    Any,
    /// Profiles by id, [`DEFAULT_APP_PROFILE`] among them.
    Known(HashMap<String, AppProfile>),
    /// The instance was deleted.
    Deleted,
}

impl AppProfiles {
    /// Refuses a request to `instance` under the profile `id` that is not to be
    /// answered; an empty id is the default profile.
    ///
    /// # Errors
    ///
    /// NOT_FOUND where there is no such profile or instance, FAILED_PRECONDITION
    /// where the profile forbids the access.
    pub fn check(&self, instance: &InstanceName, id: &str, access: Access) -> Result<(), Status> {
        let profiles = match self {
            Self::Any => return Ok(()),
            Self::Known(profiles) => profiles,
            Self::Deleted => return Err(Status::not_found(format!("Instance not found: {instance}"))),
        };
        let id = if id.is_empty() { DEFAULT_APP_PROFILE } else { id };
        let forbidden = match (profiles.get(id), access) {
            (None, _) => {
                let id: String = id.chars().take(256).collect();
                let why = format!("app_profile_id: App profile not found: {instance}/appProfiles/{id}");
                return Err(Status::not_found(why));
            }
            (Some(profile), Access::Write) if !profile.allows_writes => "Writes",
            (Some(profile), Access::Transaction) if !profile.allows_transactions => "Single-row transactions",
            (Some(_), _) => return Ok(()),
        };
        Err(Status::failed_precondition(format!(
            "app_profile_id: {forbidden} are not allowed by the app profile {instance}/appProfiles/{id}"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    #[test]
    fn a_profile_forbids_what_it_does_not_allow() {
        let instance = InstanceName { project: "p".to_owned(), instance: "i".to_owned() };
        let profile = |allows_writes, allows_transactions| AppProfile { allows_writes, allows_transactions };
        let profiles = [
            (DEFAULT_APP_PROFILE.to_owned(), profile(true, true)),
            ("any".to_owned(), profile(true, false)),
            ("boost".to_owned(), profile(false, false)),
        ];
        let known = AppProfiles::Known(profiles.into());
        for (profiles, id, access, expected) in [
            (&AppProfiles::Any, "whatever", Access::Transaction, Code::Ok),
            (&AppProfiles::Deleted, "", Access::Read, Code::NotFound),
            (&known, "", Access::Transaction, Code::Ok),
            (&known, "default", Access::Write, Code::Ok),
            (&known, "whatever", Access::Read, Code::NotFound),
            (&known, "any", Access::Write, Code::Ok),
            (&known, "any", Access::Transaction, Code::FailedPrecondition),
            (&known, "boost", Access::Read, Code::Ok),
            (&known, "boost", Access::Write, Code::FailedPrecondition),
        ] {
            let found =
                profiles.check(&instance, id, access).map_or_else(|status| status.code(), |()| Code::Ok);
            assert_eq!(found, expected, "{id} {access:?}");
        }
    }
}
