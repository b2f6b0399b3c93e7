//! The console door: health, readiness, metrics, tables, tablets, volumes, stores and the cache for operators.

mod cache;
mod json_calls;
mod logical_volumes;
mod tables;
mod tablets;
mod volumes;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cache_proxy::Cache;
use cluster::{Door, Shutdown};
use haystack::Haystack;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use master::Master;

/// A client that has not sent its headers by then is let go.
const HEADER_PATIENCE: Duration = Duration::from_secs(10);

/// What the console asks of the process.
pub(crate) struct Console {
    /// What is missing before requests can be served; none once they can.
    pub(crate) not_ready: Box<dyn Fn() -> Option<String> + Send + Sync>,
    /// Every metric, in Prometheus' text format.
    pub(crate) metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// The master, once there is one.
    pub(crate) master: Box<dyn Fn() -> Option<Arc<Master>> + Send + Sync>,
    /// The photo service, once there is one.
    pub(crate) photos: Box<dyn Fn() -> Option<Haystack> + Send + Sync>,
    /// The cache, once there is one.
    pub(crate) cache: Box<dyn Fn() -> Option<Cache> + Send + Sync>,
    /// The doors, by name and address, for the page at `/`.
    pub(crate) doors: Vec<(&'static str, String)>,
}

/// Serves `console` until `shutdown` begins.
pub(crate) async fn serve(door: Door, console: Console, shutdown: Shutdown) {
    let console = Arc::new(console);
    let stop = shutdown.clone();
    door.serve(shutdown, move |stream, peer| {
        let console = Arc::clone(&console);
        let stop = stop.clone();
        async move {
            let service = service_fn(move |request| {
                let console = Arc::clone(&console);
                async move {
                    let first = request.uri().path().trim_start_matches('/').split('/').next();
                    Ok::<_, Infallible>(match first {
                        Some("tables" | "tablets") => json_calls::answer((console.master)(), request).await,
                        Some("volumes") => volumes::answer((console.photos)(), request).await,
                        Some("logical-volumes" | "stores") => {
                            logical_volumes::answer((console.photos)(), request).await
                        }
                        Some("cache") => cache::answer((console.cache)().as_ref(), &request),
                        _ => console.answer(&request),
                    })
                }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_PATIENCE)
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
                tracing::debug!(%peer, %error, "a console connection broke");
            }
        }
    })
    .await;
}

impl Console {
    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        const TEXT: &str = "text/plain; charset=utf-8";
        let path = request.uri().path();
        if !["/", "/healthz", "/readyz", "/metrics"].contains(&path) {
            let known = format!(
                "there is no {path} here; try /healthz, /readyz, /metrics, /tables, /tablets, /volumes, \
                 /logical-volumes, /stores or /cache\n"
            );
            return respond(StatusCode::NOT_FOUND, TEXT, known);
        }
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            let mut refusal = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n".to_owned());
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match path {
            "/healthz" => respond(StatusCode::OK, TEXT, "ok\n".to_owned()),
            "/readyz" => match (self.not_ready)() {
                None => respond(StatusCode::OK, TEXT, "ready\n".to_owned()),
                Some(missing) => {
                    respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("not ready: {missing}\n"))
                }
            },
            "/metrics" => {
                respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", (self.metrics)())
            }
            _ => respond(StatusCode::OK, "text/html; charset=utf-8", self.page()),
        }
    }

    /// The page at `/`: the doors, and where to look next.
    fn page(&self) -> String {
        let rows: String = self
            .doors
            .iter()
            .map(|(name, address)| format!("<tr><th>{name}</th><td><code>{address}</code></td></tr>"))
            .collect();
        let (state, class) = match (self.not_ready)() {
            None => ("ready".to_owned(), "good"),
            Some(missing) => (format!("not ready: {missing}"), "bad"),
        };
        include_str!("console/page.html")
            .replace("{{version}}", env!("CARGO_PKG_VERSION"))
            .replace("{{state}}", &state)
            .replace("{{class}}", class)
            .replace("{{doors}}", &rows)
    }
}

/// A POST must say that it is JSON: a page of another site cannot send that unasked.
fn require_json<B>(request: &Request<B>) -> Result<(), &'static str> {
    let is_json = request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if is_json { Ok(()) } else { Err("the body must be of the type application/json") }
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(ready: bool, method: Method, path: &str) -> Response<Full<Bytes>> {
        let console = Console {
            not_ready: Box::new(move || (!ready).then(|| "tablets are loading".to_owned())),
            metrics: Box::new(|| "up 1\n".to_owned()),
            master: Box::new(|| None),
            photos: Box::new(|| None),
            cache: Box::new(|| None),
            doors: vec![("photos", "127.0.0.1:8080".to_owned())],
        };
        console.answer(&Request::builder().method(method).uri(path).body(()).unwrap())
    }

    #[test]
    fn health_is_alive_while_readiness_waits() {
        assert_eq!(answer(false, Method::GET, "/healthz").status(), StatusCode::OK);
        assert_eq!(answer(false, Method::GET, "/readyz").status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer(true, Method::GET, "/readyz").status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn tablets_wait_for_the_master() {
        let request = Request::get("/tablets").body(Full::new(Bytes::new())).unwrap();
        assert_eq!(json_calls::answer(None, request).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn volumes_wait_for_their_recovery() {
        let request = Request::get("/volumes").body(()).unwrap();
        assert_eq!(volumes::answer(None, request).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn the_cache_waits_until_it_is_there() {
        let request = Request::get("/cache").body(()).unwrap();
        assert_eq!(cache::answer(None, &request).status(), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn other_paths_and_methods_are_refused() {
        assert_eq!(answer(true, Method::GET, "/nowhere").status(), StatusCode::NOT_FOUND);
        let refusal = answer(true, Method::POST, "/metrics");
        assert_eq!(refusal.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(refusal.headers()[ALLOW], "GET, HEAD");
    }
}
