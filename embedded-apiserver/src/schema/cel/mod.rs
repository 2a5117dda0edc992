//! CEL validation rules (`x-kubernetes-validations`).
//!
//! For: checking rules at CRD creation, evaluating them on objects. Not for: admission policies.

mod ast;
mod cost;
mod evaluate;
mod functions;
mod kinds;
mod lexer;
mod lower;
mod macros;
mod parse;
mod rules;
mod types;
mod typing;
mod value;

pub(super) use evaluate::validate;
pub(super) use rules::{Costs, Standing, check_rules, check_texts};

use kube_cel::cel::IdedExpr;
use kube_cel::cel::parser::Parser;
use serde_json::Value;

/// A compiled rule.
pub(crate) struct Rule {
    expression: IdedExpr,
    /// The rule's text, trimmed.
    text: String,
    message: Option<String>,
    message_expression: Option<IdedExpr>,
    reason: Option<String>,
    /// Where the error is reported, below the node of the rule: `.spec.foo` without its first dot.
    field_path: String,
    uses_old_self: bool,
    optional_old_self: bool,
}

impl std::fmt::Debug for Rule {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Rule")
            .field("text", &self.text)
            .finish_non_exhaustive()
    }
}

/// The rules of one schema node that compile; `check_rules` has refused the others before.
pub(super) fn rules(schema: &Value) -> Vec<Rule> {
    schema
        .get("x-kubernetes-validations")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|rule| {
            let text = |key: &str| {
                rule.get(key)
                    .and_then(Value::as_str)
                    .map(str::trim)
                    .filter(|text| !text.is_empty())
            };
            let source = text("rule")?;
            let expression = parse(source).ok()?;
            Some(Rule {
                uses_old_self: expression.references().has_variable("oldSelf"),
                expression,
                text: source.to_owned(),
                message: text("message").map(str::to_owned),
                message_expression: text("messageExpression").and_then(|source| parse(source).ok()),
                reason: text("reason").map(str::to_owned),
                field_path: text("fieldPath").unwrap_or_default().trim_start_matches('.').to_owned(),
                optional_old_self: rule.get("optionalOldSelf").and_then(Value::as_bool).unwrap_or(false),
            })
        })
        .collect()
}

/// Parses an expression, ready to be evaluated.
fn parse(source: &str) -> Result<IdedExpr, String> {
    Ok(lower::lower(&parsed(source)?.root))
}

/// Parses an expression; the error is worded and laid out as the real compiler's.
fn parsed(source: &str) -> Result<ast::Parsed, String> {
    Parser::new()
        .enable_optional_syntax(true)
        .parse(source)
        .map_err(|errors| {
            let texts: Vec<String> = errors
                .errors
                .iter()
                .map(|error| {
                    let (line, column) = (error.pos.0.max(1), error.pos.1.max(1));
                    located(source, line as usize, column as usize, &error.msg)
                })
                .collect();
            texts.join("\n")
        })?;
    parse::parse(source).map_err(|problem| rules::at_offset(source, problem.at, &problem.message))
}

/// An error at a place of an expression, with the line and a pointer below it.
fn located(source: &str, line: usize, column: usize, message: &str) -> String {
    let text = source.lines().nth(line - 1).unwrap_or_default();
    let pointer = format!("{}^", ".".repeat(column.saturating_sub(1)));
    format!("ERROR: <input>:{line}:{column}: {message}\n | {text}\n | {pointer}")
}

/// How a field is written in CEL.
pub(super) fn escape(name: &str) -> String {
    const RESERVED: [&str; 21] = [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    if !name.contains(['.', '-', '/']) && !name.contains("__") {
        return name.to_owned();
    }
    name.replace("__", "__underscores__")
        .replace('.', "__dot__")
        .replace('-', "__dash__")
        .replace('/', "__slash__")
}
