//! Photos at one read each: Haystack's volumes, their directory, and the photo
//! door ("Finding a needle in Haystack", OSDI 2010).
//!
//! [`Haystack`] is what the binary opens and serves. A tour, from the disk up:
//!
//! - [`needle`], [`superblock`], [`index_file`]: what lies on the disk, byte by byte.
//! - [`index`], [`recovery`], [`writer`], [`volume`]: one volume: where its photos
//!   lie, how that is known after a crash, and its one writer.
//! - [`store`]: the volumes of one machine.
//! - [`stores`]: such a machine behind a seam, in this process or over the network.
//! - [`photo_id`], [`media_type`], [`photo`]: what a photo is called and what is
//!   known of it.
//! - [`imaging`]: from an upload to the sizes of a photo.
//! - [`directory`]: which photos there are, in Bigtable tables.
//! - [`service`]: all of these behind one value; [`options`], what it is told.
//! - [`http`](mod@http): the door.
//!
//! Invariants: a needle is believed only after its checksum was verified
//! ([`needle::Needle::decode`]); nothing is acknowledged before its sync; an id
//! names the same bytes for ever.

pub mod directory;
pub mod error;
pub mod http;
pub mod imaging;
pub mod index;
pub mod index_file;
pub mod media_type;
pub mod needle;
pub mod options;
pub mod photo;
pub mod photo_id;
pub mod recovery;
pub mod service;
pub mod store;
pub mod stores;
pub mod superblock;
pub mod volume;
pub mod writer;

pub use error::{Error, Result};
pub use options::HaystackOptions;
pub use photo_id::{PhotoId, PhotoSize};
pub use service::{Haystack, HaystackStats};
