//! Connections and routes of the photo door.

use std::convert::Infallible;
use std::pin::pin;

use bytes::Bytes;
use cluster::{Door, Shutdown};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics::Counter;

use super::answer::{Answer, Refusal, empty};
use super::body::UploadBody;
use super::{album, download, upload};
use crate::photo_id::{PhotoId, PhotoSize};
use crate::service::Haystack;
use crate::store::Deleted;

const GALLERY: &str = include_str!("gallery.html");
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Serves `door` until `shutdown` begins.
pub(crate) async fn serve(service: Haystack, door: Door, shutdown: Shutdown) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(service.options().header_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .half_close(true);
    let meters = Meters::new();
    let stop = shutdown.clone();
    door.serve(shutdown, move |stream, peer| {
        let (service, meters, stop) = (service.clone(), meters.clone(), stop.clone());
        let handler = service_fn(move |request| {
            let (service, meters) = (service.clone(), meters.clone());
            async move { Ok::<_, Infallible>(answer(&service, &meters, request).await) }
        });
        let connection = http.serve_connection(TokioIo::new(stream), handler);
        async move {
            let mut connection = pin!(connection);
            let served = tokio::select! {
                served = connection.as_mut() => served,
                () = stop.begun() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = served {
                tracing::debug!(%peer, %error, "a connection ended");
            }
        }
    })
    .await;
}

async fn answer(service: &Haystack, meters: &Meters, request: Request<Incoming>) -> Answer {
    let answer = route(service, request).await.unwrap_or_else(Refusal::answer);
    meters.count(answer.status());
    answer
}

async fn route(service: &Haystack, request: Request<Incoming>) -> Result<Answer, Refusal> {
    let (head, incoming) = request.into_parts();
    let reads = head.method == Method::GET || head.method == Method::HEAD;
    let path = head.uri.path();
    if let Some(photo) = path.strip_prefix("/photos/") {
        return match photo.split_once('/') {
            Some((id, size)) => {
                let size = PhotoSize::named(size).ok_or_else(no_such_size)?;
                if !reads {
                    return Err(Refusal::method("GET, HEAD"));
                }
                download::get(service, id, size, &head.headers).await
            }
            None if reads => download::get_or_describe(service, photo, &head.headers).await,
            None if head.method == Method::DELETE => delete(service, photo).await,
            None => Err(Refusal::method("GET, HEAD, DELETE")),
        };
    }
    match path {
        "/photos" if head.method == Method::POST => {
            let body = UploadBody::new(incoming, service.options());
            let album = album::query_parameter(head.uri.query(), "album")?;
            upload::post(service, album, &head.headers, body).await
        }
        "/photos" => Err(Refusal::method("POST")),
        "/" if reads => Ok(gallery()),
        "/" => Err(Refusal::method("GET, HEAD")),
        _ => match path.strip_prefix("/albums/") {
            Some(name) if reads => album::get(service, name, head.uri.query()).await,
            Some(_) => Err(Refusal::method("GET, HEAD")),
            None => Err(Refusal::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path")),
        },
    }
}

async fn delete(service: &Haystack, id: &str) -> Result<Answer, Refusal> {
    let id = PhotoId::decode(id.as_bytes()).map_err(|_| Refusal::not_found())?;
    match service.delete(&id).await? {
        Deleted::Now | Deleted::Absent => Ok(empty(StatusCode::NO_CONTENT)),
        Deleted::WrongCookie => Err(Refusal::not_found()),
    }
}

fn no_such_size() -> Refusal {
    let names: Vec<&str> = PhotoSize::ALL.into_iter().map(PhotoSize::name).collect();
    Refusal::new(StatusCode::NOT_FOUND, "no_such_size", format!("the sizes are {}", names.join(", ")))
}

fn gallery() -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from_static(GALLERY.as_bytes())));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer
}

/// Requests by the class of their status.
#[derive(Clone, Debug)]
struct Meters {
    classes: [Counter; 6],
}

impl Meters {
    fn new() -> Self {
        let names = ["other", "1xx", "2xx", "3xx", "4xx", "5xx"];
        Self {
            classes: names
                .map(|class| metrics::counter!("hayloft_haystack_requests_total", "status" => class)),
        }
    }

    fn count(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100);
        self.classes[if class < self.classes.len() { class } else { 0 }].increment(1);
    }
}
