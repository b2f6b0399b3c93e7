//! A store served to others: [`protocol`](super::protocol) over a door.

use std::convert::Infallible;
use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster::{Door, Shutdown};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::client::Pieces;
use super::frames::{self, BadFrame};
use super::protocol::{
    Appended, BODY_BYTES_MAX, Code, CookieAnswer, Created, Refused, VERSION, VERSION_HEADER,
};
use super::{Found, KEY_COUNT_MAX, PhotoNeedles, VolumeStore};
use crate::photo_id::{Cookie, PhotoId, PhotoKey, PhotoSize, VolumeId};
use crate::writer::Purpose;

/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Time for a request's head, and for a connection without one.
const HEAD_PATIENCE: Duration = Duration::from_secs(60);
/// Time for a body, and for a place in memory for it.
const BODY_PATIENCE: Duration = Duration::from_secs(30);
/// KiB of bodies in memory at once.
const BODIES_KIB_MAX: usize = 512 << 10;

/// Serves `store` at `door` to whoever has `token`, or to everybody if there is
/// none, until `shutdown` begins.
pub async fn serve(store: Arc<dyn VolumeStore>, token: Option<String>, door: Door, shutdown: Shutdown) {
    let served = Arc::new(Served { store, token, bodies: Semaphore::new(BODIES_KIB_MAX) });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE).max_buf_size(HEAD_BYTES_MAX.max(8192));
    let stop = shutdown.clone();
    door.serve(shutdown, move |stream, peer| {
        let (served, stop) = (Arc::clone(&served), stop.clone());
        let handler = service_fn(move |request| {
            let served = Arc::clone(&served);
            async move { Ok::<_, Infallible>(served.answer(request).await) }
        });
        let connection = http.serve_connection(TokioIo::new(stream), handler);
        async move {
            let mut connection = pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stop.begun() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%peer, %error, "a connection ended");
            }
        }
    })
    .await;
}

struct Served {
    store: Arc<dyn VolumeStore>,
    token: Option<String>,
    /// KiB of bodies that may be in memory.
    bodies: Semaphore,
}

type Outcome = Result<Vec<Bytes>, Refused>;

impl Served {
    async fn answer(&self, request: Request<Incoming>) -> Response<Pieces> {
        let outcome = self.route(request).await;
        let (status, pieces) = match outcome {
            Ok(pieces) => (http::StatusCode::OK, pieces),
            Err(refused) => {
                tracing::debug!(code = ?refused.code, message = refused.message, "a request is refused");
                (refused.code.status(), vec![json(&refused)])
            }
        };
        let mut response = Response::new(Pieces::new(pieces));
        *response.status_mut() = status;
        response.headers_mut().insert(VERSION_HEADER, HeaderValue::from_static(VERSION));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        response
    }

    async fn route(&self, request: Request<Incoming>) -> Outcome {
        let (head, body) = request.into_parts();
        self.admit(&head)?;
        let parts: Vec<&str> = head.uri.path().trim_matches('/').split('/').collect();
        let query = Query(head.uri.query().unwrap_or_default());
        if parts == ["store"] && head.method == Method::GET {
            return Ok(vec![json(&self.store.report().await.map_err(|error| Refused::from(&error))?)]);
        }
        let ["volumes", volume, rest @ ..] = parts.as_slice() else { return Err(unknown(&head)) };
        let volume = VolumeId(volume.parse().map_err(|_| unknown(&head))?);
        match (&head.method, rest) {
            (&Method::GET, ["photos", key, what]) => self.read(volume, key, what, &query).await,
            (&Method::GET, ["keys"]) => self.keys(volume, &query).await,
            (&Method::PUT, []) => {
                let physical = done(self.store.create_replica(volume, query.flag("filling")?).await)?;
                Ok(vec![json(&Created { physical })])
            }
            (&Method::DELETE, []) => {
                let physical = query.hexadecimal("physical")?;
                done(self.store.remove_replica(volume, physical).await).map(|()| Vec::new())
            }
            (&Method::POST, ["complete"]) => {
                done(self.store.finish_filling(volume).await).map(|()| Vec::new())
            }
            (&Method::POST, ["seal"]) => done(self.store.seal(volume).await).map(|()| Vec::new()),
            (&Method::POST, ["probe"]) => done(self.store.probe(volume).await).map(|()| Vec::new()),
            (&Method::POST, ["photos" | "tombstones" | "copies"]) => {
                let (_room, body) = self.body(body).await?;
                match rest[0] {
                    "photos" => self.append(volume, body, query.flag("repair")?).await,
                    "tombstones" => {
                        let burials = frames::decode_burials(body).map_err(garbled)?;
                        done(self.store.bury(volume, &burials).await).map(|()| Vec::new())
                    }
                    _ => self.copies(volume, body).await,
                }
            }
            _ => Err(unknown(&head)),
        }
    }

    fn admit(&self, head: &Parts) -> Result<(), Refused> {
        let version = head.headers.get(VERSION_HEADER).and_then(|version| version.to_str().ok());
        if version != Some(VERSION) {
            let found = version.unwrap_or("none");
            let message =
                format!("the request is of protocol version {found}, and this store speaks {VERSION}");
            return Err(Refused::new(Code::Version, message));
        }
        let Some(token) = &self.token else { return Ok(()) };
        let given = head.headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let given = given.and_then(|value| value.strip_prefix(b"Bearer ")).unwrap_or_default();
        if same_token(token.as_bytes(), given) {
            return Ok(());
        }
        Err(Refused::new(Code::Token, "the token is missing or is not this store's"))
    }

    /// The whole body, and its place in memory.
    async fn body(&self, body: Incoming) -> Result<(SemaphorePermit<'_>, Bytes), Refused> {
        let length = body.size_hint().exact().and_then(|length| usize::try_from(length).ok());
        let length = length.filter(|length| *length <= BODY_BYTES_MAX).ok_or_else(|| {
            Refused::new(Code::BadRequest, format!("a body says its length, at most {BODY_BYTES_MAX} bytes"))
        })?;
        let kib = u32::try_from(length.div_ceil(1024)).expect("within BODY_BYTES_MAX");
        let taken = tokio::time::timeout(BODY_PATIENCE, async {
            let room = self.bodies.acquire_many(kib).await.ok()?;
            let body = Limited::new(body, BODY_BYTES_MAX).collect().await.ok()?;
            Some((room, body.to_bytes()))
        });
        match taken.await {
            Ok(Some(taken)) => Ok(taken),
            Ok(None) => Err(Refused::new(Code::BadRequest, "the body broke off")),
            Err(_) => Err(Refused::new(Code::Busy, "the body came too slowly, or found no room in memory")),
        }
    }

    async fn append(&self, volume: VolumeId, body: Bytes, repair: bool) -> Outcome {
        let photos = frames::decode_frames(body).map_err(garbled)?.into_iter().map(|found| match found {
            Found::Photo(photo) => Ok(photo),
            _ => Err(Refused::new(Code::BadRequest, "a frame holds no photo")),
        });
        let photos = photos.collect::<Result<Vec<PhotoNeedles>, Refused>>()?;
        let purpose = if repair { Purpose::Repair } else { Purpose::Upload };
        let volume_bytes = done(self.store.append(volume, &photos, purpose).await)?;
        Ok(vec![json(&Appended { volume_bytes })])
    }

    async fn copies(&self, volume: VolumeId, body: Bytes) -> Outcome {
        let keys = frames::decode_keys(body).map_err(garbled)?;
        let mut pieces = Vec::new();
        for found in done(self.store.photos(volume, &keys).await)? {
            frames::encode_frame(&found, &mut pieces);
        }
        Ok(pieces)
    }

    async fn keys(&self, volume: VolumeId, query: &Query<'_>) -> Outcome {
        let after = query.get("after").map(hexadecimal).transpose()?.map(PhotoKey);
        let count: usize = query
            .get("count")
            .and_then(|count| count.parse().ok())
            .unwrap_or(KEY_COUNT_MAX)
            .min(KEY_COUNT_MAX);
        Ok(vec![frames::encode_known(&done(self.store.keys(volume, after, count).await)?)])
    }

    async fn read(&self, volume: VolumeId, key: &str, what: &str, query: &Query<'_>) -> Outcome {
        let key = PhotoKey(hexadecimal(key)?);
        if what == "cookie" {
            let cookie = done(self.store.cookie(volume, key).await)?;
            return Ok(vec![json(&CookieAnswer { cookie: cookie.map(|cookie| cookie.0) })]);
        }
        let size = PhotoSize::named(what).ok_or_else(|| bad("there is no such size"))?;
        let cookie = Cookie(query.hexadecimal("cookie")?);
        let needle = done(self.store.read(&PhotoId { volume, key, cookie }, size).await)?;
        let found = needle.map_or(Found::Absent(key), |needle| {
            Found::Photo(PhotoNeedles { key, cookie, sizes: vec![(size, needle.media_type, needle.data)] })
        });
        let mut pieces = Vec::new();
        frames::encode_frame(&found, &mut pieces);
        Ok(pieces)
    }
}

fn done<T>(outcome: crate::error::Result<T>) -> Result<T, Refused> {
    outcome.map_err(|error| Refused::from(&error))
}

fn unknown(head: &Parts) -> Refused {
    bad(format!("there is no {} {} here", head.method, head.uri.path()))
}

fn bad(message: impl Into<String>) -> Refused {
    Refused::new(Code::BadRequest, message)
}

fn garbled(frame: BadFrame) -> Refused {
    bad(format!("the body was changed on its way: {frame}"))
}

fn json(content: &impl Serialize) -> Bytes {
    serde_json::to_vec(content).expect("our answers have text keys and no failing parts").into()
}

fn hexadecimal(text: &str) -> Result<u64, Refused> {
    let number = u64::from_str_radix(text, 16).ok().filter(|_| text.len() == 16);
    number.ok_or_else(|| bad("a key, cookie or physical number has 16 hexadecimal digits"))
}

struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        let mut pairs = self.0.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find_map(|(key, value)| (key == name).then_some(value))
    }

    fn flag(&self, name: &str) -> Result<bool, Refused> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(bad(format!("{name} is true or false"))),
        }
    }

    fn hexadecimal(&self, name: &str) -> Result<u64, Refused> {
        hexadecimal(self.get(name).ok_or_else(|| bad(format!("{name} is missing")))?)
    }
}

/// Compares in a time that tells nothing of where two tokens differ.
fn same_token(expected: &[u8], given: &[u8]) -> bool {
    let differing = expected.iter().zip(given).fold(0, |all, (left, right)| all | black_box(left ^ right));
    expected.len() == given.len() && black_box(differing) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_is_the_same() {
        assert!(same_token(b"secret", b"secret"));
        for other in [&b"secreT"[..], b"secre", b"secrets", b""] {
            assert!(!same_token(b"secret", other));
        }
    }
}
