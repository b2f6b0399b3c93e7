//! The file systems, from outside: what both promise, what the simulation
//! takes away, and that it is otherwise like the real one.

mod faults;
mod model;
mod power_cut;
mod promises;
