//! What every role needs of its surroundings.
//!
//! Read on in this order:
//!
//! - [`identity`]: who is who: server ids and epochs that never come again.
//! - [`lock_service`]: small durable records, locks and epochs: Chubby's part.
//! - [`shutdown`]: one signal to stop, and a count of what still has to finish.
//! - [`door`]: a listening socket with a bound on its connections.
//! - [`telemetry`]: events and metrics.

pub mod door;
pub mod identity;
pub mod lock_service;
pub mod shutdown;
pub mod telemetry;

pub use door::{Door, DoorError, DoorOptions};
pub use identity::{Epoch, ServerId};
pub use lock_service::{EmbeddedLockService, LockError, LockService};
pub use shutdown::Shutdown;
pub use telemetry::Telemetry;
