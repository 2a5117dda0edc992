//! The types of the fields of metadata, refused in the words of Go's decoder.

use serde_json::Value;

use super::ApiError;
use crate::schema::{go_kind, go_quote};

/// What a field has to be.
enum Kind {
    Text,
    Flag,
    Whole,
    Time,
    Texts,
    TextMap,
    Owners,
    Entries,
}

/// Refuses metadata of the wrong types, as decoding would, and takes nulls among texts as empty ones.
pub fn metadata_types(object: &mut Value) -> Result<(), ApiError> {
    let metadata = match object.get_mut("metadata") {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Object(metadata)) => metadata,
        Some(other) => {
            return Err(ApiError::bad_request(format!(
                "json: cannot unmarshal {} into Go value of type v1.ObjectMeta",
                go_kind(other)
            )));
        }
    };
    for (field, value) in metadata.iter_mut().filter(|(_, value)| !value.is_null()) {
        let kind = match field.as_str() {
            "name" | "generateName" | "namespace" | "uid" | "resourceVersion" | "selfLink" => Kind::Text,
            "labels" | "annotations" => Kind::TextMap,
            "finalizers" => Kind::Texts,
            "creationTimestamp" | "deletionTimestamp" => Kind::Time,
            "generation" | "deletionGracePeriodSeconds" => Kind::Whole,
            "ownerReferences" => Kind::Owners,
            "managedFields" => Kind::Entries,
            _ => continue,
        };
        check(&kind, value, &format!("ObjectMeta.{field}"))?;
        let texts: Vec<&mut Value> = match (kind, value) {
            (Kind::TextMap, Value::Object(map)) => map.values_mut().collect(),
            (Kind::Texts, Value::Array(items)) => items.iter_mut().collect(),
            _ => Vec::new(),
        };
        for text in texts.into_iter().filter(|text| text.is_null()) {
            *text = "".into();
        }
    }
    Ok(())
}

fn check(kind: &Kind, value: &Value, place: &str) -> Result<(), ApiError> {
    let refuse = |value: &Value, wanted: &str| {
        let found = match value {
            Value::Number(number) if wanted == "int64" => format!("number {number}"),
            other => go_kind(other).to_owned(),
        };
        Err(ApiError::bad_request(format!(
            "json: cannot unmarshal {found} into Go struct field {place} of type {wanted}"
        )))
    };
    match (kind, value) {
        (Kind::Text, Value::String(_)) | (Kind::Flag, Value::Bool(_)) => Ok(()),
        (Kind::Text, other) => refuse(other, "string"),
        (Kind::Flag, other) => refuse(other, "bool"),
        (Kind::Whole, Value::Number(number)) if number.is_i64() => Ok(()),
        (Kind::Whole, other) => refuse(other, "int64"),
        (Kind::Time, Value::String(time)) => match time.parse::<jiff::Timestamp>() {
            Ok(_) => Ok(()),
            Err(_) => Err(ApiError::bad_request(format!(
                "parsing time {0} as \"2006-01-02T15:04:05Z07:00\": cannot parse {0} as \"2006\"",
                go_quote(time)
            ))),
        },
        (Kind::Time, other) => refuse(other, "string"),
        (Kind::Texts, Value::Array(items)) => match items.iter().find(|item| !item.is_string() && !item.is_null()) {
            Some(item) => refuse(item, "string"),
            None => Ok(()),
        },
        (Kind::Texts, other) => refuse(other, "[]string"),
        (Kind::TextMap, Value::Object(map)) => match map.values().find(|item| !item.is_string() && !item.is_null()) {
            Some(item) => refuse(item, "string"),
            None => Ok(()),
        },
        (Kind::TextMap, other) => refuse(other, "map[string]string"),
        (Kind::Owners, Value::Array(owners)) => owners.iter().try_for_each(|owner| match owner {
            Value::Object(fields) => {
                fields
                    .iter()
                    .filter(|(_, value)| !value.is_null())
                    .try_for_each(|(field, value)| {
                        let kind = match field.as_str() {
                            "apiVersion" | "kind" | "name" | "uid" => Kind::Text,
                            "controller" | "blockOwnerDeletion" => Kind::Flag,
                            _ => return Ok(()),
                        };
                        check(&kind, value, &format!("OwnerReference.ownerReferences.{field}"))
                    })
            }
            Value::Null => Ok(()),
            other => refuse(other, "v1.OwnerReference"),
        }),
        (Kind::Owners, other) => refuse(other, "[]v1.OwnerReference"),
        (Kind::Entries, Value::Array(entries)) => {
            match entries.iter().find(|entry| !entry.is_object() && !entry.is_null()) {
                Some(entry) => refuse(entry, "v1.ManagedFieldsEntry"),
                None => Ok(()),
            }
        }
        (Kind::Entries, other) => refuse(other, "[]v1.ManagedFieldsEntry"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn wrong_types_are_refused_in_the_words_of_go() {
        let told = |metadata: Value| {
            metadata_types(&mut json!({ "metadata": metadata }))
                .unwrap_err()
                .message
        };
        assert_eq!(
            told(json!({ "labels": { "a": 5 } })),
            "json: cannot unmarshal number into Go struct field ObjectMeta.labels of type string"
        );
        assert_eq!(
            told(json!({ "ownerReferences": [{ "controller": "yes" }] })),
            "json: cannot unmarshal string into Go struct field OwnerReference.ownerReferences.controller of type bool"
        );
        assert_eq!(
            told(json!({ "generation": 5.5 })),
            "json: cannot unmarshal number 5.5 into Go struct field ObjectMeta.generation of type int64"
        );
        assert_eq!(
            told(json!([])),
            "json: cannot unmarshal array into Go value of type v1.ObjectMeta"
        );
        let mut object = json!({ "metadata": { "name": null, "labels": { "a": null }, "finalizers": [null] } });
        assert!(metadata_types(&mut object).is_ok());
        let wanted = json!({ "metadata": { "name": null, "labels": { "a": "" }, "finalizers": [""] } });
        assert_eq!(object, wanted);
    }
}
