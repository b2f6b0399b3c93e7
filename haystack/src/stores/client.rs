//! A store on another machine, over HTTP/1.1: connections are kept and shared,
//! and a call that is dropped takes its connection with it, so that no answer
//! is taken for another's.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderValue};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Frame, SizeHint};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::de::DeserializeOwned;

use super::frames::{self, BadFrame};
use super::protocol::{
    Appended, BODY_BYTES_MAX, Code, CookieAnswer, Created, JSON_BYTES_MAX, Refused, VERSION, VERSION_HEADER,
};
use super::{Burial, Found, PhotoNeedles, StoreReport, VolumeStore};
use crate::error::{Error, Result};
use crate::index::KnownKey;
use crate::photo_id::{Cookie, PhotoId, PhotoKey, PhotoSize, VolumeId};
use crate::volume::StoredNeedle;
use crate::writer::Purpose;

/// A machine that does not take a connection by then is away.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);
/// Connections that wait for the next request.
const IDLE_CONNECTION_COUNT_MAX: usize = 64;
const IDLE_CONNECTION_TIME: Duration = Duration::from_secs(30);

/// A store's address that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no address of a store: it must look like http://10.0.0.7:8090")]
pub struct BadAddress {
    /// What was given.
    pub text: String,
}

/// Checks that `text` is a store's address: `http://`, a host and a port.
///
/// # Errors
///
/// [`BadAddress`]
pub fn check_address(text: &str) -> std::result::Result<Uri, BadAddress> {
    let bad = || BadAddress { text: text.to_owned() };
    let uri: Uri = text.parse().map_err(|_| bad())?;
    let sound = uri.scheme_str() == Some("http") && uri.port_u16().is_some() && uri.path() == "/";
    if sound && uri.query().is_none() { Ok(uri) } else { Err(bad()) }
}

/// The store at an address.
pub struct RemoteStore {
    address: Arc<str>,
    base: String,
    authorization: Option<HeaderValue>,
    client: Client<HttpConnector, Pieces>,
}

impl fmt::Debug for RemoteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteStore").field("address", &self.address).finish_non_exhaustive()
    }
}

impl RemoteStore {
    /// The store at `address`, whom `token` convinces. Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// [`Error::StoreRefused`]: the address is none, or the token cannot stand in a header.
    pub fn new(address: &str, token: Option<&str>) -> Result<Self> {
        let refused = |found: String| Error::StoreRefused { store: address.into(), found };
        let uri = check_address(address).map_err(|bad| refused(bad.to_string()))?;
        let authorization = token.map(|token| HeaderValue::try_from(format!("Bearer {token}"))).transpose();
        let mut authorization = authorization.map_err(|_| refused("the token cannot be sent".to_owned()))?;
        if let Some(value) = &mut authorization {
            value.set_sensitive(true);
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_PATIENCE));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_CONNECTION_TIME)
            .pool_max_idle_per_host(IDLE_CONNECTION_COUNT_MAX)
            .build(connector);
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        Ok(Self { address: address.into(), base: format!("http://{authority}"), authorization, client })
    }

    /// Sends a request about `volume` and returns the body of its answer.
    async fn call(&self, call: Call) -> Result<Bytes> {
        let mut request = Request::new(Pieces::new(call.pieces));
        *request.method_mut() = call.method;
        *request.uri_mut() =
            format!("{}{}", self.base, call.path).parse().map_err(|_| self.away(&"its address"))?;
        let headers = request.headers_mut();
        headers.insert(VERSION_HEADER, HeaderValue::from_static(VERSION));
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let answer = self.client.request(request).await.map_err(|error| self.away(&innermost(&error)))?;
        let (head, body) = answer.into_parts();
        let version = head.headers.get(VERSION_HEADER);
        let version = version.and_then(|version| version.to_str().ok()).unwrap_or("none");
        let body = Limited::new(body, call.answer_bytes_max).collect().await;
        let body = body.map_err(|error| self.away(&innermost(&*error)))?.to_bytes();
        if head.status.is_success() && version == VERSION {
            return Ok(body);
        }
        Err(match serde_json::from_slice::<Refused>(&body) {
            Ok(refused) => refused.into_error(call.volume, &self.address),
            Err(_) => {
                let found = format!(
                    "it answers {} under protocol version {version}, and this is {VERSION}",
                    head.status
                );
                Refused::new(Code::Version, found).into_error(call.volume, &self.address)
            }
        })
    }

    async fn json<T: DeserializeOwned>(&self, call: Call) -> Result<T> {
        let body = self.call(Call { answer_bytes_max: JSON_BYTES_MAX, ..call }).await?;
        serde_json::from_slice(&body).map_err(|error| self.away(&error))
    }

    fn away(&self, found: &dyn fmt::Display) -> Error {
        Error::StoreAway { store: Arc::clone(&self.address), found: found.to_string() }
    }

    fn garbled(volume: VolumeId) -> impl Fn(BadFrame) -> Error {
        move |bad| Error::ReplicaDamaged { volume, found: format!("on its way here: {bad}") }
    }
}

/// What is at the bottom of `error`: the rest only says that a request failed.
fn innermost(mut error: &(dyn std::error::Error + 'static)) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// One request.
struct Call {
    method: Method,
    volume: VolumeId,
    path: String,
    pieces: Vec<Bytes>,
    answer_bytes_max: usize,
}

impl Call {
    fn new(method: Method, volume: VolumeId, path: &str) -> Self {
        let path = format!("/volumes/{volume}{path}");
        Self { method, volume, path, pieces: Vec::new(), answer_bytes_max: BODY_BYTES_MAX }
    }

    fn with(self, pieces: Vec<Bytes>) -> Self {
        Self { pieces, ..self }
    }
}

#[async_trait]
impl VolumeStore for RemoteStore {
    async fn report(&self) -> Result<StoreReport> {
        let call = Call { path: "/store".to_owned(), ..Call::new(Method::GET, VolumeId(0), "") };
        self.json(call).await
    }

    async fn create_replica(&self, volume: VolumeId, filling: bool) -> Result<u64> {
        let path = format!("?filling={filling}");
        let created: Created = self.json(Call::new(Method::PUT, volume, &path)).await?;
        Ok(created.physical)
    }

    async fn finish_filling(&self, volume: VolumeId) -> Result<()> {
        self.call(Call::new(Method::POST, volume, "/complete")).await.map(drop)
    }

    async fn remove_replica(&self, volume: VolumeId, physical: u64) -> Result<()> {
        let path = format!("?physical={physical:016x}");
        self.call(Call::new(Method::DELETE, volume, &path)).await.map(drop)
    }

    async fn append(&self, volume: VolumeId, photos: &[PhotoNeedles], purpose: Purpose) -> Result<u64> {
        let mut pieces = Vec::new();
        for photo in photos {
            frames::encode_frame(&Found::Photo(photo.clone()), &mut pieces);
        }
        let path = format!("/photos?repair={}", purpose == Purpose::Repair);
        let appended: Appended = self.json(Call::new(Method::POST, volume, &path).with(pieces)).await?;
        Ok(appended.volume_bytes)
    }

    async fn bury(&self, volume: VolumeId, burials: &[Burial]) -> Result<()> {
        let call = Call::new(Method::POST, volume, "/tombstones");
        self.call(call.with(vec![frames::encode_burials(burials)])).await.map(drop)
    }

    async fn read(&self, id: &PhotoId, size: PhotoSize) -> Result<Option<StoredNeedle>> {
        let path = format!("/photos/{:016x}/{}?cookie={:016x}", id.key.0, size.name(), id.cookie.0);
        let mut body = self.call(Call::new(Method::GET, id.volume, &path)).await?;
        let garbled = Self::garbled(id.volume);
        match frames::decode_frame(&mut body).map_err(&garbled)? {
            Found::Photo(PhotoNeedles { key, cookie, mut sizes }) if key == id.key && cookie == id.cookie => {
                let needle = sizes.pop().map(|(_, media_type, data)| StoredNeedle {
                    media_type,
                    checksum: StoredNeedle::checksum_of(key, cookie),
                    data,
                    cookie,
                });
                Ok(needle)
            }
            Found::Absent(key) if key == id.key => Ok(None),
            _ => Err(garbled(BadFrame::Field { field: "answer", found: 0 })),
        }
    }

    async fn cookie(&self, volume: VolumeId, key: PhotoKey) -> Result<Option<Cookie>> {
        let path = format!("/photos/{:016x}/cookie", key.0);
        let answer: CookieAnswer = self.json(Call::new(Method::GET, volume, &path)).await?;
        Ok(answer.cookie.map(Cookie))
    }

    async fn keys(
        &self,
        volume: VolumeId,
        after: Option<PhotoKey>,
        count_max: usize,
    ) -> Result<Vec<KnownKey>> {
        let after = after.map(|key| format!("&after={:016x}", key.0)).unwrap_or_default();
        let call = Call::new(Method::GET, volume, &format!("/keys?count={count_max}{after}"));
        frames::decode_known(self.call(call).await?).map_err(Self::garbled(volume))
    }

    async fn photos(&self, volume: VolumeId, keys: &[PhotoKey]) -> Result<Vec<Found>> {
        let call = Call::new(Method::POST, volume, "/copies").with(vec![frames::encode_keys(keys)]);
        frames::decode_frames(self.call(call).await?).map_err(Self::garbled(volume))
    }

    async fn seal(&self, volume: VolumeId) -> Result<()> {
        self.call(Call::new(Method::POST, volume, "/seal")).await.map(drop)
    }

    async fn probe(&self, volume: VolumeId) -> Result<()> {
        self.call(Call::new(Method::POST, volume, "/probe")).await.map(drop)
    }
}

/// A body of pieces that are not copied together.
#[derive(Debug, Default)]
pub(crate) struct Pieces(VecDeque<Bytes>);

impl Pieces {
    pub(crate) fn new(pieces: Vec<Bytes>) -> Self {
        Self(pieces.into())
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
    }
}
