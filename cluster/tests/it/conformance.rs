//! What every lock service does. An implementation joins by a module with a
//! `service()` that gives a fresh, empty one.

use std::sync::Arc;

use bytes::Bytes;
use cluster::lock_service::{EmbeddedLockService, Expect, LockError, LockService, Revision};

macro_rules! conformance {
    ($($name:ident),* $(,)?) => {
        mod embedded_conforms {
            $(#[tokio::test]
            async fn $name() {
                let dir = tempfile::tempdir().unwrap();
                super::$name(super::embedded(dir.path())).await;
            })*
        }
    };
}

conformance!(
    a_record_is_read_as_it_was_put,
    a_change_needs_the_record_to_be_as_expected,
    a_revision_never_comes_again,
    records_are_listed_by_prefix_in_key_order,
    a_deleted_record_is_gone,
    compare_and_set_loses_no_update,
    one_of_many_gets_the_lock,
    a_later_holding_has_a_later_epoch,
    ids_and_epochs_only_grow,
    a_key_may_hold_anything,
);

fn embedded(dir: &std::path::Path) -> Arc<dyn LockService> {
    Arc::new(EmbeddedLockService::open(Arc::new(vfs::RealFileSystem), dir).unwrap())
}

fn value(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

async fn a_record_is_read_as_it_was_put(service: Arc<dyn LockService>) {
    assert_eq!(service.get("schema/webtable").await.unwrap(), None);
    let revision = service.put("schema/webtable", value("one"), Expect::Absent).await.unwrap();
    let record = service.get("schema/webtable").await.unwrap().unwrap();
    assert_eq!((&*record.key, record.value, record.revision), ("schema/webtable", value("one"), revision));
    service.put("schema/empty", Bytes::new(), Expect::Anything).await.unwrap();
    assert_eq!(service.get("schema/empty").await.unwrap().unwrap().value, Bytes::new());
}

async fn a_change_needs_the_record_to_be_as_expected(service: Arc<dyn LockService>) {
    let stale = Revision(0);
    for expect in [Expect::At(stale), Expect::Anything] {
        let outcome = service.delete("key", expect).await;
        assert_eq!(outcome.is_ok(), expect == Expect::Anything);
    }
    assert!(service.put("key", value("x"), Expect::At(stale)).await.is_err());
    let first = service.put("key", value("first"), Expect::Absent).await.unwrap();
    let conflict = service.put("key", value("x"), Expect::Absent).await.unwrap_err();
    assert!(matches!(&conflict, LockError::Conflict { key } if key == "key"), "{conflict}");
    let second = service.put("key", value("second"), Expect::At(first)).await.unwrap();
    for expect in [Expect::At(first), Expect::Absent] {
        assert!(matches!(service.put("key", value("x"), expect).await, Err(LockError::Conflict { .. })));
        assert!(matches!(service.delete("key", expect).await, Err(LockError::Conflict { .. })));
    }
    let record = service.get("key").await.unwrap().unwrap();
    assert_eq!((record.value, record.revision), (value("second"), second));
    service.put("key", value("third"), Expect::Anything).await.unwrap();
    assert_eq!(service.get("key").await.unwrap().unwrap().value, value("third"));
}

async fn a_revision_never_comes_again(service: Arc<dyn LockService>) {
    let mut last = Revision(0);
    for _ in 0..5 {
        let revision = service.put("key", value("same"), Expect::Absent).await.unwrap();
        assert!(revision > last);
        last = service.put("key", value("same"), Expect::At(revision)).await.unwrap();
        assert!(last > revision);
        service.delete("key", Expect::At(last)).await.unwrap();
    }
}

async fn records_are_listed_by_prefix_in_key_order(service: Arc<dyn LockService>) {
    for key in ["b/1", "a/2", "a/10", "a", "aa", "a/1"] {
        service.put(key, value("x"), Expect::Absent).await.unwrap();
    }
    for (prefix, expected) in [
        ("a/", &["a/1", "a/10", "a/2"][..]),
        ("a", &["a", "a/1", "a/10", "a/2", "aa"]),
        ("", &["a", "a/1", "a/10", "a/2", "aa", "b/1"]),
        ("c", &[]),
    ] {
        let listed = service.list(prefix).await.unwrap();
        let keys: Vec<&str> = listed.iter().map(|record| &*record.key).collect();
        assert_eq!(keys, expected, "{prefix:?}");
    }
}

async fn a_deleted_record_is_gone(service: Arc<dyn LockService>) {
    service.put("key", value("x"), Expect::Absent).await.unwrap();
    service.delete("key", Expect::Anything).await.unwrap();
    service.delete("key", Expect::Absent).await.unwrap();
    assert_eq!(service.get("key").await.unwrap(), None);
    assert_eq!(service.list("").await.unwrap(), []);
}

async fn compare_and_set_loses_no_update(service: Arc<dyn LockService>) {
    service.put("count", value("0"), Expect::Absent).await.unwrap();
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let service = Arc::clone(&service);
            tokio::spawn(async move {
                let mut done = 0;
                while done < 10 {
                    let record = service.get("count").await.unwrap().unwrap();
                    let count: u32 = std::str::from_utf8(&record.value).unwrap().parse().unwrap();
                    let next = Bytes::from((count + 1).to_string());
                    match service.put("count", next, Expect::At(record.revision)).await {
                        Ok(_) => done += 1,
                        Err(LockError::Conflict { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(service.get("count").await.unwrap().unwrap().value, value("40"));
}

async fn one_of_many_gets_the_lock(service: Arc<dyn LockService>) {
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let service = Arc::clone(&service);
            tokio::spawn(async move { service.lock("master").await })
        })
        .collect();
    let mut sessions = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            Ok(session) => sessions.push(session),
            Err(LockError::Held { name }) => assert_eq!(name, "master"),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(sessions.len(), 1);
    service.lock("another").await.unwrap();
}

async fn a_later_holding_has_a_later_epoch(service: Arc<dyn LockService>) {
    let first = service.lock("master").await.unwrap();
    let epoch = first.epoch();
    assert!(matches!(service.lock("master").await, Err(LockError::Held { .. })));
    drop(first);
    assert!(service.lock("master").await.unwrap().epoch() > epoch);
}

async fn ids_and_epochs_only_grow(service: Arc<dyn LockService>) {
    let mut last = 0;
    for round in 0..3000 {
        let next = if round % 100 == 0 {
            service.lock("server").await.unwrap().epoch().0
        } else {
            service.next_id().await.unwrap()
        };
        assert!(next > last, "{next} after {last}");
        last = next;
    }
}

async fn a_key_may_hold_anything(service: Arc<dyn LockService>) {
    let keys = [".", "..", ".new", "a b", "a%2Fb", "a/b", "\u{e9}t\u{e9}/\n", "\0"];
    for key in keys {
        service.put(key, Bytes::copy_from_slice(key.as_bytes()), Expect::Absent).await.unwrap();
    }
    for key in keys {
        assert_eq!(service.get(key).await.unwrap().unwrap().value, key.as_bytes(), "{key:?}");
    }
    assert_eq!(service.list("").await.unwrap().len(), keys.len());
}
