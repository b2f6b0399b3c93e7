//! What becomes of a table's locality groups by what an operator asks for: pure.
//!
//! Moving a family is asked for here and ends in [`finish_moves`]; between the two
//! its tablets copy its cells (`locality_groups`).

use tablet_server::group_trees::GROUP_COUNT_MAX;
use tablet_server::limits;
use tablet_server::schema::{FamilyPlace, GroupId};
use tablet_server::table_record::{LocalityGroup, TableRecord};
use tonic::Status;

/// What the group is called that families are in which are in no other one.
pub const DEFAULT_GROUP: &str = "default";

/// Characters of a group's name.
const NAME_BYTES_MAX: usize = 64;

/// Bytes of a block of SSTables.
const BLOCK_BYTES_MIN: u32 = 256;
const BLOCK_BYTES_MAX: u32 = 4 << 20;

/// What a group is to be like; what is none stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupChange {
    /// The group's name; one that the table does not have is made.
    pub name: String,
    /// Families that are to be in it, beside those that are.
    pub families: Vec<String>,
    /// Whether blocks are stored as they are, not compressed.
    pub is_raw: Option<bool>,
    /// Bytes of a block of new SSTables; 0 is the server's default.
    pub block_bytes: Option<u32>,
    /// Whether blocks are kept in memory.
    pub in_memory: Option<bool>,
}

/// Applies `change` to `record`.
///
/// # Errors
///
/// INVALID_ARGUMENT, NOT_FOUND for a family, FAILED_PRECONDITION for one group too many; `record` may
/// then be half changed, and is to be thrown away.
pub fn set(record: &mut TableRecord, change: &GroupChange) -> Result<(), Status> {
    check_name(&change.name)?;
    if let Some(bytes) = change.block_bytes
        && bytes != 0
        && !(BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&bytes)
    {
        let range = format_args!("must be {BLOCK_BYTES_MIN} to {BLOCK_BYTES_MAX}, or 0 for the default");
        return Err(limits::refuse("block_bytes", format_args!("{bytes}, {range}")));
    }
    let group = find_or_add(record, &change.name)?;
    if let Some(group) = record.groups.iter_mut().find(|known| known.group == group.0) {
        group.is_raw = change.is_raw.unwrap_or(group.is_raw);
        group.block_bytes = change.block_bytes.unwrap_or(group.block_bytes);
        group.in_memory = change.in_memory.unwrap_or(group.in_memory);
    }
    for (at, name) in change.families.iter().enumerate() {
        if !record.table().column_families.contains_key(name) {
            return Err(Status::not_found(format!("families[{at}]: there is no column family {name:?}")));
        }
        let place = record.place(name);
        let moving_to = Some(group).filter(|group| *group != place.group);
        record.set_place(name, FamilyPlace { moving_to, ..place });
    }
    Ok(())
}

/// Takes the group `name` away.
///
/// # Errors
///
/// NOT_FOUND, FAILED_PRECONDITION while families are in it.
pub fn remove(record: &mut TableRecord, name: &str) -> Result<(), Status> {
    let at = record.groups.iter().position(|group| group.name == name);
    let Some(at) = at.filter(|at| record.groups[*at].group != GroupId::DEFAULT.0) else {
        return Err(Status::not_found(format!("group: there is no locality group {name:?} to delete")));
    };
    let group = GroupId(record.groups[at].group);
    let is_in = |name: &&String| {
        let place = record.place(name);
        place.group == group || place.moving_to == Some(group)
    };
    let families: Vec<_> = record.table().column_families.keys().filter(is_in).cloned().collect();
    if !families.is_empty() {
        let why = "move them to another group first, and wait until they are there";
        return Err(Status::failed_precondition(format!(
            "group: families {} are in {name:?}: {why}",
            families.join(", ")
        )));
    }
    record.groups.remove(at);
    Ok(())
}

/// Whether a family is on its way from one group to another.
pub fn has_moves(record: &TableRecord) -> bool {
    record.places.values().any(|place| place.moving_to.is_some())
}

/// Says that families are where they were to be moved.
pub fn finish_moves(record: &mut TableRecord) {
    for name in record.places.keys().cloned().collect::<Vec<_>>() {
        let place = record.place(&name);
        let group = place.moving_to.unwrap_or(place.group);
        record.set_place(&name, FamilyPlace { group, moving_to: None });
    }
}

/// The number of the group `name`, which the table has from now on.
fn find_or_add(record: &mut TableRecord, name: &str) -> Result<GroupId, Status> {
    if let Some(known) = record.groups.iter().find(|group| group.name == name) {
        return Ok(GroupId(known.group));
    }
    let group = match name {
        DEFAULT_GROUP => GroupId::DEFAULT,
        _ => {
            let others = record.groups.iter().filter(|group| group.group != GroupId::DEFAULT.0).count();
            if others >= GROUP_COUNT_MAX {
                let why = format!("group: the table has {others} locality groups, at most {GROUP_COUNT_MAX}");
                return Err(Status::failed_precondition(why));
            }
            if record.last_group_id >= GroupId::MAX.0 {
                let why = "group: the table has had as many locality groups as a table can have";
                return Err(Status::failed_precondition(why));
            }
            record.last_group_id += 1;
            GroupId(record.last_group_id)
        }
    };
    let added = LocalityGroup { group: group.0, name: name.to_owned(), ..LocalityGroup::default() };
    record.groups.push(added);
    Ok(group)
}

fn check_name(name: &str) -> Result<(), Status> {
    limits::check_at_most("group", name.len(), NAME_BYTES_MAX, "bytes")?;
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_good) {
        return Err(limits::refuse(
            "group",
            format_args!("{name:?}, must be letters, digits, '-', '_' and '.'"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use row_api::admin;
    use tablet_server::schema::TableId;
    use tonic::Code;

    use super::*;

    fn record() -> TableRecord {
        let mut record = TableRecord::new(TableId(1), Vec::new());
        ["f", "g"].iter().for_each(|name| record.add_family(name, admin::ColumnFamily::default()));
        record
    }

    fn change(name: &str, families: &[&str]) -> GroupChange {
        let families = families.iter().map(|name| (*name).to_owned()).collect();
        GroupChange { name: name.to_owned(), families, ..GroupChange::default() }
    }

    #[test]
    fn a_family_moves_and_is_where_it_was_until_the_move_is_done() {
        let mut record = record();
        set(&mut record, &change("meta", &["f"])).unwrap();
        assert_eq!(record.place("f"), FamilyPlace { group: GroupId::DEFAULT, moving_to: Some(GroupId(1)) });
        assert!(has_moves(&record));
        finish_moves(&mut record);
        assert_eq!(record.place("f"), FamilyPlace { group: GroupId(1), moving_to: None });
        set(&mut record, &change(DEFAULT_GROUP, &["f"])).unwrap();
        // It is asked to stay after all.
        set(&mut record, &change("meta", &["f"])).unwrap();
        assert_eq!(record.place("f"), FamilyPlace { group: GroupId(1), moving_to: None });
    }

    #[test]
    fn numbers_of_groups_never_come_again() {
        let mut record = record();
        set(&mut record, &change("a", &[])).unwrap();
        remove(&mut record, "a").unwrap();
        set(&mut record, &change("a", &[])).unwrap();
        assert_eq!(record.groups[0].group, 2);
    }

    #[test]
    fn what_is_not_said_stays() {
        let mut record = record();
        let first = GroupChange { block_bytes: Some(1 << 16), in_memory: Some(true), ..change("a", &[]) };
        set(&mut record, &first).unwrap();
        set(&mut record, &GroupChange { is_raw: Some(true), ..change("a", &[]) }).unwrap();
        let group = &record.groups[0];
        assert_eq!((group.is_raw, group.block_bytes, group.in_memory), (true, 1 << 16, true));
    }

    #[test]
    fn refusals_name_what_is_wrong() {
        let mut full = record();
        (0..GROUP_COUNT_MAX).for_each(|n| set(&mut full, &change(&format!("g{n}"), &[])).unwrap());
        let mut used = record();
        set(&mut used, &change("a", &["f"])).unwrap();
        for (outcome, code, words) in [
            (set(&mut record(), &change("", &[])), Code::InvalidArgument, "group: \"\""),
            (set(&mut record(), &change("a b", &[])), Code::InvalidArgument, "group: \"a b\""),
            (set(&mut record(), &change("a", &["f", "h"])), Code::NotFound, "families[1]: "),
            (
                set(&mut record(), &GroupChange { block_bytes: Some(255), ..change("a", &[]) }),
                Code::InvalidArgument,
                "block_bytes: 255",
            ),
            (set(&mut full, &change("one-more", &[])), Code::FailedPrecondition, "group: the table has 16"),
            (remove(&mut record(), "a"), Code::NotFound, "group: there is no locality group \"a\""),
            (remove(&mut record(), DEFAULT_GROUP), Code::NotFound, "group: there is no"),
            (remove(&mut used, "a"), Code::FailedPrecondition, "group: families f are in \"a\""),
        ] {
            let status = outcome.unwrap_err();
            assert_eq!(status.code(), code, "{status}");
            assert!(status.message().starts_with(words), "{status}");
        }
    }
}
