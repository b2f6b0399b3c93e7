//! Tablets at the console door, in JSON, for `hayloft admin` and other tools.
//!
//! ```text
//! GET  /tablets                                  [{"tablet": 17, "table": ..., "server": ...}, ...]
//! POST /tablets/17/move   {"to": "tablet-server-2"}    {"tablet": 93}: its number there
//! POST /tablets/17/split  {}                           {}
//! ```

use std::sync::Arc;

use cluster::ServerId;
use http::{Method, Request};
use master::Master;
use master::tablet_list::TabletStatus;
use serde_json::{Value, json};
use tablet_server::schema::TabletId;
use tonic::Status;

use super::json_calls::{JsonBody, body};

/// Does what a request below `/tablets` asks for.
pub(super) async fn outcome<B>(master: &Arc<Master>, request: Request<B>) -> Result<Value, Status>
where
    B: JsonBody,
{
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match (request.method(), parts.as_slice()) {
        (&Method::GET, ["tablets"]) => {
            let tablets = master.tablet_list().await?;
            Ok(tablets.iter().map(shown).collect())
        }
        (&Method::POST, ["tablets", tablet, change]) => {
            let number = tablet.parse().map_err(|_| Status::not_found("a tablet has a number"))?;
            let body = body(request).await?;
            apply(master, TabletId(number), change, &body).await
        }
        _ => {
            Err(Status::not_found("there is GET /tablets, POST /tablets/ID/move and POST /tablets/ID/split"))
        }
    }
}

async fn apply(master: &Arc<Master>, tablet: TabletId, change: &str, body: &Value) -> Result<Value, Status> {
    match change {
        "move" => {
            let to = body["to"].as_str();
            let to =
                to.ok_or_else(|| Status::invalid_argument("\"to\" must be the name of a tablet server"))?;
            let moved = master.move_tablet(tablet, ServerId(to.to_owned())).await?;
            Ok(json!({ "tablet": moved.0 }))
        }
        "split" => {
            master.split_tablet(tablet).await?;
            Ok(json!({}))
        }
        _ => Err(Status::not_found("a tablet can be told to move and to split")),
    }
}

fn shown(tablet: &TabletStatus) -> Value {
    let assignment = &tablet.stats.assignment;
    json!({
        "tablet": assignment.tablet.0,
        "table": tablet.table,
        "start": assignment.range.start.escape_ascii().to_string(),
        "end": assignment.range.end.escape_ascii().to_string(),
        "server": tablet.server.0,
        "memtable_bytes": tablet.stats.memtable_bytes,
        "sstable_bytes": tablet.stats.sstable_bytes,
        "row_count": tablet.stats.row_count,
    })
}
