//! The session on bytes that nobody would send, cut anywhere.

use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;

const NOW: u32 = 1_000_000_000;

fn shared(output_bytes_max: usize) -> Arc<SharedState> {
    let options = CacheOptions { output_bytes_max, item_bytes_max: 20_000, ..CacheOptions::default() };
    Arc::new(SharedState::new(options, 7, NOW))
}

/// Feeds `pieces` to a new session; what it answered, and whether it closed.
fn converse<'p>(shared: Arc<SharedState>, pieces: impl Iterator<Item = &'p [u8]>) -> (Vec<u8>, bool) {
    let mut session = Session::new(shared, 1);
    let (mut input, mut answers) = (Vec::new(), Vec::new());
    let mut output = Output::default();
    for piece in pieces {
        let mut piece = piece;
        if let Some(buffer) = session.value_buffer()
            && input.is_empty()
        {
            let count = buffer.len().min(piece.len());
            buffer[..count].copy_from_slice(&piece[..count]);
            session.value_arrived(count);
            piece = &piece[count..];
        }
        input.extend_from_slice(piece);
        loop {
            let (done, status) = session.advance(&input, &mut output, NOW);
            input.drain(..done);
            while output.len() > 0 {
                // As a socket does that takes little at once.
                let (slices, count) = output.slices();
                let taken = slices[..count][0].len().min(1000);
                answers.extend_from_slice(&slices[0][..taken]);
                output.advance(taken);
            }
            match status {
                Status::OutputFull => {}
                Status::NeedInput | Status::Watching => break,
                Status::Errand => unreachable!("there are no origins"),
                Status::Close => return (answers, true),
            }
        }
        assert!(input.len() <= GET_LINE_BYTES_MAX + SMALL_VALUE_BYTES, "unbounded input");
    }
    (answers, false)
}

/// A stream of words that mostly make commands, and sometimes do not.
fn random_stream(random: &mut SmallRng) -> Vec<u8> {
    const VERBS: [&str; 24] = [
        "get",
        "gets",
        "gat",
        "gats",
        "set",
        "add",
        "replace",
        "append",
        "prepend",
        "cas",
        "incr",
        "decr",
        "delete",
        "touch",
        "mg",
        "ms",
        "md",
        "ma",
        "me",
        "mn",
        "flush_all",
        "verbosity",
        "version",
        "bogus",
    ];
    const WORDS: [&str; 20] = [
        "a",
        "b",
        "c",
        "0",
        "1",
        "2",
        "5",
        "9000",
        "-1",
        "30",
        "noreply",
        "v",
        "k",
        "q",
        "c",
        "t",
        "N30",
        "I",
        "Oabc",
        "99999999999999999999999",
    ];
    let mut stream = Vec::new();
    for _ in 0..random.random_range(1..60) {
        stream.extend(VERBS[random.random_range(0..VERBS.len())].bytes());
        for _ in 0..random.random_range(0..7) {
            stream.extend(b" ");
            stream.extend(WORDS[random.random_range(0..WORDS.len())].bytes());
        }
        stream.extend(if random.random_ratio(1, 20) { b"\n".as_slice() } else { b"\r\n" });
        if random.random_ratio(1, 2) {
            let length = [0, 1, 2, 5, 30, 9000][random.random_range(0..6)];
            stream.extend((0..length).map(|_| random.random_range(b'0'..=b'z')));
            stream.extend(b"\r\n");
        }
        if random.random_ratio(1, 40) {
            stream.extend((0..50).map(|_| random.random::<u8>()));
        }
    }
    stream
}

#[test]
fn answers_do_not_depend_on_how_the_bytes_are_cut() {
    for seed in 0..400 {
        let mut random = SmallRng::seed_from_u64(seed);
        let stream = random_stream(&mut random);
        let whole = converse(shared(1 << 20), std::iter::once(stream.as_slice()));
        let tiny = converse(shared(4096), stream.chunks(1));
        assert!(whole == tiny, "seed {seed}, byte by byte");
        let size = random.random_range(2..5000);
        let cut = converse(shared(4096), stream.chunks(size));
        assert!(whole == cut, "seed {seed}, by {size}");
    }
}

#[test]
fn random_bytes_neither_panic_nor_pile_up() {
    for seed in 0..200 {
        let mut random = SmallRng::seed_from_u64(seed);
        let stream: Vec<u8> = (0..random.random_range(1..8000)).map(|_| random.random()).collect();
        let whole = converse(shared(1 << 20), std::iter::once(stream.as_slice()));
        assert!(whole == converse(shared(4096), stream.chunks(77)), "seed {seed}");
    }
}

#[test]
fn a_long_get_stops_when_its_answers_are_not_sent() {
    let shared = shared(4096);
    let mut session = Session::new(Arc::clone(&shared), 1);
    let mut output = Output::default();
    let set = format!("set key 0 0 1000\r\n{}\r\n", "v".repeat(1000));
    session.advance(set.as_bytes(), &mut output, NOW);
    output.advance(output.len());
    let mut input = format!("get{}\r\n", " key".repeat(1000)).into_bytes();
    let (mut rounds, mut answer_bytes) = (0, 0);
    while !input.is_empty() {
        let (done, _) = session.advance(&input, &mut output, NOW);
        input.drain(..done);
        assert!(output.len() < 4096 + 1100);
        answer_bytes += output.len();
        output.advance(output.len());
        rounds += 1;
    }
    assert!(rounds >= 200);
    assert_eq!(answer_bytes, 1000 * ("VALUE key 0 1000\r\n".len() + 1002) + 5);
}
