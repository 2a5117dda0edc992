//! Paths to fields, as rules and selectable fields give them: `.spec.color`, `.labels['a']`.

use serde_json::Value;

/// The path in normal form and the schema of what it leads to; or why it leads nowhere.
///
/// `brackets` says whether keys may stand in brackets.
pub(crate) fn field_path<'schema>(
    path: &str,
    schema: &'schema Value,
    brackets: bool,
) -> Result<(String, &'schema Value), String> {
    const NOWHERE: &str = "does not refer to a valid field";
    let (mut normal, mut here) = (String::new(), schema);
    let mut words = words(path).into_iter();
    while let Some(word) = words.next() {
        let name = match word {
            "." => words.next().ok_or("unexpected end of JSON path")?.to_owned(),
            "[" if !brackets => return Err("array notation is not allowed".to_owned()),
            "[" => {
                let word = words.next().ok_or("unexpected end of JSON path")?;
                let quoted = word
                    .strip_prefix('\'')
                    .and_then(|rest| rest.strip_suffix('\''))
                    .ok_or_else(|| format!("expected single quoted string but got {word}"))?;
                quoted.replace("\\'", "'")
            }
            other => return Err(format!("expected [ or . but got: {other}")),
        };
        let object = |key: &str| here.get(key).filter(|value| value.is_object());
        if let Some(properties) = object("properties").and_then(Value::as_object) {
            here = properties.get(&name).ok_or(NOWHERE)?;
            if !normal.is_empty() {
                normal.push('.');
            }
            normal.push_str(&name);
        } else {
            here = object("additionalProperties").ok_or(NOWHERE)?;
            normal = format!("{normal}[{name}]");
        }
        if word == "[" {
            match words.next() {
                Some("]") => {}
                Some(other) => return Err(format!("expected ] but got {other}")),
                None => return Err("unexpected end of JSON path".to_owned()),
            }
        }
    }
    Ok((normal, here))
}

/// Dots, brackets, and what is between them.
fn words(path: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = path;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '.' | '[' | ']' => 1,
            '\'' => {
                let mut escaped = false;
                let end = rest.char_indices().skip(1).find(|(_, letter)| {
                    let ends = *letter == '\'' && !escaped;
                    escaped = *letter == '\\';
                    ends
                });
                end.map_or(rest.len(), |(at, _)| at + 1)
            }
            _ => rest.find(['.', '[', ']']).unwrap_or(rest.len()),
        };
        let (word, after) = rest.split_at(length);
        found.push(word);
        rest = after;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_are_followed_through_the_schema() {
        let schema = json!({ "properties": {
            "spec": { "properties": { "a": { "type": "string" } } },
            "map": { "additionalProperties": { "type": "integer" } },
        }});
        let found = |path: &str, brackets| field_path(path, &schema, brackets).map(|(normal, _)| normal);
        assert_eq!(found(".spec.a", true), Ok("spec.a".to_owned()));
        assert_eq!(found(".spec['a']", true), Ok("spec.a".to_owned()));
        assert_eq!(found(".map['x.y']", true), Ok("map[x.y]".to_owned()));
        assert_eq!(
            found(".spec.b", true),
            Err("does not refer to a valid field".to_owned())
        );
        assert_eq!(
            found(".spec['a']", false),
            Err("array notation is not allowed".to_owned())
        );
        assert_eq!(found("spec", true), Err("expected [ or . but got: spec".to_owned()));
        assert_eq!(found(".spec.", true), Err("unexpected end of JSON path".to_owned()));
    }
}
