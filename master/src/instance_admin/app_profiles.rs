//! The RPCs of app profiles.

use row_api::admin;
use row_api::names::{AppProfileName, InstanceName};
use tablet_server::limits;
use tonic::Status;

use super::{InstanceAdmin, Operation};
use crate::instance_record::InstanceRecord;
use crate::operations::any;
use crate::{app_profile_rules, pages, resource_ids};

/// App profiles on one page, at most and unless asked for fewer.
const PAGE_SIZE_MAX: usize = 1_000;

impl InstanceAdmin {
    pub(super) async fn create_app_profile(
        &self,
        request: admin::CreateAppProfileRequest,
    ) -> Result<admin::AppProfile, Status> {
        let instance = InstanceName::parse("parent", &request.parent)?;
        resource_ids::check_table_id("app_profile_id", &request.app_profile_id)?;
        let profile = request.app_profile.ok_or_else(|| limits::refuse("app_profile", "is missing"))?;
        let name = AppProfileName { instance, app_profile: request.app_profile_id };
        self.caller.check_instance_change(&name.instance)?;
        let etag = self.new_etag().await?;
        let (new, ignore_warnings) = (name.clone(), request.ignore_warnings);
        let change =
            move |record: &mut _| app_profile_rules::add(record, &new, profile, ignore_warnings, etag);
        let record = self.master.change_instance(name.instance.clone(), change).await?;
        view_in(&name, &record)
    }

    pub(super) async fn get_app_profile(&self, name: &str) -> Result<admin::AppProfile, Status> {
        let name = AppProfileName::parse("name", name)?;
        view_in(&name, &self.master.instance(&name.instance).await?)
    }

    pub(super) async fn list_app_profiles(
        &self,
        request: admin::ListAppProfilesRequest,
    ) -> Result<admin::ListAppProfilesResponse, Status> {
        let page_size = pages::check_size(request.page_size, PAGE_SIZE_MAX)?;
        let instances = self.instances_of("parent", &request.parent).await?;
        let profiles = instances.iter().flat_map(|(instance, record)| {
            record.app_profiles.iter().map(move |(id, profile)| {
                (AppProfileName { instance: instance.clone(), app_profile: id.clone() }, profile)
            })
        });
        // A token is the last profile of the page before.
        let after = match request.page_token.as_str() {
            "" => None,
            token => Some(AppProfileName::parse("page_token", token)?),
        };
        let rest = profiles.filter(|(name, _)| after.as_ref().is_none_or(|after| name > after));
        let (page, next_page_token) = pages::cut(rest, page_size, |(name, _)| name.to_string());
        let app_profiles = page.iter().map(|(name, profile)| view(name, profile)).collect();
        Ok(admin::ListAppProfilesResponse { app_profiles, next_page_token, failed_locations: Vec::new() })
    }

    pub(super) async fn update_app_profile(
        &self,
        request: admin::UpdateAppProfileRequest,
    ) -> Result<Operation, Status> {
        let update = request.app_profile.ok_or_else(|| limits::refuse("app_profile", "is missing"))?;
        let name = AppProfileName::parse("app_profile.name", &update.name)?;
        self.caller.check_instance_change(&name.instance)?;
        let etag = self.new_etag().await?;
        let paths = request.update_mask.map(|mask| mask.paths);
        let (changed, ignore_warnings) = (name.clone(), request.ignore_warnings);
        let change = move |record: &mut _| {
            app_profile_rules::update(record, &changed, update, paths.as_deref(), ignore_warnings, etag)
        };
        let record = self.master.change_instance(name.instance.clone(), change).await?;
        let metadata = any("UpdateAppProfileMetadata", &admin::UpdateAppProfileMetadata {});
        let response = any("AppProfile", &view_in(&name, &record)?);
        Ok(self.master.complete_operation(name, metadata, response).await?)
    }

    pub(super) async fn delete_app_profile(&self, name: &str) -> Result<(), Status> {
        let name = AppProfileName::parse("name", name)?;
        self.caller.check_instance_change(&name.instance)?;
        let instance = name.instance.clone();
        self.master.change_instance(instance, move |record| app_profile_rules::remove(record, &name)).await?;
        Ok(())
    }

    /// A mark that no state of an app profile had before.
    async fn new_etag(&self) -> Result<String, Status> {
        Ok(self.master.new_epoch().await?.to_string())
    }
}

fn view_in(name: &AppProfileName, record: &InstanceRecord) -> Result<admin::AppProfile, Status> {
    let profile = record.app_profiles.get(&name.app_profile);
    profile.map(|profile| view(name, profile)).ok_or_else(|| app_profile_rules::not_found(name))
}

fn view(name: &AppProfileName, profile: &admin::AppProfile) -> admin::AppProfile {
    admin::AppProfile { name: name.to_string(), ..profile.clone() }
}
