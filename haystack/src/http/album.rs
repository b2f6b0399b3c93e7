//! `GET /albums/{name}`: pages of an album, newest photo first.

use http::StatusCode;
use http::header::{CACHE_CONTROL, HeaderValue};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Serialize;

use super::answer::{Answer, Refusal, json};
use crate::photo::{Photo, PhotoJson};
use crate::service::Haystack;

/// Bytes of an album's name.
const ALBUM_NAME_BYTES_MAX: usize = 200;
/// Photos on a page, unless the client asks for fewer or more.
const PAGE_PHOTO_COUNT: usize = 100;
/// Photos on a page, at most.
const PAGE_PHOTO_COUNT_MAX: usize = 1000;

/// Checks the name of an album.
///
/// # Errors
///
/// 400 if it is empty, too long or has control characters.
pub fn check_album_name(name: &str) -> Result<(), Refusal> {
    if name.is_empty() || name.len() > ALBUM_NAME_BYTES_MAX || name.chars().any(char::is_control) {
        let message =
            format!("an album's name has 1 to {ALBUM_NAME_BYTES_MAX} bytes and no control characters");
        let refusal = Refusal::bad_request("bad_album", message);
        return Err(Refusal { limit: Some(ALBUM_NAME_BYTES_MAX as u64), ..refusal });
    }
    Ok(())
}

/// Answers with a page of the album whose name stands percent-encoded in a path.
///
/// # Errors
///
/// 400 for a bad name or parameter; an album without photos is an empty page.
pub async fn get(service: &Haystack, encoded_name: &str, query: Option<&str>) -> Result<Answer, Refusal> {
    let name = percent_decode_str(encoded_name)
        .decode_utf8()
        .map_err(|_| Refusal::bad_request("bad_album", "the album's name is not UTF-8"))?;
    check_album_name(&name)?;
    let count = match query_parameter(query, "limit")? {
        None => PAGE_PHOTO_COUNT,
        Some(text) => {
            text.parse().ok().filter(|count| (1..=PAGE_PHOTO_COUNT_MAX).contains(count)).ok_or_else(|| {
                let message = format!("limit is 1 to {PAGE_PHOTO_COUNT_MAX}");
                let refusal = Refusal::bad_request("bad_limit", message);
                Refusal { limit: Some(PAGE_PHOTO_COUNT_MAX as u64), ..refusal }
            })?
        }
    };
    let after = query_parameter(query, "after")?;
    let page = service.directory().album(&name, after.as_deref(), count).await?;
    let next = page.next.map(|place| {
        let name = utf8_percent_encode(&name, NON_ALPHANUMERIC);
        format!("/albums/{name}?limit={count}&after={}", utf8_percent_encode(&place, NON_ALPHANUMERIC))
    });
    let content = AlbumJson { album: &name, photos: page.photos.iter().map(Photo::to_json).collect(), next };
    let mut answer = json(StatusCode::OK, &content);
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(answer)
}

#[derive(Serialize)]
struct AlbumJson<'a> {
    album: &'a str,
    photos: Vec<PhotoJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// The parameter `name` of a query, decoded; none where it is absent or empty.
///
/// # Errors
///
/// 400 if it is not UTF-8.
pub fn query_parameter(query: Option<&str>, name: &'static str) -> Result<Option<String>, Refusal> {
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
