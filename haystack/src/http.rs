//! The photo door: HTTP/1.1 on hyper.
//!
//! | method            | path                  | answer                                         |
//! |-------------------|-----------------------|------------------------------------------------|
//! | GET, HEAD         | `/`                   | the gallery page                               |
//! | POST              | `/photos?album=`      | 201, `Location`, the photo's JSON              |
//! | GET, HEAD         | `/photos/{id}`        | the original, or its JSON if that is accepted   |
//! | GET, HEAD         | `/photos/{id}/{size}` | that size                                      |
//! | DELETE            | `/photos/{id}`        | 204, also where there is none                  |
//! | GET, HEAD         | `/albums/{name}`      | a page of JSON, `?limit=` and `?after=`        |
//!
//! Read on in this order:
//!
//! - [`download`]: what is read; [`conditional`]: If-None-Match, Range and relatives.
//! - [`upload`]: what is written; [`body`]: its bytes, within bounds of time and size.
//! - [`album`]: pages of albums.
//! - [`answer`]: every answer that is no photo, errors above all.

pub mod album;
pub mod answer;
pub mod body;
pub mod conditional;
pub mod download;
mod server;
pub mod upload;

pub(crate) use server::serve;
