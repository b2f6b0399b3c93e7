//! Text in the paths and queries of URLs.

use std::fmt::Display;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// All but what stands for itself (RFC 3986, section 2.3).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// `text` percent-encoded, slashes too.
pub fn encode(text: &str) -> impl Display {
    utf8_percent_encode(text, ENCODED)
}

/// The path of the blob `name`; its slashes stand for themselves.
pub fn path_of_blob(name: &str) -> String {
    let parts: Vec<String> = name.split('/').map(|part| encode(part).to_string()).collect();
    format!("/blobs/{}", parts.join("/"))
}
