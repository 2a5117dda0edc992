//! From a body to an object of the request's kind, or to the words of the real server about what it got instead.
//!
//! Pure. Not for: unknown fields and defaults (`prepare`), rules (`validate`).

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::object::set_field;
use super::{ApiError, BodyFormat, Request, prepare};
use crate::schema::{
    DecodeError, Schema, decode_strict, decode_strict_yaml, decode_typed, go_kind, go_quote, in_document_order,
    literal, settle_numbers,
};
use crate::{builtin, registry};

/// How much of a body an error shows, in bytes.
const SHOWN: usize = 30;
/// What the real server reads kind and version into.
const TYPE: &str =
    r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;

/// What a body has to hold.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The API group; empty for the core group.
    pub group: &'a str,
    /// The version.
    pub version: &'a str,
    /// The kind.
    pub kind: &'a str,
    /// Whether a definition made it.
    pub custom: bool,
}

impl<'a> Expected<'a> {
    /// An object of the request's resource.
    pub fn by(request: &'a Request) -> Self {
        Self {
            group: &request.resource.group,
            version: &request.version,
            kind: &request.resource.kind,
            custom: request.resource.custom.is_some(),
        }
    }

    fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The package of its Go types.
    fn package(&self) -> &'a str {
        match self.group {
            "" | "events.k8s.io" => "core",
            group => group.split('.').next().unwrap_or_default(),
        }
    }

    /// 400: the body has a kind, but cannot be read as this one.
    fn not_handled(&self, kind: &str, version: &str, why: &str) -> ApiError {
        ApiError::bad_request(format!(
            "{kind} in version {} cannot be handled as a {}: {why}",
            go_quote(version),
            self.kind
        ))
    }
}

/// Decodes the body of a subresource that takes a built-in kind of its own; tells of unknown and duplicate fields.
pub fn subresource(request: &Request, expected: Expected<'_>, warnings: &mut Vec<String>) -> Result<Value, ApiError> {
    let refuse = |why: String| expected.not_handled(expected.kind, expected.version, &as_written(&request.body, &why));
    let (mut value, mut findings) = object(request, expected)?;
    builtin::check_types(&format!("{}.{}", expected.package(), expected.kind), &value).map_err(refuse)?;
    settle_numbers(&mut value);
    if let Some(schema) = Schema::builtin(&expected.api_version(), expected.kind) {
        let unknown = schema.prune(&mut value);
        findings.extend(unknown.into_iter().map(|path| format!("unknown field {path:?}")));
    }
    if request.format == BodyFormat::Json {
        in_document_order(&request.body, &mut findings);
    }
    prepare::judge_findings(request, findings, warnings).map_err(refuse)?;
    Ok(value)
}

/// Decodes a body; also gives the duplicate fields.
pub fn object(request: &Request, expected: Expected<'_>) -> Result<(Value, Vec<String>), ApiError> {
    let unrecognized = |why: &str| unrecognized(expected.kind, &request.body, why);
    let yaml = matches!(request.format, BodyFormat::Yaml | BodyFormat::Apply);
    let decoded = if yaml {
        decode_strict_yaml(&request.body)
    } else if expected.custom {
        decode_strict(&request.body)
    } else {
        decode_typed(&request.body)
    };
    let (mut value, duplicates) = decoded.map_err(|error| match &error {
        DecodeError::Json(why) => unrecognized(&format!("couldn't get version/kind; json parse error: {why}")),
        DecodeError::Number(why) => expected.not_handled(expected.kind, expected.version, why),
        DecodeError::TooDeep if yaml => unrecognized("yaml: exceeded max depth of 10000"),
        other => unrecognized(&other.to_string()),
    })?;
    let raw = |value: &Value| {
        if yaml {
            value.to_string()
        } else {
            String::from_utf8_lossy(&request.body).into_owned()
        }
    };
    let missing = |value: &Value| unrecognized(&format!("Object 'Kind' is missing in '{}'", raw(value)));
    if value.is_null() {
        if expected.custom {
            return Err(missing(&value));
        }
        value = Value::Object(Map::new());
    }
    if let Some(why) = no_type(&value) {
        return Err(unrecognized(&format!(
            "couldn't get version/kind; json parse error: {why}"
        )));
    }
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
    if text("apiVersion").matches('/').count() > 1 {
        return Err(unrecognized(&format!(
            "unexpected GroupVersion string: {}",
            text("apiVersion")
        )));
    }
    if expected.custom && text("kind").is_empty() {
        return Err(missing(&value));
    }
    check_type(expected, &mut value)?;
    Ok((value, duplicates))
}

/// Why the value has no kind and version that can be read.
pub fn no_type(value: &Value) -> Option<String> {
    let Value::Object(fields) = value else {
        return Some(format!(
            "json: cannot unmarshal {} into Go value of type {TYPE}",
            go_kind(value)
        ));
    };
    ["apiVersion", "kind"].into_iter().find_map(|field| {
        let wrong = fields
            .get(field)
            .filter(|value| !value.is_string() && !value.is_null())?;
        let found = go_kind(wrong);
        Some(format!(
            "json: cannot unmarshal {found} into Go struct field .{field} of type string"
        ))
    })
}

/// Checks that an object is of the kind and version, and fills them in for built-in kinds.
fn check_type(expected: Expected<'_>, object: &mut Value) -> Result<(), ApiError> {
    let text = |object: &Value, field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    if !expected.custom {
        return built_in_type(expected, object).map_err(|why| {
            let kind = text(object, "kind");
            let version = text(object, "apiVersion");
            expected.not_handled(&kind, version.rsplit('/').next().unwrap_or_default(), &why)
        });
    }
    let (found, expected) = (text(object, "apiVersion"), expected.api_version());
    if found != expected {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({found}) does not match the expected API version ({expected})"
        )));
    }
    Ok(())
}

/// Fills in kind and version of an object of a built-in kind, or says why it is none.
pub fn built_in_type(expected: Expected<'_>, object: &mut Value) -> Result<(), String> {
    let api_version = expected.api_version();
    for (field, wanted) in [("apiVersion", api_version.as_str()), ("kind", expected.kind)] {
        if object.get(field).and_then(Value::as_str).unwrap_or_default().is_empty() {
            set_field(object, field, Some(wanted.into()));
        }
    }
    let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    if version == api_version && kind == expected.kind {
        return Ok(());
    }
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let known = version.rsplit('/').next() == Some("v1")
        && (registry::is_built_in_kind(group, kind)
            || kind
                .strip_suffix("List")
                .is_some_and(|kind| registry::is_built_in_kind(group, kind)));
    Err(if known {
        format!(
            "converting (v1.{kind}) to ({}.{}): unknown conversion",
            expected.package(),
            expected.kind
        )
    } else {
        format!(
            "no kind {} is registered for version {} in scheme \"pkg/runtime/scheme.go:110\"",
            go_quote(kind),
            go_quote(version)
        )
    })
}

/// A number of another type is told as it stands in the body.
pub fn as_written<'why>(body: &[u8], why: &'why str) -> Cow<'why, str> {
    const NUMBER: &str = "json: cannot unmarshal number ";
    let written = why.strip_prefix(NUMBER).and_then(|rest| {
        let (shown, rest) = rest.split_once(" into ")?;
        Some(format!("{NUMBER}{} into {rest}", literal(body, shown)?))
    });
    written.map_or(Cow::Borrowed(why), Cow::Owned)
}

/// 400: the object has a kind, but cannot be read as what the path takes.
pub fn not_handled(request: &Request, kind: &str, version: &str, why: &str) -> ApiError {
    Expected::by(request).not_handled(kind, version, why)
}

/// 400: the body does not even have a kind that can be read.
pub fn unrecognized(kind: &str, body: &[u8], why: &str) -> ApiError {
    ApiError::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): {why} ({})",
        summary(body)
    ))
}

/// The beginning of a body: as text if it looks like an object, else in hexadecimal.
fn summary(body: &[u8]) -> String {
    let Some(first) = body.first() else {
        return "<empty>".to_owned();
    };
    let begin = body.get(..SHOWN).unwrap_or(body);
    let shown = if *first == b'{' {
        String::from_utf8_lossy(begin).into_owned()
    } else {
        hex::encode(begin)
    };
    if body.len() > SHOWN {
        format!("{shown} ...")
    } else {
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bodies_are_summed_up() {
        assert_eq!(summary(b""), "<empty>");
        assert_eq!(summary(b"{\"a\":1}"), "{\"a\":1}");
        assert_eq!(summary(b"[]"), "5b5d");
        assert_eq!(summary(&[b'{'; 40]), format!("{} ...", "{".repeat(30)));
    }

    #[test]
    fn what_has_no_kind_is_told() {
        assert_eq!(no_type(&json!({ "kind": "A", "apiVersion": null })), None);
        assert_eq!(
            no_type(&json!({ "kind": 5 })).unwrap(),
            "json: cannot unmarshal number into Go struct field .kind of type string"
        );
        assert!(
            no_type(&json!([]))
                .unwrap()
                .starts_with("json: cannot unmarshal array into Go value of type struct { ")
        );
    }
}
