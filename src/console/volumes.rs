//! Photo volumes at the console door, in JSON, for `hayloft admin` and other tools.
//!
//! ```text
//! GET  /volumes                   [{"volume": 1, "state": "write-enabled", ...}, ...]
//! GET  /volumes/1                 {"volume": 1, "state": "write-enabled", ...}
//! POST /volumes/1/compact  {}     {"bytes_before": ..., "bytes_after": ...}, once it is done
//! POST /volumes/1/scrub    {}     {"needles": ..., "bytes": ..., "bad": [...]}, once it is done
//! ```
//!
//! What is refused is answered with `{"error": "..."}`. A POST must say that it
//! is `application/json`: a page of another site cannot send that unasked.

use bytes::Bytes;
use haystack::photo_id::VolumeId;
use haystack::store::VolumeStats;
use haystack::{Error, Haystack};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

use super::respond;

type Refusal = (StatusCode, String);

/// Answers a request below `/volumes`; `photos` is none while the process starts.
pub(super) async fn answer<B>(photos: Option<Haystack>, request: Request<B>) -> Response<Full<Bytes>> {
    let outcome = match photos {
        Some(photos) => outcome(&photos, &request).await,
        None => Err((StatusCode::SERVICE_UNAVAILABLE, "photo volumes are being recovered".to_owned())),
    };
    let (code, body) = match outcome {
        Ok(body) => (StatusCode::OK, body),
        Err((code, message)) => (code, json!({ "error": message })),
    };
    respond(code, "application/json", format!("{body}\n"))
}

async fn outcome<B>(photos: &Haystack, request: &Request<B>) -> Result<Value, Refusal> {
    let path = request.uri().path();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let number = |text: &str| {
        let number = text.parse().map(VolumeId);
        number.map_err(|_| (StatusCode::NOT_FOUND, "a volume has a number".to_owned()))
    };
    match (request.method(), parts.as_slice()) {
        (&Method::GET, ["volumes"]) => Ok(photos.stats().volumes.iter().map(shown).collect()),
        (&Method::GET, ["volumes", volume]) => {
            let volume = number(volume)?;
            let stats = photos.stats().volumes;
            let stats = stats.iter().find(|stats| stats.volume == volume);
            stats.map(shown).ok_or_else(|| refusal(&Error::NoReplica { volume }))
        }
        (&Method::POST, ["volumes", volume, work]) => {
            let volume = number(volume)?;
            super::require_json(request).map_err(|why| (StatusCode::BAD_REQUEST, why.to_owned()))?;
            carry_out(photos, volume, work).await
        }
        _ => Err((
            StatusCode::NOT_FOUND,
            "there is GET /volumes, GET /volumes/ID, POST /volumes/ID/compact and POST /volumes/ID/scrub"
                .to_owned(),
        )),
    }
}

async fn carry_out(photos: &Haystack, volume: VolumeId, work: &str) -> Result<Value, Refusal> {
    match work {
        "compact" => {
            let compacted = photos.compact_volume(volume).await.map_err(|error| refusal(&error))?;
            Ok(json!({ "bytes_before": compacted.bytes_before, "bytes_after": compacted.bytes_after }))
        }
        "scrub" => {
            let scrubbed = photos.scrub_volume(volume).await.map_err(|error| refusal(&error))?;
            let bad = scrubbed.bad.iter().map(|bad| {
                json!({
                    "key": format!("{:016x}", bad.key.0),
                    "size": bad.size.name(),
                    "offset": bad.offset,
                    "error": bad.error.to_string(),
                })
            });
            Ok(json!({
                "needles": scrubbed.needle_count,
                "bytes": scrubbed.bytes,
                "bad_needles": scrubbed.bad_count,
                "bad": bad.collect::<Value>(),
            }))
        }
        _ => Err((StatusCode::NOT_FOUND, "a volume can be told to compact and to scrub".to_owned())),
    }
}

fn refusal(error: &Error) -> Refusal {
    let code = match error {
        Error::NoReplica { .. } => StatusCode::NOT_FOUND,
        Error::Uncompactable { .. } | Error::Poisoned { .. } => StatusCode::CONFLICT,
        Error::DiskFull { .. } => StatusCode::INSUFFICIENT_STORAGE,
        Error::Busy { .. } | Error::Closing => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (code, error.to_string())
}

fn shown(stats: &VolumeStats) -> Value {
    json!({
        "volume": stats.volume.0,
        "state": stats.state,
        "photos": stats.totals.photo_count,
        "needles": stats.totals.needle_count,
        "tombstones": stats.totals.tombstone_count,
        "bytes": stats.volume_bytes,
        "live_bytes": stats.totals.live_bytes,
        "garbage_bytes": stats.garbage_bytes,
        "index_memory_bytes": stats.index_memory_bytes,
    })
}
