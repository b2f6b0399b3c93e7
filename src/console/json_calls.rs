//! Requests of operators in JSON, for `hayloft admin` and other tools.
//!
//! What is refused is answered with `{"error": "..."}`. A POST must say that it
//! is `application/json`: a page of another site cannot send that unasked.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Body;
use master::Master;
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::{respond, tables, tablets};

/// Bytes of a request's body at most.
const BODY_BYTES_MAX: usize = 64 << 10;

/// A request's body.
pub(super) trait JsonBody:
    Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
{
}

impl<B> JsonBody for B where B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> {}

/// Answers a request below `/tables` or `/tablets`; `master` is none while the process starts.
pub(super) async fn answer<B: JsonBody>(
    master: Option<Arc<Master>>,
    request: Request<B>,
) -> Response<Full<Bytes>> {
    let is_of_tablets = request.uri().path().starts_with("/tablets");
    let outcome = match master {
        Some(master) if is_of_tablets => tablets::outcome(&master, request).await,
        Some(master) => tables::outcome(&master, request).await,
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

/// What a POST says.
pub(super) async fn body<B: JsonBody>(request: Request<B>) -> Result<Value, Status> {
    let refused = |why: String| Status::invalid_argument(why);
    super::require_json(&request).map_err(Status::invalid_argument)?;
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await;
    let body =
        body.map_err(|_| refused(format!("the body is cut off or has more than {BODY_BYTES_MAX} bytes")))?;
    serde_json::from_slice(&body.to_bytes()).map_err(|_| refused("the body is not JSON".to_owned()))
}
