//! One reason why an object is invalid, as `Status.details.causes` carries it.
//!
//! For: the wording of field errors. Not for: deciding when they occur.

use serde_json::Value;
use std::fmt::{self, Write as _};

/// A field error, ready to be put in `Status.details.causes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// The machine-readable reason: `FieldValueInvalid`, `FieldValueRequired`, `FieldValueNotSupported`, …
    pub reason: String,
    /// The error without the field, such as `Invalid value: -1: spec.replicas in body should be …`.
    pub message: String,
    /// The path of the field, such as `spec.replicas` or `spec.list[0].name`; `<nil>` for the object itself.
    pub field: String,
}

impl Cause {
    fn new(reason: &str, field: &str, message: String) -> Self {
        let field = if field.is_empty() { "<nil>" } else { field };
        Self {
            reason: reason.to_owned(),
            message,
            field: field.to_owned(),
        }
    }

    /// A value that is malformed or out of bounds; `value` is printed, `detail` says why.
    pub fn invalid(field: &str, value: &Value, detail: &str) -> Self {
        Self::new(
            "FieldValueInvalid",
            field,
            with_detail(format!("Invalid value: {}", go_value(value)), detail),
        )
    }

    /// A value of the wrong type.
    pub fn type_invalid(field: &str, value: &Value, detail: &str) -> Self {
        Self::new(
            "FieldValueTypeInvalid",
            field,
            with_detail(format!("Invalid value: {}", go_value(value)), detail),
        )
    }

    /// A value that is missing.
    pub fn required(field: &str, detail: &str) -> Self {
        Self::new(
            "FieldValueRequired",
            field,
            with_detail("Required value".to_owned(), detail),
        )
    }

    /// A value that occurs twice where it must not.
    pub fn duplicate(field: &str, value: &Value) -> Self {
        Self::new(
            "FieldValueDuplicate",
            field,
            format!("Duplicate value: {}", go_value(value)),
        )
    }

    /// A value that is not among the allowed ones.
    pub fn not_supported(field: &str, value: &Value, allowed: &[String]) -> Self {
        let mut message = format!("Unsupported value: {}", go_value(value));
        if !allowed.is_empty() {
            let quoted: Vec<String> = allowed.iter().map(|text| go_quote(text)).collect();
            let _ = write!(message, ": supported values: {}", quoted.join(", "));
        }
        Self::new("FieldValueNotSupported", field, message)
    }

    /// A value that is not permitted here.
    pub fn forbidden(field: &str, detail: &str) -> Self {
        Self::new(
            "FieldValueForbidden",
            field,
            with_detail("Forbidden".to_owned(), detail),
        )
    }

    /// A text that is longer than `limit`.
    pub fn too_long(field: &str, limit: u64) -> Self {
        let unit = if limit == 1 { "byte" } else { "bytes" };
        Self::new(
            "FieldValueTooLong",
            field,
            format!("Too long: may not be more than {limit} {unit}"),
        )
    }

    /// A collection that has more than `limit` members.
    pub fn too_many(field: &str, actual: u64, limit: u64) -> Self {
        let unit = if limit == 1 { "item" } else { "items" };
        Self::new(
            "FieldValueTooMany",
            field,
            format!("Too many: {actual}: must have at most {limit} {unit}"),
        )
    }

    /// Whether CEL rules are not run on an object with this error.
    pub(crate) fn blocks_rules(&self) -> bool {
        matches!(
            self.reason.as_str(),
            "FieldValueNotSupported"
                | "FieldValueRequired"
                | "FieldValueTooLong"
                | "FieldValueTooMany"
                | "FieldValueTypeInvalid"
        )
    }

    /// The same cause with `prefix` before its field.
    #[must_use]
    pub fn under(mut self, prefix: &str) -> Self {
        // Two messages about schemas name a second path.
        for words in [
            "uncorrelatable portion of the schema within ",
            "because it is defined in ",
        ] {
            if let Some(position) = self.message.find(words) {
                self.message.insert_str(position + words.len(), &format!("{prefix}."));
            }
        }
        self.field = if self.field.is_empty() || self.field == "<nil>" {
            prefix.to_owned()
        } else if self.field.starts_with('[') {
            format!("{prefix}{}", self.field)
        } else {
            format!("{prefix}.{}", self.field)
        };
        self
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.field, self.message)
    }
}

fn with_detail(mut message: String, detail: &str) -> String {
    if !detail.is_empty() {
        message.push_str(": ");
        message.push_str(detail);
    }
    message
}

/// The causes as one text, as the real server puts them after `is invalid: `: one as it is, several in brackets and
/// without repetitions.
pub fn aggregate(causes: &[Cause]) -> String {
    let mut texts: Vec<String> = Vec::with_capacity(causes.len());
    for cause in causes {
        let text = cause.to_string();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    match texts.as_slice() {
        [only] => only.clone(),
        _ => format!("[{}]", texts.join(", ")),
    }
}

/// A value as error messages print it: text quoted, numbers plain, the rest as JSON.
pub(crate) fn go_value(value: &Value) -> String {
    match value {
        Value::String(text) => go_quote(text),
        Value::Number(number) => number.as_i64().map_or_else(
            || number.as_f64().map_or_else(|| number.to_string(), go_float),
            |integer| integer.to_string(),
        ),
        Value::Array(_) | Value::Object(_) => go_json(value),
        _ => value.to_string(),
    }
}

/// Compact JSON with `<`, `>` and `&` escaped, as the real server marshals.
pub(crate) fn go_json(value: &Value) -> String {
    let text = value.to_string();
    if text.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        text.replace('<', "\\u003c")
            .replace('>', "\\u003e")
            .replace('&', "\\u0026")
            .replace('\u{2028}', "\\u2028")
            .replace('\u{2029}', "\\u2029")
    } else {
        text
    }
}

/// A float as `%v` prints it: an exponent from 1e21 up and below 1e-4.
pub(crate) fn go_float(float: f64) -> String {
    let magnitude = float.abs();
    if float == 0.0 || (1e-4..1e21).contains(&magnitude) {
        return format!("{float}");
    }
    let text = format!("{float:e}");
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, number) = exponent
                .strip_prefix('-')
                .map_or(('+', exponent), |number| ('-', number));
            format!("{digits}e{sign}{number:0>2}")
        }
        None => text,
    }
}

/// What JSON calls a value, in the words of Go.
pub(crate) fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Text in double quotes with escapes, as `%q` prints it.
pub(crate) fn go_quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            '\0'..'\u{20}' | '\u{7f}' => {
                let _ = write!(quoted, "\\x{:02x}", u32::from(character));
            }
            '\u{80}'..='\u{a0}' | '\u{ad}' | '\u{2028}' | '\u{2029}' | '\u{feff}' => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(character));
            }
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}
