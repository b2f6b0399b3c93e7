//! `/`: a page that shows photos and albums and uploads more. It is made of four
//! files that stand in the binary, uses the same requests as everybody else, and
//! may load nothing from anywhere but here.

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_NONE_MATCH,
    REFERRER_POLICY,
};
use http::{HeaderMap, Response, StatusCode};

use super::answer::{Answer, AnswerBody, empty};
use super::download::CONTENT_TYPE_OPTIONS;

/// Only this server's own files; styles that the script sets are no markup.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

struct File {
    path: &'static str,
    content_type: &'static str,
    content: &'static str,
}

const FILES: [File; 4] = [
    File { path: "", content_type: "text/html; charset=utf-8", content: include_str!("gallery/page.html") },
    File {
        path: "gallery/style.css",
        content_type: "text/css; charset=utf-8",
        content: include_str!("gallery/style.css"),
    },
    File {
        path: "gallery/script.js",
        content_type: "text/javascript; charset=utf-8",
        content: include_str!("gallery/script.js"),
    },
    File {
        path: "gallery/icon.svg",
        content_type: "image/svg+xml",
        content: include_str!("gallery/icon.svg"),
    },
];

/// The answer to a read of the page's file at `path`, which begins behind the
/// first slash; none if it has no such file.
pub(super) fn get(path: &str, headers: &HeaderMap) -> Option<Answer> {
    let file = FILES.iter().find(|file| file.path == path)?;
    let tag = format!("\"{:08x}\"", crc32c::crc32c(file.content.as_bytes()));
    let mut answer = if headers.get(IF_NONE_MATCH).is_some_and(|found| found.as_bytes() == tag.as_bytes()) {
        empty(StatusCode::NOT_MODIFIED)
    } else {
        Response::new(AnswerBody::whole(Bytes::from_static(file.content.as_bytes())))
    };
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(file.content_type));
    headers.insert(ETAG, HeaderValue::from_str(&tag).expect("hexadecimal"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(OPENER_POLICY, HeaderValue::from_static("same-origin"));
    Some(answer)
}
