//! Numbers in queries, refused as the real server (Go's strconv) refuses them.

use std::num::{IntErrorKind, ParseIntError};

fn refuse(function: &str, text: &str, error: Option<&ParseIntError>) -> String {
    let why = match error.map(ParseIntError::kind) {
        Some(IntErrorKind::PosOverflow | IntErrorKind::NegOverflow) => "value out of range",
        _ => "invalid syntax",
    };
    format!("strconv.{function}: parsing {text:?}: {why}")
}

/// A number with a sign.
pub fn parse_integer(text: &str) -> Result<i64, String> {
    text.parse().map_err(|error| refuse("ParseInt", text, Some(&error)))
}

/// A number without a sign, such as a revision.
pub fn parse_unsigned(text: &str) -> Result<u64, String> {
    if text.starts_with('+') {
        return Err(refuse("ParseUint", text, None));
    }
    text.parse().map_err(|error| refuse("ParseUint", text, Some(&error)))
}

/// A `resourceVersion`, refused as a field.
pub fn parse_revision(text: &str) -> Result<u64, String> {
    parse_unsigned(text).map_err(|error| format!("resourceVersion: Invalid value: {text:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_numbers_are_refused_in_the_real_words() {
        assert_eq!(parse_integer("-5"), Ok(-5));
        assert_eq!(
            parse_integer(""),
            Err("strconv.ParseInt: parsing \"\": invalid syntax".to_owned())
        );
        assert_eq!(
            parse_integer("99999999999999999999"),
            Err("strconv.ParseInt: parsing \"99999999999999999999\": value out of range".to_owned())
        );
        assert_eq!(parse_unsigned("5"), Ok(5));
        assert_eq!(
            parse_unsigned("+5"),
            Err("strconv.ParseUint: parsing \"+5\": invalid syntax".to_owned())
        );
        assert_eq!(
            parse_revision("-1"),
            Err("resourceVersion: Invalid value: \"-1\": strconv.ParseUint: parsing \"-1\": invalid syntax".to_owned())
        );
    }
}
