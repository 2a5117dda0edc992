//! What the real server's default admission plugins and strategies add to pods and nodes.
//!
//! From `plugin/pkg/admission/{defaulttolerationseconds,priority,nodetaint}` and `pkg/registry/core/pod`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::fields;
use super::quantity::Quantity;

/// The priority classes that every cluster has.
const CLASSES: [(&str, i64); 2] = [
    ("system-cluster-critical", 2_000_000_000),
    ("system-node-critical", 2_000_001_000),
];
const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// Why a new pod is not admitted.
pub(super) fn refusal(pod: &Value) -> Option<String> {
    let spec = &pod["spec"];
    let name = spec["priorityClassName"].as_str().unwrap_or_default();
    let Some(priority) = class_priority(name) else {
        return Some(format!("no PriorityClass with name {name} was found"));
    };
    let asked = spec["priority"].as_i64();
    if let Some(asked) = asked.filter(|asked| *asked != priority) {
        return Some(format!(
            "the integer value of priority ({asked}) must not be provided in pod spec; priority admission controller computed {priority} from the given PriorityClass name"
        ));
    }
    let preemption = spec["preemptionPolicy"].as_str().unwrap_or(PREEMPTION);
    if preemption != PREEMPTION {
        return Some(format!(
            "the string value of PreemptionPolicy ({preemption}) must not be provided in pod spec; priority admission controller computed {PREEMPTION} from the given PriorityClass name"
        ));
    }
    let runtime = spec["runtimeClassName"].as_str().unwrap_or_default();
    (!runtime.is_empty()).then(|| format!("pod rejected: RuntimeClass {runtime:?} not found"))
}

const PREEMPTION: &str = "PreemptLowerPriority";

fn class_priority(name: &str) -> Option<i64> {
    if name.is_empty() {
        return Some(0);
    }
    CLASSES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, priority)| *priority)
}

/// A new pod.
pub(super) fn create_pod(pod: &mut Value) {
    let mut status = json!({ "phase": "Pending", "qosClass": quality(&pod["spec"]) });
    if pod["spec"]["schedulingGates"]
        .as_array()
        .is_some_and(|gates| !gates.is_empty())
    {
        status["conditions"] = json!([{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
            "lastProbeTime": null, "lastTransitionTime": pod["metadata"]["creationTimestamp"],
        }]);
    }
    pod["status"] = status;
    tolerate(pod);
    let name = pod["spec"]["priorityClassName"].as_str().unwrap_or_default();
    if let Some(priority) = class_priority(name)
        && let Some(spec) = fields(pod, "spec")
    {
        spec.entry("priority").or_insert_with(|| json!(priority));
        spec.entry("preemptionPolicy").or_insert_with(|| json!(PREEMPTION));
    }
}

/// A pod that replaces another.
pub(super) fn update_pod(old: &Value, pod: &mut Value) {
    tolerate(pod);
    if let Some(spec) = fields(pod, "spec") {
        for field in ["priority", "preemptionPolicy"] {
            if let Some(before) = old["spec"].get(field) {
                spec.entry(field).or_insert_with(|| before.clone());
            }
        }
    }
}

/// Pods stay on a node that is lost for five minutes, unless they say otherwise.
fn tolerate(pod: &mut Value) {
    let Some(spec) = fields(pod, "spec") else {
        return;
    };
    let list = spec.entry("tolerations").or_insert_with(|| json!([]));
    let Some(list) = list.as_array_mut() else {
        return;
    };
    let text = |each: &Value, field: &str| each[field].as_str().unwrap_or_default().to_owned();
    for taint in [NOT_READY, "node.kubernetes.io/unreachable"] {
        let covers = |each: &Value| {
            let (key, effect) = (text(each, "key"), text(each, "effect"));
            (key.is_empty() || key == taint) && (effect.is_empty() || effect == "NoExecute")
        };
        if !list.iter().any(covers) {
            list.push(json!({ "key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 }));
        }
    }
}

/// A new node is not ready, and says so.
pub(super) fn taint_node(node: &mut Value) {
    let Some(spec) = fields(node, "spec") else {
        return;
    };
    let taints = spec.entry("taints").or_insert_with(|| json!([]));
    let Some(taints) = taints.as_array_mut() else {
        return;
    };
    let wanted = json!({ "key": NOT_READY, "effect": "NoSchedule" });
    if !taints
        .iter()
        .any(|taint| taint["key"] == wanted["key"] && taint["effect"] == wanted["effect"])
    {
        taints.push(wanted);
    }
}

/// The quality of service class of a pod.
fn quality(spec: &Value) -> &'static str {
    let mut sums: [BTreeMap<&str, Quantity>; 2] = Default::default();
    let mut guaranteed = true;
    let containers = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| spec[*list].as_array().into_iter().flatten());
    for container in containers {
        for (sums, list) in sums.iter_mut().zip(["requests", "limits"]) {
            let mut found = 0;
            for name in ["cpu", "memory"] {
                let amount = container["resources"][list][name]
                    .as_str()
                    .and_then(|text| Quantity::parse(text).ok());
                let Some(amount) = amount.filter(|amount| !amount.is_negative() && !amount.is_zero()) else {
                    continue;
                };
                found += 1;
                sums.entry(name)
                    .and_modify(|sum| *sum = sum.plus(amount))
                    .or_insert(amount);
            }
            guaranteed &= list == "requests" || found == 2;
        }
    }
    let [requests, limits] = sums;
    if requests.is_empty() && limits.is_empty() {
        return "BestEffort";
    }
    let equal = requests.len() == limits.len()
        && requests
            .iter()
            .all(|(name, amount)| limits.get(name).is_some_and(|limit| limit.compare(*amount).is_eq()));
    if guaranteed && equal { "Guaranteed" } else { "Burstable" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quality_follows_requests_and_limits() {
        let of = |resources: Value| quality(&json!({ "containers": [{ "resources": resources }] }));
        let all = json!({ "cpu": "1", "memory": "1Gi" });
        assert_eq!(of(json!({})), "BestEffort");
        assert_eq!(of(json!({ "requests": { "cpu": "1" } })), "Burstable");
        assert_eq!(of(json!({ "requests": all, "limits": all })), "Guaranteed");
        assert_eq!(
            of(json!({ "requests": { "cpu": "1", "memory": "1" }, "limits": all })),
            "Burstable"
        );
        assert_eq!(
            of(json!({ "limits": { "cpu": "1" }, "requests": { "cpu": "1" } })),
            "Burstable"
        );
    }

    #[test]
    fn tolerations_are_added_once() {
        let mut pod = json!({ "spec": { "tolerations": [{ "key": NOT_READY, "operator": "Exists" }] } });
        tolerate(&mut pod);
        tolerate(&mut pod);
        assert_eq!(pod["spec"]["tolerations"].as_array().map(Vec::len), Some(2));
        let mut all = json!({ "spec": { "tolerations": [{ "operator": "Exists" }] } });
        tolerate(&mut all);
        assert_eq!(all["spec"]["tolerations"].as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn priorities_come_from_classes() {
        assert_eq!(
            refusal(&json!({ "spec": { "priorityClassName": "system-node-critical" } })),
            None
        );
        assert!(refusal(&json!({ "spec": { "priorityClassName": "x" } })).is_some());
        assert!(refusal(&json!({ "spec": { "priority": 5 } })).is_some());
        let mut pod = json!({ "spec": { "priorityClassName": "system-node-critical" } });
        create_pod(&mut pod);
        assert_eq!(pod["spec"]["priority"], 2_000_001_000);
    }
}
