//! Types as values, which the CEL library does not have: `type(self) == int` is how a rule tells the two halves of an
//! int-or-string apart.
//!
//! Not for: the types of schemas, which are checked when a rule is compiled.

use std::sync::Arc;

use kube_cel::cel::objects::Opaque;
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
    for name in NAMES {
        context.add_variable_from_value(name, Cel::Opaque(Arc::new(TypeValue(name))));
    }
    context
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
