//! Refusing validation rules when a definition is made.
//!
//! For: what is wrong with a rule's texts, its types, and its cost. Not for: running rules.

use serde_json::{Value, json};

use super::super::cause::{Cause, go_json};
use super::super::field_path;
use super::super::format;
use super::ast::{Expr, Kind, Literal, Parsed};
use super::kinds::{Declared, MAX_REQUEST, Type};
use super::parse::Problem;
use super::{cost, functions, located, typing};
use regex::Regex;

/// What one rule may cost at most, and what all rules of a schema may.
const RULE_LIMIT: u64 = 10_000_000;
const TOTAL_LIMIT: u64 = 100_000_000;

/// What the rules of a schema cost together.
#[derive(Debug, Default)]
pub(in super::super) struct Costs {
    total: u64,
    /// The four dearest, with their fields.
    dearest: Vec<(String, u64)>,
}

impl Costs {
    fn add(&mut self, field: &str, cost: u64) {
        self.total = self.total.saturating_add(cost);
        if cost >= TOTAL_LIMIT / 100 {
            self.dearest.push((field.to_owned(), cost));
            self.dearest.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
            self.dearest.truncate(4);
        }
    }

    /// What is said if all rules together cost too much.
    pub(in super::super) fn refuse(&self, causes: &mut Vec<Cause>) {
        if self.total <= TOTAL_LIMIT {
            return;
        }
        let detail = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
        for (field, _) in &self.dearest {
            causes.push(Cause::forbidden(field, detail));
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        causes.push(Cause::forbidden("", &too_expensive(what, self.total, TOTAL_LIMIT)));
    }
}

fn too_expensive(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and \
         maxLength where arrays, maps, and strings are declared)"
    )
}

fn rules_of(schema: &Value) -> impl Iterator<Item = (usize, &Value)> {
    schema
        .get("x-kubernetes-validations")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .enumerate()
}

fn place(path: &str, index: usize, key: &str) -> String {
    let dot = if path.is_empty() { "" } else { "." };
    format!("{path}{dot}x-kubernetes-validations[{index}].{key}")
}

fn raw<'rule>(rule: &'rule Value, key: &str) -> &'rule str {
    rule.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Adds what is wrong with the texts of a schema node's rules.
pub(in super::super) fn check_texts(path: &str, schema: &Value, causes: &mut Vec<Cause>) {
    for (index, rule) in rules_of(schema) {
        let field = |key: &str| place(path, index, key);
        let value = |key: &str| json!(raw(rule, key));
        let breaks = |text: &str| text.contains(['\n', '\r']);
        let (source, message) = (raw(rule, "rule").trim(), raw(rule, "message").trim());
        if source.is_empty() {
            causes.push(Cause::required(&field("rule"), "rule is not specified"));
        } else if !raw(rule, "message").is_empty() && message.is_empty() {
            let detail = "must be non-empty if specified";
            causes.push(Cause::invalid(&field("message"), &value("message"), detail));
        } else if breaks(message) {
            let detail = "must not contain line breaks";
            causes.push(Cause::invalid(&field("message"), &value("message"), detail));
        } else if breaks(source) && message.is_empty() {
            let detail = "message must be specified if rule contains line breaks";
            causes.push(Cause::required(&field("message"), detail));
        }
        let expression = raw(rule, "messageExpression");
        if !expression.is_empty() && expression.trim().is_empty() {
            let detail = "messageExpression must be non-empty if specified";
            causes.push(Cause::required(&field("messageExpression"), detail));
        }
        const REASONS: [&str; 4] = [
            "FieldValueDuplicate",
            "FieldValueForbidden",
            "FieldValueInvalid",
            "FieldValueRequired",
        ];
        if let Some(reason) = rule.get("reason").and_then(Value::as_str)
            && !REASONS.contains(&reason)
        {
            let allowed = REASONS.map(str::to_owned);
            causes.push(Cause::not_supported(&field("reason"), &json!(reason), &allowed));
        }
        let field_path_text = raw(rule, "fieldPath");
        if field_path_text.is_empty() {
            continue;
        }
        let mut refuse = |detail: &str| causes.push(Cause::invalid(&field("fieldPath"), &value("fieldPath"), detail));
        if field_path_text.trim().is_empty() {
            refuse("must be non-empty if specified");
        }
        if breaks(field_path_text) {
            refuse("must not contain line breaks");
        }
        if field_path(field_path_text, schema, true).is_err() {
            refuse("must be a valid path");
        }
    }
}

/// Where a schema node stands, as far as its rules are concerned.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Standing<'path> {
    /// Whether it is the root or an embedded resource, whose metadata rules may speak of.
    pub(in super::super) is_resource: bool,
    /// How often it may occur in an object; nothing if no schema says.
    pub(in super::super) cardinality: Option<u64>,
    /// The path of an enclosing list whose elements have no old counterpart.
    pub(in super::super) uncorrelatable: Option<&'path str>,
    /// Whether the cost of single rules is not looked at, because the schema was accepted before.
    pub(in super::super) unchanged: bool,
}

/// Adds what is wrong with the expressions of a schema node's rules.
pub(in super::super) fn check_rules(
    path: &str,
    schema: &Value,
    standing: Standing<'_>,
    costs: &mut Costs,
    causes: &mut Vec<Cause>,
) {
    if rules_of(schema).next().is_none() {
        return;
    }
    let Some(declared) = Declared::new(schema, standing.is_resource) else {
        let message = "Internal error: internal error: failed to construct type information for \
                       x-kubernetes-validations rules: unable to convert structural schema to CEL declarations";
        causes.push(Cause {
            reason: "InternalError".to_owned(),
            message: message.to_owned(),
            field: format!("{path}.x-kubernetes-validations")
                .trim_start_matches('.')
                .to_owned(),
        });
        return;
    };
    let occurrences = standing
        .cardinality
        .unwrap_or(MAX_REQUEST / (declared.root().min_size + 1));
    for (index, rule) in rules_of(schema) {
        let field = |key: &str| place(path, index, key);
        let refuse = |key: &str, detail: &str| Cause {
            reason: "FieldValueInvalid".to_owned(),
            message: format!("Invalid value: {}: {detail}", printed(rule)),
            field: field(key),
        };
        let optional = rule.get("optionalOldSelf").and_then(Value::as_bool).unwrap_or(false);
        let compiled = compile(raw(rule, "rule"), &declared, optional);
        let cost = compiled
            .as_ref()
            .map_or(0, |compiled| compiled.cost.saturating_mul(occurrences));
        if cost > RULE_LIMIT && !standing.unchanged {
            let detail = too_expensive("estimated rule cost", cost, RULE_LIMIT);
            causes.push(Cause::forbidden(&field("rule"), &detail));
        }
        costs.add(&field("rule"), cost);
        let accepted = match &compiled {
            Err(error) => {
                causes.push(refuse("rule", &format!("compilation failed: {error}")));
                None
            }
            Ok(compiled) if compiled.kind != Type::Bool => {
                causes.push(refuse("rule", "cel expression must evaluate to a bool"));
                None
            }
            Ok(compiled) => Some(compiled),
        };
        let message = raw(rule, "messageExpression");
        if accepted.is_some() && !message.is_empty() {
            match compile(message, &declared, optional) {
                Err(error) => {
                    let detail = format!("messageExpression compilation failed: {error}");
                    causes.push(refuse("messageExpression", &detail));
                }
                Ok(compiled) if compiled.kind != Type::Text => {
                    let detail = "messageExpression must evaluate to a string";
                    causes.push(refuse("messageExpression", detail));
                }
                Ok(compiled) => {
                    if compiled.cost > RULE_LIMIT && !standing.unchanged {
                        let detail = too_expensive("estimated messageExpression cost", compiled.cost, RULE_LIMIT);
                        causes.push(Cause::forbidden(&field("messageExpression"), &detail));
                    }
                    costs.add(&field("messageExpression"), compiled.cost);
                }
            }
        }
        if accepted.is_some_and(|accepted| accepted.uses_old_self) {
            if let Some(list) = standing.uncorrelatable {
                let detail =
                    format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {list}");
                causes.push(Cause::invalid(&field("rule"), &json!(raw(rule, "rule")), &detail));
            }
        } else if let Some(value) = rule.get("optionalOldSelf").filter(|value| !value.is_null()) {
            let detail = "may not be set if oldSelf is not used in rule";
            causes.push(Cause::invalid(&field("optionalOldSelf"), value, detail));
        }
    }
}

struct Compiled {
    kind: Type,
    cost: u64,
    uses_old_self: bool,
}

fn compile(source: &str, declared: &Declared, optional_old: bool) -> Result<Compiled, String> {
    let parsed = super::parsed(source)?;
    let worded = |problems: &[Problem]| {
        let texts: Vec<String> = problems
            .iter()
            .map(|problem| at_offset(source, problem.at, &problem.message))
            .collect();
        texts.join("\n")
    };
    let checked = functions::with(|functions| typing::check(&parsed, declared, optional_old, functions));
    if !checked.problems.is_empty() {
        return Err(worded(&checked.problems));
    }
    let mut problems = Vec::new();
    check_literals(&parsed.root, &parsed, &mut problems);
    if !problems.is_empty() {
        return Err(worded(&problems));
    }
    Ok(Compiled {
        kind: checked.of(&parsed.root).clone(),
        cost: cost::estimate(&parsed.root, &checked, declared),
        uses_old_self: checked.uses_old_self,
    })
}

/// Durations, times and patterns that are written out have to be readable.
fn check_literals(expression: &Expr, parsed: &Parsed, problems: &mut Vec<Problem>) {
    match &expression.kind {
        Kind::Call {
            function,
            target,
            arguments,
        } => {
            let literal = arguments.first().and_then(|argument| match &argument.kind {
                Kind::Literal(Literal::Text(text)) => Some((argument.id, text)),
                _ => None,
            });
            if let Some((id, text)) = literal {
                let fits = match function.as_str() {
                    "duration" if target.is_none() => format::is_go_duration(text),
                    "timestamp" if target.is_none() => format::Format::DateTime.accepts(text),
                    "matches" if target.is_some() => Regex::new(text).is_ok(),
                    _ => true,
                };
                if !fits {
                    problems.push(Problem {
                        at: parsed.positions.get(id).copied().unwrap_or_default(),
                        message: format!("invalid {function} argument"),
                    });
                }
            }
            for part in target.iter().map(AsRef::as_ref).chain(arguments) {
                check_literals(part, parsed, problems);
            }
        }
        Kind::Select { operand, .. } => check_literals(operand, parsed, problems),
        Kind::List { elements, .. } | Kind::Struct(_, elements) => {
            for element in elements {
                check_literals(element, parsed, problems);
            }
        }
        Kind::Map(entries) => {
            for entry in entries {
                check_literals(&entry.key, parsed, problems);
                check_literals(&entry.value, parsed, problems);
            }
        }
        Kind::Comprehension(comprehension) => {
            for part in [
                &comprehension.range,
                &comprehension.init,
                &comprehension.step,
                &comprehension.result,
            ] {
                check_literals(part, parsed, problems);
            }
        }
        Kind::Literal(_) | Kind::Ident(_) => {}
    }
}

/// An error at an offset of the text.
pub(super) fn at_offset(source: &str, offset: usize, message: &str) -> String {
    let before = source.get(..offset).unwrap_or(source);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    located(source, line, column, message)
}

/// A rule as the real server prints it.
fn printed(rule: &Value) -> String {
    let text = |key: &str| go_json(&json!(raw(rule, key)));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(schema: &Value) -> Vec<String> {
        let standing = Standing {
            is_resource: false,
            cardinality: Some(1),
            uncorrelatable: None,
            unchanged: false,
        };
        let (mut costs, mut causes) = (Costs::default(), Vec::new());
        check_rules("", schema, standing, &mut costs, &mut causes);
        causes.into_iter().map(|cause| cause.message).collect()
    }

    fn spec(rule: &str) -> Value {
        json!({
            "type": "object",
            "properties": {
                "a": { "type": "string", "maxLength": 10 },
                "n": { "type": "integer" },
                "list": { "type": "array", "items": { "type": "string" } },
                "map": { "type": "object", "additionalProperties": { "type": "integer" } },
                "when": { "type": "string", "format": "date-time" },
            },
            "x-kubernetes-validations": [{ "rule": rule }],
        })
    }

    #[test]
    fn rules_that_fit_the_schema_are_accepted() {
        for rule in [
            "self.a == 'x' && self.n > 3 || !has(self.when)",
            "self.list.size() < 5 && size(self.a) <= 10",
            "self.map.all(k, v, k != '' && v > 0)",
            "self.map.transformMap(k, v, v + 1).size() > 0",
            "self.?a.orValue('') != ''",
            "self.?a.optMap(x, x.size()).orValue(0) > 0",
            "self.when < timestamp('2030-01-01T00:00:00Z') + duration('1h')",
            "cidr('10.0.0.0/8').containsIP(self.a) && ip('10.0.0.1').family() == 4",
            "quantity(self.a).isGreaterThan(quantity('1Gi'))",
            "format.dns1123Label().validate(self.a).hasValue()",
            "semver('1.2.3').major() == 1",
            "sets.contains(['x'], [self.a]) && type(self.a) == string",
            "[1, 2].map(x, x * 2).exists_one(x, x == self.n)",
            "{'a': 1}['a'] == 1 && 1 < 2.5",
            "-self.n < 0 && self.a.matches('^[a-z]+$')",
        ] {
            assert_eq!(errors(&spec(rule)), [""; 0], "{rule}");
        }
    }

    #[test]
    fn rules_that_do_not_fit_are_refused_where_they_do_not() {
        for (rule, words) in [
            (
                "self.b == 1",
                "ERROR: <input>:1:5: undefined field 'b'\n | self.b == 1\n | ....^",
            ),
            (
                "self.a > 1",
                "found no matching overload for '_>_' applied to '(string, int)'",
            ),
            (
                "self.a.foo()",
                "ERROR: <input>:1:11: undeclared reference to 'foo' (in container '')",
            ),
            (
                "other > 1",
                "ERROR: <input>:1:1: undeclared reference to 'other' (in container '')",
            ),
            ("self.n", "cel expression must evaluate to a bool"),
            ("self.n && true", "expected type 'bool' but found 'int'"),
            (
                "self.a.all(x, x == '')",
                "expression of type 'string' cannot be range of a comprehension",
            ),
            ("self.n.x == 1", "type 'int' does not support field selection"),
            ("[1, 'a'].size() > 0", "expected type 'int' but found 'string'"),
            (
                "duration('x') > duration('1s')",
                "ERROR: <input>:1:10: invalid duration argument",
            ),
            ("self.a.matches('[')", "invalid matches argument"),
            (
                "self.a.startsWith(1)",
                "found no matching overload for 'startsWith' applied to 'string.(int)'",
            ),
        ] {
            let found = errors(&spec(rule));
            assert!(found.len() == 1 && found[0].contains(words), "{rule}: {found:?}");
        }
    }

    #[test]
    fn rules_over_lists_without_bounds_are_too_expensive() {
        let found = errors(&spec("self.list.all(x, self.list.exists(y, x == y))"));
        assert!(
            found[0].contains("estimated rule cost exceeds budget by factor of more than 100x"),
            "{found:?}"
        );
        let mut bounded = spec("self.list.all(x, self.list.exists(y, x == y))");
        bounded["properties"]["list"]["maxItems"] = json!(10);
        bounded["properties"]["list"]["items"]["maxLength"] = json!(10);
        assert_eq!(errors(&bounded), [""; 0]);
    }
}
