//! Photos at one read each: Haystack's volumes, their directory, and the photo
//! door ("Finding a needle in Haystack", OSDI 2010).
//!
//! [`Haystack`] is what the binary opens and serves. A tour, from the disk up:
//!
//! - [`needle`], [`superblock`], [`index_file`]: what lies on the disk, byte by byte.
//! - [`group`], [`index`]: where its photos lie, in memory.
//! - [`recovery`], [`writer`], [`compaction`], [`volume`]: one volume: how it is
//!   known after a crash, its one writer, and how its garbage goes.
//! - [`overseer`], [`pace`]: who watches over volumes, and how fast work that
//!   nobody waits for goes.
//! - [`store`], [`scrub`], [`care`]: the volumes of one machine, and what keeps them
//!   well; [`inspect`], a look into them offline.
//! - [`stores`]: such a machine behind a seam, in this process or over the network.
//! - [`logical`]: logical volumes, whose replicas lie on several such machines.
//! - `photo_store`: which of the two keeps photos.
//! - [`photo_id`], [`media_type`], [`photo`]: what a photo is called and what is
//!   known of it.
//! - [`imaging`]: from an upload to the sizes of a photo.
//! - [`variants`]: those of them that were made lately; [`signature`]: URLs that may ask
//!   for any.
//! - [`tables`]: the Bigtable tables that the service keeps; [`directory`]: which
//!   photos there are, in two of them.
//! - [`chunk`]: bytes of any length as immutable chunks; [`blob`]: names that point to
//!   them; [`partial_upload`]: uploads that come in parts; [`upload_key`]: uploads that
//!   come twice; [`mod@url`]: their names in URLs.
//! - [`in_flight`]: memory that clients fill, bounded.
//! - [`service`]: all of these behind one value; [`options`], what it is told.
//! - [`http`](mod@http): the door.
//!
//! Invariants: a needle is believed only after its checksum was verified
//! ([`needle::Needle::decode`]); nothing is acknowledged before its sync; an id
//! names the same bytes for ever.

pub mod blob;
pub mod care;
pub mod chunk;
pub mod compaction;
pub mod directory;
pub mod error;
mod extent;
#[doc(hidden)]
pub mod fuzzing;
pub mod group;
pub mod http;
pub mod imaging;
pub mod in_flight;
pub mod index;
mod index_builder;
pub mod index_file;
mod index_segment;
pub mod inspect;
pub mod logical;
pub mod media_type;
pub mod needle;
pub mod options;
pub mod overseer;
pub mod pace;
pub mod partial_upload;
pub mod photo;
pub mod photo_id;
mod photo_store;
pub mod recovery;
mod scanner;
pub mod scrub;
pub mod service;
pub mod signature;
pub mod store;
pub mod stores;
pub mod superblock;
pub mod tables;
pub mod upload_key;
pub mod url;
pub mod variants;
pub mod volume;
mod volume_core;
mod volume_file;
pub mod writer;

pub use error::{Error, Result};
pub use options::HaystackOptions;
pub use photo_id::{PhotoId, PhotoSize};
pub use service::{Haystack, HaystackStats};
