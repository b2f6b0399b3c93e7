//! Histories: what clients of rows did and saw, and whether some order explains it.
//!
//! For tests only. Each row must be linearizable: what all clients saw of it
//! must be what one client would have seen that did the same operations one after
//! the other, each at some moment between its call and its answer (Herlihy and
//! Wing, "Linearizability: a correctness condition for concurrent objects", 1990).
//! Linearizability is local, so that every row is checked by itself.
//!
//! - [`search`]: finds such an order, or shows that there is none.
//! - [`row`]: what a row holds and how each operation changes it.
//! - [`history`]: the operations of a run, as they are called and answered.
//! - [`requests`]: each operation as a request, and what its answer says.
//! - [`clients`]: concurrent clients with a seed that do such operations over the row API.

pub mod clients;
pub mod history;
pub mod requests;
pub mod row;
pub mod search;

pub use clients::{Clients, Plan};
pub use history::{History, Violation};
