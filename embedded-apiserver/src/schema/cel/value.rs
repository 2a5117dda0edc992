//! From JSON to CEL values, as the schema says.
//!
//! For: `self` and `oldSelf`. Not for: evaluating.

use super::super::format::Format;
use super::super::node::{Additional, Node, NodeId, Types};
use super::escape;
use base64::Engine as _;
use kube_cel::cel::objects::{Key, Map};
use kube_cel::cel::{Context, IdedExpr, Value as Cel};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

/// A JSON value as a CEL value; `context` has the standard functions.
pub(super) fn convert(nodes: &[Node], id: Option<NodeId>, value: &Value, context: &Context<'_>) -> Cel {
    let node = id.map(|id| &nodes[id]);
    match value {
        Value::Null => Cel::Null,
        Value::Bool(boolean) => Cel::Bool(*boolean),
        Value::Number(number) => {
            let float = node.is_some_and(|node| node.types == Types::NUMBER);
            match number.as_i64() {
                Some(integer) if !float => Cel::Int(integer),
                _ => Cel::Float(number.as_f64().unwrap_or(f64::NAN)),
            }
        }
        Value::String(text) => string(text, node.and_then(|node| node.format), context),
        Value::Array(items) => {
            let item = node.and_then(|node| node.items);
            Cel::List(Arc::new(
                items.iter().map(|value| convert(nodes, item, value, context)).collect(),
            ))
        }
        Value::Object(map) => {
            let is_map = node.is_some_and(|node| matches!(node.additional, Additional::Schema(_) | Additional::Any));
            let mut members = HashMap::with_capacity(map.len());
            for (key, value) in map {
                let child = node.and_then(|node| node.child(key));
                let name = if is_map { key.clone() } else { escape(key) };
                members.insert(Key::String(Arc::new(name)), convert(nodes, child, value, context));
            }
            Cel::Map(Map { map: Arc::new(members) })
        }
    }
}

fn string(text: &str, format: Option<Format>, context: &Context<'_>) -> Cel {
    let plain = || Cel::String(Arc::new(text.to_owned()));
    match format {
        Some(Format::DateTime) => call(&TIMESTAMP, text, context).unwrap_or_else(plain),
        Some(Format::Date) => call(&TIMESTAMP, &format!("{text}T00:00:00Z"), context).unwrap_or_else(plain),
        Some(Format::Duration) => call(&DURATION, text, context).unwrap_or_else(plain),
        Some(Format::Byte) => base64::engine::general_purpose::STANDARD
            .decode(text)
            .map_or_else(|_| plain(), |bytes| Cel::Bytes(Arc::new(bytes))),
        _ => plain(),
    }
}

// The language's own conversions make timestamps and durations, so that they agree with those made in rules.
static TIMESTAMP: LazyLock<Option<IdedExpr>> = LazyLock::new(|| super::parse("timestamp(text)").ok());
static DURATION: LazyLock<Option<IdedExpr>> = LazyLock::new(|| super::parse("duration(text)").ok());

fn call(function: &LazyLock<Option<IdedExpr>>, text: &str, context: &Context<'_>) -> Option<Cel> {
    let mut scope = context.new_inner_scope();
    scope.add_variable_from_value("text", Cel::String(Arc::new(text.to_owned())));
    scope.resolve(function.as_ref()?).ok()
}
