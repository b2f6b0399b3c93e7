//! What those do who look after a cache: doors of other kinds, users, watchers,
//! dumps.

use std::io::{Read, Write};
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use cache_proxy::{Cache, CacheOptions, Credential};

use crate::house::{Client, House, PATIENCE};

#[test]
fn a_client_says_who_it_is_before_anything_else() {
    let credentials = vec![Credential::new("bob", "secret word").unwrap()];
    let house = House::open(CacheOptions { credentials, ..CacheOptions::default() });
    let mut client = house.client();
    client.ask(b"get foo\r\n", b"CLIENT_ERROR unauthenticated\r\n");
    client.ask(b"set foo 0 0 7\r\nbob bad\r\n", b"CLIENT_ERROR authentication failure\r\n");
    client.ask(b"set foo 0 0 3\r\nbob\r\n", b"CLIENT_ERROR bad authentication token format\r\n");
    client.ask(b"set foo 0 0 99999\r\n", b"CLIENT_ERROR auth token too long\r\n");
    client.ask(b"set foo 0 0 15\r\nbob secret word\r\n", b"STORED\r\n");
    client.ask(b"get foo\r\n", b"END\r\n");
    let mut short = house.client();
    short.send(b"mn\r\n");
    short.expect_end();
    assert!(!format!("{:?}", house.cache.options()).contains("secret"));
}

#[test]
fn a_watcher_sees_what_others_do() {
    let house = House::open(CacheOptions::default());
    let (mut client, mut watcher) = (house.client(), house.client());
    client.ask(b"mn\r\n", b"MN\r\n");
    watcher.ask(b"watch fetchers mutations deletions rawcmds\r\n", b"OK\r\n");
    client.ask(b"set a:b 0 0 2\r\nhi\r\nget a:b\r\n", b"STORED\r\nVALUE a:b 0 2\r\nhi\r\nEND\r\n");
    client.ask(b"delete a:b\r\n", b"DELETED\r\n");
    let mut seen = String::new();
    while !seen.contains("type=deleted") {
        let mut part = [0; 4096];
        let count = watcher.0.read(&mut part).unwrap();
        assert!(count > 0, "closed after {seen}");
        seen.push_str(std::str::from_utf8(&part[..count]).unwrap());
    }
    for expected in [
        "type=item_store key=a%3Ab status=stored cmd=set ttl=0",
        "type=item_get key=a%3Ab status=found",
        "set a:b 0 0 2",
        "type=deleted key=a%3Ab cmd=delete",
    ] {
        assert!(seen.contains(expected), "{expected:?} is not in {seen}");
    }
    drop(watcher);
    house.client().ask(b"watch nothing\r\n", b"ERROR\r\n");
}

#[test]
fn dumps_list_every_key_once() {
    let house = House::open(CacheOptions::default());
    let mut client = house.client();
    for number in 0..1000 {
        client.ask(format!("set k:{number} 3 100 1\r\nx\r\n").as_bytes(), b"STORED\r\n");
    }
    client.ask(b"delete k:7\r\n", b"DELETED\r\n");
    client.send(b"lru_crawler metadump all\r\nlru_crawler mgdump all\r\nstats cachedump 1 5\r\nquit\r\n");
    let mut text = String::new();
    client.0.read_to_string(&mut text).unwrap();
    let keys = |start: &str| text.lines().filter(|line| line.starts_with(start)).count();
    assert_eq!((keys("key=k%3A"), keys("mg k:"), keys("ITEM k:")), (999, 999, 5));
    assert!(text.contains("key=k%3A8 exp=1000000100 la=1000000000 cas=9 fetch=no cls=1"), "{text}");
    assert!(!text.contains("key=k%3A7 "));
    let mut client = house.client();
    client.ask(b"lru_crawler metadump 2\r\n", b"NOTSTARTED no items to crawl\r\n");
    client.ask(b"lru_crawler metadump x\r\n", b"BADCLASS invalid class id\r\n");
    let house = House::open(CacheOptions { dump_enabled: false, flush_enabled: false, ..Default::default() });
    let mut client = house.client();
    client.ask(b"lru_crawler metadump all\r\n", b"ERROR metadump not allowed\r\n");
    client.ask(b"flush_all\r\n", b"CLIENT_ERROR flush_all not allowed\r\n");
}

#[test]
fn prefixes_are_counted_while_that_is_on() {
    let house = House::open(CacheOptions::default());
    let mut client = house.client();
    client.ask(b"stats detail\r\n", b"CLIENT_ERROR usage: stats detail on|off|dump\r\n");
    client.ask(b"get p:0\r\nstats detail on\r\n", b"END\r\nOK\r\n");
    client.ask(b"set p:1 0 0 1\r\nx\r\nget p:1 p:2\r\ndelete p:1\r\n", {
        b"STORED\r\nVALUE p:1 0 1\r\nx\r\nEND\r\nDELETED\r\n"
    });
    client.ask(b"stats detail dump\r\n", b"PREFIX p get 2 hit 1 set 1 del 1\r\nEND\r\n");
    client.ask(b"stats detail off\r\nget p:1\r\n", b"OK\r\nEND\r\n");
    client.ask(b"stats detail dump\r\n", b"PREFIX p get 2 hit 1 set 1 del 1\r\nEND\r\n");
}

#[test]
fn commands_for_slabs_and_lrus_answer_as_where_those_are_off() {
    let house = House::open(CacheOptions::default());
    let mut client = house.client();
    for (line, answer) in [
        ("slabs reassign 1 2", "CLIENT_ERROR slab reassignment disabled"),
        ("slabs automove 0", "OK"),
        ("slabs automove x", "CLIENT_ERROR bad command line format"),
        ("slabs", "ERROR"),
        ("lru mode flat", "ERROR"),
        ("lru_crawler enable", "OK"),
        ("lru_crawler crawl all", "OK"),
        ("lru_crawler sleep 2000000", "CLIENT_ERROR sleep must be one second or less"),
        ("lru_crawler tocrawl x", "CLIENT_ERROR bad command line format"),
        ("shutdown", "SERVER_ERROR: shutdown not enabled"),
        ("refresh_certs", "ERROR"),
    ] {
        client.ask(format!("{line}\r\n").as_bytes(), format!("{answer}\r\n").as_bytes());
    }
}

#[test]
fn a_unix_socket_is_a_door_too() {
    let house = House::open(CacheOptions::default());
    let path = std::env::temp_dir().join(format!("hayloft-cache-{}.sock", std::process::id()));
    let listener = house.enter(|| Cache::open_unix(&path, 0o600).unwrap());
    let (cache, served, shutdown) = (house.cache.clone(), path.clone(), house.shutdown.clone());
    house.spawn(async move { cache.serve_unix(listener, served, shutdown).await });
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"set k 0 0 1\r\nx\r\nget k\r\nquit\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "STORED\r\nVALUE k 0 1\r\nx\r\nEND\r\n");
    assert!(house.stop());
    // Its task goes on for a moment after the last connection.
    let begun = Instant::now();
    while path.exists() {
        assert!(begun.elapsed() < PATIENCE, "the socket is still there");
        std::thread::yield_now();
    }
}

#[test]
fn a_datagram_is_answered_by_datagrams_with_its_number() {
    let house = House::open(CacheOptions::default());
    let socket = house.block_on(tokio::net::UdpSocket::bind("127.0.0.1:0")).unwrap();
    let address = socket.local_addr().unwrap();
    let (cache, shutdown) = (house.cache.clone(), house.shutdown.clone());
    house.spawn(async move { cache.serve_udp(socket, shutdown).await });
    let mut tcp: Client = house.client();
    tcp.ask(format!("set k 0 0 3000\r\n{}\r\n", "v".repeat(3000)).as_bytes(), b"STORED\r\n");
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    client.send_to(b"sh", address).unwrap();
    client.send_to(b"\x01\x02\x00\x00\x00\x01\x00\x00get k\r\n", address).unwrap();
    let (mut answer, mut buffer) = (Vec::new(), [0; 2000]);
    for sequence in 0..3 {
        let count = client.recv(&mut buffer).unwrap();
        assert_eq!(buffer[..8], [1, 2, 0, sequence, 0, 3, 0, 0]);
        answer.extend_from_slice(&buffer[8..count]);
    }
    assert_eq!(answer, format!("VALUE k 0 3000\r\n{}\r\nEND\r\n", "v".repeat(3000)).as_bytes());
    client.send_to(b"\x01\x02\x00\x00\x00\x02\x00\x00get k\r\n", address).unwrap();
    let count = client.recv(&mut buffer).unwrap();
    assert!(buffer[8..count].starts_with(b"SERVER_ERROR multi-packet"));
}
