//! Refusing CEL rules at CRD creation.
//!
//! For: syntax, references that no schema declares, `oldSelf` where there is none. Not for: full type checking, which
//! only evaluation does here.

use super::super::cause::{Cause, go_json};
use super::{escape, located, parse};
use kube_cel::cel::IdedExpr;
use kube_cel::cel::common::ast::{EntryExpr, Expr, LiteralValue};
use serde_json::{Value, json};

/// Adds what is wrong with the rules of one schema node. `uncorrelatable` is the path of an enclosing list whose
/// elements have no old counterpart.
pub(in super::super) fn check_rules(
    path: &str,
    schema: &Value,
    root: bool,
    uncorrelatable: Option<&str>,
    causes: &mut Vec<Cause>,
) {
    let rules = schema
        .get("x-kubernetes-validations")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    for (index, rule) in rules.enumerate() {
        let prefix = if path.is_empty() {
            String::new()
        } else {
            format!("{path}.")
        };
        let field = |key: &str| format!("{prefix}x-kubernetes-validations[{index}].{key}");
        let before = causes.len();
        check_texts(rule, &field, causes);
        if causes.len() > before {
            continue;
        }
        let raw = |key: &str| rule.get(key).and_then(Value::as_str).unwrap_or_default();
        let shown = printed(rule);
        let mut compile = |key: &str, optional: bool| -> Option<IdedExpr> {
            let source = raw(key).trim();
            let kind = if key == "rule" {
                "compilation failed"
            } else {
                "messageExpression compilation failed"
            };
            let refuse = |detail: &str| Cause {
                reason: "FieldValueInvalid".to_owned(),
                message: format!("Invalid value: {shown}: {kind}: {detail}"),
                field: field(key),
            };
            match parse(source) {
                Ok(expression) => {
                    let mut walk = Walk {
                        source,
                        schema,
                        root,
                        optional,
                        scopes: Vec::new(),
                        error: None,
                    };
                    walk.expression(&expression);
                    match walk.error {
                        Some(error) => causes.push(refuse(&error)),
                        None if key == "rule" && is_never_boolean(&expression) => causes.push(Cause {
                            reason: "FieldValueInvalid".to_owned(),
                            message: format!("Invalid value: {shown}: cel expression must evaluate to a bool"),
                            field: field(key),
                        }),
                        None => return Some(expression),
                    }
                }
                Err(error) => causes.push(refuse(&error)),
            }
            None
        };
        let optional = rule.get("optionalOldSelf").and_then(Value::as_bool).unwrap_or(false);
        let expression = compile("rule", optional);
        if !raw("messageExpression").is_empty() {
            compile("messageExpression", optional);
        }
        let Some(expression) = expression else { continue };
        if expression.references().has_variable("oldSelf") {
            if let Some(list) = uncorrelatable {
                let detail =
                    format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {list}");
                causes.push(Cause::invalid(&field("rule"), &json!(raw("rule")), &detail));
            }
        } else if let Some(value) = rule.get("optionalOldSelf").filter(|value| !value.is_null()) {
            let detail = "may not be set if oldSelf is not used in rule";
            causes.push(Cause::invalid(&field("optionalOldSelf"), value, detail));
        }
    }
}

fn check_texts(rule: &Value, field: &impl Fn(&str) -> String, causes: &mut Vec<Cause>) {
    let raw = |key: &str| rule.get(key).and_then(Value::as_str).unwrap_or_default();
    let value = |key: &str| json!(raw(key));
    let (source, message) = (raw("rule").trim(), raw("message").trim());
    if source.is_empty() {
        causes.push(Cause::required(&field("rule"), "rule is not specified"));
    } else if !raw("message").is_empty() && message.is_empty() {
        causes.push(Cause::invalid(
            &field("message"),
            &value("message"),
            "must be non-empty if specified",
        ));
    } else if message.contains('\n') {
        causes.push(Cause::invalid(
            &field("message"),
            &value("message"),
            "must not contain line breaks",
        ));
    } else if source.contains('\n') && message.is_empty() {
        let detail = "message must be specified if rule contains line breaks";
        causes.push(Cause::required(&field("message"), detail));
    }
    if !raw("messageExpression").is_empty() && raw("messageExpression").trim().is_empty() {
        let detail = "messageExpression must be non-empty if specified";
        causes.push(Cause::required(&field("messageExpression"), detail));
    }
    const REASONS: [&str; 4] = [
        "FieldValueRequired",
        "FieldValueForbidden",
        "FieldValueInvalid",
        "FieldValueDuplicate",
    ];
    if let Some(reason) = rule.get("reason").and_then(Value::as_str)
        && !REASONS.contains(&reason)
    {
        let mut allowed = REASONS.map(str::to_owned);
        allowed.sort();
        causes.push(Cause::not_supported(&field("reason"), &json!(reason), &allowed));
    }
    let field_path = raw("fieldPath");
    if !field_path.is_empty() && field_path.trim().is_empty() {
        causes.push(Cause::invalid(
            &field("fieldPath"),
            &value("fieldPath"),
            "must be non-empty if specified",
        ));
    } else if field_path.contains('\n') {
        causes.push(Cause::invalid(
            &field("fieldPath"),
            &value("fieldPath"),
            "must not contain line breaks",
        ));
    } else if !field_path.is_empty() && !field_path.starts_with(['.', '[']) {
        causes.push(Cause::invalid(
            &field("fieldPath"),
            &value("fieldPath"),
            "must be a valid path",
        ));
    }
}

/// Whether an expression, as it is written, cannot give a boolean.
fn is_never_boolean(expression: &IdedExpr) -> bool {
    match &expression.expr {
        Expr::Literal(literal) => !matches!(literal, LiteralValue::Boolean(_)),
        Expr::List(_) | Expr::Map(_) => true,
        Expr::Call(call) => [
            "_+_",
            "_-_",
            "_*_",
            "_/_",
            "_%_",
            "-_",
            "size",
            "string",
            "int",
            "double",
            "duration",
            "timestamp",
        ]
        .contains(&call.func_name.as_str()),
        _ => false,
    }
}

/// A rule as the real server prints it.
fn printed(rule: &Value) -> String {
    let text = |key: &str| go_json(&json!(rule.get(key).and_then(Value::as_str).unwrap_or_default()));
    let or_null = |key: &str| rule.get(key).map_or_else(|| "null".to_owned(), go_json);
    format!(
        "{{\"Rule\":{},\"Message\":{},\"MessageExpression\":{},\"Reason\":{},\"FieldPath\":{},\"OptionalOldSelf\":{}}}",
        text("rule"),
        text("message"),
        text("messageExpression"),
        or_null("reason"),
        text("fieldPath"),
        or_null("optionalOldSelf"),
    )
}

/// Names that are types or namespaces of functions.
const KNOWN_NAMES: [&str; 21] = [
    "self",
    "oldSelf",
    "int",
    "uint",
    "double",
    "bool",
    "string",
    "bytes",
    "list",
    "map",
    "type",
    "null_type",
    "dyn",
    "google",
    "math",
    "optional",
    "sets",
    "strings",
    "base64",
    "format",
    "cel",
];

struct Walk<'rule> {
    source: &'rule str,
    schema: &'rule Value,
    root: bool,
    optional: bool,
    /// The variables of the macros around, with the schema of what they stand for if it is known.
    scopes: Vec<(String, Option<&'rule Value>)>,
    error: Option<String>,
}

impl<'rule> Walk<'rule> {
    fn refuse(&mut self, needle: &str, offset: usize, message: &str) {
        if self.error.is_none() {
            let position = self.source.find(needle).unwrap_or(0) + offset;
            let before = &self.source[..position.min(self.source.len())];
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            self.error = Some(located(self.source, line, column, message));
        }
    }

    /// Checks an expression; the schema of its value, if it is an object or list that the schema describes.
    fn expression(&mut self, expression: &IdedExpr) -> Option<&'rule Value> {
        match &expression.expr {
            Expr::Ident(name) => {
                if let Some((_, schema)) = self.scopes.iter().rev().find(|(variable, _)| variable == name) {
                    return *schema;
                }
                match name.as_str() {
                    "self" => Some(self.schema),
                    "oldSelf" if !self.optional => Some(self.schema),
                    _ if KNOWN_NAMES.contains(&name.as_str()) || name.starts_with('@') => None,
                    _ => {
                        self.refuse(name, 0, &format!("undeclared reference to '{name}' (in container '')"));
                        None
                    }
                }
            }
            Expr::Select(select) => {
                let operand = self.expression(&select.operand)?;
                self.select(operand, &select.field)
            }
            Expr::Call(call) => {
                let target = call.target.as_ref().and_then(|target| self.expression(target));
                let arguments: Vec<Option<&Value>> =
                    call.args.iter().map(|argument| self.expression(argument)).collect();
                // Indexing a list or map gives its element.
                if call.func_name == "_[_]" {
                    let container = target.or(arguments.first().copied().flatten())?;
                    return element(container);
                }
                None
            }
            Expr::Comprehension(comprehension) => {
                let range = self.expression(&comprehension.iter_range);
                let depth = self.scopes.len();
                let is_list = range.is_some_and(|range| range.get("items").is_some());
                let item = range.filter(|_| is_list).and_then(element);
                self.expression(&comprehension.accu_init);
                self.scopes.push((comprehension.accu_var.clone(), None));
                match &comprehension.iter_var2 {
                    Some(second) => {
                        self.scopes.push((comprehension.iter_var.clone(), None));
                        self.scopes.push((second.clone(), None));
                    }
                    None => self.scopes.push((comprehension.iter_var.clone(), item)),
                }
                self.expression(&comprehension.loop_cond);
                self.expression(&comprehension.loop_step);
                self.expression(&comprehension.result);
                self.scopes.truncate(depth);
                None
            }
            Expr::List(list) => {
                for element in &list.elements {
                    self.expression(element);
                }
                None
            }
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.expression(&entry.key);
                        self.expression(&entry.value);
                    }
                }
                None
            }
            _ => None,
        }
    }

    fn select(&mut self, operand: &'rule Value, field: &str) -> Option<&'rule Value> {
        let at_root = self.root && std::ptr::eq(operand, self.schema);
        if let Some(properties) = operand.get("properties").and_then(Value::as_object)
            && let Some((_, property)) = properties.iter().find(|(name, _)| escape(name) == field)
        {
            // Metadata is known by more than its schema.
            return if at_root && field == "metadata" {
                None
            } else {
                Some(property)
            };
        }
        match operand.get("additionalProperties") {
            Some(schema) if schema.is_object() => return Some(schema),
            Some(Value::Bool(true)) => return None,
            _ => {}
        }
        let meta = at_root || operand.get("x-kubernetes-embedded-resource").is_some();
        let is_object = operand.get("type").and_then(Value::as_str) == Some("object");
        if !(meta && ["apiVersion", "kind", "metadata"].contains(&field)) && is_object {
            self.refuse(&format!(".{field}"), 0, &format!("undefined field '{field}'"));
        }
        None
    }
}

fn element(container: &Value) -> Option<&Value> {
    container
        .get("items")
        .or_else(|| container.get("additionalProperties"))
        .filter(|schema| schema.is_object())
}
