//! Conditional and range requests (RFC 9110, sections 13 and 14), as functions
//! of headers. What a photo's URL gives never changes, so its entity tag is
//! strong and made of the needle's checksum.

use std::fmt::Write;
use std::ops::Range;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::{
    HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE,
};

use crate::blob::Condition;

/// What identifies one representation.
#[derive(Clone, Debug)]
pub struct Validators {
    /// The strong entity tag, in its quotes.
    pub entity_tag: HeaderValue,
    /// When the photo was uploaded, to the second.
    pub modified: SystemTime,
}

impl Validators {
    /// Validators of a needle's data, uploaded at `uploaded_ms`.
    pub fn new(checksum: u32, data_bytes: usize, uploaded_ms: u64) -> Self {
        let mut entity_tag = String::with_capacity(24);
        write!(entity_tag, "\"{checksum:08x}-{data_bytes:x}\"").expect("writing to a string");
        Self {
            entity_tag: HeaderValue::from_maybe_shared(bytes::Bytes::from(entity_tag)).expect("hexadecimal"),
            modified: SystemTime::UNIX_EPOCH + Duration::from_secs(uploaded_ms / 1000),
        }
    }

    /// Validators of what has `tag`, without quotes, and was last changed at `modified_ms`.
    pub fn of_tag(tag: &str, modified_ms: u64) -> Self {
        Self {
            entity_tag: HeaderValue::from_str(&format!("\"{tag}\""))
                .unwrap_or(HeaderValue::from_static("\"\"")),
            modified: SystemTime::UNIX_EPOCH + Duration::from_secs(modified_ms / 1000),
        }
    }

    /// Whether the client wants another representation than this: If-Match, and
    /// only without it If-Unmodified-Since (section 13.2.2).
    pub fn precondition_fails(&self, headers: &HeaderMap) -> bool {
        if headers.contains_key(IF_MATCH) {
            return !headers.get_all(IF_MATCH).iter().any(|list| {
                // Strong comparison: a weak tag matches nothing.
                tags(list).any(|tag| tag == b"*" || tag == self.entity_tag.as_bytes())
            });
        }
        let since = headers.get(IF_UNMODIFIED_SINCE).and_then(|date| date.to_str().ok());
        since.and_then(|date| httpdate::parse_http_date(date).ok()).is_some_and(|since| self.modified > since)
    }

    /// Whether the client has this representation already: If-None-Match, and
    /// only without it If-Modified-Since (section 13.2.2).
    pub fn not_modified(&self, headers: &HeaderMap) -> bool {
        if headers.contains_key(IF_NONE_MATCH) {
            return headers.get_all(IF_NONE_MATCH).iter().any(|list| self.is_in(list));
        }
        let since = headers.get(IF_MODIFIED_SINCE).and_then(|date| date.to_str().ok());
        since
            .and_then(|date| httpdate::parse_http_date(date).ok())
            .is_some_and(|since| self.modified <= since)
    }

    /// Whether a list of entity tags names this one, by weak comparison.
    fn is_in(&self, list: &HeaderValue) -> bool {
        tags(list)
            .map(|tag| tag.strip_prefix(b"W/").unwrap_or(tag))
            .any(|tag| tag == b"*" || tag == self.entity_tag.as_bytes())
    }

    /// The range that is asked for, if the client's copy is of this representation.
    pub fn range(&self, headers: &HeaderMap, data_bytes: usize) -> Selection {
        let Some(range) = headers.get(RANGE) else { return Selection::All };
        if let Some(condition) = headers.get(IF_RANGE) {
            let tag_matches = condition.as_bytes() == self.entity_tag.as_bytes();
            let date = condition.to_str().ok().and_then(|date| httpdate::parse_http_date(date).ok());
            if !tag_matches && date != Some(self.modified) {
                return Selection::All;
            }
        }
        range.to_str().map_or(Selection::All, |range| select(range, data_bytes))
    }
}

fn tags(list: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    list.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// The condition that a request's headers put on a write: If-Match, or
/// If-None-Match where that is `*`.
///
/// # Errors
///
/// The name of the header that says what no write can depend on.
pub fn write_condition(headers: &HeaderMap) -> Result<Condition, &'static str> {
    match (headers.get(IF_MATCH), headers.get(IF_NONE_MATCH)) {
        (None, None) => Ok(Condition::None),
        (Some(list), None) if list.as_bytes().trim_ascii() == b"*" => Ok(Condition::Present),
        (Some(_), None) => {
            let unquoted = |tag: &[u8]| {
                let tag = tag.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
                Some(std::str::from_utf8(tag).ok()?.to_owned())
            };
            let lists = headers.get_all(IF_MATCH);
            Ok(Condition::Tags(lists.iter().flat_map(tags).filter_map(unquoted).collect()))
        }
        (None, Some(list)) if list.as_bytes().trim_ascii() == b"*" => Ok(Condition::Absent),
        _ => Err("if-none-match"),
    }
}

/// Which bytes are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All: no range, one of another unit or form, or several at once, which we
    /// may ignore (section 14.2).
    All,
    /// These.
    Part(Range<usize>),
    /// None that there are.
    Outside,
}

fn select(range: &str, length: usize) -> Selection {
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|range| range.trim().split_once('-'))
    else {
        return Selection::All;
    };
    let number = |digits: &str| {
        let plain = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
        // More digits than fit are beyond any end.
        plain.then(|| digits.parse().unwrap_or(usize::MAX))
    };
    match (number(first), number(last)) {
        (None, Some(0)) if first.is_empty() => Selection::Outside,
        (None, Some(suffix)) if first.is_empty() && length > 0 => {
            Selection::Part(length.saturating_sub(suffix)..length)
        }
        (Some(first), Some(last)) if last < first => Selection::All,
        (Some(first), last) if last.is_some() || range.ends_with('-') => {
            if first >= length {
                return Selection::Outside;
            }
            Selection::Part(first..last.map_or(length, |last| last.saturating_add(1).min(length)))
        }
        _ => Selection::All,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_rfc_says() {
        let cases = [
            ("bytes=0-0", Selection::Part(0..1)),
            ("bytes=2-5", Selection::Part(2..6)),
            ("bytes=2-", Selection::Part(2..10)),
            ("bytes=-3", Selection::Part(7..10)),
            ("bytes=-30", Selection::Part(0..10)),
            ("bytes=5-99999999999999999999999", Selection::Part(5..10)),
            ("bytes=10-", Selection::Outside),
            ("bytes=99999999999999999999999-", Selection::Outside),
            ("bytes=-0", Selection::Outside),
            ("bytes=5-2", Selection::All),
            ("bytes=0-1,3-4", Selection::All),
            ("bytes=+1-2", Selection::All),
            ("bytes=a-b", Selection::All),
            ("bytes=-", Selection::All),
            ("lines=1-2", Selection::All),
        ];
        for (range, expected) in cases {
            assert_eq!(select(range, 10), expected, "{range}");
        }
    }

    #[test]
    fn an_entity_tag_outweighs_a_date() {
        let validators = Validators::new(0xabcd, 16, 1_800_000_000_999);
        assert_eq!(validators.entity_tag, "\"0000abcd-10\"");
        let check = |pairs: &[(http::HeaderName, &str)]| {
            let headers = pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
            validators.not_modified(&headers)
        };
        let uploaded = httpdate::fmt_http_date(validators.modified);
        assert!(check(&[(IF_NONE_MATCH, "\"x\", W/\"0000abcd-10\"")]));
        assert!(check(&[(IF_NONE_MATCH, "*")]));
        assert!(check(&[(IF_MODIFIED_SINCE, &uploaded)]));
        assert!(!check(&[(IF_MODIFIED_SINCE, &uploaded), (IF_NONE_MATCH, "\"x\"")]));
        assert!(!check(&[(IF_MODIFIED_SINCE, "Sun, 06 Nov 1994 08:49:37 GMT")]));
        assert!(!check(&[]));
    }
}
