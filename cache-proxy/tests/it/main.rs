//! The memcached door over real sockets, with a clock of the test's own.

#![expect(unreachable_pub, reason = "a test binary has no public API")]

mod admin;
mod connections;
mod differential;
mod house;
mod leases;
mod restart;
mod tls;
mod transcripts;
