//! Idempotency keys: derived from the UID of an object, the same for its life.

use std::fmt;

/// The longest key, in bytes; it fits an EC2 ClientToken.
pub const MAX_KEY_BYTES: usize = 64;

/// Why a key is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InvalidKey {
    /// It has no characters.
    Empty,
    /// It has more than [`MAX_KEY_BYTES`].
    TooLong(usize),
    /// It has a character outside `[A-Za-z0-9._-]`.
    Character(char),
}

impl fmt::Display for InvalidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(
                f,
                "the key is empty; 1 to {MAX_KEY_BYTES} of [A-Za-z0-9._-] are allowed"
            ),
            Self::TooLong(length) => {
                write!(f, "the key has {length} bytes; at most {MAX_KEY_BYTES} are allowed")
            }
            Self::Character(character) => {
                write!(f, "the key contains {character:?}; only [A-Za-z0-9._-] are allowed")
            }
        }
    }
}

impl std::error::Error for InvalidKey {}

/// The key of the object with this UID. Deriving it costs nothing and it is the
/// same in every process, so that a replay after any crash finds the same resource.
pub fn derive(object_uid: &str) -> String {
    object_uid
        .chars()
        .filter(|character| is_key_character(*character))
        .take(MAX_KEY_BYTES)
        .collect()
}

/// Checks that `key` is 1 to 64 of `[A-Za-z0-9._-]`.
pub fn validate(key: &str) -> Result<(), InvalidKey> {
    if key.is_empty() {
        return Err(InvalidKey::Empty);
    }
    if key.len() > MAX_KEY_BYTES {
        return Err(InvalidKey::TooLong(key.len()));
    }
    match key.chars().find(|character| !is_key_character(*character)) {
        Some(character) => Err(InvalidKey::Character(character)),
        None => Ok(()),
    }
}

fn is_key_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_is_its_own_key() {
        let uid = "0d7ae3a4-6ee0-4c6e-8f0a-1c3b4f2f5a10";
        assert_eq!(derive(uid), uid);
        assert_eq!(validate(&derive(uid)), Ok(()));
    }

    #[test]
    fn bad_keys_are_named() {
        assert_eq!(validate(""), Err(InvalidKey::Empty));
        assert_eq!(validate(&"a".repeat(65)), Err(InvalidKey::TooLong(65)));
        assert_eq!(validate("a b"), Err(InvalidKey::Character(' ')));
        assert_eq!(validate(&"a".repeat(64)), Ok(()));
    }
}
