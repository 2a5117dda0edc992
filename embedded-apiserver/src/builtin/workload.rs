//! The rules of DaemonSets, PodDisruptionBudgets and Leases.

use serde_json::{Value, json};

use super::check::{Place, Problems};
use super::{formats, pod};

/// Of a Lease.
pub(super) fn lease(object: &Value, problems: &mut Problems) {
    let spec = Place::top(object, "spec");
    let duration = spec.field("leaseDurationSeconds");
    if duration.is_set() && duration.number() <= 0 {
        problems.invalid(&duration, "must be greater than 0");
    }
    problems.not_negative(&spec.field("leaseTransitions"));
}

/// Of a PodDisruptionBudget.
pub(super) fn disruption_budget(object: &Value, problems: &mut Problems) {
    let spec = Place::top(object, "spec");
    let bounds = [spec.field("minAvailable"), spec.field("maxUnavailable")];
    let selector = spec.field("selector");
    let policy = spec.field("unhealthyPodEvictionPolicy");
    if bounds.iter().all(Place::is_set) {
        let [least, most] = &bounds;
        let shown = format!(
            "{{\"MinAvailable\":{},\"Selector\":{},\"MaxUnavailable\":{},\"UnhealthyPodEvictionPolicy\":{}}}",
            least.value, selector.value, most.value, policy.value
        );
        problems.invalid_shown(&spec, &shown, "minAvailable and maxUnavailable cannot be both set");
    }
    for bound in bounds.iter().filter(|bound| bound.is_set()) {
        number_or_percent(bound, problems);
        at_most_all(bound, problems);
    }
    label_selector(&selector, problems);
    if policy.is_set() {
        problems.one_of(&policy, &["AlwaysAllow", "IfHealthyBudget"]);
    }
}

/// Of a PodDisruptionBudget's status.
pub(super) fn disruption_budget_status(object: &Value, problems: &mut Problems) {
    let status = Place::top(object, "status");
    conditions(&status.field("conditions"), problems);
    for field in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
        problems.not_negative(&status.field(field));
    }
}

/// Of conditions in the common form.
fn conditions(list: &Place<'_>, problems: &mut Problems) {
    let mut known = std::collections::BTreeSet::new();
    for condition in list.elements() {
        let kind = condition.field("type");
        if !known.insert(kind.text()) {
            problems.duplicate(&kind);
        }
        problems.all_invalid(&kind, formats::qualified_name(kind.text()));
        let status = condition.field("status");
        problems.one_of(&status, &["False", "True", "Unknown"]);
        let generation = condition.field("observedGeneration");
        if generation.number() < 0 {
            problems.invalid(&generation, "must be greater than or equal to zero");
        }
        let time = condition.field("lastTransitionTime");
        if !time.is_set() {
            problems.required(&time, "");
        }
        let reason = condition.field("reason");
        problems.required_text(&reason);
    }
}

fn number_or_percent(place: &Place<'_>, problems: &mut Problems) {
    if place.value.is_string() {
        problems.all_invalid(place, formats::percent(place.text()));
    } else {
        problems.not_negative(place);
    }
}

fn share(place: &Place<'_>) -> Option<i64> {
    place.text().strip_suffix('%').and_then(|digits| digits.parse().ok())
}

fn at_most_all(place: &Place<'_>, problems: &mut Problems) {
    if share(place).is_some_and(|share| share > 100) {
        problems.invalid(place, "must not be greater than 100%");
    }
}

/// Of a selector by labels.
pub(super) fn label_selector(selector: &Place<'_>, problems: &mut Problems) {
    pod::labels(&selector.field("matchLabels"), problems);
    for rule in selector.field("matchExpressions").elements() {
        let (operator, values, key) = (rule.field("operator"), rule.field("values"), rule.field("key"));
        match operator.text() {
            "In" | "NotIn" if values.len() == 0 => {
                problems.required(&values, "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if values.len() > 0 => problems.forbidden(
                &values,
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => problems.invalid_as(&operator, &other.into(), "not a valid selector operator"),
        }
        problems.all_invalid(&key, formats::qualified_name(key.text()));
        for value in values.elements() {
            problems.all_invalid(&value, formats::label_value(value.text()));
        }
    }
}

/// Whether a selector selects these labels; none selects nothing, an unreadable one is not judged.
fn selects(selector: &Place<'_>, labels: &Place<'_>) -> bool {
    if !selector.is_set() {
        return false;
    }
    let label = |key: &str| labels.value.get(key).and_then(Value::as_str);
    let equal = selector
        .field("matchLabels")
        .entries()
        .all(|(key, value)| label(key) == Some(value.text()));
    equal
        && selector.field("matchExpressions").elements().all(|rule| {
            let found = label(rule.field("key").text());
            let listed = || rule.field("values").elements().any(|value| found == Some(value.text()));
            match rule.field("operator").text() {
                "In" => listed(),
                "NotIn" => !listed(),
                "Exists" => found.is_some(),
                "DoesNotExist" => found.is_none(),
                _ => true,
            }
        })
}

/// Of a DaemonSet.
pub(super) fn daemon_set(object: &Value, old: Option<&Value>, problems: &mut Problems) {
    let spec = Place::top(object, "spec");
    let selector = spec.field("selector");
    if let Some(old) = old {
        problems.immutable(&selector, &Place::top(old, "spec").field("selector"));
    }
    label_selector(&selector, problems);
    let template = spec.field("template");
    let labels = template.field("metadata").field("labels");
    if !selects(&selector, &labels) {
        problems.invalid(&labels, "`selector` does not match template `labels`");
    }
    if selector.is_set() && selector.field("matchLabels").len() + selector.field("matchExpressions").len() == 0 {
        problems.invalid(&selector, "empty selector is invalid for daemonset");
    }
    pod::template(&template, problems);
    let inner = template.field("spec");
    problems.one_of(&inner.field("restartPolicy"), &["Always"]);
    let deadline = inner.field("activeDeadlineSeconds");
    if deadline.is_set() {
        problems.forbidden(&deadline, "activeDeadlineSeconds in DaemonSet is not Supported");
    }
    problems.not_negative(&spec.field("minReadySeconds"));
    update_strategy(&spec.field("updateStrategy"), problems);
    problems.not_negative(&spec.field("revisionHistoryLimit"));
}

fn update_strategy(strategy: &Place<'_>, problems: &mut Problems) {
    let rolling = strategy.field("rollingUpdate");
    match strategy.field("type").text() {
        "OnDelete" => {}
        "RollingUpdate" => {
            let bounds = [rolling.field("maxUnavailable"), rolling.field("maxSurge")];
            for bound in &bounds {
                number_or_percent(bound, problems);
            }
            for bound in &bounds {
                at_most_all(bound, problems);
            }
            let [unavailable, surge] = bounds;
            let counts = |place: &Place<'_>| share(place).unwrap_or_else(|| place.number()) != 0;
            match (counts(&unavailable), counts(&surge)) {
                (true, true) => problems.invalid(&surge, "may not be set when maxUnavailable is non-zero"),
                (false, false) => problems.required(&unavailable, "cannot be 0 when maxSurge is 0"),
                _ => {}
            }
        }
        other => {
            let shown = if rolling.is_set() {
                let part = |name: &str| rolling.field(name).value.clone();
                let (unavailable, surge) = (part("maxUnavailable"), part("maxSurge"));
                format!("{{\"MaxUnavailable\":{unavailable},\"MaxSurge\":{surge}}}")
            } else {
                "null".to_owned()
            };
            let message = format!(
                "Unsupported value: {{\"Type\":{},\"RollingUpdate\":{shown}}}: supported values: \"RollingUpdate\", \"OnDelete\"",
                json!(other)
            );
            problems.push("FieldValueNotSupported", &strategy.path, message);
        }
    }
}

/// Of a DaemonSet's status.
pub(super) fn daemon_set_status(object: &Value, old: &Value, problems: &mut Problems) {
    let status = Place::top(object, "status");
    for field in [
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
        "collisionCount",
    ] {
        problems.not_negative(&status.field(field));
    }
    let collisions = status.field("collisionCount");
    let before = Place::top(old, "status").field("collisionCount");
    if before.is_set() && collisions.number() < before.number() {
        problems.invalid_as(&collisions, &collisions.number().into(), "cannot be decremented");
    }
}
