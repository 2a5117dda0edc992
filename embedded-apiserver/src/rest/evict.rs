//! Evictions: deletions of pods that their disruption budgets may forbid.
//!
//! The rules are those of `registry/core/pod/storage/eviction.go` in the real server.

use std::sync::Arc;

use serde_json::{Value, json};

use super::decode::{self, Expected};
use super::delete::delete_one;
use super::deletion::DeleteOptions;
use super::object::{generation, is_deleting, metadata_text, now_text};
use super::write::tend_as;
use super::{ApiError, BodyFormat, Core, Reply, Request, Subject, cause};
use crate::storage::{Key, Stored, WriteError};

/// The name under which the server owns what an eviction writes.
const MANAGER: &str = "kube-apiserver";
/// How many pods a budget remembers as disrupted.
const MAX_DISRUPTED: usize = 2000;
const VIOLATES: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// Evicts a pod: deletes it unless a disruption budget forbids that now.
pub async fn evict(core: &Arc<Core>, request: &Request, warnings: &mut Vec<String>) -> Result<Reply, ApiError> {
    let expected = Expected {
        group: "policy",
        version: "v1",
        kind: "Eviction",
        custom: false,
    };
    let eviction = decode::subresource(request, expected, warnings)?;
    check(request, &eviction)?;
    let options = options(request, &eviction)?;
    let key = request.key(&request.name);
    let stored: Arc<Stored> = core
        .store
        .get(&key)
        .ok_or_else(|| ApiError::not_found(request.subject(&request.name)))?;
    let pod = stored.value().map_err(ApiError::internal)?;
    if !goes_anyway(&pod) {
        let budgets = budgets_of(core, request, &stored);
        match budgets.as_slice() {
            [] => {}
            [(budget_key, budget)] => {
                if !is_allowed_unhealthy(&pod, budget) {
                    take_from(budget, &request.name, &now_text(request.now))?;
                    if !options.dry_run {
                        take(core, request, budget_key).await?;
                    }
                }
            }
            _ => {
                let message =
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
                return Ok(status(
                    500,
                    json!({ "status": "Failure", "message": message, "code": 500 }),
                ));
            }
        }
    }
    check_uid(request, &options, &pod)?;
    if !options.dry_run {
        note_eviction(core, &key, &now_text(request.now))
            .await
            .map_err(|error| super::write::storage_error(request, &request.name, &error))?;
    }
    let mut deletion = request.clone();
    deletion.subresource.clear();
    delete_one(core, &deletion, &options).await?;
    Ok(status(201, json!({ "status": "Success", "code": 201 })))
}

fn status(code: u16, fields: Value) -> Reply {
    let mut value = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {} });
    if let (Some(status), Value::Object(fields)) = (value.as_object_mut(), fields) {
        status.extend(fields);
    }
    Reply::Value { code, value }
}

fn check(request: &Request, eviction: &Value) -> Result<(), ApiError> {
    if metadata_text(eviction, "name") != request.name {
        return Err(ApiError::bad_request(
            "name in URL does not match name in Eviction object",
        ));
    }
    Ok(())
}

/// The options of the deletion, with the dry run of the request.
fn options(request: &Request, eviction: &Value) -> Result<DeleteOptions, ApiError> {
    let mut asked = request.clone();
    asked.format = BodyFormat::Json;
    asked.body = match eviction.get("deleteOptions") {
        Some(options) if options.is_object() => serde_json::to_vec(options).map_err(ApiError::internal)?.into(),
        _ => bytes::Bytes::new(),
    };
    let mut options = DeleteOptions::parse(&asked)?;
    options.dry_run |= request.options.dry_run;
    Ok(options)
}

fn check_uid(request: &Request, options: &DeleteOptions, pod: &Value) -> Result<(), ApiError> {
    let found = metadata_text(pod, "uid");
    match options.uid.as_deref() {
        Some(wanted) if wanted != found => {
            let why = format!(
                "the UID in the precondition ({wanted}) does not match the UID in record ({found}). The object might have been deleted and then recreated"
            );
            Err(ApiError::conflict(request.kind_subject(&request.name), &why))
        }
        _ => Ok(()),
    }
}

/// Whether no budget has a say: the pod does not run.
fn goes_anyway(pod: &Value) -> bool {
    is_deleting(pod)
        || matches!(
            pod["status"]["phase"].as_str(),
            Some("Succeeded" | "Failed" | "Pending")
        )
}

fn budgets_of(core: &Core, request: &Request, pod: &Stored) -> Vec<(Key, Value)> {
    let resource: Arc<str> = "poddisruptionbudgets.policy".into();
    core.store
        .list_all(&resource, Some(&request.namespace))
        .into_iter()
        .filter_map(|(object, budget)| {
            let budget = budget.value().ok()?;
            let selector = crate::selector::LabelSelector::from_object(&budget["spec"]["selector"]).ok()?;
            let resource = Arc::clone(&resource);
            selector
                .matches(|label| pod.label(label))
                .then_some((Key { resource, object }, budget))
        })
        .collect()
}

/// Whether the pod is unhealthy, and its budget lets such go.
fn is_allowed_unhealthy(pod: &Value, budget: &Value) -> bool {
    let ready = pod["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    let count = |field: &str| budget["status"][field].as_i64().unwrap_or_default();
    !ready
        && (budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
            || (count("currentHealthy") >= count("desiredHealthy") && count("desiredHealthy") > 0))
}

/// The budget's status with one disruption taken from it, or why that cannot be.
fn take_from(budget: &Value, pod: &str, now: &str) -> Result<Value, ApiError> {
    let name = metadata_text(budget, "name");
    let count = |field: &str| budget["status"][field].as_i64().unwrap_or_default();
    let forbidden = |why: &str| {
        let subject = Subject {
            group: "policy",
            kind: "poddisruptionbudget",
            name,
        };
        Err(ApiError::forbidden(subject, why))
    };
    if count("observedGeneration") < generation(budget) {
        let message = format!("The disruption budget {name} is still being processed by the server.");
        let problem = cause("DisruptionBudget", "", message);
        return Err(ApiError::too_many_requests(VIOLATES, 10, &problem));
    }
    let allowed = count("disruptionsAllowed");
    if allowed < 0 {
        return forbidden("pdb disruptions allowed is negative");
    }
    let disrupted = budget["status"]["disruptedPods"].as_object();
    if disrupted.is_some_and(|pods| pods.len() > MAX_DISRUPTED) {
        return forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller");
    }
    if allowed == 0 {
        let message = format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            count("desiredHealthy"),
            count("currentHealthy")
        );
        let problem = cause("DisruptionBudget", "", message);
        return Err(ApiError::too_many_requests(VIOLATES, 0, &problem));
    }
    let mut status = budget["status"].clone();
    status["disruptionsAllowed"] = (allowed - 1).into();
    status["disruptedPods"][pod] = now.into();
    if allowed == 1 {
        let condition = json!({
            "type": "DisruptionAllowed",
            "status": "False",
            "reason": "InsufficientPods",
            "message": "",
            "lastTransitionTime": now,
            "observedGeneration": count("observedGeneration"),
        });
        set_condition(&mut status, condition);
    }
    Ok(status)
}

/// Takes a disruption from the budget as it is now.
async fn take(core: &Arc<Core>, request: &Request, key: &Key) -> Result<(), ApiError> {
    let mut refusal = None;
    let now = now_text(request.now);
    let written = tend_as(core, key, MANAGER, "status", |budget| {
        match take_from(budget, &request.name, &now) {
            Ok(status) => {
                budget["status"] = status;
                true
            }
            Err(error) => {
                refusal = Some(error);
                false
            }
        }
    })
    .await;
    match refusal {
        Some(error) => Err(error),
        None => written.map_err(|error| super::write::storage_error(request, &request.name, &error)),
    }
}

/// Says in the pod's status why it goes.
async fn note_eviction(core: &Arc<Core>, key: &Key, now: &str) -> Result<(), WriteError> {
    let condition = json!({
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
        "lastProbeTime": null,
        "lastTransitionTime": now,
    });
    tend_as(core, key, MANAGER, "", |pod| {
        if !pod["status"].is_object() {
            pod["status"] = json!({});
        }
        set_condition(&mut pod["status"], condition.clone())
    })
    .await
}

/// Puts a condition in place of the one of its type; false if it stood there, but for its time.
fn set_condition(status: &mut Value, condition: Value) -> bool {
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(conditions) = status["conditions"].as_array_mut() else {
        return false;
    };
    let known = conditions.iter_mut().find(|known| known["type"] == condition["type"]);
    match known {
        Some(known) if known["status"] == condition["status"] && known["reason"] == condition["reason"] => false,
        Some(known) => {
            *known = condition;
            true
        }
        None => {
            conditions.push(condition);
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(allowed: i64) -> Value {
        json!({
            "metadata": { "name": "b", "generation": 2 },
            "status": {
                "observedGeneration": 2, "disruptionsAllowed": allowed, "currentHealthy": 3, "desiredHealthy": 3,
            },
        })
    }

    #[test]
    fn each_eviction_takes_one_disruption_until_none_is_left() {
        let mut budget = budget(2);
        budget["status"] = take_from(&budget, "a", "now").unwrap();
        assert_eq!(budget["status"]["disruptionsAllowed"], 1);
        assert!(budget["status"].get("conditions").is_none());
        budget["status"] = take_from(&budget, "b", "now").unwrap();
        assert_eq!(budget["status"]["disruptedPods"], json!({ "a": "now", "b": "now" }));
        assert_eq!(budget["status"]["conditions"][0]["reason"], "InsufficientPods");
        let refused = take_from(&budget, "c", "now").unwrap_err();
        assert_eq!(refused.code, 429);
        assert_eq!(
            refused.details["causes"][0]["message"],
            "The disruption budget b needs 3 healthy pods and has 3 currently"
        );
    }

    #[test]
    fn a_budget_that_was_not_looked_at_asks_for_patience() {
        let mut budget = budget(2);
        budget["status"]["observedGeneration"] = 1.into();
        let refused = take_from(&budget, "a", "now").unwrap_err();
        assert_eq!(refused.details["retryAfterSeconds"], 10);
    }

    #[test]
    fn unhealthy_pods_go_where_enough_are_healthy() {
        let pod = json!({ "status": { "phase": "Running" } });
        assert!(is_allowed_unhealthy(&pod, &budget(0)));
        let ready = json!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }] } });
        assert!(!is_allowed_unhealthy(&ready, &budget(0)));
    }
}
