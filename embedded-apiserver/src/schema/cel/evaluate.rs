//! Running the rules of a schema on an object.
//!
//! For: the causes that failed rules make. Not for: the other validations, which run before and may block this one.

use super::super::cause::{Cause, go_quote};
use super::super::node::{Additional, ListType, Node, NodeId};
use super::super::{Schema, correlate};
use super::Rule;
use super::value::convert;
use kube_cel::KubeCelExt as _;
use kube_cel::cel::objects::OptionalValue;
use kube_cel::cel::{Context, ExecutionError, Value as Cel};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::sync::Arc;

thread_local! {
    /// The functions; made once per thread because registering them takes longer than most rules.
    static BASE: Context<'static> = super::types::register(Context::default().with_all());
}

/// Runs all rules; transition rules only where there is an old value to compare with.
pub(in super::super) fn validate(
    schema: &Schema,
    id: NodeId,
    path: &str,
    new: &Value,
    old: Option<&Value>,
) -> Vec<Cause> {
    if !schema.nodes[id].rules_below {
        return Vec::new();
    }
    BASE.with(|base| {
        let mut run = Run {
            nodes: &schema.nodes,
            base,
            path: path.to_owned(),
            causes: Vec::new(),
        };
        run.value(id, new, old, None);
        run.causes
    })
}

struct Run<'run> {
    nodes: &'run [Node],
    base: &'run Context<'static>,
    path: String,
    causes: Vec<Cause>,
}

/// The nearest enclosing value that has an old counterpart, with it.
type Correlated<'run> = Option<(&'run Value, &'run Value)>;

impl<'run> Run<'run> {
    fn value(&mut self, id: NodeId, new: &'run Value, old: Option<&'run Value>, parent: Correlated<'run>) {
        let node = &self.nodes[id];
        if !node.rules_below || new.is_null() {
            return;
        }
        let correlated = old.map(|old| (new, old)).or(parent);
        if !node.rules.is_empty() {
            self.rules(id, new, old.filter(|old| !old.is_null()), correlated);
        }
        for branch in &node.all_of {
            self.value(*branch, new, old, parent);
        }
        match new {
            Value::Array(items) => {
                let Some(item) = node.items else { return };
                let old_items = old.and_then(Value::as_array);
                for (index, element) in items.iter().enumerate() {
                    let length = self.path.len();
                    let _ = write!(self.path, "[{index}]");
                    // Only lists of type map tell which old element a new one comes from.
                    let old_element = match (node.list_type, old_items) {
                        (ListType::Map, Some(old)) => correlate(old, element, &node.list_map_keys),
                        _ => None,
                    };
                    self.value(item, element, old_element, correlated);
                    self.path.truncate(length);
                }
            }
            Value::Object(map) => {
                for (key, member) in map {
                    let length = self.path.len();
                    let child = if let Some(child) = node.properties.get(key) {
                        if length > 0 {
                            self.path.push('.');
                        }
                        self.path.push_str(key);
                        *child
                    } else if let Additional::Schema(child) = node.additional {
                        let _ = write!(self.path, "[{key}]");
                        child
                    } else {
                        continue;
                    };
                    self.value(child, member, old.and_then(|old| old.get(key)), correlated);
                    self.path.truncate(length);
                }
            }
            _ => {}
        }
    }

    fn rules(&mut self, id: NodeId, new: &Value, old: Option<&Value>, correlated: Correlated<'_>) {
        let node = &self.nodes[id];
        let mut scope = self.base.new_inner_scope();
        scope.add_variable_from_value("self", convert(self.nodes, Some(id), new, self.base));
        let old_value = if node.rules.iter().any(|rule| rule.uses_old_self) {
            old.map(|old| convert(self.nodes, Some(id), old, self.base))
        } else {
            None
        };
        if let Some(old_value) = &old_value {
            scope.add_variable_from_value("oldSelf", old_value.clone());
        }
        for rule in &node.rules {
            if rule.uses_old_self && old_value.is_none() && !rule.optional_old_self {
                continue;
            }
            let result = if rule.optional_old_self {
                let mut optional = scope.new_inner_scope();
                let wrapped = old_value.clone().map_or_else(OptionalValue::none, OptionalValue::of);
                optional.add_variable_from_value("oldSelf", Cel::Opaque(Arc::new(wrapped)));
                optional.resolve(&rule.expression)
            } else {
                scope.resolve(&rule.expression)
            };
            let declared = json!(node.declared_type);
            match result {
                Ok(Cel::Bool(true)) => {}
                Ok(_) => {
                    // What was invalid before and has not changed may stay, unless the rule is about the change.
                    if !rule.uses_old_self && correlated.is_some_and(|(new, old)| new == old) {
                        continue;
                    }
                    let cause = self.failure(rule, &declared, &scope);
                    self.causes.push(cause);
                }
                Err(error) => {
                    let detail = execution_error(&error, rule);
                    self.causes.push(Cause::invalid(&self.path, &declared, &detail));
                }
            }
        }
    }

    fn failure(&self, rule: &Rule, declared: &Value, scope: &Context<'_>) -> Cause {
        let message = rule
            .message_expression
            .as_ref()
            .and_then(|expression| match scope.resolve(expression) {
                Ok(Cel::String(text)) => Some(text.trim().to_owned()),
                _ => None,
            })
            .filter(|text| !text.is_empty() && !text.contains('\n') && text.len() <= 5 * 1024)
            .or_else(|| rule.message.clone())
            .unwrap_or_else(|| format!("failed rule: {}", rule.text));
        let path = match (self.path.is_empty(), rule.field_path.is_empty()) {
            (_, true) => self.path.clone(),
            (true, false) => rule.field_path.clone(),
            (false, false) => format!("{}.{}", self.path, rule.field_path),
        };
        match rule.reason.as_deref() {
            Some("FieldValueForbidden") => Cause::forbidden(&path, &message),
            Some("FieldValueRequired") => Cause::required(&path, &message),
            Some("FieldValueDuplicate") => Cause::duplicate(&path, declared),
            _ => Cause::invalid(&path, declared, &message),
        }
    }
}

/// A runtime error as the real evaluator words it.
fn execution_error(error: &ExecutionError, rule: &Rule) -> String {
    let shown = rule.message.as_ref().unwrap_or(&rule.text);
    let text = match error {
        ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
        ExecutionError::DivisionByZero(_) => "division by zero".to_owned(),
        ExecutionError::RemainderByZero(_) => "modulus by zero".to_owned(),
        ExecutionError::Overflow(..) => "integer overflow".to_owned(),
        ExecutionError::IndexOutOfBounds(Cel::Int(index)) => format!("index out of bounds: {index}"),
        ExecutionError::FunctionError { message, .. } => message.clone(),
        ExecutionError::UndeclaredReference(name) => {
            format!(
                "undeclared reference to {} (in container '')",
                go_quote(name).replace('"', "'")
            )
        }
        ExecutionError::NoSuchOverload
        | ExecutionError::UnsupportedBinaryOperator(..)
        | ExecutionError::UnsupportedUnaryOperator(..)
        | ExecutionError::UnsupportedTargetType { .. }
        | ExecutionError::NotSupportedAsMethod { .. }
        | ExecutionError::UnexpectedType { .. }
        | ExecutionError::ValuesNotComparable(..) => {
            return format!(
                "'no such overload': call arguments did not match a supported operator, function or macro signature \
                 for rule: {shown}"
            );
        }
        other => other.to_string(),
    };
    format!("{text} evaluating rule: {shown}")
}
