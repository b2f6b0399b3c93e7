//! A tablet server on its own, as the master and a gateway see it.

mod server;
