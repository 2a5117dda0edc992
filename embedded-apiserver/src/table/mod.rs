//! The `meta.k8s.io/v1 Table` that `kubectl get` prints.
//!
//! For: columns and cells of CRDs' printer columns and of the built-in kinds. Not for: choosing when a client wants a
//! table, or list metadata, which the caller sets.

mod built_in;
mod duration;
mod json_path;
mod pod;
#[cfg(test)]
mod tests;

pub use built_in::default_columns;
pub use duration::human_duration;
pub use json_path::{JsonPath, JsonPathError};

use crate::openapi;
use crate::schema::go_json;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// How much of each object a row carries (`?includeObject=`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// A `PartialObjectMetadata`: the default.
    #[default]
    Metadata,
    /// The whole object.
    Object,
}

/// One column: its definition and how its cells are computed.
#[derive(Debug, Clone)]
pub struct Column {
    definition: Value,
    cell: Cell,
}

#[derive(Debug, Clone)]
enum Cell {
    /// The first value at a path, printed as the column's type; `None` when the path cannot be read.
    Path(Option<JsonPath>, String),
    /// Computed from the object.
    Computed(fn(&Value, Timestamp) -> Value),
}

impl Column {
    fn computed(
        name: &str,
        kind: &str,
        format: &str,
        priority: i64,
        description: &str,
        cell: fn(&Value, Timestamp) -> Value,
    ) -> Self {
        Self {
            definition: definition(name, kind, format, description, priority),
            cell: Cell::Computed(cell),
        }
    }

    fn cell(&self, object: &Value, now: Timestamp) -> Value {
        match &self.cell {
            Cell::Computed(compute) => compute(object, now),
            Cell::Path(path, kind) => path
                .as_ref()
                .and_then(|path| path.find(object).into_iter().next())
                .map_or(Value::Null, |value| print(value, kind, now)),
        }
    }
}

fn definition(name: &str, kind: &str, format: &str, description: &str, priority: i64) -> Value {
    json!({"name": name, "type": kind, "format": format, "description": description, "priority": priority})
}

/// What the API reference says of a field of `metadata`.
fn metadata_description(field: &str) -> &'static str {
    openapi::object_meta_schema()
        .get("properties")
        .and_then(|properties| properties.get(field))
        .and_then(|property| property.get("description"))
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn name_column() -> Column {
    Column::computed(
        "Name",
        "string",
        "name",
        0,
        metadata_description("name"),
        |object, _| json!(text_at(object, &["metadata", "name"])),
    )
}

/// The columns of the scales of custom resources.
pub fn scale_columns() -> Vec<Column> {
    let replicas = |name: &str, path: &str, what: &str| json!({ "name": name, "type": "integer", "jsonPath": path, "description": what });
    columns_for_crd(&json!([
        replicas("Desired", ".spec.replicas", "Number of desired replicas"),
        replicas("Available", ".status.replicas", "Number of actual replicas"),
        {
            "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp",
            "description": metadata_description("creationTimestamp"),
        },
    ]))
}

/// The columns of a CRD version: `Name`, then its `additionalPrinterColumns`, or `Age` when it has none.
pub fn columns_for_crd(additional_printer_columns: &Value) -> Vec<Column> {
    let mut columns = vec![name_column()];
    let listed = additional_printer_columns
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    for column in listed {
        let text = |key: &str| column.get(key).and_then(Value::as_str).unwrap_or_default();
        let path = text("jsonPath");
        let description = match text("description") {
            "" => format!("Custom resource definition column (in JSONPath format): {path}"),
            description => description.to_owned(),
        };
        let priority = column.get("priority").and_then(Value::as_i64).unwrap_or(0);
        columns.push(Column {
            definition: definition(text("name"), text("type"), text("format"), &description, priority),
            cell: Cell::Path(JsonPath::parse(path).ok(), text("type").to_owned()),
        });
    }
    if listed.is_empty() {
        columns.push(Column {
            definition: definition("Age", "date", "", metadata_description("creationTimestamp"), 0),
            cell: Cell::Path(JsonPath::parse(".metadata.creationTimestamp").ok(), "date".to_owned()),
        });
    }
    columns
}

/// A value as a printer column of that type shows it.
fn print(value: &Value, kind: &str, now: Timestamp) -> Value {
    match kind {
        "string" => Value::String(match value {
            Value::String(text) => text.clone(),
            Value::Array(_) | Value::Object(_) => go_json(value),
            Value::Null => "<no value>".to_owned(),
            other => other.to_string(),
        }),
        "integer" => value
            .as_i64()
            .or_else(|| value.as_f64().map(|float| float as i64))
            .map_or(Value::Null, Value::from),
        "number" => value
            .as_number()
            .map_or(Value::Null, |number| Value::Number(number.clone())),
        "boolean" => value.as_bool().map_or(Value::Null, Value::Bool),
        "date" => match value {
            Value::String(text) => json!(match text.parse::<Timestamp>() {
                Ok(time) => human_duration(now.as_second() - time.as_second()),
                Err(_) => "<invalid>".to_owned(),
            }),
            _ => Value::Null,
        },
        _ => Value::Null,
    }
}

/// A `Table` of the objects, without list metadata.
pub fn render(columns: &[Column], objects: &[Value], now: Timestamp, include_object: IncludeObject) -> Value {
    let definitions: Vec<&Value> = columns.iter().map(|column| &column.definition).collect();
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let cells: Vec<Value> = columns.iter().map(|column| column.cell(object, now)).collect();
            let mut row = json!({"cells": cells, "object": included(object, include_object)});
            if let Some(conditions) = pod::row_conditions(object) {
                row["conditions"] = conditions;
            }
            row
        })
        .collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": definitions,
        "rows": rows,
    })
}

fn included(object: &Value, include_object: IncludeObject) -> Value {
    match include_object {
        IncludeObject::None => Value::Null,
        IncludeObject::Object => object.clone(),
        IncludeObject::Metadata => {
            let mut partial = Map::new();
            partial.insert("kind".to_owned(), json!("PartialObjectMetadata"));
            partial.insert("apiVersion".to_owned(), json!("meta.k8s.io/v1"));
            partial.insert(
                "metadata".to_owned(),
                object.get("metadata").cloned().unwrap_or_else(|| json!({})),
            );
            Value::Object(partial)
        }
    }
}

/// The value at a path of keys.
fn at<'object>(object: &'object Value, path: &[&str]) -> Option<&'object Value> {
    path.iter()
        .try_fold(object, |value, key| value.get(key))
        .filter(|value| !value.is_null())
}

fn text_at<'object>(object: &'object Value, path: &[&str]) -> &'object str {
    at(object, path).and_then(Value::as_str).unwrap_or_default()
}

fn integer_at(object: &Value, path: &[&str]) -> i64 {
    at(object, path).and_then(Value::as_i64).unwrap_or_default()
}

fn list_at<'object>(object: &'object Value, path: &[&str]) -> &'object [Value] {
    at(object, path)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// The time since the time at a path, or `<unknown>`.
fn age_at(object: &Value, path: &[&str], now: Timestamp) -> String {
    match text_at(object, path).parse::<Timestamp>() {
        Ok(time) => human_duration(now.as_second() - time.as_second()),
        Err(_) => "<unknown>".to_owned(),
    }
}
