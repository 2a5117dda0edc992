//! What a user writes into `providerSpec`, and what is wrong with it beyond its schema.
//! Pure.

pub mod cluster;
pub mod machine;

use provider_sdk::Diagnostic;

use crate::ec2::Tags;
use crate::tags::{MAX_ASKED_FOR, is_reserved};

/// What is wrong with the tags at this JSON pointer.
fn check_tags(at: &str, tags: &Tags) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    if tags.len() > MAX_ASKED_FOR {
        found.push(Diagnostic::error(
            at,
            format!("there are {} tags, at most {MAX_ASKED_FOR} are allowed", tags.len()),
        ));
    }
    for (key, value) in tags {
        let at = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
        if is_reserved(key) {
            found.push(Diagnostic::error(
                &at,
                format!(
                    "the key {key:?} is reserved; outrigger.dev/, kubernetes.io/cluster/ and aws: are not for users"
                ),
            ));
        }
        if key.is_empty() || key.chars().count() > 128 || value.chars().count() > 256 {
            found.push(Diagnostic::error(
                &at,
                "EC2 takes keys of 1 to 128 characters and values of at most 256",
            ));
        }
    }
    found
}

/// Whether this is an id of this kind: the prefix, a hyphen, hexadecimal digits.
pub fn is_id(text: &str, prefix: &str) -> bool {
    let digits = text.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-'));
    digits.is_some_and(|digits| (8..=17).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn check_id(at: impl Into<String>, text: &str, prefix: &str) -> Option<Diagnostic> {
    let wrong = || {
        Diagnostic::error(
            at,
            format!("{text:?} is no id; it looks like {prefix}-0123456789abcdef0"),
        )
    };
    (!is_id(text, prefix)).then(wrong)
}

/// Whether this looks like a region: it becomes part of a host's name.
pub fn is_region(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let word = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase());
    match parts.as_slice() {
        [words @ .., number] if words.len() >= 2 => {
            words.iter().all(word) && number.len() <= 2 && number.parse::<u8>().is_ok()
        }
        _ => false,
    }
}

fn check_region(at: &str, text: &str) -> Option<Diagnostic> {
    (!is_region(text)).then(|| Diagnostic::error(at, format!("{text:?} is no region; it looks like eu-central-1")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_and_ids_are_told_from_other_text() {
        for region in ["eu-central-1", "us-gov-west-1", "ap-southeast-2", "cn-north-1"] {
            assert!(is_region(region), "{region}");
        }
        for other in [
            "",
            "eu",
            "eu-central",
            "evil.example/eu-west-1",
            "EU-CENTRAL-1",
            "eu--1",
            "eu-central-1a",
        ] {
            assert!(!is_region(other), "{other}");
        }
        assert!(is_id("ami-0123456789abcdef0", "ami") && is_id("vpc-12345678", "vpc"));
        assert!(
            !is_id("ami-", "ami") && !is_id("vpc-0123456789abcdef0", "ami") && !is_id("ami-0123456789abcdeg0", "ami")
        );
    }

    #[test]
    fn tags_are_checked_where_they_stand() {
        let tags: Tags = [("aws:x".to_owned(), String::new()), ("a/b".to_owned(), "v".repeat(257))].into();
        let found = check_tags("/tags", &tags);
        let at: Vec<&str> = found.iter().map(|it| it.pointer.as_str()).collect();
        assert_eq!(at, ["/tags/a~1b", "/tags/aws:x"]);
        let many: Tags = (0..31).map(|number| (number.to_string(), String::new())).collect();
        assert_eq!(check_tags("/tags", &many).len(), 1);
    }
}
