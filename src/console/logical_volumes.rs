//! Logical volumes and stores at the console door, in JSON, for `hayloft admin` and
//! other tools.
//!
//! ```text
//! GET  /logical-volumes                       {"volumes": [...], "finished_refills": [...], "repaired_count": 0}
//! GET  /stores                                [{"address": ..., "condition": ...}, ...]
//! POST /logical-volumes/7/read-only           {}
//! POST /logical-volumes/7/writable            {}
//! POST /stores/read-only                      {"store": "http://10.0.0.7:8090"}
//! POST /stores/writable                       {"store": "http://10.0.0.7:8090"}
//! ```
//!
//! What is refused is answered with `{"error": "..."}`.

use bytes::Bytes;
use haystack::logical::LogicalVolumes;
use haystack::photo_id::VolumeId;
use haystack::{Error, Haystack};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Body;
use serde_json::{Value, json};

use super::json_calls::body;
use super::respond;

/// What is refused, and why.
type Refusal = (StatusCode, String);

/// Answers a request below `/logical-volumes` or `/stores`; `photos` is none while the
/// process starts.
pub(super) async fn answer<B>(photos: Option<Haystack>, request: Request<B>) -> Response<Full<Bytes>>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    let outcome = match photos {
        Some(photos) => outcome(&photos, request).await,
        None => Err((StatusCode::SERVICE_UNAVAILABLE, "photo volumes are being recovered".to_owned())),
    };
    let (code, body) = match outcome {
        Ok(body) => (StatusCode::OK, body),
        Err((code, message)) => (code, json!({ "error": message })),
    };
    respond(code, "application/json", format!("{body}\n"))
}

async fn outcome<B>(photos: &Haystack, request: Request<B>) -> Result<Value, Refusal>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match (request.method(), parts.as_slice()) {
        (&Method::GET, ["logical-volumes"]) => {
            let status = logical(photos)?.status();
            Ok(json!({
                "volumes": status.volumes,
                "finished_refills": status.finished_refills,
                "repaired_count": status.repaired_count,
            }))
        }
        (&Method::GET, ["stores"]) => Ok(json!(logical(photos)?.status().stores)),
        (&Method::POST, ["logical-volumes", volume, change @ ("read-only" | "writable")]) => {
            let known = || (StatusCode::NOT_FOUND, format!("there is no logical volume {volume}"));
            let volume = VolumeId(volume.parse().map_err(|_| known())?);
            json_body(request).await?;
            match logical(photos)?.set_volume_read_only(volume, *change == "read-only").await {
                Ok(()) => Ok(json!({})),
                Err(Error::NoReplica { .. }) => Err(known()),
                Err(error) => Err((StatusCode::SERVICE_UNAVAILABLE, error.to_string())),
            }
        }
        (&Method::POST, ["stores", change @ ("read-only" | "writable")]) => {
            let read_only = *change == "read-only";
            let body = json_body(request).await?;
            let missing =
                || (StatusCode::BAD_REQUEST, "\"store\" must be a store's address or number".to_owned());
            let name = body["store"].as_str().ok_or_else(missing)?;
            match logical(photos)?.set_store_read_only(name, read_only).await {
                Ok(true) => Ok(json!({})),
                Ok(false) => Err((
                    StatusCode::NOT_FOUND,
                    format!("there is no store {name}, or it has not answered yet"),
                )),
                Err(error) => Err((StatusCode::SERVICE_UNAVAILABLE, error.to_string())),
            }
        }
        _ => Err((
            StatusCode::NOT_FOUND,
            "there is GET /logical-volumes and /stores, POST /logical-volumes/ID/read-only and /writable, \
             POST /stores/read-only and /writable"
                .to_owned(),
        )),
    }
}

fn logical(photos: &Haystack) -> Result<&LogicalVolumes, Refusal> {
    let alone = "photos are kept in this process alone; photos.stores names others".to_owned();
    photos.logical_volumes().map(|logical| &**logical).ok_or((StatusCode::CONFLICT, alone))
}

async fn json_body<B>(request: Request<B>) -> Result<Value, Refusal>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    body(request).await.map_err(|status| (StatusCode::BAD_REQUEST, status.message().to_owned()))
}
