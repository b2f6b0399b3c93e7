//! The row calls, taken from HTTP/2 to the row service and back without the
//! layers between: they come by the million.
//!
//! A router, a server and half a dozen boxed bodies between hyper and the
//! service cost as much as a read of a row does. Here a call is matched by its
//! path, its message decoded where it lies in the received bytes, and its
//! answer encoded once, at its exact size. Calls of other services, and what
//! needs more of gRPC than one uncompressed message there (compression), go
//! through tonic; see [`RowCall::of`].
//!
//! gRPC over HTTP/2: a message is a byte that says whether it is compressed, its
//! length as four bytes, big-endian, and its bytes; the answer's trailers hold
//! the status, or its headers where there is no message.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::Method;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::body::{Body, Frame};
use prost::Message;
use row_api::data;
use row_api::data::bigtable_server::Bigtable;
use tablet_server::gateway::REQUEST_BYTES_MAX;
use tonic::codegen::{BoxStream, StdError};
use tonic::{Request, Response, Status};

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const OK: HeaderValue = HeaderValue::from_static("0");

/// Whether a message is compressed, and its length.
const PREFIX_BYTES: usize = 1 + 4;

/// Memory that is set aside for a request before it has arrived, at most.
const BELIEVED_BYTES_MAX: usize = 1 << 20;

/// An RPC that is served here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowCall {
    ReadRows,
    MutateRow,
    MutateRows,
    CheckAndMutateRow,
    ReadModifyWriteRow,
}

impl RowCall {
    /// The RPC that a request is for, if it is one of these and plain.
    pub(super) fn of<B>(request: &http::Request<B>) -> Option<Self> {
        let rpc = request.uri().path().strip_prefix("/google.bigtable.v2.Bigtable/")?;
        let call = match rpc {
            "ReadRows" => Self::ReadRows,
            "MutateRow" => Self::MutateRow,
            "MutateRows" => Self::MutateRows,
            "CheckAndMutateRow" => Self::CheckAndMutateRow,
            "ReadModifyWriteRow" => Self::ReadModifyWriteRow,
            _ => return None,
        };
        let encoding = request.headers().get(GRPC_ENCODING);
        let is_plain = encoding.is_none_or(|encoding| encoding == "identity");
        (request.method() == Method::POST && is_plain).then_some(call)
    }

    /// Has `rows` answer the request with this body.
    pub(super) async fn answer<T, B>(self, rows: Arc<T>, mut body: B) -> http::Response<Answer>
    where
        T: Bigtable,
        B: Body<Data = Bytes, Error = StdError> + Unpin,
    {
        let answer = match whole(&mut body).await {
            Ok(framed) => self.call(&*rows, framed).await,
            Err(status) => Err(status),
        };
        match answer {
            Ok(answer) => {
                let (metadata, body, _) = answer.into_parts();
                let mut headers = metadata.into_headers();
                headers.insert(CONTENT_TYPE, GRPC);
                let mut response = http::Response::new(body);
                *response.headers_mut() = headers;
                response
            }
            Err(status) => status.into_http(),
        }
    }

    async fn call<T: Bigtable>(self, rows: &T, framed: Bytes) -> Result<Response<Answer>, Status> {
        Ok(match self {
            Self::ReadRows => rows.read_rows(message(framed)?).await?.map(Answer::Rows),
            Self::MutateRows => rows.mutate_rows(message(framed)?).await?.map(Answer::Entries),
            Self::MutateRow => Answer::one(rows.mutate_row(message(framed)?).await?),
            Self::CheckAndMutateRow => Answer::one(rows.check_and_mutate_row(message(framed)?).await?),
            Self::ReadModifyWriteRow => Answer::one(rows.read_modify_write_row(message(framed)?).await?),
        })
    }
}

/// The one message of a request's body. The service sees it alone: what headers say is the door's to do.
fn message<M: Message + Default>(mut framed: Bytes) -> Result<Request<M>, Status> {
    if framed.len() < PREFIX_BYTES {
        return Err(Status::internal("the request has no message"));
    }
    let (is_compressed, bytes) = (framed.get_u8(), framed.get_u32() as usize);
    if is_compressed != 0 {
        return Err(Status::internal("the request's message is compressed, and nothing says how"));
    }
    if bytes != framed.len() {
        return Err(Status::internal(format!(
            "the request's message has {} bytes, not {bytes} as its prefix says",
            framed.len()
        )));
    }
    let message = M::decode(framed).map_err(|error| Status::internal(format!("the request: {error}")))?;
    Ok(Request::new(message))
}

/// The bytes of a body; uncopied where they came as one frame.
async fn whole<B>(body: &mut B) -> Result<Bytes, Status>
where
    B: Body<Data = Bytes, Error = StdError> + Unpin,
{
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while !body.is_end_stream() {
        let Some(frame) = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await else { break };
        let Ok(data) = frame.map_err(Status::from_error)?.into_data() else { continue };
        let bytes = first.len() + all.len() + data.len();
        if bytes > PREFIX_BYTES + REQUEST_BYTES_MAX {
            return Err(Status::out_of_range(format!(
                "the request has more than {REQUEST_BYTES_MAX} bytes, the most that one may have"
            )));
        }
        if all.is_empty() && first.is_empty() {
            first = data;
            continue;
        }
        if all.is_empty() {
            // The length that a peer claims is believed as far as it costs little.
            let claimed = first.get(1..PREFIX_BYTES).map_or(0, |mut length| length.get_u32() as usize);
            all.reserve(bytes.max(PREFIX_BYTES + claimed.min(BELIEVED_BYTES_MAX)));
            all.put(std::mem::take(&mut first));
        }
        all.put(data);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// The body of an answer.
pub(super) enum Answer {
    /// One message, then the trailers.
    One(Bytes),
    Rows(BoxStream<data::ReadRowsResponse>),
    Entries(BoxStream<data::MutateRowsResponse>),
    /// What tonic makes of another service's answer, trailers included.
    Other(tonic::body::Body),
    Trailers,
    End,
}

impl Answer {
    /// Whether there is work left in it, such as rows that have not been read yet.
    pub(super) fn is_made_meanwhile(&self) -> bool {
        matches!(self, Self::Rows(_) | Self::Other(_))
    }

    fn one(answer: Response<impl Message>) -> Response<Self> {
        answer.map(|message| Self::One(encode(&message)))
    }
}

impl Default for Answer {
    /// No body: the status stands in the headers.
    fn default() -> Self {
        Self::End
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let answer = &mut *self;
        let next = match answer {
            Self::One(message) => {
                let message = std::mem::take(message);
                *answer = Self::Trailers;
                Some(Ok(message))
            }
            Self::Rows(messages) => ready!(poll_encoded(messages, context)),
            Self::Entries(messages) => ready!(poll_encoded(messages, context)),
            Self::Other(body) => return Pin::new(body).poll_frame(context),
            Self::Trailers => None,
            Self::End => return Poll::Ready(None),
        };
        let frame = match next {
            Some(Ok(message)) => Frame::data(message),
            Some(Err(status)) => {
                *answer = Self::End;
                Frame::trailers(trailers(&status))
            }
            None => {
                *answer = Self::End;
                Frame::trailers(HeaderMap::from_iter([(GRPC_STATUS, OK)]))
            }
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Other(body) => body.is_end_stream(),
            _ => matches!(self, Self::End),
        }
    }
}

/// The trailers that say how a call failed.
pub(super) fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if let Err(unsendable) = status.add_header(&mut trailers) {
        trailers.clear();
        // Of what is left nothing is beyond what a header may hold.
        let _ = Status::new(unsendable.code(), "").add_header(&mut trailers);
    }
    trailers
}

fn poll_encoded<M: Message>(
    messages: &mut BoxStream<M>,
    context: &mut Context<'_>,
) -> Poll<Option<Result<Bytes, Status>>> {
    messages.as_mut().poll_next(context).map(|next| next.map(|message| Ok(encode(&message?))))
}

fn encode(message: &impl Message) -> Bytes {
    let bytes = message.encoded_len();
    let mut framed = Vec::with_capacity(PREFIX_BYTES + bytes);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(bytes).expect("a message of an answer has a few megabytes at most"));
    message.encode(&mut framed).expect("a vector grows");
    framed.into()
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use http_body_util::BodyExt;
    use tonic::Code;
    use tonic::codegen::tokio_stream;

    use super::*;

    /// Echoes the row key of a write in an error's message, and of a read in its rows.
    struct Echo;

    #[tonic::async_trait]
    impl Bigtable for Echo {
        async fn mutate_row(
            &self,
            request: Request<data::MutateRowRequest>,
        ) -> Result<Response<data::MutateRowResponse>, Status> {
            let key = String::from_utf8_lossy(&request.get_ref().row_key).into_owned();
            if key == "fails" {
                return Err(Status::aborted("100 % \u{e4}"));
            }
            let mut answer = Response::new(data::MutateRowResponse {});
            answer.metadata_mut().insert("row-bytes", key.len().into());
            Ok(answer)
        }

        async fn read_rows(
            &self,
            request: Request<data::ReadRowsRequest>,
        ) -> Result<Response<BoxStream<data::ReadRowsResponse>>, Status> {
            let rows = (0..request.get_ref().rows_limit).map(|row| {
                if row == 2 {
                    return Err(Status::data_loss("a bad block"));
                }
                let last_scanned_row_key = Bytes::from(vec![b'r'; usize::try_from(row).unwrap()]);
                Ok(data::ReadRowsResponse { last_scanned_row_key, ..Default::default() })
            });
            Ok(Response::new(Box::pin(tokio_stream::iter(rows.collect::<Vec<_>>()))))
        }
    }

    /// A body of these frames.
    struct Frames(VecDeque<Bytes>);

    impl Body for Frames {
        type Data = Bytes;
        type Error = StdError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
            Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(data))))
        }
    }

    fn request(rpc: &str, bytes: &[u8], frame_bytes: usize) -> http::Request<Frames> {
        let frames = bytes.chunks(frame_bytes).map(Bytes::copy_from_slice).collect();
        let path = format!("http://test/google.bigtable.v2.Bigtable/{rpc}");
        http::Request::post(path).body(Frames(frames)).unwrap()
    }

    async fn answer(request: http::Request<Frames>) -> http::Response<Answer> {
        let call = RowCall::of(&request).expect("it is served here");
        call.answer(Arc::new(Echo), request.into_body()).await
    }

    fn write(key: &'static str) -> Bytes {
        encode(&data::MutateRowRequest { row_key: key.into(), ..Default::default() })
    }

    fn status(headers: &HeaderMap) -> Status {
        Status::from_header_map(headers).expect("a status")
    }

    #[tokio::test]
    async fn a_message_may_come_in_any_pieces() {
        let framed = write("some row");
        for frame_bytes in 1..=framed.len() {
            let answer = answer(request("MutateRow", &framed, frame_bytes)).await;
            assert_eq!(answer.headers()[CONTENT_TYPE], "application/grpc");
            assert_eq!(answer.headers()["row-bytes"], "8");
            let body = answer.into_body().collect().await.unwrap();
            assert_eq!(status(body.trailers().unwrap()).code(), Code::Ok);
            assert_eq!(body.to_bytes(), [0; PREFIX_BYTES][..]);
        }
    }

    #[tokio::test]
    async fn what_is_no_message_is_refused() {
        let whole = write("row");
        let mut compressed = whole.to_vec();
        compressed[0] = 1;
        for (bytes, reason) in [
            (&whole[..0], "has no message"),
            (&whole[..4], "has no message"),
            (&whole[..whole.len() - 1], "not 5 as its prefix says"),
            (&[&whole[..], b"x"].concat(), "not 5 as its prefix says"),
            (&[0, 0, 0, 0, 1, 0xff], "the request: "),
            (&[0, 0xff, 0xff, 0xff, 0xff, 0], "not 4294967295 as its prefix says"),
            (&compressed, "is compressed"),
        ] {
            let answer = answer(request("MutateRow", bytes, 3)).await;
            let status = status(answer.headers());
            assert_eq!(status.code(), Code::Internal);
            assert!(status.message().contains(reason), "{status}");
            assert!(answer.body().is_end_stream());
        }
    }

    #[tokio::test]
    async fn a_refusal_stands_in_the_headers_and_a_failure_in_the_trailers() {
        let refused = answer(request("MutateRow", &write("fails"), 1000)).await;
        assert_eq!(status(refused.headers()).code(), Code::Aborted);
        assert_eq!(status(refused.headers()).message(), "100 % \u{e4}");

        let read = encode(&data::ReadRowsRequest { rows_limit: 5, ..Default::default() });
        let body = answer(request("ReadRows", &read, 1000)).await.into_body().collect().await.unwrap();
        let failure = status(body.trailers().unwrap());
        assert_eq!((failure.code(), failure.message()), (Code::DataLoss, "a bad block"));
        // Row 0 has no bytes, row 1 has one.
        assert_eq!(body.to_bytes(), b"\0\0\0\0\0\0\0\0\0\x03\x12\x01r"[..]);
    }

    #[test]
    fn other_services_and_compressed_calls_go_the_long_way() {
        let plain = request("MutateRow", b"", 1);
        assert_eq!(RowCall::of(&plain), Some(RowCall::MutateRow));
        let mut identity = request("ReadRows", b"", 1);
        identity.headers_mut().insert(GRPC_ENCODING, HeaderValue::from_static("identity"));
        assert_eq!(RowCall::of(&identity), Some(RowCall::ReadRows));
        let mut gzip = request("ReadRows", b"", 1);
        gzip.headers_mut().insert(GRPC_ENCODING, HeaderValue::from_static("gzip"));
        assert_eq!(RowCall::of(&gzip), None);
        assert_eq!(RowCall::of(&request("PingAndWarm", b"", 1)), None);
        assert_eq!(
            RowCall::of(&http::Request::get("/google.bigtable.v2.Bigtable/ReadRows").body(()).unwrap()),
            None
        );
    }
}
