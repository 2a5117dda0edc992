//! Quantities: `500m`, `1Gi`, `1e3`: reading them, comparing them, and the canonical form in which they are answered.
//!
//! The rules are those of `k8s.io/apimachinery/pkg/api/resource`.

use std::cmp::Ordering;

/// What the real server says about a text that is no quantity.
pub(super) const WRONG: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
const WRONG_SUFFIX: &str = "unable to parse quantity's suffix";
/// The finest unit.
const NANO: i128 = 1_000_000_000;
/// The largest quantity, in nanos.
const LIMIT: i128 = (i64::MAX as i128) * NANO;
/// Suffixes of powers of ten, by the exponent divided by 3, from -3.
const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
/// Suffixes of powers of 1024.
const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Decimal,
    Binary,
    Exponent,
}

/// A quantity.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quantity {
    nanos: i128,
    format: Format,
}

/// `digits * base^exponent` in nanos, rounded away from zero; none beyond all limits.
fn scaled(digits: i128, base: i128, exponent: i32) -> Option<i128> {
    let mut value = digits;
    if exponent >= 0 {
        for _ in 0..exponent {
            value = value.checked_mul(base)?;
        }
    } else {
        for _ in exponent..0 {
            let rest = value % base;
            value /= base;
            value += rest.signum();
        }
    }
    Some(value)
}

impl Quantity {
    /// Reads a quantity.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let whole_end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
        let (whole, rest) = rest.split_at(whole_end);
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => rest.split_at(rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len())),
            None => ("", rest),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(WRONG);
        }
        let fits = suffix
            .trim_start_matches(|letter: char| "eEinumkKMGTP".contains(letter))
            .trim_start_matches(['-', '+'])
            .bytes()
            .all(|letter| letter.is_ascii_digit());
        if !fits {
            return Err(WRONG);
        }
        let (base, exponent, format) = Self::suffix(suffix).ok_or(WRONG_SUFFIX)?;
        // More digits than these are beyond the finest unit and the largest quantity anyhow.
        let kept: String = fraction.chars().take(20).collect();
        let whole = whole.trim_start_matches('0');
        let digits: Option<i128> = match format!("{whole}{kept}").as_str() {
            "" => Some(0),
            digits if digits.len() <= 38 => digits.parse().ok(),
            _ => None,
        };
        let places = i32::try_from(kept.len()).unwrap_or(20);
        let nanos = digits.and_then(|digits| {
            if base == 10 {
                scaled(
                    digits,
                    10,
                    exponent.saturating_add(9).saturating_sub(places).clamp(-60, 60),
                )
            } else {
                scaled(digits, base, exponent).and_then(|value| scaled(value, 10, 9 - places))
            }
        });
        let nanos = nanos.map_or(LIMIT, |nanos| nanos.min(LIMIT));
        Ok(Self {
            nanos: if negative { -nanos } else { nanos },
            format,
        })
    }

    /// Base, exponent and format of a suffix.
    fn suffix(suffix: &str) -> Option<(i128, i32, Format)> {
        if let Some(at) = DECIMAL.iter().position(|known| *known == suffix) {
            return Some((10, i32::try_from(at).ok()? * 3 - 9, Format::Decimal));
        }
        if let Some(at) = BINARY.iter().position(|known| *known == suffix) {
            return Some((1024, i32::try_from(at).ok()? + 1, Format::Binary));
        }
        let exponent = suffix.strip_prefix(['e', 'E'])?;
        Some((10, exponent.parse().ok()?, Format::Exponent))
    }

    /// The text in which the real server writes the quantity that it read from this one: the same where that is about
    /// canonical, as its fast path finds.
    pub(super) fn canonical(text: &str) -> Result<String, &'static str> {
        let read = Self::parse(text)?;
        Ok(if kept_scale(text).is_some() {
            text.to_owned()
        } else {
            read.to_string()
        })
    }

    /// As [`Self::canonical`], rounded up to thousandths, for lists of resources.
    pub(super) fn canonical_in_thousandths(text: &str) -> Result<String, &'static str> {
        let read = Self::parse(text)?;
        Ok(if kept_scale(text).is_some_and(|scale| scale >= -3) {
            text.to_owned()
        } else {
            read.in_thousandths().to_string()
        })
    }

    /// The same, rounded up to thousandths.
    fn in_thousandths(self) -> Self {
        let step = NANO / 1000;
        let rest = self.nanos % step;
        let nanos = self.nanos - rest + if rest == 0 { 0 } else { rest.signum() * step };
        Self { nanos, ..self }
    }

    /// The sum.
    pub(super) fn plus(self, other: Self) -> Self {
        let nanos = self.nanos.saturating_add(other.nanos);
        Self { nanos, ..self }
    }

    pub(super) fn is_negative(self) -> bool {
        self.nanos < 0
    }

    pub(super) fn is_zero(self) -> bool {
        self.nanos == 0
    }

    pub(super) fn is_whole(self) -> bool {
        self.nanos % NANO == 0
    }

    pub(super) fn compare(self, other: Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

/// The decimal exponent of a quantity that the real server writes as it was given; none if it writes it anew.
fn kept_scale(text: &str) -> Option<i32> {
    let text = text.trim_start_matches(['+', '-']);
    let number_end = text
        .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(number_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole = Some(whole.trim_start_matches('0'))
        .filter(|whole| !whole.is_empty())
        .unwrap_or("0");
    let digits = format!("{whole}{fraction}");
    let (base, exponent, _) = Quantity::suffix(suffix)?;
    let places = i32::try_from(fraction.len()).ok()?;
    let value: u64 = digits.parse().ok().filter(|_| digits.len() <= 18)?;
    let kept = if base == 1024 {
        let room = 14 - i32::try_from(whole.len()).ok()? - exponent * 3;
        places == 0 && room >= 0 && value & 7 != 0
    } else {
        let scale = exponent - places;
        scale >= -9 && scale % 3 == 0 && !digits.ends_with("000") && !digits.starts_with('0')
    };
    kept.then_some(if base == 1024 { 0 } else { exponent - places })
}

impl std::fmt::Display for Quantity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nanos == 0 {
            return formatter.write_str("0");
        }
        let binary = self.format == Format::Binary && self.is_whole() && self.nanos.abs() >= 1024 * NANO;
        let (mut number, step, mut unit) = if binary {
            (self.nanos / NANO, 1024, 0)
        } else {
            (self.nanos, 1000, 0)
        };
        let last = if binary { BINARY.len() } else { DECIMAL.len() - 1 };
        while unit < last && number % step == 0 {
            number /= step;
            unit += 1;
        }
        let suffix = match (binary, unit) {
            (true, 0) => String::new(),
            (true, unit) => BINARY.get(unit - 1).copied().unwrap_or_default().to_owned(),
            (false, 3) => String::new(),
            (false, unit) if self.format == Format::Exponent => {
                let exponent = i64::try_from(unit).unwrap_or_default() * 3 - 9;
                format!("e{exponent}")
            }
            (false, unit) => DECIMAL.get(unit).copied().unwrap_or_default().to_owned(),
        };
        write!(formatter, "{number}{suffix}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canonical_form_is_the_real_one() {
        for (given, canonical) in [
            ("0", "0"),
            ("0.0Gi", "0"),
            ("1000m", "1"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("1.", "1"),
            ("1024Mi", "1Gi"),
            ("1024Ki", "1Mi"),
            ("1536Mi", "1536Mi"),
            ("0.5Gi", "512Mi"),
            ("0.5Ki", "512"),
            ("1000Ki", "1000Ki"),
            ("1024", "1024"),
            ("1000", "1k"),
            ("1500", "1500"),
            ("1e3", "1e3"),
            ("12E3", "12e3"),
            ("1000000", "1M"),
            ("100m", "100m"),
            ("-1", "-1"),
            ("+2", "2"),
            ("0.1n", "1n"),
            ("100e-3", "100e-3"),
            ("0.3Ki", "307200m"),
            ("1.1Ki", "1126400m"),
            ("99999999999999999999", "9223372036854775807"),
            ("1E", "1E"),
            ("007", "7"),
        ] {
            assert_eq!(
                Quantity::parse(given).map(|quantity| quantity.to_string()),
                Ok(canonical.to_owned()),
                "{given}"
            );
        }
    }

    #[test]
    fn what_is_nearly_canonical_stays() {
        for (given, written) in [
            ("+5", "+5"),
            ("1.500", "1.500"),
            ("0.500", "500m"),
            ("1000m", "1"),
            ("007Gi", "007Gi"),
        ] {
            assert_eq!(Quantity::canonical(given), Ok(written.to_owned()), "{given}");
        }
        assert_eq!(Quantity::canonical_in_thousandths("1500u"), Ok("2m".to_owned()));
        assert_eq!(Quantity::canonical_in_thousandths("1.500"), Ok("1.500".to_owned()));
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["", "x", "1 Gi", "1GB", "--1", "+", ".", "1Gi2x"] {
            assert!(matches!(Quantity::parse(text), Err(WRONG)), "{text}");
        }
        for text in ["1mi", "1Kim", "1e", "1i"] {
            assert!(matches!(Quantity::parse(text), Err(WRONG_SUFFIX)), "{text}");
        }
    }

    #[test]
    fn rounding_and_order() {
        let of = |text: &str| Quantity::parse(text).expect("a quantity");
        assert_eq!(of("1u").in_thousandths().to_string(), "1m");
        assert_eq!(of("1500u").in_thousandths().to_string(), "2m");
        assert_eq!(of("1Gi").compare(of("1G")), Ordering::Greater);
        assert_eq!(of("1000m").compare(of("1")), Ordering::Equal);
        assert!(!of("1500m").is_whole() && of("2").is_whole());
    }
}
