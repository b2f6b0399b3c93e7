//! `GET /photos/{id}?w=…`: variants, which are listed or signed; and who may read
//! what where reading needs a signature.

use http::header::{ACCEPT, CACHE_CONTROL, HeaderValue, VARY};
use http::{HeaderMap, StatusCode, Uri};

use super::answer::{Answer, Refusal};
use super::conditional::Validators;
use super::download;
use crate::imaging::variant::Variant;
use crate::photo_id::PhotoId;
use crate::service::Haystack;
use crate::signature::{Verdict, verify};

/// When the signature of `uri` expires, seconds since 1970; none if it has none.
///
/// # Errors
///
/// 403 for a signature that is bad or has expired, and where one is needed for
/// none at all.
pub(super) fn check_signature(service: &Haystack, uri: &Uri) -> Result<Option<u64>, Refusal> {
    let options = service.options();
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    let forbidden = |code, message: &str| Refusal::new(StatusCode::FORBIDDEN, code, message);
    match verify(path, service.now_ms() / 1000, &options.signing_keys) {
        Verdict::Good { expires_s } => Ok(Some(expires_s)),
        Verdict::Unsigned if options.signed_only => Err(forbidden("unsigned", "reading needs a signed URL")),
        Verdict::Unsigned => Ok(None),
        Verdict::Expired => Err(forbidden("expired", "the URL's signature has expired")),
        Verdict::Bad => {
            Err(forbidden("bad_signature", "the URL's signature is not of this URL and a known key"))
        }
    }
}

/// Lets nobody keep an answer to a signed URL longer than the signature holds, nor
/// any cache that many share. What has to be asked for each time stays so.
pub(super) fn limit_caching(service: &Haystack, answer: &mut Answer, expires_s: Option<u64>) {
    let Some(expires_s) = expires_s else { return };
    let left = expires_s.saturating_sub(service.now_ms() / 1000);
    let headers = answer.headers_mut();
    let caching = match headers.get(CACHE_CONTROL) == Some(&download::IMMUTABLE) {
        true => format!("private, max-age={left}"),
        false => "private, no-cache".to_owned(),
    };
    headers.insert(CACHE_CONTROL, HeaderValue::from_str(&caching).expect("ASCII"));
}

/// The variant in `query`, if there is one.
///
/// # Errors
///
/// 400 for a parameter out of range, 403 for a variant that is neither listed
/// nor `signed`.
pub(super) fn asked(
    service: &Haystack,
    query: Option<&str>,
    signed: bool,
) -> Result<Option<Variant>, Refusal> {
    let Some(query) = query else { return Ok(None) };
    let variant =
        Variant::parse(query).map_err(|error| Refusal::bad_request("bad_variant", error.to_string()))?;
    let Some(variant) = variant else { return Ok(None) };
    let listed = &service.options().variants_listed;
    if !signed && !listed.contains(&variant) {
        let listed: Vec<String> = listed.iter().map(ToString::to_string).collect();
        let message = format!("without a signature there are only the variants {}", listed.join(", "));
        return Err(Refusal::new(StatusCode::FORBIDDEN, "variant_not_listed", message));
    }
    Ok(Some(variant))
}

/// Answers with `variant` of the photo `id`.
///
/// # Errors
///
/// 404, and 503 where too many are being made.
pub(super) async fn get(
    service: &Haystack,
    id: &str,
    variant: Variant,
    headers: &HeaderMap,
) -> Result<Answer, Refusal> {
    let id = PhotoId::decode(id.as_bytes()).map_err(|_| Refusal::not_found())?;
    let rendered = service.variant(&id, variant.negotiated(accepts_webp(headers))).await?;
    let rendered = rendered.ok_or_else(Refusal::not_found)?;
    let validators = Validators::new(rendered.checksum, rendered.data.len(), id.key.uploaded_ms());
    let mut answer = download::answer(service, rendered.media_type, rendered.data, &validators, headers)?;
    if variant.negotiates() {
        answer.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    }
    Ok(answer)
}

/// Whether the client names WebP and does not refuse it.
fn accepts_webp(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    accepted.flat_map(|accept| accept.split(',')).any(|accepted| {
        let mut parts = accepted.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("image/webp"));
        let refused = |part: &str| part.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0_f32));
        named && !parts.any(refused)
    })
}
