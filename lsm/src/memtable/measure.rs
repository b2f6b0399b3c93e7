//! Costs of a memtable's operations beside those of the list that it was made
//! of before, `crossbeam_skiplist::SkipMap` with keys and values that are slices
//! of their batches: `cargo test --release -p lsm -- --ignored --nocapture costs_of_a_memtable`.

use std::sync::Arc;

use bytes::Bytes;
use crossbeam_skiplist::SkipMap;

use super::Memtable;
use crate::FilterKey;
use crate::internal_key::{Kind, LookupKey, SEQUENCE_MAX};
use crate::sstable::measure::measure;
use crate::sstable::testing::Random;

const ENTRIES: u32 = 500_000;
const VALUE: [u8; 100] = [7; 100];

fn keys(order: &str) -> Vec<[u8; 24]> {
    let mut random = Random::new(1);
    let key = |number: u64| {
        let digits = format!("user{number:020}");
        *digits.as_bytes().first_chunk().expect("24 digits")
    };
    (0..ENTRIES.into()).map(|i| key(if order == "in order" { i } else { random.number() })).collect()
}

/// Pages of anonymous memory.
fn anonymous_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: Vec<usize> = statm.split(' ').skip(1).take(2).map(|pages| pages.parse().unwrap()).collect();
    (pages[0] - pages[1]) * 4096
}

#[test]
#[ignore = "prints figures, checks nothing"]
fn costs_of_a_memtable() {
    for order in ["in no order", "in order"] {
        let keys = keys(order);
        println!("{ENTRIES} entries of 24 + 100 bytes, inserted {order}");
        measure_memtable(&keys);
        measure_skip_map(&keys);
    }
}

fn measure_memtable(keys: &[[u8; 24]]) {
    let before = anonymous_bytes();
    let memtable = Arc::new(Memtable::new());
    measure("insert", ENTRIES, || {
        for (sequence, key) in (1..).zip(keys) {
            memtable.insert(key, sequence, Kind::Put, &VALUE);
        }
    });
    println!("{:28} {:8}", "bytes an entry", (anonymous_bytes() - before) / ENTRIES as usize);
    println!("{:28} {:8}", "bytes charged an entry", memtable.bytes() / ENTRIES as usize);
    measure("get", ENTRIES, || {
        for key in keys.iter().rev() {
            let found = memtable.get(&LookupKey::new(key, SEQUENCE_MAX, FilterKey::WholeKey));
            assert_eq!(found.expect("it was inserted").value.len(), VALUE.len());
        }
    });
    let mut cursor = memtable.cursor();
    measure("next", ENTRIES, || {
        let mut is_on = cursor.seek_to_first();
        while is_on {
            assert_eq!(cursor.value().len(), VALUE.len());
            is_on = cursor.next();
        }
    });
    measure("prev", ENTRIES, || {
        let mut is_on = cursor.seek_to_last();
        while is_on {
            is_on = cursor.prev();
        }
    });
    drop(cursor);
    measure("drop", ENTRIES, || drop(memtable));
}

fn measure_skip_map(keys: &[[u8; 24]]) {
    println!("SkipMap");
    let before = anonymous_bytes();
    let map = SkipMap::<(Bytes, u64), Bytes>::new();
    measure("insert", ENTRIES, || {
        for (age, key) in (1..).zip(keys) {
            let batch = Bytes::from([&key[..], &VALUE[..]].concat());
            map.insert((batch.slice(..key.len()), age), batch.slice(key.len()..));
        }
    });
    println!("{:28} {:8}", "bytes an entry", (anonymous_bytes() - before) / ENTRIES as usize);
    measure("get", ENTRIES, || {
        for (at, key) in keys.iter().enumerate().rev() {
            let sought = (Bytes::copy_from_slice(key), at as u64 + 1);
            let entry = map.lower_bound(std::ops::Bound::Included(&sought));
            assert_eq!(entry.expect("it was inserted").value().clone().len(), VALUE.len());
        }
    });
    measure("next", ENTRIES, || assert!(map.iter().all(|entry| entry.value().len() == VALUE.len())));
    measure("prev", ENTRIES, || assert!(map.iter().rev().all(|entry| entry.value().len() == VALUE.len())));
    measure("drop", ENTRIES, || drop(map));
}
