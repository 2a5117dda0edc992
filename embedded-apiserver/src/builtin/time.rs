//! Times in objects: RFC 3339, in whole seconds or in microseconds, refused in the words of Go's parser.

use jiff::Timestamp;

/// Elements of Go's layouts: what separates, what is read, how many digits.
const ELEMENTS: [(&str, &str, usize); 6] = [
    ("", "2006", 4),
    ("-", "01", 2),
    ("-", "02", 2),
    ("T", "15", 2),
    (":", "04", 2),
    (":", "05", 2),
];
const SECONDS: &str = "2006-01-02T15:04:05Z07:00";
const MICROSECONDS: &str = "2006-01-02T15:04:05.000000Z07:00";

/// The time as the real server writes it, in UTC.
pub(super) fn canonical(text: &str, micro: bool) -> Result<String, String> {
    check(text, micro)?;
    let time: Timestamp = text.parse().map_err(|_| range(text, "day"))?;
    let format = if micro {
        "%Y-%m-%dT%H:%M:%S.%6fZ"
    } else {
        "%Y-%m-%dT%H:%M:%SZ"
    };
    Ok(time.strftime(format).to_string())
}

fn range(text: &str, what: &str) -> String {
    format!("parsing time {text:?}: {what} out of range")
}

fn check(text: &str, micro: bool) -> Result<(), String> {
    let layout = if micro { MICROSECONDS } else { SECONDS };
    let cannot = |rest: &str, element: &str| {
        Err(format!(
            "parsing time {text:?} as {layout:?}: cannot parse {rest:?} as {element:?}"
        ))
    };
    let mut rest = text;
    for (separator, element, digits) in ELEMENTS {
        let Some(after) = rest.strip_prefix(separator) else {
            return cannot(rest, separator);
        };
        rest = after;
        let number = rest
            .get(..digits)
            .filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
        let Some(number) = number.and_then(|number| number.parse::<u32>().ok()) else {
            return cannot(rest, element);
        };
        let bounds = match element {
            "01" => Some((1..=12, "month")),
            "15" => Some((0..=23, "hour")),
            "04" => Some((0..=59, "minute")),
            "05" => Some((0..=59, "second")),
            _ => None,
        };
        if let Some((bounds, what)) = bounds
            && !bounds.contains(&number)
        {
            return Err(range(text, what));
        }
        rest = &rest[digits..];
    }
    let fraction = rest
        .strip_prefix('.')
        .map_or(0, |rest| rest.bytes().take_while(u8::is_ascii_digit).count());
    if micro && fraction < 6 {
        return cannot(rest, ".000000");
    }
    if fraction > 0 {
        // In a layout with a fraction, what is beyond it is not read.
        rest = &rest[1 + if micro { 6 } else { fraction }..];
    }
    let zone = rest.as_bytes();
    let is_zone = match zone {
        [b'Z', ..] => true,
        [b'+' | b'-', a, b, b':', c, d, ..] => [a, b, c, d].iter().all(|byte| byte.is_ascii_digit()),
        _ => false,
    };
    if !is_zone {
        return cannot(rest, "Z07:00");
    }
    let extra = &rest[if zone.first() == Some(&b'Z') { 1 } else { 6 }..];
    if extra.is_empty() {
        Ok(())
    } else {
        Err(format!("parsing time {text:?}: extra text: {extra:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn times_are_written_in_utc() {
        let of = |text: &str, micro| canonical(text, micro).expect("a time");
        assert_eq!(of("2024-01-01T00:00:00+01:00", false), "2023-12-31T23:00:00Z");
        assert_eq!(of("2024-01-01T00:00:00.9Z", false), "2024-01-01T00:00:00Z");
        assert_eq!(
            of("2024-01-01T00:00:00.123456+01:00", true),
            "2023-12-31T23:00:00.123456Z"
        );
    }

    #[test]
    fn other_texts_are_refused_in_gos_words() {
        for (text, micro, wanted) in [
            (
                "x",
                false,
                r#"parsing time "x" as "2006-01-02T15:04:05Z07:00": cannot parse "x" as "2006""#,
            ),
            (
                "",
                false,
                r#"parsing time "" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "2006""#,
            ),
            (
                "2024-01-01T00:00:00Z",
                true,
                r#"parsing time "2024-01-01T00:00:00Z" as "2006-01-02T15:04:05.000000Z07:00": cannot parse "Z" as ".000000""#,
            ),
            (
                "2024-13-01T00:00:00Z",
                false,
                r#"parsing time "2024-13-01T00:00:00Z": month out of range"#,
            ),
            (
                "2024-01-01 00:00:00Z",
                false,
                r#"parsing time "2024-01-01 00:00:00Z" as "2006-01-02T15:04:05Z07:00": cannot parse " 00:00:00Z" as "T""#,
            ),
            (
                "2024-02-31T00:00:00Z",
                false,
                r#"parsing time "2024-02-31T00:00:00Z": day out of range"#,
            ),
            (
                "2024-02-01T00:00:00Zx",
                false,
                r#"parsing time "2024-02-01T00:00:00Zx": extra text: "x""#,
            ),
        ] {
            assert_eq!(canonical(text, micro), Err(wanted.to_owned()));
        }
    }
}
