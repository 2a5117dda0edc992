//! What is particular to the built-in kinds that clusters run with: the form of their objects, their defaults, what
//! the server fills in, and their rules.
//!
//! For: ConfigMap, Secret, ServiceAccount, Event, Node, Pod, Lease, PodDisruptionBudget, DaemonSet; and, for all
//! built-in kinds in the table of types, their form. Not for: how they are served, which is the same for all.

mod admission;
mod check;
mod config;
mod container;
mod defaults;
mod event;
mod form;
pub(crate) mod formats;
mod node;
mod pod;
mod quantity;
mod time;
mod types;
mod volume;
mod workload;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::registry::Resource;
use crate::schema::Cause;
use check::Problems;
pub(crate) use form::Source;

/// The annotation in which a DaemonSet counts the changes of its template.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// Whether the objects of a resource have a Go type in the table: they are decoded as the real server does.
pub(crate) fn is_typed(resource: &Resource) -> bool {
    resource.custom.is_none() && types::of_kind(&resource.group, &resource.kind).is_some()
}

/// Whether wrong types in the objects of a resource are found by [`decode`].
pub(crate) fn is_checked(resource: &Resource) -> bool {
    resource.custom.is_none() && types::checked(&resource.group, &resource.kind).is_some()
}

/// Brings an object into the form of its kind and fills in the defaults; the error is what the real decoder says.
pub(crate) fn decode(resource: &Resource, source: Source, object: &mut Value) -> Result<(), String> {
    if resource.custom.is_some() {
        return Ok(());
    }
    let Some(kind) = types::of_kind(&resource.group, &resource.kind) else {
        return match types::checked(&resource.group, &resource.kind) {
            // Their form follows rules of their own: only the types are looked at.
            Some(kind) => {
                let mut settled = object.clone();
                form::settle(kind, source, &mut settled)?;
                form::replace_nulls(object, &settled);
                crate::schema::settle_numbers(object);
                Ok(())
            }
            None => Ok(()),
        };
    };
    form::settle(kind, source, object)?;
    defaults::fill(kind, object);
    agree(kind.name, object)
}

/// Looks at the types in an object whose type in the table has this name; the error is what the real decoder says.
pub(crate) fn check_types(name: &str, object: &Value) -> Result<(), String> {
    match types::named(name) {
        Some(kind) => form::settle(kind, Source::Text, &mut object.clone()),
        None => Ok(()),
    }
}

/// An object of this kind before anything was said about it, if its type is in the table.
pub(crate) fn empty(api_version: &str, kind: &str) -> Option<Value> {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    types::of_kind(group, kind).map(form::empty)
}

/// What is written of an object that was stored under other names.
pub(crate) fn rewrite(resource: &Resource, object: &mut Value) {
    if let Some(kind) = types::of_kind(&resource.group, &resource.kind) {
        // It was decoded before it was stored.
        let _ = form::settle(kind, Source::Text, object);
    }
}

/// Text of a metadata field, or the empty text.
fn text<'object>(object: &'object Value, field: &str) -> &'object str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// Brings fields that say the same thing under two names in agreement, as conversions of the real server do.
fn agree(kind: &str, object: &mut Value) -> Result<(), String> {
    match kind {
        "core.Pod" => {
            service_account(object.get_mut("spec"));
            first_of(
                object.get_mut("status"),
                "podIP",
                "podIPs",
                |address| json!({ "ip": address }),
            );
        }
        "core.Node" => first_of(object.get_mut("spec"), "podCIDR", "podCIDRs", Clone::clone),
        "core.Secret" => merge_string_data(object),
        "apps.DaemonSet" => {
            service_account(object.pointer_mut("/spec/template/spec"));
            let written = annotation(object).unwrap_or_default().to_owned();
            let generation: i64 = match written.as_str() {
                "" => 0,
                text => text
                    .parse()
                    .map_err(|_| format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))?,
            };
            set_template_generation(object, generation);
        }
        _ => {}
    }
    Ok(())
}

/// A field and the first element of a list are the same; the field wins.
fn first_of(place: Option<&mut Value>, field: &str, list: &str, element: impl Fn(&Value) -> Value) {
    let Some(map) = place.and_then(Value::as_object_mut) else {
        return;
    };
    let single = map.get(field).cloned();
    let first = map.get(list).and_then(|list| list.get(0)).cloned();
    match (single, first) {
        (Some(single), first) => {
            let wanted = element(&single);
            if first != Some(wanted.clone()) {
                map.insert(list.to_owned(), json!([wanted]));
            }
        }
        (None, Some(first)) => {
            let value = first.get("ip").cloned().unwrap_or(first);
            map.insert(field.to_owned(), value);
        }
        (None, None) => {}
    }
}

fn service_account(spec: Option<&mut Value>) {
    let Some(spec) = spec.and_then(Value::as_object_mut) else {
        return;
    };
    let name = spec
        .get("serviceAccountName")
        .or_else(|| spec.get("serviceAccount"))
        .cloned();
    if let Some(name) = name {
        for field in ["serviceAccountName", "serviceAccount"] {
            spec.insert(field.to_owned(), name.clone());
        }
    }
}

fn merge_string_data(object: &mut Value) {
    let Some(secret) = object.as_object_mut() else {
        return;
    };
    let Some(Value::Object(plain)) = secret.remove("stringData") else {
        return;
    };
    let data = secret.entry("data").or_insert_with(|| json!({}));
    if let Some(data) = data.as_object_mut() {
        for (key, value) in plain {
            data.insert(key, STANDARD.encode(value.as_str().unwrap_or_default()).into());
        }
    }
}

fn annotation(object: &Value) -> Option<&str> {
    object["metadata"]["annotations"][TEMPLATE_GENERATION].as_str()
}

fn template_generation(object: &Value) -> i64 {
    annotation(object)
        .and_then(|text| text.parse().ok())
        .unwrap_or_default()
}

fn set_template_generation(object: &mut Value, generation: i64) {
    let annotations =
        fields(object, "metadata").map(|metadata| metadata.entry("annotations").or_insert_with(|| json!({})));
    if let Some(Value::Object(annotations)) = annotations {
        annotations.insert(TEMPLATE_GENERATION.to_owned(), generation.to_string().into());
    }
}

/// Metadata as it is shown without its object: without what only conversions put there.
pub(crate) fn bare_metadata(mut metadata: Value) -> Value {
    if let Some(fields) = metadata.as_object_mut()
        && let Some(annotations) = fields.get_mut("annotations").and_then(Value::as_object_mut)
        && annotations.remove(TEMPLATE_GENERATION).is_some()
        && annotations.is_empty()
    {
        fields.remove("annotations");
    }
    metadata
}

/// What a client is warned of that writes this object.
pub(crate) fn warnings(resource: &Resource, object: &Value) -> Vec<String> {
    if kind_of(resource) == "core.Secret" {
        config::secret_warnings(object)
    } else {
        Vec::new()
    }
}

/// The map at a field, made if missing.
fn fields<'object>(object: &'object mut Value, field: &str) -> Option<&'object mut Map<String, Value>> {
    object
        .as_object_mut()?
        .entry(field)
        .or_insert_with(|| json!({}))
        .as_object_mut()
}

/// Whether a new object may come with a status.
pub(crate) fn keeps_status(resource: &Resource) -> bool {
    kind_of(resource) == "core.Node"
}

/// The name in the table of types; empty for other kinds.
fn kind_of(resource: &Resource) -> &'static str {
    if resource.custom.is_some() {
        return "";
    }
    types::of_kind(&resource.group, &resource.kind).map_or("", |kind| kind.name)
}

/// What the server sets when an object is created.
pub(crate) fn prepare_create(resource: &Resource, object: &mut Value) {
    match kind_of(resource) {
        "core.Pod" => {
            drop_restart_rules(object.get_mut("spec"));
            admission::create_pod(object);
        }
        "core.Node" => admission::taint_node(object),
        "core.ServiceAccount" => clean_secrets(object),
        "coordination.Lease" => drop_strategy(object, None),
        "apps.DaemonSet" => {
            drop_restart_rules(object.pointer_mut("/spec/template/spec"));
            let generation = template_generation(object).max(1);
            set_template_generation(object, generation);
            let status = json!({
                "currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0,
            });
            object["status"] = status;
        }
        "policy.PodDisruptionBudget" => {
            object["status"] =
                json!({ "currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0 });
        }
        _ => {}
    }
}

/// What the server keeps or sets when an object is replaced.
pub(crate) fn prepare_update(resource: &Resource, subresource: &str, old: &Value, object: &mut Value) {
    match (kind_of(resource), subresource) {
        ("core.Pod", "") => {
            drop_restart_rules(object.get_mut("spec"));
            admission::update_pod(old, object);
        }
        ("core.Pod", "status") => {
            if let (Some(status), Some(class)) = (fields(object, "status"), old["status"].get("qosClass")) {
                status.entry("qosClass").or_insert_with(|| class.clone());
            }
            let owners = old["metadata"].get("ownerReferences").cloned();
            if let Some(metadata) = fields(object, "metadata") {
                match owners {
                    Some(owners) => metadata.insert("ownerReferences".to_owned(), owners),
                    None => metadata.remove("ownerReferences"),
                };
            }
        }
        ("core.ServiceAccount", _) => clean_secrets(object),
        ("coordination.Lease", _) => drop_strategy(object, Some(old)),
        ("apps.DaemonSet", "") => {
            drop_restart_rules(object.pointer_mut("/spec/template/spec"));
            let changed = old["spec"]["template"] != object["spec"]["template"];
            set_template_generation(object, template_generation(old) + i64::from(changed));
        }
        _ => {}
    }
}

/// Containers with restart policies of their own are off, but for init containers that go on running.
fn drop_restart_rules(spec: Option<&mut Value>) {
    let Some(spec) = spec else {
        return;
    };
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(container) = container.as_object_mut() {
                container.remove("restartPolicyRules");
                if list == "containers" || container.get("restartPolicy").is_some_and(|policy| policy != "Always") {
                    container.remove("restartPolicy");
                }
            }
        }
    }
}

/// Of the references to secrets only the names are kept.
fn clean_secrets(object: &mut Value) {
    let secrets = object.get_mut("secrets").and_then(Value::as_array_mut);
    for secret in secrets.into_iter().flatten().filter_map(Value::as_object_mut) {
        secret.retain(|field, _| field == "name");
    }
}

/// Coordinated leader election is off: its fields are not taken.
fn drop_strategy(object: &mut Value, old: Option<&Value>) {
    if let Some(spec) = fields(object, "spec") {
        for field in ["strategy", "preferredHolder"] {
            if old.is_none_or(|old| old["spec"][field].is_null()) {
                spec.remove(field);
            }
        }
    }
}

/// Why a new object is not admitted, beyond being invalid.
pub(crate) fn refusal(resource: &Resource, object: &Value) -> Option<String> {
    if kind_of(resource) == "core.Pod" {
        admission::refusal(object)
    } else {
        None
    }
}

/// The rules of the kind; `subresource` as in the request.
pub(crate) fn validate(resource: &Resource, subresource: &str, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut problems = Problems::default();
    match (kind_of(resource), subresource, old) {
        ("core.ConfigMap", _, _) => config::config_map(object, old, &mut problems),
        ("core.Secret", _, _) => config::secret(object, old, &mut problems),
        ("core.Event", _, _) => event::event(object, old, false, &mut problems),
        ("events.Event", _, _) => event::event(object, old, true, &mut problems),
        ("core.Node", _, _) => node::node(object, old, &mut problems),
        ("core.Pod", "status", Some(old)) => pod::status(object, old, &mut problems),
        ("core.Pod", _, _) => pod::pod(object, old, &mut problems),
        ("coordination.Lease", _, _) => workload::lease(object, &mut problems),
        ("policy.PodDisruptionBudget", "status", _) => workload::disruption_budget_status(object, &mut problems),
        ("policy.PodDisruptionBudget", _, _) => workload::disruption_budget(object, &mut problems),
        ("apps.DaemonSet", "status", Some(old)) => workload::daemon_set_status(object, old, &mut problems),
        ("apps.DaemonSet", _, _) => workload::daemon_set(object, old, &mut problems),
        _ => {}
    }
    problems.0
}
