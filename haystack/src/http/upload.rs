//! `POST /photos`: one photo as the body, or several in a form.
//!
//! A form's photos become photos all together or not at all: each is stored as
//! it arrives, their rows are written in the end, and if anything fails the
//! stored ones are deleted again. So a failed form can be sent again as it is.
//!
//! With an `Idempotency-Key` an upload that is sent again gives the photos of
//! the first one ([`crate::upload_key`]).
//!
//! A photo is in memory once while it arrives, in room that was taken for it
//! ([`crate::in_flight`]). A form holds room for one photo at a time.

use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use http::{HeaderMap, StatusCode};
use serde::Serialize;

use super::album::check_album_name;
use super::answer::{Answer, Refusal, json};
use super::body::UploadBody;
use super::form::Form;
use crate::error::Error;
use crate::in_flight::Room;
use crate::photo::{Photo, PhotoJson};
use crate::service::Haystack;
use crate::upload_key::{Claim, Fingerprint, Fingerprinter};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Takes the photo, or the form of photos, in `body`.
///
/// # Durability
///
/// With status 201 every photo and its row are synced. With any other, none of
/// the request's photos is there.
///
/// # Errors
///
/// See [`Refusal`]: 400, 408, 409, 413, 415, 422, 503, 507.
pub async fn post(
    service: &Haystack,
    album: Option<String>,
    headers: &HeaderMap,
    body: UploadBody,
) -> Result<Answer, Refusal> {
    if let Some(album) = &album {
        check_album_name(album)?;
    }
    if !service.is_ready() {
        return Err(Error::DirectoryAway.into());
    }
    let Some(key) = idempotency_key(headers)? else {
        let Taken { photos, .. } = take(service, album, headers, body, Key::None).await?;
        service.publish(&photos).await?;
        return Ok(created(&photos));
    };
    let key = service.upload_keys().begin(&key).ok_or_else(in_progress)?;
    let claim = service.upload_keys().find(key.key()).await?;
    let use_of_key = claim.as_ref().map_or(Key::New, Key::Used);
    let Taken { photos, fingerprint } = take(service, album, headers, body, use_of_key).await?;
    let claim = match claim {
        Some(claim) => {
            if !claim.is_of(&fingerprint) {
                return Err(key_of_another());
            }
            service.complete_claim(&claim).await?;
            claim
        }
        None => match service.publish_once(key.key(), fingerprint.clone(), &photos).await? {
            None => return Ok(created(&photos)),
            Some(claim) if claim.is_of(&fingerprint) => claim,
            Some(_) => return Err(key_of_another()),
        },
    };
    Ok(created(&claim.photos()))
}

/// The key that an upload came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key<'a> {
    /// None.
    None,
    /// One that is not known.
    New,
    /// One that an earlier upload came with: this one is only looked at.
    Used(&'a Claim),
}

/// An upload that has arrived.
struct Taken {
    /// Its photos, stored; none if it was only looked at.
    photos: Vec<Photo>,
    /// What it was, if it came with a key.
    fingerprint: Fingerprint,
}

/// The key in `headers`: text, with or without the quotes of a structured field.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    const KEY_BYTES_MAX: usize = 255;
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let key = value.to_str().ok().map(str::trim);
    let key = key.map(|key| key.strip_prefix('"').and_then(|key| key.strip_suffix('"')).unwrap_or(key));
    match key.filter(|key| (1..=KEY_BYTES_MAX).contains(&key.len())) {
        // What clients name stands apart from what the service names itself.
        Some(key) => Ok(Some(format!("key {key}"))),
        None => {
            let message = format!("idempotency-key has 1 to {KEY_BYTES_MAX} ASCII characters");
            let refusal = Refusal::bad_request("bad_key", message);
            Err(Refusal { limit: Some(KEY_BYTES_MAX as u64), ..refusal })
        }
    }
}

fn in_progress() -> Refusal {
    let message = "an upload with this idempotency-key is under way";
    Refusal::new(StatusCode::CONFLICT, "in_progress", message).retry_after(Duration::from_secs(1))
}

fn key_of_another() -> Refusal {
    let message = "this idempotency-key was used for another upload";
    Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "key_reused", message)
}

/// Reads an upload and stores its photos, whose rows are still to be written.
async fn take(
    service: &Haystack,
    album: Option<String>,
    headers: &HeaderMap,
    body: UploadBody,
    key: Key<'_>,
) -> Result<Taken, Refusal> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !content_type.trim_start().to_ascii_lowercase().starts_with("multipart/") {
        return take_raw(service, album, body, key).await;
    }
    let mut form = Form::new(service, content_type, album, body, key)?;
    if let Err(refusal) = form.read().await {
        service.withdraw(&form.photos).await;
        return Err(refusal);
    }
    let Form { album, mut photos, mut fingerprinter, .. } = form;
    photos.iter_mut().for_each(|photo| photo.album.clone_from(&album));
    fingerprinter.update(album.unwrap_or_default().as_bytes());
    fingerprinter.end_part();
    Ok(Taken { photos, fingerprint: fingerprinter.finish() })
}

async fn take_raw(
    service: &Haystack,
    album: Option<String>,
    mut body: UploadBody,
    key: Key<'_>,
) -> Result<Taken, Refusal> {
    let limit = service.options().photo_bytes_max;
    let content_length = body.content_length();
    if content_length.is_some_and(|length| length > limit) {
        return Err(Refusal::too_large("photo", limit));
    }
    let mut fingerprinter = Fingerprinter::new(key != Key::None);
    let mut held = None;
    while let Some(piece) = body.next().await? {
        fingerprinter.update(&piece);
        if !matches!(key, Key::Used(_)) {
            read_photo_piece(service, content_length, &mut held, &piece).await?;
        }
    }
    fingerprinter.end_part();
    fingerprinter.update(album.as_deref().unwrap_or_default().as_bytes());
    fingerprinter.end_part();
    let mut photos = Vec::new();
    if !matches!(key, Key::Used(_)) {
        let (_room, upload) = held.unzip();
        photos.push(service.store_photo(upload.unwrap_or_default().into(), None).await?);
    }
    photos.iter_mut().for_each(|photo| photo.album.clone_from(&album));
    Ok(Taken { photos, fingerprint: fingerprinter.finish() })
}

/// Adds `piece` to the photo in `held`. At the first piece this waits for room
/// for the whole photo, whose request is `content_length` long if that is known.
///
/// # Errors
///
/// 413 for a photo beyond the limit, 503 where there is no room.
pub(super) async fn read_photo_piece(
    service: &Haystack,
    content_length: Option<u64>,
    held: &mut Option<(Room, Vec<u8>)>,
    piece: &[u8],
) -> Result<(), Refusal> {
    let limit = service.options().photo_bytes_max;
    let upload = match held {
        Some((_, upload)) => upload,
        None => {
            let expected = content_length.map_or(limit, |length| length.min(limit));
            let room = service.uploads_in_flight().room_for(expected).await?;
            // What is not said is guessed, and grows.
            let capacity = content_length.map_or(piece.len(), |_| usize::try_from(expected).unwrap_or(0));
            &mut held.insert((room, Vec::with_capacity(capacity))).1
        }
    };
    if (upload.len() + piece.len()) as u64 > limit {
        return Err(Refusal::too_large("photo", limit));
    }
    upload.extend_from_slice(piece);
    Ok(())
}

/// The answer that tells of `photos`: of one as it is, of several as a list.
fn created(photos: &[Photo]) -> Answer {
    #[derive(Serialize)]
    struct PhotosJson<'a> {
        photos: Vec<PhotoJson<'a>>,
    }
    let [photo] = photos else {
        return json(
            StatusCode::CREATED,
            &PhotosJson { photos: photos.iter().map(Photo::to_json).collect() },
        );
    };
    let mut answer = json(StatusCode::CREATED, &photo.to_json());
    let location = HeaderValue::from_str(&photo.path()).expect("an id is ASCII");
    answer.headers_mut().insert(LOCATION, location);
    answer
}
