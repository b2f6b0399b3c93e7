//! Tablets at the console door, in JSON, for `hayloft admin` and other tools.
//!
//! ```text
//! GET  /tablets                                  [{"tablet": 17, "table": ..., "server": ...}, ...]
//! POST /tablets/17/move   {"to": "tablet-server-2"}    {"tablet": 93}: its number there
//! POST /tablets/17/split  {}                           {}
//! ```
//!
//! What is refused is answered with `{"error": "..."}`. A POST must say that it
//! is `application/json`: a page of another site cannot send that unasked.

use std::sync::Arc;

use bytes::Bytes;
use cluster::ServerId;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Body;
use master::Master;
use master::tablet_list::TabletStatus;
use serde_json::{Value, json};
use tablet_server::schema::TabletId;
use tonic::{Code, Status};

use super::respond;

/// Bytes of a request's body at most.
const BODY_BYTES_MAX: usize = 4 << 10;

/// Answers a request below `/tablets`; `master` is none while the process starts.
pub(super) async fn answer<B>(master: Option<Arc<Master>>, request: Request<B>) -> Response<Full<Bytes>>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    let outcome = match master {
        Some(master) => outcome(&master, request).await,
        None => Err(Status::unavailable("tablets are being recovered")),
    };
    let (code, body) = match outcome {
        Ok(body) => (StatusCode::OK, body),
        Err(status) => (http_code(status.code()), json!({ "error": status.message() })),
    };
    respond(code, "application/json", format!("{body}\n"))
}

fn http_code(code: Code) -> StatusCode {
    match code {
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::InvalidArgument => StatusCode::BAD_REQUEST,
        Code::FailedPrecondition => StatusCode::CONFLICT,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

async fn outcome<B>(master: &Arc<Master>, request: Request<B>) -> Result<Value, Status>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match (request.method(), parts.as_slice()) {
        (&Method::GET, ["tablets"]) => {
            let tablets = master.tablet_list().await?;
            Ok(tablets.iter().map(shown).collect())
        }
        (&Method::POST, ["tablets", tablet, change]) => {
            let number = tablet.parse().map_err(|_| Status::not_found("a tablet has a number"))?;
            let body = body(request).await?;
            apply(master, TabletId(number), change, &body).await
        }
        _ => {
            Err(Status::not_found("there is GET /tablets, POST /tablets/ID/move and POST /tablets/ID/split"))
        }
    }
}

async fn apply(master: &Arc<Master>, tablet: TabletId, change: &str, body: &Value) -> Result<Value, Status> {
    match change {
        "move" => {
            let to = body["to"].as_str();
            let to =
                to.ok_or_else(|| Status::invalid_argument("\"to\" must be the name of a tablet server"))?;
            let moved = master.move_tablet(tablet, ServerId(to.to_owned())).await?;
            Ok(json!({ "tablet": moved.0 }))
        }
        "split" => {
            master.split_tablet(tablet).await?;
            Ok(json!({}))
        }
        _ => Err(Status::not_found("a tablet can be told to move and to split")),
    }
}

pub(super) async fn body<B>(request: Request<B>) -> Result<Value, Status>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    let refused = |why: &str| Status::invalid_argument(why);
    super::require_json(&request).map_err(refused)?;
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await;
    let body = body.map_err(|_| refused("the body is cut off or has more than 4096 bytes"))?;
    serde_json::from_slice(&body.to_bytes()).map_err(|_| refused("the body is not JSON"))
}

fn shown(tablet: &TabletStatus) -> Value {
    let assignment = &tablet.stats.assignment;
    json!({
        "tablet": assignment.tablet.0,
        "table": tablet.table,
        "start": assignment.range.start.escape_ascii().to_string(),
        "end": assignment.range.end.escape_ascii().to_string(),
        "server": tablet.server.0,
        "memtable_bytes": tablet.stats.memtable_bytes,
        "sstable_bytes": tablet.stats.sstable_bytes,
        "row_count": tablet.stats.row_count,
    })
}
