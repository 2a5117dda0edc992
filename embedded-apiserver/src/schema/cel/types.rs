//! Types as values, which the CEL library does not have: `type(self) == int` is how a rule tells the two halves of an
//! int-or-string apart.
//!
//! Not for: the types of schemas, which are checked when a rule is compiled.

use std::sync::Arc;

use kube_cel::cel::extractors::Arguments;
use kube_cel::cel::objects::{Key, Map, Opaque};
use kube_cel::cel::{Context, ExecutionError, Value as Cel};

/// A type as a value; equal to itself only.
#[derive(Debug, PartialEq, Eq)]
struct TypeValue(&'static str);

impl Opaque for TypeValue {
    fn runtime_type_name(&self) -> &'static str {
        "type"
    }
}

/// The types that have a name of their own in CEL.
const NAMES: [&str; 10] = [
    "int",
    "uint",
    "double",
    "bool",
    "string",
    "bytes",
    "list",
    "map",
    "null_type",
    "type",
];

/// Adds `type()`, `dyn()` and the names of the types.
pub(super) fn register(mut context: Context<'static>) -> Context<'static> {
    context.add_function("type", |value: Cel| -> Result<Cel, ExecutionError> {
        Ok(Cel::Opaque(Arc::new(TypeValue(type_name(&value)))))
    });
    context.add_function("dyn", |value: Cel| -> Result<Cel, ExecutionError> { Ok(value) });
    context.add_function(super::lower::PAIRS, pairs);
    context.add_function("cel.@mapInsert", insert);
    for name in NAMES {
        context.add_variable_from_value(name, Cel::Opaque(Arc::new(TypeValue(name))));
    }
    context
}

/// What a loop with two variables goes through: index and element, or key and value.
fn pairs(Arguments(arguments): Arguments) -> Result<Cel, ExecutionError> {
    let pair = |first: Cel, second: Cel| Cel::List(Arc::new(vec![first, second]));
    match arguments.first() {
        Some(Cel::List(list)) => {
            let indexed = (0_i64..).zip(list.iter());
            Ok(Cel::List(Arc::new(
                indexed
                    .map(|(index, element)| pair(Cel::Int(index), element.clone()))
                    .collect(),
            )))
        }
        Some(Cel::Map(map)) => {
            let mut entries: Vec<(&Key, &Cel)> = map.map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            let entries = entries.into_iter();
            Ok(Cel::List(Arc::new(
                entries
                    .map(|(key, value)| pair(key.clone().into(), value.clone()))
                    .collect(),
            )))
        }
        _ => Err(ExecutionError::NoSuchOverload),
    }
}

/// A map with one more entry, or with those of another.
fn insert(Arguments(arguments): Arguments) -> Result<Cel, ExecutionError> {
    let mut arguments = arguments.iter();
    let Some(Cel::Map(map)) = arguments.next() else {
        return Err(ExecutionError::NoSuchOverload);
    };
    let mut members = map.map.as_ref().clone();
    let added: Vec<(Key, Cel)> = match (arguments.next(), arguments.next()) {
        (Some(key), Some(value)) => vec![(
            key.clone().try_into().map_err(|_| ExecutionError::NoSuchOverload)?,
            value.clone(),
        )],
        (Some(Cel::Map(other)), None) => {
            let entries = other.map.iter();
            entries.map(|(key, value)| (key.clone(), value.clone())).collect()
        }
        _ => return Err(ExecutionError::NoSuchOverload),
    };
    for (key, value) in added {
        if members.contains_key(&key) {
            return Err(ExecutionError::function_error(
                "insert",
                format!("insert failed: key {} already exists", shown(&key)),
            ));
        }
        members.insert(key, value);
    }
    Ok(Cel::Map(Map { map: Arc::new(members) }))
}

fn shown(key: &Key) -> String {
    match key {
        Key::Int(value) => value.to_string(),
        Key::Uint(value) => value.to_string(),
        Key::Bool(value) => value.to_string(),
        Key::String(value) => value.to_string(),
    }
}

fn type_name(value: &Cel) -> &'static str {
    match value {
        Cel::Int(_) => "int",
        Cel::UInt(_) => "uint",
        Cel::Float(_) => "double",
        Cel::Bool(_) => "bool",
        Cel::String(_) => "string",
        Cel::Bytes(_) => "bytes",
        Cel::List(_) => "list",
        Cel::Map(_) => "map",
        Cel::Null => "null_type",
        Cel::Duration(_) => "google.protobuf.Duration",
        Cel::Timestamp(_) => "google.protobuf.Timestamp",
        Cel::Opaque(opaque) if opaque.downcast_ref::<TypeValue>().is_some() => "type",
        _ => "dyn",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::schema::Schema;

    #[test]
    fn an_int_or_string_is_told_apart_by_its_type() {
        let schema = Schema::compile(&json!({"type": "object", "properties": {"size": {
            "x-kubernetes-int-or-string": true,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-validations": [
                {"rule": "type(self) == int ? self >= 0 : type(self) == string && self.matches('^[0-9]+%$')", "message": "no size"}],
        }}}))
        .expect("compiles");
        let causes = |size: serde_json::Value| schema.validate(&json!({"size": size}), None).len();
        assert_eq!(causes(json!(3)), 0);
        assert_eq!(causes(json!("25%")), 0);
        assert_eq!(causes(json!(-1)), 1);
        assert_eq!(causes(json!("many")), 1);
    }
}
