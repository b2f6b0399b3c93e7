//! Leases as clients and the process see them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use cache_proxy::lease::{CacheKey, CachedValue, Found, Lookup};
use cache_proxy::{Cache, CacheOptions, SystemClock};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::house::House;

/// A client that reads whole answers.
struct LeaseClient(BufReader<TcpStream>);

/// What lease-get says of a key.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Hit(String),
    Miss { token: u64, stale: String },
}

impl LeaseClient {
    fn new(house: &House) -> Self {
        Self(BufReader::new(house.client().0))
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn say(&mut self, text: &str) -> String {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
        self.line()
    }

    fn get(&mut self, key: &str) -> Answer {
        let line = self.say(&format!("lease-get {key}\r\n"));
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words[1], key);
        let mut value = vec![0; words.last().unwrap().parse::<usize>().unwrap() + 2];
        self.0.read_exact(&mut value).unwrap();
        let value = String::from_utf8(value).unwrap().trim_end().to_owned();
        assert_eq!(self.line(), "END");
        match words[0] {
            "VALUE" => Answer::Hit(value),
            "LVALUE" => Answer::Miss { token: words[2].parse().unwrap(), stale: value },
            word => panic!("{word}"),
        }
    }

    fn token(&mut self, key: &str) -> u64 {
        match self.get(key) {
            Answer::Miss { token, .. } => token,
            hit @ Answer::Hit(_) => panic!("{hit:?}"),
        }
    }

    fn set(&mut self, key: &str, token: u64, value: &str) -> String {
        self.say(&format!("lease-set {key} {token} 7 0 {}\r\n{value}\r\n", value.len()))
    }
}

fn hit(value: &str) -> Answer {
    Answer::Hit(value.to_owned())
}

#[test]
fn the_first_miss_gets_a_token_and_the_others_wait() {
    let house = House::open(CacheOptions::default());
    let mut client = LeaseClient::new(&house);
    let token = client.token("k");
    assert!(token > 1);
    assert_eq!(client.get("k"), Answer::Miss { token: 1, stale: String::new() });
    assert_eq!(client.set("k", token, "value"), "STORED");
    assert_eq!(client.get("k"), hit("value"));
    // The holder that never comes back is waited for ten seconds.
    let lost = client.token("other");
    house.clock.advance(9);
    assert_eq!(client.token("other"), 1);
    house.clock.advance(1);
    let token = client.token("other");
    assert!(token > 1 && token != lost);
    assert_eq!(client.set("other", lost, "late"), "NOT_STORED");
    assert_eq!(client.set("other", token, "value"), "STORED");
}

#[test]
fn a_change_voids_the_token_even_with_nothing_cached() {
    let house = House::open(CacheOptions::default());
    let mut client = LeaseClient::new(&house);
    for (change, answer) in [
        ("delete k\r\n", "NOT_FOUND"),
        ("md k q\r\nmn\r\n", "NF"),
        ("flush_all\r\n", "OK"),
        ("set k 0 -1 1\r\nx\r\n", "STORED"),
        ("set k 0 0 1\r\nx\r\ndelete k\r\n", "STORED"),
    ] {
        let token = client.token("k");
        assert_eq!(client.say(change), answer);
        if change.ends_with("mn\r\n") || change.ends_with("delete k\r\n") && answer == "STORED" {
            client.line();
        }
        let refusal = client.set("k", token, "old");
        assert!(refusal == "NOT_STORED" || refusal == "STALE_STORED", "{change:?}: {refusal}");
        assert_eq!(client.say("get k\r\n"), "END", "{change:?}");
        client.say("flush_all\r\n");
    }
}

#[test]
fn a_void_token_does_not_replace_what_is_newer() {
    let house = House::open(CacheOptions::default());
    let mut client = LeaseClient::new(&house);
    let token = client.token("k");
    client.say("set k 0 0 3\r\nnew\r\n");
    assert_eq!(client.set("k", token, "old"), "STORED");
    assert_eq!(client.get("k"), hit("new"));
}

#[test]
fn a_deleted_value_is_served_as_stale_for_a_while() {
    let house = House::open(CacheOptions::default());
    let mut client = LeaseClient::new(&house);
    client.say("set k 0 0 3\r\nold\r\n");
    assert_eq!(client.say("delete k\r\n"), "DELETED");
    assert_eq!(client.say("delete k\r\n"), "NOT_FOUND");
    assert_eq!(client.say("get k\r\n"), "END");
    assert_eq!(client.say("mg k v\r\n"), "EN");
    assert_eq!(client.say("append k 0 0 1\r\nx\r\n"), "NOT_STORED");
    assert_eq!(client.say("incr k 1\r\n"), "NOT_FOUND");
    let Answer::Miss { token, stale } = client.get("k") else { panic!("it was deleted") };
    assert_eq!(stale, "old");
    assert_eq!(client.get("k"), Answer::Miss { token: 1, stale: "old".to_owned() });
    // Void, but better than what is there; and still stale.
    client.say("delete k\r\n");
    assert_eq!(client.set("k", token, "less old"), "STALE_STORED");
    assert_eq!(client.say("get k\r\n"), "END");
    let Answer::Miss { token, stale } = client.get("k") else { panic!("it was deleted") };
    assert_eq!(stale, "less old");
    assert_eq!(house.cache.statistics().item_count, 0);
    house.clock.advance(10);
    assert_eq!(client.get("k"), Answer::Miss { token: token + 1, stale: String::new() });
}

#[test]
fn a_value_marked_stale_by_meta_is_leased() {
    let house = House::open(CacheOptions::default());
    let mut client = LeaseClient::new(&house);
    client.say("set k 0 0 3\r\nold\r\n");
    assert_eq!(client.say("md k I T30\r\n"), "HD");
    let Answer::Miss { token, stale } = client.get("k") else { panic!("it is stale") };
    assert_eq!(stale, "old");
    assert_eq!(client.set("k", token, "new"), "STORED");
    assert_eq!(client.get("k"), hit("new"));
    assert_eq!(client.say("mg k\r\n"), "HD");
}

#[test]
fn a_delete_with_a_hold_off_refuses_adds_and_tokens() {
    let house = House::open(CacheOptions::default());
    let mut client = LeaseClient::new(&house);
    client.say("set k 0 0 1\r\nv\r\n");
    assert_eq!(client.say("delete k 2\r\n"), "DELETED");
    assert_eq!(client.say("add k 0 0 1\r\nx\r\n"), "NOT_STORED");
    assert_eq!(client.say("ms k 1 ME\r\nx\r\n"), "NS");
    assert_eq!(client.token("k"), 1);
    house.clock.advance(2);
    assert_eq!(client.say("add k 0 0 1\r\nx\r\n"), "STORED");
    assert_eq!(client.say("delete never 2\r\n"), "NOT_FOUND");
    assert_eq!(client.say("add never 0 0 1\r\nx\r\n"), "NOT_STORED");
    assert_eq!(client.say("set never 0 0 1\r\nx\r\n"), "STORED");
    assert!(client.say("delete k 3601\r\n").starts_with("CLIENT_ERROR"));
}

#[test]
fn lease_lines_that_are_wrong_are_refused() {
    let house = House::open(CacheOptions::default());
    let mut client = LeaseClient::new(&house);
    assert_eq!(client.say("lease-get\r\n"), "ERROR");
    assert_eq!(client.say("lease-set k 5 0 0\r\n"), "ERROR");
    assert_eq!(client.say("lease-set k x 0 0 1\r\n"), "CLIENT_ERROR bad command line format");
    assert_eq!(client.set("k", 0, "v"), "NOT_STORED");
    assert_eq!(client.set("k", 1, "v"), "NOT_STORED");
    assert_eq!(client.set("k", u64::MAX, "v"), "NOT_STORED");
    assert_eq!(client.say("lease-set k 5 0 0 1 noreply\r\nv\r\nmn\r\n"), "MN");
    client.0.get_mut().write_all(b"lease-set k 5 0 0 1\r\nvv\r\n").unwrap();
    assert_eq!(client.line(), "CLIENT_ERROR bad data chunk");
}

#[test]
fn leases_of_countless_keys_take_bounded_memory() {
    let house = House::open(CacheOptions { memory_bytes_max: 8 << 20, ..CacheOptions::default() });
    let mut client = house.client();
    for batch in 0..200 {
        let lines: String =
            (0..1000).map(|number| format!("lease-get a-key-of-some-length:{batch}:{number} \r\n")).collect();
        client.send(format!("{lines}mn\r\n").as_bytes());
        let mut reader = BufReader::new(&client.0);
        let mut line = String::new();
        while line != "MN\r\n" {
            line.clear();
            reader.read_line(&mut line).unwrap();
        }
    }
    let statistics = house.cache.statistics();
    assert!((1000..20_000).contains(&statistics.lease_count), "{statistics:?}");
    assert!(statistics.memory_bytes < 3 << 20, "{statistics:?}");
}

fn value(number: u64) -> Found {
    let value = Bytes::from(number.to_string());
    Found::Value(CachedValue { value, client_flags: 0, expires_at: 0, cas: 0 })
}

fn number(found: &Found) -> u64 {
    let Found::Value(found) = found else { panic!("{found:?}") };
    std::str::from_utf8(&found.value).unwrap().parse().unwrap()
}

fn key(bytes: &[u8]) -> CacheKey<'_> {
    CacheKey::new(bytes).unwrap()
}

fn cache() -> Cache {
    Cache::new(CacheOptions::default(), Arc::new(SystemClock::new())).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_herd_on_a_cold_key_reads_its_origin_once() {
    let cache = cache();
    let reads = Arc::new(AtomicUsize::new(0));
    let readers: Vec<_> = (0..1000)
        .map(|_| {
            let (cache, reads) = (cache.clone(), Arc::clone(&reads));
            tokio::spawn(async move {
                let read = || async {
                    reads.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    Ok::<_, ()>(value(7))
                };
                number(&cache.get_or_fill(key(b"cold"), read).await.unwrap())
            })
        })
        .collect();
    for reader in readers {
        assert_eq!(reader.await.unwrap(), 7);
    }
    assert_eq!(reads.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_holder_that_gives_up_lets_the_next_one_try() {
    let cache = cache();
    let Lookup::Lease(lease) = cache.look_up(key(b"k")) else { panic!("nobody has it") };
    let Lookup::Wait(wait) = cache.look_up(key(b"k")) else { panic!("somebody has it") };
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    let (waited, ()) = tokio::join!(wait.wait(deadline), async { drop(lease) });
    assert!(matches!(waited, cache_proxy::lease::Waited::LookUpAgain));
    let failed = cache.get_or_fill(key(b"k"), || async { Err::<Found, _>("no origin") }).await;
    assert_eq!(failed.unwrap_err(), "no origin");
    let found = cache.get_or_fill(key(b"k"), || async { Ok::<_, ()>(value(1)) }).await.unwrap();
    assert_eq!(number(&found), 1);
}

#[tokio::test]
async fn what_an_origin_does_not_have_is_remembered_and_hidden_from_others() {
    let house_clock = Arc::new(SystemClock::new());
    let cache = Cache::new(CacheOptions::default(), house_clock).unwrap();
    let Lookup::Lease(lease) = cache.look_up(key(b"k")) else { panic!("nobody has it") };
    let absent = Found::Absent { expires_at: u32::MAX };
    assert!(lease.fill(&absent));
    let Lookup::Found(found) = cache.look_up(key(b"k")) else { panic!("it is absent") };
    assert_eq!(found, absent);
    assert_eq!(cache.statistics().item_count, 0);
    assert!(!cache.invalidate(key(b"k")));
    assert!(matches!(cache.look_up(key(b"k")), Lookup::Lease(_)));
}

#[tokio::test]
async fn of_two_writers_at_once_neither_stores() {
    let cache = cache();
    let first = cache.begin_write(key(b"k"));
    let second = cache.begin_write(key(b"k"));
    assert!(matches!(cache.look_up(key(b"k")), Lookup::Wait(_)));
    assert!(!first.finish(&value(1)));
    assert!(!second.finish(&value(2)));
    assert!(matches!(cache.look_up(key(b"k")), Lookup::Lease(_)));
    let write = cache.begin_write(key(b"k"));
    assert!(write.finish(&value(3)));
    cache.begin_write(key(b"k")).abandon();
    assert!(matches!(cache.look_up(key(b"k")), Lookup::Found(_)));
    drop(cache.begin_write(key(b"k")));
    assert!(matches!(cache.look_up(key(b"k")), Lookup::Lease(_)));
}

#[test]
fn a_remote_marker_shows_in_the_lease() {
    let cache = cache();
    cache.mark_remote(key(b"k"), 60);
    let Lookup::Lease(lease) = cache.look_up(key(b"k")) else { panic!("nobody has it") };
    assert!(lease.is_remote());
    let Lookup::Lease(other) = cache.look_up(key(b"other")) else { panic!("nobody has it") };
    assert!(!other.is_remote());
}

/// Readers and writers of all kinds at full speed over a few keys: a reader sees
/// nothing older than what was acknowledged before it began.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reader_sees_less_than_was_acknowledged_before_it_began() {
    const KEY_COUNT: usize = 4;
    const TURNS: usize = 3000;
    struct Truth {
        origin: AtomicU64,
        acknowledged: AtomicU64,
    }
    let cache = cache();
    let truths: Arc<BTreeMap<String, Truth>> = Arc::new(
        (0..KEY_COUNT)
            .map(|number| {
                (format!("k{number}"), Truth { origin: AtomicU64::new(1), acknowledged: AtomicU64::new(1) })
            })
            .collect(),
    );
    let tasks: Vec<_> = (0..12)
        .map(|task| {
            let (cache, truths) = (cache.clone(), Arc::clone(&truths));
            tokio::spawn(async move {
                let mut random = SmallRng::seed_from_u64(task);
                for _ in 0..TURNS {
                    let (name, truth) = truths.iter().nth(random.random_range(0..KEY_COUNT)).unwrap();
                    let key = key(name.as_bytes());
                    match task {
                        0 => {
                            let version = truth.origin.fetch_add(1, Ordering::SeqCst) + 1;
                            tokio::task::yield_now().await;
                            cache.invalidate(key);
                            truth.acknowledged.fetch_max(version, Ordering::SeqCst);
                        }
                        1 | 2 => {
                            let lease = cache.begin_write(key);
                            let version = truth.origin.fetch_add(1, Ordering::SeqCst) + 1;
                            tokio::task::yield_now().await;
                            lease.finish(&value(version));
                            truth.acknowledged.fetch_max(version, Ordering::SeqCst);
                        }
                        _ => {
                            let floor = truth.acknowledged.load(Ordering::SeqCst);
                            let read = || async {
                                tokio::task::yield_now().await;
                                let read = truth.origin.load(Ordering::SeqCst);
                                tokio::task::yield_now().await;
                                Ok::<_, ()>(value(read))
                            };
                            let found = cache.get_or_fill(key, read).await.unwrap();
                            assert!(number(&found) >= floor, "{found:?} after {floor}");
                        }
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let counts = cache.statistics().counts;
    assert!(counts.lease_fills > 0 && counts.lease_refusals > 0 && counts.lease_waits > 0, "{counts:?}");
}
