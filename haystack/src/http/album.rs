//! `GET /photos`, `/albums` and `/albums/{name}`: pages of photos, newest first,
//! and of albums.

use percent_encoding::percent_decode_str;
use serde::Serialize;

use super::answer::{Answer, Refusal};
use super::page::{Asked, fresh};
use crate::directory::PhotoPage;
use crate::photo::{Photo, PhotoJson};
use crate::service::Haystack;
use crate::url::encode;

/// Bytes of an album's name.
const ALBUM_NAME_BYTES_MAX: usize = 200;

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

/// Answers with a page of all photos.
///
/// # Errors
///
/// 400 for a bad parameter.
pub async fn list_photos(service: &Haystack, query: Option<&str>) -> Result<Answer, Refusal> {
    let asked = Asked::parse(query)?;
    let page = service.directory().photos(None, asked.after.as_deref(), asked.count).await?;
    Ok(answer(&asked, "/photos", None, &page))
}

/// Answers with a page of the album whose name stands percent-encoded in a path.
///
/// # Errors
///
/// 400 for a bad name or parameter; an album without photos is an empty page.
pub async fn list_album(
    service: &Haystack,
    encoded_name: &str,
    query: Option<&str>,
) -> Result<Answer, Refusal> {
    let name = decode_album_name(encoded_name)?;
    let asked = Asked::parse(query)?;
    let page = service.directory().photos(Some(&name), asked.after.as_deref(), asked.count).await?;
    Ok(answer(&asked, &format!("/albums/{}", encode(&name)), Some(&name), &page))
}

/// Answers with a page of albums, each with its newest photo.
///
/// # Errors
///
/// 400 for a bad parameter.
pub async fn list_albums(service: &Haystack, query: Option<&str>) -> Result<Answer, Refusal> {
    #[derive(Serialize)]
    struct AlbumsJson<'a> {
        albums: Vec<CoverJson<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<String>,
    }
    #[derive(Serialize)]
    struct CoverJson<'a> {
        album: &'a str,
        url: String,
        newest: PhotoJson<'a>,
    }
    let asked = Asked::parse(query)?;
    let covers = service.directory().albums(asked.after.as_deref(), asked.count).await?;
    let next = covers.last().filter(|_| covers.len() == asked.count);
    let content = AlbumsJson {
        next: next.map(|last| asked.next("/albums", &last.name)),
        albums: covers
            .iter()
            .map(|cover| CoverJson {
                album: &cover.name,
                url: format!("/albums/{}", encode(&cover.name)),
                newest: cover.newest.to_json(),
            })
            .collect(),
    };
    Ok(fresh(&content))
}

/// A page of photos of `list`.
fn answer(asked: &Asked, list: &str, album: Option<&str>, page: &PhotoPage) -> Answer {
    #[derive(Serialize)]
    struct PhotosJson<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        album: Option<&'a str>,
        photos: Vec<PhotoJson<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<String>,
    }
    let photos = page.photos.iter().map(Photo::to_json).collect();
    let next = page.next.as_deref().map(|place| asked.next(list, place));
    fresh(&PhotosJson { album, photos, next })
}

/// The album's name that stands percent-encoded in a path.
pub(super) fn decode_album_name(encoded: &str) -> Result<String, Refusal> {
    let name = percent_decode_str(encoded)
        .decode_utf8()
        .map_err(|_| Refusal::bad_request("bad_album", "the album's name is not UTF-8"))?;
    check_album_name(&name)?;
    Ok(name.into_owned())
}
