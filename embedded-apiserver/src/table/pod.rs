//! The cells of pods: readiness, status and restarts need more than one field.
//!
//! For: the columns of `kubectl get pods`. Not for: other kinds.

use super::{age_at, at, integer_at, list_at, text_at};
use jiff::Timestamp;
use serde_json::{Value, json};

/// What the containers of a pod say together.
struct Summary {
    ready: usize,
    containers: usize,
    reason: String,
    restarts: i64,
    /// When a container last ended to be restarted.
    last_restart: String,
}

fn statuses<'pod>(pod: &'pod Value, field: &str) -> &'pod [Value] {
    list_at(pod, &["status", field])
}

fn has_condition(pod: &Value, kind: &str) -> bool {
    list_at(pod, &["status", "conditions"])
        .iter()
        .any(|condition| text_at(condition, &["type"]) == kind && text_at(condition, &["status"]) == "True")
}

/// Whether the init container of this name goes on beside the others.
fn is_sidecar(pod: &Value, name: &str) -> bool {
    list_at(pod, &["spec", "initContainers"])
        .iter()
        .any(|container| text_at(container, &["name"]) == name && text_at(container, &["restartPolicy"]) == "Always")
}

impl Summary {
    fn of(pod: &Value) -> Self {
        let phase = text_at(pod, &["status", "phase"]);
        let mut summary = Self {
            ready: 0,
            containers: list_at(pod, &["spec", "containers"]).len(),
            reason: match text_at(pod, &["status", "reason"]) {
                "" => phase.to_owned(),
                reason => reason.to_owned(),
            },
            restarts: 0,
            last_restart: String::new(),
        };
        let gated = list_at(pod, &["status", "conditions"]).iter().any(|condition| {
            text_at(condition, &["type"]) == "PodScheduled" && text_at(condition, &["reason"]) == "SchedulingGated"
        });
        if gated {
            "SchedulingGated".clone_into(&mut summary.reason);
        }
        summary.containers += list_at(pod, &["spec", "initContainers"])
            .iter()
            .filter(|container| text_at(container, &["restartPolicy"]) == "Always")
            .count();
        let initializing = summary.add_init_containers(pod);
        if !initializing || has_condition(pod, "Initialized") {
            summary.add_containers(pod);
        }
        if !text_at(pod, &["metadata", "deletionTimestamp"]).is_empty() {
            if text_at(pod, &["status", "reason"]) == "NodeLost" {
                "Unknown".clone_into(&mut summary.reason);
            } else if !matches!(phase, "Succeeded" | "Failed") {
                "Terminating".clone_into(&mut summary.reason);
            }
        }
        summary
    }

    fn count_restarts(&mut self, container: &Value) {
        self.restarts += integer_at(container, &["restartCount"]);
        let ended = text_at(container, &["lastState", "terminated", "finishedAt"]);
        // Times of one form are ordered as texts.
        if ended > self.last_restart.as_str() {
            ended.clone_into(&mut self.last_restart);
        }
    }

    /// Whether they are still at work; then their restarts count.
    fn add_init_containers(&mut self, pod: &Value) -> bool {
        let mut sidecars = (0, String::new());
        let mut initializing = false;
        for (index, container) in statuses(pod, "initContainerStatuses").iter().enumerate() {
            self.count_restarts(container);
            let sidecar = is_sidecar(pod, text_at(container, &["name"]));
            if sidecar {
                sidecars.0 += integer_at(container, &["restartCount"]);
                sidecars.1 = sidecars
                    .1
                    .max(text_at(container, &["lastState", "terminated", "finishedAt"]).to_owned());
            }
            let terminated = &container["state"]["terminated"];
            let waiting = text_at(container, &["state", "waiting", "reason"]);
            if terminated.is_object() && integer_at(terminated, &["exitCode"]) == 0 {
                continue;
            }
            if sidecar && container["started"] == true {
                self.ready += usize::from(container["ready"] == true);
                continue;
            }
            self.reason = if terminated.is_object() {
                format!("Init:{}", ended(terminated))
            } else if !waiting.is_empty() && waiting != "PodInitializing" {
                format!("Init:{waiting}")
            } else {
                format!("Init:{index}/{}", list_at(pod, &["spec", "initContainers"]).len())
            };
            initializing = true;
            break;
        }
        if !initializing || has_condition(pod, "Initialized") {
            // Of those that are done, only the ones that go on beside the others count.
            (self.restarts, self.last_restart) = sidecars;
        }
        initializing
    }

    fn add_containers(&mut self, pod: &Value) {
        let mut running = false;
        for container in statuses(pod, "containerStatuses").iter().rev() {
            self.count_restarts(container);
            let waiting = text_at(container, &["state", "waiting", "reason"]);
            let terminated = &container["state"]["terminated"];
            if !waiting.is_empty() {
                waiting.clone_into(&mut self.reason);
            } else if terminated.is_object() {
                self.reason = ended(terminated);
            } else if container["ready"] == true && container["state"]["running"].is_object() {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && running {
            let reason = if has_condition(pod, "Ready") {
                "Running"
            } else {
                "NotReady"
            };
            reason.clone_into(&mut self.reason);
        }
    }
}

fn ended(terminated: &Value) -> String {
    match (text_at(terminated, &["reason"]), integer_at(terminated, &["signal"])) {
        ("", 0) => format!("ExitCode:{}", integer_at(terminated, &["exitCode"])),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

/// Containers that are ready, of all.
pub(super) fn ready(pod: &Value, _now: Timestamp) -> Value {
    let summary = Summary::of(pod);
    json!(format!("{}/{}", summary.ready, summary.containers))
}

/// The phase, or the more telling reason of a container.
pub(super) fn status(pod: &Value, _now: Timestamp) -> Value {
    json!(Summary::of(pod).reason)
}

/// How often containers were restarted, and when last.
pub(super) fn restarts(pod: &Value, now: Timestamp) -> Value {
    let summary = Summary::of(pod);
    let count = summary.restarts;
    if count == 0 || summary.last_restart.is_empty() {
        return json!(count.to_string());
    }
    let last = json!({ "last": summary.last_restart });
    json!(format!("{count} ({} ago)", age_at(&last, &["last"], now)))
}

/// The first of its addresses.
pub(super) fn address(pod: &Value, _now: Timestamp) -> Value {
    let first = list_at(pod, &["status", "podIPs"]).first();
    match first.map(|address| text_at(address, &["ip"])).unwrap_or_default() {
        "" => json!("<none>"),
        address => json!(address),
    }
}

/// Readiness gates that are true, of all.
pub(super) fn readiness_gates(pod: &Value, _now: Timestamp) -> Value {
    let gates = list_at(pod, &["spec", "readinessGates"]);
    if gates.is_empty() {
        return json!("<none>");
    }
    let held = gates
        .iter()
        .filter(|gate| has_condition(pod, text_at(gate, &["conditionType"])))
        .count();
    json!(format!("{held}/{}", gates.len()))
}

/// What the row of a pod says beside its cells: whether it is done.
pub(super) fn row_conditions(object: &Value) -> Option<Value> {
    if at(object, &["kind"])? != "Pod" || at(object, &["apiVersion"])? != "v1" {
        return None;
    }
    let (reason, message) = match text_at(object, &["status", "phase"]) {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!([{ "type": "Completed", "status": "True", "reason": reason, "message": message }]))
}
