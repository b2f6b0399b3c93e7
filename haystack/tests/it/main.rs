//! Haystack as a whole: stores over files that fail, images, and the door.
#![expect(unreachable_pub, reason = "a test binary has no public face")]

mod blobs;
mod compaction;
mod damage;
mod door;
mod extents;
mod faults;
mod history;
mod images;
mod power_cut;
mod row_table;
mod shelf;
mod store;
mod stores;
mod ten_million;
