use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use cluster::lock_service::embedded::EmbeddedLockService;
use cluster::{Epoch, ServerId};
use row_api::data;
use row_api::data::mutation::{Mutation as Kind, SetCell};
use tablet_server::control::{Assignment, TabletControl};
use tablet_server::filter::Filter;
use tablet_server::mutation::RowMutations;
use tablet_server::row_scan::ScanOptions;
use tablet_server::row_server::{ReadRequest, RowSample, RowServer};
use tablet_server::row_set::{RowRange, RowSet};
use tablet_server::schema::{Family, FamilyId, TableId, TableSchema, TabletId};
use tablet_server::{Catalog, Error, TabletServer, TabletServerOptions};
use vfs::SimulatedFileSystem;

const TABLET: TabletId = TabletId(7);

async fn open(fs: &SimulatedFileSystem) -> Arc<TabletServer> {
    open_with(fs, |_| {}).await
}

async fn open_with(
    fs: &SimulatedFileSystem,
    adjust: impl FnOnce(&mut TabletServerOptions),
) -> Arc<TabletServer> {
    let dir = Path::new("/data");
    let fs: Arc<dyn vfs::FileSystem> = Arc::new(fs.clone());
    fs.create_dir_all(dir).unwrap();
    let lock_service = EmbeddedLockService::open(Arc::clone(&fs), &dir.join("lock")).unwrap();
    let id = ServerId("tablet-server-1".to_owned());
    let mut options = TabletServerOptions::new(id, dir.join("tablets"));
    adjust(&mut options);
    TabletServer::open(options, fs, &lock_service, Arc::new(Catalog::new()), Arc::new(|| 5_000))
        .await
        .unwrap()
}

fn assignment(start: &'static str, end: &'static str) -> Assignment {
    Assignment {
        tablet: TABLET,
        table: TableId(1),
        range: RowRange { start: start.into(), end: end.into() },
        epoch: Epoch(1),
    }
}

fn schema() -> Arc<TableSchema> {
    Arc::new(TableSchema {
        families: [("f".to_owned(), Family::new(FamilyId(1)))].into(),
        next_family_id: FamilyId(2),
        ..TableSchema::new(TableId(1))
    })
}

fn write(row: &'static str) -> RowMutations {
    write_value(row.into(), "v".into())
}

fn write_value(row: Bytes, value: Bytes) -> RowMutations {
    let cell = SetCell { family_name: "f".to_owned(), value, ..SetCell::default() };
    let mutation = data::Mutation::from(Kind::SetCell(cell));
    RowMutations::check(&schema(), "mutations", row, vec![mutation]).unwrap()
}

fn read(range: &RowRange) -> ReadRequest {
    ReadRequest {
        rows: RowSet::all().clip(range),
        filter: Filter::compile("filter", None, &schema()).unwrap(),
        options: ScanOptions::default(),
        schema: schema(),
    }
}

async fn keys(server: &TabletServer) -> Vec<Bytes> {
    let range = server.stats()[0].assignment.range.clone();
    let mut scan = server.scan(TABLET, read(&range)).await.unwrap();
    let mut keys = Vec::new();
    loop {
        let batch = scan.next_rows(1).await.unwrap();
        keys.extend(batch.rows.into_iter().map(|row| row.key));
        if batch.done {
            return keys;
        }
    }
}

fn is_not_served<T>(outcome: &Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::NotServed { tablet: TABLET }))
}

#[tokio::test]
async fn rows_outside_of_the_tablet_are_refused_before_anything_is_written() {
    let server = open(&SimulatedFileSystem::new()).await;
    server.create_tablet(assignment("b", "d")).await.unwrap();
    assert!(is_not_served(&server.mutate_row(TABLET, &write("a")).await));
    let outcomes = server.mutate_rows(TABLET, &[write("b"), write("d"), write("c")]).await.unwrap();
    let results: Vec<_> =
        outcomes.iter().map(|outcome| (outcome.rows.clone(), outcome.result.is_ok())).collect();
    assert_eq!(results, [(0..1, true), (1..2, false), (2..3, true)]);
    assert_eq!(keys(&server).await, ["b", "c"]);
    assert!(is_not_served(&server.scan(TABLET, read(&RowRange::default())).await.map(drop)));
    assert!(is_not_served(&server.read_row(TABLET, b"x", &read(&RowRange::default())).await));
    server.close().await.unwrap();
}

#[tokio::test]
async fn a_tablet_is_loaded_only_where_its_data_is() {
    let fs = SimulatedFileSystem::new();
    let server = open(&fs).await;
    assert!(matches!(server.load_tablet(assignment("", "")).await, Err(Error::DataMissing { .. })));
    server.create_tablet(assignment("", "")).await.unwrap();
    server.mutate_row(TABLET, &write("a")).await.unwrap();
    server.close().await.unwrap();
    assert!(is_not_served(&server.mutate_row(TABLET, &write("b")).await));
    drop(server);
    let server = open(&fs.power_cut(1)).await;
    assert!(is_not_served(&server.mutate_row(TABLET, &write("b")).await));
    server.load_tablet(Assignment { epoch: Epoch(2), ..assignment("", "") }).await.unwrap();
    assert_eq!(keys(&server).await, ["a"]);
    server.close().await.unwrap();
}

#[tokio::test]
async fn a_dropped_tablet_is_gone_and_dropping_it_again_is_no_error() {
    let server = open(&SimulatedFileSystem::new()).await;
    server.create_tablet(assignment("", "")).await.unwrap();
    server.create_tablet(assignment("", "")).await.unwrap();
    server.mutate_row(TABLET, &write("a")).await.unwrap();
    for _ in 0..2 {
        server.drop_tablet(TABLET).await.unwrap();
        assert!(is_not_served(&server.mutate_row(TABLET, &write("b")).await));
    }
    assert!(server.engine().trees().is_empty());
    server.close().await.unwrap();
}

#[tokio::test]
async fn a_range_is_dropped_within_the_tablet_to_the_last_possible_row() {
    let server = open(&SimulatedFileSystem::new()).await;
    server.create_tablet(assignment("b", "")).await.unwrap();
    let last = Box::leak(Box::new([u8::MAX; 4 << 10]));
    let cell = SetCell { family_name: "f".to_owned(), ..SetCell::default() };
    let mutation = data::Mutation::from(Kind::SetCell(cell));
    let last = RowMutations::check(&schema(), "mutations", Bytes::from_static(last), vec![mutation]).unwrap();
    for row in [write("b"), write("c"), last] {
        server.mutate_row(TABLET, &row).await.unwrap();
    }
    let from_c = RowRange { start: "c".into(), end: Bytes::new() };
    server.drop_row_range(TABLET, from_c).await.unwrap();
    assert_eq!(keys(&server).await, ["b"]);
    server.close().await.unwrap();
}

#[tokio::test]
async fn samples_part_the_rows_asked_for_and_end_with_their_end() {
    let server = open_with(&SimulatedFileSystem::new(), |options| options.sample_bytes = 100_000).await;
    server.create_tablet(assignment("000", "999")).await.unwrap();
    let rows = |start, end| RowRange { start, end };
    let whole = rows("000".into(), "999".into());
    let empty = server.sample(TABLET, &whole).await.unwrap();
    assert_eq!(empty, [RowSample { row: "999".into(), bytes_before: 0 }]);
    // Of values that do not get smaller on disk.
    let value = |row: u64| {
        (0..125).flat_map(move |i| (row * 125 + i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
    };
    let written: Vec<_> =
        (0..900).map(|row| write_value(format!("{row:03}").into(), value(row).collect())).collect();
    assert!(server.mutate_rows(TABLET, &written).await.unwrap().iter().all(|outcome| outcome.result.is_ok()));
    for is_flushed in [false, true] {
        if is_flushed {
            server.engine().trees()[0].flush().unwrap();
        }
        let samples = server.sample(TABLET, &whole).await.unwrap();
        assert!((8..=12).contains(&samples.len()), "{samples:?}");
        assert!(samples.is_sorted_by(|a, b| a.row < b.row && a.bytes_before <= b.bytes_before));
        assert_eq!(samples.last().unwrap().row, "999");
        let total = samples.last().unwrap().bytes_before;
        for RowSample { row, bytes_before } in &samples[..samples.len() - 1] {
            let expected = total * std::str::from_utf8(&row[..3]).unwrap().parse::<u64>().unwrap() / 900;
            assert!(bytes_before.abs_diff(expected) < total / 10, "{samples:?}");
        }
        let part = server.sample(TABLET, &rows("300".into(), "600x".into())).await.unwrap();
        assert!(part.len() < samples.len() && part.iter().all(|sample| sample.row > "300"), "{part:?}");
        assert_eq!(part.last().unwrap().row, "600x");
    }
    assert!(is_not_served(&server.sample(TABLET, &RowRange::default()).await));
    server.close().await.unwrap();
}
