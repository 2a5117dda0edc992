//! The sizes and times of the contract, as numbers. Where a provider recommends
//! others (`GetInfoResponse.limits`, `.timings`), the bounds here still hold.

use std::time::Duration;

/// The longest plain string field, in bytes.
pub const MAX_STRING_BYTES: usize = 256;
/// The longest `provider_id`, in bytes.
pub const MAX_PROVIDER_ID_BYTES: usize = 512;
/// The largest opaque config, in bytes.
pub const MAX_CONFIG_BYTES: usize = 256 * 1024;
/// The largest bootstrap data that any provider may advertise, in bytes.
pub const MAX_BOOTSTRAP_BYTES: usize = 1024 * 1024;
/// The largest `provider_state`, in bytes.
pub const MAX_PROVIDER_STATE_BYTES: usize = 16 * 1024;
/// The most items in a page of a list.
pub const MAX_PAGE_ITEMS: usize = 500;
/// The largest page of a list, in bytes.
pub const MAX_PAGE_BYTES: usize = 1024 * 1024;
/// The largest message in either direction, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// The longest message of an error, in bytes.
pub const MAX_ERROR_MESSAGE_BYTES: usize = 1024;
/// The largest error status with its details, in bytes.
pub const MAX_STATUS_BYTES: usize = 4 * 1024;
/// The largest chunk of console output, in bytes.
pub const MAX_CONSOLE_CHUNK_BYTES: usize = 64 * 1024;
/// The longest path of a Unix socket, in bytes.
pub const MAX_SOCKET_PATH_BYTES: usize = 100;
/// The longest text of a condition, a diagnostic or a failure, in bytes.
pub const MAX_TEXT_BYTES: usize = 1024;
/// The most diagnostics in one answer.
pub const MAX_DIAGNOSTICS: usize = 100;

/// The deadline of discovery and of identity calls.
pub const IDENTITY_DEADLINE: Duration = Duration::from_secs(5);
/// The deadline of Probe.
pub const PROBE_DEADLINE: Duration = Duration::from_secs(2);
/// The deadline of a static validation.
pub const VALIDATE_STATIC_DEADLINE: Duration = Duration::from_secs(2);
/// The deadline of a preflight validation.
pub const VALIDATE_PREFLIGHT_DEADLINE: Duration = Duration::from_secs(15);
/// The deadline of Exists, unless the provider recommends a longer one.
pub const EXISTS_DEADLINE: Duration = Duration::from_secs(20);
/// The deadline of a mutation, unless the provider recommends a longer one.
pub const MUTATION_DEADLINE: Duration = Duration::from_mins(1);
/// The deadline of one page of a list.
pub const LIST_PAGE_DEADLINE: Duration = Duration::from_secs(30);
/// The longest deadline that the core ever gives, whatever is recommended.
pub const MAX_DEADLINE: Duration = Duration::from_mins(5);
/// How often an idle connection is checked.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// How often a watch sends a bookmark at least.
pub const BOOKMARK_INTERVAL: Duration = Duration::from_secs(30);
/// How often a changing resource is asked for, unless the provider says.
pub const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// Whether a character may stand in a text of the other side: no control characters, and
/// none that turn the direction of writing or cannot be seen, which make a text look like
/// another one. Newline and tab may.
pub fn is_harmless(character: char) -> bool {
    match character {
        '\n' | '\t' => true,
        '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{feff}' => false,
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => false,
        other => !other.is_control(),
    }
}

/// Cuts `text` to at most `max_bytes` at a character boundary, and strips what is not
/// harmless: strings of the other side are untrusted.
pub fn bounded_text(text: &str, max_bytes: usize) -> String {
    bounded(text.chars(), max_bytes)
}

/// The same as one line, so that no text can look like several lines of a log.
pub fn bounded_line(text: &str, max_bytes: usize) -> String {
    let space = |character| match character {
        '\n' | '\t' => ' ',
        other => other,
    };
    bounded(text.chars().map(space), max_bytes)
}

fn bounded(characters: impl Iterator<Item = char>, max_bytes: usize) -> String {
    let mut bounded = String::new();
    for character in characters.filter(|character| is_harmless(*character)) {
        if bounded.len() + character.len_utf8() > max_bytes {
            break;
        }
        bounded.push(character);
    }
    bounded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_turns_the_direction_of_writing_is_stripped() {
        assert_eq!(bounded_text("a\u{202e}b\u{2066}c\u{feff}\u{9b}d\ne", 64), "abcd\ne");
        assert_eq!(bounded_line("a\r\nb\tc", 64), "a b c");
    }

    proptest! {
        #[test]
        fn bounded_text_is_short_and_clean(text in ".*", max in 0usize..64) {
            let bounded = bounded_text(&text, max);
            prop_assert!(bounded.len() <= max);
            prop_assert!(!bounded.chars().any(|c| c.is_control() && c != '\n' && c != '\t'));
        }

        #[test]
        fn a_bounded_line_is_one_line(text in ".*", max in 0usize..64) {
            let line = bounded_line(&text, max);
            prop_assert!(line.len() <= max);
            prop_assert!(line.chars().all(|c| is_harmless(c) && c != '\n' && c != '\t'));
        }

        #[test]
        fn bounded_text_keeps_what_fits(text in "[a-zA-Z0-9 äöü]{0,40}") {
            prop_assert_eq!(bounded_text(&text, 1024), text);
        }
    }
}
