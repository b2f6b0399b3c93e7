//! The cache at the console door, in JSON, for `hayloft admin cache` and other tools.
//!
//! ```text
//! GET /cache    {"items": 1, "memory_bytes": ..., "gets": ..., "hot_keys": [...], "prefixes": [...]}
//! ```
//!
//! Counts are since the start; who wants rates asks twice. Those of keys and
//! prefixes are of a sample.

use bytes::Bytes;
use cache_proxy::Cache;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

use super::respond;

/// Hot keys and prefixes shown.
const SHOWN_COUNT: usize = 50;

/// Answers a request of `/cache`; `cache` is none while the process starts.
pub(super) fn answer<B>(cache: Option<&Cache>, request: &Request<B>) -> Response<Full<Bytes>> {
    let (code, body) = match (cache, request.method(), request.uri().path()) {
        (None, ..) => (StatusCode::SERVICE_UNAVAILABLE, json!({ "error": "the cache is being set up" })),
        (Some(cache), &Method::GET, "/cache") => (StatusCode::OK, shown(cache)),
        _ => (StatusCode::NOT_FOUND, json!({ "error": "there is GET /cache" })),
    };
    respond(code, "application/json", format!("{body}\n"))
}

fn shown(cache: &Cache) -> Value {
    let activity = cache.activity(SHOWN_COUNT);
    let (table, counts) = (activity.table, activity.table.counts);
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    json!({
        "items": table.item_count,
        "memory_bytes": table.memory_bytes,
        "memory_bytes_max": table.memory_bytes_max,
        "connections": activity.connection_count,
        "gets": counts.cmd_get,
        "hits": counts.get_hits,
        "sets": counts.cmd_set,
        "deletes": counts.delete_hits + counts.delete_misses,
        "evictions": counts.evictions,
        "expired": counts.reclaimed,
        "eviction_age_seconds": counts.evicted_time,
        "leases": table.lease_count,
        "lease_tokens": counts.lease_tokens,
        "lease_waits": counts.lease_waits,
        "hot_keys": activity.hot_keys.iter().map(|hot| json!({
            "key": text(&hot.key), "requests": hot.requests, "error": hot.error,
        })).collect::<Vec<_>>(),
        "prefixes": activity.prefixes.iter().map(|prefix| json!({
            "prefix": text(&prefix.prefix), "gets": prefix.gets, "hits": prefix.hits,
        })).collect::<Vec<_>>(),
    })
}
