//! `mg`, `ms`, `md`, `ma` and `me`: a line into what it asks for.
//!
//! A meta line is a verb, a key, for `ms` a length, and one-letter flags, some
//! with an argument attached. Answers repeat flags in the order of the request,
//! so the words stay with the parsed flags.

use crate::item_table::KEY_BYTES_MAX;
use crate::protocol::answer;
use crate::protocol::command::Command;
use crate::protocol::number::{parse_i32, parse_u32, parse_u64};
use crate::protocol::tokens::{Words, next_token};

/// memcached's bound.
const FLAG_COUNT_MAX: usize = 17;
const OPAQUE_BYTES_MAX: usize = 32;

const BAD_TOKEN: &str = "CLIENT_ERROR bad token in command line format\r\n";
const BAD_FLAG: &str = "CLIENT_ERROR invalid flag\r\n";
const DUPLICATE_FLAG: &str = "CLIENT_ERROR duplicate flag\r\n";
const BAD_OR_DUPLICATE_FLAG: &str = "CLIENT_ERROR invalid or duplicate flag\r\n";
const TOO_MANY_FLAGS: &str = "CLIENT_ERROR options flags are too long\r\n";
const BAD_KEY: &str = "CLIENT_ERROR error decoding key\r\n";
const BAD_INITIAL: &str = "CLIENT_ERROR invalid numeric initial value\r\n";
const BAD_DELTA: &str = "CLIENT_ERROR invalid numeric delta value\r\n";
const OPAQUE_TOO_LONG: &str = "CLIENT_ERROR opaque token too long\r\n";
const BAD_SET_MODE: &str = "CLIENT_ERROR invalid mode for ms M token\r\n";
const BAD_ARITHMETIC_MODE: &str = "CLIENT_ERROR invalid mode for ma M token\r\n";

/// Which of the meta commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetaVerb {
    Get,
    Set,
    Delete,
    Arithmetic,
    Debug,
}

/// A key as it stands in the line, or decoded from base64.
#[derive(Clone, Debug)]
pub(crate) enum MetaKey<'a> {
    Plain(&'a [u8]),
    Decoded(Vec<u8>),
}

impl MetaKey<'_> {
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Plain(key) => key,
            Self::Decoded(key) => key,
        }
    }

    pub(crate) fn is_binary(&self) -> bool {
        matches!(self, Self::Decoded(_))
    }
}

/// What the flags with an argument, or with an effect, say. Times are as
/// written, not yet seconds of the clock.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MetaFlags {
    /// `N`: create what is missing, to expire then.
    pub(crate) vivify: Option<i32>,
    /// `T`: a new time to expire.
    pub(crate) exptime: Option<i32>,
    /// `R`: whoever finds less time left refills.
    pub(crate) recache: Option<i32>,
    /// `C`: only if the cas is this.
    pub(crate) compare: Option<u64>,
    /// `E`: the cas to give.
    pub(crate) new_cas: Option<u64>,
    /// `F`: client flags.
    pub(crate) client_flags: u32,
    /// `M`: the mode's letter, 0 if there is none.
    pub(crate) mode: u8,
    /// `D`: by how much; 1 if there is none.
    pub(crate) delta: Option<u64>,
    /// `J`: what a created counter starts with.
    pub(crate) initial: u64,
    /// `I`: mark stale, or store over something newer as stale.
    pub(crate) invalidate: bool,
    /// `v`: answer with the value.
    pub(crate) value: bool,
    /// `q`: do not send the usual answer.
    pub(crate) quiet: bool,
    /// `u`: do not count this as an access.
    pub(crate) no_access: bool,
    /// `x`: take the value away, but leave the item.
    pub(crate) remove_value: bool,
}

/// A meta command.
#[derive(Debug)]
pub(crate) struct MetaLine<'a> {
    pub(crate) verb: MetaVerb,
    pub(crate) key: MetaKey<'a>,
    pub(crate) flags: MetaFlags,
    /// Length of the value that follows `ms`, without its `\r\n`.
    pub(crate) value_bytes: usize,
    written_key: &'a [u8],
    flag_text: &'a [u8],
}

impl<'a> MetaLine<'a> {
    /// The flags as they were written, each a letter and its argument.
    pub(crate) fn words(&self) -> Words<'a> {
        Words(self.flag_text)
    }

    /// The key as it was written.
    pub(crate) fn written_key(&self) -> &'a [u8] {
        self.written_key
    }
}

/// What `line`, which begins with `m` and `verb`, asks for.
pub(crate) fn parse(verb: u8, line: &[u8]) -> Command<'_> {
    let verb = match verb {
        b'g' => MetaVerb::Get,
        b's' => MetaVerb::Set,
        b'd' => MetaVerb::Delete,
        b'a' => MetaVerb::Arithmetic,
        _ => MetaVerb::Debug,
    };
    let Some((written_key, rest)) = next_token(line).and_then(|(_, rest)| next_token(rest)) else {
        let answer = if verb == MetaVerb::Debug { answer::BAD_LINE } else { answer::ERROR };
        return Command::refuse(answer);
    };
    if written_key.len() > KEY_BYTES_MAX {
        return Command::refuse(answer::BAD_LINE);
    }
    let (value_bytes, flag_text) = match (verb, next_token(rest)) {
        (MetaVerb::Set, length) => match length.and_then(|(word, rest)| Some((parse_length(word)?, rest))) {
            Some(found) => found,
            None => return Command::refuse(answer::BAD_LINE),
        },
        _ => (0, rest),
    };
    let refuse = |answer| match verb {
        MetaVerb::Set => Command::RefuseValue { answer, no_reply: false, value_bytes: value_bytes + 2 },
        _ => Command::refuse(answer),
    };
    if Words(flag_text).nth(FLAG_COUNT_MAX).is_some() {
        return refuse(TOO_MANY_FLAGS);
    }
    let key = if Words(flag_text).any(|word| word[0] == b'b') {
        match decode_base64(written_key) {
            Some(key) => MetaKey::Decoded(key),
            None if verb == MetaVerb::Debug => return refuse(answer::BAD_LINE),
            None => return refuse(BAD_KEY),
        }
    } else {
        MetaKey::Plain(written_key)
    };
    let flags = match verb {
        MetaVerb::Debug => MetaFlags::default(),
        _ => match parse_flags(verb, Words(flag_text)) {
            Ok(flags) => flags,
            Err(answer) => return refuse(answer),
        },
    };
    let line = MetaLine { verb, key, flags, value_bytes, written_key, flag_text };
    if verb == MetaVerb::Set { Command::MetaSet(line) } else { Command::Meta(line) }
}

fn parse_length(word: &[u8]) -> Option<usize> {
    let length = usize::try_from(parse_i32(word)?).ok()?;
    (length <= i32::MAX as usize - 2).then_some(length)
}

fn parse_flags(verb: MetaVerb, words: Words<'_>) -> Result<MetaFlags, &'static str> {
    let mut flags = MetaFlags::default();
    let mut seen = 0u128;
    let mut wrong = None;
    for word in words {
        let bit = 1u128.checked_shl(u32::from(word[0])).unwrap_or(0);
        if bit == 0 || seen & bit != 0 {
            wrong = Some(DUPLICATE_FLAG);
            break;
        }
        seen |= bit;
        if let Err(answer) = parse_flag(&mut flags, word[0], &word[1..]) {
            wrong = Some(answer);
            if answer == BAD_FLAG {
                break;
            }
        }
    }
    match (wrong, verb) {
        (None, _) => check_mode(verb, flags.mode).map(|()| flags),
        (Some(OPAQUE_TOO_LONG), _) => Err(OPAQUE_TOO_LONG),
        (Some(_), MetaVerb::Delete | MetaVerb::Arithmetic) => Err(BAD_OR_DUPLICATE_FLAG),
        (Some(answer), _) => Err(answer),
    }
}

fn parse_flag(flags: &mut MetaFlags, letter: u8, argument: &[u8]) -> Result<(), &'static str> {
    let time = || parse_i32(argument).map(Some).ok_or(BAD_TOKEN);
    let number = |answer| parse_u64(argument).map(Some).ok_or(answer);
    match letter {
        b'N' => flags.vivify = time()?,
        b'T' => flags.exptime = time()?,
        b'R' => flags.recache = time()?,
        b'C' => flags.compare = number(BAD_TOKEN)?,
        b'E' => flags.new_cas = number(BAD_TOKEN)?,
        b'D' => flags.delta = number(BAD_DELTA)?,
        b'J' => flags.initial = number(BAD_INITIAL)?.unwrap_or(0),
        b'F' => flags.client_flags = parse_u32(argument).ok_or(answer::BAD_LINE)?,
        b'M' => flags.mode = argument.first().copied().unwrap_or(b' '),
        b'I' => flags.invalidate = true,
        b'v' => flags.value = true,
        b'q' => flags.quiet = true,
        b'u' => flags.no_access = true,
        b'x' => flags.remove_value = true,
        b'O' if argument.len() >= OPAQUE_BYTES_MAX => return Err(OPAQUE_TOO_LONG),
        b'b' | b'c' | b'f' | b'h' | b'k' | b'l' | b's' | b't' | b'L' | b'O' | b'P' => {}
        _ => return Err(BAD_FLAG),
    }
    Ok(())
}

fn check_mode(verb: MetaVerb, mode: u8) -> Result<(), &'static str> {
    match (verb, mode) {
        (_, 0) | (MetaVerb::Get | MetaVerb::Delete | MetaVerb::Debug, _) => Ok(()),
        (MetaVerb::Set, b'E' | b'A' | b'P' | b'R' | b'S') => Ok(()),
        (MetaVerb::Set, _) => Err(BAD_SET_MODE),
        (MetaVerb::Arithmetic, b'I' | b'i' | b'+' | b'D' | b'd' | b'-') => Ok(()),
        (MetaVerb::Arithmetic, _) => Err(BAD_ARITHMETIC_MODE),
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A key from base64 with padding; none if it is not that, or empty.
fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    if text.is_empty() || !text.len().is_multiple_of(4) {
        return None;
    }
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    if padding > 2 || text[..text.len() - padding].contains(&b'=') {
        return None;
    }
    let mut key = Vec::with_capacity(text.len() / 4 * 3);
    for quartet in text.chunks(4) {
        let mut group = 0u32;
        for byte in quartet {
            let padded = *byte == b'=';
            let value = if padded { 0 } else { ALPHABET.iter().position(|letter| letter == byte)? };
            group = group << 6 | u32::try_from(value).ok()?;
        }
        key.extend_from_slice(&group.to_be_bytes()[1..]);
    }
    key.truncate(key.len() - padding);
    Some(key)
}

/// Appends `key` in base64 with padding.
pub(crate) fn encode_base64(key: &[u8], mut put: impl FnMut(&[u8])) {
    for triple in key.chunks(3) {
        let mut group = [0; 4];
        group[1..=triple.len()].copy_from_slice(triple);
        let group = u32::from_be_bytes(group);
        let mut text = [b'='; 4];
        for (index, letter) in text.iter_mut().enumerate().take(triple.len() + 1) {
            *letter = ALPHABET[(group >> (18 - 6 * index)) as usize & 63];
        }
        put(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_base64() {
        for key in [b"f".as_slice(), b"fo", b"foo", &[0xff; 187]] {
            let mut text = Vec::new();
            encode_base64(key, |part| text.extend_from_slice(part));
            assert_eq!(decode_base64(&text).unwrap(), key);
        }
        for wrong in ["", "Zg", "Zg=", "====", "Z===", "Zg=a", "Z g="] {
            assert!(decode_base64(wrong.as_bytes()).is_none(), "{wrong:?}");
        }
    }
}
