//! Names what differs between two answers, place by place.

use std::fmt;

use serde_json::Value;

use crate::run::Seen;

/// One place where the two servers differ.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// The step, from 0.
    pub step: usize,
    /// `/code`, `/headers/…`, `/body/…` or `/events/N/…`.
    pub place: String,
    /// What the embedded server said there.
    pub embedded: Option<Value>,
    /// What the real one said there.
    pub real: Option<Value>,
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value: &Option<Value>| {
            let text = value
                .as_ref()
                .map_or_else(|| "(nothing)".to_owned(), ToString::to_string);
            match text.char_indices().nth(600) {
                Some((end, _)) => format!("{}…", &text[..end]),
                None => text,
            }
        };
        writeln!(formatter, "  step {} {}", self.step, self.place)?;
        writeln!(formatter, "    embedded: {}", show(&self.embedded))?;
        write!(formatter, "    real:     {}", show(&self.real))
    }
}

/// Every place in which the answers differ.
pub fn compare(embedded: &[Seen], real: &[Seen]) -> Vec<Difference> {
    let mut found = Vec::new();
    for step in 0..embedded.len().max(real.len()) {
        let mut walk = Walk {
            step,
            found: &mut found,
        };
        walk.differ(
            "",
            embedded.get(step).map(|seen| &seen.answer),
            real.get(step).map(|seen| &seen.answer),
        );
    }
    found
}

struct Walk<'a> {
    step: usize,
    found: &'a mut Vec<Difference>,
}

impl Walk<'_> {
    fn differ(&mut self, place: &str, embedded: Option<&Value>, real: Option<&Value>) {
        match (embedded, real) {
            (Some(Value::Object(left)), Some(Value::Object(right))) => {
                let mut keys: Vec<&String> = left.keys().chain(right.keys()).collect();
                keys.sort();
                keys.dedup();
                for key in keys {
                    let escaped = key.replace('~', "~0").replace('/', "~1");
                    self.differ(&format!("{place}/{escaped}"), left.get(key), right.get(key));
                }
            }
            (Some(Value::Array(left)), Some(Value::Array(right))) => {
                for index in 0..left.len().max(right.len()) {
                    self.differ(&format!("{place}/{index}"), left.get(index), right.get(index));
                }
            }
            (left, right) if left == right => {}
            (left, right) => self.found.push(Difference {
                step: self.step,
                place: place.to_owned(),
                embedded: left.cloned(),
                real: right.cloned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn seen(answer: Value) -> Seen {
        Seen {
            request: String::new(),
            answer,
        }
    }

    #[test]
    fn every_place_that_differs_is_named() {
        let left = [seen(json!({ "code": 200, "body": { "a": [1, 2], "b": 1 } }))];
        let right = [seen(json!({ "code": 404, "body": { "a": [1], "b": 1, "c": null } }))];
        let places: Vec<String> = compare(&left, &right).into_iter().map(|found| found.place).collect();
        assert_eq!(places, ["/body/a/1", "/body/c", "/code"]);
        assert!(compare(&left, &left).is_empty());
    }

    #[test]
    fn a_step_that_one_did_not_reach_is_a_difference() {
        assert_eq!(compare(&[], &[seen(json!({ "code": 200 }))]).len(), 1);
    }
}
