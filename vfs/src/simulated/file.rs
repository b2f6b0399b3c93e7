//! An open file and a held lock of the simulation.

use std::fmt;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::io::Errno;

use super::faults::{Fate, Operation, power_is_off};
use super::inode::Inode;
use super::{State, announce};
use crate::{Access, Error, File, FileLock, Result};

pub(super) struct SimulatedFile {
    state: Arc<Mutex<State>>,
    inode: Arc<Inode>,
    path: PathBuf,
    access: Access,
}

impl fmt::Debug for SimulatedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl SimulatedFile {
    pub(super) fn new(state: &Arc<Mutex<State>>, inode: Arc<Inode>, path: &Path, access: Access) -> Self {
        Self { state: Arc::clone(state), inode, path: path.to_owned(), access }
    }

    fn failed(&self, operation: &'static str) -> impl FnOnce(io::Error) -> Error + '_ {
        move |source| Error::new(operation, &self.path, source)
    }

    /// Changes the file, given the disk's capacity; a read-only handle gets `refusal`.
    fn change(&self, refusal: Errno, change: impl FnOnce(&Inode, u64) -> io::Result<()>) -> io::Result<()> {
        if self.access == Access::ReadWrite {
            announce(&self.state);
        }
        let mut state = self.state.lock();
        if self.access == Access::Read {
            state.gate.check_power()?;
            return Err(refusal.into());
        }
        let capacity = state.gate.capacity_bytes();
        state.perform(Operation::Write, |_| change(&self.inode, capacity))
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.state.lock();
        state.gate.begin_read()?;
        self.inode.content.lock().read(buffer, offset)
    }
}

impl File for SimulatedFile {
    fn len(&self) -> Result<u64> {
        let state = self.state.lock();
        state.gate.check_power().map_err(self.failed("measure"))?;
        Ok(self.inode.content.lock().current.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.read(buffer, offset).map_err(self.failed("read"))
    }

    fn try_read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<bool> {
        let is_cold = self.state.lock().gate.plan.cold;
        if is_cold || !self.inode.content.lock().is_resident(offset, buffer.len()) {
            return Ok(false);
        }
        self.read_exact_at(buffer, offset).map(|()| true)
    }

    fn write_all_at(&self, slices: &[IoSlice<'_>], offset: u64) -> Result<()> {
        if slices.iter().all(|slice| slice.is_empty()) {
            return Ok(());
        }
        self.change(Errno::BADF, |inode, capacity| inode.write(slices, offset, capacity))
            .map_err(self.failed("write"))
    }

    fn sync(&self) -> Result<()> {
        announce(&self.state);
        let mut state = self.state.lock();
        let fate = state.gate.begin(Operation::Sync).map_err(self.failed("sync"))?;
        let mut content = self.inode.content.lock();
        let outcome = match fate {
            Fate::Happens => {
                content.sync();
                Ok(())
            }
            Fate::Fails => {
                content.fail_sync();
                Err(Errno::IO.into())
            }
            // How much of it reached the disk, the cut decides.
            Fate::PowerGoes => Err(power_is_off()),
        };
        outcome.map_err(self.failed("sync"))
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.change(Errno::INVAL, |inode, capacity| inode.set_len(len, capacity))
            .map_err(self.failed("resize"))
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        self.change(Errno::BADF, |inode, capacity| inode.allocate(offset, len, capacity))
            .map_err(self.failed("allocate"))
    }

    fn map(&self) -> Result<Bytes> {
        let state = self.state.lock();
        state.gate.begin_read().map_err(self.failed("map"))?;
        Ok(Bytes::copy_from_slice(&self.inode.content.lock().current))
    }
}

pub(super) struct SimulatedLock {
    state: Arc<Mutex<State>>,
    inode: Arc<Inode>,
}

impl SimulatedLock {
    pub(super) fn new(state: &Arc<Mutex<State>>, inode: Arc<Inode>) -> Self {
        Self { state: Arc::clone(state), inode }
    }
}

impl fmt::Debug for SimulatedLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimulatedLock")
    }
}

impl FileLock for SimulatedLock {}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        let _state = self.state.lock();
        self.inode.content.lock().locked = false;
    }
}
