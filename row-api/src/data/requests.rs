//! Requests that carry a [`RowFilter`], and SampleRowKeys with its range.

use bytes::Bytes;

use super::{Mutation, RowFilter, RowRange, RowSet, read_rows_request};

/// Asks ReadRows for rows.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadRowsRequest {
    /// `projects/…/instances/…/tables/…`.
    #[prost(string, tag = "1")]
    pub table_name: String,
    /// `projects/…/instances/…/tables/…/authorizedViews/…`, in place of a table.
    #[prost(string, tag = "9")]
    pub authorized_view_name: String,
    /// `projects/…/instances/…/materializedViews/…`, in place of a table.
    #[prost(string, tag = "11")]
    pub materialized_view_name: String,
    /// Routing for replication; empty is the default profile.
    #[prost(string, tag = "5")]
    pub app_profile_id: String,
    /// Keys and ranges; none is all rows.
    #[prost(message, optional, tag = "2")]
    pub rows: Option<RowSet>,
    /// What to give of them; none is all.
    #[prost(message, optional, tag = "3")]
    pub filter: Option<RowFilter>,
    /// Rows at most; 0 is no limit.
    #[prost(int64, tag = "4")]
    pub rows_limit: i64,
    /// Which statistics to answer, a [`RequestStatsView`](read_rows_request::RequestStatsView).
    #[prost(enumeration = "read_rows_request::RequestStatsView", tag = "6")]
    pub request_stats_view: i32,
    /// Rows in descending order of their keys.
    #[prost(bool, tag = "7")]
    pub reversed: bool,
}

/// Asks SampleRowKeys for row keys that cut a table into even parts.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct SampleRowKeysRequest {
    /// `projects/…/instances/…/tables/…`.
    #[prost(string, tag = "1")]
    pub table_name: String,
    /// `projects/…/instances/…/tables/…/authorizedViews/…`, in place of a table.
    #[prost(string, tag = "4")]
    pub authorized_view_name: String,
    /// `projects/…/instances/…/materializedViews/…`, in place of a table.
    #[prost(string, tag = "5")]
    pub materialized_view_name: String,
    /// Routing for replication; empty is the default profile.
    #[prost(string, tag = "2")]
    pub app_profile_id: String,
    /// The rows to sample; none is all. Its end key is the last one answered.
    #[prost(message, optional, tag = "6")]
    pub row_range: Option<RowRange>,
}

/// Asks CheckAndMutateRow for changes that depend on what is in the row.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CheckAndMutateRowRequest {
    /// `projects/…/instances/…/tables/…`.
    #[prost(string, tag = "1")]
    pub table_name: String,
    /// `projects/…/instances/…/tables/…/authorizedViews/…`, in place of a table.
    #[prost(string, tag = "9")]
    pub authorized_view_name: String,
    /// Routing for replication; empty is the default profile.
    #[prost(string, tag = "7")]
    pub app_profile_id: String,
    /// The row.
    #[prost(bytes = "bytes", tag = "2")]
    pub row_key: Bytes,
    /// Chooses the mutations, by whether it passes any cell; none passes all.
    #[prost(message, optional, tag = "6")]
    pub predicate_filter: Option<RowFilter>,
    /// Applied where it does.
    #[prost(message, repeated, tag = "4")]
    pub true_mutations: Vec<Mutation>,
    /// Applied where it does not.
    #[prost(message, repeated, tag = "5")]
    pub false_mutations: Vec<Mutation>,
}

#[cfg(test)]
mod tests {
    use googleapis_tonic_google_bigtable_v2::google::bigtable::v2 as published;
    use prost::Message;

    use super::*;
    use crate::data as ours;
    use crate::data::row_range::{EndKey, StartKey};

    /// Every field that both have, set, in the messages of `$data`.
    macro_rules! requests {
        ($data:ident, $filter:expr) => {{
            let read = $data::ReadRowsRequest {
                table_name: "table".to_owned(),
                authorized_view_name: "view".to_owned(),
                materialized_view_name: "materialized".to_owned(),
                app_profile_id: "profile".to_owned(),
                rows: Some(RowSet {
                    row_keys: vec!["a".into(), "b".into()],
                    row_ranges: vec![RowRange::default()],
                }),
                filter: Some($filter),
                rows_limit: 7,
                request_stats_view: 2,
                reversed: true,
            };
            let check = $data::CheckAndMutateRowRequest {
                table_name: "table".to_owned(),
                authorized_view_name: "view".to_owned(),
                app_profile_id: "profile".to_owned(),
                row_key: "row".into(),
                predicate_filter: Some($filter),
                true_mutations: vec![$data::Mutation::default(), $data::Mutation::default()],
                false_mutations: vec![$data::Mutation::default()],
            };
            (read, check)
        }};
    }

    #[test]
    fn requests_with_a_filter_have_the_published_bytes() {
        let published_filter =
            || published::RowFilter { filter: Some(published::row_filter::Filter::PassAllFilter(true)) };
        let our_filter = || RowFilter::from(ours::row_filter::Filter::PassAllFilter(true));
        let published = requests!(published, published_filter());
        let ours = requests!(ours, our_filter());
        let (read, check) = (published.0.encode_to_vec(), published.1.encode_to_vec());
        assert_eq!(ours.0.encode_to_vec(), read);
        assert_eq!(ours.1.encode_to_vec(), check);
        assert_eq!(ReadRowsRequest::decode(&read[..]), Ok(ours.0));
        assert_eq!(CheckAndMutateRowRequest::decode(&check[..]), Ok(ours.1));
    }

    #[test]
    fn a_sample_has_the_published_bytes_and_a_range() {
        let published = published::SampleRowKeysRequest {
            table_name: "table".to_owned(),
            authorized_view_name: "view".to_owned(),
            materialized_view_name: "materialized".to_owned(),
            app_profile_id: "profile".to_owned(),
        };
        let mut ours = SampleRowKeysRequest {
            table_name: "table".to_owned(),
            authorized_view_name: "view".to_owned(),
            materialized_view_name: "materialized".to_owned(),
            app_profile_id: "profile".to_owned(),
            row_range: None,
        };
        let mut bytes = published.encode_to_vec();
        assert_eq!(ours.encode_to_vec(), bytes);
        bytes.extend([0x32, 6, 0x0a, 1, b'a', 0x1a, 1, b'b']);
        ours.row_range = Some(RowRange {
            start_key: Some(StartKey::StartKeyClosed("a".into())),
            end_key: Some(EndKey::EndKeyOpen("b".into())),
        });
        assert_eq!(ours.encode_to_vec(), bytes);
        assert_eq!(SampleRowKeysRequest::decode(&bytes[..]), Ok(ours));
    }
}
