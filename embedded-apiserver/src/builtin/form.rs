//! The form of an object: what becomes of it when the real server reads it into its Go type and writes it again.
//!
//! For: refusing values of the wrong JSON type, in the real words; leaving out what is empty, putting in what is
//! always there, writing quantities, times and bytes canonically. Not for: defaults.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::quantity::{self, Quantity};
use super::time;
use super::types::{self, Alternative, Field, Shape, Struct, Type};
use crate::schema::go_kind;

/// Who reads: the words for what does not fit are not the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A body or what a patch of JSON led to, read by Go's JSON decoder.
    Text,
    /// What a strategic merge patch led to, taken over value by value.
    Values,
}

/// Brings an object into the form of its type; the error is what the real decoder says.
pub(super) fn settle(kind: &'static Struct, source: Source, object: &mut Value) -> Result<(), String> {
    let mut reader = Reader {
        source,
        path: Vec::new(),
        owner: kind,
        frozen: false,
        error: None,
    };
    reader.structure(kind, object);
    reader.error.map_or(Ok(()), Err)
}

struct Reader {
    source: Source,
    path: Vec<&'static str>,
    owner: &'static Struct,
    /// Inside a type that reads itself, whose errors are told at its own place.
    frozen: bool,
    /// The first error; decoding goes on after it in the real server too, and its first one is told.
    error: Option<String>,
}

impl Reader {
    fn fail(&mut self, error: String) {
        self.error.get_or_insert(error);
    }

    fn mismatch(&mut self, value: &Value, kind: &Type) {
        if value.is_null() {
            return;
        }
        match self.source {
            Source::Text => self.unreadable(value, &kind.name),
            Source::Values => self.fail(unfit(value, kind)),
        }
    }

    /// What Go's decoder of JSON says of a value that is not of the type.
    fn unreadable(&mut self, value: &Value, wanted: &str) {
        let found = match value {
            Value::Number(number) if wanted.starts_with("int") || wanted == "float64" => format!("number {number}"),
            other => go_kind(other).to_owned(),
        };
        let into = match self.source {
            Source::Text => format!("struct field {}.{}", self.owner.short_name(), self.path.join(".")),
            // A type that reads itself gets to see its own value only.
            Source::Values => "value".to_owned(),
        };
        self.fail(format!(
            "json: cannot unmarshal {found} into Go {into} of type {wanted}"
        ));
    }

    fn structure(&mut self, kind: &'static Struct, value: &mut Value) {
        let Some(map) = value.as_object_mut() else {
            return;
        };
        let outer = self.owner;
        if !self.frozen {
            self.owner = kind;
        }
        map.retain(|key, child| {
            let Some(field) = kind.field(key) else {
                return false;
            };
            if child.is_null() {
                return false;
            }
            if !self.frozen {
                self.path.push(field.name);
            }
            self.value(&field.kind, child);
            if !self.frozen {
                self.path.pop();
            }
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
                (Some(_), false) => self.mismatch(value, kind),
                (None, _) => {}
            },
            Shape::List(inner) => match value {
                Value::Array(items) => items.iter_mut().for_each(|item| self.value(inner, item)),
                other => self.mismatch(other, kind),
            },
            Shape::Map(inner) => match value {
                Value::Object(map) => map.values_mut().for_each(|child| self.value(inner, child)),
                other => self.mismatch(other, kind),
            },
            Shape::Either(alternative) => {
                let frozen = std::mem::replace(&mut self.frozen, true);
                self.either(*alternative, value);
                self.frozen = frozen;
            }
            Shape::Text if !value.is_string() => self.mismatch(value, kind),
            Shape::Flag if !value.is_boolean() => self.mismatch(value, kind),
            Shape::Float if !value.is_number() || is_beyond(value) => self.mismatch(value, kind),
            Shape::Integer(bits) => self.integer(kind, *bits, value),
            Shape::IntOrString if !value.is_string() && !fits(value, 32) => self.unreadable(value, "int32"),
            Shape::Bytes => self.bytes(kind, value),
            Shape::Quantity => self.quantity(value),
            Shape::Time => self.time(value, false),
            Shape::MicroTime => self.time(value, true),
            Shape::Text | Shape::Flag | Shape::Float | Shape::IntOrString => {}
        }
    }

    fn integer(&mut self, kind: &Type, bits: u32, value: &mut Value) {
        match (self.source, wrapped(value, bits)) {
            (Source::Values, Some(number)) => *value = number.into(),
            _ if fits(value, bits) => {}
            _ => self.mismatch(value, kind),
        }
    }

    /// A schema, or what may stand in its place; other values read as none.
    fn either(&mut self, alternative: Alternative, value: &mut Value) {
        let schema = types::named(Alternative::STRUCT);
        match (alternative, value) {
            (_, value @ Value::Object(_)) => {
                if let Some(schema) = schema {
                    self.structure(schema, value);
                }
            }
            (Alternative::Schemas, Value::Array(items)) => {
                for item in items {
                    match (item.is_object(), schema) {
                        (true, Some(schema)) => self.structure(schema, item),
                        _ => self.unreadable_unless_null(item, "v1.JSONSchemaProps"),
                    }
                }
            }
            (Alternative::Texts, Value::Array(items)) => {
                for item in items.iter().filter(|item| !item.is_string()) {
                    self.unreadable_unless_null(item, "string");
                }
            }
            (Alternative::Flag, Value::Bool(_)) | (Alternative::Schemas | Alternative::Texts, _) => {}
            (Alternative::Flag, _) => self.fail("boolean or JSON schema expected".to_owned()),
        }
    }

    fn unreadable_unless_null(&mut self, value: &Value, wanted: &str) {
        if !value.is_null() {
            self.unreadable(value, wanted);
        }
    }

    fn bytes(&mut self, kind: &Type, value: &mut Value) {
        let Value::String(text) = value else {
            self.mismatch(value, kind);
            return;
        };
        text.retain(|letter| letter != '\n' && letter != '\r');
        if STANDARD.decode(text.as_bytes()).is_err() {
            let at = wrong_byte(text.as_bytes());
            let before = match self.source {
                Source::Text => "",
                Source::Values => "error decoding from json: ",
            };
            self.fail(format!("{before}illegal base64 data at input byte {at}"));
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
            self.unreadable(value, "string");
            return;
        };
        match time::canonical(text, micro) {
            Ok(canonical) => *text = canonical,
            Err(error) => self.fail(error),
        }
    }
}

/// What Go's converter of values says of one that is not of the type (`runtime/converter.go`).
fn unfit(value: &Value, kind: &Type) -> String {
    let found = match value {
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::Bool(_) => "bool",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) | Value::Null => "map",
    };
    // Go would make a letter of a number, and an integer of a fraction: that, it refuses by name.
    let convertible = match &kind.shape {
        Shape::Text => found == "int64",
        Shape::Integer(_) => found == "float64",
        _ => false,
    };
    match &kind.shape {
        Shape::Pointer(inner) => unfit(value, inner),
        Shape::Struct(_) => format!("cannot restore struct from: {found}"),
        Shape::Map(_) => format!("cannot restore map from {found}"),
        Shape::List(_) | Shape::Bytes => format!("cannot restore slice from {found}"),
        _ if convertible => format!("cannot convert {found} to {}", kind.name),
        Shape::Text => "unrecognized type: string".to_owned(),
        Shape::Flag => "unrecognized type: bool".to_owned(),
        _ => format!("unrecognized type: {}", kind.name),
    }
}

/// A whole number in as many bits, as Go's conversion cuts it.
#[allow(clippy::cast_possible_truncation)] // that is what the conversion does
fn wrapped(value: &Value, bits: u32) -> Option<i64> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    let whole = match (value.as_i64(), value.as_f64()) {
        (Some(whole), _) => whole,
        (None, Some(float)) if float.fract() == 0.0 && float.abs() < LIMIT => float as i64,
        (None, Some(float)) if float.fract() == 0.0 => i64::MIN,
        _ => return None,
    };
    Some(if bits > 32 { whole } else { i64::from(whole as i32) })
}

/// Puts what the decoder makes of a null into the lists that have one; lists have the same elements in both values.
pub(super) fn replace_nulls(object: &mut Value, settled: &Value) {
    match (object, settled) {
        (Value::Object(map), Value::Object(settled)) => {
            for (key, value) in map {
                if let Some(settled) = settled.get(key) {
                    replace_nulls(value, settled);
                }
            }
        }
        (Value::Array(items), Value::Array(settled)) => {
            for (item, settled) in items.iter_mut().zip(settled) {
                if item.is_null() {
                    *item = settled.clone();
                } else {
                    replace_nulls(item, settled);
                }
            }
        }
        _ => {}
    }
}

/// An object of this kind before anything was said about it.
pub(super) fn empty(kind: &'static Struct) -> Value {
    let mut map = Map::new();
    fill_absent(kind, &mut map);
    Value::Object(map)
}

/// Whether a number was too large to be read, for which the largest one stands.
fn is_beyond(value: &Value) -> bool {
    value.as_f64().is_some_and(|number| number.abs() >= f64::MAX)
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
        (
            Shape::Pointer(_) | Shape::Struct(_) | Shape::Quantity | Shape::IntOrString | Shape::Raw | Shape::Either(_),
            _,
        ) => false,
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
        Shape::Integer(_) | Shape::Float | Shape::IntOrString => json!(0),
        Shape::Quantity => json!("0"),
        Shape::Struct(_) => {
            let mut map = Map::new();
            if let Some(target) = kind.target() {
                fill_absent(target, &mut map);
            }
            Value::Object(map)
        }
        Shape::Bytes => json!(""),
        Shape::Time
        | Shape::MicroTime
        | Shape::Raw
        | Shape::Either(_)
        | Shape::List(_)
        | Shape::Map(_)
        | Shape::Pointer(_) => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(kind: &str, mut object: Value) -> Result<Value, String> {
        settle(types::named(kind).expect("known"), Source::Text, &mut object).map(|()| object)
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
