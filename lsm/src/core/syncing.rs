//! Syncing: who takes the turn to make what has gathered in the log durable, and who waits for it.

use super::Core;
use crate::commit_log::{Callback, Waited};
use crate::options::Background;
use crate::{Error, Result};

impl Core {
    /// Takes the turn that the caller was given: writes and syncs what has
    /// gathered in the log, and passes the turn on.
    pub(crate) fn take_turn(&self) -> Result<()> {
        self.log.turns.begin();
        let synced = self.log.sync_gathered();
        let bytes = synced.as_ref().map_or(0, |synced| synced.bytes);
        if let Err(Error::DiskFull) = synced {
            self.log.turns.turn_away();
            // Who waits at the gate for the group to be synced is to find out, too.
            self.update_gate();
            return Err(Error::DiskFull);
        }
        self.log.turns.pass_on();
        let synced = synced.inspect_err(|_| self.gate.abandon())?;
        if bytes > 0 {
            self.counters.synced(bytes);
        }
        if !self.gate.is_calm() {
            self.update_gate();
        }
        if synced.rotated {
            self.bound_log();
        }
        if synced.half_full {
            match self.options.background {
                Background::Threads => self.signals.want_segment(),
                Background::Inline => self.prepare_segment(),
            }
        }
        Ok(())
    }

    /// Prepares the log's next segment.
    pub(crate) fn prepare_segment(&self) {
        if let Err(error) = self.log.prepare_segment() {
            // Whoever needs the segment will meet the same failure, or none.
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot prepare a segment of the log");
        }
    }

    /// Waits until `sequence` is durable, which the caller's thread sees to if nobody else does already.
    pub(crate) fn wait_durable(&self, sequence: u64) -> Result<()> {
        while self.log.turns.wait(sequence)? == Waited::Lead {
            self.take_turn()?;
        }
        Ok(())
    }

    /// Calls `done` once `sequence` is durable, or never will be.
    pub(crate) fn on_durable(&self, sequence: u64, done: Callback) {
        self.log.turns.on_durable(sequence, done);
        if self.options.background == Background::Inline {
            // The outcome goes to `done`.
            let _told = self.wait_durable(sequence);
            self.log.turns.call_back();
        }
    }

    /// Sees to it that `sequence`, which nobody waits for, becomes durable soon.
    pub(crate) fn want_durable(&self, sequence: u64) {
        if self.log.durable() < sequence {
            self.log.turns.want();
        }
    }
}
