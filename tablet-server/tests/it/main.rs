//! The crate from outside: rows over a real engine, and a tablet server on its
//! own, as the master and a gateway see it.

mod rows;
mod server;
