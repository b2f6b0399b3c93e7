//! Numbers as memcached reads and writes them.
//!
//! It reads with C's `strtoul` family: leading white space and a plus sign are
//! fine, white space may follow, anything else may not.

/// A number of 64 bits without a sign.
pub(crate) fn parse_u64(text: &[u8]) -> Option<u64> {
    match split_sign(text)? {
        (false, digits) => digits_value(digits),
        (true, _) => None,
    }
}

/// A number of 32 bits without a sign.
pub(crate) fn parse_u32(text: &[u8]) -> Option<u32> {
    parse_u64(text).and_then(|value| u32::try_from(value).ok())
}

/// A number of 32 bits with a sign.
pub(crate) fn parse_i32(text: &[u8]) -> Option<i32> {
    let (negative, digits) = split_sign(text)?;
    let value = i64::try_from(digits_value(digits)?).ok()?;
    i32::try_from(if negative { -value } else { value }).ok()
}

fn is_space(byte: u8) -> bool {
    byte == b' ' || (b'\t'..=b'\r').contains(&byte)
}

/// Whether there is a minus sign, and the digits up to white space.
fn split_sign(text: &[u8]) -> Option<(bool, &[u8])> {
    let start = text.iter().position(|byte| !is_space(*byte))?;
    let text = &text[start..];
    let (negative, digits) = match text[0] {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let end = digits.iter().position(|byte| is_space(*byte)).unwrap_or(digits.len());
    Some((negative, &digits[..end]))
}

fn digits_value(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    let mut value: u64 = 0;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    Some(value)
}

/// The digits of a number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decimal {
    text: [u8; 20],
    start: u8,
}

impl Decimal {
    pub(crate) fn new(mut value: u64) -> Self {
        let mut text = [0; 20];
        let mut start = 20;
        loop {
            start -= 1;
            text[start] = b'0' + u8::try_from(value % 10).expect("a digit");
            value /= 10;
            if value == 0 {
                break;
            }
        }
        Self { text, start: u8::try_from(start).expect("at most 20") }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.text[usize::from(self.start)..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_strtoul_reads_them() {
        for (text, expected) in [
            ("0", Some(0)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("+5", Some(5)),
            (" 7", Some(7)),
            ("12 34", Some(12)),
            ("-1", None),
            ("", None),
            ("   ", None),
            ("+", None),
            ("1x", None),
        ] {
            assert_eq!(parse_u64(text.as_bytes()), expected, "{text:?}");
        }
        assert_eq!(parse_u32(b"4294967295"), Some(u32::MAX));
        assert_eq!(parse_u32(b"4294967296"), None);
        assert_eq!(parse_i32(b"-2147483648"), Some(i32::MIN));
        assert_eq!(parse_i32(b"2147483648"), None);
    }

    #[test]
    fn numbers_are_written_in_full() {
        for value in [0, 9, 10, 12_345, u64::MAX] {
            assert_eq!(Decimal::new(value).as_bytes(), value.to_string().as_bytes());
        }
    }
}
