//! The rules of metadata, in the words and in the order of the real server: names, labels, annotations, owners, finalizers.
//!
//! From `k8s.io/apimachinery/pkg/api/validation` and `pkg/util/validation`. Not for: types of fields (`validate`).

use serde_json::{Map, Value};

use super::Request;
use super::error::cause;
use super::object::{finalizers, generation, is_deleting, metadata_text};
use crate::builtin::formats::{dns_label, dns_subdomain, label_value, qualified_name};
use crate::registry::Behaviour;
use crate::schema::{Cause, go_quote};

/// The size of all annotations together, in bytes.
const ANNOTATIONS_LIMIT: usize = 256 << 10;
/// Finalizers that need no domain.
pub const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

/// One look at the metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// At all of it, as every kind has it.
    Whole,
    /// As `Whole`; finalizers need a domain besides.
    WholeStrict,
    /// At what changed.
    Change,
    /// As `Change`; finalizers need a domain besides.
    ChangeStrict,
}

/// How the validation of a kind looks at the metadata, in its order (`pkg/apis/*/validation` and
/// `pkg/registry/*/*/strategy.go` of the real server).
fn looks(request: &Request, creates: bool) -> &'static [Look] {
    use Look::{Change, ChangeStrict, Whole, WholeStrict};
    let resource = &request.resource;
    match (resource.behaviour, creates, request.subresource.as_str()) {
        (Behaviour::Event | Behaviour::PodDisruptionBudget, ..) => &[],
        (Behaviour::Custom | Behaviour::CustomResourceDefinition, true, _) => &[Whole],
        (Behaviour::Custom | Behaviour::CustomResourceDefinition, false, _) => &[Change],
        (Behaviour::Plain, true, _) if resource.kind == "Lease" => &[Whole],
        (Behaviour::Plain, false, _) if resource.kind == "Lease" => &[Change],
        (_, true, _) => &[WholeStrict],
        (Behaviour::Policy, false, _) => &[WholeStrict, WholeStrict, ChangeStrict],
        (Behaviour::Namespace | Behaviour::Plain, false, "") => &[WholeStrict, ChangeStrict],
        (Behaviour::ConfigMap | Behaviour::Secret | Behaviour::ServiceAccount | Behaviour::Pod, false, "") => {
            &[ChangeStrict, WholeStrict]
        }
        (_, false, _) => &[ChangeStrict],
    }
}

/// What is wrong with the metadata of an object that is created, or that replaces `old`.
pub fn problems(request: &Request, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let own = looks(request, old.is_none());
    // What all kinds go through besides: before their own rules when they change, and after them when they are made,
    // where it finds nothing new.
    let general: &[Look] = match old {
        Some(_) => &[Look::Whole, Look::Change],
        None if own.is_empty() => &[Look::Whole],
        None => &[],
    };
    for look in general.iter().chain(own) {
        match (look, old) {
            (Look::Whole | Look::WholeStrict, _) => {
                if old.is_none() {
                    names(request, object, &mut causes);
                }
                common(object, &mut causes);
                finalizer_names(object, &mut causes);
            }
            (Look::Change | Look::ChangeStrict, Some(old)) => changes(object, old, &mut causes),
            (Look::Change | Look::ChangeStrict, None) => {}
        }
        if matches!(look, Look::WholeStrict | Look::ChangeStrict) {
            full_finalizer_names(object, &mut causes);
        }
    }
    causes
}

fn invalid(field: &str, value: &str, problem: &str) -> Cause {
    cause(
        "FieldValueInvalid",
        field,
        format!("Invalid value: {}: {problem}", go_quote(value)),
    )
}

/// What is wrong with a part of a path.
pub fn path_segment(text: &str) -> Vec<String> {
    if matches!(text, "." | "..") {
        return vec![format!("may not be '{text}'")];
    }
    ["/", "%"]
        .into_iter()
        .filter(|part| text.contains(part))
        .map(|part| format!("may not contain '{part}'"))
        .collect()
}

/// What is wrong with a name of this kind of object; `base` if something is still to be added to it.
fn name_problems(request: &Request, name: &str, base: bool) -> Vec<String> {
    // These have no rules of their own about names.
    if matches!(
        request.resource.behaviour,
        Behaviour::Policy | Behaviour::Event | Behaviour::PodDisruptionBudget
    ) {
        return path_segment(name);
    }
    let masked = match name.strip_suffix('-') {
        Some(front) if base && !front.is_empty() => {
            let mut masked: String = front.chars().take(front.chars().count() - 1).collect();
            masked.push('a');
            masked
        }
        _ => name.to_owned(),
    };
    if request.resource.behaviour == Behaviour::Namespace {
        dns_label(&masked)
    } else {
        dns_subdomain(&masked)
    }
}

fn names(request: &Request, object: &Value, causes: &mut Vec<Cause>) {
    let base = metadata_text(object, "generateName");
    if !base.is_empty() {
        let problems = name_problems(request, base, true);
        causes.extend(problems.iter().map(|why| invalid("metadata.generateName", base, why)));
    }
    let name = metadata_text(object, "name");
    if name.is_empty() {
        let message = "Required value: name or generateName is required";
        causes.push(cause("FieldValueRequired", "metadata.name", message));
        return;
    }
    let problems = name_problems(request, name, false);
    causes.extend(problems.iter().map(|why| invalid("metadata.name", name, why)));
    let generation = generation(object);
    if generation < 0 {
        let message = format!("Invalid value: {generation}: must be greater than or equal to 0");
        causes.push(cause("FieldValueInvalid", "metadata.generation", message));
    }
}

/// Labels, annotations and owners.
fn common(object: &Value, causes: &mut Vec<Cause>) {
    for (key, value) in texts(object, "labels") {
        let field = "metadata.labels";
        causes.extend(qualified_name(key).iter().map(|why| invalid(field, key, why)));
        causes.extend(label_value(value).iter().map(|why| invalid(field, value, why)));
    }
    let mut size = 0;
    for (key, value) in texts(object, "annotations") {
        size += key.len() + value.len();
        let problems = qualified_name(&key.to_lowercase());
        causes.extend(problems.iter().map(|why| invalid("metadata.annotations", key, why)));
    }
    if size > ANNOTATIONS_LIMIT {
        let message = format!("Too long: may not be more than {ANNOTATIONS_LIMIT} bytes");
        causes.push(cause("FieldValueTooLong", "metadata.annotations", message));
    }
    owners(object, causes);
}

fn owners(object: &Value, causes: &mut Vec<Cause>) {
    const FIELD: &str = "metadata.ownerReferences";
    let none = Vec::new();
    let owners = object
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array)
        .unwrap_or(&none);
    let mut first: Option<String> = None;
    for owner in owners {
        let text = |part: &str| owner[part].as_str().unwrap_or_default();
        let (group, version) = group_version(text("apiVersion"));
        if version.is_empty() {
            let field = format!("{FIELD}.apiVersion");
            causes.push(invalid(&field, text("apiVersion"), "version must not be empty"));
        }
        for part in ["kind", "name", "uid"].into_iter().filter(|part| text(part).is_empty()) {
            causes.push(invalid(&format!("{FIELD}.{part}"), "", "must not be empty"));
        }
        if (group, version, text("kind")) == ("", "v1", "Event") {
            let message = format!(
                "Invalid value: {}: /v1, Kind=Event is disallowed from being an owner",
                shown_owner(owner)
            );
            causes.push(cause("FieldValueInvalid", FIELD, message));
        }
        if owner["controller"] != true {
            continue;
        }
        let controller = format!("{}/{}", text("kind"), text("name"));
        match &first {
            Some(first) => {
                let shown: Vec<String> = owners.iter().map(shown_owner).collect();
                let message = format!(
                    "Invalid value: [{}]: Only one reference can have Controller set to true. Found \"true\" in references for {first} and {controller}",
                    shown.join(",")
                );
                causes.push(cause("FieldValueInvalid", FIELD, message));
            }
            None => first = Some(controller),
        }
    }
}

/// Group and version of an `apiVersion`; both are empty if it is none.
fn group_version(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        None => ("", text),
        Some((_, version)) if version.contains('/') => ("", ""),
        Some(parts) => parts,
    }
}

/// An owner in the order of its type's fields.
fn shown_owner(owner: &Value) -> String {
    let fields = ["apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion"];
    let members: Vec<String> = fields
        .into_iter()
        .filter_map(|field| match owner.get(field) {
            Some(value) if !value.is_null() => Some(format!("\"{field}\":{value}")),
            _ if matches!(field, "controller" | "blockOwnerDeletion") => None,
            _ => Some(format!("\"{field}\":\"\"")),
        })
        .collect();
    format!("{{{}}}", members.join(","))
}

fn finalizer_names(object: &Value, causes: &mut Vec<Cause>) {
    const FIELD: &str = "metadata.finalizers";
    let finalizers = finalizers(object);
    for finalizer in &finalizers {
        causes.extend(
            qualified_name(finalizer)
                .iter()
                .map(|why| invalid(FIELD, finalizer, why)),
        );
    }
    if finalizers.contains(&"orphan") && finalizers.contains(&"foregroundDeletion") {
        let shown: Vec<String> = finalizers.iter().map(|finalizer| go_quote(finalizer)).collect();
        let message = format!(
            "Invalid value: [{}]: finalizer orphan and foregroundDeletion cannot be both set",
            shown.join(",")
        );
        causes.push(cause("FieldValueInvalid", FIELD, message));
    }
}

/// The server's own kinds want finalizers with a domain.
fn full_finalizer_names(object: &Value, causes: &mut Vec<Cause>) {
    for (at, finalizer) in finalizers(object).into_iter().enumerate() {
        if !finalizer.contains('/') && !STANDARD_FINALIZERS.contains(&finalizer) {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            causes.push(invalid(&format!("metadata.finalizers[{at}]"), finalizer, why));
        }
    }
}

/// What may not change, and what is checked with every change.
fn changes(object: &Value, old: &Value, causes: &mut Vec<Cause>) {
    if is_deleting(old) {
        let before = finalizers(old);
        let new: std::collections::BTreeSet<&str> = finalizers(object)
            .into_iter()
            .filter(|finalizer| !before.contains(finalizer))
            .collect();
        if !new.is_empty() {
            let new: Vec<String> = new.into_iter().map(go_quote).collect();
            let message = format!(
                "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                new.join(", ")
            );
            causes.push(cause("FieldValueForbidden", "metadata.finalizers", message));
        }
    }
    let none = Map::new();
    let metadata = |object: &Value, field: &str| {
        let fields = object.get("metadata").and_then(Value::as_object).unwrap_or(&none);
        fields.get(field).filter(|value| !value.is_null()).cloned()
    };
    for field in [
        "name",
        "namespace",
        "uid",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        let (after, before) = (metadata(object, field), metadata(old, field));
        if after != before {
            let shown = after.unwrap_or_else(|| "".into());
            let message = format!("Invalid value: {shown}: field is immutable");
            causes.push(cause("FieldValueInvalid", &format!("metadata.{field}"), message));
        }
    }
    common(object, causes);
}

fn texts<'object>(object: &'object Value, field: &str) -> impl Iterator<Item = (&'object String, &'object str)> {
    object
        .get("metadata")
        .and_then(|metadata| metadata.get(field))
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| (key, value.as_str().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn parts_of_paths_are_judged_as_the_real_server_does() {
        assert_eq!(path_segment("a/b%"), ["may not contain '/'", "may not contain '%'"]);
    }

    #[test]
    fn owners_are_shown_in_the_order_of_their_type() {
        let object = json!({ "metadata": { "ownerReferences": [
            { "uid": "u", "name": "b", "kind": "K", "apiVersion": "v1", "controller": true },
            { "uid": "w", "name": "c", "kind": "K", "apiVersion": "v1", "controller": true },
        ] } });
        let mut causes = Vec::new();
        owners(&object, &mut causes);
        assert_eq!(causes.len(), 1);
        assert!(
            causes[0].message.starts_with(
                r#"Invalid value: [{"apiVersion":"v1","kind":"K","name":"b","uid":"u","controller":true},"#
            )
        );
        assert!(causes[0].message.ends_with("references for K/b and K/c"));
    }

    #[test]
    fn an_event_of_the_core_group_owns_nothing() {
        for (version, refused) in [("v1", true), ("/v1", true), ("events.k8s.io/v1", false)] {
            let object = json!({ "metadata": { "ownerReferences": [
                { "apiVersion": version, "kind": "Event", "name": "a", "uid": "u" },
            ] } });
            let mut causes = Vec::new();
            owners(&object, &mut causes);
            assert_eq!(!causes.is_empty(), refused, "{version}");
        }
        assert_eq!(group_version("a/b/c"), ("", ""));
        assert_eq!(group_version("a/"), ("a", ""));
    }

    #[test]
    fn what_may_not_change_is_told() {
        let old = json!({ "metadata": { "name": "a", "deletionTimestamp": "t", "finalizers": ["x/a"] } });
        let new = json!({ "metadata": { "name": "a", "finalizers": ["x/b"] } });
        let mut causes = Vec::new();
        changes(&new, &old, &mut causes);
        let fields: Vec<&str> = causes.iter().map(|cause| cause.field.as_str()).collect();
        assert_eq!(fields, ["metadata.finalizers", "metadata.deletionTimestamp"]);
    }
}
