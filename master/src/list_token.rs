//! The tokens of lists whose order is not that of names: the last item of the page before, whole.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost::Message;
use tablet_server::limits;
use tonic::Status;

/// The token that leads behind `item`.
pub fn encode(item: &impl Message) -> String {
    URL_SAFE_NO_PAD.encode(item.encode_to_vec())
}

/// What `token`, the content of the request's `field`, leads behind; nothing for an empty one.
///
/// # Errors
///
/// INVALID_ARGUMENT.
pub fn decode<T: Message + Default>(field: &str, token: &str) -> Result<Option<T>, Status> {
    if token.is_empty() {
        return Ok(None);
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    let item = bytes.and_then(|bytes| T::decode(&*bytes).ok());
    item.map(Some).ok_or_else(|| limits::refuse(field, "this server did not give it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leads_behind_its_item_and_nothing_else_is_a_token() {
        let item = prost_types::Duration { seconds: 7, nanos: 9 };
        assert_eq!(decode("page_token", &encode(&item)).unwrap(), Some(item));
        assert_eq!(decode::<prost_types::Duration>("page_token", "").unwrap(), None);
        for bad in ["!", "_w", "AAAA"] {
            let error = decode::<prost_types::Duration>("page_token", bad).unwrap_err();
            assert!(error.message().starts_with("page_token: "), "{error}");
        }
    }
}
