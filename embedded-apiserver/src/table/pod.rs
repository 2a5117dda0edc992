//! The cells of pods: readiness, status and restarts need more than one field.
//!
//! For: the columns of `kubectl get pods`. Not for: other kinds.

use super::{age_at, integer_at, list_at, text_at};
use jiff::Timestamp;
use serde_json::{Value, json};

fn statuses<'pod>(pod: &'pod Value, field: &str) -> &'pod [Value] {
    list_at(pod, &["status", field])
}

/// Containers that are ready, of all.
pub(super) fn ready(pod: &Value, _now: Timestamp) -> Value {
    let total = list_at(pod, &["spec", "containers"]).len();
    let ready = statuses(pod, "containerStatuses")
        .iter()
        .filter(|status| status.get("ready") == Some(&Value::Bool(true)) && status["state"].get("running").is_some())
        .count();
    json!(format!("{ready}/{total}"))
}

/// The phase, or the more telling reason of a container.
pub(super) fn status(pod: &Value, _now: Timestamp) -> Value {
    let phase = text_at(pod, &["status", "phase"]);
    let mut reason = match text_at(pod, &["status", "reason"]) {
        "" => phase.to_owned(),
        reason => reason.to_owned(),
    };
    let gated = list_at(pod, &["status", "conditions"]).iter().any(|condition| {
        text_at(condition, &["type"]) == "PodScheduled" && text_at(condition, &["reason"]) == "SchedulingGated"
    });
    if gated {
        "SchedulingGated".clone_into(&mut reason);
    }
    let mut initializing = false;
    let init = statuses(pod, "initContainerStatuses");
    for (index, container) in init.iter().enumerate() {
        let terminated = &container["state"]["terminated"];
        let waiting = text_at(container, &["state", "waiting", "reason"]);
        if terminated.is_object() && integer_at(terminated, &["exitCode"]) == 0 {
            continue;
        }
        if terminated.is_object() {
            reason = format!("Init:{}", ended(terminated));
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            reason = format!("Init:{waiting}");
        } else {
            reason = format!("Init:{index}/{}", list_at(pod, &["spec", "initContainers"]).len());
        }
        initializing = true;
        break;
    }
    if !initializing {
        let mut running = false;
        for container in statuses(pod, "containerStatuses").iter().rev() {
            let waiting = text_at(container, &["state", "waiting", "reason"]);
            let terminated = &container["state"]["terminated"];
            if !waiting.is_empty() {
                waiting.clone_into(&mut reason);
            } else if terminated.is_object() {
                reason = ended(terminated);
            } else if container.get("ready") == Some(&Value::Bool(true)) && container["state"]["running"].is_object() {
                running = true;
            }
        }
        if reason == "Completed" && running {
            "Running".clone_into(&mut reason);
        }
    }
    if !text_at(pod, &["metadata", "deletionTimestamp"]).is_empty() {
        reason = match (text_at(pod, &["status", "reason"]), phase) {
            ("NodeLost", _) => "Unknown".to_owned(),
            (_, "Succeeded" | "Failed") => reason,
            _ => "Terminating".to_owned(),
        };
    }
    json!(reason)
}

fn ended(terminated: &Value) -> String {
    match (text_at(terminated, &["reason"]), integer_at(terminated, &["signal"])) {
        ("", 0) => format!("ExitCode:{}", integer_at(terminated, &["exitCode"])),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

/// How often containers were restarted, and when last.
pub(super) fn restarts(pod: &Value, now: Timestamp) -> Value {
    let containers = statuses(pod, "containerStatuses");
    let count: i64 = containers
        .iter()
        .map(|container| integer_at(container, &["restartCount"]))
        .sum();
    let last = containers
        .iter()
        .filter(|container| !text_at(container, &["lastState", "terminated", "finishedAt"]).is_empty())
        .max_by_key(|container| text_at(container, &["lastState", "terminated", "finishedAt"]).to_owned());
    json!(match last {
        Some(container) if count > 0 => {
            format!(
                "{count} ({} ago)",
                age_at(container, &["lastState", "terminated", "finishedAt"], now)
            )
        }
        _ => count.to_string(),
    })
}

/// Readiness gates that are true, of all.
pub(super) fn readiness_gates(pod: &Value, _now: Timestamp) -> Value {
    let gates = list_at(pod, &["spec", "readinessGates"]);
    if gates.is_empty() {
        return json!("<none>");
    }
    let conditions = list_at(pod, &["status", "conditions"]);
    let held = gates
        .iter()
        .filter(|gate| {
            conditions.iter().any(|condition| {
                condition.get("type") == gate.get("conditionType") && text_at(condition, &["status"]) == "True"
            })
        })
        .count();
    json!(format!("{held}/{}", gates.len()))
}
