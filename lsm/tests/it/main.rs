//! The engine from outside: against a model, through power cuts, under threads.

#![expect(unreachable_pub, reason = "one test binary has no outside")]

mod checkpoint;
mod engine;
mod ext4;
mod extent;
mod faults;
mod fork;
mod history;
mod ingest;
mod log_store;
mod measure;
mod merges;
mod metamorphic;
mod power_cut;
mod power_cut_trees;
mod pressure;
mod salvage;
mod seeds;
mod slot_log;
mod threads;
mod tuning;
mod would_block;
