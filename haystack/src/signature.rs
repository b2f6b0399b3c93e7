//! Signed URLs: a path and query that whoever holds a key allowed, until a time.
//!
//! The query ends with `exp=`, seconds since 1970, and `sig=`, base64 with the
//! URL alphabet of HMAC-SHA256 over all of the path and query before `&sig=`.
//! Several keys may be known: all verify and the first signs, so a key is
//! replaced by putting a new one before it and, once what it signed has expired,
//! taking the old one away. Signatures are compared in constant time.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Bytes of the shortest key.
pub const KEY_BYTES_MIN: usize = 16;

/// What a signature says of a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is none.
    Unsigned,
    /// It is good until so many seconds since 1970.
    Good {
        /// When it expires.
        expires_s: u64,
    },
    /// It was good and has expired.
    Expired,
    /// It was made with no key that is known, or for another URL.
    Bad,
}

/// The path and query `url`, signed with `key`, good until `expires_s` seconds since 1970.
pub fn sign(url: &str, expires_s: u64, key: &[u8]) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    let signed = format!("{url}{separator}exp={expires_s}");
    let tag = mac(&signed, key).finalize().into_bytes();
    format!("{signed}&sig={}", BASE64_URL_SAFE_NO_PAD.encode(tag))
}

/// What the signature of the path and query `url` says at `now_s`, where `keys` are known.
pub fn verify(url: &str, now_s: u64, keys: &[Vec<u8>]) -> Verdict {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    if !query.split('&').any(|parameter| parameter.starts_with("sig=")) {
        return Verdict::Unsigned;
    }
    let Some((signed, tag)) = url.rsplit_once("&sig=") else { return Verdict::Bad };
    let Ok(tag) = BASE64_URL_SAFE_NO_PAD.decode(tag) else { return Verdict::Bad };
    if !keys.iter().any(|key| mac(signed, key).verify_slice(&tag).is_ok()) {
        return Verdict::Bad;
    }
    let expires = signed.rsplit_once(['?', '&']).and_then(|(_, last)| last.strip_prefix("exp="));
    match expires.and_then(|expires| expires.parse().ok()) {
        Some(expires_s) if now_s < expires_s => Verdict::Good { expires_s },
        Some(_) => Verdict::Expired,
        None => Verdict::Bad,
    }
}

fn mac(signed: &str, key: &[u8]) -> Hmac<Sha256> {
    Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length").chain_update(signed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_url_its_key_and_its_time() {
        let keys = [b"a new key of twenty bytes".to_vec(), b"an old key of some bytes".to_vec()];
        for key in &keys {
            for url in ["/photos/x/large", "/photos/x?w=100&h=7"] {
                let signed = sign(url, 1000, key);
                assert_eq!(verify(&signed, 999, &keys), Verdict::Good { expires_s: 1000 });
                assert_eq!(verify(&signed, 1000, &keys), Verdict::Expired);
                assert_eq!(verify(&signed.replace("exp=1000", "exp=2000"), 999, &keys), Verdict::Bad);
                assert_eq!(verify(&signed.replace("/x", "/y"), 999, &keys), Verdict::Bad);
                assert_eq!(verify(&signed, 999, &[b"another key altogether".to_vec()]), Verdict::Bad);
                assert_eq!(verify(&signed[..signed.len() - 1], 999, &keys), Verdict::Bad);
                assert_eq!(verify(&format!("{signed}&w=9"), 999, &keys), Verdict::Bad);
            }
        }
        assert_eq!(verify("/photos/x?w=100", 0, &keys), Verdict::Unsigned);
        assert_eq!(verify("/photos/x?sig=AAAA", 0, &keys), Verdict::Bad);
        assert_eq!(verify("/photos/x?exp=5&sig=", 0, &keys), Verdict::Bad);
    }

    #[test]
    fn only_a_parameter_of_the_query_is_a_signature() {
        let keys = [b"a new key of twenty bytes".to_vec()];
        for url in ["/blobs/a&sig=b", "/blobs/sig=b?w=5", "/photos/x?design=4"] {
            assert_eq!(verify(url, 0, &keys), Verdict::Unsigned, "{url}");
            assert!(matches!(verify(&sign(url, 9, &keys[0]), 0, &keys), Verdict::Good { .. }), "{url}");
        }
    }

    #[test]
    fn signatures_stay_what_they_are() {
        // printf '/a?exp=1' | openssl dgst -sha256 -hmac key -binary | basenc --base64url
        assert_eq!(sign("/a", 1, b"key"), "/a?exp=1&sig=1UBr_cV_ixnZ4MfbMyabEaDtppxXTdm4rf-FW7OQuRY");
    }
}
