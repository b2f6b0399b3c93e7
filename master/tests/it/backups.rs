//! Backups, restores and deleted tables that come back.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use master::MasterOptions;
use row_api::admin;
use row_api::admin::backup::State;
use row_api::admin::bigtable_instance_admin_server::BigtableInstanceAdmin;
use row_api::admin::restore_table_request::Source;
use row_api::longrunning::operation::Result as Outcome;
use row_api::longrunning::operations_server::Operations;
use row_api::longrunning::{Operation, WaitOperationRequest};
use tonic::{Code, Request, Status};
use vfs::simulated::FaultPlan;
use vfs::{FileSystem, SimulatedFileSystem};

use crate::splits::{DIR, check_tablets};
use crate::stack::{INSTANCE, Stack, name};
use crate::tables::code;

const DAY: Duration = Duration::from_secs(86_400);
const ROWS: [&str; 6] = ["a", "b", "c", "k", "m", "z"];

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn open(fs: &SimulatedFileSystem) -> Result<Stack, BoxError> {
    Stack::open_on(Arc::new(fs.clone()), Path::new(DIR), |_| {}).await
}

impl Stack {
    async fn cluster(&self) -> String {
        let clusters = self.master.instance(&name("t").instance).await.unwrap().clusters;
        format!("{INSTANCE}/clusters/{}", clusters.keys().next().unwrap())
    }

    async fn begin_backup(&self, table: &str, backup: &str, kept: Duration) -> Result<Operation, Status> {
        let request = admin::CreateBackupRequest {
            parent: self.cluster().await,
            backup_id: backup.to_owned(),
            backup: Some(admin::Backup {
                source_table: name(table).to_string(),
                expire_time: Some((SystemTime::now() + kept).into()),
                ..admin::Backup::default()
            }),
        };
        self.client.table_admin().create_backup(request).await.map(tonic::Response::into_inner)
    }

    /// The operation once it has ended.
    async fn ended(&self, operation: Operation) -> Operation {
        let request = WaitOperationRequest { name: operation.name, timeout: None };
        let ended = self.operations().wait_operation(Request::new(request)).await.unwrap().into_inner();
        assert!(ended.done);
        ended
    }

    async fn back_up(&self, table: &str, backup: &str) -> String {
        let begun = self.begin_backup(table, backup, DAY).await.unwrap();
        let ended = self.ended(begun).await;
        assert!(matches!(ended.result, Some(Outcome::Response(_))), "{ended:?}");
        format!("{}/backups/{backup}", self.cluster().await)
    }

    async fn begin_restore(&self, backup: &str, table: &str) -> Result<Operation, Status> {
        let request = admin::RestoreTableRequest {
            parent: INSTANCE.to_owned(),
            table_id: table.to_owned(),
            source: Some(Source::Backup(backup.to_owned())),
        };
        self.client.table_admin().restore_table(request).await.map(tonic::Response::into_inner)
    }

    async fn restore(&self, backup: &str, table: &str) -> Operation {
        let begun = self.begin_restore(backup, table).await.unwrap();
        self.ended(begun).await
    }

    /// Waits until restores that have ended are forgotten.
    async fn intents_gone(&self) {
        while !self.lock_service.list("restore/").await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        // Until the sweep that follows is over.
        self.master.expire(SystemTime::now()).await.unwrap();
    }

    async fn backup(&self, backup: &str) -> Result<admin::Backup, Status> {
        let request = admin::GetBackupRequest { name: backup.to_owned() };
        self.client.table_admin().get_backup(request).await.map(tonic::Response::into_inner)
    }

    async fn delete(&self, table: &str) {
        let request = admin::DeleteTableRequest { name: name(table).to_string() };
        self.client.table_admin().delete_table(request).await.unwrap();
    }

    async fn begin_undelete(&self, table: &str) -> Result<Operation, Status> {
        let request = admin::UndeleteTableRequest { name: name(table).to_string() };
        self.client.table_admin().undelete_table(request).await.map(tonic::Response::into_inner)
    }

    async fn fill(&self, table: &str, splits: &[&str], value: &str) {
        let table = self.create(table, splits).await;
        for row in ROWS {
            self.put(&table, row, value).await;
        }
    }

    async fn check_filled(&self, table: &str, value: &str, case: &str) {
        let table = name(table);
        assert_eq!(self.keys(&table).await, ROWS, "{case}");
        for row in ROWS {
            assert_eq!(self.value(&table, row).await.as_deref(), Some(value), "{case}");
        }
    }
}

/// The checkpoints on `fs`, finished ones and others.
fn checkpoint_count(fs: &SimulatedFileSystem) -> usize {
    let dir = Path::new(DIR).join("checkpoints");
    if fs.exists(&dir).unwrap() { fs.list(&dir).unwrap().len() } else { 0 }
}

#[tokio::test]
async fn a_backup_holds_what_was_written_before_it_and_outlives_its_table() {
    let fs = SimulatedFileSystem::new();
    let stack = open(&fs).await.unwrap();
    stack.fill("t", &["c", "m"], "old").await;
    let backup = stack.back_up("t", "b").await;
    for row in ROWS {
        stack.put(&name("t"), row, "new").await;
    }
    stack.delete("t").await;
    let found = stack.backup(&backup).await.unwrap();
    assert_eq!((found.state(), found.source_table), (State::Ready, name("t").to_string()));
    assert!(found.size_bytes > 0 && found.end_time.is_some());
    stack.close().await;

    let stack = open(&fs.power_cut(7)).await.unwrap();
    let ended = stack.restore(&backup, "r").await;
    let metadata = ended.metadata.unwrap();
    assert!(metadata.type_url.ends_with("RestoreTableMetadata"), "{}", metadata.type_url);
    stack.check_filled("r", "old", "restored").await;
    assert_eq!(stack.boundaries(&name("r")).await, ["c", "m", ""]);
    stack.put(&name("r"), "c", "newest").await;
    assert_eq!(stack.restore(&backup, "second").await.result.map(|_| ()), Some(()));
    stack.check_filled("second", "old", "restored again").await;
    check_tablets(&stack, "restored").await;
    stack.close().await;
}

#[tokio::test]
async fn what_cannot_be_backed_up_or_restored_is_refused() {
    let fs = SimulatedFileSystem::new();
    let stack = open(&fs).await.unwrap();
    stack.fill("t", &[], "v").await;
    let backup = stack.back_up("t", "b").await;
    assert_eq!(code(stack.begin_backup("t", "b", DAY).await), Code::AlreadyExists);
    assert_eq!(code(stack.begin_backup("absent", "c", DAY).await), Code::NotFound);
    assert_eq!(code(stack.begin_backup("t", "c", DAY * 91).await), Code::InvalidArgument);
    assert_eq!(code(stack.begin_backup("t", "c", Duration::from_secs(60)).await), Code::InvalidArgument);
    assert_eq!(code(stack.begin_restore(&backup, "t").await), Code::AlreadyExists);
    assert_eq!(code(stack.begin_restore(&format!("{backup}x"), "r").await), Code::NotFound);
    assert_eq!(code(stack.begin_undelete("t").await), Code::AlreadyExists);
    assert_eq!(code(stack.begin_undelete("absent").await), Code::NotFound);
    let request = admin::DeleteInstanceRequest { name: INSTANCE.to_owned() };
    let refused = stack.instance_admin().delete_instance(Request::new(request)).await;
    assert_eq!(code(refused), Code::FailedPrecondition);
    stack.close().await;
}

#[tokio::test]
async fn space_comes_back_when_nothing_names_a_checkpoint() {
    let fs = SimulatedFileSystem::new();
    let stack = open(&fs).await.unwrap();
    stack.fill("t", &["m"], "v").await;
    let backup = stack.back_up("t", "b").await;
    let request = admin::CopyBackupRequest {
        parent: stack.cluster().await,
        backup_id: "copy".to_owned(),
        source_backup: backup.clone(),
        expire_time: Some((SystemTime::now() + DAY * 20).into()),
    };
    let copied = stack.client.table_admin().copy_backup(request).await.unwrap().into_inner();
    assert!(copied.done);
    stack
        .client
        .table_admin()
        .delete_backup(admin::DeleteBackupRequest { name: backup.clone() })
        .await
        .unwrap();
    assert_eq!(code(stack.backup(&backup).await), Code::NotFound);
    assert_eq!(checkpoint_count(&fs), 1);
    stack.master.expire(SystemTime::now() + DAY * 19).await.unwrap();
    let copy = backup.replace("/b", "/copy").replace("/copyackups", "/backups");
    assert_eq!(stack.backup(&copy).await.unwrap().source_backup, backup);
    let ended = stack.restore(&copy, "r").await;
    assert!(matches!(ended.result, Some(Outcome::Response(_))), "{ended:?}");
    stack.intents_gone().await;
    stack.master.expire(SystemTime::now() + DAY * 21).await.unwrap();
    assert_eq!(code(stack.backup(&copy).await), Code::NotFound);
    assert_eq!(checkpoint_count(&fs), 0);
    stack.check_filled("r", "v", "its backup is gone").await;
    stack.close().await;
}

#[tokio::test]
async fn a_deleted_table_comes_back_for_a_while() {
    let fs = SimulatedFileSystem::new();
    let stack = open(&fs).await.unwrap();
    stack.fill("t", &["m"], "first").await;
    stack.delete("t").await;
    stack.fill("t", &[], "second").await;
    assert_eq!(code(stack.begin_undelete("t").await), Code::AlreadyExists);
    stack.delete("t").await;
    stack.close().await;

    let fs = fs.power_cut(3);
    let stack = open(&fs).await.unwrap();
    assert_eq!(checkpoint_count(&fs), 2);
    let begun = stack.begin_undelete("t").await.unwrap();
    let ended = stack.ended(begun).await;
    assert!(ended.metadata.unwrap().type_url.ends_with("UndeleteTableMetadata"));
    stack.check_filled("t", "second", "brought back").await;
    stack.intents_gone().await;
    assert_eq!(checkpoint_count(&fs), 1);
    stack.delete("t").await;
    stack.master.expire(SystemTime::now() + DAY * 8).await.unwrap();
    assert_eq!(code(stack.begin_undelete("t").await), Code::NotFound);
    assert_eq!(checkpoint_count(&fs), 0);
    stack.close().await;
}

#[tokio::test]
async fn without_time_to_bring_it_back_a_table_is_gone_at_once() {
    let fs = SimulatedFileSystem::new();
    let options = MasterOptions { undelete_time: Duration::ZERO, ..MasterOptions::default() };
    let stack = Stack::open_fleet(Arc::new(fs.clone()), Path::new(DIR), 1, |_| {}, options).await.unwrap();
    stack.fill("t", &[], "v").await;
    stack.delete("t").await;
    assert_eq!(code(stack.begin_undelete("t").await), Code::NotFound);
    assert_eq!(checkpoint_count(&fs), 0);
    stack.close().await;
}

/// Cuts the power at each file operation of `change`, on a disk that `prepare`
/// made; gives how the disk was found afterwards to `check`.
async fn cut_everywhere(
    prepare: impl AsyncFn(&Stack),
    change: impl AsyncFn(&Stack) -> bool,
    check: impl AsyncFn(&Stack, bool, &str),
) {
    for cut in 0.. {
        let fs = SimulatedFileSystem::new();
        let stack = open(&fs).await.unwrap();
        prepare(&stack).await;
        let begun = fs.operation_count();
        fs.set_faults(FaultPlan { cut_at: Some(begun + cut), ..FaultPlan::default() });
        let is_done = change(&stack).await;
        let is_past = fs.operation_count() <= begun + cut;
        drop(stack);

        let case = format!("cut at {cut}");
        let fs = fs.power_cut(cut);
        let stack = open(&fs).await.unwrap_or_else(|error| panic!("{case}: {error}"));
        check(&stack, is_done, &case).await;
        check_tablets(&stack, &case).await;
        stack.close().await;
        if is_past {
            assert!(is_done, "{case}");
            return;
        }
    }
}

/// Waits until what a start took up has ended.
async fn settled(stack: &Stack) {
    let request = || row_api::longrunning::ListOperationsRequest::default();
    let listed = stack.operations().list_operations(Request::new(request())).await.unwrap().into_inner();
    for operation in listed.operations {
        stack.ended(operation).await;
    }
}

#[tokio::test]
async fn a_backup_that_a_crash_cuts_off_is_finished_or_not_there() {
    cut_everywhere(
        async |stack| stack.fill("t", &["m"], "v").await,
        async |stack| {
            let Ok(begun) = stack.begin_backup("t", "b", DAY).await else { return false };
            let request = WaitOperationRequest { name: begun.name, timeout: None };
            let ended = stack.operations().wait_operation(Request::new(request)).await;
            ended.is_ok_and(|ended| matches!(ended.into_inner().result, Some(Outcome::Response(_))))
        },
        async |stack, is_done, case| {
            settled(stack).await;
            let backup = format!("{}/backups/b", stack.cluster().await);
            match stack.backup(&backup).await {
                Ok(found) => {
                    assert_eq!(found.state(), State::Ready, "{case}");
                    stack.restore(&backup, "r").await;
                    stack.check_filled("r", "v", case).await;
                }
                Err(error) => {
                    assert_eq!(error.code(), Code::NotFound, "{case}");
                    assert!(!is_done, "{case}");
                    stack.back_up("t", "b").await;
                }
            }
        },
    )
    .await;
}

#[tokio::test]
async fn a_deletion_that_a_crash_cuts_off_keeps_every_row() {
    cut_everywhere(
        async |stack| stack.fill("t", &["m"], "v").await,
        async |stack| {
            let request = admin::DeleteTableRequest { name: name("t").to_string() };
            stack.client.table_admin().delete_table(request).await.is_ok()
        },
        async |stack, is_done, case| {
            match stack.begin_undelete("t").await {
                Ok(begun) => {
                    assert!(matches!(stack.ended(begun).await.result, Some(Outcome::Response(_))), "{case}");
                }
                Err(error) => {
                    assert_eq!(error.code(), Code::AlreadyExists, "{case}");
                    assert!(!is_done, "{case}");
                }
            }
            stack.check_filled("t", "v", case).await;
        },
    )
    .await;
}

#[tokio::test]
async fn a_restore_that_a_crash_cuts_off_is_finished_or_leaves_nothing() {
    cut_everywhere(
        async |stack| {
            stack.fill("t", &["m"], "v").await;
            stack.back_up("t", "b").await;
        },
        async |stack| {
            let backup = format!("{}/backups/b", stack.cluster().await);
            let Ok(begun) = stack.begin_restore(&backup, "r").await else { return false };
            let request = WaitOperationRequest { name: begun.name, timeout: None };
            let ended = stack.operations().wait_operation(Request::new(request)).await;
            ended.is_ok_and(|ended| matches!(ended.into_inner().result, Some(Outcome::Response(_))))
        },
        async |stack, is_done, case| {
            settled(stack).await;
            if stack.master.table(&name("r")).await.is_err() {
                assert!(!is_done, "{case}");
                let backup = format!("{}/backups/b", stack.cluster().await);
                stack.restore(&backup, "r").await;
            }
            stack.check_filled("r", "v", case).await;
            stack.check_filled("t", "v", case).await;
        },
    )
    .await;
}
