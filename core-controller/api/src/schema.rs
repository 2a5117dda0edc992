//! Pieces of schema that the derives cannot write: bounds on maps, conditions, selectors, opaque objects, CEL rules.
//!
//! Every string, list and map is bounded here or at its field, because the API server prices a CEL rule by the largest
//! object that the schema allows and refuses a definition whose rules could cost too much.

use kube_core::Rule;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// The keyword under which a schema carries its CEL rules.
pub(crate) const RULES: &str = "x-kubernetes-validations";

/// A DNS label, as names of objects that become labels or host names have to be.
pub(crate) const DNS_LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// A DNS subdomain, as names of Secrets and nodes may be.
pub(crate) const DNS_SUBDOMAIN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// The key of a label or annotation: an optional DNS prefix and a name.
pub(crate) const LABEL_KEY: &str =
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$";
/// The value of a label; it may be empty.
pub(crate) const LABEL_VALUE: &str = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$";
/// A duration as Go writes it, without sign: `90s`, `1h30m`.
pub(crate) const DURATION: &str = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$";
/// A Kubernetes version: `v1.34.2`, the `v` optional, with an optional pre-release and build.
pub(crate) const KUBERNETES_VERSION: &str =
    r"^v?(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$";

/// A CEL rule with the sentence that a person reads when it does not hold.
pub(crate) fn rule(rule: &str, message: &str) -> Value {
    json!(Rule::new(rule).message(message))
}

/// The rule that a text is written as `pattern` says. A rule rather than the keyword `pattern`, because the API server
/// answers the latter with the regular expression instead of a sentence.
pub(crate) fn form(pattern: &str, message: &str) -> Value {
    rule(&format!("self.matches(r'{pattern}')"), message)
}

/// A CEL rule whose failure is reported at `field` (as `.name`) below the object that carries it.
pub(crate) fn rule_at(field: &str, rule: &str, message: &str) -> Value {
    json!(Rule::new(rule).message(message).field_path(field))
}

/// The rule that keeps an optional `field` as it is once it has a value.
pub(crate) fn once_set(field: &str, message: &str) -> Value {
    rule_at(
        &format!(".{field}"),
        &format!("!has(oldSelf.{field}) || (has(self.{field}) && self.{field} == oldSelf.{field})"),
        message,
    )
}

/// The rule that keeps an optional `field` as it was at creation, absent included.
pub(crate) fn immutable(field: &str, message: &str) -> Value {
    rule_at(
        &format!(".{field}"),
        &format!(
            "has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"
        ),
        message,
    )
}

/// The rule that a label selector of a set or deployment selects the machines that its own template makes.
pub(crate) fn selector_matches_template() -> Value {
    const LABELS: &str = "has(self.template.metadata) && has(self.template.metadata.labels)";
    const HAS_KEY: &str =
        "(has(self.template.metadata) && has(self.template.metadata.labels) && e.key in self.template.metadata.labels)";
    let equal = format!(
        "(!has(self.selector.matchLabels) || size(self.selector.matchLabels) == 0 || ({LABELS} && \
         self.selector.matchLabels.all(k, k in self.template.metadata.labels && \
         self.template.metadata.labels[k] == self.selector.matchLabels[k])))"
    );
    let expressions = format!(
        "(!has(self.selector.matchExpressions) || self.selector.matchExpressions.all(e, \
         e.operator == 'Exists' ? {HAS_KEY} : \
         e.operator == 'DoesNotExist' ? !{HAS_KEY} : \
         e.operator == 'In' ? ({HAS_KEY} && has(e.values) && self.template.metadata.labels[e.key] in e.values) : \
         (!{HAS_KEY} || !has(e.values) || !(self.template.metadata.labels[e.key] in e.values))))"
    );
    rule_at(
        ".selector",
        &format!("{equal} && {expressions}"),
        "spec.selector must match spec.template.metadata.labels: give the template the labels that the selector asks for",
    )
}

/// The conditions of a status: a list that the API server merges by `type`.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 32,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": {
                    "type": "string", "maxLength": 316,
                    "description": "What the condition is about, in CamelCase.",
                },
                "status": {
                    "type": "string", "enum": ["True", "False", "Unknown"],
                    "description": "Whether the condition holds.",
                },
                "reason": {
                    "type": "string", "minLength": 1, "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                    "description": "Why, in one CamelCase word for programs.",
                },
                "message": {
                    "type": "string", "maxLength": 32768,
                    "description": "Why, in words for people.",
                },
                "observedGeneration": {
                    "type": "integer", "format": "int64", "minimum": 0,
                    "description": "The metadata.generation that the condition was judged for.",
                },
                "lastTransitionTime": {
                    "type": "string", "format": "date-time",
                    "description": "When the status last changed from one value to another.",
                },
            },
        },
    })
}

/// The sentence for a wrong key of a label.
const LABEL_KEY_WORDS: &str =
    "a label's key must be letters, digits, '-', '_' and '.', with an optional DNS prefix and '/'";

fn label_value() -> Value {
    json!({
        "type": "string",
        "maxLength": 63,
        RULES: [form(
            LABEL_VALUE,
            "a label's value must be empty, or letters, digits, '-', '_' and '.', beginning and ending with a letter or digit",
        )],
    })
}

/// Labels: keys and values within Kubernetes' bounds.
pub(crate) fn labels(_: &mut SchemaGenerator) -> Schema {
    let key = format!("self.all(k, size(k) <= 317 && k.matches(r'{LABEL_KEY}'))");
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": label_value(),
        RULES: [rule(&key, LABEL_KEY_WORDS)],
    })
}

/// Annotations: any text, bounded.
pub(crate) fn annotations(_: &mut SchemaGenerator) -> Schema {
    let key = format!("self.all(k, size(k) <= 317 && k.matches(r'{LABEL_KEY}'))");
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": 16384},
        RULES: [rule(&key, "an annotation's key must be letters, digits, '-', '_' and '.', with an optional DNS prefix and '/'")],
    })
}

/// A label selector that is not empty and never changes.
pub(crate) fn selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "properties": {
            "matchLabels": {
                "type": "object",
                "maxProperties": 16,
                "additionalProperties": label_value(),
                "description": "Labels that a Machine must have, with these values.",
            },
            "matchExpressions": {
                "type": "array",
                "maxItems": 16,
                "x-kubernetes-list-type": "atomic",
                "description": "Requirements on labels; all of them must hold.",
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": {
                            "type": "string", "maxLength": 317,
                            "description": "The label's key.",
                            RULES: [form(LABEL_KEY, LABEL_KEY_WORDS)],
                        },
                        "operator": {
                            "type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                            "description": "How the label relates to the values.",
                        },
                        "values": {
                            "type": "array", "maxItems": 16, "x-kubernetes-list-type": "atomic",
                            "items": label_value(),
                            "description": "The values for In and NotIn; none for Exists and DoesNotExist.",
                        },
                    },
                    RULES: [rule_at(
                        ".values",
                        "(e_has_values) == (self.operator in ['In', 'NotIn'])".replace(
                            "e_has_values", "has(self.values) && size(self.values) > 0").as_str(),
                        "values must be given for In and NotIn, and left out for Exists and DoesNotExist",
                    )],
                },
            },
        },
        RULES: [
            rule("self == oldSelf", "spec.selector cannot change: delete the object with --cascade=orphan and create it anew"),
            rule(
                "(has(self.matchLabels) && size(self.matchLabels) > 0) || (has(self.matchExpressions) && size(self.matchExpressions) > 0)",
                "spec.selector must not be empty: it would select every Machine of the namespace",
            ),
        ],
    })
}

/// A JSON object that the core stores and never looks into.
pub(crate) fn opaque_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// Short texts by name.
pub(crate) fn attributes(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": 256},
    })
}

/// A duration text, as `10m` or `1h30m`.
pub(crate) fn duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "minLength": 2, "maxLength": 32,
        RULES: [form(DURATION, "a duration must be a number and a unit (ms, s, m or h), such as 90s or 1h30m")],
    })
}

/// A number of machines, or a percentage of the replicas.
pub(crate) fn surge(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "maxLength": 6,
        RULES: [rule(
            "string(self).matches('^(0|[1-9][0-9]{0,2})%$') || (string(self).matches('^[0-9]{1,6}$') && self != string(self))",
            "maxSurge must be a number of machines, 0 or more, or a percentage such as \"25%\"",
        )],
    })
}

/// A number of machines, or a percentage of the replicas that is at most 100.
pub(crate) fn unavailable(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "maxLength": 6,
        RULES: [rule(
            "string(self).matches('^(100|[1-9]?[0-9])%$') || (string(self).matches('^[0-9]{1,6}$') && self != string(self))",
            "maxUnavailable must be a number of machines, 0 or more, or a percentage from \"0%\" to \"100%\"",
        )],
    })
}
