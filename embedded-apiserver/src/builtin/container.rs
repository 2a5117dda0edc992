//! The rules of containers: names, images, ports, environment, mounts, resources, probes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::check::{Place, Problems};
use super::formats;

const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
/// Handlers of probes and hooks, in the order of checking.
const HANDLERS: [&str; 5] = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];
const ENVIRONMENT_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Fields of pods that have names, but no place in an environment.
const OTHER_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "spec.restartPolicy",
    "spec.schedulerName",
    "status.phase",
];
const RESOURCE_FIELDS: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
/// Resources that come in whole numbers, besides extended ones.
const WHOLE: &[&str] = &[
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];
const COMPUTE: &[&str] = &["cpu", "memory", "ephemeral-storage"];

/// Of `spec.containers`.
pub(super) fn regular(list: &Place<'_>, volumes: &BTreeSet<&str>, problems: &mut Problems) {
    if list.len() == 0 {
        problems.required(list, "");
        return;
    }
    let mut names = BTreeSet::new();
    for each in list.elements() {
        common(&each, volumes, problems);
        let name = each.field("name");
        if !names.insert(name.text()) {
            problems.duplicate(&name);
        }
        probes(&each, problems);
    }
    host_ports(&list.elements().collect::<Vec<_>>(), problems);
}

/// Of `spec.initContainers`; `others` are the regular ones.
pub(super) fn initial(list: &Place<'_>, others: &Place<'_>, volumes: &BTreeSet<&str>, problems: &mut Problems) {
    let mut names: BTreeSet<&str> = others.elements().map(|each| each.field("name").text()).collect();
    for each in list.elements() {
        common(&each, volumes, problems);
        let restart = each.field("restartPolicy");
        let name = each.field("name");
        if !name.text().is_empty() && !names.insert(name.text()) {
            problems.duplicate(&name);
        }
        if restart.text() == "Always" {
            probes(&each, problems);
        } else {
            for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                let place = each.field(field);
                if place.is_set() {
                    problems.forbidden(
                        &place,
                        "may not be set for init containers without restartPolicy=Always",
                    );
                }
            }
        }
    }
}

fn common(each: &Place<'_>, volumes: &BTreeSet<&str>, problems: &mut Problems) {
    let name = each.field("name");
    if problems.required_text(&name) {
        problems.all_invalid(&name, formats::dns_label(name.text()));
    }
    problems.required_text(&each.field("image"));
    problems.required_one_of(
        &each.field("terminationMessagePolicy"),
        &["File", "FallbackToLogsOnError"],
    );
    ports(&each.field("ports"), problems);
    environment(&each.field("env"), problems);
    environment_sources(&each.field("envFrom"), problems);
    mounts(each, volumes, problems);
    problems.required_one_of(&each.field("imagePullPolicy"), PULL_POLICIES);
    resources(&each.field("resources"), problems);
    security(&each.field("securityContext"), problems);
}

fn ports(list: &Place<'_>, problems: &mut Problems) {
    let mut names = BTreeSet::new();
    for port in list.elements() {
        let name = port.field("name");
        if !name.text().is_empty() {
            let wrong = formats::port_name(name.text());
            if !wrong.is_empty() {
                problems.all_invalid(&name, wrong);
            } else if !names.insert(name.text()) {
                problems.duplicate(&name);
            }
        }
        let number = port.field("containerPort");
        if number.number() == 0 {
            problems.required(&number, "");
        }
        for number in [number, port.field("hostPort")]
            .iter()
            .filter(|place| place.number() != 0)
        {
            for wrong in formats::port_number(number.number()) {
                problems.invalid(number, wrong);
            }
        }
        problems.required_one_of(&port.field("protocol"), &["SCTP", "TCP", "UDP"]);
    }
}

/// Two containers cannot have the same port of the host.
fn host_ports(containers: &[Place<'_>], problems: &mut Problems) {
    let mut taken = BTreeSet::new();
    for port in containers.iter().flat_map(|each| each.field("ports").elements()) {
        let place = port.field("hostPort");
        if place.number() == 0 {
            continue;
        }
        let address = port.field("hostIP");
        let shown = format!(
            "{}/{}/{}",
            port.field("protocol").text(),
            address.text(),
            place.number()
        );
        if !taken.insert(shown.clone()) {
            let message = format!("Duplicate value: {shown:?}");
            problems.push("FieldValueDuplicate", &place.path, message);
        }
    }
}

fn environment(list: &Place<'_>, problems: &mut Problems) {
    for variable in list.elements() {
        let name = variable.field("name");
        if problems.required_text(&name) {
            problems.all_invalid(&name, formats::environment_name(name.text()));
        }
        let from = variable.field("valueFrom");
        if !from.is_set() {
            continue;
        }
        let nothing = Value::from("");
        let mut sources = 0;
        let mut source = |name: &str| Some(from.field(name)).filter(Place::is_set).inspect(|_| sources += 1);
        if let Some(field) = source("fieldRef") {
            field_reference(&field, problems);
        }
        if let Some(field) = source("resourceFieldRef") {
            let resource = field.field("resource");
            let huge = ["limits.hugepages-", "requests.hugepages-"];
            if problems.required_text(&resource) && !huge.iter().any(|prefix| resource.text().starts_with(prefix)) {
                problems.one_of(&resource, RESOURCE_FIELDS);
            }
        }
        for kind in ["configMapKeyRef", "secretKeyRef"] {
            if let Some(reference) = source(kind) {
                let (name, key) = (reference.field("name"), reference.field("key"));
                problems.all_invalid(&name, formats::dns_subdomain(name.text()));
                if problems.required_text(&key) {
                    problems.all_invalid(&key, formats::config_key(key.text()));
                }
            }
        }
        if sources == 0 {
            problems.invalid_as(
                &from,
                &nothing,
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`",
            );
        } else if !variable.field("value").text().is_empty() {
            problems.invalid_as(&from, &nothing, "may not be specified when `value` is not empty");
        } else if sources > 1 {
            problems.invalid_as(&from, &nothing, "may not have more than one field specified at a time");
        }
    }
}

fn field_reference(reference: &Place<'_>, problems: &mut Problems) {
    let (version, path) = (reference.field("apiVersion"), reference.field("fieldPath"));
    if !problems.required_text(&path) {
        return;
    }
    let refuse = |problems: &mut Problems, why: String| {
        problems.invalid(&path, format!("error converting fieldPath: {why}"));
    };
    let text = path.text();
    if version.text() != "v1" {
        refuse(problems, format!("unsupported pod version: {}", version.text()));
    } else if let Some((field, key)) = text.strip_suffix("']").and_then(|text| text.split_once("['")) {
        match field {
            "metadata.annotations" => {
                let key = key.to_lowercase();
                for wrong in formats::qualified_name(&key) {
                    problems.invalid_as(reference, &key.as_str().into(), wrong);
                }
            }
            "metadata.labels" => {
                for wrong in formats::qualified_name(key) {
                    problems.invalid_as(reference, &key.into(), wrong);
                }
            }
            _ => refuse(problems, format!("field label does not support subscript: {text}")),
        }
    } else if ENVIRONMENT_FIELDS.contains(&text) || OTHER_FIELDS.contains(&text) {
        problems.one_of(&path, ENVIRONMENT_FIELDS);
    } else {
        refuse(problems, format!("field label not supported: {text}"));
    }
}

fn environment_sources(list: &Place<'_>, problems: &mut Problems) {
    for each in list.elements() {
        let prefix = each.field("prefix");
        problems.all_invalid(&prefix, formats::environment_name(prefix.text()));
        let sources: Vec<Place<'_>> = ["configMapRef", "secretRef"]
            .iter()
            .map(|name| each.field(name))
            .filter(Place::is_set)
            .collect();
        for source in &sources {
            let name = source.field("name");
            if problems.required_text(&name) {
                problems.all_invalid(&name, formats::dns_subdomain(name.text()));
            }
        }
        let wrong = match sources.len() {
            0 => "must specify one of: `configMapRef` or `secretRef`",
            1 => continue,
            _ => "may not have more than one field specified at a time",
        };
        problems.invalid_as(list, &"".into(), wrong);
    }
}

fn mounts(container: &Place<'_>, volumes: &BTreeSet<&str>, problems: &mut Problems) {
    let list = container.field("volumeMounts");
    let mut taken = BTreeSet::new();
    for mount in list.elements() {
        let (name, path) = (mount.field("name"), mount.field("mountPath"));
        problems.required_text(&name);
        if !volumes.contains(name.text()) {
            problems.not_found(&name);
        }
        problems.required_text(&path);
        if !taken.insert(path.text()) {
            problems.invalid_as(&path, &path.text().into(), "must be unique");
        }
        let (part, expression) = (mount.field("subPath"), mount.field("subPathExpr"));
        // The real server leaves the index out of these two paths.
        descending(&part.called(format!("{}.subPath", list.path)), problems);
        if !expression.text().is_empty() && !part.text().is_empty() {
            problems.invalid(&expression, "subPathExpr and subPath are mutually exclusive");
        }
        descending(&expression.called(format!("{}.subPathExpr", list.path)), problems);
        let propagation = mount
            .field("mountPropagation")
            .called(format!("{}.mountPropagation", list.path));
        if propagation.is_set() {
            problems.one_of(&propagation, &["Bidirectional", "HostToContainer", "None"]);
            if propagation.text() == "Bidirectional" && !container.field("securityContext").field("privileged").flag() {
                let wrong = "Bidirectional mount propagation is available only to privileged containers";
                problems.forbidden(&propagation, wrong);
            }
        }
    }
}

/// A path below another.
pub(super) fn descending(place: &Place<'_>, problems: &mut Problems) {
    if place.text().starts_with('/') {
        problems.invalid(place, "must be a relative path");
    }
    no_way_back(place, problems);
}

/// A path without `..`.
pub(super) fn no_way_back(place: &Place<'_>, problems: &mut Problems) {
    if place.text().split('/').any(|part| part == "..") {
        problems.invalid(place, "must not contain '..'");
    }
}

fn is_native(resource: &str) -> bool {
    !resource.contains('/') || resource.contains("kubernetes.io/")
}

fn is_huge_page(resource: &str) -> bool {
    resource.starts_with("hugepages-")
}

fn is_extended(resource: &str) -> bool {
    !is_native(resource)
        && !resource.starts_with("requests.")
        && formats::qualified_name(&format!("requests.{resource}")).is_empty()
}

/// An amount of a resource.
pub(super) fn quantity(resource: &str, place: &Place<'_>, problems: &mut Problems) {
    let Some(amount) = place.quantity() else {
        return;
    };
    if amount.is_negative() {
        problems.invalid(place, "must be greater than or equal to 0");
    }
    if (WHOLE.contains(&resource) || is_extended(resource)) && !amount.is_whole() {
        problems.invalid(place, "must be an integer");
    }
}

fn resource_name(resource: &str, place: &Place<'_>, problems: &mut Problems) {
    let shown = Value::from(resource);
    let wrong = formats::qualified_name(resource);
    if !wrong.is_empty() {
        for wrong in wrong {
            problems.invalid_as(place, &shown, wrong);
        }
    } else if !resource.contains('/')
        && !WHOLE.contains(&resource)
        && !COMPUTE.contains(&resource)
        && !is_huge_page(resource)
    {
        problems.invalid_as(place, &shown, "must be a standard resource type or fully qualified");
    }
    if !resource.contains('/') {
        if !COMPUTE.contains(&resource) && !is_huge_page(resource) {
            problems.invalid_as(place, &shown, "must be a standard resource for containers");
        }
    } else if !is_native(resource) && !is_extended(resource) {
        problems.invalid_as(place, &shown, "doesn't follow extended resource name standard");
    }
}

fn resources(place: &Place<'_>, problems: &mut Problems) {
    let (limits, requests) = (place.field("limits"), place.field("requests"));
    let by_name: BTreeMap<&str, Place<'_>> = limits.entries().collect();
    for (name, amount) in &by_name {
        resource_name(name, amount, problems);
        quantity(name, amount, problems);
    }
    for (name, amount) in requests.entries() {
        resource_name(name, &amount, problems);
        quantity(name, &amount, problems);
        let flexible = is_native(name) && !is_huge_page(name);
        let limit = by_name.get(name).and_then(Place::quantity);
        let (Some(requested), Some(limit)) = (amount.quantity(), limit) else {
            if !flexible {
                problems.required(&limits, "Limit must be set for non overcommitable resources");
            }
            continue;
        };
        let order = requested.compare(limit);
        let shown = Value::from(requested.to_string());
        if order.is_ne() && !flexible {
            problems.invalid_as(&requests, &shown, format!("must be equal to {name} limit of {limit}"));
        } else if order.is_gt() {
            problems.invalid_as(
                &requests,
                &shown,
                format!("must be less than or equal to {name} limit of {limit}"),
            );
        }
    }
    let has = |wanted: &dyn Fn(&str) -> bool| limits.entries().chain(requests.entries()).any(|(name, _)| wanted(name));
    if has(&is_huge_page) && !has(&|name| matches!(name, "cpu" | "memory")) {
        problems.forbidden(place, "HugePages require cpu or memory");
    }
}

fn security(place: &Place<'_>, problems: &mut Problems) {
    if place.field("privileged").flag() && place.field("allowPrivilegeEscalation").value == false {
        problems.invalid(
            &place.field("allowPrivilegeEscalation").called(place.path.clone()),
            "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        );
    }
    for field in ["runAsUser", "runAsGroup"] {
        let id = place.field(field);
        if !(0..=i64::from(i32::MAX)).contains(&id.number()) {
            problems.invalid(&id, "must be between 0 and 2147483647, inclusive");
        }
    }
}

fn probes(container: &Place<'_>, problems: &mut Problems) {
    for hook in ["postStart", "preStop"] {
        let place = container.field("lifecycle").field(hook);
        if place.is_set() {
            handler(&place, problems);
        }
    }
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = container.field(kind);
        if !probe.is_set() {
            continue;
        }
        handler(&probe, problems);
        for field in [
            "initialDelaySeconds",
            "timeoutSeconds",
            "periodSeconds",
            "successThreshold",
            "failureThreshold",
        ] {
            problems.not_negative(&probe.field(field));
        }
        let grace = probe.field("terminationGracePeriodSeconds");
        if grace.is_set() && grace.number() <= 0 {
            problems.invalid(&grace, "must be greater than 0");
        }
        if kind == "readinessProbe" {
            if grace.is_set() {
                problems.invalid(&grace, "must not be set for readinessProbes");
            }
        } else if probe.field("successThreshold").number() != 1 {
            problems.invalid(&probe.field("successThreshold"), "must be 1");
        }
    }
}

fn handler(place: &Place<'_>, problems: &mut Problems) {
    let mut first = true;
    for name in HANDLERS {
        let action = place.field(name);
        if !action.is_set() {
            continue;
        }
        if !std::mem::take(&mut first) {
            problems.forbidden(&action, "may not specify more than 1 handler type");
            continue;
        }
        let port = action.field("port");
        match name {
            "exec" if action.field("command").len() == 0 => problems.required(&action.field("command"), ""),
            "httpGet" => {
                problems.required_text(&action.field("path"));
                port_or_name(&port, problems);
                problems.one_of(&action.field("scheme"), &["HTTP", "HTTPS"]);
            }
            "tcpSocket" | "grpc" => port_or_name(&port, problems),
            _ => {}
        }
    }
    if first {
        problems.required(place, "must specify a handler type");
    }
}

fn port_or_name(place: &Place<'_>, problems: &mut Problems) {
    if place.value.is_string() {
        problems.all_invalid(place, formats::port_name(place.text()));
    } else {
        for wrong in formats::port_number(place.number()) {
            problems.invalid(place, wrong);
        }
    }
}
