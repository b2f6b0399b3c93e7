//! Deleting many photos: by a list of ids, or an album.

use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::album::decode_album_name;
use super::answer::{Answer, Refusal, json};
use super::body::UploadBody;
use crate::photo_id::PhotoId;
use crate::service::Haystack;
use crate::store::Deleted;

/// Ids in one request.
const ID_COUNT_MAX: usize = 1000;
/// Bytes of a request: ids, quotes, commas and white space.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Deletes that wait for a sync together.
const AT_ONCE: usize = 64;

/// Deletes the photos whose ids stand in the body, `{"ids": […]}`, and tells what
/// became of each. One that is not there is deleted.
///
/// # Durability
///
/// What is told as deleted is gone for good.
///
/// # Errors
///
/// 400, 408, 413; what fails for one id is told of that id.
pub(super) async fn delete(service: &Haystack, mut body: UploadBody) -> Result<Answer, Refusal> {
    #[derive(Deserialize)]
    struct Ids {
        ids: Vec<String>,
    }
    #[derive(Serialize)]
    struct OutcomesJson<'a> {
        deleted: Vec<&'a str>,
        failed: Vec<FailureJson<'a>>,
    }
    #[derive(Serialize)]
    struct FailureJson<'a> {
        id: &'a str,
        code: &'a str,
        message: String,
    }
    let mut text = Vec::new();
    while let Some(piece) = body.next().await? {
        if text.len() + piece.len() > BODY_BYTES_MAX {
            return Err(Refusal::too_large("list of ids", BODY_BYTES_MAX as u64));
        }
        text.extend_from_slice(&piece);
    }
    let Ids { ids } = serde_json::from_slice(&text).map_err(|error| {
        Refusal::bad_request("bad_ids", format!("the body is not {{\"ids\": [...]}}: {error}"))
    })?;
    if ids.len() > ID_COUNT_MAX {
        let refusal =
            Refusal::bad_request("too_many_ids", format!("at most {ID_COUNT_MAX} ids are deleted at once"));
        return Err(Refusal { limit: Some(ID_COUNT_MAX as u64), ..refusal });
    }
    let mut outcomes = OutcomesJson { deleted: Vec::new(), failed: Vec::new() };
    for ids in ids.chunks(AT_ONCE) {
        let deletes = ids.iter().map(|id| delete_one(service, id));
        for (id, outcome) in ids.iter().zip(futures_util::future::join_all(deletes).await) {
            match outcome {
                Ok(()) => outcomes.deleted.push(id),
                Err(Refusal { code, message, .. }) => outcomes.failed.push(FailureJson { id, code, message }),
            }
        }
    }
    Ok(json(StatusCode::OK, &outcomes))
}

async fn delete_one(service: &Haystack, id: &str) -> Result<(), Refusal> {
    let id = PhotoId::decode(id.as_bytes()).map_err(|_| Refusal::not_found())?;
    match service.delete(&id).await? {
        Deleted::Now | Deleted::Absent => Ok(()),
        Deleted::WrongCookie => Err(Refusal::not_found()),
    }
}

/// Deletes the photos that are in the album now, and tells how many.
///
/// # Durability
///
/// They are gone for good with status 200.
///
/// # Errors
///
/// 400, 503; some may be gone then.
pub(super) async fn delete_album(service: &Haystack, encoded_name: &str) -> Result<Answer, Refusal> {
    #[derive(Serialize)]
    struct DeletedJson {
        deleted: u64,
    }
    let name = decode_album_name(encoded_name)?;
    let mut outcome = DeletedJson { deleted: 0 };
    let mut after = None;
    loop {
        let page = service.directory().photos(Some(&name), after.as_deref(), AT_ONCE).await?;
        let deletes = page.photos.iter().map(|photo| service.delete(&photo.id));
        for deleted in futures_util::future::join_all(deletes).await {
            outcome.deleted += u64::from(deleted? == Deleted::Now);
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(json(StatusCode::OK, &outcome)),
        }
    }
}
