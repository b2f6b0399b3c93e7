//! What every handler gives, and the answers that are no photo: JSON, and errors as JSON.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::Full;
use http_body_util::channel::Channel;
use hyper::body::{Body, Frame, SizeHint};
use serde::Serialize;

use crate::error::Error;

/// What every handler gives.
pub type Answer = Response<AnswerBody>;

/// The bytes of an answer.
#[derive(Debug)]
pub enum AnswerBody {
    /// All there, and written together with the head.
    Whole(Full<Bytes>),
    /// Read while it is sent. The answer's head says how long it is.
    Pieces(Channel<Bytes, Error>),
}

impl AnswerBody {
    /// An answer of `data`.
    pub fn whole(data: impl Into<Bytes>) -> Self {
        Self::Whole(Full::new(data.into()))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.get_mut() {
            Self::Whole(whole) => Pin::new(whole)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|never| match never {}))),
            Self::Pieces(pieces) => Pin::new(pieces).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_end_stream(),
            Self::Pieces(pieces) => pieces.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Pieces(pieces) => pieces.size_hint(),
        }
    }
}

/// A request that is not fulfilled, as the client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: StatusCode,
    /// A word for programs.
    pub code: &'static str,
    /// A sentence for people.
    pub message: String,
    /// The limit that was passed, where one was.
    pub limit: Option<u64>,
    /// When to come again, where that helps.
    pub retry_after: Option<Duration>,
    /// The methods there are, where another was used.
    pub allow: Option<&'static str>,
}

impl Refusal {
    /// A refusal without limit or delay.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), limit: None, retry_after: None, allow: None }
    }

    /// There is nothing at this path.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is no such photo")
    }

    /// The path knows other methods.
    pub fn method(allow: &'static str) -> Self {
        let message = format!("this path takes {allow}");
        let allow = Some(allow);
        Self { allow, ..Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message) }
    }

    /// The request has an error that its sender can mend.
    pub fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// A body, or one file in it, is larger than the `limit` bytes of a `what`.
    pub fn too_large(what: &str, limit: u64) -> Self {
        let message = format!("a {what} may have at most {limit} bytes");
        Self { limit: Some(limit), ..Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message) }
    }

    /// The same answer, worth another try after `delay`.
    pub fn retry_after(self, delay: Duration) -> Self {
        Self { retry_after: Some(delay), ..self }
    }

    /// The answer that tells it.
    pub fn answer(self) -> Answer {
        #[derive(Serialize)]
        struct ErrorJson<'a> {
            code: &'a str,
            message: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            limit: Option<u64>,
        }
        let Self { status, code, message, limit, retry_after, allow } = self;
        let mut answer = json(status, &ErrorJson { code, message: &message, limit });
        let headers = answer.headers_mut();
        if let Some(delay) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(delay.as_secs().max(1)));
        }
        if let Some(allow) = allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        answer
    }
}

/// Maps this crate's errors to HTTP; the only place that does.
impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let busy = |code, message| Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message);
        match error {
            Error::TooLarge { limit_bytes, .. } => Self::too_large("photo", limit_bytes),
            Error::NotAnImage { .. } => {
                Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_an_image", message)
            }
            Error::TooManyPixels { pixel_count_max, .. } => Self {
                limit: Some(pixel_count_max),
                ..Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_many_pixels", message)
            },
            Error::DamagedImage { .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "damaged_image", message)
            }
            Error::DiskFull { reserve_bytes, .. } => Self {
                limit: Some(reserve_bytes),
                ..Self::new(StatusCode::INSUFFICIENT_STORAGE, "disk_full", message)
            },
            Error::Busy { retry_after, .. } => busy("busy", message).retry_after(retry_after),
            Error::DirectoryAway => busy("starting", message).retry_after(Duration::from_secs(1)),
            Error::TooFewStores { .. } | Error::NoneAnswers { .. } | Error::StoreAway { .. } => {
                busy("stores_away", message).retry_after(Duration::from_secs(5))
            }
            Error::Sealed { .. } | Error::Poisoned { .. } | Error::Closing => {
                busy("unavailable", message).retry_after(Duration::from_secs(5))
            }
            Error::Damaged { .. } | Error::ReplicaDamaged { .. } => {
                internal("damaged", &error, "the photo is damaged where it is stored")
            }
            Error::Directory(_) => internal("directory", &error, "the photo directory failed"),
            Error::BadOption { .. }
            | Error::InUse { .. }
            | Error::Io(_)
            | Error::VolumeIll { .. }
            | Error::StoreIll { .. }
            | Error::NoReplica { .. }
            | Error::ReplicaExists { .. }
            | Error::StoreRefused { .. }
            | Error::Uncompactable { .. } => internal("storage", &error, "the photo store failed"),
        }
    }
}

/// An error that the operator has to see; the client learns no path of ours.
fn internal(code: &'static str, error: &Error, message: &'static str) -> Refusal {
    static FAILURE_COUNT: AtomicU64 = AtomicU64::new(0);
    let number = FAILURE_COUNT.fetch_add(1, Ordering::Relaxed);
    let source = std::error::Error::source(error).map(ToString::to_string);
    tracing::error!(number, %error, source, "a request failed");
    metrics::counter!("hayloft_haystack_failures_total", "code" => code).increment(1);
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, code, message)
}

/// `content` as JSON.
pub fn json(status: StatusCode, content: &impl Serialize) -> Answer {
    let mut body = serde_json::to_vec(content).expect("our answers have text keys and no failing parts");
    body.push(b'\n');
    let mut answer = Response::new(AnswerBody::whole(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// An answer without a body.
pub fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(AnswerBody::whole(Bytes::new()));
    *answer.status_mut() = status;
    answer
}
