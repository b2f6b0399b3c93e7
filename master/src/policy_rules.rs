//! What an IAM policy may look like: checks of requests, without any state.
//!
//! The rules are those of `google/iam/v1/policy.proto` and `iam_policy.proto`.
//! Without authentication policies are kept and given back, and nothing is
//! decided by them.

use bytes::Bytes;
use row_api::iam::{Binding, GetIamPolicyRequest, Policy, SetIamPolicyRequest};
use tablet_server::limits;
use tonic::Status;

/// Members of a policy, over all its bindings.
const MEMBER_COUNT_MAX: usize = 1_500;
/// How many of them may be groups.
const GROUP_COUNT_MAX: usize = 250;
/// Bytes of a serialized policy.
const POLICY_BYTES_MAX: usize = 64 << 10;
/// Permissions that one request asks about.
const PERMISSION_COUNT_MAX: usize = 100;

/// The version of policies without conditions, and of those with some.
const PLAIN: i32 = 1;
const CONDITIONAL: i32 = 3;

/// The policy of a resource that nobody has set one for.
pub fn unset() -> Policy {
    Policy { version: PLAIN, etag: Bytes::from_static(&[0; 8]), ..Policy::default() }
}

/// Checks that `policy` can be given as `request` asks for it.
///
/// # Errors
///
/// INVALID_ARGUMENT.
pub fn check_get(policy: &Policy, request: &GetIamPolicyRequest) -> Result<(), Status> {
    const FIELD: &str = "options.requested_policy_version";
    let version = request.options.unwrap_or_default().requested_policy_version;
    check_version(FIELD, version)?;
    if has_condition(policy) && version != CONDITIONAL {
        let why = format_args!("{version}, must be {CONDITIONAL}: the policy has conditions");
        return Err(limits::refuse(FIELD, why));
    }
    Ok(())
}

/// Checks a change of the policy `known`; gives what it becomes, with the etag `etag`.
///
/// # Errors
///
/// INVALID_ARGUMENT, UNIMPLEMENTED; ABORTED where the request's etag is that of another state.
pub fn check_set(known: &Policy, request: SetIamPolicyRequest, etag: Bytes) -> Result<Policy, Status> {
    for path in request.update_mask.iter().flat_map(|mask| &mask.paths) {
        if !matches!(path.as_str(), "bindings" | "etag" | "version") {
            return Err(limits::refuse(
                "update_mask",
                format_args!("{path:?}, must be bindings, etag or version"),
            ));
        }
    }
    let policy = request.policy.ok_or_else(|| limits::refuse("policy", "is missing"))?;
    if !policy.audit_configs.is_empty() {
        let why = "policy.audit_configs: audit logs are not built in this version of Hayloft.";
        return Err(Status::unimplemented(why));
    }
    check_version("policy.version", policy.version)?;
    check_bindings(&policy.bindings)?;
    let is_conditional = has_condition(&policy);
    // Only who names the state that it replaces can know of its conditions.
    let replaces_condition = !policy.etag.is_empty() && has_condition(known);
    if (is_conditional || replaces_condition) && policy.version != CONDITIONAL {
        let whose = if is_conditional { "the policy" } else { "the policy that it replaces" };
        let why = format_args!("{}, must be {CONDITIONAL}: {whose} has conditions", policy.version);
        return Err(limits::refuse("policy.version", why));
    }
    if !policy.etag.is_empty() && policy.etag != known.etag {
        return Err(Status::aborted("policy.etag: the policy has changed since it was read; read it again"));
    }
    let version = if is_conditional { CONDITIONAL } else { PLAIN };
    let policy = Policy { version, etag, ..policy };
    limits::check_at_most("policy", prost::Message::encoded_len(&policy), POLICY_BYTES_MAX, "bytes")?;
    Ok(policy)
}

/// Checks what a TestIamPermissions asks about; each permission once, in their order.
///
/// # Errors
///
/// INVALID_ARGUMENT.
pub fn check_permissions(permissions: Vec<String>) -> Result<Vec<String>, Status> {
    limits::check_at_most("permissions", permissions.len(), PERMISSION_COUNT_MAX, "permissions")?;
    let mut once: Vec<String> = Vec::with_capacity(permissions.len());
    for (place, permission) in permissions.into_iter().enumerate() {
        let mut parts = permission.split('.');
        let is_part = |part: Option<&str>| {
            part.is_some_and(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric()))
        };
        let is_permission = parts.next() == Some("bigtable")
            && is_part(parts.next())
            && is_part(parts.next())
            && parts.next().is_none();
        if !is_permission {
            let shown: String = permission.chars().take(256).collect();
            let why = format_args!("{shown:?} is not of the form \"bigtable.<resource>.<verb>\"");
            return Err(limits::refuse(format_args!("permissions[{place}]"), why));
        }
        if !once.contains(&permission) {
            once.push(permission);
        }
    }
    Ok(once)
}

fn has_condition(policy: &Policy) -> bool {
    policy.bindings.iter().any(|binding| binding.condition.is_some())
}

fn check_version(field: &str, version: i32) -> Result<(), Status> {
    match version {
        0 | PLAIN | CONDITIONAL => Ok(()),
        _ => Err(limits::refuse(field, format_args!("{version}, must be 0, {PLAIN} or {CONDITIONAL}"))),
    }
}

fn check_bindings(bindings: &[Binding]) -> Result<(), Status> {
    for (place, binding) in bindings.iter().enumerate() {
        let field = format!("policy.bindings[{place}]");
        if !is_role(&binding.role) {
            let why = format_args!("{:?} is not of the form \"roles/<role>\"", cut(&binding.role));
            return Err(limits::refuse(format_args!("{field}.role"), why));
        }
        if binding.members.is_empty() {
            return Err(limits::refuse(format_args!("{field}.members"), "is empty, at least 1 is needed"));
        }
        for (place, member) in binding.members.iter().enumerate() {
            if !is_member(member) {
                let why = format_args!("{:?} is no principal, such as \"user:ada@example.com\"", cut(member));
                return Err(limits::refuse(format_args!("{field}.members[{place}]"), why));
            }
        }
        if let Some(condition) = &binding.condition {
            for (part, text) in [("expression", &condition.expression), ("title", &condition.title)] {
                if text.is_empty() {
                    return Err(limits::refuse(format_args!("{field}.condition.{part}"), "is empty"));
                }
            }
        }
    }
    let members = || bindings.iter().flat_map(|binding| &binding.members);
    limits::check_at_most("policy.bindings", members().count(), MEMBER_COUNT_MAX, "members in all")?;
    let group_count = members().filter(|member| member.starts_with("group:")).count();
    limits::check_at_most("policy.bindings", group_count, GROUP_COUNT_MAX, "groups in all")
}

fn is_role(role: &str) -> bool {
    let parts: Vec<&str> = role.split('/').collect();
    let has_form = matches!(parts.as_slice(), ["roles", _] | ["projects" | "organizations", _, "roles", _]);
    has_form && parts.iter().all(|part| !part.is_empty())
}

fn is_member(member: &str) -> bool {
    const KINDS: [&str; 8] = [
        "user",
        "serviceAccount",
        "group",
        "domain",
        "projectOwner",
        "projectEditor",
        "projectViewer",
        "deleted",
    ];
    if matches!(member, "allUsers" | "allAuthenticatedUsers") {
        return true;
    }
    match member.split_once(':') {
        Some(("principal" | "principalSet", rest)) => {
            rest.strip_prefix("//").is_some_and(|rest| !rest.is_empty())
        }
        Some((kind, rest)) => {
            KINDS.contains(&kind) && !rest.is_empty() && !rest.contains(char::is_whitespace)
        }
        None => false,
    }
}

fn cut(text: &str) -> String {
    text.chars().take(256).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use row_api::iam::{Expr, GetPolicyOptions};
    use tonic::Code;

    fn policy(role: &str, members: &[&str]) -> Policy {
        let members = members.iter().map(|member| (*member).to_owned()).collect();
        Policy {
            bindings: vec![Binding { role: role.to_owned(), members, condition: None }],
            ..Policy::default()
        }
    }

    fn conditional(version: i32) -> Policy {
        let mut policy = policy("roles/bigtable.reader", &["allUsers"]);
        let (expression, title) = ("true".to_owned(), "always".to_owned());
        policy.bindings[0].condition = Some(Expr { expression, title, ..Expr::default() });
        Policy { version, ..policy }
    }

    fn set(known: &Policy, policy: Policy) -> Result<Policy, Status> {
        let request = SetIamPolicyRequest { policy: Some(policy), ..SetIamPolicyRequest::default() };
        check_set(known, request, Bytes::from_static(b"new"))
    }

    fn get(policy: &Policy, requested_policy_version: i32) -> Code {
        let options = Some(GetPolicyOptions { requested_policy_version });
        let request = GetIamPolicyRequest { options, ..GetIamPolicyRequest::default() };
        check_get(policy, &request).map_or_else(|status| status.code(), |()| Code::Ok)
    }

    #[test]
    fn a_policy_is_replaced_under_its_etag() {
        let first = set(&unset(), policy("roles/bigtable.user", &["user:ada@example.com"])).unwrap();
        assert_eq!((first.version, &*first.etag), (1, &b"new"[..]));
        let stale = Policy { etag: unset().etag, ..policy("roles/bigtable.user", &["allUsers"]) };
        assert_eq!(set(&first, stale.clone()).unwrap_err().code(), Code::Aborted);
        set(&first, Policy { etag: first.etag.clone(), ..stale.clone() }).unwrap();
        set(&first, Policy { etag: Bytes::new(), ..stale }).unwrap();
    }

    #[test]
    fn conditions_need_version_three() {
        for version in [0, 1] {
            assert_eq!(set(&unset(), conditional(version)).unwrap_err().code(), Code::InvalidArgument);
        }
        let known = set(&unset(), conditional(3)).unwrap();
        assert_eq!(known.version, 3);
        let plain =
            |version| Policy { version, etag: known.etag.clone(), ..policy("roles/x", &["allUsers"]) };
        assert_eq!(set(&known, plain(1)).unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(set(&known, plain(3)).unwrap().version, 1);
        assert_eq!(get(&known, 3), Code::Ok);
        for version in [0, 1, 2, 4] {
            assert_eq!(get(&known, version), Code::InvalidArgument);
        }
        assert_eq!(get(&unset(), 0), Code::Ok);
        assert_eq!(get(&unset(), 3), Code::Ok);
    }

    #[test]
    fn a_malformed_policy_is_refused_by_field() {
        let many: Vec<String> = (0..1_501).map(|n| format!("user:{n}@example.com")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        for (policy, field) in [
            (Policy { version: 2, ..Policy::default() }, "policy.version: 2, "),
            (policy("bigtable.user", &["allUsers"]), "policy.bindings[0].role: "),
            (policy("roles/", &["allUsers"]), "policy.bindings[0].role: "),
            (policy("roles/x", &[]), "policy.bindings[0].members: "),
            (policy("roles/x", &["allUsers", "ada"]), "policy.bindings[0].members[1]: "),
            (policy("roles/x", &["robot:ada"]), "policy.bindings[0].members[0]: "),
            (policy("roles/x", &many), "policy.bindings: 1501 members in all, at most 1500"),
        ] {
            let error = set(&unset(), policy).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{field}");
            assert!(error.message().starts_with(field), "{error}");
        }
        for member in ["principal://iam.googleapis.com/x", "deleted:user:ada@x?uid=1", "domain:example.com"] {
            set(&unset(), policy("projects/p/roles/own", &[member])).unwrap();
        }
    }

    #[test]
    fn permissions_are_named_in_full() {
        let check = |permissions: &[&str]| {
            check_permissions(permissions.iter().map(|name| (*name).to_owned()).collect())
        };
        let read = "bigtable.tables.readRows";
        assert_eq!(check(&[read, "bigtable.tables.get", read]).unwrap(), [read, "bigtable.tables.get"]);
        for bad in ["", "*", "bigtable.*", "bigtable.tables.*", "bigtable.tables", "storage.objects.get"] {
            assert_eq!(check(&[bad]).unwrap_err().code(), Code::InvalidArgument, "{bad}");
        }
    }
}
