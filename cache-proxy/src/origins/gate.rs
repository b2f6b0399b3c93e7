//! What may be stored under one key, while reads, writes and changes of it overlap.
//!
//! A flight is a read of the origin that is under way, shared by all who miss.
//! Its value may be stored only if nothing happened to the key since it left: a
//! write through this proxy, or a change that the table's stream tells of,
//! detaches it. Who is waiting for a detached flight still gets its value, for
//! they asked before; who comes later begins another.
//!
//! A write knows what it wrote, and stores that when it is done, unless a change
//! by somebody else became known meanwhile: nobody can say which came last.
//!
//! All steps of one key happen under one lock; `model` goes through
//! every interleaving of them with an origin, a stream and readers.

/// The state of one key. `F` is a handle on a flight.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Gate<F> {
    flight: Option<F>,
    is_writing: bool,
    /// Somebody else changed the key since the write began.
    is_disturbed: bool,
}

impl<F> Default for Gate<F> {
    fn default() -> Self {
        Self { flight: None, is_writing: false, is_disturbed: false }
    }
}

impl<F: PartialEq> Gate<F> {
    /// The flight that a reader who misses may wait for.
    pub(crate) fn flight(&self) -> Option<&F> {
        self.flight.as_ref()
    }

    /// Begins a flight.
    pub(crate) fn depart(&mut self, flight: F) {
        self.flight = Some(flight);
    }

    /// Ends `flight`; whether its value may be stored.
    pub(crate) fn land(&mut self, flight: &F) -> bool {
        if self.flight.as_ref() != Some(flight) {
            return false;
        }
        self.flight = None;
        !self.is_writing
    }

    /// Begins a write.
    ///
    /// REQUIRES: no other is under way; writers take turns.
    pub(crate) fn begin_write(&mut self) {
        debug_assert!(!self.is_writing);
        self.flight = None;
        self.is_writing = true;
        self.is_disturbed = false;
    }

    /// Ends the write; whether what it wrote may be stored. If not, nothing may
    /// stay stored.
    pub(crate) fn end_write(&mut self) -> bool {
        self.flight = None;
        self.is_writing = false;
        !self.is_disturbed
    }

    /// Notes a change by somebody else. Nothing may stay stored.
    pub(crate) fn disturb(&mut self) {
        self.flight = None;
        self.is_disturbed = true;
    }

    /// Whether nothing is under way, so that the state can be forgotten.
    pub(crate) fn is_idle(&self) -> bool {
        self.flight.is_none() && !self.is_writing
    }
}
