//! The row and admin API end to end in one process, without a socket.
#![expect(unreachable_pub, reason = "nothing is public in an integration test")]

mod aggregates;
mod backups;
mod changes;
mod crashes;
mod dead_disks;
mod instances;
mod linearizability;
mod locality_groups;
mod moves;
mod operations;
mod replacements;
mod requests;
mod restarts;
mod rows;
mod splits;
mod stack;
mod tables;
mod traffic;
mod views;
