use master::operations::OPERATION_COUNT_MAX;
use row_api::admin;
use row_api::longrunning::operations_server::Operations;
use row_api::longrunning::{
    CancelOperationRequest, DeleteOperationRequest, ListOperationsRequest, Operation, WaitOperationRequest,
};
use tonic::{Code, Request, Status};

use crate::stack::{Stack, name};
use crate::tables::code;

impl Stack {
    async fn protect(&self, table: &str, deletion_protection: bool) -> Operation {
        let request = admin::UpdateTableRequest {
            table: Some(admin::Table {
                name: name(table).to_string(),
                deletion_protection,
                ..admin::Table::default()
            }),
            update_mask: Some(prost_types::FieldMask { paths: vec!["deletion_protection".to_owned()] }),
            ..admin::UpdateTableRequest::default()
        };
        self.client.table_admin().update_table(request).await.unwrap().into_inner()
    }

    /// The numbers of the operations listed, page by page.
    async fn list(&self, parent: &str, filter: &str, page_size: i32) -> Result<Vec<String>, Status> {
        let mut names = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = ListOperationsRequest {
                name: parent.to_owned(),
                filter: filter.to_owned(),
                page_size,
                page_token,
                return_partial_success: false,
            };
            let page = self.operations().list_operations(Request::new(request)).await?.into_inner();
            assert!(page_size == 0 || page.operations.len() <= usize::try_from(page_size).unwrap());
            names.extend(page.operations.into_iter().map(|operation| operation.name));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(names);
            }
        }
    }
}

#[tokio::test]
async fn operations_are_found_after_a_restart_until_they_are_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::open(dir.path()).await;
    stack.create("a", &[]).await;
    stack.create("b", &[]).await;
    let mut newest_first = Vec::new();
    for table in ["a", "b", "a"] {
        newest_first.insert(0, stack.protect(table, true).await);
    }
    stack.close().await;
    let stack = Stack::open(dir.path()).await;
    let names: Vec<_> = newest_first.iter().map(|operation| operation.name.clone()).collect();
    for page_size in [0, 1, 2, 5] {
        assert_eq!(stack.list("operations/projects/p", "", page_size).await.unwrap(), names);
    }
    let of_b = format!("operations/{}", name("b"));
    assert_eq!(stack.list(&of_b, "", 0).await.unwrap(), [names[1].clone()]);
    assert_eq!(stack.list("", "done:true AND metadata.@type:UpdateTable", 0).await.unwrap(), names);
    assert!(stack.list("", "done:false", 0).await.unwrap().is_empty());
    assert_eq!(code(stack.list("projects/p", "", 0).await), Code::InvalidArgument);
    assert_eq!(code(stack.list("", "", -1).await), Code::InvalidArgument);

    let service = stack.operations();
    let wait = WaitOperationRequest { name: names[0].clone(), timeout: None };
    assert_eq!(service.wait_operation(Request::new(wait)).await.unwrap().into_inner(), newest_first[0]);
    let cancel = CancelOperationRequest { name: names[0].clone() };
    service.cancel_operation(Request::new(cancel)).await.unwrap();
    assert_eq!(stack.operation(&names[0]).await.unwrap(), newest_first[0]);
    let delete = || Request::new(DeleteOperationRequest { name: names[0].clone() });
    service.delete_operation(delete()).await.unwrap();
    assert_eq!(code(service.delete_operation(delete()).await), Code::NotFound);
    assert_eq!(code(stack.operation(&names[0]).await), Code::NotFound);
    let of_another = names[1].replace("tables/b", "tables/a");
    assert_eq!(code(stack.operation(&of_another).await), Code::NotFound);
    assert_eq!(code(stack.operation("operations/none").await), Code::NotFound);
    stack.close().await;
}

#[tokio::test]
async fn the_newest_operations_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::open(dir.path()).await;
    stack.create("a", &[]).await;
    let oldest = stack.protect("a", true).await;
    let put = |number: usize| {
        let key =
            format!("operation/{:020}", u64::MAX - u64::try_from(OPERATION_COUNT_MAX - number).unwrap());
        let lock_service = std::sync::Arc::clone(&stack.lock_service);
        async move { lock_service.put(&key, "".into(), cluster::lock_service::Expect::Anything).await.unwrap() }
    };
    for number in 0..OPERATION_COUNT_MAX - 1 {
        put(number).await;
    }
    stack.operation(&oldest.name).await.unwrap();
    let newer = stack.protect("a", false).await;
    assert_eq!(code(stack.operation(&oldest.name).await), Code::NotFound);
    stack.operation(&newer.name).await.unwrap();
    stack.close().await;
}
