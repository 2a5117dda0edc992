//! Validating values against the schema: types, bounds, patterns, required fields, junctors.
//!
//! For: everything but CEL rules and the uniqueness of list elements. Not for: metadata.

use super::cause::{Cause, go_float, go_quote};
use super::node::{Additional, ListType, Node, NodeId, Types};
use super::{Schema, correlate};
use serde_json::{Value, json};

/// Beyond it, a number with a fraction or an exponent is no integer: floats do not hold all of them.
const MAX_INTEGER: f64 = 9_007_199_254_740_992.0;

/// What a (sub)schema made of a value: errors, and how many checks passed, by which the best of several is chosen.
#[derive(Default)]
struct Outcome {
    causes: Vec<Cause>,
    matches: usize,
}

impl Outcome {
    fn push(&mut self, cause: Cause) {
        if !self.causes.contains(&cause) {
            self.causes.push(cause);
        }
    }

    fn merge(&mut self, other: Self) {
        self.matches += other.matches;
        for cause in other.causes {
            self.push(cause);
        }
    }

    fn is_valid(&self) -> bool {
        self.causes.is_empty()
    }
}

/// Validates `new`; parts that are as they were in `old` are not looked at again.
pub(super) fn validate(schema: &Schema, id: NodeId, prefix: &str, new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let walk = Walk {
        nodes: &schema.nodes,
        nulls: schema.built_in,
    };
    let causes = walk.value(id, "", new, old).causes;
    if prefix.is_empty() {
        causes
    } else {
        causes.into_iter().map(|cause| cause.under(prefix)).collect()
    }
}

struct Walk<'schema> {
    nodes: &'schema [Node],
    /// Whether null is as good as absent, as in what is decoded into structures.
    nulls: bool,
}

fn field(path: &str) -> &str {
    path.strip_prefix('.').unwrap_or(path)
}

fn kind_of(value: &Value) -> (&'static str, Types) {
    match value {
        Value::Null => ("null", Types::default()),
        Value::Bool(_) => ("boolean", Types::BOOLEAN),
        Value::Number(number) if number.is_i64() => ("integer", Types::INTEGER),
        Value::Number(_) => ("number", Types::NUMBER),
        Value::String(_) => ("string", Types::STRING),
        Value::Array(_) => ("array", Types::ARRAY),
        Value::Object(_) => ("object", Types::OBJECT),
    }
}

impl Walk<'_> {
    fn value(&self, id: NodeId, path: &str, new: &Value, old: Option<&Value>) -> Outcome {
        let node = &self.nodes[id];
        let mut outcome = Outcome::default();
        if old == Some(new) || (self.nulls && new.is_null()) {
            return outcome;
        }
        Self::check_type(node, path, new, &mut outcome);
        if !new.is_null() {
            self.junctors(node, path, new, &mut outcome);
            match new {
                Value::String(text) => Self::string(node, path, text, &mut outcome),
                Value::Number(number) => Self::number(node, path, number, &mut outcome),
                Value::Array(items) => self.array(node, path, items, old, &mut outcome),
                _ => {}
            }
        }
        Self::check_enumeration(node, path, new, &mut outcome);
        if let Value::Object(map) = new {
            self.object(node, path, map, old, &mut outcome);
        }
        outcome.matches += 1;
        outcome
    }

    fn check_type(node: &Node, path: &str, value: &Value, outcome: &mut Outcome) {
        if node.types.is_empty() && node.type_text.is_empty() && node.format.is_none() {
            return;
        }
        outcome.matches += 1;
        let (name, kind) = kind_of(value);
        let refuse = |expected: &str, actual: &str| {
            let detail = format!("{path} in body must be of type {expected}: {}", go_quote(actual));
            Cause::type_invalid(field(path), &json!(actual), &detail)
        };
        if value.is_null() {
            if !node.types.is_empty() && !node.nullable {
                outcome.push(refuse(&node.type_text, "null"));
            }
            return;
        }
        let whole = matches!(value, Value::Number(number) if number.as_f64().is_some_and(|float| float.fract() == 0.0 && float.abs() < MAX_INTEGER));
        let fits = node.types.contains(kind)
            || (kind == Types::NUMBER && whole && node.types.contains(Types::INTEGER))
            || (kind == Types::INTEGER && node.types.contains(Types::NUMBER));
        if let Some(format) = node.format {
            let textual = matches!(value, Value::String(_) | Value::Array(_));
            if !textual && !fits {
                // What is printed is the format that the real server sees in the value.
                let seen = match kind {
                    Types::INTEGER => "int64",
                    Types::NUMBER => "float64",
                    _ => "",
                };
                outcome.push(refuse(format.name(), seen));
                return;
            }
            if textual && !node.types.contains(Types::NUMBER.union(Types::INTEGER)) {
                return;
            }
        }
        if !fits {
            outcome.push(refuse(&node.type_text, name));
        }
    }

    fn junctors(&self, node: &Node, path: &str, value: &Value, outcome: &mut Outcome) {
        let junctor = |detail: String| Cause::invalid("", &json!(""), &detail);
        if !node.any_of.is_empty() {
            let mut best: Option<Outcome> = None;
            let mut valid = false;
            for branch in &node.any_of {
                let result = self.value(*branch, path, value, None);
                if result.is_valid() {
                    valid = true;
                    outcome.matches += result.matches;
                    break;
                }
                if best.as_ref().is_none_or(|best| result.matches > best.matches) {
                    best = Some(result);
                }
            }
            if !valid {
                outcome.push(junctor(format!(
                    "{} must validate at least one schema (anyOf)",
                    go_quote(path)
                )));
                if let Some(best) = best {
                    outcome.merge(best);
                }
            }
        }
        if !node.one_of.is_empty() {
            let mut best: Option<Outcome> = None;
            let mut valid = 0;
            for branch in &node.one_of {
                let result = self.value(*branch, path, value, None);
                if result.is_valid() {
                    valid += 1;
                    best = None;
                } else if valid == 0 && best.as_ref().is_none_or(|best| result.matches > best.matches) {
                    best = Some(result);
                }
            }
            if valid != 1 {
                let found = if valid == 0 {
                    "Found none valid".to_owned()
                } else {
                    format!("Found {valid} valid alternatives")
                };
                outcome.push(junctor(format!(
                    "{} must validate one and only one schema (oneOf). {found}",
                    go_quote(path)
                )));
                if let Some(best) = best {
                    outcome.merge(best);
                }
            }
        }
        if !node.all_of.is_empty() {
            let mut valid = 0;
            for branch in &node.all_of {
                let result = self.value(*branch, path, value, None);
                valid += usize::from(result.is_valid());
                outcome.merge(result);
            }
            if valid != node.all_of.len() {
                let none = if valid == 0 { ". None validated" } else { "" };
                outcome.push(junctor(format!(
                    "{} must validate all the schemas (allOf){none}",
                    go_quote(path)
                )));
            }
        }
        if let Some(not) = node.not
            && self.value(not, path, value, None).is_valid()
        {
            outcome.push(junctor(format!(
                "{} must not validate the schema (not)",
                go_quote(path)
            )));
        }
        outcome.matches += 1;
    }

    fn string(node: &Node, path: &str, text: &str, outcome: &mut Outcome) {
        let value = || json!(text);
        let length = || text.chars().count() as u64;
        if let Some(limit) = node.maximum_length
            && length() > limit
        {
            outcome.push(Cause::too_long(field(path), limit));
        } else if let Some(limit) = node.minimum_length
            && length() < limit
        {
            let detail = format!("{path} in body should be at least {limit} chars long");
            outcome.push(Cause::invalid(field(path), &value(), &detail));
        } else if let Some(pattern) = &node.pattern
            && !pattern.is_match(text)
        {
            let detail = format!("{path} in body should match '{}'", pattern.as_str());
            outcome.push(Cause::invalid(field(path), &value(), &detail));
        } else {
            outcome.matches += 1;
        }
        if let Some(format) = node.format {
            if format.accepts(text) {
                outcome.matches += 1;
            } else {
                let detail = format!("{path} in body must be of type {}: {}", format.name(), go_quote(text));
                outcome.push(Cause::type_invalid(field(path), &value(), &detail));
            }
        }
    }

    fn number(node: &Node, path: &str, number: &serde_json::Number, outcome: &mut Outcome) {
        let value = Value::Number(number.clone());
        let mut refuse = |blamed: &Value, detail: String| outcome.push(Cause::invalid(field(path), blamed, &detail));
        let float = number.as_f64().unwrap_or(f64::NAN);
        let integer = number.as_i64();
        // As the real one: bounds of integers are cut to integers.
        let bound = |bound: f64| if integer.is_some() { bound.trunc() } else { bound };
        let shown = |bound: f64| {
            if integer.is_some() {
                format!("{}", bound as i64)
            } else {
                go_float(bound)
            }
        };
        let compare = |limit: f64| match integer {
            Some(integer) => integer.cmp(&(limit as i64)),
            None => float.partial_cmp(&limit).unwrap_or(std::cmp::Ordering::Equal),
        };
        if let Some(factor) = node.multiple_of {
            let factor = bound(factor);
            let multiple = match integer {
                Some(integer) => factor < 1.0 || integer % (factor as i64) == 0,
                None => ((float / factor) - (float / factor).round()).abs() < 1e-9,
            };
            if factor <= 0.0 {
                // The real server blames the factor.
                let detail = format!(
                    "factor MultipleOf declared for {path} must be positive: {}",
                    shown(factor)
                );
                let blamed = if integer.is_some() {
                    json!(factor as i64)
                } else {
                    json!(factor)
                };
                refuse(&blamed, detail);
            } else if !multiple {
                refuse(
                    &value,
                    format!("{path} in body should be a multiple of {}", shown(factor)),
                );
            }
        }
        if let Some(minimum) = node.minimum.map(bound) {
            let order = compare(minimum);
            if node.exclusive_minimum && order.is_le() {
                refuse(
                    &value,
                    format!("{path} in body should be greater than {}", shown(minimum)),
                );
            } else if order.is_lt() {
                refuse(
                    &value,
                    format!("{path} in body should be greater than or equal to {}", shown(minimum)),
                );
            }
        }
        if let Some(maximum) = node.maximum.map(bound) {
            let order = compare(maximum);
            if node.exclusive_maximum && order.is_ge() {
                refuse(&value, format!("{path} in body should be less than {}", shown(maximum)));
            } else if order.is_gt() {
                refuse(
                    &value,
                    format!("{path} in body should be less than or equal to {}", shown(maximum)),
                );
            }
        }
        outcome.matches += 1;
    }

    fn array(&self, node: &Node, path: &str, items: &[Value], old: Option<&Value>, outcome: &mut Outcome) {
        let old_items = old.and_then(Value::as_array);
        if let Some(id) = node.items {
            for (index, item) in items.iter().enumerate() {
                let old_item = match (node.list_type, old_items) {
                    (ListType::Map, Some(old)) => correlate(old, item, &node.list_map_keys),
                    _ => None,
                };
                outcome.merge(self.value(id, &format!("{path}[{index}]"), item, old_item));
            }
        }
        let size = items.len() as u64;
        if let Some(limit) = node.minimum_items
            && size < limit
        {
            let detail = format!("{path} in body should have at least {limit} items");
            outcome.push(Cause::invalid(field(path), &json!(size), &detail));
        }
        if let Some(limit) = node.maximum_items
            && size > limit
        {
            outcome.push(Cause::too_many(field(path), size, limit));
        }
        if node.unique_items
            && items
                .iter()
                .enumerate()
                .any(|(index, item)| items[..index].contains(item))
        {
            let detail = format!("{path} in body shouldn't contain duplicates");
            outcome.push(Cause::invalid(field(path), &json!(""), &detail));
        }
        outcome.matches += 1;
    }

    fn check_enumeration(node: &Node, path: &str, value: &Value, outcome: &mut Outcome) {
        if node.allowed.is_empty() {
            return;
        }
        let equal = |allowed: &Value| {
            allowed == value
                || matches!((allowed, value), (Value::Number(one), Value::Number(other)) if one.as_f64() == other.as_f64())
        };
        if node.allowed.iter().any(equal) {
            outcome.matches += 1;
            return;
        }
        let allowed: Vec<String> = node
            .allowed
            .iter()
            .map(|allowed| allowed.as_str().map_or_else(|| allowed.to_string(), str::to_owned))
            .collect();
        outcome.push(Cause::not_supported(field(path), value, &allowed));
    }

    fn object(
        &self,
        node: &Node,
        path: &str,
        map: &serde_json::Map<String, Value>,
        old: Option<&Value>,
        outcome: &mut Outcome,
    ) {
        let size = map.len() as u64;
        if let Some(limit) = node.minimum_properties
            && size < limit
        {
            let detail = format!("{path} in body should have at least {limit} properties");
            outcome.push(Cause::invalid(field(path), &json!(size), &detail));
        }
        if let Some(limit) = node.maximum_properties
            && size > limit
        {
            outcome.push(Cause::too_many(field(path), size, limit));
        }
        let old_member = |key: &str| old.and_then(|old| old.get(key));
        for (key, member) in map {
            match (node.properties.get(key), node.additional) {
                (Some(id), _) => {
                    let below = if path.is_empty() {
                        key.clone()
                    } else {
                        format!("{path}.{key}")
                    };
                    outcome.merge(self.value(*id, &below, member, old_member(key)));
                }
                (None, Additional::Schema(id)) => {
                    outcome.merge(self.value(id, &format!("{path}.{key}"), member, old_member(key)));
                }
                (None, Additional::Forbidden) => {
                    let detail = format!("{path}.{key} in body is a forbidden property");
                    outcome.push(Cause::invalid(field(path), &json!(key), &detail));
                }
                _ => {}
            }
        }
        for name in &node.required {
            if !map.contains_key(name) {
                outcome.push(Cause::required(field(&format!("{path}.{name}")), ""));
            }
        }
        outcome.matches += 1;
    }
}
