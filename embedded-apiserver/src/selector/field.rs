//! Field selectors: `metadata.name=a,status.phase!=Running`.
//!
//! For: parse, print, match, and telling which fields are used. Not for: deciding which are supported.

use super::SelectorError;
use serde_json::Value;
use std::fmt;

/// One requirement of a field selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldRequirement {
    /// The field, such as `metadata.name`.
    pub field: String,
    /// Whether the value must differ (`!=`) instead of being equal.
    pub negated: bool,
    /// The value.
    pub value: String,
}

/// All requirements must hold; none matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector {
    requirements: Vec<FieldRequirement>,
}

impl FieldSelector {
    /// Parses the text of a `fieldSelector` query parameter.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut parts: Vec<&str> = split_terms(text);
        parts.sort_unstable();
        let mut requirements = Vec::new();
        for part in parts {
            if part.is_empty() {
                continue;
            }
            let (field, negated, raw) = split_term(part)
                .ok_or_else(|| SelectorError(format!("invalid selector: '{text}'; can't understand '{part}'")))?;
            requirements.push(FieldRequirement {
                field: field.to_owned(),
                negated,
                value: unescape(raw)?,
            });
        }
        Ok(Self { requirements })
    }

    /// The requirements; the caller refuses fields it does not support.
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.requirements
    }

    /// The fields it uses, without repetitions.
    pub fn fields(&self) -> Vec<&str> {
        let mut fields: Vec<&str> = self
            .requirements
            .iter()
            .map(|requirement| requirement.field.as_str())
            .collect();
        fields.sort_unstable();
        fields.dedup();
        fields
    }

    /// The value that `field` must have, if the selector asks for exactly one.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.requirements
            .iter()
            .find(|requirement| requirement.field == field && !requirement.negated)
            .map(|requirement| requirement.value.as_str())
    }

    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether the object matches; `absent` is what a missing field counts as. Lists and objects count as empty.
    pub fn matches(&self, object: &Value, absent: impl Fn(&str) -> &'static str) -> bool {
        self.requirements.iter().all(|requirement| {
            let mut value = Some(object);
            for step in requirement.field.split('.') {
                value = value.and_then(|value| value.get(step));
            }
            let equal = match value {
                None | Some(Value::Null) => requirement.value == absent(&requirement.field),
                Some(Value::Array(_) | Value::Object(_)) => requirement.value.is_empty(),
                Some(Value::String(text)) => *text == requirement.value,
                Some(other) => {
                    let text = other.to_string();
                    text == requirement.value
                }
            };
            equal != requirement.negated
        })
    }

    /// Puts the names of today in for those of old.
    pub fn rename(&mut self, today: impl Fn(&str) -> Option<&'static str>) {
        for requirement in &mut self.requirements {
            if let Some(name) = today(&requirement.field) {
                name.clone_into(&mut requirement.field);
            }
        }
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, requirement) in self.requirements.iter().enumerate() {
            if position > 0 {
                formatter.write_str(",")?;
            }
            let operator = if requirement.negated { "!=" } else { "=" };
            write!(formatter, "{}{operator}", requirement.field)?;
            for character in requirement.value.chars() {
                if matches!(character, '\\' | ',' | '=') {
                    formatter.write_str("\\")?;
                }
                write!(formatter, "{character}")?;
            }
        }
        Ok(())
    }
}

/// Splits at commas that are not escaped.
fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let mut start = 0;
    let mut escaped = false;
    for (position, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..position]);
                start = position + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

/// Splits at the first operator: field, whether negated, raw value.
fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    for (position, _) in term.char_indices() {
        let rest = &term[position..];
        for (operator, negated) in [("!=", true), ("==", false), ("=", false)] {
            if let Some(value) = rest.strip_prefix(operator) {
                return Some((&term[..position], negated, value));
            }
        }
    }
    None
}

fn unescape(raw: &str) -> Result<String, SelectorError> {
    let mut value = String::with_capacity(raw.len());
    let mut characters = raw.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some(escaped @ ('\\' | ',' | '=')) => value.push(escaped),
                Some(other) => {
                    return Err(SelectorError(format!(
                        "invalid field selector: invalid escape sequence: \\{other}"
                    )));
                }
                None => {
                    return Err(SelectorError(
                        "invalid field selector: invalid escape sequence: \\".to_owned(),
                    ));
                }
            },
            ',' | '=' => {
                return Err(SelectorError(format!(
                    "invalid field selector: unescaped character in value: {}",
                    u32::from(character)
                )));
            }
            _ => value.push(character),
        }
    }
    Ok(value)
}
