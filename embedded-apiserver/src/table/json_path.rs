//! The JSONPath of Kubernetes, as printer columns and selectable fields use it.
//!
//! For: `.spec.replicas`, `.status.conditions[?(@.type=="Ready")].status`, wildcards, indices, slices, `..name`. Not for:
//! text templates with ranges.

use serde_json::Value;
use std::borrow::Cow;

/// Why a path cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unrecognized path at {0:?}")]
pub struct JsonPathError(String);

/// A parsed path.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Wildcard,
    /// Everything below, then the next step.
    Recursive,
    Indices(Vec<i64>),
    Slice(Option<i64>, Option<i64>, i64),
    Filter(Operand, Comparison, Operand),
}

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Path(JsonPath),
    Literal(Value),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Exists,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl JsonPath {
    /// Parses a path; a surrounding `{}` and a leading `$` or `@` are allowed.
    pub fn parse(text: &str) -> Result<Self, JsonPathError> {
        let inner = text
            .strip_prefix('{')
            .and_then(|text| text.strip_suffix('}'))
            .unwrap_or(text);
        let mut rest = inner.strip_prefix(['$', '@']).unwrap_or(inner);
        let refuse = |rest: &str| JsonPathError(rest.to_owned());
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix("..") {
                steps.push(Step::Recursive);
                rest = after;
                if !rest.starts_with(['[', '*']) {
                    let (name, after) = field_name(rest);
                    if name.is_empty() {
                        return Err(refuse(rest));
                    }
                    steps.push(Step::Field(name.into_owned()));
                    rest = after;
                }
            } else if let Some(after) = rest.strip_prefix('.') {
                rest = after;
                if rest.starts_with('[') {
                    continue;
                }
                if let Some(after) = rest.strip_prefix('*') {
                    steps.push(Step::Wildcard);
                    rest = after;
                    continue;
                }
                let (name, after) = field_name(rest);
                if name.is_empty() && !after.is_empty() {
                    return Err(refuse(rest));
                }
                if !name.is_empty() {
                    steps.push(Step::Field(name.into_owned()));
                }
                rest = after;
            } else if let Some(after) = rest.strip_prefix('*') {
                steps.push(Step::Wildcard);
                rest = after;
            } else if rest.starts_with('[') {
                let end = closing(rest).ok_or_else(|| refuse(rest))?;
                steps.push(bracket(&rest[1..end]).ok_or_else(|| refuse(rest))?);
                rest = &rest[end + 1..];
            } else {
                return Err(refuse(rest));
            }
        }
        Ok(Self { steps })
    }

    /// All values at the path, in document order; missing keys give none.
    pub fn find<'value>(&self, value: &'value Value) -> Vec<&'value Value> {
        let mut found = vec![value];
        for step in &self.steps {
            found = found.into_iter().flat_map(|value| step.apply(value)).collect();
        }
        found
    }
}

impl Step {
    fn apply<'value>(&self, value: &'value Value) -> Vec<&'value Value> {
        match self {
            Self::Field(name) => value.get(name).into_iter().collect(),
            Self::Wildcard => match value {
                Value::Array(items) => items.iter().collect(),
                Value::Object(map) => map.values().collect(),
                _ => Vec::new(),
            },
            Self::Recursive => {
                let mut all = Vec::new();
                descend(value, &mut all);
                all
            }
            Self::Indices(indices) => {
                let Some(items) = value.as_array() else {
                    return Vec::new();
                };
                indices
                    .iter()
                    .filter_map(|index| items.get(absolute(*index, items.len())?))
                    .collect()
            }
            Self::Slice(start, end, step) => {
                let Some(items) = value.as_array() else {
                    return Vec::new();
                };
                let clamp = |bound: Option<i64>, default: usize| match bound {
                    None => default,
                    Some(bound) => absolute(bound, items.len()).unwrap_or(0).min(items.len()),
                };
                let (start, end) = (clamp(*start, 0), clamp(*end, items.len()));
                items
                    .iter()
                    .take(end)
                    .skip(start)
                    .step_by(usize::try_from(*step).unwrap_or(1).max(1))
                    .collect()
            }
            Self::Filter(left, comparison, right) => {
                let Some(items) = value.as_array() else {
                    return Vec::new();
                };
                items
                    .iter()
                    .filter(|item| holds(item, left, *comparison, right))
                    .collect()
            }
        }
    }
}

fn absolute(index: i64, length: usize) -> Option<usize> {
    if index < 0 {
        length.checked_sub(usize::try_from(-index).ok()?)
    } else {
        usize::try_from(index).ok()
    }
}

fn descend<'value>(value: &'value Value, all: &mut Vec<&'value Value>) {
    all.push(value);
    match value {
        Value::Array(items) => items.iter().for_each(|item| descend(item, all)),
        Value::Object(map) => map.values().for_each(|item| descend(item, all)),
        _ => {}
    }
}

fn holds(item: &Value, left: &Operand, comparison: Comparison, right: &Operand) -> bool {
    let value = |operand: &Operand| -> Option<Value> {
        match operand {
            Operand::Literal(value) => Some(value.clone()),
            Operand::Path(path) => path.find(item).first().map(|value| (*value).clone()),
        }
    };
    let Some(left) = value(left) else { return false };
    if comparison == Comparison::Exists {
        return true;
    }
    let Some(right) = value(right) else { return false };
    let order = match (&left, &right) {
        (Value::Number(one), Value::Number(other)) => one.as_f64().partial_cmp(&other.as_f64()),
        (Value::String(one), Value::String(other)) => Some(one.cmp(other)),
        (one, other) => (one == other).then_some(std::cmp::Ordering::Equal),
    };
    match comparison {
        Comparison::Exists => true,
        Comparison::Equal => order.is_some_and(std::cmp::Ordering::is_eq),
        Comparison::NotEqual => !order.is_some_and(std::cmp::Ordering::is_eq),
        Comparison::Less => order.is_some_and(std::cmp::Ordering::is_lt),
        Comparison::LessOrEqual => order.is_some_and(std::cmp::Ordering::is_le),
        Comparison::Greater => order.is_some_and(std::cmp::Ordering::is_gt),
        Comparison::GreaterOrEqual => order.is_some_and(std::cmp::Ordering::is_ge),
    }
}

/// A name up to the next `.` or `[`, with `\.` for a dot in it.
fn field_name(text: &str) -> (Cow<'_, str>, &str) {
    let mut end = text.len();
    let mut escaped = false;
    let mut has_escapes = false;
    for (position, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => {
                escaped = true;
                has_escapes = true;
            }
            '.' | '[' => {
                end = position;
                break;
            }
            _ => {}
        }
    }
    let name = if has_escapes {
        let mut name = String::new();
        let mut characters = text[..end].chars();
        while let Some(character) = characters.next() {
            name.extend(if character == '\\' {
                characters.next()
            } else {
                Some(character)
            });
        }
        Cow::Owned(name)
    } else {
        Cow::Borrowed(&text[..end])
    };
    (name, &text[end..])
}

/// The position of the bracket that closes the first one; brackets in quotes do not count.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut depth = 0;
    for (position, character) in text.char_indices() {
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(character),
            (None, '[') => depth += 1,
            (None, ']') => {
                depth -= 1;
                if depth == 0 {
                    return Some(position);
                }
            }
            _ => {}
        }
    }
    None
}

fn unquoted(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    Some(inner.replace("\\'", "'").replace("\\\"", "\"").replace("\\\\", "\\"))
}

fn bracket(inner: &str) -> Option<Step> {
    let inner = inner.trim();
    if inner == "*" {
        // All of a list: in brackets, it does not mean the fields of an object.
        return Some(Step::Slice(None, None, 1));
    }
    if let Some(name) = unquoted(inner) {
        return Some(Step::Field(name));
    }
    if let Some(filter) = inner.strip_prefix("?(").and_then(|filter| filter.strip_suffix(')')) {
        return filter_step(filter.trim());
    }
    if inner.contains(':') {
        let parts: Vec<&str> = inner.split(':').map(str::trim).collect();
        let bound = |text: Option<&&str>| match text {
            None | Some(&"") => Some(None),
            Some(text) => text.parse::<i64>().ok().map(Some),
        };
        let step = bound(parts.get(2))?.unwrap_or(1);
        return Some(Step::Slice(bound(parts.first())?, bound(parts.get(1))?, step));
    }
    let indices: Option<Vec<i64>> = inner.split(',').map(|index| index.trim().parse().ok()).collect();
    indices.map(Step::Indices)
}

fn filter_step(filter: &str) -> Option<Step> {
    let mut quote = None;
    for (position, character) in filter.char_indices() {
        match quote {
            Some(open) if character == open => quote = None,
            Some(_) => {}
            None if matches!(character, '\'' | '"') => quote = Some(character),
            None => {
                let rest = &filter[position..];
                for (symbol, comparison) in [
                    ("==", Comparison::Equal),
                    ("!=", Comparison::NotEqual),
                    ("<=", Comparison::LessOrEqual),
                    (">=", Comparison::GreaterOrEqual),
                    ("<", Comparison::Less),
                    (">", Comparison::Greater),
                    ("=", Comparison::Equal),
                ] {
                    if let Some(right) = rest.strip_prefix(symbol) {
                        return Some(Step::Filter(operand(&filter[..position])?, comparison, operand(right)?));
                    }
                }
            }
        }
    }
    Some(Step::Filter(
        operand(filter)?,
        Comparison::Exists,
        Operand::Literal(Value::Null),
    ))
}

fn operand(text: &str) -> Option<Operand> {
    let text = text.trim();
    if text.starts_with(['@', '$', '.']) {
        return JsonPath::parse(text).ok().map(Operand::Path);
    }
    if let Some(text) = unquoted(text) {
        return Some(Operand::Literal(Value::String(text)));
    }
    serde_json::from_str(text).ok().map(Operand::Literal)
}
