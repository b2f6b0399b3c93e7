//! Resource names: `projects/P/instances/I/tables/T` and its relatives.
//!
//! Used by every role that takes a name off the wire. Project and instance
//! parts are any non-empty text without `/`: official clients' own system
//! tests send the project as the literal `{{projectId}}`.

use std::fmt;

/// An instance, `projects/{project}/instances/{instance}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceName {
    /// The project's id, unvalidated.
    pub project: String,
    /// The instance's id, unvalidated.
    pub instance: String,
}

/// A table, `projects/{project}/instances/{instance}/tables/{table}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    /// The instance that holds the table.
    pub instance: InstanceName,
    /// The table's id within its instance.
    pub table: String,
}

/// A cluster, `projects/{project}/instances/{instance}/clusters/{cluster}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterName {
    /// The instance that it serves.
    pub instance: InstanceName,
    /// The cluster's id within its instance.
    pub cluster: String,
}

/// An app profile, `projects/{project}/instances/{instance}/appProfiles/{app_profile}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AppProfileName {
    /// The instance whose requests it routes.
    pub instance: InstanceName,
    /// The profile's id within its instance.
    pub app_profile: String,
}

/// A view of a table, `projects/{project}/instances/{instance}/tables/{table}/authorizedViews/{view}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AuthorizedViewName {
    /// The table that it is a part of.
    pub table: TableName,
    /// The view's id within its table.
    pub view: String,
}

/// A backup, `projects/{project}/instances/{instance}/clusters/{cluster}/backups/{backup}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackupName {
    /// The cluster that keeps it.
    pub cluster: ClusterName,
    /// The backup's id within its cluster.
    pub backup: String,
}

/// A name that does not have the shape its field asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {found:?} is not of the form {expected:?}")]
pub struct BadName {
    /// The request's field.
    pub field: &'static str,
    /// What the field held, cut to 256 characters.
    pub found: String,
    /// The form it should have had.
    pub expected: &'static str,
}

impl From<BadName> for tonic::Status {
    fn from(bad: BadName) -> Self {
        Self::invalid_argument(bad.to_string())
    }
}

impl InstanceName {
    const FORM: &str = "projects/<project>/instances/<instance>";

    /// Takes `text`, the content of the request's `field`, apart.
    ///
    /// # Errors
    ///
    /// [`BadName`] when it has another form.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, BadName> {
        match parts(text).as_slice() {
            ["projects", project, "instances", instance] => {
                Ok(Self { project: (*project).to_owned(), instance: (*instance).to_owned() })
            }
            _ => Err(bad(field, text, Self::FORM)),
        }
    }
}

impl TableName {
    const FORM: &str = "projects/<project>/instances/<instance>/tables/<table>";

    /// Takes `text`, the content of the request's `field`, apart.
    ///
    /// # Errors
    ///
    /// [`BadName`] when it has another form.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, BadName> {
        let (instance, table) = of_instance("tables", text).ok_or_else(|| bad(field, text, Self::FORM))?;
        Ok(Self { instance, table })
    }
}

impl ClusterName {
    const FORM: &str = "projects/<project>/instances/<instance>/clusters/<cluster>";

    /// Takes `text`, the content of the request's `field`, apart.
    ///
    /// # Errors
    ///
    /// [`BadName`] when it has another form.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, BadName> {
        let (instance, cluster) =
            of_instance("clusters", text).ok_or_else(|| bad(field, text, Self::FORM))?;
        Ok(Self { instance, cluster })
    }
}

impl AppProfileName {
    const FORM: &str = "projects/<project>/instances/<instance>/appProfiles/<app profile>";

    /// Takes `text`, the content of the request's `field`, apart.
    ///
    /// # Errors
    ///
    /// [`BadName`] when it has another form.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, BadName> {
        let (instance, app_profile) =
            of_instance("appProfiles", text).ok_or_else(|| bad(field, text, Self::FORM))?;
        Ok(Self { instance, app_profile })
    }
}

impl AuthorizedViewName {
    const FORM: &str =
        "projects/<project>/instances/<instance>/tables/<table>/authorizedViews/<authorized view>";

    /// Takes `text`, the content of the request's `field`, apart.
    ///
    /// # Errors
    ///
    /// [`BadName`] when it has another form.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, BadName> {
        let bad = || bad(field, text, Self::FORM);
        let (table, view) = text.rsplit_once("/authorizedViews/").ok_or_else(bad)?;
        let (instance, table) = of_instance("tables", table).ok_or_else(bad)?;
        if view.is_empty() || view.contains('/') {
            return Err(bad());
        }
        Ok(Self { table: TableName { instance, table }, view: view.to_owned() })
    }
}

impl BackupName {
    const FORM: &str = "projects/<project>/instances/<instance>/clusters/<cluster>/backups/<backup>";

    /// Takes `text`, the content of the request's `field`, apart.
    ///
    /// # Errors
    ///
    /// [`BadName`] when it has another form.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, BadName> {
        let bad = || bad(field, text, Self::FORM);
        let (cluster, backup) = text.rsplit_once("/backups/").ok_or_else(bad)?;
        let (instance, cluster) = of_instance("clusters", cluster).ok_or_else(bad)?;
        if backup.is_empty() || backup.contains('/') {
            return Err(bad());
        }
        Ok(Self { cluster: ClusterName { instance, cluster }, backup: backup.to_owned() })
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "projects/{}/instances/{}", self.project, self.instance)
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/tables/{}", self.instance, self.table)
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/clusters/{}", self.instance, self.cluster)
    }
}

impl fmt::Display for AppProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/appProfiles/{}", self.instance, self.app_profile)
    }
}

impl fmt::Display for AuthorizedViewName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/authorizedViews/{}", self.table, self.view)
    }
}

impl fmt::Display for BackupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/backups/{}", self.cluster, self.backup)
    }
}

/// Takes `projects/…/instances/…/<collection>/<id>` apart.
fn of_instance(collection: &str, text: &str) -> Option<(InstanceName, String)> {
    match parts(text).as_slice() {
        ["projects", project, "instances", instance, found, id] if *found == collection => {
            let instance = InstanceName { project: (*project).to_owned(), instance: (*instance).to_owned() };
            Some((instance, (*id).to_owned()))
        }
        _ => None,
    }
}

/// The name's parts, or none at all where one of them is empty.
fn parts(text: &str) -> Vec<&str> {
    let parts: Vec<&str> = text.split('/').collect();
    if parts.iter().any(|part| part.is_empty()) { Vec::new() } else { parts }
}

fn bad(field: &'static str, found: &str, expected: &'static str) -> BadName {
    BadName { field, found: found.chars().take(256).collect(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_name_survives_the_round_trip() {
        let text = "projects/{{projectId}}/instances/i/tables/t-1";
        let name = TableName::parse("table_name", text).unwrap();
        assert_eq!(name.table, "t-1");
        assert_eq!(name.to_string(), text);
    }

    #[test]
    fn each_collection_has_its_own_names() {
        let text = "projects/p/instances/i/clusters/c";
        assert_eq!(ClusterName::parse("name", text).unwrap().to_string(), text);
        assert!(AppProfileName::parse("name", text).is_err());
        let text = "projects/p/instances/i/appProfiles/a";
        assert_eq!(AppProfileName::parse("name", text).unwrap().to_string(), text);
        assert!(TableName::parse("name", text).is_err());
        let text = "projects/p/instances/i/tables/t/authorizedViews/v";
        assert_eq!(AuthorizedViewName::parse("name", text).unwrap().to_string(), text);
        let text = "projects/p/instances/i/clusters/c/backups/b";
        assert_eq!(BackupName::parse("name", text).unwrap().to_string(), text);
        for bad in ["projects/p/instances/i/clusters/c", "projects/p/instances/i/tables/t/backups/b"] {
            assert!(BackupName::parse("name", bad).is_err());
        }
        for bad in ["projects/p/instances/i/tables/t", "projects/p/instances/i/tables/t/authorizedViews/"] {
            assert!(AuthorizedViewName::parse("name", bad).is_err());
        }
    }

    #[test]
    fn other_forms_are_refused_by_field() {
        for text in [
            "",
            "t",
            "projects/p/instances/i",
            "projects//instances/i/tables/t",
            "projects/p/instances/i/tables/",
        ] {
            let error = TableName::parse("table_name", text).unwrap_err();
            assert_eq!(error.field, "table_name", "{text}");
        }
    }
}
