//! What an instance may look like: checks of admin requests, without any state.

use std::sync::LazyLock;

use regex::Regex;
use row_api::admin;
use row_api::admin::instance::Type;
use row_api::names::InstanceName;
use tablet_server::limits;
use tonic::Status;

use crate::cluster_rules;
use crate::instance_record::InstanceRecord;
use crate::resource_ids;

const DISPLAY_NAME_CHARS_MIN: usize = 4;
const DISPLAY_NAME_CHARS_MAX: usize = 30;

const LABEL_COUNT_MAX: usize = 64;
/// A key or a value of a label stays under 128 bytes.
const LABEL_BYTES_MAX: usize = 127;

const LABEL_KEY: &str = r"[\p{Ll}\p{Lo}][\p{Ll}\p{Lo}\p{N}_-]{0,62}";
const LABEL_VALUE: &str = r"[\p{Ll}\p{Lo}\p{N}_-]{0,63}";
static LABEL_KEYS: LazyLock<Regex> = LazyLock::new(|| whole(LABEL_KEY));
static LABEL_VALUES: LazyLock<Regex> = LazyLock::new(|| whole(LABEL_VALUE));

fn whole(pattern: &str) -> Regex {
    Regex::new(&format!("^(?:{pattern})$")).expect("the pattern is a valid one")
}

/// Checks a CreateInstance: the instance's name, and its record.
///
/// # Errors
///
/// INVALID_ARGUMENT, or UNIMPLEMENTED for what is not built.
pub fn check_new(request: admin::CreateInstanceRequest) -> Result<(InstanceName, InstanceRecord), Status> {
    let project = check_project("parent", &request.parent)?;
    resource_ids::check_instance_id("instance_id", &request.instance_id)?;
    let name = InstanceName { project, instance: request.instance_id };
    let instance = request.instance.ok_or_else(|| limits::refuse("instance", "is missing"))?;
    let mut checked = check_instance(&name, instance)?;
    if checked.r#type() == Type::Unspecified {
        checked.set_type(Type::Production);
    }
    let clusters = cluster_rules::check_all(&name, checked.r#type(), request.clusters)?;
    Ok((name, InstanceRecord::new(checked, clusters)))
}

fn check_instance(name: &InstanceName, instance: admin::Instance) -> Result<admin::Instance, Status> {
    let admin::Instance { display_name, r#type, edition, labels, tags, .. } = instance;
    let set_by_server = [
        ("name", !instance.name.is_empty() && instance.name != name.to_string()),
        ("state", instance.state != 0),
        ("create_time", instance.create_time.is_some()),
        ("satisfies_pzs", instance.satisfies_pzs.is_some()),
        ("satisfies_pzi", instance.satisfies_pzi.is_some()),
    ];
    if let Some((field, _)) = set_by_server.iter().find(|(_, is_wrong)| *is_wrong) {
        return Err(limits::refuse(
            format_args!("instance.{field}"),
            "is given by the server, leave it empty",
        ));
    }
    if !tags.is_empty() {
        let why = "instance.tags: tags of Google's resource manager are not built in this version of Hayloft, use labels.";
        return Err(Status::unimplemented(why));
    }
    check_display_name(&display_name)?;
    check_type(r#type)?;
    check_edition(edition)?;
    for (key, value) in &labels {
        check_label(key, value)?;
    }
    limits::check_at_most("instance.labels", labels.len(), LABEL_COUNT_MAX, "labels")?;
    Ok(admin::Instance { display_name, r#type, edition, labels, ..admin::Instance::default() })
}

/// Takes over those fields of `update` that `paths` name.
///
/// # Errors
///
/// INVALID_ARGUMENT, FAILED_PRECONDITION; `record` may then be half changed.
pub fn update(record: &mut InstanceRecord, update: &admin::Instance, paths: &[String]) -> Result<(), Status> {
    if paths.is_empty() {
        return Err(limits::refuse("update_mask", "is empty, at least 1 path is needed"));
    }
    let development_allowed = record.instance_type() == Type::Development;
    let instance = record.instance.get_or_insert_default();
    for path in paths {
        match path.as_str() {
            "display_name" => {
                check_display_name(&update.display_name)?;
                instance.display_name.clone_from(&update.display_name);
            }
            "labels" => {
                for (key, value) in &update.labels {
                    check_label(key, value)?;
                }
                limits::check_at_most("instance.labels", update.labels.len(), LABEL_COUNT_MAX, "labels")?;
                instance.labels.clone_from(&update.labels);
            }
            "type" => match check_type(update.r#type)? {
                Type::Unspecified => {}
                Type::Development if !development_allowed => {
                    let why = "instance.type: a production instance cannot become a development instance";
                    return Err(Status::failed_precondition(why));
                }
                new => instance.set_type(new),
            },
            "edition" => {
                check_edition(update.edition)?;
                instance.edition = update.edition;
            }
            "name" | "state" | "create_time" | "satisfies_pzs" | "satisfies_pzi" | "tags" => {
                return Err(limits::refuse("update_mask", format_args!("{path:?} cannot be changed")));
            }
            _ => {
                return Err(limits::refuse(
                    "update_mask",
                    format_args!("{path:?} is no field of an instance"),
                ));
            }
        }
    }
    Ok(())
}

/// Takes the project out of `projects/<project>`.
///
/// # Errors
///
/// INVALID_ARGUMENT where `text`, the content of the request's `field`, is not of that form.
pub fn check_project(field: &str, text: &str) -> Result<String, Status> {
    match text.strip_prefix("projects/").filter(|id| !id.is_empty() && !id.contains('/')) {
        Some(project) => Ok(project.to_owned()),
        None => {
            Err(limits::refuse(field, format_args!("{text:?} is not of the form \"projects/<project>\"")))
        }
    }
}

fn check_display_name(display_name: &str) -> Result<(), Status> {
    const FIELD: &str = "instance.display_name";
    let chars = display_name.chars().count();
    if chars < DISPLAY_NAME_CHARS_MIN {
        let why = format_args!("{chars} characters, at least {DISPLAY_NAME_CHARS_MIN}");
        return Err(limits::refuse(FIELD, why));
    }
    if let Some(c) = display_name.chars().find(|c| c.is_control()) {
        return Err(limits::refuse(FIELD, format_args!("holds the control character {c:?}")));
    }
    limits::check_at_most(FIELD, chars, DISPLAY_NAME_CHARS_MAX, "characters")
}

fn check_type(r#type: i32) -> Result<Type, Status> {
    let why = || format!("{type}, must be PRODUCTION or DEVELOPMENT");
    Type::try_from(r#type).map_err(|_| limits::refuse("instance.type", why()))
}

fn check_edition(edition: i32) -> Result<(), Status> {
    let why = || format!("{edition}, must be ENTERPRISE or ENTERPRISE_PLUS");
    admin::Edition::try_from(edition).map(drop).map_err(|_| limits::refuse("instance.edition", why()))
}

fn check_label(key: &str, value: &str) -> Result<(), Status> {
    let shown: String = key.chars().take(64).collect();
    let field = format!("instance.labels[{shown:?}]");
    limits::check_at_most(&field, key.len(), LABEL_BYTES_MAX, "bytes in its key")?;
    limits::check_at_most(&field, value.len(), LABEL_BYTES_MAX, "bytes in its value")?;
    if !LABEL_KEYS.is_match(key) {
        return Err(limits::refuse(field, format_args!("the key must match {LABEL_KEY}")));
    }
    if !LABEL_VALUES.is_match(value) {
        return Err(limits::refuse(field, format_args!("the value {value:?} must match {LABEL_VALUE}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    fn good() -> admin::CreateInstanceRequest {
        let cluster = admin::Cluster {
            location: "projects/p/locations/us-central1-b".to_owned(),
            serve_nodes: 1,
            ..admin::Cluster::default()
        };
        admin::CreateInstanceRequest {
            parent: "projects/p".to_owned(),
            instance_id: "an-instance".to_owned(),
            instance: Some(named("An instance")),
            clusters: [("a-cluster".to_owned(), cluster)].into(),
        }
    }

    fn named(display_name: &str) -> admin::Instance {
        admin::Instance { display_name: display_name.to_owned(), ..admin::Instance::default() }
    }

    #[test]
    fn a_new_instance_is_for_production_unless_it_says_otherwise() {
        let (name, record) = check_new(good()).unwrap();
        assert_eq!(name.to_string(), "projects/p/instances/an-instance");
        assert_eq!(record.instance_type(), Type::Production);
    }

    #[test]
    fn what_an_instance_may_not_be_is_refused_by_field() {
        let of =
            |instance: admin::Instance| admin::CreateInstanceRequest { instance: Some(instance), ..good() };
        let labelled = |key: &str, value: &str| {
            let labels = [(key.to_owned(), value.to_owned())].into();
            of(admin::Instance { labels, ..named("An instance") })
        };
        let many = (0..65).map(|n| (format!("k{n}"), String::new())).collect();
        for (request, field) in [
            (admin::CreateInstanceRequest { parent: "p".to_owned(), ..good() }, "parent: "),
            (admin::CreateInstanceRequest { instance_id: "An".to_owned(), ..good() }, "instance_id: "),
            (admin::CreateInstanceRequest { instance: None, ..good() }, "instance: "),
            (admin::CreateInstanceRequest { clusters: [].into(), ..good() }, "clusters: "),
            (of(named("")), "instance.display_name: 0 characters, at least 4"),
            (of(named(&"x".repeat(31))), "instance.display_name: 31 characters, at most 30"),
            (of(admin::Instance { r#type: 9, ..named("An instance") }), "instance.type: 9, "),
            (of(admin::Instance { edition: 9, ..named("An instance") }), "instance.edition: 9, "),
            (of(admin::Instance { state: 1, ..named("An instance") }), "instance.state: "),
            (of(admin::Instance { name: "x".to_owned(), ..named("An instance") }), "instance.name: "),
            (
                of(admin::Instance { labels: many, ..named("An instance") }),
                "instance.labels: 65 labels, at most 64",
            ),
            (labelled("Key", "v"), "instance.labels[\"Key\"]: "),
            (labelled("", "v"), "instance.labels[\"\"]: "),
            (labelled("key", "V"), "instance.labels[\"key\"]: "),
            (labelled("key", &"v".repeat(64)), "instance.labels[\"key\"]: "),
            (labelled(&"\u{e4}".repeat(64), "v"), "instance.labels["),
        ] {
            let error = check_new(request).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{field}");
            assert!(error.message().starts_with(field), "{error}");
        }
        assert!(check_new(labelled("\u{e4}-1_", "")).is_ok());
        let tagged =
            admin::Instance { tags: [("1/a".to_owned(), "b".to_owned())].into(), ..named("An instance") };
        assert_eq!(check_new(of(tagged)).unwrap_err().code(), Code::Unimplemented);
    }

    #[test]
    fn an_update_takes_what_its_mask_names() {
        let (_, mut record) = check_new(good()).unwrap();
        let labels = [("k".to_owned(), "v".to_owned())].into();
        let changed = admin::Instance { labels, ..named("Renamed") };
        update(&mut record, &changed, &["labels".to_owned()]).unwrap();
        let instance = record.instance.clone().unwrap();
        assert_eq!((instance.display_name.as_str(), instance.labels.len()), ("An instance", 1));
        update(&mut record, &changed, &["display_name".to_owned(), "type".to_owned()]).unwrap();
        assert_eq!(record.instance.clone().unwrap().display_name, "Renamed");
        assert_eq!(record.instance_type(), Type::Production);
        for (path, r#type, expected) in [
            ("name", Type::Unspecified, Code::InvalidArgument),
            ("colour", Type::Unspecified, Code::InvalidArgument),
            ("type", Type::Development, Code::FailedPrecondition),
        ] {
            let changed = admin::Instance { r#type: r#type.into(), ..named("Renamed") };
            assert_eq!(
                update(&mut record, &changed, &[path.to_owned()]).unwrap_err().code(),
                expected,
                "{path}"
            );
        }
        assert_eq!(update(&mut record, &changed, &[]).unwrap_err().code(), Code::InvalidArgument);
    }
}
