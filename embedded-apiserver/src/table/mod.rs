//! The `meta.k8s.io/v1 Table` that `kubectl get` prints.
//!
//! For: columns and cells of CRDs' printer columns and of the built-in kinds. Not for: choosing when a client wants a
//! table, or list metadata, which the caller sets.

use jiff::Timestamp;
use serde_json::{Value, json};

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
}

/// The columns of a CRD version: `Name`, then its `additionalPrinterColumns`, or `Age` when it has none.
pub fn columns_for_crd(additional_printer_columns: &Value) -> Vec<Column> {
    let _ = additional_printer_columns;
    Vec::new()
}

/// The columns of a built-in kind, as the real server prints them; `Name` and `Created At` for kinds without a printer.
pub fn default_columns(kind: &str) -> Vec<Column> {
    let _ = kind;
    Vec::new()
}

/// A `Table` of the objects, without list metadata.
pub fn render(columns: &[Column], objects: &[Value], now: Timestamp, include_object: IncludeObject) -> Value {
    let _ = (objects, now, include_object);
    let definitions: Vec<&Value> = columns.iter().map(|column| &column.definition).collect();
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "columnDefinitions": definitions, "rows": []})
}
