//! The Bigtable door: gRPC connections, each an HTTP/2 connection of its own.

use std::time::Duration;

use cluster::{Door, Shutdown};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::time::timeout;
use tonic::service::Routes;

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

/// Serves `routes` until `shutdown` begins; connections then finish the calls
/// they have.
pub(crate) async fn serve(door: Door, routes: Routes, shutdown: Shutdown) {
    let routes = routes.prepare();
    let stop = shutdown.clone();
    door.serve(shutdown, move |stream, peer| {
        let service = TowerToHyperService::new(routes.clone());
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
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS_MAX)
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .max_frame_size(1 << 18)
                .keep_alive_interval(KEEP_ALIVE)
                .keep_alive_timeout(KEEP_ALIVE)
                .serve_connection(TokioIo::new(stream), service);
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stop.begun() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%peer, %error, "a gRPC connection broke");
            }
        }
    })
    .await;
}
