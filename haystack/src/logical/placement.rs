//! Where replicas go: a pure function of the stores there are.
//!
//! No two replicas of a volume share a store, and no two share a rack as long as
//! another rack has a store that could take one: losing a rack then costs one
//! replica. Among equals the emptiest disk is taken, counted by its replicas
//! that take photos and then by its free bytes, so that writes spread.

use std::collections::BTreeSet;

/// A store that could take a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Its place among the stores.
    pub place: usize,
    /// Its rack.
    pub rack: String,
    /// Replicas on it that take photos.
    pub write_enabled_count: usize,
    /// Bytes that its disk has free.
    pub available_bytes: u64,
}

/// The places of `count` sites for replicas beside those in `taken_racks`; none
/// if there are too few sites.
pub fn choose(mut sites: Vec<Site>, taken_racks: &[&str], count: usize) -> Option<Vec<usize>> {
    let mut racks: BTreeSet<String> = taken_racks.iter().map(|rack| (*rack).to_owned()).collect();
    let mut places = Vec::with_capacity(count);
    while places.len() < count {
        let best = sites.iter().enumerate().min_by_key(|(_, site)| {
            (
                racks.contains(&site.rack),
                site.write_enabled_count,
                u64::MAX - site.available_bytes,
                site.place,
            )
        });
        let (at, _) = best?;
        let site = sites.swap_remove(at);
        places.push(site.place);
        racks.insert(site.rack);
    }
    Some(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(place: usize, rack: &str, write_enabled_count: usize, available_bytes: u64) -> Site {
        Site { place, rack: rack.to_owned(), write_enabled_count, available_bytes }
    }

    #[test]
    fn replicas_stand_in_different_racks_as_long_as_there_are_some() {
        let sites = || vec![site(0, "a", 0, 90), site(1, "a", 0, 80), site(2, "b", 5, 1), site(3, "b", 6, 1)];
        assert_eq!(choose(sites(), &[], 2), Some(vec![0, 2]));
        assert_eq!(choose(sites(), &[], 3), Some(vec![0, 2, 1]));
        assert_eq!(choose(sites(), &["a"], 1), Some(vec![2]));
        assert_eq!(choose(sites(), &["a", "b"], 1), Some(vec![0]));
        assert_eq!(choose(sites(), &[], 5), None);
    }

    #[test]
    fn the_emptiest_is_taken_first() {
        let sites = vec![site(0, "a", 1, 90), site(1, "b", 0, 10), site(2, "c", 0, 20)];
        assert_eq!(choose(sites, &[], 2), Some(vec![2, 1]));
    }
}
