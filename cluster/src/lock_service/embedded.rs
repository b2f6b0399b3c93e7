//! The lock service of one machine, in the data directory.
