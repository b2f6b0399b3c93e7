//! The photo door: HTTP/1.1 on hyper.
//!
//! | method            | path                  | answer                                         |
//! |-------------------|-----------------------|------------------------------------------------|
//! | GET, HEAD         | `/`                   | the gallery page                               |
//! | POST              | `/photos?album=`      | 201, `Location`, the photo's JSON              |
//! | GET, HEAD         | `/photos`             | a page of all photos, newest first              |
//! | GET, HEAD         | `/photos/{id}`        | the original, or its JSON if that is accepted   |
//! | GET, HEAD         | `/photos/{id}/{size}` | that size                                      |
//! | GET, HEAD         | `/photos/{id}?w=&h=&fit=&fm=&q=` | a variant, listed or signed          |
//! | DELETE            | `/photos/{id}`        | 204, also where there is none                  |
//! | GET, HEAD         | `/albums`             | a page of albums by name, each with its newest photo |
//! | GET, HEAD         | `/albums/{name}`      | a page of its photos, newest first             |
//! | DELETE            | `/albums/{name}`      | deletes its photos; how many                   |
//! | POST              | `/photos/delete`      | deletes the ids in its JSON; what became of each |
//! | PUT               | `/blobs/{name}`       | 201 or 200, the blob's JSON                    |
//! | GET, HEAD, DELETE | `/blobs/{name}`       | the blob                                       |
//! | GET, HEAD         | `/blobs`              | a page of names, `?prefix=` and `?delimiter=`  |
//! | …                 | `/uploads`, `/uploads/{id}` | resumable uploads by tus                 |
//!
//! Pages are JSON; they take `?limit=` and `?after=`, and `next` in one is the path of the next.
//!
//! Read on in this order:
//!
//! - [`download`]: what is read; [`conditional`]: If-None-Match, Range and relatives.
//! - [`upload`]: what is written; [`body`]: its bytes, within bounds of time and size;
//!   [`form`]: several photos, taken apart by [`multipart`].
//! - [`album`]: pages of photos and albums; `page`: of anything. `batch`: deleting many.
//! - `blob`: bytes of any type. `tus`: uploads in parts. `variant`: other sizes. `gallery`: the page.
//! - [`stall`]: connections whose peers must read.
//! - [`answer`]: every answer that is no photo, errors above all.

pub mod album;
pub mod answer;
mod batch;
mod blob;
pub mod body;
pub mod conditional;
pub mod download;
pub mod form;
mod gallery;
pub mod multipart;
mod page;
mod server;
pub mod stall;
mod tus;
pub mod upload;
mod variant;

pub(crate) use server::serve;
