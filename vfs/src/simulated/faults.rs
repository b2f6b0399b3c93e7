//! What goes wrong, and when.
//!
//! Every operation passes the [`Gate`], which counts it and says what becomes
//! of it. The count is how a test finds every point at which power can go:
//! it runs its workload once, reads [`operation_count`], and runs it again
//! for each number below with [`FaultPlan::cut_at`]. Or it runs it once, and
//! [watches] the operations: before each it takes the [image] that a cut would
//! leave. What a cut during an operation leaves, a cut before it or before the
//! next one leaves, too.
//!
//! [`operation_count`]: crate::SimulatedFileSystem::operation_count
//! [watches]: crate::SimulatedFileSystem::watch
//! [image]: crate::SimulatedFileSystem::image

use std::io;

use rustix::io::Errno;

/// A kind of operation that can be made to fail. All but reads are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reads and maps of a file's bytes.
    Read,
    /// Writes, and changes of a length or a reservation.
    Write,
    /// Syncs of a file or a directory.
    Sync,
    /// Renames.
    Rename,
    /// New files, directories and hard links.
    Create,
    /// Names taken away.
    Remove,
}

/// What a [`SimulatedFileSystem`](crate::SimulatedFileSystem) does to its user. The default is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultPlan {
    /// The power goes during the operation of this number, counted from 0:
    /// it fails, may or may not have happened, and all later ones fail.
    pub cut_at: Option<u64>,
    /// The operation of this number fails with EIO, once.
    pub fail_at: Option<u64>,
    /// Every operation of these kinds fails with EIO.
    pub failing: Vec<Operation>,
    /// The disk's size, bytes; 1 TiB if not set. What does not fit is ENOSPC,
    /// after as much of a write as does. A removed file's space comes back
    /// once its directory is synced and nobody has it open.
    pub capacity_bytes: Option<u64>,
    /// No read finds its bytes in memory without a wait for the disk.
    pub cold: bool,
}

/// A disk that nobody fills in a test.
const CAPACITY_BYTES_DEFAULT: u64 = 1 << 40;

/// What becomes of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Happens,
    /// It fails with EIO; a sync loses what it should have written.
    Fails,
    /// It is on its way to the disk when power goes, and is never answered.
    PowerGoes,
}

#[derive(Debug, Default)]
pub(super) struct Gate {
    pub(super) plan: FaultPlan,
    pub(super) operation_count: u64,
    pub(super) dead: bool,
}

impl Gate {
    /// Counts an operation that changes the disk.
    pub(super) fn begin(&mut self, operation: Operation) -> io::Result<Fate> {
        self.check_power()?;
        let number = self.operation_count;
        self.operation_count += 1;
        if self.plan.cut_at == Some(number) {
            self.dead = true;
            return Ok(Fate::PowerGoes);
        }
        let fails = self.plan.fail_at == Some(number) || self.plan.failing.contains(&operation);
        Ok(if fails { Fate::Fails } else { Fate::Happens })
    }

    /// Lets a read of a file's bytes through.
    pub(super) fn begin_read(&self) -> io::Result<()> {
        self.check_power()?;
        if self.plan.failing.contains(&Operation::Read) { Err(Errno::IO.into()) } else { Ok(()) }
    }

    pub(super) fn check_power(&self) -> io::Result<()> {
        if self.dead { Err(power_is_off()) } else { Ok(()) }
    }

    pub(super) fn capacity_bytes(&self) -> u64 {
        self.plan.capacity_bytes.unwrap_or(CAPACITY_BYTES_DEFAULT)
    }
}

pub(super) fn power_is_off() -> io::Error {
    io::Error::other("the power is off")
}
