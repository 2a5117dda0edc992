//! The form of an object: what becomes of it when the real server reads it into its Go type and writes it again.
//!
//! For: refusing values of the wrong JSON type, in the real words; leaving out what is empty, putting in what is
//! always there, writing quantities, times and bytes canonically. Not for: defaults.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::quantity::{self, Quantity};
use super::time;
use super::types::{Field, Shape, Struct, Type};

/// Brings an object into the form of its type; the error is what the real decoder says.
pub(super) fn settle(kind: &'static Struct, object: &mut Value) -> Result<(), String> {
    let mut reader = Reader {
        path: Vec::new(),
        owner: kind,
        error: None,
    };
    reader.structure(kind, object);
    reader.error.map_or(Ok(()), Err)
}

struct Reader {
    path: Vec<&'static str>,
    owner: &'static Struct,
    /// The first error; decoding goes on after it in the real server too, and its first one is told.
    error: Option<String>,
}

impl Reader {
    fn fail(&mut self, error: String) {
        self.error.get_or_insert(error);
    }

    fn mismatch(&mut self, value: &Value, wanted: &str) {
        let found = match value {
            Value::Null => return,
            Value::Bool(_) => "bool".to_owned(),
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
            Value::Number(number) if wanted.starts_with("int") => format!("number {number}"),
            Value::Number(_) => "number".to_owned(),
        };
        let place = format!("{}.{}", self.owner.short_name(), self.path.join("."));
        self.fail(format!(
            "json: cannot unmarshal {found} into Go struct field {place} of type {wanted}"
        ));
    }

    fn structure(&mut self, kind: &'static Struct, value: &mut Value) {
        let Some(map) = value.as_object_mut() else {
            return;
        };
        let outer = std::mem::replace(&mut self.owner, kind);
        map.retain(|key, child| {
            let Some(field) = kind.field(key) else {
                return false;
            };
            if child.is_null() {
                return false;
            }
            self.path.push(field.name);
            self.value(&field.kind, child);
            self.path.pop();
            !is_left_out(field, child)
        });
        fill_absent(kind, map);
        self.owner = outer;
    }

    fn value(&mut self, kind: &Type, value: &mut Value) {
        match &kind.shape {
            Shape::Pointer(inner) => self.value(inner, value),
            Shape::Raw => {}
            _ if value.is_null() => *value = zero(kind),
            Shape::Struct(_) => match (kind.target(), value.is_object()) {
                (Some(target), true) => self.structure(target, value),
                (Some(_), false) => self.mismatch(value, &kind.name),
                (None, _) => {}
            },
            Shape::List(inner) => match value {
                Value::Array(items) => items.iter_mut().for_each(|item| self.value(inner, item)),
                other => self.mismatch(other, &kind.name),
            },
            Shape::Map(inner) => match value {
                Value::Object(map) => map.values_mut().for_each(|child| self.value(inner, child)),
                other => self.mismatch(other, &kind.name),
            },
            Shape::Text if !value.is_string() => self.mismatch(value, &kind.name),
            Shape::Flag if !value.is_boolean() => self.mismatch(value, &kind.name),
            Shape::Integer(bits) if !fits(value, *bits) => self.mismatch(value, &kind.name),
            Shape::IntOrString if !value.is_string() && !fits(value, 32) => self.mismatch(value, "int32"),
            Shape::Bytes => self.bytes(kind, value),
            Shape::Quantity => self.quantity(value),
            Shape::Time => self.time(value, false),
            Shape::MicroTime => self.time(value, true),
            Shape::Text | Shape::Flag | Shape::Integer(_) | Shape::IntOrString => {}
        }
    }

    fn bytes(&mut self, kind: &Type, value: &mut Value) {
        let Value::String(text) = value else {
            self.mismatch(value, &kind.name);
            return;
        };
        text.retain(|letter| letter != '\n' && letter != '\r');
        if STANDARD.decode(text.as_bytes()).is_err() {
            let at = wrong_byte(text.as_bytes());
            self.fail(format!("illegal base64 data at input byte {at}"));
        }
    }

    fn quantity(&mut self, value: &mut Value) {
        let read = match value {
            Value::String(text) => Quantity::canonical(text.trim()),
            Value::Number(number) => Quantity::canonical(&number.to_string()),
            _ => Err(quantity::WRONG),
        };
        match read {
            Ok(read) => *value = read.into(),
            Err(error) => self.fail(error.to_owned()),
        }
    }

    fn time(&mut self, value: &mut Value, micro: bool) {
        let Value::String(text) = value else {
            self.mismatch(value, "string");
            return;
        };
        match time::canonical(text, micro) {
            Ok(canonical) => *text = canonical,
            Err(error) => self.fail(error),
        }
    }
}

/// An object of this kind before anything was said about it.
pub(super) fn empty(kind: &'static Struct) -> Value {
    let mut map = Map::new();
    fill_absent(kind, &mut map);
    Value::Object(map)
}

fn fits(value: &Value, bits: u32) -> bool {
    value
        .as_i64()
        .is_some_and(|number| bits > 32 || i32::try_from(number).is_ok())
}

/// Where Go's decoder says that base64 is wrong: the first foreign letter, or the start of an unfinished group.
fn wrong_byte(text: &[u8]) -> usize {
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    match text.iter().position(|byte| !is_digit(*byte)) {
        None => text.len() - text.len() % 4,
        // Padding is right as the last one or two letters of a group, with nothing behind.
        Some(at) if text.get(at) == Some(&b'=') && at % 4 >= 2 => {
            let group_end = at - at % 4 + 4;
            match (at + 1..group_end).find(|next| text.get(*next) != Some(&b'=')) {
                Some(next) => next.min(text.len()),
                None => group_end,
            }
        }
        Some(at) => at,
    }
}

/// Whether a field with this value is not written.
fn is_left_out(field: &Field, value: &Value) -> bool {
    let empty = match (&field.kind.shape, value) {
        (_, Value::Null) => true,
        (Shape::Pointer(_) | Shape::Struct(_) | Shape::Quantity | Shape::IntOrString | Shape::Raw, _) => false,
        (_, Value::String(text)) => text.is_empty(),
        // An empty list of managers is a wish: to own nothing any more.
        (_, Value::Array(items)) => items.is_empty() && field.name != "managedFields",
        (_, Value::Object(map)) => map.is_empty(),
        (_, Value::Bool(flag)) => !flag,
        (_, Value::Number(number)) => number.as_i64() == Some(0),
    };
    empty && field.omit_empty
}

/// Puts in the fields that are written even when nothing was said about them.
fn fill_absent(kind: &'static Struct, map: &mut Map<String, Value>) {
    for field in &kind.fields {
        let always = !field.omit_empty
            || matches!(
                field.kind.shape,
                Shape::Struct(_) | Shape::Quantity | Shape::IntOrString | Shape::Time | Shape::MicroTime
            );
        if always && !field.omit_zero && !map.contains_key(field.name) {
            map.insert(field.name.to_owned(), zero(&field.kind));
        }
    }
}

/// What is written for a value that was never set.
fn zero(kind: &Type) -> Value {
    match &kind.shape {
        Shape::Text => json!(""),
        Shape::Flag => json!(false),
        Shape::Integer(_) | Shape::IntOrString => json!(0),
        Shape::Quantity => json!("0"),
        Shape::Struct(_) => {
            let mut map = Map::new();
            if let Some(target) = kind.target() {
                fill_absent(target, &mut map);
            }
            Value::Object(map)
        }
        Shape::Bytes => json!(""),
        Shape::Time | Shape::MicroTime | Shape::Raw | Shape::List(_) | Shape::Map(_) | Shape::Pointer(_) => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::super::types;
    use super::*;

    fn settled(kind: &str, mut object: Value) -> Result<Value, String> {
        settle(types::named(kind).expect("known"), &mut object).map(|()| object)
    }

    #[test]
    fn what_is_empty_goes_and_what_is_always_there_comes() {
        let pod = json!({
            "metadata": { "name": "a", "labels": {}, "creationTimestamp": null },
            "spec": {
                "containers": [{ "name": "a", "image": "", "args": [], "stdin": false, "ports": null }],
                "hostNetwork": false, "nodeSelector": {}, "securityContext": {}, "activeDeadlineSeconds": 0,
                "foo": "unknown",
            },
        });
        let wanted = json!({
            "metadata": { "name": "a" },
            "spec": {
                "containers": [{ "name": "a", "resources": {} }],
                "securityContext": {}, "activeDeadlineSeconds": 0,
            },
            "status": {},
        });
        assert_eq!(settled("core.Pod", pod), Ok(wanted));
        let event = settled("core.Event", json!({ "metadata": {} })).expect("settles");
        assert_eq!(event["firstTimestamp"], Value::Null);
        assert_eq!(event["source"], json!({}));
        assert_eq!(event["reportingComponent"], "");
    }

    #[test]
    fn wrong_types_are_told_as_the_real_decoder_does() {
        let refused = |kind: &str, object: Value| settled(kind, object).expect_err("refused");
        for (object, wanted) in [
            (
                json!({ "spec": "x" }),
                "json: cannot unmarshal string into Go struct field Pod.spec of type v1.PodSpec",
            ),
            (
                json!({ "spec": { "containers": [{ "name": 1 }] } }),
                "json: cannot unmarshal number into Go struct field Container.spec.containers.name of type string",
            ),
            (
                json!({ "spec": { "terminationGracePeriodSeconds": 1.5 } }),
                "json: cannot unmarshal number 1.5 into Go struct field PodSpec.spec.terminationGracePeriodSeconds of type int64",
            ),
            (
                json!({ "spec": { "containers": [{ "imagePullPolicy": 1 }] } }),
                "json: cannot unmarshal number into Go struct field Container.spec.containers.imagePullPolicy of type v1.PullPolicy",
            ),
            (
                json!({ "spec": { "nodeSelector": { "a": 1 } } }),
                "json: cannot unmarshal number into Go struct field PodSpec.spec.nodeSelector of type string",
            ),
            (
                json!({ "metadata": { "deletionTimestamp": 7 } }),
                "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.deletionTimestamp of type string",
            ),
        ] {
            assert_eq!(refused("core.Pod", object), wanted);
        }
        for (data, at) in [
            ("!!", 0),
            ("abc", 0),
            ("YWJjZ", 4),
            ("YWJj!", 4),
            ("YQ=", 3),
            ("YQ==YQ==", 4),
        ] {
            let object = json!({ "data": { "a": data } });
            assert_eq!(
                refused("core.Secret", object),
                format!("illegal base64 data at input byte {at}"),
                "{data}"
            );
        }
    }
}
