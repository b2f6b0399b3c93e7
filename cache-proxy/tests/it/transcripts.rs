//! Golden transcripts: `>` is a line sent, `<` a line expected, `@ N` lets N
//! seconds pass, `#` is a comment, `{c*N}` is `c` N times. Lines end with
//! `\r\n`, which is written out where it is inside a value.

use cache_proxy::CacheOptions;

use crate::house::House;

fn expand(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        bytes.extend(before.bytes());
        let (repeat, after) = after.split_once('}').expect("a closing brace");
        let (letter, count) = repeat.split_once('*').expect("{c*N}");
        bytes.extend(letter.repeat(count.parse().expect("a count")).bytes());
        rest = after;
    }
    bytes.extend(rest.replace("\\r\\n", "\r\n").bytes());
    bytes.extend(b"\r\n");
    bytes
}

fn line_text(line: &str) -> &str {
    line.get(2..).unwrap_or("")
}

#[track_caller]
fn check(script: &str) {
    let house = House::open(CacheOptions::default());
    let mut client = house.client();
    let mut lines = script.lines().enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        match line.as_bytes().first() {
            Some(b'>') => client.send(&expand(line_text(line))),
            Some(b'<') => {
                let mut expected = expand(line_text(line));
                while let Some((_, line)) = lines.next_if(|(_, line)| line.starts_with('<')) {
                    expected.extend(expand(line_text(line)));
                }
                eprintln!("line {}", number + 1);
                client.expect(&expected);
            }
            Some(b'@') => {
                // What was sent before runs before the clock moves.
                client.ask(b"mn\r\n", b"MN\r\n");
                house.clock.advance(line_text(line).parse().expect("seconds"));
            }
            _ => {}
        }
    }
    client.ask(b"mn\r\n", b"MN\r\n");
    client.send(b"quit\r\n");
    client.expect_end();
}

#[test]
fn classic_commands() {
    check(include_str!("../golden/classic.txt"));
}

#[test]
fn errors() {
    check(include_str!("../golden/errors.txt"));
}

#[test]
fn expiry() {
    check(include_str!("../golden/expiry.txt"));
}

#[test]
fn meta_commands() {
    check(include_str!("../golden/meta.txt"));
}
