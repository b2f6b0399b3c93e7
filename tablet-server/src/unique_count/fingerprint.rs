//! Fingerprint2011: the hash by which sketches know values.
//!
//! Fixed by the sketch's format (`DefaultOpsType` in zetasketch's
//! `aggregator.proto`): every program that counts the same values must hash them
//! alike. An integer is hashed as its eight little-endian bytes. The algorithm
//! is that of google/zetasketch, `internal/hash/Fingerprint2011.java`: Murmur to
//! 32 bytes, CityHash beyond, and one more round over the ends.

const K0: u64 = 0xa5b8_5c5e_198e_d849;
const K1: u64 = 0x8d58_ac26_afe1_2e47;
const K2: u64 = 0xc47b_6e9e_3a97_0ed3;
const K3: u64 = 0xc6a4_a793_5bd1_e995;

/// The fingerprint of `bytes`.
pub(super) fn fingerprint(bytes: &[u8]) -> u64 {
    let length = bytes.len();
    let inner = match length {
        0..=32 => murmur(bytes, K0 ^ K1 ^ K2),
        33..=64 => hash_33_to_64(bytes),
        _ => hash_long(bytes),
    };
    let first = if length >= 8 { word(bytes, 0) } else { K0 };
    let last = if length >= 9 { word(bytes, length - 8) } else { K0 };
    let hash = combine(inner.wrapping_add(last), first);
    // Zero and one mean something else to the format's first users.
    if hash <= 1 { hash.wrapping_add(!1) } else { hash }
}

/// Eight bytes at `offset`.
fn word(bytes: &[u8], offset: usize) -> u64 {
    let bytes = bytes[offset..].first_chunk().expect("the caller knows the length");
    u64::from_le_bytes(*bytes)
}

fn shift_mix(value: u64) -> u64 {
    value ^ (value >> 47)
}

fn combine(high: u64, low: u64) -> u64 {
    let a = shift_mix((low ^ high).wrapping_mul(K3));
    shift_mix((high ^ a).wrapping_mul(K3)).wrapping_mul(K3)
}

fn murmur(bytes: &[u8], seed: u64) -> u64 {
    let mut hash = seed ^ (bytes.len() as u64).wrapping_mul(K3);
    let (words, rest) = bytes.as_chunks::<8>();
    for bytes in words {
        let mixed = shift_mix(u64::from_le_bytes(*bytes).wrapping_mul(K3)).wrapping_mul(K3);
        hash = (hash ^ mixed).wrapping_mul(K3);
    }
    if !rest.is_empty() {
        let partial = rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        hash = (hash ^ partial).wrapping_mul(K3);
    }
    shift_mix(shift_mix(hash).wrapping_mul(K3))
}

fn hash_33_to_64(bytes: &[u8]) -> u64 {
    let length = bytes.len();
    // One half from the start, the other one from the end; they may overlap.
    let half = |seed: u64, at: [usize; 3], last: u64| {
        let mut a = seed;
        let mut b = a.wrapping_add(last).rotate_right(52);
        let mut c = a.rotate_right(37);
        a = a.wrapping_add(word(bytes, at[1]));
        c = c.wrapping_add(a.rotate_right(7));
        a = a.wrapping_add(word(bytes, at[2]));
        b = b.wrapping_add(a.rotate_right(31)).wrapping_add(c);
        (a.wrapping_add(last), b)
    };
    let seed = (length as u64).wrapping_add(word(bytes, length - 16)).wrapping_mul(K0);
    let (vf, vs) = half(word(bytes, 0).wrapping_add(seed), [0, 8, 16], word(bytes, 24));
    let seed = word(bytes, 16).wrapping_add(word(bytes, length - 32));
    let (wf, ws) = half(seed, [0, length - 24, length - 16], word(bytes, length - 8));
    let sum = vf.wrapping_add(ws).wrapping_mul(K2).wrapping_add(wf.wrapping_add(vs).wrapping_mul(K0));
    shift_mix(shift_mix(sum).wrapping_mul(K0).wrapping_add(vs)).wrapping_mul(K2)
}

/// A weak hash of the 32 bytes at `offset`, with two seeds and two results.
fn weak_hash(bytes: &[u8], offset: usize, seed_a: u64, seed_b: u64) -> (u64, u64) {
    let a = seed_a.wrapping_add(word(bytes, offset));
    let last = word(bytes, offset + 24);
    let b = seed_b.wrapping_add(a).wrapping_add(last).rotate_right(51);
    let sum = a.wrapping_add(word(bytes, offset + 8)).wrapping_add(word(bytes, offset + 16));
    (sum.wrapping_add(last), b.wrapping_add(sum.rotate_right(23)).wrapping_add(a))
}

fn hash_long(bytes: &[u8]) -> u64 {
    let length = bytes.len();
    let mut x = word(bytes, 0);
    let mut y = word(bytes, length - 16) ^ K1;
    let mut z = word(bytes, length - 56) ^ K0;
    let mut v = weak_hash(bytes, length - 64, length as u64, y);
    let mut w = weak_hash(bytes, length - 32, (length as u64).wrapping_mul(K1), K0);
    z = z.wrapping_add(shift_mix(v.1).wrapping_mul(K1));
    x = z.wrapping_add(x).rotate_right(39).wrapping_mul(K1);
    y = y.rotate_right(33).wrapping_mul(K1);
    // All chunks of 64 bytes but the last, which may be short and was taken first.
    for offset in (0..(length - 1) & !63).step_by(64) {
        let mixed = x.wrapping_add(y).wrapping_add(v.0).wrapping_add(word(bytes, offset + 16));
        x = mixed.rotate_right(37).wrapping_mul(K1) ^ w.1;
        let mixed = y.wrapping_add(v.1).wrapping_add(word(bytes, offset + 48));
        y = mixed.rotate_right(42).wrapping_mul(K1) ^ v.0;
        z = (z ^ w.0).rotate_right(33);
        v = weak_hash(bytes, offset, v.1.wrapping_mul(K1), x.wrapping_add(w.0));
        w = weak_hash(bytes, offset + 32, z.wrapping_add(w.1), y);
        std::mem::swap(&mut z, &mut x);
    }
    let high = combine(v.0, w.0).wrapping_add(shift_mix(y).wrapping_mul(K1)).wrapping_add(z);
    combine(high, combine(v.1, w.1).wrapping_add(x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_formats_other_programs() {
        // google/zetasketch, HashTest.java, and bsm/zetasketch, fingerprint_test.go.
        for (text, times, expected) in [
            ("", 1, 0x23ad_7c90_4aa6_65e3),
            ("f", 1, 16_100_291_902_947_574_842),
            ("foo", 1, 0xd0bc_bfe2_61b3_6504),
            ("foobar", 1, 0x36a1_e57a_138e_4467),
            ("Z\u{fc}rich", 1, 0x27ef_c00f_7d2c_e548),
            ("Zu\u{308}rich", 1, 0x7dfa_3067_e55c_7e8a),
            ("foobar", 3, 0xd7b0_8d94_eeef_dccd),
            ("foobar", 8, 0x9438_6e84_0303_8649),
            ("foobar", 24, 0xd019_f329_1f1d_4d37),
            ("foobar", 45, 0x549b_2e22_8e80_ee1a),
            ("foobar", 48, 0x874f_ce45_a1e2_a8ae),
        ] {
            assert_eq!(fingerprint(text.repeat(times).as_bytes()), expected, "{text} {times}");
        }
    }
}
