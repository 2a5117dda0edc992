//! The rules of ConfigMaps and Secrets.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::check::{Place, Problems, map_at};
use super::formats;
use crate::schema::Cause;

/// The size of all values together, in bytes.
const LIMIT: u64 = 1 << 20;
const IMMUTABLE: &str = "field is immutable when `immutable` is set";
const REDACTED: &str = "<secret contents redacted>";

fn size(text: &Value, encoded: bool) -> u64 {
    let text = text.as_str().unwrap_or_default();
    let size = if encoded {
        text.len() / 4 * 3 - text.bytes().rev().take_while(|byte| *byte == b'=').count()
    } else {
        text.len()
    };
    u64::try_from(size).unwrap_or(u64::MAX)
}

fn keep_immutable(object: &Value, old: &Value, parts: &[&str], problems: &mut Problems) {
    if old["immutable"] != true {
        return;
    }
    if object["immutable"] != true {
        problems.forbidden(&Place::top(object, "immutable"), IMMUTABLE);
    }
    for part in parts {
        let place = Place::top(object, part);
        if place.value != Place::top(old, part).value {
            problems.forbidden(&place, IMMUTABLE);
        }
    }
}

/// Of a ConfigMap.
pub(super) fn config_map(object: &Value, old: Option<&Value>, problems: &mut Problems) {
    if let Some(old) = old {
        keep_immutable(object, old, &["data", "binaryData"], problems);
    }
    let mut total = 0;
    for (part, encoded) in [("data", false), ("binaryData", true)] {
        for (key, place) in Place::top(object, part).entries() {
            let shown = Value::from(key);
            for wrong in formats::config_key(key) {
                problems.invalid_as(&place, &shown, wrong);
            }
            if part == "data" && map_at(object, "/binaryData").is_some_and(|other| other.contains_key(key)) {
                problems.invalid_as(&place, &shown, "duplicate of key present in binaryData");
            }
            total += size(place.value, encoded);
        }
    }
    if total > LIMIT {
        // It is about the whole object, which the real server names so.
        problems.0.push(Cause::too_long("[]", LIMIT));
    }
}

/// Of a Secret.
pub(super) fn secret(object: &Value, old: Option<&Value>, problems: &mut Problems) {
    if let Some(old) = old {
        problems.immutable(&Place::top(object, "type"), &Place::top(old, "type"));
        keep_immutable(object, old, &["data"], problems);
    }
    let data = Place::top(object, "data");
    let mut total = 0;
    for (key, place) in data.entries() {
        for wrong in formats::config_key(key) {
            problems.invalid_as(&place, &key.into(), wrong);
        }
        total += size(place.value, true);
    }
    if total > LIMIT {
        problems.0.push(Cause::too_long("data", LIMIT));
    }
    let at = |key: &str| Place {
        path: format!("data[{key}]"),
        value: data.value.get(key).unwrap_or(&Value::Null),
    };
    match object["type"].as_str().unwrap_or_default() {
        "kubernetes.io/service-account-token" => {
            const NAME: &str = "kubernetes.io/service-account.name";
            let annotations = map_at(object, "/metadata/annotations");
            let name = annotations.and_then(|map| map.get(NAME)).and_then(Value::as_str);
            if name.unwrap_or_default().is_empty() {
                let path = format!("metadata.annotations[{NAME}]");
                problems.0.push(Cause::required(&path, ""));
            }
        }
        "kubernetes.io/dockercfg" => holds_json(&at(".dockercfg"), problems),
        "kubernetes.io/dockerconfigjson" => holds_json(&at(".dockerconfigjson"), problems),
        "kubernetes.io/basic-auth" => {
            let parts = [at("username"), at("password")];
            if !parts.iter().any(Place::is_set) {
                for part in &parts {
                    problems.required(part, "");
                }
            }
        }
        "kubernetes.io/ssh-auth" => {
            problems.required_text(&at("ssh-privatekey"));
        }
        "kubernetes.io/tls" => {
            for part in [at("tls.crt"), at("tls.key")].iter().filter(|part| !part.is_set()) {
                problems.required(part, "");
            }
        }
        _ => {}
    }
}

/// What a client is warned of: a certificate or key that is none.
pub(super) fn secret_warnings(object: &Value) -> Vec<String> {
    if object["type"] != "kubernetes.io/tls" {
        return Vec::new();
    }
    let is_pem = |key: &str| {
        let bytes = STANDARD
            .decode(object["data"][key].as_str().unwrap_or_default())
            .unwrap_or_default();
        String::from_utf8_lossy(&bytes).contains("-----BEGIN ")
    };
    [("tls.crt", "certificate"), ("tls.key", "key")]
        .into_iter()
        .find(|(key, _)| !is_pem(key))
        .map(|(_, what)| format!("tls: failed to find any PEM data in {what} input"))
        .into_iter()
        .collect()
}

fn holds_json(place: &Place<'_>, problems: &mut Problems) {
    if !place.is_set() {
        problems.required(place, "");
        return;
    }
    let bytes = STANDARD.decode(place.text()).unwrap_or_default();
    let wrong = if bytes.is_empty() {
        "unexpected end of JSON input".to_owned()
    } else {
        match crate::schema::decode_strict(&bytes) {
            Ok((Value::Object(_) | Value::Null, _)) => return,
            Ok((other, _)) => {
                let kind = match other {
                    Value::String(_) => "string",
                    Value::Array(_) => "array",
                    Value::Bool(_) => "bool",
                    _ => "number",
                };
                format!("json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}")
            }
            Err(error) => error.to_string(),
        }
    };
    problems.invalid_as(place, &REDACTED.into(), wrong);
}
