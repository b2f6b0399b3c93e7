//! The store's protocol, version 1: HTTP/1.1 with bodies of [`frames`](super::frames).
//!
//! | method | path                                       | body            | answer          |
//! |--------|--------------------------------------------|-----------------|-----------------|
//! | GET    | `/store`                                   |                 | JSON [`StoreReport`](super::StoreReport) |
//! | PUT    | `/volumes/{v}?filling=`                    |                 | JSON, `physical` |
//! | DELETE | `/volumes/{v}?physical=`                   |                 |                 |
//! | POST   | `/volumes/{v}/complete`, `/seal`, `/probe`  |                 |                 |
//! | POST   | `/volumes/{v}/photos?repair=`              | frames          | JSON, `volume_bytes` |
//! | POST   | `/volumes/{v}/tombstones`                  | keys and cookies |                 |
//! | GET    | `/volumes/{v}/keys?after=&count=`          |                 | keys, buried or not |
//! | POST   | `/volumes/{v}/copies`                      | keys            | frames          |
//! | GET    | `/volumes/{v}/photos/{key}/{size}?cookie=`  |                 | a frame of one needle |
//! | GET    | `/volumes/{v}/photos/{key}/cookie`         |                 | JSON, `cookie`  |
//!
//! Volumes are decimal; keys, cookies and physical numbers 16 hexadecimal digits.
//! Every request carries its version and every answer the server's, in the header
//! `haystack-protocol`; a request of another version is refused before anything
//! else of it is looked at, a token (`authorization: Bearer`) right after. What
//! is refused is answered with JSON, a [`Refused`].

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::needle::DATA_BYTES_MAX;
use crate::photo_id::VolumeId;

/// The header with the version.
pub const VERSION_HEADER: &str = "haystack-protocol";
/// The version.
pub const VERSION: &str = "1";

/// Bytes of the largest body: a photo of the largest size, and as much again for
/// what is derived from it.
pub const BODY_BYTES_MAX: usize = 2 * DATA_BYTES_MAX as usize;
/// Bytes of the largest answer in JSON.
pub const JSON_BYTES_MAX: usize = 8 << 20;

/// A refusal as it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// What it is, for programs.
    pub code: Code,
    /// A sentence for people.
    pub message: String,
    /// Free bytes of the disk, if that is full.
    #[serde(default)]
    pub available_bytes: u64,
    /// Bytes held in reserve, if the disk is full.
    #[serde(default)]
    pub reserve_bytes: u64,
}

/// What a refusal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request is of another version of this protocol.
    Version,
    /// The token is missing or wrong.
    Token,
    /// The request is no request of this protocol.
    BadRequest,
    /// There is no replica of the volume.
    NoReplica,
    /// There is one already.
    ReplicaExists,
    /// The volume takes no photos.
    Sealed,
    /// The volume takes no writes.
    Poisoned,
    /// The disk has no room.
    DiskFull,
    /// What is read is not what was written.
    Damaged,
    /// The volume's file cannot be served.
    VolumeIll,
    /// Too much is under way.
    Busy,
    /// Anything else, such as a disk that fails.
    Failed,
}

impl Code {
    /// The HTTP status that goes with it.
    pub fn status(self) -> http::StatusCode {
        use http::StatusCode as S;
        match self {
            Self::Version | Self::BadRequest => S::BAD_REQUEST,
            Self::Token => S::UNAUTHORIZED,
            Self::NoReplica => S::NOT_FOUND,
            Self::ReplicaExists | Self::Sealed | Self::Poisoned => S::CONFLICT,
            Self::DiskFull => S::INSUFFICIENT_STORAGE,
            Self::Busy => S::SERVICE_UNAVAILABLE,
            Self::Damaged | Self::VolumeIll | Self::Failed => S::INTERNAL_SERVER_ERROR,
        }
    }
}

impl Refused {
    /// A refusal that has no figures.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), available_bytes: 0, reserve_bytes: 0 }
    }

    /// The error that this is to the caller, about `volume` at `store`.
    pub fn into_error(self, volume: VolumeId, store: &std::sync::Arc<str>) -> Error {
        let Self { code, message, available_bytes, reserve_bytes } = self;
        let store = std::sync::Arc::clone(store);
        match code {
            Code::NoReplica => Error::NoReplica { volume },
            Code::ReplicaExists => Error::ReplicaExists { volume },
            Code::Sealed => Error::Sealed { volume },
            Code::Poisoned => Error::Poisoned { volume },
            Code::DiskFull => Error::DiskFull { available_bytes, reserve_bytes },
            Code::Damaged => Error::ReplicaDamaged { volume, found: message },
            Code::VolumeIll => Error::VolumeIll { volume, found: message },
            Code::Busy | Code::Failed => Error::StoreAway { store, found: message },
            Code::Version | Code::Token | Code::BadRequest => Error::StoreRefused { store, found: message },
        }
    }
}

impl From<&Error> for Refused {
    fn from(error: &Error) -> Self {
        let mut message = error.to_string();
        if let Some(source) = std::error::Error::source(error) {
            message = format!("{message}: {source}");
        }
        let code = match error {
            Error::NoReplica { .. } => Code::NoReplica,
            Error::ReplicaExists { .. } => Code::ReplicaExists,
            Error::Sealed { .. } => Code::Sealed,
            Error::Poisoned { .. } => Code::Poisoned,
            Error::Damaged { .. } | Error::ReplicaDamaged { .. } => Code::Damaged,
            Error::VolumeIll { .. } => Code::VolumeIll,
            Error::Busy { .. } | Error::Closing => Code::Busy,
            Error::DiskFull { available_bytes, reserve_bytes } => {
                let (available_bytes, reserve_bytes) = (*available_bytes, *reserve_bytes);
                return Self { code: Code::DiskFull, message, available_bytes, reserve_bytes };
            }
            _ => Code::Failed,
        };
        Self::new(code, message)
    }
}

/// What [`VolumeStore::create_replica`](super::VolumeStore::create_replica) answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    /// The physical volume's number.
    pub physical: u64,
}

/// What [`VolumeStore::append`](super::VolumeStore::append) answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appended {
    /// Length of the volume's file, bytes.
    pub volume_bytes: u64,
}

/// What [`VolumeStore::cookie`](super::VolumeStore::cookie) answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CookieAnswer {
    /// The cookie; none if there is no such photo.
    pub cookie: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_the_same_on_the_other_side() {
        let volume = VolumeId(7);
        let errors = [
            Error::NoReplica { volume },
            Error::ReplicaExists { volume },
            Error::Sealed { volume },
            Error::Poisoned { volume },
            Error::DiskFull { available_bytes: 1, reserve_bytes: 2 },
        ];
        for error in errors {
            let sent = serde_json::to_vec(&Refused::from(&error)).unwrap();
            let taken: Refused = serde_json::from_slice(&sent).unwrap();
            assert_eq!(taken.into_error(volume, &"somewhere".into()).to_string(), error.to_string());
        }
    }
}
