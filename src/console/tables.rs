//! Tables and their locality groups at the console door, in JSON.
//!
//! ```text
//! GET  /tables                 [{"table": ..., "families": {"f": {"group": ..., "moving_to": ...}, ...},
//!                                "groups": [{"group": ..., "compression": ..., ...}, ...]}, ...]
//! GET  /tables/TABLE           one of them; TABLE is the table's id, or its full name
//! POST /tables/groups/set      {"table": ..., "group": ..., "families": [...], "compression": "lz4" or "none",
//!                               "block_bytes": ..., "in_memory": ...}    the table; what is left out stays
//! POST /tables/groups/delete   {"table": ..., "group": ...}              the table
//! ```

use std::sync::Arc;

use http::{Method, Request};
use master::Master;
use master::locality_group_rules::{DEFAULT_GROUP, GroupChange};
use row_api::names::TableName;
use serde_json::{Map, Value, json};
use tablet_server::schema::GroupId;
use tablet_server::table_record::{LocalityGroup, TableRecord};
use tonic::Status;

use super::json_calls::{JsonBody, body};

/// Does what a request below `/tables` asks for.
pub(super) async fn outcome<B: JsonBody>(master: &Arc<Master>, request: Request<B>) -> Result<Value, Status> {
    let path = request.uri().path().to_owned();
    let path = path.trim_matches('/').strip_prefix("tables").unwrap_or_default().trim_matches('/');
    match (request.method(), path) {
        (&Method::GET, "") => {
            let tables = master.all_tables().await?;
            Ok(tables.iter().map(|(name, record)| shown(name, record)).collect())
        }
        (&Method::GET, table) => {
            let name = master.find_table(table).await?;
            Ok(shown(&name, &master.table(&name).await?))
        }
        (&Method::POST, "groups/set") => {
            let (name, change) = group_change(master, &body(request).await?).await?;
            let record = master.set_locality_group(name.clone(), change).await?;
            Ok(shown(&name, &record))
        }
        (&Method::POST, "groups/delete") => {
            let body = body(request).await?;
            let name = master.find_table(text(&body, "table")?).await?;
            let group = text(&body, "group")?.to_owned();
            let record = master.delete_locality_group(name.clone(), group).await?;
            Ok(shown(&name, &record))
        }
        _ => {
            let known =
                "GET /tables, GET /tables/TABLE, POST /tables/groups/set and POST /tables/groups/delete";
            Err(Status::not_found(format!("there is {known}")))
        }
    }
}

async fn group_change(master: &Master, body: &Value) -> Result<(TableName, GroupChange), Status> {
    const FIELDS: [&str; 6] = ["table", "group", "families", "compression", "block_bytes", "in_memory"];
    let refused = |why: &str| Err(Status::invalid_argument(why));
    let unknown = body.as_object().into_iter().flatten().find(|(name, _)| !FIELDS.contains(&name.as_str()));
    if let Some((name, _)) = unknown {
        return refused(&format!("{name:?} is no field of a locality group"));
    }
    let name = master.find_table(text(body, "table")?).await?;
    let mut change = GroupChange { name: text(body, "group")?.to_owned(), ..GroupChange::default() };
    match &body["families"] {
        Value::Null => {}
        Value::Array(families) if families.iter().all(Value::is_string) => {
            change.families = families.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        }
        _ => return refused("\"families\" must be names of column families"),
    }
    change.is_raw = match &body["compression"] {
        Value::Null => None,
        Value::String(name) if name == "lz4" => Some(false),
        Value::String(name) if name == "none" => Some(true),
        _ => return refused("\"compression\" must be \"lz4\" or \"none\""),
    };
    change.block_bytes = match &body["block_bytes"] {
        Value::Null => None,
        bytes => match bytes.as_u64().and_then(|bytes| u32::try_from(bytes).ok()) {
            Some(bytes) => Some(bytes),
            None => return refused("\"block_bytes\" must be a number of bytes"),
        },
    };
    change.in_memory = match &body["in_memory"] {
        Value::Null => None,
        Value::Bool(in_memory) => Some(*in_memory),
        _ => return refused("\"in_memory\" must be true or false"),
    };
    Ok((name, change))
}

fn text<'a>(body: &'a Value, field: &str) -> Result<&'a str, Status> {
    body[field].as_str().ok_or_else(|| Status::invalid_argument(format!("{field:?} must be a name")))
}

fn shown(name: &TableName, record: &TableRecord) -> Value {
    let default = LocalityGroup { name: DEFAULT_GROUP.to_owned(), ..LocalityGroup::default() };
    let is_default = |group: &&LocalityGroup| group.group == GroupId::DEFAULT.0;
    let chosen = record.groups.iter().find(is_default).unwrap_or(&default);
    let groups: Vec<_> =
        std::iter::once(chosen).chain(record.groups.iter().filter(|group| !is_default(group))).collect();
    let group_name = |id: GroupId| groups.iter().find(|group| group.group == id.0).map(|group| &group.name);
    let families: Map<_, _> = record
        .table()
        .column_families
        .keys()
        .map(|family| {
            let place = record.place(family);
            let moving_to = place.moving_to.and_then(group_name);
            (family.clone(), json!({ "group": group_name(place.group), "moving_to": moving_to }))
        })
        .collect();
    let shown = |group: &&LocalityGroup| {
        json!({
            "group": group.name,
            "compression": if group.is_raw { "none" } else { "lz4" },
            "block_bytes": group.block_bytes,
            "in_memory": group.in_memory,
        })
    };
    let groups: Vec<_> = groups.iter().map(shown).collect();
    json!({ "table": name.to_string(), "families": families, "groups": groups })
}
