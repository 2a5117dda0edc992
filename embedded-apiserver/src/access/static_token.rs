//! Bearer tokens that whoever starts the server names. Pure.

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::User;

/// The tokens, as digests: the tokens themselves are not kept.
#[derive(Clone, Default)]
pub struct StaticTokens {
    known: Vec<([u8; 32], User)>,
}

// Not even digests get into logs.
impl std::fmt::Debug for StaticTokens {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "StaticTokens({})", self.known.len())
    }
}

impl StaticTokens {
    /// Adds a token of a user. An empty token opens nothing.
    pub fn add(&mut self, token: &str, user: User) {
        if !token.is_empty() {
            self.known.push((Sha256::digest(token).into(), user));
        }
    }

    /// Whose token it is; how long the answer takes says nothing about the tokens.
    pub fn user(&self, token: &str) -> Option<&User> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let mut found = None;
        for (known, user) in &self.known {
            if bool::from(known.ct_eq(&digest)) {
                found = Some(user);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_as_a_whole_and_never_shown() {
        let mut tokens = StaticTokens::default();
        tokens.add("a-secret", User::authenticated("a", Vec::new()));
        tokens.add("", User::authenticated("nobody", Vec::new()));
        assert_eq!(tokens.user("a-secret").map(|user| user.name.as_str()), Some("a"));
        for wrong in ["", "a-secre", "a-secret ", "A-secret"] {
            assert_eq!(tokens.user(wrong), None, "{wrong:?}");
        }
        assert_eq!(format!("{tokens:?}"), "StaticTokens(1)");
    }
}
