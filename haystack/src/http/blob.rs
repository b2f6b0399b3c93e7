//! `/blobs/{name}`: bytes of any type under a name.

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    HeaderValue, LAST_MODIFIED, LOCATION,
};
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::channel::{Channel, Sender};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use std::ops::Range;

use super::answer::{Answer, AnswerBody, Refusal, empty, json};
use super::body::UploadBody;
use super::conditional::{Selection, Validators, write_condition};
use super::download::{CONTENT_TYPE_OPTIONS, ascii, outside};
use super::page::{Asked, fresh, query_parameter};
use crate::blob::{Blob, BlobAbout, BlobQuery, Condition, Listed};
use crate::chunk::{Chunk, ChunkWriter, touched};
use crate::error::Error;
use crate::service::Haystack;
use crate::url::{encode, path_of_blob};

/// Bytes of a blob's name, as in S3.
const NAME_BYTES_MAX: usize = 1024;
/// Bytes of a media type that are kept.
const CONTENT_TYPE_BYTES_MAX: usize = 255;
/// A page that somebody stored must not act in the name of this server.
const SANDBOX: HeaderValue = HeaderValue::from_static("sandbox; default-src 'none'");

/// The blob's name that stands percent-encoded in a path.
///
/// # Errors
///
/// 400 if it is empty, too long or has control characters.
pub(super) fn decode_name(encoded: &str) -> Result<String, Refusal> {
    let name = percent_decode_str(encoded).decode_utf8();
    let name = name.map_err(|_| Refusal::bad_request("bad_name", "the blob's name is not UTF-8"))?;
    check_name(&name)?;
    Ok(name.into_owned())
}

/// Checks the name of a blob.
///
/// # Errors
///
/// As [`decode_name`].
pub(super) fn check_name(name: &str) -> Result<(), Refusal> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        let message = format!("a blob's name has 1 to {NAME_BYTES_MAX} bytes and no control characters");
        let refusal = Refusal::bad_request("bad_name", message);
        return Err(Refusal { limit: Some(NAME_BYTES_MAX as u64), ..refusal });
    }
    Ok(())
}

/// Stores the body under `name`, in chunks as it arrives.
///
/// # Durability
///
/// With status 200 or 201 the name and its bytes are synced. With any other the
/// name is what it was, but for 500, after which it may be either.
///
/// # Errors
///
/// 400, 408, 412, 413, 503, 507.
pub(super) async fn put(
    service: &Haystack,
    name: &str,
    headers: &HeaderMap,
    mut body: UploadBody,
) -> Result<Answer, Refusal> {
    let name = decode_name(name)?;
    let condition = condition_of(headers)?;
    if !service.is_ready() {
        return Err(Error::DirectoryAway.into());
    }
    let limit = service.options().blob_bytes_max;
    let too_large = || Refusal::too_large("blob", limit);
    if body.content_length().is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    if condition != Condition::None && !condition.holds(service.blobs().get(&name).await?.as_ref()) {
        // Before a byte of it is read; the write checks again.
        return Err(precondition_failed());
    }
    let mut writer = ChunkWriter::new(service, body.content_length());
    let read = async {
        let mut bytes = 0;
        while let Some(piece) = body.next().await? {
            bytes += piece.len() as u64;
            if bytes > limit {
                return Err(too_large());
            }
            writer.push(piece).await?;
        }
        writer.flush().await?;
        Ok(bytes)
    };
    let bytes = match read.await {
        Ok(bytes) => bytes,
        Err(refusal) => {
            service.delete_chunks(writer.chunks()).await;
            return Err(refusal);
        }
    };
    let content_type = content_type_of(headers);
    let mut blob = service.new_blob(bytes, content_type, writer.chunks().to_vec());
    match service.put_blob(&name, &mut blob, &condition).await? {
        Some(replaced) => Ok(stored(&name, &blob, replaced)),
        None => Err(precondition_failed()),
    }
}

/// The media type in `headers`, or that of bytes of no kind.
fn content_type_of(headers: &HeaderMap) -> String {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let given = given.map(str::trim).filter(|given| (1..=CONTENT_TYPE_BYTES_MAX).contains(&given.len()));
    given.unwrap_or("application/octet-stream").to_owned()
}

fn condition_of(headers: &HeaderMap) -> Result<Condition, Refusal> {
    write_condition(headers).map_err(|header| {
        let message = format!("{header} of a write can only be *, and if-match not beside it");
        Refusal::bad_request("bad_condition", message)
    })
}

fn precondition_failed() -> Refusal {
    Refusal::new(
        StatusCode::PRECONDITION_FAILED,
        "precondition_failed",
        "the blob is not in the state that was asked for",
    )
}

fn no_such_blob() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "not_found", "there is no blob of this name")
}

fn stored(name: &str, blob: &Blob, replaced: bool) -> Answer {
    let status = if replaced { StatusCode::OK } else { StatusCode::CREATED };
    let mut answer = json(status, &BlobJson::new(name, &blob.etag, &blob.about));
    let headers = answer.headers_mut();
    headers.insert(ETAG, ascii(&format!("\"{}\"", blob.etag)));
    headers.insert(LOCATION, ascii(&path_of_blob(name)));
    answer
}

#[derive(Serialize)]
struct BlobJson<'a> {
    name: &'a str,
    url: String,
    etag: &'a str,
    #[serde(flatten)]
    about: &'a BlobAbout,
}

impl<'a> BlobJson<'a> {
    fn new(name: &'a str, etag: &'a str, about: &'a BlobAbout) -> Self {
        Self { name, url: path_of_blob(name), etag, about }
    }
}

/// Answers with the blob `name`, or a range of it.
///
/// # Errors
///
/// 400, 404, 412, 503.
pub(super) async fn get(
    service: &Haystack,
    name: &str,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Answer, Refusal> {
    /// How often a blob may be replaced while it is looked for.
    const ATTEMPT_COUNT_MAX: usize = 4;
    let name = decode_name(name)?;
    for _ in 0..ATTEMPT_COUNT_MAX {
        let blob = service.blobs().get(&name).await?.ok_or_else(no_such_blob)?;
        if let Some(answer) = answer_of(service, &blob, method, headers).await? {
            return Ok(answer);
        }
    }
    Err(Error::Busy { what: "writers of this blob", retry_after: std::time::Duration::from_secs(1) }.into())
}

/// The answer to a read of `blob`; none if its chunks are gone.
async fn answer_of(
    service: &Haystack,
    blob: &Blob,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Option<Answer>, Refusal> {
    let validators = Validators::of_tag(&blob.etag, blob.about.modified_ms);
    if validators.precondition_fails(headers) {
        return Err(precondition_failed());
    }
    if validators.not_modified(headers) {
        let mut answer = empty(StatusCode::NOT_MODIFIED);
        set_validators(&mut answer, &validators);
        return Ok(Some(answer));
    }
    let length = blob.about.bytes;
    let (status, range) = match validators.range(headers, usize::try_from(length).unwrap_or(usize::MAX)) {
        Selection::All => (StatusCode::OK, 0..length),
        Selection::Part(range) => (StatusCode::PARTIAL_CONTENT, range.start as u64..range.end as u64),
        Selection::Outside => return Ok(Some(outside(length))),
    };
    let body = match *method == Method::HEAD {
        true => Some(AnswerBody::whole(Bytes::new())),
        false => body_of(service, touched(&blob.chunks, &range)).await?,
    };
    let Some(body) = body else { return Ok(None) };
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    if status == StatusCode::PARTIAL_CONTENT {
        headers.insert(CONTENT_RANGE, ascii(&format!("bytes {}-{}/{length}", range.start, range.end - 1)));
    }
    headers.insert(CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    let content_type = HeaderValue::from_str(&blob.about.content_type);
    headers
        .insert(CONTENT_TYPE, content_type.unwrap_or(HeaderValue::from_static("application/octet-stream")));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, SANDBOX);
    set_validators(&mut answer, &validators);
    Ok(Some(answer))
}

fn set_validators(answer: &mut Answer, validators: &Validators) {
    let headers = answer.headers_mut();
    headers.insert(ETAG, validators.entity_tag.clone());
    headers.insert(LAST_MODIFIED, ascii(&httpdate::fmt_http_date(validators.modified)));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
}

/// The bytes of `parts`: one is read now, further ones while they are sent. None
/// if the first is gone.
async fn body_of(
    service: &Haystack,
    parts: Vec<(Chunk, Range<usize>)>,
) -> Result<Option<AnswerBody>, Refusal> {
    let mut parts = parts.into_iter();
    let Some((chunk, part)) = parts.next() else { return Ok(Some(AnswerBody::whole(Bytes::new()))) };
    let Some(first) = service.read_chunk(&chunk).await? else { return Ok(None) };
    let first = first.slice(part);
    if parts.len() == 0 {
        return Ok(Some(AnswerBody::whole(first)));
    }
    let (mut sender, pieces) = Channel::new(1);
    let service = service.clone();
    tokio::spawn(async move {
        if let Err(error) = send_all(&service, &mut sender, first, parts).await {
            tracing::debug!(%error, "a blob was cut off while it was sent");
            sender.abort(error);
        }
    });
    Ok(Some(AnswerBody::Pieces(pieces)))
}

async fn send_all(
    service: &Haystack,
    sender: &mut Sender<Bytes, Error>,
    first: Bytes,
    parts: impl Iterator<Item = (Chunk, Range<usize>)>,
) -> Result<(), Error> {
    // A failed send means that the client has gone.
    if sender.send_data(first).await.is_err() {
        return Ok(());
    }
    for (chunk, part) in parts {
        // Replaced or deleted meanwhile.
        let data = service.read_chunk(&chunk).await?.ok_or(Error::Closing)?;
        if sender.send_data(data.slice(part)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Deletes the blob `name`.
///
/// # Durability
///
/// The name is gone for good with status 204.
///
/// # Errors
///
/// 400, 412, 503.
pub(super) async fn delete(service: &Haystack, name: &str, headers: &HeaderMap) -> Result<Answer, Refusal> {
    let name = decode_name(name)?;
    match service.delete_blob(&name, &condition_of(headers)?).await? {
        true => Ok(empty(StatusCode::NO_CONTENT)),
        false => Err(precondition_failed()),
    }
}

/// Answers with a page of names: `?prefix=`, `?delimiter=`, `?limit=`, `?after=`.
///
/// # Errors
///
/// 400 for a bad parameter.
pub(super) async fn list(service: &Haystack, query: Option<&str>) -> Result<Answer, Refusal> {
    #[derive(Serialize)]
    struct BlobsJson<'a> {
        blobs: Vec<BlobJson<'a>>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        prefixes: Vec<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<String>,
    }
    let asked = Asked::parse(query)?;
    let query = BlobQuery {
        prefix: query_parameter(query, "prefix")?.unwrap_or_default(),
        delimiter: query_parameter(query, "delimiter")?,
        after: asked.after.clone(),
        count_max: asked.count,
    };
    let listed = service.blobs().list(&query).await?;
    let mut content = BlobsJson { blobs: Vec::new(), prefixes: Vec::new(), next: None };
    for place in &listed {
        match place {
            Listed::Blob { name, etag, about } => content.blobs.push(BlobJson::new(name, etag, about)),
            Listed::Prefix(prefix) => content.prefixes.push(prefix),
        }
    }
    if let Some(last) = listed.last().filter(|_| listed.len() == asked.count) {
        let delimiter = query.delimiter.as_deref().map(|text| format!("&delimiter={}", encode(text)));
        let next = asked.next("/blobs", last.name());
        content.next =
            Some(format!("{next}&prefix={}{}", encode(&query.prefix), delimiter.unwrap_or_default()));
    }
    Ok(fresh(&content))
}
