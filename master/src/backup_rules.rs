//! What a backup may look like: checks of admin requests, without any state.

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;
use row_api::admin;
use row_api::admin::backup::{BackupType, State};
use row_api::names::{BackupName, InstanceName, TableName};
use tablet_server::limits;
use tonic::Status;

use crate::backup_record::BackupRecord;

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// How long a backup is kept, from its beginning.
const KEPT_MIN: Duration = HOUR.saturating_mul(6);
/// The same at most, and for a copy of a backup.
const KEPT_MAX: Duration = DAY.saturating_mul(90);
const COPY_KEPT_MAX: Duration = DAY.saturating_mul(30);

/// How long a hot backup stays one at least.
const HOT_MIN: Duration = DAY;

/// Backups of one table in one cluster.
pub const BACKUP_COUNT_MAX: usize = 150;

/// Checks the description of a backup in `instance` that begins at `now`; gives
/// its table, and what of the description is kept.
///
/// # Errors
///
/// INVALID_ARGUMENT.
pub fn check_new(
    instance: &InstanceName,
    backup: &admin::Backup,
    now: SystemTime,
) -> Result<(TableName, admin::Backup), Status> {
    let table = TableName::parse("backup.source_table", &backup.source_table)?;
    if table.instance != *instance {
        let why = format_args!("{table} must be in the backup's instance, {instance}");
        return Err(limits::refuse("backup.source_table", why));
    }
    let backup_type = match BackupType::try_from(backup.backup_type) {
        Ok(BackupType::Unspecified | BackupType::Standard) => BackupType::Standard,
        Ok(BackupType::Hot) => BackupType::Hot,
        Err(_) => {
            let why = format_args!("{}, must be STANDARD or HOT", backup.backup_type);
            return Err(limits::refuse("backup.backup_type", why));
        }
    };
    let mut checked = admin::Backup {
        source_table: table.to_string(),
        start_time: Some(now.into()),
        state: State::Creating.into(),
        backup_type: backup_type.into(),
        ..admin::Backup::default()
    };
    checked.expire_time = Some(check_expiry("backup.expire_time", backup.expire_time, &checked, now)?);
    checked.hot_to_standard_time = check_hot(backup.hot_to_standard_time, &checked, now)?;
    Ok((table, checked))
}

/// Checks a copy of `source`, which is called `name`, that begins at `now`; gives what the copy is.
///
/// # Errors
///
/// INVALID_ARGUMENT; FAILED_PRECONDITION where the source is a copy, or not complete.
pub fn check_copy(
    name: &BackupName,
    source: &BackupRecord,
    expire_time: Option<Timestamp>,
    now: SystemTime,
) -> Result<BackupRecord, Status> {
    if !source.backup().source_backup.is_empty() {
        let why = format!("source_backup: {name} is a copy itself, and a copy cannot be copied");
        return Err(Status::failed_precondition(why));
    }
    check_ready("source_backup", name, source)?;
    let mut copy = admin::Backup {
        source_backup: name.to_string(),
        start_time: Some(now.into()),
        end_time: Some(now.into()),
        backup_type: BackupType::Standard.into(),
        hot_to_standard_time: None,
        ..source.backup().clone()
    };
    copy.expire_time = Some(check_expiry("expire_time", expire_time, &copy, now)?);
    Ok(BackupRecord { backup: Some(copy), saved: source.saved.clone(), operation: 0 })
}

/// Takes over those fields of `update` that `paths` name.
///
/// # Errors
///
/// INVALID_ARGUMENT; FAILED_PRECONDITION where the backup is not complete.
pub fn update(
    name: &BackupName,
    record: &mut BackupRecord,
    update: &admin::Backup,
    paths: &[String],
    now: SystemTime,
) -> Result<(), Status> {
    if paths.is_empty() {
        return Err(limits::refuse("update_mask", "is empty, at least 1 path is needed"));
    }
    check_ready("backup.name", name, record)?;
    for path in paths {
        let known = record.backup();
        match path.as_str() {
            "expire_time" => {
                let expire_time = check_expiry("backup.expire_time", update.expire_time, known, now)?;
                record.backup_mut().expire_time = Some(expire_time);
            }
            "hot_to_standard_time" => {
                let time = check_hot(update.hot_to_standard_time, known, now)?;
                record.backup_mut().hot_to_standard_time = time;
            }
            _ => {
                let why = format_args!("{path:?}, must be expire_time or hot_to_standard_time");
                return Err(limits::refuse("update_mask", why));
            }
        }
    }
    Ok(())
}

/// Refuses a backup, named at `field`, that is not complete yet.
///
/// # Errors
///
/// FAILED_PRECONDITION.
pub fn check_ready(field: &str, name: &BackupName, record: &BackupRecord) -> Result<(), Status> {
    if record.is_ready() {
        return Ok(());
    }
    Err(Status::failed_precondition(format!("{field}: {name} is not complete yet: its state is CREATING")))
}

/// Whether the backup's time is over at `now`.
pub fn is_expired(backup: &admin::Backup, now: SystemTime) -> bool {
    backup.expire_time.is_some_and(|time| is_past(time, now))
}

/// Makes a hot backup whose time as such is over at `now` a standard one; false where it stays what it is.
pub fn cool_down(backup: &mut admin::Backup, now: SystemTime) -> bool {
    let is_due = backup.backup_type() == BackupType::Hot
        && backup.hot_to_standard_time.is_some_and(|time| is_past(time, now));
    if is_due {
        backup.set_backup_type(BackupType::Standard);
    }
    is_due
}

fn is_past(time: Timestamp, now: SystemTime) -> bool {
    SystemTime::try_from(time).is_ok_and(|time| time <= now)
}

/// Checks when `backup` is to expire.
fn check_expiry(
    field: &str,
    time: Option<Timestamp>,
    backup: &admin::Backup,
    now: SystemTime,
) -> Result<Timestamp, Status> {
    let time = checked_time(field, time)?.ok_or_else(|| limits::refuse(field, "is missing"))?;
    let (max, days) = if backup.source_backup.is_empty() { (KEPT_MAX, 90) } else { (COPY_KEPT_MAX, 30) };
    let begun = begun(backup, now);
    if time < begun + KEPT_MIN || time > begun + max {
        let why = format_args!(
            "{}, must be from 6 hours to {days} days after the backup's beginning at {}",
            Timestamp::from(time),
            Timestamp::from(begun)
        );
        return Err(limits::refuse(field, why));
    }
    if time <= now {
        return Err(limits::refuse(field, format_args!("{} is past", Timestamp::from(time))));
    }
    Ok(time.into())
}

/// Checks when `backup` is to be a hot one no longer.
fn check_hot(
    time: Option<Timestamp>,
    backup: &admin::Backup,
    now: SystemTime,
) -> Result<Option<Timestamp>, Status> {
    const FIELD: &str = "backup.hot_to_standard_time";
    let Some(time) = checked_time(FIELD, time)? else { return Ok(None) };
    if backup.backup_type() != BackupType::Hot {
        return Err(limits::refuse(FIELD, "is for hot backups only, and this is a standard one"));
    }
    let begun = begun(backup, now);
    if time < begun + HOT_MIN {
        let why = format_args!(
            "{}, must be at least 24 hours after the backup's beginning at {}",
            Timestamp::from(time),
            Timestamp::from(begun)
        );
        return Err(limits::refuse(FIELD, why));
    }
    Ok(Some(time.into()))
}

/// A time of a request, in whole microseconds.
fn checked_time(field: &str, time: Option<Timestamp>) -> Result<Option<SystemTime>, Status> {
    let Some(time) = time else { return Ok(None) };
    let is_one = (0..1_000_000_000).contains(&time.nanos) && (0..=253_402_300_799).contains(&time.seconds);
    let checked =
        is_one.then(|| SystemTime::try_from(Timestamp { nanos: time.nanos / 1_000 * 1_000, ..time }));
    match checked {
        Some(Ok(time)) => Ok(Some(time)),
        _ => Err(limits::refuse(field, format_args!("{} s and {} ns is no time", time.seconds, time.nanos))),
    }
}

fn begun(backup: &admin::Backup, now: SystemTime) -> SystemTime {
    backup.start_time.and_then(|time| time.try_into().ok()).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saved_table::SavedTable;
    use tonic::Code;

    const TABLE: &str = "projects/p/instances/i/tables/t";

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + DAY * 20_000
    }

    fn later(span: Duration) -> Option<Timestamp> {
        Some((now() + span).into())
    }

    fn instance() -> InstanceName {
        InstanceName { project: "p".to_owned(), instance: "i".to_owned() }
    }

    fn name() -> BackupName {
        BackupName::parse("name", "projects/p/instances/i/clusters/c/backups/b").unwrap()
    }

    fn wanted(expire_time: Option<Timestamp>) -> admin::Backup {
        admin::Backup { source_table: TABLE.to_owned(), expire_time, ..admin::Backup::default() }
    }

    fn new(backup: &admin::Backup) -> Result<admin::Backup, Status> {
        check_new(&instance(), backup, now()).map(|(_, backup)| backup)
    }

    fn ready(backup: &admin::Backup) -> BackupRecord {
        let backup = admin::Backup { state: State::Ready.into(), ..new(backup).unwrap() };
        BackupRecord { backup: Some(backup), saved: Some(SavedTable::default()), operation: 1 }
    }

    fn refused<T: std::fmt::Debug>(outcome: Result<T, Status>, field: &str) {
        let error = outcome.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert!(error.message().starts_with(&format!("{field}: ")), "{error}");
    }

    #[test]
    fn a_backup_is_kept_from_six_hours_to_ninety_days() {
        for (span, is_allowed) in [
            (HOUR * 6 - Duration::from_secs(1), false),
            (HOUR * 6, true),
            (DAY * 90, true),
            (DAY * 90 + Duration::from_secs(1), false),
        ] {
            assert_eq!(new(&wanted(later(span))).is_ok(), is_allowed, "{span:?}");
        }
        refused(new(&wanted(None)), "backup.expire_time");
        let nonsense = Timestamp { seconds: i64::MAX, nanos: -1 };
        refused(new(&wanted(Some(nonsense))), "backup.expire_time");
    }

    #[test]
    fn a_backup_is_of_a_table_in_its_instance() {
        let elsewhere = TABLE.replace("/i/", "/j/");
        for source_table in [String::new(), "t".to_owned(), elsewhere] {
            let backup = admin::Backup { source_table, ..wanted(later(DAY)) };
            refused(new(&backup), "backup.source_table");
        }
    }

    #[test]
    fn only_a_hot_backup_cools_down() {
        let hot = |time| admin::Backup {
            backup_type: BackupType::Hot.into(),
            hot_to_standard_time: time,
            ..wanted(later(DAY * 9))
        };
        let standard = admin::Backup { backup_type: BackupType::Standard.into(), ..hot(later(DAY)) };
        refused(new(&standard), "backup.hot_to_standard_time");
        refused(new(&hot(later(HOUR * 23))), "backup.hot_to_standard_time");
        let mut backup = new(&hot(later(DAY * 2))).unwrap();
        assert!(!cool_down(&mut backup, now() + DAY));
        assert!(cool_down(&mut backup, now() + DAY * 2));
        assert_eq!(backup.backup_type(), BackupType::Standard);
    }

    #[test]
    fn a_copy_is_kept_for_thirty_days_and_not_copied() {
        let source = ready(&wanted(later(DAY)));
        refused(check_copy(&name(), &source, later(DAY * 31), now()), "expire_time");
        let copy = check_copy(&name(), &source, later(DAY * 30), now()).unwrap();
        assert_eq!((copy.backup().source_backup.as_str(), copy.is_ready()), (&*name().to_string(), true));
        assert_eq!(
            check_copy(&name(), &copy, later(DAY), now()).unwrap_err().code(),
            Code::FailedPrecondition
        );
        let mut unfinished = source;
        unfinished.backup_mut().set_state(State::Creating);
        assert_eq!(
            check_copy(&name(), &unfinished, later(DAY), now()).unwrap_err().code(),
            Code::FailedPrecondition
        );
    }

    #[test]
    fn an_update_changes_what_its_mask_names() {
        let change = |paths: &[&str], expire_time, at| {
            let mut record = ready(&wanted(later(DAY)));
            let paths: Vec<_> = paths.iter().map(|path| (*path).to_owned()).collect();
            let source_table = String::new();
            update(&name(), &mut record, &admin::Backup { source_table, ..wanted(expire_time) }, &paths, at)
                .map(|()| record.backup().expire_time)
        };
        assert_eq!(change(&["expire_time"], later(DAY * 3), now() + DAY).unwrap(), later(DAY * 3));
        refused(change(&[], later(DAY), now()), "update_mask");
        refused(change(&["source_table"], later(DAY), now()), "update_mask");
        // From the backup's beginning, not from the update.
        refused(change(&["expire_time"], later(DAY * 91), now() + DAY * 2), "backup.expire_time");
        refused(change(&["expire_time"], later(HOUR * 7), now() + HOUR * 8), "backup.expire_time");
    }
}
