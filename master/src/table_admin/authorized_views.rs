//! The RPCs of authorized views, which stand in their table's record.

use std::time::SystemTime;

use row_api::admin;
use row_api::admin::authorized_view::ResponseView;
use row_api::longrunning::Operation;
use row_api::names::{AuthorizedViewName, TableName};
use tablet_server::limits;
use tablet_server::table_record::TableRecord;
use tonic::Status;

use super::TableAdmin;
use crate::operations::any;
use crate::{authorized_view_rules, pages, resource_ids};

/// Views on one page, at most and unless asked for fewer.
const PAGE_SIZE_MAX: usize = 1_000;

impl TableAdmin {
    pub(super) async fn create_authorized_view(
        &self,
        request: admin::CreateAuthorizedViewRequest,
    ) -> Result<Operation, Status> {
        let request_time = Some(SystemTime::now().into());
        let table = TableName::parse("parent", &request.parent)?;
        self.caller.check_change(&table)?;
        resource_ids::check_table_id("authorized_view_id", &request.authorized_view_id)?;
        let view = request.authorized_view.clone();
        let view = view.ok_or_else(|| limits::refuse("authorized_view", "is missing"))?;
        let name = AuthorizedViewName { table, view: request.authorized_view_id.clone() };
        let (new, etag) = (name.clone(), self.new_etag().await?);
        let change = move |record: &mut _| authorized_view_rules::add(record, &new, view, etag);
        let record = self.master.change_table(name.table.clone(), change).await?;
        let metadata = admin::CreateAuthorizedViewMetadata {
            original_request: Some(request),
            request_time,
            finish_time: Some(SystemTime::now().into()),
        };
        let metadata = any("CreateAuthorizedViewMetadata", &metadata);
        let response = any("AuthorizedView", &view_in(&name, &record, ResponseView::Full)?);
        Ok(self.master.complete_operation(name, metadata, response).await?)
    }

    pub(super) async fn get_authorized_view(
        &self,
        request: &admin::GetAuthorizedViewRequest,
    ) -> Result<admin::AuthorizedView, Status> {
        let name = AuthorizedViewName::parse("name", &request.name)?;
        let shown = authorized_view_rules::shown(request.view, ResponseView::Basic)?;
        view_in(&name, &self.master.table(&name.table).await?, shown)
    }

    pub(super) async fn list_authorized_views(
        &self,
        request: admin::ListAuthorizedViewsRequest,
    ) -> Result<admin::ListAuthorizedViewsResponse, Status> {
        let table = TableName::parse("parent", &request.parent)?;
        let shown = authorized_view_rules::shown(request.view, ResponseView::NameOnly)?;
        let page_size = pages::check_size(request.page_size, PAGE_SIZE_MAX)?;
        let record = self.master.table(&table).await?;
        // A token is the last view of the page before.
        let rest = record.authorized_views.keys().filter(|view| **view > request.page_token);
        let (page, next_page_token) = pages::cut(rest, page_size, |view| (*view).clone());
        let name = |view: &String| AuthorizedViewName { table: table.clone(), view: view.clone() };
        let authorized_views = page.into_iter().map(|view| view_in(&name(view), &record, shown));
        let authorized_views = authorized_views.collect::<Result<_, _>>()?;
        Ok(admin::ListAuthorizedViewsResponse { authorized_views, next_page_token })
    }

    pub(super) async fn update_authorized_view(
        &self,
        request: admin::UpdateAuthorizedViewRequest,
    ) -> Result<Operation, Status> {
        let request_time = Some(SystemTime::now().into());
        let update = request.authorized_view.clone();
        let update = update.ok_or_else(|| limits::refuse("authorized_view", "is missing"))?;
        let name = AuthorizedViewName::parse("authorized_view.name", &update.name)?;
        self.caller.check_change(&name.table)?;
        let paths = request.update_mask.clone().unwrap_or_default().paths;
        let (changed, etag) = (name.clone(), self.new_etag().await?);
        let change =
            move |record: &mut _| authorized_view_rules::update(record, &changed, &update, &paths, etag);
        let record = self.master.change_table(name.table.clone(), change).await?;
        let metadata = admin::UpdateAuthorizedViewMetadata {
            original_request: Some(request),
            request_time,
            finish_time: Some(SystemTime::now().into()),
        };
        let metadata = any("UpdateAuthorizedViewMetadata", &metadata);
        let response = any("AuthorizedView", &view_in(&name, &record, ResponseView::Full)?);
        Ok(self.master.complete_operation(name, metadata, response).await?)
    }

    pub(super) async fn delete_authorized_view(
        &self,
        request: admin::DeleteAuthorizedViewRequest,
    ) -> Result<(), Status> {
        let name = AuthorizedViewName::parse("name", &request.name)?;
        self.caller.check_change(&name.table)?;
        Ok(self.master.delete_authorized_view(name, request.etag).await?)
    }

    /// A mark that no state of a view had before.
    async fn new_etag(&self) -> Result<String, Status> {
        Ok(self.master.new_epoch().await?.to_string())
    }
}

fn view_in(
    name: &AuthorizedViewName,
    record: &TableRecord,
    shown: ResponseView,
) -> Result<admin::AuthorizedView, Status> {
    let known =
        record.authorized_views.get(&name.view).ok_or_else(|| authorized_view_rules::not_found(name))?;
    let mut view = admin::AuthorizedView { name: name.to_string(), ..admin::AuthorizedView::default() };
    if matches!(shown, ResponseView::Basic | ResponseView::Full) {
        view.etag.clone_from(&known.etag);
        view.deletion_protection = known.deletion_protection;
    }
    if shown == ResponseView::Full {
        view.authorized_view.clone_from(&known.authorized_view);
    }
    Ok(view)
}
