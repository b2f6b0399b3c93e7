//! `hayloft admin tables`: tables, and their locality groups.

use std::io::Write;

use bytesize::ByteSize;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{AdminError, Console};

/// What to do with tables.
#[derive(Debug, Subcommand)]
pub(crate) enum Tables {
    /// Every table, with its families and locality groups.
    List {
        /// Print the answer as it comes, in JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        console: Console,
    },
    /// Locality groups: families whose cells are stored beside each other, apart from those of others.
    #[command(subcommand)]
    Groups(Groups),
}

/// What to do with the locality groups of a table.
#[derive(Debug, Subcommand)]
pub(crate) enum Groups {
    /// Each group, its families, and how it is stored.
    List {
        /// The table's id, or its full name (projects/P/instances/I/tables/T)
        table: String,
        /// Print the answer as it comes, in JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        console: Console,
    },
    /// Make a group, or change one; what is not said stays as it is.
    ///
    /// Families that have cells are moved while they are read and written; `list`
    /// says so until they are there.
    Set(SetGroup),
    /// Take a group away that no family is in.
    #[command(visible_alias = "rm")]
    Delete {
        /// The table's id, or its full name
        table: String,
        /// The group's name
        group: String,
        #[command(flatten)]
        console: Console,
    },
}

/// What a group is to be like.
#[derive(Args, Debug)]
pub(crate) struct SetGroup {
    /// The table's id, or its full name
    table: String,
    /// The group's name; families that are in no other one are in `default`
    group: String,
    /// Families that are to be in it, beside those that are
    #[arg(long, value_name = "FAMILY,...", value_delimiter = ',', visible_alias = "family")]
    families: Vec<String>,
    /// How new SSTables are compressed
    #[arg(long)]
    compression: Option<Compression>,
    /// How large a block of new SSTables is, such as 64KiB: small ones make reads of single rows cheap, large
    /// ones compress better; 0 is the default
    #[arg(long, value_name = "SIZE")]
    block_size: Option<ByteSize>,
    /// Whether its blocks are kept in memory, as far as rows.in_memory goes
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    in_memory: Option<bool>,
    #[command(flatten)]
    console: Console,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Compression {
    Lz4,
    None,
}

/// Asks, and prints the answer.
pub(super) fn run(what: &Tables, out: &mut impl Write) -> Result<(), AdminError> {
    match what {
        Tables::List { json: true, console } => writeln!(out, "{:#}", console.get("/tables")?)?,
        Tables::List { json: false, console } => list(out, &console.get("/tables")?)?,
        Tables::Groups(what) => run_groups(what, out)?,
    }
    Ok(())
}

fn run_groups(what: &Groups, out: &mut impl Write) -> Result<(), AdminError> {
    let (shown, is_json) = match what {
        Groups::List { table, json, console } => {
            (console.get(&format!("/tables/{}", escaped(table)))?, *json)
        }
        Groups::Set(set) => (set.console.post("/tables/groups/set", &set.body())?, false),
        Groups::Delete { table, group, console } => {
            let body = json!({ "table": table, "group": group });
            (console.post("/tables/groups/delete", &body)?, false)
        }
    };
    if is_json {
        writeln!(out, "{shown:#}")?;
    } else {
        list_groups(out, &shown)?;
    }
    Ok(())
}

impl SetGroup {
    fn body(&self) -> Value {
        let compression = self.compression.map(|compression| match compression {
            Compression::Lz4 => "lz4",
            Compression::None => "none",
        });
        json!({
            "table": self.table,
            "group": self.group,
            "families": self.families,
            "compression": compression,
            "block_bytes": self.block_size.map(|size| size.as_u64()),
            "in_memory": self.in_memory,
        })
    }
}

/// `table` as a part of a path; names of tables hold nothing else that must be escaped.
fn escaped(table: &str) -> String {
    table.replace('%', "%25").replace(' ', "%20").replace('?', "%3F").replace('#', "%23")
}

fn list(out: &mut impl Write, tables: &Value) -> std::io::Result<()> {
    for table in tables.as_array().into_iter().flatten() {
        writeln!(out, "{}", text(&table["table"]))?;
        list_groups(out, table)?;
    }
    Ok(())
}

fn list_groups(out: &mut impl Write, table: &Value) -> std::io::Result<()> {
    writeln!(out, "  {:<16} {:<12} {:>10}  {:<9}  FAMILIES", "GROUP", "COMPRESSION", "BLOCK", "MEMORY")?;
    for group in table["groups"].as_array().into_iter().flatten() {
        let name = text(&group["group"]);
        let block = match group["block_bytes"].as_u64() {
            Some(0) | None => "default".to_owned(),
            Some(bytes) => ByteSize(bytes).to_string(),
        };
        let memory = if group["in_memory"] == json!(true) { "in memory" } else { "-" };
        let families: Vec<_> = table["families"].as_object().into_iter().flatten().collect();
        let here = families.iter().filter(|(_, place)| text(&place["group"]) == name);
        let here: Vec<_> = here
            .map(|(family, place)| match place["moving_to"].as_str() {
                Some(to) => format!("{family} (moving to {to})"),
                None => (*family).clone(),
            })
            .collect();
        let compression = text(&group["compression"]);
        writeln!(out, "  {name:<16} {compression:<12} {block:>10}  {memory:<9}  {}", here.join(", "))?;
    }
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
