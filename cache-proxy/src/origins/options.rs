//! What the origins are told when they are made.

use std::time::Duration;

use row_api::names::InstanceName;

use crate::error::{Error, Result};

/// Options of the origins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginOptions {
    /// The instance of tables that a key names by their id alone.
    pub instance: InstanceName,
    /// Where photos are read over HTTP, `host:port`; none if they are not.
    pub photos: Option<String>,
    /// The longest a call of an origin takes, the wait for its turn included. More
    /// makes clients of a slow origin wait, less fails them. 10 ms to 5 minutes.
    pub timeout: Duration,
    /// Calls of origins under way at once; others wait for their turn. 1 to 10,000.
    pub call_count_max: usize,
    /// The oldest that a value is which somebody else has overwritten: where a
    /// table's changes cannot be followed so closely, values are kept no longer
    /// than this. 1 second to 1 hour.
    pub staleness_max: Duration,
    /// The longest that a photo is kept: photos do not change, but are deleted.
    /// 1 second to 1 hour.
    pub photo_lifetime: Duration,
}

impl Default for OriginOptions {
    fn default() -> Self {
        Self {
            instance: InstanceName { project: "any".to_owned(), instance: "any".to_owned() },
            photos: None,
            timeout: Duration::from_secs(5),
            call_count_max: 256,
            staleness_max: Duration::from_secs(5),
            photo_lifetime: Duration::from_secs(60),
        }
    }
}

impl OriginOptions {
    /// Refuses a value out of its range.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] names the first such option and its range.
    pub fn check(&self) -> Result<()> {
        let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3600));
        let spans = [
            ("timeout", self.timeout, Duration::from_millis(10), Duration::from_secs(300)),
            ("staleness_max", self.staleness_max, second, hour),
            ("photo_lifetime", self.photo_lifetime, second, hour),
        ];
        for (option, found, least, most) in spans {
            if !(least..=most).contains(&found) {
                let (found, range) = (format!("{found:?}"), format!("{least:?} to {most:?}"));
                return Err(Error::Option { option, found, range });
            }
        }
        if !(1..=10_000).contains(&self.call_count_max) {
            let (option, found) = ("call_count_max", self.call_count_max.to_string());
            return Err(Error::Option { option, found, range: "1 to 10000".to_owned() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_out_of_range_are_refused_by_name() {
        OriginOptions::default().check().unwrap();
        let refused = |options: OriginOptions| options.check().unwrap_err().to_string();
        let slow = OriginOptions { timeout: Duration::from_secs(301), ..OriginOptions::default() };
        assert_eq!(refused(slow), "timeout is 301s; it must be 10ms to 300s");
        let none = OriginOptions { call_count_max: 0, ..OriginOptions::default() };
        assert_eq!(refused(none), "call_count_max is 0; it must be 1 to 10000");
    }
}
