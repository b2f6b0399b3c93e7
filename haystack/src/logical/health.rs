//! How a store is doing, as the pitchfork judges it (Haystack 4.3): a pure
//! function of what was seen of it, and when.
//!
//! One failure makes a store doubtful: nothing is written to it and others are
//! read first, so a client waits once at most. One probe that succeeds makes it
//! well again. What stays doubtful is ill, and after a while its replicas are
//! made elsewhere.

use std::time::Duration;

/// Probes in a row that fail before a store is ill.
const FAILED_PROBE_COUNT_ILL: u32 = 3;

/// What was seen of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// It answered every probe.
    Probed,
    /// It failed a probe.
    ProbeFailed(String),
    /// It failed a request of a client.
    RequestFailed(String),
}

/// How a store is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing has been seen of it yet.
    Unknown,
    /// It answers.
    Well,
    /// It failed lately.
    Doubtful,
    /// It keeps failing.
    Ill,
}

impl Condition {
    /// Its name for operators.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Well => "well",
            Self::Doubtful => "doubtful",
            Self::Ill => "ill",
        }
    }
}

/// How a store is doing, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    condition: Condition,
    failed_probe_count: u32,
    /// When it was last seen well, or first looked for, ms since 1970.
    last_well_ms: u64,
    complaint: Option<String>,
}

impl Health {
    /// A store that is first looked for at `now_ms`.
    pub fn new(now_ms: u64) -> Self {
        Self { condition: Condition::Unknown, failed_probe_count: 0, last_well_ms: now_ms, complaint: None }
    }

    /// Takes in what was seen at `now_ms`; true if the condition changed.
    pub fn see(&mut self, sight: Sight, now_ms: u64) -> bool {
        let before = self.condition;
        match sight {
            Sight::Probed => *self = Self { condition: Condition::Well, ..Self::new(now_ms) },
            Sight::RequestFailed(complaint) => {
                self.complaint = Some(complaint);
                if self.condition == Condition::Well {
                    self.condition = Condition::Doubtful;
                }
            }
            Sight::ProbeFailed(complaint) => {
                self.complaint = Some(complaint);
                self.failed_probe_count += 1;
                let ill = self.failed_probe_count >= FAILED_PROBE_COUNT_ILL;
                self.condition = if ill { Condition::Ill } else { Condition::Doubtful };
            }
        }
        self.condition != before
    }

    /// How it is doing.
    pub fn condition(&self) -> Condition {
        self.condition
    }

    /// Whether it answers.
    pub fn is_well(&self) -> bool {
        self.condition == Condition::Well
    }

    /// Whether it has not been well for `time`.
    pub fn is_away_for(&self, time: Duration, now_ms: u64) -> bool {
        !self.is_well() && u128::from(now_ms.saturating_sub(self.last_well_ms)) >= time.as_millis()
    }

    /// What it was last seen to fail with, if it is not well.
    pub fn complaint(&self) -> Option<&str> {
        self.complaint.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> Sight {
        Sight::ProbeFailed("away".to_owned())
    }

    #[test]
    fn one_failure_is_doubt_and_more_are_an_illness() {
        let mut health = Health::new(0);
        assert!(health.see(Sight::Probed, 1000));
        assert!(health.see(Sight::RequestFailed("slow".to_owned()), 2000));
        assert_eq!((health.condition(), health.complaint()), (Condition::Doubtful, Some("slow")));
        assert!(!health.see(failed(), 3000) && !health.see(failed(), 4000));
        assert!(health.see(failed(), 5000));
        assert_eq!(health.condition(), Condition::Ill);
        assert!(health.is_away_for(Duration::from_secs(4), 5000));
        assert!(!health.is_away_for(Duration::from_secs(5), 5000));
        assert!(health.see(Sight::Probed, 6000));
        assert!(health.is_well() && health.complaint().is_none());
    }

    #[test]
    fn a_failed_request_does_not_cure() {
        let mut health = Health::new(0);
        for at in 0..3 {
            health.see(failed(), at);
        }
        assert!(!health.see(Sight::RequestFailed("slow".to_owned()), 9));
        assert_eq!(health.condition(), Condition::Ill);
    }
}
