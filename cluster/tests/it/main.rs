//! The lock service from outside: what any must do, and what the embedded one
//! does to its directory.

mod conformance;
mod embedded;
