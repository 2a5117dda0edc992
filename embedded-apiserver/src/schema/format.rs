//! The string formats that Kubernetes checks.
//!
//! For: `format` in schemas. Not for: formats that the real server ignores, which [`Format::named`] does not know.

use base64::Engine as _;
use regex::Regex;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

/// A checked format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    ObjectId,
    Uri,
    Email,
    Hostname,
    Ipv4,
    Ipv6,
    Cidr,
    Mac,
    Uuid,
    Uuid3,
    Uuid4,
    Uuid5,
    Isbn,
    Isbn10,
    Isbn13,
    CreditCard,
    SocialSecurityNumber,
    HexColor,
    RgbColor,
    Byte,
    Password,
    Date,
    Duration,
    DateTime,
}

impl Format {
    /// The format of that name, with or without dashes, if it is checked at all.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name.replace('-', "").as_str() {
            "bsonobjectid" => Self::ObjectId,
            "uri" => Self::Uri,
            "email" => Self::Email,
            "hostname" => Self::Hostname,
            "ipv4" => Self::Ipv4,
            "ipv6" => Self::Ipv6,
            "cidr" => Self::Cidr,
            "mac" => Self::Mac,
            "uuid" => Self::Uuid,
            "uuid3" => Self::Uuid3,
            "uuid4" => Self::Uuid4,
            "uuid5" => Self::Uuid5,
            "isbn" => Self::Isbn,
            "isbn10" => Self::Isbn10,
            "isbn13" => Self::Isbn13,
            "creditcard" => Self::CreditCard,
            "ssn" => Self::SocialSecurityNumber,
            "hexcolor" => Self::HexColor,
            "rgbcolor" => Self::RgbColor,
            "byte" => Self::Byte,
            "password" => Self::Password,
            "date" => Self::Date,
            "duration" => Self::Duration,
            "datetime" => Self::DateTime,
            _ => return None,
        })
    }

    /// The name as messages print it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ObjectId => "bsonobjectid",
            Self::Uri => "uri",
            Self::Email => "email",
            Self::Hostname => "hostname",
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Cidr => "cidr",
            Self::Mac => "mac",
            Self::Uuid => "uuid",
            Self::Uuid3 => "uuid3",
            Self::Uuid4 => "uuid4",
            Self::Uuid5 => "uuid5",
            Self::Isbn => "isbn",
            Self::Isbn10 => "isbn10",
            Self::Isbn13 => "isbn13",
            Self::CreditCard => "creditcard",
            Self::SocialSecurityNumber => "ssn",
            Self::HexColor => "hexcolor",
            Self::RgbColor => "rgbcolor",
            Self::Byte => "byte",
            Self::Password => "password",
            Self::Date => "date",
            Self::Duration => "duration",
            Self::DateTime => "date-time",
        }
    }

    /// Whether the text has the format.
    pub(crate) fn accepts(self, text: &str) -> bool {
        match self {
            Self::ObjectId => text.len() == 24 && text.bytes().all(|byte| byte.is_ascii_hexdigit()),
            Self::Uri => is_request_uri(text),
            Self::Email => is_email(text),
            Self::Hostname => {
                text.len() <= 255
                    && text.split('.').all(|label| label.len() <= 63)
                    && matches(PATTERNS.hostname.as_ref(), text)
            }
            Self::Ipv4 => text.parse::<Ipv4Addr>().is_ok(),
            Self::Ipv6 => text.contains(':') && text.parse::<Ipv6Addr>().is_ok(),
            Self::Cidr => is_cidr(text),
            Self::Mac => is_mac(text),
            Self::Uuid => matches(PATTERNS.uuid.as_ref(), text),
            Self::Uuid3 => matches(PATTERNS.uuid3.as_ref(), text),
            Self::Uuid4 => matches(PATTERNS.uuid4.as_ref(), text),
            Self::Uuid5 => matches(PATTERNS.uuid5.as_ref(), text),
            Self::Isbn => is_isbn10(text) || is_isbn13(text),
            Self::Isbn10 => is_isbn10(text),
            Self::Isbn13 => is_isbn13(text),
            Self::CreditCard => is_credit_card(text),
            Self::SocialSecurityNumber => matches(PATTERNS.social_security_number.as_ref(), text),
            Self::HexColor => matches(PATTERNS.hex_color.as_ref(), text),
            Self::RgbColor => matches(PATTERNS.rgb_color.as_ref(), text),
            Self::Byte => !text.is_empty() && base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
            Self::Password => true,
            Self::Date => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
            Self::Duration => is_duration(text),
            Self::DateTime => {
                matches(PATTERNS.date_time.as_ref(), text) && text.to_uppercase().parse::<jiff::Timestamp>().is_ok()
            }
        }
    }
}

struct Patterns {
    hostname: LazyLock<Option<Regex>>,
    uuid: LazyLock<Option<Regex>>,
    uuid3: LazyLock<Option<Regex>>,
    uuid4: LazyLock<Option<Regex>>,
    uuid5: LazyLock<Option<Regex>>,
    social_security_number: LazyLock<Option<Regex>>,
    hex_color: LazyLock<Option<Regex>>,
    rgb_color: LazyLock<Option<Regex>>,
    credit_card: LazyLock<Option<Regex>>,
    date_time: LazyLock<Option<Regex>>,
    duration: LazyLock<Option<Regex>>,
    number_with_unit: LazyLock<Option<Regex>>,
}

const COMPONENT: &str = r"\s*([01]?[0-9]?[0-9]|2[0-4][0-9]|25[0-5])\s*";

fn compile(pattern: &str) -> Option<Regex> {
    Regex::new(pattern).ok()
}

/// Each is compiled when it is first needed: some are large, and most are never.
static PATTERNS: Patterns = Patterns {
    number_with_unit: LazyLock::new(|| compile(r"[0-9]+\s*([A-Za-zµ]+)")),
    hostname: LazyLock::new(|| {
        compile(concat!(
            r"^([a-zA-Z0-9\p{S}\p{L}]((-?[a-zA-Z0-9\p{S}\p{L}]{0,62})?)|",
            r"([a-zA-Z0-9\p{S}\p{L}](([a-zA-Z0-9-\p{S}\p{L}]{0,61}[a-zA-Z0-9\p{S}\p{L}])?)(\.)){1,}([a-zA-Z\p{L}]){2,63})$"
        ))
    }),
    uuid: LazyLock::new(|| compile("(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$")),
    uuid3: LazyLock::new(|| compile("(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}$")),
    uuid4: LazyLock::new(|| compile("(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$")),
    uuid5: LazyLock::new(|| compile("(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$")),
    social_security_number: LazyLock::new(|| compile(r"^[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}$")),
    hex_color: LazyLock::new(|| compile("^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$")),
    rgb_color: LazyLock::new(|| compile(&format!(r"^rgb\({COMPONENT},{COMPONENT},{COMPONENT}\)$"))),
    credit_card: LazyLock::new(|| {
        compile(concat!(
            "^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|",
            "3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35[0-9]{3})[0-9]{11})$"
        ))
    }),
    date_time: LazyLock::new(|| {
        compile(r"(?i)^[0-9]{4}-[0-9]{2}-[0-9]{2}t[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(z|[+-][0-9]{2}:[0-9]{2})$")
    }),
    duration: LazyLock::new(|| compile(r"^[+-]?((([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+|0)$")),
};

fn matches(pattern: Option<&Regex>, text: &str) -> bool {
    pattern.is_some_and(|pattern| pattern.is_match(text))
}

/// An absolute URI or an absolute path, without fragments being told apart.
fn is_request_uri(text: &str) -> bool {
    if text.is_empty() || text.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
        return false;
    }
    let percent_encoded = text
        .split('%')
        .skip(1)
        .all(|rest| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit()));
    if !percent_encoded {
        return false;
    }
    if text.starts_with('/') || text == "*" {
        return true;
    }
    text.split_once(':').is_some_and(|(scheme, rest)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
            && rest.strip_prefix("//").is_none_or(|authority| {
                let host = authority.split(['/', '?']).next().unwrap_or_default();
                !host.contains([' ', '<', '>', '"', '\\', '^', '`', '{', '}', '|'])
            })
    })
}

fn is_email(text: &str) -> bool {
    let address = match (text.rfind('<'), text.strip_suffix('>')) {
        (Some(start), Some(inner)) => &inner[start + 1..],
        _ => text,
    };
    address.rsplit_once('@').is_some_and(|(local, domain)| {
        let atom = |text: &str| {
            !text.is_empty()
                && text
                    .chars()
                    .all(|c| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c) || !c.is_ascii())
                && !text.starts_with('.')
                && !text.ends_with('.')
                && !text.contains("..")
        };
        let quoted = local.len() > 2 && local.starts_with('"') && local.ends_with('"');
        (quoted || atom(local)) && (atom(domain) || (domain.starts_with('[') && domain.ends_with(']')))
    })
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else {
        return false;
    };
    if bits.is_empty() || bits.len() > 3 || !bits.bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    let Ok(bits) = bits.parse::<u16>() else { return false };
    (address.parse::<Ipv4Addr>().is_ok() && bits <= 32) || (address.parse::<Ipv6Addr>().is_ok() && bits <= 128)
}

fn is_mac(text: &str) -> bool {
    let groups = |separator: char, digits: usize, counts: &[usize]| {
        let parts: Vec<&str> = text.split(separator).collect();
        counts.contains(&parts.len())
            && parts
                .iter()
                .all(|part| part.len() == digits && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    groups(':', 2, &[6, 8, 20]) || groups('-', 2, &[6, 8, 20]) || groups('.', 4, &[3, 4, 10])
}

fn digits_of(text: &str) -> String {
    text.chars()
        .filter(|character| !matches!(character, '-' | ' '))
        .collect()
}

fn is_isbn10(text: &str) -> bool {
    let digits = digits_of(text);
    if digits.len() != 10 {
        return false;
    }
    let mut sum = 0;
    for (position, character) in digits.chars().enumerate() {
        let digit = match character {
            'X' if position == 9 => 10,
            _ => match character.to_digit(10) {
                Some(digit) => digit,
                None => return false,
            },
        };
        sum += (position as u32 + 1) * digit;
    }
    sum % 11 == 0
}

fn is_isbn13(text: &str) -> bool {
    let digits: Option<Vec<u32>> = digits_of(text)
        .chars()
        .map(|character| character.to_digit(10))
        .collect();
    digits.is_some_and(|digits| {
        digits.len() == 13
            && digits
                .iter()
                .enumerate()
                .map(|(i, digit)| if i % 2 == 0 { *digit } else { digit * 3 })
                .sum::<u32>()
                % 10
                == 0
    })
}

fn is_credit_card(text: &str) -> bool {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    if !matches(PATTERNS.credit_card.as_ref(), &digits) {
        return false;
    }
    let sum: u32 = digits
        .chars()
        .rev()
        .filter_map(|character| character.to_digit(10))
        .enumerate()
        .map(|(position, digit)| match position % 2 {
            0 => digit,
            _ if digit > 4 => digit * 2 - 9,
            _ => digit * 2,
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Whether a text is a duration as Go writes them, such as `1h30m`.
pub(super) fn is_go_duration(text: &str) -> bool {
    matches(PATTERNS.duration.as_ref(), text)
}

/// A Go duration, or any text in which a number with a unit such as `22 ns` or `3 days` occurs.
fn is_duration(text: &str) -> bool {
    if is_go_duration(text) {
        return true;
    }
    // Of each unit, the last spelling may go on: `3 days`, `5 minutes`.
    const UNITS: [&[&str]; 8] = [
        &["ns", "nano"],
        &["us", "µs", "micro"],
        &["ms", "milli"],
        &["s", "sec"],
        &["m", "min"],
        &["h", "hr", "hour"],
        &["d", "day"],
        &["w", "wk", "week"],
    ];
    let numbers = PATTERNS
        .number_with_unit
        .iter()
        .flat_map(|pattern| pattern.captures_iter(text));
    numbers.filter_map(|captures| captures.get(1)).any(|unit| {
        let unit = unit.as_str().to_lowercase();
        UNITS.iter().any(|spellings| {
            spellings.contains(&unit.as_str()) || spellings.last().is_some_and(|last| unit.starts_with(last))
        })
    })
}
