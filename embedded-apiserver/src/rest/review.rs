//! Questions that are answered and not stored: who am I, may I, is this token good.
//!
//! Rules and words are those of `pkg/registry/authorization`, `pkg/registry/authentication` and
//! `pkg/apis/authorization/validation` of the real server.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::error::cause;
use super::object::{metadata_text, set_field, set_metadata};
use super::write::read;
use super::{ApiError, Core, Reply, Request, Subject, now_text, prepare, strategy};
use crate::access::{Attributes, Caller, ISSUER, User};
use crate::managed_fields;
use crate::schema::Cause;
use crate::selector::{
    FieldSelector, LabelRequirement, LabelSelector, Operator, label_value_errors, qualified_name_errors,
};

/// Answers a review.
pub fn create(core: &Core, request: &Request, warnings: &mut Vec<String>) -> Result<Reply, ApiError> {
    let mut review = decode(request, warnings)?;
    manage(request, &mut review)?;
    let status = match request.resource.kind.as_str() {
        "SelfSubjectReview" => {
            review = json!({ "apiVersion": request.api_version(), "kind": "SelfSubjectReview", "metadata": {} });
            set_metadata(&mut review, "creationTimestamp", Some(now_text(request.now).into()));
            json!({ "userInfo": user_info(&request.user) })
        }
        "SelfSubjectAccessReview" => {
            check(request, &access_problems(&review, false))?;
            decide(core, &request.user, &review["spec"])
        }
        "SubjectAccessReview" => {
            check(request, &access_problems(&review, true))?;
            decide(core, &subject(&review["spec"]), &review["spec"])
        }
        "LocalSubjectAccessReview" => {
            check(request, &local_problems(&review))?;
            decide(core, &subject(&review["spec"]), &review["spec"])
        }
        "SelfSubjectRulesReview" => {
            let namespace = review["spec"]["namespace"].as_str().unwrap_or_default();
            if namespace.is_empty() {
                return Err(ApiError::bad_request("no namespace on request"));
            }
            let status = rules(core, &request.user, namespace);
            review = json!({
                "apiVersion": request.api_version(), "kind": "SelfSubjectRulesReview", "metadata": {}, "spec": {},
            });
            set_field(&mut review, "status", Some(status));
            return Ok(answer(review));
        }
        "TokenReview" => token(core, request, &review["spec"])?,
        _ => return Err(ApiError::no_such_resource()),
    };
    set_field(&mut review, "status", Some(status));
    Ok(answer(review))
}

fn answer(value: Value) -> Reply {
    Reply::Value { code: 201, value }
}

fn decode(request: &Request, warnings: &mut Vec<String>) -> Result<Value, ApiError> {
    let mut review = read(request, warnings)?;
    strategy::clear_server_fields(&mut review);
    if request.resource.namespaced {
        prepare::check_place(request, &mut review)?;
    } else {
        set_metadata(&mut review, "namespace", None);
    }
    set_metadata(&mut review, "managedFields", None);
    if !review["spec"].is_object() {
        set_field(&mut review, "spec", Some(json!({})));
    }
    drop_empty_texts(&mut review["spec"]);
    Ok(review)
}

/// Go does not write out empty texts; in the requirements of selectors alone it does.
fn drop_empty_texts(value: &mut Value) {
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, value| value.as_str() != Some(""));
        fields.values_mut().for_each(drop_empty_texts);
    }
}

/// Records who asked, as for objects that stay.
fn manage(request: &Request, review: &mut Value) -> Result<(), ApiError> {
    if let Some(schema) = &request.served()?.schema {
        let manager = request.manager();
        managed_fields::update(None, review, &manager, "", &request.api_version(), schema, request.now);
    }
    Ok(())
}

/// Someone, as reviews of the authentication group show them.
fn user_info(user: &User) -> Value {
    let mut info = Map::new();
    for (field, text) in [("username", &user.name), ("uid", &user.uid)] {
        if !text.is_empty() {
            info.insert(field.to_owned(), text.as_str().into());
        }
    }
    if !user.groups.is_empty() {
        info.insert("groups".to_owned(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        info.insert("extra".to_owned(), json!(user.extra));
    }
    info.into()
}

/// Whom a review is about.
fn subject(spec: &Value) -> User {
    let texts = |list: &Value| -> Vec<String> {
        let texts = list.as_array().into_iter().flatten().filter_map(Value::as_str);
        texts.map(str::to_owned).collect()
    };
    let extra = spec["extra"].as_object().into_iter().flatten();
    User {
        name: spec["user"].as_str().unwrap_or_default().to_owned(),
        uid: spec["uid"].as_str().unwrap_or_default().to_owned(),
        groups: texts(&spec["groups"]),
        extra: extra.map(|(key, values)| (key.clone(), texts(values))).collect(),
    }
}

fn decide(core: &Core, user: &User, spec: &Value) -> Value {
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let attributes = if resource.is_object() {
        Attributes {
            verb: text(resource, "verb"),
            is_resource: true,
            group: text(resource, "group"),
            resource: text(resource, "resource"),
            subresource: text(resource, "subresource"),
            namespace: text(resource, "namespace"),
            name: text(resource, "name"),
            path: String::new(),
        }
    } else {
        Attributes::path(&text(path, "verb"), &text(path, "path"))
    };
    let decision = core.access.authorize(&core.store, user, &attributes);
    let mut status = Map::new();
    status.insert("allowed".to_owned(), decision.allowed.into());
    if !decision.reason.is_empty() {
        status.insert("reason".to_owned(), decision.reason.into());
    }
    let ignored: Vec<String> = [
        ("fieldSelector", field_selector(&resource["fieldSelector"])),
        ("labelSelector", label_selector(&resource["labelSelector"])),
    ]
    .into_iter()
    .filter_map(|(field, read)| {
        let how = match read {
            Selector::Read => return None,
            Selector::Partly => "partially ignored",
            Selector::Unreadable => "ignored",
        };
        Some(format!("spec.resourceAttributes.{field} {how} due to parse error"))
    })
    .collect();
    if !ignored.is_empty() {
        status.insert("evaluationError".to_owned(), ignored.join("; ").into());
    }
    status.into()
}

/// How much of a selector could be read. Roles know no selectors, so nothing else of them matters.
enum Selector {
    Read,
    Partly,
    Unreadable,
}

impl Selector {
    fn of(good: usize, bad: usize) -> Self {
        match (good, bad) {
            (_, 0) => Self::Read,
            (0, _) => Self::Unreadable,
            _ => Self::Partly,
        }
    }
}

fn requirements(selector: &Value) -> &[Value] {
    selector["requirements"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
}

fn values(requirement: &Value) -> Vec<&str> {
    let values = requirement["values"].as_array().into_iter().flatten();
    values.filter_map(Value::as_str).collect()
}

fn field_selector(selector: &Value) -> Selector {
    let list = requirements(selector);
    let raw = selector["rawSelector"].as_str().unwrap_or_default();
    if list.is_empty() {
        return Selector::of(0, usize::from(FieldSelector::parse(raw).is_err()));
    }
    let good = list.iter().filter(|requirement| {
        matches!(requirement["operator"].as_str(), Some("In" | "NotIn")) && values(requirement).len() == 1
    });
    let good = good.count();
    Selector::of(good, list.len() - good)
}

fn label_selector(selector: &Value) -> Selector {
    let list = requirements(selector);
    let raw = selector["rawSelector"].as_str().unwrap_or_default();
    if list.is_empty() {
        return Selector::of(0, usize::from(LabelSelector::parse(raw).is_err()));
    }
    let good = list.iter().filter(|requirement| {
        let operator = match requirement["operator"].as_str() {
            Some("In") => Operator::In,
            Some("NotIn") => Operator::NotIn,
            Some("Exists") => Operator::Exists,
            Some("DoesNotExist") => Operator::DoesNotExist,
            _ => return false,
        };
        let values: BTreeSet<String> = values(requirement).into_iter().map(str::to_owned).collect();
        LabelRequirement::new(requirement["key"].as_str().unwrap_or_default(), operator, values).is_ok()
    });
    let good = good.count();
    Selector::of(good, list.len() - good)
}

fn rules(core: &Core, user: &User, namespace: &str) -> Value {
    let found = core.access.rules_for(&core.store, user, namespace);
    let mut resources = Vec::new();
    let mut paths = Vec::new();
    for rule in &found.rules {
        if !rule.resources.is_empty() {
            let mut shown = json!(rule);
            set_field(&mut shown, "nonResourceURLs", None);
            resources.push(shown);
        }
        if !rule.non_resource_urls.is_empty() {
            paths.push(json!({ "verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls }));
        }
    }
    let mut status = json!({ "resourceRules": resources, "nonResourceRules": paths, "incomplete": false });
    match found.errors.as_slice() {
        [] => {}
        [one] => status["evaluationError"] = one.as_str().into(),
        several => status["evaluationError"] = format!("[{}]", several.join(", ")).into(),
    }
    status
}

fn token(core: &Core, request: &Request, spec: &Value) -> Result<Value, ApiError> {
    let token = spec["token"].as_str().unwrap_or_default();
    if token.is_empty() {
        return Err(ApiError::bad_request(
            "token is required for TokenReview in authentication",
        ));
    }
    let wanted = spec["audiences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    let mut audiences: Vec<String> = wanted.map(str::to_owned).collect();
    if audiences.is_empty() {
        audiences.push(ISSUER.to_owned());
    }
    let header = format!("Bearer {token}");
    let found = core
        .access
        .authenticate(&core.store, Caller::Unknown, Some(&header), &audiences, request.now);
    Ok(match found {
        Ok(found) => json!({
            "authenticated": true, "user": user_info(&found.user), "audiences": found.audiences,
        }),
        Err(error) => json!({ "user": {}, "error": error }),
    })
}

fn check(request: &Request, causes: &[Cause]) -> Result<(), ApiError> {
    if causes.is_empty() {
        return Ok(());
    }
    // The real server leaves out the kind here.
    let subject = Subject {
        group: &request.resource.group,
        kind: "",
        name: "",
    };
    Err(ApiError::invalid(subject, causes))
}

fn invalid(field: &str, value: &str, detail: &str) -> Cause {
    cause("FieldValueInvalid", field, format!("Invalid value: {value}: {detail}"))
}

fn access_problems(review: &Value, names_subject: bool) -> Vec<Cause> {
    let mut causes = spec_problems(&review["spec"], names_subject);
    causes.extend(metadata_problem(review, &[], "must be empty"));
    causes
}

fn local_problems(review: &Value) -> Vec<Cause> {
    let spec = &review["spec"];
    let mut causes = spec_problems(spec, true);
    causes.extend(metadata_problem(
        review,
        &["namespace"],
        "must be empty except for namespace",
    ));
    let resource = &spec["resourceAttributes"];
    let namespace = resource["namespace"].as_str().unwrap_or_default();
    if resource.is_object() && namespace != metadata_text(review, "namespace") {
        let detail = "must match metadata.namespace";
        causes.push(invalid(
            "spec.resourceAttributes.namespace",
            &format!("{namespace:?}"),
            detail,
        ));
    }
    if spec["nonResourceAttributes"].is_object() {
        let shown = shown_path(&spec["nonResourceAttributes"]);
        causes.push(invalid(
            "spec.nonResourceAttributes",
            &shown,
            "disallowed on this kind of request",
        ));
    }
    causes
}

/// The attributes of a path as Go prints them: by the names of its fields.
fn shown_path(attributes: &Value) -> String {
    let text = |field: &str| json!(attributes[field].as_str().unwrap_or_default());
    format!(r#"{{"Path":{},"Verb":{}}}"#, text("path"), text("verb"))
}

fn spec_problems(spec: &Value, names_subject: bool) -> Vec<Cause> {
    let mut causes = Vec::new();
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    if resource.is_object() && path.is_object() {
        let detail = "cannot be specified in combination with resourceAttributes";
        causes.push(invalid("spec.nonResourceAttributes", &shown_path(path), detail));
    }
    if !resource.is_object() && !path.is_object() {
        let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        causes.push(invalid("spec.resourceAttributes", "null", detail));
    }
    let nobody = subject(spec);
    if names_subject && nobody.name.is_empty() && nobody.groups.is_empty() {
        causes.push(invalid(
            "spec.user",
            "\"\"",
            "at least one of user or group must be specified",
        ));
    }
    selector_problems(resource, "fieldSelector", &mut causes);
    selector_problems(resource, "labelSelector", &mut causes);
    causes
}

fn selector_problems(resource: &Value, which: &str, causes: &mut Vec<Cause>) {
    let selector = &resource[which];
    if !selector.is_object() {
        return;
    }
    let field = format!("spec.resourceAttributes.{which}");
    let raw = selector["rawSelector"].as_str().unwrap_or_default();
    let list = requirements(selector);
    match (raw.is_empty(), list.is_empty()) {
        (false, false) => {
            let detail = "may not specified at the same time as requirements";
            causes.push(invalid(&format!("{field}.rawSelector"), &format!("{raw:?}"), detail));
        }
        (true, true) => causes.push(cause(
            "FieldValueRequired",
            &format!("{field}.requirements"),
            format!("Required value: when {field} is specified, requirements or rawSelector is required"),
        )),
        _ => {}
    }
    for (at, requirement) in list.iter().enumerate() {
        requirement_problems(requirement, &format!("{field}.requirements[{at}]"), which, causes);
    }
}

/// What is wrong with one requirement of a selector. Operators that are not known are let through: a newer client may
/// know them.
fn requirement_problems(requirement: &Value, field: &str, which: &str, causes: &mut Vec<Cause>) {
    let key = requirement["key"].as_str().unwrap_or_default();
    let given = values(requirement);
    if which == "fieldSelector" && key.is_empty() {
        let message = "Required value: must be specified";
        causes.push(cause("FieldValueRequired", &format!("{field}.key"), message));
    }
    let values_field = format!("{field}.values");
    match requirement["operator"].as_str().unwrap_or_default() {
        "In" | "NotIn" if given.is_empty() => causes.push(cause(
            "FieldValueRequired",
            &values_field,
            "Required value: must be specified when `operator` is 'In' or 'NotIn'",
        )),
        "Exists" | "DoesNotExist" if !given.is_empty() => causes.push(cause(
            "FieldValueForbidden",
            &values_field,
            "Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        )),
        _ => {}
    }
    if which == "fieldSelector" {
        return;
    }
    for problem in qualified_name_errors(key) {
        causes.push(invalid(&format!("{field}.key"), &format!("{key:?}"), &problem));
    }
    for (at, value) in given.iter().enumerate() {
        for problem in label_value_errors(value) {
            causes.push(invalid(
                &format!("{values_field}[{at}]"),
                &format!("{value:?}"),
                &problem,
            ));
        }
    }
}

/// Reviews have no metadata of their own.
fn metadata_problem(review: &Value, allowed: &[&str], detail: &str) -> Option<Cause> {
    // In the order of Go's fields.
    const FIELDS: [&str; 9] = [
        "name",
        "generateName",
        "namespace",
        "resourceVersion",
        "labels",
        "annotations",
        "ownerReferences",
        "finalizers",
        "managedFields",
    ];
    let metadata = review["metadata"].as_object()?;
    let is_set = |value: &Value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => true,
    };
    let set: Vec<(&str, &Value)> = FIELDS
        .iter()
        .filter_map(|field| Some((*field, metadata.get(*field).filter(|value| is_set(value))?)))
        .collect();
    if set
        .iter()
        .all(|(field, _)| *field == "managedFields" || allowed.contains(field))
    {
        return None;
    }
    let shown = set.iter().map(|(field, value)| match *field {
        "managedFields" => format!("{field:?}:{}", shown_managers(value)),
        _ => format!("{field:?}:{value}"),
    });
    let shown: Vec<String> = shown.collect();
    Some(invalid("metadata", &format!("{{{}}}", shown.join(",")), detail))
}

/// Managed fields in the order of Go's fields.
fn shown_managers(entries: &Value) -> String {
    const FIELDS: [&str; 6] = ["manager", "operation", "apiVersion", "time", "fieldsType", "fieldsV1"];
    let entries = entries.as_array().into_iter().flatten().map(|entry| {
        let fields = FIELDS
            .iter()
            .filter_map(|field| Some(format!("{field:?}:{}", entry.get(*field)?)));
        format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
    });
    format!("[{}]", entries.collect::<Vec<_>>().join(","))
}
