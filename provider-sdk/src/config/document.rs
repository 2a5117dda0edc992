//! JSON as a user wrote it, read strictly: duplicate keys are found, no integer loses
//! a digit, and what does not fit is named by a JSON pointer.
//!
//! Not for: what the keys mean (see `schema` and `reader`).

use std::collections::HashSet;
use std::fmt;

use actuator_proto::limits::MAX_DIAGNOSTICS;
use serde::de::{DeserializeOwned, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::answer::Diagnostic;

/// Reads a JSON object. Everything that is wrong with it is told at once, as far as it
/// can be read.
pub(crate) fn parse(json: &[u8]) -> Result<Value, Vec<Diagnostic>> {
    let mut trail = Trail::default();
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let value = Strict(&mut trail)
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    match value {
        Err(error) => {
            // The trail still points at where the reading stopped.
            let pointer = trail.pointer();
            trail.report(Diagnostic::error(pointer, format!("not valid JSON: {error}")));
            Err(trail.found)
        }
        Ok(_) if !trail.found.is_empty() => Err(trail.found),
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(vec![Diagnostic::error("", "the config must be a JSON object")]),
    }
}

/// Turns a document into its type.
pub(crate) fn decode<T: DeserializeOwned>(value: &Value) -> Result<T, Diagnostic> {
    serde_path_to_error::deserialize(value)
        .map_err(|error| Diagnostic::error(pointer_of(error.path()), error.inner().to_string()))
}

fn pointer_of(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;

    path.iter()
        .map(|segment| match segment {
            Segment::Seq { index } => format!("/{index}"),
            Segment::Map { key } => format!("/{}", escape(key)),
            // The name of a variant stands in the document as a key or not at all.
            Segment::Enum { .. } | Segment::Unknown => String::new(),
        })
        .collect()
}

/// A key as a token of a JSON pointer (RFC 6901).
pub(crate) fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// Where the reading is, and what was found so far.
#[derive(Default)]
struct Trail {
    path: Vec<String>,
    found: Vec<Diagnostic>,
}

impl Trail {
    fn pointer(&self) -> String {
        self.path.iter().flat_map(|token| ["/", token.as_str()]).collect()
    }

    fn report(&mut self, diagnostic: Diagnostic) {
        if self.found.len() < MAX_DIAGNOSTICS {
            self.found.push(diagnostic);
        }
    }
}

struct Strict<'a>(&'a mut Trail);

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        // An integer beyond 64 bits arrives here already rounded.
        const BEYOND_64_BITS: f64 = 18_446_744_073_709_551_616.0;
        if !(-BEYOND_64_BITS / 2.0..BEYOND_64_BITS).contains(&value) {
            let pointer = self.0.pointer();
            self.0.report(Diagnostic::error(
                pointer,
                "the number does not fit 64 bits; write it as a string",
            ));
        }
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("the number is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        loop {
            self.0.path.push(array.len().to_string());
            let item = items.next_element_seed(Strict(self.0))?;
            self.0.path.pop();
            match item {
                Some(item) => array.push(item),
                None => return Ok(Value::Array(array)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        let mut twice = HashSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            self.0.path.push(escape(&key));
            let value = entries.next_value_seed(Strict(self.0))?;
            if object.insert(key.clone(), value).is_some() && twice.insert(key) {
                let pointer = self.0.pointer();
                self.0.report(Diagnostic::error(
                    pointer,
                    "the key stands here more than once; keep one of them",
                ));
            }
            self.0.path.pop();
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pointers(json: &str) -> Vec<String> {
        parse(json.as_bytes())
            .expect_err("diagnostics")
            .into_iter()
            .map(|diagnostic| diagnostic.pointer)
            .collect()
    }

    #[test]
    fn duplicate_keys_are_named_wherever_they_are() {
        assert_eq!(pointers(r#"{"a":1,"a":2,"a":3}"#), ["/a"]);
        assert_eq!(
            pointers(r#"{"x":[{"k":1},{"a/b":1,"a/b":1}],"~":{"y":0,"y":0}}"#),
            ["/x/1/a~1b", "/~0/y"]
        );
    }

    #[test]
    fn large_integers_keep_every_digit() {
        let value =
            parse(br#"{"a":9007199254740993,"b":18446744073709551615,"c":-9223372036854775808}"#).expect("valid");
        assert_eq!(value["a"].as_u64(), Some(9_007_199_254_740_993));
        assert_eq!(value["b"].as_u64(), Some(u64::MAX));
        assert_eq!(value["c"].as_i64(), Some(i64::MIN));
    }

    #[test]
    fn integers_that_would_lose_digits_are_refused() {
        assert_eq!(pointers(r#"{"a":{"b":18446744073709551616}}"#), ["/a/b"]);
        assert_eq!(pointers(r#"{"a":-9223372036854775809000}"#), ["/a"]);
    }

    #[test]
    fn broken_documents_are_located() {
        assert_eq!(pointers(r#"{"a":{"b":[1,tru]}}"#), ["/a/b/1"]);
        assert_eq!(pointers("[1]"), [""]);
        assert_eq!(pointers(""), [""]);
        assert_eq!(pointers("{} {}"), [""]);
        assert_eq!(pointers("{\"a\":\"\u{0}\"}").len(), 1);
        assert_eq!(pointers(&format!("{}1{}", "[".repeat(5000), "]".repeat(5000))).len(), 1);
    }

    #[test]
    fn the_number_of_diagnostics_is_bounded() {
        let many: Vec<String> = (0..500).map(|n| format!("\"k{n}\":1,\"k{n}\":1")).collect();
        assert_eq!(pointers(&format!("{{{}}}", many.join(","))).len(), MAX_DIAGNOSTICS);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn every_integer_comes_back(number in any::<i64>()) {
            let value = parse(format!("{{\"n\":{number}}}").as_bytes()).expect("valid");
            prop_assert_eq!(value["n"].as_i64(), Some(number));
        }
    }
}
