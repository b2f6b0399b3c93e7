//! Photos read over HTTP, on connections that are kept for the next.

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;

/// Connections kept while nobody needs them.
const IDLE_COUNT_MAX: usize = 32;

/// Where photos are read.
#[derive(Debug)]
pub(super) struct PhotoOrigin {
    /// `host:port`
    address: String,
    idle: Mutex<Vec<SendRequest<Empty<Bytes>>>>,
}

/// Why a photo could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum PhotoError {
    #[error("cannot reach {address}: {source}")]
    Connect { address: String, source: std::io::Error },
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("the photo is larger than {0} bytes, the largest item")]
    TooLarge(usize),
}

impl PhotoOrigin {
    pub(super) fn new(address: String) -> Self {
        Self { address, idle: Mutex::default() }
    }

    /// The bytes at `path`, at most `bytes_max`; none if there is no such photo.
    ///
    /// # Errors
    ///
    /// [`PhotoError`]
    pub(super) async fn get(&self, path: &str, bytes_max: usize) -> Result<Option<Bytes>, PhotoError> {
        let kept = self.idle.lock().pop();
        if let Some(mut connection) = kept {
            // One that the origin has closed meanwhile is no reason to give up.
            if let Ok(answer) = self.get_over(&mut connection, path, bytes_max).await {
                self.keep(connection);
                return Ok(answer);
            }
        }
        let mut connection = self.connect().await?;
        let answer = self.get_over(&mut connection, path, bytes_max).await?;
        self.keep(connection);
        Ok(answer)
    }

    async fn connect(&self) -> Result<SendRequest<Empty<Bytes>>, PhotoError> {
        let unreachable = |source| PhotoError::Connect { address: self.address.clone(), source };
        let stream = TcpStream::connect(&self.address).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the photo origin broke");
            }
        });
        Ok(sender)
    }

    async fn get_over(
        &self,
        connection: &mut SendRequest<Empty<Bytes>>,
        path: &str,
        bytes_max: usize,
    ) -> Result<Option<Bytes>, PhotoError> {
        connection.ready().await?;
        let request = http::Request::get(path)
            .header(http::header::HOST, &self.address)
            .body(Empty::new())
            .expect("a checked path is a URI");
        let answer = connection.send_request(request).await?;
        let status = answer.status();
        let mut body = answer.into_body();
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            if bytes.len() + data.len() > bytes_max {
                return Err(PhotoError::TooLarge(bytes_max));
            }
            bytes.extend_from_slice(&data);
        }
        match status {
            StatusCode::OK => Ok(Some(bytes.freeze())),
            StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::BAD_REQUEST => Ok(None),
            status => Err(PhotoError::Status(status)),
        }
    }

    fn keep(&self, connection: SendRequest<Empty<Bytes>>) {
        let mut idle = self.idle.lock();
        if !connection.is_closed() && idle.len() < IDLE_COUNT_MAX {
            idle.push(connection);
        }
    }
}
