use std::time::{Duration, Instant};

use crate::stack::{Stack, set};

#[tokio::test]
async fn tables_and_rows_come_back() {
    let dir = tempfile::tempdir().unwrap();
    for life in 0..3 {
        let stack = Stack::open(dir.path()).await;
        let table = match life {
            0 => stack.create("t", &["m"]).await,
            _ => crate::stack::name("t"),
        };
        for earlier in 0..life {
            for row in ["a", "z"] {
                let value = stack.value(&table, &format!("{row}{earlier}")).await;
                assert_eq!(value, Some(format!("life {earlier}")));
            }
        }
        for row in ["a", "z"] {
            stack.put(&table, &format!("{row}{life}"), &format!("life {life}")).await;
        }
        stack.close().await;
    }
}

#[tokio::test]
async fn a_thousand_tablets_are_served_again_within_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let splits: Vec<String> = (1..1_000).map(|n| format!("{n:04}")).collect();
    let splits: Vec<&str> = splits.iter().map(String::as_str).collect();
    let stack = Stack::open(dir.path()).await;
    let table = stack.create("t", &splits).await;
    let rows = splits.iter().map(|key| (key.as_bytes().to_vec(), vec![set("f", "q", "v")]));
    assert!(stack.client.mutate_rows(&table, rows.collect()).await.unwrap().iter().all(Result::is_ok));
    stack.close().await;
    let begun = Instant::now();
    let stack = Stack::open(dir.path()).await;
    let took = begun.elapsed();
    assert_eq!(stack.value(&table, "0500").await.as_deref(), Some("v"));
    assert_eq!(stack.keys(&table).await, splits);
    println!("1000 tablets served again after {took:?}");
    // A loaded machine may be slow; a start that is quadratic in the tablets is not this fast.
    assert!(took < Duration::from_secs(10), "{took:?}");
    stack.close().await;
}

#[tokio::test]
async fn a_second_server_on_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::open(dir.path()).await;
    let fs = std::sync::Arc::new(vfs::RealFileSystem);
    assert!(Stack::open_on(fs, dir.path(), |_| {}).await.is_err());
    stack.close().await;
}
