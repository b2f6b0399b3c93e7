//! A moment to read at.

/// A sequence number that compactions respect while this lives. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Snapshot {}

impl Snapshot {
    /// Writes up to and including this one are seen.
    pub fn sequence(&self) -> u64 {
        unimplemented!()
    }
}
