//! Tables as they are answered: every family stands in its map with a value.
//!
//! prost leaves the value out of a map's entry when it is the message's default, as
//! that of a family without a rule and a type is. The encoding allows that and most
//! clients read it so, but protobuf.js, and with it Google's client for Node, takes
//! such a value for null and fails on the table. Google's servers always write it.

use std::collections::BTreeMap;

use prost::DecodeError;
use prost::bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType};

use super::{ColumnFamily, Table};

/// A [`Table`], byte for byte, but for families that are the message's default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TableAnswer {
    /// The table without its families.
    rest: Table,
    families: FamilyEntries,
}

/// `Table.column_families` as the encoding has it: a map is a list of such messages.
#[derive(Clone, PartialEq, prost::Message)]
struct FamilyEntries {
    #[prost(message, repeated, tag = "3")]
    entries: Vec<FamilyEntry>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct FamilyEntry {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    family: Option<ColumnFamily>,
}

impl From<Table> for TableAnswer {
    fn from(table: Table) -> Self {
        let families = table.column_families.into_iter();
        let entries = families.map(|(name, family)| FamilyEntry { name, family: Some(family) }).collect();
        let rest = Table { column_families: BTreeMap::new(), ..table };
        Self { rest, families: FamilyEntries { entries } }
    }
}

impl prost::Message for TableAnswer {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        self.rest.encode_raw(buf);
        self.families.encode_raw(buf);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            3 => self.families.merge_field(tag, wire_type, buf, context),
            _ => self.rest.merge_field(tag, wire_type, buf, context),
        }
    }

    fn encoded_len(&self) -> usize {
        self.rest.encoded_len() + self.families.encoded_len()
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// What ListTables answers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListTablesAnswer {
    /// A page of tables.
    #[prost(message, repeated, tag = "1")]
    pub tables: Vec<TableAnswer>,
    /// Where the next page begins; empty after the last.
    #[prost(string, tag = "2")]
    pub next_page_token: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn a_family_that_is_the_default_is_written_with_its_value() {
        let column_families = [("f".to_owned(), ColumnFamily::default())].into();
        let table = Table { name: "t".to_owned(), column_families, ..Table::default() };
        let answer = TableAnswer::from(table.clone());
        let written = answer.encode_to_vec();
        // Field 1 "t"; field 3, an entry of five bytes: its field 1 "f", its field 2 of no bytes.
        assert_eq!(written, b"\x0a\x01t\x1a\x05\x0a\x01f\x12\x00");
        assert_eq!(Table::decode(&*written).unwrap(), table);
        assert_eq!(TableAnswer::decode(&*written).unwrap(), answer);
    }
}
