//! The embedded service over a disk: restarts, power cuts, damage.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use cluster::lock_service::{EmbeddedLockService, Expect, LockError, LockService};
use vfs::simulated::{FaultPlan, Operation};
use vfs::{FileSystem, SimulatedFileSystem};

const DIR: &str = "/data/locks";

fn open(fs: &SimulatedFileSystem) -> Result<EmbeddedLockService, LockError> {
    EmbeddedLockService::open(Arc::new(fs.clone()), Path::new(DIR))
}

/// What the workload was told, and what it asked for last.
#[derive(Debug, Default)]
struct Witness {
    records: BTreeMap<String, Bytes>,
    number: u64,
    /// The change on its way: the key, and the value it would have.
    pending: Option<(String, Option<Bytes>)>,
}

impl Witness {
    async fn put(&mut self, service: &dyn LockService, key: &str, value: &str) -> Result<(), LockError> {
        let value = Bytes::copy_from_slice(value.as_bytes());
        self.pending = Some((key.to_owned(), Some(value.clone())));
        let revision = service.put(key, value.clone(), Expect::Anything).await?;
        assert!(revision.0 > self.number);
        self.number = revision.0;
        self.records.insert(key.to_owned(), value);
        self.pending = None;
        Ok(())
    }

    async fn delete(&mut self, service: &dyn LockService, key: &str) -> Result<(), LockError> {
        self.pending = Some((key.to_owned(), None));
        service.delete(key, Expect::Anything).await?;
        self.records.remove(key);
        self.pending = None;
        Ok(())
    }

    async fn lock(&mut self, service: &dyn LockService) -> Result<(), LockError> {
        let epoch = service.lock("server").await?.epoch().0;
        assert!(epoch > self.number);
        self.number = epoch;
        Ok(())
    }

    /// Every kind of change, over two openings.
    async fn work(&mut self, fs: &SimulatedFileSystem) -> Result<(), LockError> {
        let service = open(fs)?;
        self.lock(&service).await?;
        self.put(&service, "schema/a", "first").await?;
        self.put(&service, "schema/a", "a second, longer value").await?;
        self.put(&service, "schema/b", "b").await?;
        drop(service);
        let service = open(fs)?;
        self.delete(&service, "schema/a").await?;
        self.lock(&service).await?;
        self.put(&service, "schema/c", "").await?;
        self.delete(&service, "schema/b").await
    }

    async fn check(&self, fs: &SimulatedFileSystem) {
        let service = open(fs).unwrap();
        let found = service.list("").await.unwrap();
        let found: BTreeMap<_, _> = found.into_iter().map(|record| (record.key, record.value)).collect();
        let mut after = self.records.clone();
        match self.pending.clone() {
            Some((key, Some(value))) => after.insert(key, value),
            Some((key, None)) => after.remove(&key),
            None => None,
        };
        assert!(found == self.records || found == after, "{found:?} after {self:?}");
        let next = service.next_id().await.unwrap();
        assert!(next > self.number, "{next} came again: {self:?}");
    }
}

#[tokio::test]
async fn wherever_power_goes_answered_changes_stay_and_numbers_do_not_return() {
    let fs = SimulatedFileSystem::new();
    Witness::default().work(&fs).await.unwrap();
    let end = fs.operation_count();
    assert!(end > 40, "{end}");
    for cut_at in 0..=end {
        let fs = SimulatedFileSystem::new();
        fs.set_faults(FaultPlan { cut_at: Some(cut_at), ..FaultPlan::default() });
        let mut witness = Witness::default();
        assert_eq!(witness.work(&fs).await.is_ok(), cut_at == end);
        for seed in 0..40 {
            witness.check(&fs.power_cut(seed)).await;
        }
    }
}

#[tokio::test]
async fn wherever_an_operation_fails_answers_stay_true() {
    let fs = SimulatedFileSystem::new();
    Witness::default().work(&fs).await.unwrap();
    for fail_at in 0..fs.operation_count() {
        let fs = SimulatedFileSystem::new();
        fs.set_faults(FaultPlan { fail_at: Some(fail_at), ..FaultPlan::default() });
        let mut witness = Witness::default();
        assert!(witness.work(&fs).await.is_err());
        for seed in 0..10 {
            witness.check(&fs.power_cut(seed)).await;
        }
    }
}

#[tokio::test]
async fn a_second_opening_names_the_directory_that_is_held() {
    let fs = SimulatedFileSystem::new();
    let service = open(&fs).unwrap();
    let session = service.lock("server").await.unwrap();
    let error = open(&fs).unwrap_err();
    assert_eq!(error.to_string(), "/data/locks is held by another process");
    drop(service);
    assert!(matches!(open(&fs), Err(LockError::Held { .. })), "a session still relies on it");
    drop(session);
    open(&fs).unwrap();
}

#[tokio::test]
async fn a_restart_finds_every_record_with_its_revision() {
    let dir = tempfile::tempdir().unwrap();
    let open = || EmbeddedLockService::open(Arc::new(vfs::RealFileSystem), dir.path()).unwrap();
    let service = open();
    service.put("schema/a", Bytes::from_static(b"a"), Expect::Absent).await.unwrap();
    service.put("schema/b", Bytes::from(vec![7; 1 << 20]), Expect::Absent).await.unwrap();
    let records = service.list("").await.unwrap();
    drop(service);
    let service = open();
    assert_eq!(service.list("").await.unwrap(), records);
    service.delete("schema/a", Expect::At(records[0].revision)).await.unwrap();
}

#[tokio::test]
async fn damage_is_reported_with_its_path() {
    let record = Path::new("/data/locks/records/schema%2Fa");
    let counter = Path::new("/data/locks/counter");
    let stray = Path::new("/data/locks/records/stray");
    type Harm<'a> = &'a dyn Fn(&SimulatedFileSystem);
    let cases: [(&str, &Path, Harm<'_>); 5] = [
        ("checksum", record, &|fs| fs.flip_bit(record, 40, 3)),
        ("checksum", counter, &|fs| fs.flip_bit(counter, 20, 0)),
        ("missing", counter, &|fs| fs.remove(counter).unwrap()),
        ("its name says", stray, &|fs| fs.rename(record, stray).unwrap()),
        ("fewer than its header", stray, &|fs| drop(fs.create(stray).unwrap())),
    ];
    for (expected, path, harm) in cases {
        let fs = SimulatedFileSystem::new();
        let service = open(&fs).unwrap();
        service.put("schema/a", Bytes::from_static(b"value"), Expect::Absent).await.unwrap();
        drop(service);
        harm(&fs);
        let error = open(&fs).unwrap_err().to_string();
        let named = format!("{} is damaged: ", path.display());
        assert!(error.starts_with(&named) && error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn a_key_or_value_over_its_bound_is_refused() {
    let service = open(&SimulatedFileSystem::new()).unwrap();
    let long = "k".repeat(256);
    for (key, value) in [("", 0), (&long, 0), ("key", (1 << 20) + 1)] {
        let outcome = service.put(key, Bytes::from(vec![0; value]), Expect::Anything).await;
        assert!(matches!(outcome, Err(LockError::Refused { .. })), "{key:?}");
    }
    assert_eq!(service.list("").await.unwrap(), []);
}

#[tokio::test]
async fn a_full_disk_refuses_and_recovers() {
    let fs = SimulatedFileSystem::new();
    let service = open(&fs).unwrap();
    service.put("a", Bytes::from_static(b"a"), Expect::Absent).await.unwrap();
    fs.set_faults(FaultPlan { capacity_bytes: Some(100), ..FaultPlan::default() });
    let outcome = service.put("b", Bytes::from(vec![0; 1000]), Expect::Absent).await;
    assert!(matches!(&outcome, Err(LockError::Io(error)) if error.kind() == std::io::ErrorKind::StorageFull));
    service.delete("a", Expect::Anything).await.unwrap();
    fs.set_faults(FaultPlan::default());
    service.put("b", Bytes::from(vec![0; 1000]), Expect::Absent).await.unwrap();
}

#[tokio::test]
async fn nothing_changes_after_a_directory_failed_to_sync() {
    let fs = SimulatedFileSystem::new();
    let service = open(&fs).unwrap();
    service.put("a", Bytes::from_static(b"a"), Expect::Absent).await.unwrap();
    fs.set_faults(FaultPlan { failing: vec![Operation::Rename], ..FaultPlan::default() });
    assert!(matches!(service.put("a", Bytes::new(), Expect::Anything).await, Err(LockError::Io(_))));
    fs.set_faults(FaultPlan::default());
    let error = service.put("b", Bytes::new(), Expect::Anything).await.unwrap_err();
    assert!(matches!(error, LockError::Poisoned { .. }), "{error}");
    assert_eq!(service.get("a").await.unwrap().unwrap().value, "a");
}
