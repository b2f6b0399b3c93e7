//! What holds for a connection as a whole.

use std::io::{Read, Write};
use std::time::Duration;

use cache_proxy::CacheOptions;

use crate::house::{House, PATIENCE};

#[test]
fn a_line_that_does_not_end_closes_unless_it_is_a_get() {
    let house = House::open(CacheOptions::default());
    let mut client = house.client();
    client.send(&[b'x'; 2048]);
    client.ask(b"\r\nmn\r\n", b"ERROR\r\nMN\r\n");
    let mut client = house.client();
    client.send(&[b'x'; 2049]);
    client.expect_end();
    let mut client = house.client();
    let keys = " key".repeat(10_000);
    client.ask(b"set key 0 0 1\r\nv\r\n", b"STORED\r\n");
    client.send(format!("get{keys}\r\n").as_bytes());
    client.expect(&[b"VALUE key 0 1\r\nv\r\n".repeat(10_000), b"END\r\n".to_vec()].concat());
    let mut client = house.client();
    client.send(&[b"get ".as_slice(), &[b'k'; 2 << 20]].concat());
    client.expect_end();
}

#[test]
fn a_browser_is_hung_up_on() {
    let house = House::open(CacheOptions::default());
    for line in ["GET / HTTP/1.1\r\n", "GET /index.html\r\n", "POST / HTTP/1.1\r\n"] {
        let mut client = house.client();
        client.send(line.as_bytes());
        client.expect_end();
    }
}

#[test]
fn the_connection_over_the_limit_is_told() {
    let house = House::open(CacheOptions { connection_count_max: 2, ..CacheOptions::default() });
    let mut clients = [house.client(), house.client()];
    clients.iter_mut().for_each(|client| client.ask(b"mn\r\n", b"MN\r\n"));
    let mut third = house.client();
    third.expect(b"ERROR Too many open connections\r\n");
    third.expect_end();
}

#[test]
fn an_idle_connection_is_closed_when_that_is_asked_for() {
    let idle_timeout = Some(Duration::from_secs(1));
    let house = House::open(CacheOptions { idle_timeout, ..CacheOptions::default() });
    let mut client = house.client();
    client.ask(b"mn\r\n", b"MN\r\n");
    client.expect_end();
}

#[test]
fn a_pipeline_is_answered_in_order_and_finished_before_a_stop() {
    let house = House::open(CacheOptions::default());
    let mut client = house.client();
    let mut idle = house.client();
    idle.ask(b"mn\r\n", b"MN\r\n");
    let (mut sent, mut expected) = (Vec::new(), Vec::new());
    for number in 0..5000 {
        sent.extend(format!("set k{number} 0 0 4\r\n{number:04}\r\nget k{number}\r\n").bytes());
        expected.extend(format!("STORED\r\nVALUE k{number} 0 4\r\n{number:04}\r\nEND\r\n").bytes());
    }
    client.ask(&sent, &expected);
    assert!(house.stop());
    client.expect_end();
    idle.expect_end();
}

#[test]
fn a_client_that_does_not_read_holds_nobody_else_up() {
    let house = House::open(CacheOptions::default());
    let mut reader = house.client();
    let value = [b'v'; 1_000_000];
    reader.send(b"set big 0 0 1000000\r\n");
    reader.ask(&[value.as_slice(), b"\r\n"].concat(), b"STORED\r\n");
    // Far more than the sockets hold: the server must stop reading its commands.
    let mut deaf = house.client();
    deaf.0.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let batch = b"get big big big big big big big big\r\n".repeat(100);
    let mut sent_count = 0;
    while sent_count < 10_000 && deaf.0.write(&batch).is_ok() {
        sent_count += 1;
    }
    assert!(sent_count < 10_000, "the server read on although nobody read its answers");
    reader.ask(b"mn\r\n", b"MN\r\n");
    let mut part = vec![0; 20_000_000];
    deaf.0.read_exact(&mut part).unwrap();
    assert!(part.starts_with(b"VALUE big 0 1000000\r\nvvv"));
}

#[test]
fn a_value_that_arrives_byte_by_byte_is_stored_whole() {
    let house = House::open(CacheOptions::default());
    let mut client = house.client();
    let value: Vec<u8> = (0..10_000).map(|number| b'a' + (number % 26) as u8).collect();
    client.send(b"set slow 5 0 10000\r\n");
    for part in value.chunks(997) {
        client.send(part);
    }
    client.send(b"\r");
    client.ask(b"\nget slow\r\n", b"STORED\r\nVALUE slow 5 10000\r\n");
    client.expect(&value);
    client.expect(b"\r\nEND\r\n");
}

#[test]
fn statistics_count_what_happened() {
    let house = House::open(CacheOptions::default());
    let mut client = house.client();
    client.ask(b"set a 0 0 1\r\nx\r\nget a\r\nget b\r\n", b"STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\nEND\r\n");
    client.ask(b"delete a\r\ntouch a 1\r\n", b"DELETED\r\nNOT_FOUND\r\n");
    client.send(b"stats\r\nstats settings\r\nstats conns\r\nstats slabs\r\nquit\r\n");
    client.0.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut text = String::new();
    client.0.read_to_string(&mut text).unwrap();
    for expected in [
        "STAT cmd_get 2\r\n",
        "STAT get_hits 1\r\n",
        "STAT get_misses 1\r\n",
        "STAT cmd_set 1\r\n",
        "STAT delete_hits 1\r\n",
        "STAT touch_misses 1\r\n",
        "STAT curr_items 0\r\n",
        "STAT curr_connections 1\r\n",
        "STAT limit_maxbytes 67108864\r\n",
        "STAT item_size_max 1048576\r\n",
        ":addr tcp:127.0.0.1:",
        "STAT active_slabs 0\r\n",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in {text}");
    }
    let counts = house.cache.statistics().counts;
    assert_eq!((counts.get_hits, counts.get_misses, counts.cmd_set), (1, 1, 1));
    house.cache.publish_metrics();
}

#[test]
fn memory_stays_within_its_limit_whatever_is_stored() {
    let memory_bytes_max = 8 << 20;
    let house =
        House::open(CacheOptions { memory_bytes_max, item_bytes_max: 1 << 20, ..CacheOptions::default() });
    let mut client = house.client();
    for number in 0..400_usize {
        let value = vec![b'v'; number * 7919 % 200_000];
        let line = format!("set k{number} 0 0 {}\r\n", value.len());
        client.ask(&[line.as_bytes(), &value, b"\r\n"].concat(), b"STORED\r\n");
        assert!(house.cache.statistics().memory_bytes <= memory_bytes_max);
    }
    let statistics = house.cache.statistics();
    assert!(statistics.counts.evictions > 0 && statistics.item_count > 20, "{statistics:?}");
}
