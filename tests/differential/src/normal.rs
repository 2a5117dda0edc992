//! Takes out of an answer what may differ between two right servers: uids, times,
//! revisions, continue tokens, ages, and the values that a case kept under a name.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use crate::case::{How, Select};

#[allow(clippy::expect_used)] // constants
fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("the pattern is a constant")
}

static UID: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"));
static TIME: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| ?[+-]\d\d:?\d\d( UTC)?)"));
/// The present revision, in what is said of one that is too new or too old.
static PRESENT: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?i)(too large resource version: \d+, current: |too old resource version: \d+ \()\d+"));
static AGE: LazyLock<Regex> = LazyLock::new(|| pattern(r"^(\d+(d|h|m|s|ms))+$"));

/// The body, ready to be compared.
pub fn body(mut value: Value, kept: &BTreeMap<String, String>, how: &How) -> Value {
    for select in &how.select {
        keep_elements(&mut value, select);
    }
    plain(&mut value, None, kept, false);
    for pointer in &how.ignore {
        each(&mut value, &parts(pointer), true, &mut |_| {});
    }
    for pointer in &how.unordered {
        each(&mut value, &parts(pointer), false, &mut |list| {
            if let Value::Array(items) = list {
                items.sort_by_key(ToString::to_string);
            }
        });
    }
    if how.only.is_empty() {
        return value;
    }
    let mut chosen = serde_json::Map::new();
    for pointer in &how.only {
        let mut found = Vec::new();
        each(&mut value, &parts(pointer), false, &mut |value| {
            found.push(value.clone());
        });
        chosen.insert(pointer.clone(), Value::Array(found));
    }
    Value::Object(chosen)
}

/// A text with what may differ taken out.
pub fn text(text: &str, kept: &BTreeMap<String, String>) -> String {
    // First what may hold the digits of a revision.
    let text = UID.replace_all(text, "<uid>");
    let text = PRESENT.replace_all(&text, "${1}<revision>");
    let mut text = TIME.replace_all(&text, "<time>").into_owned();
    for (name, value) in kept {
        if value.parse::<u64>().is_err() {
            text = text.replace(value.as_str(), &format!("<{name}>"));
        } else if value.len() > 2 {
            text = replace_word(&text, value, &format!("<{name}>"));
        }
    }
    text
}

/// Replaces a word where it is no part of a longer one.
fn replace_word(text: &str, word: &str, by: &str) -> String {
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(word) {
        let (before, after) = (&rest[..at], &rest[at + word.len()..]);
        let is_part = |letter: Option<char>| letter.is_some_and(|letter| letter.is_ascii_alphanumeric());
        let whole = !is_part(before.chars().last()) && !is_part(after.chars().next());
        replaced.push_str(before);
        replaced.push_str(if whole { by } else { word });
        rest = after;
    }
    replaced + rest
}

fn plain(value: &mut Value, key: Option<&str>, kept: &BTreeMap<String, String>, table: bool) {
    match value {
        Value::String(found) => match key {
            Some("resourceVersion") if !found.is_empty() && found != "0" => "<revision>".clone_into(found),
            Some("continue") if !found.is_empty() => "<continue>".clone_into(found),
            _ => {
                *found = text(found, kept);
                if table && AGE.is_match(found) {
                    "<age>".clone_into(found);
                }
            }
        },
        Value::Array(items) => {
            for item in items.iter_mut() {
                plain(item, None, kept, table);
            }
            if key == Some("managedFields") {
                // Entries are ordered by time first: two of one second, or of two, by accident.
                items.sort_by_key(|entry| {
                    ["manager", "operation", "subresource", "apiVersion"].map(|name| entry[name].to_string())
                });
            }
        }
        Value::Object(map) => {
            let table = table || map.get("kind").is_some_and(|kind| kind == "Table");
            for (key, value) in map.iter_mut() {
                plain(value, Some(key), kept, table);
            }
            // Managed fields name list elements by their keys, uids among them.
            if map.keys().any(|key| key.starts_with("k:")) {
                *map = std::mem::take(map)
                    .into_iter()
                    .map(|(key, value)| (text(&key, kept), value))
                    .collect();
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn keep_elements(value: &mut Value, select: &Select) {
    each(value, &parts(&select.at), false, &mut |list| {
        if let Value::Array(items) = list {
            items.retain(|item| {
                item.pointer(&select.by)
                    .is_some_and(|found| select.within.contains(found))
            });
        }
    });
}

fn parts(pointer: &str) -> Vec<String> {
    pointer
        .split('/')
        .skip(1)
        .map(|part| part.replace("~1", "/").replace("~0", "~"))
        .collect()
}

/// Calls `act` with every value at the pointer, in which `*` is any key or index; takes them out if `remove`.
fn each(value: &mut Value, parts: &[String], remove: bool, act: &mut dyn FnMut(&mut Value)) {
    let Some((part, rest)) = parts.split_first() else {
        act(value);
        return;
    };
    let last = rest.is_empty() && remove;
    match value {
        Value::Object(map) => {
            let keys: Vec<String> = map.keys().filter(|key| part == "*" || *key == part).cloned().collect();
            for key in keys {
                if last {
                    map.remove(&key);
                } else if let Some(value) = map.get_mut(&key) {
                    each(value, rest, remove, act);
                }
            }
        }
        Value::Array(items) => {
            let wanted: Option<usize> = part.parse().ok();
            if last {
                let mut index = 0;
                items.retain(|_| {
                    let here = part == "*" || wanted == Some(index);
                    index += 1;
                    !here
                });
                return;
            }
            for (index, item) in items.iter_mut().enumerate() {
                if part == "*" || wanted == Some(index) {
                    each(item, rest, remove, act);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_may_differ_is_taken_out_and_nothing_else() {
        let object = json!({
            "kind": "ConfigMap",
            "metadata": {
                "uid": "9b2c5a7e-1111-4222-8333-123456789abc",
                "resourceVersion": "17",
                "creationTimestamp": "2025-01-02T03:04:05Z",
                "name": "a",
            },
            "data": { "age": "5m" },
            "list": [{ "name": "x" }, { "name": "y" }],
        });
        let how = How {
            ignore: vec!["/list/*/name".to_owned()],
            ..How::default()
        };
        assert_eq!(
            body(object, &BTreeMap::new(), &how),
            json!({
                "kind": "ConfigMap",
                "metadata": {
                    "uid": "<uid>",
                    "resourceVersion": "<revision>",
                    "creationTimestamp": "<time>",
                    "name": "a",
                },
                "data": { "age": "5m" },
                "list": [{}, {}],
            })
        );
    }

    #[test]
    fn elements_are_selected_and_pointers_chosen() {
        let list = json!({ "resources": [{ "name": "a", "verbs": ["b", "a"] }, { "name": "c" }] });
        let how = How {
            select: vec![Select {
                at: "/resources".to_owned(),
                by: "/name".to_owned(),
                within: vec![json!("a")],
            }],
            unordered: vec!["/resources/*/verbs".to_owned()],
            only: vec!["/resources/*/verbs".to_owned(), "/kind".to_owned()],
            ..How::default()
        };
        assert_eq!(
            body(list, &BTreeMap::new(), &how),
            json!({ "/resources/*/verbs": [["a", "b"]], "/kind": [] })
        );
    }
}
