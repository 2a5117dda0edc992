//! The words of an expression.
//!
//! For: `parse`, which reads only what the grammar of the CEL library has accepted before. Not for: wording errors.

use super::ast::Literal;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Word {
    Name(String),
    Number(Literal),
    Text(Literal),
    /// An operator or a bracket.
    Sign(&'static str),
}

/// A word with the offset of its first character.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) word: Word,
    pub(super) at: usize,
}

/// The longer ones first.
const SIGNS: [&str; 26] = [
    "==", "!=", "<=", ">=", "&&", "||", "[", "]", "{", "}", "(", ")", ".", ",", "-", "!", "?", ":", "+", "*", "/", "%",
    "<", ">", "=", "`",
];

/// Cuts a text into words.
pub(super) fn tokens(source: &str) -> Option<Vec<Token>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(first) = source[at..].chars().next() {
        let rest = &source[at..];
        if first.is_whitespace() {
            at += first.len_utf8();
        } else if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
        } else if let Some((literal, length)) = text(rest) {
            found.push(Token {
                word: Word::Text(literal?),
                at,
            });
            at += length;
        } else if first.is_ascii_digit() || (first == '.' && rest[1..].starts_with(|next: char| next.is_ascii_digit()))
        {
            let (literal, length) = number(rest)?;
            found.push(Token {
                word: Word::Number(literal),
                at,
            });
            at += length;
        } else if first.is_ascii_alphabetic() || first == '_' {
            let length = rest
                .find(|next: char| !next.is_ascii_alphanumeric() && next != '_')
                .unwrap_or(rest.len());
            found.push(Token {
                word: Word::Name(rest[..length].to_owned()),
                at,
            });
            at += length;
        } else {
            let sign = SIGNS.into_iter().find(|sign| rest.starts_with(sign))?;
            found.push(Token {
                word: Word::Sign(sign),
                at,
            });
            at += sign.len();
        }
    }
    Some(found)
}

fn number(rest: &str) -> Option<(Literal, usize)> {
    if let Some(digits) = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")) {
        let length = digits
            .find(|next: char| !next.is_ascii_hexdigit())
            .unwrap_or(digits.len());
        let (digits, after) = digits.split_at(length);
        return if after.starts_with(['u', 'U']) {
            Some((Literal::Uint(u64::from_str_radix(digits, 16).ok()?), length + 3))
        } else {
            Some((Literal::Int(i64::from_str_radix(digits, 16).ok()?), length + 2))
        };
    }
    let bytes = rest.as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut length = digits(0);
    let mut whole = true;
    if bytes.get(length) == Some(&b'.') && bytes.get(length + 1).is_some_and(u8::is_ascii_digit) {
        whole = false;
        length += 1 + digits(length + 1);
    }
    if matches!(bytes.get(length), Some(b'e' | b'E')) {
        let signed = usize::from(matches!(bytes.get(length + 1), Some(b'+' | b'-')));
        let exponent = digits(length + 1 + signed);
        if exponent > 0 {
            whole = false;
            length += 1 + signed + exponent;
        }
    }
    let text = &rest[..length];
    if !whole {
        return Some((Literal::Double(text.parse().ok()?), length));
    }
    if matches!(bytes.get(length), Some(b'u' | b'U')) {
        return Some((Literal::Uint(text.parse().ok()?), length + 1));
    }
    // The smallest integer has no positive counterpart: its sign is read later.
    let value = text.parse::<i64>().or_else(|_| {
        if text == "9223372036854775808" {
            Ok(i64::MIN)
        } else {
            Err(())
        }
    });
    Some((Literal::Int(value.ok()?), length))
}

/// A quoted text at the start, if there is one: its value (nothing if it is malformed) and length.
fn text(rest: &str) -> Option<(Option<Literal>, usize)> {
    let prefix = rest.find(|next: char| !matches!(next, 'r' | 'R' | 'b' | 'B'))?;
    let body = &rest[prefix..];
    if prefix > 2 || !body.starts_with(['"', '\'']) {
        return None;
    }
    let raw = rest[..prefix].contains(['r', 'R']);
    let bytes = rest[..prefix].contains(['b', 'B']);
    let quote = ["\"\"\"", "'''", "\"", "'"]
        .into_iter()
        .find(|quote| body.starts_with(quote))?;
    let mut value = Vec::new();
    let mut at = quote.len();
    loop {
        let here = &body[at..];
        if here.starts_with(quote) {
            at += quote.len();
            break;
        }
        let next = here.chars().next()?;
        if next == '\\' && !raw {
            let Some((unescaped, length)) = escape(&here[1..], bytes) else {
                return Some((None, rest.len()));
            };
            value.extend_from_slice(&unescaped);
            at += 1 + length;
        } else {
            value.extend_from_slice(next.encode_utf8(&mut [0; 4]).as_bytes());
            at += next.len_utf8();
        }
    }
    let literal = if bytes {
        Literal::Bytes(value)
    } else {
        Literal::Text(String::from_utf8_lossy(&value).into_owned())
    };
    Some((Some(literal), prefix + at))
}

fn escape(rest: &str, bytes: bool) -> Option<(Vec<u8>, usize)> {
    let first = rest.chars().next()?;
    let simple = match first {
        'a' => Some(7),
        'b' => Some(8),
        'f' => Some(12),
        'n' => Some(10),
        'r' => Some(13),
        't' => Some(9),
        'v' => Some(11),
        '\\' | '\'' | '"' | '`' | '?' => u8::try_from(first).ok(),
        _ => None,
    };
    if let Some(byte) = simple {
        return Some((vec![byte], 1));
    }
    let (digits, radix, skip) = match first {
        'x' | 'X' => (2, 16, 1),
        'u' => (4, 16, 1),
        'U' => (8, 16, 1),
        '0'..='3' => (3, 8, 0),
        _ => return None,
    };
    let code = u32::from_str_radix(rest.get(skip..skip + digits)?, radix).ok()?;
    let encoded = if bytes && digits < 4 {
        vec![u8::try_from(code).ok()?]
    } else {
        char::from_u32(code)?.to_string().into_bytes()
    };
    Some((encoded, skip + digits))
}
