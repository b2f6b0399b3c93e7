//! The Bigtable door: gRPC connections, each an HTTP/2 connection of its own.

mod call;
mod deadline;
mod first_here;
mod gathered;
mod in_flight;
mod row_calls;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use cluster::{Door, Shutdown};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use row_api::data::bigtable_server::Bigtable;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::codegen::StdError;
use tonic::service::Routes;

use call::{AnswerBody, Call, Patience, RequestBody};
use first_here::FirstHere;
use gathered::Gathered;
use in_flight::InFlight;
use row_calls::{Answer, RowCall};

/// Calls under way at once on one connection.
const STREAMS_MAX: u32 = 1024;
/// What a peer may send ahead of being read, bytes: on one call, and on all of a connection.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Bytes of a request's headers, as HTTP/2 counts them; gRPC's own default is 8 KiB.
const HEADERS_BYTES_MAX: u32 = 16 << 10;
/// Calls that a peer may take back before they have begun, and that may fail by
/// its fault; at one more the connection ends with ENHANCE_YOUR_CALM (CVE-2023-44487).
const EARLY_RESETS_MAX: usize = 20;
const FAULTS_MAX: usize = 256;
/// A peer that is silent this long is asked for a sign of life, and let go
/// after as long again.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Bytes that each HTTP/2 connection begins with. hyper watches a connection,
/// and can end it in order, only once it has them.
const PREFACE_BYTES: usize = 24;

/// A call's answer to be.
type Answering = Pin<Box<dyn Future<Output = http::Response<Answer>> + Send>>;

/// Serves `rows`, and what else is in `routes`, until `shutdown` begins;
/// connections then finish the calls they have. Bodies of requests take
/// `in_flight_bytes_max` bytes at most.
pub(crate) async fn serve<T: Bigtable>(
    door: Door,
    rows: T,
    routes: Routes,
    in_flight_bytes_max: u64,
    shutdown: Shutdown,
) {
    let in_flight = Arc::new(InFlight::new(in_flight_bytes_max));
    serve_within(door, rows, routes, in_flight, Patience::default(), shutdown).await;
}

async fn serve_within<T: Bigtable>(
    door: Door,
    rows: T,
    routes: Routes,
    in_flight: Arc<InFlight>,
    patience: Patience,
    shutdown: Shutdown,
) {
    let (rows, routes) = (Arc::new(rows), TowerToHyperService::new(routes.prepare()));
    let stop = shutdown.clone();
    door.serve(shutdown, move |stream, peer| {
        let (rows, routes, in_flight) = (Arc::clone(&rows), routes.clone(), Arc::clone(&in_flight));
        let executor = FirstHere::default();
        let calls = executor.clone();
        let service = service_fn(move |request: http::Request<Incoming>| {
            let (deadline, malformed) = match deadline::of(request.headers()) {
                Ok(deadline) => (deadline, None),
                Err(malformed) => (None, Some(malformed)),
            };
            let call = Arc::new(Call::new(in_flight.begin(), patience, deadline));
            calls.expect(Arc::clone(&call));
            let request = request.map(|body| RequestBody::new(body, Arc::clone(&call)));
            let answering = answer(&rows, &routes, request);
            async move {
                let answer = match malformed {
                    Some(malformed) => Some(malformed.into_http()),
                    None => deadline::within(deadline, answering).await,
                };
                let answer = answer.unwrap_or_else(|| deadline::exceeded().into_http());
                Ok::<_, Infallible>(answer.map(|body| AnswerBody::new(body, call)))
            }
        });
        let stop = stop.clone();
        async move {
            let Some(stream) = begun(stream, patience, &stop).await else { return };
            let connection = hyper::server::conn::http2::Builder::new(executor.clone())
                .auto_date_header(false)
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS_MAX)
                .max_header_list_size(HEADERS_BYTES_MAX)
                .max_pending_accept_reset_streams(EARLY_RESETS_MAX)
                .max_local_error_reset_streams(FAULTS_MAX)
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .max_frame_size(1 << 18)
                .keep_alive_interval(KEEP_ALIVE)
                .keep_alive_timeout(KEEP_ALIVE)
                .serve_connection(TokioIo::new(stream.clone()), service);
            let (mut connection, mut stopping) = (pin!(connection), pin!(stop.begun()));
            let mut is_stopping = false;
            let ended = poll_fn(|context| {
                if !is_stopping && stopping.as_mut().poll(context).is_ready() {
                    is_stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                executor.begin();
                let ended = connection.as_mut().poll(context);
                // A peer that takes nothing wakes the task, or fails it, when it does.
                match stream.poll_send(context) {
                    Poll::Ready(Err(error)) if ended.is_pending() => Poll::Ready(Err(error.into())),
                    _ => ended.map_err(StdError::from),
                }
            });
            if let Err(error) = ended.await {
                tracing::debug!(%peer, error = &*error, "a gRPC connection broke");
            }
        }
    })
    .await;
}

/// Has `rows` answer the request, or `routes` where it is for another service.
///
/// In a box of its own: what hyper makes of it is moved several times before it is polled.
fn answer<T: Bigtable>(
    rows: &Arc<T>,
    routes: &TowerToHyperService<Routes>,
    request: http::Request<RequestBody<Incoming>>,
) -> Answering {
    match RowCall::of(&request) {
        Some(call) => Box::pin(call.answer(Arc::clone(rows), request.into_body())),
        None => {
            let answering = routes.call(request);
            Box::pin(async { answering.await.unwrap_or_else(|error| match error {}).map(Answer::Other) })
        }
    }
}

/// The connection once its preface has come; none where that takes too long.
async fn begun(mut stream: TcpStream, patience: Patience, stop: &Shutdown) -> Option<Gathered<TcpStream>> {
    let mut preface = [0; PREFACE_BYTES];
    tokio::select! {
        spoken = timeout(patience.preface, stream.read_exact(&mut preface)) => spoken.ok()?.ok()?,
        () = stop.begun() => return None,
    };
    Some(Gathered::new(stream, Bytes::copy_from_slice(&preface)))
}
