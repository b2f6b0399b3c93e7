use std::sync::Arc;

use cluster::{Epoch, ServerId};
use tablet_server::control::TabletControl;
use tablet_server::metadata::TabletRecord;
use tablet_server::row_set::RowRange;
use tablet_server::schema::TableId;
use tokio::time::Instant;
use tonic::Code;

use crate::stack::{Stack, set};

/// Takes the only tablet of `table` away from its server, and makes it, empty, elsewhere.
async fn move_tablet(stack: &Stack, table: TableId, to: &Arc<tablet_server::TabletServer>) {
    let served = stack.server.stats().into_iter().find(|stats| stats.assignment.table == table).unwrap();
    let assignment = tablet_server::control::Assignment { epoch: Epoch(1 << 40), ..served.assignment };
    stack.server.drop_tablet(assignment.tablet).await.unwrap();
    to.create_tablet(assignment.clone()).await.unwrap();
    let record = TabletRecord {
        tablet: assignment.tablet,
        table,
        range: RowRange::default(),
        epoch: assignment.epoch,
        server: Some(to.id().clone()),
    };
    stack.metadata.record(&[record]).await.unwrap();
}

#[tokio::test]
async fn a_stale_location_is_found_again_without_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::open(dir.path()).await;
    let other = stack.open_server("tablet-server-2", dir.path()).await;
    let table = stack.create("t", &[]).await;
    stack.put(&table, "r", "v").await;
    let id = stack.router.catalog().by_name(&table.to_string()).unwrap().id;
    move_tablet(&stack, id, &other).await;
    stack.put(&table, "s", "v").await;
    assert_eq!(stack.keys(&table).await, ["s"]);
    assert_eq!(other.stats().len(), 1);
    other.close().await.unwrap();
    stack.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_tablet_that_nobody_serves_is_unavailable_after_a_while() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::open(dir.path()).await;
    let table = stack.create("t", &[]).await;
    stack.put(&table, "r", "v").await;
    for stats in stack.server.stats() {
        if stats.assignment.table != tablet_server::metadata::METADATA_TABLE {
            stack.server.drop_tablet(stats.assignment.tablet).await.unwrap();
        }
    }
    let begun = Instant::now();
    let error = stack.client.mutate_row(&table, b"r", vec![set("f", "q", "v")]).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(begun.elapsed().as_secs() >= 1);
    let answers =
        stack.client.mutate_rows(&table, vec![(b"r".to_vec(), vec![set("f", "q", "v")])]).await.unwrap();
    assert_eq!(answers[0].as_ref().unwrap_err().code(), Code::Unavailable);
    assert_eq!(stack.client.read_row(&table, b"r").await.unwrap_err().code(), Code::Unavailable);
    stack.close().await;
}

impl Stack {
    async fn open_server(&self, id: &str, dir: &std::path::Path) -> Arc<tablet_server::TabletServer> {
        let options = tablet_server::TabletServerOptions::new(ServerId(id.to_owned()), dir.join(id));
        let fs = Arc::new(vfs::RealFileSystem);
        let catalog = Arc::clone(self.router.catalog());
        let clock = tablet_server::system_clock();
        let server = tablet_server::TabletServer::open(options, fs, &*self.lock_service, catalog, clock);
        let server = server.await.unwrap();
        self.servers.join(Arc::clone(&server));
        server
    }
}
