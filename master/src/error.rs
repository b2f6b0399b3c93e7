//! What can go wrong in the master, and what a client is told of it.

use cluster::lock_service::LockError;
use row_api::retry;
use tonic::{Code, Status};

/// An operation of the master that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No tablet server is there to take a tablet: try again later. What had begun is done by then, or is done again.
    #[error("no tablet server is alive")]
    NoServer,
    /// The request cannot be done as it is, or as things are: the status says why.
    #[error("{}", .0.message())]
    Refused(Box<Status>),
    /// A tablet server or METADATA failed.
    #[error("a tablet operation failed")]
    Tablets(#[from] tablet_server::Error),
    /// The lock service failed, or another master holds the lock.
    #[error("the lock service failed")]
    Lock(#[from] LockError),
}

/// An operation's outcome.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Whether what was asked for is not there.
    pub fn is_absence(&self) -> bool {
        match self {
            Self::Refused(status) => status.code() == Code::NotFound,
            Self::Tablets(tablet_server::Error::NoTable { .. }) => true,
            Self::NoServer | Self::Tablets(_) | Self::Lock(_) => false,
        }
    }

    /// Whether this master can go on no more: its records or its tablets are out of its reach.
    pub fn is_stop(&self) -> bool {
        match self {
            Self::Lock(error) => !matches!(error, LockError::Conflict { .. } | LockError::Refused { .. }),
            Self::Tablets(tablet_server::Error::Storage(_)) => true,
            Self::NoServer | Self::Refused(_) | Self::Tablets(_) => false,
        }
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(status) => *status,
            Error::NoServer => retry::unavailable(error.to_string()),
            Error::Tablets(error) => error.into(),
            Error::Lock(error @ LockError::Conflict { .. }) => Self::aborted(error.to_string()),
            Error::Lock(error @ LockError::Refused { .. }) => Self::invalid_argument(error.to_string()),
            Error::Lock(error) => tablet_server::Error::Lock(error).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_master_without_tablet_servers_tells_when_to_ask_again() {
        let status = Status::from(Error::NoServer);
        assert_eq!((status.code(), retry::delay_of(&status)), (Code::Unavailable, Some(retry::SOON)));
        assert_eq!(retry::delay_of(&Error::from(Status::unavailable("the master is stopping")).into()), None);
    }
}
