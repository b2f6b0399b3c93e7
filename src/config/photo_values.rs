//! Values of settings that only photos have: variants, and keys of signed URLs.

use haystack::imaging::variant::Variant;
use haystack::signature::KEY_BYTES_MIN;

/// Variants, separated by commas: `w=320&fm=auto, w=200&h=200&fit=cover`.
pub(super) fn variants(text: &str) -> Result<Vec<Variant>, String> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    names
        .map(|name| match Variant::parse(name) {
            Ok(Some(variant)) => Ok(variant),
            Ok(None) => Err(format!("{name:?} names no variant, such as w=320 or w=200&h=200&fit=cover")),
            Err(error) => Err(format!("{name:?}: {error}")),
        })
        .collect()
}

/// What [`variants`] reads.
pub(super) fn shown_variants(variants: &[Variant]) -> String {
    variants.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Keys, separated by commas.
pub(super) fn signing_keys(text: &str) -> Result<Vec<Vec<u8>>, String> {
    let keys = text.split(',').map(str::trim).filter(|key| !key.is_empty());
    keys.map(|key| match key.len() {
        KEY_BYTES_MIN..=1024 => Ok(key.as_bytes().to_vec()),
        length => Err(format!("a key has {length} characters, and must have {KEY_BYTES_MIN} to 1024")),
    })
    .collect()
}

/// What [`signing_keys`] reads.
pub(super) fn shown_signing_keys(keys: &[Vec<u8>]) -> String {
    keys.iter().map(|key| String::from_utf8_lossy(key)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_are_shown_as_they_are_read() {
        let text = "w=320&fm=auto, w=200&h=200&fit=cover&q=70";
        assert_eq!(shown_variants(&variants(text).unwrap()), text);
        assert!(variants("w=0").is_err() && variants("large").is_err());
    }

    #[test]
    fn short_keys_are_refused() {
        assert_eq!(signing_keys("").unwrap(), Vec::<Vec<u8>>::new());
        assert_eq!(signing_keys("0123456789abcdef, ghijklmnopqrstuv").unwrap().len(), 2);
        assert!(signing_keys("short").is_err());
    }
}
