//! A cursor over the cells of a tablet's trees, in the order of their keys.
//!
//! One tree is the usual case, and costs nothing more than its cursor. With
//! several the one whose key comes first, or last going backward, is at hand,
//! and changes places with another when that one's turn comes; since a family
//! is in one tree, that happens a few times a row.

use lsm::Iter;

use crate::error::Result;

/// Keys that are stepped over before a cursor seeks: a seek costs about as much.
const STEPS_BEFORE_SEEK: usize = 8;

/// A cursor that knows whether it stands on a cell, and in which tree.
pub(crate) struct CellCursor {
    current: Part,
    others: Vec<Part>,
}

/// The cursor of one tree.
struct Part {
    /// The tree's place among the tablet's.
    place: usize,
    iter: Iter,
    valid: bool,
}

impl Part {
    fn key(&self) -> Option<&[u8]> {
        self.valid.then(|| self.iter.key())
    }

    fn next(&mut self) -> Result<()> {
        self.valid = self.iter.next()?;
        Ok(())
    }

    fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.valid = self.iter.seek(key)?;
        Ok(())
    }

    /// Moves forward to the first key at or after `key`.
    fn skip_to(&mut self, key: &[u8]) -> Result<()> {
        for _ in 0..STEPS_BEFORE_SEEK {
            match self.key() {
                Some(here) if here < key => self.next()?,
                _ => return Ok(()),
            }
        }
        match self.key() {
            Some(here) if here < key => self.seek(key),
            _ => Ok(()),
        }
    }
}

impl CellCursor {
    /// At the first cell of `iters`, each of which comes with its tree's place; none without any.
    pub(crate) fn at_first(iters: impl Iterator<Item = (usize, Iter)>) -> Result<Option<Self>> {
        let Some(mut cursor) = Self::new(iters) else { return Ok(None) };
        cursor.each(Part::next)?;
        cursor.settle_forward();
        Ok(Some(cursor))
    }

    /// The same at the last cell.
    pub(crate) fn at_last(iters: impl Iterator<Item = (usize, Iter)>) -> Result<Option<Self>> {
        let Some(mut cursor) = Self::new(iters) else { return Ok(None) };
        cursor.each(|part| {
            part.valid = part.iter.prev()?;
            Ok(())
        })?;
        cursor.settle_backward();
        Ok(Some(cursor))
    }

    fn new(iters: impl Iterator<Item = (usize, Iter)>) -> Option<Self> {
        let mut parts = iters.map(|(place, iter)| Part { place, iter, valid: false });
        let current = parts.next()?;
        Some(Self { current, others: parts.collect() })
    }

    /// The cell's key.
    pub(crate) fn key(&self) -> Option<&[u8]> {
        self.current.key()
    }

    /// The place of the tree that the cell is in.
    pub(crate) fn place(&self) -> usize {
        self.current.place
    }

    /// The cursor of that tree, for the cell's value.
    pub(crate) fn iter(&self) -> &Iter {
        &self.current.iter
    }

    /// Moves to the next cell.
    pub(crate) fn next(&mut self) -> Result<()> {
        self.current.next()?;
        self.settle_forward();
        Ok(())
    }

    /// Moves to the first cell at or after `key`, from anywhere.
    pub(crate) fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.each(|part| part.seek(key))?;
        self.settle_forward();
        Ok(())
    }

    /// Moves to the last cell before `key`, from anywhere; it is to be sought before it goes forward.
    pub(crate) fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.each(|part| {
            part.valid = part.iter.seek_before(key)?;
            Ok(())
        })?;
        self.settle_backward();
        Ok(())
    }

    /// Moves forward to the first cell at or after `key`.
    pub(crate) fn skip_to(&mut self, key: &[u8]) -> Result<()> {
        self.each(|part| part.skip_to(key))?;
        self.settle_forward();
        Ok(())
    }

    /// Leaves cells of the tree behind that the cursor stands in, up to `key`.
    pub(crate) fn skip_here(&mut self, key: &[u8]) -> Result<()> {
        self.current.skip_to(key)?;
        self.settle_forward();
        Ok(())
    }

    #[inline]
    fn each(&mut self, mut go: impl FnMut(&mut Part) -> Result<()>) -> Result<()> {
        go(&mut self.current)?;
        self.others.iter_mut().try_for_each(go)
    }

    /// Brings the part to hand whose key comes first.
    #[inline]
    fn settle_forward(&mut self) {
        for other in &mut self.others {
            if let Some(key) = other.key()
                && self.current.key().is_none_or(|current| key < current)
            {
                std::mem::swap(&mut self.current, other);
            }
        }
    }

    /// Brings the part to hand whose key comes last.
    fn settle_backward(&mut self) {
        for other in &mut self.others {
            if let Some(key) = other.key()
                && self.current.key().is_none_or(|current| key > current)
            {
                std::mem::swap(&mut self.current, other);
            }
        }
    }
}
