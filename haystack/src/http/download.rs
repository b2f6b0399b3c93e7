//! `GET` and `HEAD` of photos: one read of the volume, no table.

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, HeaderValue,
    LAST_MODIFIED, VARY,
};
use http::{HeaderMap, Response, StatusCode};

use super::answer::{Answer, AnswerBody, Refusal, empty, json};
use super::conditional::{Selection, Validators};
use crate::media_type::MediaType;
use crate::photo_id::{PhotoId, PhotoSize};
use crate::service::Haystack;

pub(super) const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
pub(super) const CONTENT_TYPE_OPTIONS: HeaderName = HeaderName::from_static("x-content-type-options");

/// Answers with `size` of the photo called `id`.
///
/// # Errors
///
/// 404 for what is no id, a photo that is not there, and a wrong cookie alike.
pub async fn get(
    service: &Haystack,
    id: &str,
    size: PhotoSize,
    headers: &HeaderMap,
) -> Result<Answer, Refusal> {
    let id = PhotoId::decode(id.as_bytes()).map_err(|_| Refusal::not_found())?;
    let needle = service.read(&id, size).await?.ok_or_else(Refusal::not_found)?;
    let validators = Validators::new(needle.checksum, needle.data.len(), id.key.uploaded_ms());
    answer(service, needle.media_type, needle.data, &validators, headers)
}

/// The answer to a read of `data`, which never changes: all of it, a range, or
/// that the client has it.
///
/// # Errors
///
/// 503 where too many large answers are under way.
pub(super) fn answer(
    service: &Haystack,
    media_type: MediaType,
    data: Bytes,
    validators: &Validators,
    headers: &HeaderMap,
) -> Result<Answer, Refusal> {
    if validators.not_modified(headers) {
        let mut answer = empty(StatusCode::NOT_MODIFIED);
        set_validators(answer.headers_mut(), validators);
        return Ok(answer);
    }
    let length = data.len();
    let data = service.answers_in_flight().hold(data)?;
    let mut answer = match validators.range(headers, length) {
        Selection::All => Response::new(AnswerBody::whole(data)),
        Selection::Part(range) => {
            let content_range = format!("bytes {}-{}/{length}", range.start, range.end - 1);
            let mut answer = Response::new(AnswerBody::whole(data.slice(range)));
            *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
            answer.headers_mut().insert(CONTENT_RANGE, ascii(&content_range));
            answer
        }
        Selection::Outside => {
            return Ok(outside(length as u64));
        }
    };
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type.content_type()));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    set_validators(headers, validators);
    Ok(answer)
}

/// Answers with the photo's original, or with its JSON where that is accepted.
///
/// # Errors
///
/// As [`get`]; the JSON comes from the directory, which may be away.
pub async fn get_or_describe(service: &Haystack, id: &str, headers: &HeaderMap) -> Result<Answer, Refusal> {
    let mut answer = if accepts_json(headers) {
        let id = PhotoId::decode(id.as_bytes()).map_err(|_| Refusal::not_found())?;
        let photo = service.directory().get(&id).await?.ok_or_else(Refusal::not_found)?;
        json(StatusCode::OK, &photo.to_json())
    } else {
        get(service, id, PhotoSize::Original, headers).await?
    };
    answer.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    Ok(answer)
}

/// Whether the client names JSON. Only by name: `*/*` means the photo.
fn accepts_json(headers: &HeaderMap) -> bool {
    let types = headers.get_all(ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    types.flat_map(|accept| accept.split(',')).any(|accepted| {
        let media_type = accepted.split(';').next().unwrap_or_default();
        media_type.trim().eq_ignore_ascii_case("application/json")
    })
}

/// The answer to a range outside of what is `length` bytes long.
pub(super) fn outside(length: u64) -> Answer {
    let message = format!("there are {length} bytes, and the range is outside of them");
    let refusal = Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "range_not_satisfiable", message);
    let mut answer = Refusal { limit: Some(length), ..refusal }.answer();
    answer.headers_mut().insert(CONTENT_RANGE, ascii(&format!("bytes */{length}")));
    answer
}

fn set_validators(headers: &mut HeaderMap, validators: &Validators) {
    headers.insert(ETAG, validators.entity_tag.clone());
    headers.insert(LAST_MODIFIED, ascii(&httpdate::fmt_http_date(validators.modified)));
    headers.insert(CACHE_CONTROL, IMMUTABLE);
}

pub(super) fn ascii(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("digits and letters")
}
