//! Connections and routes of the photo door.

use std::convert::Infallible;
use std::pin::pin;

use cluster::{Door, Shutdown};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics::Counter;

use super::answer::{Answer, Refusal, empty};
use super::body::UploadBody;
use super::page::query_parameter;
use super::stall::StallGuard;
use super::{album, batch, blob, download, gallery, tus, upload, variant};
use crate::photo_id::{PhotoId, PhotoSize};
use crate::service::Haystack;
use crate::store::Deleted;

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
    let write_timeout = service.options().body_timeout;
    let stop = shutdown.clone();
    door.serve(shutdown, move |stream, peer| {
        let (service, meters, stop) = (service.clone(), meters.clone(), stop.clone());
        let handler = service_fn(move |request| {
            let (service, meters) = (service.clone(), meters.clone());
            async move { Ok::<_, Infallible>(answer(&service, &meters, request).await) }
        });
        let connection = http.serve_connection(TokioIo::new(StallGuard::new(stream, write_timeout)), handler);
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
    let (method, headers, query) = (&head.method, &head.headers, head.uri.query());
    let reads = method == Method::GET || method == Method::HEAD;
    let body = || UploadBody::new(incoming, service.options());
    let path = head.uri.path();
    let (collection, rest) = split_path(path);
    match (collection, rest) {
        ("photos", Some("delete")) if method == Method::POST => batch::delete(service, body()).await,
        ("photos", Some(photo)) if reads => read_photo(service, photo, &head.uri, headers).await,
        ("photos", Some(photo)) => match photo.split_once('/') {
            Some((_, size)) => {
                PhotoSize::named(size).ok_or_else(no_such_size)?;
                Err(Refusal::method("GET, HEAD"))
            }
            None if method == Method::DELETE => delete(service, photo).await,
            None => Err(Refusal::method("GET, HEAD, DELETE")),
        },
        ("photos", None) if method == Method::POST => {
            let album = query_parameter(query, "album")?;
            upload::post(service, album, headers, body()).await
        }
        ("photos", None) if reads => album::list_photos(service, query).await,
        ("photos", None) => Err(Refusal::method("GET, HEAD, POST")),
        ("blobs", Some(name)) if reads => {
            let expires_s = variant::check_signature(service, &head.uri)?;
            let mut answer = blob::get(service, name, method, headers).await?;
            variant::limit_caching(service, &mut answer, expires_s);
            Ok(answer)
        }
        ("blobs", Some(name)) if method == Method::PUT => blob::put(service, name, headers, body()).await,
        ("blobs", Some(name)) if method == Method::DELETE => blob::delete(service, name, headers).await,
        ("blobs", Some(_)) => Err(Refusal::method("GET, HEAD, PUT, DELETE")),
        ("blobs", None) if reads => blob::list(service, query).await,
        ("blobs", None) => Err(Refusal::method("GET, HEAD")),
        ("uploads", id) => tus::route(service, id, method, headers, body()).await,
        ("albums", Some(name)) if reads => album::list_album(service, name, query).await,
        ("albums", Some(name)) if method == Method::DELETE => batch::delete_album(service, name).await,
        ("albums", Some(_)) => Err(Refusal::method("GET, HEAD, DELETE")),
        ("albums", None) if reads => album::list_albums(service, query).await,
        ("albums", None) => Err(Refusal::method("GET, HEAD")),
        _ => match gallery::get(path.trim_start_matches('/'), headers) {
            Some(answer) if reads => Ok(answer),
            Some(_) => Err(Refusal::method("GET, HEAD")),
            None => Err(Refusal::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path")),
        },
    }
}

/// The first part of a path, and what stands behind it if anything does.
fn split_path(path: &str) -> (&str, Option<&str>) {
    let path = path.strip_prefix('/').unwrap_or(path);
    match path.split_once('/') {
        Some((collection, "")) => (collection, None),
        Some((collection, rest)) => (collection, Some(rest)),
        None => (path, None),
    }
}

/// Answers a read of a photo: `{id}/{size}`, or `{id}` and the variant that its query asks for.
async fn read_photo(
    service: &Haystack,
    photo: &str,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Answer, Refusal> {
    let expires_s = variant::check_signature(service, uri)?;
    let mut answer = if let Some((id, size)) = photo.split_once('/') {
        let size = PhotoSize::named(size).ok_or_else(no_such_size)?;
        download::get(service, id, size, headers).await?
    } else if let Some(variant) = variant::asked(service, uri.query(), expires_s.is_some())? {
        variant::get(service, photo, variant, headers).await?
    } else {
        download::get_or_describe(service, photo, headers).await?
    };
    variant::limit_caching(service, &mut answer, expires_s);
    Ok(answer)
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
