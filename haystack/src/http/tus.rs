//! `/uploads`: resumable uploads by tus 1.0.0 with the extensions creation,
//! creation-with-upload, expiration, termination and checksum
//! (tus.io/protocols/resumable-upload).
//!
//! The metadata `blob` names a blob; without it the upload becomes a photo, with
//! `album` and `filename` if they are given. A complete upload says in `Location`
//! of its answers what it became. Of a part with a checksum nothing is kept
//! unless it is right; of another one, whatever arrived.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use http::{HeaderMap, Method, StatusCode};
use serde::Serialize;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::time::{Duration, SystemTime};

use super::album::check_album_name;
use super::answer::{Answer, Refusal, empty, json};
use super::blob::check_name;
use super::body::UploadBody;
use super::download::ascii;
use super::form::clean_filename;
use crate::chunk::ChunkWriter;
use crate::error::Error;
use crate::partial_upload::{PartialUpload, Target, UPLOAD_LIFETIME, UploadAbout};
use crate::service::Haystack;

const RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
const VERSION: HeaderName = HeaderName::from_static("tus-version");
const EXTENSION: HeaderName = HeaderName::from_static("tus-extension");
const MAX_SIZE: HeaderName = HeaderName::from_static("tus-max-size");
const CHECKSUM_ALGORITHM: HeaderName = HeaderName::from_static("tus-checksum-algorithm");
const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const UPLOAD_METADATA: HeaderName = HeaderName::from_static("upload-metadata");
const UPLOAD_EXPIRES: HeaderName = HeaderName::from_static("upload-expires");
const UPLOAD_CHECKSUM: HeaderName = HeaderName::from_static("upload-checksum");
const METHOD_OVERRIDE: HeaderName = HeaderName::from_static("x-http-method-override");

const PROTOCOL: HeaderValue = HeaderValue::from_static("1.0.0");
const EXTENSIONS: &str = "creation,creation-with-upload,expiration,termination,checksum";
const PART_TYPE: &str = "application/offset+octet-stream";
/// Bytes of an upload's metadata.
const METADATA_BYTES_MAX: usize = 4 << 10;
/// Of the tus protocol: the checksum of a part is wrong.
const CHECKSUM_MISMATCH: u16 = 460;

/// Answers a request to `/uploads`, or to the upload `id` below it.
///
/// # Errors
///
/// 400, 404, 405, 409, 412, 413, 415, 423, 460, 503, 507.
pub(super) async fn route(
    service: &Haystack,
    id: Option<&str>,
    method: &Method,
    headers: &HeaderMap,
    body: UploadBody,
) -> Result<Answer, Refusal> {
    let mut answer = handle(service, id, method, headers, body).await.unwrap_or_else(|refusal| {
        let version = refusal.code == "tus_version";
        let mut answer = refusal.answer();
        if version {
            answer.headers_mut().insert(VERSION, PROTOCOL);
        }
        answer
    });
    answer.headers_mut().insert(RESUMABLE, PROTOCOL);
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(answer)
}

async fn handle(
    service: &Haystack,
    id: Option<&str>,
    method: &Method,
    headers: &HeaderMap,
    body: UploadBody,
) -> Result<Answer, Refusal> {
    if method == Method::OPTIONS {
        return Ok(capabilities(service));
    }
    // What some networks do not let through comes as POST with the real method in a field.
    let method =
        headers.get(METHOD_OVERRIDE).map_or(method.as_str(), |method| method.to_str().unwrap_or_default());
    if method != "GET" && headers.get(RESUMABLE) != Some(&PROTOCOL) {
        let message = "the field tus-resumable must be 1.0.0";
        return Err(Refusal::new(StatusCode::PRECONDITION_FAILED, "tus_version", message));
    }
    if !service.is_ready() {
        return Err(Error::DirectoryAway.into());
    }
    match (id, method) {
        (None, "POST") => create(service, headers, body).await,
        (None, _) => Err(Refusal::method("OPTIONS, POST")),
        (Some(id), "HEAD") => head(service, id).await,
        (Some(id), "PATCH") => patch(service, id, headers, body).await,
        (Some(id), "DELETE") => terminate(service, id).await,
        (Some(id), "GET") => describe(service, id).await,
        (Some(_), _) => Err(Refusal::method("OPTIONS, HEAD, GET, PATCH, DELETE")),
    }
}

fn capabilities(service: &Haystack) -> Answer {
    let mut answer = empty(StatusCode::NO_CONTENT);
    let headers = answer.headers_mut();
    headers.insert(VERSION, PROTOCOL);
    headers.insert(EXTENSION, HeaderValue::from_static(EXTENSIONS));
    headers.insert(CHECKSUM_ALGORITHM, HeaderValue::from_static("sha1,sha256"));
    headers.insert(MAX_SIZE, HeaderValue::from(service.options().blob_bytes_max));
    answer
}

async fn create(service: &Haystack, headers: &HeaderMap, body: UploadBody) -> Result<Answer, Refusal> {
    let length = number(headers, &UPLOAD_LENGTH)?.ok_or_else(|| {
        Refusal::bad_request("no_length", "upload-length says how many bytes will come; it is missing")
    })?;
    let metadata = headers.get(UPLOAD_METADATA).map_or(Ok(""), |value| value.to_str());
    let metadata = metadata.map_err(|_| bad_metadata())?;
    let target = target_of(metadata)?;
    let (what, limit) = match &target {
        Target::Photo { .. } => ("photo", service.options().photo_bytes_max),
        Target::Blob { .. } => ("blob", service.options().blob_bytes_max),
    };
    if length > limit {
        return Err(Refusal::too_large(what, limit));
    }
    let lifetime = u64::try_from(UPLOAD_LIFETIME.as_millis()).expect("a day");
    let expires_ms = service.now_ms() + lifetime;
    let about = UploadAbout { length, target, metadata: metadata.to_owned(), expires_ms };
    let id = format!("{:016x}{:016x}", service.random(), service.random());
    service.partial_uploads().create(&id, &about, service.now_ms()).await?;
    let mut upload = PartialUpload { id, about, chunks: Vec::new(), url: None };
    let has_part = headers.get(CONTENT_TYPE).is_some_and(|given| given.as_bytes() == PART_TYPE.as_bytes());
    if has_part || length == 0 {
        let _turn = service.partial_uploads().begin(&upload.id).ok_or_else(locked)?;
        take_part(service, &mut upload, headers, body).await?;
    }
    let mut answer = empty(StatusCode::CREATED);
    describe_in(answer.headers_mut(), &upload);
    answer.headers_mut().insert(LOCATION, ascii(&format!("/uploads/{}", upload.id)));
    Ok(answer)
}

/// The metadata's pairs: a key, and base64 of a value if it has one.
fn target_of(metadata: &str) -> Result<Target, Refusal> {
    if metadata.len() > METADATA_BYTES_MAX {
        let message = format!("upload-metadata may have at most {METADATA_BYTES_MAX} bytes");
        let refusal = Refusal::bad_request("bad_metadata", message);
        return Err(Refusal { limit: Some(METADATA_BYTES_MAX as u64), ..refusal });
    }
    let (mut album, mut filename, mut blob, mut content_type) = (None, None, None, None);
    for pair in metadata.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once(' ').unwrap_or((pair, ""));
        let value = BASE64_STANDARD.decode(value.trim()).ok().and_then(|value| String::from_utf8(value).ok());
        let value = value.ok_or_else(bad_metadata)?;
        match key {
            "album" => album = Some(value),
            "filename" | "name" => filename = Some(value),
            "blob" => blob = Some(value),
            "filetype" | "content_type" => content_type = Some(value),
            _ => {}
        }
    }
    let Some(name) = blob else {
        let album = album.filter(|album| !album.is_empty());
        album.as_deref().map_or(Ok(()), check_album_name)?;
        return Ok(Target::Photo { album, filename: filename.as_deref().and_then(clean_filename) });
    };
    check_name(&name)?;
    let shown = |given: &String| HeaderValue::from_str(given).is_ok() && (1..256).contains(&given.len());
    let content_type = content_type.filter(shown).unwrap_or_else(|| "application/octet-stream".to_owned());
    Ok(Target::Blob { name, content_type })
}

async fn find(service: &Haystack, id: &str) -> Result<PartialUpload, Refusal> {
    let upload = service.partial_uploads().get(id, service.now_ms()).await?;
    upload.ok_or_else(|| {
        Refusal::new(StatusCode::NOT_FOUND, "not_found", "there is no such upload, or it has expired")
    })
}

async fn head(service: &Haystack, id: &str) -> Result<Answer, Refusal> {
    let mut upload = find(service, id).await?;
    if upload.url.is_none() && upload.offset() == upload.about.length {
        // A crash came between its last byte and what it becomes.
        let _turn = service.partial_uploads().begin(id).ok_or_else(locked)?;
        finish(service, &mut upload).await?;
    }
    let mut answer = empty(StatusCode::OK);
    let headers = answer.headers_mut();
    describe_in(headers, &upload);
    headers.insert(UPLOAD_LENGTH, HeaderValue::from(upload.about.length));
    if let Ok(metadata) = HeaderValue::from_str(&upload.about.metadata)
        && !metadata.is_empty()
    {
        headers.insert(UPLOAD_METADATA, metadata);
    }
    Ok(answer)
}

async fn describe(service: &Haystack, id: &str) -> Result<Answer, Refusal> {
    #[derive(Serialize)]
    struct UploadJson<'a> {
        id: &'a str,
        offset: u64,
        length: u64,
        expires_ms: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        url: Option<&'a str>,
    }
    let upload = find(service, id).await?;
    let UploadAbout { length, expires_ms, .. } = upload.about;
    let content = UploadJson {
        id: &upload.id,
        offset: upload.offset(),
        length,
        expires_ms,
        url: upload.url.as_deref(),
    };
    Ok(json(StatusCode::OK, &content))
}

async fn patch(
    service: &Haystack,
    id: &str,
    headers: &HeaderMap,
    body: UploadBody,
) -> Result<Answer, Refusal> {
    if headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes) != Some(PART_TYPE.as_bytes()) {
        let message = format!("a part's content-type is {PART_TYPE}");
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "bad_part_type", message));
    }
    let _turn = service.partial_uploads().begin(id).ok_or_else(locked)?;
    let mut upload = find(service, id).await?;
    let offset = upload.offset();
    if number(headers, &UPLOAD_OFFSET)? != Some(offset) {
        let message = format!("the upload goes on at {offset}, and upload-offset says otherwise");
        let refusal = Refusal::new(StatusCode::CONFLICT, "wrong_offset", message);
        return Err(Refusal { limit: Some(offset), ..refusal });
    }
    if upload.url.is_none() {
        take_part(service, &mut upload, headers, body).await?;
    }
    let mut answer = empty(StatusCode::NO_CONTENT);
    describe_in(answer.headers_mut(), &upload);
    Ok(answer)
}

/// Adds `body` to `upload`, and makes of it what it is to become if it is complete.
async fn take_part(
    service: &Haystack,
    upload: &mut PartialUpload,
    headers: &HeaderMap,
    mut body: UploadBody,
) -> Result<(), Refusal> {
    let mut checksum = Checksum::parse(headers)?;
    let left = upload.about.length - upload.offset();
    if body.content_length().is_some_and(|length| length > left) {
        return Err(beyond_length(left));
    }
    let mut writer = ChunkWriter::new(service, Some(body.content_length().unwrap_or(left)));
    let mut kept = 0;
    let mut received = 0;
    let mut outcome = Ok(());
    loop {
        let piece = match body.next().await {
            Ok(Some(piece)) => piece,
            Ok(None) => break,
            Err(error) => {
                outcome = Err(error.into());
                break;
            }
        };
        received += piece.len() as u64;
        if received > left {
            outcome = Err(beyond_length(left));
            break;
        }
        checksum.update(&piece);
        if let Err(error) = writer.push(piece).await {
            outcome = Err(error.into());
            break;
        }
        if checksum.is_none() && kept < writer.chunks().len() {
            add(service, upload, &writer, &mut kept).await?;
        }
    }
    writer.flush().await?;
    if outcome.is_ok() {
        outcome = checksum.check();
    }
    if !checksum.is_none() && outcome.is_err() {
        service.delete_chunks(writer.chunks()).await;
        return outcome;
    }
    add(service, upload, &writer, &mut kept).await?;
    outcome?;
    if upload.offset() == upload.about.length { finish(service, upload).await } else { Ok(()) }
}

/// Writes down the chunks of `writer` that are not yet: all but `kept`.
async fn add(
    service: &Haystack,
    upload: &mut PartialUpload,
    writer: &ChunkWriter<'_>,
    kept: &mut usize,
) -> Result<(), Refusal> {
    let chunks = &writer.chunks()[*kept..];
    service.partial_uploads().add(&upload.id, upload.offset(), chunks, service.now_ms()).await?;
    upload.chunks.extend_from_slice(chunks);
    *kept += chunks.len();
    Ok(())
}

/// Makes the complete `upload` what it is to become. What will never be that is
/// forgotten, so that its client does not try for ever.
async fn finish(service: &Haystack, upload: &mut PartialUpload) -> Result<(), Refusal> {
    match service.finish_upload(upload).await {
        Ok(url) => {
            upload.url = Some(url);
            Ok(())
        }
        Err(error) => {
            let refusal = Refusal::from(error);
            if refusal.status.is_client_error() {
                service.forget_upload(upload).await?;
            }
            Err(refusal)
        }
    }
}

async fn terminate(service: &Haystack, id: &str) -> Result<Answer, Refusal> {
    let _turn = service.partial_uploads().begin(id).ok_or_else(locked)?;
    let upload = find(service, id).await?;
    service.forget_upload(&upload).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

fn describe_in(headers: &mut HeaderMap, upload: &PartialUpload) {
    headers.insert(UPLOAD_OFFSET, HeaderValue::from(upload.offset()));
    let expires = SystemTime::UNIX_EPOCH + Duration::from_millis(upload.about.expires_ms);
    headers.insert(UPLOAD_EXPIRES, ascii(&httpdate::fmt_http_date(expires)));
    if let Some(url) = upload.url.as_deref().and_then(|url| HeaderValue::from_str(url).ok()) {
        headers.insert(LOCATION, url);
    }
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Result<Option<u64>, Refusal> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse().ok()) {
        Some(number) => Ok(Some(number)),
        None => Err(Refusal::bad_request("bad_number", format!("{name} is not a number of bytes"))),
    }
}

fn bad_metadata() -> Refusal {
    Refusal::bad_request("bad_metadata", "upload-metadata is not pairs of a key and base64 of UTF-8")
}

fn locked() -> Refusal {
    Refusal::new(StatusCode::LOCKED, "locked", "another request writes to this upload")
        .retry_after(Duration::from_secs(1))
}

fn beyond_length(left: u64) -> Refusal {
    let message = format!("{left} bytes are missing to the upload's length, and more came");
    let refusal = Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "beyond_length", message);
    Refusal { limit: Some(left), ..refusal }
}

/// What a part's bytes must hash to.
enum Checksum {
    None,
    Sha1(Sha1, Vec<u8>),
    Sha256(Sha256, Vec<u8>),
}

impl Checksum {
    fn parse(headers: &HeaderMap) -> Result<Self, Refusal> {
        let Some(value) = headers.get(UPLOAD_CHECKSUM) else { return Ok(Self::None) };
        let pair = value.to_str().ok().and_then(|value| value.split_once(' '));
        let expected = pair.and_then(|(_, expected)| BASE64_STANDARD.decode(expected.trim()).ok());
        match (pair, expected) {
            (Some(("sha1", _)), Some(expected)) => Ok(Self::Sha1(Sha1::new(), expected)),
            (Some(("sha256", _)), Some(expected)) => Ok(Self::Sha256(Sha256::new(), expected)),
            _ => {
                let message = "upload-checksum is sha1 or sha256, a space, and base64";
                Err(Refusal::bad_request("bad_checksum", message))
            }
        }
    }

    fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::None => {}
            Self::Sha1(hash, _) => hash.update(bytes),
            Self::Sha256(hash, _) => hash.update(bytes),
        }
    }

    fn check(&mut self) -> Result<(), Refusal> {
        let matches = match self {
            Self::None => true,
            Self::Sha1(hash, expected) => hash.finalize_reset().as_slice() == expected.as_slice(),
            Self::Sha256(hash, expected) => hash.finalize_reset().as_slice() == expected.as_slice(),
        };
        if matches {
            return Ok(());
        }
        let status = StatusCode::from_u16(CHECKSUM_MISMATCH).expect("three digits");
        Err(Refusal::new(
            status,
            "checksum_mismatch",
            "the part's bytes do not match its checksum; none was kept",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_says_what_an_upload_becomes() {
        let photo = |album: Option<&str>, filename: Option<&str>| Target::Photo {
            album: album.map(str::to_owned),
            filename: filename.map(str::to_owned),
        };
        assert_eq!(target_of("").unwrap(), photo(None, None));
        assert_eq!(
            target_of("filename Li4vYS5qcGc=, album c2Vh,is_confidential").unwrap(),
            photo(Some("sea"), Some("a.jpg"))
        );
        let blob = Target::Blob { name: "a/b".to_owned(), content_type: "text/plain".to_owned() };
        assert_eq!(target_of("blob YS9i,filetype dGV4dC9wbGFpbg==").unwrap(), blob);
        for bad in ["filename !!", "album Cg==", "blob ", "filename /w=="] {
            assert!(target_of(bad).is_err(), "{bad}");
        }
        assert!(target_of(&"x".repeat(METADATA_BYTES_MAX + 1)).is_err());
    }
}
