//! The rules of pods and of templates of pods.

use serde_json::{Value, json};

use super::check::{Place, Problems};
use super::{container, formats, volume};

/// Effects of taints.
pub(super) const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
const UPDATABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
    `spec.tolerations` (only additions to existing tolerations),\
    `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Of a Pod.
pub(super) fn pod(object: &Value, old: Option<&Value>, problems: &mut Problems) {
    let place = Place::top(object, "spec");
    spec(&place, true, problems);
    only_pods(&place, problems);
    let Some(old) = old else {
        if place.field("ephemeralContainers").len() > 0 {
            problems.forbidden(&place.field("ephemeralContainers"), "cannot be set on create");
        }
        if !place.field("nodeName").text().is_empty() && place.field("schedulingGates").len() > 0 {
            let wrong = "cannot be set until all schedulingGates have been cleared";
            problems.forbidden(&place.field("nodeName"), wrong);
        }
        return;
    };
    update(&place, &Place::top(old, "spec"), problems);
}

/// What holds for pods, but not for templates of pods.
fn only_pods(spec: &Place<'_>, problems: &mut Problems) {
    if spec.field("serviceAccountName").text().is_empty() {
        for volume in spec.field("volumes").elements() {
            for source in volume.field("projected").field("sources").elements() {
                let token = source.field("serviceAccountToken");
                if token.is_set() {
                    problems.forbidden(&token, "must not be specified when serviceAccountName is not set");
                }
            }
        }
    }
    for list in ["containers", "initContainers"] {
        for each in spec.field(list).elements() {
            let image = each.field("image");
            if image.text().trim() != image.text() {
                problems.invalid(&image, "must not have leading or trailing whitespace");
            }
        }
    }
}

/// Of a template of pods.
pub(super) fn template(template: &Place<'_>, problems: &mut Problems) {
    // The real server leaves `metadata` out of these two paths.
    let metadata = template.field("metadata");
    labels(
        &metadata.field("labels").called(format!("{}.labels", template.path)),
        problems,
    );
    let annotations = metadata
        .field("annotations")
        .called(format!("{}.annotations", template.path));
    for (key, _) in annotations.entries() {
        for wrong in formats::qualified_name(&key.to_lowercase()) {
            problems.invalid_as(&annotations, &key.into(), wrong);
        }
    }
    let inner = template.field("spec");
    spec(&inner, false, problems);
    if inner.field("ephemeralContainers").len() > 0 {
        problems.forbidden(
            &inner.field("ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        );
    }
}

/// Of a map of labels.
pub(super) fn labels(place: &Place<'_>, problems: &mut Problems) {
    for (key, value) in place.entries() {
        for wrong in formats::qualified_name(key) {
            problems.invalid_as(place, &key.into(), wrong);
        }
        problems.all_invalid(&value.called(place.path.clone()), formats::label_value(value.text()));
    }
}

fn spec(spec: &Place<'_>, is_pod: bool, problems: &mut Problems) {
    let mountable = volume::volumes(&spec.field("volumes"), problems);
    let (regular, initial) = (spec.field("containers"), spec.field("initContainers"));
    container::regular(&regular, &mountable, problems);
    container::initial(&initial, &regular, &mountable, problems);
    if spec.field("hostNetwork").flag() {
        host_network(&regular, is_pod, problems);
    }
    problems.required_one_of(&spec.field("restartPolicy"), &["Always", "OnFailure", "Never"]);
    problems.required_one_of(
        &spec.field("dnsPolicy"),
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
    );
    labels(&spec.field("nodeSelector"), problems);
    let resolver = spec.field("dnsConfig");
    if spec.field("dnsPolicy").text() == "None" {
        if !resolver.is_set() {
            problems.required(&resolver, "must provide `dnsConfig` when `dnsPolicy` is None");
        } else if resolver.field("nameservers").len() == 0 {
            let wrong = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            problems.required(&resolver.field("nameservers"), wrong);
        }
    }
    named(
        spec,
        &["serviceAccountName", "nodeName"],
        formats::dns_subdomain,
        problems,
    );
    let deadline = spec.field("activeDeadlineSeconds");
    if deadline.is_set() && !(1..=i64::from(i32::MAX)).contains(&deadline.number()) {
        problems.invalid(&deadline, "must be between 1 and 2147483647, inclusive");
    }
    named(spec, &["hostname", "subdomain"], formats::dns_label, problems);
    tolerations(&spec.field("tolerations"), problems);
    for alias in spec.field("hostAliases").elements() {
        let address = alias.field("ip");
        if address.text().parse::<std::net::IpAddr>().is_err() {
            problems.invalid_as(
                &address,
                &address.text().into(),
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            );
        }
        for name in alias.field("hostnames").elements() {
            problems.all_invalid(&name, formats::dns_subdomain(name.text()));
        }
    }
    named(
        spec,
        &["priorityClassName", "runtimeClassName"],
        formats::dns_subdomain,
        problems,
    );
    let preemption = spec.field("preemptionPolicy");
    if preemption.is_set() {
        problems.required_one_of(&preemption, &["PreemptLowerPriority", "Never"]);
    }
}

/// Fields that may be empty and are names otherwise.
fn named(spec: &Place<'_>, fields: &[&str], check: fn(&str) -> Vec<String>, problems: &mut Problems) {
    for field in fields {
        let place = spec.field(field);
        if !place.text().is_empty() {
            problems.all_invalid(&place, check(place.text()));
        }
    }
}

fn host_network(containers: &Place<'_>, is_pod: bool, problems: &mut Problems) {
    for port in containers.elements().flat_map(|each| each.field("ports").elements()) {
        let (host, own) = (port.field("hostPort").number(), port.field("containerPort").number());
        if (is_pod || host != 0) && host != own {
            problems.invalid_as(
                &port.field("hostPort"),
                &host.into(),
                "must match `containerPort` when `hostNetwork` is true",
            );
        }
    }
}

fn tolerations(list: &Place<'_>, problems: &mut Problems) {
    for each in list.elements() {
        let (key, operator) = (each.field("key"), each.field("operator"));
        let (value, effect) = (each.field("value"), each.field("effect"));
        let operator_shown = Value::from(operator.text());
        if !key.text().is_empty() {
            problems.all_invalid(&key, formats::qualified_name(key.text()));
        } else if operator.text() != "Exists" {
            problems.invalid_as(
                &operator,
                &operator_shown,
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            );
        }
        if each.field("tolerationSeconds").is_set() && effect.text() != "NoExecute" {
            problems.invalid_as(
                &effect,
                &effect.text().into(),
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            );
        }
        match operator.text() {
            "" | "Equal" => {
                let wrong = formats::label_value(value.text());
                if !wrong.is_empty() {
                    problems.invalid_as(&operator, value.value, wrong.join(";"));
                }
            }
            "Exists" => {
                if !value.text().is_empty() {
                    problems.invalid_as(
                        &operator,
                        value.value,
                        "value must be empty when `operator` is 'Exists'",
                    );
                }
            }
            _ => problems.one_of(&operator, &["Equal", "Exists"]),
        }
        if !effect.text().is_empty() {
            problems.one_of(&effect, EFFECTS);
        }
    }
}

/// What an update of a pod may change.
fn update(new: &Place<'_>, old: &Place<'_>, problems: &mut Problems) {
    for list in ["containers", "initContainers"] {
        let (new, old) = (new.field(list), old.field(list));
        if new.len() != old.len() {
            problems.forbidden(&new, "pod updates may not add or remove containers");
            return;
        }
        for each in new.elements() {
            let image = each.field("image");
            problems.required_text(&image);
            if image.text().trim() != image.text() {
                problems.invalid(&image, "must not have leading or trailing whitespace");
            }
        }
    }
    let (deadline, deadline_before) = (new.field("activeDeadlineSeconds"), old.field("activeDeadlineSeconds"));
    if deadline.is_set() {
        if !(0..=i64::from(i32::MAX)).contains(&deadline.number()) {
            problems.invalid(&deadline, "must be between 0 and 2147483647, inclusive");
            return;
        }
        if deadline_before.is_set() && deadline_before.number() < deadline.number() {
            problems.invalid(&deadline, "must be less than or equal to previous value");
            return;
        }
    } else if deadline_before.is_set() {
        problems.invalid(&deadline, "must not update from a positive integer to nil value");
    }
    added_tolerations(&new.field("tolerations"), &old.field("tolerations"), problems);
    removed_gates(&new.field("schedulingGates"), &old.field("schedulingGates"), problems);
    let changed = changed_fields(new.value, old.value);
    if !changed.is_empty() {
        problems.forbidden(new, &format!("{UPDATABLE}\n{}", changed.join("\n")));
    }
}

fn added_tolerations(new: &Place<'_>, old: &Place<'_>, problems: &mut Problems) {
    let but_seconds = |value: &Value| {
        let mut value = value.clone();
        if let Some(fields) = value.as_object_mut() {
            fields.remove("tolerationSeconds");
        }
        value
    };
    let kept = |before: &Place<'_>| {
        new.elements()
            .any(|each| but_seconds(each.value) == but_seconds(before.value))
    };
    if old.elements().all(|before| kept(&before)) {
        tolerations(new, problems);
    } else {
        problems.forbidden(
            new,
            "existing toleration can not be modified except its tolerationSeconds",
        );
    }
}

fn removed_gates(new: &Place<'_>, old: &Place<'_>, problems: &mut Problems) {
    let before: Vec<&str> = old.elements().map(|gate| gate.field("name").text()).collect();
    for gate in new.elements() {
        let place = gate.field("name");
        let name = place.text();
        if !before.contains(&name) {
            problems.forbidden(
                &place,
                &format!("only deletion is allowed, but found new scheduling gate '{name}'"),
            );
        }
    }
}

/// The spec's fields that differ and may not, each with what was and what is.
fn changed_fields(new: &Value, old: &Value) -> Vec<String> {
    let mut allowed = new.clone();
    if let Some(fields) = allowed.as_object_mut() {
        for name in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
            match old.get(name) {
                Some(before) => fields.insert(name.to_owned(), before.clone()),
                None => fields.remove(name),
            };
        }
        let grace = |value: &Value| value["terminationGracePeriodSeconds"].as_i64();
        if grace(new) == Some(1) && grace(old).is_some_and(|seconds| seconds < 0) {
            fields.insert(
                "terminationGracePeriodSeconds".to_owned(),
                old["terminationGracePeriodSeconds"].clone(),
            );
        }
    }
    for list in ["containers", "initContainers"] {
        for (at, each) in allowed
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
            .enumerate()
        {
            if let Some(before) = old
                .get(list)
                .and_then(|list| list.get(at))
                .and_then(|each| each.get("image"))
            {
                each["image"] = before.clone();
            }
        }
    }
    let (Some(before), Some(after)) = (old.as_object(), allowed.as_object()) else {
        return Vec::new();
    };
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort();
    names.dedup();
    let differs = |name: &&String| before.get(*name) != after.get(*name);
    let shown = |value: Option<&Value>| value.unwrap_or(&Value::Null).to_string();
    names
        .into_iter()
        .filter(differs)
        .map(|name| format!("spec.{name}: {} -> {}", shown(before.get(name)), shown(after.get(name))))
        .collect()
}

/// Of a Pod's status.
pub(super) fn status(object: &Value, old: &Value, problems: &mut Problems) {
    let status = Place::top(object, "status");
    for condition in status.field("conditions").elements() {
        let generation = condition.field("observedGeneration");
        if generation.number() < 0 {
            problems.invalid(&generation, "must be a non-negative integer");
        }
        let kind = condition.field("type");
        if !matches!(kind.text(), "PodScheduled" | "Ready" | "Initialized") {
            let place = kind.called(format!("{}.Type", condition.path));
            problems.all_invalid(&place, formats::qualified_name(kind.text()));
        }
    }
    if status.field("observedGeneration").number() < 0 {
        problems.invalid(&status.field("observedGeneration"), "must be a non-negative integer");
    }
    let (class, before) = (status.field("qosClass"), Place::top(old, "status").field("qosClass"));
    problems.immutable(&class, &before);
    for list in ["podIPs", "hostIPs"] {
        let place = status.field(list);
        if list == "hostIPs" && place.len() > 0 {
            let first = place.value[0]["ip"].as_str().unwrap_or_default();
            if first != status.field("hostIP").text() {
                let path = format!("{}[0].ip", place.path);
                problems.push(
                    "FieldValueInvalid",
                    &path,
                    format!("Invalid value: {}: must be equal to `hostIP`", json!(first)),
                );
            }
        }
        for each in place.elements() {
            let address = each.field("ip");
            if address.text().parse::<std::net::IpAddr>().is_err() {
                problems.invalid_as(
                    &each,
                    &address.text().into(),
                    "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                );
            }
        }
    }
}
