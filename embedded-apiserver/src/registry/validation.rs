//! What makes a CustomResourceDefinition invalid, in the words and the order of the real server
//! (`apiextensions-apiserver/pkg/apis/apiextensions/validation`).
//!
//! For: everything but its metadata, and but what stands in its schemas, which the schema module checks.

use serde_json::{Value, json};

use super::conversion::conversion;
use super::custom::{is_established, strings, versions};
use super::text;
use crate::schema::{Cause, Schema, field_path};

const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN_1123: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const APPROVAL: &str = "api-approved.kubernetes.io";
/// No version may have more selectable fields.
const MAX_SELECTABLE_FIELDS: usize = 8;

/// What is wrong with a name that has to be a DNS label, or nothing.
pub(crate) fn label_problem(name: &str) -> Option<String> {
    let mut problems = Vec::new();
    if name.len() > 63 {
        problems.push("must be no more than 63 bytes".to_owned());
    }
    let letters = name
        .bytes()
        .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'-');
    if !letters || !name.starts_with(|first: char| first.is_ascii_lowercase()) || name.ends_with('-') {
        problems.push(LABEL_1035.to_owned());
    }
    (!problems.is_empty()).then(|| problems.join(","))
}

/// What is wrong with a name that has to be a DNS subdomain, or nothing.
pub(super) fn subdomain_problem(name: &str) -> Option<String> {
    let mut problems = Vec::new();
    if name.len() > 253 {
        problems.push("must be no more than 253 bytes".to_owned());
    }
    let is_label = |label: &str| {
        let edge =
            |letter: Option<char>| letter.is_some_and(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit());
        edge(label.chars().next())
            && edge(label.chars().last())
            && label
                .bytes()
                .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'-')
    };
    if !name.split('.').all(is_label) {
        problems.push(SUBDOMAIN_1123.to_owned());
    }
    (!problems.is_empty()).then(|| problems.join(","))
}

pub(super) fn invalid(field: &str, value: &str, detail: &str) -> Cause {
    Cause::invalid(field, &json!(value), detail)
}

/// What a definition must be; `old` makes some of it immutable, `subresource` is that of the request.
pub fn validate(definition: &Value, old: Option<&Value>, subresource: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    if subresource == "status" {
        validate_names(
            &definition["status"]["acceptedNames"],
            "status.acceptedNames",
            &mut causes,
        );
        return causes;
    }
    let group = text(definition, "/spec/group");
    let name = text(definition, "/metadata/name");
    if old.is_none() && !name.is_empty() && name != format!("{}.{group}", text(definition, "/spec/names/plural")) {
        causes.push(invalid(
            "metadata.name",
            name,
            "must be spec.names.plural+\".\"+spec.group",
        ));
    }
    Specification::new(definition, old).validate(&mut causes);
    conversion(definition, old, &mut causes);
    if let Some(old) = old {
        immutable(definition, old, &mut causes);
    }
    validate_names(
        &definition["status"]["acceptedNames"],
        "status.acceptedNames",
        &mut causes,
    );
    stored_versions(definition, &mut causes);
    approval(definition, old, &mut causes);
    if definition["spec"]["preserveUnknownFields"] == true {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in \
                      spec.versions[*].schema instead";
        causes.push(Cause::invalid("spec.preserveUnknownFields", &json!(true), detail));
    }
    causes
}

fn immutable(definition: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let established: &[&str] = if is_established(old) {
        &["scope", "names/kind"]
    } else {
        &[]
    };
    for path in established.iter().chain(&["group", "names/plural"]) {
        let pointer = format!("/spec/{path}");
        if old.pointer(&pointer) != definition.pointer(&pointer) {
            let field = format!("spec.{}", path.replace('/', "."));
            causes.push(invalid(&field, text(definition, &pointer), "field is immutable"));
        }
    }
}

fn stored_versions(definition: &Value, causes: &mut Vec<Cause>) {
    let field = "status.storedVersions";
    let list = definition.pointer("/status/storedVersions");
    let stored = strings(list);
    if stored.is_empty() {
        let value = list.filter(|list| list.is_array()).unwrap_or(&Value::Null);
        causes.push(Cause::invalid(field, value, "must have at least one stored version"));
        return;
    }
    let names: Vec<&str> = versions(definition).map(|version| text(version, "/name")).collect();
    for version in versions(definition).filter(|version| version["storage"] == true) {
        let name = text(version, "/name");
        if !stored.contains(&name) {
            let detail = format!("must have the storage version {name}");
            causes.push(Cause::invalid(field, &json!(stored), &detail));
        }
    }
    for (at, version) in stored.iter().enumerate() {
        if !names.contains(version) {
            let detail = format!(
                "missing from spec.versions; {version} was previously a storage version, and must remain in \
                 spec.versions until a storage migration ensures no data remains persisted in {version} and removes \
                 {version} from status.storedVersions"
            );
            causes.push(invalid(&format!("{field}[{at}]"), version, &detail));
        }
    }
}

/// Groups of the Kubernetes community need an annotation that says who approved the API.
fn approval(definition: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    #[derive(PartialEq)]
    enum State {
        Missing,
        Bypassed,
        Approved,
        Invalid,
    }
    let group = text(definition, "/spec/group");
    let protected = ["k8s.io", "kubernetes.io"].iter().any(|domain| {
        group
            .strip_suffix(domain)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    });
    if !protected {
        return;
    }
    let annotation = |definition: &Value| {
        definition["metadata"]["annotations"][APPROVAL]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let state = |annotation: &str| {
        let is_url = || {
            annotation
                .split_once("://")
                .is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty() && !rest.starts_with('/'))
        };
        match annotation {
            "" => State::Missing,
            _ if annotation.starts_with("unapproved") => State::Bypassed,
            _ if is_url() => State::Approved,
            _ => State::Invalid,
        }
    };
    let new = annotation(definition);
    let now = state(&new);
    if old.is_some_and(|old| state(&annotation(old)) == now) {
        return;
    }
    let field = format!("metadata.annotations[{APPROVAL}]");
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    match now {
        State::Missing => {
            let detail = format!("protected groups must have approval annotation \"{APPROVAL}\", {see}");
            causes.push(Cause::required(&field, &detail));
        }
        State::Invalid => {
            let detail = format!(
                "protected groups must have approval annotation \"{APPROVAL}\" with either a URL or a reason starting \
                 with \"unapproved\", {see}"
            );
            causes.push(invalid(&field, &new, &detail));
        }
        State::Bypassed | State::Approved => {}
    }
}

fn validate_names(names: &Value, field: &str, causes: &mut Vec<Cause>) {
    let mixed = "may have mixed case, but should otherwise match: ";
    for (key, is_mixed) in [
        ("plural", false),
        ("singular", false),
        ("kind", true),
        ("listKind", true),
    ] {
        let name = names[key].as_str().unwrap_or_default();
        let compared = if is_mixed { name.to_lowercase() } else { name.to_owned() };
        if let Some(problem) = label_problem(&compared).filter(|_| !name.is_empty()) {
            let detail = if is_mixed { format!("{mixed}{problem}") } else { problem };
            causes.push(invalid(&format!("{field}.{key}"), name, &detail));
        }
    }
    let list = |key: &str, causes: &mut Vec<Cause>| {
        for (at, name) in strings(names.get(key)).into_iter().enumerate() {
            if let Some(problem) = label_problem(name) {
                causes.push(invalid(&format!("{field}.{key}[{at}]"), name, &problem));
            }
        }
    };
    list("shortNames", causes);
    let kind = names["kind"].as_str().unwrap_or_default();
    if !kind.is_empty() && names["listKind"] == kind {
        let detail = "kind and listKind may not be the same";
        causes.push(invalid(&format!("{field}.listKind"), kind, detail));
    }
    list("categories", causes);
}

/// The specification as the real server sees it inside: what all versions have alike stands once, at the top.
struct Specification<'definition> {
    spec: &'definition Value,
    old: Option<&'definition Value>,
    versions: Vec<&'definition Value>,
    /// Which of the keys below all versions have alike.
    shared: [bool; 4],
}

/// What a version has of its own: its key, and what it is called at the top.
const PARTS: [(&str, &str); 4] = [
    ("schema", "validation"),
    ("subresources", "subresources"),
    ("additionalPrinterColumns", "additionalPrinterColumns"),
    ("selectableFields", "selectableFields"),
];
const SCHEMA: usize = 0;
const SUBRESOURCES: usize = 1;
const COLUMNS: usize = 2;
const SELECTABLE_FIELDS: usize = 3;

impl<'definition> Specification<'definition> {
    fn new(definition: &'definition Value, old: Option<&'definition Value>) -> Self {
        let versions: Vec<&Value> = versions(definition).collect();
        let part = |version: &'definition Value, key: &str| {
            version.get(key).filter(|value| match value {
                Value::Null => false,
                Value::Array(items) => !items.is_empty(),
                _ => true,
            })
        };
        let shared = PARTS.map(|(key, _)| {
            versions
                .first()
                .is_some_and(|first| versions.iter().all(|version| part(version, key) == part(first, key)))
        });
        Self {
            spec: &definition["spec"],
            old,
            versions,
            shared,
        }
    }

    /// A part of a version, with the path under which it is found.
    fn parts(&self, which: usize) -> Vec<(Option<usize>, String, &'definition Value)> {
        let (key, top) = PARTS[which];
        let present = |version: &&'definition Value| version.get(key).filter(|value| !value.is_null());
        if self.shared[which] {
            let first = self.versions.first().and_then(present);
            first
                .map(|part| (None, format!("spec.{top}"), part))
                .into_iter()
                .collect()
        } else {
            let own = self.versions.iter().enumerate();
            own.filter_map(|(at, version)| Some((Some(at), format!("spec.versions[{at}].{key}"), present(version)?)))
                .collect()
        }
    }

    fn validate(&self, causes: &mut Vec<Cause>) {
        let spec = self.spec;
        let group = text(spec, "/group");
        if group.is_empty() {
            causes.push(Cause::required("spec.group", ""));
        } else if let Some(problem) = subdomain_problem(group) {
            causes.push(invalid("spec.group", group, &problem));
        } else if !group.contains('.') {
            causes.push(invalid("spec.group", group, "should be a domain with at least one dot"));
        }
        one_of("spec.scope", text(spec, "/scope"), ["Cluster", "Namespaced"], causes);
        for (at, version) in self.versions.iter().enumerate() {
            if !version["schema"]["openAPIV3Schema"].is_object() {
                let field = format!("spec.versions[{at}].schema.openAPIV3Schema");
                causes.push(Cause::required(&field, ""));
            }
        }
        for (at, version) in self.versions.iter().enumerate() {
            self.version(at, version, causes);
        }
        let mut names: Vec<&str> = self.versions.iter().map(|version| text(version, "/name")).collect();
        let first = names.first().copied().unwrap_or_default();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            causes.push(self.of_versions("must contain unique version names"));
        }
        if self
            .versions
            .iter()
            .filter(|version| version["storage"] == true)
            .count()
            != 1
        {
            causes.push(self.of_versions("must have exactly one version marked as storage version"));
        }
        if let Some(problem) = label_problem(first).filter(|_| !first.is_empty()) {
            causes.push(invalid("spec.version", first, &problem));
        }
        for name in ["plural", "singular", "kind", "listKind"] {
            if text(&spec["names"], &format!("/{name}")).is_empty() {
                causes.push(Cause::required(&format!("spec.names.{name}"), ""));
            }
        }
        validate_names(&spec["names"], "spec.names", causes);
        self.parts_of(None, causes);
    }

    fn version(&self, at: usize, version: &Value, causes: &mut Vec<Cause>) {
        let field = format!("spec.versions[{at}]");
        let name = text(version, "/name");
        if let Some(problem) = label_problem(name) {
            causes.push(invalid(&format!("{field}.name"), name, &problem));
        }
        if let Some(warning) = version["deprecationWarning"].as_str() {
            let field = format!("{field}.deprecationWarning");
            for problem in deprecation_problems(version["deprecated"] == true, warning) {
                causes.push(invalid(&field, warning, &problem));
            }
        }
        self.parts_of(Some(at), causes);
    }

    /// The parts of one version, or of all of them.
    fn parts_of(&self, of: Option<usize>, causes: &mut Vec<Cause>) {
        let here = |which: usize| self.parts(which).into_iter().filter(move |(at, ..)| *at == of);
        for (_, path, part) in here(SCHEMA) {
            let Some(schema) = part.get("openAPIV3Schema").filter(|schema| schema.is_object()) else {
                continue;
            };
            let unchanged = self.is_unchanged(of, schema);
            let found = Schema::check(schema, self.has_status(of), unchanged);
            let path = format!("{path}.openAPIV3Schema");
            causes.extend(found.into_iter().map(|cause| cause.under(&path)));
        }
        for (_, path, part) in here(SUBRESOURCES) {
            scale(&part["scale"], &format!("{path}.scale"), causes);
        }
        for (_, path, part) in here(COLUMNS) {
            for (at, column) in part.as_array().into_iter().flatten().enumerate() {
                printer_column(column, &format!("{path}[{at}]"), causes);
            }
        }
        for (_, path, part) in here(SELECTABLE_FIELDS) {
            let version = self.versions.get(of.unwrap_or_default());
            let schema = version.map(|version| &version["schema"]["openAPIV3Schema"]);
            if let Some(fields) = part.as_array().filter(|fields| !fields.is_empty()) {
                selectable_fields(fields, schema.unwrap_or(&Value::Null), &path, causes);
            }
        }
    }

    /// Whether the schema is, in the same version, that of the old definition: then its costs are not looked at again.
    fn is_unchanged(&self, of: Option<usize>, schema: &Value) -> bool {
        let name = self
            .versions
            .get(of.unwrap_or_default())
            .map(|version| &version["name"]);
        self.old.is_some_and(|old| {
            versions(old)
                .any(|version| Some(&version["name"]) == name && version["schema"]["openAPIV3Schema"] == *schema)
        })
    }

    fn has_status(&self, of: Option<usize>) -> bool {
        self.parts(SUBRESOURCES)
            .iter()
            .any(|(at, _, part)| (at.is_none() || of.is_none() || *at == of) && part["status"].is_object())
    }

    /// A cause about all versions, printed as the real server's own structures are.
    fn of_versions(&self, detail: &str) -> Cause {
        let or_null = |value: &Value| value.clone();
        let shown: Vec<String> = self
            .versions
            .iter()
            .map(|version| {
                let own = |which: usize| {
                    let (key, _) = PARTS[which];
                    if self.shared[which] {
                        Value::Null
                    } else {
                        or_null(&version[key])
                    }
                };
                format!(
                    "{{\"Name\":{},\"Served\":{},\"Storage\":{},\"Deprecated\":{},\"DeprecationWarning\":{},\
                     \"Schema\":{},\"Subresources\":{},\"AdditionalPrinterColumns\":{},\"SelectableFields\":{}}}",
                    json!(text(version, "/name")),
                    version["served"] == true,
                    version["storage"] == true,
                    version["deprecated"] == true,
                    version["deprecationWarning"],
                    own(SCHEMA),
                    own(SUBRESOURCES),
                    own(COLUMNS),
                    own(SELECTABLE_FIELDS),
                )
            })
            .collect();
        let shown = if self.spec["versions"].is_array() {
            format!("[{}]", shown.join(","))
        } else {
            "null".to_owned()
        };
        Cause {
            reason: "FieldValueInvalid".to_owned(),
            field: "spec.versions".to_owned(),
            message: format!("Invalid value: {shown}: {detail}"),
        }
    }
}

pub(super) fn one_of(field: &str, value: &str, allowed: [&str; 2], causes: &mut Vec<Cause>) {
    if value.is_empty() {
        causes.push(Cause::required(field, ""));
    } else if !allowed.contains(&value) {
        causes.push(Cause::not_supported(field, &json!(value), &allowed.map(str::to_owned)));
    }
}

fn deprecation_problems(deprecated: bool, warning: &str) -> Vec<String> {
    if !deprecated {
        return vec!["can only be set for deprecated versions".to_owned()];
    }
    let mut problems = Vec::new();
    if warning.len() > 256 {
        problems.push("must be <= 256 characters long".to_owned());
    }
    if warning.is_empty() {
        problems.push("must not be an empty string".to_owned());
    }
    let hidden = |letter: char| letter.is_control() || (letter.is_whitespace() && letter != ' ');
    if let Some((at, _)) = warning.char_indices().find(|(_, letter)| hidden(*letter)) {
        problems.push(format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {at}"
        ));
    }
    problems
}

fn scale(scale: &Value, field: &str, causes: &mut Vec<Cause>) {
    if !scale.is_object() {
        return;
    }
    for (key, prefixes, required, place) in [
        (
            "specReplicasPath",
            &[".spec."][..],
            true,
            "should be a json path under .spec",
        ),
        (
            "statusReplicasPath",
            &[".status."],
            true,
            "should be a json path under .status",
        ),
        (
            "labelSelectorPath",
            &[".spec.", ".status."],
            false,
            "should be a json path under either .spec or .status",
        ),
    ] {
        let field = format!("{field}.{key}");
        let path = text(scale, &format!("/{key}"));
        if path.is_empty() {
            if required {
                causes.push(Cause::required(&field, ""));
            }
        } else if !path.starts_with('.') {
            causes.push(invalid(&field, path, "must be a simple json path starting with ."));
        } else if !prefixes.iter().any(|prefix| path.starts_with(prefix)) {
            causes.push(invalid(&field, path, place));
        }
    }
}

fn printer_column(column: &Value, field: &str, causes: &mut Vec<Cause>) {
    const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
    const FORMATS: [&str; 8] = [
        "byte",
        "date",
        "date-time",
        "double",
        "float",
        "int32",
        "int64",
        "password",
    ];
    let name = text(column, "/name");
    if name.is_empty() {
        causes.push(Cause::required(&format!("{field}.name"), ""));
    }
    let kind = text(column, "/type");
    let must = format!("must be one of {}", TYPES.join(","));
    if kind.is_empty() {
        causes.push(Cause::required(&format!("{field}.type"), &must));
    } else if !TYPES.contains(&kind) {
        causes.push(invalid(&format!("{field}.type"), kind, &must));
    }
    let format = text(column, "/format");
    if !format.is_empty() && !FORMATS.contains(&format) {
        let must = format!("must be one of {}", FORMATS.join(","));
        causes.push(invalid(&format!("{field}.format"), format, &must));
    }
    let path = text(column, "/jsonPath");
    let field = format!("{field}.JSONPath");
    if path.is_empty() {
        causes.push(Cause::required(&field, ""));
    } else if !path.starts_with('.') {
        causes.push(invalid(&field, path, "must be a simple json path starting with ."));
    }
}

fn selectable_fields(fields: &[Value], schema: &Value, field: &str, causes: &mut Vec<Cause>) {
    let mut known: Vec<String> = Vec::new();
    for (at, selectable) in fields.iter().enumerate() {
        let field = format!("{field}[{at}].jsonPath");
        let path = text(selectable, "/jsonPath");
        if path.is_empty() {
            causes.push(Cause::required(&field, ""));
            continue;
        }
        let (normal, found) = match field_path(path, schema, false) {
            Ok(found) => found,
            Err(problem) => {
                causes.push(invalid(&field, path, &format!("is an invalid path: {problem}")));
                continue;
            }
        };
        if normal == "metadata" || normal.starts_with("metadata.") {
            causes.push(invalid(&field, path, "must not point to fields in metadata"));
        }
        if !["string", "boolean", "integer"].contains(&text(found, "/type")) {
            let detail = "must point to a field of type string, boolean or integer. Enum string fields and strings \
                          with formats are allowed.";
            causes.push(invalid(&field, path, detail));
        }
        if known.contains(&normal) {
            causes.push(Cause::duplicate(&field, &json!(path)));
        } else {
            known.push(normal);
        }
    }
    if known.len() > MAX_SELECTABLE_FIELDS {
        causes.push(Cause::too_many(field, known.len() as u64, MAX_SELECTABLE_FIELDS as u64));
    }
}

/// Formats of texts that are not checked because nobody knows them: what a client is warned of.
pub fn unknown_formats(definition: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let all: Vec<&Value> = versions(definition)
        .map(|version| &version["schema"]["openAPIV3Schema"])
        .collect();
    // What all versions have alike is looked at once.
    let alike = all.windows(2).all(|pair| pair[0] == pair[1]);
    for schema in all.iter().take(if alike { 1 } else { all.len() }) {
        crate::schema::unknown_formats(schema, &mut found);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition() -> Value {
        json!({
            "metadata": { "name": "things.example.com" },
            "spec": {
                "group": "example.com", "scope": "Namespaced",
                "names": { "plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList" },
                "conversion": { "strategy": "None" },
                "versions": [
                    { "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": { "type": "object" } } },
                ],
            },
            "status": { "storedVersions": ["v1"] },
        })
    }

    fn fields(definition: &Value, old: Option<&Value>) -> Vec<String> {
        validate(definition, old, "")
            .into_iter()
            .map(|cause| cause.field)
            .collect()
    }

    #[test]
    fn a_whole_definition_is_accepted() {
        assert_eq!(fields(&definition(), None), [""; 0]);
    }

    #[test]
    fn what_all_versions_have_alike_is_blamed_at_the_top() {
        let mut one = definition();
        one["spec"]["versions"][0]["subresources"] = json!({ "scale": { "specReplicasPath": ".spec.a" } });
        assert_eq!(fields(&one, None), ["spec.subresources.scale.statusReplicasPath"]);
        let mut two = one.clone();
        let second = json!({ "name": "v2", "served": true, "storage": false, "schema": { "openAPIV3Schema": { "type": "object" } } });
        two["spec"]["versions"].as_array_mut().expect("a list").push(second);
        assert_eq!(
            fields(&two, None),
            ["spec.versions[0].subresources.scale.statusReplicasPath"]
        );
    }

    #[test]
    fn a_storage_version_stays_until_nothing_is_stored_in_it() {
        let mut old = definition();
        old["status"]["conditions"] = json!([{ "type": "Established", "status": "True" }]);
        let mut new = old.clone();
        new["spec"]["versions"][0]["name"] = "v2".into();
        assert_eq!(
            fields(&new, Some(&old)),
            ["status.storedVersions", "status.storedVersions[0]"]
        );
        new["status"]["storedVersions"] = json!(["v2"]);
        new["spec"]["scope"] = "Cluster".into();
        assert_eq!(fields(&new, Some(&old)), ["spec.scope"]);
    }

    #[test]
    fn webhooks_need_a_whole_client() {
        let mut webhook = definition();
        webhook["spec"]["conversion"] = json!({
            "strategy": "Webhook",
            "webhook": {
                "conversionReviewVersions": ["v2"],
                "clientConfig": { "url": "http://host/path?query" },
            },
        });
        assert_eq!(
            fields(&webhook, None),
            [
                "spec.conversion.webhookClientConfig.url",
                "spec.conversion.webhookClientConfig.url",
                "spec.conversion.conversionReviewVersions",
            ]
        );
    }
}
