//! `POST /photos`: one photo as the body, or several in a form.
//!
//! A form's photos become photos all together or not at all: each is stored as
//! it arrives, their rows are written in the end, and if anything fails the
//! stored ones are deleted again. So a failed form can be sent again as it is.
//!
//! Memory is bounded by the permits that the service hands out: an upload is not
//! read before there is room for it. A form holds room for one photo at a time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::header::{CONTENT_TYPE, HeaderValue, LOCATION};
use http::{HeaderMap, StatusCode};
use multer::{Field, Multipart};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::album::check_album_name;
use super::answer::{Answer, Refusal, json};
use super::body::{BodyError, UploadBody};
use crate::error::Error;
use crate::photo::{Photo, PhotoJson};
use crate::service::Haystack;

/// Bytes of a form field that is no photo.
const TEXT_FIELD_BYTES_MAX: usize = 1 << 10;
/// Bytes of a file's name that are kept.
const FILENAME_BYTES_MAX: usize = 255;

/// Takes the photo, or the form of photos, in `body`.
///
/// # Durability
///
/// With status 201 every photo and its row are synced. With any other, none of
/// the request's photos is there.
///
/// # Errors
///
/// See [`Refusal`]: 400, 408, 413, 415, 422, 503, 507.
pub async fn post(
    service: &Haystack,
    album: Option<String>,
    headers: &HeaderMap,
    body: UploadBody,
) -> Result<Answer, Refusal> {
    if let Some(album) = &album {
        check_album_name(album)?;
    }
    if !service.directory().is_ready() {
        return Err(Error::DirectoryAway.into());
    }
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if content_type.trim_start().to_ascii_lowercase().starts_with("multipart/") {
        let boundary = multer::parse_boundary(content_type)
            .map_err(|error| Refusal::bad_request("broken_form", format!("the form's type: {error}")))?;
        return post_form(service, album, boundary, body).await;
    }
    let mut photo = post_raw(service, body).await?;
    photo.album = album;
    service.publish(std::slice::from_ref(&photo)).await?;
    Ok(created_one(&photo))
}

async fn post_raw(service: &Haystack, mut body: UploadBody) -> Result<Photo, Refusal> {
    let limit = service.options().photo_bytes_max;
    let content_length = body.content_length();
    if content_length.is_some_and(|length| length > limit) {
        return Err(Refusal::too_large(limit));
    }
    let (_room, mut upload) = room_for(service, content_length).await?;
    while let Some(piece) = body.next().await? {
        take(&mut upload, &piece, limit)?;
    }
    Ok(service.store(upload.freeze(), None).await?)
}

async fn post_form(
    service: &Haystack,
    album: Option<String>,
    boundary: String,
    body: UploadBody,
) -> Result<Answer, Refusal> {
    let content_length = body.content_length();
    let pieces = stream::unfold(body, |mut body| async move {
        let piece = body.next().await.transpose()?;
        Some((piece, body))
    });
    let mut form = Form { album, photos: Vec::new() };
    let taken = form.take(service, Multipart::new(pieces, boundary), content_length).await;
    let taken = match taken {
        Ok(()) => form.check(),
        refused => refused,
    };
    if let Err(refusal) = taken {
        service.withdraw(&form.photos).await;
        return Err(refusal);
    }
    let Form { album, mut photos } = form;
    photos.iter_mut().for_each(|photo| photo.album.clone_from(&album));
    service.publish(&photos).await?;
    Ok(created(&photos))
}

/// What has been read of a form.
struct Form {
    album: Option<String>,
    photos: Vec<Photo>,
}

impl Form {
    async fn take(
        &mut self,
        service: &Haystack,
        mut multipart: Multipart<'_>,
        content_length: Option<u64>,
    ) -> Result<(), Refusal> {
        while let Some(field) = multipart.next_field().await.map_err(|error| broken_form(&error))? {
            if field.file_name().is_none() {
                self.take_text(field).await?;
                continue;
            }
            if self.photos.len() == service.options().form_photo_count_max {
                let limit = service.options().form_photo_count_max;
                let message = format!("a form may hold at most {limit} photos");
                let refusal = Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too_many_photos", message);
                return Err(Refusal { limit: Some(limit as u64), ..refusal });
            }
            self.photos.extend(take_file(service, field, content_length).await?);
        }
        Ok(())
    }

    async fn take_text(&mut self, mut field: Field<'_>) -> Result<(), Refusal> {
        let mut text = Vec::new();
        while let Some(piece) = field.chunk().await.map_err(|error| broken_form(&error))? {
            if text.len() + piece.len() > TEXT_FIELD_BYTES_MAX {
                let message = format!("a text field may have at most {TEXT_FIELD_BYTES_MAX} bytes");
                let refusal = Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "field_too_large", message);
                return Err(Refusal { limit: Some(TEXT_FIELD_BYTES_MAX as u64), ..refusal });
            }
            text.extend_from_slice(&piece);
        }
        if field.name() == Some("album") && !text.is_empty() && self.album.is_none() {
            let not_text = |_| Refusal::bad_request("bad_album", "the album's name is not UTF-8");
            let album = String::from_utf8(text).map_err(not_text)?;
            check_album_name(&album)?;
            self.album = Some(album);
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Refusal> {
        if self.photos.is_empty() {
            return Err(Refusal::bad_request("no_photo", "the form holds no file"));
        }
        Ok(())
    }
}

/// Stores the file in `field`; none if a browser sent it for an empty input.
async fn take_file(
    service: &Haystack,
    mut field: Field<'_>,
    content_length: Option<u64>,
) -> Result<Option<Photo>, Refusal> {
    let filename = field.file_name().and_then(clean_filename);
    let limit = service.options().photo_bytes_max;
    let (_room, mut upload) = room_for(service, content_length).await?;
    while let Some(piece) = field.chunk().await.map_err(|error| broken_form(&error))? {
        take(&mut upload, &piece, limit)?;
    }
    if upload.is_empty() && filename.is_none() {
        return Ok(None);
    }
    let named = |refusal: Refusal| match &filename {
        Some(name) => Refusal { message: format!("{name}: {}", refusal.message), ..refusal },
        None => refusal,
    };
    let stored = service.store(upload.freeze(), filename.clone()).await;
    stored.map(Some).map_err(|error| named(error.into()))
}

/// Waits for room in memory for a photo of a body that is `content_length` long.
async fn room_for(
    service: &Haystack,
    content_length: Option<u64>,
) -> Result<(OwnedSemaphorePermit, BytesMut), Refusal> {
    let limit = service.options().photo_bytes_max;
    let expected = content_length.map_or(limit, |length| length.min(limit));
    let permits = u32::try_from(expected >> 10).unwrap_or(u32::MAX).max(1);
    let room = service.bodies().clone().acquire_many_owned(permits);
    let patience = service.options().body_timeout;
    match timeout(patience, room).await {
        Ok(Ok(room)) => {
            let capacity = content_length.map_or(0, |_| usize::try_from(expected).unwrap_or(0));
            Ok((room, BytesMut::with_capacity(capacity)))
        }
        _ => Err(Error::Busy { what: "uploads", retry_after: Duration::from_secs(2) }.into()),
    }
}

fn take(upload: &mut BytesMut, piece: &Bytes, limit: u64) -> Result<(), Refusal> {
    if (upload.len() + piece.len()) as u64 > limit {
        return Err(Refusal::too_large(limit));
    }
    upload.extend_from_slice(piece);
    Ok(())
}

fn broken_form(error: &multer::Error) -> Refusal {
    if let multer::Error::StreamReadFailed(source) = error
        && let Some(body) = source.downcast_ref::<BodyError>()
    {
        return (*body).into();
    }
    Refusal::bad_request("broken_form", format!("the form is broken: {error}"))
}

/// The last part of a client's file name, without control characters, cut to a
/// length; none if nothing is left.
fn clean_filename(name: &str) -> Option<String> {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let mut clean: String = last.chars().filter(|character| !character.is_control()).collect();
    let end = (0..=FILENAME_BYTES_MAX.min(clean.len())).rev().find(|end| clean.is_char_boundary(*end));
    clean.truncate(end.unwrap_or(0));
    (!clean.is_empty()).then_some(clean)
}

fn created(photos: &[Photo]) -> Answer {
    #[derive(Serialize)]
    struct PhotosJson<'a> {
        photos: Vec<PhotoJson<'a>>,
    }
    match photos {
        [photo] => created_one(photo),
        _ => json(StatusCode::CREATED, &PhotosJson { photos: photos.iter().map(Photo::to_json).collect() }),
    }
}

fn created_one(photo: &Photo) -> Answer {
    let mut answer = json(StatusCode::CREATED, &photo.to_json());
    let location = HeaderValue::from_str(&photo.path()).expect("an id is ASCII");
    answer.headers_mut().insert(LOCATION, location);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_lose_their_path_and_what_cannot_be_shown() {
        assert_eq!(clean_filename("C:\\photos\\a.jpg").as_deref(), Some("a.jpg"));
        assert_eq!(clean_filename("../../etc/passwd").as_deref(), Some("passwd"));
        assert_eq!(clean_filename("a\u{0}b\n.png").as_deref(), Some("ab.png"));
        assert_eq!(clean_filename("dir/"), None);
        assert_eq!(clean_filename(&"\u{e9}".repeat(200)).map(|name| name.len()), Some(254));
    }
}
