//! Merge operators: what the operands mean that change a value unread.
//!
//! A counter is incremented by logging the increment: nobody reads the value
//! first. The operands of a key gather, newest above older ones, on top of a
//! value or of nothing, until a read or a compaction folds them. (RocksDB's
//! merge operators, Facebook 2013; an aggregate cell of Bigtable is one.)

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::{Error, Result, TreeId};

/// The longest name of an operator.
pub(crate) const NAME_BYTES_MAX: usize = 255;

/// Folds operands into values, for the trees whose format has its name.
///
/// It is total and pure: operands were checked by whoever wrote them, and what
/// an operator makes of bytes that it does not expect is up to it, as long as it
/// is always the same and no panic. How many operands are folded at once is the
/// engine's choice, and must not matter:
///
/// - `merge(base, a ++ b)` is `merge(merge(base, a), b)`;
/// - where `combine(a)` is some operand `c`, `merge(base, a ++ b)` is `merge(base, [c] ++ b)`.
///
/// A counter, whose values and operands are integers:
///
/// ```
/// use std::sync::Arc;
///
/// use bytes::Bytes;
/// use lsm::{Engine, MergeOperator, Options, TreeFormat, TreeId, WriteBatch};
///
/// #[derive(Debug)]
/// struct Sum;
///
/// fn number(bytes: &[u8]) -> i64 {
///     bytes.try_into().map_or(0, i64::from_le_bytes)
/// }
///
/// impl MergeOperator for Sum {
///     fn name(&self) -> &'static str {
///         "example.sum.i64"
///     }
///
///     fn merge(&self, _key: &[u8], base: Option<&[u8]>, operands: &[Bytes]) -> Bytes {
///         let base = base.map_or(0, number);
///         let sum = operands.iter().fold(base, |sum, operand| sum.wrapping_add(number(operand)));
///         Bytes::copy_from_slice(&sum.to_le_bytes())
///     }
///
///     fn combine(&self, key: &[u8], operands: &[Bytes]) -> Option<Bytes> {
///         Some(self.merge(key, None, operands))
///     }
/// }
///
/// # fn main() -> lsm::Result<()> {
/// let options = Options { merge_operators: vec![Arc::new(Sum)], ..Options::default() };
/// let fs = Arc::new(vfs::SimulatedFileSystem::new());
/// let engine = Engine::open(fs, std::path::Path::new("/data"), 1, options)?;
/// let format = TreeFormat { merge_operator: Some("example.sum.i64".to_owned()), ..TreeFormat::default() };
/// let visits = engine.create_tree(TreeId(1), format)?;
///
/// for _ in 0..3 {
///     let mut batch = WriteBatch::new();
///     batch.merge(visits.id(), b"/index.html", &1_i64.to_le_bytes());
///     engine.write(batch)?.wait()?;
/// }
/// let count = visits.get(&engine.snapshot(), b"/index.html")?;
/// assert_eq!(count.as_deref().map(number), Some(3));
/// # engine.close()
/// # }
/// ```
pub trait MergeOperator: fmt::Debug + Send + Sync + 'static {
    /// The name that trees know it by, 1 to 255 bytes. What it makes of values
    /// that exist must not change under one name.
    fn name(&self) -> &'static str;

    /// The value of `key` once `operands`, oldest first and at least one, have
    /// changed `base`; none where there was no value.
    fn merge(&self, key: &[u8], base: Option<&[u8]>, operands: &[Bytes]) -> Bytes;

    /// One operand that stands for all of `operands`, oldest first and at least
    /// two, whatever they are applied to; `None` where there is no such operand.
    ///
    /// With it a compaction leaves one operand a key where it lacks the value
    /// below; without, it looks that up once there are many.
    fn combine(&self, key: &[u8], operands: &[Bytes]) -> Option<Bytes> {
        let _ = (key, operands);
        None
    }
}

/// Some tree's operator, if it has one.
#[derive(Clone, Debug)]
pub(crate) struct TreeOperator {
    tree: TreeId,
    operator: Option<Arc<dyn MergeOperator>>,
}

impl TreeOperator {
    pub(crate) fn new(tree: TreeId, operator: Option<Arc<dyn MergeOperator>>) -> Self {
        Self { tree, operator }
    }

    /// The operator; an operand needs one.
    ///
    /// # Errors
    ///
    /// [`Error::NoMergeOperator`]
    pub(crate) fn required(&self) -> Result<&dyn MergeOperator> {
        self.operator.as_deref().ok_or(Error::NoMergeOperator(self.tree))
    }
}

/// The operands of a key as they are met, newest first, and then what they
/// stand on. Empty it takes no allocation.
#[derive(Debug, Default)]
pub(crate) struct Operands {
    newest_first: Vec<Bytes>,
}

impl Operands {
    pub(crate) fn push_older(&mut self, operand: Bytes) {
        self.newest_first.push(operand);
    }

    pub(crate) fn len(&self) -> usize {
        self.newest_first.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.newest_first.is_empty()
    }

    /// The value of `key`, whose operands these are, on top of `base`.
    pub(crate) fn fold(mut self, operator: &dyn MergeOperator, key: &[u8], base: Option<&[u8]>) -> Bytes {
        self.newest_first.reverse();
        operator.merge(key, base, &self.newest_first)
    }

    /// One operand that stands for all, where the operator knows one.
    pub(crate) fn combine(mut self, operator: &dyn MergeOperator, key: &[u8]) -> Option<Bytes> {
        if self.newest_first.len() == 1 {
            return self.newest_first.pop();
        }
        self.newest_first.reverse();
        operator.combine(key, &self.newest_first)
    }
}

impl FromIterator<Bytes> for Operands {
    /// The operands, newest first.
    fn from_iter<I: IntoIterator<Item = Bytes>>(operands: I) -> Self {
        Self { newest_first: operands.into_iter().collect() }
    }
}
