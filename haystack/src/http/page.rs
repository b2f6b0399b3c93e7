//! Lists in pages: `?limit=` and `?after=`, and the parameters of queries.

use http::StatusCode;
use http::header::{CACHE_CONTROL, HeaderValue};
use percent_encoding::percent_decode_str;
use serde::Serialize;

use super::answer::{Answer, Refusal, json};
use crate::url::encode;

/// Places on a page, unless the client asks for fewer or more.
const PAGE_COUNT: usize = 100;
/// Places on a page, at most.
const PAGE_COUNT_MAX: usize = 1000;

/// Which page of a list is asked for.
pub(super) struct Asked {
    /// Places on it, at most.
    pub(super) count: usize,
    /// The place after which it begins.
    pub(super) after: Option<String>,
}

impl Asked {
    /// What `query` asks for.
    pub(super) fn parse(query: Option<&str>) -> Result<Self, Refusal> {
        let after = query_parameter(query, "after")?;
        let Some(text) = query_parameter(query, "limit")? else {
            return Ok(Self { count: PAGE_COUNT, after });
        };
        match text.parse().ok().filter(|count| (1..=PAGE_COUNT_MAX).contains(count)) {
            Some(count) => Ok(Self { count, after }),
            None => {
                let refusal = Refusal::bad_request("bad_limit", format!("limit is 1 to {PAGE_COUNT_MAX}"));
                Err(Refusal { limit: Some(PAGE_COUNT_MAX as u64), ..refusal })
            }
        }
    }

    /// The path of the page of `list` after `place`.
    pub(super) fn next(&self, list: &str, place: &str) -> String {
        format!("{list}?limit={}&after={}", self.count, encode(place))
    }
}

/// JSON that is asked for again each time.
pub(super) fn fresh(content: &impl Serialize) -> Answer {
    let mut answer = json(StatusCode::OK, content);
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer
}

/// The parameter `name` of a query, decoded; none where it is absent or empty.
///
/// # Errors
///
/// 400 if it is not UTF-8.
pub(super) fn query_parameter(query: Option<&str>, name: &'static str) -> Result<Option<String>, Refusal> {
    let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let Some((_, value)) = pairs.into_iter().find(|(key, _)| *key == name) else { return Ok(None) };
    let value = value.replace('+', " ");
    let decoded = percent_decode_str(&value)
        .decode_utf8()
        .map_err(|_| Refusal::bad_request("bad_parameter", format!("the parameter {name} is not UTF-8")))?;
    Ok(Some(decoded.into_owned()).filter(|value| !value.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let query = Some("limit=5&album=Summer+at%20sea%21&x=");
        assert_eq!(query_parameter(query, "album").unwrap().as_deref(), Some("Summer at sea!"));
        assert_eq!(query_parameter(query, "x").unwrap(), None);
        assert_eq!(query_parameter(None, "x").unwrap(), None);
        assert!(query_parameter(Some("album=%ff"), "album").is_err());
    }
}
