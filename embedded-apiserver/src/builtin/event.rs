//! The rules of Events: lenient for core/v1, strict for events.k8s.io/v1.
//!
//! Errors name the fields of the internal type, whichever names the request has used.

use serde_json::{Value, json};

use super::check::{Place, Problems};
use super::formats;

/// Name of the internal type, in core/v1, in events.k8s.io/v1.
const FIELDS: [(&str, &str, &str); 7] = [
    ("involvedObject", "involvedObject", "regarding"),
    ("message", "message", "note"),
    ("source", "source", "deprecatedSource"),
    ("firstTimestamp", "firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "count", "deprecatedCount"),
    ("reportingController", "reportingComponent", "reportingController"),
];

struct Event<'object> {
    object: &'object Value,
    strict: bool,
}

impl<'object> Event<'object> {
    fn at(&self, internal: &str) -> Place<'object> {
        let renamed = FIELDS.iter().find(|(name, _, _)| *name == internal);
        let name = renamed.map_or(internal, |(_, core, view)| if self.strict { view } else { core });
        Place::top(self.object, name).called(internal)
    }
}

/// Of an Event; `strict` for those of events.k8s.io/v1.
pub(super) fn event(object: &Value, old: Option<&Value>, strict: bool, problems: &mut Problems) {
    let event = Event { object, strict };
    lenient(&event, problems);
    if !strict {
        return;
    }
    match old {
        None => created(&event, problems),
        Some(old) => updated(&event, &Event { object: old, strict }, problems),
    }
}

fn lenient(event: &Event<'_>, problems: &mut Problems) {
    let namespace = super::text(event.object, "namespace");
    let involved = Place {
        path: "involvedObject.namespace".to_owned(),
        value: event
            .at("involvedObject")
            .value
            .get("namespace")
            .unwrap_or(&Value::Null),
    };
    let mismatch = |problems: &mut Problems| {
        problems.invalid_as(&involved, &involved.text().into(), "does not match event.namespace");
    };
    if event.at("eventTime").is_set() {
        if involved.text().is_empty() && !matches!(namespace, "default" | "kube-system") {
            mismatch(problems);
        }
        let mut controller = event.at("reportingController");
        if !event.strict {
            controller = controller.called("reportingComponent");
        }
        problems.required_text(&controller);
        problems.all_invalid(&controller, formats::qualified_name(controller.text()));
        for (field, limit) in [
            ("reportingInstance", 128),
            ("action", 128),
            ("reason", 128),
            ("message", 1024),
        ] {
            let place = event.at(field);
            if field != "message" {
                problems.required_text(&place);
            }
            if place.text().len() > limit {
                problems.invalid_as(&place, &"".into(), format!("can have at most {limit} characters"));
            }
        }
    } else if involved.text().is_empty() {
        if !matches!(namespace, "" | "default") {
            mismatch(problems);
        }
    } else if involved.text() != namespace {
        mismatch(problems);
    }
    let place = Place {
        path: "namespace".to_owned(),
        value: event.object.pointer("/metadata/namespace").unwrap_or(&Value::Null),
    };
    problems.all_invalid(&place, formats::dns_subdomain(place.text()));
}

fn series(event: &Event<'_>, problems: &mut Problems) {
    let series = event.at("series");
    if !series.is_set() {
        return;
    }
    if series.field("count").number() < 2 {
        problems.invalid_as(&series.field("count"), &"".into(), "should be at least 2");
    }
    if !series.field("lastObservedTime").is_set() {
        problems.required(&series.field("lastObservedTime"), "");
    }
}

fn created(event: &Event<'_>, problems: &mut Problems) {
    series(event, problems);
    if !event.at("eventTime").is_set() {
        problems.required(&event.at("eventTime"), "");
    }
    let kind = event.at("type");
    if !matches!(kind.text(), "Normal" | "Warning") {
        problems.invalid_as(&kind, &"".into(), format!("has invalid value: {}", kind.text()));
    }
    for field in ["firstTimestamp", "lastTimestamp", "count", "source"] {
        let place = event.at(field);
        let unset = match place.value {
            Value::Null => true,
            Value::Object(source) => source.values().all(|part| part.as_str().unwrap_or_default().is_empty()),
            value => value.as_i64() == Some(0),
        };
        if !unset {
            problems.invalid_as(&place, &"".into(), "needs to be unset");
        }
    }
}

fn updated(event: &Event<'_>, old: &Event<'_>, problems: &mut Problems) {
    if event.at("series").value != old.at("series").value {
        series(event, problems);
    }
    for field in [
        "involvedObject",
        "reason",
        "message",
        "source",
        "firstTimestamp",
        "lastTimestamp",
        "count",
        "reason",
        "type",
        "eventTime",
        "action",
        "related",
        "reportingController",
        "reportingInstance",
    ] {
        let (new, old) = (event.at(field), old.at(field));
        if new.value == old.value {
            continue;
        }
        match field {
            "involvedObject" | "related" => {
                problems.invalid_shown(&new, &reference(new.value), "field is immutable");
            }
            "source" => {
                let part = |name: &str| new.field(name).text().to_owned();
                let shown = format!(
                    "{{\"Component\":{},\"Host\":{}}}",
                    json!(part("component")),
                    json!(part("host"))
                );
                problems.invalid_shown(&new, &shown, "field is immutable");
            }
            "count" => problems.invalid_as(&new, &new.number().into(), "field is immutable"),
            _ if new.is_set() || field.ends_with("Timestamp") || field == "eventTime" => {
                problems.invalid(&new, "field is immutable");
            }
            _ => problems.invalid_as(&new, &"".into(), "field is immutable"),
        }
    }
}

/// An object reference, as errors show the internal type.
fn reference(value: &Value) -> String {
    if value.is_null() {
        return "null".to_owned();
    }
    let parts = [
        ("Kind", "kind"),
        ("Namespace", "namespace"),
        ("Name", "name"),
        ("UID", "uid"),
        ("APIVersion", "apiVersion"),
        ("ResourceVersion", "resourceVersion"),
        ("FieldPath", "fieldPath"),
    ]
    .map(|(shown, name)| format!("\"{shown}\":{}", json!(value[name].as_str().unwrap_or_default())));
    format!("{{{}}}", parts.join(","))
}
