//! Unsigned integers in as few bytes as they need: seven bits a byte, least
//! significant first, the top bit set on all but the last (LEB128).

/// Appends `value` to `buffer`: 1 to 10 bytes.
pub(crate) fn encode(buffer: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        buffer.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    buffer.push(value.to_le_bytes()[0]);
}

/// Takes an integer off the front of `bytes`; `None` where they end within it
/// or it has more than 64 bits.
#[inline]
pub(crate) fn take(bytes: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = bytes.split_first()?;
    if first < 0x80 {
        *bytes = rest;
        return Some(u64::from(first));
    }
    take_long(bytes)
}

fn take_long(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for (i, &byte) in bytes.iter().enumerate().take(10) {
        if i == 9 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            *bytes = &bytes[i + 1..];
            return Some(value);
        }
    }
    None
}

/// Takes an integer that is a length in memory off the front of `bytes`.
#[inline]
pub(crate) fn take_usize(bytes: &mut &[u8]) -> Option<usize> {
    take(bytes)?.try_into().ok()
}

/// Takes a slice off the front of `bytes`, which starts with its length.
pub(crate) fn take_slice<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = take_usize(bytes)?;
    let (slice, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(slice)
}

/// Appends `slice` and its length.
pub(crate) fn encode_slice(buffer: &mut Vec<u8>, slice: &[u8]) {
    encode(buffer, slice.len() as u64);
    buffer.extend_from_slice(slice);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_comes_back() {
        for shift in 0..64 {
            for value in [(1_u64 << shift) - 1, 1 << shift, u64::MAX >> shift] {
                let mut buffer = Vec::new();
                encode(&mut buffer, value);
                let mut bytes = &buffer[..];
                assert_eq!(take(&mut bytes), Some(value));
                assert!(bytes.is_empty());
                for end in 0..buffer.len() {
                    assert_eq!(take(&mut &buffer[..end]), None);
                }
            }
        }
    }

    #[test]
    fn more_than_64_bits_are_refused() {
        let mut bytes = [0xff; 10];
        bytes[9] = 2;
        assert_eq!(take(&mut &bytes[..]), None);
        assert_eq!(take(&mut &[0x80; 11][..]), None);
    }
}
