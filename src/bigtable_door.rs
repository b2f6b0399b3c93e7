//! The Bigtable door: gRPC connections, each an HTTP/2 connection of its own.

mod first_here;
mod gathered;
mod in_flight;
mod row_calls;

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use cluster::{Door, Shutdown};
use http_body_util::Either;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use row_api::data::bigtable_server::Bigtable;
use tokio::time::timeout;
use tonic::codegen::StdError;
use tonic::service::Routes;

use first_here::FirstHere;
use gathered::Gathered;
use in_flight::{AnswerBody, InFlight, RequestBody};
use row_calls::RowCall;

/// Calls under way at once on one connection.
const STREAMS_MAX: u32 = 1024;
/// What a peer may send ahead of being read, bytes: on one call, and on all of a connection.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// A peer that is silent this long is asked for a sign of life, and let go
/// after as long again.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// A peer that has sent nothing at all by then is let go. hyper watches a
/// connection, and can end it in order, only from its first bytes on.
const FIRST_BYTE_PATIENCE: Duration = Duration::from_secs(10);

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
    serve_within(door, rows, routes, Arc::new(InFlight::new(in_flight_bytes_max)), shutdown).await;
}

async fn serve_within<T: Bigtable>(
    door: Door,
    rows: T,
    routes: Routes,
    in_flight: Arc<InFlight>,
    shutdown: Shutdown,
) {
    let (rows, routes) = (Arc::new(rows), TowerToHyperService::new(routes.prepare()));
    let stop = shutdown.clone();
    door.serve(shutdown, move |stream, peer| {
        let (rows, routes, in_flight) = (Arc::clone(&rows), routes.clone(), Arc::clone(&in_flight));
        let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let charge = in_flight.begin();
            let request = request.map(|body| RequestBody::new(body, Arc::clone(&charge)));
            let answering = match RowCall::of(&request) {
                Some(call) => Either::Left(call.answer(Arc::clone(&rows), request)),
                None => Either::Right(routes.call(request)),
            };
            async move {
                let body = match answering {
                    Either::Left(answering) => answering.await.map(Either::Left),
                    Either::Right(answering) => answering.await?.map(Either::Right),
                };
                Ok::<_, Infallible>(body.map(|body| AnswerBody::new(body, charge)))
            }
        });
        let stop = stop.clone();
        async move {
            // Readiness alone may be reported before anything has come.
            let first_byte = &mut [0];
            tokio::select! {
                spoken = timeout(FIRST_BYTE_PATIENCE, stream.peek(first_byte)) => {
                    if !matches!(spoken, Ok(Ok(1))) {
                        return;
                    }
                }
                () = stop.begun() => return,
            }
            let (stream, executor) = (Gathered::new(stream), FirstHere::default());
            let connection = hyper::server::conn::http2::Builder::new(executor.clone())
                .auto_date_header(false)
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS_MAX)
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

#[cfg(test)]
mod tests {
    use cluster::DoorOptions;
    use row_api::client::{RowClient, connect_lazy};
    use row_api::data::bigtable_server::BigtableServer;
    use row_api::data::{MutateRowRequest, MutateRowResponse};
    use tokio::sync::{Semaphore, mpsc};
    use tonic::transport::Endpoint;
    use tonic::{Code, Request, Response, Status};

    use super::*;

    /// Says that a request has arrived, and keeps it until told to go on.
    #[derive(Clone)]
    struct Waiting {
        arrived: mpsc::UnboundedSender<usize>,
        go_on: Arc<Semaphore>,
    }

    #[tonic::async_trait]
    impl Bigtable for Waiting {
        async fn mutate_row(
            &self,
            request: Request<MutateRowRequest>,
        ) -> Result<Response<MutateRowResponse>, Status> {
            self.arrived.send(request.get_ref().row_key.len()).unwrap();
            self.go_on.acquire().await.unwrap().forget();
            Ok(Response::new(MutateRowResponse {}))
        }
    }

    async fn call(client: &RowClient, bytes: usize) -> Result<(), Status> {
        let request = MutateRowRequest { row_key: vec![7; bytes].into(), ..MutateRowRequest::default() };
        client.data().mutate_row(request).await.map(drop)
    }

    #[tokio::test]
    async fn requests_past_the_bound_are_refused_until_others_end() {
        let options = DoorOptions {
            name: "test",
            address: "127.0.0.1:0".parse().unwrap(),
            insecure: false,
            connection_count_max: 16,
            refusal: b"",
        };
        let door = Door::open(options).await.unwrap();
        let endpoint = Endpoint::from_shared(format!("http://{}", door.local_address())).unwrap();
        let client = || RowClient::new(connect_lazy(&endpoint));
        let (arrived, mut arrivals) = mpsc::unbounded_channel();
        let go_on = Arc::new(Semaphore::new(0));
        let service = Waiting { arrived, go_on: Arc::clone(&go_on) };
        let routes = Routes::new(BigtableServer::new(service.clone()));
        let in_flight = Arc::new(InFlight::new(1 << 20));
        let shutdown = Shutdown::new();
        tokio::spawn(serve_within(door, service, routes, Arc::clone(&in_flight), shutdown.clone()));

        // Two calls on connections of their own hold most of the room.
        let held: Vec<_> = [client(), client()]
            .into_iter()
            .map(|client| tokio::spawn(async move { call(&client, 450_000).await }))
            .collect();
        assert_eq!((arrivals.recv().await, arrivals.recv().await), (Some(450_000), Some(450_000)));
        assert!(in_flight.bytes() > 900_000);

        let third = client();
        let hostile: Vec<_> = (0..20)
            .map(|_| {
                let client = third.clone();
                tokio::spawn(async move { call(&client, 200_000).await })
            })
            .collect();
        for refused in hostile {
            let status = refused.await.unwrap().unwrap_err();
            assert_eq!(status.code(), Code::Unavailable, "{status}");
            assert!(status.message().contains("bigtable.in_flight_max (1.0 MiB)"), "{status}");
        }

        go_on.add_permits(3);
        for held in held {
            held.await.unwrap().unwrap();
        }
        call(&third, 200_000).await.unwrap();

        // Alone and still too large, as many times as it comes.
        for _ in 0..20 {
            let status = call(&third, 8 << 20).await.unwrap_err();
            assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        }
        shutdown.begin();
        drop((client, third));
        assert!(shutdown.drained(Duration::from_secs(10)).await);
        assert_eq!(in_flight.bytes(), 0);
    }
}
