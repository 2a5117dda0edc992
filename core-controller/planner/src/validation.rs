//! Verdicts on configs: one ValidateConfig per session of a provider and config,
//! whatever the number of machines that use it. The runtime keeps one [`Verdicts`].
//! Not for: calling the provider.

use std::collections::HashMap;

use actuator_proto::v1;
use fnv::FnvBuildHasher;

use crate::operation::{self, MAX_VIOLATIONS_SHOWN};

/// What is known of a config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Somebody asks just now.
    Asking,
    /// The provider takes it.
    Valid,
    /// The provider refuses it; the sentence names the places.
    Invalid(String),
}

impl Verdict {
    /// Reads the provider's answer.
    pub fn from_diagnostics(diagnostics: &[v1::Diagnostic]) -> Self {
        let mut errors = diagnostics.iter().filter(|found| {
            // A severity that this core does not know is no refusal; none told is one.
            matches!(
                v1::Severity::try_from(found.severity),
                Ok(v1::Severity::Error | v1::Severity::Unspecified)
            )
        });
        let shown: Vec<String> = errors
            .by_ref()
            .take(MAX_VIOLATIONS_SHOWN)
            .map(|found| operation::pointed(&found.json_pointer, &found.message))
            .collect();
        match (shown.is_empty(), errors.count()) {
            (true, _) => Self::Valid,
            (false, 0) => Self::Invalid(bounded(&shown.join("; "))),
            (false, more) => Self::Invalid(bounded(&format!("{}; and {more} more", shown.join("; ")))),
        }
    }
}

fn bounded(text: &str) -> String {
    actuator_proto::limits::bounded_text(text, actuator_proto::limits::MAX_TEXT_BYTES)
}

/// Which config, judged by which process of which provider.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// The provider's name.
    pub provider: String,
    /// Its process, as in [`crate::provider::Snapshot::instance_id`].
    pub session: String,
    /// SHA-256 over kind, version and JSON of the config.
    pub config: Vec<u8>,
}

/// The most verdicts that are kept; above it all are forgotten, and asked for anew as
/// they are needed.
const MAX_VERDICTS: usize = 4096;

/// The verdicts of all providers.
#[derive(Debug, Default)]
pub struct Verdicts {
    known: HashMap<Key, Verdict, FnvBuildHasher>,
}

impl Verdicts {
    /// What is known of this config; `None`: nobody has asked.
    pub fn get(&self, key: &Key) -> Option<&Verdict> {
        self.known.get(key)
    }

    /// Takes the question: true for the first, who then has to ask and to call
    /// [`Verdicts::answered`] or [`Verdicts::gave_up`]. False: somebody else asks, or it
    /// is answered.
    pub fn begin(&mut self, key: &Key) -> bool {
        if self.known.contains_key(key) {
            return false;
        }
        if self.known.len() >= MAX_VERDICTS {
            self.known.retain(|_, verdict| *verdict == Verdict::Asking);
        }
        self.known.insert(key.clone(), Verdict::Asking);
        true
    }

    /// Keeps the answer.
    pub fn answered(&mut self, key: Key, verdict: Verdict) {
        self.known.insert(key, verdict);
    }

    /// There was no answer: the next who needs it asks.
    pub fn gave_up(&mut self, key: &Key) {
        if self.known.get(key) == Some(&Verdict::Asking) {
            self.known.remove(key);
        }
    }

    /// Forgets every verdict of other sessions of this provider.
    pub fn keep_session(&mut self, provider: &str, session: &str) {
        self.known
            .retain(|key, _| key.provider != provider || key.session == session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(config: u8) -> Key {
        Key {
            provider: "fake".into(),
            session: "a".into(),
            config: vec![config],
        }
    }

    #[test]
    fn one_asks_for_all() {
        let mut verdicts = Verdicts::default();
        assert!(verdicts.begin(&key(1)));
        assert!(!verdicts.begin(&key(1)));
        verdicts.gave_up(&key(1));
        assert!(verdicts.begin(&key(1)));
        verdicts.answered(key(1), Verdict::Valid);
        assert!(!verdicts.begin(&key(1)));
        verdicts.gave_up(&key(1));
        assert_eq!(verdicts.get(&key(1)), Some(&Verdict::Valid));
        verdicts.keep_session("fake", "b");
        assert_eq!(verdicts.get(&key(1)), None);
    }

    #[test]
    fn refusals_name_pointer_and_reason_and_warnings_do_not_count() {
        let found = |severity: v1::Severity, pointer: &str| v1::Diagnostic {
            severity: severity.into(),
            json_pointer: pointer.into(),
            message: "too small".into(),
            requires_replacement: false,
        };
        assert_eq!(
            Verdict::from_diagnostics(&[found(v1::Severity::Warning, "/a")]),
            Verdict::Valid
        );
        assert_eq!(
            Verdict::from_diagnostics(&[
                found(v1::Severity::Error, "/disk/size"),
                found(v1::Severity::Unspecified, "")
            ]),
            Verdict::Invalid("at /disk/size: too small; too small".into())
        );
        let many = vec![found(v1::Severity::Error, "/a"); 9];
        let Verdict::Invalid(sentence) = Verdict::from_diagnostics(&many) else {
            unreachable!("nine errors are invalid")
        };
        assert!(sentence.ends_with("and 4 more"), "{sentence}");
    }

    #[test]
    fn the_number_of_verdicts_is_bounded() {
        let mut verdicts = Verdicts::default();
        for config in 0..=(MAX_VERDICTS as u32 + 10) {
            let key = Key {
                config: config.to_be_bytes().to_vec(),
                ..key(0)
            };
            if verdicts.begin(&key) {
                verdicts.answered(key, Verdict::Valid);
            }
        }
        assert!(verdicts.known.len() <= MAX_VERDICTS);
    }
}
