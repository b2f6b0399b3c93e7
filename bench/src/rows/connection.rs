//! A gRPC connection that costs the client little: tonic over one HTTP/2
//! connection of hyper's, messages as bytes.
//!
//! tonic's own channel adds a queue, a task and a reconnect to each call, and a
//! decoder would make the client the limit of a scan.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes};
use http::uri::{PathAndQuery, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Request, Status, body::Body};
use tower_service::Service;

use crate::Outcome;

/// Longer messages are none of a bench.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// What a server may send ahead of being read, on one call and on all.
const WINDOW_BYTES: u32 = 4 << 20;

/// One connection, one call at a time.
pub(crate) struct Connection {
    grpc: Grpc<Http2>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Outcome<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake(TokioIo::new(stream))
            .await?;
        // It ends with the sender; a call that fails says why.
        tokio::spawn(connection);
        let origin = Uri::builder().scheme("http").authority(address.to_string()).path_and_query("/");
        let grpc = Grpc::with_origin(Http2(sender), origin.build()?);
        Ok(Self { grpc: grpc.max_decoding_message_size(MESSAGE_BYTES_MAX) })
    }

    /// Sends `request` and hands each message of the answer to `take`.
    pub(crate) async fn call(
        &mut self,
        rpc: &'static str,
        request: Bytes,
        mut take: impl FnMut(Bytes) -> Outcome<()>,
    ) -> Outcome<()> {
        self.grpc.ready().await?;
        let path = PathAndQuery::from_static(rpc);
        let mut answer = self.grpc.server_streaming(Request::new(request), path, Raw).await?.into_inner();
        while let Some(message) = answer.message().await? {
            take(message)?;
        }
        Ok(())
    }
}

/// hyper's connection as the service that tonic calls.
struct Http2(SendRequest<Body>);

impl Service<http::Request<Body>> for Http2 {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// Messages as they are on the wire.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, target: &mut EncodeBuf<'_>) -> Result<(), Status> {
        target.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(source.copy_to_bytes(source.remaining())))
    }
}
