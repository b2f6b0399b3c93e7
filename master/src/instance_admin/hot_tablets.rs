//! ListHotTablets: which tablets keep the servers busy.

use std::time::{Duration, SystemTime};

use row_api::admin;
use row_api::names::ClusterName;
use tablet_server::limits;
use tonic::Status;

use super::{InstanceAdmin, clusters};
use crate::load::{self, HotTablet};
use crate::pages;

/// Tablets on one page, at most and unless asked for fewer.
const PAGE_SIZE_MAX: usize = 1_000;

/// The time that one request may ask about, and what it asks about unless it says so.
const RANGE_MAX: Duration = Duration::from_secs(48 * 3600);
const RANGE_DEFAULT: Duration = Duration::from_secs(24 * 3600);

/// Clients' clocks may be off by so much.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

impl InstanceAdmin {
    pub(super) async fn list_hot_tablets(
        &self,
        request: admin::ListHotTabletsRequest,
    ) -> Result<admin::ListHotTabletsResponse, Status> {
        let name = ClusterName::parse("parent", &request.parent)?;
        let page_size = pages::check_size(request.page_size, PAGE_SIZE_MAX)?;
        let (start, end) = check_times(&request, SystemTime::now())?;
        // A token is how many came on the pages before.
        let offset = match request.page_token.as_str() {
            "" => 0,
            token => {
                token.parse().map_err(|_| limits::refuse("page_token", "this server did not give it"))?
            }
        };
        clusters::view_in(&name, &self.master.instance(&name.instance).await?)?;
        let catalog = self.master.catalog();
        let table_name = |table| Some(catalog.by_id(table)?.name.clone());
        let is_asked = |table| table_name(table).is_some_and(|table| table.instance == name.instance);
        let hot = self.master.hot_tablets(start, end, is_asked).await?;
        let rest = hot.iter().enumerate().skip(offset);
        let (page, next_page_token) = pages::cut(rest, page_size, |(place, _)| (place + 1).to_string());
        let view = |(_, hot): (usize, &HotTablet)| {
            let table_name = table_name(hot.table)?.to_string();
            let since = hot.start.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            Some(admin::HotTablet {
                name: format!("{name}/hotTablets/{}-{}", hot.tablet.0, since.as_millis()),
                table_name,
                start_time: Some(hot.start.into()),
                end_time: Some(hot.end.into()),
                start_key: String::from_utf8_lossy(&hot.range.start).into_owned(),
                end_key: String::from_utf8_lossy(&hot.range.end).into_owned(),
                node_cpu_usage_percent: percent(hot.cpu_percent),
            })
        };
        let hot_tablets = page.into_iter().filter_map(view).collect();
        Ok(admin::ListHotTabletsResponse { hot_tablets, next_page_token })
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the API's figure is a short one")]
fn percent(percent: f64) -> f32 {
    percent as f32
}

/// The time that a request asks about.
fn check_times(
    request: &admin::ListHotTabletsRequest,
    now: SystemTime,
) -> Result<(SystemTime, SystemTime), Status> {
    let time = |field: &str, given: Option<prost_types::Timestamp>| {
        let Some(given) = given else { return Ok(None) };
        let time = SystemTime::try_from(given).map_err(|_| limits::refuse(field, "is no time"))?;
        if time > now + CLOCK_SKEW || time < now - load::HISTORY - CLOCK_SKEW {
            return Err(limits::refuse(field, format_args!("{given}, must be within the last 14 days")));
        }
        Ok(Some(time))
    };
    let end = time("end_time", request.end_time)?.unwrap_or(now);
    let start = time("start_time", request.start_time)?.unwrap_or(end - RANGE_DEFAULT);
    match end.duration_since(start) {
        Ok(range) if range > RANGE_MAX => {
            let why = format_args!("{} hours before end_time, at most 48", range.as_secs() / 3600);
            Err(limits::refuse("start_time", why))
        }
        Ok(range) if !range.is_zero() => Ok((start, end)),
        _ => Err(limits::refuse("start_time", "must be before end_time")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_asks_about_at_most_two_days_of_the_last_fourteen() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100 * 24 * 3600);
        let ago = |hours: u64| Some((now - Duration::from_secs(hours * 3600)).into());
        let later = Some((now + Duration::from_secs(3600)).into());
        for (start_time, end_time, good) in [
            (None, None, true),
            (ago(48), None, true),
            (ago(49), None, false),
            (ago(14 * 24), ago(13 * 24), true),
            (ago(15 * 24), ago(14 * 24), false),
            (ago(1), ago(1), false),
            (ago(1), ago(2), false),
            (ago(1), later, false),
        ] {
            let request = admin::ListHotTabletsRequest { start_time, end_time, ..Default::default() };
            assert_eq!(check_times(&request, now).is_ok(), good, "{start_time:?} {end_time:?}");
        }
    }
}
