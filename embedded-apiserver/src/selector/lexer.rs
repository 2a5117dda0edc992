//! The tokens of label selectors.
//!
//! For: the parser in `label`. Not for: field selectors, which have no tokens.

/// A token with the text it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    End,
    Identifier,
    In,
    NotIn,
    OpenParenthesis,
    CloseParenthesis,
    Comma,
    Exclamation,
    Equals,
    DoubleEquals,
    NotEquals,
    GreaterThan,
    LessThan,
}

/// Splits a selector into tokens; always ends with [`Token::End`].
pub(super) fn tokens(text: &str) -> Vec<(Token, &str)> {
    let mut tokens = Vec::new();
    let bytes = text.as_bytes();
    let mut position = 0;
    while position < bytes.len() {
        let start = position;
        match bytes[position] {
            0 => break,
            b' ' | b'\t' | b'\r' | b'\n' => position += 1,
            byte if is_special(byte) => {
                position += if matches!(bytes.get(position..position + 2), Some(b"==" | b"!=")) {
                    2
                } else {
                    1
                };
                let literal = &text[start..position];
                tokens.push((special(literal), literal));
            }
            _ => {
                while position < bytes.len() && !is_special(bytes[position]) && !is_space(bytes[position]) {
                    position += 1;
                }
                let literal = &text[start..position];
                let token = match literal {
                    "in" => Token::In,
                    "notin" => Token::NotIn,
                    _ => Token::Identifier,
                };
                tokens.push((token, literal));
            }
        }
    }
    tokens.push((Token::End, ""));
    tokens
}

fn is_space(byte: u8) -> bool {
    matches!(byte, 0 | b' ' | b'\t' | b'\r' | b'\n')
}

fn is_special(byte: u8) -> bool {
    matches!(byte, b'=' | b'!' | b'(' | b')' | b',' | b'>' | b'<')
}

fn special(literal: &str) -> Token {
    match literal {
        "(" => Token::OpenParenthesis,
        ")" => Token::CloseParenthesis,
        "," => Token::Comma,
        "!" => Token::Exclamation,
        "=" => Token::Equals,
        "==" => Token::DoubleEquals,
        "!=" => Token::NotEquals,
        ">" => Token::GreaterThan,
        _ => Token::LessThan,
    }
}
