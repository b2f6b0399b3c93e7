//! Telling a client to come back later, the way official clients heed.
//!
//! They look for `google.rpc.RetryInfo` among a status' details
//! (`grpc-status-details-bin`) and wait as long as it says instead of by their
//! own backoff; some retry for it what they would not otherwise. So a status
//! from here stands only where nothing of the request has been logged, or where what
//! has begun of it does no harm when it is done again.

use std::time::Duration;

use prost::Message;
use tonic::{Code, Status};

use crate::rpc;

/// The wait for a bound that is reached, or a tablet that is elsewhere: most are
/// over within some tens of milliseconds.
pub const SOON: Duration = Duration::from_millis(50);

/// UNAVAILABLE, worth another try [`SOON`].
pub fn unavailable(message: impl Into<String>) -> Status {
    let (code, message) = (Code::Unavailable, message.into());
    let delay = prost_types::Duration::try_from(SOON).expect("it is a part of a second");
    let retry = rpc::RetryInfo { retry_delay: Some(delay) };
    let detail = prost_types::Any {
        type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
        value: retry.encode_to_vec(),
    };
    let details = rpc::Status { code: code.into(), message: message.clone(), details: vec![detail] };
    Status::with_details(code, message, details.encode_to_vec().into())
}

/// How long the client of `status` is told to wait, if it is.
pub fn delay_of(status: &Status) -> Option<Duration> {
    let details = rpc::Status::decode(status.details()).ok()?.details;
    let retry = details.iter().find(|detail| detail.type_url.ends_with("/google.rpc.RetryInfo"))?;
    rpc::RetryInfo::decode(retry.value.as_slice()).ok()?.retry_delay?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_is_turned_away_learns_when_to_come_back() {
        let status = unavailable("too many requests wait");
        assert_eq!((status.code(), status.message()), (Code::Unavailable, "too many requests wait"));
        assert_eq!(delay_of(&status), Some(SOON));
        let details = rpc::Status::decode(status.details()).unwrap();
        assert_eq!((details.code, details.message.as_str()), (14, status.message()));
    }

    #[test]
    fn a_status_without_a_hint_has_no_delay() {
        assert_eq!(delay_of(&Status::unavailable("the server is stopping")), None);
        let broken = Status::with_details(Code::Unavailable, "", vec![0xff; 9].into());
        assert_eq!(delay_of(&broken), None);
    }
}
