//! The table against a map, its limits, and its queues.

use std::collections::HashMap;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;

const NOW: u32 = 1_000_000_000;

fn new_table(memory_bytes_max: u64, seed: u64) -> ItemTable {
    ItemTable::new(memory_bytes_max, seed, Arc::default())
}

fn new_item(key: &[u8], value: &[u8], expires_at: u32) -> NewItem {
    NewItem {
        bytes: ItemBytes::copy(key, &[value]),
        key_bytes: u8::try_from(key.len()).unwrap(),
        client_flags: 0,
        expires_at,
        binary_key: false,
    }
}

fn put(table: &ItemTable, key: &[u8], value: &[u8], expires_at: u32, now: u32) -> u64 {
    let cas = table.slot(key, now).put(new_item(key, value, expires_at), None);
    table.relieve(now);
    cas
}

fn value_of(table: &ItemTable, key: &[u8], now: u32) -> Option<Vec<u8>> {
    table.slot(key, now).get().map(|item| item.value().to_vec())
}

/// Reaps to the end; how many items went.
fn reap(table: &ItemTable, now: u32) -> u64 {
    let before = table.statistics(now).counts.crawler_reclaimed;
    (0..table.shard_count()).for_each(|shard_index| while table.reap(shard_index, now) {});
    table.statistics(now).counts.crawler_reclaimed - before
}

/// What is true of a shard between calls.
fn check_accounts(table: &ItemTable) {
    let mut total = 0;
    for shard in &table.shards {
        let shard = shard.lock();
        shard.check();
        total += shard.memory_bytes();
    }
    assert_eq!(table.memory_bytes.load(Ordering::Relaxed), total);
}

#[test]
fn the_table_does_what_a_map_does() {
    for seed in 0..30 {
        let mut random = SmallRng::seed_from_u64(seed);
        let table = new_table(64 << 20, seed);
        let mut model: HashMap<Vec<u8>, (Vec<u8>, u32, u64)> = HashMap::new();
        let mut now = NOW;
        for step in 0..3000 {
            let key = format!("key{}", random.random_range(0..200)).into_bytes();
            model.retain(|_, (_, expires_at, _)| *expires_at == 0 || *expires_at > now);
            match random.random_range(0..100) {
                0..30 => {
                    let value = vec![random.random(); random.random_range(0..300)];
                    let expires_at = if random.random() { now + random.random_range(0..50) } else { 0 };
                    let cas = put(&table, &key, &value, expires_at, now);
                    model.insert(key, (value, expires_at, cas));
                }
                30..70 => {
                    let expected = model.get(&key).map(|(value, ..)| value.clone());
                    assert_eq!(value_of(&table, &key, now), expected, "seed {seed}, step {step}");
                }
                70..80 => {
                    let removed = table.slot(&key, now).remove();
                    assert_eq!(removed, model.remove(&key).is_some(), "seed {seed}, step {step}");
                }
                80..90 => {
                    let expires_at = now + random.random_range(0..30);
                    table.slot(&key, now).set_expiry(expires_at);
                    if let Some(entry) = model.get_mut(&key) {
                        entry.1 = expires_at;
                    }
                }
                90..95 => now += random.random_range(0..10),
                95..98 => {
                    reap(&table, now);
                }
                98 => {
                    table.flush(now, now);
                    model.clear();
                }
                _ => {
                    let cas = table.slot(&key, now).item().map(Item::cas);
                    assert_eq!(cas, model.get(&key).map(|(.., cas)| *cas), "seed {seed}, step {step}");
                }
            }
        }
        check_accounts(&table);
        reap(&table, now + 1000);
        let left = model.values().filter(|(_, expires_at, _)| *expires_at == 0).count();
        assert_eq!(table.statistics(now).item_count, left as u64, "seed {seed}");
        check_accounts(&table);
    }
}

#[test]
fn memory_stays_within_the_limit_whatever_the_sizes() {
    let mut random = SmallRng::seed_from_u64(1);
    let table = new_table(8 << 20, 1);
    for step in 0..60_000u32 {
        let key = format!("key{}", random.random_range(0..50_000));
        let size = if step % 500 == 0 { 500_000 } else { random.random_range(0..2000) };
        put(&table, key.as_bytes(), &vec![0; size], if random.random() { NOW + 100 } else { 0 }, NOW);
        assert!(table.statistics(NOW).memory_bytes <= 8 << 20, "step {step}");
    }
    check_accounts(&table);
    table.set_memory_bytes_max(4 << 20, NOW);
    assert!(table.statistics(NOW).memory_bytes <= 4 << 20);
    check_accounts(&table);
}

#[test]
fn an_item_costs_no_more_than_ninety_bytes_over_its_payload() {
    let table = new_table(64 << 20, 1);
    for number in 0..100_000 {
        put(&table, format!("key:{number:028}").as_bytes(), &[0; 100], 0, NOW);
    }
    let over = table.statistics(NOW).memory_bytes / 100_000 - (32 + 100);
    assert!((60..90).contains(&over), "{over} bytes");
}

#[test]
fn a_scan_does_not_evict_what_is_read_again_and_again() {
    let table = new_table(1 << 20, 1);
    for number in 0..20_000 {
        for hot in 0..100 {
            let key = format!("hot{hot}");
            if number % 50 == 0 && value_of(&table, key.as_bytes(), NOW).is_none() {
                put(&table, key.as_bytes(), &[0; 100], 0, NOW);
            }
        }
        put(&table, format!("scan{number}").as_bytes(), &[0; 100], 0, NOW);
    }
    let counts = table.statistics(NOW).counts;
    assert!(counts.evictions > 10_000);
    assert!(counts.get_misses < 500, "{counts:?}");
    check_accounts(&table);
}

#[test]
fn expired_items_are_removed_without_being_asked_for() {
    let table = new_table(64 << 20, 1);
    for number in 0..10_000u32 {
        put(&table, &number.to_be_bytes(), b"v", NOW + 1 + number % 100, NOW);
    }
    assert_eq!(reap(&table, NOW), 0);
    let reaped = reap(&table, NOW + 50);
    assert!((4000..=5000).contains(&reaped), "{reaped}");
    assert_eq!(reaped + reap(&table, NOW + 200), 10_000);
    assert_eq!(table.statistics(NOW + 200).item_count, 0);
    check_accounts(&table);
}

#[test]
fn flushed_items_are_removed_without_being_asked_for() {
    let table = new_table(64 << 20, 1);
    put(&table, b"before", b"v", 0, NOW);
    table.flush(NOW + 10, NOW);
    table.flush_if_due(NOW + 9);
    assert!(value_of(&table, b"before", NOW + 9).is_some());
    table.flush_if_due(NOW + 10);
    put(&table, b"after", b"v", 0, NOW + 10);
    assert_eq!(reap(&table, NOW + 10), 1);
    assert!(value_of(&table, b"before", NOW + 10).is_none());
    assert!(value_of(&table, b"after", NOW + 10).is_some());
    // Generations wrap; nothing comes back.
    for _ in 0..=u16::MAX {
        table.flush(NOW, NOW);
    }
    assert!(value_of(&table, b"after", NOW + 10).is_none());
    check_accounts(&table);
}

#[test]
fn threads_see_whole_values() {
    let table = new_table(2 << 20, 1);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let table = &table;
            scope.spawn(move || {
                let mut random = SmallRng::seed_from_u64(thread);
                for _ in 0..50_000 {
                    let number: u8 = random.random_range(0..100);
                    let key = format!("key{number}");
                    match random.random_range(0..10) {
                        0..4 => {
                            let size = random.random_range(0..40_000) / (1 + random.random_range(0..100));
                            put(table, key.as_bytes(), &vec![number; size], 0, NOW);
                        }
                        4..9 => {
                            let value = value_of(table, key.as_bytes(), NOW).unwrap_or_default();
                            assert!(value.iter().all(|byte| *byte == number));
                        }
                        _ => {
                            table.slot(key.as_bytes(), NOW).remove();
                        }
                    }
                }
            });
        }
    });
    assert!(table.statistics(NOW).memory_bytes <= 2 << 20);
    check_accounts(&table);
}

/// Keys drawn so that the one of rank r comes with probability ~ 1/r.
struct Zipf {
    cumulative: Vec<f64>,
}

impl Zipf {
    fn new(count: u32) -> Self {
        let mut total = 0.0;
        let sum = |rank| {
            total += 1.0 / f64::from(rank);
            total
        };
        Self { cumulative: (1..=count).map(sum).collect() }
    }

    fn draw(&self, random: &mut SmallRng) -> usize {
        let point = random.random_range(0.0..self.cumulative[self.cumulative.len() - 1]);
        self.cumulative.partition_point(|sum| *sum < point)
    }
}

#[test]
fn the_hit_rate_on_zipf_is_near_the_best_possible() {
    const KEY_COUNT: u32 = 100_000;
    let zipf = Zipf::new(KEY_COUNT);
    let mut random = SmallRng::seed_from_u64(1);
    // Room for about a tenth of the items.
    let table = new_table(u64::from(KEY_COUNT) / 10 * 214, 1);
    let draw_count = 500_000;
    for turn in 0..2 * draw_count {
        if turn == draw_count {
            table.reset_statistics();
        }
        let key = format!("key:{:028}", zipf.draw(&mut random));
        if value_of(&table, key.as_bytes(), NOW).is_none() {
            put(&table, key.as_bytes(), &[0; 100], 0, NOW);
        }
    }
    let statistics = table.statistics(NOW);
    let hits_percent = statistics.counts.get_hits * 100 / draw_count;
    // Holding the most frequent tenth for ever would give 81.
    eprintln!("{hits_percent} % of {} items", statistics.item_count);
    assert!(hits_percent >= 73, "{hits_percent} % with {} items", statistics.item_count);
}
